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
    /// Tokens that the model is given behind it: an answer but its last token, where the answer is
    /// read whole. No cell is of them.
    forced: usize,
    /// The numbers of both, `[1, tokens]` on the model's device.
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
            forced: 0,
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

    /// The prompt with an answer behind it, all but the last of its tokens.
    pub fn before_last_of(&self, model: &Model, answer: &[u32]) -> Result<Self, Error> {
        let mut ids = self.ids();
        ids.extend(answer.iter().rev().skip(1).rev());
        let context = model.config().context;
        if ids.len() > context {
            return Err(Error::AnswerTooLong {
                prompt: model.tokenizer().decode(&self.ids())?,
                tokens: self.tokens.len(),
                answer: answer.len(),
                context,
            });
        }
        Ok(Self {
            tokens: self.tokens.clone(),
            subject: self.subject.clone(),
            forced: ids.len() - self.tokens.len(),
            ids: model.ids(&ids)?,
        })
    }

    /// Token numbers of the prompt.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// Tokens of the prompt and of what is given behind it.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.forced
    }

    /// How many of the last tokens the metrics are read behind: one for every token of the answer.
    pub fn positions(&self) -> usize {
        1 + self.forced
    }

    /// The states of those among `[rows, tokens, width]` that end with the last token.
    pub fn last_of(&self, states: &Tensor) -> Tensor {
        let read = self.positions() as i64;
        states.narrow(1, states.size()[1] - read, read)
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
