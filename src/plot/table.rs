//! Aligned tables of text.

use super::Colour;
use super::text::{columns, pad_left, pad_right, truncate, visible};

/// Space between columns.
const GAP: &str = "  ";
/// A cut column keeps at least this many characters.
const NARROWEST: usize = 6;

/// Which side of its column a text stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers. These columns are never cut: a number without its end is another number.
    Right,
}

/// A list for reading: one row a line, columns aligned, no rules.
///
/// ```
/// use palimpsest::plot::{Colour, table::{Align, Table}};
///
/// let mut table = Table::new(&[("MODEL", Align::Left), ("LAYERS", Align::Right)]);
/// table.row(["gpt2-xl", "48"]);
/// table.row(["smollm2-135m", "30"]);
/// assert_eq!(
///     table.render(None, Colour::Never),
///     "MODEL         LAYERS\n\
///      gpt2-xl           48\n\
///      smollm2-135m      30\n"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(head: &[(&str, Align)]) -> Self {
        let head = head
            .iter()
            .map(|&(name, align)| (visible(name), align))
            .collect();
        Table {
            head,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are blank and cells beyond the last column are left out; line
    /// breaks and control characters are made visible.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut row: Vec<String> = cells.into_iter().map(|c| visible(c.as_ref())).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// The table as lines, head first, in at most `width` columns; `None` (a pipe, a file) cuts
    /// nothing. Left-aligned columns give way, the widest first, and end in `…` where cut; if that
    /// is not enough, lines run over.
    pub fn render(&self, width: Option<usize>, colour: Colour) -> String {
        let widths = self.widths(width);
        let head: Vec<&str> = self.head.iter().map(|(name, _)| name.as_str()).collect();
        let mut out = colour.paint("2", &self.line(&head, &widths));
        out.push('\n');
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            out.push_str(&self.line(&cells, &widths));
            out.push('\n');
        }
        out
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.head.len())
            .map(|i| {
                let cells = self.rows.iter().map(|row| columns(&row[i]));
                cells.chain([columns(&self.head[i].0)]).max().unwrap_or(0)
            })
            .collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        while excess > 0 {
            let widest = (0..widths.len())
                .filter(|&i| self.head[i].1 == Align::Left && widths[i] > NARROWEST)
                .max_by_key(|&i| widths[i]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
            excess -= 1;
        }
        widths
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .zip(&self.head)
            .map(|((cell, &width), (_, align))| match align {
                Align::Left => pad_right(&truncate(cell, width), width),
                Align::Right => pad_left(cell, width),
            })
            .collect();
        padded.join(GAP).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("FACT", Align::Left),
            ("PROMPT", Align::Left),
            ("P", Align::Right),
        ]);
        table.row(["0", "The Space Needle is in downtown", "0.976"]);
        table.row(["1", "東京タワーは\n日本の", "0.5"]);
        table.row(["2"]);
        table
    }

    #[test]
    fn columns_align_by_what_the_terminal_shows() {
        assert_eq!(
            table().render(None, Colour::Never),
            "FACT  PROMPT                               P\n\
             0     The Space Needle is in downtown  0.976\n\
             1     東京タワーは⏎日本の                0.5\n\
             2\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_text_and_never_numbers() {
        let text = table().render(Some(24), Colour::Never);
        assert!(text.lines().all(|line| columns(line) <= 24), "{text}");
        assert!(text.contains("The Space…   0.976"), "{text}");
        let text = table().render(Some(5), Colour::Never);
        assert!(text.contains("The S…  0.976"), "{text}");
    }

    #[test]
    fn only_the_head_is_styled_and_only_with_colour() {
        let text = table().render(None, Colour::Ansi256);
        assert!(text.starts_with("\x1b[2mFACT"));
        assert_eq!(text.matches('\x1b').count(), 2);
    }
}
