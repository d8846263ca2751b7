//! The sessions, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Sessions;

impl Sessions {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        for (number, session) in &self.sessions {
            let open = if session.open { "open" } else { "closed" };
            let role = session.role.map_or(0, |role| role as u8);
            let (generation, sequence) = (session.generation, session.sequence);
            lines.push(format!(
                "session {number} {open} role {role} generation {generation} sequence {sequence}"
            ));
        }
    }
}
