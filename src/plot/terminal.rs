//! Heat maps and curves in the terminal.

use std::ffi::OsString;
use std::io::IsTerminal;

use super::axis::{Scale, layer_ticks, number};
use super::palette::{self, Rgb};
use super::text::{columns, pad_left, pad_right, truncate, visible, wrap};
use super::{Curves, Error, HeatMap};

/// How much colour a stream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// No escape sequences at all.
    Never,
    /// The 256 fixed colours.
    Ansi256,
    /// 24-bit colour.
    TrueColor,
}

impl Colour {
    /// What a stream takes, by whether it is a terminal and by the conventions of the environment,
    /// whose variables `variable` gives.
    ///
    /// In this order: `NO_COLOR` (not empty) turns colour off; `CLICOLOR_FORCE` (not empty, not
    /// `0`) turns it on even where the stream is no terminal; otherwise a stream that is no
    /// terminal, `CLICOLOR=0`, and a `TERM` that is missing or `dumb` have none. `COLORTERM` of
    /// `truecolor` or `24bit`, or a `TERM` ending in `-direct`, means 24-bit colour.
    pub fn decide(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            variable(name)
                .map(|value| value.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let term = text("TERM");
        if !text("NO_COLOR").is_empty() {
            return Colour::Never;
        }
        let forced = !matches!(text("CLICOLOR_FORCE").as_str(), "" | "0");
        let able = terminal && text("CLICOLOR") != "0" && !matches!(term.as_str(), "" | "dumb");
        if !forced && !able {
            Colour::Never
        } else if matches!(text("COLORTERM").as_str(), "truecolor" | "24bit")
            || term.ends_with("-direct")
        {
            Colour::TrueColor
        } else {
            Colour::Ansi256
        }
    }

    /// The sequence that sets the background; nothing without colour.
    fn background(self, Rgb(r, g, b): Rgb) -> String {
        match self {
            Colour::Never => String::new(),
            Colour::Ansi256 => format!("\x1b[48;5;{}m", Rgb(r, g, b).ansi256()),
            Colour::TrueColor => format!("\x1b[48;2;{r};{g};{b}m"),
        }
    }

    fn foreground(self, Rgb(r, g, b): Rgb) -> String {
        match self {
            Colour::Never => String::new(),
            Colour::Ansi256 => format!("\x1b[38;5;{}m", Rgb(r, g, b).ansi256()),
            Colour::TrueColor => format!("\x1b[38;2;{r};{g};{b}m"),
        }
    }

    /// The sequence that ends every style; nothing without colour.
    pub(super) fn reset(self) -> &'static str {
        match self {
            Colour::Never => "",
            _ => "\x1b[0m",
        }
    }

    /// `text` in bold where there is colour.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text` in the style `code` where there is colour.
    pub(super) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Colour::Never => text.to_owned(),
            _ => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Columns of the terminal that standard output goes to; none where it goes elsewhere.
pub fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// Shading without colour, palest first.
const SHADES: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];
/// The same of a scale with two sides, whose middle is blank.
const SIGNED: [char; 9] = ['W', 'w', 'v', '-', ' ', '.', '+', '#', '@'];
/// Heights of a spark line.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Narrower than this, figures run over the edge: a colour scale with its numbers takes as much.
const NARROWEST: usize = 32;
/// Least columns of a spark line.
const SHORTEST: usize = 8;

/// How layers are laid over terminal columns.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fold {
    /// Columns a cell takes.
    cell: usize,
    /// Layers in a cell.
    layers: usize,
}

impl Fold {
    /// Two columns a layer where they fit (nearly square cells), else one, else several layers to
    /// a column.
    fn new(layers: usize, room: usize, widest_cell: usize) -> Self {
        let room = room.max(1);
        let cell = (room / layers.max(1)).clamp(1, widest_cell);
        Fold {
            cell,
            layers: (layers * cell).div_ceil(room),
        }
    }

    /// The value of every cell that is highest by `size`, so that folding hides no peak; not a
    /// number where any of the cell's values is none.
    fn values(self, values: &[f32], size: impl Fn(f32) -> f32) -> impl Iterator<Item = f32> {
        values.chunks(self.layers).map(move |cell| {
            let most = |a: f32, b: f32| if size(b) > size(a) { b } else { a };
            if cell.iter().all(|v| v.is_finite()) {
                cell.iter().copied().reduce(most).unwrap_or(f32::NAN)
            } else {
                f32::NAN
            }
        })
    }

