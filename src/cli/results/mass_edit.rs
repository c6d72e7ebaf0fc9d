//! Shows what edits of many facts did.

use serde_json::json;

use super::{beside, mass_check, mass_without};

use crate::cli::{names, output};
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, EditProbeKind, unit_result::Outcome};

/// Most failures that are told, and most facts of a list.
const FAILURES: usize = 20;
const LISTED: usize = 10;

/// Prints the results of a mass edit: its edits, and as JSON its facts too.
///
/// # Errors
/// That nothing more can be printed.
pub fn print(results: &[v1::UnitResult], as_json: bool) -> anyhow::Result<()> {
    // What an edit has among its warnings is not said twice.
    let mut checks_only = true;
    let (mut failed, mut last) = (0, "");
    let facts = || {
        let outcomes = results.iter().map(|result| &result.outcome);
        outcomes.filter_map(|outcome| match outcome {
            Some(Outcome::MassEditFact(fact)) => Some(fact),
            _ => None,
        })
    };
    for result in results {
        match &result.outcome {
            Some(Outcome::Edit(outcome)) => {
                checks_only = false;
                match as_json {
                    true => output::json(&edit_json(outcome))?,
                    false => print_edit(outcome, facts())?,
                }
            }
            Some(Outcome::MassEditFact(fact)) if as_json => output::json(&fact_json(fact))?,
            Some(Outcome::MassEditChecked(checked)) if as_json => {
                output::json(&mass_check::json(checked))?;
            }
            Some(Outcome::MassEditChecked(checked)) if checks_only => mass_check::print(checked)?,
            Some(Outcome::Failure(failure)) => {
                failed += 1;
                if failed <= FAILURES && last != failure.message {
                    say!("unit {}: {}", result.unit, failure.message);
                    last = &failure.message;
                }
            }
            _ => {}
        }
    }
    if failed > FAILURES {
        say!("{} more units failed", failed - FAILURES);
    }
    Ok(())
}

fn print_edit<'a>(
    outcome: &v1::EditOutcome,
    facts: impl Iterator<Item = &'a v1::MassEditFact>,
) -> anyhow::Result<()> {
    let edit = outcome.edit.clone().unwrap_or_default();
    let figure = |key: &str| {
        edit.figures
            .iter()
            .find(|it| it.key == key)
            .map(|it| it.value)
    };
    let number = figure("batch.number").zip(figure("batch.of"));
    let batch = number.map_or(String::new(), |(number, of)| {
        let size = figure("batch.size").unwrap_or_default();
        format!(
            ": batch {number:.0} of {of:.0}, in the order of the request, {size:.0} facts a batch"
        )
    });
    show!("{} facts by {}{batch}", edit.requests.len(), edit.method)?;
    mass_without::print(&edit, facts)?;
    let mut scores = Table::new(&[
        ("", Align::Left),
        ("BEFORE", Align::Right),
        ("AFTER", Align::Right),
    ]);
    for (what, key) in [
        ("new target likelier, rewritten prompts (ES)", "es"),
        ("new target likelier, paraphrases (PS)", "ps"),
        ("true target likelier, neighbours (NS)", "ns"),
        ("probability of the new target", "rewrite.new"),
        ("probability of the true target", "rewrite.true"),
    ] {
        let [before, after] = ["before", "after"].map(|when| figure(&format!("{key}.{when}")));
        if let (Some(before), Some(after)) = (before, after) {
            let with_half = |value: f64, when: &str| match figure(&format!("{key}.{when}.half")) {
                Some(half) => format!("{value:.3} ± {half:.3}"),
                None => format!("{value:.3}"),
            };
            scores.row([
                what.to_owned(),
                with_half(before, "before"),
                with_half(after, "after"),
            ]);
        }
    }
    output::print_table(&scores)?;
    let mut layers = Table::new(&[
        ("LAYER", Align::Right),
        ("RANK", Align::Right),
        ("NORM", Align::Right),
        ("OF THE MATRIX", Align::Right),
        ("MEAN SHARE", Align::Right),
        ("LEAST", Align::Right),
        ("KEPT", Align::Right),
    ]);
    for factor in &edit.factors {
        let of = |key: &str| figure(&format!("layer.{}.{key}", factor.layer));
        let number = |key: &str| of(key).map_or("-".to_owned(), |value| format!("{value:.3}"));
        let kept = of("kept_rank").zip(of("kept_trace"));
        layers.row([
            factor.layer.to_string(),
            match factor.rank {
                0 => "whole".to_owned(),
                rank => rank.to_string(),
            },
            match of("norm.before") {
                Some(before) => format!("{}, {before:.3} before", number("norm")),
                None => number("norm"),
            },
            number("relative_norm"),
            number("share.mean"),
            number("share.least"),
            match kept {
                Some((rank, trace)) => {
                    format!(
                        "{rank:.0} of {}, {:.2} % of trace",
                        factor.inner,
                        100.0 * trace
                    )
                }
                None => "-".to_owned(),
            },
        ]);
    }
    show!("")?;
    output::print_table(&layers)?;
    if let (Some(steps), Some(probability)) = (
        figure("target.steps.mean"),
        figure("target.probability.mean"),
    ) {
        show!(
            "targets: {steps:.1} steps, the new target's probability there {probability:.3}, means"
        )?;
    }
    if let Some(drift) = figure("text.drift") {
        show!("other text drifts by {drift:.4} nats a token")?;
    }
    for line in beside::lines(&edit.figures) {
        show!("{line}")?;
    }
    print_overwritten(
        &outcome.overwritten,
        figure("overwritten").unwrap_or_default(),
    )?;
    for warning in &edit.warnings {
        say!("warning: {warning}");
    }
    Ok(())
}

