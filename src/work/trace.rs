//! Causal-tracing sweeps: `unit = fact * kinds + kind`. Where the scale of the noise depends on the
//! whole sweep, a unit after the last measures it in a stage before all others.

use std::mem::take;

use prost::Message as _;

use super::check::{corpus, dtype, prompt, shorten};
use super::extent::{self, most_tokens};
use super::partners::{self, partners};
use super::{Found, Items, Key, Keys, PartsObject, Stage, Work, Wrong, estimated_tokens};
use crate::causal::noise::{Law, Rule};
use crate::causal::{Kind, Part, cost};
use crate::proto::v1::{self, leased_unit::Spec as Unit, unit_result::Outcome};
use crate::wire;

/// Most noise samples of a cell.
const SAMPLES_LIMIT: u32 = 10_000;

impl Work for v1::TraceSpec {
    fn units_word(&self) -> &'static str {
        "grids"
    }

    fn steps_word(&self) -> &'static str {
        "cells"
    }

    fn take_parts(&mut self) -> Items {
        Items::of(&v1::FactList {
            facts: take(&mut self.facts),
        })
    }

    fn put_parts(&mut self, items: &Items) {
        self.facts = items.messages().collect();
    }

    fn has_parts(&self) -> bool {
        !self.facts.is_empty()
    }

    fn parts_object(&self) -> Option<PartsObject<'_>> {
        Some(PartsObject {
            field: "job.trace.facts_object",
            digest: &self.facts_object,
        })
    }

    fn name_parts_object(&mut self, digest: &str) {
        digest.clone_into(&mut self.facts_object);
    }

    fn count_parts(&mut self, count: u64) {
        self.fact_count = count;
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        self.fact_count = 0; // ours to say
        if items.is_empty() {
            wrong.say("job.trace.facts", "there are none: give at least one");
        }
        for n in 0..items.len() {
            match items.message::<v1::Fact>(n) {
                Some(fact) => {
                    check_fact(n, &fact, wrong);
                    self.check_pair(n, &fact, wrong);
                }
                None => wrong.say(
                    format_args!("job.trace.facts[{n}]"),
                    "it is not a serialised Fact",
                ),
            }
        }
        self.check_kinds(wrong);
        self.check_paths(wrong);
        self.check_patching(wrong);
        match self.is_noisy() {
            true => self.check_noise(wrong),
            false => self.check_no_noise(wrong),
        }
        self.seed.get_or_insert(1);
        if self.window == 0 {
            self.window = 10;
        }
        match v1::Engine::try_from(self.engine) {
            Ok(v1::Engine::Unspecified) => self.set_engine(v1::Engine::Exact),
            Ok(_) => {}
            Err(_) => wrong.say(
                "job.trace.engine",
                format_args!(
                    "{} is not an engine: use ENGINE_EXACT, ENGINE_PLAIN or ENGINE_ATTRIBUTION",
                    self.engine
                ),
            ),
        }
        self.check_attribution(wrong);
        match v1::Compat::try_from(self.compat) {
            Ok(v1::Compat::Unspecified) => self.set_compat(v1::Compat::None),
            Ok(_) => {}
            Err(_) => wrong.say(
                "job.trace.compat",
                format_args!(
                    "{} is not a reading of severed paths: use COMPAT_NONE or COMPAT_PAPER_CODE",
                    self.compat
                ),
            ),
        }
        dtype(&mut self.dtype, wrong);
    }

    fn corpus(&self) -> Option<(&'static str, &v1::Corpus)> {
        Some(("job.trace.noise_corpus", self.noise_corpus.as_ref()?))
    }

    fn stages(&self, _version: &str, items: &Items) -> Vec<Stage> {
        let units = items.len() as u64 * self.grain();
        let mut stages = Vec::new();
        if self.noise_is_measured() {
            stages.push(Stage {
                hidden: true,
                ..Stage::new("noise scale", units..units + 1)
            });
        }
        stages.push(Stage {
            grain: self.grain(),
            ..Stage::new("grids", 0..units)
        });
        stages
    }

    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64 {
        match items.message((unit / self.grain()) as usize) {
            Some(fact) => self.fact_cost(&fact, shape),
            None => 0.0, // the scale of the noise: a look at the embeddings
        }
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        let fact = items.get((unit / self.grain()) as usize);
        let partners = match self.corruption() {
            v1::Corruption::Counterfactual => partners::MOST,
            _ => 0,
        };
        fact.map_or(0, <[u8]>::len) * (1 + partners)
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn unit(&self, _version: &str, items: &Items, unit: u64) -> Option<Unit> {
        let kinds = self.grain();
        let n = (unit / kinds) as usize;
        let fact = items.message::<v1::Fact>(n);
        Some(match fact {
            Some(fact) => Unit::Trace(v1::TraceUnit {
                partners: match self.corruption() {
                    v1::Corruption::Counterfactual if fact.corrupted.is_none() => {
                        partners(items, n, &fact, self.seed())
                    }
                    _ => Vec::new(),
                },
                fact: Some(fact),
                kind: *self.kinds.get((unit % kinds) as usize)?,
            }),
            None => Unit::Noise(self.noise_unit(items)),
        })
    }

    fn settings(&self, _found: &Found) -> v1::lease::Settings {
        v1::lease::Settings::Trace(v1::TraceSpec {
            facts: Vec::new(),
            ..self.clone()
        })
    }

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let kinds = self.grain();
        let Some(fact) = items.message::<v1::Fact>((unit / kinds) as usize) else {
            return match outcome {
                Outcome::NoiseLevel(level) if level.scale >= 0.0 => Ok(()),
                Outcome::NoiseLevel(level) => {
                    Err(format!("a noise scale of {} is none", level.scale))
                }
                _ => Err("it is no noise scale".to_owned()),
            };
        };
        let Outcome::Grid(grid) = outcome else {
            return Err("it is no grid".to_owned());
        };
        if grid.fact.as_ref() != Some(&fact) {
            return Err("its grid is of another fact".to_owned());
        }
        if self.kinds.get((unit % kinds) as usize) != Some(&grid.kind) {
            return Err("its grid is of another kind".to_owned());
        }
        self.check_settings(grid)?;
        self.check_readings(grid)?;
        self.check_estimate(grid)?;
        check_answer(grid, &fact)?;
        check_grid(grid, &fact, shape)
    }

    fn note(&self, outcome: &Outcome, found: &mut Found) {
        if let Outcome::NoiseLevel(level) = outcome {
            found.noise_scale = Some(level.scale);
        }
    }

    fn was_computed(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Grid(grid) => grid.correct_prediction,
            _ => true,
        }
    }

    fn reuse_settings(&self) -> Option<Vec<u8>> {
        // What is traced is told by each unit, wherever the list of it lies.
        let asked = Self {
            facts: Vec::new(),
            kinds: Vec::new(),
            facts_object: String::new(),
            fact_count: 0,
            ..self.clone()
        };
        Some(asked.encode_to_vec())
    }

    fn reuse_key(
        &self,
        keys: &Keys,
        version: &str,
        items: &Items,
        unit: u64,
        found: &Found,
    ) -> Option<Key> {
        let Unit::Noise(noise) = self.unit(version, items, unit)? else {
            return keys.usual(self.unit(version, items, unit)?, version, found);
        };
        // The scale follows from the embeddings of a corpus or of the subjects alone, in the format
        // in which they are held.
        let mut key = keys.model(version);
        key.part(&self.dtype.to_be_bytes());
        key.part(&noise.factor.to_bits().to_be_bytes());
        let corpus = noise.corpus.as_ref().map(|corpus| corpus.digest.as_str());
        key.part(corpus.unwrap_or_default().as_bytes());
        if corpus.is_none() {
            for fact in items.messages::<v1::Fact>() {
                key.part(fact.subject.as_bytes());
            }
        }
        Some(key)
    }
}

