//! Corpora: lists of texts, for statistics of a model over ordinary language.
//!
//! A user's file may be a JSON list, JSON lines, or plain text with a text a line; a record is a
//! text, or an object with the text under `text` (capitals do not matter). Kept, a corpus has one form
//! whatever it was read from: a JSON string a line. So its digest says what the texts are.

use std::fmt;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Largest corpus file read: 1 GiB.
pub const LARGEST_FILE: u64 = 1 << 30;

/// A corpus that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than [`LARGEST_FILE`].
    #[error("{file}: has {size} bytes, a corpus may have {LARGEST_FILE}: take a part of it")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size, bytes.
        size: u64,
    },
    /// The file is no text.
    #[error("{file}: is not UTF-8 at byte {at}: save it as UTF-8")]
    NotUtf8 {
        /// The file.
        file: String,
        /// First byte that is not.
        at: usize,
    },
    /// The file begins as JSON but is none.
    #[error("{file}: {place}: is not JSON: {source}; give a list of texts, or one a line")]
    NotJson {
        /// The file.
        file: String,
        /// "line 3" of JSON lines, or "the list".
        place: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A record that is no text.
    #[error("{file}: {place}: is {found}, not a text: give a text, or an object with \"text\"")]
    NotText {
        /// The file.
        file: String,
        /// "line 3", "record 3", from 1.
        place: String,
        /// What it is.
        found: &'static str,
    },
    /// No text at all.
    #[error("{file}: holds no text: give at least one that is not blank")]
    Empty {
        /// The file.
        file: String,
    },
}

/// Reads a user's file. Blank texts are left out.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record.
pub fn read(path: &Path) -> Result<Vec<String>, Error> {
    let file = path.display().to_string();
    let unread = |source| Error::Read {
        file: file.clone(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unread)?.len();
    if size > LARGEST_FILE {
        return Err(Error::TooLarge { file, size });
    }
    let bytes = std::fs::read(path).map_err(unread)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&file, text),
        Err(error) => Err(Error::NotUtf8 {
            file,
            at: error.valid_up_to(),
        }),
    }
}

/// Reads texts from the contents of a file; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, contents: &str) -> Result<Vec<String>, Error> {
    let contents = contents.strip_prefix('\u{feff}').unwrap_or(contents);
    let mut texts = match contents.trim_start().chars().next() {
        Some('[') => list(file, contents)?,
        Some('{' | '"') => lines(file, contents)?,
        // Anything else is no JSON: prose.
        _ => contents.lines().map(str::to_owned).collect(),
    };
    texts.retain(|text| !text.trim().is_empty());
    match texts.is_empty() {
        true => Err(Error::Empty { file: file.into() }),
        false => Ok(texts),
    }
}

/// The form in which a corpus is kept: a JSON string a line. [`parse`] reads it back.
pub fn to_bytes(texts: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend(Value::from(text.as_str()).to_string().into_bytes());
        bytes.push(b'\n');
    }
    bytes
}

fn list(file: &str, contents: &str) -> Result<Vec<String>, Error> {
    let records: Records = serde_json::from_str(contents).map_err(|source| Error::NotJson {
        file: file.into(),
        place: "the list".into(),
        source,
    })?;
    let numbered = records.0.into_iter().enumerate();
    numbered
        .map(|(n, record)| text(file, || format!("record {}", n + 1), record))
        .collect()
}

fn lines(file: &str, contents: &str) -> Result<Vec<String>, Error> {
    let numbered = contents.lines().enumerate();
    numbered
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| {
            let place = || format!("line {}", n + 1);
            let record = serde_json::from_str(line).map_err(|source| Error::NotJson {
                file: file.into(),
                place: place(),
                source,
            })?;
            text(file, place, record)
        })
        .collect()
}

fn text(file: &str, place: impl Fn() -> String, record: Record) -> Result<String, Error> {
    match record {
        Record::Text(text) => Ok(text),
        Record::Other(found) => Err(Error::NotText {
            file: file.into(),
            place: place(),
            found,
        }),
    }
}

/// A record, of which only the text is kept.
enum Record {
    Text(String),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let record = match Value::deserialize(from)? {
            Value::Object(fields) => fields
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("text"))
                .map(|(_, value)| value),
            other => Some(other),
        };
        Ok(match record {
            Some(Value::String(text)) => Self::Text(text),
            Some(Value::Null) => Self::Other("null"),
            Some(Value::Bool(_)) => Self::Other("a boolean"),
            Some(Value::Number(_)) => Self::Other("a number"),
            Some(Value::Array(_)) => Self::Other("a list"),
            Some(Value::Object(_)) => Self::Other("an object in an object"),
            None => Self::Other("an object without \"text\""),
        })
    }
}

/// A list of records, taken one at a time: as a tree of values it would need several times its size.
struct Records(Vec<Record>);

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Records;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Records, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = seq.next_element()? {
                    records.push(record);
                }
                Ok(Records(records))
            }
        }
        from.deserialize_seq(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_same_texts_and_so_the_same_bytes() {
        let texts = ["One.", "Zwei \"2\"\té", "three"].map(str::to_owned);
        for contents in [
            r#"["One.", "Zwei \"2\"\té", " ", "three"]"#,
            r#" [{"Corpus": "C4", "Text": "One."}, {"text": "Zwei \"2\"\té", "n": 1}, "three"]"#,
            "\u{feff}\"One.\"\n\n{\"text\": \"Zwei \\\"2\\\"\\t\\u00e9\"}\r\n\"three\"",
            "One.\nZwei \"2\"\té\r\n   \nthree\n",
        ] {
            assert_eq!(parse("c", contents).unwrap(), texts);
        }
        let kept = String::from_utf8(to_bytes(&texts)).unwrap();
        assert_eq!(kept.lines().count(), 3);
        assert_eq!(parse("c", &kept).unwrap(), texts);
    }

    #[test]
    fn an_error_names_file_record_and_remedy() {
        let message = |contents: &str| parse("c.json", contents).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                message(" \n"),
                message("[]"),
                message("[\"a\", 3]"),
                message("[\"a\", {\"txt\": \"b\"}]"),
                message("[\"a\", "),
                message("\"a\"\n{\"text\": [1]}"),
                message("{\"text\": \"a\"}\nb"),
            ]
            .join("\n")
        );
        let missing = read(Path::new("/nowhere/c.txt")).unwrap_err().to_string();
        assert!(
            missing.starts_with("/nowhere/c.txt: cannot be read: "),
            "{missing}"
        );
    }
}
