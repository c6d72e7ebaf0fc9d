//! Completions.

use super::super::engine::Sink;
use super::units::{Kind, Stopped, mixed};
use crate::model::{self, Model};
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};

/// The completions of a lease.
pub(super) struct Generation<'a> {
    pub model: &'a Model,
    pub spec: &'a v1::GenerateSpec,
}

impl Generation<'_> {
    fn complete(&self, prompt: &str, sink: &mut dyn Sink) -> Result<v1::Completion, model::Error> {
        let sampling = model::Sampling {
            temperature: self.spec.temperature,
            top_k: (self.spec.top_k > 0).then_some(self.spec.top_k as usize),
            seed: self.spec.seed,
            max_tokens: self.spec.max_tokens as usize,
        };
        let tokenizer = self.model.tokenizer();
        let encoding = tokenizer.encode(prompt)?;
        let generated = model::generate(self.model, &encoding.ids, &sampling, |_| {
            sink.advance(1);
            !sink.cancelled()
        })?;
        Ok(v1::Completion {
            prompt: prompt.to_owned(),
            text: tokenizer.decode_after(&encoding.ids, &generated.ids)?,
            ended: generated.stop == model::Stop::Eos,
            token_ids: generated.ids,
        })
    }
}

impl Kind for Generation<'_> {
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        let Some(Unit::Generate(asked)) = &units[0].spec else {
            return Err(mixed(&units[0]));
        };
        let made = self.complete(&asked.prompt, sink)?;
        if sink.cancelled() {
            return Err(Stopped::Cancelled); // the text may have been cut short
        }
        Ok(vec![Outcome::Completion(made)])
    }
}