impl v1::TraceSpec {
    /// A grid that repeats what was asked. It need not say how, but not otherwise.
    fn check_settings(&self, grid: &v1::Grid) -> Result<(), String> {
        let corpus = self.noise_corpus.as_ref();
        let corpus = corpus.map_or("", |corpus| corpus.digest.as_str());
        let said = |text: &str, asked: &str| text.is_empty() || text == asked;
        let asked = [
            ("noise", said(&grid.noise, &self.noise)),
            ("noise_corpus", said(&grid.noise_corpus, corpus)),
            ("samples", [0, self.samples].contains(&grid.samples)),
            ("seed", [0, self.seed()].contains(&grid.seed)),
            ("direction", grid.direction == self.direction),
            ("paths", grid.paths == self.paths),
            ("whole_answers", grid.whole_answers == self.whole_answers),
        ];
        match asked.into_iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(format!("its {field} is not the one that was asked for")),
            None => Ok(()),
        }
    }

    /// Kinds of a fact, which share runs of the model.
    fn grain(&self) -> u64 {
        self.kinds.len().max(1) as u64
    }

    /// Whether the scale of the noise has to be measured before any fact is traced: over the
    /// subjects, or over a corpus.
    fn noise_is_measured(&self) -> bool {
        let rule = self.noise.parse::<Rule>();
        rule.is_ok_and(|rule| matches!(rule.law, Law::Spread(_)) || rule.needs_corpus())
    }

    fn check_kinds(&mut self, wrong: &mut Wrong) {
        if self.kinds.is_empty() {
            self.kinds = vec![
                v1::Kind::Hidden as i32,
                v1::Kind::Mlp as i32,
                v1::Kind::Attn as i32,
            ];
        }
        for (n, &kind) in self.kinds.iter().enumerate() {
            let field = format_args!("job.trace.kinds[{n}]");
            if !matches!(v1::Kind::try_from(kind), Ok(kind) if kind != v1::Kind::Unspecified) {
                wrong.say(field, format_args!("{kind} is not a kind"));
            } else if self.kinds[..n].contains(&kind) {
                wrong.say(field, "the kind is named twice");
                // There are few kinds: what comes after is named too often as well.
                break;
            }
        }
    }

    fn check_noise(&mut self, wrong: &mut Wrong) {
        if self.samples == 0 {
            self.samples = 10;
        } else if self.samples > SAMPLES_LIMIT {
            let what = format_args!("{} is too many: {SAMPLES_LIMIT} at most", self.samples);
            wrong.say("job.trace.samples", what);
        }
        if self.noise.is_empty() {
            self.noise = Rule::default().to_string();
        }
        let rule = match self.noise.parse::<Rule>() {
            Ok(rule) => rule,
            Err(error) => return wrong.say("job.trace.noise", error),
        };
        self.noise = rule.to_string();
        match &self.noise_corpus {
            None if rule.needs_corpus() => wrong.say(
                "job.trace.noise_corpus",
                format_args!(
                    "noise '{rule}' draws from the embeddings' covariance over a corpus, and none \
                     is named: name one ('palimpsest trace --noise-corpus FILE'), or use a number, \
                     s<k> or u<a>"
                ),
            ),
            Some(_) if !rule.needs_corpus() => wrong.say(
                "job.trace.noise_corpus",
                format_args!(
                    "noise '{rule}' draws from no corpus: leave it out, or use m or t<df>"
                ),
            ),
            Some(named) => corpus("job.trace.noise_corpus", named, wrong),
            None => {}
        }
    }

    /// What decides the scale of the noise. The subjects of a large sweep do not fit a message: the
    /// worker reads them from their object.
    fn noise_unit(&self, items: &Items) -> v1::NoiseUnit {
        let Some(factor) = noise_factor(self) else {
            return v1::NoiseUnit {
                corpus: self.noise_corpus.clone(),
                ..Default::default()
            };
        };
        let inline = self.facts_object.is_empty();
        let subjects = items.messages().map(|fact: v1::Fact| fact.subject);
        v1::NoiseUnit {
            subjects: if inline {
                subjects.collect()
            } else {
                Vec::new()
            },
            factor,
            facts_object: self.facts_object.clone(),
            facts_size: if inline {
                0
            } else {
                items.bytes().len() as u64
            },
            corpus: None,
        }
    }

    /// Multiply-adds of a fact's grids.
    fn fact_cost(&self, fact: &v1::Fact, shape: &v1::model::Shape) -> f64 {
        let begin = match fact.subject_start {
            Some(start) => start as usize,
            None => fact.prompt.find(&fact.subject).unwrap_or_default(),
        };
        if self.is_estimated() {
            return self.estimate_cost(estimated_tokens(&fact.prompt) as usize, shape);
        }
        let head = f64::from(shape.width) * f64::from(shape.vocabulary);
        let layers = f64::from(shape.layers.max(1));
        let plain = self.engine() == v1::Engine::Plain;
        let a_pass = match plain {
            true => shape.block_parameters as f64 + head / layers,
            false => shape.block_parameters as f64,
        };
        let passes = |kind: &i32| {
            let shape = cost::Shape {
                kind: (v1::Kind::try_from(*kind).ok())
                    .and_then(wire::kind)
                    .map_or(Kind::Hidden, |(kind, _)| kind),
                tokens: estimated_tokens(&fact.prompt) as usize,
                before_subject: begin / 4,
                layers: shape.layers as usize,
                heads: shape.heads.max(1) as usize,
                kv_heads: shape.heads.max(1) as usize, // the most that there may be
                samples: self.samples as usize,
                window: self.window as usize,
            };
            match plain {
                true => shape.plain_passes(),
                false => shape.passes(),
            }
        };
        // Along paths the model is run twice, and so it is where whole answers are compared.
        let compared = self.metrics().any(|it| it == v1::Metric::LogitDifference);
        let twice = [self.paths.is_some(), self.whole_answers && compared];
        let runs: f64 = twice
            .map(|twice| if twice { 2.0 } else { 1.0 })
            .iter()
            .product();
        let kinds = self.kinds.iter();
        kinds.map(|kind| passes(kind) as f64 * a_pass * runs).sum()
    }
}

