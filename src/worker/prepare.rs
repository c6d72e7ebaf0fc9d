//! A lease made ready: all that it names is on this machine, in types of the worker's own. The
//! lease stays as it came.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prost::Message as _;

use super::files::{Error, Fetcher};
use super::leased::{LeasedFactor, LeasedVersion};
use crate::edit::Method;
use crate::eval::Choice;
use crate::objects::{self, Digest, Pin};
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, lease::Settings, leased_unit::Spec as Unit};
use crate::version::{Factor, Rows, base_version, keys_of, rows_of_solve};
use crate::wire::names;
use crate::work;

/// Most bytes of a part of a corpus, as the contract says.
const LONGEST_PART: u64 = 16 << 20;

/// Factors of the version before that are looked through for the next one: those of an edit that
/// was taken out.
const NEAR: usize = 64;

/// A lease, and what it names.
#[derive(Debug, Default)]
pub struct Prepared {
    /// As it came.
    pub lease: v1::Lease,
    /// The model's folder or file.
    pub checkpoint: PathBuf,
    /// What the version is made of.
    pub version: Arc<LeasedVersion>,
    /// The corpus that the settings name, if they name one (see [`crate::datasets::corpus`]).
    pub corpus: Option<PathBuf>,
    /// The key statistics that the settings name, if they name some; of a mass edit those of the
    /// layer that is solved.
    pub statistics: Option<PathBuf>,
    /// What the edits of these units are judged by, beside their own prompts.
    pub gate_inputs: GateInputs,
    /// What the units of a mass edit need of earlier stages.
    pub mass: MassInputs,
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

/// The texts and questions that edits are judged by.
#[derive(Debug, Default)]
pub struct GateInputs {
    /// The texts of whoever asked.
    pub texts: Vec<String>,
    /// The coordinator's own.
    pub server_texts: Vec<String>,
    /// The questions of whoever asked.
    pub questions: Vec<Choice>,
}

/// What the units of a mass edit need of earlier stages.
#[derive(Debug, Default)]
pub struct MassInputs {
    /// The results of single units, by their numbers.
    pub results: BTreeMap<u64, Outcome>,
    /// The changes that were found so far in the batch, by layer.
    pub added: Vec<Factor>,
    /// The keys of the version's edits at the layer that is solved, `[keys, inner]` row by row as
    /// little-endian singles.
    pub past: Vec<u8>,
    /// Edits of the version that keep no keys, though they change that layer's matrix.
    pub without_keys: usize,
    /// Of a pre-flight, the key statistics of every layer.
    pub statistics: BTreeMap<u32, PathBuf>,
    /// The edits of the version, in order, without their factors.
    pub earlier: Vec<v1::Edit>,
    /// The keys that they keep.
    pub kept: Vec<KeptKeys>,
    /// What an edit keeps of the layer that is solved, of whose facts some are taken out.
    pub replaced: KeptRows,
}

/// What an edit keeps of a layer, row by row as little-endian singles.
#[derive(Debug, Default)]
pub struct KeptRows {
    /// `[columns, inner]`.
    pub keys: Vec<u8>,
    /// `[columns, width]`.
    pub residuals: Vec<u8>,
    /// The keys that later edits leave alone, `[columns, inner]`; none where it keeps none.
    pub protected: Option<Vec<u8>>,
}

/// Keys of an edit at a layer.
#[derive(Debug)]
pub struct KeptKeys {
    /// Its place among the edits.
    pub edit: usize,
    pub layer: u32,
    /// `[columns, inner]`, row by row as little-endian singles.
    pub file: PathBuf,
    pub inner: u64,
    pub columns: u32,
}

/// Fetches what a lease names. What is fetched stays until the answer is dropped. `cancelled` ends
/// what waits for the disk; dropping the future ends the rest.
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
    if let Some(Settings::MassEdit(spec)) = &lease.settings {
        mass_inputs(fetcher, &lease, spec, &mut ready).await?;
    }
    if let Some((texts, questions)) = judged_by(&lease) {
        let texts = texts.cloned().unwrap_or_default();
        ready.gate_inputs = GateInputs {
            texts: gate_texts(fetcher, texts.asked.as_ref()).await?,
            server_texts: gate_texts(fetcher, texts.server.as_ref()).await?,
            questions: gate_questions(fetcher, questions).await?,
        };
    }
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

/// The texts and questions that the edits of a lease are judged by: of a mass edit for its last step,
/// and for the one that checks them.
fn judged_by(lease: &v1::Lease) -> Option<(Option<&v1::GateTexts>, Option<&v1::GateQuestions>)> {
    let judges = |unit: &v1::LeasedUnit| match &unit.spec {
        Some(Unit::MassEdit(asked)) => {
            matches!(
                asked.step(),
                v1::MassEditStep::Edit | v1::MassEditStep::Check
            )
        }
        _ => true,
    };
    match &lease.settings {
        Some(Settings::Edit(spec)) => {
            Some((spec.gate_texts.as_ref(), spec.gate_questions.as_ref()))
        }
        Some(Settings::MassEdit(spec)) if lease.units.iter().any(judges) => {
            Some((spec.gate_texts.as_ref(), spec.gate_questions.as_ref()))
        }
        _ => None,
    }
}

async fn gate_texts(fetcher: &Fetcher, named: Option<&v1::Corpus>) -> Result<Vec<String>, Error> {
    let Some(named) = named else {
        return Ok(Vec::new());
    };
    let most = work::GATE_TEXTS_BYTES;
    let object = small_object(fetcher, &named.digest, named.size, most).await;
    let read = object.and_then(|object| work::gate_texts(&object));
    read.map_err(|problem| Error::GateTexts {
        digest: named.digest.clone(),
        problem,
    })
}

async fn gate_questions(
    fetcher: &Fetcher,
    named: Option<&v1::GateQuestions>,
) -> Result<Vec<Choice>, Error> {
    let Some(named) = named else {
        return Ok(Vec::new());
    };
    let most = work::GATE_QUESTIONS_BYTES;
    let object = small_object(fetcher, &named.digest, named.size, most).await;
    let read = object.and_then(|object| work::gate_questions(&object));
    read.map_err(|problem| Error::GateQuestions {
        digest: named.digest.clone(),
        problem,
    })
}

/// An object of at most so many bytes, whatever its size is said to be.
async fn small_object(
    fetcher: &Fetcher,
    digest: &str,
    size: u64,
    most: u64,
) -> Result<Vec<u8>, String> {
    if size > most {
        return Err(format!("it has {size} bytes, {most} at most"));
    }
    let digest: Digest = digest
        .parse()
        .map_err(|error: objects::Error| error.to_string())?;
    let object = fetcher.read(digest, size).await;
    object.map_err(|error| error.to_string())
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

/// What the units of a mass edit's lease need: they are of one stage.
async fn mass_inputs(
    fetcher: &Fetcher,
    lease: &v1::Lease,
    spec: &v1::MassEditSpec,
    ready: &mut Prepared,
) -> Result<(), Error> {
    let failed = |problem: String| Error::Earlier { problem };
    let mut solved: Vec<v1::UnitRange> = Vec::new();
    let mut wanted: Vec<v1::UnitRange> = Vec::new();
    for unit in &lease.units {
        let Some(Unit::MassEdit(asked)) = &unit.spec else {
            continue;
        };
        let more = asked.targets.iter().chain(&asked.keys);
        wanted.extend(more.chain(&asked.measured).chain(&asked.checked).copied());
        for range in &asked.solved {
            if !solved.contains(range) {
                solved.push(*range);
            }
        }
        if asked.step() == v1::MassEditStep::Check {
            checked(fetcher, lease, spec, ready).await?;
        }
        if asked.step() == v1::MassEditStep::Solve {
            let layer = spec.layers.get(asked.layer_index as usize).copied();
            let named = statistics_of_layer(spec, layer)?;
            ready.statistics = Some(statistics(fetcher, &named, &mut ready.pins).await?);
            let keeps = spec.method.parse::<Method>().is_ok_and(Method::keeps_keys);
            let replaced = spec.without.as_ref();
            if let Some(layer) = layer.filter(|_| keeps) {
                // Of the version that the facts were, or are, written on.
                let version = replaced.map_or(&lease.version, |it| &it.based_on);
                past_keys(fetcher, version, layer, &mut ready.mass).await?;
            }
            if let (Some(layer), Some(replaced)) = (layer, replaced) {
                let kept = kept_rows(fetcher, replaced, layer).await;
                ready.mass.replaced = kept.map_err(failed)?;
            }
        }
    }
    for range in joined(wanted).into_iter().chain(solved.iter().copied()) {
        let results = fetcher.earlier_results(lease, Some(range)).await;
        for result in results.map_err(|status| failed(status.message().to_owned()))? {
            let none = || failed(format!("unit {} came to nothing", result.unit));
            let outcome = result.outcome.ok_or_else(none)?;
            ready.mass.results.insert(result.unit, outcome);
        }
    }
    for range in solved {
        let Some(Outcome::MassEditSolved(change)) = ready.mass.results.get(&range.first_unit)
        else {
            let problem = format!("unit {} is no change of a layer", range.first_unit);
            return Err(failed(problem));
        };
        let factor = change.factor.clone().unwrap_or_default();
        ready
            .mass
            .added
            .push(factor_of(fetcher, &factor).await.map_err(failed)?);
    }
    Ok(())
}

/// The key statistics of an edited layer.
fn statistics_of_layer(
    spec: &v1::MassEditSpec,
    layer: Option<u32>,
) -> Result<v1::edit_spec::Statistics, Error> {
    let of_layer = spec.statistics.iter().find(|one| Some(one.layer) == layer);
    let named = of_layer.ok_or_else(|| Error::Earlier {
        problem: "it names no key statistics".to_owned(),
    })?;
    Ok(v1::edit_spec::Statistics {
        digest: named.digest.clone(),
        size: named.size,
    })
}

/// What a pre-flight needs: the key statistics of every layer, and what the edits of the version
/// wrote, with the keys that they keep of these layers.
async fn checked(
    fetcher: &Fetcher,
    lease: &v1::Lease,
    spec: &v1::MassEditSpec,
    ready: &mut Prepared,
) -> Result<(), Error> {
    let failed = |problem: String| Error::Earlier { problem };
    let object = |error: objects::Error| failed(error.to_string());
    for &layer in &spec.layers {
        let named = statistics_of_layer(spec, Some(layer))?;
        let path = statistics(fetcher, &named, &mut ready.pins).await?;
        ready.mass.statistics.insert(layer, path);
    }
    if lease.version.is_empty() {
        return Ok(());
    }
    let edits = fetcher.edits(&lease.version).await;
    for mut edit in edits.map_err(|status| failed(status.message().to_owned()))? {
        let place = ready.mass.earlier.len();
        for keys in edit
            .keys
            .iter()
            .filter(|keys| spec.layers.contains(&keys.layer))
        {
            let digest: Digest = keys.digest.parse().map_err(object)?;
            let size = keys.inner.checked_mul(u64::from(keys.columns));
            let size = size.and_then(|numbers| numbers.checked_mul(4));
            let size = size.ok_or_else(|| failed("the keys of an edit have no size".to_owned()))?;
            ready
                .pins
                .push(fetcher.object(digest, size).await.map_err(object)?);
            ready.mass.kept.push(KeptKeys {
                edit: place,
                layer: keys.layer,
                file: fetcher.objects.path(&digest),
                inner: keys.inner,
                columns: keys.columns,
            });
        }
        edit.factors.clear();
        ready.mass.earlier.push(edit);
    }
    Ok(())
}

/// Ranges that follow each other as one: what is asked for in one call.
fn joined(mut ranges: Vec<v1::UnitRange>) -> Vec<v1::UnitRange> {
    ranges.sort_by_key(|range| (range.stage, range.first_unit));
    let mut joined: Vec<v1::UnitRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last)
                if last.stage == range.stage
                    && last.first_unit + last.units == range.first_unit =>
            {
                last.units += range.units;
            }
            Some(last) if *last == range => {}
            _ => joined.push(range),
        }
    }
    joined
}

