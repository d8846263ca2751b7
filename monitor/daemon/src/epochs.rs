//! The epochs of an incarnation, in two phases: sealed when all threads have handed over and the epoch holds, certified when the host says
//! that the sealed state and all that it covers are on disk.
//!
//! Invariant: a certificate leaves only after the trusted register has committed to the sealed state from which it follows. So neither a
//! crash nor a lie about the disk can yield two certificates of one epoch.

use zetakv_verifier::aggregate::Aggregator;
use zetakv_verifier::standard_crypto::{StandardCrypto, Sum};
use zetakv_verifier::thread::Snapshot;
use zetakv_verifier::value::Hash;
use zetakv_verifier::violation::{NO_THREAD, Violation, ViolationCode};

use crate::certificate::{Certificate, History};
use crate::clients::Clients;
use crate::error::Error;
use crate::failpoints::failpoint;
use crate::failure::violation;
use crate::identity::{Identity, Run};
use crate::overrides::Overrides;
use crate::register::{Commitment, TrustedRegister};
use crate::sealed::{SealedState, sealed_hash};
use crate::sessions::Sessions;

/// What stops an incarnation.
#[derive(Debug)]
pub enum Fault {
    /// The host did what no honest host does: final for the monitor.
    Violation(Violation),
    /// This process cannot go on; another start may work.
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The epochs of an incarnation.
pub struct Epochs {
    run: Run,
    overrides: Overrides,
    aggregator: Aggregator<Sum>,
    /// All certificates that have been issued.
    history: History,
    /// What the register holds.
    committed: Commitment,
    /// Hash of the state that was sealed for the next epoch, until that is certified.
    sealed: Option<Hash>,
}

impl Epochs {
    /// After this history, of which the register holds this commitment.
    pub fn new(
        run: Run,
        overrides: Overrides,
        threads: u16,
        history: History,
        committed: Commitment,
    ) -> Result<Self, Error> {
        Ok(Self {
            run,
            overrides,
            aggregator: Aggregator::new(threads, history.next_epoch()?),
            history,
            committed,
            sealed: None,
        })
    }

    /// The certificates that have been issued.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The overrides of this store.
    pub const fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The epoch whose certificate will cover what changes now.
    pub const fn covering_epoch(&self) -> u32 {
        let sealed = if self.sealed.is_some() { 2 } else { 1 };
        self.history.epoch.saturating_add(sealed)
    }

    /// Take a thread's snapshot. When it was the last of its epoch, and the epoch holds: the epoch, and its sealed state.
    pub fn take_snapshot(
        &mut self,
        snapshot: Snapshot<Sum>,
        identity: &Identity,
        crypto: &StandardCrypto,
        sessions: &mut Sessions,
        clients: &Clients,
    ) -> Result<Option<(u32, Vec<u8>)>, Fault> {
        let Some(held) = self.aggregator.submit(snapshot, crypto).map_err(Fault::Violation)? else {
            return Ok(None);
        };
        for (session, last_sequences) in &held.sessions {
            sessions.note_last_sequences(*session, last_sequences);
        }
        let _ = failpoint!("monitor.before_seal");
        let state = SealedState {
            instance: self.run.instance,
            overrides: self.overrides.clone(),
            incarnation: self.run.incarnation,
            previous: self.committed.sealed,
            history: self.history.clone(),
            carried: held.carried,
            root: held.root,
            sessions: sessions.to_ended(),
            clients: clients.clone(),
            tags: held.tags,
        };
        let sealed = state.seal(&identity.sealing_key)?;
        self.sealed = Some(sealed_hash(&sealed));
        Ok(Some((held.epoch, sealed)))
    }

    /// The sealed state of `epoch` and all that it covers are on disk: commit to it, and issue the certificate.
    ///
    /// Or, if the register's own disk did not take it, that error: the register holds the former commitment or this one, no certificate
    /// has left, and the call may be made again.
    pub fn certify(
        &mut self,
        epoch: u32,
        identity: &Identity,
        register: &mut dyn TrustedRegister,
    ) -> Result<Result<Certificate, Error>, Fault> {
        let sealed = self
            .sealed
            .filter(|_| self.history.epoch.checked_add(1) == Some(epoch))
            .ok_or(Fault::Violation(violation(
                ViolationCode::BadHostMessage,
                NO_THREAD,
                epoch,
            )))?;
        let commitment = Commitment {
            sealed,
            incarnation: self.run.incarnation,
        };
        let _ = failpoint!("register.before_commit");
        match register.commit(&self.committed, &commitment) {
            Err(error @ Error::File { .. }) => return Ok(Err(error)),
            committed => committed?,
        }
        let _ = failpoint!("register.after_commit");
        self.committed = commitment;
        self.sealed = None;
        let (certificate, history) = self.history.certify(identity, &self.run)?;
        self.history = history;
        Ok(Ok(certificate))
    }
}
