//! `zetakv-monitor`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    zetakv_monitor::program::main()
}
