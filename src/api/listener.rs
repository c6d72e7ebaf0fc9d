//! The coordinator's port, or its socket: connections with or without TLS, not more than it can
//! bear, and none that keeps it waiting.
#![allow(clippy::disallowed_methods)] // a connection has a task of its own, which ends with it

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Sleep;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::error::Error;
use super::socket::Socket;
use super::standing::Place as Held;
use crate::auth::ServerTls;
use crate::telemetry::metrics::{CONNECTIONS, CONNECTIONS_REFUSED};

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;
/// How long a connection may take to say that it speaks HTTP/2, TLS included.
const OPENING: Duration = Duration::from_secs(10);
/// Length of HTTP/2's connection preface.
const PREFACE: usize = 24;
/// How long a connection may take to show who it is for, where callers have to show that. Longer
/// than a client's first call takes; a place in the table is not held without.
const ADMISSION: Duration = Duration::from_secs(60);
/// How long a connection is waited for that has to go for another one.
const GOING: Duration = Duration::from_secs(5);
/// How long to wait after the system had no descriptor for a connection, and between two looks at
/// whether one is open.
const PAUSE: Duration = Duration::from_millis(100);

/// For whom a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// For all.
    Any,
    /// For workers.
    Workers,
    /// For people: all but workers.
    People,
}

#[derive(Debug)]
enum Port {
    Tcp(TcpListener),
    Socket(Socket),
}

/// An address and port that this process has and does not listen on yet: connections are refused.
/// On Linux another process that asks for it likewise, and does not listen either, may have it too:
/// the first that listens has it alone.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Reserved {
    /// Takes an address; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error::Bind`], where another process listens there.
    pub fn new(address: SocketAddr) -> Result<Self, Error> {
        let bind = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // What a process that had it left behind, connections that end, is in nobody's way.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bind().map_err(failed(address))?;
        Ok(Self { address, socket })
    }

    /// Listens there, as [`Listener::bind`].
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn listen(self, tls: Option<Arc<ServerTls>>, limit: usize) -> Result<Listener, Error> {
        Ok(Listener::new(Port::Tcp(self.bare()?), tls, limit))
    }

    /// Listens there for what is no client of the services.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bare(self) -> Result<TcpListener, Error> {
        self.socket.listen(BACKLOG).map_err(failed(self.address))
    }
}

fn failed(address: SocketAddr) -> impl Fn(io::Error) -> Error {
    move |error| Error::Bind {
        address,
        reason: error.to_string(),
    }
}

/// A port or a socket that is listened on.
#[derive(Debug)]
pub struct Listener {
    port: Port,
    audience: Audience,
    tls: Option<Arc<ServerTls>>,
    limit: usize,
    places: Arc<Semaphore>,
    /// How long a connection may stay on which nobody has shown who they are; for ever if not set.
    admission: Option<Duration>,
    strangers: Arc<Strangers>,
}

