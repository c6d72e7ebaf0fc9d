//! Facts and grids between the contract and the code that traces.

use super::choices::{
    compat, compat_to_proto, direction, direction_to_proto, engine, engine_to_proto, kind,
    kind_to_proto, metric, metric_to_proto,
};
use super::paths::{paths, paths_to_proto};
use crate::causal::noise::{Law, Rule};
use crate::causal::{Compat, Counterpart, Fact, Grid, Kind, Metric, Reading, Token, Verified};
use crate::proto::v1;

/// A message of the contract that says what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that is no kind.
    #[error("{value} is not a kind of grid that this version knows: upgrade the older side")]
    Kind {
        /// The number.
        value: i32,
    },
    /// A number that is no metric.
    #[error("{value} is not a metric that this version knows: upgrade the older side")]
    Metric {
        /// The number.
        value: i32,
    },
    /// A grid that does not say what it is of.
    #[error("a grid has no fact: the worker that computed it broke the contract")]
    NoFact,
    /// A field whose value does not fit the others.
    #[error(
        "the grid of prompt {prompt:?}: {field} is {found}, not {expected}: the worker that computed it broke the contract"
    )]
    Shape {
        /// The prompt.
        prompt: String,
        /// The field, or what of it.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl From<v1::Fact> for Fact {
    fn from(fact: v1::Fact) -> Self {
        Self {
            prompt: fact.prompt,
            subject: fact.subject,
            attribute: fact.attribute,
            relation: fact.relation,
            id: fact.id,
            subject_start: fact.subject_start.map(|start| start as usize),
            corrupted: fact.corrupted,
            foil: fact.foil,
        }
    }
}

impl From<Fact> for v1::Fact {
    fn from(fact: Fact) -> Self {
        Self {
            prompt: fact.prompt,
            subject: fact.subject,
            attribute: fact.attribute,
            relation: fact.relation,
            id: fact.id,
            // A prompt is shorter than a request.
            subject_start: fact.subject_start.and_then(|start| start.try_into().ok()),
            corrupted: fact.corrupted,
            foil: fact.foil,
        }
    }
}

/// A grid, and what of its sweep it does not say itself: with both, [`v1::Grid`] is the same thing
/// in another form, and either way leads back.
#[derive(Clone, Debug, PartialEq)]
pub struct SweptGrid {
    /// The grid. Its noise has every number known; its window is 1 where a state is restored that
    /// has none, and it has no layers where nothing was traced.
    pub grid: Grid,
    /// The rule of the noise as it was asked.
    pub rule: String,
    /// The scale that the rule came to, in units of the embeddings.
    pub scale: f64,
    /// The digest of the corpus that the noise was drawn over, where its rule needs one.
    pub corpus: Option<String>,
    /// Whose reading of severed paths it follows.
    pub compat: Compat,
}

impl SweptGrid {
    /// A grid of a sweep, whose noise came to a scale.
    pub fn of(mut grid: Grid, sweep: &v1::TraceSpec, scale: f64) -> Self {
        if !grid.kind.is_windowed() {
            grid.window = 1;
        }
        if !grid.traced() {
            (grid.layers, grid.heads) = (0, 1);
            grid.low = None;
        }
        grid.noise = resolved(&sweep.noise, scale);
        Self {
            grid,
            rule: sweep.noise.clone(),
            scale,
            corpus: sweep
                .noise_corpus
                .as_ref()
                .map(|corpus| corpus.digest.clone()),
            compat: compat(sweep.compat()),
        }
    }
}

