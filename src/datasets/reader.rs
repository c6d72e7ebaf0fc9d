//! A file of records: one JSON list, one record a line, or a single record.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{Error, Problem};
use super::record::described;
use crate::text::utf8::{self, NotText};

/// Largest file of records that is read: 256 MiB, five times the whole of CounterFact.
pub const LARGEST_FILE: u64 = 256 << 20;

/// The text of a file.
///
/// # Errors
/// [`Error::Read`], [`Error::TooLarge`] and [`Error::NotUtf8`].
pub fn text_of(path: &Path) -> Result<String, Error> {
    let file = path.display().to_string();
    let source = File::open(path).map_err(|source| Error::Read {
        file: file.clone(),
        source,
    })?;
    text_from(&file, source, LARGEST_FILE)
}

/// The text of a stream of at most `limit` bytes; `file` names it in errors. A byte order mark is
/// left out.
pub fn text_from(file: &str, source: impl Read, limit: u64) -> Result<String, Error> {
    let file = || file.to_owned();
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits, for pipes
    // as for files.
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read {
            file: file(),
            source,
        })?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            file: file(),
            limit,
        });
    }
    utf8::text(bytes).map_err(|NotText { at, remedy }| Error::NotUtf8 {
        file: file(),
        at,
        remedy,
    })
}

/// Hands the records of a text to `take`, one at a time: a whole file as a tree of values would
/// need several times its size. `file` names it in errors.
///
/// # Errors
/// [`Error`]: at the first record that `take` finds something wrong with, for one.
pub fn records(
    file: &str,
    text: &str,
    mut take: impl FnMut(&Value) -> Result<(), Problem>,
) -> Result<(), Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = 0;
    let mut each = |place: Option<usize>, value: Value| {
        found += 1;
        let place = match place {
            Some(line) => format!("line {line}"),
            None => format!("record {found}"),
        };
        take(&value).map_err(|problem| Error::Record {
            file: file.to_owned(),
            record: described(place, &value),
            problem,
        })
    };
    match text.trim_start().chars().next() {
        None => {}
        Some('{') => objects(file, text, &mut each)?,
        _ => list(file, text, &mut each)?,
    }
    match found {
        0 => Err(Error::Empty {
            file: file.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The one object that a text is, where it is one.
pub fn whole(text: &str) -> Option<Map<String, Value>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.trim_start()
        .starts_with('{')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Takes a record, with the number of its line where records stand a line each.
type Each<'a> = dyn FnMut(Option<usize>, Value) -> Result<(), Error> + 'a;

fn list(file: &str, text: &str, each: &mut Each<'_>) -> Result<(), Error> {
    let mut wrong = None;
    let reader = ListReader {
        each,
        wrong: &mut wrong,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = json.deserialize_seq(reader).and_then(|()| json.end());
    match wrong {
        Some(wrong) => Err(wrong),
        None => outcome.map_err(|source| Error::NotJson {
            file: file.to_owned(),
            source,
        }),
    }
}

struct ListReader<'a, 'b> {
    each: &'a mut Each<'b>,
    /// The first wrong record; serde's own errors have no room for it.
    wrong: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for ListReader<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records, or one record a line")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<Value>()? {
            if let Err(error) = (self.each)(None, value) {
                *self.wrong = Some(error);
                return Err(serde::de::Error::custom("a record is wrong"));
            }
        }
        Ok(())
    }
}

/// A file that begins with an object: one record, or one record a line.
fn objects(file: &str, text: &str, each: &mut Each<'_>) -> Result<(), Error> {
    let source = match serde_json::from_str::<Value>(text) {
        Ok(value) => return each(None, value),
        Err(source) => source,
    };
    // Lines only if the first is a record by itself; otherwise what the parser says of the whole is
    // the better account.
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    if serde_json::from_str::<Map<String, Value>>(first).is_err() {
        return Err(Error::NotJson {
            file: file.to_owned(),
            source,
        });
    }
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(line).map_err(|error| Error::Record {
            file: file.to_owned(),
            record: format!("line {}", n + 1),
            problem: Problem::NotJson(error.to_string()),
        })?;
        each(Some(n + 1), value)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_beyond() {
        let text = r#"[{"prompt": "A b", "subject": "A"}]"#;
        let size = text.len() as u64;
        assert_eq!(text_from("f", text.as_bytes(), size).unwrap(), text);
        let refused = text_from("f", text.as_bytes(), size - 1);
        assert!(matches!(refused, Err(Error::TooLarge { limit, .. }) if limit == size - 1));
        let shown = Error::TooLarge {
            file: "f".into(),
            limit: LARGEST_FILE,
        }
        .to_string();
        assert!(shown.contains("256 MiB"), "{shown}");
    }

    #[test]
    fn a_file_that_is_no_text_or_not_there_is_named() {
        let error = text_from("bad.json", &b"[\"\xff\"]"[..], 99).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad.json: is not UTF-8 at byte 2: save it as UTF-8"
        );
        let wide: Vec<u8> = "[1]".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = text_from("wide.json", &wide[..], 99).unwrap_err();
        assert_eq!(
            error.to_string(),
            "wide.json: is not UTF-8 at byte 0: it is UTF-16, save it as UTF-8"
        );
        let error = text_of(Path::new("/nowhere/facts.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/facts.json: cannot be read: ")
        );
    }
}
