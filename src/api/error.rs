//! Why the server does not serve.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}; choose another with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The socket cannot be listened on.
    #[error("cannot listen on {}: {reason}; choose another with --listen unix:PATH", path.display())]
    Socket {
        /// Where it would be.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The transport failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of the contract are damaged, which no build of this program makes.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}
