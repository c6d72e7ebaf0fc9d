//! A small writer of well-formed SVG.
//!
//! Written here rather than drawn through plotters: its SVG backend places text by the metrics of
//! fonts it does not know, gives no gradients, patterns, clip paths or tooltips, and draws a heat
//! map as loose rectangles whose edges show as hairlines. The writer is smaller than the adapter
//! would be.

use std::fmt::Write;

/// The typefaces of every figure, Times first as in the paper; all but the last share its widths.
/// Figures are laid out for the widest that the last may be (`text::ems`).
const FONTS: &str = "'Times New Roman', 'Liberation Serif', 'Nimbus Roman', Times, serif";

/// A picture being written. Elements close in the order they were opened, by construction.
pub struct Svg {
    out: String,
    open: Vec<&'static str>,
    size: (f32, f32),
}

impl Svg {
    /// Starts a picture of `width` x `height` pixels on white, with `title` for screen readers and
    /// the browser's title bar.
    pub fn new(width: f32, height: f32, title: &str) -> Self {
        let mut svg = Svg {
            out: String::new(),
            open: Vec::new(),
            size: (width, height),
        };
        let view = format!("0 0 {} {}", Number(width), Number(height));
        svg.element("svg")
            .attr("xmlns", "http://www.w3.org/2000/svg")
            .num("width", width)
            .num("height", height)
            .attr("viewBox", view)
            .attr("role", "img")
            .attr("font-family", FONTS)
            .attr("font-size", 12)
            .open();
        svg.element("title").text(title);
        svg.element("rect")
            .attr("width", "100%")
            .attr("height", "100%")
            .attr("fill", "#ffffff")
            .empty();
        svg
    }

    /// Begins an element; it is written once it is `empty`, `open`ed or given its `text`.
    pub fn element(&mut self, name: &'static str) -> Element<'_> {
        self.out.push('<');
        self.out.push_str(name);
        Element { svg: self, name }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (f32, f32) {
        self.size
    }

    /// Puts a whole picture into this one with its upper left corner at `x`, `y`. Names that it
    /// refers to itself by (`id`) must not be in this one already.
    pub fn place(&mut self, x: f32, y: f32, picture: Svg) {
        let at = format!("translate({} {})", Number(x), Number(y));
        self.element("g").attr("transform", at).open();
        self.out.push_str(&picture.finish());
        self.close();
    }

    /// Ends the innermost open element.
    pub fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push_str(">\n");
        }
    }

    /// The whole picture, everything closed.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'.. => self.out.push(c),
                // XML 1.0 has no way to write the others, not even as a reference.
                _ => self.out.push('\u{fffd}'),
            }
        }
    }
}

/// An element whose start tag is being written.
pub struct Element<'a> {
    svg: &'a mut Svg,
    name: &'static str,
}

impl Element<'_> {
    /// Adds an attribute.
    pub fn attr(self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = value.to_string();
        self.svg.out.push(' ');
        self.svg.out.push_str(name);
        self.svg.out.push_str("=\"");
        self.svg.escaped(&value);
        self.svg.out.push('"');
        self
    }

    /// Adds a coordinate or a length, to a hundredth of a pixel.
    pub fn num(self, name: &str, value: f32) -> Self {
        self.attr(name, Number(value))
    }

    /// Ends an element without content.
    pub fn empty(self) {
        self.svg.out.push_str("/>\n");
    }

    /// Leaves the element open for others, until [`Svg::close`].
    pub fn open(self) {
        self.svg.out.push_str(">\n");
        self.svg.open.push(self.name);
    }

    /// Ends an element whose content is `text`.
    pub fn text(self, text: &str) {
        self.svg.out.push('>');
        self.svg.escaped(text);
        let _ = writeln!(self.svg.out, "</{}>", self.name);
    }

    /// Ends an element whose only content is a tooltip.
    pub fn tooltip(self, text: &str) {
        self.svg.out.push_str("><title>");
        self.svg.escaped(text);
        let _ = writeln!(self.svg.out, "</title></{}>", self.name);
    }
}

/// A coordinate without needless digits.
pub struct Number(pub f32);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounded = (f64::from(self.0) * 100.0).round() / 100.0;
        // Adding zero turns -0 into 0.
        write!(f, "{}", rounded + 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped_and_everything_is_closed() {
        let mut svg = Svg::new(10.0, 20.126, "a < b & \"c\"");
        svg.element("g").attr("id", "it's").open();
        svg.element("text")
            .num("x", -0.001)
            .text("\u{0}\u{b}]]>\u{ffff}😀");
        let out = svg.finish();
        assert!(out.contains("height=\"20.13\""));
        assert!(out.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"));
        assert!(out.contains("<g id=\"it&#39;s\">"));
        assert!(out.contains("<text x=\"0\">\u{fffd}\u{fffd}]]&gt;\u{fffd}😀</text>"));
        assert!(out.trim_end().ends_with("</g>\n</svg>"));
    }
}
