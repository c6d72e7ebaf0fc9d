//! Watching an edit as it is computed.

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
    /// Asked often: true ends the work with [`super::Error::Cancelled`].
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
