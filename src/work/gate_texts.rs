//! The texts whose perplexity edits are judged by: what is asked, and whether it was measured.

use super::Wrong;
use super::check::corpus;
use crate::datasets;
use crate::proto::v1;

/// Most texts of a list.
const MOST_TEXTS: usize = 1000;
/// Most bytes of the object that has them.
pub const MOST_BYTES: u64 = 1 << 20;

/// The texts of such an object.
///
/// # Errors
/// What is wrong with it.
pub fn read(object: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(object).map_err(|error| error.to_string())?;
    let texts = datasets::corpus::parse("the object", text).map_err(|error| error.to_string())?;
    match texts.len() <= MOST_TEXTS {
        true => Ok(texts),
        false => Err(format!(
            "it holds {} texts: {MOST_TEXTS} at most",
            texts.len()
        )),
    }
}

/// How far a ratio may be from that of the figures beside it.
const SLACK: f64 = 1e-9;

/// Checks what was asked; which texts are the coordinator's own is for it to say.
pub(super) fn check(
    texts: &mut Option<v1::GateTexts>,
    gates: Option<v1::EditGates>,
    of: &str,
    wrong: &mut Wrong,
) {
    if let Some(texts) = texts {
        texts.server = None;
    }
    texts.take_if(|texts| texts.asked.is_none());
    let field = format!("{of}.gate_texts.asked");
    match texts.as_ref().and_then(|texts| texts.asked.as_ref()) {
        Some(named) if named.size > MOST_BYTES => {
            let what = format_args!(
                "{} bytes: {MOST_BYTES} at most; give fewer or shorter texts",
                named.size
            );
            wrong.say(format_args!("{field}.size"), what);
        }
        Some(named) => corpus(&field, named, wrong),
        None => {
            if let Some(ratio) = gates.and_then(|gates| gates.ppl_ratio) {
                let what = format_args!(
                    "{ratio} is a bound on the perplexity of texts, and {field} names none: give texts \
                     ('palimpsest edit --gate-texts FILE'), or ask for server_ppl_ratio, which is of the \
                     coordinator's"
                );
                wrong.say(format_args!("{of}.gates.ppl_ratio"), what);
            }
        }
    }
}

/// Passes of one token that they cost: each text is read before and after.
pub(super) fn tokens(texts: Option<&v1::GateTexts>) -> f64 {
    let lists = lists(texts).map(|(_, corpus)| corpus.size as f64 / 4.0);
    2.0 * lists.sum::<f64>()
}

/// The lists that there are, each with the beginning of its figures' names.
fn lists(
    texts: Option<&v1::GateTexts>,
) -> impl Iterator<Item = (&'static str, &v1::Corpus)> + use<'_> {
    let each = texts.map(|texts| [("ppl", &texts.asked), ("ppl.server", &texts.server)]);
    let each = each.into_iter().flatten();
    each.filter_map(|(name, named)| Some((name, named.as_ref()?)))
}

/// Looks whether the figures of an edit are of the texts that were asked. Texts that have no token
/// to foretell have none.
///
/// # Errors
/// What is wrong with them.
pub(super) fn accept(texts: Option<&v1::GateTexts>, edit: &v1::Edit) -> Result<(), String> {
    let figure = |name: &str, part: &str| {
        let name = format!("{name}.{part}");
        let found = edit.figures.iter().find(|figure| figure.key == name);
        found.map(|figure| figure.value)
    };
    let asked: Vec<&str> = lists(texts).map(|(name, _)| name).collect();
    for name in ["ppl", "ppl.server"] {
        let parts = ["before", "after", "ratio"].map(|part| figure(name, part));
        match parts {
            [None, None, None] => {}
            [Some(before), Some(after), Some(ratio)] if asked.contains(&name) => {
                // One that is no number is close to nothing.
                let fits = (after / before - ratio).abs() <= SLACK * ratio;
                if !fits || before <= 0.0 {
                    return Err(format!(
                        "its figure '{name}.ratio' is {ratio}, from {before} to {after}"
                    ));
                }
            }
            _ => {
                return Err(format!(
                    "its figures '{name}' are not those of texts that were asked"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> v1::GateTexts {
        v1::GateTexts {
            asked: Some(v1::Corpus::default()),
            server: None,
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_figures_beside_it_and_of_texts_that_were_asked() {
        let edit = |figures: &[(&str, f64)]| v1::Edit {
            figures: figures
                .iter()
                .map(|&(key, value)| v1::NamedNumber {
                    key: key.to_owned(),
                    value,
                })
                .collect(),
            ..Default::default()
        };
        let right = [
            ("ppl.before", 20.0),
            ("ppl.after", 22.0),
            ("ppl.ratio", 1.1),
        ];
        assert_eq!(accept(Some(&texts()), &edit(&right)), Ok(()));
        // Such an edit has not been measured, which its gates say.
        assert_eq!(accept(Some(&texts()), &edit(&[])), Ok(()));
        assert_eq!(accept(None, &edit(&[])), Ok(()));
        assert!(accept(None, &edit(&right)).is_err());
        let wrecked = [
            ("ppl.before", 20.0),
            ("ppl.after", f64::MAX),
            ("ppl.ratio", f64::MAX / 20.0),
        ];
        assert_eq!(accept(Some(&texts()), &edit(&wrecked)), Ok(()));
        for (n, value) in [(2, 1.0), (2, f64::NAN), (0, 0.0), (0, -20.0), (1, f64::NAN)] {
            let mut wrong = right;
            wrong[n].1 = value;
            assert!(accept(Some(&texts()), &edit(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(accept(Some(&texts()), &edit(&right[1..])).is_err());
        let server = [
            ("ppl.server.before", 20.0),
            ("ppl.server.after", 22.0),
            ("ppl.server.ratio", 1.1),
        ];
        assert!(accept(Some(&texts()), &edit(&server)).is_err());
    }

    #[test]
    fn an_object_of_texts_is_read_if_it_has_some_and_not_too_many() {
        assert_eq!(read(b"\"one\"\n\"two\"\n").unwrap(), ["one", "two"]);
        assert!(read(b"").unwrap_err().contains("no text"));
        assert!(read(b"\xff\xfe").is_err());
        let many = "\"a\"\n".repeat(MOST_TEXTS + 1);
        assert!(read(many.as_bytes()).unwrap_err().contains("1000 at most"));
    }
}
