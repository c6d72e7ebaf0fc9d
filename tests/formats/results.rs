//! The README's tables of what edits do are those of `deploy/results`, which `deploy/results.sh`
//! makes. A table stands behind a comment that names its file and its measures:
//!
//! ```text
//! <!-- deploy/results/zsre.jsonl: EA | PA | NA -->
//! ```
//!
//! `NS unedited` is NS of the same records without the edits, in a column of its own.
//!
//! With `PALIMPSEST_RENEW_README=1` the README is made to agree.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use palimpsest::eval::Metric;
use serde_json::Value;

const BEGIN: &str = "<!-- deploy/results/";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// A line of a file: what a measure is on one row.
struct Found {
    row: String,
    value: Value,
}

fn read(file: &str) -> Vec<Found> {
    let text = fs::read_to_string(root().join("deploy/results").join(file));
    let text = text.unwrap_or_else(|error| panic!("deploy/results/{file}: {error}"));
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let row = value["row"].as_str().unwrap().to_owned();
        Found { row, value }
    });
    lines.collect()
}

/// A mean with half of its interval, as the tables of the command line have them.
fn cell(measure: &str, mean: &Value) -> String {
    let scale = match measure.parse::<Metric>() {
        Ok(metric) => metric.scale(),
        Err(()) if measure.starts_with("PPL") => 1.0,
        Err(()) => 100.0,
    };
    let Some(value) = mean["mean"].as_f64() else {
        return String::new();
    };
    if measure == "norm" {
        return format!("{value:.2}");
    }
    let half = mean["interval"].as_array().map(|ends| {
        let ends: Vec<f64> = ends.iter().map(|end| end.as_f64().unwrap()).collect();
        (ends[1] - ends[0]) / 2.0
    });
    let half = half.map_or(String::new(), |half| format!(" ± {:.1}", half * scale));
    format!("{:.1}{half}", value * scale)
}

/// The table of a comment's file and measures: a row a run, the unedited model's first where all
/// runs asked it the same.
fn table(file: &str, measures: &[&str]) -> String {
    let found = read(file);
    let mut rows: Vec<&str> = Vec::new();
    for it in &found {
        if !rows.contains(&it.row.as_str()) {
            rows.push(&it.row);
        }
    }
    let get = |row: &str, measure: &str| {
        let mut of = found.iter().filter(|it| it.row == row);
        let it = of.find(|it| it.value["measure"] == measure);
        let it = it.unwrap_or_else(|| panic!("{file}: {row} has no {measure}"));
        &it.value
    };
    let line = |name: &str, column: &str, of: &str| {
        let cells = measures.iter().map(|named| {
            let (measure, column) = match named.strip_suffix(" unedited") {
                Some(measure) => (measure, "against"),
                None => (*named, column),
            };
            cell(measure, &get(of, measure)[column])
        });
        format!("| {name} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = format!(
        "| | {} |\n|---|{}\n",
        measures.join(" | "),
        "---|".repeat(measures.len())
    );
    let same = |measure: &&str| {
        let first = &get(rows[0], measure)["against"]["mean"];
        !first.is_null()
            && rows
                .iter()
                .all(|row| &get(row, measure)["against"]["mean"] == first)
    };
    if measures.iter().all(|named| !named.ends_with(" unedited")) && measures.iter().all(same) {
        text += &line("unedited", "against", rows[0]);
    }
    for row in rows {
        text += &line(row, "measured", row);
    }
    text
}

#[test]
fn the_readmes_tables_of_edits_are_those_of_the_results() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let mut made = String::new();
    let mut pieces = readme.split(BEGIN);
    made += pieces.next().unwrap();
    let mut tables = 0;
    for piece in pieces {
        let (head, rest) = piece.split_once(" -->\n").expect("a comment ends its line");
        let (file, measures) = head.split_once(": ").expect("a file, then measures");
        let measures: Vec<&str> = measures.split(" | ").collect();
        // The table that stands there, if one does.
        let lines = rest.split_inclusive('\n');
        let end: usize = lines
            .take_while(|line| line.starts_with('|'))
            .map(str::len)
            .sum();
        made += &format!(
            "{BEGIN}{head} -->\n{}{}",
            table(file, &measures),
            &rest[end..]
        );
        tables += 1;
    }
    assert!(tables > 0, "the README has no such table");
    let renew = std::env::var_os("PALIMPSEST_RENEW_README").is_some();
    if renew {
        fs::write(&path, &made).unwrap();
        return;
    }
    let differs = readme.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(
        readme == made,
        "the README has other numbers than deploy/results: PALIMPSEST_RENEW_README=1 takes them; first {differs:?}"
    );
    let all = fs::read_dir(root().join("deploy/results")).unwrap();
    for file in all {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            readme.contains(&format!("{BEGIN}{name}: ")),
            "deploy/results/{name} is in no table of the README"
        );
    }
}
