//! The sessions that the monitor knows: live ones, and ended ones whose clients may still ask what took effect.
//!
//! Invariants: session numbers are unique over all that is in one sealed state, and grow with time. The last sequences of a session are
//! those of the last epoch that held, so what is sealed is what that epoch covers, no more and no less.

use std::collections::BTreeMap;

use zetakv_verifier::ReplayedSessions;
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::{Crypto, MacKey};
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::{MacDomain, Rejection};

use crate::clients::UnverifiedAdminRequest;
use crate::handshake::{FormerAnswer, FormerClaim, FormerSequences};
use crate::identity::{IncarnationId, PublicKey, Secret};

/// Live sessions at the most: bounds the memory of the monitor.
pub const LIVE_MAX: usize = 4096;
/// Ended sessions that are remembered at the most; the oldest are forgotten first.
pub const ENDED_MAX: usize = 4096;
const _: () = assert!(
    LIVE_MAX <= ENDED_MAX,
    "all live sessions are remembered when the incarnation ends"
);

/// What outlives a session.
#[derive(Clone)]
pub struct EndedSession {
    /// The incarnation that it was of.
    pub incarnation: IncarnationId,
    /// Its client proves with this key to have been its client.
    pub former_key: Secret,
    /// For each thread, the last sequence that took effect.
    pub last_sequences: Vec<u64>,
}

/// Ended sessions by number, and so by age; and the number of the next session.
#[derive(Clone)]
pub struct EndedSessions {
    next_session: u64,
    /// No session of this number or a higher one was ever replayed from a write-ahead log.
    replayed_end: u64,
    sessions: BTreeMap<u64, EndedSession>,
}

impl Default for EndedSessions {
    fn default() -> Self {
        Self {
            next_session: 1, // 0 stands for no session
            replayed_end: 0,
            sessions: BTreeMap::new(),
        }
    }
}

impl EndedSessions {
    /// Bytes of the encoding.
    pub fn encoded_bytes(&self) -> usize {
        let session_bytes = |session: &EndedSession| 8 + 16 + 32 + 2 + 8 * session.last_sequences.len();
        20 + self.sessions.values().map(session_bytes).sum::<usize>()
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next_session.to_le_bytes());
        out.extend_from_slice(&self.replayed_end.to_le_bytes());
        out.extend_from_slice(&(self.sessions.len() as u32).to_le_bytes()); // at most ENDED_MAX
        for (number, session) in &self.sessions {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&session.incarnation);
            out.extend_from_slice(session.former_key.as_slice());
            out.extend_from_slice(&(session.last_sequences.len() as u16).to_le_bytes()); // one per thread
            for last in &session.last_sequences {
                out.extend_from_slice(&last.to_le_bytes());
            }
        }
    }

    /// Read sessions.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (next_session, replayed_end) = (reader.u64()?, reader.u64()?);
        let count = reader.u32()?;
        let mut sessions = BTreeMap::new();
        for _ in 0..count {
            let number = reader.u64()?;
            if sessions.last_key_value().is_some_and(|(last, _)| number <= *last) {
                return Err(Malformed);
            }
            let incarnation = *reader.array()?;
            let former_key = Secret::new(*reader.array()?);
            let threads = reader.u16()?;
            let last_sequences = (0..threads).map(|_| reader.u64()).collect::<Result<_, _>>()?;
            let session = EndedSession {
                incarnation,
                former_key,
                last_sequences,
            };
            sessions.insert(number, session);
        }
        Ok(Self {
            next_session,
            replayed_end,
            sessions,
        })
    }

    fn forget_oldest(&mut self, sessions_max: usize) {
        while self.sessions.len() > sessions_max {
            self.sessions.pop_first();
        }
    }
}

/// A session that a client may use.
pub struct LiveSession {
    /// What will outlive it.
    pub ending: EndedSession,
    /// The key of its client; `None` in open mode.
    pub client_key: Option<PublicKey>,
    /// What its client may do; `None` when its authorization was taken away.
    pub role: Option<Role>,
    /// For the MACs of admin requests and answers.
    pub admin_key: Secret,
    /// The last sequence of an admin request.
    pub admin_sequence: u64,
}

/// The sessions of an incarnation, and the ended ones of it and of those before.
pub struct Sessions {
    incarnation: IncarnationId,
    live: BTreeMap<u64, LiveSession>,
    ended: EndedSessions,
    /// What clients are told of the sessions that were replayed: the same as long as the incarnation lasts.
    replayed: BTreeMap<u64, FormerSequences>,
}

