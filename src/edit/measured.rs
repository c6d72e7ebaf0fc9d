//! What an edit did, in numbers, and whether that passes its gates.
//!
//! Plain numbers, without libtorch: the worker measures, and whoever keeps the edit judges it again
//! from the figures that are kept with it. A gate that asks for what was not measured, or whose
//! number is no number, is not passed.

use super::downstream::{self, TaskChange};

/// A change of more than this part of its matrix is worth a warning, where no gate says otherwise.
const LARGE: f64 = 0.5;

/// A prompt before and after an edit: probabilities a token, `exp(-NLL)`, of its answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeChange {
    /// Of the new object, before.
    pub new_before: f64,
    /// Of the new object, after.
    pub new_after: f64,
    /// Of the true object, before, where it is known.
    pub true_before: Option<f64>,
    /// Of the true object, after, where it is known.
    pub true_after: Option<f64>,
}

/// What an edit did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The sentences that were rewritten.
    pub rewrites: Vec<ProbeChange>,
    /// The same facts in other words.
    pub paraphrases: Vec<ProbeChange>,
    /// Other facts, which should stay.
    pub neighbours: Vec<ProbeChange>,
    /// Drift of what is said after each neighbouring prompt: `KL(before || after)` at the next
    /// token, in nats.
    pub neighbour_drifts: Vec<f64>,
    /// The same of text that has nothing to do with the edit, at all its tokens.
    pub text_drifts: Vec<f64>,
    /// Norm of the change, in norms of the matrix.
    pub update_norm: f64,
    /// Perplexity of the texts of whoever asked for the edit; none where they gave none.
    pub perplexity: Option<PerplexityChange>,
    /// The same of the coordinator's own texts.
    pub server_perplexity: Option<PerplexityChange>,
    /// The questions of whoever asked for the edit, by task; none where they gave none.
    pub downstream: Vec<TaskChange>,
}

/// The perplexity of some texts before and after an edit. A model that is wrecked may have one
/// beyond the largest number: that number stands for it, so that the edit is kept as rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerplexityChange {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

impl PerplexityChange {
    /// Of what was measured.
    pub fn of(before: f64, after: f64) -> Self {
        Self {
            before: told(before),
            after: told(after),
        }
    }

    /// After over before: 1 where nothing changed.
    pub fn ratio(self) -> f64 {
        told(self.after / self.before)
    }
}

/// The number, or the largest one in place of one beyond it.
fn told(number: f64) -> f64 {
    match number == f64::INFINITY {
        true => f64::MAX,
        false => number,
    }
}

impl Measured {
    /// The figures that are kept with an edit, in the order of their names. A mean over nothing is
    /// left out.
    pub fn named(&self) -> Vec<(String, f64)> {
        let mut named = Vec::new();
        let mut add = |name: String, value: Option<f64>| {
            named.extend(value.map(|value| (name, value)));
        };
        for (name, all) in [
            ("rewrite", &self.rewrites),
            ("paraphrases", &self.paraphrases),
            ("neighbours", &self.neighbours),
        ] {
            let each = || all.iter();
            let new_before = mean(each().map(|it| it.new_before));
            let true_before = mean(each().filter_map(|it| it.true_before));
            add(format!("{name}.new.before"), new_before);
            add(
                format!("{name}.new.after"),
                mean(each().map(|it| it.new_after)),
            );
            add(format!("{name}.true.before"), true_before);
            add(
                format!("{name}.true.after"),
                mean(each().filter_map(|it| it.true_after)),
            );
        }
        let drift = |drifts: &[f64]| mean(drifts.iter().copied());
        add("neighbours.drift".into(), drift(&self.neighbour_drifts));
        add("text.drift".into(), drift(&self.text_drifts));
        add("update_norm".into(), Some(self.update_norm));
        add("locality".into(), self.locality());
        for (of, change) in [
            ("ppl", self.perplexity),
            ("ppl.server", self.server_perplexity),
        ] {
            add(format!("{of}.before"), change.map(|it| it.before));
            add(format!("{of}.after"), change.map(|it| it.after));
            add(format!("{of}.ratio"), change.map(PerplexityChange::ratio));
        }
        for (name, value) in downstream::named(&self.downstream) {
            add(name, Some(value));
        }
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    /// What the gates go by.
    pub fn figures(&self) -> Figures<'_> {
        let margin = |it: &ProbeChange| it.new_after - it.true_after.unwrap_or_default();
        let smaller = |a: f64, b: f64| if a < b || a.is_nan() { a } else { b };
        Figures {
            margin: self.rewrites.iter().map(margin).reduce(smaller),
            neighbour_drift: mean(self.neighbour_drifts.iter().copied()),
            update_norm: Some(self.update_norm),
            ppl_ratio: self.perplexity.map(PerplexityChange::ratio),
            server_ppl_ratio: self.server_perplexity.map(PerplexityChange::ratio),
            locality: self.locality(),
            downstream_drop: downstream::largest(
                (self.downstream.iter()).map(|it| (it.task.as_str(), it.drop())),
            ),
        }
    }

