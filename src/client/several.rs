//! One coordinator of several: the one that takes connections, for those that only follow the log do
//! not.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Uri;
use tower::Service;

/// How long one of several may take to answer: a machine that is gone says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects to whichever of several addresses takes the connection, beginning with the one that did
/// so last.
#[derive(Clone, Debug)]
pub struct Several {
    hosts: Arc<[String]>,
    last: Arc<AtomicUsize>,
}

impl Several {
    /// Of addresses as `http://HOST:PORT`.
    pub fn new(addresses: &[Uri]) -> Self {
        let host = |uri: &Uri| {
            let standard = match uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            let host = uri.host().unwrap_or_default();
            format!("{host}:{}", uri.port_u16().unwrap_or(standard))
        };
        Self {
            hosts: addresses.iter().map(host).collect(),
            last: Arc::default(),
        }
    }

    /// The longest that a connection takes.
    pub fn patience(&self) -> Duration {
        PATIENCE * self.hosts.len() as u32
    }

    async fn connect(self) -> io::Result<TokioIo<TcpStream>> {
        let first = self.last.load(Ordering::Relaxed);
        let mut why = String::new();
        let mut kind = io::ErrorKind::Other;
        for n in 0..self.hosts.len() {
            let n = (first + n) % self.hosts.len();
            let host = &self.hosts[n];
            let error = match tokio::time::timeout(PATIENCE, TcpStream::connect(host)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    self.last.store(n, Ordering::Relaxed);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    let silent = format!("no answer within {PATIENCE:?}");
                    io::Error::new(io::ErrorKind::TimedOut, silent)
                }
            };
            why = format!("{why}{host}: {error}; ");
            // One of them that may come back is enough to wait for.
            if is_away(&error) {
                kind = error.kind();
            }
        }
        Err(io::Error::new(kind, why.trim_end_matches("; ").to_owned()))
    }
}

/// Whether a connection failed as it does where nobody listens at the moment. A name that nobody
/// has, and a certificate that is not believed, do not get better by waiting.
pub fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_away) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, NotFound, TimedOut,
    };
    // A socket of the file system is not found until it is listened on.
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | NotFound
            | TimedOut
    )
}

impl Service<Uri> for Several {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.clone().connect().boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_one_that_takes_connections_is_found_and_found_again_when_it_changes() {
        let mut listeners = Vec::new();
        let mut addresses: Vec<Uri> = Vec::new();
        for _ in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            addresses.push(format!("http://{address}").parse().unwrap());
            listeners.push(Some(listener));
        }
        let several = Several::new(&addresses);
        for leader in [2, 0, 1] {
            for (n, listener) in listeners.iter_mut().enumerate() {
                if n != leader {
                    *listener = None;
                } else if listener.is_none() {
                    let address = addresses[n].authority().unwrap().as_str();
                    *listener = Some(TcpListener::bind(address).await.unwrap());
                }
            }
            let stream = several.clone().connect().await.unwrap();
            let to = stream.inner().peer_addr().unwrap();
            assert_eq!(
                to.to_string(),
                addresses[leader].authority().unwrap().as_str()
            );
        }
        drop(listeners);
        let nobody = several.connect().await.unwrap_err();
        assert!(may_pass(&nobody));
        let nobody = nobody.to_string();
        for address in &addresses {
            assert!(
                nobody.contains(address.authority().unwrap().as_str()),
                "{nobody}"
            );
        }
    }

    #[tokio::test]
    async fn what_a_start_does_not_mend_is_told_from_what_it_does() {
        let unknown: Vec<Uri> = ["http://nobody.invalid:1", "http://no-one.invalid:1"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        let error = Several::new(&unknown).connect().await.unwrap_err();
        assert!(!may_pass(&error), "{error}");
        let refused = crate::client::Client::connect("unix:/nowhere/at/all").await;
        let Err(crate::client::Error::Connect { may_pass, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(may_pass);
    }
}
