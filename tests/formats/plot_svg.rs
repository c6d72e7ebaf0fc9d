//! The figures as SVG: well-formed by another's parser, and drawn what was given.
//!
//! The pictures stay in `target/tmp`, for looking at.

#![allow(clippy::unwrap_used)]

use palimpsest::plot::text::ems;
use palimpsest::plot::{Across, Curves, Error, HeatMap, Kind, Panel, Panels, Series, Trace};

/// A trace with an early site at the last subject token and a late one at the last token.
fn space_needle(kind: Kind) -> HeatMap {
    let tokens = ["The", " Space", " Need", "le", " is", " in", " downtown"].map(str::to_owned);
    let (layers, low, high) = (30, 0.026_f32, 0.976_f32);
    let bump = |x: f32, at: f32, width: f32| (-((x - at) / width).powi(2)).exp();
    let mut scores = Vec::new();
    for token in 0..tokens.len() {
        for layer in 0..layers {
            let l = layer as f32;
            let effect = match (kind, token) {
                (_, 0) => 0.0,
                (Kind::Hidden, 3) => 0.82 / (1.0 + ((l - 17.0) / 1.5).exp()),
                (Kind::Hidden, 6) => 1.0 / (1.0 + ((19.0 - l) / 1.5).exp()),
                (Kind::Hidden, 1 | 2) => 0.18 * bump(l, 2.0, 5.0),
                (Kind::Mlp, 3) => 0.55 * bump(l, 9.0, 5.0),
                (Kind::Attn, 6) => 0.65 * bump(l, 20.0, 4.0),
                _ => 0.03 * bump(l, 14.0, 8.0),
            };
            scores.push(low + (high - low) * effect);
        }
    }
    HeatMap::trace(Trace {
        tokens: &tokens,
        subject: 1..4,
        layers,
        scores: &scores,
        kind,
        window: 10,
        low,
        high,
        answer: " Seattle",
        model: "SmolLM2",
    })
}

fn keep(name: &str, svg: &str) {
    std::fs::write(format!("{}/{name}.svg", env!("CARGO_TARGET_TMPDIR")), svg).unwrap();
}

fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|n| n.has_tag_name("text"));
    texts
        .map(|n| n.text().unwrap_or_default().to_owned())
        .collect()
}

/// Fill and tooltip of every cell, row by row.
fn cells(svg: &str) -> Vec<(String, String)> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let group = document
        .descendants()
        .find(|n| n.attribute("class") == Some("cells"))
        .unwrap();
    let rects = group.descendants().filter(|n| n.has_tag_name("rect"));
    rects
        .map(|n| {
            let tip = n
                .first_element_child()
                .and_then(|t| t.text())
                .unwrap_or_default();
            (n.attribute("fill").unwrap().to_owned(), tip.to_owned())
        })
        .collect()
}

#[test]
fn a_trace_is_drawn_in_the_papers_manner() {
    for (kind, file, darkest, name) in [
        (Kind::Hidden, "trace_hidden", "#3f007d", "state"),
        (Kind::Mlp, "trace_mlp", "#00441b", "MLP"),
        (Kind::Attn, "trace_attn", "#67000d", "Attn"),
    ] {
        let map = space_needle(kind);
        let svg = map.to_svg().unwrap();
        keep(file, &svg);
        let cells = cells(&svg);
        assert_eq!(cells.len(), 7 * 30);
        let highest = (0..cells.len())
            .max_by(|&a, &b| map.scores[a].total_cmp(&map.scores[b]))
            .unwrap();
        assert_eq!(cells[highest].0, darkest);
        assert_ne!(cells[0].0, darkest);
        let texts = texts(&svg);
        assert_eq!(
            texts[0],
            format!("Impact of restoring {name} after corrupted input")
        );
        for wanted in [
            "The",
            "Space*",
            "Need*",
            "le*",
            "is",
            "downtown",
            "0",
            "25",
            "p(Seattle)",
        ] {
            assert!(
                texts.iter().any(|t| t == wanted),
                "{wanted} not in {texts:?}"
            );
        }
        let axis = match kind {
            Kind::Hidden => "single restored layer within SmolLM2".to_owned(),
            _ => format!("center of interval of 10 restored {name} layers"),
        };
        assert!(texts.contains(&axis));
        assert!(texts.contains(&"p(Seattle): clean 0.976, corrupted 0.0260".to_owned()));
    }
}

