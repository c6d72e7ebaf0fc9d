//! Causal tracing: which states of a model carry a fact.
//!
//! Meng, Bau, Andonian, Belinkov, *Locating and Editing Factual Associations in GPT* (NeurIPS
//! 2022), sections 2 and B. A prompt is run clean, then with noise on the embeddings of its
//! subject, then corrupted again with one state put back to its clean value: how much of the
//! answer's probability comes back says what that state carries.
//!
//! Activation patching is the same with another prompt in the place of noise, with more metrics
//! than the probability, and in both directions: one engine does it all. Attribution patching
//! estimates the same numbers to first order, and has some of them checked.
//!
//! To read in this order: what is asked ([`Fact`], [`Settings`]) and answered ([`Grid`],
//! [`Averages`], [`Verification`]); the parts that decide the numbers ([`corruption`], [`noise`],
//! [`rng`], [`span`], [`kind`], [`metric`], [`paths`]). So far all is plain data, also without
//! libtorch. With it: the way in (`trace`, then `job.rs`), the oracle (`plain.rs`), the engine that is used
//! (`exact.rs`, along paths `path_runs.rs`) and the estimates (`attribution.rs`).

pub mod averages;
pub mod corruption;
pub mod cost;
pub mod error;
pub mod grid;
pub mod kind;
pub mod metric;
pub mod noise;
pub mod paths;
pub mod rng;
pub mod settings;
pub mod span;
mod stairs;
pub mod verification;

#[cfg(feature = "torch")]
mod attribution;
#[cfg(feature = "torch")]
mod embeddings;
#[cfg(feature = "torch")]
mod exact;
#[cfg(feature = "torch")]
mod head_effects;
#[cfg(feature = "torch")]
mod job;
#[cfg(feature = "torch")]
mod memory;
#[cfg(feature = "torch")]
mod pair;
#[cfg(feature = "torch")]
mod path_runs;
#[cfg(feature = "torch")]
mod plain;
#[cfg(feature = "torch")]
mod prompt;
#[cfg(feature = "torch")]
mod readout;
#[cfg(feature = "torch")]
mod rows;
#[cfg(feature = "torch")]
mod runs;
#[cfg(feature = "torch")]
mod task;
#[cfg(feature = "torch")]
mod trace;

/// Raised whenever a change may move the last bit of a result: what was computed under another
/// revision does not answer for a unit that is asked again.
pub const ENGINE_REVISION: u32 = 7;

pub use crate::datasets::facts::Fact;
pub use averages::{Averages, Mean, Role, Site};
pub use corruption::{Corruption, Direction};
pub use cost::Shape;
pub use error::Error;
pub use grid::{Cell, Counterpart, Grid, Reading, Token, Verified};
pub use kind::{Kind, Part, Severed};
pub use metric::Metric;
pub use noise::{EmbeddingGaussian, Noise, Rule};
pub use paths::{Input, Paths, Receiver};
pub use settings::{Compat, Engine, Gradient, Settings};
pub use span::subject_span;
pub use verification::{Miss, Missed, Verification, rank_correlation};

#[cfg(feature = "torch")]
pub use embeddings::{embedding_gaussian, noise_level, resolve_noise};
#[cfg(feature = "torch")]
pub(crate) use memory::is_out_of_memory;
#[cfg(feature = "torch")]
pub use task::{Unwatched, Watch};
#[cfg(feature = "torch")]
pub use trace::trace;
