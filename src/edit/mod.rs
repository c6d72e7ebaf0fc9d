//! Edits: rewriting one fact in one matrix.
//!
//! Meng, Bau, Andonian, Belinkov, *Locating and Editing Factual Associations in GPT* (NeurIPS
//! 2022), section 3, and Gupta, Baskaran, Anumanchipalli, *Rebuilding ROME* (2024), whose symmetric
//! update is the default. The second matrix of an MLP is read as a memory of keys and values; an
//! edit finds the subject's key, a value that makes the model say the new object, and the smallest
//! change that stores it, measured by what ordinary keys look like ([`crate::stats`]).
//!
//! Many facts at once: Meng et al. 2023 (MEMIT), Fang et al. 2025 (AlphaEdit), Gupta et al. 2024
//! and 2025 (EMMET, ENCORE), which are one formula with different metrics of keys (`solver.rs`).
//!
//! To read in this order: what is asked ([`Request`], [`Method`], [`Hyperparameters`]) and answered
//! ([`Update`]), and what gates say of it ([`measured`],
//! [`downstream`]), plain data; and, with libtorch, the texts
//! a subject is read in (`contexts.rs`), how they are laid out in rows (`rows.rs`), what is
//! computed once (`stage.rs`), the key's direction (`key_covariance.rs`), the value (`value.rs`),
//! the method (`rank_one.rs`), the baseline (`fine_tune.rs`), and what an edit did (`effect.rs`);
//! of many facts what they share (`prefix.rs`), the targets (`target.rs`), the keys (`mass_keys.rs`),
//! the directions that are left alone (`projector.rs`) and the solve (`solver.rs`).

pub mod downstream;
mod error;
mod hyperparameters;
pub mod measured;
mod method;
mod request;
mod update;
mod watch;

#[cfg(feature = "torch")]
mod adam;
#[cfg(feature = "torch")]
mod contexts;
#[cfg(feature = "torch")]
mod effect;
#[cfg(feature = "torch")]
mod fine_tune;
#[cfg(feature = "torch")]
mod key_covariance;
#[cfg(feature = "torch")]
mod mass_keys;
#[cfg(feature = "torch")]
mod prefix;
#[cfg(feature = "torch")]
mod preflight;
#[cfg(feature = "torch")]
mod projector;
#[cfg(feature = "torch")]
mod rank_one;
#[cfg(feature = "torch")]
mod rows;
#[cfg(feature = "torch")]
mod solver;
#[cfg(feature = "torch")]
mod stage;
#[cfg(feature = "torch")]
mod target;
#[cfg(feature = "torch")]
mod value;

pub use error::Error;
pub use hyperparameters::{Hyperparameters, NUMBERS, Number, Overrides, Range, TARGET_NUMBERS};
pub use method::Method;
pub use request::{Request, TARGET_TOKENS, check_context};
pub use update::Update;
pub use watch::{Step, Unwatched, Watch};

#[cfg(feature = "torch")]
pub use contexts::{ContextPlan, sample_contexts, sample_openings};
#[cfg(feature = "torch")]
pub use effect::{Effect, NextTokens, Probe, probe};
#[cfg(feature = "torch")]
pub use fine_tune::fine_tune;
#[cfg(feature = "torch")]
pub use key_covariance::KeyCovariance;
#[cfg(feature = "torch")]
pub use mass_keys::{MassKeys, mass_keys, residuals};
#[cfg(feature = "torch")]
pub use prefix::Contexts;
#[cfg(feature = "torch")]
pub use preflight::{Near, Preflight, preflight};
#[cfg(feature = "torch")]
pub use projector::{Keep, Projector};
#[cfg(feature = "torch")]
pub use rank_one::{RankOne, rank_one};
#[cfg(feature = "torch")]
pub use solver::{Damping, Metric, Solved, solve};
#[cfg(feature = "torch")]
pub use target::{Target, target};
#[cfg(feature = "torch")]
pub use value::Optimiser;
