//! The command line of `zetakv-monitor`.

use std::path::PathBuf;

use lexopt::prelude::{Long, ValueExt as _};

use crate::register::file::FileRegister;
use crate::register::{OpenRegister, RegisterNamed};
use crate::stream::Address;

/// What `--help` says.
pub const USAGE: &str = "\
The monitor of ZetaKV: the trusted process that verifies what the host does.

zetakv-monitor --state DIR [--register REGISTER] (--socket PATH | --listen HOST:PORT) [--open] [--exit-on-stdin-eof]

  --state DIR           its keys and its register; set up at the first start
  --register REGISTER   file (in the state directory; the default), tpm:PATH:INDEX (a device such as /dev/tpmrm0)
                        or tpm:HOST:PORT:INDEX; INDEX is an NV index like 0x01800100, defined at the first start
  --socket PATH         listen for the host on a Unix socket
  --listen HOST:PORT    listen for the host on TCP (port 0: a free one)
  --open                let clients without a key read and write
  --exit-on-stdin-eof   exit when standard input ends, as when the parent process does

When it listens it prints one line: {\"ready\": true, \"fingerprint\": \"...\"}, on TCP with \"address\".
";

/// The whole command line.
pub struct Arguments {
    /// The state directory.
    pub state: PathBuf,
    /// The register.
    pub register: OpenRegister,
    /// Where to listen.
    pub address: Address,
    /// Whether clients without a key may read and write.
    pub open: bool,
    /// Whether to exit with the parent process.
    pub exit_on_stdin_eof: bool,
}

impl Arguments {
    /// Of this process, where registers have these names. `None`: help was asked for.
    pub fn parse(register_named: RegisterNamed) -> Result<Option<Self>, lexopt::Error> {
        Self::from(lexopt::Parser::from_env(), register_named)
    }

    fn from(mut parser: lexopt::Parser, register_named: RegisterNamed) -> Result<Option<Self>, lexopt::Error> {
        let mut register: OpenRegister = Box::new(FileRegister::open);
        let (mut state, mut address) = (None, None);
        let (mut open, mut exit_on_stdin_eof) = (false, false);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("state") => state = Some(parser.value()?.into()),
                Long("register") => register = parser.value()?.parse_with(register_named)?,
                Long("socket") if address.is_none() => address = Some(Address::Socket(parser.value()?.into())),
                Long("listen") if address.is_none() => address = Some(Address::Tcp(parser.value()?.string()?)),
                Long("open") => open = true,
                Long("exit-on-stdin-eof") => exit_on_stdin_eof = true,
                Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(Self {
            state: state.ok_or("--state is missing")?,
            register,
            address: address.ok_or("--socket or --listen is missing")?,
            open,
            exit_on_stdin_eof,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(register: &str) -> Result<OpenRegister, &'static str> {
        match register {
            "file" => Ok(Box::new(FileRegister::open)),
            _ => Err("no such register"),
        }
    }

    fn parse(arguments: &str) -> Option<Arguments> {
        let words = std::iter::once("zetakv-monitor").chain(arguments.split(' '));
        Arguments::from(lexopt::Parser::from_iter(words), named).ok().flatten()
    }

    #[test]
    fn all_options() {
        let socket = parse("--state d --socket s --open").expect("complete");
        assert!(socket.open && !socket.exit_on_stdin_eof);
        assert_eq!(
            (socket.state, socket.address),
            ("d".into(), Address::Socket("s".into()))
        );
        let tcp = parse("--listen l --exit-on-stdin-eof --register file --state d").expect("complete");
        assert!(!tcp.open && tcp.exit_on_stdin_eof);
        assert_eq!(tcp.address, Address::Tcp("l".to_owned()));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        for arguments in [
            "--state d",
            "--socket s",
            "--state d --socket s --listen l",
            "--state d --socket s inspect",
            "inspect --state d",
            "--state d --socket s --reason r",
            "--state d --socket s --register paper",
        ] {
            assert!(parse(arguments).is_none(), "{arguments}");
        }
    }
}
