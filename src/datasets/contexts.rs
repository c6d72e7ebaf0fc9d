//! Texts that an edit's key is averaged over, each with `{}` for the sentence.
//!
//! A file is a JSON list of texts or JSON lines, where the first character says so and all of it is
//! JSON; otherwise a text a line. So a text with a line break can be said.

use std::path::Path;

use serde_json::Value;

use super::error::{Error, Problem};
use super::reader;

/// The contexts of a file; none without one.
///
/// # Errors
/// [`Error`]: a file that cannot be read, that holds none, or where JSON has something else than texts.
pub fn contexts(file: Option<&Path>) -> Result<Vec<String>, Error> {
    match file {
        Some(path) => parse(&path.display().to_string(), &reader::text_of(path)?),
        None => Ok(Vec::new()),
    }
}

/// The contexts of a text; `file` names it in errors.
///
/// # Errors
/// As [`contexts`].
pub fn parse(file: &str, text: &str) -> Result<Vec<String>, Error> {
    let values = match text.trim_start().chars().next() {
        Some('[') => serde_json::from_str::<Vec<Value>>(text).ok(),
        Some('"') => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| serde_json::from_str(line).ok()).collect()
        }
        _ => None,
    };
    let texts: Vec<String> = match values {
        Some(values) => {
            let numbered = values.into_iter().enumerate();
            let texts = numbered.map(|(n, value)| match value {
                Value::String(text) => Ok(text),
                other => Err(Error::Record {
                    file: file.to_owned(),
                    record: format!("record {}", n + 1),
                    problem: Problem::NotAText {
                        found: super::record::named(&other),
                    },
                }),
            });
            texts.collect::<Result<_, _>>()?
        }
        None => text.lines().map(str::to_owned).collect(),
    };
    let texts: Vec<String> = texts
        .into_iter()
        .filter(|text| !text.trim().is_empty())
        .collect();
    match texts.is_empty() {
        true => Err(Error::NoContexts {
            file: file.to_owned(),
        }),
        false => Ok(texts),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_lines_or_json_that_can_say_a_line_break() {
        let two = ["{}", "A\nb. {}"].map(str::to_owned);
        assert_eq!(parse("c", r#"["{}", "A\nb. {}"]"#).unwrap(), two);
        assert_eq!(parse("c", "\"{}\"\n\n\"A\\nb. {}\"\n").unwrap(), two);
        let prose = "{}\n\n[Note] {}\n\"He said\" {}\n";
        assert_eq!(
            parse("c", prose).unwrap(),
            ["{}", "[Note] {}", "\"He said\" {}"]
        );
        // Prose that begins as JSON does.
        assert_eq!(parse("c", "[Note] {}\n{}\n").unwrap(), ["[Note] {}", "{}"]);
        assert_eq!(parse("c", "\"He\" {}\n").unwrap(), ["\"He\" {}"]);
        let said = parse("c", "[\"{}\", 3]").unwrap_err().to_string();
        assert!(said.contains("c: record 2: is a number"), "{said}");
        let none = parse("c", " \n").unwrap_err().to_string();
        assert!(none.contains("c: holds no contexts"), "{none}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_context() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.txt");
        std::fs::write(&path, "\u{feff}{}\nSo. {}\n").unwrap();
        assert_eq!(contexts(Some(&path)).unwrap(), ["{}", "So. {}"]);
    }
}
