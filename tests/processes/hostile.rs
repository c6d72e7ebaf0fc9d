//! Clients that mean harm, or are broken: whatever they do, the coordinator goes on serving others,
//! and its memory stays what it was.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::web::{self, Console, STATUS, STATUS_PATH, tcp};
use crate::common::{PATIENCE, Server, Site, wait};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::Reason;
use h2::client::{SendRequest, handshake};
use palimpsest::proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Most that the server's memory may grow by under an attack, in MiB.
const GROWTH: u64 = 150;

/// A coordinator that is attacked.
struct Target {
    site: Site,
    server: Server,
    before: u64,
}

impl Target {
    fn new(settings: &str) -> Self {
        let site = Site::new();
        fs::write(site.path("palimpsest.toml"), format!("[serve]\n{settings}")).unwrap();
        let server = site.serve("127.0.0.1:0");
        let mut target = Self {
            site,
            server,
            before: 0,
        };
        target.serves();
        target.before = target.memory();
        target
    }

    fn address(&self) -> SocketAddr {
        self.server.address.parse().unwrap()
    }

    /// MiB that were resident at most so far.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.process.id()));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }

    /// Whether somebody else is answered.
    fn answers(&self) -> bool {
        let list = ["job", "list", "--server", &self.server.url()];
        self.site.command(&list).output().unwrap().status.success()
    }

    fn serves(&self) {
        wait("an answer", PATIENCE, || self.answers().then_some(()));
    }

