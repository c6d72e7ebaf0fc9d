//! What is counted and measured: one table, which `/metrics` shows as it is.
//!
//! Units are base units. Labels take their values from short lists that the program knows; no name
//! of a job, a task, a worker or a caller is one, for each new value is a series that stays.
//!
//! Until [`install`] is called nothing is kept, and every call returns at once.

use std::sync::OnceLock;

use crate::proto::v1::FailureClass;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the program runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations up to each of these bounds.
    Histogram(&'static [Bound]),
}

/// A bound of a histogram, in millionths of the metric's unit: a table can then be compared.
pub type Bound = u64;

/// Which program shows a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `palimpsest serve`.
    Coordinator,
    /// `palimpsest worker`.
    Worker,
    /// Both.
    Any,
}

/// A row of the table.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Who shows it.
    pub program: Program,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, and its unit.
    pub help: &'static str,
}

/// 100 us to 100 s.
const TIMES: &[Bound] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
];
/// 1 to 4096.
const SIZES: &[Bound] = &[
    1_000_000,
    2_000_000,
    4_000_000,
    8_000_000,
    16_000_000,
    32_000_000,
    64_000_000,
    128_000_000,
    256_000_000,
    512_000_000,
    1_024_000_000,
    2_048_000_000,
    4_096_000_000,
];
/// 100 ms to an hour.
const LONG_TIMES: &[Bound] = &[
    100_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    40_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    1_200_000_000,
    3_600_000_000,
];

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $row:ident = $name:literal, $program:ident, $kind:expr, [$($label:literal),*];)+) => {
        $(
            $(#[doc = $doc])+
            pub static $row: Metric = Metric {
                name: concat!("palimpsest_", $name),
                kind: $kind,
                program: Program::$program,
                labels: &[$($label),*],
                help: concat!($($doc),+),
            };
        )+

        /// Every metric.
        pub static METRICS: &[&Metric] = &[$(&$row,)+];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    /// 1; the label says which version of the program runs.
    BUILD_INFO = "build_info", Any, Gauge, ["version"];
    /// Memory of the process that is in RAM, in bytes.
    RESIDENT_BYTES = "resident_memory_bytes", Any, Gauge, [];
    /// Jobs by their state.
    JOBS = "jobs", Coordinator, Gauge, ["state"];
    /// Tasks of all jobs by their state.
    TASKS = "tasks", Coordinator, Gauge, ["state"];
    /// Tasks of open jobs that no worker has: what more workers could do now.
    QUEUE_DEPTH = "queue_depth", Coordinator, Gauge, [];
    /// Leases that workers hold.
    LEASES = "leases", Coordinator, Gauge, [];
    /// Workers by what they do.
    WORKERS = "workers", Coordinator, Gauge, ["state"];
    /// Units whose result was committed.
    UNITS_COMMITTED = "units_committed_total", Coordinator, Counter, [];
    /// Tasks that were done to their end.
    TASKS_COMPLETED = "tasks_completed_total", Coordinator, Counter, [];
    /// Multiply-adds of the tasks that were done, as they were estimated.
    MULTIPLY_ADDS = "multiply_adds_total", Coordinator, Counter, [];
    /// Leases that were given.
    LEASES_GIVEN = "leases_given_total", Coordinator, Counter, [];
    /// Leases that ended before their task was done, by why.
    TASK_FAILURES = "task_failures_total", Coordinator, Counter, ["class"];
    /// Tasks that were put back to be tried again.
    TASK_RETRIES = "task_retries_total", Coordinator, Counter, [];
    /// Results that differ from the one that their unit has.
    DIVERGENCES = "divergences_total", Coordinator, Counter, [];
    /// Checks of an invariant of the design that failed; always 0 in a sound program.
    INVARIANT_VIOLATIONS = "invariant_violations_total", Coordinator, Counter, ["invariant"];
    /// Time in seconds until a group of changes was durable.
    COMMIT_SECONDS = "commit_seconds", Coordinator, Histogram(TIMES), [];
    /// Events whose changes one group had.
    COMMIT_EVENTS = "commit_events", Coordinator, Histogram(SIZES), [];
    /// Flushes of the store's log.
    FLUSHES = "flushes_total", Coordinator, Counter, [];
    /// Bytes of the store's log and its index on the disk. Looked up once a minute.
    STORE_BYTES = "store_bytes", Coordinator, Gauge, [];
    /// Objects that are stored. Looked up once a minute.
    OBJECTS = "objects", Coordinator, Gauge, [];
    /// Bytes of the stored objects. Looked up once a minute.
    OBJECT_BYTES = "object_bytes", Coordinator, Gauge, [];
    /// Entries of the audit log.
    AUDIT_ENTRIES = "audit_entries", Coordinator, Gauge, [];
    /// Calls that ended, by method and gRPC status code.
    RPCS = "rpcs_total", Coordinator, Counter, ["method", "code"];
    /// Time in seconds from a call's beginning to its end; of streams too.
    RPC_SECONDS = "rpc_seconds", Coordinator, Histogram(TIMES), ["method"];
    /// Calls that have not ended: streams, above all.
    RPCS_OPEN = "rpcs_open", Coordinator, Gauge, ["method"];
    /// Connections that are open.
    CONNECTIONS = "connections", Coordinator, Gauge, [];
    /// Connections that were closed, because there were too many.
    CONNECTIONS_REFUSED = "connections_refused_total", Coordinator, Counter, [];
    /// Calls that were refused before any service saw them, by why.
    REFUSALS = "refusals_total", Coordinator, Counter, ["reason"];
    /// Units whose result was handed in.
    WORKER_UNITS = "worker_units_total", Worker, Counter, [];
    /// Cells or tokens that were computed.
    WORKER_STEPS = "worker_steps_total", Worker, Counter, [];
    /// Time in seconds that the engine worked on a lease; the sum is how long it was busy.
    WORKER_LEASE_SECONDS = "worker_lease_seconds", Worker, Histogram(LONG_TIMES), [];
    /// Leases that the engine did not finish, by why.
    WORKER_FAILURES = "worker_failures_total", Worker, Counter, ["class"];
    /// Leases that the process holds.
    WORKER_LEASES = "worker_leases", Worker, Gauge, [];
    /// Streams to the coordinator that are open: 1 for each worker of the process.
    WORKER_CONNECTED = "worker_connected", Worker, Gauge, [];
    /// Streams to the coordinator that were opened after the first.
    WORKER_RECONNECTS = "worker_reconnects_total", Worker, Counter, [];
    /// Memory of a GPU that the worker computes on, in bytes.
    WORKER_DEVICE_MEMORY = "worker_device_memory_bytes", Worker, Gauge, ["device"];
    /// What of it is taken, by whomever.
    WORKER_DEVICE_MEMORY_TAKEN = "worker_device_memory_taken_bytes", Worker, Gauge, ["device"];
    /// The part of the last moments in which a GPU did something, 0 to 1, as its driver measures it.
    WORKER_DEVICE_BUSY = "worker_device_busy_ratio", Worker, Gauge, ["device"];
    /// Bytes of the objects in the worker's cache. Looked up once a minute, and when some were
    /// evicted.
    WORKER_CACHE_BYTES = "worker_cache_bytes", Worker, Gauge, [];
    /// Bytes of objects that this worker evicted from its cache, to stay within
    /// `worker.cache_size`.
    WORKER_CACHE_EVICTED = "worker_cache_evicted_bytes_total", Worker, Counter, [];
}

/// Every class of failure.
pub const FAILURE_CLASSES: &[FailureClass] = &[
    FailureClass::Transient,
    FailureClass::WorkerLost,
    FailureClass::Preempted,
    FailureClass::Backpressure,
    FailureClass::OutOfMemory,
    FailureClass::Invalid,
    FailureClass::Poison,
];

struct Installed {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();
const METADATA: Metadata<'static> = Metadata::new("palimpsest", Level::INFO, None);

/// Begins to keep the metrics of a program, for this whole process. A second call changes nothing.
pub fn install(program: Program) {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<f64> = bounds.iter().map(|bound| *bound as f64 / 1e6).collect();
            // It fails only for a histogram without bounds.
            builder = match builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &bounds)
            {
                Ok(builder) => builder,
                Err(error) => unreachable!("{}: {error}", metric.name),
            };
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if INSTALLED.set(Installed { recorder, handle }).is_err() {
        return;
    }
    for metric in METRICS {
        metric.describe();
        // What was never counted is 0, and not absent.
        if metric.labels.is_empty() && [program, Program::Any].contains(&metric.program) {
            match metric.kind {
                Kind::Counter => metric.add([], 0),
                Kind::Gauge => metric.set([], 0.0),
                Kind::Histogram(_) => {}
            }
        }
    }
    BUILD_INFO.set([env!("CARGO_PKG_VERSION")], 1.0);
}

/// Whether metrics are kept.
pub fn are_kept() -> bool {
    INSTALLED.get().is_some()
}

/// The metrics in Prometheus' text format; empty where none are kept.
pub fn render() -> String {
    INSTALLED
        .get()
        .map(|it| it.handle.render())
        .unwrap_or_default()
}

/// Puts observations where they are counted: to be called every few seconds, asked or not.
pub fn tidy() {
    if let Some(installed) = INSTALLED.get() {
        installed.handle.run_upkeep();
    }
}

impl Metric {
    fn describe(&self) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            let (name, help) = (self.name.into(), self.help.trim().into());
            match self.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
    }

    fn key<const N: usize>(&self, values: [&'static str; N]) -> Key {
        debug_assert_eq!(N, self.labels.len(), "{}", self.name);
        let labels = self.labels.iter().zip(values);
        let labels: Vec<Label> = labels
            .map(|(label, value)| Label::from_static_parts(label, value))
            .collect();
        Key::from_parts(self.name, labels)
    }

    /// Counts so many more. `values` are those of the labels.
    pub fn add<const N: usize>(&self, values: [&'static str; N], more: u64) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            recorder
                .register_counter(&self.key(values), &METADATA)
                .increment(more);
        }
    }

    /// Says what a counter has come to that is kept elsewhere.
    pub fn reach<const N: usize>(&self, values: [&'static str; N], total: u64) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            recorder
                .register_counter(&self.key(values), &METADATA)
                .absolute(total);
        }
    }

    /// Says how much there is now.
    pub fn set<const N: usize>(&self, values: [&'static str; N], now: f64) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            recorder
                .register_gauge(&self.key(values), &METADATA)
                .set(now);
        }
    }

    /// Says that there is so much more, or less, than before.
    pub fn change<const N: usize>(&self, values: [&'static str; N], by: f64) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            recorder
                .register_gauge(&self.key(values), &METADATA)
                .increment(by);
        }
    }

    /// Notes an observation.
    pub fn observe<const N: usize>(&self, values: [&'static str; N], value: f64) {
        if let Some(Installed { recorder, .. }) = INSTALLED.get() {
            recorder
                .register_histogram(&self.key(values), &METADATA)
                .record(value);
        }
    }
}

/// What one of several adds to a gauge that is the sum of them all, for as long as it is here.
#[derive(Debug)]
pub struct Part {
    of: &'static Metric,
    now: f64,
}

impl Part {
    /// Nothing yet, of a gauge without labels.
    pub fn of(metric: &'static Metric) -> Self {
        Self {
            of: metric,
            now: 0.0,
        }
    }

    /// Says how much it is now.
    pub fn set(&mut self, now: f64) {
        self.of.change([], now - self.now);
        self.now = now;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

/// Memory of this process that is in RAM, in bytes; 0 where it cannot be told.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = resident.and_then(|rest| rest.trim().strip_suffix("kB"));
    kibibytes
        .and_then(|it| it.trim().parse::<u64>().ok())
        .unwrap_or_default()
        << 10
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_labels_follow_the_conventions_of_prometheus() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name stands twice");
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("palimpsest_"), "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            for part in [
                "milli", "micro", "_ms", "_us", "minutes", "kib", "mib", "percent",
            ] {
                assert!(!name.contains(part), "{name} is in no base unit");
            }
            if metric.help.contains("Time in") {
                assert!(
                    name.ends_with("_seconds") && metric.help.contains("seconds"),
                    "{name}"
                );
            }
            if metric.help.contains("Bytes") {
                let what = name.trim_end_matches("_total");
                assert!(what.ends_with("_bytes"), "{name}");
            }
            assert!(
                metric.help.trim().ends_with('.') && !metric.help.contains('\n'),
                "{name}"
            );
            for label in metric.labels {
                let bounded = [
                    "state",
                    "class",
                    "device",
                    "invariant",
                    "method",
                    "code",
                    "reason",
                    "version",
                ];
                assert!(
                    bounded.contains(label),
                    "{name}: may {label} have any value?"
                );
            }
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
    }
}
