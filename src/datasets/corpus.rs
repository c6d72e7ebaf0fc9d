//! Corpora: lists of texts, for statistics of a model over ordinary language.
//!
//! A user's file may be a JSON list, JSON lines, or plain text with a text a line; a record is a
//! text, or an object with the text under `text` (capitals do not matter). Kept, a corpus has one
//! form whatever it was read from: a JSON string a line. So its digest says what the texts are.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::text::utf8::{self, MARK, NotText};

/// Largest corpus file read: 1 GiB.
pub const LARGEST_FILE: u64 = 1 << 30;

/// Largest part of a document that [`documents`] gives at a time, bytes.
pub const PART: usize = 64 << 10;

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
    #[error("{file}: is not UTF-8 at byte {at}: {remedy}")]
    NotUtf8 {
        /// The file.
        file: String,
        /// First byte that is not.
        at: usize,
        /// What helps, by what its first bytes are.
        remedy: &'static str,
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
    let text = utf8::text(std::fs::read(path).map_err(unread)?);
    let text = &text.map_err(|found| not_text(&file, found))?;
    // By its name, as documents are: prose may begin with a quotation mark or a bracket.
    match path.extension().is_some() && !is_json(path) {
        true => some(&file, lines_of(text)),
        false => parse(&file, text),
    }
}

fn not_text(file: &str, NotText { at, remedy }: NotText) -> Error {
    Error::NotUtf8 {
        file: file.into(),
        at,
        remedy,
    }
}

/// A file that is not read to its end: by what it is, or by the system.
fn broken_off(file: &str, source: io::Error) -> Error {
    match NotText::of(&source) {
        Some(found) => not_text(file, found),
        None => Error::Read {
            file: file.into(),
            source,
        },
    }
}

/// Whether a file's name says that it holds JSON.
fn is_json(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    extension.to_lowercase().starts_with("json")
}

/// Prose, a text a line.
fn lines_of(text: &str) -> Vec<String> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    text.lines().map(str::to_owned).collect()
}

/// The texts that are not blank, one at least.
fn some(file: &str, mut texts: Vec<String>) -> Result<Vec<String>, Error> {
    texts.retain(|text| !text.trim().is_empty());
    match texts.is_empty() {
        true => Err(Error::Empty { file: file.into() }),
        false => Ok(texts),
    }
}

/// Reads a user's file of documents, holding little of it at a time: a JSON list or JSON lines, by
/// the file's extension, with a document a record; and any other file as one document. A document
/// of more than [`PART`] bytes is taken in parts that end at a space. `take` says whether to go on;
/// blank parts are left out.
///
/// # Errors
/// As [`read`], at the first record that is wrong.
pub fn documents(path: &Path, mut take: impl FnMut(&str) -> bool) -> Result<(), Error> {
    let file = path.display().to_string();
    let unread = |source| broken_off(&file, source);
    let opened = File::open(path).map_err(unread)?;
    let size = opened.metadata().map_err(unread)?.len();
    if size > LARGEST_FILE {
        return Err(Error::TooLarge { file, size });
    }
    let mut input = BufReader::with_capacity(1 << 20, utf8::Checked::new(opened));
    // A byte order mark is no text.
    let marked = input
        .fill_buf()
        .map_err(unread)?
        .starts_with(MARK.as_bytes());
    if marked {
        input.consume(MARK.len());
    }
    if !is_json(path) {
        return prose(&file, &mut input, &mut take);
    }
    let first = loop {
        let buffer = input.fill_buf().map_err(unread)?;
        match buffer.first() {
            Some(byte) if byte.is_ascii_whitespace() => input.consume(1),
            found => break found.copied(),
        }
    };
    let mut records = 0;
    let mut each = |record: Record| {
        records += 1;
        let text = text(&file, || format!("record {records}"), record)?;
        Ok(parts(&text, &mut take))
    };
    let not_json = |source: serde_json::Error| match source.is_io() {
        true => broken_off(&file, source.into()),
        false => Error::NotJson {
            file: file.clone(),
            place: "the file".into(),
            source,
        },
    };
    let mut from = serde_json::Deserializer::from_reader(input);
    if first != Some(b'[') {
        for record in from.into_iter::<Record>() {
            if !each(record.map_err(not_json)?)? {
                break;
            }
        }
        return Ok(());
    }
    let mut ended = Ok(true);
    let list = OneByOne(|record| {
        ended = each(record);
        matches!(ended, Ok(true))
    });
    match list.deserialize(&mut from) {
        Ok(()) => from.end().map_err(not_json),
        // It was stopped: by what was wrong with a record, or by who takes them.
        Err(_) if !matches!(ended, Ok(true)) => ended.map(|_| ()),
        Err(source) => Err(not_json(source)),
    }
}

/// One document, read by lines.
fn prose(
    file: &str,
    input: &mut impl BufRead,
    take: &mut impl FnMut(&str) -> bool,
) -> Result<(), Error> {
    let (mut line, mut held) = (String::new(), String::new());
    loop {
        line.clear();
        let read = input
            .read_line(&mut line)
            .map_err(|source| broken_off(file, source))?;
        if read == 0 || held.len() + read > PART {
            if !parts(&held, take) || read == 0 {
                return Ok(());
            }
            held.clear();
        }
        held.push_str(&line);
    }
}

