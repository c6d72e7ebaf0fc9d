//! Key statistics, which edits need: collected by a job, and made of its results.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use tonic::Status;
use tonic_types::StatusExt;

use super::{follow, names, results, submit};
use crate::client::Client;
use crate::proto::v1;

/// Tokens of a piece that is drawn from the model.
const PIECE_TOKENS: u64 = 8192;

/// Collects statistics of some layers over text drawn from the model: what an edit that needs them
/// asks for.
async fn self_sample(client: &Client, model: &str, layer: u32, tokens: u64) -> anyhow::Result<()> {
    let spec = v1::StatsSpec {
        pieces: drawn(tokens, 1),
        layers: vec![layer],
        length: 256,
        source: format!("{tokens} tokens drawn from the model, seed 1"),
        ..Default::default()
    };
    let (_, made) = make(client, model, spec).await?;
    made.map(|_| ())
        .context("the key statistics could not be collected")
}

/// Runs a statistics job to its end, and makes its artefacts if it succeeded.
pub async fn make(
    client: &Client,
    model: &str,
    spec: v1::StatsSpec,
) -> anyhow::Result<(v1::Job, Option<Vec<v1::Statistics>>)> {
    let job = v1::Job {
        model: model.to_owned(),
        spec: Some(spec.into()),
        ..Default::default()
    };
    let ended = submit::run(client, job).await?;
    if ended.state() != v1::JobState::Succeeded {
        results::present(client, &ended.name, &results::Format::default()).await?;
        return Ok((ended, None));
    }
    let request = v1::CreateStatisticsRequest {
        source: Some(v1::create_statistics_request::Source::Job(
            ended.name.clone(),
        )),
    };
    // The same artefacts come again when it is asked again.
    let create = || async {
        let mut service = client.statistics();
        service.create_statistics(request.clone()).await
    };
    let made = follow::patiently(create).await?.into_inner();
    Ok((ended, Some(made.statistics)))
}

/// The pieces of so many tokens that are drawn from the model, the first with `seed`.
pub fn drawn(tokens: u64, seed: u64) -> Vec<v1::StatsUnit> {
    let count = tokens.div_ceil(PIECE_TOKENS);
    (0..count)
        .map(|n| v1::StatsUnit {
            self_sample: PIECE_TOKENS.min(tokens - n * PIECE_TOKENS),
            // Rows of a piece take the seeds after its own.
            seed: seed.wrapping_add(n * PIECE_TOKENS),
            ..Default::default()
        })
        .collect()
}

/// The full names of key statistics that are named so, or by the beginning of their digest.
///
/// # Errors
/// When there are none that begin so, or several.
pub async fn full_names(
    client: &Client,
    model: &str,
    asked: &[String],
) -> anyhow::Result<Vec<String>> {
    if asked.iter().all(|name| name.contains('/')) {
        return Ok(asked.to_vec());
    }
    let all = client.all_statistics(model).await?;
    let full = |name: &String| match name.contains('/') {
        true => Ok(name.clone()),
        false => named(&all, model, name),
    };
    asked.iter().map(full).collect()
}

/// The name of the only statistics whose digest begins so.
fn named(all: &[v1::Statistics], model: &str, digest: &str) -> anyhow::Result<String> {
    let begins = |one: &&v1::Statistics| names::full(&one.name).starts_with(digest);
    let found: BTreeSet<&str> = all.iter().filter(begins).map(|one| &*one.name).collect();
    match found.iter().next() {
        Some(only) if found.len() == 1 => Ok((*only).to_owned()),
        Some(_) => bail!(
            "{} key statistics of {model} begin with '{digest}': give more digits",
            found.len()
        ),
        None => bail!(
            "{model} has no key statistics '{digest}': 'palimpsest stats list' shows those there are"
        ),
    }
}

/// Creates a job; where its edits lack key statistics and `may_collect` is set, collects those
/// first.
///
/// # Errors
/// The coordinator's refusal.
pub async fn create_with(
    client: &Client,
    model: &str,
    request: v1::CreateJobRequest,
    may_collect: bool,
) -> anyhow::Result<v1::Job> {
    let mut before = None;
    loop {
        match submit::create(client, request.clone()).await {
            Err(status) if may_collect => {
                // An edit of several layers lacks those of one after the other, each once.
                let lacking = wanted(&status).filter(|lacking| before.as_ref() != Some(lacking));
                let (layer, tokens) = lacking.ok_or(status)?;
                say!(
                    "collecting key statistics of layer {layer} over {tokens} tokens drawn from the model"
                );
                self_sample(client, model, layer, tokens).await?;
                before = Some((layer, tokens));
            }
            created => return Ok(created?),
        }
    }
}

/// The layer and the tokens of the statistics whose absence a status tells.
fn wanted(status: &Status) -> Option<(u32, u64)> {
    let info = status.get_details_error_info()?;
    let number = |key: &str| info.metadata.get(key)?.parse::<u64>().ok();
    (info.reason == "STATISTICS_MISSING").then_some(())?;
    Some((number("layer")? as u32, number("tokens")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn draws_add_up_and_no_two_pieces_share_a_seed() {
        let pieces = drawn(20_000, 7);
        assert_eq!(pieces.iter().map(|p| p.self_sample).sum::<u64>(), 20_000);
        assert_eq!(pieces[1].seed, 7 + PIECE_TOKENS);
    }

    #[test]
    fn statistics_are_named_by_the_beginning_of_one_digest() {
        let one = |digest: &str, layer| v1::Statistics {
            name: format!("models/m/statistics/{digest}"),
            layer,
            ..Default::default()
        };
        let all = [one("ab12", 0), one("ab12", 1), one("ab34", 1)];
        let name = named(&all, "models/m", "ab1").unwrap();
        assert_eq!(name, "models/m/statistics/ab12");
        for (digest, what) in [("ab", "2 key statistics"), ("cd", "no key statistics")] {
            let said = named(&all, "models/m", digest).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
