//! One record of any of the known schemas, read once for tracing, editing and evaluating: it means
//! the same to all.

use serde_json::{Map, Value};

use super::error::Problem;

const PROMPT: &str = "give the text before the answer";
pub(super) const SUBJECT: &str = "give the part of the prompt that names what the fact is about";
pub(super) const ANSWER: &str = "give the expected answer, or leave the field out";
const CORRUPTED: &str = "give another prompt, or an object with another subject";
const FOIL: &str = "give the answer to compare with, or leave it out";
const NEW: &str = "give the new object";
const PROMPTS: &str = "give a prompt, or leave it out";

/// Fields of a flat record that say its objects.
const SAID: [&str; 4] = ["target_new", "attribute", "target_true", "ground_truth"];

/// Which data set a record is of, by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// CounterFact in full: `requested_rewrite`.
    CounterFact,
    /// CounterFact, flat, and known_1000: `prompt`.
    Flat,
    /// zsRE: `src`.
    ZsRe,
    /// QAEdit: `prompt` and `target`.
    QaEdit,
}

/// What a record says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub schema: Schema,
    pub id: Option<String>,
    /// The prompt up to its subject, and what is behind it.
    pub before: String,
    pub after: String,
    pub subject: String,
    pub relation: Option<String>,
    pub target_new: Option<String>,
    pub target_true: Option<String>,
    pub paraphrases: Vec<String>,
    pub neighbours: Vec<String>,
    /// The neighbours' true answers, where the record has a field for them.
    pub neighbour_answers: Option<Vec<String>>,
    pub generation_prompts: Vec<String>,
    /// Neighbours in a form of which only the name is known.
    pub unread: Option<&'static str>,
    /// What the fact is corrupted with.
    pub other: Other,
}

/// The prompt that a record gives to corrupt its own, and the answer to compare with.
#[derive(Clone, Debug, Default)]
pub(super) struct Other {
    pub corrupted: Option<String>,
    pub foil: Option<String>,
}

impl Other {
    /// `corrupted` is the other prompt, or an object with `prompt` or `subject`, which stands
    /// between `before` and `after`, and maybe its `answer`; `foil` is the answer too.
    pub fn read(record: &Map<String, Value>, before: &str, after: &str) -> Result<Self, Problem> {
        let mut other = Self {
            foil: said(record, "foil", "foil".into(), FOIL)?,
            corrupted: None,
        };
        let Some(Value::Object(given)) = present(record, "corrupted") else {
            other.corrupted = said(record, "corrupted", "corrupted".into(), CORRUPTED)?;
            return Ok(other);
        };
        let inside = |field: &str| format!("corrupted.{field}");
        if let Some(answer) = said(given, "answer", inside("answer"), FOIL)? {
            if other.foil.as_ref().is_some_and(|foil| *foil != answer) {
                return Err(Problem::Contradiction {
                    one: "foil",
                    other: "corrupted.answer",
                });
            }
            other.foil = Some(answer);
        }
        other.corrupted = Some(match said(given, "prompt", inside("prompt"), CORRUPTED)? {
            Some(prompt) => prompt,
            None => {
                let subject = required(given, "subject", inside("subject"), CORRUPTED)?;
                format!("{before}{subject}{after}")
            }
        });
        Ok(other)
    }
}

/// The names of the fields of a schema, as messages have them.
pub(super) struct Names {
    pub target_new: &'static str,
    pub target_true: &'static str,
    pub neighbours: &'static str,
    pub neighbour_answers: &'static str,
    paraphrases: &'static str,
}

impl Schema {
    pub fn names(self) -> Names {
        let [
            target_new,
            target_true,
            paraphrases,
            neighbours,
            neighbour_answers,
        ] = match self {
            Self::CounterFact => [
                "target_new.str",
                "target_true.str",
                "paraphrase_prompts",
                "neighborhood_prompts",
                "",
            ],
            Self::Flat => [
                "target_new",
                "ground_truth",
                "rephrase_prompt",
                "locality_prompt",
                "locality_ground_truth",
            ],
            Self::ZsRe => ["alt", "answers", "rephrase", "loc", "loc_ans"],
            Self::QaEdit => [
                "target",
                "",
                "rephrase",
                "locality[].loc",
                "locality[].loc_ans",
            ],
        };
        Names {
            target_new,
            target_true,
            neighbours,
            neighbour_answers,
            paraphrases,
        }
    }
}