impl Listener {
    /// Listens on an address; port 0 takes a free one. At most `limit` connections are open at a
    /// time: others are closed at once, so that a client learns it and tries again later. Of a port
    /// that is [guarded](Self::guarded) one on which nobody has shown who they are goes instead.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerTls>>,
        limit: usize,
    ) -> Result<Self, Error> {
        Reserved::new(address)?.listen(tls, limit)
    }

    /// Listens on a socket of the file system, for the user of this process alone; otherwise as
    /// [`Listener::bind`].
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn bind_socket(path: &Path, limit: usize) -> Result<Self, Error> {
        Ok(Self::new(Port::Socket(Socket::bind(path)?), None, limit))
    }

    fn new(port: Port, tls: Option<Arc<ServerTls>>, limit: usize) -> Self {
        Self {
            port,
            audience: Audience::Any,
            tls,
            limit,
            places: Arc::new(Semaphore::new(limit)),
            admission: None,
            strangers: Arc::default(),
        }
    }

    /// The same port, for callers who show who they are: connections on which none has done so for
    /// a while are closed, and they are the first to go where there is no place for another. So
    /// those who cannot show anything keep nobody out who can, however many connections they open.
    pub fn guarded(self) -> Self {
        self.guarded_within(ADMISSION)
    }

    /// The same, where they have this long.
    pub fn guarded_within(self, admission: Duration) -> Self {
        let admission = Some(admission);
        Self { admission, ..self }
    }

    /// The same port for some only.
    pub fn audience(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// The address, as clients name it: `127.0.0.1:7461`, `unix:/run/palimpsest`.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<String> {
        Ok(match &self.port {
            Port::Tcp(listener) => listener.local_addr()?.to_string(),
            Port::Socket(socket) => format!("unix:{}", socket.path().display()),
        })
    }

    /// The connections that are open, to be waited for.
    pub fn connections(&self) -> Connections {
        Connections {
            places: Arc::clone(&self.places),
            limit: self.limit,
        }
    }

    /// The connections as they come, until the stream is dropped.
    pub fn incoming(self) -> ReceiverStream<io::Result<Connection>> {
        let (opened, incoming) = mpsc::channel(64);
        tokio::spawn(self.accept(opened));
        ReceiverStream::new(incoming)
    }

    async fn accept(self, opened: mpsc::Sender<io::Result<Connection>>) {
        let mut refused = 0_u64;
        loop {
            let accepted = tokio::select! {
                () = opened.closed() => return,
                accepted = self.port.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let place = Arc::clone(&self.places).try_acquire_owned().ok();
            if place.is_none() {
                refused += 1;
                CONNECTIONS_REFUSED.add([], 1);
                // One line for many: a flood does not fill the disk as well.
                if refused.is_power_of_two() {
                    tracing::warn!(limit = self.limit, refused, "too many connections");
                }
                // A stranger goes, and its place is this one's; or this one does.
                if !self.strangers.oust() {
                    continue;
                }
            }
            let (tls, opened) = (self.tls.clone(), opened.clone());
            let (audience, admission) = (self.audience, self.admission);
            let places = Arc::clone(&self.places);
            let strangers = admission.map(|_| Arc::clone(&self.strangers));
            tokio::spawn(async move {
                let place = match place {
                    Some(place) => place,
                    None => match tokio::time::timeout(GOING, places.acquire_owned()).await {
                        Ok(Ok(place)) => place,
                        _ => return,
                    },
                };
                let link = Arc::<Link>::default();
                let opening = Opening {
                    audience,
                    tls,
                    admission,
                    stranger: strangers.map(|them| Stranger::among(them, &link)),
                    link,
                    place: Place::new(place),
                };
                match opening.open(stream, address).await {
                    // Nobody takes it when the server has stopped.
                    Ok(connection) => drop(opened.send(Ok(connection)).await),
                    Err(error) => tracing::debug!(?address, %error, "no connection came about"),
                }
            });
        }
    }
}

impl Port {
    /// The next connection, and where it comes from.
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Some(address)))
            }
            Self::Socket(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok((Stream::Socket(stream), None))
            }
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Socket(UnixStream),
}

/// Connections of a listener.
#[derive(Clone, Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    limit: usize,
}

impl Connections {
    /// Waits for a moment in which none is open; none is taken any more from then on.
    pub async fn none(&self) {
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        // Not by waiting for all places: who waits takes those that are free from others.
        loop {
            if let Ok(all) = self.places.try_acquire_many(all) {
                all.forget();
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A connection that is not open yet.
struct Opening {
    audience: Audience,
    tls: Option<Arc<ServerTls>>,
    admission: Option<Duration>,
    stranger: Option<Stranger>,
    link: Arc<Link>,
    place: Place,
}

impl Opening {
    async fn open(mut self, stream: Stream, address: Option<SocketAddr>) -> io::Result<Connection> {
        let opening = Box::pin(tokio::time::sleep(OPENING));
        if let Stream::Tcp(stream) = &stream {
            // Nagle's algorithm would hold up small messages: 23 calls a second instead of 35,000.
            stream.set_nodelay(true)?;
        }
        let (io, certificate) = match (stream, self.tls.take()) {
            (Stream::Socket(stream), _) => (Io::Socket(stream), None),
            (Stream::Tcp(stream), None) => (Io::Plain(stream), None),
            (Stream::Tcp(stream), Some(tls)) => {
                let accepting = tokio::time::timeout(OPENING, tls.acceptor().accept(stream));
                let stream = tokio::select! {
                    () = Stranger::ousted(&mut self.stranger) => return Err(ousted()),
                    accepted = accepting => {
                        accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
                    }
                };
                let shown = stream.get_ref().1.peer_certificates();
                let certificate = shown.and_then(|chain| chain.first()).cloned();
                (Io::Tls(Box::new(stream)), certificate)
            }
        };
        Ok(Connection {
            io,
            peer: Peer {
                address,
                certificate,
                audience: self.audience,
                link: self.link,
            },
            opening: Some(opening),
            admission: self.admission,
            seen: 0,
            stranger: self.stranger,
            gone: false,
            _place: self.place,
        })
    }
}

/// Connections of a port on which nobody has shown yet who they are.
#[derive(Debug, Default)]
struct Strangers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order in which they came. Those that have become somebody's since are among them.
    all: BTreeMap<u64, (Arc<Link>, oneshot::Sender<()>)>,
}

impl Strangers {
    /// Sends the one away that has been there longest; false where there is none. Whoever comes and
    /// shows who they are does so long before all others that were there have gone.
    fn oust(&self) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, (link, word))) = waiting.all.pop_first() {
            if !link.is_somebodys() && word.send(()).is_ok() {
                return true;
            }
        }
        false
    }
}

