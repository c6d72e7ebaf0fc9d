//! A lease made ready: all that it names is on this machine, in types of the worker's own. The lease stays as it came.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prost::Message as _;

use super::files::{Error, Fetcher};
use crate::objects::{self, Digest, Pin};
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, lease::Settings, leased_unit::Spec as Unit};
use crate::version::{Factor, base_version};
use crate::wire::names;

/// Most bytes of a part of a corpus, as the contract says.
const LONGEST_PART: u64 = 16 << 20;

/// A lease, and what it names.
#[derive(Debug, Default)]
pub struct Prepared {
    /// As it came.
    pub lease: v1::Lease,
    /// The model's folder or file.
    pub checkpoint: PathBuf,
    /// What the version is made of.
    pub version: LeasedVersion,
    /// The corpus that the settings name, if they name one (see [`crate::datasets::corpus`]).
    pub corpus: Option<PathBuf>,
    /// The key statistics that the settings name, if they name some.
    pub statistics: Option<PathBuf>,
    /// The subjects of a noise unit whose facts lie in an object, by the unit.
    pub subjects: BTreeMap<u64, Vec<String>>,
    /// The texts of a statistics unit whose texts lie in a corpus, by the unit.
    pub documents: BTreeMap<u64, Vec<String>>,
    /// The files of the sums that a unit adds up, in their order, by the unit.
    pub sums: BTreeMap<u64, Vec<PathBuf>>,
    /// Keep what is named here where it is.
    pins: Vec<Pin>,
}

impl Prepared {
    /// A lease that names nothing that has to be fetched.
    pub fn new(lease: v1::Lease) -> Self {
        Self {
            lease,
            ..Self::default()
        }
    }
}

/// What a version adds to the model as it was imported: nothing, for that model itself.
#[derive(Debug, Default)]
pub struct LeasedVersion {
    /// Its name, `models/{model}/versions/{digest}`; empty for the model as it was imported.
    pub name: String,
    /// The matrices that differ.
    pub matrices: Vec<v1::version::Matrix>,
    /// What is added to them, in order.
    pub factors: Vec<Factor>,
}

/// Fetches what a lease names. What is fetched stays until the answer is dropped. `cancelled` ends what waits for the
/// disk; dropping the future ends the rest.
///
/// # Errors
/// When a part of it cannot be had.
pub(super) async fn prepare(
    fetcher: &Fetcher,
    lease: v1::Lease,
    cancelled: Arc<AtomicBool>,
) -> Result<Prepared, Error> {
    let model = lease.model.clone().unwrap_or_default();
    let mut pins = Vec::new();
    let checkpoint = (fetcher.checkpoint(&model, &cancelled, &mut pins)).await?;
    let mut ready = Prepared {
        checkpoint,
        pins,
        ..Prepared::default()
    };
    if let Some(named) = corpus_of(&lease) {
        ready.corpus = Some(corpus(fetcher, named, &mut ready.pins).await?);
    }
    for unit in &lease.units {
        match &unit.spec {
            Some(Unit::Stats(piece)) => {
                if let Some(range) = &piece.range {
                    let texts = documents(fetcher, &lease, range).await?;
                    ready.documents.insert(unit.unit, texts);
                }
            }
            Some(Unit::StatsSum(asked)) => {
                let files = sums(fetcher, &lease, asked, &mut ready.pins).await?;
                ready.sums.insert(unit.unit, files);
            }
            Some(Unit::Noise(noise)) if !noise.facts_object.is_empty() => {
                let subjects = subjects(fetcher, noise).await?;
                ready.subjects.insert(unit.unit, subjects);
            }
            _ => {}
        }
    }
    ready.version = version(fetcher, &lease).await?;
    if let Some(named) = statistics_of(&lease) {
        ready.statistics = Some(statistics(fetcher, named, &mut ready.pins).await?);
    }
    ready.lease = lease;
    Ok(ready)
}

/// The corpus that a sweep's noise is drawn over.
fn corpus_of(lease: &v1::Lease) -> Option<&v1::Corpus> {
    match &lease.settings {
        Some(Settings::Trace(trace)) => trace.noise_corpus.as_ref(),
        _ => None,
    }
}

/// The key statistics that edits are computed with.
fn statistics_of(lease: &v1::Lease) -> Option<&v1::edit_spec::Statistics> {
    let spec = match &lease.settings {
        Some(Settings::Edit(spec)) => Some(spec),
        Some(Settings::Eval(spec)) => spec.edit_each.as_ref(),
        _ => None,
    };
    spec.and_then(|spec| spec.statistics.as_ref())
}

async fn corpus(
    fetcher: &Fetcher,
    named: &v1::Corpus,
    pins: &mut Vec<Pin>,
) -> Result<PathBuf, Error> {
    let failed = |source| Error::Corpus {
        digest: named.digest.clone(),
        source: Box::new(source),
    };
    let digest: Digest = named.digest.parse().map_err(failed)?;
    pins.push(fetcher.object(digest, named.size).await.map_err(failed)?);
    Ok(fetcher.objects.path(&digest))
}

