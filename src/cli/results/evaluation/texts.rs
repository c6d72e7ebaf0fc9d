//! What an evaluation of texts gave: their perplexity on every version, and its ratio.

use super::{Evaluation, Line};
use crate::eval::{Mean, Scored, median_perplexity, perplexity, perplexity_ratio};
use crate::plot::table::{Align, Table};
use crate::wire;

impl Evaluation<'_> {
    /// What each column thinks of the texts that all have read.
    fn read(&self) -> Vec<Vec<Scored>> {
        let mut columns = vec![Vec::new(); self.columns.len()];
        for (_, measured) in self.whole() {
            let texts = measured.iter().map(|it| it.text.as_ref().map(wire::score));
            let texts: Option<Vec<Scored>> = texts.collect();
            for (column, text) in columns.iter_mut().zip(texts.into_iter().flatten()) {
                column.push(text);
            }
        }
        columns
    }

    /// The perplexity over all tokens, and the median over texts of each one's.
    pub(super) fn perplexities(&self) -> Vec<Line> {
        let columns = self.read();
        let line = |name: &str, means: Vec<Mean>, change| Line {
            name: name.to_owned(),
            scale: 1.0,
            means,
            change,
        };
        let median = |texts: &Vec<Scored>| Mean {
            count: texts.len(),
            mean: median_perplexity(texts),
            half: None,
        };
        let medians: Vec<Mean> = columns.iter().map(median).collect();
        let ratio = match columns.as_slice() {
            [before, after] => Some(perplexity_ratio(before, after)),
            _ => None,
        };
        let of_medians = match medians.as_slice() {
            [before, after] => Some(Mean {
                mean: after.mean / before.mean,
                ..*after
            }),
            _ => None,
        };
        vec![
            line(
                "PPL",
                columns.iter().map(|texts| perplexity(texts)).collect(),
                ratio,
            ),
            line("PPL MEDIAN", medians, of_medians),
        ]
    }

    /// A line a text: its tokens and its perplexity in the last column.
    pub(super) fn texts(&self) -> Table {
        let mut table = Table::new(&[
            ("RECORD", Align::Right),
            ("TEXT", Align::Left),
            ("TOKENS", Align::Right),
            ("PPL", Align::Right),
        ]);
        for (n, row) in self.rows.iter().enumerate() {
            let last = row.measured.last().copied().flatten();
            let read = last.and_then(|it| it.text.as_ref());
            table.row(vec![
                (n + 1).to_string(),
                row.record.text.clone(),
                read.map_or(String::new(), |read| read.tokens.to_string()),
                read.map_or(String::new(), |read| format!("{:.1}", read.nll.exp())),
            ]);
        }
        table
    }
}
