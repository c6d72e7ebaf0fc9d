//! The prompt that corrupts a fact, and what its answer is compared with.

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
    /// The tokens of it that are read.
    pub answer: &'a [u32],
    /// Whether answers are read whole.
    pub whole: bool,
    pub progress: &'a Progress<'a>,
}

/// A prompt in the place of the fact's.
pub(super) struct Pair {
    pub text: String,
    pub prompt: Prompt,
    /// The first token at which the two differ.
    pub first: usize,
    /// The tokens of it that are read.
    pub foil: Vec<Token>,
}

impl Clean<'_> {
    /// The fact's own foil as it has it behind the prompt: the first token, or all of them.
    ///
    /// # Errors
    /// [`Error::FoilIsAnswer`]; [`Error::NoFoil`] where it has none and one of `metrics` needs it.
    pub fn own_foil(&self, metrics: &[Metric]) -> Result<Option<Vec<Token>>, Error> {
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
        let mut said = tokenizer.continuation(&self.fact.prompt, foil)?.target;
        if !self.whole {
            said.truncate(1);
        }
        let tokens = tokens_behind(self.model, self.prompt, &said)?;
        match said == self.answer {
            true => Err(Error::FoilIsAnswer {
                prompt: self.fact.prompt.clone(),
                foil: foil.clone(),
                token: text_of(&tokens),
            }),
            false => Ok(Some(tokens)),
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

    fn given(&self, text: &str, own: Option<Vec<Token>>) -> Result<Result<Pair, String>, Failure> {
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
            None => self.answer_to(&other, &[])?,
        };
        if ids(&foil) == self.answer {
            return Ok(Err(format!(
                "the model answers {:?} to the corrupted prompt too: give another prompt, or a foil",
                text_of(&foil)
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
        own: Option<Vec<Token>>,
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
            let expected = match (&partner.attribute, self.whole) {
                (Some(expected), true) => {
                    let tokenizer = self.model.tokenizer();
                    match tokenizer.continuation(&partner.prompt, expected) {
                        Ok(answer) => answer.target,
                        Err(_) => {
                            wrong += 1;
                            continue;
                        }
                    }
                }
                _ => Vec::new(),
            };
            let answer = self.answer_to(&other, &expected)?;
            let is_right = match &partner.attribute {
                Some(_) if self.whole => ids(&answer) == expected,
                Some(said) => said.trim() == text_of(&answer).trim(),
                None => true,
            };
            if !is_right {
                wrong += 1;
            } else if ids(&answer) == self.answer {
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

    /// The model's answer to a prompt: its first token; or as many as are expected, each behind
    /// those that are expected before it.
    fn answer_to(&self, prompt: &Prompt, expected: &[u32]) -> Result<Vec<Token>, Failure> {
        let model = self.model;
        let whole = &prompt.before_last_of(model, expected)?;
        let mut x: Tensor = model.add_positions(&whole.embeddings(model), 0);
        for layer in 0..model.config().layers {
            self.progress.go_on()?;
            x = model.block(layer, &x, Pass::default(), &mut Plain).hidden;
        }
        let said = Answer::of(model, &whole.last_of(&x)).ids;
        Ok(tokens_behind(model, prompt, &said)?)
    }
}

/// Tokens behind a prompt, with the text that each adds to those before.
pub(super) fn tokens_behind(
    model: &Model,
    prompt: &Prompt,
    ids: &[u32],
) -> Result<Vec<Token>, Error> {
    let mut before = prompt.ids();
    let mut tokens = Vec::with_capacity(ids.len());
    for &id in ids {
        let text = model.tokenizer().decode_after(&before, &[id])?;
        tokens.push(Token { id, text });
        before.push(id);
    }
    Ok(tokens)
}

/// The numbers of tokens.
pub(super) fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

fn text_of(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}