    /// The line of layer numbers, or of what else is counted.
    fn axis(self, layers: usize, label: impl Fn(usize) -> String) -> String {
        let mut line = String::new();
        let spacing = 5usize.div_ceil(self.cell) * self.layers;
        for layer in layer_ticks(layers, spacing) {
            let at = layer / self.layers * self.cell;
            if at >= line.len() {
                line.push_str(&" ".repeat(at - line.len()));
                line.push_str(&label(layer));
            }
        }
        line
    }

    fn note(self, which: &str) -> Option<String> {
        (self.layers > 1).then(|| format!("each column is the {which} of {} layers", self.layers))
    }
}

impl HeatMap {
    /// The figure in at most `width` columns, ending in a newline.
    ///
    /// With colour, cells are coloured spaces; without, they are shaded by ` .:-=+*#%@`, on a scale
    /// with two sides by `Wwv- .+#@`. Where the layers do not fit, several share a column, which
    /// shows the highest of them, or the furthest from the middle, and says so. A value that is not
    /// a number is a `?`.
    ///
    /// # Errors
    /// As [`HeatMap::to_svg`].
    pub fn to_terminal(&self, width: usize, colour: Colour) -> Result<String, Error> {
        self.validate()?;
        let width = width.max(NARROWEST);
        let scale = self.scale();
        let labels: Vec<String> = (0..self.rows.len())
            .map(|row| self.column_label(row, (width / 3).min(28)))
            .collect();
        let gutter = labels.iter().map(|l| columns(l)).max().unwrap_or(0);
        let fold = Fold::new(self.layers, width - gutter - 3, 2);
        let two_sided = self.two_sided().is_some();
        let size = |value: f32| match two_sided {
            true => (value - self.low).abs(),
            false => value,
        };
        let indent = " ".repeat(gutter + 2);

        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(&colour.paint("1", &truncate(&visible(&self.title), width)));
        for (label, scores) in labels.iter().zip(self.scores.chunks(self.layers)) {
            let cells = self.cells(fold.values(scores, size), fold.cell, scale, colour);
            line(&format!("{} │{cells}│", pad_left(label, gutter)));
        }
        line(&format!(
            "{indent}{}",
            fold.axis(self.layers, |layer| layer.to_string())
        ));
        let room = width - gutter - 2;
        line(&format!(
            "{indent}{}",
            truncate(&visible(&self.x_label), room)
        ));

        let count = self.shades().len();
        let span = scale.ceiling - scale.floor;
        let steps = (0..count).map(|i| scale.floor + span * i as f32 / (count - 1) as f32);
        let value_label = truncate(&visible(&self.value_label), room);
        let floor = number(f64::from(scale.floor));
        if scale.is_flat() {
            line(&format!("{indent}{value_label}: {floor} everywhere"));
        } else {
            let ceiling = number(f64::from(scale.ceiling));
            let bar = self.cells(steps, 1, scale, colour);
            let bar_width = columns(&floor) + count + 4 + columns(&ceiling);
            let bar = format!("{floor} │{bar}│ {ceiling}");
            if columns(&value_label) + 1 + bar_width <= room {
                line(&format!("{indent}{value_label} {bar}"));
            } else {
                line(&format!("{indent}{value_label}"));
                let indent = indent.len().min(width.saturating_sub(bar_width));
                line(&format!("{}{bar}", " ".repeat(indent)));
            }
        }
        let notes = [
            self.peak(),
            self.baselines(),
            self.gaps().map(|g| format!("{g} (?)")),
            fold.note(if two_sided { "largest" } else { "highest" }),
        ];
        for note in notes.into_iter().flatten() {
            for part in wrap(&note, room) {
                line(&format!("{indent}{}", colour.paint("2", &part)));
            }
        }
        Ok(out)
    }

