//! Completions: a unit is a prompt.

use std::mem::take;

use prost::Message as _;

use super::check::{dtype, prompt};
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

    fn accept(&self, items: &Items, unit: u64, outcome: &Outcome) -> Result<(), String> {
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
        Ok(())
    }

    fn reuse_settings(&self) -> Option<Vec<u8>> {
        let asked = Self {
            prompts: Vec::new(),
            ..self.clone()
        };
        Some(asked.encode_to_vec())
    }
}
