//! The heat map as SVG, in the manner of the paper's figure 1.

use super::axis::{Scale, layer_ticks, number, ticks};
use super::palette::{self, Rgb};
use super::svg::Svg;
use super::text::{ems, truncate_ems, visible};
use super::{Error, HeatMap};

/// Font sizes in pixels.
const BODY: f32 = 12.0;
const TITLE: f32 = 14.0;
const NOTE: f32 = 10.0;
/// White space around the figure, pixels.
const MARGIN: f32 = 10.0;
/// Longest token label, ems; the tooltips have more of it.
const LABEL: f32 = 20.0;
const INK: &str = "#1a1a1a";
const SOFT: &str = "#666666";

impl HeatMap {
    /// The figure as a complete SVG document on white.
    ///
    /// Cells are whole pixels wide and high, so that no seams show between them, and carry their
    /// values as tooltips. Values below `low` are drawn like `low`, unless the map is signed.
    ///
    /// # Errors
    /// [`Error`] when the values do not fill the grid, rows are starred that are not there, or a
    /// bound of the scale is not finite.
    pub fn to_svg(&self) -> Result<String, Error> {
        self.draw("", 96.0).map(Svg::finish)
    }

    /// The figure with `suffix` on every name that it refers to itself by, and a grid that is at
    /// least `least` pixels high.
    pub(super) fn draw(&self, suffix: &str, least: f32) -> Result<Svg, Error> {
        self.validate()?;
        let (hatch, gradient) = (format!("hatch{suffix}"), format!("scale{suffix}"));
        let (scale, anchors) = (self.scale(), self.anchors());
        let rows = self.rows.len();

        let title = truncate_ems(&visible(&self.title), 75.0);
        let x_label = truncate_ems(&visible(&self.x_label), 75.0);
        let value_label = truncate_ems(&visible(&self.value_label), LABEL);
        let labels: Vec<String> = (0..rows).map(|row| self.axis_label(row)).collect();
        let notes: Vec<String> = [
            self.baselines(),
            self.gaps().map(|gaps| format!("{gaps} (hatched)")),
        ]
        .into_iter()
        .flatten()
        .collect();

        // Grid: near 440 pixels wide for common depths, at least 220 for shallow models and so high
        // for short prompts that title and colour bar have something to stand at.
        let cell_width = (440.0 / self.layers as f32)
            .round()
            .clamp(6.0, 20.0)
            .max((220.0 / self.layers as f32).ceil());
        let cell_height = (least / rows as f32).ceil().max(16.0);
        let (grid_width, grid_height) =
            (cell_width * self.layers as f32, cell_height * rows as f32);

        let bar_width = 13.0;
        let bar_height = grid_height.min(320.0);
        let bar_ticks = bar_labels(scale.floor, scale.ceiling, bar_height);

        let widest = |texts: &mut dyn Iterator<Item = &str>| texts.map(ems).fold(0.0, f32::max);
        let label_width = widest(&mut labels.iter().map(String::as_str)) * BODY;
        let bar_text = widest(&mut bar_ticks.iter().map(|t| t.1.as_str())) * BODY;
        // Title, axis label and notes are centred under and over the grid and may reach beyond it.
        let centred = (ems(&title) * TITLE)
            .max(ems(&x_label) * BODY)
            .max(widest(&mut notes.iter().map(String::as_str)) * NOTE);
        let overhang = ((centred - grid_width) / 2.0).max(0.0);
        let left = (MARGIN + (label_width + 8.0).max(overhang)).ceil();
        let bar_left = left + grid_width + 16.0;
        let right = (bar_left + bar_width + 8.0 + bar_text)
            .max(bar_left + ems(&value_label) * BODY)
            .max(left + grid_width + overhang);
        let top = MARGIN + TITLE + 10.0;
        let axis_bottom = top + grid_height;
        let x_label_at = axis_bottom + 34.0;
        let bottom = x_label_at + notes.len() as f32 * 15.0;
        let mut svg = Svg::new((right + MARGIN).ceil(), (bottom + MARGIN).ceil(), &title);

        define_hatch(&mut svg, &hatch);
        let middle = left + grid_width / 2.0;
        caption(&mut svg, middle, MARGIN + TITLE, TITLE, INK, &title);
        caption(&mut svg, middle, x_label_at, BODY, INK, &x_label);
        for (i, note) in notes.iter().enumerate() {
            caption(
                &mut svg,
                middle,
                x_label_at + 16.0 + 15.0 * i as f32,
                NOTE,
                SOFT,
                note,
            );
        }

        // Cells. Crisp edges: blended ones would show the background as hairlines.
        svg.element("g")
            .attr("class", "cells")
            .attr("shape-rendering", "crispEdges")
            .open();
        for (row, scores) in self.scores.chunks(self.layers).enumerate() {
            let y = top + row as f32 * cell_height;
            let token = truncate_ems(&self.label(row), 8.0 * LABEL);
            svg.element("g")
                .attr("transform", format!("translate({left} {y})"))
                .open();
            for (layer, &score) in scores.iter().enumerate() {
                let fill = match scale.position(score) {
                    Some(position) => palette::shade(&anchors, position).to_string(),
                    None => format!("url(#{hatch})"),
                };
                svg.element("rect")
                    .num("x", layer as f32 * cell_width)
                    .num("width", cell_width)
                    .num("height", cell_height)
                    .attr("fill", fill)
                    .tooltip(&format!(
                        "{token}, layer {layer}: {}",
                        number(f64::from(score))
                    ));
            }
            svg.close();
        }
        svg.close();

        // Frame, token labels, layer numbers.
        frame(&mut svg, left, top, grid_width, grid_height);
        svg.element("g")
            .attr("class", "tokens")
            .attr("text-anchor", "end")
            .attr("fill", INK)
            .open();
        for (row, label) in labels.iter().enumerate() {
            let y = top + (row as f32 + 0.5) * cell_height;
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
        for layer in layer_ticks(self.layers, (36.0 / cell_width).ceil() as usize) {
            let x = left + (layer as f32 + 0.5) * cell_width;
            tick(&mut svg, x, axis_bottom, x, axis_bottom + 3.0);
            svg.element("text")
                .num("x", x)
                .num("y", axis_bottom + 15.0)
                .text(&layer.to_string());
        }
        svg.close();

        // Colour bar.
        svg.element("defs").open();
        svg.element("linearGradient")
            .attr("id", &gradient)
            .attr("x1", 0)
            .attr("y1", 1)
            .attr("x2", 0)
            .attr("y2", 0)
            .open();
        // A scale on which nothing differs has one colour, that of the cells.
        let shown = if scale.is_flat() {
            &anchors[..1]
        } else {
            &anchors[..]
        };
        for (i, colour) in shown.iter().enumerate() {
            svg.element("stop")
                .num("offset", i as f32 / (anchors.len() - 1) as f32)
                .attr("stop-color", colour)
                .empty();
        }
        svg.close();
        svg.close();
        svg.element("g")
            .attr("class", "scale")
            .attr("fill", INK)
            .open();
        svg.element("rect")
            .num("x", bar_left)
            .num("y", top)
            .num("width", bar_width)
            .num("height", bar_height)
            .attr("fill", format!("url(#{gradient})"))
            .empty();
        frame(&mut svg, bar_left, top, bar_width, bar_height);
        for (position, label) in &bar_ticks {
            let y = top + (1.0 - position) * bar_height;
            let x = bar_left + bar_width;
            tick(&mut svg, x, y, x + 3.0, y);
            svg.element("text")
                .num("x", x + 6.0)
                .num("y", y + 0.34 * BODY)
                .text(label);
        }
        svg.element("text")
            .num("x", bar_left)
            .num("y", top + bar_height + 15.0)
            .text(&value_label);
        svg.close();
        Ok(svg)
    }

    /// The scale of one ramp upwards from `low`, or of two away from it.
    pub(super) fn scale(&self) -> Scale {
        let one = || Scale::new(&self.scores, self.low, self.ceiling);
        self.two_sided().unwrap_or_else(one)
    }

    /// The scale that has `low` in its middle, where values below it are to be seen.
    pub(super) fn two_sided(&self) -> Option<Scale> {
        let around = || Scale::around(&self.scores, self.low, self.ceiling);
        self.signed.then(around).flatten()
    }

    /// The colours of the scale, from its floor on.
    pub(super) fn anchors(&self) -> Vec<Rgb> {
        palette::anchors(self.kind, self.two_sided().is_some())
    }

    /// The row's label cut to what fits beside a grid, its star kept.
    fn axis_label(&self, row: usize) -> String {
        let label = self.label(row);
        match label.strip_suffix('*') {
            Some(token) if self.starred.contains(&row) => {
                format!("{}*", truncate_ems(token, LABEL - 0.5))
            }
            _ => truncate_ems(&label, LABEL),
        }
    }
}

/// Positions 0..=1 and labels of the colour bar; one in the middle where the scale is flat.
fn bar_labels(floor: f32, ceiling: f32, height: f32) -> Vec<(f32, String)> {
    let (low, high) = (f64::from(floor), f64::from(ceiling));
    if ceiling <= floor {
        return vec![(0.5, number(low))];
    }
    let count = (height / 20.0).clamp(4.0, 8.0) as usize;
    ticks(low, high, count)
        .into_iter()
        .map(|(value, label)| (((value - low) / (high - low)).clamp(0.0, 1.0) as f32, label))
        .collect()
}

/// The pattern of cells whose value is not a number.
fn define_hatch(svg: &mut Svg, id: &str) {
    svg.element("defs").open();
    svg.element("pattern")
        .attr("id", id)
        .attr("width", 4)
        .attr("height", 4)
        .attr("patternUnits", "userSpaceOnUse")
        .open();
    svg.element("rect")
        .attr("width", 4)
        .attr("height", 4)
        .attr("fill", "#ffffff")
        .empty();
    svg.element("path")
        .attr("d", "M0 4L4 0M-1 1L1 -1M3 5L5 3")
        .attr("stroke", "#777777")
        .attr("stroke-width", 0.9)
        .empty();
    svg.close();
    svg.close();
}

/// A line of text centred at `x` on the base line `y`.
pub(super) fn caption(svg: &mut Svg, x: f32, y: f32, size: f32, fill: &str, text: &str) {
    svg.element("text")
        .num("x", x)
        .num("y", y)
        .attr("text-anchor", "middle")
        .num("font-size", size)
        .attr("fill", fill)
        .text(text);
}

/// The outline of a plot or a colour bar.
pub(super) fn frame(svg: &mut Svg, x: f32, y: f32, width: f32, height: f32) {
    svg.element("rect")
        .num("x", x)
        .num("y", y)
        .num("width", width)
        .num("height", height)
        .attr("fill", "none")
        .attr("stroke", INK)
        .attr("stroke-width", 0.8)
        .empty();
}

/// A tick mark.
pub(super) fn tick(svg: &mut Svg, x1: f32, y1: f32, x2: f32, y2: f32) {
    svg.element("line")
        .num("x1", x1)
        .num("y1", y1)
        .num("x2", x2)
        .num("y2", y2)
        .attr("stroke", INK)
        .attr("stroke-width", 0.8)
        .empty();
}