    /// It has borne it.
    fn stands(&mut self) {
        self.serves();
        assert!(self.server.process.ended().is_none());
        let grown = self.memory().saturating_sub(self.before);
        assert!(grown < GROWTH, "its memory has grown by {grown} MiB");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A connection, driven by a task of its own.
async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(stream).await.unwrap();
    tokio::spawn(async move {
        // It is the server's to close it.
        let _ = connection.await;
    });
    sender
}

fn call(method: &str) -> http::Request<()> {
    http::Request::post(format!("http://coordinator/palimpsest.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A message of gRPC: whether it is compressed, its length, its bytes.
fn framed(compressed: bool, message: &[u8]) -> Bytes {
    let mut frame = vec![u8::from(compressed)];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// CVE-2023-44487: streams that are opened and reset at once, as fast as the network takes them.
#[test]
fn streams_that_are_reset_at_once_leave_the_server_serving() {
    let mut target = Target::new("");
    let address = target.address();
    let (opened, closed) = runtime().block_on(async move {
        let (mut opened, mut closed) = (0, 0);
        while opened < 50_000 && closed < 200 {
            let sender = connect(address).await;
            let Ok(mut sender) = sender.ready().await else {
                closed += 1;
                continue;
            };
            loop {
                let Ok((answer, mut stream)) =
                    sender.send_request(call("JobService/ListJobs"), true)
                else {
                    break;
                };
                stream.send_reset(Reason::CANCEL);
                drop(answer);
                opened += 1;
                match sender.ready().await {
                    Ok(ready) if opened < 50_000 => sender = ready,
                    _ => break,
                }
            }
            closed += 1;
        }
        (opened, closed)
    });
    eprintln!("{opened} streams over {closed} connections");
    assert!(
        opened >= 1000,
        "the attack did not take place: {opened} streams"
    );
    target.stands();
}

/// Streams whose client says what it will upload, and never does.
#[test]
fn streams_that_are_left_half_open_leave_room_for_others() {
    let mut target = Target::new("");
    let address = target.address();
    let runtime = runtime();
    let held = runtime.block_on(async move {
        let mut held = Vec::new();
        for n in 0..40_u32 {
            let mut sender = connect(address).await;
            for k in 0..100_u32 {
                let Ok(ready) = sender.ready().await else {
                    panic!("refused after {k} streams")
                };
                sender = ready;
                let (answer, mut stream) = sender
                    .send_request(call("ObjectService/WriteObject"), false)
                    .unwrap();
                // The first bytes of a message that claims to be longer.
                let start = [0, 0, 0x10, 0, 0, u8::try_from(n).unwrap()];
                stream
                    .send_data(Bytes::copy_from_slice(&start), false)
                    .unwrap();
                held.push((answer, stream));
            }
            held.shrink_to_fit();
        }
        held
    });
    assert_eq!(held.len(), 4000);
    target.stands();
    drop(held);
    target.stands();
}

/// A client that was cut off without a word is found out by what it does not answer.
#[test]
fn a_connection_whose_client_is_gone_is_closed() {
    let mut target = Target::new("");
    let mut gone = TcpStream::connect(target.address()).unwrap();
    gone.write_all(PREFACE).unwrap();
    gone.set_read_timeout(Some(PATIENCE + Duration::from_secs(30)))
        .unwrap();
    // It reads, as the kernel of a machine that hangs does, and never answers a ping.
    let mut bytes = [0; 1024];
    let end = loop {
        match gone.read(&mut bytes) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    let waits = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    assert!(
        !end.is_some_and(|kind| waits.contains(&kind)),
        "it is still open"
    );
    target.stands();
}

/// Frames that no client sends: unknown ones, of wrong sizes, headers without an end
/// (CVE-2024-27316), a decompression bomb for header tables, random bytes.
#[test]
fn frames_that_make_no_sense_end_their_connection_alone() {
    let mut target = Target::new("");
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    // A header that is literal, not indexed: 0x00, the name's and the value's length, both.
    let header = [&[0, 1, b'a', 0x7f, 0x80, 0x7e][..], &[b'x'; 16_255]].concat();
    let endless: Vec<Vec<u8>> = std::iter::once(frame(1, 0, 1, &header[..16_000]))
        .chain((0..2000).map(|_| frame(9, 0, 1, &header[..16_000])))
        .collect();
    let mut dice = crate::common::dice::Dice::new(1, "frames");
    let mut random = || -> Vec<u8> {
        (0..2000)
            .map(|_| u8::try_from(dice.below(256)).unwrap())
            .collect()
    };
    let attacks: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("headers without an end", endless),
        (
            "data of no stream",
            (0..1000).map(|_| frame(0, 0, 7, &[0; 100])).collect(),
        ),
        (
            "windows that overflow",
            vec![frame(8, 0, 0, &[0x7f, 255, 255, 255]); 10],
        ),
        ("settings of a wrong size", vec![frame(4, 0, 0, &[1, 2, 3])]),
        (
            "settings without end",
            vec![frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]); 50_000],
        ),
        ("pings without end", vec![frame(6, 0, 0, &[9; 8]); 50_000]),
        (
            "a frame that is too long",
            vec![frame(0, 0, 1, &vec![0; 1 << 20])],
        ),
        ("random bytes", (0..50).map(|_| random()).collect()),
    ];
    for (what, frames) in attacks {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(target.address()).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            stream.write_all(PREFACE).unwrap();
            for frame in &frames {
                // It may be closed before everything is said, or be left unread.
                if stream.write_all(frame).is_err() {
                    break;
                }
            }
        }
        eprintln!("{what}");
        target.stands();
    }
}

/// A message that is small on the way and would be a gibibyte in memory.
#[test]
fn a_message_that_would_grow_beyond_its_limit_is_refused() {
    let mut target = Target::new("");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let address = target.address();
    let statuses = runtime().block_on(async move {
        let mut statuses = Vec::new();
        for (method, compressed, message) in [
            ("JobService/CreateJob", true, &bomb[..]),
            ("ObjectService/WriteObject", true, &bomb[..]),
            // And one that says that it is four gibibytes long.
            ("JobService/CreateJob", false, &[]),
        ] {
            let mut sender = connect(address).await.ready().await.unwrap();
            let mut request = call(method);
            if compressed {
                request
                    .headers_mut()
                    .insert("grpc-encoding", "gzip".parse().unwrap());
            }
            let (answer, mut stream) = sender.send_request(request, false).unwrap();
            let data = match message {
                [] => Bytes::from_static(&[0, 255, 255, 255, 255, 0]),
                _ => framed(compressed, message),
            };
            stream.reserve_capacity(data.len());
            // The server may have refused it by the call's head, and closed the stream.
            let _ = stream.send_data(data, true);
            let answer = answer.await.unwrap();
            let (parts, mut body) = answer.into_parts();
            let mut status = parts.headers.get("grpc-status").cloned();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
            }
            if let Ok(Some(trailers)) = body.trailers().await {
                status = status.or_else(|| trailers.get("grpc-status").cloned());
            }
            statuses.push(status.unwrap().to_str().unwrap().to_owned());
        }
        statuses
    });
    for status in &statuses {
        // UNIMPLEMENTED, OUT_OF_RANGE or RESOURCE_EXHAUSTED.
        assert!(["12", "11", "8"].contains(&status.as_str()), "{statuses:?}");
    }
    target.stands();
}

/// Thirty thousand connections, five hundred at a time, to a server that takes fifty.
#[test]
fn thirty_thousand_connections_are_refused_and_the_server_serves_on() {
    let mut target = Target::new("max_connections = 50\n");
    let address = target.address();
    runtime().block_on(async move {
        for wave in 0..60_u8 {
            let mut connections: FuturesUnordered<_> = (0..500)
                .map(|_| async move {
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    // From another address each time: ports of one are used up.
                    let from = SocketAddr::from(([127, 0, 1, wave + 1], 0));
                    socket.bind(from).unwrap();
                    let Ok(mut stream) = socket.connect(address).await else {
                        return;
                    };
                    // One that the kernel forgot in the rush learns it when it says something.
                    let _ = stream.write_all(PREFACE).await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                })
                .collect();
            // The others have the places, until the wave is over.
            let refused = async {
                for _ in 0..450 {
                    connections.next().await;
                }
            };
            let refused = tokio::time::timeout(PATIENCE, refused).await;
            assert!(refused.is_ok(), "wave {wave} is left waiting");
        }
    });
    target.stands();
}

/// Whoever is slow, or says nothing, is in nobody's way, and not for long.
#[test]
fn slow_and_idle_connections_end_and_others_are_answered_meanwhile() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let key = [("X-Palimpsest-Key", console.key.as_str())];
    slow_and_idle_connections_end(&console.address, &key);
}

