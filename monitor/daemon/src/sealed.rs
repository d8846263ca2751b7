//! The sealed state: all that the monitor must know again after a restart, encrypted for itself, kept by the host.
//!
//! Invariant: a sealed state names its predecessor by hash, and the trusted register commits to the latest, and to the incarnation that
//! may make the next. So there is one line of sealed states, and the host can neither change one, nor offer an older one, nor come back to
//! a branch after an incarnation has begun on another.
//!
//! Layout: an [envelope] of the fields, in the order of [`SealedState`].

use zeroize::Zeroizing;
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::value::{Hash, Node, Value};
use zetakv_verifier::violation::ViolationCode;

use crate::certificate::{Certificate, History, Range};
use crate::clients::Clients;
use crate::domain::Domain;
use crate::envelope::{self, Purpose};
use crate::error::Error;
use crate::identity::{Identity, IncarnationId, InstanceId, PublicKey, Run, Secret};
use crate::overrides::{Override, Overrides};
use crate::register::{Commitment, TrustedRegister};
use crate::sessions::EndedSessions;

/// Bytes of all fields but sessions and clients at the most: 32 peaks (one for each bit of the epoch), the root's value and 64 tags are most
/// of it.
const FIXED_BYTES_MAX: usize = 2048 + 1024;

/// What to say of a sealed state that this monitor did not make.
pub const NOT_OURS: &str =
    "the sealed state was changed, or is not of this monitor: is it another store's, or the monitor's state directory?";

/// What is sealed for an epoch.
pub struct SealedState {
    /// The instance: the first one, or that of the last override.
    pub instance: InstanceId,
    /// What the operator has overridden.
    pub overrides: Overrides,
    /// The incarnation that the epoch ran in.
    pub incarnation: IncarnationId,
    /// Hash of the sealed state of the epoch before.
    pub previous: Hash,
    /// The certificates of all epochs before this one.
    pub history: History,
    /// Sum of what was carried over into the epoch after.
    pub carried: Sum,
    /// The root's value.
    pub root: Node,
    /// Sessions, as of the end of the epoch.
    pub sessions: EndedSessions,
    /// Authorized clients.
    pub clients: Clients,
    /// For each thread the tag of its write-ahead log at the end of the epoch; none without such logs, and after an override.
    pub tags: Vec<Mac>,
}

/// The hash of a sealed state.
pub fn sealed_hash(sealed: &[u8]) -> Hash {
    Domain::Sealed.hash(&[sealed])
}

/// The hash of the sealed state of an instance that has none yet: that of the empty one.
pub fn genesis_hash() -> Hash {
    sealed_hash(&[])
}

impl SealedState {
    /// What stands for one before the first epoch of an instance; it is never sealed.
    pub fn genesis(instance: InstanceId, first_admin: PublicKey) -> Self {
        Self {
            instance,
            overrides: Overrides::default(),
            incarnation: IncarnationId::default(),
            previous: Hash::default(),
            history: History::default(),
            carried: Sum::default(),
            root: Node::default(),
            sessions: EndedSessions::default(),
            clients: Clients::first(first_admin),
            tags: Vec::new(),
        }
    }

    /// The epoch that this is the state at the end of.
    pub fn epoch(&self) -> Result<u32, Error> {
        self.history.next_epoch()
    }

    /// The certificate of this epoch, and the history with it.
    ///
    /// No certificate where an override continues from this epoch: nobody knows whether it was issued, or another one in its place.
    pub fn certify(&self, identity: &Identity) -> Result<(Option<Certificate>, History), Error> {
        let epoch = self.epoch()?;
        if let Some(last) = self.overrides.last().filter(|last| last.decision.epoch == epoch) {
            return Ok((None, self.history.followed_by(last.decision.head)?));
        }
        let run = Run {
            instance: self.instance,
            incarnation: self.incarnation,
        };
        let (certificate, history) = self.history.certify(identity, &run)?;
        Ok((Some(certificate), history))
    }

    /// Encrypt for the monitor itself.
    pub fn seal(&self, key: &Secret) -> Result<Vec<u8>, Error> {
        envelope::seal(key, Purpose::State, &self.encode())
    }

