//! Flags of `palimpsest eval`.

use std::path::PathBuf;

use crate::cli::commands::edit::parse_number;
use crate::cli::layer::{self, Layer};
use crate::cli::results::{Format, Known};
use crate::cli::submit::JobArgs;
use crate::proto::v1;

/// Flags of `eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The records: of CounterFact (full or flat), zsRE, QAEdit, MQuAKE or RippleEdits, as a JSON list
    /// or one a line
    #[arg(long, value_name = "FILE", required_unless_present_any = ["texts", "downstream"])]
    pub(super) dataset: Option<PathBuf>,
    /// Tasks that edits have nothing to do with, in place of records: SST-2, CoLA, RTE, MMLU, or
    /// records of prompt, choices and answer; several files may be given
    #[arg(long, value_name = "FILE", num_args = 1..,
          conflicts_with_all = ["dataset", "texts", "edit_each", "known_only", "save"])]
    pub(super) downstream: Vec<PathBuf>,
    /// Show so many solved questions of the file before each of its others
    #[arg(long, value_name = "N", default_value_t = 0, requires = "downstream")]
    pub(super) shots: usize,
    #[command(flatten)]
    pub(super) examples: ExampleFiles,
    /// Texts whose perplexity is measured in place of records: one a line, or a JSON list
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dataset", "edit_each", "known_only", "save"])]
    pub(super) texts: Option<PathBuf>,
    /// The version to compare with; the unedited model if none is given
    #[arg(long, value_name = "VERSION", conflicts_with = "edit_each")]
    pub(super) against: Option<String>,
    /// Measure the versions on the way to --ref, the first after every N facts that were written:
    /// of the records those that were written so far, of texts all
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100",
          conflicts_with_all = ["edit_each", "known_only", "save"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) along: Option<u64>,
    /// Leave out the first N records
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) skip: usize,
    /// Take at most N records, of each file of --downstream; with --known-only, N that are known; with
    /// --along, N of those that were written so far, spread over all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Take only records whose fact the version of --against (of --ref with --edit-each) knows.
    /// likelier: it finds the true object likelier than the new one; greedy: it continues the
    /// prompt with the true object when it always takes the likeliest token
    #[arg(long, value_name = "RULE", num_args = 0..=1, default_missing_value = "likelier")]
    pub(super) known_only: Option<Known>,
    /// Write the records that are taken to a file, for 'palimpsest edit --file' and other
    /// evaluations
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// Leave out what is generated: free continuations of prompts, and generation prompts with GE
    #[arg(long)]
    pub(super) no_generation: bool,
    /// Seed of the texts that are drawn: after generation prompts, and before the sentences of
    /// edits
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    #[command(flatten)]
    pub(super) each: Each,
    #[command(flatten)]
    pub(super) job: JobArgs,
    #[command(flatten)]
    pub(super) format: Format,
}

/// Examples that stand before the questions of MQuAKE.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Examples before questions of MQuAKE")]
pub(super) struct ExampleFiles {
    /// A text of solved questions, 'Q: ... A: ...' a line, before questions of several hops
    #[arg(long, value_name = "FILE", requires = "dataset")]
    pub(super) hop_examples: Option<PathBuf>,
    /// A JSON object of such texts by relation, before questions of one hop; without it, a hop's
    /// sentence is continued
    #[arg(long, value_name = "FILE", requires = "dataset")]
    pub(super) relation_examples: Option<PathBuf>,
    /// A text of solved questions with their thoughts, 'Question: ...', 'Thoughts: ...', 'Answer: ...':
    /// questions of several hops are asked so, too
    #[arg(long, value_name = "FILE", requires = "dataset")]
    pub(super) thought_examples: Option<PathBuf>,
}

/// How each record is edited before it is measured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Edits")]
pub(super) struct Each {
    /// Edit each record on its own, measure it before and after, and discard the edit
    #[arg(long)]
    pub(super) edit_each: bool,
    /// r-rome, rome or ft-l
    #[arg(long, default_value = "r-rome", requires = "edit_each")]
    pub(super) method: String,
    /// The layer, from 0; family: the one at which models of the family are edited, by what was
    /// published; or auto: where the newest sweep of at least ten known facts says that they are
    #[arg(long, default_value = "family", value_parser = layer::parse, requires = "edit_each")]
    pub(super) layer: Layer,
    /// Another number than the family's: steps, learning_rate, clamp, weight_decay, kl_factor,
    /// stop_loss, ridge, bound
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = parse_number, requires = "edit_each")]
    pub(super) numbers: Vec<v1::NamedNumber>,
    /// Texts to average the key over, one a line, each with {} for the sentence; drawn from the
    /// model otherwise
    #[arg(long, value_name = "FILE", requires = "edit_each")]
    pub(super) contexts: Option<PathBuf>,
    /// Collect key statistics from text drawn from the model, if there are none
    #[arg(long, requires = "edit_each")]
    pub(super) auto_stats: bool,
}
