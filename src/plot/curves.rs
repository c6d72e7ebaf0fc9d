//! Mean effects by layer as an SVG line chart with 95 % bands (paper, figures 2 and 3).

use super::axis::{layer_ticks, ticks};
use super::heatmap::{caption, frame, tick};
use super::palette::{self, Rgb};
use super::svg::{Number, Svg};
use super::text::{ems, truncate_ems, visible};
use super::{Curves, Error, Series};

const BODY: f32 = 12.0;
const TITLE: f32 = 14.0;
const NOTE: f32 = 10.0;
const MARGIN: f32 = 10.0;
const WIDTH: f32 = 460.0;
const HEIGHT: f32 = 240.0;
/// Clear space between the frame and the first and last layer.
const INSET: f32 = 10.0;
const INK: &str = "#1a1a1a";
/// Dashes of the second and later curves of the common palette, for print without colour.
const DASHES: [&str; 4] = ["", "7 3", "4 2", "8 3 2 3"];

impl Curves {
    /// The figure as a complete SVG document on white. A value that is not a number interrupts its
    /// curve; a point between two such gaps is drawn as a dot.
    ///
    /// # Errors
    /// [`Error`] when there is nothing to draw or the series differ in length.
    pub fn to_svg(&self) -> Result<String, Error> {
        self.draw().map(Svg::finish)
    }

    /// The figure, which refers to itself by no name.
    pub(super) fn draw(&self) -> Result<Svg, Error> {
        self.validate()?;
        let layers = self.layers();
        let (low, high) = self.range();
        let y_ticks = ticks(low, high, 6);

        let title = truncate_ems(&visible(&self.title), 75.0);
        let x_label = truncate_ems(&visible(&self.x_label), 75.0);
        let y_label = truncate_ems(&visible(&self.y_label), 25.0);
        let names: Vec<String> = self
            .series
            .iter()
            .map(|s| truncate_ems(&visible(&s.name), 28.0))
            .collect();
        let gaps = self.gaps().map(|gaps| format!("{gaps} (left out)"));

        let tick_width = y_ticks.iter().map(|t| ems(&t.1)).fold(0.0, f32::max) * BODY;
        let legend_width = names.iter().map(|n| ems(n)).fold(0.0, f32::max) * BODY + 34.0;
        let centred = (ems(&title) * TITLE).max(ems(&x_label) * BODY);
        let overhang = ((centred - WIDTH) / 2.0).max(0.0);
        let left = (MARGIN + (BODY + 6.0 + tick_width + 8.0).max(overhang)).ceil();
        let top = MARGIN + TITLE + 10.0;
        let bottom = top + HEIGHT;
        let right = left + WIDTH + (14.0 + legend_width).max(overhang);
        let x_label_at = bottom + 34.0;
        let note = if gaps.is_some() { 15.0 } else { 0.0 };
        let legend_bottom = top + 6.0 + 18.0 * names.len() as f32;
        let height = (x_label_at + note).max(legend_bottom) + MARGIN;
        let mut svg = Svg::new((right + MARGIN).ceil(), height.ceil(), &title);

        let plot = Plot {
            left: left + INSET,
            // A single layer stands in the middle.
            step: if layers > 1 {
                (WIDTH - 2.0 * INSET) / (layers - 1) as f32
            } else {
                0.0
            },
            shift: if layers > 1 { 0.0 } else { WIDTH / 2.0 - INSET },
            top,
            low,
            high,
        };
        let middle = left + WIDTH / 2.0;
        caption(&mut svg, middle, MARGIN + TITLE, TITLE, INK, &title);
        caption(&mut svg, middle, x_label_at, BODY, INK, &x_label);
        if let Some(gaps) = &gaps {
            caption(&mut svg, middle, x_label_at + 16.0, NOTE, "#666666", gaps);
        }
        svg.element("text")
            .attr(
                "transform",
                format!(
                    "translate({} {}) rotate(-90)",
                    Number(MARGIN + BODY),
                    Number(top + HEIGHT / 2.0)
                ),
            )
            .attr("text-anchor", "middle")
            .attr("fill", INK)
            .text(&y_label);

        // Grid lines below everything, zero a little darker.
        svg.element("g")
            .attr("class", "grid")
            .attr("stroke-width", 0.8)
            .open();
        for (value, _) in &y_ticks {
            let y = plot.y(*value);
            svg.element("line")
                .num("x1", left)
                .num("y1", y)
                .num("x2", left + WIDTH)
                .num("y2", y)
                .attr("stroke", if *value == 0.0 { "#9a9a9a" } else { "#e6e6e6" })
                .empty();
        }
        svg.close();

        let styles = self.styles();
        svg.element("g")
            .attr("class", "bands")
            .attr("fill-opacity", 0.16)
            .open();
        for (series, style) in self.series.iter().zip(&styles) {
            plot.bands(&mut svg, series, style.colour);
        }
        svg.close();
        svg.element("g")
            .attr("class", "curves")
            .attr("fill", "none")
            .attr("stroke-width", 1.7)
            .attr("stroke-linejoin", "round")
            .open();
        // Last to first, so that the first curve of the legend lies on top.
        for (series, style) in self.series.iter().zip(&styles).rev() {
            plot.curve(&mut svg, series, style);
        }
        svg.close();

        frame(&mut svg, left, top, WIDTH, HEIGHT);
        svg.element("g")
            .attr("class", "values")
            .attr("text-anchor", "end")
            .attr("fill", INK)
            .open();
        for (value, label) in &y_ticks {
            let y = plot.y(*value);
            tick(&mut svg, left - 3.0, y, left, y);
            svg.element("text")
                .num("x", left - 6.0)
                .num("y", y + 0.34 * BODY)
                .text(label);
        }
        svg.close();
        svg.element("g")
            .attr("class", "layers")
            .attr("text-anchor", "middle")
            .attr("fill", INK)
            .open();
        let spacing = if layers > 1 {
            (36.0 / plot.step).ceil() as usize
        } else {
            1
        };
        for layer in layer_ticks(layers, spacing) {
            let x = plot.x(layer);
            tick(&mut svg, x, bottom, x, bottom + 3.0);
            svg.element("text")
                .num("x", x)
                .num("y", bottom + 15.0)
                .text(&self.across.label(layer));
        }
        svg.close();

        svg.element("g")
            .attr("class", "legend")
            .attr("fill", INK)
            .open();
        for (i, (name, style)) in names.iter().zip(&styles).enumerate() {
            let (x, y) = (left + WIDTH + 14.0, top + 9.0 + 18.0 * i as f32);
            svg.element("line")
                .num("x1", x)
                .num("y1", y)
                .num("x2", x + 26.0)
                .num("y2", y)
                .attr("stroke", style.colour)
                .attr("stroke-width", 1.7)
                .attr("stroke-dasharray", style.dashes)
                .empty();
            svg.element("text")
                .num("x", x + 32.0)
                .num("y", y + 0.34 * BODY)
                .text(name);
        }
        svg.close();
        Ok(svg)
    }

