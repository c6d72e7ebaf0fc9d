//! Edits: rewriting one fact in one matrix.
//!
//! Meng, Bau, Andonian, Belinkov, *Locating and Editing Factual Associations in GPT* (NeurIPS 2022), section 3, and
//! Gupta, Baskaran, Anumanchipalli, *Rebuilding ROME* (2024), whose symmetric update is the default. The second matrix of
//! an MLP is read as a memory of keys and values; an edit finds the subject's key, a value that makes the model say the
//! new object, and the smallest change that stores it, measured by what ordinary keys look like ([`crate::stats`]).
//!
//! To read in this order: what is asked ([`Request`], [`Method`], [`Hyperparameters`]) and answered ([`Update`]), and what gates
//! say of it ([`measured`]), plain data; and,
//! with libtorch, the texts a subject is read in (`contexts.rs`), how they are laid out in rows (`rows.rs`), what is
//! computed once (`stage.rs`), the key's direction (`key_covariance.rs`), the value (`value.rs`), the method (`rank_one.rs`), the
//! baseline (`fine_tune.rs`), and what an edit did (`effect.rs`).

mod error;
mod hyperparameters;
pub mod measured;
mod method;
mod request;
mod update;

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
mod rank_one;
#[cfg(feature = "torch")]
mod rows;
#[cfg(feature = "torch")]
mod stage;
#[cfg(feature = "torch")]
mod value;

pub use error::Error;
pub use hyperparameters::{Hyperparameters, NUMBERS, Number, Overrides, Range};
pub use method::Method;
pub use request::{Request, check_context};
pub use update::Update;

#[cfg(feature = "torch")]
pub use contexts::{ContextPlan, sample_contexts};
#[cfg(feature = "torch")]
pub use effect::{Effect, NextTokens, Probe, probe};
#[cfg(feature = "torch")]
pub use fine_tune::fine_tune;
#[cfg(feature = "torch")]
pub use key_covariance::KeyCovariance;
#[cfg(feature = "torch")]
pub use rank_one::{RankOne, rank_one};
#[cfg(feature = "torch")]
pub use value::Optimiser;

/// A step of an optimisation, measured before its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub number: usize,
    /// What is minimised: the sum of the three next.
    pub loss: f64,
    /// Mean over the contexts of the new target's negative log-probability, nats a token.
    pub nll: f64,
    /// How far what the model says of the subject alone has moved, times its factor.
    pub drift: f64,
    /// The price of a large value.
    pub decay: f64,
    /// Mean over the contexts of `exp(-nll)`: the new target's probability a token.
    pub probability: f64,
}

/// Hears of an edit as it goes, and can stop it.
pub trait Watch {
    /// Asked often: true ends the work with [`Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }

    /// A step of the optimisation was measured.
    fn step(&self, step: &Step) {
        let _ = step;
    }
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}
