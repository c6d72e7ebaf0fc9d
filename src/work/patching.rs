//! What a sweep asks for besides noise and the probability: other prompts, metrics, the direction.

use super::Wrong;
use super::check::{prompt, shorten};
use super::extent;
use crate::proto::v1;

impl v1::TraceSpec {
    /// The metrics that were asked for, and the other prompt where one corrupts: all of them in a
    /// traced grid, each as large as the grid.
    pub(super) fn check_readings(&self, grid: &v1::Grid) -> Result<(), String> {
        if !grid.untraced.is_empty() || !grid.correct_prediction {
            return match (&grid.readings[..], extent::text_of(1, &grid.untraced)) {
                ([], Ok(())) if self.is_noisy() && !grid.untraced.is_empty() => {
                    Err("it is not traced, and noise needs no other prompt".to_owned())
                }
                ([], said) => said.map_err(|what| format!("its reason {what}")),
                _ => Err("it is not traced, and has metrics".to_owned()),
            };
        }
        let asked = self.metrics().filter(|&it| it != v1::Metric::Probability);
        if !asked.eq(grid.readings.iter().map(v1::MetricReading::metric)) {
            return Err("its metrics are not those that were asked for".to_owned());
        }
        let mut readings = grid.readings.iter();
        if let Some(wrong) = readings.find(|it| it.scores.len() != grid.scores.len()) {
            return Err(format!(
                "its grid has {} scores and {} of them in a metric",
                grid.scores.len(),
                wrong.scores.len()
            ));
        }
        match (&grid.corrupted, self.is_noisy()) {
            (None, true) => Ok(()),
            (Some(_), true) => Err("it is corrupted by a prompt and not by noise".to_owned()),
            (None, false) => Err("it does not say what corrupts it".to_owned()),
            (Some(other), false) if other.tokens.len() == grid.token_ids.len() => other
                .tokens
                .iter()
                .try_for_each(|token| extent::text_of(1, &token.text))
                .and_then(|()| extent::text_of(1, &grid.foil.clone().unwrap_or_default().text))
                .map_err(|what| format!("a token of what corrupts it {what}")),
            (Some(other), false) => Err(format!(
                "what corrupts it has {} tokens, and it has {}",
                other.tokens.len(),
                grid.token_ids.len()
            )),
        }
    }

    /// Whether noise corrupts.
    pub(super) fn is_noisy(&self) -> bool {
        !matches!(
            self.corruption(),
            v1::Corruption::Counterfactual | v1::Corruption::Pairs
        )
    }

    /// Corruption, direction and metrics. What is the default is not said, so that a request is the
    /// same whether it says so or is older than these fields.
    pub(super) fn check_patching(&mut self, wrong: &mut Wrong) {
        match v1::Corruption::try_from(self.corruption) {
            Ok(v1::Corruption::Noise) => self.set_corruption(v1::Corruption::Unspecified),
            Ok(_) => {}
            Err(_) => wrong.say(
                "job.trace.corruption",
                format_args!(
                    "{} is not a corruption: use CORRUPTION_NOISE, CORRUPTION_COUNTERFACTUAL or \
                     CORRUPTION_PAIRS",
                    self.corruption
                ),
            ),
        }
        match v1::Direction::try_from(self.direction) {
            Ok(v1::Direction::Denoising) => self.set_direction(v1::Direction::Unspecified),
            Ok(v1::Direction::Noising) if self.is_noisy() => wrong.say(
                "job.trace.direction",
                "noising patches states of another prompt, and noise corrupts: use \
                 CORRUPTION_COUNTERFACTUAL or CORRUPTION_PAIRS, or DIRECTION_DENOISING",
            ),
            Ok(_) => {}
            Err(_) => wrong.say(
                "job.trace.direction",
                format_args!(
                    "{} is not a direction: use DIRECTION_DENOISING or DIRECTION_NOISING",
                    self.direction
                ),
            ),
        }
        for (n, &metric) in self.metrics.iter().enumerate() {
            let field = format_args!("job.trace.metrics[{n}]");
            if !matches!(v1::Metric::try_from(metric), Ok(it) if it != v1::Metric::Unspecified) {
                wrong.say(
                    field,
                    format_args!(
                        "{metric} is not a metric: use METRIC_PROBABILITY, METRIC_LOG_PROBABILITY, \
                         METRIC_LOGIT_DIFFERENCE, METRIC_KL or METRIC_RANK"
                    ),
                );
            } else if self.metrics[..n].contains(&metric) {
                wrong.say(field, "the metric is named twice");
                break; // as with kinds
            }
        }
        if self.metrics == [v1::Metric::Probability as i32] {
            self.metrics.clear();
        }
        if !self.is_noisy() && self.compat() == v1::Compat::PaperCode {
            wrong.say(
                "job.trace.compat",
                "COMPAT_PAPER_CODE severs paths with a second draw of noise, and another prompt \
                 corrupts: use COMPAT_NONE",
            );
        }
    }

    /// Another prompt has one row and no noise.
    pub(super) fn check_no_noise(&mut self, wrong: &mut Wrong) {
        if !self.noise.is_empty() {
            let what = format_args!(
                "another prompt corrupts, and '{}' is noise: leave it out, or use CORRUPTION_NOISE",
                self.noise
            );
            wrong.say("job.trace.noise", what);
        }
        if self.noise_corpus.is_some() {
            wrong.say(
                "job.trace.noise_corpus",
                "another prompt corrupts, which draws from no corpus: leave it out",
            );
        }
        if self.samples > 1 {
            let what = format_args!(
                "another prompt is one row, {} samples are more: leave it out",
                self.samples
            );
            wrong.say("job.trace.samples", what);
        }
        self.samples = 1;
    }