/// A factor with its numbers.
async fn factor_of(fetcher: &Fetcher, described: &v1::LowRankFactor) -> Result<Factor, String> {
    let digest: Digest = described
        .digest
        .parse()
        .map_err(|error: objects::Error| error.to_string())?;
    let size = Factor::bytes(described)
        .ok_or_else(|| format!("a factor of {} has no size", described.tensor_name))?;
    let data = fetcher.read(digest, size).await;
    let data = data.map_err(|error| error.to_string())?;
    Factor::from_proto(described, &data).map_err(|error| error.to_string())
}

/// What an edit keeps of a layer, of whose facts some are taken out.
async fn kept_rows(
    fetcher: &Fetcher,
    replaced: &v1::mass_edit_spec::Without,
    layer: u32,
) -> Result<KeptRows, String> {
    let read = async |rows: Rows<'_>| {
        let digest: Digest = (rows.digest.parse()).map_err(|e: objects::Error| e.to_string())?;
        let size = rows.bytes().ok_or("what an edit keeps has no size")?;
        let read = fetcher.read(digest, size).await;
        read.map_err(|error| error.to_string())
    };
    let solve = replaced.solves.iter().find(|solve| solve.layer == layer);
    let solve = solve.ok_or_else(|| format!("the edit keeps nothing of layer {layer}"))?;
    let [keys, residuals] = rows_of_solve(solve);
    let protected = replaced.keys.iter().find(|keys| keys.layer == layer);
    Ok(KeptRows {
        keys: read(keys).await?,
        residuals: read(residuals).await?,
        protected: match protected {
            Some(keys) => Some(read(keys_of(keys)).await?),
            None => None,
        },
    })
}