    /// Decrypt what this monitor sealed; anything else is malformed.
    pub fn open(sealed: &[u8], key: &Secret) -> Result<Self, Malformed> {
        Self::decode(&envelope::open(key, Purpose::State, sealed)?)
    }

    /// Decrypt what this monitor sealed for its store.
    pub fn open_own(sealed: &[u8], identity: &Identity) -> Result<Self, Malformed> {
        Self::open(sealed, &identity.sealing_key).and_then(|state| {
            let instance = state.overrides.instance(&identity.first_instance);
            (instance == Some(state.instance)).then_some(state).ok_or(Malformed)
        })
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::new());
        let out: &mut Vec<u8> = &mut plain;
        out.reserve(self.encoded_bytes_max()); // so that no copy is left behind by growing
        out.extend_from_slice(&self.instance);
        out.extend_from_slice(&self.incarnation);
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.history.epoch.to_le_bytes());
        out.extend_from_slice(&self.history.head);
        out.extend_from_slice(&self.history.range.count().to_le_bytes());
        for peak in self.history.range.peaks() {
            out.extend_from_slice(peak);
        }
        out.extend_from_slice(&self.carried.to_bytes());
        Value::Node(self.root).encode(out);
        self.sessions.encode(out);
        self.clients.encode(out);
        self.overrides.encode(out);
        out.extend_from_slice(&(self.tags.len() as u16).to_le_bytes()); // one per thread
        out.extend_from_slice(self.tags.as_flattened());
        plain
    }

    fn encoded_bytes_max(&self) -> usize {
        FIXED_BYTES_MAX
            + self.sessions.encoded_bytes()
            + self.clients.encoded_bytes_max()
            + self.overrides.encoded_bytes()
    }

    fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(plain);
        let instance = *reader.array()?;
        let incarnation = *reader.array()?;
        let previous = *reader.array()?;
        let (epoch, head) = (reader.u32()?, *reader.array()?);
        let count = reader.u64()?;
        let peaks = (0..count.count_ones())
            .map(|_| reader.array().copied())
            .collect::<Result<_, _>>()?;
        let range = Range::from_parts(count, peaks).ok_or(Malformed)?;
        let carried = Sum::from_bytes(*reader.array()?);
        let Value::Node(root) = Value::decode(&mut reader)? else {
            return Err(Malformed);
        };
        let state = Self {
            instance,
            incarnation,
            previous,
            history: History { epoch, head, range },
            carried,
            root,
            sessions: EndedSessions::decode(&mut reader)?,
            clients: Clients::decode(&mut reader)?,
            overrides: Overrides::decode(&mut reader)?,
            tags: {
                let count = reader.u16()?;
                (0..count).map(|_| reader.array().copied()).collect::<Result<_, _>>()?
            },
        };
        reader.end()?;
        Ok(state)
    }
}

/// Why the service does not start from what the host offers.
#[derive(Debug)]
pub enum NotStarted {
    /// The host's fault: a violation, and a text for people.
    Refused(ViolationCode, String),
    /// Ours.
    Error(Error),
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// How a sealed state stands to what the register commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one that the register commits to.
    Latest,
    /// It follows that one, made by the latest incarnation: the host stored it, and stopped before saying so.
    Next,
    /// An admin has signed that it replaces that one.
    Overrides,
    /// It is older, or of another branch.
    Behind,
}

impl Standing {
    /// Of this state, whose sealed form has this hash.
    pub fn of(state: &SealedState, hash: &Hash, committed: &Commitment) -> Self {
        let overrides = |last: &Override| last.decision.replaced == *committed;
        if committed.sealed == *hash {
            Self::Latest
        } else if committed.sealed == state.previous && committed.incarnation == state.incarnation {
            Self::Next
        } else if state.overrides.last().is_some_and(overrides) {
            Self::Overrides
        } else {
            Self::Behind
        }
    }
}

