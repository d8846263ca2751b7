//! The command line of `zetakv-monitor-operator`.

use std::path::PathBuf;

use lexopt::prelude::{Long, Value, ValueExt as _};
use zetakv_monitor::register::file::FileRegister;
use zetakv_monitor::register::{OpenRegister, RegisterNamed};

use crate::override_rollback::Wish;

/// What `--help` says.
pub const USAGE: &str = "\
What an operator asks of the monitor of ZetaKV while no service runs. --register is that of zetakv-monitor.

zetakv-monitor-operator inspect --state DIR [--register REGISTER] < SEALED
  say what a sealed state is, and whether a service would start from it: one line of JSON

zetakv-monitor-operator override --state DIR [--register REGISTER] --admin-key FILE --reason TEXT [--register-lost] < SEALED > NEW_SEALED
  go on from an old sealed state, as another instance; clients are told, and what was certified later is lost.
  --register-lost: the register is missing or unreadable; set it up again, for this state only

zetakv-monitor-operator check --state DIR [--register REGISTER] < COPY
  say whether a copy's records in Blum are those that its sealed state carries over: one line of JSON
";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Say what a sealed state is.
    Inspect,
    /// Go on from an old sealed state.
    Override(Wish),
    /// Check a copy.
    Check,
}

/// The whole command line.
pub struct Arguments {
    /// What to do.
    pub command: Command,
    /// The monitor's state directory.
    pub state: PathBuf,
    /// Its register.
    pub register: OpenRegister,
}

impl Arguments {
    /// Of this process, where registers have these names. `None`: help was asked for.
    pub fn parse(register_named: RegisterNamed) -> Result<Option<Self>, lexopt::Error> {
        Self::from(lexopt::Parser::from_env(), register_named)
    }

    fn from(mut parser: lexopt::Parser, register_named: RegisterNamed) -> Result<Option<Self>, lexopt::Error> {
        let mut register: OpenRegister = Box::new(FileRegister::open);
        let (mut command, mut state) = (None, None);
        let (mut admin_key, mut reason, mut register_lost) = (None, None, false);
        while let Some(argument) = parser.next()? {
            let overrides = command.as_deref() == Some("override");
            match argument {
                Value(word) if command.is_none() => command = Some(word.string()?),
                Long("state") => state = Some(parser.value()?.into()),
                Long("register") => register = parser.value()?.parse_with(register_named)?,
                Long("admin-key") if overrides => admin_key = Some(parser.value()?.into()),
                Long("reason") if overrides => reason = Some(parser.value()?.string()?),
                Long("register-lost") if overrides => register_lost = true,
                Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        let command = match command.as_deref() {
            Some("inspect") => Command::Inspect,
            Some("check") => Command::Check,
            Some("override") => Command::Override(Wish {
                admin_key: admin_key.ok_or("--admin-key is missing")?,
                reason: reason.ok_or("--reason is missing")?,
                register_lost,
            }),
            _ => return Err("the commands are inspect, override and check".into()),
        };
        Ok(Some(Self {
            command,
            state: state.ok_or("--state is missing")?,
            register,
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
        let words = std::iter::once("zetakv-monitor-operator").chain(arguments.split(' '));
        Arguments::from(lexopt::Parser::from_iter(words), named).ok().flatten()
    }

    #[test]
    fn commands_take_their_own_options() {
        let inspecting = parse("inspect --state d").expect("complete");
        assert!(matches!(inspecting.command, Command::Inspect));
        let checking = parse("check --state d --register file").expect("complete");
        assert!(matches!(checking.command, Command::Check));
        let overriding = parse("override --state d --admin-key k --reason r --register-lost").expect("complete");
        let Command::Override(wish) = overriding.command else {
            panic!("not an override")
        };
        assert!(wish.register_lost && wish.reason == "r" && wish.admin_key == std::path::Path::new("k"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        for arguments in [
            "inspect",
            "--state d",
            "inspect --state d --socket s",
            "inspect check --state d",
            "override --state d --admin-key k",
            "override --state d --reason r",
            "check --state d --reason r",
            "other --state d",
            "inspect --state d --register paper",
        ] {
            assert!(parse(arguments).is_none(), "{arguments}");
        }
    }
}