#[test]
fn the_floor_of_the_colours_is_the_corrupted_probability() {
    let mut map = space_needle(Kind::Hidden);
    map.scores[0] = 0.0;
    map.scores[1] = map.low;
    let cells = cells(&map.to_svg().unwrap());
    assert_eq!(cells[0].0, "#fcfbfd");
    assert_eq!(cells[1].0, "#fcfbfd");
    assert_eq!(cells[0].1, "The, layer 0: 0");
    map.ceiling = Some(100.0);
    let pale = self::cells(&map.to_svg().unwrap());
    assert!(pale.iter().all(|c| c.0 != "#3f007d"));
}

#[test]
fn a_signed_map_shows_what_lies_below_as_dark_as_what_lies_as_far_above() {
    let mut map = space_needle(Kind::Attn);
    map.scores.fill(0.0);
    (map.low, map.high, map.signed) = (0.0, None, true);
    map.scores[..4].copy_from_slice(&[-0.5, 0.25, -0.25, 0.5]);
    let svg = map.to_svg().unwrap();
    keep("heatmap_signed", &svg);
    let fills: Vec<String> = cells(&svg).into_iter().take(5).map(|it| it.0).collect();
    assert_eq!(
        fills,
        ["#08306b", "#fb6a4a", "#6baed6", "#67000d", "#fff5f0"]
    );
    assert!(
        texts(&svg).contains(&"-0.4".to_owned()),
        "{:?}",
        texts(&svg)
    );
    // What is not signed, or nowhere visibly below, has one ramp from `low` on.
    for (lowest, signed) in [(-0.5, false), (-0.01, true)] {
        map.signed = signed;
        map.scores[0] = lowest;
        map.scores[2] = lowest;
        let cells = cells(&map.to_svg().unwrap());
        assert_eq!(
            (cells[0].0.as_str(), cells[1].0.as_str()),
            ("#fff5f0", "#fb6a4a")
        );
    }
}

#[test]
fn a_value_that_is_not_a_number_is_hatched_and_counted() {
    let mut map = space_needle(Kind::Attn);
    map.scores[31] = f32::NAN;
    map.scores[95] = f32::INFINITY;
    let svg = map.to_svg().unwrap();
    keep("trace_nan", &svg);
    let cells = cells(&svg);
    let hatched: Vec<usize> = (0..cells.len())
        .filter(|&i| cells[i].0 == "url(#hatch)")
        .collect();
    assert_eq!(hatched, [31, 95]);
    assert_eq!(cells[31].1, "Space*, layer 1: NaN");
    assert!(texts(&svg).contains(&"2 values are not numbers (hatched)".to_owned()));
    assert!(!svg.contains("=\"NaN") && !svg.contains("=\"inf"));
}

#[test]
fn long_prompts_deep_models_and_hostile_tokens_stay_well_formed() {
    let awkward = [
        " <script>alert('x')</script>",
        " \"quoted\" & 'so'",
        "\n",
        "\t",
        "\0\u{1b}[31m",
        " 東京タワー",
        "🧑‍🚀",
        " \u{202e}desrever",
        "\u{200b}",
        " مرحبا",
        "  ",
        "",
        "]]>",
        " Donaudampfschifffahrtsgesellschaftskapitän",
        "\u{fffd}",
        "é",
    ];
    let rows: Vec<String> = (0..60)
        .map(|i| awkward[i % awkward.len()].to_owned())
        .collect();
    let mut map = space_needle(Kind::Mlp);
    map.scores = (0..60 * 80).map(|i| (i % 97) as f32 / 97.0).collect();
    map.layers = 80;
    map.starred = 3..18;
    map.rows = rows;
    map.title = "<&> \u{0}".into();
    map.value_label = "p(\"\n)".into();
    let svg = map.to_svg().unwrap();
    keep("heatmap_long", &svg);
    assert_eq!(cells(&svg).len(), 60 * 80);
    let texts = texts(&svg);
    assert_eq!(texts[0], "<&> ‹U+0000›");
    for wanted in [
        "<script>alert('x')</script>",
        "⏎",
        "⇥*",
        "‹U+0000›‹U+001B›[31m*",
        "東京タワー*",
        "🧑‍🚀*",
        "‹U+202E›desrever*",
        "p(\"⏎)",
    ] {
        assert!(
            texts.iter().any(|t| t == wanted),
            "{wanted} not in {texts:?}"
        );
    }
}

