//! The pre-flight of a batch: what its keys are worth on the version as it is, which of them collide
//! with each other or with those of earlier edits, and what is said of it before any target is
//! sought.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use tch::Tensor;

use super::super::engine::Sink;
use super::edit::Asked;
use super::gates;
use super::mass_edit::MassEdits;
use super::mass_figures::{named, share, spread};
use super::mass_metric::Made;
use super::mass_parts::{NAMED, Statistics, bytes, name_of, of_fact, tensor};
use super::units::Stopped;
use crate::edit::{self, Error, Near, Request, TARGET_TOKENS};
use crate::proto::v1::{self, unit_result::Outcome};

/// Most keys, pairs, and facts that a pre-flight lists; the others are counted.
const LISTED: usize = 500;
/// Most facts of earlier edits that are measured again.
const MEASURED: usize = 24;
/// Statistics of fewer tokens a channel are told of.
const FEW: u64 = 10;
/// A fact whose key is moved by a smaller part of what is missing is told of.
const LITTLE: f64 = 0.05;

/// The facts of a batch, and which of its keys each has.
struct Groups<'a> {
    tasks: &'a [v1::EditTask],
    /// The first fact of each key.
    first: Vec<usize>,
    /// The units of their keys.
    units: Vec<u64>,
}

impl<'a> Groups<'a> {
    /// Facts with one key follow each other.
    fn new(asked: &'a v1::MassEditUnit) -> Self {
        let (mut first, mut before) = (Vec::new(), None);
        for (n, task) in asked.tasks.iter().enumerate() {
            let head = Some(head_of(task));
            if head != before {
                first.push(n);
                before = head;
            }
        }
        let range = asked.keys.first().copied().unwrap_or_default();
        Self {
            tasks: &asked.tasks,
            first,
            units: (range.first_unit..range.first_unit + range.units).collect(),
        }
    }

    fn facts(&self, group: usize) -> &'a [v1::EditTask] {
        let end = self.first.get(group + 1).copied();
        let end = end.unwrap_or(self.tasks.len());
        let start = self.first.get(group).copied().unwrap_or(end);
        &self.tasks[start..end]
    }

    /// The first fact of a key, in words.
    fn name(&self, group: usize) -> String {
        self.facts(group).first().map_or(String::new(), name_of)
    }
}

fn head_of(task: &v1::EditTask) -> String {
    Request::from(task.request.clone().unwrap_or_default()).head()
}

/// The keys of a batch as it goes through its layers.
#[derive(Default)]
struct Seen {
    leverage: BTreeMap<usize, Vec<f64>>,
    share: BTreeMap<usize, Vec<f64>>,
    /// The largest cosine of two keys, and its layer.
    near: BTreeMap<(usize, usize), (f64, u32)>,
    near_count: u64,
    /// Facts of earlier edits by their texts, the newest of each.
    overwritten: BTreeMap<(String, String), v1::OverwrittenFact>,
}

