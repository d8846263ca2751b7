//! Failpoints: named moments at which a test lets the monitor die, or its disk fail. Only in builds with the feature `failpoints`; in a
//! release build nothing is left of them, not even the names (`tests/crash/test_failpoints.py` looks).

/// Here is a moment with this name, at which the disk may fail: an `io::Result<()>`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($point:literal) => {
        zetakv_failpoints::hit($point)
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($point:literal) => {
        std::io::Result::Ok(())
    };
}

pub(crate) use failpoint;