    /// The share of the neighbouring prompts after which the true object is likelier than the new
    /// one, of those after which it was before the edit. Nothing where it was after none.
    pub fn locality(&self) -> Option<f64> {
        let before = |it: &&ProbeChange| it.true_before.is_some_and(|old| old > it.new_before);
        let known = self.neighbours.iter().filter(before);
        mean(known.map(|it| {
            let holds = it.true_after.is_some_and(|old| old > it.new_after);
            f64::from(u8::from(holds))
        }))
    }

    /// The name of the first number that is not finite, with it. An edit that has one was not
    /// measured.
    pub fn not_finite(&self) -> Option<(String, f64)> {
        self.named().into_iter().find(|(_, it)| !it.is_finite())
    }
}

/// The numbers of an edit that gates are about. What was not measured is [`None`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures<'a> {
    /// Probability a token of the new object less that of the true one, after the edit; of the new
    /// object alone where no true one is known. The least over the sentences that were rewritten.
    pub margin: Option<f64>,
    /// Mean drift of what is said after the neighbouring prompts, in nats.
    pub neighbour_drift: Option<f64>,
    /// Norm of the change, in norms of the matrix.
    pub update_norm: Option<f64>,
    /// Perplexity of the texts of whoever asked after the edit, in that before it.
    pub ppl_ratio: Option<f64>,
    /// The same of the coordinator's own texts.
    pub server_ppl_ratio: Option<f64>,
    /// [`Measured::locality`].
    pub locality: Option<f64>,
    /// The largest drop in accuracy among the tasks of the questions, with its task.
    pub downstream_drop: Option<(&'a str, f64)>,
}

impl<'a> Figures<'a> {
    /// Of the figures that an edit of one fact keeps, as [`Measured::named`] names them.
    pub fn from_named(named: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let mut figures = Self::default();
        let mut drops = Vec::new();
        let (mut new, mut old) = (None, None);
        for (name, value) in named {
            match name {
                "rewrite.new.after" => new = Some(value),
                "rewrite.true.after" => old = Some(value),
                "neighbours.drift" => figures.neighbour_drift = Some(value),
                "update_norm" => figures.update_norm = Some(value),
                "ppl.ratio" => figures.ppl_ratio = Some(value),
                "ppl.server.ratio" => figures.server_ppl_ratio = Some(value),
                "locality" => figures.locality = Some(value),
                _ => drops.extend(downstream::task_of_drop(name).map(|task| (task, value))),
            }
        }
        figures.downstream_drop = downstream::largest(drops);
        figures.margin = new.map(|new| new - old.unwrap_or_default());
        figures
    }
}

