//! What a sweep of estimates asks for and gives: attribution patching, and the cells of it that are
//! verified.

use super::Wrong;
use crate::causal::Kind;
use crate::causal::settings::{STEPS_LIMIT, VERIFY_LIMIT};
use crate::proto::v1;
use crate::wire;

impl v1::TraceSpec {
    /// Whether the grids are estimates.
    pub(super) fn is_estimated(&self) -> bool {
        self.engine() == v1::Engine::Attribution
    }

    /// What only attribution takes, and what it cannot estimate. What is the default is not said.
    pub(super) fn check_attribution(&mut self, wrong: &mut Wrong) {
        let bound = |field: &str, value: u32, most: usize, wrong: &mut Wrong| {
            if value as usize > most {
                wrong.say(field, format_args!("{value} is too many: {most} at most"));
            }
        };
        if !self.is_estimated() {
            for (n, _) in self
                .kinds()
                .enumerate()
                .filter(|(_, it)| *it == v1::Kind::Neuron)
            {
                wrong.say(
                    format_args!("job.trace.kinds[{n}]"),
                    "single neurons are estimated alone: use ENGINE_ATTRIBUTION, with `verify` for \
                     the exact effects of the strongest",
                );
            }
            let asked = [
                ("job.trace.attribution_steps", self.attribution_steps > 0),
                ("job.trace.grad_drop", self.grad_drop),
                ("job.trace.verify", self.verify > 0),
            ];
            for (field, _) in asked.into_iter().filter(|(_, asked)| *asked) {
                wrong.say(
                    field,
                    "only ENGINE_ATTRIBUTION takes it, whose scores are estimates: leave it out, \
                     or use that engine",
                );
            }
            return;
        }
        let steps = "job.trace.attribution_steps";
        bound(steps, self.attribution_steps, STEPS_LIMIT, wrong);
        bound("job.trace.verify", self.verify, VERIFY_LIMIT, wrong);
        if self.attribution_steps == 1 {
            self.attribution_steps = 0;
        }
        for (n, kind) in self.kinds().enumerate() {
            if matches!(
                kind,
                v1::Kind::HiddenSeveredMlp | v1::Kind::HiddenSeveredAttn
            ) {
                wrong.say(
                    format_args!("job.trace.kinds[{n}]"),
                    format_args!(
                        "ENGINE_ATTRIBUTION estimates no severed paths, and {} is one: leave it \
                         out, or use ENGINE_EXACT",
                        kind.as_str_name()
                    ),
                );
            }
        }
        if self.paths.is_some() {
            wrong.say(
                "job.trace.paths",
                "ENGINE_ATTRIBUTION estimates no paths: leave them out, or use ENGINE_EXACT",
            );
        }
        let flat = self.direction() == v1::Direction::Noising && self.attribution_steps == 0;
        for (n, metric) in self.metrics().enumerate() {
            let field = format_args!("job.trace.metrics[{n}]");
            match metric {
                v1::Metric::Rank => wrong.say(
                    field,
                    "METRIC_RANK has no gradient, and ENGINE_ATTRIBUTION estimates by one: use \
                     METRIC_LOG_PROBABILITY or METRIC_LOGIT_DIFFERENCE, or ENGINE_EXACT",
                ),
                v1::Metric::LogitDifference if self.whole_answers => wrong.say(
                    field,
                    "METRIC_LOGIT_DIFFERENCE of whole answers comes from two runs, and \
                     ENGINE_ATTRIBUTION takes its gradients from one: use METRIC_LOG_PROBABILITY, \
                     or ENGINE_EXACT",
                ),
                v1::Metric::Kl if flat => wrong.say(
                    field,
                    "in noising the gradient of METRIC_KL is 0 where it is taken, at the clean \
                     run: give 2 or more attribution_steps ('--integrated 2'), or use \
                     ENGINE_EXACT",
                ),
                _ => {}
            }
        }
        // With another prompt it is refused anyway.
        if self.compat() == v1::Compat::PaperCode && self.is_noisy() {
            wrong.say(
                "job.trace.compat",
                "COMPAT_PAPER_CODE is about severed paths, which ENGINE_ATTRIBUTION has not: use \
                 COMPAT_NONE",
            );
        }
        if self.dtype() == v1::Dtype::F16 {
            wrong.say(
                "job.trace.dtype",
                "gradients of small probabilities are 0 in DTYPE_F16: use DTYPE_BF16 or DTYPE_F32, \
                 or ENGINE_EXACT",
            );
        }
    }