#[test]
fn degenerate_grids_are_drawn_and_wrong_ones_refused() {
    let one = HeatMap {
        rows: vec!["Paris".into()],
        layers: 1,
        scores: vec![0.5],
        starred: 0..1,
        low: 0.5,
        high: Some(0.5),
        ..space_needle(Kind::Hidden)
    };
    let svg = one.to_svg().unwrap();
    keep("heatmap_one_cell", &svg);
    assert_eq!(cells(&svg)[0].0, "#fcfbfd");
    assert!(texts(&svg).contains(&"0.500".to_owned()));
    let none = HeatMap {
        scores: vec![f32::NAN],
        ..one.clone()
    };
    assert_eq!(cells(&none.to_svg().unwrap())[0].0, "url(#hatch)");

    let refused = |map: HeatMap| map.to_svg().unwrap_err();
    assert!(matches!(
        refused(HeatMap {
            rows: vec![],
            ..one.clone()
        }),
        Error::Empty { axis: "rows", .. }
    ));
    assert!(matches!(
        refused(HeatMap {
            layers: 0,
            ..one.clone()
        }),
        Error::Empty { axis: "layers", .. }
    ));
    assert!(matches!(
        refused(HeatMap {
            layers: 2,
            ..one.clone()
        }),
        Error::Shape {
            expected: 2,
            found: 1,
            ..
        }
    ));
    assert!(matches!(
        refused(HeatMap {
            starred: 0..2,
            ..one.clone()
        }),
        Error::Starred {
            end: 2,
            rows: 1,
            ..
        }
    ));
    assert!(matches!(
        refused(HeatMap {
            low: f32::NAN,
            ..one.clone()
        }),
        Error::NotFinite { field: "low", .. }
    ));
    assert!(matches!(
        refused(HeatMap {
            ceiling: Some(f32::INFINITY),
            ..one
        }),
        Error::NotFinite {
            field: "ceiling",
            ..
        }
    ));
}

const ROLES: [&str; 6] = [
    "First subject token",
    "Middle subject tokens",
    "Last subject token",
    "First subsequent token",
    "Further tokens",
    "Last token",
];

/// Mean and 95 % half width of every role, shaped as the paper's averages for GPT-2 XL.
fn averages(layers: usize) -> Vec<(Vec<f32>, Vec<f32>)> {
    let shapes: [(f32, f32, f32); 6] = [
        (0.008, 5.0, 9.0),
        (0.012, 7.0, 9.0),
        (0.087, 15.0, 9.0),
        (0.018, 22.0, 9.0),
        (0.009, 26.0, 10.0),
        (0.062, 34.0, 9.0),
    ];
    shapes
        .into_iter()
        .map(|(peak, at, width)| {
            let mean: Vec<f32> = (0..layers)
                .map(|l| peak * (-((l as f32 - at) / width).powi(2)).exp() - 0.002)
                .collect();
            let half = mean.iter().map(|m| 0.002 + 0.08 * m.abs()).collect();
            (mean, half)
        })
        .collect()
}