    /// Everything drawn, and zero, with a little air above and below.
    fn range(&self) -> (f64, f64) {
        let (mut low, mut high) = (0f64, 0f64);
        for series in &self.series {
            for layer in 0..series.mean.len() {
                if let Some((a, b)) = series.interval(layer) {
                    low = low.min(a);
                    high = high.max(b);
                }
            }
        }
        if low == high {
            return (low, high + 1.0);
        }
        let air = 0.05 * (high - low);
        (
            if low < 0.0 { low - air } else { low },
            if high > 0.0 { high + air } else { high },
        )
    }

    fn styles(&self) -> Vec<Style> {
        let mut free = 0;
        self.series
            .iter()
            .map(|series| match series.kind {
                Some(kind) => Style {
                    colour: palette::line(kind),
                    dashes: "none",
                },
                None => {
                    let style = Style {
                        colour: palette::LINES[free % palette::LINES.len()],
                        dashes: match DASHES[free % DASHES.len()] {
                            "" => "none",
                            dashes => dashes,
                        },
                    };
                    free += 1;
                    style
                }
            })
            .collect()
    }
}

impl Series {
    /// Lower and upper end at a layer; the mean twice where the band is missing or not a number.
    fn interval(&self, layer: usize) -> Option<(f64, f64)> {
        let mean = f64::from(self.mean[layer]);
        let half = self.half_width.get(layer).copied().map_or(0.0, f64::from);
        let half = if half.is_finite() { half.abs() } else { 0.0 };
        mean.is_finite().then_some((mean - half, mean + half))
    }

    /// Runs of layers whose means are numbers.
    fn runs(&self) -> Vec<std::ops::Range<usize>> {
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        for layer in (0..self.mean.len()).filter(|&l| self.mean[l].is_finite()) {
            match runs.last_mut() {
                Some(run) if run.end == layer => run.end += 1,
                _ => runs.push(layer..layer + 1),
            }
        }
        runs
    }
}

/// How a curve is drawn.
struct Style {
    colour: Rgb,
    dashes: &'static str,
}

/// From layers and values to pixels.
struct Plot {
    left: f32,
    step: f32,
    shift: f32,
    top: f32,
    low: f64,
    high: f64,
}

impl Plot {
    fn x(&self, layer: usize) -> f32 {
        self.left + self.shift + layer as f32 * self.step
    }

    fn y(&self, value: f64) -> f32 {
        self.top + HEIGHT * (1.0 - ((value - self.low) / (self.high - self.low)) as f32)
    }

    fn point(&self, layer: usize, value: f64) -> String {
        format!("{} {}", Number(self.x(layer)), Number(self.y(value)))
    }

    fn bands(&self, svg: &mut Svg, series: &Series, colour: Rgb) {
        if series.half_width.is_empty() {
            return;
        }
        for run in series.runs() {
            let ends = |layer: usize| series.interval(layer).unwrap_or_default();
            if run.len() == 1 {
                let (low, high) = ends(run.start);
                svg.element("path")
                    .attr(
                        "d",
                        format!(
                            "M{}L{}",
                            self.point(run.start, low),
                            self.point(run.start, high)
                        ),
                    )
                    .attr("stroke", colour)
                    .attr("stroke-opacity", 0.4)
                    .empty();
                continue;
            }
            let upper = run.clone().map(|layer| self.point(layer, ends(layer).1));
            let lower = run.rev().map(|layer| self.point(layer, ends(layer).0));
            let outline: Vec<String> = upper.chain(lower).collect();
            svg.element("path")
                .attr("d", format!("M{}Z", outline.join("L")))
                .attr("fill", colour)
                .empty();
        }
    }

    fn curve(&self, svg: &mut Svg, series: &Series, style: &Style) {
        for run in series.runs() {
            let at = |layer: usize| self.point(layer, f64::from(series.mean[layer]));
            let tip = visible(&series.name);
            if run.len() == 1 {
                svg.element("circle")
                    .num("cx", self.x(run.start))
                    .num("cy", self.y(f64::from(series.mean[run.start])))
                    .attr("r", 2.4)
                    .attr("fill", style.colour)
                    .tooltip(&tip);
            } else {
                let line: Vec<String> = run.map(at).collect();
                svg.element("path")
                    .attr("d", format!("M{}", line.join("L")))
                    .attr("stroke", style.colour)
                    .attr("stroke-dasharray", style.dashes)
                    .tooltip(&tip);
            }
        }
    }
}
