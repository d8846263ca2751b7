//! `zetakv-monitor`: sets up its state directory, listens, and says so; or answers one question of its operator.

#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use zetakv_monitor::arguments::{Arguments, Command, USAGE};
use zetakv_monitor::check::check;
use zetakv_monitor::error::Error;
use zetakv_monitor::log::log;
use zetakv_monitor::monitor::Monitor;
use zetakv_monitor::offline::{inspect, override_rollback};
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_monitor::stream::{Address, Listener};
use zetakv_monitor::wire::LOG_BYTES_MAX;

fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments {
        state,
        register,
        command,
    } = arguments;
    let existing = || StateDirectory::open_existing(&state, register.clone());
    match command {
        Command::Serve {
            address,
            open,
            exit_on_stdin_eof,
        } => serve(
            StateDirectory::open(&state, register)?,
            &address,
            open,
            exit_on_stdin_eof,
        ),
        Command::Inspect => print(format!("{}\n", inspect(&existing()?, &read_sealed()?)?)),
        Command::Check => print(format!("{}\n", check(&existing()?, io::stdin().lock())?)),
        Command::Override {
            admin_key,
            reason,
            register_lost,
        } => {
            let sealed = override_rollback(&existing()?, &read_sealed()?, &admin_key, &reason, register_lost)?;
            print(sealed)
        }
    }
}

/// The sealed state on standard input.
fn read_sealed() -> Result<Vec<u8>, Error> {
    let mut sealed = Vec::new();
    io::stdin().take(LOG_BYTES_MAX as u64).read_to_end(&mut sealed)?;
    Ok(sealed)
}

fn print(answer: impl AsRef<[u8]>) -> Result<(), Error> {
    io::stdout().write_all(answer.as_ref())?;
    io::stdout().flush()?;
    Ok(())
}

fn serve(directory: StateDirectory, address: &Address, open: bool, exit_on_stdin_eof: bool) -> Result<(), Error> {
    let monitor = Arc::new(Monitor::new(directory, open));
    let listener = Listener::bind(address)?;
    if open {
        log(format_args!(
            "OPEN: anyone who reaches the server may read and write, without a key"
        ));
    }
    if exit_on_stdin_eof {
        let address = address.clone();
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || exit_after_stdin(&address))?;
    }
    let address = listener
        .tcp_address()
        .map(|address| format!(", \"address\": \"{address}\""));
    print(format!(
        "{{\"ready\": true, \"fingerprint\": \"{}\"{}}}\n",
        monitor.identity().fingerprint(),
        address.unwrap_or_default()
    ))?;
    monitor.serve(&listener);
    Ok(())
}

fn exit_after_stdin(address: &Address) {
    let _ = io::copy(&mut io::stdin(), &mut io::sink()); // an error ends it, too
    if let Address::Socket(path) = address {
        let _ = std::fs::remove_file(path); // the next start replaces it anyway
    }
    std::process::exit(0);
}

fn main() -> ExitCode {
    // a panic is a bug, and a monitor with a bug must not go on with the threads that are left
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let result = match Arguments::parse() {
        Ok(Some(arguments)) => run(arguments).map_err(|error| (error.to_string(), 1)),
        Ok(None) => {
            print!("{USAGE}");
            Ok(())
        }
        Err(error) => Err((format!("{error}\n\n{USAGE}"), 2)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((text, code)) => {
            log(text);
            ExitCode::from(code)
        }
    }
}
