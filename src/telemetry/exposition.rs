//! Where Prometheus fetches the metrics: a listener that answers `GET /metrics`, and nothing else.
#![allow(clippy::disallowed_methods)] // a connection has a task of its own, which ends with it

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics;

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes.
const HEAD: usize = 8 << 10;
/// How often observations are put where they are counted.
const TIDYING: Duration = Duration::from_secs(5);

/// Looks up what is not counted as it happens; called before each answer.
pub type Sample = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A port on which the metrics can be fetched.
pub struct Exposition {
    listener: TcpListener,
    sample: Sample,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Exposition {
    /// Answers on a port.
    pub fn new(listener: TcpListener, sample: Sample) -> Self {
        Self { listener, sample }
    }

    /// The address.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tidying = tokio::time::interval(TIDYING);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = tidying.tick() => {
                    metrics::tidy();
                    continue;
                }
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let sample = self.sample.clone();
            tokio::spawn(async move {
                // Whoever is slow or hangs up loses the answer, and nothing else.
                let _ = timeout(PATIENCE, answer(stream, sample)).await;
                drop(place);
            });
        }
    }
}

async fn answer(mut stream: TcpStream, sample: Sample) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 || head.len() + read > HEAD {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            sample().await;
            ("200 OK", metrics::render())
        }
        ("GET" | "HEAD", _) => ("404 Not Found", "The metrics are at /metrics.\n".to_owned()),
        _ => ("405 Method Not Allowed", "Ask with GET.\n".to_owned()),
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if method != "HEAD" {
        response.push_str(&body);
    }
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