impl Entry {
    /// Reads a record.
    pub fn read(value: &Value) -> Result<Self, Problem> {
        let Value::Object(record) = value else {
            return Err(Problem::NotAnObject {
                found: named(value),
            });
        };
        match present(record, "requested_rewrite") {
            Some(Value::Object(rewrite)) => Self::full(record, rewrite, "requested_rewrite"),
            Some(other) => {
                let wanted = "an object with prompt and subject";
                Err(mistyped("requested_rewrite".into(), other, wanted))
            }
            None => Self::bare(record),
        }
    }

    /// Reads all facts of a record: those of MQuAKE have several that are edited together.
    pub fn all(value: &Value) -> Result<Vec<Self>, Problem> {
        let record = value.as_object();
        let list = record.and_then(|record| Some((record, present(record, "requested_rewrite")?)));
        let Some((record, Value::Array(rewrites))) = list else {
            return Ok(vec![Self::read(value)?]);
        };
        if rewrites.is_empty() {
            return Err(Problem::Missing {
                field: "requested_rewrite".to_owned(),
                remedy: "give the facts that are edited",
            });
        }
        let each = rewrites.iter().enumerate().map(|(n, rewrite)| {
            let place = format!("requested_rewrite[{n}]");
            let Value::Object(rewrite) = rewrite else {
                let wanted = "an object with prompt and subject";
                return Err(mistyped(place, rewrite, wanted));
            };
            Self::full(record, rewrite, &place)
        });
        each.collect()
    }

    /// An entry of a schema, with what all schemas have.
    fn of(record: &Map<String, Value>, schema: Schema) -> Result<Self, Problem> {
        let id = ["known_id", "case_id", "id"]
            .into_iter()
            .find_map(|field| identifier(record, field).transpose())
            .transpose()?;
        let names = schema.names();
        Ok(Self {
            schema,
            id,
            before: String::new(),
            after: String::new(),
            subject: String::new(),
            relation: None,
            target_new: None,
            target_true: None,
            paraphrases: texts(record, names.paraphrases)?,
            neighbours: texts(record, names.neighbours)?,
            neighbour_answers: match present(record, names.neighbour_answers) {
                Some(_) => Some(texts(record, names.neighbour_answers)?),
                None => None,
            },
            generation_prompts: texts(record, "generation_prompts")?,
            unread: None,
            other: Other::default(),
        })
    }

    /// A record whose fact is not in an object of its own.
    fn bare(record: &Map<String, Value>) -> Result<Self, Problem> {
        let has = |field: &str| present(record, field).is_some();
        let schema = match () {
            () if has("src") && !has("prompt") => Schema::ZsRe,
            // Where another field says what is true, it is no question whose answer is taught.
            () if has("target") && !SAID.iter().any(|field| has(field)) => Schema::QaEdit,
            () => Schema::Flat,
        };
        let mut entry = Self::of(record, schema)?;
        match schema {
            Schema::ZsRe => entry.zsre(record)?,
            Schema::QaEdit => entry.qaedit(record)?,
            Schema::Flat | Schema::CounterFact => entry.flat(record)?,
        }
        entry.other = Other::read(record, &entry.before, &entry.after)?;
        Ok(entry)
    }

    /// A sentence about a subject, up to its object.
    pub fn of_sentence(sentence: &str, subject: &str) -> Result<Self, Problem> {
        let record = serde_json::json!({"prompt": sentence, "subject": subject});
        Self::read(&record)
    }

    /// The prompt with `{}` for the subject.
    pub fn template(&self) -> String {
        format!("{}{{}}{}", self.before, self.after)
    }

    /// A fact in an object at a place of its record.
    fn full(
        record: &Map<String, Value>,
        rewrite: &Map<String, Value>,
        place: &str,
    ) -> Result<Self, Problem> {
        let mut entry = Self::of(record, Schema::CounterFact)?;
        entry.unread = unread(record);
        let inside = |field: &str| format!("{place}.{field}");
        entry.subject = required(rewrite, "subject", inside("subject"), SUBJECT)?;
        let template = required(rewrite, "prompt", inside("prompt"), PROMPT)?;
        (entry.before, entry.after) = template_parts(inside("prompt"), &template)?;
        let target = |field: &str, remedy| match present(rewrite, field) {
            None => Ok(None),
            Some(Value::Object(target)) => {
                said(target, "str", inside(&format!("{field}.str")), remedy)
            }
            Some(other) => Err(mistyped(inside(field), other, "an object with str")),
        };
        entry.target_new = target("target_new", NEW)?;
        entry.target_true = target("target_true", ANSWER)?;
        entry.relation = text(rewrite, "relation_id", inside("relation_id"))?;
        entry.other = Other::read(record, &entry.before, &entry.after)?;
        Ok(entry)
    }