    /// What cells are shaded by without colour, from the scale's floor on.
    fn shades(&self) -> &'static [char] {
        match self.two_sided() {
            Some(_) => &SIGNED,
            None => &SHADES,
        }
    }

    /// A run of cells, each `width` columns wide.
    fn cells(
        &self,
        values: impl Iterator<Item = f32>,
        width: usize,
        scale: Scale,
        colour: Colour,
    ) -> String {
        let mut out = String::new();
        let mut current = None;
        let anchors = self.anchors();
        let shades = self.shades();
        let shaded = |p: f32| shades[((p * shades.len() as f32) as usize).min(shades.len() - 1)];
        for value in values {
            let position = scale.position(value);
            if colour == Colour::Never {
                let shade = position.map_or('?', shaded);
                out.extend(std::iter::repeat_n(shade, width));
                continue;
            }
            let style = position.map(|p| colour.background(palette::shade(&anchors, p)));
            if current.as_ref() != Some(&style) {
                out.push_str(style.as_deref().unwrap_or(colour.reset()));
            }
            out.extend(std::iter::repeat_n(
                if style.is_some() { ' ' } else { '?' },
                width,
            ));
            current = Some(style);
        }
        out.push_str(colour.reset());
        out
    }

    /// The row's label in at most `limit` columns, its star kept.
    fn column_label(&self, row: usize, limit: usize) -> String {
        let label = self.label(row);
        match label.strip_suffix('*') {
            Some(token) if self.starred.contains(&row) => {
                format!("{}*", truncate(token, limit - 1))
            }
            _ => truncate(&label, limit),
        }
    }

    /// The highest value and where it stands.
    fn peak(&self) -> Option<String> {
        let finite = self
            .scores
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite());
        // The first of equals: `max_by` would give the last.
        let (at, &value) = finite.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        let (row, layer) = (at / self.layers, at % self.layers);
        let value = number(f64::from(value));
        Some(format!(
            "highest {value} at {}, layer {layer}",
            self.column_label(row, 24)
        ))
    }
}

impl Curves {
    /// One spark line a series in at most `width` columns, all on one scale, with the highest mean
    /// of each, the half width of its 95 % interval and its layer. Ends in a newline.
    ///
    /// # Errors
    /// As [`Curves::to_svg`].
    pub fn to_terminal(&self, width: usize, colour: Colour) -> Result<String, Error> {
        self.validate()?;
        let width = width.max(NARROWEST);
        let layers = self.layers();
        let means = || {
            self.series
                .iter()
                .flat_map(|s| &s.mean)
                .copied()
                .filter(|v| v.is_finite())
        };
        let scale = Scale {
            floor: means().fold(0.0, f32::min),
            ceiling: means().fold(0.0, f32::max),
        };

        let names: Vec<String> = self
            .series
            .iter()
            .map(|s| truncate(&visible(&s.name), (width / 3).min(28)))
            .collect();
        let gutter = names.iter().map(|n| columns(n)).max().unwrap_or(0);
        let peaks = self.series.iter().map(|series| self.peak(series));
        let peaks: Vec<[String; 3]> = peaks.collect();
        let heads = ["highest", "±95 %", self.across.what()].map(str::to_owned);
        let widths: [usize; 3] = std::array::from_fn(|i| {
            peaks
                .iter()
                .chain([&heads])
                .map(|p| columns(&p[i]))
                .max()
                .unwrap_or(0)
        });
        let taken = widths.iter().map(|w| w + 2).sum::<usize>();
        // Numbers that would leave no room for a spark line stay away.
        let room = width - gutter - 1;
        let numbers = taken + SHORTEST.min(layers) <= room;
        let fold = Fold::new(layers, if numbers { room - taken } else { room }, 1);
        let figures = |texts: &[String; 3]| -> String {
            let padded = texts
                .iter()
                .zip(widths)
                .map(|(t, w)| format!("  {}", pad_left(t, w)));
            padded.filter(|_| numbers).collect()
        };
        let spark = layers.div_ceil(fold.layers);

        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(&colour.paint("1", &truncate(&visible(&self.title), width)));
        let head = format!("{}{}", " ".repeat(gutter + 1 + spark), figures(&heads));
        if numbers {
            line(&colour.paint("2", &head));
        }
        for ((series, name), (i, peak)) in
            self.series.iter().zip(&names).zip(peaks.iter().enumerate())
        {
            let bars: String = fold
                .values(&series.mean, |value| value)
                .map(|v| match scale.position(v) {
                    Some(at) => BLOCKS[((at * 8.0) as usize).min(7)],
                    None => '?',
                })
                .collect();
            let line_colour = series.kind.map_or(palette::LINES[i % 6], palette::line);
            line(&format!(
                "{} {}{bars}{}{}",
                pad_right(name, gutter),
                colour.foreground(line_colour),
                colour.reset(),
                figures(peak)
            ));
        }
        let indent = " ".repeat(gutter + 1);
        line(&format!(
            "{indent}{}",
            fold.axis(layers, |at| self.across.label(at))
        ));
        line(&format!(
            "{indent}{}",
            truncate(&visible(&self.x_label), room)
        ));
        let range = format!(
            "{}, ▁ {} to █ {}",
            visible(&self.y_label),
            number(f64::from(scale.floor)),
            number(f64::from(scale.ceiling))
        );
        for note in [
            Some(range),
            self.gaps().map(|g| format!("{g} (?)")),
            fold.note("highest"),
        ]
        .into_iter()
        .flatten()
        {
            for part in wrap(&note, room) {
                line(&format!("{indent}{}", colour.paint("2", &part)));
            }
        }
        Ok(out)
    }

