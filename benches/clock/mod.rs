//! Time and memory, as the benches measure them.
#![allow(dead_code)] // no bench needs all of it

use std::time::Instant;

/// Measures work: CPU time of this thread while it computes alone, the clock when it does not.
pub struct Clock {
    pub threads: i32,
    start: Instant,
}

impl Clock {
    pub fn new(threads: i32) -> Self {
        Self {
            threads,
            start: Instant::now(),
        }
    }

    pub fn said(&self) -> &'static str {
        match self.threads {
            1 => "CPU time",
            _ => "by the clock",
        }
    }

    pub fn time<T>(&self, work: impl FnOnce() -> T) -> (T, f64) {
        let start = self.now();
        let done = work();
        (done, self.now() - start)
    }

    /// Seconds of this thread on a CPU, or by the clock when it is not alone.
    pub fn now(&self) -> f64 {
        let cpu = || -> Option<f64> {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
            Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
        };
        match self.threads {
            1 => cpu(),
            _ => None,
        }
        .unwrap_or_else(|| self.start.elapsed().as_secs_f64())
    }
}

/// Bytes of this process, as the kernel names them: `VmHWM:` for the most that it ever had.
pub fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0)
}

pub fn peak_memory() -> String {
    format!("{:.2} GiB", memory("VmHWM:") / f64::from(1 << 30))
}
