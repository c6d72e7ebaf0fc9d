//! What can go wrong while results are shown.

use std::path::PathBuf;

use crate::cli::output;
use crate::{causal, npz, plot, wire};

/// Results that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A job of another kind.
    #[error("{job} is not a tracing job: it has no grids to show")]
    NotTracing {
        /// Its name.
        job: String,
    },
    /// A job of another kind.
    #[error("{job} is no evaluation: it has no measures to show")]
    NotEvaluating {
        /// Its name.
        job: String,
    },
    /// A job without a traced fact, or without one of a relation.
    #[error(
        "{job} has no traced fact{}: 'palimpsest job results' shows what became of its facts",
        relation.as_ref().map(|relation| format!(" of relation {relation:?}")).unwrap_or_default()
    )]
    NothingTraced {
        /// The job.
        job: String,
        /// The relation that was asked for.
        relation: Option<String>,
    },
    /// A result that no unit of the job can have.
    #[error("unit {unit} of {job} is {what}: the server broke the contract")]
    Unit {
        /// The job.
        job: String,
        /// The unit's number.
        unit: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A grid that does not fit together.
    #[error("unit {unit}: {source}")]
    Grid {
        /// The unit's number.
        unit: u64,
        /// What is wrong.
        source: wire::Error,
    },
    /// Grids that have no common average.
    #[error(transparent)]
    Averages(#[from] causal::Error),
    /// A figure that cannot be drawn.
    #[error("{figure}: {source}")]
    Plot {
        /// Which.
        figure: String,
        /// Why not.
        source: plot::Error,
    },
    /// Arrays that cannot be written.
    #[error("{}: {source}", file.display())]
    Npz {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: npz::Error,
    },
    /// A folder or file that cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The stream that results are printed to.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error.into())
    }
}
