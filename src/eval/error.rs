//! What can go wrong with an evaluation.

/// A record that cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prompt of it, or an object after the prompt, does not fit the model.
    #[error("{what} {prompt:?}: {source}")]
    Prompt {
        /// Which prompt: "the prompt", "paraphrase 2".
        what: String,
        /// The prompt.
        prompt: String,
        /// What is wrong with it, and what would be right.
        source: Box<crate::model::Error>,
    },
    /// A text does not fit the model.
    #[error("the text: {source}")]
    Text {
        /// What is wrong with it, and what would be right.
        source: Box<crate::model::Error>,
    },
    /// A text of which nothing can be foretold.
    #[error("the text has {tokens} tokens, of which none follows another: give one of two or more")]
    Short {
        /// Its tokens.
        tokens: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The model failed.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
}