    fn flat(&mut self, record: &Map<String, Value>) -> Result<(), Problem> {
        self.unread = unread(record);
        let prompt = required(record, "prompt", "prompt".into(), PROMPT)?;
        self.subject = required(record, "subject", "subject".into(), SUBJECT)?;
        (self.before, self.after) = parts("prompt", &prompt, &self.subject)?;
        self.target_new = object(record, "target_new", NEW)?;
        let truths = [
            (
                "attribute",
                said(record, "attribute", "attribute".into(), ANSWER)?,
            ),
            ("target_true", object(record, "target_true", ANSWER)?),
            ("ground_truth", first(record, "ground_truth")?),
        ];
        let mut truths = truths
            .into_iter()
            .filter_map(|(field, it)| Some((field, it?)));
        if let Some((one, truth)) = truths.next() {
            if let Some((other, _)) = truths.find(|(_, other)| *other != truth) {
                return Err(Problem::Contradiction { one, other });
            }
            self.target_true = Some(truth);
        }
        self.relation = match text(record, "relation_id", "relation_id".into())? {
            None => text(record, "relation", "relation".into())?,
            found => found,
        };
        Ok(())
    }

    fn qaedit(&mut self, record: &Map<String, Value>) -> Result<(), Problem> {
        let prompt = required(record, "prompt", "prompt".into(), PROMPT)?;
        self.subject = required(record, "subject", "subject".into(), SUBJECT)?;
        (self.before, self.after) = parts("prompt", &prompt, &self.subject)?;
        self.target_new = said(record, "target", "target".into(), NEW)?;
        let list = match present(record, "locality") {
            None => return Ok(()),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return Err(mistyped(
                    "locality".into(),
                    other,
                    "a list of loc and loc_ans",
                ));
            }
        };
        let mut answers = Vec::new();
        for (n, one) in list.iter().enumerate() {
            let inside = |field: &str| format!("locality[{n}].{field}");
            let Value::Object(one) = one else {
                let wanted = "an object with loc and loc_ans";
                return Err(mistyped(format!("locality[{n}]"), one, wanted));
            };
            (self.neighbours).push(required(one, "loc", inside("loc"), PROMPTS)?);
            answers.push(required(one, "loc_ans", inside("loc_ans"), ANSWER)?);
        }
        self.neighbour_answers = Some(answers);
        Ok(())
    }

    fn zsre(&mut self, record: &Map<String, Value>) -> Result<(), Problem> {
        self.unread = unread(record);
        let prompt = required(record, "src", "src".into(), PROMPT)?;
        self.subject = required(record, "subject", "subject".into(), SUBJECT)?;
        (self.before, self.after) = parts("src", &prompt, &self.subject)?;
        self.target_new = said(record, "alt", "alt".into(), NEW)?;
        self.target_true = first(record, "answers")?;
        for neighbour in &mut self.neighbours {
            // The data set's own mark of where its unrelated questions come from.
            *neighbour = neighbour
                .trim_start_matches("nq question:")
                .trim_start()
                .to_owned();
            if neighbour.is_empty() {
                let (field, remedy) = ("loc".to_owned(), PROMPTS);
                return Err(Problem::Blank { field, remedy });
            }
        }
        Ok(())
    }
}

/// Neighbours in a form of which only the name is known.
fn unread(record: &Map<String, Value>) -> Option<&'static str> {
    present(record, "locality").map(|_| "locality")
}

/// "record 3 (known_id 17)".
pub(super) fn described(place: String, record: &Value) -> String {
    let Value::Object(record) = record else {
        return place;
    };
    let ids = ["known_id", "case_id", "id"].into_iter();
    let mut found = ids.filter_map(|field| Some((field, identifier(record, field).ok()??)));
    match found.next() {
        Some((field, id)) => format!("{place} ({field} {id})"),
        None => place,
    }
}

/// Numbers up to this are kept exactly where they are not whole.
const EXACT: f64 = (1_u64 << 53) as f64;

fn identifier(record: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match present(record, field) {
        Some(Value::Number(n)) if n.is_f64() && n.as_f64().is_none_or(|n| n.abs() > EXACT) => {
            Err(Problem::Rounded {
                field: field.to_owned(),
            })
        }
        Some(Value::Number(n)) => Ok(Some(n.to_string())),
        Some(Value::String(s)) => Ok(Some(s.clone()).filter(|s| !s.trim().is_empty())),
        Some(other) => Err(mistyped(field.to_owned(), other, "a number or a text")),
        None => Ok(None),
    }
}

