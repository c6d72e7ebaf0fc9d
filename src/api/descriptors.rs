//! File descriptors: every connection needs one, and so does every file of the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for the store where there are enough; half of them where there are
/// few.
const FOR_THE_STORE: u64 = 1024;

/// Raises this process's limit of open descriptors as far as the system lets it, and gives it.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    now.unwrap_or(u64::MAX)
}

/// How many connections each of so many ports may have, where `asked` are wanted and this process
/// may have `limit` descriptors: the store keeps its own.
pub fn connections(limit: u64, asked: usize, ports: usize) -> usize {
    let kept = (limit / 2).min(FOR_THE_STORE);
    let fit = (limit - kept) / ports.max(1) as u64;
    asked.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_store_its_descriptors() {
        assert_eq!(connections(u64::MAX, 4096, 1), 4096);
        assert_eq!(connections(8000, 4096, 1), 4096);
        assert_eq!(connections(8000, 4096, 2), 3488);
        assert_eq!(connections(1024, 4096, 1), 512);
        assert_eq!(connections(1024, 40, 2), 40);
        assert_eq!(connections(0, 40, 1), 1);
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise_limit(), most);
        let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert_eq!(now, most);
    }
}
