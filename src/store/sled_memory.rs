//! Memory that sled no longer needs.
//!
//! sled leaves every page that it replaces to crossbeam's epochs, which look for such garbage once
//! in 128 operations and free at most 512 pieces then. A batch is one operation, however large: of
//! ten thousand writes in a batch all but a few pieces would stay, and memory would grow with every
//! batch (measured: 13 KB for a task). So whoever writes a batch frees what it left.

/// Pieces that one look frees, at most.
const PIECES: usize = 512;
/// Pieces that a write leaves, generously.
const LEFT_BY_A_WRITE: usize = 8;

/// Frees what a batch of so many writes has left. To be called on the thread that wrote it.
pub(super) fn free(writes: usize) {
    // Three looks more, because garbage is only freed two epochs after it was left.
    for _ in 0..writes * LEFT_BY_A_WRITE / PIECES + 3 {
        crossbeam_epoch::pin().flush();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Change, Store, TaskRecord};

    /// Resident memory of this process in bytes.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        let kibibytes = line.unwrap().trim().strip_suffix("kB").unwrap();
        kibibytes.trim().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn records_that_are_written_again_and_again_take_no_more_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = |time: u64| {
            let record = TaskRecord {
                epoch: time,
                last_failure: "x".repeat(100),
                ..TaskRecord::default()
            };
            let change = |n| Change::Task(uuid::Uuid::from_u128(1), n, record.clone());
            store
                .commit(&(0..2_000).map(change).collect::<Vec<_>>())
                .unwrap();
        };
        (0..10).for_each(write);
        let before = resident();
        (10..60).for_each(write);
        let grown = resident().saturating_sub(before);
        // Uncollected it was 76 MB.
        assert!(grown < 30 << 20, "{} MB", grown >> 20);
    }
}
