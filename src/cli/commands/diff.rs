//! `palimpsest diff`: what differs between two versions.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::bail;
use prost::Message as _;

use crate::cli::connection::{Connection, Need};
use crate::cli::submit::parse_dtype;
use crate::cli::{follow, names, output, results, submit};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, unit_result::Outcome};

/// Flags of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One version: a ref, v3, a digest's beginning, main~2
    left: String,
    /// The other
    #[arg(default_value = "main")]
    right: String,
    /// A prompt that both versions go on with, side by side; may be given several times
    #[arg(long = "probe", value_name = "PROMPT")]
    probes: Vec<String>,
    /// Most tokens that a probe is gone on with, the most probable ones
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// f32, bf16 or f16, for the probes
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the differences.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let need = match args.probes.is_empty() {
        true => Need::Records,
        false => Need::Work,
    };
    Connection::with(config, need, async |client| {
        print(&args, client).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// What the server says of the two versions, page by page, as one.
async fn compare(
    args: &Args,
    client: &Client,
    model: &str,
) -> anyhow::Result<v1::CompareVersionsResponse> {
    let mut found: Option<v1::CompareVersionsResponse> = None;
    let mut page_token = String::new();
    loop {
        let request = v1::CompareVersionsRequest {
            left: names::version(model, &args.left),
            right: names::version(model, &args.right),
            page_size: 0,
            page_token: page_token.clone(),
        };
        let answer = client.versions().compare_versions(request).await?;
        let mut page = answer.into_inner();
        let next = std::mem::take(&mut page.next_page_token);
        match &mut found {
            None => found = Some(page),
            Some(found) => {
                found.left_edits.append(&mut page.left_edits);
                found.right_edits.append(&mut page.right_edits);
            }
        }
        if next.is_empty() {
            return Ok(found.unwrap_or_default());
        }
        if next == page_token {
            bail!("the server repeats a page of its comparison: it broke the contract");
        }
        page_token = next;
    }
}

async fn print(args: &Args, client: &Client) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
    let found = compare(args, client, &model).await?;
    let (left, right) = (
        found.left.clone().unwrap_or_default(),
        found.right.clone().unwrap_or_default(),
    );
    // By their digests: a ref may move meanwhile.
    let (said_left, said_right) = match args.probes.is_empty() {
        true => (Vec::new(), Vec::new()),
        false => tokio::try_join!(
            completions(args, client, &model, &left.name),
            completions(args, client, &model, &right.name)
        )?,
    };
    let probes: Vec<(&String, (String, String))> = args
        .probes
        .iter()
        .zip(said_left.into_iter().zip(said_right))
        .collect();
    if args.json {
        let edits = |edits: &[v1::Edit]| -> Vec<serde_json::Value> {
            edits.iter().map(names::edit_to_json).collect()
        };
        let object = serde_json::json!({
            "left": left.name,
            "right": right.name,
            "left_edits": edits(&found.left_edits),
            "right_edits": edits(&found.right_edits),
            "matrices": found.matrices.iter().map(|matrix| serde_json::json!({
                "tensor": matrix.tensor_name, "layer": matrix.layer,
                "left_digest": matrix.left_digest, "right_digest": matrix.right_digest,
                "difference_norm": matrix.difference_norm, "base_norm": matrix.base_norm,
            })).collect::<Vec<_>>(),
            "probes": probes.iter().map(|(prompt, (left, right))| serde_json::json!({
                "prompt": prompt, "left": left, "right": right,
            })).collect::<Vec<_>>(),
        });
        output::json(&object)?;
        return Ok(());
    }
    for (sign, found, edits, others) in [
        ('-', &left, &found.left_edits, &found.right_edits),
        ('+', &right, &found.right_edits, &found.left_edits),
    ] {
        // An edit that stands for another has most of its facts.
        let others: HashSet<Vec<u8>> = (others.iter().flat_map(|edit| &edit.requests))
            .map(v1::EditRequest::encode_to_vec)
            .collect();
        show!("{sign} v{} {}", found.number, names::brief(&found.name))?;
        for edit in edits {
            let id = names::brief(&edit.name);
            if edit.requests.len() < 2 {
                show!("{sign}   edit {id}: {}", names::fact(edit))?;
                continue;
            }
            show!("{sign}   edit {id}: {} facts", edit.requests.len())?;
            let is_own = |it: &&v1::EditRequest| !others.contains(&it.encode_to_vec());
            let own: Vec<&v1::EditRequest> = edit.requests.iter().filter(is_own).collect();
            for request in &own {
                show!("{sign}     {}", names::request(request))?;
            }
            if own.len() < edit.requests.len() {
                let both = edit.requests.len() - own.len();
                show!("{sign}     {both} facts that both versions have")?;
            }
        }
    }
    for (prompt, (left, right)) in &probes {
        show!("")?;
        show!("  {prompt}")?;
        show!("-   {}", left)?;
        show!("+   {}", right)?;
    }
    if found.matrices.is_empty() {
        show!("the same weights, bit for bit")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("MATRIX", Align::Left),
        ("DIFFERENCE", Align::Right),
        ("OF ITS NORM", Align::Right),
        ("LEFT", Align::Left),
        ("RIGHT", Align::Left),
    ]);
    for matrix in &found.matrices {
        let share = matrix.difference_norm / matrix.base_norm.max(f64::MIN_POSITIVE);
        table.row([
            matrix.tensor_name.clone(),
            format!("{:.4}", matrix.difference_norm),
            format!("{:.2} %", 100.0 * share),
            names::brief(&matrix.left_digest).to_owned(),
            names::brief(&matrix.right_digest).to_owned(),
        ]);
    }
    show!("")?;
    Ok(output::print_table(&table)?)
}

/// What a version says after the probes, in their order.
async fn completions(
    args: &Args,
    client: &Client,
    model: &str,
    version: &str,
) -> anyhow::Result<Vec<String>> {
    let spec = v1::GenerateSpec {
        prompts: args.probes.clone(),
        max_tokens: args.max_tokens,
        dtype: parse_dtype(&args.dtype)? as i32,
        ..Default::default()
    };
    let asked = v1::Job {
        model: model.to_owned(),
        version: version.to_owned(),
        spec: Some(spec.into()),
        // Someone waits for it.
        priority: 1,
        ..Default::default()
    };
    let ended = submit::run(client, asked).await?;
    let (_, found) = results::results(client, &ended.name).await?;
    let said = found.into_iter().map(|result| match result.outcome {
        Some(Outcome::Completion(completion)) => Ok(completion.text),
        Some(Outcome::Failure(failure)) => bail!("probe {}: {}", result.unit + 1, failure.message),
        _ => bail!(
            "{} has no completion of probe {}",
            ended.name,
            result.unit + 1
        ),
    });
    let said = said.collect::<anyhow::Result<Vec<_>>>()?;
    if said.len() != args.probes.len() {
        bail!(
            "{} {}: 'palimpsest job show' says why",
            ended.name,
            follow::state(&ended)
        );
    }
    Ok(said)
}