/// What an edit must pass to be accepted. What is [`None`] is no gate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gates {
    /// Least [`Figures::margin`].
    pub efficacy: Option<f64>,
    /// Most [`Figures::neighbour_drift`].
    pub neighbour_drift: Option<f64>,
    /// Most [`Figures::update_norm`].
    pub norm: Option<f64>,
    /// Most [`Figures::update_norm`] without a warning.
    pub norm_warning: Option<f64>,
    /// Most [`Figures::ppl_ratio`].
    pub ppl_ratio: Option<f64>,
    /// Most [`Figures::server_ppl_ratio`].
    pub server_ppl_ratio: Option<f64>,
    /// Least [`Figures::locality`].
    pub locality: Option<f64>,
    /// Most [`Figures::downstream_drop`].
    pub downstream_drop: Option<f64>,
}

impl Gates {
    /// The gates that let through what both let through. Of settings and a request: a request may
    /// be stricter than the settings, and never looser. A bound that is no number lets nothing
    /// through.
    pub fn strictest(a: Gates, b: Gates) -> Gates {
        let of = |a: Option<f64>, b: Option<f64>, stricter: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) if a.is_nan() || b.is_nan() => Some(f64::NAN),
            (Some(a), Some(b)) => Some(stricter(a, b)),
            (a, b) => a.or(b),
        };
        Gates {
            efficacy: of(a.efficacy, b.efficacy, f64::max),
            neighbour_drift: of(a.neighbour_drift, b.neighbour_drift, f64::min),
            norm: of(a.norm, b.norm, f64::min),
            norm_warning: of(a.norm_warning, b.norm_warning, f64::min),
            ppl_ratio: of(a.ppl_ratio, b.ppl_ratio, f64::min),
            server_ppl_ratio: of(a.server_ppl_ratio, b.server_ppl_ratio, f64::min),
            locality: of(a.locality, b.locality, f64::max),
            downstream_drop: of(a.downstream_drop, b.downstream_drop, f64::min),
        }
    }
}

