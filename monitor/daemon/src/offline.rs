//! What an operator asks of the monitor while no service runs: what a sealed state is, and to go on from an old one all the same.
//!
//! Invariants: the state directory is locked meanwhile, so no monitor runs on it. An override does not move the register, but where the
//! operator says that it is lost; so until the new state is started from, nothing has happened.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use zetakv_verifier::machine::Role;

use crate::error::Error;
use crate::files::read_client_key;
use crate::identity::{IncarnationId, to_hex};
use crate::log::log;
use crate::overrides::{Decision, Override};
use crate::register::Commitment;
use crate::sealed::{SealedState, Standing, sealed_hash};
use crate::state_dir::StateDirectory;

const NOT_OURS: Error = Error::Refused(
    "the sealed state was changed, or is not of this monitor: is it another store's, or the monitor's state directory?",
);

/// Open a sealed state of this monitor.
pub fn open(directory: &StateDirectory, sealed: &[u8]) -> Result<SealedState, Error> {
    SealedState::open_own(sealed, &directory.identity).map_err(|_| NOT_OURS)
}

impl Standing {
    const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Next => "next",
            Self::Overrides => "override",
            Self::Behind => "rolled_back",
        }
    }
}

/// What a sealed state is, and whether a service would start from it: one line of JSON.
pub fn inspect(directory: &StateDirectory, sealed: &[u8]) -> Result<String, Error> {
    let state = open(directory, sealed)?;
    let history = state.certify(&directory.identity)?.1;
    let committed = directory.register().read();
    let (standing, register) = match &committed {
        Ok(committed) => {
            let standing = Standing::of(&state, &sealed_hash(sealed), committed).name();
            let text = to_hex(&[committed.sealed.as_slice(), &committed.incarnation].concat());
            (standing, format!("\"{text}\""))
        }
        Err(error) => {
            log(error);
            ("register_unreadable", "null".to_owned())
        }
    };
    let statements: Vec<_> = state
        .overrides
        .iter()
        .map(|it| format!("\"{}\"", to_hex(it.statement())))
        .collect();
    Ok(format!(
        "{{\"instance\": \"{}\", \"epoch\": {}, \"head\": \"{}\", \"incarnation\": \"{}\", \"standing\": \"{standing}\", \
         \"register\": {register}, \"clients\": {}, \"overrides\": [{}]}}",
        to_hex(&state.instance),
        history.epoch,
        to_hex(&history.head),
        to_hex(&state.incarnation),
        state.clients.count(),
        statements.join(", ")
    ))
}

/// Go on from an old sealed state: a new one, of a new instance, which the monitor accepts in place of what the register commits to now.
pub fn override_rollback(
    directory: &StateDirectory,
    sealed: &[u8],
    admin_key: &Path,
    reason: &str,
    register_lost: bool,
) -> Result<Vec<u8>, Error> {
    let mut state = open(directory, sealed)?;
    let replaced = replaced(directory, &state, sealed, register_lost)?;
    let admin = read_client_key(admin_key)?.ok_or_else(|| Error::state(admin_key, "there is no such file"))?;
    if state.clients.role(&admin.verifying_key().to_bytes()) != Some(Role::Admin) {
        return Err(Error::Refused(
            "the key is not that of an admin in this sealed state: an admin must sign an override",
        ));
    }
    let history = state.certify(&directory.identity)?.1;
    let decision = Decision {
        old_instance: state.instance,
        epoch: history.epoch,
        head: history.head,
        replaced,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |it| it.as_secs()),
        reason: reason.to_owned(),
    };
    let signed = Override::sign(&decision, &admin)
        .map_err(|_| Error::Refused("a reason of 1 to 200 bytes is needed: every client is told"))?;
    log(format_args!(
        "override: instance {} continues instance {} from epoch {}; later epochs are lost; admin {}; reason: {reason:?}",
        to_hex(&signed.new_instance()),
        to_hex(&decision.old_instance),
        decision.epoch,
        to_hex(&signed.admin_key)
    ));
    state.instance = signed.new_instance();
    state.tags.clear(); // nothing that ran on the branch that is given up is replayed on this one
    state.overrides.push(signed).map_err(|_| {
        Error::Refused("this store has been overridden as often as it can be: copy its data to a new one")
    })?;
    let overriding = state.seal(&directory.identity.sealing_key)?;
    if register_lost {
        directory.register().initialize(&Commitment {
            sealed: sealed_hash(&overriding),
            incarnation: IncarnationId::default(),
        })?;
    }
    Ok(overriding)
}

/// What the statement says of the register; zeros if it is lost.
fn replaced(
    directory: &StateDirectory,
    state: &SealedState,
    sealed: &[u8],
    register_lost: bool,
) -> Result<Commitment, Error> {
    match directory.register().read() {
        Ok(_) if register_lost => Err(Error::Refused(
            "the register is there and can be read: leave --register-lost out",
        )),
        Ok(committed) if Standing::of(state, &sealed_hash(sealed), &committed) != Standing::Behind => Err(
            Error::Refused("the service starts from this sealed state: there is nothing to override"),
        ),
        Ok(committed) => Ok(committed),
        Err(error) if register_lost => {
            log(format_args!("the register is given up: {error}"));
            Ok(Commitment::default())
        }
        Err(error) => Err(error),
    }
}
