//! Names of resources: printed in one spelling, and read in that spelling only.
//!
//! A name is what the audit log, links and other programs find a resource by. If a second spelling
//! were understood, what was done under it would not be found under the first. So a name that is
//! not spelled as it is printed here names nothing.
//!
//! | resource | name |
//! |---|---|
//! | job | `jobs/{job}`, a UUID in lower case with hyphens |
//! | task | `jobs/{job}/tasks/{n}` |
//! | result | `jobs/{job}/results/{unit}` |
//! | model | `models/{model}`, an identifier |
//! | version | `models/{model}/versions/{digest}` |
//! | edit | `models/{model}/edits/{digest}` |
//! | ref | `models/{model}/refs/{ref}`, an identifier |
//! | statistics | `models/{model}/statistics/{digest}` |
//! | worker | `workers/{worker}`, an identifier |
//! | object | `objects/{digest}` |
//!
//! Requests may name a version by a word that stands for it at the time (`v3`, `main~2`, the
//! beginning of a digest): what stands behind `versions/` and `edits/` is given as a text, for
//! [`crate::version::History`] to look up.

use std::fmt::Display;

use uuid::Uuid;

/// Most bytes of an identifier that a user chooses.
pub const LONGEST_IDENTIFIER: usize = 100;

/// An identifier with something short behind it that tells it from others, cut to the length that
/// one may have.
pub fn numbered(identifier: &str, number: &str) -> String {
    let room = LONGEST_IDENTIFIER.saturating_sub(number.len());
    format!("{}{number}", identifier.get(..room).unwrap_or(identifier))
}

/// Whether a text is an identifier: up to 100 lower-case letters, digits, '.', '_' and '-', a
/// letter or digit first.
pub fn is_identifier(text: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let allowed = |c: char| first(c) || matches!(c, '.' | '_' | '-');
    text.len() <= LONGEST_IDENTIFIER && text.starts_with(first) && text.chars().all(allowed)
}

/// `jobs/{job}`.
pub fn job(id: Uuid) -> String {
    format!("jobs/{id}")
}

/// The job of a name.
pub fn parse_job(name: &str) -> Option<Uuid> {
    uuid(name.strip_prefix("jobs/")?)
}

/// `jobs/{job}/tasks/{n}`.
pub fn task(job: Uuid, number: u32) -> String {
    format!("jobs/{job}/tasks/{number}")
}

/// The job and the number of a task.
pub fn parse_task(name: &str) -> Option<(Uuid, u32)> {
    let (job, number) = name.strip_prefix("jobs/")?.split_once("/tasks/")?;
    Some((uuid(job)?, printed(number)?))
}

/// `jobs/{job}/results/{unit}`.
pub fn result(job: Uuid, unit: u64) -> String {
    format!("jobs/{job}/results/{unit}")
}

/// The job and the unit of a result.
pub fn parse_result(name: &str) -> Option<(Uuid, u64)> {
    let (job, unit) = name.strip_prefix("jobs/")?.split_once("/results/")?;
    Some((uuid(job)?, printed(unit)?))
}

/// `models/{model}`.
pub fn model(id: &str) -> String {
    format!("models/{id}")
}

/// The identifier of a model.
pub fn parse_model(name: &str) -> Option<&str> {
    name.strip_prefix("models/").filter(|id| is_identifier(id))
}

/// `models/{model}/versions/{version}`; `model` is the identifier.
pub fn version(model: &str, version: impl Display) -> String {
    format!("models/{model}/versions/{version}")
}

/// The model's identifier of a version's name, and what stands for the version.
pub fn parse_version(name: &str) -> Option<(&str, &str)> {
    of_model(name, "versions")
}

/// `models/{model}/edits/{edit}`; `model` is the identifier.
pub fn edit(model: &str, edit: impl Display) -> String {
    format!("models/{model}/edits/{edit}")
}

/// The model's identifier of an edit's name, and what stands for the edit.
pub fn parse_edit(name: &str) -> Option<(&str, &str)> {
    of_model(name, "edits")
}

/// `models/{model}/refs/{ref}`; `model` is the identifier.
pub fn reference(model: &str, id: &str) -> String {
    format!("models/{model}/refs/{id}")
}

/// The model's identifier of a ref's name, and the ref's.
pub fn parse_reference(name: &str) -> Option<(&str, &str)> {
    of_model(name, "refs").filter(|(_, id)| is_identifier(id))
}

/// `models/{model}/statistics/{digest}`; `model` is the identifier.
pub fn statistics(model: &str, digest: impl Display) -> String {
    format!("models/{model}/statistics/{digest}")
}

