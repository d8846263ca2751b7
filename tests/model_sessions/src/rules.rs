//! The rules that the search leaves out, one at a time: each must then have a counterexample, or be named as redundant.

/// A rule of the protocol, by what it demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Rule {
    /// A certificate certifies receipts of its own incarnation only (client: `Outcomes.follow`).
    CertificateNamesIncarnation,
    /// A sealed state that follows the committed one is accepted only from the latest incarnation (`Standing::of`).
    RegisterHoldsIncarnation,
    /// A sealed state that the register does not lead to is refused (`Standing::of`).
    RegisterHoldsState,
    /// A start moves the register to its incarnation before it answers anybody (`Incarnation::start`).
    StartMovesRegister,
    /// The register commits to a sealed state before its certificate leaves (`Epochs::certify`).
    CommitBeforeSign,
    /// The host says that a sealed state is on disk before the register commits to it (`kind::DURABLE`).
    DurableBeforeCommit,
    /// Requests of another generation are rejected (`Sessions::authenticate`).
    RequestOfGeneration,
    /// The sequence of a request is not one that was used (`Sessions::authenticate`).
    SequenceIsNew,
    /// The sequence of a request leaves none out (`Sessions::authenticate`).
    SequenceIsNext,
    /// The answer to a resume names its generation, under the MAC (`Resumed`).
    ResumedNamesGeneration,
    /// The answer to a resume has its nonce under the MAC (`Resumed`).
    ResumedHasNonce,
    /// A resume is answered when all that was admitted before it has run (`Queue::push_resume`).
    ResumeTakesTurn,
    /// A receipt answers the first request in flight, and no other (`Lane.receive`).
    ReceiptOfRequest,
    /// A sealed state has of each session the last sequence of which it and all before have run (`Sessions::hand_over`).
    HandedOverIsDone,
    /// With a write-ahead log, nobody is answered before the register names the incarnation (`Replay::go_live`).
    LiveMovesRegister,
    /// With a write-ahead log, a start commits to its state, whose certificate leaves with `started` (`Incarnation::start`).
    StartedCommitsState,
    /// What is replayed ends in a tag that the monitor has told (`replay_is_what_was_logged`).
    ReplayIsLogged,
    /// What is replayed has the mark of the latest incarnation (`replay_has_latest_mark`).
    ReplayHasLatestMark,
    /// The chain goes on from the tag in the sealed state (`Origin::log_config`).
    ReplayFromSealedTag,
    /// No epoch closes while something that was logged has not run (`next_epoch_after_all_logged`).
    AllLoggedHasRun,
    /// Of a session that may have been replayed nothing is told to be lost (`EndedSessions::replayed_end`).
    UnknownMayBeReplayed,
    /// What was replayed of a session counts only for the session of its incarnation (`Sessions::note_replayed`).
    ReplayedOfIncarnation,
    /// Of a forgotten session, a request that can have run in a certified epoch is not told to be lost (`lost_from`).
    ForgottenIsUnknown,
    /// Of a session that is gone in its incarnation nothing is told to be lost (`after_session_gone`).
    GoneIsUnknown,
    /// Before a hello settles anything, the chain has reached its head (`Session._catch_up`).
    ChainReachesHead,
    /// A client that proves a former session is told of that one, and not of another with its number (`answer_former`).
    FormerIsProved,
}

use Rule as R;

impl Rule {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        R::CertificateNamesIncarnation,
        R::RegisterHoldsIncarnation,
        R::RegisterHoldsState,
        R::StartMovesRegister,
        R::CommitBeforeSign,
        R::DurableBeforeCommit,
        R::RequestOfGeneration,
        R::SequenceIsNew,
        R::SequenceIsNext,
        R::ResumedNamesGeneration,
        R::ResumedHasNonce,
        R::ResumeTakesTurn,
        R::ReceiptOfRequest,
        R::HandedOverIsDone,
        R::LiveMovesRegister,
        R::StartedCommitsState,
        R::ReplayIsLogged,
        R::ReplayHasLatestMark,
        R::ReplayFromSealedTag,
        R::AllLoggedHasRun,
        R::UnknownMayBeReplayed,
        R::ReplayedOfIncarnation,
        R::ForgottenIsUnknown,
        R::GoneIsUnknown,
        R::ChainReachesHead,
        R::FormerIsProved,
    ];
}

/// The rules that hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// All but these.
    pub fn without(left_out: &[Rule]) -> Self {
        Self(
            left_out
                .iter()
                .fold(u32::MAX, |rules, rule| rules & !(1 << *rule as u32)),
        )
    }

    /// Whether a rule holds.
    pub const fn hold(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u32) != 0
    }
}