impl Sessions {
    /// At the start of an incarnation all sessions have ended.
    pub const fn new(incarnation: IncarnationId, ended: EndedSessions) -> Self {
        Self {
            incarnation,
            live: BTreeMap::new(),
            ended,
            replayed: BTreeMap::new(),
        }
    }

    /// Learn of sessions that the sealed state does not know yet, because they were opened later. Of the others it knows better, or has
    /// forgotten what took effect.
    pub fn learn(&mut self, mut opened: BTreeMap<u64, EndedSession>) {
        let opened_later = opened.split_off(&self.ended.next_session);
        if let Some((last, _)) = opened_later.last_key_value() {
            self.ended.next_session = last.saturating_add(1);
        }
        self.ended.sessions.extend(opened_later);
        self.ended.forget_oldest(ENDED_MAX);
    }

    /// Note what a thread replayed, in this epoch. Numbers are given again if a host drops a log and all tickets: so a session counts only
    /// with its incarnation.
    pub fn note_replayed(&mut self, thread: usize, replayed: &ReplayedSessions, epoch: u32) {
        for (number, last) in replayed {
            let end = number.saturating_add(1);
            self.ended.next_session = self.ended.next_session.max(end);
            self.ended.replayed_end = self.ended.replayed_end.max(end);
            let Some(session) = self.ended.sessions.get(number) else {
                continue;
            };
            if session.incarnation != last.incarnation {
                self.ended.sessions.remove(number);
                continue;
            }
            let known = self.replayed.entry(*number).or_insert_with(|| FormerSequences {
                last: session.last_sequences.clone(),
                replayed: session.last_sequences.clone(),
                replay_epoch: epoch,
            });
            if let Some(sequence) = known.replayed.get_mut(thread) {
                *sequence = last.sequence;
            }
        }
    }

    /// The number that the next session will have; `None` if there are too many.
    pub fn next(&self) -> Option<u64> {
        (self.live.len() < LIVE_MAX && self.ended.next_session < u64::MAX).then_some(self.ended.next_session)
    }

    /// Open a session, with the number of [`Self::next`].
    pub fn open(&mut self, session: LiveSession) {
        self.live.insert(self.ended.next_session, session);
        self.ended.next_session = self.ended.next_session.saturating_add(1);
    }

    /// End a session. False if it is not live.
    pub fn close(&mut self, number: u64) -> bool {
        let Some(session) = self.live.remove(&number) else {
            return false;
        };
        self.ended.sessions.insert(number, session.ending);
        self.ended.forget_oldest(ENDED_MAX);
        true
    }

    /// Answer who claims to have been the client of a session of an earlier incarnation. The answer never changes, so it may be asked for
    /// again by a client that lost the first one.
    pub fn answer_former<C: Crypto>(&self, claim: &FormerClaim<'_>, crypto: &C) -> FormerAnswer {
        let proves = |session: &&EndedSession| {
            session.incarnation == *claim.incarnation
                && session.incarnation != self.incarnation
                && crypto.mac_is(&session.former_key, MacDomain::Former, &[claim.covered], claim.proof)
        };
        let Some(session) = self.ended.sessions.get(&claim.session).filter(proves) else {
            return if claim.session < self.ended.replayed_end {
                FormerAnswer::UnknownMayBeReplayed
            } else {
                FormerAnswer::Unknown
            };
        };
        let replayed = self.replayed.get(&claim.session).cloned();
        FormerAnswer::Known(replayed.unwrap_or_else(|| FormerSequences {
            last: session.last_sequences.clone(),
            replayed: session.last_sequences.clone(),
            replay_epoch: 0,
        }))
    }

    /// Check that an admin request is its session's next; its sequence is then used up.
    pub fn authenticate<C: Crypto>(
        &mut self,
        request: &UnverifiedAdminRequest<'_>,
        crypto: &C,
    ) -> Result<&LiveSession, Rejection> {
        let session = self.live.get_mut(&request.session).ok_or(Rejection::UnknownSession)?;
        let admin_key: &MacKey = &session.admin_key;
        if !crypto.mac_is(admin_key, MacDomain::Admin, &[request.covered], request.mac) {
            return Err(Rejection::BadMac);
        }
        if session.admin_sequence.checked_add(1) != Some(request.sequence) {
            return Err(Rejection::BadSequence);
        }
        session.admin_sequence = request.sequence;
        Ok(session)
    }

