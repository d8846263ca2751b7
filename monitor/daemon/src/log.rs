//! Lines for the operator, on standard error.
//!
//! Nothing secret is ever formatted here: errors and violations hold none. A line that cannot be written is lost. One that nobody
//! reads can hold up whoever writes it, so nothing that others must know waits for a line.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Write a line.
pub fn log(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "zetakv-monitor: {text}");
}
