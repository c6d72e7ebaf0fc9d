//! Evaluation: what a version of a model answers to a data set that edits are judged by.
//!
//! Meng et al. 2022 (CounterFact) and Mitchell et al. 2022 (zsRE). `NLL(o | prompt)` is the mean
//! over the tokens of `o`, with the space before it where one belongs there
//! ([`crate::model::Tokenizer::continuation`]), of `-ln p`. A record's values:
//!
//! | CounterFact | definition |
//! |---|---|
//! | ES, PS | mean over the rewriting (E) or paraphrasing (P) prompts of `[NLL(true) > NLL(new)]` |
//! | EM, PM | mean of `exp(-NLL(new)) - exp(-NLL(true))` |
//! | NS, NM | over the neighbouring prompts: `[NLL(true) < NLL(new)]`; `exp(-NLL(true)) - exp(-NLL(new))` |
//! | S | of a data set: harmonic mean of the means of ES, PS and NS |
//! | GE | a text of at most 100 tokens, drawn from the 5 likeliest tokens at each step, after every generation prompt: mean over the texts of the mean of 2/3 H2 and 4/3 H3, `Hn` the entropy in bits of its word n-grams; times 100 |
//!
//! | zsRE | definition |
//! |---|---|
//! | EA, PA | share of the new object's tokens that are the likeliest after the question (E) or the rephrased one (P) and the tokens before them |
//! | NA | the same of the true answer after the unrelated question |
//!
//! Beside these, what a model says when nothing of the answer is shown to it: each prompt is continued
//! by [`FREE_TOKENS`] likeliest tokens.
//!
//! | both | definition |
//! |---|---|
//! | E, P, N EXACT | share of the rewriting, paraphrasing and neighbouring prompts whose continuation is the answer and nothing else, up to a stop ([`is_answer`]); the new object's, of neighbours the true one's |
//! | E, P, N CONTAINS | share of those that have it somewhere, as whole words ([`contains`]) |
//!
//! MQuAKE and RippleEdits ask what follows from an edit: [`Test`]s of prompts that are continued so
//! ([`passes`]), counted by criterion ([`shares`]). Tasks that have nothing to do with edits are
//! [`Choice`]s: the answer is the likeliest a token ([`taken`]), and a task's figures are the share of
//! right ones and [`f1`].
//!
//! A neighbouring prompt's figures do not need another version; that the neighbours are as they
//! were is seen against the unedited version, which every evaluation measures beside its own unless
//! another is named.
//!
//! A fact is *known* to a model that finds its true object likelier than the new one or, by the
//! stricter rule, that continues the prompt with the true object when it always takes the likeliest
//! token.
//!
//! Texts that say nothing of the facts show what else an edit did: their perplexity, and its ratio
//! to that of the unedited version ([`perplexity_ratio`]).
//!
//! Not here: RS, the likeness to reference texts, and essence, the perplexity of a subject's
//! reference text. Both need texts (and RS the weights of words over them) that no record holds.
//!
//! To read in this order: the records ([`crate::datasets::evaluation`]), what is asked of a model
//! ([`Question`]) and how (`asking.rs`, with libtorch), what follows from the answers ([`Metric`]),
//! and their means ([`Mean`], [`harmonic`]).

mod entropy;
mod error;
mod free;
mod mean;
mod metric;
mod passing;
mod perplexity;
mod record;

#[cfg(feature = "torch")]
mod asking;

pub use entropy::entropy;
pub use error::Error;
pub use free::{FREE_TOKENS, Said, contains, is_answer, normalised, said};
pub use mean::{Mean, harmonic};
pub use metric::{Metric, figures};
pub use passing::{THOUGHT_TOKENS, f1, passes, query_tokens, right, shares, taken};
pub use perplexity::{median_perplexity, perplexity, perplexity_ratio};
pub use record::{Choice, EDITED, Query, Record, Set, Test};

#[cfg(feature = "torch")]
pub use asking::{answer_freely, ask, check_choice, choose, continue_freely, read, read_beginning};

/// Most tokens of a text that is drawn, with its prompt.
pub const TEXT_TOKENS: usize = 100;

/// What a prompt is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// That the fact is rewritten.
    Rewrite,
    /// That other words give it too.
    Paraphrase,
    /// That other facts stay.
    Neighbour,
}

/// A prompt, and the objects whose probability after it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What it is to show.
    pub kind: ProbeKind,
    /// The text up to its answer.
    pub prompt: String,
    /// The new object, if it is asked.
    pub new: Option<String>,
    /// The true object, if it is asked.
    pub old: Option<String>,
}

/// What a model thinks of an object after a prompt, or of a text after its first token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Mean of `-ln p` over its tokens, in nats.
    pub nll: f64,
    /// Its tokens.
    pub tokens: usize,
    /// Those of them that are the likeliest there.
    pub likeliest: usize,
}

/// What a question gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// What the prompt is to show.
    pub kind: ProbeKind,
    /// The new object.
    pub new: Option<Scored>,
    /// The true object.
    pub old: Option<Scored>,
}
