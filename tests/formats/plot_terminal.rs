//! The figures in the terminal.

#![allow(clippy::unwrap_used)]

use palimpsest::plot::{Across, Colour, Curves, HeatMap, Kind, Series};
use unicode_width::UnicodeWidthStr;

fn map(layers: usize) -> HeatMap {
    let tokens = [
        "The",
        " Space",
        " Needle",
        "\n",
        " 東京",
        "\u{1b}[2J",
        " downtown",
    ]
    .map(str::to_owned);
    let score = |row: usize, layer: usize| match row {
        2 => 0.8 * (1.0 - layer as f32 / layers as f32),
        6 => layer as f32 / (layers - 1) as f32,
        _ => 0.02 * row as f32,
    };
    HeatMap {
        title: "Impact of restoring state after corrupted input".into(),
        x_label: "single restored layer within SmolLM2".into(),
        value_label: "p(Seattle)".into(),
        rows: tokens.to_vec(),
        starred: 1..3,
        layers,
        scores: (0..7)
            .flat_map(|row| (0..layers).map(move |layer| score(row, layer)))
            .collect(),
        kind: Kind::Hidden,
        low: 0.02,
        signed: false,
        high: Some(1.0),
        ceiling: None,
    }
}

/// Text without its styles; panics on any other escape sequence.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('m').expect("only styles are written") + at;
        let inside = &rest[at + 1..end];
        assert!(
            inside.starts_with('[') && inside[1..].chars().all(|c| c.is_ascii_digit() || c == ';'),
            "{inside:?}"
        );
        rest = &rest[end + 1..];
    }
    out + rest
}

#[test]
fn a_heat_map_without_colour_is_shaded() {
    let mut map = map(30);
    map.scores[3 * 30 + 4] = f32::NAN;
    insta::assert_snapshot!(map.to_terminal(80, Colour::Never).unwrap());
}

#[test]
fn a_narrow_terminal_folds_layers_and_says_so() {
    insta::assert_snapshot!(map(80).to_terminal(48, Colour::Never).unwrap());
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for layers in [2, 12, 30, 80, 200] {
        for width in [32, 40, 60, 80, 132, 300] {
            for colour in [Colour::Never, Colour::Ansi256, Colour::TrueColor] {
                let text = plain(&map(layers).to_terminal(width, colour).unwrap());
                for line in text.lines() {
                    assert!(
                        line.width() <= width,
                        "{layers} layers, {width} columns: {} in {line:?}",
                        line.width()
                    );
                }
                assert_eq!(
                    text.contains("each column is"),
                    layers > width - 3 - label_width(width),
                    "{text}"
                );
            }
        }
    }
}

/// Columns of the longest label, "‹U+001B›[2J", as far as a third of the width allows.
fn label_width(width: usize) -> usize {
    "‹U+001B›[2J".width().min(width / 3)
}

#[test]
fn colours_say_the_same_as_shades() {
    let map = map(30);
    let shaded = map.to_terminal(80, Colour::Never).unwrap();
    let coloured = map.to_terminal(80, Colour::TrueColor).unwrap();
    assert!(
        coloured.contains("\x1b[48;2;63;0;125m"),
        "the highest cell is the darkest purple"
    );
    assert!(
        map.to_terminal(80, Colour::Ansi256)
            .unwrap()
            .contains("\x1b[48;5;")
    );
    assert!(!shaded.contains('\x1b'));
    let lines = |text: &str| {
        plain(text)
            .lines()
            .map(|l| l.split('│').next().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&shaded), lines(&coloured));
    // Every row ends with its style reset, or the colour would bleed to the terminal's edge.
    for line in coloured.lines().filter(|l| l.contains('\x1b')) {
        assert!(line.rfind("\x1b[0m") >= line.rfind("\x1b[48"), "{line:?}");
    }
}

#[test]
fn a_flat_map_is_told_to_be_flat() {
    let mut map = map(12);
    map.scores.fill(0.25);
    map.low = 0.25;
    let text = map.to_terminal(80, Colour::Never).unwrap();
    assert!(text.contains("p(Seattle): 0.250 everywhere"), "{text}");
}

#[test]
fn a_signed_map_shades_what_lies_below_otherwise_and_folds_to_the_largest() {
    let mut map = map(12);
    map.scores.fill(0.0);
    (map.low, map.high, map.signed) = (0.0, None, true);
    map.scores[..5].copy_from_slice(&[-1.0, 1.0, -0.6, 0.6, 0.0]);
    let text = map.to_terminal(80, Colour::Never).unwrap();
    assert!(text.contains("│WW@@ww##  "), "{text}");
    assert!(text.contains("-1.000 │Wwv- .+#@│ 1.000"), "{text}");
    let coloured = map.to_terminal(80, Colour::TrueColor).unwrap();
    assert!(coloured.contains("\x1b[48;2;127;39;4m"), "{coloured}");
    map.scores[1] = 0.9;
    map.layers = 84;
    map.rows.truncate(1);
    map.starred = 0..0;
    let text = map.to_terminal(46, Colour::Never).unwrap();
    assert!(text.contains("│W"), "{text}");
    assert!(text.contains("largest of"), "{text}");
}

fn curves() -> Curves {
    let bump = |peak: f32, at: f32| {
        (0..30)
            .map(|l| peak * (-((l as f32 - at) / 6.0).powi(2)).exp())
            .collect::<Vec<f32>>()
    };
    let mut last = bump(0.06, 22.0);
    last[3] = f32::NAN;
    let series = |name: &str, mean: Vec<f32>, half_width| Series {
        name: name.into(),
        mean,
        half_width,
        kind: None,
    };
    Curves {
        across: Across::Layers,
        title: "Average indirect effect of a single hidden state".into(),
        x_label: "restored layer".into(),
        y_label: "AIE".into(),
        series: vec![
            series("Last subject token", bump(0.087, 9.0), vec![0.004; 30]),
            series("Further tokens", bump(-0.01, 12.0), vec![0.002; 30]),
            series("Last token", last, vec![]),
        ],
    }
}

#[test]
fn curves_are_spark_lines_on_one_scale_with_their_peaks() {
    insta::assert_snapshot!(curves().to_terminal(80, Colour::Never).unwrap());
}

#[test]
fn spark_lines_fold_into_a_narrow_terminal() {
    let text = curves().to_terminal(60, Colour::Never).unwrap();
    assert!(
        text.contains("each column is the highest of 2 layers"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.width() <= 60), "{text}");
    for width in [32, 40, 48, 60, 200] {
        let text = curves().to_terminal(width, Colour::Never).unwrap();
        assert!(
            text.lines().all(|line| line.width() <= width),
            "{width}: {text}"
        );
        assert_eq!(text.contains("±95 %"), width >= 60, "{text}");
    }
    let coloured = curves().to_terminal(60, Colour::Ansi256).unwrap();
    assert_eq!(plain(&coloured), text);
}
