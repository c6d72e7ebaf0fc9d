//! Language models: what their files say, and running them with a view of, and a hand in, what each
//! block computes.
//!
//! Without libtorch (always compiled): [`Checkpoint`], a model's files checked against each other,
//! with its
//! [`Config`], [`Tokenizer`] and [`Layout`]. With libtorch (feature `torch`): `Model`, which runs a checkpoint block
//! by block, `Hook`, which sees and replaces what a block computes, `generate`, and
//! `continue_greedily` for many texts at once.

pub mod checkpoint;
pub mod config;
mod error;
pub mod families;
pub mod tokenizer;

pub use checkpoint::{
    Checkpoint, DType, TensorData, TensorInfo, gguf_architectures, gguf_part, is_gguf,
};
pub use config::{Config, Family};
pub use error::Error;
pub use families::Layout;
pub use tokenizer::{Encoding, Tokenizer};

#[cfg(feature = "torch")]
mod attention;
#[cfg(feature = "torch")]
mod block;
#[cfg(feature = "torch")]
pub mod cuda;
#[cfg(feature = "torch")]
mod decoder;
#[cfg(feature = "torch")]
pub mod device;
#[cfg(feature = "torch")]
mod generate;
#[cfg(feature = "torch")]
mod greedy;
#[cfg(feature = "torch")]
mod hook;
#[cfg(feature = "torch")]
mod key_value;
#[cfg(feature = "torch")]
mod mixture;
#[cfg(feature = "torch")]
mod mlp;
#[cfg(feature = "torch")]
mod norm;
#[cfg(feature = "torch")]
mod placed;
#[cfg(feature = "torch")]
mod product;
#[cfg(feature = "torch")]
mod rotary;
#[cfg(feature = "torch")]
mod sample;
#[cfg(feature = "torch")]
mod score;
#[cfg(feature = "torch")]
mod together;
#[cfg(feature = "torch")]
mod weights;

#[cfg(feature = "torch")]
pub use decoder::Model;
#[cfg(feature = "torch")]
pub use generate::{Generated, Sampling, Stop, generate};
#[cfg(feature = "torch")]
pub use greedy::continue_greedily;
#[cfg(feature = "torch")]
pub use hook::{BlockOutput, Hook, Pass, Plain};
#[cfg(feature = "torch")]
pub use key_value::KeyValue;
#[cfg(feature = "torch")]
pub use product::{Products, with_libtorch_products};
#[cfg(feature = "torch")]
pub use sample::{Draw, sample};
#[cfg(feature = "torch")]
pub use score::{Continuation, Score, Text, next_tokens, score, score_seen, space_between};
#[cfg(feature = "torch")]
pub(crate) use together::{PASS_TOKENS, filled, parted};
