//! What goes wrong with keys, certificates and token files.

use std::path::{Path, PathBuf};

/// Why security cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// "read", "write" ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A line of a token file.
    #[error(
        "{path}, line {line}: {problem}; write HASH ROLE PRINCIPAL EXPIRY, as 'palimpsest auth token' does"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong. Never the line itself.
        problem: String,
    },
    /// The parts do not fit together.
    #[error("the certificate {path} cannot be served: {problem}")]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What is there is not overwritten.
    #[error("{path} is there already: name another folder, or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// For `map_err`: what was done, and to which file.
    pub(super) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
