//! The worker that was refused last, for people who wait for one.

use std::sync::{Arc, Mutex, PoisonError};

use crate::text;

/// Most bytes of a name, and of why it was refused.
const NAME: usize = 80;
const WHY: usize = 500;

/// Which worker was refused last, and why; nothing once one was let in after it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastRefused(Arc<Mutex<Option<String>>>);

impl LastRefused {
    /// Notes a refusal. The name is empty where it was not said.
    pub fn note(&self, worker: &str, why: &str) {
        let named = match worker {
            "" => String::new(),
            name => format!(" ({})", text::cut(name, NAME)),
        };
        let said = format!(
            "The last worker that tried{named} was refused: {}.",
            text::cut(why, WHY).trim_end_matches('.')
        );
        // It is printed on terminals.
        let printable = said
            .chars()
            .map(|it| if it.is_control() { ' ' } else { it });
        self.set(Some(printable.collect()));
    }

    /// Notes that a worker was let in.
    pub fn forget(&self) {
        self.set(None);
    }

    /// What there is to say.
    pub fn said(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    fn set(&self, said: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_is_said_until_a_worker_is_let_in() {
        let refused = LastRefused::default();
        assert_eq!(refused.said(), None);
        refused.note("w1", "it speaks protocol 1\x1b[2J: upgrade it.");
        let said = refused.clone().said().unwrap_or_default();
        let expected = "The last worker that tried (w1) was refused: it speaks protocol 1 [2J: \
                        upgrade it.";
        assert_eq!(said, expected);
        refused.note("", &"x".repeat(1 << 20));
        assert!(refused.said().is_some_and(|said| said.len() < 600));
        refused.forget();
        assert_eq!(refused.said(), None);
    }
}