/// A grid of `RESULT_VIEW_PEAKS`, which came without its tokens and scores: so has this one none.
///
/// # Errors
/// [`Error::Kind`] and [`Error::NoFact`].
pub fn without_scores(sent: &v1::Grid) -> Result<Grid, Error> {
    let known = v1::Kind::try_from(sent.kind).ok().and_then(kind);
    let (kind, severed) = known.ok_or(Error::Kind { value: sent.kind })?;
    let token = |sent: &v1::Token| Token {
        id: sent.id,
        text: sent.text.clone(),
    };
    let traced = sent.correct_prediction && sent.untraced.is_empty();
    Ok(Grid {
        fact: sent.fact.clone().ok_or(Error::NoFact)?.into(),
        kind,
        severed,
        paths: sent.paths.as_ref().and_then(paths),
        window: sent.window as usize,
        noise: resolved(&sent.noise, sent.noise_scale),
        corrupted: sent.corrupted.as_ref().map(|it| Counterpart {
            prompt: it.prompt.clone(),
            tokens: it.tokens.iter().map(token).collect(),
        }),
        direction: direction(sent.direction()),
        engine: engine(sent.engine(), sent.attribution_steps, sent.grad_drop),
        samples: sent.samples as usize,
        seed: sent.seed,
        layers: sent.layers as usize,
        heads: match kind.is_of_heads() && traced {
            true => sent.heads as usize,
            false => 1,
        },
        tokens: Vec::new(),
        subject: sent.subject_begin as usize..sent.subject_end as usize,
        answer: Token {
            id: sent.answer_id,
            text: sent.answer.clone(),
        },
        whole_answers: sent.whole_answers,
        answer_rest: sent.answer_rest.iter().map(token).collect(),
        correct_prediction: sent.correct_prediction,
        untraced: (!sent.untraced.is_empty()).then(|| sent.untraced.clone()),
        foil: sent.foil.as_ref().map(token),
        foil_rest: sent.foil_rest.iter().map(token).collect(),
        metric: Metric::Probability,
        high: sent.high,
        low: traced.then_some(sent.low),
        scores: Vec::new(),
        readings: Vec::new(),
        neurons: sent.neurons.clone(),
        verified: Vec::new(),
    })
}

impl TryFrom<&v1::Grid> for SweptGrid {
    type Error = Error;