/// The `k` of a sweep's `s<k>` noise, when its noise is of that rule.
pub fn noise_factor(trace: &v1::TraceSpec) -> Option<f64> {
    match trace.noise.parse::<Rule>().ok()?.law {
        Law::Spread(factor) => Some(factor),
        _ => None,
    }
}

fn check_fact(n: usize, fact: &v1::Fact, wrong: &mut Wrong) {
    prompt(
        format_args!("job.trace.facts[{n}].prompt"),
        &fact.prompt,
        wrong,
    );
    let attribute = fact.attribute.as_deref();
    if attribute.is_some_and(|it| it.trim().is_empty()) {
        wrong.say(
            format_args!("job.trace.facts[{n}].attribute"),
            "the attribute is blank, which matches no answer: give the answer, or leave it out",
        );
    }
    let field = format_args!("job.trace.facts[{n}].subject");
    if fact.subject.is_empty() {
        wrong.say(field, "the subject is empty: name the words to corrupt");
    } else if !fact.prompt.contains(&fact.subject) {
        let what = format_args!(
            "the subject '{}' is not in the prompt '{}': write it as it stands there",
            shorten(&fact.subject),
            shorten(&fact.prompt)
        );
        wrong.say(field, what);
    } else if let Some(start) = fact.subject_start {
        let rest = fact.prompt.get(start as usize..);
        if !rest.is_some_and(|rest| rest.starts_with(&fact.subject)) {
            let what = format_args!(
                "the subject '{}' does not begin at byte {start} of the prompt: give its place in bytes of UTF-8, or \
                 leave it out for the first occurrence",
                shorten(&fact.subject)
            );
            wrong.say(format_args!("job.trace.facts[{n}].subject_start"), what);
        }
    }
}

