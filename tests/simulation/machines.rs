//! The programs of the simulated machines, but for clients and liars: those of the product.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palimpsest::api::server;
use palimpsest::coordinator::{Coordinator, Disk, Surroundings};
use palimpsest::objects::ObjectStore;
use palimpsest::store::Store;
use palimpsest::worker::{self, Options};
use tokio::time::Instant;

use super::engine::Paced;
use super::network;
use super::site::Site;

/// A coordinator on the store as it lies on the disk.
pub async fn coordinator(site: Arc<Site>) -> turmoil::Result {
    let store = Arc::new(Store::open(&site.store())?);
    site.sweep_stores();
    let epoch = turmoil::since_epoch().unwrap_or_default();
    let start = epoch.as_millis() as u64 + site.skew.load(Ordering::Relaxed);
    let started = Instant::now();
    let clock = move || start + started.elapsed().as_millis() as u64;
    let surroundings = Surroundings::new(clock, Disk::Here);
    let (coordinator, actor) = Coordinator::start_in(surroundings, store, site.limits())?;
    site.say("coordinator", "serves");
    let incoming = std::pin::pin!(network::listen().await?);
    let serving = server::serve(coordinator, incoming, std::future::pending());
    // Neither ends: an invariant that is violated panics in the actor, and comes out here.
    tokio::select! {
        ended = serving => ended?,
        ended = actor => ended??,
    }
    Err("the coordinator ended by itself".into())
}

/// An honest worker. It works until it is killed or asked to leave.
pub async fn worker(site: Arc<Site>, host: String) -> turmoil::Result {
    let id = format!("{host}-{}", site.generation(&host));
    let mut dice = site.dice(&id);
    let options = Options {
        id: id.clone(),
        credits: dice.among(1..=3) as u32,
        cache: site.cache(&host),
        drain_timeout: Duration::from_millis(dice.below(8_000)),
        valid_until: None,
        idle_exit: None,
    };
    // One in four is slow.
    let slowest = if dice.once_in(4) { 1_200 } else { 120 };
    let engine = Paced {
        site: site.clone(),
        worker: id.clone(),
        dice,
        slowest,
    };
    let objects = ObjectStore::open(&options.cache)?;
    let leaving = site.leaving(&host);
    site.say(&id, "works");
    let ended = worker::run(
        network::client(),
        objects,
        Box::new(engine),
        options,
        leaving,
    )
    .await;
    site.say(&id, format!("ends: {ended:?}"));
    ended?;
    Ok(())
}
