//! Leaving out checks, by their names, for the current test.

use core::cell::RefCell;
use std::vec::Vec;

std::thread_local! {
    static NAMES: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Whether the check of this name is left out.
pub(crate) fn left_out(name: &str) -> bool {
    NAMES.with_borrow(|names| names.contains(&name))
}

/// Run with these checks left out.
pub(crate) fn without<T>(checks: &[&'static str], run: impl FnOnce() -> T) -> T {
    /// Puts them back, even if `run` panics.
    struct PutBack;
    impl Drop for PutBack {
        fn drop(&mut self) {
            NAMES.with_borrow_mut(Vec::clear);
        }
    }
    NAMES.with_borrow_mut(|names| names.extend_from_slice(checks));
    let _put_back = PutBack;
    run()
}
