//! What can go wrong between a path and a forward pass.

use std::path::PathBuf;

/// Errors of loading and running a model. Every message names the thing at fault and what would be
/// accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file breaks its own format: truncated, inconsistent, not JSON ...
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A configuration names a model family that is not implemented.
    #[error("config: `model_type` is `{found}`; supported families: {supported}")]
    UnknownFamily {
        /// The value found.
        found: String,
        /// The families there are.
        supported: String,
    },
    /// A configuration field has a value that is not implemented or makes no sense.
    #[error("config: `{field}` is {found}; supported: {supported}")]
    UnsupportedValue {
        /// The field, with dots for nesting.
        field: String,
        /// The value found, as JSON.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// A configuration lacks a field without which the model is not defined.
    #[error("config: `{field}` is missing; a {family} model needs it")]
    MissingField {
        /// The field.
        field: String,
        /// The model family.
        family: &'static str,
    },
    /// A configuration has a field nobody here knows: it might change the computation, so it is not
    /// passed over.
    #[error(
        "config: `{field}` = {found} is not a known field of a {family} model; \
         remove it if it does not change inference"
    )]
    UnknownField {
        /// The field.
        field: String,
        /// Its value, as JSON.
        found: String,
        /// The model family.
        family: &'static str,
    },
    /// The checkpoint lacks a tensor that its configuration calls for.
    #[error("{}: tensor `{name}` is missing; the configuration calls for it with shape {shape:?}", path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's canonical name.
        name: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor was asked for that the checkpoint does not have.
    #[error("tensor `{name}` is not part of the checkpoint")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
    },
    /// The checkpoint has a tensor its configuration has no place for: the two do not belong
    /// together.
    #[error("{}: tensor `{name}` has no place in a {family} model of this configuration", path.display())]
    UnexpectedTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The model family.
        family: &'static str,
    },
    /// A tensor's shape is not what the configuration says.
    #[error("{}: tensor `{name}` has shape {found:?}; the configuration calls for {expected:?}", path.display())]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's canonical name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape computed from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a format that cannot be read.
    #[error("{}: tensor `{name}` is stored as {found}; supported: {supported}", path.display())]
    TensorType {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The storage type found.
        found: String,
        /// The storage types that can be read.
        supported: &'static str,
    },
    /// A weight is infinite or not a number.
    #[error("tensor `{name}`: element {index} is {value}; a checkpoint must be finite")]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// The element.
        value: f32,
    },
    /// Something that reads or writes the one second matrix of an MLP, at a layer that has several.
    #[error(
        "layer {layer} of this {family} model is a mixture of {experts} experts, each with a second matrix of its own, \
         and a token goes to {chosen} of them: there is no one key to edit, to patch or to take statistics of{}",
        others(dense)
    )]
    Mixture {
        /// The model family.
        family: &'static str,
        /// The layer.
        layer: usize,
        /// Experts of the layer.
        experts: usize,
        /// How many of them a token goes to.
        chosen: usize,
        /// The model's layers that have an MLP.
        dense: Vec<usize>,
    },
    /// A tokenizer could not be read or rebuilt.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab} tokens")]
    TokenId {
        /// The id.
        id: i64,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// Logits that are no numbers.
    #[error(
        "the model's logits are not finite after {tokens} tokens: its numbers overflow in {dtype}: use bf16 or f32, or \
         other weights"
    )]
    Overflow {
        /// Tokens that were read.
        tokens: usize,
        /// The number format.
        dtype: String,
    },
    /// More tokens than the model has positions for.
    #[error("{tokens} tokens do not fit the model's context of {context}; shorten the prompt")]
    Context {
        /// Tokens asked for.
        tokens: usize,
        /// The most the model takes.
        context: usize,
    },
    /// An argument that cannot be used.
    #[error("`{argument}` is {found}; {remedy}")]
    Argument {
        /// The argument's name.
        argument: &'static str,
        /// The value given.
        found: String,
        /// What to give instead.
        remedy: String,
    },
    /// libtorch refused an operation (usually: out of memory).
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// The layers that have what a mixture has not.
fn others(dense: &[usize]) -> String {
    let names: Vec<String> = dense.iter().map(usize::to_string).collect();
    match names.is_empty() {
        true => "; all its layers are such".to_owned(),
        false => format!("; use one of its layers with an MLP: {}", names.join(", ")),
    }
}
