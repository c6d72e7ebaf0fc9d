//! Says of an edit of many that stands for another what was computed again, and what was kept.

use crate::cli::{names, output};
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, EditProbeKind};

/// Most facts that are listed.
const LISTED: usize = 20;

/// Prints it of an edit that stands for another; nothing of one that does not. `facts` are those
/// that were measured.
///
/// # Errors
/// That nothing more can be printed.
pub(super) fn print<'a>(
    edit: &v1::Edit,
    facts: impl Iterator<Item = &'a v1::MassEditFact>,
) -> anyhow::Result<()> {
    if edit.replaces.is_empty() {
        return Ok(());
    }
    let layers: Vec<String> = edit.factors.iter().map(|it| it.layer.to_string()).collect();
    show!(
        "in the place of edit {}, without {} of its {} facts",
        names::brief(&edit.replaces),
        edit.left_out.len(),
        edit.left_out.len() + edit.requests.len()
    )?;
    show!(
        "computed again: the changes of layers {}, solved from the keys and residuals that the edit keeps",
        layers.join(", ")
    )?;
    show!(
        "kept: the targets and keys of the other {}; every other edit of the branch, as it is",
        facts_in_words(edit.requests.len())
    )?;
    let mut table = Table::new(&[
        ("LEFT OUT", Align::Left),
        ("BEFORE", Align::Right),
        ("AFTER", Align::Right),
    ]);
    let is_out = |fact: &&v1::MassEditFact| {
        let request = fact.request.as_ref();
        request.is_some_and(|request| edit.left_out.contains(request))
    };
    for fact in facts.filter(is_out).take(LISTED) {
        let probe = fact
            .probes
            .iter()
            .find(|it| it.kind() == EditProbeKind::Rewrite);
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.3}"));
        table.row([
            fact.request
                .as_ref()
                .map(names::request)
                .unwrap_or_default(),
            number(probe.map(|it| it.new_before)),
            number(probe.map(|it| it.new_after)),
        ]);
    }
    output::print_table(&table)?;
    if edit.left_out.len() > LISTED {
        show!("and {} more", edit.left_out.len() - LISTED)?;
    }
    show!("")?;
    Ok(())
}

fn facts_in_words(count: usize) -> String {
    match count {
        1 => "fact".to_owned(),
        count => format!("{count} facts"),
    }
}
