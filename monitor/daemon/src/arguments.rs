//! The command line of `zetakv-monitor`.

use std::path::PathBuf;

use lexopt::prelude::{Long, Value, ValueExt as _};

use crate::register::RegisterAddress;
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

While no service runs:

zetakv-monitor inspect --state DIR [--register REGISTER] < SEALED
  say what a sealed state is, and whether a service would start from it: one line of JSON

zetakv-monitor override --state DIR [--register REGISTER] --admin-key FILE --reason TEXT [--register-lost] < SEALED > NEW_SEALED
  go on from an old sealed state, as another instance; clients are told, and what was certified later is lost.
  --register-lost: the register is missing or unreadable; set it up again, for this state only

zetakv-monitor check --state DIR [--register REGISTER] < COPY
  say whether a copy's records in Blum are those that its sealed state carries over: one line of JSON
";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Serve hosts.
    Serve {
        /// Where to listen.
        address: Address,
        /// Whether clients without a key may read and write.
        open: bool,
        /// Whether to exit with the parent process.
        exit_on_stdin_eof: bool,
    },
    /// Say what a sealed state is.
    Inspect,
    /// Go on from an old sealed state.
    Override {
        /// File of the key that signs.
        admin_key: PathBuf,
        /// Why.
        reason: String,
        /// Whether to set the register up again.
        register_lost: bool,
    },
    /// Check a copy.
    Check,
}

/// The whole command line.
#[derive(Debug)]
pub struct Arguments {
    /// The state directory.
    pub state: PathBuf,
    /// The register.
    pub register: RegisterAddress,
    /// What to do.
    pub command: Command,
}

/// All options, before it is known whether they fit together.
#[derive(Default)]
struct Options {
    command: Option<String>,
    state: Option<PathBuf>,
    register: RegisterAddress,
    address: Option<Address>,
    open: bool,
    exit_on_stdin_eof: bool,
    admin_key: Option<PathBuf>,
    reason: Option<String>,
    register_lost: bool,
}

impl Arguments {
    /// Of this process. `None`: help was asked for.
    pub fn parse() -> Result<Option<Self>, lexopt::Error> {
        Self::from(lexopt::Parser::from_env())
    }

    fn from(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options::default();
        while let Some(argument) = parser.next()? {
            let serves = options.command.is_none();
            let overrides = options.command.as_deref() == Some("override");
            match argument {
                Value(command) if serves && options.state.is_none() => options.command = Some(command.string()?),
                Long("state") => options.state = Some(parser.value()?.into()),
                Long("register") => options.register = parser.value()?.parse()?,
                Long("socket") if serves && options.address.is_none() => {
                    options.address = Some(Address::Socket(parser.value()?.into()));
                }
                Long("listen") if serves && options.address.is_none() => {
                    options.address = Some(Address::Tcp(parser.value()?.string()?));
                }
                Long("open") if serves => options.open = true,
                Long("exit-on-stdin-eof") if serves => options.exit_on_stdin_eof = true,
                Long("admin-key") if overrides => options.admin_key = Some(parser.value()?.into()),
                Long("reason") if overrides => options.reason = Some(parser.value()?.string()?),
                Long("register-lost") if overrides => options.register_lost = true,
                Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        options.complete().map(Some)
    }
}

impl Options {
    fn complete(self) -> Result<Arguments, lexopt::Error> {
        let command = match self.command.as_deref() {
            None => Command::Serve {
                address: self.address.ok_or("--socket or --listen is missing")?,
                open: self.open,
                exit_on_stdin_eof: self.exit_on_stdin_eof,
            },
            Some("inspect") => Command::Inspect,
            Some("check") => Command::Check,
            Some("override") => Command::Override {
                admin_key: self.admin_key.ok_or("--admin-key is missing")?,
                reason: self.reason.ok_or("--reason is missing")?,
                register_lost: self.register_lost,
            },
            Some(_) => return Err("the commands are inspect, override and check".into()),
        };
        Ok(Arguments {
            state: self.state.ok_or("--state is missing")?,
            register: self.register,
            command,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Option<Arguments> {
        let words = std::iter::once("zetakv-monitor").chain(arguments.split(' '));
        Arguments::from(lexopt::Parser::from_iter(words)).ok().flatten()
    }

    #[test]
    fn commands_take_their_own_options() {
        let serve = parse("--state d --socket s --open").expect("complete");
        assert!(matches!(serve.command, Command::Serve { open: true, .. }));
        assert!(matches!(
            parse("inspect --state d").expect("complete").command,
            Command::Inspect
        ));
        assert!(matches!(
            parse("check --state d").expect("complete").command,
            Command::Check
        ));
        let overriding = parse("override --state d --admin-key k --reason r --register-lost").expect("complete");
        assert!(matches!(
            overriding.command,
            Command::Override {
                register_lost: true,
                ..
            }
        ));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        for arguments in [
            "--state d",
            "--socket s",
            "--state d --socket s --listen l",
            "inspect",
            "inspect --state d --socket s",
            "override --state d --admin-key k",
            "override --state d --reason r",
            "check --state d --reason r",
            "other --state d",
            "--state d --socket s inspect",
            "--state d --socket s --register paper",
        ] {
            assert!(parse(arguments).is_none(), "{arguments}");
        }
    }
}