/// Gives a document in parts; false when it is to stop.
fn parts(document: &str, take: &mut impl FnMut(&str) -> bool) -> bool {
    let mut rest = document;
    while !rest.trim().is_empty() {
        let mut end = rest.len();
        if end > PART {
            end = (0..=PART)
                .rev()
                .find(|&at| rest.is_char_boundary(at))
                .unwrap_or(PART);
            end = rest[..end]
                .rfind(char::is_whitespace)
                .filter(|&at| at > 0)
                .unwrap_or(end);
        }
        let (part, after) = rest.split_at(end);
        if !part.trim().is_empty() && !take(part) {
            return false;
        }
        rest = after;
    }
    true
}

/// Reads texts from the contents of a file; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, contents: &str) -> Result<Vec<String>, Error> {
    let contents = contents.strip_prefix(MARK).unwrap_or(contents);
    let texts = match contents.trim_start().chars().next() {
        Some('[') => list(file, contents)?,
        Some('{' | '"') => lines(file, contents)?,
        // Anything else is no JSON: prose.
        _ => lines_of(contents),
    };
    some(file, texts)
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

/// A list of records, taken one at a time: as a tree of values it would need several times its
/// size.
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

/// Takes the records of a list one at a time, as long as it is told to go on.
struct OneByOne<F>(F);

impl<'de, F: FnMut(Record) -> bool> DeserializeSeed<'de> for OneByOne<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Record) -> bool> Visitor<'de> for OneByOne<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(record) = seq.next_element()? {
            if !(self.0)(record) {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(name: &str, contents: &str, most: usize) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        let mut found = Vec::new();
        let read = documents(&path, |text| {
            found.push(text.to_owned());
            found.len() < most
        });
        read.map(|()| found).map_err(|error| error.to_string())
    }

    #[test]
    fn documents_are_records_of_json_and_whole_files_of_prose() {
        for (name, contents) in [
            (
                "a.json",
                " [\"One.\", {\"text\": \"two\", \"n\": 1}, \" \"]",
            ),
            ("a.jsonl", "\"One.\"\n{\"text\": \"two\"}\n"),
        ] {
            assert_eq!(taken(name, contents, 9).unwrap(), ["One.", "two"]);
            assert_eq!(
                taken(name, contents, 1).unwrap(),
                ["One."],
                "it stops when told"
            );
        }
        assert_eq!(taken("a.txt", "One.\ntwo\n", 9).unwrap(), ["One.\ntwo\n"]);
        for (name, contents, what) in [
            ("a.json", "[\"a\", 3]", "record 2: is a number"),
            (
                "a.jsonl",
                "\"a\"\n{\"x\": 1}",
                "record 2: is an object without",
            ),
            ("a.json", "[\"a\",", "is not JSON"),
            ("a.json", "[\"a\"] b", "is not JSON"),
        ] {
            let said = taken(name, contents, 9).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn prose_may_begin_as_json_does_and_a_mark_before_it_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, contents: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, contents).unwrap();
            path
        };
        let quote = "\"To be,\" he said.\n[Exit]\n";
        let lines = ["\"To be,\" he said.", "[Exit]"];
        assert_eq!(read(&written("q.txt", quote)).unwrap(), lines);
        let marked = format!("\u{feff}{quote}");
        assert_eq!(read(&written("m.txt", &marked)).unwrap(), lines);
        assert_eq!(taken("m.txt", &marked, 9).unwrap(), [quote]);
        assert_eq!(taken("m.json", "\u{feff}[\"One.\"]", 9).unwrap(), ["One."]);
        assert!(read(&written("q.json", quote)).is_err());
    }

    #[test]
    fn a_corpus_that_is_no_text_is_named_whatever_it_is_said_to_hold() {
        let folder = tempfile::tempdir().unwrap();
        let wide =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let latin = |text: &str| -> Vec<u8> { text.chars().map(|it| it as u8).collect() };
        let text = "[\"Zo\u{eb} is in Rome.\"]";
        for (bytes, said) in [
            (
                wide(&format!("\u{feff}{text}")),
                "byte 0: it is UTF-16, save it as UTF-8",
            ),
            (wide(text), "byte 0: it is UTF-16, save it as UTF-8"),
            (latin(text), "byte 4: save it as UTF-8"),
        ] {
            for name in ["a.json", "a.jsonl", "a.txt"] {
                let path = folder.path().join(name);
                std::fs::write(&path, &bytes).unwrap();
                let expected = format!("{}: is not UTF-8 at {said}", path.display());
                let found = documents(&path, |_| true).unwrap_err().to_string();
                assert_eq!(found, expected);
                assert_eq!(read(&path).unwrap_err().to_string(), expected);
            }
        }
    }

    #[test]
    fn long_documents_come_in_parts_that_lose_nothing() {
        let words: String = (0..50_000).map(|n| format!("wörd{n} ")).collect();
        let line = words.replace("9 ", "9\n");
        for (name, contents) in [
            ("a.txt", words.clone()),
            ("a.txt", line),
            ("a.json", serde_json::json!([words]).to_string()),
            ("a.txt", "ä".repeat(PART)),
        ] {
            let parts = taken(name, &contents, usize::MAX).unwrap();
            assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= PART));
            if name == "a.txt" {
                assert!(parts.concat() == contents);
            }
        }
    }

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