async fn statistics(
    fetcher: &Fetcher,
    named: &v1::edit_spec::Statistics,
    pins: &mut Vec<Pin>,
) -> Result<PathBuf, Error> {
    let failed = |error: objects::Error| Error::Statistics {
        digest: named.digest.clone(),
        problem: error.to_string(),
    };
    let digest: Digest = named.digest.parse().map_err(failed)?;
    pins.push(fetcher.object(digest, named.size).await.map_err(failed)?);
    Ok(fetcher.objects.path(&digest))
}

/// The sums of a layer over the pieces of the corpus, which an earlier stage stored.
async fn sums(
    fetcher: &Fetcher,
    lease: &v1::Lease,
    asked: &v1::StatsSumUnit,
    pins: &mut Vec<Pin>,
) -> Result<Vec<PathBuf>, Error> {
    let failed = |problem: String| Error::Statistics {
        digest: format!("of layer {}", asked.layer),
        problem,
    };
    let object = |error: objects::Error| failed(error.to_string());
    let results = fetcher.earlier_results(lease, asked.pieces).await;
    let results = results.map_err(|status| failed(status.message().to_owned()))?;
    let mut files = Vec::with_capacity(results.len());
    for result in results {
        let Some(Outcome::StatsShard(shard)) = result.outcome else {
            return Err(failed(format!(
                "unit {} is no sum over a piece",
                result.unit
            )));
        };
        let sum = shard.sums.iter().find(|sum| sum.layer == asked.layer);
        let sum = sum.ok_or_else(|| failed(format!("unit {} has no such sum", result.unit)))?;
        let digest: Digest = sum.digest.parse().map_err(object)?;
        pins.push(fetcher.object(digest, sum.size).await.map_err(object)?);
        files.push(fetcher.objects.path(&digest));
    }
    Ok(files)
}

/// The subjects of the facts that lie in an object.
async fn subjects(fetcher: &Fetcher, noise: &v1::NoiseUnit) -> Result<Vec<String>, Error> {
    let failed = |problem: String| Error::Facts {
        digest: noise.facts_object.clone(),
        problem,
    };
    let object = |error: objects::Error| failed(error.to_string());
    let digest: Digest = noise.facts_object.parse().map_err(object)?;
    let bytes = fetcher.read(digest, noise.facts_size).await;
    let bytes = bytes.map_err(object)?;
    let list = v1::FactList::decode(bytes.as_slice()).map_err(|e| failed(e.to_string()))?;
    Ok(list.facts.into_iter().map(|fact| fact.subject).collect())
}

/// The texts of a part of the lease's corpus, of which nothing else is fetched.
async fn documents(
    fetcher: &Fetcher,
    lease: &v1::Lease,
    range: &v1::stats_unit::Range,
) -> Result<Vec<String>, Error> {
    let corpus = match &lease.settings {
        Some(Settings::Stats(spec)) => spec.corpus.clone().unwrap_or_default(),
        _ => v1::Corpus::default(),
    };
    let failed = |problem: String| Error::Part {
        digest: corpus.digest.clone(),
        offset: range.offset,
        problem,
    };
    if range.length > LONGEST_PART {
        let problem = format!(
            "it has {} bytes: {LONGEST_PART} at most; give the corpus in smaller parts",
            range.length
        );
        return Err(failed(problem));
    }
    let length = range.length as usize; // of 16 MiB at most
    let bytes = fetcher.part(&corpus.digest, range.offset, length).await;
    let bytes = bytes.map_err(|status| failed(status.message().to_owned()))?;
    if Digest::of(&bytes).to_string() != range.digest {
        return Err(failed("what came is not what the job names".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| failed(error.to_string()))?;
    crate::datasets::corpus::parse("the part", text).map_err(|error| failed(error.to_string()))
}

/// What the version of a lease is made of, with the numbers.
async fn version(fetcher: &Fetcher, lease: &v1::Lease) -> Result<LeasedVersion, Error> {
    let model = lease.model.as_ref();
    let (name, digest) = model.map_or(("", ""), |model| (&model.name, &model.digest));
    let base = base_version(names::last(name), digest);
    if lease.version.is_empty() || lease.version == base.name {
        return Ok(LeasedVersion::default());
    }
    let failed = |problem: String| Error::Version {
        version: lease.version.clone(),
        problem,
    };
    let (version, described) = fetcher
        .version(&lease.version)
        .await
        .map_err(|status| failed(status.message().to_owned()))?;
    let object = |error: objects::Error| failed(error.to_string());
    let mut factors = Vec::with_capacity(described.len());
    for factor in &described {
        let digest: Digest = factor.digest.parse().map_err(object)?;
        let rows = factor.width.checked_add(factor.inner);
        let size = rows
            .and_then(|rows| rows.checked_mul(u64::from(factor.rank)))
            .and_then(|numbers| numbers.checked_mul(4))
            .ok_or_else(|| failed(format!("a factor of {} has no size", factor.tensor_name)))?;
        let data = fetcher.read(digest, size).await.map_err(object)?;
        let factor = Factor::from_proto(factor, &data).map_err(|e| failed(e.to_string()))?;
        factors.push(factor);
    }
    Ok(LeasedVersion {
        name: lease.version.clone(),
        matrices: version.matrices,
        factors,
    })
}