    /// What corrupts a fact and what its answer is compared with.
    pub(super) fn check_pair(&self, n: usize, fact: &v1::Fact, wrong: &mut Wrong) {
        let field = format_args!("job.trace.facts[{n}].corrupted");
        match &fact.corrupted {
            Some(corrupted) if *corrupted == fact.prompt => wrong.say(
                field,
                format_args!(
                    "'{}' is the prompt itself: give another subject or another prompt",
                    shorten(corrupted)
                ),
            ),
            Some(corrupted) => prompt(field, corrupted, wrong),
            None if self.corruption() == v1::Corruption::Pairs => wrong.say(
                field,
                "there is none, and CORRUPTION_PAIRS takes the facts' own: give a prompt of as many \
                 tokens, or use CORRUPTION_COUNTERFACTUAL",
            ),
            None => {}
        }
        let field = format_args!("job.trace.facts[{n}].foil");
        match &fact.foil {
            Some(foil) if foil.trim().is_empty() => wrong.say(
                field,
                "the foil is blank, which is no answer: give the answer to compare with, or leave \
                 it out",
            ),
            Some(foil) if fact.attribute.as_deref().map(str::trim) == Some(foil.trim()) => wrong.say(
                field,
                format_args!(
                    "'{}' is the fact's attribute too: give another answer to compare with",
                    shorten(foil)
                ),
            ),
            Some(foil) => prompt(field, foil, wrong),
            None if self.is_noisy() && self.metrics().any(|it| it == v1::Metric::LogitDifference) => wrong.say(
                field,
                "there is none, and METRIC_LOGIT_DIFFERENCE compares with it under noise: give one, \
                 or use CORRUPTION_COUNTERFACTUAL, whose partner's answer is one",
            ),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::checked_sweep as checked;
    use crate::proto::v1;

    fn fact() -> v1::Fact {
        v1::Fact {
            prompt: "The tower stands in".to_owned(),
            subject: "The tower".to_owned(),
            attribute: Some("Paris".to_owned()),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_the_default_is_the_same_request_whether_it_is_said_or_not() {
        let bare = v1::TraceSpec {
            facts: vec![fact()],
            ..Default::default()
        };
        let said = v1::TraceSpec {
            corruption: v1::Corruption::Noise as i32,
            direction: v1::Direction::Denoising as i32,
            metrics: vec![v1::Metric::Probability as i32],
            ..bare.clone()
        };
        assert_eq!(checked(said).ok(), checked(bare).ok());
    }

    #[test]
    fn what_cannot_be_patched_is_refused_by_its_field_with_the_remedy() {
        let counterfactual = v1::TraceSpec {
            facts: vec![fact()],
            corruption: v1::Corruption::Counterfactual as i32,
            ..Default::default()
        };
        assert!(checked(counterfactual.clone()).is_ok_and(|spec| spec.samples == 1));
        let noise = v1::TraceSpec {
            facts: vec![fact()],
            ..Default::default()
        };
        let with = |more: v1::Fact, spec: &v1::TraceSpec| v1::TraceSpec {
            facts: vec![more],
            ..spec.clone()
        };
        let pairs = v1::Corruption::Pairs as i32;
        for (spec, field, remedy) in [
            (
                v1::TraceSpec {
                    noise: "s3".to_owned(),
                    ..counterfactual.clone()
                },
                "job.trace.noise",
                "leave it out",
            ),
            (
                v1::TraceSpec {
                    samples: 5,
                    ..counterfactual.clone()
                },
                "job.trace.samples",
                "leave it out",
            ),
            (
                v1::TraceSpec {
                    compat: v1::Compat::PaperCode as i32,
                    ..counterfactual.clone()
                },
                "job.trace.compat",
                "use COMPAT_NONE",
            ),
            (
                v1::TraceSpec {
                    direction: v1::Direction::Noising as i32,
                    ..noise.clone()
                },
                "job.trace.direction",
                "use CORRUPTION_COUNTERFACTUAL",
            ),
            (
                v1::TraceSpec {
                    metrics: vec![77],
                    ..noise.clone()
                },
                "job.trace.metrics[0]",
                "METRIC_KL",
            ),
            (
                v1::TraceSpec {
                    metrics: vec![v1::Metric::LogitDifference as i32],
                    ..noise.clone()
                },
                "job.trace.facts[0].foil",
                "give one",
            ),
            (
                v1::TraceSpec {
                    corruption: pairs,
                    ..noise.clone()
                },
                "job.trace.facts[0].corrupted",
                "give a prompt of as many tokens",
            ),
            (
                with(
                    v1::Fact {
                        corrupted: Some(fact().prompt),
                        ..fact()
                    },
                    &counterfactual,
                ),
                "job.trace.facts[0].corrupted",
                "give another subject or another prompt",
            ),
            (
                with(
                    v1::Fact {
                        foil: Some(" Paris".to_owned()),
                        ..fact()
                    },
                    &counterfactual,
                ),
                "job.trace.facts[0].foil",
                "give another answer",
            ),
        ] {
            let wrong = checked(spec).err().unwrap_or_default();
            assert_eq!(wrong.len(), 1, "{field}: {wrong:?}");
            assert_eq!(wrong[0].0, field);
            assert!(wrong[0].1.contains(remedy), "{wrong:?}");
        }
    }
}
