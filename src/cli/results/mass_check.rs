//! Shows what is to be expected of a batch of facts before it is computed.

use serde_json::{Value, json};

use crate::cli::{names, output};
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Most facts and pairs of a list.
const LISTED: usize = 10;
/// Most layers that have a column each.
const COLUMNS: usize = 6;

/// Prints a pre-flight.
///
/// # Errors
/// That nothing more can be printed.
pub fn print(checked: &v1::MassEditChecked) -> anyhow::Result<()> {
    show!(
        "batch {}: {} facts, {} keys",
        checked.batch + 1,
        checked.facts,
        checked.keys
    )?;
    print_layers(checked)?;
    print_worst(checked)?;
    let mut near = Table::new(&[
        ("COSINE", Align::Right),
        ("LAYER", Align::Right),
        ("NEARLY ONE KEY", Align::Left),
        ("AND", Align::Left),
    ]);
    for pair in checked.near.iter().take(LISTED) {
        near.row([
            format!("{:.3}", pair.cosine),
            pair.layer.to_string(),
            pair.one.clone(),
            pair.other.clone(),
        ]);
    }
    table(&near, checked.near.len(), checked.near_count)?;
    let mut shared = Table::new(&[
        ("FACTS", Align::Right),
        ("SHARE THE KEY AND ONE TARGET AT", Align::Left),
    ]);
    for it in checked.shared.iter().take(LISTED) {
        shared.row([it.facts.len().to_string(), it.text.clone()]);
    }
    table(&shared, checked.shared.len(), checked.shared_count)?;
    let mut overwritten = Table::new(&[
        ("COSINE", Align::Right),
        ("OVERWRITTEN", Align::Left),
        ("EDIT", Align::Left),
        ("BY", Align::Left),
    ]);
    for it in checked.overwritten.iter().take(LISTED) {
        overwritten.row([
            format!("{:.3}", it.cosine),
            fact(it),
            names::brief(&it.edit).to_owned(),
            it.by.clone(),
        ]);
    }
    table(
        &overwritten,
        checked.overwritten.len(),
        checked.overwritten_count,
    )?;
    for warning in &checked.warnings {
        say!("warning: {warning}");
    }
    Ok(())
}

/// A table, where it has rows, and how many more there are.
fn table(table: &Table, listed: usize, all: u64) -> anyhow::Result<()> {
    if listed == 0 {
        return Ok(());
    }
    show!("")?;
    output::print_table(table)?;
    let rest = all.saturating_sub(listed.min(LISTED) as u64);
    if rest > 0 {
        show!("and {rest} more; --json has {listed} in all")?;
    }
    Ok(())
}

fn print_layers(checked: &v1::MassEditChecked) -> anyhow::Result<()> {
    let mut layers = Table::new(&[
        ("LAYER", Align::Right),
        ("TOKENS", Align::Right),
        ("LEVERAGE", Align::Right),
        ("LEAST", Align::Right),
        ("SHARE REACHED", Align::Right),
        ("LEAST", Align::Right),
    ]);
    for layer in &checked.layers {
        let figure = |key: &str| {
            let found = layer.figures.iter().find(|it| it.key == key);
            found.map_or("-".to_owned(), |it| match key.starts_with("share") {
                true => format!("{:.1} %", 100.0 * it.value),
                false => format!("{:.1}", it.value),
            })
        };
        layers.row([
            layer.layer.to_string(),
            output::grouped(layer.tokens),
            figure("leverage.mean"),
            figure("leverage.least"),
            figure("share.mean"),
            figure("share.least"),
        ]);
    }
    Ok(output::print_table(&layers)?)
}

/// The keys that come least near their targets, with what each layer reaches.
fn print_worst(checked: &v1::MassEditChecked) -> anyhow::Result<()> {
    let of_layers = checked.layers.iter().take(COLUMNS);
    let names: Vec<String> = of_layers.map(|it| format!("AT {}", it.layer)).collect();
    let mut head = vec![("LEAST SHARE", Align::Left)];
    head.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
    let mut worst = Table::new(&head);
    for key in checked.worst.iter().take(LISTED) {
        let shares = key.share.iter().take(names.len());
        let shares = shares.map(|share| format!("{:.1} %", 100.0 * share));
        worst.row(std::iter::once(key.fact.clone()).chain(shares));
    }
    table(&worst, checked.worst.len(), checked.keys)
}

/// A fact that is overwritten, in words.
pub fn fact(of: &v1::OverwrittenFact) -> String {
    let request = of.request.clone().unwrap_or_default();
    let text = request.prompt.replacen("{}", &request.subject, 1);
    format!("{text} {}", request.target_new.trim())
}

/// A pre-flight for programs.
pub fn json(checked: &v1::MassEditChecked) -> Value {
    let figures = |list: &[v1::NamedNumber]| -> serde_json::Map<String, Value> {
        let each = list.iter().map(|it| (it.key.clone(), json!(it.value)));
        each.collect()
    };
    json!({
        "checked_batch": checked.batch + 1, "fact_count": checked.facts, "keys": checked.keys,
        "left_out": checked.left_out, "warnings": checked.warnings,
        "layers": checked.layers.iter().map(|it| json!({
            "layer": it.layer, "tokens": it.tokens, "figures": figures(&it.figures),
        })).collect::<Vec<_>>(),
        "worst": checked.worst.iter().map(|it| json!({
            "fact": it.fact, "facts": it.facts, "leverage": it.leverage, "share": it.share,
        })).collect::<Vec<_>>(),
        "near": checked.near.iter().map(|it| json!({
            "one": it.one, "other": it.other, "layer": it.layer, "cosine": it.cosine,
        })).collect::<Vec<_>>(),
        "near_count": checked.near_count,
        "shared": checked.shared.iter().map(|it| json!({
            "text": it.text, "facts": it.facts,
        })).collect::<Vec<_>>(),
        "shared_count": checked.shared_count, "first_tokens": checked.first_tokens,
        "first_token_count": checked.first_token_count,
        "overwritten": checked.overwritten.iter().map(overwritten_json).collect::<Vec<_>>(),
        "overwritten_count": checked.overwritten_count,
    })
}

/// A fact that is overwritten, for programs.
pub fn overwritten_json(of: &v1::OverwrittenFact) -> Value {
    let request = of.request.clone().unwrap_or_default();
    json!({
        "edit": of.edit, "subject": request.subject, "prompt": request.prompt,
        "target_new": request.target_new, "id": request.id, "by": of.by, "cosine": of.cosine,
        "before": of.before, "after": of.after,
    })
}
