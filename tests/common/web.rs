//! The console as browsers meet it: HTTP written by hand, calls as gRPC-Web.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;

use palimpsest::proto::v1;
use prost::Message;
use tokio_rustls::rustls;

use super::{PATIENCE, Site, no_secret};

/// A command that serves the console on this machine, and prints where.
pub struct Console {
    child: Child,
    /// Where it is: `127.0.0.1:7463`.
    pub address: String,
    /// What it asks for.
    pub key: String,
}

impl Console {
    /// Starts a command; of what it prints, the last of `lines` is the address.
    pub fn start(site: &Site, args: &[&str], lines: usize) -> Self {
        let log = fs::File::create(site.path("console.log")).unwrap();
        let mut command = site.command(args);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            line.clear();
            out.read_line(&mut line).unwrap();
        }
        let said = fs::read_to_string(site.path("console.log")).unwrap();
        no_secret("console", &said);
        let rest = line.trim().strip_prefix("http://");
        let rest = rest.unwrap_or_else(|| panic!("'{line}' is no address: {said}"));
        let (address, key) = rest.split_once("/#key=").unwrap();
        Self {
            child,
            address: address.to_owned(),
            key: key.to_owned(),
        }
    }

    /// In front of a coordinator.
    pub fn of(site: &Site, config: &str, server: &str) -> Self {
        let args = ["console", "--port", "0", "--server", server];
        match config {
            "" => Self::start(site, &args, 1),
            _ => Self::start(site, &[&args[..], &["--config", config]].concat(), 1),
        }
    }

    /// Calls a method as the pages do.
    pub fn call(&self, method: &str, request: &impl Message) -> Called {
        let key = [("x-palimpsest-key", self.key.as_str())];
        call(&mut tcp(&self.address), method, &key, request)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
pub struct Answer {
    /// Its number.
    pub status: u16,
    /// Its first line and its headers.
    pub head: String,
    /// All behind them.
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request with these headers alone, and reads the whole answer.
pub fn ask(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // It may have been refused by its head already.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // TLS that ends without a word, and a body that nobody wanted.
        let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(ends.contains(&error.kind()), "{error}");
    }
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer to {method} {path}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: bytes[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = joined(&answer.body);
    }
    answer
}

/// The pieces of a body in one.
pub fn joined(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunked.windows(2).position(|it| it == b"\r\n") {
        let length = std::str::from_utf8(&chunked[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        body.extend(&chunked[end + 2..end + 2 + length]);
        chunked = &chunked[end + 4 + length..];
        if length == 0 {
            break;
        }
    }
    body
}

/// A message as gRPC-Web frames it.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

/// What came of a call: its status and what it said, and the first message.
#[derive(Debug)]
pub struct Called {
    /// The number of its status.
    pub status: u32,
    /// What that says.
    pub said: String,
    /// The last message.
    pub message: Vec<u8>,
}

impl Called {
    pub fn of(answer: &Answer) -> Self {
        let mut trailers = answer.head.clone();
        let mut message = Vec::new();
        let mut rest = &answer.body[..];
        while rest.len() >= 5 {
            let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            let frame = &rest[5..5 + length];
            match rest[0] {
                0 => message = frame.to_vec(),
                0x80 => trailers += &format!("\n{}", String::from_utf8_lossy(frame)),
                other => panic!("a frame of kind {other}"),
            }
            rest = &rest[5 + length..];
        }
        let of = |name: &str| {
            let line = trailers.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let status = of("grpc-status:");
        let status = status.unwrap_or_else(|| panic!("{}: {}", answer.status, answer.head));
        Self {
            status: status.parse().unwrap(),
            said: of("grpc-message:").unwrap_or_default().replace("%20", " "),
            message,
        }
    }

    pub fn decoded<M: Message + Default>(&self) -> M {
        assert_eq!(self.status, 0, "{}", self.said);
        M::decode(&self.message[..]).unwrap()
    }
}

/// Calls a method as the pages do.
pub fn call(
    stream: &mut (impl Read + Write),
    method: &str,
    headers: &[(&str, &str)],
    request: &impl Message,
) -> Called {
    let ours = [
        ("Host", "localhost"),
        ("Content-Type", "application/grpc-web+proto"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let path = format!("/palimpsest.v1.{method}");
    let headers = [&ours[..], headers].concat();
    Called::of(&ask(stream, "POST", &path, &headers, &framed(request)))
}

pub const STATUS: &str = "StatusService/GetStatus";
pub const STATUS_PATH: &str = "/palimpsest.v1.StatusService/GetStatus";

pub fn caller(called: &Called) -> (String, String) {
    let answer: v1::GetStatusResponse = called.decoded();
    let caller = answer.status.unwrap().caller.unwrap();
    (caller.principal, caller.role)
}

/// A connection over TLS, with a certificate or without one; a browser of HTTP/1.1.
pub fn tls(site: &Site, address: &str, certificate: Option<&str>) -> impl Read + Write {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(site.path("certs/ca.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(who) => {
            let path = |ending| site.path(&format!("certs/{who}.{ending}"));
            let chain = CertificateDer::pem_file_iter(path("pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
            builder
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    };
    let name = "127.0.0.1".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(connection, tcp(address))
}