    /// Take the role of all live sessions of a client away, and return the numbers of those that had one.
    pub fn take_role(&mut self, client_key: &PublicKey) -> Vec<u64> {
        let mut changed = Vec::new();
        for (number, session) in &mut self.live {
            if session.client_key.as_ref() == Some(client_key) && session.role.take().is_some() {
                changed.push(*number);
            }
        }
        changed
    }

    /// Note a session's last sequences, one per thread, as of an epoch that held.
    pub fn note_last_sequences(&mut self, number: u64, last_sequences: &[u64]) {
        let session = match self.live.get_mut(&number) {
            Some(live) => Some(&mut live.ending),
            None => self.ended.sessions.get_mut(&number), // which may be forgotten already
        };
        for (last, noted) in last_sequences
            .iter()
            .zip(session.into_iter().flat_map(|it| &mut it.last_sequences))
        {
            *noted = (*noted).max(*last); // a thread that has forgotten a closed session says 0
        }
    }

    /// All sessions, as those that have ended if the incarnation ends here. None that is live is forgotten, however old.
    pub fn to_ended(&self) -> EndedSessions {
        let mut all = self.ended.clone();
        all.forget_oldest(ENDED_MAX - self.live.len());
        let live = self
            .live
            .iter()
            .map(|(number, session)| (*number, session.ending.clone()));
        all.sessions.extend(live);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zetakv_verifier::standard_crypto::StandardCrypto;

    const NOW: IncarnationId = [2; 16];
    const BEFORE: IncarnationId = [1; 16];

    fn live(incarnation: IncarnationId) -> LiveSession {
        LiveSession {
            ending: EndedSession {
                incarnation,
                former_key: Secret::new([7; 32]),
                last_sequences: vec![0, 0],
            },
            client_key: Some([3; 32]),
            role: Some(Role::Write),
            admin_key: Secret::new([8; 32]),
            admin_sequence: 0,
        }
    }

    fn known(last: &[u64]) -> FormerAnswer {
        FormerAnswer::Known(FormerSequences {
            last: last.to_vec(),
            replayed: last.to_vec(),
            replay_epoch: 0,
        })
    }

    fn crypto() -> StandardCrypto {
        StandardCrypto::new([0; 32])
    }

    fn claim<'a>(incarnation: &'a IncarnationId, session: u64, proof: &'a [u8; 16]) -> FormerClaim<'a> {
        FormerClaim {
            incarnation,
            session,
            covered: b"hello",
            proof,
        }
    }

    fn proof() -> [u8; 16] {
        crypto().mac(&[7; 32], MacDomain::Former, &[b"hello"])
    }

    #[test]
    fn each_session_has_its_one_place_in_the_encoding() {
        let mut sessions = Sessions::new(BEFORE, EndedSessions::default());
        sessions.open(live(BEFORE));
        sessions.open(live(BEFORE));
        let mut bytes = Vec::new();
        sessions.to_ended().encode(&mut bytes);
        let is_read = |bytes: &[u8]| EndedSessions::decode(&mut Reader::new(bytes)).is_ok();
        assert!(is_read(&bytes));
        let (first, second) = (20, 20 + (bytes.len() - 20) / 2); // where they begin
        let numbers: [[u8; 8]; 2] = [first, second].map(|at| *bytes[at..].first_chunk().expect("a number"));
        assert_eq!(numbers.map(u64::from_le_bytes), [1, 2]);
        bytes[second..][..8].copy_from_slice(&numbers[0]);
        assert!(!is_read(&bytes), "the same session twice");
        bytes[first..][..8].copy_from_slice(&numbers[1]);
        assert!(!is_read(&bytes), "sessions out of order");
    }

    #[test]
    fn a_former_session_is_answered_to_who_proves_it() {
        let mut before = Sessions::new(BEFORE, EndedSessions::default());
        before.open(live(BEFORE));
        before.note_last_sequences(1, &[5, 6]);
        let sessions = Sessions::new(NOW, before.to_ended());
        let answer = |sessions: &Sessions, claim: FormerClaim<'_>| sessions.answer_former(&claim, &crypto());

        assert_eq!(answer(&sessions, claim(&BEFORE, 1, &[0; 16])), FormerAnswer::Unknown);
        assert_eq!(answer(&sessions, claim(&NOW, 1, &proof())), FormerAnswer::Unknown);
        assert_eq!(answer(&sessions, claim(&BEFORE, 2, &proof())), FormerAnswer::Unknown);
        let told = known(&[5, 6]);
        assert_eq!(answer(&sessions, claim(&BEFORE, 1, &proof())), told);
        assert_eq!(answer(&sessions, claim(&BEFORE, 1, &proof())), told, "asked again");
    }

    #[test]
    fn a_session_of_this_incarnation_is_not_former() {
        let mut sessions = Sessions::new(NOW, EndedSessions::default());
        sessions.open(live(NOW));
        assert!(sessions.close(1));
        assert!(!sessions.close(1));
        let answer = sessions.answer_former(&claim(&NOW, 1, &proof()), &crypto());
        assert_eq!(answer, FormerAnswer::Unknown);
    }

    #[test]
    fn a_closed_session_keeps_its_last_sequences() {
        let mut before = Sessions::new(BEFORE, EndedSessions::default());
        before.open(live(BEFORE));
        assert!(before.close(1));
        before.note_last_sequences(1, &[4, 9]);
        before.note_last_sequences(1, &[0, 10]); // thread 0 has forgotten it
        let sessions = Sessions::new(NOW, before.to_ended());
        let answer = sessions.answer_former(&claim(&BEFORE, 1, &proof()), &crypto());
        assert_eq!(answer, known(&[4, 10]));
    }

    #[test]
    fn both_kinds_are_bounded_and_numbers_are_never_used_again() {
        let mut sessions = Sessions::new(NOW, EndedSessions::default());
        for number in 1..=LIVE_MAX as u64 {
            assert_eq!(sessions.next(), Some(number));
            sessions.open(live(NOW));
        }
        assert_eq!(sessions.next(), None);
        for number in 1..=LIVE_MAX as u64 {
            assert!(sessions.close(number));
        }
        sessions.open(live(NOW));
        assert!(sessions.close(LIVE_MAX as u64 + 1));
        let ended = sessions.to_ended();
        assert_eq!(ended.sessions.len(), ENDED_MAX);
        assert!(!ended.sessions.contains_key(&1), "the oldest is forgotten");
        assert_eq!(Sessions::new([9; 16], ended).next(), Some(LIVE_MAX as u64 + 2));
    }

    #[test]
    fn many_that_came_and_went_do_not_push_out_one_that_is_live() {
        let mut before = Sessions::new(BEFORE, EndedSessions::default());
        before.open(live(BEFORE));
        for _ in 0..ENDED_MAX {
            let number = before.next().expect("two are live");
            before.open(live(BEFORE));
            assert!(before.close(number));
        }
        let sessions = Sessions::new(NOW, before.to_ended());
        let answer = sessions.answer_former(&claim(&BEFORE, 1, &proof()), &crypto());
        assert_eq!(answer, known(&[0, 0]));
        assert_eq!(sessions.ended.sessions.len(), ENDED_MAX);
    }

    #[test]
    fn a_role_is_taken_away_once() {
        let mut sessions = Sessions::new(NOW, EndedSessions::default());
        sessions.open(live(NOW));
        assert!(sessions.take_role(&[4; 32]).is_empty());
        assert_eq!(sessions.take_role(&[3; 32]), [1]);
        assert!(
            sessions.take_role(&[3; 32]).is_empty(),
            "threads that read no log keep each change"
        );
    }

    #[test]
    fn admin_requests_come_in_order_and_with_a_mac() {
        let mut sessions = Sessions::new(NOW, EndedSessions::default());
        sessions.open(live(NOW));
        let request = |session: u64, sequence: u64| {
            let mut bytes = [session.to_le_bytes(), sequence.to_le_bytes()].concat();
            bytes.push(3);
            bytes.extend_from_slice(&crypto().mac(&[8; 32], MacDomain::Admin, &[&bytes]));
            bytes
        };
        let mut try_request = |bytes: &[u8]| {
            let request = UnverifiedAdminRequest::split(bytes).expect("long enough");
            sessions.authenticate(&request, &crypto()).map(|_| ())
        };
        assert_eq!(try_request(&request(2, 1)), Err(Rejection::UnknownSession));
        assert_eq!(try_request(&request(1, 2)), Err(Rejection::BadSequence));
        assert_eq!(try_request(&request(1, 1)), Ok(()));
        assert_eq!(try_request(&request(1, 1)), Err(Rejection::BadSequence));
        let mut changed = request(1, 2);
        changed[16] = 1;
        assert_eq!(try_request(&changed), Err(Rejection::BadMac));
        assert_eq!(try_request(&request(1, 2)), Ok(()));
    }
}
