//! What can go wrong while tracing.

use thiserror::Error;

/// An error of the tracing subsystem.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A kind that does not exist.
    #[error("unknown kind `{text}`: use one of {known}")]
    Kind {
        /// The text as given.
        text: String,
        /// The kinds that there are.
        known: String,
    },
    /// A state that blocks of the model's family do not have.
    #[error("kinds = {kind}: blocks of {family} {reason}: use {instead}")]
    Site {
        /// The kind.
        kind: String,
        /// The model's family.
        family: String,
        /// Why they have none.
        reason: &'static str,
        /// What they have.
        instead: &'static str,
    },
    /// A grid of heads that is larger than a result may be.
    #[error(
        "kinds = {kind}: {tokens} tokens, {heads} heads a layer and {layers} layers in {metrics} metric(s) are {numbers} numbers, \
         and a result has {most} at most: use {instead}, fewer metrics or a shorter prompt"
    )]
    TooManyCells {
        /// The kind.
        kind: String,
        /// Tokens of the prompt.
        tokens: usize,
        /// Heads of a layer.
        heads: usize,
        /// Layers of the model.
        layers: usize,
        /// Metrics that are read.
        metrics: usize,
        /// Numbers of the grid.
        numbers: usize,
        /// The most that a result has.
        most: usize,
        /// The kind over all tokens.
        instead: String,
    },
    /// A severed path that does not exist.
    #[error("unknown severed path `{text}`: use mlp or attn")]
    Severed {
        /// The text as given.
        text: String,
    },
    /// Text that names no input of a head.
    #[error(
        "`{text}` is no receiver: write LAYER.HEAD.q, .k or .v, such as 9.6.q for the query of head 6 of layer 9"
    )]
    Receiver {
        /// The text as given.
        text: String,
    },
    /// An input of a head that the model does not have.
    #[error(
        "receivers = {receiver}: the model has {layers} layers, and {heads} of such heads in each: name one of these, counted from 0"
    )]
    NoReceiver {
        /// The receiver.
        receiver: String,
        /// Layers of the model.
        layers: usize,
        /// Attention heads of a layer, or its key-value heads.
        heads: usize,
    },
    /// An engine that does not exist.
    #[error("unknown engine `{text}`: use exact, plain or attribution")]
    Engine {
        /// The text as given.
        text: String,
    },
    /// A compatibility mode that does not exist.
    #[error("unknown compat mode `{text}`: use none or paper-code")]
    Compat {
        /// The text as given.
        text: String,
    },
    /// A metric that does not exist.
    #[error(
        "unknown metric `{text}`: use probability, log_probability, logit_difference, kl or rank"
    )]
    Metric {
        /// The text as given.
        text: String,
    },
    /// A direction that does not exist.
    #[error("unknown direction `{text}`: use denoising or noising")]
    Direction {
        /// The text as given.
        text: String,
    },
    /// A corrupted prompt whose tokens do not correspond to the prompt's.
    #[error(
        "corrupted `{corrupted}` has {found} tokens, prompt `{prompt}` has {expected}: give one of as many tokens"
    )]
    CorruptedTokens {
        /// The prompt.
        prompt: String,
        /// The corrupted prompt.
        corrupted: String,
        /// Its tokens.
        found: usize,
        /// Those of the prompt.
        expected: usize,
    },
    /// A corrupted prompt that differs in nothing.
    #[error("corrupted `{prompt}` is the prompt itself: give another subject or another prompt")]
    SamePrompt {
        /// The prompt.
        prompt: String,
    },
    /// A foil that is the answer.
    #[error(
        "foil `{foil}` of prompt `{prompt}` is the model's answer, token `{token}`: give another answer"
    )]
    FoilIsAnswer {
        /// The prompt.
        prompt: String,
        /// The foil as given.
        foil: String,
        /// The token that both begin with.
        token: String,
    },
    /// A metric that compares with a foil where there is none.
    #[error(
        "metric {metric} needs a foil, and prompt `{prompt}` has none: give the fact a foil, or corrupt by a counterfactual prompt, \
         whose answer is one"
    )]
    NoFoil {
        /// The metric.
        metric: String,
        /// The prompt.
        prompt: String,
    },
    /// A noise rule that cannot be read.
    #[error(
        "noise rule `{text}`: {problem}. Allowed: a standard deviation such as 0.1, s<factor> such as s3, \
         u<half width> such as u0.5, m, t<degrees of freedom> such as t5; each may be preceded by replace:"
    )]
    NoiseRule {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A noise rule needs a statistic of the embeddings that it was not given.
    #[error("noise rule `{rule}` needs {needs}")]
    NoiseUnresolved {
        /// The rule.
        rule: String,
        /// The statistic it lacks, and how to get it.
        needs: &'static str,
    },
    /// A statistic of embeddings that does not fit the model.
    #[error(
        "noise rule `{rule}` was made for embeddings of width {noise}, the model's are {model} wide"
    )]
    NoiseWidth {
        /// The rule.
        rule: String,
        /// Width of the statistic.
        noise: usize,
        /// Width of the model.
        model: usize,
    },
    /// A statistic of embeddings over too little text.
    #[error(
        "{what} needs at least {least} token embeddings, the given text has {found}: give more text"
    )]
    TooFewEmbeddings {
        /// The statistic.
        what: &'static str,
        /// How many it takes.
        least: usize,
        /// How many there are.
        found: usize,
    },
    /// A covariance that is not one.
    #[error(
        "the covariance of the embeddings has eigenvalue {eigenvalue}: the model's embeddings are not finite, or the text is too short"
    )]
    Covariance {
        /// The eigenvalue that is negative or not a number.
        eigenvalue: f64,
    },
    /// A subject with no characters.
    #[error("the subject of prompt `{prompt}` is empty: name the words of the prompt to corrupt")]
    EmptySubject {
        /// The prompt.
        prompt: String,
    },
    /// A subject that the prompt does not contain.
    #[error(
        "subject `{subject}` does not occur in prompt `{prompt}`: give it letter by letter as it stands there"
    )]
    SubjectNotInPrompt {
        /// The prompt.
        prompt: String,
        /// The subject.
        subject: String,
    },
    /// Token offsets that do not reach the subject.
    #[error(
        "no token of prompt `{prompt}` covers subject `{subject}`: the tokenizer drops its characters"
    )]
    SubjectWithoutToken {
        /// The prompt.
        prompt: String,
        /// The subject.
        subject: String,
    },
    /// A prompt longer than the model's context.
    #[error("prompt `{prompt}` has {tokens} tokens, the model's context holds {context}")]
    PromptTooLong {
        /// The prompt.
        prompt: String,
        /// Its length in tokens.
        tokens: usize,
        /// The model's context in tokens.
        context: usize,
    },
    /// A prompt that leaves too little of the model's context for its answer.
    #[error(
        "prompt `{prompt}` has {tokens} tokens and its answer {answer}, the model's context holds {context}: give a shorter \
         one, or read the answer by its first token"
    )]
    AnswerTooLong {
        /// The prompt.
        prompt: String,
        /// Its length in tokens.
        tokens: usize,
        /// The answer's.
        answer: usize,
        /// The model's context in tokens.
        context: usize,
    },
    /// A setting out of its range.
    #[error("{field} = {value}: {remedy}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        remedy: &'static str,
    },
    /// Results that cannot be averaged together.
    #[error(
        "fact `{prompt}` has {found} {what}, the facts before it {expected}: average the grids of one model"
    )]
    Layers {
        /// The fact.
        prompt: String,
        /// What is counted.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many the others have.
        expected: usize,
    },
    /// Results of different kinds that cannot be averaged together.
    #[error(
        "fact `{prompt}` is a {found} grid, the facts before it are {expected} grids: average one kind at a time"
    )]
    Kinds {
        /// The fact.
        prompt: String,
        /// Its kind and severed path.
        found: String,
        /// Those of the others.
        expected: String,
    },
    /// The device has no room for even a single row, or, in the plain engine, for one row a sample.
    #[error(
        "out of memory on {device} with {rows} row(s) of {tokens} tokens through {layers} layers of width {width} \
         ({dtype}), with the states of {samples} noise samples kept: use fewer samples, a shorter prompt or a larger device"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Rows of the smallest batch that was tried.
        rows: usize,
        /// Tokens of a row.
        tokens: usize,
        /// Layers of the model.
        layers: usize,
        /// Width of the model.
        width: usize,
        /// Type of its numbers.
        dtype: String,
        /// Noise samples whose states are kept.
        samples: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The model gives no usable probabilities.
    #[error(
        "prompt `{prompt}`: the model's probability of its answer is {value}: its numbers overflow, use bf16 or f32, or other \
         weights"
    )]
    NotFinite {
        /// The prompt.
        prompt: String,
        /// The value.
        value: f64,
    },
    /// A corrupted run by another prompt whose numbers are none.
    #[error(
        "prompt `{prompt}`: patched, its {metric} is {value}: the model's numbers overflow in {dtype}, use bf16 or f32, or other \
         weights"
    )]
    PatchedNotFinite {
        /// The prompt.
        prompt: String,
        /// The metric.
        metric: String,
        /// The number format.
        dtype: String,
        /// The value.
        value: f64,
    },
    /// A run with noise whose numbers are none.
    #[error(
        "prompt `{prompt}`: with the noise {noise} the probability of the answer is {value}: the noise is too large for \
         the model's numbers in {dtype}: give less noise, or use bf16 or f32"
    )]
    CorruptedNotFinite {
        /// The prompt.
        prompt: String,
        /// The noise rule.
        noise: String,
        /// The number format.
        dtype: String,
        /// The value.
        value: f64,
    },
    /// A statistic of the embeddings that is no number.
    #[error(
        "{what} is {value}: the model's embeddings are not finite in this number format, use f32"
    )]
    StatisticNotFinite {
        /// The statistic.
        what: &'static str,
        /// The value.
        value: f64,
    },
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
}
