//! What is wrong with the settings.

use std::path::PathBuf;

use super::setting::Origin;

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named by `--config` is not there.
    #[error("there is no configuration file {path}: correct --config, or leave it out")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The file or the environment cannot be read.
    #[error("cannot read settings from {origin}: {problem}")]
    Unreadable {
        /// The file, or "the environment".
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// No setting has this key.
    #[error("unknown setting {key:?} in {origin}: {remedy}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// What may have been meant.
        remedy: String,
    },
    /// The value cannot be.
    #[error("setting {key} = {value:?} in {origin}: {remedy}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where the value stands.
        origin: Origin,
        /// What it should be.
        remedy: String,
    },
}