#[test]
fn averages_are_drawn_by_role_from_zero() {
    let effects: Vec<f32> = averages(48)
        .into_iter()
        .flat_map(|(mean, _)| mean)
        .collect();
    let svg = HeatMap::average(Kind::Hidden, &ROLES, 48, &effects)
        .to_svg()
        .unwrap();
    keep("average_hidden", &svg);
    let texts = texts(&svg);
    assert!(ROLES.iter().all(|role| texts.iter().any(|t| t == role)));
    assert!(texts.contains(&"AIE".to_owned()) && texts.contains(&"0.00".to_owned()));
    assert!(texts.iter().all(|t| !t.contains("clean")));
}

fn by_role() -> Curves {
    Curves {
        title: "Average indirect effect of a single hidden state".into(),
        across: Across::Layers,
        x_label: "restored layer".into(),
        y_label: "average indirect effect".into(),
        series: ROLES
            .iter()
            .zip(averages(48))
            .map(|(name, (mean, half_width))| Series {
                name: (*name).into(),
                mean,
                half_width,
                kind: None,
            })
            .collect(),
    }
}

/// The number of elements `tag` in the group of class `class`.
fn count(svg: &str, class: &str, tag: &str) -> usize {
    let document = roxmltree::Document::parse(svg).unwrap();
    let group = document
        .descendants()
        .find(|n| n.attribute("class") == Some(class))
        .unwrap();
    group.children().filter(|n| n.has_tag_name(tag)).count()
}

#[test]
fn curves_have_a_line_a_band_and_a_legend_entry_each() {
    let svg = by_role().to_svg().unwrap();
    keep("curves_roles", &svg);
    assert_eq!(count(&svg, "curves", "path"), 6);
    assert_eq!(count(&svg, "bands", "path"), 6);
    assert_eq!(count(&svg, "legend", "text"), 6);
    let texts = texts(&svg);
    for wanted in [
        "Last subject token",
        "restored layer",
        "average indirect effect",
        "0",
        "40",
        "0.00",
        "0.08",
    ] {
        assert!(
            texts.iter().any(|t| t == wanted),
            "{wanted} not in {texts:?}"
        );
    }
}

/// A machine without Times draws the figures in DejaVu Serif, which is a third wider: `ems` has its
/// widths.
#[test]
fn no_text_reaches_beyond_its_figure_in_the_widest_typeface() {
    let mut map = space_needle(Kind::Mlp);
    map.rows[1] = " Donaudampfschifffahrtsgesellschaftskapitänswitwe".into();
    map.value_label = "p(Mississippi-Missouri, WWWWWWWWWWW)".into();
    map.ceiling = Some(1e-9);
    let mut curves = by_role();
    curves.title = "MMMM ".repeat(40);
    curves.y_label = "normalised indirect effect of a hidden state ".repeat(2);
    curves.series[2].name = "Last subject token, in the first of two sweeps".into();
    let wide = Panels {
        title: "WWWW ".repeat(60),
        rows: vec![vec![Panel::Map(map.clone()), Panel::Curves(by_role())]],
    };
    for svg in [
        map.to_svg().unwrap(),
        space_needle(Kind::Hidden).to_svg().unwrap(),
        curves.to_svg().unwrap(),
        by_role().to_svg().unwrap(),
        wide.to_svg().unwrap(),
    ] {
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<_> = document
            .descendants()
            .filter(|n| n.has_tag_name("text"))
            .collect();
        assert!(texts.len() > 10);
        for text in texts {
            let inherited = |name: &str| text.ancestors().find_map(|n| n.attribute(name));
            let number = |name: &str| -> Option<f32> { Some(inherited(name)?.parse().unwrap()) };
            let long = ems(text.text().unwrap_or_default()) * number("font-size").unwrap();
            let picture = text.ancestors().filter(|n| n.has_tag_name("svg"));
            let picture = picture.map(|n| (n.attribute("width"), n.attribute("height")));
            let (width, height) = picture.into_iter().next().unwrap();
            // The label of the values stands upright, around the middle of the plot.
            let turned = text.attribute("transform");
            let (at, room) = match turned.and_then(|it| it.split([' ', ')']).nth(1)) {
                Some(at) => (at.parse().unwrap(), height),
                None => (number("x").unwrap(), width),
            };
            let room: f32 = room.unwrap().parse().unwrap();
            let begin = match inherited("text-anchor") {
                Some("end") => at - long,
                Some("middle") => at - long / 2.0,
                _ => at,
            };
            let (begin, end) = (begin.floor(), (begin + long).floor());
            assert!(
                begin >= 0.0 && end <= room,
                "{:?}: {begin} to {end} of {room}",
                text.text()
            );
        }
    }
}

