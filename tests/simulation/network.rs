//! tonic over turmoil's connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use hyper_util::rt::TokioIo;
use palimpsest::client::{Client, endpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// Where the coordinator listens.
pub const PORT: u16 = 7461;

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// A connection as the server takes it.
pub struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Listens on the simulated host that runs this.
pub async fn listen() -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(async_stream::stream! {
        loop {
            yield listener.accept().await.map(|(stream, _)| Connection(stream));
        }
    })
}

/// A client of the coordinators, which connects to one of them when it is first used and whenever it
/// must.
pub fn client(coordinators: &'static [&'static str]) -> Client {
    // A simulated connection that lost a segment never delivers another: sooner than between real
    // machines, both ends must find out.
    let endpoint = endpoint("http://coordinator:7461")
        .expect("an address")
        .connect_timeout(PATIENCE * coordinators.len() as u32)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    let connect = move |_| connect(coordinators);
    Client::new(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}

/// Connects to the first that takes the connection.
async fn connect(coordinators: &[&str]) -> io::Result<TokioIo<TcpStream>> {
    let mut last = io::Error::other("there is none");
    for host in coordinators {
        match tokio::time::timeout(PATIENCE, TcpStream::connect((*host, PORT))).await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