/// A fact is traced where the model answers with its attribute, or it has none.
fn check_answer(grid: &v1::Grid, fact: &v1::Fact) -> Result<(), String> {
    let rest = |tokens: &[v1::Token], expected: Option<&String>| -> Result<(), String> {
        let most = expected.map_or(1, |expected| most_tokens(expected));
        if tokens.len() >= most || (!tokens.is_empty() && !grid.whole_answers) {
            return Err("has more tokens than it can have".to_owned());
        }
        let mut texts = tokens.iter().map(|token| &token.text);
        texts.try_for_each(|text| extent::text_of(1, text))
    };
    extent::text_of(1, &grid.answer)
        .and_then(|()| rest(&grid.answer_rest, fact.attribute.as_ref()))
        .map_err(|what| format!("its answer {what}"))?;
    // A foil of several tokens is the fact's own, or the attribute of another one.
    if !grid.foil_rest.is_empty() && (!grid.whole_answers || grid.foil.is_none()) {
        return Err("its foil has more tokens than it can have".to_owned());
    }
    let mut texts = grid.foil_rest.iter().map(|token| &token.text);
    texts
        .try_for_each(|text| extent::text_of(1, text))
        .map_err(|what| format!("its foil {what}"))?;
    let whole: String = std::iter::once(&grid.answer)
        .chain(grid.answer_rest.iter().map(|token| &token.text))
        .map(String::as_str)
        .collect();
    // A character that tokens share is not told by their texts.
    if grid.whole_answers && whole.contains('\u{FFFD}') {
        return Ok(());
    }
    let attribute = fact.attribute.as_deref();
    let right = attribute.is_none_or(|attribute| attribute.trim() == whole.trim());
    match (right == grid.correct_prediction, right) {
        (true, _) => Ok(()),
        (false, true) => Err("it is not traced, and its answer is right".to_owned()),
        (false, false) => Err("it is traced, and its answer is not the attribute".to_owned()),
    }
}

