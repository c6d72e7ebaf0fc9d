//! Granite 3 (Granite Team 2024): Llama with factors on the embeddings, the scores, what a block
//! adds and the logits (muP, Yang et al. 2022).

use super::super::Error;
use super::super::config::{Config, Family, Fields};
use super::llama::{Defaults, attention_bias, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(fields, &Defaults::of(Family::Granite))?;
    attention_bias(fields, &mut config)?;
    config.biases.mlp = fields.flag("mlp_bias", false)?;
    let factor = |field: &str| -> Result<Option<f64>, Error> {
        let factor = fields.positive(field, 1.0)?;
        Ok(Some(factor).filter(|factor| *factor != 1.0))
    };
    config.input_scale = factor("embedding_multiplier")?;
    config.score_scale = fields.positive("attention_multiplier", 1.0)?;
    config.residual_scale = factor("residual_multiplier")?;
    config.logit_scale = factor("logits_scaling")?.map(f64::recip);
    Ok(config)
}
