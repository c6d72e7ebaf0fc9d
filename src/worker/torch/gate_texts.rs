//! The perplexity of the texts that edits are judged by.

use super::super::engine::Sink;
use super::super::prepare::GateTexts;
use super::units::Stopped;
use crate::edit::measured::{Measured, PerplexityChange};
use crate::eval::{self, Scored};
use crate::model::Model;

/// What a model makes of the texts.
pub(super) struct Foretold {
    asked: Vec<Scored>,
    server: Vec<Scored>,
}

impl Foretold {
    /// Reads them.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`], and a text that the model cannot read.
    pub fn read(model: &Model, texts: &GateTexts, sink: &dyn Sink) -> Result<Self, Stopped> {
        let read = |texts: &[String]| -> Result<Vec<Scored>, Stopped> {
            let mut scored = Vec::with_capacity(texts.len());
            for text in texts {
                if sink.cancelled() {
                    return Err(Stopped::Cancelled);
                }
                scored.extend(eval::read_beginning(model, text)?);
            }
            Ok(scored)
        };
        let asked = read(&texts.asked)?;
        let server = match texts.server == texts.asked {
            true => asked.clone(),
            false => read(&texts.server)?,
        };
        Ok(Self { asked, server })
    }

    /// Notes what became of them, from what the model made of them after the edit.
    pub fn note(&self, after: &Self, measured: &mut Measured) {
        let change = |before: &[Scored], after: &[Scored]| {
            let perplexity = |texts| eval::perplexity(texts).mean;
            let some = !before.is_empty();
            some.then(|| PerplexityChange::of(perplexity(before), perplexity(after)))
        };
        measured.perplexity = change(&self.asked, &after.asked);
        measured.server_perplexity = change(&self.server, &after.server);
    }
}
