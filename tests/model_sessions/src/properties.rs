//! What must hold in every state.

use crate::host::{Config, Logs};
use crate::state::{Phase, State, Verdict};

/// What is wrong with a state that was reached from another, if anything is.
pub fn violated(before: &State, state: &State, config: &Config) -> Option<String> {
    let effects = state.seal(state.register.0).effects;
    for (op, (verdict, effects)) in state.client.verdicts.iter().zip(effects).enumerate() {
        if effects > 1 {
            return Some(format!("operation {op} takes effect {effects} times"));
        }
        if *verdict == Verdict::Lost && effects > 0 {
            return Some(format!(
                "operation {op} takes effect, though the client was told that it is lost"
            ));
        }
        if *verdict == Verdict::Certified && effects == 0 {
            return Some(format!(
                "operation {op} is certified to the client, and not in the sealed state"
            ));
        }
        let was_answered = matches!(before.client.verdicts[op], Verdict::Provisional { .. });
        if config.honest && config.logs == Logs::Always && was_answered && *verdict == Verdict::Lost {
            return Some(format!(
                "operation {op} was answered from a write-ahead log, and is lost, though the host is honest"
            ));
        }
    }
    for (place, one) in state.certificates.iter().enumerate() {
        for other in &state.certificates[..place] {
            if state.seal(*one).epoch == state.seal(*other).epoch {
                return Some(format!("epoch {} has two certificates", state.seal(*one).epoch));
            }
        }
    }
    if config.honest && state.client.phase == Phase::Alarmed {
        return Some("an honest host is accused by the client".to_owned());
    }
    None
}