/// The same beside a coordinator, for a team.
#[test]
fn slow_and_idle_connections_to_a_coordinators_console_end() {
    let site = Site::new();
    let token = format!("Bearer {}", site.token("viewer", "vera"));
    let settings = "[serve]\nweb_listen = \"127.0.0.1:0\"\ntokens = \"tokens\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let server = site.serve("127.0.0.1:0");
    let address = server.process.address_after("serving the console");
    slow_and_idle_connections_end(&address, &[("Authorization", &token)]);
}

fn slow_and_idle_connections_end(own: &str, key: &[(&str, &str)]) {
    let shown: String = key
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let call = format!(
        "POST {STATUS_PATH} HTTP/1.1\r\nHost: {own}\r\nContent-Type: application/grpc-web+proto\r\n\
         {shown}Content-Length: 1000\r\n\r\n"
    );
    // This process holds as many.
    palimpsest::api::descriptors::raise_limit();
    let idle: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = tcp(own);
            write!(stream, "GET /sign-in.json HTTP/1.1\r\nHost: {own}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // A byte every second.
        let dripped = |head: &str, drops: &'static str| {
            let mut stream = tcp(own);
            stream.write_all(head.as_bytes()).unwrap();
            scope.spawn(move || {
                let begun = Instant::now();
                stream
                    .set_read_timeout(Some(Duration::from_millis(10)))
                    .unwrap();
                let mut said = Vec::new();
                for drop in drops.bytes().cycle() {
                    if stream.write_all(&[drop]).is_err() {
                        break;
                    }
                    let mut bytes = [0; 4096];
                    match stream.read(&mut bytes) {
                        Ok(0) => break,
                        Ok(read) => said.extend(&bytes[..read]),
                        Err(error)
                            if [ErrorKind::WouldBlock, ErrorKind::TimedOut]
                                .contains(&error.kind()) => {}
                        Err(_) => break,
                    }
                    assert!(begun.elapsed() < 2 * PATIENCE, "it is still open");
                    std::thread::sleep(Duration::from_secs(1));
                }
                (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
            })
        };
        let headers = dripped("GET / HTTP/1.1\r\n", "X: y\r\n");
        let body = dripped(&call, "\0");
        let half = dripped("GE", "T");
        // Somebody without the key, who keeps asking for what needs none.
        let pages = scope.spawn(|| {
            let begun = Instant::now();
            let mut stream = tcp(own);
            let page = format!("GET /sign-in.json HTTP/1.1\r\nHost: {own}\r\n\r\n");
            while stream.write_all(page.as_bytes()).is_ok()
                && stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0)
            {
                assert!(begun.elapsed() < 2 * PATIENCE, "it is still open");
                std::thread::sleep(Duration::from_secs(1));
            }
            begun.elapsed()
        });
        // Meanwhile.
        while !(headers.is_finished() && body.is_finished() && half.is_finished()) {
            let asked = Instant::now();
            let called = web::call(&mut tcp(own), STATUS, key, &v1::GetStatusRequest::default());
            assert_eq!(called.status, 0, "{called:?}");
            assert!(asked.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_secs(1));
        }
        for (what, slow) in [("headers", headers), ("body", body), ("half", half)] {
            let (taken, said) = slow.join().unwrap();
            eprintln!("{what}: {taken:?}");
            assert!(taken < Duration::from_secs(50), "{what}: {taken:?}");
            match what {
                // Why, and not that the coordinator is away.
                "body" => assert!(
                    said.contains("the%20call%20was%20not%20said%20in"),
                    "{said}"
                ),
                _ => assert!(!said.contains("200 OK"), "{what}: {said}"),
            }
        }
        // A stranger's connection has half a minute at a user's own console, and one at a team's.
        let taken = pages.join().unwrap();
        eprintln!("pages: {taken:?}");
        assert!(taken < Duration::from_secs(80), "{taken:?}");
    });
    // Those that were idle since are gone, too.
    let left = idle.iter().filter(|stream| {
        let mut stream = *stream;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).is_err()
    });
    assert_eq!(left.count(), 0, "after {:?}", begun.elapsed());
}

