//! What is known of a setting, and where its value stands.

use std::fmt;
use std::path::PathBuf;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file.
    File(PathBuf),
    /// This variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the variable {name}"),
            Self::Flag => f.write_str("a flag"),
        }
    }
}

/// What is known of a setting before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.name`.
    pub key: &'static str,
    /// The default as one would write it; empty when unset.
    pub default: &'static str,
    /// What it is, and its unit.
    pub doc: &'static str,
}

/// A value without what lets somebody in: the password of an address, and a token or key that
/// stands where the name of its file should. Every other secret is in a file of its own.
pub(super) fn redacted(text: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.find('/').unwrap_or(rest.len());
        if let Some(at) = rest[..host].rfind('@') {
            return format!("{scheme}://{HIDDEN}{}", &rest[at..]);
        }
    }
    if text.contains("PRIVATE KEY") || crate::auth::has_token(text) {
        return HIDDEN.to_owned();
    }
    text.to_owned()
}
