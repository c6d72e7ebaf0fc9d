//! Ports for servers that must be told one, or that are started again on the one they had.
//!
//! A port that the system gives away (port 0) may be given to somebody's outgoing connection as
//! soon as it is free, and with many tests at once it is. These lie below what the system gives, and
//! a test keeps those that it found: between the search and the server's start, and from one server
//! to the next, no other test takes them.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use super::dice::Dice;

/// The ports of this process, each a name that no other process can bind while this one lives.
static KEPT: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Keeps a port, where no test has it.
fn keep(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("palimpsest-port-{port}")).unwrap();
    UnixListener::bind_addr(&name).ok()
}

/// Ports that nobody listens on and that the system and other tests give to nobody; they differ.
pub fn free<const N: usize>() -> [u16; N] {
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u64 = given.split_whitespace().next().unwrap().parse().unwrap();
    assert!(first > 12_000, "the system gives away ports from {first}");
    let now = UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let mut dice = Dice::new(u64::from(process::id()) << 32 | u64::from(now), "ports");
    let mut ports = Vec::new();
    while ports.len() < N {
        let port = dice.among(10_240..=first - 1) as u16;
        let Some(kept) = keep(port) else { continue };
        KEPT.lock().unwrap().push(kept);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            ports.push(port);
        }
    }
    ports.try_into().unwrap()
}
