//! The program `zetakv-monitor`: sets up its state directory, listens, and says so.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use crate::arguments::{Arguments, USAGE};
use crate::error::Error;
use crate::log::log;
use crate::monitor::Monitor;
use crate::register::RegisterNamed;
use crate::state_dir::StateDirectory;
use crate::stream::{Address, Listener};

fn serve(arguments: Arguments) -> Result<(), Error> {
    let directory = StateDirectory::open(&arguments.state, arguments.register)?;
    let monitor = Arc::new(Monitor::new(directory, arguments.open));
    let address = arguments.address;
    let listener = Listener::bind(&address)?;
    if arguments.open {
        log("OPEN: anyone who reaches the server may read and write, without a key");
    }
    if arguments.exit_on_stdin_eof {
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || exit_after_stdin(&address))?;
    }
    let address = listener
        .tcp_address()
        .map(|address| format!(", \"address\": \"{address}\""));
    let fingerprint = monitor.identity().fingerprint();
    let mut output = io::stdout();
    writeln!(
        output,
        "{{\"ready\": true, \"fingerprint\": \"{fingerprint}\"{}}}",
        address.unwrap_or_default()
    )?;
    output.flush()?;
    monitor.serve(&listener)
}

fn exit_after_stdin(address: &Address) {
    let _ = io::copy(&mut io::stdin(), &mut io::sink()); // an error ends it, too
    if let Address::Socket(path) = address {
        let _ = std::fs::remove_file(path); // the next start replaces it anyway
    }
    std::process::exit(0);
}

/// The whole program, where registers have these names.
pub fn main(register_named: RegisterNamed) -> ExitCode {
    // a panic is a bug, and a monitor with a bug must not go on with the threads that are left
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let result = match Arguments::parse(register_named) {
        Ok(Some(arguments)) => serve(arguments).map_err(|error| (error.to_string(), 1)),
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
