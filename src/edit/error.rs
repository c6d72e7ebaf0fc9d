//! What can go wrong with an edit.

/// An error of the editing subsystem.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A method that does not exist.
    #[error(
        "unknown method `{text}`: use r-rome, rome or ft-l for one fact, memit, alphaedit, emmet or encore for many"
    )]
    Method {
        /// The text as given.
        text: String,
    },
    /// A template without exactly one place for what goes into it.
    #[error("{what} {template:?} has {found} `{{}}`: put exactly one where {place} goes")]
    Placeholder {
        /// What kind of template.
        what: &'static str,
        /// The template.
        template: String,
        /// How many places it has.
        found: usize,
        /// What goes there.
        place: &'static str,
    },
    /// A field without which there is no edit.
    #[error("the {field} is empty: {remedy}")]
    Empty {
        /// The field.
        field: &'static str,
        /// What to give.
        remedy: &'static str,
    },
    /// A setting out of its range.
    #[error("`{field}` is {value}: {remedy}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        remedy: String,
    },
    /// A number that cannot be set.
    #[error("'{name}' {what}")]
    Number {
        /// Its name as given.
        name: String,
        /// What is wrong, and what may be given.
        what: String,
    },
    /// Token offsets that do not reach the subject.
    #[error(
        "no token of {text:?} covers the subject {subject:?}: the tokenizer drops its characters"
    )]
    SubjectWithoutToken {
        /// The text.
        text: String,
        /// The subject.
        subject: String,
    },
    /// Statistics of another matrix.
    #[error(
        "the key statistics have {found} channels, the edited matrix reads {expected}: they are of another model"
    )]
    StatisticsSize {
        /// Channels of the statistics.
        found: usize,
        /// Channels of the matrix.
        expected: usize,
    },
    /// Statistics that cannot be inverted.
    #[error(
        "the key statistics of {tokens} tokens cannot be inverted for keys of {channels} channels: collect more text (at \
         least {} tokens), or add a ridge of {ridge:e} or more to their diagonal, at the cost of a less precise edit", 10 * channels
    )]
    Singular {
        /// Tokens they are of.
        tokens: u64,
        /// Channels of a key.
        channels: usize,
        /// A ridge that would make them positive definite.
        ridge: f64,
    },
    /// Statistics that no keys can have.
    #[error(
        "the key statistics are no second moment: they have a direction below 0, which no sum of k k^T has; withdraw \
         them with 'palimpsest stats delete', and collect or import others"
    )]
    Indefinite,
    /// Statistics that no ridge helps.
    #[error(
        "the key statistics are no second moment: their diagonal is not positive; collect them again"
    )]
    Degenerate,
    /// The optimisation left the finite numbers.
    #[error("the loss is {loss} at step {step}: lower the learning rate, or use f32")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A figure of the edited model that is no number.
    #[error(
        "{name} is {value}: the edited model leaves the finite numbers; lower the clamp or the learning rate, use more \
         key statistics or another layer, or use f32"
    )]
    NotFinite {
        /// The figure.
        name: String,
        /// What it is.
        value: f64,
    },
    /// A batch whose keys do not tell its facts apart.
    #[error(
        "the keys of {facts} facts are not independent to rounding, and the method has nothing that damps them: use \
         memit, a `mu` above 0, or other layers"
    )]
    DependentKeys {
        /// Facts of the batch.
        facts: usize,
    },
    /// A projector that leaves nothing, or takes out nothing.
    #[error("the projector keeps {kept} of {channels} directions: {remedy}")]
    Projector {
        /// Directions that are kept.
        kept: usize,
        /// Directions in all.
        channels: usize,
        /// What helps.
        remedy: String,
    },
    /// The key has no part along its own direction.
    #[error("the subject's key has no component along the edit's direction: use another layer")]
    NoDirection,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
