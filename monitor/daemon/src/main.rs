//! `zetakv-monitor`: reads its arguments, sets up its state directory, listens, and says so.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use lexopt::prelude::{Long, ValueExt as _};
use zetakv_monitor::error::Error;
use zetakv_monitor::log::log;
use zetakv_monitor::monitor::Monitor;
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_monitor::stream::{Address, Listener};

const USAGE: &str = "\
The monitor of ZetaKV: the trusted process that verifies what the host does.

zetakv-monitor --state DIR (--socket PATH | --listen HOST:PORT) [--open] [--exit-on-stdin-eof]

  --state DIR           its keys and its register; set up at the first start
  --socket PATH         listen for the host on a Unix socket
  --listen HOST:PORT    listen for the host on TCP (port 0: a free one)
  --open                let clients without a key read and write
  --exit-on-stdin-eof   exit when standard input ends, as when the parent process does

When it listens it prints one line: {\"ready\": true, \"fingerprint\": \"...\"}, on TCP with \"address\".
";

struct Arguments {
    state: PathBuf,
    address: Address,
    open: bool,
    exit_on_stdin_eof: bool,
}

/// `None`: help was asked for.
fn parse_arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let (mut state, mut address, mut open, mut exit_on_stdin_eof) = (None, None, false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("state") => state = Some(PathBuf::from(parser.value()?)),
            Long("socket") if address.is_none() => address = Some(Address::Socket(parser.value()?.into())),
            Long("listen") if address.is_none() => address = Some(Address::Tcp(parser.value()?.string()?)),
            Long("open") => open = true,
            Long("exit-on-stdin-eof") => exit_on_stdin_eof = true,
            Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(Arguments {
        state: state.ok_or("--state is missing")?,
        address: address.ok_or("--socket or --listen is missing")?,
        open,
        exit_on_stdin_eof,
    }))
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let monitor = Arc::new(Monitor::new(StateDirectory::open(&arguments.state)?, arguments.open));
    let listener = Listener::bind(&arguments.address)?;
    if arguments.open {
        log(format_args!(
            "OPEN: anyone who reaches the server may read and write, without a key"
        ));
    }
    if arguments.exit_on_stdin_eof {
        let address = arguments.address.clone();
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || exit_after_stdin(&address))?;
    }
    let address = listener
        .tcp_address()
        .map(|address| format!(", \"address\": \"{address}\""));
    writeln!(
        io::stdout(),
        "{{\"ready\": true, \"fingerprint\": \"{}\"{}}}",
        monitor.identity().fingerprint(),
        address.unwrap_or_default()
    )?;
    io::stdout().flush()?;
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
    let result = match parse_arguments() {
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