    fn try_from(sent: &v1::Grid) -> Result<Self, Error> {
        let bare = without_scores(sent)?;
        let tokens = sent.token_ids.len();
        let check = |holds: bool, field, found: String, expected: String| {
            let prompt = bare.fact.prompt.clone();
            holds.then_some(()).ok_or(Error::Shape {
                prompt,
                field,
                found,
                expected,
            })
        };
        let texts = sent.tokens.len();
        check(
            texts == tokens,
            "the number of tokens",
            texts.to_string(),
            format!("{tokens}, one an id"),
        )?;
        let subject = bare.subject.clone();
        check(
            !subject.is_empty() && subject.end <= tokens,
            "the subject's range",
            format!("{subject:?}"),
            format!("one or more of {tokens} tokens"),
        )?;
        let layers = sent.layers as usize;
        let cells = if bare.traced() {
            check(
                layers > 0,
                "layers",
                "0".into(),
                "1 or more in a traced grid".into(),
            )?;
            check(
                bare.heads > 0,
                "heads",
                "0".into(),
                "1 or more in a traced grid of heads".into(),
            )?;
            let places = match bare.kind.is_over_tokens() {
                true => 1,
                false => tokens,
            };
            let cells = places.checked_mul(layers);
            let cells = cells.and_then(|cells| cells.checked_mul(bare.heads));
            cells.unwrap_or(usize::MAX)
        } else {
            0
        };
        check(
            sent.scores.len() == cells,
            "the number of scores",
            sent.scores.len().to_string(),
            format!("{cells}, one a cell"),
        )?;

        let neurons = match bare.kind {
            Kind::Neuron => cells,
            _ => 0,
        };
        check(
            sent.neurons.len() == neurons,
            "the number of neurons",
            sent.neurons.len().to_string(),
            format!("{neurons}, one a cell of such a grid"),
        )?;
        for reading in &sent.readings {
            check(
                reading.scores.len() == cells,
                "the number of scores of a metric",
                reading.scores.len().to_string(),
                format!("{cells}, one a cell"),
            )?;
        }
        for cell in &sent.verified {
            let (token, layer) = (cell.token as usize, cell.layer as usize);
            let head = cell.head.unwrap_or_default() as usize;
            let of_heads = bare.kind.is_of_heads() == cell.head.is_some();
            check(
                bare.traced() && token < tokens && layer < layers && head < bare.heads && of_heads,
                "a verified cell",
                match cell.head {
                    Some(head) => format!("token {token}, layer {layer}, head {head}"),
                    None => format!("token {token}, layer {layer}"),
                },
                match bare.kind.is_of_heads() {
                    true => format!(
                        "one of {tokens} tokens, {layers} layers and {} heads",
                        bare.heads
                    ),
                    false => format!("one of {tokens} tokens and {layers} layers"),
                },
            )?;
            let of_neurons = bare.kind == Kind::Neuron;
            let estimates = if of_neurons { cell.exact.len() } else { 0 };
            check(
                cell.neuron.is_some() == of_neurons && cell.estimate.len() == estimates,
                "a verified cell's neuron",
                format!("{:?} with {} estimates", cell.neuron, cell.estimate.len()),
                "one with an estimate a metric, in grids of neurons alone".to_owned(),
            )?;
            check(
                cell.exact.len() == 1 + sent.readings.len(),
                "the number of exact scores of a cell",
                cell.exact.len().to_string(),
                format!("{}, one a metric", 1 + sent.readings.len()),
            )?;
        }
        let verified = sent.verified.iter().map(|cell| Verified {
            token: cell.token as usize,
            head: cell.head.map(|head| head as usize),
            layer: cell.layer as usize,
            neuron: cell.neuron.map(|neuron| neuron as usize),
            random: cell.random,
            exact: cell.exact.clone(),
            estimate: cell.estimate.clone(),
        });
        let readings = sent.readings.iter().map(|reading| {
            let unknown = Error::Metric {
                value: reading.metric,
            };
            Ok(Reading {
                metric: metric(reading.metric()).ok_or(unknown)?,
                high: reading.clean,
                low: reading.corrupted,
                scores: reading.scores.clone(),
            })
        });
        let grid = Grid {
            readings: readings.collect::<Result<_, Error>>()?,
            verified: verified.collect(),
            tokens: std::iter::zip(&sent.token_ids, &sent.tokens)
                .map(|(&id, text)| Token {
                    id,
                    text: text.clone(),
                })
                .collect(),
            scores: sent.scores.clone(),
            ..bare
        };
        Ok(Self {
            grid,
            rule: sent.noise.clone(),
            scale: sent.noise_scale,
            corpus: (!sent.noise_corpus.is_empty()).then(|| sent.noise_corpus.clone()),
            compat: compat(sent.compat()),
        })
    }
}

