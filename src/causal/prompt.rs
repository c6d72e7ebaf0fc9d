//! A fact as the model reads it.

use std::ops::Range;

use tch::{Kind as Dtype, Tensor};

use super::error::Error;
use super::grid::Token;
use super::noise::Draws;
use super::settings::Settings;
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
        let tokenizer = model.tokenizer();
        let encoding = tokenizer.encode(&fact.prompt)?;
        let context = model.config().context;
        if encoding.ids.len() > context {
            return Err(Error::PromptTooLong {
                prompt: fact.prompt.clone(),
                tokens: encoding.ids.len(),
                context,
            });
        }
        let subject = subject_span(
            &fact.prompt,
            &fact.subject,
            fact.subject_start,
            &encoding.offsets,
        )?;
        Ok(Self {
            tokens: encoding
                .ids
                .iter()
                .map(|&id| Token {
                    id,
                    text: tokenizer.piece(id),
                })
                .collect(),
            subject,
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
    pub fn corrupted(&self, model: &Model, settings: &Settings, draws: &mut Draws<'_>) -> Tensor {
        let width = model.config().width;
        let noise = draws.next(settings.samples, self.subject.len(), width);
        let shape = [
            settings.samples as i64,
            self.subject.len() as i64,
            width as i64,
        ];
        let noise = Tensor::from_slice(&noise)
            .view(shape)
            .to_device(model.device());
        let rows = self
            .embeddings(model)
            .repeat([settings.samples as i64, 1, 1]);
        let subject = rows.narrow(1, self.subject.start as i64, self.subject.len() as i64);
        let noisy = match settings.noise.replaces() {
            true => noise,
            false => subject.to_kind(Dtype::Double) + noise,
        };
        // Writes through the view into the rows.
        let mut subject = subject;
        subject.copy_(&noisy.to_kind(rows.kind()));
        rows
    }
}