#[test]
fn severed_curves_take_the_colours_of_their_kinds() {
    let all = averages(48).swap_remove(2);
    let part = |factor: fn(usize) -> f32| -> Vec<f32> {
        all.0
            .iter()
            .enumerate()
            .map(|(l, m)| m * factor(l))
            .collect()
    };
    let series = |name: &str, mean, kind| Series {
        name: name.into(),
        mean,
        half_width: all.1.clone(),
        kind: Some(kind),
    };
    let curves = Curves {
        title: "Causal effect of states at the last subject token".into(),
        series: vec![
            series("single state", all.0.clone(), Kind::Hidden),
            series(
                "with MLP severed",
                part(|l| if l < 20 { 0.05 * l as f32 } else { 1.0 }),
                Kind::Mlp,
            ),
            series("with Attn severed", part(|_| 0.8), Kind::Attn),
        ],
        ..by_role()
    };
    let svg = curves.to_svg().unwrap();
    keep("curves_severed", &svg);
    for colour in ["#6a51a3", "#238b45", "#cb181d"] {
        assert!(svg.contains(&format!("stroke=\"{colour}\"")));
    }
}

#[test]
fn gaps_interrupt_a_curve_and_are_counted() {
    let curves = Curves {
        series: vec![
            Series {
                name: "a".into(),
                mean: vec![1.0, 2.0, f32::NAN, 3.0, f32::NAN, 2.0, 1.0],
                half_width: vec![0.2; 7],
                kind: None,
            },
            Series {
                name: "none".into(),
                mean: vec![f32::NAN; 7],
                half_width: vec![],
                kind: None,
            },
        ],
        ..by_role()
    };
    let svg = curves.to_svg().unwrap();
    keep("curves_gaps", &svg);
    assert_eq!(count(&svg, "curves", "path"), 2);
    assert_eq!(count(&svg, "curves", "circle"), 1);
    assert_eq!(count(&svg, "bands", "path"), 3);
    assert!(!svg.contains("NaN"));
    assert!(texts(&svg).contains(&"9 values are not numbers (left out)".to_owned()));
}

#[test]
fn curves_without_extent_are_drawn_and_wrong_ones_refused() {
    let one = Series {
        name: "x".into(),
        mean: vec![0.0],
        half_width: vec![],
        kind: None,
    };
    let single = Curves {
        series: vec![one.clone()],
        ..by_role()
    };
    let svg = single.to_svg().unwrap();
    keep("curves_one_layer", &svg);
    assert_eq!(count(&svg, "curves", "circle"), 1);
    let refused = |series: Vec<Series>| {
        Curves {
            series,
            ..by_role()
        }
        .to_svg()
        .unwrap_err()
    };
    assert!(matches!(
        refused(vec![]),
        Error::Empty { axis: "series", .. }
    ));
    assert!(matches!(
        refused(vec![Series {
            mean: vec![],
            ..one.clone()
        }]),
        Error::Empty { axis: "layers", .. }
    ));
    let uneven = refused(vec![
        one.clone(),
        Series {
            mean: vec![0.0; 2],
            ..one.clone()
        },
    ]);
    assert!(
        uneven
            .to_string()
            .contains("mean of series \"x\" holds 2 values where 1 are needed"),
        "{uneven}"
    );
    assert!(matches!(
        refused(vec![Series {
            half_width: vec![0.0; 3],
            ..one
        }]),
        Error::Shape { found: 3, .. }
    ));
}
