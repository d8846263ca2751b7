//! The chain over what a thread admits: what lets a host keep requests in a write-ahead log, and replay them after a crash.
//!
//! Each request that is admitted or refused, and the mark of each incarnation, moves the *tag*, a MAC under a key that never leaves the
//! monitor. So a tag that the host shows proves all that came before it, with outcomes and order, back to the sealed state, which holds the
//! tag at its end. And what a live incarnation did not replay never comes back: every later tag has that incarnation's mark.
//!
//! It does not know sessions: that a request is authentic was checked by the incarnation that admitted it, and the tag says so.

#[cfg(test)]
#[path = "tests/driver/observe/chain.rs"]
mod observe;

use alloc::collections::BTreeMap;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::check::{Fault, check};
use crate::crypto::{Crypto, Mac, MacKey};
use crate::entry::ThreadId;
use crate::key::{Key, KeyHash};
use crate::machine::Role;
use crate::request::MacDomain;
use crate::violation::ViolationCode;

/// Names one run of the service.
pub type Incarnation = [u8; 16];

/// Last byte of each step.
const START: u8 = 0;
const MARK: u8 = 1;
const REQUEST: u8 = 2;

/// What a thread with a write-ahead log starts from.
pub struct LogConfig {
    /// The key of all tags.
    pub key: Zeroizing<MacKey>,
    /// Number of threads: a power of two, at most 256.
    pub threads: u16,
    /// The store's instance: an override begins another, and none of its old log comes back.
    pub instance: [u8; 16],
    /// This incarnation.
    pub incarnation: Incarnation,
    /// The incarnation that made the sealed state, and may have admitted what comes first; zeros if there is none.
    pub sealed_by: Incarnation,
    /// The tag of this thread in the sealed state; `None` if that has none of as many threads.
    pub tag: Option<Mac>,
    /// The incarnation whose mark must be in what is replayed: the latest; `None` if `tag` comes after it.
    pub latest: Option<Incarnation>,
}

/// What was replayed of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The incarnation that it is of.
    pub incarnation: Incarnation,
    /// Its last sequence.
    pub sequence: u64,
}

/// By session.
pub type ReplayedSessions = BTreeMap<u64, Replayed>;

/// Until the end of the replay.
struct Replay {
    /// The incarnation whose mark is still to come.
    latest: Option<Incarnation>,
    /// The one that admitted what comes now.
    current: Incarnation,
}

pub(crate) struct Chain {
    key: Zeroizing<MacKey>,
    thread: ThreadId,
    threads: u16,
    incarnation: Incarnation,
    tag: Mac,
    /// Whether the tag has moved since it was told.
    untold: bool,
    replay: Option<Replay>,
    replayed: ReplayedSessions,
    replayed_are_handed_over: bool,
}

impl Chain {
    pub fn new<C: Crypto>(config: LogConfig, thread: ThreadId, crypto: &C) -> Self {
        let mut chain = Self {
            key: config.key,
            thread,
            threads: config.threads,
            incarnation: config.incarnation,
            tag: config.tag.unwrap_or(config.instance),
            untold: false,
            replay: Some(Replay {
                latest: config.latest,
                current: config.sealed_by,
            }),
            replayed: ReplayedSessions::new(),
            replayed_are_handed_over: false,
        };
        if config.tag.is_none() {
            chain.step(crypto, START, &[&thread.to_le_bytes(), &chain.threads.to_le_bytes()]);
        }
        chain
    }

    fn step<C: Crypto>(&mut self, crypto: &C, kind: u8, fields: &[&[u8]; 2]) {
        let parts = [fields[0], fields[1], self.tag.as_slice(), &[kind]];
        self.tag = crypto.mac(&self.key, MacDomain::Log, &parts);
    }

    fn request_step<C: Crypto>(&mut self, crypto: &C, role: Option<Role>, request: &[u8]) {
        self.step(crypto, REQUEST, &[request, &[role.map_or(0, |role| role as u8)]]);
    }

    /// A request was admitted in a role, or refused.
    pub fn admitted<C: Crypto>(&mut self, crypto: &C, role: Option<Role>, request: &[u8]) {
        self.request_step(crypto, role, request);
        self.untold = true;
    }

    /// Whether a key is in the partitions of this thread. Operations on others are not admitted: threads replay their logs each for itself,
    /// so all operations on a record must be in one log.
    pub fn owns(&self, key: &KeyHash) -> bool {
        (u32::from(key[0]) * u32::from(self.threads)) >> 8 == u32::from(self.thread)
    }

    pub const fn tag(&self) -> &Mac {
        &self.tag
    }

    /// The tag, if it has moved since the last call.
    pub fn take_untold(&mut self) -> Option<Mac> {
        core::mem::take(&mut self.untold).then_some(self.tag)
    }

    pub const fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    fn replay(&mut self) -> Result<&mut Replay, Fault> {
        let not_replaying = Fault::new(ViolationCode::NotReplaying, Key::ROOT);
        self.replay.as_mut().ok_or(not_replaying)
    }

    /// What follows was admitted by this incarnation.
    pub fn mark<C: Crypto>(&mut self, crypto: &C, incarnation: &Incarnation) -> Result<(), Fault> {
        let replay = self.replay()?;
        replay.current = *incarnation;
        replay.latest.take_if(|latest| latest == incarnation);
        self.step(crypto, MARK, &[incarnation, &[]]);
        Ok(())
    }

    /// A request was admitted in a role, or refused, by the incarnation that is marked.
    pub fn replayed<C: Crypto>(
        &mut self,
        crypto: &C,
        role: Option<Role>,
        request: &[u8],
        session: u64,
        sequence: u64,
    ) -> Result<(), Fault> {
        let incarnation = self.replay()?.current;
        let replayed = Replayed { incarnation, sequence };
        self.replayed.insert(session, replayed);
        self.request_step(crypto, role, request);
        Ok(())
    }

    /// The replay has ended: what was replayed must be what the latest incarnation admitted and told this tag of. Then this one begins.
    pub fn end_replay<C: Crypto>(&mut self, crypto: &C, tag: &Mac) -> Result<(), Fault> {
        let latest_is_in = self.replay()?.latest.is_none();
        let nothing = self.replayed.is_empty();
        let is_tag = bool::from(self.tag.ct_eq(tag)); // the host has not been told the tag of what it makes up
        check!(replay_is_what_was_logged: nothing || is_tag, else LogChanged(Key::ROOT));
        check!(replay_has_latest_mark: nothing || latest_is_in, else LogChanged(Key::ROOT));
        self.replay = None;
        let incarnation = self.incarnation;
        self.step(crypto, MARK, &[&incarnation, &[]]);
        self.untold = true;
        Ok(())
    }

    pub const fn replayed_sessions(&self) -> &ReplayedSessions {
        &self.replayed
    }

    /// The last sequences that were replayed, once: they are handed over with the epoch that they ran in.
    pub fn hand_over(&mut self) -> impl Iterator<Item = (u64, u64)> {
        let is_first = !core::mem::replace(&mut self.replayed_are_handed_over, true);
        let replayed = self.replayed.iter().filter(move |_| is_first);
        replayed.map(|(session, last)| (*session, last.sequence))
    }
}