/// The keys that the edits of a version keep of a layer, in the order of the edits.
async fn past_keys(
    fetcher: &Fetcher,
    version: &str,
    layer: u32,
    inputs: &mut MassInputs,
) -> Result<(), Error> {
    let failed = |problem: String| Error::Earlier { problem };
    let object = |error: objects::Error| failed(error.to_string());
    let told = |status: tonic::Status| failed(status.message().to_owned());
    if version.is_empty() {
        return Ok(());
    }
    for edit in fetcher.edits(version).await.map_err(told)? {
        let touches = edit.factors.iter().any(|factor| factor.layer == layer);
        let keys = edit.keys.iter().find(|keys| keys.layer == layer);
        inputs.without_keys += usize::from(touches && keys.is_none());
        if let Some(keys) = keys {
            let digest: Digest = keys.digest.parse().map_err(object)?;
            let size = keys.inner.checked_mul(u64::from(keys.columns));
            let size = size.and_then(|numbers| numbers.checked_mul(4));
            let size = size.ok_or_else(|| failed("the keys of an edit have no size".to_owned()))?;
            let bytes = fetcher.read(digest, size).await.map_err(object)?;
            inputs.past.extend_from_slice(&bytes);
        }
    }
    Ok(())
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

/// What the version of a lease is made of, with the numbers. What the version before it has in
/// the same place is not read again.
async fn version(fetcher: &Fetcher, lease: &v1::Lease) -> Result<Arc<LeasedVersion>, Error> {
    let model = lease.model.as_ref();
    let (name, digest) = model.map_or(("", ""), |model| (&model.name, &model.digest));
    let base = base_version(names::last(name), digest);
    if lease.version.is_empty() || lease.version == base.name {
        return Ok(Arc::default());
    }
    let last = fetcher.last.get();
    if last.name == lease.version {
        return Ok(last);
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
    // Places move by one where an edit was taken out: both are gone on with from there.
    let mut before = last.factors.iter();
    for described in &described {
        let digest: Digest = described.digest.parse().map_err(object)?;
        let mut rest = before.clone();
        let same =
            |it: &&LeasedFactor| it.digest == digest && it.factor.tensor == described.tensor_name;
        if let Some(known) = rest.by_ref().take(NEAR).find(same) {
            factors.push(known.clone());
            before = rest;
            continue;
        }
        let size = Factor::bytes(described)
            .ok_or_else(|| failed(format!("a factor of {} has no size", described.tensor_name)))?;
        let data = fetcher.read(digest, size).await.map_err(object)?;
        let factor = Factor::from_proto(described, &data).map_err(|e| failed(e.to_string()))?;
        let factor = Arc::new(factor);
        factors.push(LeasedFactor { digest, factor });
    }
    let version = Arc::new(LeasedVersion {
        name: lease.version.clone(),
        matrices: version.matrices,
        factors,
    });
    fetcher.last.keep(&version);
    Ok(version)
}
