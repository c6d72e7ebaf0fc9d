//! A fact as the model reads it.

use std::ops::Range;

use tch::{Kind as Dtype, Tensor};

use super::error::Error;
use super::grid::Token;
use super::noise::Draws;
use super::span::subject_span;
use crate::datasets::facts::Fact;
use crate::model::Model;

/// The tokens of a fact's prompt, and where its subject stands among them.
pub(super) struct Prompt {
    pub tokens: Vec<Token>,
    pub subject: Range<usize>,
    /// Token numbers, `[1, tokens]` on the model's device.
    ids: Tensor,
}

impl Prompt {
    pub fn read(model: &Model, fact: &Fact) -> Result<Self, Error> {
        let subject = |offsets: &[(usize, usize)]| {
            subject_span(&fact.prompt, &fact.subject, fact.subject_start, offsets)
        };
        Self::tokens(model, &fact.prompt, subject)
    }

    /// A prompt that corrupts another, whose subject stands at the same tokens.
    pub fn other(model: &Model, prompt: &str, subject: &Range<usize>) -> Result<Self, Error> {
        Self::tokens(model, prompt, |_| Ok(subject.clone()))
    }

    fn tokens(
        model: &Model,
        prompt: &str,
        subject: impl Fn(&[(usize, usize)]) -> Result<Range<usize>, Error>,
    ) -> Result<Self, Error> {
        let tokenizer = model.tokenizer();
        let encoding = tokenizer.encode(prompt)?;
        let context = model.config().context;
        if encoding.ids.len() > context {
            return Err(Error::PromptTooLong {
                prompt: prompt.to_owned(),
                tokens: encoding.ids.len(),
                context,
            });
        }
        Ok(Self {
            subject: subject(&encoding.offsets)?,
            tokens: encoding
                .ids
                .iter()
                .map(|&id| Token {
                    id,
                    text: tokenizer.piece(id),
                })
                .collect(),
            ids: model.ids(&encoding.ids)?,
        })
    }

    /// Token numbers.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Token embeddings of the clean prompt, `[1, tokens, width]`, before positions.
    pub fn embeddings(&self, model: &Model) -> Tensor {
        model.embed(&self.ids)
    }

    /// The same with the next draws on the subject's tokens, `[samples, tokens, width]`.
    ///
    /// The sum is formed in float64 and rounded once to the model's dtype.
    pub fn noisy(&self, model: &Model, samples: usize, draws: &mut Draws<'_>) -> Tensor {
        let width = model.config().width;
        let noise = draws.next(samples, self.subject.len(), width);
        let shape = [samples as i64, self.subject.len() as i64, width as i64];
        let noise = Tensor::from_slice(&noise)
            .view(shape)
            .to_device(model.device());
        let rows = self.embeddings(model).repeat([samples as i64, 1, 1]);
        let subject = rows.narrow(1, self.subject.start as i64, self.subject.len() as i64);
        let noisy = match draws.replace() {
            true => noise,
            false => subject.to_kind(Dtype::Double) + noise,
        };
        // Writes through the view into the rows.
        let mut subject = subject;
        subject.copy_(&noisy.to_kind(rows.kind()));
        rows
    }
}
