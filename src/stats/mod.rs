//! Key statistics: what the inputs of an edited matrix look like over ordinary text.
//!
//! `C = E[k k^T]`, uncentred, over the inputs `k` of the matrix that an edit changes, at every
//! token of a corpus (Meng et al. 2022, section 3.1). It is kept as a sum and a count ([`Moment`]),
//! so it can be collected in shards and added up. An edit needs it to change one key's value and
//! disturb the others least.
//!
//! [`Moment`] is plain data; collecting it takes libtorch (`Collector`), and so does finding how it
//! spreads (`Spectrum`).

#[cfg(feature = "torch")]
mod collector;
mod error;
mod examine;
mod moment;
#[cfg(feature = "torch")]
mod spectrum;

#[cfg(feature = "torch")]
pub use collector::{Collector, pieces, self_sample};
pub use error::Error;
pub use examine::{BELOW_ZERO, Examined, examine};
pub use moment::Moment;
#[cfg(feature = "torch")]
pub use spectrum::Spectrum;

/// The most tokens that one piece may draw from a model: an hour's work of a processor, and a few
/// megabytes.
pub const MOST_DRAWN: u64 = 1 << 20;
