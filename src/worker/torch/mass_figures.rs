//! Figures of a mass edit: what was measured of its facts, targets and layers, summed up.

use crate::edit::Damping;
use crate::edit::measured::{Measured, ProbeChange};
use crate::eval::Mean;
use crate::proto::v1;

/// A figure as it is kept.
pub(super) fn named((key, value): (&str, f64)) -> v1::NamedNumber {
    v1::NamedNumber {
        key: key.to_owned(),
        value,
    }
}

/// The least and the mean of some numbers.
pub(super) fn spread(
    figures: &mut Vec<(&'static str, f64)>,
    [least, mean]: [&'static str; 2],
    numbers: impl IntoIterator<Item = f64>,
) {
    let numbers: Vec<f64> = numbers.into_iter().collect();
    if let Some(smallest) = numbers.iter().copied().reduce(f64::min) {
        let sum: f64 = numbers.iter().sum();
        figures.extend([(least, smallest), (mean, sum / numbers.len() as f64)]);
    }
}

/// The largest of a figure over the layers.
pub(super) fn largest(solved: &[&v1::MassEditSolved], key: &str) -> f64 {
    let figures = solved.iter().flat_map(|solved| &solved.figures);
    let of_key = figures.filter(|figure| figure.key == key);
    of_key.map(|figure| figure.value).fold(0.0, f64::max)
}

/// All facts of a batch as one.
pub(super) fn summed_up(facts: &[&v1::MassEditFact]) -> Measured {
    let mut measured = Measured::default();
    for fact in facts {
        measured.neighbour_drifts.extend(&fact.neighbour_drifts);
        for probe in &fact.probes {
            let of_kind = match probe.kind() {
                v1::EditProbeKind::Paraphrase => &mut measured.paraphrases,
                v1::EditProbeKind::Neighbour => &mut measured.neighbours,
                _ => &mut measured.rewrites,
            };
            of_kind.push(ProbeChange {
                new_before: probe.new_before,
                new_after: probe.new_after,
                true_before: probe.true_before,
                true_after: probe.true_after,
            });
        }
    }
    measured
}

/// How the targets were found.
pub(super) fn of_targets(targets: &[&v1::MassEditTarget]) -> Vec<(&'static str, f64)> {
    let mut figures = Vec::new();
    let each = |number: fn(&v1::MassEditTarget) -> f64| targets.iter().map(move |it| number(it));
    spread(
        &mut figures,
        ["target.probability.least", "target.probability.mean"],
        each(|it| it.probability),
    );
    spread(
        &mut figures,
        ["target.steps.least", "target.steps.mean"],
        each(|it| f64::from(it.steps)),
    );
    spread(
        &mut figures,
        ["target.length.least", "target.length.mean"],
        each(|it| it.length),
    );
    figures
}

/// The part of its residual that a key which stands alone is moved by.
pub(super) fn share(damping: Damping, leverage: f64) -> f64 {
    match damping {
        Damping::Unit => leverage / (1.0 + leverage),
        Damping::None => 1.0,
    }
}

/// Which batch of which size an edit is: two jobs that write the same facts in other batches write
/// something else. `facts` were written.
pub(super) fn of_batch(
    spec: &v1::MassEditSpec,
    asked: &v1::MassEditUnit,
    facts: usize,
) -> impl Iterator<Item = (&'static str, f64)> {
    let size = spec.batch.map_or(asked.tasks.len() as f64, f64::from);
    [
        ("batch.number", f64::from(asked.batch) + 1.0),
        ("batch.of", f64::from(asked.batches)),
        ("batch.size", size),
        ("batch.written", facts as f64),
    ]
    .into_iter()
}

/// ES, PS and NS, before and after: the mean over the facts of the part of their prompts after
/// which the new target is likelier than the true one, of neighbours the other way round; and half
/// the width of its 95 % interval. What no fact has prompts of is left out.
pub(super) fn scores(facts: &[&v1::MassEditFact]) -> Vec<(&'static str, f64)> {
    let kinds = [
        (
            v1::EditProbeKind::Rewrite,
            [
                ["es.before", "es.before.half"],
                ["es.after", "es.after.half"],
            ],
        ),
        (
            v1::EditProbeKind::Paraphrase,
            [
                ["ps.before", "ps.before.half"],
                ["ps.after", "ps.after.half"],
            ],
        ),
        (
            v1::EditProbeKind::Neighbour,
            [
                ["ns.before", "ns.before.half"],
                ["ns.after", "ns.after.half"],
            ],
        ),
    ];
    let mut scores = Vec::new();
    for (kind, names) in kinds {
        for (after, name) in [false, true].into_iter().zip(names) {
            let of_fact = facts.iter().filter_map(|fact| {
                let probes = fact.probes.iter().filter(|probe| probe.kind() == kind);
                let won = probes.filter_map(|probe| {
                    let (new, old) = match after {
                        true => (probe.new_after, probe.true_after?),
                        false => (probe.new_before, probe.true_before?),
                    };
                    Some(match kind {
                        v1::EditProbeKind::Neighbour => old > new,
                        _ => new > old,
                    })
                });
                let won: Vec<bool> = won.collect();
                let count = won.iter().filter(|won| **won).count();
                (!won.is_empty()).then(|| count as f64 / won.len() as f64)
            });
            let of_fact: Vec<f64> = of_fact.collect();
            if !of_fact.is_empty() {
                let mean = Mean::over(&of_fact);
                scores.push((name[0], mean.mean));
                scores.extend(mean.half.map(|half| (name[1], half)));
            }
        }
    }
    scores
}

/// The measured facts that an edit has, and those that are taken out of it.
pub(super) fn parted<'a>(
    facts: Vec<&'a v1::MassEditFact>,
    without: Option<&v1::mass_edit_spec::Without>,
) -> (Vec<&'a v1::MassEditFact>, Vec<&'a v1::MassEditFact>) {
    let is_out = |n: u32| without.is_some_and(|it| it.left_out.binary_search(&n).is_ok());
    let (mut kept, mut left_out) = (Vec::with_capacity(facts.len()), Vec::new());
    for (n, fact) in (0..).zip(facts) {
        match is_out(n) {
            true => left_out.push(fact),
            false => kept.push(fact),
        }
    }
    (kept, left_out)
}

/// What became of the facts that are taken out: the mean probabilities of their targets after the
/// rewritten prompts. And how long the changes of the layers were before.
pub(super) fn of_left_out(
    facts: &[&v1::MassEditFact],
    without: Option<&v1::mass_edit_spec::Without>,
) -> Vec<v1::NamedNumber> {
    let mut figures = Vec::new();
    let Some(without) = without else {
        return figures;
    };
    figures.push(named(("left_out.facts", facts.len() as f64)));
    type Number = fn(&v1::EditProbe) -> Option<f64>;
    let numbers: [(&str, Number); 4] = [
        ("left_out.new.before", |it| Some(it.new_before)),
        ("left_out.new.after", |it| Some(it.new_after)),
        ("left_out.true.before", |it| it.true_before),
        ("left_out.true.after", |it| it.true_after),
    ];
    for (name, number) in numbers {
        let probes = facts.iter().flat_map(|fact| &fact.probes);
        let rewrites = probes.filter(|probe| probe.kind() == v1::EditProbeKind::Rewrite);
        let found: Vec<f64> = rewrites.filter_map(number).collect();
        if !found.is_empty() {
            figures.push(named((
                name,
                found.iter().sum::<f64>() / found.len() as f64,
            )));
        }
    }
    let norms = without.figures.iter();
    let norms = norms.filter(|it| it.key.ends_with(".norm") || it.key.ends_with(".relative_norm"));
    figures.extend(norms.map(|it| v1::NamedNumber {
        key: format!("{}.before", it.key),
        value: it.value,
    }));
    figures
}
