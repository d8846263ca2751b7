//! `zetakv-monitor-operator`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    zetakv_monitor_operator::main()
}
