//! Shows what an edit did.

use serde_json::json;

use super::beside;
use crate::cli::output;
use crate::proto::v1::{self, EditProbeKind, unit_result::Outcome};

/// Prints what an edit did.
pub fn print(result: &v1::UnitResult, as_json: bool) -> anyhow::Result<()> {
    let outcome = match &result.outcome {
        Some(Outcome::Edit(outcome)) => outcome,
        Some(Outcome::Failure(failure)) => {
            say!("edit {}: {}", result.unit + 1, failure.message);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let edit = outcome.edit.clone().unwrap_or_default();
    let request = edit.requests.first().cloned().unwrap_or_default();
    if as_json {
        let figures: serde_json::Map<_, _> = edit
            .figures
            .iter()
            .map(|f| (f.key.clone(), json!(f.value)))
            .collect();
        let probes: Vec<_> = outcome
            .probes
            .iter()
            .map(|p| {
                json!({
                    "kind": kind(p.kind()), "prompt": p.prompt, "new_before": p.new_before, "new_after": p.new_after,
                    "true_before": p.true_before, "true_after": p.true_after,
                })
            })
            .collect();
        let line = json!({
            "subject": request.subject, "target_new": request.target_new, "target_true": request.target_true,
            "id": request.id, "method": edit.method, "accepted": edit.failed_gates.is_empty(),
            "failed_gates": edit.failed_gates, "warnings": edit.warnings, "layer": layer_of(&edit),
            "layer_choice": edit.layer_choice, "edit": some(&edit.name), "version": some(&outcome.version), "figures": figures, "probes": probes,
            "losses": outcome.steps.iter().map(|step| step.loss).collect::<Vec<_>>(),
        });
        output::json(&line)?;
        return Ok(());
    }
    let arrow = |before: f64, after: f64| format!("{before:.3} -> {after:.3}");
    for probe in &outcome.probes {
        let mut line = format!(
            "{:<11} {}  {} {}",
            kind(probe.kind()),
            probe.prompt,
            request.target_new.trim(),
            arrow(probe.new_before, probe.new_after)
        );
        if let (Some(target), Some(before), Some(after)) =
            (&request.target_true, probe.true_before, probe.true_after)
        {
            line += &format!(", {} {}", target.trim(), arrow(before, after));
        }
        show!("{line}")?;
    }
    let figure = |key: &str| edit.figures.iter().find(|f| f.key == key).map(|f| f.value);
    let norm = figure("update_norm").unwrap_or_default();
    let drift = match figure("text.drift") {
        Some(drift) => format!("other text drifts by {drift:.4} nats a token"),
        None => "the drift of other text was not measured: it does not fit the model's context"
            .to_owned(),
    };
    show!(
        "{} at layer {} in {} steps; the change has {norm:.3} of the matrix's norm; {drift}",
        edit.method,
        layer_of(&edit),
        outcome.steps.len(),
    )?;
    for line in beside::lines(&edit.figures) {
        show!("{line}")?;
    }
    for warning in &edit.warnings {
        say!("warning: {warning}");
    }
    Ok(())
}

/// A name, if there is one.
fn some(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// The layer that an edit changes.
fn layer_of(edit: &v1::Edit) -> u32 {
    edit.factors.first().map_or(0, |factor| factor.layer)
}

fn kind(kind: EditProbeKind) -> &'static str {
    match kind {
        EditProbeKind::Unspecified => "-",
        EditProbeKind::Rewrite => "rewrite",
        EditProbeKind::Paraphrase => "paraphrase",
        EditProbeKind::Neighbour => "neighbour",
    }
}
