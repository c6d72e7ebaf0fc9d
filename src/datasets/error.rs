//! What can be wrong with a file of records.

/// A file that cannot be used.
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
    #[error("{file}: is larger than {} MiB, the most a file of records may hold: split it", limit >> 20)]
    TooLarge {
        /// The file.
        file: String,
        /// The limit, bytes.
        limit: u64,
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
    /// The file is neither JSON nor JSON lines.
    #[error("{file}: is not JSON: {source}; give a list of records, or one record a line")]
    NotJson {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// All questions stand solved before others, of which there are none.
    #[error(
        "{file}: holds no question beside the {shots} that stand solved before it: give more, or fewer shots"
    )]
    AllShown {
        /// The file.
        file: String,
        /// How many were to stand solved.
        shots: usize,
    },
    /// No record at all.
    #[error("{file}: holds no records: give at least one")]
    Empty {
        /// The file.
        file: String,
    },
    /// A file of contexts without one.
    #[error("{file}: holds no contexts: {{}} alone is the bare sentence")]
    NoContexts {
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
    /// A context that is none.
    #[error("is {found}, not a text: give texts with {{}} for the sentence")]
    NotAText {
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
    /// A template with several places for the subject.
    #[error("field {field:?} has {found} {{}}: put one where the subject goes")]
    Placeholders {
        /// The field.
        field: String,
        /// How many it has.
        found: usize,
    },
    /// A prompt that has both the subject and a place for it.
    #[error(
        "field {field:?} is {prompt:?}, which has {{}} and the subject: put {{}} where the subject goes, or the subject alone"
    )]
    Ambiguous {
        /// The field.
        field: String,
        /// Its value.
        prompt: String,
    },
    /// Two fields that say the same, and do not.
    #[error("fields {one:?} and {other:?} give different true answers: keep one of them")]
    Contradiction {
        /// A field.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A number that was rounded when it was read.
    #[error("field {field:?} is a number with more digits than are kept: write it as a text")]
    Rounded {
        /// The field.
        field: String,
    },
    /// A list that does not go with another.
    #[error("field {field:?} has {found} answers to {wanted} questions of {of:?}: give one each")]
    Unequal {
        /// The field.
        field: String,
        /// Its items.
        found: usize,
        /// Those of the other.
        wanted: usize,
        /// The other.
        of: &'static str,
    },
    /// Not a record of a data set that has what is asked for.
    #[error(
        "is of no form that is known: give \"requested_rewrite\" (CounterFact), \"prompt\", \"subject\", \
         \"target_new\" and \"ground_truth\" (its flat form), or \"src\", \"subject\", \"alt\" and \"answers\" (zsRE)"
    )]
    Unknown,
    /// A field whose form is not read.
    #[error("field {field:?} is of a form that is not read: give its prompts as {instead:?}")]
    Unread {
        /// The field.
        field: &'static str,
        /// Where its contents belong.
        instead: &'static str,
    },
    /// A record of another set than the first.
    #[error(
        "is of another data set than record 1, and they are measured differently: evaluate one data set \
         after the other"
    )]
    AnotherSet,
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
