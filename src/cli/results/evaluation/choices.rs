//! Shows what an evaluation of choices gave.

use super::{Evaluation, Line, taken};
use crate::eval::{self, Mean};
use crate::plot::table::{Align, Table};

impl Evaluation<'_> {
    /// A line a question: the right answer, and the one that the last column's version takes.
    pub(super) fn choices(&self) -> Table {
        let mut table = Table::new(&[
            ("RECORD", Align::Right),
            ("TASK", Align::Left),
            ("RIGHT", Align::Left),
            ("TAKEN", Align::Left),
        ]);
        for (n, row) in self.rows.iter().enumerate() {
            let asked = row.record.choice.clone().unwrap_or_default();
            let answer = |n: Option<usize>| n.and_then(|n| asked.choices.get(n).cloned());
            let last = row.measured.last().copied().flatten();
            table.row(vec![
                (n + 1).to_string(),
                asked.task.clone(),
                answer(Some(asked.right as usize)).unwrap_or_default(),
                answer(last.and_then(taken)).unwrap_or_default(),
            ]);
        }
        table
    }

    /// F1 of each task.
    pub(super) fn f1s(&self) -> Vec<Line> {
        let line = |task: String| {
            let of = self.whole().filter_map(|(row, all)| {
                let asked = row.record.choice.as_ref().filter(|it| it.task == task)?;
                let taken: Option<Vec<usize>> = all.iter().map(|it| taken(it)).collect();
                Some((asked.right as usize, taken?))
            });
            let of: Vec<(usize, Vec<usize>)> = of.collect();
            let means: Vec<Mean> = (0..self.columns.len())
                .map(|column| {
                    let pairs: Vec<(usize, usize)> = of
                        .iter()
                        .map(|(right, taken)| (*right, taken[column]))
                        .collect();
                    Mean {
                        count: pairs.len(),
                        mean: eval::f1(&pairs),
                        half: None,
                    }
                })
                .collect();
            let change = means.get(1).map(|after| Mean {
                mean: after.mean - means[0].mean,
                ..*after
            });
            Line {
                name: format!("{task} F1"),
                scale: 100.0,
                means,
                change,
            }
        };
        self.measures().into_iter().map(line).collect()
    }
}