/// A grid of its own size, of a model of this shape.
fn check_grid(grid: &v1::Grid, fact: &v1::Fact, shape: &v1::model::Shape) -> Result<(), String> {
    let tokens = grid.token_ids.len();
    extent::in_context(tokens, shape).map_err(|what| format!("its grid {what}"))?;
    if tokens > most_tokens(&fact.prompt) {
        return Err(format!(
            "its grid has {tokens} tokens, more than its prompt can have"
        ));
    }
    let mut texts = grid.tokens.iter();
    texts
        .try_for_each(|text| extent::text_of(1, text))
        .map_err(|what| format!("one of its tokens {what}"))?;
    let layers = match grid.correct_prediction && grid.untraced.is_empty() {
        true if shape.layers > 0 => shape.layers,
        true => grid.layers.max(1),
        false => 0,
    };
    if grid.layers != layers {
        return Err(format!(
            "its grid has {} layers, {layers} are needed",
            grid.layers
        ));
    }
    if grid.tokens.len() != tokens {
        return Err(format!(
            "its grid has {tokens} tokens and {} texts of them",
            grid.tokens.len()
        ));
    }
    if grid.subject_begin > grid.subject_end || grid.subject_end as usize > tokens {
        return Err(format!(
            "its subject is tokens {} to {} of {tokens}",
            grid.subject_begin, grid.subject_end
        ));
    }
    let kind = wire::kind(grid.kind()).map(|(kind, _)| kind);
    let part = kind.and_then(Kind::of_head).map(|(part, _)| part);
    let heads = match part.filter(|_| layers > 0) {
        None => 0,
        // A group of heads shares a key and a value.
        Some(Part::Key | Part::Value) if shape.heads.is_multiple_of(grid.heads.max(1)) => {
            grid.heads.max(1)
        }
        Some(_) if shape.heads > 0 => shape.heads,
        Some(_) => grid.heads.max(1),
    };
    if grid.heads != heads {
        return Err(format!(
            "its grid has {} heads, {heads} are needed",
            grid.heads
        ));
    }
    let places = match kind.is_some_and(Kind::is_over_tokens) {
        true => 1,
        false => tokens,
    };
    let cells = places as u128 * u128::from(layers) * u128::from(heads.max(1));
    if grid.scores.len() as u128 != cells {
        return Err(format!(
            "its grid has {} scores, {tokens} tokens, {layers} layers and {heads} heads told apart: \
             {cells} are needed",
            grid.scores.len(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_that_the_model_does_not_know_says_nothing_of_a_workers_speed() {
        let grid = |correct_prediction| {
            Outcome::Grid(v1::Grid {
                correct_prediction,
                ..Default::default()
            })
        };
        let sweep = v1::TraceSpec::default();
        assert!(sweep.was_computed(&grid(true)));
        assert!(!sweep.was_computed(&grid(false)));
        assert!(sweep.was_computed(&Outcome::NoiseLevel(v1::NoiseLevel::default())));
    }
}
