//! How often somebody may ask: a bucket of permits a principal, filled at a steady rate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// The permits of all principals. There are as many as there are tokens and certificates.
#[derive(Debug)]
pub struct Rate {
    /// Permits a second, and most that a bucket holds.
    per_second: u32,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    permits: f64,
    filled: Timestamp,
}

impl Rate {
    /// So many requests a second for each principal, and as many at once after a pause.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            buckets: Mutex::default(),
        }
    }

    /// The requests a second.
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes a permit of a principal.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, principal: &str, now: Timestamp) -> Result<(), Duration> {
        let rate = f64::from(self.per_second);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(principal) {
            let full = Bucket {
                permits: rate,
                filled: now,
            };
            buckets.insert(principal.to_owned(), full);
        }
        let Some(bucket) = buckets.get_mut(principal) else {
            return Ok(());
        };
        // A clock that was set back fills nothing.
        let passed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.permits = (bucket.permits + passed * rate).min(rate);
        bucket.filled = now;
        if bucket.permits < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.permits) / rate));
        }
        bucket.permits -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_as_many_requests_as_were_promised_and_others_lose_none() {
        let rate = Rate::new(10);
        let at = |millis: i64| Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap();
        let taken = |name: &str, millis: i64| rate.take(name, at(millis)).is_ok();
        assert_eq!((0..100).filter(|_| taken("ada", 0)).count(), 10);
        let wait = rate.take("ada", at(0)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(taken("bob", 0));
        assert!(!taken("ada", 99) && taken("ada", 200) && taken("ada", 200) && !taken("ada", 200));
        // Over a long time: 10 a second, however often it is tried.
        let tried = (0..10_000).map(|n| 300 + n);
        assert_eq!(tried.filter(|n| taken("ada", *n)).count(), 100);
        // A pause gives one second's worth, not more.
        assert_eq!((0..100).filter(|_| taken("ada", 1_000_000)).count(), 10);
        // A clock that was set back gives nothing, and takes nothing for ever.
        assert!(!taken("ada", 500) && taken("ada", 700));
    }
}
