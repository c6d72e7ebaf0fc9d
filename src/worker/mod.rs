//! A worker: takes leases from a coordinator, computes them, hands the results in.
//!
//! The engine has a thread of its own and never waits for the network; the stream to the
//! coordinator may break at any moment and be opened again without a unit being lost or lost time
//! on: results stay here until they are acknowledged.

mod computing;
mod engine;
mod fake;
mod files;
#[cfg(feature = "torch")]
mod gpus;
mod leased;
#[cfg(feature = "torch")]
mod openmp;
mod prepare;
mod session;
#[cfg(feature = "torch")]
mod torch;
mod work;

pub use engine::{Engine, Sink};
pub use fake::Fake;
#[cfg(feature = "torch")]
pub use gpus::Gpus;
pub use leased::{LeasedFactor, LeasedVersion};
#[cfg(feature = "torch")]
pub use openmp::wait_asleep;
pub use prepare::Prepared;
pub use session::{Company, Options, run};
#[cfg(feature = "torch")]
pub use torch::{Loaded, SelfTest, Torch, Trial, TrialOutcome, self_test, try_devices};
pub use work::Error;
