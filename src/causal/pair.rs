//! The prompt that corrupts a fact, and the token that its answer is compared with.

use tch::Tensor;

use super::error::Error;
use super::grid::Token;
use super::memory::Failure;
use super::metric::Metric;
use super::prompt::Prompt;
use super::readout::Answer;
use super::task::Progress;
use crate::datasets::facts::Fact;
use crate::model::{Model, Pass, Plain};

/// A fact's prompt with the model's answer to it.
pub(super) struct Clean<'a> {
    pub model: &'a Model,
    pub fact: &'a Fact,
    pub prompt: &'a Prompt,
    pub answer: &'a Token,
    pub progress: &'a Progress<'a>,
}

/// A prompt in the place of the fact's.
pub(super) struct Pair {
    pub text: String,
    pub prompt: Prompt,
    /// The first token at which the two differ.
    pub first: usize,
    pub foil: Token,
}

impl Clean<'_> {
    /// The fact's own foil, by the first token that it has behind the prompt.
    ///
    /// # Errors
    /// [`Error::FoilIsAnswer`]; [`Error::NoFoil`] where it has none and one of `metrics` needs it.
    pub fn own_foil(&self, metrics: &[Metric]) -> Result<Option<Token>, Error> {
        let Some(foil) = &self.fact.foil else {
            return match metrics.iter().find(|metric| metric.needs_foil()) {
                Some(metric) => Err(Error::NoFoil {
                    metric: metric.to_string(),
                    prompt: self.fact.prompt.clone(),
                }),
                None => Ok(None),
            };
        };
        let tokenizer = self.model.tokenizer();
        let id = tokenizer.continuation(&self.fact.prompt, foil)?.target[0];
        let token = self.token(id)?;
        match id == self.answer.id {
            true => Err(Error::FoilIsAnswer {
                prompt: self.fact.prompt.clone(),
                foil: foil.clone(),
                token: token.text,
            }),
            false => Ok(Some(token)),
        }
    }

    /// The other prompt: the fact's own, or that of the first of `partners` which has as many
    /// tokens, its subject at the same ones, and another answer that the model gives. Where there
    /// is none, the reason.
    ///
    /// # Errors
    /// [`Error::CorruptedTokens`] and [`Error::SamePrompt`] for the fact's own,
    /// [`Error::FoilIsAnswer`] for its foil.
    pub fn pair(&self, partners: &[Fact]) -> Result<Result<Pair, String>, Failure> {
        let own = self.own_foil(&[]).map_err(Failure::Error)?;
        match &self.fact.corrupted {
            Some(text) => self.given(text, own),
            None => self.found(partners, own),
        }
    }

    fn given(&self, text: &str, own: Option<Token>) -> Result<Result<Pair, String>, Failure> {
        let other = Prompt::other(self.model, text, &self.prompt.subject)?;
        if other.len() != self.prompt.len() {
            return Err(Failure::Error(Error::CorruptedTokens {
                prompt: self.fact.prompt.clone(),
                corrupted: text.to_owned(),
                found: other.len(),
                expected: self.prompt.len(),
            }));
        }
        let Some(first) = self.first_difference(&other) else {
            return Err(Failure::Error(Error::SamePrompt {
                prompt: self.fact.prompt.clone(),
            }));
        };
        let foil = match own {
            Some(foil) => foil,
            None => self.answer_to(&other)?,
        };
        if foil.id == self.answer.id {
            return Ok(Err(format!(
                "the model answers {:?} to the corrupted prompt too: give another prompt, or a foil",
                foil.text
            )));
        }
        Ok(Ok(Pair {
            text: text.to_owned(),
            prompt: other,
            first,
            foil,
        }))
    }

    fn found(
        &self,
        partners: &[Fact],
        own: Option<Token>,
    ) -> Result<Result<Pair, String>, Failure> {
        let (mut lengths, mut same, mut wrong) = (0, 0, 0);
        for partner in partners {
            let other = match Prompt::read(self.model, partner) {
                Ok(other)
                    if (other.len(), &other.subject)
                        == (self.prompt.len(), &self.prompt.subject) =>
                {
                    other
                }
                _ => {
                    lengths += 1;
                    continue;
                }
            };
            let Some(first) = self.first_difference(&other) else {
                same += 1;
                continue;
            };
            let answer = self.answer_to(&other)?;
            let said = partner.attribute.as_deref();
            if said.is_some_and(|said| said.trim() != answer.text.trim()) {
                wrong += 1;
            } else if answer.id == self.answer.id {
                same += 1;
            } else {
                return Ok(Ok(Pair {
                    text: partner.prompt.clone(),
                    prompt: other,
                    first,
                    foil: own.unwrap_or(answer),
                }));
            }
        }
        Ok(Err(match partners.len() {
            0 => {
                "no partner: no other fact has its relation and template and another answer: give \
                  it a corrupted prompt of its own"
                    .to_owned()
            }
            tried => format!(
                "no partner among {tried} facts of its relation and template: {lengths} of another \
                 token count, {wrong} answered otherwise than expected, {same} with the same answer: \
                 give it a corrupted prompt of its own"
            ),
        }))
    }

    fn first_difference(&self, other: &Prompt) -> Option<usize> {
        let mut tokens = self.prompt.tokens.iter().zip(&other.tokens);
        tokens.position(|(one, other)| one.id != other.id)
    }

    /// The model's answer to a prompt.
    fn answer_to(&self, prompt: &Prompt) -> Result<Token, Failure> {
        let model = self.model;
        let mut x: Tensor = model.add_positions(&prompt.embeddings(model), 0);
        for layer in 0..model.config().layers {
            self.progress.go_on()?;
            x = model.block(layer, &x, Pass::default(), &mut Plain).hidden;
        }
        let last = x.select(1, prompt.len() as i64 - 1);
        let answer = Answer::of(model, &last);
        Ok(Token {
            id: answer.id as u32,
            text: token_text(model, prompt, answer.id as u32)?,
        })
    }

    fn token(&self, id: u32) -> Result<Token, Error> {
        let text = token_text(self.model, self.prompt, id)?;
        Ok(Token { id, text })
    }
}

/// The text of a token behind a prompt.
pub(super) fn token_text(model: &Model, prompt: &Prompt, id: u32) -> Result<String, Error> {
    Ok(model.tokenizer().decode_after(&prompt.ids(), &[id])?)
}
