//! `zetakv-monitor-operator`, with both kinds of registers.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    zetakv_monitor_operator::main(zetakv_monitor_tpm::named)
}
