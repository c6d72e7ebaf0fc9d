//! Completions: a unit is a prompt.

use std::mem::take;

use prost::Message as _;

use super::check::{dtype, prompt};
use super::extent::{self, most_tokens};
use super::{Found, Items, Stage, Work, Wrong, estimated_tokens};
use crate::proto::v1::{self, leased_unit::Spec as Unit, unit_result::Outcome};

impl Work for v1::GenerateSpec {
    fn units_word(&self) -> &'static str {
        "prompts"
    }

    fn take_parts(&mut self) -> Items {
        Items::of(&Self {
            prompts: take(&mut self.prompts),
            ..Default::default()
        })
    }

    fn put_parts(&mut self, items: &Items) {
        let all = 0..items.len();
        self.prompts = all
            .filter_map(|n| items.text(n).map(str::to_owned))
            .collect();
    }

    fn has_parts(&self) -> bool {
        !self.prompts.is_empty()
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        if items.is_empty() {
            wrong.say("job.generate.prompts", "there are none: give at least one");
        }
        for n in 0..items.len() {
            let text = items.text(n).unwrap_or_default();
            prompt(format_args!("job.generate.prompts[{n}]"), text, wrong);
        }
        if self.max_tokens == 0 {
            self.max_tokens = 32;
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let what = format_args!("{} is not a temperature: use 0 or more", self.temperature);
            wrong.say("job.generate.temperature", what);
        }
        dtype(&mut self.dtype, wrong);
    }

    fn stages(&self, _version: &str, items: &Items) -> Vec<Stage> {
        vec![Stage::new("completions", 0..items.len() as u64)]
    }

    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64 {
        let prompt = items.text(unit as usize).unwrap_or_default();
        (estimated_tokens(prompt) + f64::from(self.max_tokens)) * shape.parameters as f64
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        items.get(unit as usize).map_or(0, <[u8]>::len)
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn unit(&self, _version: &str, items: &Items, unit: u64) -> Option<Unit> {
        Some(Unit::Generate(v1::GenerateUnit {
            prompt: items.text(unit as usize)?.to_owned(),
        }))
    }

    fn settings(&self, _found: &Found) -> v1::lease::Settings {
        v1::lease::Settings::Generate(Self {
            prompts: Vec::new(),
            ..self.clone()
        })
    }

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let Outcome::Completion(completion) = outcome else {
            return Err("it is no completion".to_owned());
        };
        // It need not say which, but not another.
        if !completion.prompt.is_empty() && items.text(unit as usize) != Some(&completion.prompt) {
            return Err("its completion is of another prompt".to_owned());
        }
        if completion.token_ids.len() > self.max_tokens as usize {
            return Err(format!(
                "its completion has {} tokens, {} were asked for",
                completion.token_ids.len(),
                self.max_tokens
            ));
        }
        let prompt = items.text(unit as usize).unwrap_or_default();
        self.check_end(completion, prompt, shape)?;
        extent::text_of(completion.token_ids.len(), &completion.text)
            .and_then(|()| extent::in_context(completion.token_ids.len(), shape))
            .map_err(|what| format!("its completion {what}"))
    }

    fn reuse_settings(&self) -> Option<Vec<u8>> {
        let asked = Self {
            prompts: Vec::new(),
            ..self.clone()
        };
        Some(asked.encode_to_vec())
    }
}

impl v1::GenerateSpec {
    /// Whether a completion ended for a cause: the model ended the text, or as many tokens were
    /// added as were asked for, or the context is full.
    fn check_end(
        &self,
        completion: &v1::Completion,
        prompt: &str,
        shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let tokens = completion.token_ids.len();
        let all = tokens == self.max_tokens as usize;
        if completion.ended && all {
            return Err(format!(
                "its completion says that the model ended it, and has all {tokens} tokens that were \
                 asked for"
            ));
        }
        let context = shape.context as usize;
        if !completion.ended && !all && most_tokens(prompt) + tokens < context {
            return Err(format!(
                "its completion has {tokens} of {} tokens, the model did not end it, and its context \
                 of {context} is not full",
                self.max_tokens
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_ends_for_a_cause_and_has_no_more_text_than_its_tokens_can_give() {
        let spec = v1::GenerateSpec {
            max_tokens: 4,
            ..Default::default()
        };
        let items = Items::of(&v1::GenerateSpec {
            prompts: vec!["The Louvre is in".into()],
            ..Default::default()
        });
        let shape = |context| v1::model::Shape {
            context,
            ..Default::default()
        };
        let said = |context, tokens: usize, ended, text: &str| {
            let completion = v1::Completion {
                prompt: "The Louvre is in".into(),
                token_ids: vec![7; tokens],
                ended,
                text: text.into(),
            };
            spec.accept(&items, 0, &Outcome::Completion(completion), &shape(context))
        };
        assert_eq!(said(2048, 4, false, " Paris."), Ok(()));
        assert_eq!(said(2048, 2, true, " Paris"), Ok(()));
        assert_eq!(said(2048, 0, true, ""), Ok(()));
        // The prompt may have filled the context.
        assert_eq!(said(20, 2, false, " Paris"), Ok(()));
        assert_eq!(said(0, 5, false, "").unwrap_err().matches('4').count(), 1);
        for (found, what) in [
            (said(2048, 2, false, " Paris"), "2 of 4 tokens"),
            (said(2048, 0, false, ""), "0 of 4 tokens"),
            (said(2048, 4, true, " Paris."), "all 4 tokens"),
            (said(2048, 0, true, "Paris"), "5 bytes of text"),
            (said(2048, 1, true, &"a".repeat(100_000)), "100000 bytes"),
            (said(3, 4, false, " Paris"), "context"),
        ] {
            let found = found.unwrap_err();
            assert!(found.contains(what), "{found}");
        }
    }
}