/// More connections than the console of a machine takes, by somebody who lacks its key: silent ones,
/// some that have asked for a page, some that do not read it.
#[test]
fn whoever_lacks_the_key_keeps_nobody_out_who_has_it() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let own = console.address.as_str();
    palimpsest::api::descriptors::raise_limit();
    let nothing = web::framed(&v1::GetStatusRequest::default());
    let call = format!(
        "POST {STATUS_PATH} HTTP/1.1\r\nHost: {own}\r\nContent-Type: application/grpc-web+proto\r\n\
         X-Palimpsest-Key: {}\r\nContent-Length: {}\r\n\r\n",
        console.key,
        nothing.len()
    );
    // On a connection that stays.
    let ask_again = |stream: &mut TcpStream| {
        stream.write_all(call.as_bytes()).unwrap();
        stream.write_all(&nothing).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n0\r\n\r\n") {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "it was closed");
            said.extend(&bytes[..read]);
        }
        assert!(String::from_utf8_lossy(&said).contains("grpc-status:0"));
    };
    let mut known = tcp(own);
    ask_again(&mut known);
    let stranger = |n: usize| {
        let mut stream = tcp(own);
        let path = ["", "/sign-in.json", "/assets/main.js"][n % 3];
        if !path.is_empty() {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {own}\r\n\r\n").unwrap();
        }
        stream
    };
    let mut all: Vec<TcpStream> = (0..2500).map(stranger).collect();
    for n in 0..50 {
        let asked = Instant::now();
        let called = console.call(STATUS, &v1::GetStatusRequest::default());
        assert_eq!(called.status, 0, "{called:?}");
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        ask_again(&mut known);
        // Each that had to go comes again.
        all.push(stranger(n));
    }
}
