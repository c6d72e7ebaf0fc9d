//! Ports for servers that must be told one, or that are started again on the one they had.
//!
//! A port that the system gives away (port 0) may be given to somebody's outgoing connection as
//! soon as it is free, and with many tests at once it is. These lie below what the system gives.

use std::fs;
use std::net::TcpListener;
use std::process;
use std::time::UNIX_EPOCH;

use super::dice::Dice;

/// Ports that nobody listens on and that the system gives to nobody; they differ.
pub fn free<const N: usize>() -> [u16; N] {
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u64 = given.split_whitespace().next().unwrap().parse().unwrap();
    assert!(first > 12_000, "the system gives away ports from {first}");
    let now = UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let mut dice = Dice::new(u64::from(process::id()) << 32 | u64::from(now), "ports");
    // All are held until the last is found, so that they differ.
    let mut held = Vec::new();
    while held.len() < N {
        let port = dice.among(10_240..=first - 1) as u16;
        held.extend(TcpListener::bind(("0.0.0.0", port)));
    }
    let ports = held.iter().map(|held| held.local_addr().unwrap().port());
    ports.collect::<Vec<_>>().try_into().unwrap()
}
