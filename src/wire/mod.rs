//! Between the contract and the rest: messages and the types that the code computes with, the words
//! for the contract's enums, and the names of its resources.
//!
//! [`crate::causal`], [`crate::edit`] and [`crate::eval`] know nothing of the contract and the contract
//! nothing of them; this is the one place that knows both.

mod averages;
mod choices;
mod edit;
mod eval;
mod grid;
pub mod names;
mod outcome;
mod paths;
mod words;

pub use averages::{averages, averages_to_proto, peak};
pub use choices::{
    compat, compat_to_proto, direction, direction_to_proto, engine, engine_to_proto, kind,
    kind_to_proto, metric, metric_to_proto, shown,
};
pub use edit::{describe, gates, parameters, step_to_proto};
pub use eval::{
    answer, answer_to_proto, choice, choice_to_proto, figures as eval_figures, record, score,
    score_to_proto, set as eval_set, test_to_proto,
};
pub use grid::{Error, SweptGrid, without_scores};
pub use outcome::{not_finite, objects_of, out_of_range};
pub use paths::{paths, paths_to_proto};
pub use words::{KINDS, class_name, job_kind, kind_name, named_kind};
