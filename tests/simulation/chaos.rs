//! What goes wrong: decided by dice, at any moment, and mended after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;

use super::dice::Dice;
use super::site::Site;

/// How a link or machine is mended.
#[derive(Clone, Debug)]
enum Mend {
    Start(String),
    Repair(Link),
    Release(Link),
    Hasten(Link),
    /// A coordinator's way to the bucket.
    Reach(String),
}

/// A host that speaks with a coordinator, and which.
type Link = (String, &'static str);

/// What goes wrong.
pub struct Chaos {
    site: Arc<Site>,
    dice: Dice,
    /// Machines that may be killed and started again.
    machines: Vec<String>,
    /// Hosts that speak with the coordinator.
    peers: Vec<String>,
    next: Duration,
    /// Until when things go wrong.
    until: Duration,
    mends: BTreeMap<(Duration, u64), Mend>,
    count: u64,
    down: BTreeSet<String>,
    cut: BTreeSet<Link>,
}

impl Chaos {
    pub fn new(site: Arc<Site>, machines: Vec<String>, peers: Vec<String>) -> Self {
        let mut dice = site.dice("chaos");
        let until = Duration::from_millis(dice.among(3_000..=9_000));
        Self {
            site,
            dice,
            machines,
            peers,
            next: Duration::from_millis(300),
            until,
            mends: BTreeMap::new(),
            count: 0,
            down: BTreeSet::new(),
            cut: BTreeSet::new(),
        }
    }

    /// Does what is due.
    pub fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        if self.site.is_peaceful() {
            return;
        }
        if now >= self.until {
            for mend in std::mem::take(&mut self.mends).into_values() {
                self.mend(sim, mend);
            }
            self.say(sim, "peace");
            return self.site.peace.store(true, Ordering::Relaxed);
        }
        while let Some(due) = self.mends.first_entry().filter(|due| due.key().0 <= now) {
            let mend = due.remove();
            self.mend(sim, mend);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.dice.among(30..=900));
            self.harm(sim);
        }
    }

    fn harm(&mut self, sim: &mut Sim<'_>) {
        let theme = self.site.theme;
        match (theme.crashes(), theme.network()) {
            _ if theme.shares() && self.dice.once_in(3) => self.trouble_bucket(sim),
            (true, true) if self.dice.once_in(2) => self.kill(sim),
            (true, false) => self.kill(sim),
            (_, true) => self.disturb(sim),
            (false, false) => {}
        }
    }

    /// A coordinator's way to the bucket is cut for a while, or a request that was on its way for
    /// long arrives.
    fn trouble_bucket(&mut self, sim: &mut Sim<'_>) {
        let late = self.site.bucket.lock().expect("no panic").late();
        if late > 0 && self.dice.once_in(2) {
            let which = self.dice.below(late as u64) as usize;
            self.say(sim, "a late request arrives at the bucket");
            return self.site.bucket.lock().expect("no panic").arrive(which);
        }
        let host = self.coordinator().to_owned();
        let new = self
            .site
            .cut_off
            .lock()
            .expect("no panic")
            .insert(host.clone());
        if new {
            self.say(sim, format!("{host} does not reach the bucket"));
            self.later(sim, 50..=5_000, Mend::Reach(host));
        }
    }

    fn coordinator(&mut self) -> &'static str {
        match self.site.theme.coordinators() {
            [one] => one,
            several => several[self.dice.below(several.len() as u64) as usize],
        }
    }

    fn kill(&mut self, sim: &mut Sim<'_>) {
        let coordinator = self.dice.once_in(3);
        let host = match coordinator {
            true => self.coordinator().to_owned(),
            false => self.dice.pick(&self.machines).clone(),
        };
        if self.down.contains(&host) {
            return;
        }
        if !coordinator && self.dice.once_in(4) {
            self.say(sim, format!("{host} is asked to leave"));
            self.site.ask_to_leave(&host);
            return self.later(sim, 2_000..=6_000, Mend::Start(host));
        }
        // With its cable pulled, so that nobody hears of it and what was on its way is lost; or by
        // a signal, and the system closes its connections.
        let silently = self.dice.once_in(2);
        let how = if silently {
            "dies silently"
        } else {
            "is killed"
        };
        self.say(sim, format!("{host} {how}"));
        let all = self.site.theme.coordinators();
        let links: Vec<Link> = match coordinator {
            true => {
                let this = all.iter().find(|it| **it == host).expect("a coordinator");
                self.peers
                    .iter()
                    .map(|peer| (peer.clone(), *this))
                    .collect()
            }
            false => all.iter().map(|it| (host.clone(), *it)).collect(),
        };
        if silently {
            for (peer, coordinator) in &links {
                sim.partition(peer.as_str(), *coordinator);
            }
        }
        if coordinator {
            self.site.freeze_store();
        }
        sim.crash(host.as_str());
        if silently {
            for link in links.iter().filter(|link| !self.cut.contains(*link)) {
                sim.repair(link.0.as_str(), link.1);
            }
        }
        self.down.insert(host.clone());
        self.later(sim, 0..=2_500, Mend::Start(host));
    }

    fn disturb(&mut self, sim: &mut Sim<'_>) {
        let host = self.dice.pick(&self.peers).clone();
        let coordinator = self.coordinator();
        let link = (host.clone(), coordinator);
        let kind = self.dice.below(6);
        if kind < 5 && !self.cut.insert(link.clone()) {
            return;
        }
        let name = host.as_str();
        match kind {
            0 => {
                self.say(sim, format!("{host} is cut off"));
                sim.partition(name, coordinator);
                self.later(sim, 20..=3_500, Mend::Repair(link));
            }
            1 => {
                self.say(sim, format!("nothing comes from {host}"));
                sim.partition_oneway(name, coordinator);
                self.later(sim, 20..=3_500, Mend::Repair(link));
            }
            2 => {
                self.say(sim, format!("nothing comes to {host}"));
                sim.partition_oneway(coordinator, name);
                self.later(sim, 20..=3_500, Mend::Repair(link));
            }
            3 | 4 => {
                self.say(sim, format!("messages of {host} are held"));
                sim.hold(name, coordinator);
                self.later(sim, 20..=3_000, Mend::Release(link));
            }
            _ => {
                let latency = self.dice.among(20..=400);
                self.say(sim, format!("messages of {host} take {latency} ms"));
                sim.set_link_latency(name, coordinator, Duration::from_millis(latency));
                self.later(sim, 200..=4_000, Mend::Hasten(link));
            }
        }
    }

    fn later(&mut self, sim: &Sim<'_>, wait: std::ops::RangeInclusive<u64>, mend: Mend) {
        let at = sim.elapsed() + Duration::from_millis(self.dice.among(wait));
        self.count += 1;
        self.mends.insert((at, self.count), mend);
    }

    fn mend(&mut self, sim: &mut Sim<'_>, mend: Mend) {
        self.say(sim, format!("{mend:?}"));
        match mend {
            Mend::Start(host) => {
                // One that was asked to leave and has not yet is killed now.
                self.down.remove(&host);
                let is_coordinator = self.site.theme.coordinators().contains(&host.as_str());
                if is_coordinator && self.dice.once_in(3) {
                    // Its clock may have been set, forward or back, before it starts again.
                    let skew = self.dice.below(7_200_000);
                    self.site.skew.store(skew, Ordering::Relaxed);
                }
                sim.bounce(host.as_str());
            }
            Mend::Repair(link) => {
                self.cut.remove(&link);
                sim.repair(link.0.as_str(), link.1);
            }
            Mend::Release(link) => {
                self.cut.remove(&link);
                sim.release(link.0.as_str(), link.1);
            }
            Mend::Hasten((host, coordinator)) => {
                sim.set_link_latency(host.as_str(), coordinator, Duration::from_millis(5));
            }
            Mend::Reach(host) => {
                self.site.cut_off.lock().expect("no panic").remove(&host);
            }
        }
    }

    fn say(&self, sim: &Sim<'_>, what: impl AsRef<str>) {
        self.site.say_at(sim.elapsed(), "chaos", what);
    }
}