    /// A grid that says how it was computed, with as many verified cells as were asked for, each
    /// once, where there may be any.
    pub(super) fn check_estimate(&self, grid: &v1::Grid) -> Result<(), String> {
        let said = (grid.engine(), grid.attribution_steps, grid.grad_drop);
        let as_asked = match self.engine() {
            v1::Engine::Attribution => {
                said == (self.engine(), self.attribution_steps, self.grad_drop)
            }
            // An older worker does not say how.
            engine => {
                let engines = [v1::Engine::Unspecified, engine];
                engines.contains(&grid.engine()) && said.1 == 0 && !said.2
            }
        };
        if !as_asked {
            return Err("its engine is not the one that was asked for".to_owned());
        }
        let layers = grid.layers as usize;
        let first = match (&grid.corrupted, self.is_noisy()) {
            (Some(other), false) => {
                let mut tokens = grid.token_ids.iter().zip(&other.tokens);
                tokens.position(|(&id, other)| id != other.id)
            }
            _ => Some(grid.subject_begin as usize),
        };
        let kind = wire::kind(grid.kind()).map(|(kind, _)| kind);
        let of_heads = kind.is_some_and(Kind::is_of_heads);
        let heads = grid.heads.max(1) as usize;
        // Where every token is patched at once, there is one place for all of them.
        let places = match kind.is_some_and(Kind::is_over_tokens) {
            true => 0..1,
            false => first.unwrap_or(grid.token_ids.len())..grid.token_ids.len(),
        };
        let of_neurons = kind == Some(Kind::Neuron);
        // How many neurons a layer has is not known here: more than the largest number of one.
        let each = grid
            .neurons
            .iter()
            .max()
            .map_or(1, |&most| most as usize + 1);
        let cells = places
            .len()
            .saturating_mul(each.saturating_mul(heads * layers));
        let cells = match of_neurons {
            true => cells.max(grid.verified.len()),
            false => cells,
        };
        let traced = grid.correct_prediction && grid.untraced.is_empty();
        let asked = if traced { self.verify as usize } else { 0 };
        let top = asked.min(cells);
        let random = asked.min(cells - top);
        let verified = &grid.verified;
        let estimates = if of_neurons { grid.scores.len() } else { 0 };
        if grid.neurons.len() != estimates {
            return Err(format!(
                "it names {} neurons, {estimates} are needed",
                grid.neurons.len()
            ));
        }
        if verified.len() != top + random {
            return Err(format!(
                "it has {} verified cells, {} are needed",
                verified.len(),
                top + random
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (n, cell) in verified.iter().enumerate() {
            let (token, layer) = (cell.token as usize, cell.layer as usize);
            let head = cell.head.unwrap_or_default() as usize;
            let inside = places.contains(&token) && layer < layers && head < heads;
            let inside = inside && of_heads == cell.head.is_some();
            let inside = inside && of_neurons == cell.neuron.is_some();
            let place = (token, layer, head, cell.neuron);
            if !inside || cell.random != (n >= top) || !seen.insert(place) {
                return Err(format!(
                    "its verified cell {n}, token {token} and layer {layer}, is none of those to \
                     verify there"
                ));
            }
            let estimates = if of_neurons { cell.exact.len() } else { 0 };
            if cell.estimate.len() != estimates {
                return Err(format!(
                    "its verified cell {n} has {} estimates, {estimates} are needed",
                    cell.estimate.len()
                ));
            }
            if cell.exact.len() != 1 + grid.readings.len() {
                return Err(format!(
                    "its verified cell {n} has {} scores, {} are needed",
                    cell.exact.len(),
                    1 + grid.readings.len()
                ));
            }
        }
        Ok(())
    }

    /// Multiply-adds of a fact's estimates over some tokens. A backward pass is about two forward
    /// ones. A verified cell is on average in the middle of the layers and of the tokens, and so a
    /// quarter of a pass, on a run of its own in which what windows begin with is tried too.
    pub(super) fn estimate_cost(&self, tokens: usize, shape: &v1::model::Shape) -> f64 {
        let (tokens, layers) = (tokens as f64, f64::from(shape.layers.max(1)));
        let head = f64::from(shape.width) * f64::from(shape.vocabulary);
        let a_pass = tokens * layers * shape.block_parameters as f64 + head;
        let metrics = 1 + self
            .metrics()
            .filter(|&it| it != v1::Metric::Probability)
            .count();
        let ways = if self.grad_drop {
            layers / 2.0 + 1.0
        } else {
            1.0
        };
        let steps = f64::from(self.attribution_steps.max(1));
        let gradients = steps * (1.0 + 2.0 * metrics as f64 * ways);
        let cells = (tokens * layers).min(2.0 * f64::from(self.verify));
        let run = if self.verify > 0 { 3.0 } else { 0.0 };
        let verified = run + self.kinds.len() as f64 * cells / 4.0;
        a_pass * (1.0 + f64::from(self.samples) * (gradients + verified))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::checked_sweep as checked;
    use super::*;

    fn spec() -> v1::TraceSpec {
        v1::TraceSpec {
            facts: vec![v1::Fact {
                prompt: "The tower stands in".to_owned(),
                subject: "The tower".to_owned(),
                corrupted: Some("The castle stands in".to_owned()),
                ..Default::default()
            }],
            corruption: v1::Corruption::Pairs as i32,
            engine: v1::Engine::Attribution as i32,
            ..Default::default()
        }
    }

    #[test]
    fn one_step_is_the_same_request_whether_it_is_said_or_not() {
        let said = v1::TraceSpec {
            attribution_steps: 1,
            ..spec()
        };
        assert_eq!(checked(said).ok(), checked(spec()).ok());
    }

    #[test]
    fn what_cannot_be_estimated_is_refused_by_its_field_with_the_remedy() {
        let noising = v1::TraceSpec {
            direction: v1::Direction::Noising as i32,
            metrics: vec![v1::Metric::Kl as i32],
            ..spec()
        };
        let integrated = v1::TraceSpec {
            attribution_steps: 2,
            ..noising.clone()
        };
        assert!(checked(integrated).is_ok());
        let exact = v1::TraceSpec {
            engine: v1::Engine::Exact as i32,
            ..spec()
        };
        let leave_out = "leave it out, or use that engine";
        for (spec, field, remedy) in [
            (
                noising,
                "job.trace.metrics[0]",
                "2 or more attribution_steps",
            ),
            (
                v1::TraceSpec {
                    metrics: vec![v1::Metric::Kl as i32, v1::Metric::Rank as i32],
                    ..spec()
                },
                "job.trace.metrics[1]",
                "use METRIC_LOG_PROBABILITY",
            ),
            (
                v1::TraceSpec {
                    kinds: vec![v1::Kind::Mlp as i32, v1::Kind::HiddenSeveredAttn as i32],
                    ..spec()
                },
                "job.trace.kinds[1]",
                "use ENGINE_EXACT",
            ),
            (
                v1::TraceSpec {
                    whole_answers: true,
                    metrics: vec![v1::Metric::LogitDifference as i32],
                    ..spec()
                },
                "job.trace.metrics[0]",
                "use METRIC_LOG_PROBABILITY",
            ),
            (
                v1::TraceSpec {
                    kinds: vec![v1::Kind::Neuron as i32],
                    ..exact.clone()
                },
                "job.trace.kinds[0]",
                "use ENGINE_ATTRIBUTION",
            ),
            (
                v1::TraceSpec {
                    kinds: vec![v1::Kind::Head as i32],
                    paths: Some(v1::Paths {
                        receivers: vec![v1::Receiver {
                            layer: 1,
                            head: 0,
                            input: v1::HeadInput::Query as i32,
                        }],
                        frozen_mlps: false,
                    }),
                    ..spec()
                },
                "job.trace.paths",
                "use ENGINE_EXACT",
            ),
            (
                v1::TraceSpec {
                    compat: v1::Compat::PaperCode as i32,
                    corruption: v1::Corruption::Noise as i32,
                    ..spec()
                },
                "job.trace.compat",
                "use COMPAT_NONE",
            ),
            (
                v1::TraceSpec {
                    dtype: v1::Dtype::F16 as i32,
                    ..spec()
                },
                "job.trace.dtype",
                "use DTYPE_BF16",
            ),
            (
                v1::TraceSpec {
                    attribution_steps: 1_001,
                    ..spec()
                },
                "job.trace.attribution_steps",
                "1000 at most",
            ),
            (
                v1::TraceSpec {
                    verify: 1_001,
                    ..spec()
                },
                "job.trace.verify",
                "1000 at most",
            ),
            (
                v1::TraceSpec {
                    attribution_steps: 1,
                    ..exact.clone()
                },
                "job.trace.attribution_steps",
                leave_out,
            ),
            (
                v1::TraceSpec {
                    grad_drop: true,
                    ..exact.clone()
                },
                "job.trace.grad_drop",
                leave_out,
            ),
            (
                v1::TraceSpec { verify: 5, ..exact },
                "job.trace.verify",
                leave_out,
            ),
        ] {
            let wrong = checked(spec).err().unwrap_or_default();
            assert_eq!(wrong.len(), 1, "{field}: {wrong:?}");
            assert_eq!(wrong[0].0, field);
            assert!(wrong[0].1.contains(remedy), "{wrong:?}");
        }
    }

    #[test]
    fn an_estimate_has_the_verified_cells_that_were_asked_for() {
        let asked = v1::TraceSpec {
            verify: 2,
            ..spec()
        };
        let cell = |token, layer, random| v1::VerifiedCell {
            token,
            layer,
            random,
            exact: vec![0.5],
            ..Default::default()
        };
        let token = |id| v1::Token {
            id,
            ..Default::default()
        };
        let sound = v1::Grid {
            token_ids: vec![1, 2, 3],
            corrupted: Some(v1::CorruptedPrompt {
                tokens: vec![token(1), token(9), token(3)],
                ..Default::default()
            }),
            correct_prediction: true,
            layers: 2,
            engine: v1::Engine::Attribution as i32,
            verified: vec![
                cell(1, 0, false),
                cell(2, 1, false),
                cell(1, 1, true),
                cell(2, 0, true),
            ],
            ..Default::default()
        };
        assert_eq!(asked.check_estimate(&sound), Ok(()));
        type Change = fn(&mut v1::Grid);
        let changes: [(Change, &str); 8] = [
            (|grid| grid.engine = 0, "its engine"),
            (|grid| grid.attribution_steps = 3, "its engine"),
            (|grid| grid.grad_drop = true, "its engine"),
            (|grid| grid.verified.truncate(3), "3 verified cells, 4 are"),
            // Nothing is other there.
            (
                |grid| grid.verified[0].token = 0,
                "verified cell 0, token 0",
            ),
            (|grid| grid.verified[1].layer = 2, "verified cell 1"),
            (
                |grid| grid.verified[3] = grid.verified[2].clone(),
                "verified cell 3",
            ),
            (|grid| grid.verified[2].random = false, "verified cell 2"),
        ];
        for (change, said) in changes {
            let mut grid = sound.clone();
            change(&mut grid);
            let error = asked.check_estimate(&grid).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        // Of neurons as many as the model has of them, where these are few.
        let mut of_neurons = sound.clone();
        of_neurons.kind = v1::Kind::Neuron as i32;
        of_neurons.scores = vec![0.5; 6];
        of_neurons.neurons = vec![0; 6];
        for cell in &mut of_neurons.verified {
            (cell.neuron, cell.estimate) = (Some(0), vec![0.25]);
        }
        assert_eq!(asked.check_estimate(&of_neurons), Ok(()));
        let mut fewer = of_neurons.clone();
        fewer.verified.truncate(3);
        assert!(asked.check_estimate(&fewer).is_err());
        let mut unnamed = of_neurons.clone();
        unnamed.neurons.pop();
        assert!(asked.check_estimate(&unnamed).is_err());
        of_neurons.verified[2].estimate.clear();
        assert!(asked.check_estimate(&of_neurons).is_err());
        // Of a head over all tokens there is one place.
        let mut over_all = sound.clone();
        over_all.kind = v1::Kind::HeadVAll as i32;
        over_all.heads = 2;
        for (n, cell) in over_all.verified.iter_mut().enumerate() {
            (cell.token, cell.head) = (0, Some(n as u32 / 2));
            cell.layer = n as u32 % 2;
        }
        assert_eq!(asked.check_estimate(&over_all), Ok(()));
        over_all.verified[1].head = None;
        assert!(asked.check_estimate(&over_all).is_err());
        let mut bare = sound.clone();
        bare.verified[0].exact.clear();
        assert!(
            asked
                .check_estimate(&bare)
                .unwrap_err()
                .contains("0 scores")
        );
        // There are four cells: of five the largest are all, and none is left for chance.
        let five = v1::TraceSpec {
            verify: 5,
            ..spec()
        };
        let mut all = sound.clone();
        all.verified.iter_mut().for_each(|cell| cell.random = false);
        assert_eq!(five.check_estimate(&all), Ok(()));
        // An exact grid has none, and need not say that it is exact.
        let exact = v1::TraceSpec {
            engine: v1::Engine::Plain as i32,
            ..spec()
        };
        assert!(exact.check_estimate(&sound).is_err());
        for engine in [v1::Engine::Unspecified, v1::Engine::Plain] {
            let plain = v1::Grid {
                engine: engine as i32,
                verified: Vec::new(),
                ..sound.clone()
            };
            assert_eq!(exact.check_estimate(&plain), Ok(()));
        }
    }
}
