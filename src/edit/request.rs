//! What is to be rewritten.

use super::Error;

/// Most tokens of a new target where many facts are written at once.
pub const TARGET_TOKENS: usize = 32;

/// A fact as it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The sentence up to the object, with one `{}` for the subject: `{} is located in the city
    /// of`.
    pub prompt: String,
    /// What the fact is about: `The Eiffel Tower`.
    pub subject: String,
    /// The new object: `Rome`.
    pub target_new: String,
    /// The object so far, where it is known: `Paris`.
    pub target_true: Option<String>,
}

impl Request {
    /// Checks that it is whole.
    ///
    /// # Errors
    /// [`Error::Placeholder`] and [`Error::Empty`].
    pub fn check(&self) -> Result<(), Error> {
        placeholder("prompt", &self.prompt, "the subject")?;
        let empty = |field, remedy| Err(Error::Empty { field, remedy });
        if self.subject.trim().is_empty() {
            return empty("subject", "name what the fact is about");
        }
        if self.target_new.trim().is_empty() {
            return empty("new target", "say what the model is to answer");
        }
        if self
            .target_true
            .as_ref()
            .is_some_and(|t| t.trim().is_empty())
        {
            return empty("true target", "leave it out, or say what the model answers");
        }
        Ok(())
    }

    /// The text up to the subject's end: what decides the key.
    pub fn head(&self) -> String {
        let before = self.prompt.split_once("{}");
        format!("{}{}", before.map_or("", |(head, _)| head), self.subject)
    }

    /// The sentence with its subject.
    pub fn text(&self) -> String {
        self.prompt.replacen("{}", &self.subject, 1)
    }
}

/// Checks a context: a text with one `{}` for the sentence. `{}` alone is the sentence with nothing
/// before it.
///
/// # Errors
/// [`Error::Placeholder`].
pub fn check_context(context: &str) -> Result<(), Error> {
    placeholder("context", context, "the sentence")
}

fn placeholder(what: &'static str, template: &str, place: &'static str) -> Result<(), Error> {
    match template.matches("{}").count() {
        1 => Ok(()),
        found => Err(Error::Placeholder {
            what,
            template: template.to_owned(),
            found,
            place,
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        let good = Request {
            prompt: "{} is in".into(),
            subject: "The Louvre".into(),
            target_new: "Rome".into(),
            target_true: None,
        };
        good.check().unwrap();
        assert_eq!(good.text(), "The Louvre is in");
        for (prompt, subject, new, what) in [
            ("It is in", "a", "b", "has 0 `{}`"),
            ("{} is in {}", "a", "b", "has 2 `{}`"),
            ("{} is in", " ", "b", "subject is empty"),
            ("{} is in", "a", "", "new target is empty"),
        ] {
            let wrong = Request {
                prompt: prompt.into(),
                subject: subject.into(),
                target_new: new.into(),
                target_true: None,
            };
            let said = wrong.check().unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
