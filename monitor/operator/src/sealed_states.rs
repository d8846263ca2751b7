//! What a sealed state is: read with the monitor's keys, and compared with its register.

use zetakv_monitor::identity::to_hex;
use zetakv_monitor::sealed::{NOT_OURS, SealedState, Standing, sealed_hash};
use zetakv_monitor::state_dir::StateDirectory;

use crate::{Error, log};

/// Open a sealed state of this monitor.
pub fn open(directory: &StateDirectory, sealed: &[u8]) -> Result<SealedState, Error> {
    SealedState::open_own(sealed, &directory.identity).map_err(|_| NOT_OURS.into())
}

const fn name(standing: Standing) -> &'static str {
    match standing {
        Standing::Latest => "latest",
        Standing::Next => "next",
        Standing::Overrides => "override",
        Standing::Behind => "rolled_back",
    }
}

/// What a sealed state is, and whether a service would start from it: one line of JSON.
pub fn inspect(directory: &StateDirectory, sealed: &[u8]) -> Result<String, Error> {
    let state = open(directory, sealed)?;
    let history = state.certify(&directory.identity)?.1;
    let committed = directory.register().read();
    let (standing, register) = match &committed {
        Ok(committed) => {
            let standing = name(Standing::of(&state, &sealed_hash(sealed), committed));
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
         \"register\": {register}, \"clients\": {}, \"overrides\": [{}]}}\n",
        to_hex(&state.instance),
        history.epoch,
        to_hex(&history.head),
        to_hex(&state.incarnation),
        state.clients.count(),
        statements.join(", ")
    ))
}