impl MassEdits<'_> {
    /// The keys of a group at every layer on the version as it is.
    pub(super) fn check_keys(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditKeys, Stopped> {
        self.check_targets(asked)?;
        let layers = self.layers();
        let read = self.read(asked, &layers, sink)?;
        sink.advance(1);
        Ok(v1::MassEditKeys {
            keys: read.keys.iter().map(bytes).collect::<Result<_, _>>()?,
            residual: Vec::new(),
            at_first_token: read.at_first_token,
        })
    }

    /// No new target has more tokens than are written well.
    fn check_targets(&self, asked: &v1::MassEditUnit) -> Result<(), Stopped> {
        for task in &asked.tasks {
            let target = task.request.as_ref().map_or("", |it| it.target_new.trim());
            let encoded = self.model().tokenizer().encode(target);
            let tokens = encoded.map_err(|error| of_fact(Error::from(error), asked))?;
            let tokens = tokens.ids.len();
            if tokens > TARGET_TOKENS {
                return Err(Stopped::Unit(format!(
                    "{}: its new target has {tokens} tokens, {TARGET_TOKENS} at most: give the object \
                     alone",
                    name_of(task)
                )));
            }
        }
        Ok(())
    }

    /// What is to be expected of a batch.
    pub(super) fn check(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditChecked, Stopped> {
        let _no_grad = tch::no_grad_guard();
        gates::check(self.model(), &self.ready.gate_inputs)?;
        let groups = Groups::new(asked);
        let mut read: Vec<(usize, &v1::MassEditKeys)> = Vec::new();
        for (group, unit) in groups.units.iter().enumerate() {
            match self.ready.mass.results.get(unit) {
                Some(Outcome::MassEditKeys(keys)) => read.push((group, keys)),
                Some(Outcome::Failure(_)) => {}
                _ => return Err(Stopped::transient(format!("unit {unit} has no keys"))),
            }
        }
        if read.is_empty() {
            let what = "every fact of the batch was left out: none of them can be read";
            return Err(Stopped::Unit(what.to_owned()));
        }
        let mut made = v1::MassEditChecked {
            batch: asked.batch,
            facts: asked.tasks.len() as u64,
            keys: groups.first.len() as u64,
            left_out: (groups.units.len() - read.len()) as u64,
            ..Default::default()
        };
        let mut seen = Seen::default();
        self.same_texts(&groups, &mut seen);
        for (at, layer) in self.layers().into_iter().enumerate() {
            if sink.cancelled() {
                return Err(Stopped::Cancelled);
            }
            let layer =
                self.check_layer(at, layer, &groups, &read, &mut seen, &mut made.warnings)?;
            made.layers.push(layer);
            sink.advance(1);
        }
        worst(&mut made, &groups, &seen);
        collisions(&mut made, &groups, &seen);
        let first = read.iter().filter(|(_, keys)| keys.at_first_token);
        let first: Vec<usize> = first.map(|(group, _)| *group).collect();
        made.first_token_count = first.len() as u64;
        let listed = first.iter().take(LISTED);
        made.first_tokens = listed.map(|&group| groups.name(group)).collect();
        made.overwritten_count = seen.overwritten.len() as u64;
        made.overwritten = seen.overwritten.into_values().take(LISTED).collect();
        warn(&mut made);
        Ok(made)
    }

    fn check_layer(
        &self,
        at: usize,
        layer: usize,
        groups: &Groups<'_>,
        read: &[(usize, &v1::MassEditKeys)],
        seen: &mut Seen,
        warnings: &mut Vec<String>,
    ) -> Result<v1::mass_edit_checked::Layer, Stopped> {
        let inner = self.model().down_projection(layer)?.size()[1];
        let mut columns = Vec::with_capacity(read.len());
        for (group, keys) in read {
            let key = tensor(keys.keys.get(at).map_or(&[][..], Vec::as_slice));
            if key.size() != [inner] {
                return Err(Stopped::Unit(format!(
                    "the key of unit {} at layer {layer} has {} numbers, those of the layer have {inner}",
                    groups.units[*group],
                    key.size()[0]
                )));
            }
            columns.push(key);
        }
        let keys = Tensor::stack(&columns, 1).to_device(self.device);
        drop(columns);
        let named_file = self.ready.mass.statistics.get(&(layer as u32));
        let path = named_file.map(|path| path.as_path());
        let statistics = Statistics::of(path, self.spec, layer)?;
        if statistics.channels as i64 != inner {
            return Err(Stopped::from(Error::StatisticsSize {
                found: statistics.channels,
                expected: inner as usize,
            }));
        }
        warnings.extend(too_few(&statistics));
        let (past, of) = self.past_keys(layer as u32, inner)?;
        let facts = keys.size()[1] as u64;
        let protects = past.as_ref().filter(|_| self.method.keeps_keys());
        let making = self.making(&statistics);
        let Made {
            metric,
            damping,
            weight,
            mut figures,
            warning,
        } = making.metric(protects, facts)?;
        warnings.extend(warning);
        // Cosines are of what the keys are, not of what is left of them beside earlier ones.
        let plain = match protects {
            Some(_) => Some(making.metric(None, facts)?.metric),
            None => None,
        };
        let plain = plain.as_ref().unwrap_or(&metric);
        let found = edit::preflight(&metric, plain, &keys, past.as_ref(), LISTED)?;
        let leverage = found.leverage.iter().map(|it| it * weight);
        let shares = found.leverage.iter().map(|it| share(damping, *it));
        spread(
            &mut figures,
            ["leverage.least", "leverage.mean"],
            leverage.clone(),
        );
        spread(&mut figures, ["share.least", "share.mean"], shares.clone());
        for ((group, _), (leverage, share)) in read.iter().zip(leverage.zip(shares)) {
            seen.leverage.entry(*group).or_default().push(leverage);
            seen.share.entry(*group).or_default().push(share);
        }
        seen.near_count = seen.near_count.max(found.near_count);
        for Near { one, other, cosine } in found.near {
            let pair = (read[one].0, read[other].0);
            let largest = seen.near.entry(pair).or_insert((cosine, layer as u32));
            if cosine > largest.0 {
                *largest = (cosine, layer as u32);
            }
        }
        for Near { one, other, cosine } in found.earlier {
            let by = groups.name(read[one].0);
            for (edit, request) in of.get(other).into_iter().flatten() {
                overwrites(seen, edit, request, &by, cosine.min(1.0));
            }
        }
        figures.sort_by_key(|(key, _)| *key);
        Ok(v1::mass_edit_checked::Layer {
            layer: layer as u32,
            tokens: statistics.tokens,
            figures: figures.into_iter().map(named).collect(),
        })
    }

    /// The keys that edits of the version keep of a layer, `[inner, keys]`, and whose facts each of
    /// them is of.
    #[allow(clippy::type_complexity)]
    fn past_keys(
        &self,
        layer: u32,
        inner: i64,
    ) -> Result<(Option<Tensor>, Vec<Vec<(&str, &v1::EditRequest)>>), Stopped> {
        let (mut numbers, mut of) = (Vec::new(), Vec::new());
        for kept in &self.ready.mass.kept {
            if kept.layer != layer || i64::try_from(kept.inner) != Ok(inner) {
                continue;
            }
            let edit = &self.ready.mass.earlier[kept.edit];
            let mut facts: Vec<Vec<(&str, &v1::EditRequest)>> = Vec::new();
            let mut before = None;
            for request in &edit.requests {
                let head = Some(Request::from(request.clone()).head());
                if head != before {
                    facts.push(Vec::new());
                    before = head;
                }
                if let Some(last) = facts.last_mut() {
                    last.push((&edit.name, request));
                }
            }
            facts.resize(kept.columns as usize, Vec::new());
            of.extend(facts);
            let unreadable = |error: std::io::Error| {
                Stopped::transient(format!("the keys of {} cannot be read: {error}", edit.name))
            };
            numbers.extend_from_slice(&fs::read(&kept.file).map_err(unreadable)?);
        }
        let past = (!of.is_empty()).then(|| tensor(&numbers).view([-1, inner]).tr());
        Ok((past.map(|past| past.to_device(self.device)), of))
    }

    /// Facts of earlier edits whose text is the same up to the subject's end: the key is the same,
    /// whatever the edit kept of it.
    fn same_texts(&self, groups: &Groups<'_>, seen: &mut Seen) {
        let heads = (0..groups.first.len()).map(|n| (head_of(&groups.facts(n)[0]), n));
        let heads: HashMap<String, usize> = heads.collect();
        for edit in &self.ready.mass.earlier {
            for request in &edit.requests {
                let head = Request::from(request.clone()).head();
                if let Some(&group) = heads.get(&head) {
                    overwrites(seen, &edit.name, request, &groups.name(group), 1.0);
                }
            }
        }
    }

    /// What the batch made of the facts of earlier edits, of some dozens at most.
    pub(super) fn overwritten(
        &mut self,
        checked: &v1::MassEditChecked,
    ) -> Result<Vec<v1::OverwrittenFact>, Stopped> {
        let mut measured = Vec::new();
        for fact in checked.overwritten.iter().take(MEASURED) {
            let request = Request::from(fact.request.clone().unwrap_or_default());
            let of_prompt = Asked::new(&request, &v1::EditTask::default(), false);
            let first = of_prompt.answers(self.model())?;
            let second = self.on_written(|it| of_prompt.answers(it.model()))??;
            let change = of_prompt.measured(&first, &second, 0.0);
            let change = change.rewrites.first();
            measured.push(v1::OverwrittenFact {
                before: change.map(|it| it.new_before),
                after: change.map(|it| it.new_after),
                ..fact.clone()
            });
        }
        Ok(measured)
    }
}

/// Notes a fact of an earlier edit. Of several that wrote the same text the newest counts: edits are
/// gone through in their order.
fn overwrites(seen: &mut Seen, edit: &str, request: &v1::EditRequest, by: &str, cosine: f64) {
    let text = Request::from(request.clone()).text();
    let place = (text, request.target_new.trim().to_owned());
    let noted = seen.overwritten.get(&place);
    if noted.is_some_and(|noted| noted.cosine > cosine) {
        return;
    }
    let fact = v1::OverwrittenFact {
        edit: edit.to_owned(),
        request: Some(request.clone()),
        by: by.to_owned(),
        cosine,
        ..Default::default()
    };
    seen.overwritten.insert(place, fact);
}

/// The keys that come least near their targets.
fn worst(made: &mut v1::MassEditChecked, groups: &Groups<'_>, seen: &Seen) {
    let least = |shares: &[f64]| shares.iter().copied().fold(f64::INFINITY, f64::min);
    let mut order: Vec<(f64, usize)> = (seen.share.iter())
        .map(|(group, shares)| (least(shares), *group))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let little = order.iter().filter(|(share, _)| *share < LITTLE).count();
    if little > 0 {
        made.warnings.push(format!(
            "{little} of {} keys are moved by less than {:.0} % of what is missing at some layer: a \
             smaller lambda, or statistics of fewer such texts, moves them further",
            order.len(),
            100.0 * LITTLE
        ));
    }
    let of = |numbers: &BTreeMap<usize, Vec<f64>>, group| {
        numbers.get(group).cloned().unwrap_or_default()
    };
    let listed = order.iter().take(LISTED);
    made.worst = listed
        .map(|(_, group)| v1::mass_edit_checked::Key {
            fact: groups.name(*group),
            facts: groups.facts(*group).len() as u64,
            leverage: of(&seen.leverage, group),
            share: of(&seen.share, group),
        })
        .collect();
}

/// The keys that are nearly one, and the facts that share one.
fn collisions(made: &mut v1::MassEditChecked, groups: &Groups<'_>, seen: &Seen) {
    let mut near: Vec<_> = seen.near.iter().collect();
    near.sort_by(|a, b| b.1.0.total_cmp(&a.1.0).then(a.0.cmp(b.0)));
    made.near_count = seen.near_count;
    let pairs = near.iter().take(LISTED);
    made.near = pairs
        .map(
            |((one, other), (cosine, layer))| v1::mass_edit_checked::Pair {
                one: groups.name(*one),
                other: groups.name(*other),
                layer: *layer,
                cosine: cosine.min(1.0),
            },
        )
        .collect();
    let shared = (0..groups.first.len()).filter(|group| groups.facts(*group).len() > 1);
    let shared: Vec<usize> = shared.collect();
    made.shared_count = shared.len() as u64;
    let listed = shared.iter().take(LISTED);
    made.shared = listed
        .map(|&group| v1::mass_edit_checked::Shared {
            text: groups.facts(group).first().map_or(String::new(), head_of),
            facts: groups
                .facts(group)
                .iter()
                .take(LISTED)
                .map(name_of)
                .collect(),
        })
        .collect();
}

/// What is unusual, in words that are kept with the edit.
fn warn(made: &mut v1::MassEditChecked) {
    let rest = |count: u64, shown: usize| match count.saturating_sub(shown as u64) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let near = made.near.iter().take(NAMED).map(|pair| {
        let (one, other) = (&pair.one, &pair.other);
        format!(
            "{one} and {other} (cosine {:.3} at layer {})",
            pair.cosine, pair.layer
        )
    });
    let near: Vec<String> = near.collect();
    if !near.is_empty() {
        made.warnings.push(format!(
            "these have nearly one key, and each gets a part of the other's target: {}{}",
            near.join("; "),
            rest(made.near_count, near.len())
        ));
    }
    let first: Vec<String> = made.first_tokens.iter().take(NAMED).cloned().collect();
    if !first.is_empty() {
        made.warnings.push(format!(
            "the keys of these are read at a text's first token, which sees nothing before it: what \
             such a key is given holds for every text that begins so; put a word before the subject: \
             {}{}",
            first.join("; "),
            rest(made.first_token_count, first.len())
        ));
    }
    let overwritten = made.overwritten.iter().take(NAMED).map(|fact| {
        let task = v1::EditTask {
            request: fact.request.clone(),
            ..Default::default()
        };
        let brief = fact.edit.rsplit('/').next().unwrap_or_default();
        let brief = brief.get(..12).unwrap_or(brief);
        format!("{} of edit {brief} by {}", name_of(&task), fact.by)
    });
    let overwritten: Vec<String> = overwritten.collect();
    if !overwritten.is_empty() {
        made.warnings.push(format!(
            "facts that earlier edits wrote are overwritten: {}{}",
            overwritten.join("; "),
            rest(made.overwritten_count, overwritten.len())
        ));
    }
    if made.left_out > 0 {
        made.warnings.push(format!(
            "{} of {} keys cannot be read and are left out: the job's results say why",
            made.left_out, made.keys
        ));
    }
}

/// Key statistics of too few tokens, in words.
fn too_few(statistics: &Statistics<'_>) -> Option<String> {
    let (tokens, channels) = (statistics.tokens, statistics.channels as u64);
    let (layer, least) = (statistics.layer, FEW * channels);
    (tokens < least).then(|| {
        format!(
            "the key statistics of layer {layer} are of {tokens} tokens, for {channels} channels: collect at \
             least {least}"
        )
    })
}
