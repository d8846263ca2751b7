//! How a check fails: every check of this crate that refuses something the host did goes through here.

use crate::key::Key;
use crate::violation::ViolationCode;

/// A failed check, before the thread adds where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub code: ViolationCode,
    /// The record concerned; the root where none is.
    pub key: Key,
}

impl Fault {
    pub const fn new(code: ViolationCode, key: Key) -> Self {
        Self { code, key }
    }
}

/// Whether the check of this name is left out. The tests do so, one at a time, to show that each is needed; other builds cannot.
#[cfg(not(test))]
pub(crate) const fn left_out(_name: &str) -> bool {
    false
}
#[cfg(test)]
pub(crate) use crate::tests::left_out::left_out;

/// `holds!(name: condition)`: whether the condition holds. Names are unique.
macro_rules! holds {
    ($name:ident: $condition:expr) => {
        $condition || $crate::check::left_out(stringify!($name))
    };
}

/// `check!(name: condition, else Code(key))`: go on if the condition holds, else return that fault.
macro_rules! check {
    ($name:ident: $condition:expr, else $code:ident($key:expr)) => {
        if !$crate::check::holds!($name: $condition) {
            return Err($crate::check::Fault::new($crate::violation::ViolationCode::$code, $key));
        }
    };
}

pub(crate) use {check, holds};
