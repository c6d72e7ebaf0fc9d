//! The programs of the simulated machines, but for clients and liars: those of the product.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palimpsest::api::server;
use palimpsest::coordinator::{self, Coordinator, Disk, Surroundings};
use palimpsest::objects::ObjectStore;
use palimpsest::store::{self, Follower, Store};
use palimpsest::worker::{self, Company, Options};
use tokio::time::Instant;

use super::engine::Paced;
use super::network;
use super::site::Site;

/// A coordinator on the store as it lies on the disk. One that follows a log with others ends when it
/// is deposed, as its process does, and is started again.
pub async fn coordinator(site: Arc<Site>, host: &'static str) -> turmoil::Result {
    let ended = lead(&site, host).await;
    let Err(error) = ended else { return ended };
    let Some(why) = end_of_one_that_shares(&*error).filter(|_| site.theme.shares()) else {
        return Err(error);
    };
    site.say(host, format!("ends: {why}"));
    tokio::time::sleep(Duration::from_millis(250)).await;
    site.restart(host);
    std::future::pending().await
}

async fn lead(site: &Arc<Site>, host: &'static str) -> turmoil::Result {
    let store = match site.theme.shares() {
        true => {
            let (folder, options) = site.shared_store(host);
            let follower = Follower::open(&folder, options)?;
            site.say(host, "follows");
            Arc::new(coordinator::lead(follower, true).await?)
        }
        false => {
            let store = Arc::new(Store::open(&site.store())?);
            site.sweep_stores();
            store
        }
    };
    let epoch = turmoil::since_epoch().unwrap_or_default();
    let start = epoch.as_millis() as u64 + site.skew.load(Ordering::Relaxed);
    let started = Instant::now();
    let clock = move || start + started.elapsed().as_millis() as u64;
    let disk = match site.theme.shares() {
        true => {
            let dice = Mutex::new(site.dice(&format!("{host}-{}", site.generation(host))));
            Disk::Slow(Arc::new(move || {
                let mut dice = dice.lock().expect("no panic");
                let slow = dice.once_in(40);
                Duration::from_millis(dice.among(1..=if slow { 900 } else { 20 }))
            }))
        }
        false => Disk::Here,
    };
    let surroundings = Surroundings::new(clock, disk);
    let (coordinator, actor) = Coordinator::start_in(surroundings, store, site.limits())?;
    site.say(host, "serves");
    let incoming = std::pin::pin!(network::listen().await?);
    let serving = server::serve(coordinator, incoming, std::future::pending());
    // Neither ends: an invariant that is violated panics in the actor, and comes out here.
    tokio::select! {
        ended = serving => ended?,
        ended = actor => ended??,
    }
    Err("the coordinator ended by itself".into())
}

/// Why a coordinator that shares its log ended, if it had to.
fn end_of_one_that_shares(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let store = match error.downcast_ref::<coordinator::Error>() {
        Some(coordinator::Error::Store(error)) => Some(error),
        Some(coordinator::Error::Audit(palimpsest::audit::Error::Store(error))) => Some(error),
        Some(_) => None,
        None => error.downcast_ref::<store::Error>(),
    };
    match store? {
        store::Error::Deposed { .. } => Some("it was deposed"),
        store::Error::Silenced => Some("it could not write"),
        error if error.may_pass() => Some("the bucket is away"),
        _ => None,
    }
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
        others: Company::default(),
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
        network::client(site.theme.coordinators()),
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