impl From<SweptGrid> for v1::Grid {
    fn from(swept: SweptGrid) -> Self {
        let token = |token: Token| v1::Token {
            id: token.id,
            text: token.text,
        };
        let reading = |reading: Reading| v1::MetricReading {
            metric: metric_to_proto(reading.metric).into(),
            clean: reading.high,
            corrupted: reading.low,
            scores: reading.scores,
        };
        let verified = |cell: Verified| v1::VerifiedCell {
            token: cell.token as u32,
            head: cell.head.map(|head| head as u32),
            layer: cell.layer as u32,
            neuron: cell.neuron.map(|neuron| neuron as u32),
            random: cell.random,
            exact: cell.exact,
            estimate: cell.estimate,
        };
        let grid = swept.grid;
        let (engine, attribution_steps, grad_drop) = engine_to_proto(grid.engine);
        let (token_ids, tokens) = grid
            .tokens
            .into_iter()
            .map(|token| (token.id, token.text))
            .unzip();
        Self {
            kind: kind_to_proto(grid.kind, grid.severed).into(),
            fact: Some(grid.fact.into()),
            token_ids,
            tokens,
            subject_begin: grid.subject.start as u32,
            subject_end: grid.subject.end as u32,
            answer_id: grid.answer.id,
            answer: grid.answer.text,
            correct_prediction: grid.correct_prediction,
            high: grid.high,
            low: grid.low.unwrap_or_default(),
            layers: grid.layers as u32,
            heads: match grid.kind.is_of_heads() && !grid.scores.is_empty() {
                true => grid.heads as u32,
                false => 0,
            },
            scores: grid.scores,
            window: grid.window as u32,
            samples: grid.samples as u32,
            noise: swept.rule,
            noise_scale: swept.scale,
            seed: grid.seed,
            noise_corpus: swept.corpus.unwrap_or_default(),
            compat: compat_to_proto(swept.compat).into(),
            peak: None,
            corrupted: grid.corrupted.map(|it| v1::CorruptedPrompt {
                prompt: it.prompt,
                tokens: it.tokens.into_iter().map(token).collect(),
            }),
            foil: grid.foil.map(token),
            direction: direction_to_proto(grid.direction).into(),
            readings: grid.readings.into_iter().map(reading).collect(),
            untraced: grid.untraced.unwrap_or_default(),
            paths: grid.paths.as_ref().map(paths_to_proto),
            engine: engine.into(),
            attribution_steps,
            grad_drop,
            verified: grid.verified.into_iter().map(verified).collect(),
            neurons: grid.neurons,
            whole_answers: grid.whole_answers,
            answer_rest: grid.answer_rest.into_iter().map(token).collect(),
            foil_rest: grid.foil_rest.into_iter().map(token).collect(),
        }
    }
}

