//! What an edit did besides what it was to do: the perplexity of texts, its neighbours, and tasks
//! that it has nothing to do with.

use crate::edit::downstream;
use crate::proto::v1;

/// Lines about it, for what was measured.
pub(super) fn lines(figures: &[v1::NamedNumber]) -> Vec<String> {
    let figure = |key: &str| figures.iter().find(|it| it.key == key).map(|it| it.value);
    let mut lines = Vec::new();
    for (of, whose) in [
        ("ppl", "the texts"),
        ("ppl.server", "the coordinator's texts"),
    ] {
        let part = |part: &str| figure(&format!("{of}.{part}"));
        if let (Some(before), Some(after), Some(ratio)) =
            (part("before"), part("after"), part("ratio"))
        {
            // A wrecked model's may have hundreds of digits.
            let number = |it: f64| match it < 1e6 {
                true => format!("{it:.3}"),
                false => format!("{it:.3e}"),
            };
            lines.push(format!(
                "perplexity of {whose} {} -> {}, {} times what it was",
                number(before),
                number(after),
                match ratio < 1e6 {
                    true => format!("{ratio:.4}"),
                    false => format!("{ratio:.3e}"),
                }
            ));
        }
    }
    if let Some(share) = figure("locality") {
        lines.push(format!(
            "the true answer stays the likelier after {share:.3} of the neighbours after which it was"
        ));
    }
    for task in (figures.iter()).filter_map(|it| downstream::task_of_drop(&it.key)) {
        let part = |part: &str| figure(&downstream::name(task, part));
        if let (Some(before), Some(after)) = (part("before"), part("after")) {
            let of = part("questions").map_or(String::new(), |it| format!(" of {it} questions"));
            lines.push(format!("accuracy on {task} {before:.3} -> {after:.3}{of}"));
        }
    }
    lines
}