    /// The highest mean of a curve, its half width and where it is; blanks where there is none.
    fn peak(&self, series: &super::Series) -> [String; 3] {
        let finite = series
            .mean
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite());
        match finite.reduce(|best, next| if next.1 > best.1 { next } else { best }) {
            Some((at, &mean)) => {
                let half = series.half_width.get(at);
                let half = half.map_or(String::new(), |&h| number(f64::from(h)));
                let at = self.across.label(at);
                [number(f64::from(mean)), half, at]
            }
            None => std::array::from_fn(|_| String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(terminal: bool, variables: &[(&str, &str)]) -> Colour {
        Colour::decide(terminal, |name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn colour_follows_the_stream_and_the_conventions() {
        let term = ("TERM", "xterm-256color");
        assert_eq!(decide(true, &[term]), Colour::Ansi256);
        assert_eq!(
            decide(true, &[term, ("COLORTERM", "truecolor")]),
            Colour::TrueColor
        );
        assert_eq!(
            decide(true, &[term, ("COLORTERM", "24bit")]),
            Colour::TrueColor
        );
        assert_eq!(decide(true, &[("TERM", "xterm-direct")]), Colour::TrueColor);
        assert_eq!(
            decide(true, &[("TERM", "dumb"), ("COLORTERM", "truecolor")]),
            Colour::Never
        );
        assert_eq!(decide(true, &[]), Colour::Never);
        assert_eq!(decide(true, &[term, ("CLICOLOR", "0")]), Colour::Never);
        assert_eq!(decide(false, &[term]), Colour::Never);
        assert_eq!(
            decide(false, &[term, ("CLICOLOR_FORCE", "0")]),
            Colour::Never
        );
        assert_eq!(
            decide(false, &[term, ("CLICOLOR_FORCE", "1")]),
            Colour::Ansi256
        );
        assert_eq!(decide(true, &[term, ("NO_COLOR", "")]), Colour::Ansi256);
        assert_eq!(
            decide(true, &[term, ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]),
            Colour::Never
        );
    }

    #[test]
    fn layers_fold_only_as_far_as_the_terminal_demands() {
        assert_eq!(Fold::new(30, 70, 2), Fold { cell: 2, layers: 1 });
        assert_eq!(Fold::new(30, 59, 2), Fold { cell: 1, layers: 1 });
        assert_eq!(Fold::new(80, 79, 2), Fold { cell: 1, layers: 2 });
        assert_eq!(Fold::new(80, 20, 2), Fold { cell: 1, layers: 4 });
        assert_eq!(
            Fold::new(80, 1, 2),
            Fold {
                cell: 1,
                layers: 80
            }
        );
        assert_eq!(
            Fold::new(30, 70, 2).axis(30, |layer| layer.to_string()),
            "0         5         10        15        20        25"
        );
    }

    #[test]
    fn folding_keeps_the_peak_and_hides_no_gap() {
        let fold = Fold { cell: 1, layers: 2 };
        let folded: Vec<f32> = fold
            .values(&[0.1, 0.9, f32::NAN, 0.5, 0.3], |value| value)
            .collect();
        assert_eq!((folded[0], folded[2]), (0.9, 0.3));
        assert!(folded[1].is_nan());
    }
}
