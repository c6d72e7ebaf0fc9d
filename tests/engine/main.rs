//! The engine against references that share no code with it: checkpoints, logits, grids, edits
//! and measures.

mod answers;
mod attribution_fixtures;
mod attribution_properties;
mod causal_fixtures;
mod causal_properties;
mod causal_smollm2;
mod edit_fixtures;
mod eval_fixtures;
mod families;
mod mass_edit_fixtures;
mod mixtures;
mod model_checkpoint;
mod model_logits;
mod patching_fixtures;
mod patching_properties;
mod path_fixtures;
mod path_properties;
#[cfg(feature = "torch")]
#[path = "../common/require.rs"]
mod require;
mod several_devices;
