//! An S3 server, and what stands between it and a coordinator.
//!
//! It is moto, or the one whose command is in `S3_SERVER`, with `PORT`, `FOLDER` (of which a folder
//! is a bucket), `ID` and `SECRET` in the places of these. The tests of coordinators that share a
//! log pass on any server with conditional writes; others ask for more than every server has:
//!
//! ```sh
//! cargo install s3s-fs --version 0.14.1 --locked --features binary
//! S3_SERVER="s3s-fs --host 127.0.0.1 --port PORT --access-key ID --secret-key SECRET FOLDER" \
//!     cargo nextest run --test bucket leaders
//! ```

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use palimpsest::objects::Digest;

use super::{PATIENCE, Process, Site, ports, wait};

/// The name of the key of the bucket.
pub const ID: &str = "AKIATEST";
/// The key of the bucket: no program may write it.
pub const SECRET: &str = "hush/hush+hush";
const NOBODY: &str = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=x";
/// An S3 server with one bucket, `pal`.
pub struct S3 {
    pub address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// The Python in which the server is installed.
pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/moto/bin/python")
}

impl S3 {
    /// Starts one; none where it is not installed.
    pub fn start() -> Option<Self> {
        match std::env::var("S3_SERVER") {
            Ok(command) => Some(Self::start_other(&command)),
            Err(_) => Self::start_trusting(),
        }
    }

    /// Starts one that looks at no signature, so that requests can be changed on their way.
    pub fn start_trusting() -> Option<Self> {
        if !python().exists() {
            super::require::skip("bucket", "no .deps/moto: run deploy/setup.sh");
            return None;
        }
        // The server does not say which port it took.
        let [port] = ports::free();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python());
        command.args([
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            &port.to_string(),
        ]);
        let process = Process::start("moto", &mut command, &folder.path().join("log"));
        let server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _process: process,
            _folder: folder,
        };
        wait("the S3 server", PATIENCE, || {
            TcpStream::connect(server.address).ok()
        });
        assert_eq!(server.ask("PUT", "/pal", b"").0, 200);
        Some(server)
    }

    fn start_other(command: &str) -> Self {
        let [port] = ports::free();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/pal")).unwrap();
        let root = folder.path().join("root");
        let values = [
            ("PORT", port.to_string()),
            ("FOLDER", root.to_str().unwrap().to_owned()),
            ("ID", ID.to_owned()),
            ("SECRET", SECRET.to_owned()),
        ];
        let mut words = command.split_whitespace().map(|word| {
            let value = values.iter().find(|(name, _)| *name == word);
            value.map_or_else(|| word.to_owned(), |(_, value)| value.clone())
        });
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _process: Process::start("S3", &mut command, &folder.path().join("log")),
            _folder: folder,
        };
        wait("the S3 server", PATIENCE, || {
            TcpStream::connect(server.address).ok()
        });
        server
    }

    /// A request with a signature that is none, which the server takes unless it was told to look.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: {NOBODY}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_off(end + 4))
    }

    pub fn object(&self, prefix: &str, digest: &Digest) -> Option<Vec<u8>> {
        let (status, body) = self.ask("GET", &format!("/pal/{prefix}/objects/{digest}"), b"");
        (status == 200).then_some(body)
    }

    /// The digests of the objects under a prefix.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let (status, body) = self.ask(
            "GET",
            &format!("/pal?list-type=2&prefix={prefix}/objects/"),
            b"",
        );
        assert_eq!(status, 200);
        let text = String::from_utf8(body).unwrap();
        let keys = text.split("<Key>").skip(1);
        keys.map(|key| {
            key.split("</Key>")
                .next()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    /// Uploads in parts that have not come to an end.
    pub fn unfinished(&self) -> usize {
        let (_, body) = self.ask("GET", "/pal?uploads", b"");
        String::from_utf8(body)
            .unwrap()
            .matches("<UploadId>")
            .count()
    }

    /// The settings of a coordinator with this bucket, reached at an address.
    pub fn settings(&self, site: &Site, prefix: &str, address: SocketAddr, more: &str) {
        write_settings(site, prefix, address, more);
        write_key(site, ID, SECRET);
    }
}

fn write_settings(site: &Site, prefix: &str, address: SocketAddr, more: &str) {
    let settings = format!(
        "[store]\nbucket = \"s3://pal/{prefix}\"\nendpoint = \"http://{address}\"\n\
         credentials = \"key\"\n{more}\n[serve]\nheartbeat_interval = \"100ms\"\n\
         lease_duration = \"1s\"\ntask_time = \"1s\"\nmax_attempts = 100\n"
    );
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
}

pub fn write_key(site: &Site, id: &str, secret: &str) {
    let key = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    fs::write(site.path("key"), key).unwrap();
}

/// Stands before the S3 server: counts the bytes that come through, holds them up, or swallows
/// them.
pub struct Proxy {
    pub address: SocketAddr,
    pub up: Arc<AtomicU64>,
    pub down: Arc<AtomicU64>,
    pub silent: Arc<AtomicBool>,
}

impl Proxy {
    /// `rate` is bytes a second of each connection.
    pub fn start(server: SocketAddr, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            up: Arc::default(),
            down: Arc::default(),
            silent: Arc::default(),
        };
        let counts = [Arc::clone(&proxy.up), Arc::clone(&proxy.down)];
        let silent = Arc::clone(&proxy.silent);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(server).unwrap());
                let ways = [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far, near),
                ];
                for ((from, to), count) in ways.into_iter().zip(&counts) {
                    let (count, silent) = (Arc::clone(count), Arc::clone(&silent));
                    thread::spawn(move || pass(from, to, rate, &count, &silent));
                }
            }
        });
        proxy
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, rate: u64, count: &AtomicU64, silent: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        count.fetch_add(n as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
        if !silent.load(Ordering::Relaxed) && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
