//! A coordinator and two workers on hosts of their own, network namespaces, with cables between
//! them that are slow, lose packets, and are cut for longer than a lease lasts.
//!
//! Needs root, iproute2, and either the kernel's `netem` or a TUN device; skipped with a message
//! without them.
#![allow(clippy::unwrap_used)]

mod cable;
#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use cable::{Cable, Machine, Quality};
use common::sweep::*;
use common::{PATIENCE, Process, Site, wait};

/// What is usual between two towns.
const FAR: Quality = Quality {
    delay: 50,
    jitter: 20,
    loss: 0.02,
};
/// Longer than a lease lasts, in `quick_site`, and than a heartbeat is waited for.
const CUT: Duration = Duration::from_secs(4);

#[test]
fn a_sweep_over_slow_lossy_and_cut_cables_gives_the_same_bytes() {
    let (machines, mut cables) = match lay_cables() {
        Ok(laid) => laid,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    // Many tasks, as in `kills.rs`.
    let sweep = ["--noise", "s3", "--samples", "10000"];
    let facts = 100;
    let expected = undisturbed(facts, &sweep, &["--fake", "1"]);

    let on = |site: &Site, n: usize| site.through(&["ip", "netns", "exec", machines[n].name()]);
    let site = quick_site();
    // The hosts are this machine's own, and nobody else reaches them.
    let settings = site.path("palimpsest.toml");
    let whole = fs::read_to_string(&settings).unwrap() + "insecure = true\n";
    fs::write(&settings, whole).unwrap();
    write_facts(&site, facts);
    let head = on(&site, 0);
    let server = head.serve("0.0.0.0:7461");
    import(&head, &server);
    let workers = [1, 2].map(|n| {
        let url = format!("http://{}:7461", cables[n - 1].near());
        on(&site, n).worker_of(&url, &format!("worker-{n}"), &["--fake", "120"])
    });
    for cable in &mut cables {
        cable.set(FAR);
    }
    let job = submit(&head, &server, &sweep);
    for worker in &workers {
        wait("a lease", PATIENCE, || (leases(worker) > 0).then_some(()));
    }
    wait("the first units", PATIENCE, || {
        (units_done(&head, &server) > 5).then_some(())
    });

    // One cable is cut: its worker is lost, and comes back once the cable is mended.
    let before = leases(&workers[0]);
    cables[0].set(Quality::CUT);
    thread::sleep(CUT);
    let lost = head.run(&["status", "--server", &server.url()], PATIENCE);
    assert!(!lost.contains("worker-1"), "{lost}");
    cables[0].set(FAR);
    wait("a lease after the cut", PATIENCE, || {
        (leases(&workers[0]) > before).then_some(())
    });
    // The other is cut for good: what its worker held is done by the one that came back.
    cables[1].set(Quality::CUT);
    assert_eq!(results(&head, &server, &job), expected);
}

/// The coordinator's machine and two others, each with a cable to it.
fn lay_cables() -> Result<([Machine; 3], [Cable; 2]), String> {
    let machines = [
        Machine::new("head")?,
        Machine::new("one")?,
        Machine::new("two")?,
    ];
    let cables = [
        Cable::lay(&machines[0], &machines[1], 1)?,
        Cable::lay(&machines[0], &machines[2], 2)?,
    ];
    Ok((machines, cables))
}

/// Leases that a worker has taken.
fn leases(worker: &Process) -> usize {
    worker.said().matches("lease taken").count()
}
