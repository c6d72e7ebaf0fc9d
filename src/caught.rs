//! Panics of libraries that are caught where they are called: nothing of them is printed, for what
//! the caller says of them is the message.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library that panics over what it does not expect. [`None`] where it did; the panic is
/// not printed, unless it happens on another thread.
pub fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(call)).ok();
    QUIET.set(before);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_library_is_caught_and_later_ones_are_heard_again() {
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(
            caught(|| -> u8 { panic!("an assertion of a library") }),
            None
        );
        assert!(!QUIET.get());
    }
}
