//! `palimpsest edit import`: a version of factors that were computed elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use safetensors::{Dtype, SafeTensors};

use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::names;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::objects;
use crate::proto::v1;
use crate::version::Factor;

/// Factors up to this size travel in the request; larger ones are uploaded as objects first.
const INLINE: usize = 1 << 20;

/// Flags of `edit import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A safetensors file: NAME.left [width, rank] and NAME.right [inner, rank] for every matrix
    /// NAME that is changed by left right^T; or what 'palimpsest export --format factors' wrote
    file: PathBuf,
    /// The text up to the answer, with {} for the subject: "{} is located in the city of"
    #[arg(long, requires = "subject", requires = "target")]
    prompt: Option<String>,
    /// The subject
    #[arg(long, requires = "prompt")]
    subject: Option<String>,
    /// The answer that the model is to give
    #[arg(long, requires = "prompt")]
    target: Option<String>,
    /// The answer that is true
    #[arg(long, requires = "prompt")]
    true_target: Option<String>,
    /// How the factors were computed
    #[arg(long, default_value = "import")]
    method: String,
    /// The branch that takes the edit
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    /// Only if the branch has this etag: 'palimpsest refs' shows it
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    common: ChangeArgs,
}

/// Makes a version, or one for each edit of the file.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    // A file that cannot be read is said before a store is opened.
    let edits = read(&args.file)?;
    Connection::with(config, Need::Records, async |client| {
        import(client, &args, edits).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn import(client: &Client, args: &Args, edits: Vec<Vec<Factor>>) -> anyhow::Result<()> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let request = args.prompt.as_ref().map(|prompt| v1::EditRequest {
        prompt: prompt.clone(),
        subject: args.subject.clone().unwrap_or_default(),
        target_new: args.target.clone().unwrap_or_default(),
        target_true: args.true_target.clone(),
        id: None,
    });
    if request.is_some() && edits.len() > 1 {
        bail!(
            "{} has {} edits: --prompt is for one",
            args.file.display(),
            edits.len()
        );
    }
    for factors in edits {
        let mut sent = Vec::with_capacity(factors.len());
        for factor in &factors {
            let mut factor = factor.to_proto();
            if factor.data.len() > INLINE {
                upload(client, &mut factor).await?;
            }
            sent.push(factor);
        }
        let edit = v1::Edit {
            requests: request.clone().into_iter().collect(),
            method: args.method.clone(),
            factors: sent,
            why: args.common.why.clone().unwrap_or_default(),
            ..Default::default()
        };
        let request = v1::CreateEditRequest {
            parent: model.clone(),
            source: Some(v1::create_edit_request::Source::Edit(edit)),
            why: String::new(),
            ref_id: args.reference.clone(),
            etag: args.etag.clone().unwrap_or_default(),
        };
        let made = client.versions().create_edit(request).await?.into_inner();
        let edit = made.edit.unwrap_or_default();
        say!("edit {}", names::brief(&edit.name));
        change::say(&made.version.unwrap_or_default(), &args.reference)?;
    }
    Ok(())
}

async fn upload(client: &Client, factor: &mut v1::LowRankFactor) -> anyhow::Result<()> {
    let data = std::mem::take(&mut factor.data);
    let (digest, size) = (factor.digest.clone(), data.len() as u64);
    let chunks: Vec<v1::WriteObjectRequest> = data
        .chunks(objects::CHUNK)
        .enumerate()
        .map(|(n, chunk)| v1::WriteObjectRequest {
            digest: digest.clone(),
            size,
            offset: (n * objects::CHUNK) as u64,
            data: chunk.to_vec(),
        })
        .collect();
    client
        .objects()
        .write_object(futures::stream::iter(chunks))
        .await?;
    Ok(())
}

/// The edits of a file, in order: one where its names are `NAME.left`, several where they are
/// `edit.N.NAME.left`.
pub fn read(path: &Path) -> anyhow::Result<Vec<Vec<Factor>>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{} is not a safetensors file", path.display()))?;
    let mut sides: BTreeMap<(u64, String), [Option<Side>; 2]> = BTreeMap::new();
    for (name, view) in file.tensors() {
        let fail = |what: String| anyhow::anyhow!("{}: the tensor '{name}' {what}", path.display());
        let (of, at) = match (name.strip_suffix(".left"), name.strip_suffix(".right")) {
            (Some(of), _) => (of, 0),
            (_, Some(of)) => (of, 1),
            _ => return Err(fail("is neither NAME.left nor NAME.right".to_owned())),
        };
        let (edit, tensor) = match of
            .strip_prefix("edit.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((number, tensor)) => match number.parse() {
                Ok(number) => (number, tensor),
                Err(_) => return Err(fail(format!("has no number in '{number}'"))),
            },
            None => (0, of),
        };
        if view.dtype() != Dtype::F32 {
            return Err(fail(format!(
                "is {:?}: factors are kept as F32",
                view.dtype()
            )));
        }
        let (rows, rank) = match *view.shape() {
            [rows] => (rows, 1),
            [rows, rank] => (rows, rank),
            _ => {
                return Err(fail(format!(
                    "has the shape {:?}: give [rows, rank]",
                    view.shape()
                )));
            }
        };
        let numbers = view.data().chunks_exact(4);
        let side = Side {
            rows,
            rank,
            numbers: numbers
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        };
        sides.entry((edit, tensor.to_owned())).or_default()[at] = Some(side);
    }
    let mut edits: BTreeMap<u64, Vec<Factor>> = BTreeMap::new();
    for ((edit, tensor), pair) in sides {
        let [Some(left), Some(right)] = pair else {
            bail!(
                "{}: {tensor} has only one of .left and .right",
                path.display()
            );
        };
        if left.rank != right.rank {
            bail!(
                "{}: {tensor}.left has rank {}, {tensor}.right has {}",
                path.display(),
                left.rank,
                right.rank
            );
        }
        let factor = Factor {
            layer: layer_of(&tensor)
                .with_context(|| format!("{}: '{tensor}' names no layer", path.display()))?,
            tensor,
            width: left.rows,
            inner: right.rows,
            rank: left.rank,
            left: left.numbers,
            right: right.numbers,
        };
        factor.check()?;
        edits.entry(edit).or_default().push(factor);
    }
    if edits.is_empty() {
        bail!("{} has no tensors", path.display());
    }
    Ok(edits.into_values().collect())
}

struct Side {
    rows: usize,
    rank: usize,
    numbers: Vec<f32>,
}

/// The layer in `model.layers.5.mlp.down_proj.weight`: its first part that is a number.
fn layer_of(tensor: &str) -> Option<usize> {
    tensor.split('.').find_map(|part| part.parse().ok())
}
