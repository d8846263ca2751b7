//! The chain of a write-ahead log, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Chain;
use crate::tests::driver::text;

impl Chain {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        let told = if self.untold { "untold" } else { "told" };
        let replay = match &self.replay {
            Some(replay) => {
                let latest = text::optional(replay.latest.map(|latest| text::data(&latest)));
                format!("replaying {} latest {latest}", text::data(&replay.current))
            }
            None => String::from("not replaying"),
        };
        let handed_over = if self.replayed_are_handed_over {
            "handed over"
        } else {
            "not handed over"
        };
        lines.push(format!("chain {} {told} {replay} {handed_over}", text::data(&self.tag)));
        for (session, replayed) in &self.replayed {
            let incarnation = text::data(&replayed.incarnation);
            lines.push(format!("replayed {session} {incarnation} {}", replayed.sequence));
        }
    }
}
