//! Texts that an edit's key is averaged over.

use std::path::Path;

use anyhow::{Context, bail};

/// The contexts of a file; none without one.
pub fn contexts(file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let Some(path) = file else {
        return Ok(Vec::new());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect();
    if lines.is_empty() {
        bail!(
            "{} has no contexts: {{}} alone is the bare sentence",
            path.display()
        );
    }
    Ok(lines)
}
