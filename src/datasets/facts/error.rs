//! What can be wrong with a fact file.

/// A fact file that cannot be used.
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
    /// The file is larger than [`LARGEST_FILE`](super::LARGEST_FILE).
    #[error("{file}: is larger than {} MiB, the most a fact file may hold: split it", limit >> 20)]
    TooLarge {
        /// The file.
        file: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// The file is no text.
    #[error("{file}: is not UTF-8 at byte {at}: save it as UTF-8")]
    NotUtf8 {
        /// The file.
        file: String,
        /// First byte that is not.
        at: usize,
    },
    /// The file is neither JSON nor JSON lines.
    #[error("{file}: is not JSON: {source}; give a list of records, or one record a line")]
    NotJson {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// No record at all.
    #[error("{file}: holds no facts: give at least one record with prompt and subject")]
    Empty {
        /// The file.
        file: String,
    },
    /// One record is wrong.
    #[error("{file}: {record}: {problem}")]
    Record {
        /// The file.
        file: String,
        /// "record 3" (from 1), "line 3", with the record's own id where it has one.
        record: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line of JSON lines that is not JSON.
    #[error("is not JSON: {0}; give one record a line, or one list")]
    NotJson(String),
    /// The record is not an object.
    #[error("is {found}, not a record: give an object with prompt and subject")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A field that every fact needs is not there.
    #[error("field {field:?} is missing: {remedy}")]
    Missing {
        /// The field.
        field: String,
        /// What to put there.
        remedy: &'static str,
    },
    /// A field holds another type.
    #[error("field {field:?} is {found}: give {wanted}")]
    Type {
        /// The field.
        field: String,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A field holds nothing but white space.
    #[error("field {field:?} is blank: {remedy}")]
    Blank {
        /// The field.
        field: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A template without a place for the subject.
    #[error("field {field:?} is {template:?}, which has no {{}}: put {{}} where the subject goes")]
    NoPlaceholder {
        /// The field.
        field: String,
        /// Its value.
        template: String,
    },
    /// The subject's characters do not occur in the prompt.
    #[error(
        "subject {subject:?} does not occur in prompt {prompt:?}: write it exactly as in the prompt, capitals and accents included"
    )]
    SubjectNotInPrompt {
        /// The subject.
        subject: String,
        /// The prompt.
        prompt: String,
    },
}
