//! The console: pages for a browser, and the calls of the contract as gRPC-Web, in front of any
//! service that takes them.
//!
//! There are three doors, and one [`Console`] behind them all:
//!
//! - `palimpsest console`: on the user's own machine, in front of a coordinator anywhere. Calls go on
//!   over the user's own [`Client`](crate::client::Client), with the user's certificate or token
//!   ([`Remote`]), so whoever uses this door acts as that user: it asks for a [`Key`] that it printed.
//! - `serve.web_listen`: beside the coordinator, for a team. Calls go through the gate that all
//!   others go through, and show a token or a certificate.
//! - `palimpsest local --console`: the first, on a coordinator inside the process.
//!
//! Every click is a call of the contract: it is authorised, counted, bounded and audited as a call of
//! any other client. There is no second way to the data, and no table of roles here.
//!
//! What a browser brings with it is met before any call: another site that had its name point at this
//! server ([`Hosts`]), another site that sends calls from its own pages (`origin`), bodies that are too
//! large or never end (`body`). Whoever has nothing to show takes no connection from those who have
//! ([`Listener`](crate::api::listener::Listener)). Every answer says what its page may do: load and call this origin, and
//! nothing else. There are no cookies, which know no ports, and nothing is shared with other origins.

mod body;
mod console;
mod door;
mod figures;
mod files;
mod hosts;
mod origin;
mod remote;

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::Service;

pub use self::console::Console;
pub use self::door::{Door, Key};
pub use self::files::is_built;
pub use self::hosts::Hosts;
pub use self::remote::Remote;
use crate::api::error::Error;
use crate::api::server::STREAMS;

/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to
/// answer. One of HTTP/1.1 has 30 seconds for the head of its next request: hyper's own bound.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Headers of a request in bytes.
const HEADERS: u32 = 16 << 10;

/// Serves pages, and behind them these calls, on incoming connections until `shutdown`.
///
/// # Errors
/// [`Error::Transport`].
pub async fn serve<S, I, C, E>(
    calls: S,
    door: Door,
    incoming: I,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .serve_with_incoming_shutdown(Console::new(calls, door), incoming, shutdown)
        .await
        .map_err(Error::Transport)
}