/// The facts of earlier edits that an edit overwrites, `all` of them.
fn print_overwritten(overwritten: &[v1::OverwrittenFact], all: f64) -> anyhow::Result<()> {
    if overwritten.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("OVERWRITTEN", Align::Left),
        ("EDIT", Align::Left),
        ("BEFORE", Align::Right),
        ("AFTER", Align::Right),
    ]);
    for fact in overwritten.iter().take(LISTED) {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.3}"));
        table.row([
            mass_check::fact(fact),
            names::brief(&fact.edit).to_owned(),
            number(fact.before),
            number(fact.after),
        ]);
    }
    show!("")?;
    output::print_table(&table)?;
    let rest = all as usize - overwritten.len().min(LISTED).min(all as usize);
    if rest > 0 {
        show!("and {rest} more; --json has up to {}", overwritten.len())?;
    }
    Ok(())
}

fn edit_json(outcome: &v1::EditOutcome) -> serde_json::Value {
    let edit = outcome.edit.clone().unwrap_or_default();
    let numbers = |list: &[v1::NamedNumber]| -> serde_json::Map<String, serde_json::Value> {
        list.iter()
            .map(|it| (it.key.clone(), json!(it.value)))
            .collect()
    };
    let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    json!({
        "facts": edit.requests.len(), "method": edit.method,
        "layers": edit.factors.iter().map(|factor| factor.layer).collect::<Vec<_>>(),
        "layer_choice": edit.layer_choice, "parameters": numbers(&edit.parameters),
        "accepted": edit.failed_gates.is_empty(), "failed_gates": edit.failed_gates, "warnings": edit.warnings,
        "edit": some(&edit.name), "version": some(&outcome.version), "figures": numbers(&edit.figures),
        "overwritten": outcome.overwritten.iter().map(mass_check::overwritten_json).collect::<Vec<_>>(),
        "replaces": some(&edit.replaces), "left_out": edit.left_out.iter().map(names::request).collect::<Vec<_>>(),
    })
}

fn fact_json(fact: &v1::MassEditFact) -> serde_json::Value {
    let request = fact.request.clone().unwrap_or_default();
    let kind = |kind: EditProbeKind| match kind {
        EditProbeKind::Unspecified => "-",
        EditProbeKind::Rewrite => "rewrite",
        EditProbeKind::Paraphrase => "paraphrase",
        EditProbeKind::Neighbour => "neighbour",
    };
    let probes = fact.probes.iter().map(|probe| {
        json!({
            "kind": kind(probe.kind()), "prompt": probe.prompt, "new_before": probe.new_before,
            "new_after": probe.new_after, "true_before": probe.true_before, "true_after": probe.true_after,
        })
    });
    json!({
        "subject": request.subject, "prompt": request.prompt, "target_new": request.target_new,
        "target_true": request.target_true, "id": request.id, "probes": probes.collect::<Vec<_>>(),
        "neighbour_drifts": fact.neighbour_drifts, "batch": fact.batch + 1,
    })
}
