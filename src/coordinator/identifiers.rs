//! Identifiers of new jobs: of the time at which they are made, and after all that there are. Lists
//! show the newest first by the identifier alone, and a clock may have been set back since the
//! last.

use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// The random bits at an identifier's end.
const RANDOM: u128 = (1 << 62) - 1;

/// Makes identifiers that follow each other.
#[derive(Debug)]
pub(super) struct Identifiers(Mutex<Uuid>);

impl Identifiers {
    /// Those that follow this one.
    pub(super) fn after(newest: Option<Uuid>) -> Self {
        Self(Mutex::new(newest.unwrap_or_default()))
    }

    /// The next one.
    pub(super) fn next(&self) -> Uuid {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = following(*newest, Uuid::now_v7());
        *newest
    }
}

/// `now`, if it comes after `newest`; else the next one after that.
fn following(newest: Uuid, now: Uuid) -> Uuid {
    if now > newest {
        return now;
    }
    let bits = newest.as_u128();
    if bits & RANDOM < RANDOM {
        return Uuid::from_u128(bits + 1);
    }
    // The next millisecond, with the version and the variant of RFC 9562.
    let time = (bits >> 80).wrapping_add(1) << 80;
    Uuid::from_u128(time | 7 << 76 | 2 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_follows_the_newest_also_when_the_clock_was_set_back() {
        let ahead = Uuid::from_u128(Uuid::now_v7().as_u128() + (3_600_000 << 80));
        let identifiers = Identifiers::after(Some(ahead));
        let mut last = ahead;
        for _ in 0..1000 {
            let next = identifiers.next();
            assert!(next > last && next.get_version_num() == 7);
            last = next;
        }
        let full = Uuid::from_u128(ahead.as_u128() | RANDOM);
        let next = following(full, Uuid::now_v7());
        assert!(next > full && next.get_version_num() == 7);
        assert_eq!(next.get_variant(), uuid::Variant::RFC4122);
        let now = Uuid::now_v7();
        assert_eq!(following(Uuid::nil(), now), now);
        assert!(Identifiers::after(None).next() > now);
    }
}