/// What gates say of an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The gates that it does not pass, each with its number and its bound. Empty: it is accepted.
    pub failed: Vec<String>,
    /// What to think about before it is used.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Whether every gate is passed.
    pub fn accepted(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Judges an edit by its figures.
pub fn judge(figures: &Figures<'_>, gates: &Gates) -> Verdict {
    // What is not a number passes no gate.
    let fails = |larger: f64, smaller: f64| larger.is_nan() || smaller.is_nan() || larger < smaller;
    let mut failed = Vec::new();
    match (gates.efficacy, figures.margin) {
        (Some(least), None) => failed.push(format!(
            "efficacy: no sentence was measured after the edit, the gate asks for a margin of {least}"
        )),
        (Some(least), Some(margin)) if fails(margin, least) => failed.push(format!(
            "efficacy: the new target's margin is {}, the gate asks for {least}",
            beside(margin, least)
        )),
        _ => {}
    }
    match (gates.neighbour_drift, figures.neighbour_drift) {
        (Some(most), None) => failed.push(format!(
            "neighbours: their drift was not measured, the gate allows {most}: give neighbouring prompts, or ask for no \
             such gate"
        )),
        (Some(most), Some(drift)) if fails(most, drift) => failed.push(format!(
            "neighbours: they drift by {} nats, the gate allows {most}",
            beside(drift, most)
        )),
        _ => {}
    }
    match (gates.norm, figures.update_norm) {
        (Some(most), None) => failed.push(format!(
            "norm: the norm of the change was not measured, the gate allows {most}"
        )),
        (Some(most), Some(norm)) if fails(most, norm) => failed.push(format!(
            "norm: the change has {} of the matrix's norm, the gate allows {most}",
            beside(norm, most)
        )),
        _ => {}
    }
    for (gate, ratio, whose, remedy) in [
        (
            gates.ppl_ratio,
            figures.ppl_ratio,
            "the texts",
            "give texts with it (--gate-texts FILE), of two tokens at least",
        ),
        (
            gates.server_ppl_ratio,
            figures.server_ppl_ratio,
            "the coordinator's texts",
            "ask again, since the coordinator's settings changed meanwhile",
        ),
    ] {
        match (gate, ratio) {
            (Some(most), None) => failed.push(format!(
                "perplexity: that of {whose} was not measured, the gate allows {most} times what it was: {remedy}"
            )),
            (Some(most), Some(ratio)) if fails(most, ratio) => failed.push(format!(
                "perplexity: that of {whose} is {} times what it was, the gate allows {most}",
                beside(ratio, most)
            )),
            _ => {}
        }
    }
    match (gates.locality, figures.locality) {
        (Some(least), None) => failed.push(format!(
            "locality: it was not measured, the gate asks for {least}: give the true target, and neighbouring prompts \
             after which the model holds it for likelier than the new one, or ask for no such gate"
        )),
        (Some(least), Some(share)) if fails(share, least) => failed.push(format!(
            "locality: the true target stays the likelier after {} of the neighbouring prompts, the gate asks for {least}",
            beside(share, least)
        )),
        _ => {}
    }
    match (gates.downstream_drop, figures.downstream_drop) {
        (Some(most), None) => failed.push(format!(
            "downstream: no question was asked, the gate allows a drop in accuracy of {most}: give questions with it \
             (--gate-questions FILE)"
        )),
        (Some(most), Some((task, drop))) if fails(most, drop) => failed.push(format!(
            "downstream: the accuracy on {task} drops by {}, the gate allows {most}: try another layer, a lower clamp, or \
             fewer facts at once",
            beside(drop, most)
        )),
        _ => {}
    }
    let most = gates.norm_warning.unwrap_or(LARGE);
    let large = |norm: &f64| fails(most, *norm);
    let warnings = figures.update_norm.filter(large).map(|norm| {
        format!(
            "the change has {} of the matrix's norm, more than {most}: so large a change may wreck the model; try \
             another layer, more key statistics, or a lower clamp",
            beside(norm, most)
        )
    });
    Verdict {
        failed,
        warnings: warnings.into_iter().collect(),
    }
}

/// A number with three places behind the point, or with as many more digits as show on which side
/// of a bound it lies.
fn beside(number: f64, bound: f64) -> String {
    let shows = |text: &String| {
        let read: Result<f64, _> = text.parse();
        let small = number != 0.0 && number.abs() < 1e-3;
        read.is_ok_and(|read| read.partial_cmp(&bound) == number.partial_cmp(&bound))
            && (!small || text.contains('e'))
    };
    let fixed = (3..=6).map(|places| format!("{number:.places$}"));
    let digits = (2..=16).map(|places| format!("{number:.places$e}"));
    let found = fixed.chain(digits).find(shows);
    found.unwrap_or_else(|| number.to_string())
}

/// The mean, where there is anything to take it of.
fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(new_after: f64, true_after: Option<f64>) -> ProbeChange {
        ProbeChange {
            new_before: 0.1,
            new_after,
            true_before: true_after,
            true_after,
        }
    }

    fn task(task: &str, right_after: u32) -> TaskChange {
        TaskChange {
            task: task.into(),
            questions: 50,
            right_before: 25,
            right_after,
        }
    }

    fn measured() -> Measured {
        Measured {
            rewrites: vec![change(0.9, Some(0.05))],
            neighbours: vec![change(0.1, Some(0.6))],
            neighbour_drifts: vec![0.01, 0.03],
            text_drifts: vec![0.002],
            update_norm: 0.2,
            perplexity: Some(PerplexityChange::of(20.0, 21.0)),
            server_perplexity: Some(PerplexityChange::of(30.0, 30.3)),
            downstream: vec![task("sst2", 24), task("rte", 23)],
            ..Measured::default()
        }
    }

    const ALL: Gates = Gates {
        efficacy: Some(0.8),
        neighbour_drift: Some(0.05),
        norm: Some(0.3),
        norm_warning: None,
        ppl_ratio: Some(1.1),
        server_ppl_ratio: Some(1.05),
        locality: Some(0.9),
        downstream_drop: Some(0.04),
    };

    #[test]
    fn an_edit_within_all_bounds_is_accepted_and_one_beyond_each_is_not() {
        let good = measured();
        let good = good.figures();
        assert_eq!(judge(&good, &ALL), Verdict::default());
        for (bad, gate) in [
            (
                Figures {
                    margin: Some(0.79),
                    ..good
                },
                "efficacy: the new target's margin is 0.790",
            ),
            (
                Figures {
                    neighbour_drift: Some(0.06),
                    ..good
                },
                "neighbours: they drift by 0.060",
            ),
            (
                Figures {
                    update_norm: Some(0.31),
                    ..good
                },
                "norm: the change has 0.310",
            ),
            (
                Figures {
                    ppl_ratio: Some(1.11),
                    ..good
                },
                "perplexity: that of the texts is 1.110 times",
            ),
            (
                Figures {
                    server_ppl_ratio: Some(1.06),
                    ..good
                },
                "perplexity: that of the coordinator's texts is 1.060 times",
            ),
            (
                Figures {
                    locality: Some(0.89),
                    ..good
                },
                "locality: the true target stays the likelier after 0.890",
            ),
            (
                Figures {
                    downstream_drop: Some(("rte", 0.06)),
                    ..good
                },
                "downstream: the accuracy on rte drops by 0.060, the gate allows 0.04: try",
            ),
        ] {
            let failed = judge(&bad, &ALL).failed;
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(failed[0].starts_with(gate), "{failed:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_passes_no_gate() {
        let mut edit = measured();
        edit.rewrites.push(change(f64::NAN, None));
        edit.neighbour_drifts.push(f64::NAN);
        edit.update_norm = f64::NAN;
        edit.perplexity = Some(PerplexityChange::of(20.0, f64::NAN));
        let verdict = judge(&edit.figures(), &ALL);
        assert_eq!(verdict.failed.len(), 4, "{verdict:?}");
        assert_eq!(verdict.warnings.len(), 1, "{verdict:?}");
        assert!(edit.not_finite().is_some());
        assert_eq!(measured().not_finite(), None);
        let no_number = Gates {
            efficacy: Some(f64::NAN),
            ..Gates::default()
        };
        assert!(!judge(&measured().figures(), &no_number).accepted());
    }

    #[test]
    fn a_number_is_told_with_digits_that_show_on_which_side_of_its_bound_it_lies() {
        for (number, bound, told) in [
            (0.79, 0.8, "0.790"),
            (1.2345e-6, 1e-7, "1.23e-6"),
            (0.49996, 0.5, "0.49996"),
            (0.050_000_000_1, 0.05, "5.00000001e-2"),
            (0.0, 0.5, "0.000"),
            (-0.25, 0.1, "-0.250"),
            (f64::NAN, 0.1, "NaN"),
            (f64::INFINITY, 0.1, "inf"),
        ] {
            assert_eq!(beside(number, bound), told);
        }
        let figures = Figures {
            neighbour_drift: Some(3.4e-5),
            ..Figures::default()
        };
        let gates = Gates {
            neighbour_drift: Some(1e-7),
            ..Gates::default()
        };
        let failed = judge(&figures, &gates).failed;
        assert!(failed[0].contains("drift by 3.40e-5 nats"), "{failed:?}");
    }

    #[test]
    fn a_gate_over_what_was_not_measured_is_not_passed() {
        let mut edit = measured();
        edit.neighbours.clear();
        edit.neighbour_drifts.clear();
        (edit.perplexity, edit.server_perplexity) = (None, None);
        edit.downstream.clear();
        let failed = judge(&edit.figures(), &ALL).failed;
        let remedies = [
            "give neighbouring prompts",
            "--gate-texts FILE",
            "ask again",
            "give the true target",
            "--gate-questions FILE",
        ];
        assert_eq!(failed.len(), remedies.len(), "{failed:?}");
        for (failed, remedy) in failed.iter().zip(remedies) {
            assert!(failed.contains(remedy), "{failed:?}");
        }
        assert_eq!(judge(&Figures::default(), &ALL).failed.len(), 7);
        assert!(judge(&Figures::default(), &Gates::default()).accepted());
    }

    #[test]
    fn locality_is_the_share_that_stays_of_the_neighbours_that_were_right_before() {
        let neighbour = |before, after| ProbeChange {
            new_before: 0.3,
            new_after: 0.3,
            true_before: before,
            true_after: after,
        };
        let share = |neighbours: &[ProbeChange]| {
            let edit = Measured {
                neighbours: neighbours.to_vec(),
                ..Measured::default()
            };
            edit.locality()
        };
        let stays = neighbour(Some(0.6), Some(0.4));
        let (lost, level) = (
            neighbour(Some(0.6), Some(0.2)),
            neighbour(Some(0.6), Some(0.3)),
        );
        // One that was wrong before cannot be lost, and one that became right pays for none.
        let (never, gained) = (
            neighbour(Some(0.3), Some(0.1)),
            neighbour(Some(0.2), Some(0.9)),
        );
        assert_eq!(share(&[stays, lost, level, never, gained]), Some(1.0 / 3.0));
        assert_eq!(share(&[never, gained]), None);
        assert_eq!(share(&[neighbour(None, None)]), None);
        assert_eq!(share(&[]), None);
    }

    #[test]
    fn a_wrecked_models_perplexity_has_a_number_and_passes_no_gate() {
        let mut edit = measured();
        edit.perplexity = Some(PerplexityChange::of(20.0, f64::INFINITY));
        assert_eq!(edit.not_finite(), None);
        assert_eq!(judge(&edit.figures(), &ALL).failed.len(), 1);
    }

    #[test]
    fn without_a_true_object_the_margin_is_that_over_nothing() {
        let mut edit = measured();
        edit.rewrites = vec![change(0.85, None)];
        assert_eq!(edit.figures().margin, Some(0.85));
        assert!(judge(&edit.figures(), &ALL).accepted());
    }

    #[test]
    fn the_figures_that_are_kept_are_judged_as_those_that_were_measured() {
        for true_after in [Some(0.05), None] {
            let mut edit = measured();
            edit.rewrites = vec![change(0.7, true_after)];
            let named = edit.named();
            let pairs = named.iter().map(|(name, value)| (name.as_str(), *value));
            assert_eq!(Figures::from_named(pairs), edit.figures());
        }
    }

    #[test]
    fn a_request_can_be_stricter_than_the_settings_and_not_looser() {
        let looser = Gates {
            efficacy: Some(0.1),
            neighbour_drift: Some(9.0),
            norm: Some(9.0),
            norm_warning: Some(9.0),
            ppl_ratio: Some(9.0),
            server_ppl_ratio: Some(9.0),
            locality: Some(0.1),
            downstream_drop: Some(0.9),
        };
        let strict = Gates {
            norm_warning: Some(0.5),
            ..ALL
        };
        assert_eq!(Gates::strictest(strict, looser), strict);
        assert_eq!(Gates::strictest(looser, strict), strict);
        assert_eq!(Gates::strictest(ALL, Gates::default()), ALL);
        assert_eq!(Gates::strictest(Gates::default(), ALL), ALL);
        let none = Gates {
            norm: Some(f64::NAN),
            ..ALL
        };
        assert!(
            Gates::strictest(ALL, none)
                .norm
                .is_some_and(|it| it.is_nan())
        );
    }
}
