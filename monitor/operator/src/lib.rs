//! The operator's program: what an operator asks of the monitor while no service runs.
//!
//! A program of its own, so that none of it is in the process that serves a host. It is trusted wherever it is run, since it reads
//! `root.key`. The state directory is locked meanwhile, so no monitor runs on it.
//!
//! The library exists for the binary and for the tests; it is no interface for others.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod override_rollback;
pub mod sealed_states;

use std::fmt::Display;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use zetakv_monitor::register::RegisterNamed;
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_monitor::wire::LOG_BYTES_MAX;

use crate::arguments::{Arguments, Command, USAGE};

/// Why something was not done, for people.
pub type Error = Box<dyn std::error::Error>;

/// The whole program, where registers have these names.
pub fn main(register_named: RegisterNamed) -> ExitCode {
    let (text, code) = match Arguments::parse(register_named) {
        Ok(Some(arguments)) => match run(arguments) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (error.to_string(), 1),
        },
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => (format!("{error}\n\n{USAGE}"), 2),
    };
    log(text);
    ExitCode::from(code)
}

/// Write a line for the operator, which holds nothing secret.
pub fn log(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "zetakv-monitor-operator: {text}");
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let directory = StateDirectory::open_existing(&arguments.state, arguments.register)?;
    let mut input = io::stdin().lock();
    let answer = match arguments.command {
        Command::Check => check::check(&directory, input)?.into_bytes(),
        Command::Inspect => sealed_states::inspect(&directory, &read_sealed(&mut input)?)?.into_bytes(),
        Command::Override(wish) => override_rollback::override_rollback(&directory, &read_sealed(&mut input)?, &wish)?,
    };
    io::stdout().write_all(&answer)?;
    io::stdout().flush()?;
    Ok(())
}

/// The sealed state on standard input.
fn read_sealed(input: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::new();
    input.take(LOG_BYTES_MAX as u64).read_to_end(&mut sealed)?;
    Ok(sealed)
}
