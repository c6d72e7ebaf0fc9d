//! Lines of versions as a graph in the terminal: one column a line of descent.

use super::Colour;

/// A version in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// What it is called.
    pub id: &'a str,
    /// What its parent is called; none where it has none.
    pub parent: Option<&'a str>,
}

/// What stands before the texts of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// Before the version, if lines meet there: `├─╯`.
    pub joint: Option<String>,
    /// Beside its first line: `│ ●`.
    pub head: String,
    /// Beside its other lines: `│ │`.
    pub body: String,
}

/// The graph of nodes that come before their parents: one lead a node, in their order.
///
/// ```
/// use palimpsest::plot::Colour;
/// use palimpsest::plot::history::{Node, leads};
///
/// let node = |id, parent| Node { id, parent };
/// let nodes = [node("c", Some("a")), node("b", Some("a")), node("a", None)];
/// let leads = leads(&nodes, Colour::Never);
/// let heads: Vec<_> = leads.iter().map(|lead| lead.head.as_str()).collect();
/// assert_eq!(heads, ["●", "│ ●", "●"]);
/// assert_eq!(leads[2].joint.as_deref(), Some("├─╯"));
/// ```
pub fn leads(nodes: &[Node<'_>], colour: Colour) -> Vec<Lead> {
    // What each column waits for.
    let mut columns: Vec<Option<&str>> = Vec::new();
    let mut leads = Vec::with_capacity(nodes.len());
    for node in nodes {
        let waiting: Vec<usize> = (0..columns.len())
            .filter(|&at| columns[at] == Some(node.id))
            .collect();
        let (at, joint) = match waiting.as_slice() {
            [] => {
                let free = columns.iter().position(Option::is_none);
                let at = free.unwrap_or(columns.len());
                if at == columns.len() {
                    columns.push(None);
                }
                (at, None)
            }
            [only] => (*only, None),
            [first, others @ ..] => {
                let joint = joint(&columns, *first, others, colour);
                for &other in others {
                    columns[other] = None;
                }
                (*first, Some(joint))
            }
        };
        while columns.len() > at + 1 && columns.last() == Some(&None) {
            columns.pop();
        }
        let row = |columns: &[Option<&str>], mark: Option<&str>| {
            let cells = columns.iter().enumerate().map(|(column, waits)| {
                let sign = match (mark, waits) {
                    (Some(mark), _) if column == at => mark,
                    (_, Some(_)) => "│",
                    (_, None) => " ",
                };
                paint(colour, sign, column)
            });
            cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
        };
        let head = row(&columns, Some("●"));
        columns[at] = node.parent;
        while columns.last() == Some(&None) {
            columns.pop();
        }
        leads.push(Lead {
            joint,
            head,
            body: row(&columns, None),
        });
    }
    leads
}

/// A sign in its column's colour.
fn paint(colour: Colour, sign: &str, column: usize) -> String {
    const CODES: [&str; 6] = ["34", "32", "35", "36", "33", "31"];
    match sign {
        " " => sign.to_owned(),
        _ => colour.paint(CODES[column % CODES.len()], sign),
    }
}

/// The line in which the columns `others` go over into the column `first`.
fn joint(columns: &[Option<&str>], first: usize, others: &[usize], colour: Colour) -> String {
    let last = others.last().copied().unwrap_or(first);
    let mut line = String::new();
    for (column, waits) in columns.iter().enumerate() {
        let inside = column > first && column <= last;
        let sign = match waits {
            _ if column == first => "├",
            _ if column == last => "╯",
            _ if others.contains(&column) => "┴",
            Some(_) if inside => "┼",
            None if inside => "─",
            Some(_) => "│",
            None => " ",
        };
        if column > 0 {
            line.push_str(if inside { "─" } else { " " });
        }
        line.push_str(&paint(colour, sign, column));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(nodes: &[(&str, Option<&str>)]) -> String {
        let nodes: Vec<Node<'_>> = nodes
            .iter()
            .map(|&(id, parent)| Node { id, parent })
            .collect();
        let mut text = String::new();
        for (node, lead) in nodes.iter().zip(leads(&nodes, Colour::Never)) {
            if let Some(joint) = lead.joint {
                text += &format!("{joint}\n");
            }
            text += &format!("{} {}\n", lead.head, node.id);
        }
        text
    }

    #[test]
    fn a_line_of_versions_is_one_column() {
        assert_eq!(
            drawn(&[("2", Some("1")), ("1", Some("0")), ("0", None)]),
            "● 2\n● 1\n● 0\n"
        );
    }

    #[test]
    fn branches_leave_their_parent_and_pass_each_other() {
        assert_eq!(
            drawn(&[
                ("5", Some("3")),
                ("4", Some("1")),
                ("3", Some("1")),
                ("2", Some("1")),
                ("1", Some("0")),
                ("0", None),
            ]),
            "● 5\n│ ● 4\n● │ 3\n│ │ ● 2\n├─┴─╯\n● 1\n● 0\n"
        );
    }

    #[test]
    fn a_column_that_ended_is_used_again() {
        assert_eq!(
            drawn(&[
                ("d", Some("b")),
                ("c", None),
                ("b", Some("a")),
                ("e", Some("a")),
                ("a", None)
            ]),
            "● d\n│ ● c\n● b\n│ ● e\n├─╯\n● a\n"
        );
    }
}