/// A connection among the strangers of its port, until it is dropped.
#[derive(Debug)]
struct Stranger {
    number: u64,
    among: Arc<Strangers>,
    /// Says that it has to go; closed when it has become somebody's.
    word: oneshot::Receiver<()>,
}

impl Stranger {
    fn among(strangers: Arc<Strangers>, link: &Arc<Link>) -> Self {
        let (sender, word) = oneshot::channel();
        let mut waiting = strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next += 1;
        waiting.all.insert(number, (Arc::clone(link), sender));
        drop(waiting);
        Self {
            number,
            among: strangers,
            word,
        }
    }

    /// Waits until it has to go.
    async fn ousted(stranger: &mut Option<Self>) {
        if let Some(it) = stranger
            && (&mut it.word).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let waiting = self.among.0.lock();
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        waiting.all.remove(&self.number);
    }
}

/// Why a connection ends that had to go for another one.
fn ousted() -> io::Error {
    let why = "nobody has shown who they are, and another connection needs the place";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Their address; none at a socket of the file system.
    pub address: Option<SocketAddr>,
    /// Their certificate, verified, if they showed one.
    pub certificate: Option<CertificateDer<'static>>,
    /// Through which port they came.
    pub audience: Audience,
    /// For whom the connection is, as long as it is open.
    pub link: Arc<Link>,
}

/// For whom a connection is, once somebody has shown on it who they are: its place among those of
/// that principal; none where there is one principal alone, whose key they have.
#[derive(Debug, Default)]
pub struct Link(OnceLock<Option<Held>>);

impl Link {
    fn is_somebodys(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Peer {
    /// Whether the connection is somebody's. If it is nobody's so far, it becomes that of the
    /// caller who gets a place from `take`.
    pub fn admit(&self, take: impl FnOnce() -> Option<Held>) -> bool {
        if self.link.is_somebodys() {
            return true;
        }
        let Some(held) = take() else {
            return false;
        };
        // Another call of the same connection may have been faster: this place is free again then.
        let _ = self.link.0.set(Some(held));
        true
    }

    /// The connection is that of the one who has the key.
    pub fn has_key(&self) {
        let _ = self.link.0.set(None);
    }
}

/// The place of a connection, which is counted as long as it is held.
#[derive(Debug)]
struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        CONNECTIONS.change([], 1.0);
        Self(permit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CONNECTIONS.change([], -1.0);
    }
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Socket(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open connection. It fails when it has not said in time that it speaks HTTP/2: one that says
/// nothing would hold its place for ever.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Ends the wait for the preface, and then for a caller; none once they have come.
    opening: Option<Pin<Box<Sleep>>>,
    /// How long it is waited for a caller, once the preface has come.
    admission: Option<Duration>,
    /// Bytes that have come, while it is waited for.
    seen: usize,
    /// As long as it is nobody's.
    stranger: Option<Stranger>,
    /// Whether it had to go for another one.
    gone: bool,
    _place: Place,
}

impl Connection {
    /// An error once it has to go: nobody has shown in time who they are, or somebody else came for
    /// whom there was no place. Writing fails as well as reading: whoever reads no answer would hold
    /// the place with that.
    fn poll_stay(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(opening) = &mut self.opening
            && opening.as_mut().poll(context).is_ready()
        {
            if self.seen < PREFACE || !self.peer.link.is_somebodys() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.opening = None;
        }
        if self.gone {
            return Err(ousted());
        }
        if let Some(stranger) = &mut self.stranger {
            if self.peer.link.is_somebodys() {
                self.stranger = None;
            } else if let Poll::Ready(Ok(())) = Pin::new(&mut stranger.word).poll(context) {
                (self.stranger, self.gone) = (None, true);
                return Err(ousted());
            }
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_stay(context)?;
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Socket(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        };
        ready!(read)?;
        if self.opening.is_some() && self.seen < PREFACE {
            self.seen += buffer.filled().len() - before;
            if self.seen >= PREFACE {
                self.opening = self
                    .admission
                    .map(|time| Box::pin(tokio::time::sleep(time)));
                // So that it wakes this connection.
                if let Some(opening) = &mut self.opening {
                    let _ = opening.as_mut().poll(context);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_stay(context)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Socket(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Socket(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Socket(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