/// Accept the sealed state that a host offers at start, if it is the latest: `None` is the empty one of an instance without any yet.
///
/// Any but one that is behind is. Also returns what the register holds: it must move on to the new incarnation before that answers anybody.
pub fn accept(
    offered: &[u8],
    identity: &Identity,
    register: &dyn TrustedRegister,
) -> Result<(Commitment, Option<SealedState>), NotStarted> {
    let committed = register.read().map_err(|error| match error {
        Error::RegisterPutBack(problem) => NotStarted::Refused(ViolationCode::Rollback, problem.to_owned()),
        error => error.into(),
    })?;
    let hash = sealed_hash(offered);
    if offered.is_empty() {
        if committed.sealed != hash {
            return Err(NotStarted::Refused(
                ViolationCode::Rollback,
                "the store is empty, but this monitor has certified epochs of it: it was lost, or replaced".to_owned(),
            ));
        }
        return Ok((committed, None));
    }
    let state = SealedState::open_own(offered, identity)
        .map_err(|Malformed| NotStarted::Refused(ViolationCode::SealedStateInvalid, NOT_OURS.to_owned()))?;
    if Standing::of(&state, &hash, &committed) == Standing::Behind {
        return Err(NotStarted::Refused(
            ViolationCode::Rollback,
            format!(
                "the store was put back: its sealed state is of epoch {}, and this monitor has gone on from another, or a later one",
                state.epoch()?
            ),
        ));
    }
    Ok((committed, Some(state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::file::FileRegister;
    use crate::scratch::Scratch;

    const INCARNATION: IncarnationId = [2; 16];

    /// Accept a sealed state, and begin this incarnation.
    fn accept(
        offered: &[u8],
        incarnation: &IncarnationId,
        identity: &Identity,
        register: &mut dyn TrustedRegister,
    ) -> Result<Option<SealedState>, NotStarted> {
        let (committed, state) = super::accept(offered, identity, register)?;
        let begun = Commitment {
            sealed: sealed_hash(offered),
            incarnation: *incarnation,
        };
        register.commit(&committed, &begun)?;
        Ok(state)
    }

    fn identity() -> Identity {
        Identity::derive(&Secret::new([1; 32]))
    }

    fn state(previous: Hash, history: History) -> SealedState {
        SealedState {
            incarnation: INCARNATION,
            previous,
            history,
            carried: Sum::from_bytes([9; 16]),
            tags: vec![[6; 16]; 2],
            ..SealedState::genesis(identity().first_instance, identity().public_key()) // any valid key will do
        }
    }

    /// The sealed states of epochs 1 to 3.
    fn line() -> Result<[Vec<u8>; 3], Error> {
        let key = identity().sealing_key;
        let mut previous = genesis_hash();
        let mut history = History::default();
        let mut line = [const { Vec::new() }; 3];
        for sealed in &mut line {
            let next = state([0; 32], history.clone()).certify(&identity())?.1;
            *sealed = state(previous, history).seal(&key)?;
            previous = sealed_hash(sealed);
            history = next;
        }
        Ok(line)
    }

    fn register(scratch: &Scratch, sealed: Hash) -> Result<FileRegister, Error> {
        let mut register = FileRegister::new(scratch.path().join("register"), identity().register_key);
        register.initialize(&Commitment {
            sealed,
            incarnation: INCARNATION,
        })?;
        Ok(register)
    }

    fn refusal(offered: &[u8], register: &mut FileRegister) -> Option<ViolationCode> {
        match accept(offered, &[3; 16], &identity(), register) {
            Err(NotStarted::Refused(code, _)) => Some(code),
            _ => None,
        }
    }

    #[test]
    fn roundtrip() -> Result<(), Error> {
        let [_, second, _] = line()?;
        let opened = SealedState::open(&second, &identity().sealing_key).map_err(|_| Error::RegisterChanged)?;
        assert_eq!(opened.epoch()?, 2);
        assert_eq!(opened.history.range.count(), 1);
        assert_eq!(opened.carried.to_bytes(), [9; 16]);
        assert_eq!(opened.clients, Clients::first(identity().public_key()));
        assert_eq!(
            *opened.encode(),
            *SealedState::decode(&opened.encode())
                .map_err(|_| Error::RegisterChanged)?
                .encode()
        );
        Ok(())
    }

    #[test]
    fn sealing_twice_gives_different_bytes_and_room_is_enough() -> Result<(), Error> {
        let state = state([0; 32], History::default());
        let key = identity().sealing_key;
        assert_ne!(state.seal(&key)?, state.seal(&key)?);
        assert!(state.encode().len() <= state.encoded_bytes_max());
        Ok(())
    }

    #[test]
    fn every_changed_byte_every_cut_and_other_keys_are_refused() -> Result<(), Error> {
        let [first, ..] = line()?;
        let key = identity().sealing_key;
        for index in 0..first.len() {
            let mut bad = first.clone();
            bad[index] ^= 0x10;
            assert!(SealedState::open(&bad, &key).is_err(), "byte {index}");
            assert!(SealedState::open(&first[..index], &key).is_err(), "cut at {index}");
        }
        assert!(SealedState::open(&first, &Secret::new([4; 32])).is_err());
        let plain = state([0; 32], History::default()).encode();
        for length in 0..plain.len() {
            assert!(SealedState::decode(&plain[..length]).is_err(), "{length} bytes");
        }
        Ok(())
    }

    #[test]
    fn the_latest_and_the_one_after_it_are_accepted() -> Result<(), Error> {
        let scratch = Scratch::new("sealed");
        let [first, second, third] = line()?;
        let mut register = register(&scratch, genesis_hash())?;
        for offered in [&first, &first, &second] {
            let accepted = accept(offered, &INCARNATION, &identity(), &mut register);
            assert!(matches!(accepted, Ok(Some(_))));
            assert_eq!(register.read()?.sealed, sealed_hash(offered), "the register moves on");
        }
        assert_eq!(refusal(&first, &mut register), Some(ViolationCode::Rollback));
        assert_eq!(refusal(&[], &mut register), Some(ViolationCode::Rollback));
        assert_eq!(register.read()?.sealed, sealed_hash(&second));
        assert!(matches!(
            accept(&third, &INCARNATION, &identity(), &mut register),
            Ok(Some(_))
        ));
        Ok(())
    }

    #[test]
    fn a_gap_and_a_second_branch_are_refused() -> Result<(), Error> {
        let scratch = Scratch::new("sealed");
        let [first, second, third] = line()?;
        let [other_first, ..] = line()?; // of the same epoch, under another nonce
        let mut register = register(&scratch, sealed_hash(&first))?;
        assert_eq!(refusal(&third, &mut register), Some(ViolationCode::Rollback));
        assert_eq!(refusal(&other_first, &mut register), Some(ViolationCode::Rollback));
        assert!(matches!(
            accept(&second, &INCARNATION, &identity(), &mut register),
            Ok(Some(_))
        ));
        Ok(())
    }

    #[test]
    fn a_state_that_was_kept_back_is_refused_after_a_start_without_it() -> Result<(), Error> {
        let scratch = Scratch::new("sealed");
        let [first, second, _] = line()?;
        let mut register = register(&scratch, sealed_hash(&first))?;
        assert!(matches!(
            accept(&first, &[3; 16], &identity(), &mut register),
            Ok(Some(_))
        ));
        assert_eq!(refusal(&second, &mut register), Some(ViolationCode::Rollback));
        Ok(())
    }

    #[test]
    fn empty_is_for_a_fresh_instance_and_garbage_is_named() -> Result<(), Error> {
        let scratch = Scratch::new("sealed");
        let mut register = register(&scratch, genesis_hash())?;
        assert!(matches!(
            accept(&[], &INCARNATION, &identity(), &mut register),
            Ok(None)
        ));
        for garbage in [vec![0], vec![7; 24], vec![7; 500]] {
            assert_eq!(
                refusal(&garbage, &mut register),
                Some(ViolationCode::SealedStateInvalid)
            );
        }
        let mut foreign = state(genesis_hash(), History::default());
        foreign.instance = [8; 16];
        let foreign = foreign.seal(&identity().sealing_key)?;
        assert_eq!(
            refusal(&foreign, &mut register),
            Some(ViolationCode::SealedStateInvalid)
        );
        Ok(())
    }
}
