//! Causal tracing: which states of a model carry a fact.
//!
//! Meng, Bau, Andonian, Belinkov, *Locating and Editing Factual Associations in GPT* (NeurIPS 2022),
//! sections 2 and B. A prompt is run clean, then with noise on the embeddings of its subject, then
//! corrupted again with one state put back to its clean value: how much of the answer's probability
//! comes back says what that state carries.
//!
//! To read in this order: what is asked ([`Fact`], [`Settings`]) and answered ([`Grid`],
//! [`Averages`]); the parts that decide the numbers ([`noise`], [`rng`], [`span`], [`kind`]).
//! All of that is plain data, also without libtorch.

pub mod averages;
pub mod error;
pub mod fact;
pub mod grid;
pub mod kind;
pub mod noise;
pub mod rng;
pub mod settings;
pub mod span;

pub use averages::{Averages, Mean, Role, Site};
pub use error::Error;
pub use fact::Fact;
pub use grid::{Grid, Token};
pub use kind::{Kind, Severed};
pub use noise::{EmbeddingGaussian, Noise, Rule};
pub use settings::{Compat, Engine, Settings};
pub use span::subject_span;
