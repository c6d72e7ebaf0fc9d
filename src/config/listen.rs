//! Where a coordinator listens, and what a socket of the file system may be called.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What an address begins with that is a path.
pub(super) const SCHEME: &str = "unix:";

/// The longest path of a socket, in bytes, that Linux takes.
const LONGEST: usize = 107;

/// Where a coordinator listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an address of the network.
    Address(SocketAddr),
    /// At a socket of the file system: on this machine, for its owner.
    Socket(PathBuf),
}

impl Listen {
    /// Whether nobody but this machine reaches it.
    pub fn is_inside(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().is_loopback(),
            Self::Socket(_) => true,
        }
    }

    /// A socket at a path. The error is the remedy.
    ///
    /// # Errors
    /// What should be written instead.
    pub fn socket(path: PathBuf) -> Result<Self, String> {
        check(&path)?;
        Ok(Self::Socket(path))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match path_of(text) {
            Some("") => Err("give the path of a socket, as unix:/run/palimpsest".to_owned()),
            Some(path) => Self::socket(path.into()),
            None => text.parse().map(Self::Address).map_err(|_| {
                "give an IP address and a port, as 127.0.0.1:7461 or [::1]:7461, or a socket, as \
                 unix:PATH"
                    .to_owned()
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "{SCHEME}{}", path.display()),
        }
    }
}

/// The path of `unix:PATH`, also as `unix:///PATH`.
pub(super) fn path_of(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(SCHEME)?;
    Some(rest.strip_prefix("//").unwrap_or(rest))
}

/// Whether a socket can have this path; the error is the remedy.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let bytes = path.as_os_str().len();
    if bytes > LONGEST {
        return Err(format!(
            "the path of a socket has at most {LONGEST} bytes and this one {bytes}: give a shorter \
             one, as in /tmp or $XDG_RUNTIME_DIR"
        ));
    }
    Ok(())
}
