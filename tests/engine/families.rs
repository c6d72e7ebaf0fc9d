//! Tiny models of every kind of block, for properties that hold of all.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::ops::Range;
use std::path::PathBuf;

use palimpsest::causal::Kind;
use palimpsest::model::{Checkpoint, Model};
use tch::{Device, Kind as Dtype};

/// Serial and parallel blocks, gated and plain MLPs, learned and rotary positions, grouped keys,
/// head norms, post-norms with soft caps, sliding windows, norms behind alone, layers without
/// positions, factors on what is added, experts in all layers and in some, sinks. OPT and BLOOM are not among them: a ReLU, and a norm of so
/// few channels on the embeddings, bend more than the tests of derivatives and integrals allow.
pub const FAMILIES: [&str; 15] = [
    "gpt2",
    "gptj",
    "gpt-neox-parallel",
    "llama",
    "mistral",
    "qwen3",
    "gemma2",
    "phi3",
    "olmo3",
    "smollm3",
    "granite",
    "falcon-new",
    "mixtral",
    "qwen3-moe",
    "gpt-oss",
];

/// Those of them, by their places, that give numbers which are smooth in every state.
pub const SMOOTH: Range<usize> = 0..12;
/// Those that have experts: a token goes to others at once where their scores meet.
pub const MIXTURES: Range<usize> = 12..15;

/// Words that all of them know.
pub const WORDS: [&str; 12] = [
    "The", "Castle", "of", "Aster", "stands", "in", "the", "city", "a", "hill", "on", "land",
];

/// The kinds that a family has, of those that are traced exactly.
pub fn kinds(model: usize) -> Vec<Kind> {
    let mut kinds = Kind::ALL.to_vec();
    // Of neurons there are estimates alone.
    kinds.retain(|&kind| kind != Kind::Neuron);
    // Attention and MLP are added at once there.
    if ["gptj", "gpt-neox-parallel", "falcon-new"].contains(&FAMILIES[model]) {
        kinds.retain(|&kind| kind != Kind::ResidMid);
    }
    kinds
}

/// The models of [`SMOOTH`] in single precision. Each has neurons, too.
pub fn smooth_models() -> Vec<Model> {
    let mut models = models(Dtype::Float);
    models.truncate(SMOOTH.end);
    models
}

/// The first layer of a model that has an MLP, and not experts.
pub fn with_mlp(model: &Model) -> Option<usize> {
    let config = model.config();
    (0..config.layers).find(|&layer| config.has_key(layer).is_ok())
}

/// Those of them whose cells are of whole layers: all that attribution estimates.
pub fn layer_kinds(model: usize) -> Vec<Kind> {
    let kinds = kinds(model).into_iter();
    kinds.filter(|kind| !kind.is_of_heads()).collect()
}

/// Those families in a number format.
pub fn models(dtype: Dtype) -> Vec<Model> {
    // Such small tensors are not worth dividing.
    tch::set_num_threads(1);
    FAMILIES
        .iter()
        .map(|name| {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures")
                .join(name);
            Model::load(&Checkpoint::open(&folder).unwrap(), Device::Cpu, dtype).unwrap()
        })
        .collect()
}

/// Whether a row of a product is promised to be the same however many are computed with it: see
/// `src/model/product.rs`.
pub fn rows_are_alike() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