/// The rule with every number known. A rule that cannot be read is kept as it is: it decides no
/// number any more.
fn resolved(noise: &str, scale: f64) -> String {
    match noise.parse() {
        Ok(Rule {
            law: Law::Spread(_),
            replace,
        }) => Rule {
            law: Law::Gaussian(scale),
            replace,
        }
        .to_string(),
        _ => noise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::KINDS;

    fn sent() -> v1::Grid {
        v1::Grid {
            fact: Some(v1::Fact {
                prompt: "The Louvre is in".into(),
                subject: "The Louvre".into(),
                attribute: Some("Paris".into()),
                relation: Some("P131".into()),
                id: Some("7".into()),
                ..Default::default()
            }),
            kind: v1::Kind::Mlp.into(),
            token_ids: vec![1, 2, 3, 4],
            tokens: ["The", " Louvre", " is", " in"].map(str::to_owned).to_vec(),
            subject_begin: 0,
            subject_end: 2,
            answer_id: 5,
            answer: " Paris".into(),
            correct_prediction: true,
            high: 0.8,
            low: 0.1,
            layers: 2,
            scores: (0..8).map(|n| f64::from(n) / 8.0).collect(),
            window: 10,
            samples: 4,
            noise: "s3".into(),
            noise_scale: 0.25,
            seed: 1,
            compat: v1::Compat::None.into(),
            ..Default::default()
        }
    }

    prop_compose! {
        /// Any grid that the contract allows, in its canonical form.
        fn grids()(
            kind in prop::sample::select(KINDS.to_vec()),
            tokens in prop::collection::vec((any::<u32>(), ".{0,6}"), 1..6),
            layers in 1_u32..4,
            window in 1_u32..20,
            traced in any::<bool>(),
            numbers in prop::collection::vec(0.0..1.0_f64, 47),
            heads in 1_u32..4,
            noise in prop::sample::select(vec!["s3", "0.125", "u0.5", "m", "t4", "replace:s2.5"]),
            scale in 0.0..10.0_f64,
            corpus in prop::sample::select(vec!["", "ab"]),
            compat in prop::sample::select(vec![v1::Compat::None, v1::Compat::PaperCode]),
            texts in (".{0,9}", ".{0,9}", prop::option::of(".{0,9}"), prop::option::of(".{0,9}")),
            (samples, seed, id) in any::<(u32, u32, u32)>(),
            (counterfactual, noising, reason) in any::<(bool, bool, bool)>(),
            (engine, steps, random) in (0..4_i32, 2..9_u32, any::<bool>()),
        ) -> v1::Grid {
            let (state, _) = super::super::kind(kind).unwrap();
            let heads = if state.is_of_heads() { heads } else { 0 };
            let rows = if state.is_over_tokens() { 1 } else { tokens.len() };
            let cells = rows * layers as usize * heads.max(1) as usize;
            let (token_ids, tokens): (Vec<u32>, Vec<String>) = tokens.into_iter().unzip();
            let answered = traced;
            let traced = traced && !reason;
            let token = |id: u32| v1::Token { id, text: format!("t{id}") };
            let reading = |metric: v1::Metric| v1::MetricReading {
                metric: metric.into(),
                clean: numbers[0],
                corrupted: numbers[1],
                scores: numbers[..if traced { cells } else { 0 }].to_vec(),
            };
            let windowed = matches!(kind, v1::Kind::Mlp | v1::Kind::Attn);
            let estimated = engine == v1::Engine::Attribution as i32;
            v1::Grid {
                engine: if engine == v1::Engine::Exact as i32 { 0 } else { engine },
                attribution_steps: if estimated { steps } else { 0 },
                grad_drop: estimated && random,
                verified: match traced && estimated {
                    true => vec![v1::VerifiedCell {
                        token: if state.is_over_tokens() { 0 } else { tokens.len() as u32 - 1 },
                        head: heads.checked_sub(1),
                        neuron: (kind == v1::Kind::Neuron).then_some(samples),
                        estimate: match kind {
                            v1::Kind::Neuron => vec![scale; if counterfactual { 3 } else { 1 }],
                            _ => Vec::new(),
                        },
                        layer: layers - 1,
                        random,
                        exact: vec![scale; if counterfactual { 3 } else { 1 }],
                    }],
                    false => Vec::new(),
                },
                peak: None,
                paths: (noising && state.is_of_heads()).then(|| v1::Paths {
                    receivers: vec![v1::Receiver {
                        layer: samples,
                        head: seed,
                        input: v1::HeadInput::Key.into(),
                    }],
                    frozen_mlps: reason,
                }),
                corrupted: counterfactual.then(|| v1::CorruptedPrompt {
                    prompt: texts.0.clone(),
                    tokens: token_ids.iter().map(|&id| token(id)).collect(),
                }),
                neurons: match traced && kind == v1::Kind::Neuron {
                    true => vec![seed; cells],
                    false => Vec::new(),
                },
                whole_answers: random,
                answer_rest: if random { vec![token(seed)] } else { Vec::new() },
                foil: counterfactual.then(|| token(id)),
                foil_rest: match random && counterfactual {
                    true => vec![token(samples), token(id)],
                    false => Vec::new(),
                },
                direction: match noising {
                    true => v1::Direction::Noising.into(),
                    false => v1::Direction::Unspecified.into(),
                },
                readings: match counterfactual {
                    true => vec![reading(v1::Metric::Kl), reading(v1::Metric::LogitDifference)],
                    false => Vec::new(),
                },
                untraced: match reason {
                    true => "no partner".to_owned(),
                    false => String::new(),
                },
                fact: Some(v1::Fact {
                    subject_start: None,
                    corrupted: texts.3.clone(),
                    foil: texts.2.clone(),
                    prompt: texts.0.clone(),
                    subject: texts.1,
                    attribute: texts.2.clone(),
                    relation: texts.3,
                    id: texts.2,
                }),
                kind: kind.into(),
                subject_begin: 0,
                subject_end: tokens.len() as u32,
                token_ids,
                tokens,
                answer_id: id,
                answer: texts.0,
                correct_prediction: answered,
                high: numbers[45],
                low: if traced { numbers[46] } else { 0.0 },
                heads: if traced { heads } else { 0 },
                layers: if traced { layers } else { 0 },
                scores: numbers[..if traced { cells } else { 0 }].to_vec(),
                window: if windowed { window } else { 1 },
                samples,
                noise: noise.to_owned(),
                noise_scale: scale,
                seed,
                noise_corpus: corpus.to_owned(),
                compat: compat.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_grid_and_what_travels_of_it_lead_to_each_other(sent in grids()) {
            let swept = SweptGrid::try_from(&sent).unwrap();
            let back = v1::Grid::from(swept.clone());
            prop_assert_eq!(&back, &sent);
            prop_assert_eq!(&SweptGrid::try_from(&back).unwrap(), &swept);
            // What a worker makes of it is of the same form.
            let sweep = v1::TraceSpec {
                noise: sent.noise.clone(),
                noise_corpus: swept.corpus.clone().map(|digest| v1::Corpus { digest, size: 3 }),
                compat: sent.compat,
                ..Default::default()
            };
            let computed = Grid {
                window: match swept.grid.kind.is_windowed() {
                    false => 10,
                    true => swept.grid.window,
                },
                layers: swept.grid.layers.max(1),
                noise: "any".to_owned(),
                ..swept.grid.clone()
            };
            prop_assert_eq!(SweptGrid::of(computed, &sweep, sent.noise_scale), swept);
        }
    }

    #[test]
    fn a_grid_names_its_noise_with_every_number_known() {
        let noise = |rule: &str| {
            SweptGrid::try_from(&v1::Grid {
                noise: rule.into(),
                ..sent()
            })
            .unwrap()
            .grid
            .noise
        };
        assert_eq!(noise("s3"), "0.25");
        assert_eq!(noise("replace:s3"), "replace:0.25");
        assert_eq!(noise("0.125"), "0.125");
        assert_eq!(noise("u0.25"), "u0.25");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let message = |wrong: v1::Grid| SweptGrid::try_from(&wrong).unwrap_err().to_string();
        let short = message(v1::Grid {
            scores: vec![0.5; 7],
            ..sent()
        });
        assert!(
            short.contains("\"The Louvre is in\": the number of scores is 7, not 8"),
            "{short}"
        );
        let beyond = message(v1::Grid {
            subject_end: 5,
            ..sent()
        });
        assert!(
            beyond.contains("the subject's range is 0..5, not one or more of 4"),
            "{beyond}"
        );
        assert!(
            message(v1::Grid {
                tokens: Vec::new(),
                ..sent()
            })
            .contains("tokens is 0, not 4")
        );
        assert!(
            message(v1::Grid {
                layers: 0,
                scores: Vec::new(),
                ..sent()
            })
            .contains("layers is 0")
        );
        let of_heads = v1::Grid {
            kind: v1::Kind::Head.into(),
            ..sent()
        };
        assert!(message(of_heads.clone()).contains("heads is 0"));
        let fewer = v1::Grid {
            heads: 2,
            ..of_heads
        };
        assert!(message(fewer).contains("the number of scores is 8, not 16"));
        let outside = message(v1::Grid {
            verified: vec![v1::VerifiedCell {
                layer: 2,
                exact: vec![0.5],
                ..Default::default()
            }],
            ..sent()
        });
        assert!(
            outside.contains("a verified cell is token 0, layer 2, not one of 4 tokens and 2"),
            "{outside}"
        );
        let none = message(v1::Grid {
            verified: vec![v1::VerifiedCell::default()],
            ..sent()
        });
        assert!(
            none.contains("exact scores of a cell is 0, not 1"),
            "{none}"
        );
        assert!(message(v1::Grid { kind: 0, ..sent() }).starts_with("0 is not a kind"));
        assert!(message(v1::Grid { kind: 99, ..sent() }).starts_with("99 is not a kind"));
        assert!(
            message(v1::Grid {
                fact: None,
                ..sent()
            })
            .contains("no fact")
        );
    }

    #[test]
    fn a_kind_comes_back_as_it_was_sent() {
        for kind in KINDS {
            let (state, severed) = super::kind(kind).unwrap();
            assert_eq!(kind_to_proto(state, severed), kind);
        }
    }
}