/// A template before and behind its one `{}`.
pub(super) fn template_parts(field: String, template: &str) -> Result<(String, String), Problem> {
    match template.matches("{}").count() {
        0 => Err(Problem::NoPlaceholder {
            field,
            template: template.to_owned(),
        }),
        1 => {
            let (before, after) = template.split_once("{}").unwrap_or_default();
            Ok((before.to_owned(), after.to_owned()))
        }
        found => Err(Problem::Placeholders { field, found }),
    }
}

/// A prompt before and behind its subject, which stands there itself (its first occurrence counts)
/// or as `{}`.
fn parts(field: &str, prompt: &str, subject: &str) -> Result<(String, String), Problem> {
    if prompt.contains("{}") {
        let parts = template_parts(field.to_owned(), prompt)?;
        if prompt.contains(subject) {
            return Err(Problem::Ambiguous {
                field: field.to_owned(),
                prompt: prompt.to_owned(),
            });
        }
        return Ok(parts);
    }
    match prompt.split_once(subject) {
        Some((before, after)) => Ok((before.to_owned(), after.to_owned())),
        None => Err(Problem::SubjectNotInPrompt {
            subject: subject.to_owned(),
            prompt: prompt.to_owned(),
        }),
    }
}

/// A field that is there and not null.
pub(super) fn present<'a>(record: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    record.get(key).filter(|value| !value.is_null())
}

/// A text, where the field is there.
pub(super) fn text(
    record: &Map<String, Value>,
    key: &str,
    field: String,
) -> Result<Option<String>, Problem> {
    match present(record, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(mistyped(field, other, "a text")),
    }
}

/// A text that must be there and say something, without the spaces around it.
pub(super) fn required(
    record: &Map<String, Value>,
    key: &str,
    field: String,
    remedy: &'static str,
) -> Result<String, Problem> {
    said(record, key, field.clone(), remedy)?.ok_or(Problem::Missing { field, remedy })
}

/// A text that says something where it is there, without the spaces around it: a blank answer would
/// match no prediction.
pub(super) fn said(
    record: &Map<String, Value>,
    key: &str,
    field: String,
    remedy: &'static str,
) -> Result<Option<String>, Problem> {
    match text(record, key, field.clone())?.as_deref().map(str::trim) {
        Some("") => Err(Problem::Blank { field, remedy }),
        found => Ok(found.map(str::to_owned)),
    }
}

/// What a flat record says for an object: a text or, as ROME's own requests have it, an object with
/// `str`.
fn object(
    record: &Map<String, Value>,
    key: &str,
    remedy: &'static str,
) -> Result<Option<String>, Problem> {
    match present(record, key) {
        Some(Value::Object(target)) => said(target, "str", format!("{key}.str"), remedy),
        _ => said(record, key, key.to_owned(), remedy),
    }
}

/// A text, or the first of a list of texts, which all are right.
fn first(record: &Map<String, Value>, key: &str) -> Result<Option<String>, Problem> {
    match present(record, key) {
        Some(Value::Array(list)) => match list.first() {
            None => Ok(None),
            Some(value) => {
                one(value, format!("{key}[0]"), ANSWER).map(|text| Some(text.trim().to_owned()))
            }
        },
        Some(Value::String(_)) | None => said(record, key, key.to_owned(), ANSWER),
        Some(other) => Err(mistyped(key.to_owned(), other, "a text or a list of texts")),
    }
}

/// A field that holds a text or a list of texts, none of them blank, or is not there.
pub(super) fn texts(record: &Map<String, Value>, key: &str) -> Result<Vec<String>, Problem> {
    match present(record, key) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let numbered = list.iter().enumerate();
            numbered
                .map(|(n, value)| one(value, format!("{key}[{n}]"), PROMPTS))
                .collect()
        }
        Some(value @ Value::String(_)) => Ok(vec![one(value, key.to_owned(), PROMPTS)?]),
        Some(other) => Err(mistyped(key.to_owned(), other, "a text or a list of texts")),
    }
}

fn one(value: &Value, field: String, remedy: &'static str) -> Result<String, Problem> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(Problem::Blank { field, remedy }),
        Value::String(text) => Ok(text.clone()),
        other => Err(mistyped(field, other, "a text")),
    }
}

pub(super) fn mistyped(field: String, found: &Value, wanted: &'static str) -> Problem {
    Problem::Type {
        field,
        found: named(found),
        wanted,
    }
}

pub(super) fn named(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