/// The model's identifier of the name of statistics, and their digest.
pub fn parse_statistics(name: &str) -> Option<(&str, &str)> {
    of_model(name, "statistics").filter(|(_, id)| is_digest(id))
}

/// `workers/{worker}`.
pub fn worker(id: &str) -> String {
    format!("workers/{id}")
}

/// The identifier of a worker.
pub fn parse_worker(name: &str) -> Option<&str> {
    name.strip_prefix("workers/").filter(|id| is_identifier(id))
}

/// `objects/{digest}`.
pub fn object(digest: impl Display) -> String {
    format!("objects/{digest}")
}

/// The last part of a name: the digest of a version, the identifier of a job.
pub fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// Whether a text is a whole digest as it is printed.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `models/{model}/{collection}/{id}` in its two changing parts.
pub fn of_model<'a>(name: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    let (model, rest) = name.strip_prefix("models/")?.split_once('/')?;
    let id = rest.strip_prefix(collection)?.strip_prefix('/')?;
    // What stands for a version is a digest, an identifier, or one with `~2`.
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    let known = !id.is_empty() && id.len() <= 2 * LONGEST_IDENTIFIER && id.chars().all(plain);
    (known && is_identifier(model)).then_some((model, id))
}

/// A UUID in the spelling in which it is printed, of several that the parser knows.
fn uuid(text: &str) -> Option<Uuid> {
    printed(text)
}

/// What a text says, if it is printed as that text again: no sign, no leading zeros, no capitals.
fn printed<T: std::str::FromStr + Display>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    (read.to_string() == text).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a221f0-7c1e-7000-8000-0123456789ab";

    #[test]
    fn a_name_is_read_back_as_what_it_was_printed_from() {
        let id: Uuid = ID.parse().unwrap();
        let digest = "0f".repeat(32);
        assert_eq!(parse_job(&job(id)), Some(id));
        assert_eq!(parse_task(&task(id, 17)), Some((id, 17)));
        assert_eq!(parse_model(&model("gpt2-xl")), Some("gpt2-xl"));
        assert_eq!(
            parse_version(&version("m", &digest)),
            Some(("m", &digest[..]))
        );
        assert_eq!(
            parse_version(&version("m", "main~2")),
            Some(("m", "main~2"))
        );
        assert_eq!(parse_edit(&edit("m", &digest)), Some(("m", &digest[..])));
        assert_eq!(
            parse_reference(&reference("m", "main")),
            Some(("m", "main"))
        );
        assert_eq!(
            parse_statistics(&statistics("m", &digest)),
            Some(("m", &digest[..]))
        );
        assert_eq!(parse_worker(&worker("node-7.1")), Some("node-7.1"));
        assert_eq!(last(&version("m", &digest)), digest);
    }

    #[test]
    fn a_jobs_name_has_one_spelling() {
        let capitals = ID.to_uppercase();
        for id in [
            format!("{{{ID}}}"),
            capitals.clone(),
            format!("urn:uuid:{ID}"),
            ID.replace('-', ""),
            format!(" {ID}"),
            format!("{ID}/"),
            String::new(),
        ] {
            assert_eq!(parse_job(&format!("jobs/{id}")), None, "{id}");
            assert_eq!(parse_task(&format!("jobs/{id}/tasks/1")), None, "{id}");
        }
        assert_eq!(parse_job(ID), None);
        for number in ["", "+1", "01", "-1", "1 ", "4294967296"] {
            let name = format!("jobs/{ID}/tasks/{number}");
            assert_eq!(parse_task(&name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for name in [
            "models/",
            "models/M",
            "models/a/b",
            "models/.a",
            "models/a ",
            "Models/a",
            "models/{a}",
        ] {
            assert_eq!(parse_model(name), None, "{name}");
            let version = format!("{name}/versions/v1");
            assert_eq!(parse_version(&version), None, "{version}");
        }
        let long = format!("models/{}", "a".repeat(LONGEST_IDENTIFIER + 1));
        assert_eq!(parse_model(&long), None);
        for name in [
            "models/m/versions/",
            "models/m/versions/a/b",
            "models/m/versions/\u{1b}[2J",
            "models/m/edits/v1",
        ] {
            assert_eq!(parse_version(name), None, "{name}");
        }
        assert_eq!(parse_reference("models/m/refs/Main"), None);
        let capitals = "0F".repeat(32);
        assert_eq!(
            parse_statistics(&format!("models/m/statistics/{capitals}")),
            None
        );
        assert_eq!(parse_worker("workers/"), None);
        assert_eq!(parse_worker("workers/A"), None);
    }
}
