//! Where an engine runs: on a thread of its own, or as a task if it only pretends to compute.
#![allow(clippy::disallowed_methods)] // the owner of the engine's task

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use super::engine::{Engine, Sink, failure};
use super::work::{Error, Report, Work, to_key};
use crate::blocking::blocking;
use crate::proto::v1;
use crate::telemetry::metrics::WORKER_STEPS;

/// Newest steps of an edit that a heartbeat tells: who misses one finds them in the next.
const STEPS: usize = 64;

/// A running engine.
pub(super) enum Computing {
    Thread(thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

impl Computing {
    /// Starts an engine. It ends when the other end of `inbox` is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        mut engine: Box<dyn Engine>,
        inbox: UnboundedReceiver<Work>,
        reports: UnboundedSender<Report>,
        loaded: Arc<Mutex<Vec<String>>>,
    ) -> io::Result<Self> {
        if let Some(first) = engine.pretends() {
            return Ok(Self::Task(tokio::spawn(pretend(
                engine, first, inbox, reports,
            ))));
        }
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || compute(engine, inbox, &reports, &loaded))
            .map(Self::Thread)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::Engine`], when it panicked.
    pub(super) async fn join(self) -> Result<(), Error> {
        let ended = match self {
            Self::Thread(thread) => matches!(blocking(move || thread.join()).await, Ok(Ok(()))),
            Self::Task(task) => task.await.is_ok(),
        };
        if ended {
            Ok(())
        } else {
            Err(Error::Engine("it panicked".to_owned()))
        }
    }
}

fn compute(
    mut engine: Box<dyn Engine>,
    mut inbox: UnboundedReceiver<Work>,
    reports: &UnboundedSender<Report>,
    loaded: &Mutex<Vec<String>>,
) {
    while let Some(work) = inbox.blocking_recv() {
        let mut sink = LeaseSink {
            work: &work,
            reports,
        };
        let ended = if sink.cancelled() {
            Ok(())
        } else {
            engine.run(&work.ready, &work.ready.lease.units, &mut sink)
        };
        if let Ok(mut loaded) = loaded.lock() {
            *loaded = engine.loaded();
        }
        // Fails only when the session is over.
        let _ = reports.send(Report::Ended(work.key, ended.err()));
    }
}

async fn pretend(
    mut engine: Box<dyn Engine>,
    mut pause: Duration,
    mut inbox: UnboundedReceiver<Work>,
    reports: UnboundedSender<Report>,
) {
    while let Some(work) = inbox.recv().await {
        let mut sink = LeaseSink {
            work: &work,
            reports: &reports,
        };
        let mut ended = Ok(());
        for unit in work.ready.lease.units.chunks(1) {
            tokio::time::sleep(pause).await;
            if sink.cancelled() {
                break;
            }
            ended = engine.run(&work.ready, unit, &mut sink);
            pause = engine.pretends().unwrap_or_default();
            if ended.is_err() {
                break;
            }
        }
        let _ = reports.send(Report::Ended(work.key, ended.err()));
    }
}

struct LeaseSink<'a> {
    work: &'a Work,
    reports: &'a UnboundedSender<Report>,
}

impl Sink for LeaseSink<'_> {
    fn commit(&mut self, result: v1::UnitResult, fingerprint: v1::Fingerprint) {
        self.work.shared.steps.store(0, Ordering::Relaxed);
        if let Ok(mut edit) = self.work.shared.edit.lock() {
            *edit = None;
        }
        let commit = v1::Commit {
            lease: Some(to_key(&self.work.key)),
            unit: result.unit,
            result: result.encode_to_vec(),
            fingerprint: Some(fingerprint),
        };
        let _ = self.reports.send(Report::Commit(commit));
    }

    fn advance(&mut self, steps: u64) {
        WORKER_STEPS.add([], steps);
        self.work.shared.steps.fetch_add(steps, Ordering::Relaxed);
        self.work.shared.total.fetch_add(steps, Ordering::Relaxed);
    }

    fn step(&mut self, unit: u64, most_steps: u32, step: v1::edit_progress::Step) {
        let Ok(mut edit) = self.work.shared.edit.lock() else {
            return; // whoever reads it panicked
        };
        if edit.as_ref().is_none_or(|edit| edit.unit != unit) {
            *edit = Some(v1::EditProgress {
                unit,
                most_steps,
                steps: Vec::new(),
            });
        }
        if let Some(edit) = edit.as_mut() {
            if edit.steps.len() == STEPS {
                edit.steps.remove(0);
            }
            edit.steps.push(step);
        }
        drop(edit);
        let _ = self.reports.send(Report::Step);
    }

    fn cancelled(&self) -> bool {
        self.work.shared.cancelled.load(Ordering::Relaxed)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<String, v1::Failure> {
        let (answer, answered) = std::sync::mpsc::channel();
        let _ = self.reports.send(Report::Put(bytes.to_vec(), answer));
        let lost = || Err("the worker is leaving".to_owned());
        let stored = answered.recv().unwrap_or_else(|_| lost());
        stored.map_err(|what| failure(v1::FailureClass::Transient, what))
    }
}
