//! Each rule, and the smallest bounds within which leaving it out is fatal.

use crate::host::{Config, Logs};
use crate::rules::{Rule, Rules};

/// Rules left out together, and where.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What is left out.
    pub without: &'static [Rule],
    /// Where.
    pub config: Config,
}

/// Bounds that a search goes through in seconds.
pub const SMALL: Config = Config {
    name: "small",
    ops: 1,
    logs: Logs::Never,
    honest: false,
    incarnations_max: 2,
    seals_max: 1,
    cuts_from: 1,
    hellos_max: 2,
    sessions_max: 2,
    resumes_max: 0,
    requests_max: 1,
    strangers_max: 0,
    closings_max: 0,
    marks: false,
    rules: Rules::ALL,
};

/// Bounds for searches with all rules, from the narrowest to those that only a long run goes through.
pub fn bounds() -> Vec<Config> {
    let logged = Config {
        logs: Logs::Always,
        ..SMALL
    };
    vec![
        Config {
            name: "one-incarnation",
            ops: 2,
            incarnations_max: 1,
            resumes_max: 2,
            requests_max: 3,
            hellos_max: 1,
            sessions_max: 1,
            ..SMALL
        },
        Config {
            name: "restarts",
            incarnations_max: 3,
            seals_max: 2,
            ..SMALL
        },
        Config {
            name: "restarts-with-log",
            incarnations_max: 3,
            ..logged
        },
        Config {
            name: "honest-disk",
            honest: true,
            incarnations_max: 3,
            seals_max: 2,
            resumes_max: 1,
            ..SMALL
        },
        Config {
            name: "honest-disk-with-log",
            honest: true,
            incarnations_max: 3,
            ..logged
        },
        Config {
            name: "closed-and-forgotten",
            requests_max: 2,
            seals_max: 2,
            closings_max: 1,
            ..SMALL
        },
        Config {
            name: "strangers-with-log",
            incarnations_max: 3,
            sessions_max: 3,
            strangers_max: 1,
            closings_max: 1,
            ..logged
        },
        Config {
            name: "with-and-without-log",
            logs: Logs::Either,
            incarnations_max: 3,
            seals_max: 2,
            requests_max: 2,
            marks: true,
            ..SMALL
        },
        Config {
            name: "two-operations-with-log",
            ops: 2,
            requests_max: 4,
            resumes_max: 1,
            incarnations_max: 3,
            seals_max: 2,
            ..logged
        },
        Config {
            name: "everything",
            ops: 2,
            logs: Logs::Either,
            incarnations_max: 4,
            seals_max: 3,
            hellos_max: 4,
            sessions_max: 4,
            resumes_max: 2,
            requests_max: 5,
            strangers_max: 1,
            closings_max: 1,
            marks: true,
            ..SMALL
        },
    ]
}

/// All canaries: every rule is in one.
pub fn all() -> Vec<Canary> {
    let small = || SMALL;
    let logged = || Config {
        logs: Logs::Always,
        ..SMALL
    };
    let canary = |without: &'static [Rule], config: Config| Canary {
        without,
        config: Config {
            rules: Rules::without(without),
            ..config
        },
    };
    let three = |config: Config| Config {
        incarnations_max: 3,
        ..config
    };
    let resuming = |config: Config| Config {
        incarnations_max: 1,
        hellos_max: 1,
        sessions_max: 1,
        resumes_max: 1,
        ..config
    };
    use Rule as R;
    vec![
        canary(&[R::CertificateNamesIncarnation], small()),
        canary(&[R::RegisterHoldsIncarnation], three(small())),
        canary(&[R::RegisterHoldsState], small()),
        canary(
            &[R::StartMovesRegister],
            Config {
                seals_max: 2,
                ..three(small())
            },
        ),
        canary(
            &[R::CommitBeforeSign],
            Config {
                seals_max: 2,
                ..small()
            },
        ),
        canary(
            &[R::DurableBeforeCommit],
            Config {
                honest: true,
                ..small()
            },
        ),
        canary(&[R::RequestOfGeneration], resuming(small())),
        canary(&[R::SequenceIsNew], resuming(small())),
        canary(
            &[R::SequenceIsNext],
            Config {
                ops: 2,
                requests_max: 2,
                ..resuming(small())
            },
        ),
        canary(
            &[R::ResumedNamesGeneration, R::ResumedHasNonce],
            Config {
                resumes_max: 2,
                requests_max: 2,
                ..resuming(small())
            },
        ),
        canary(&[R::ResumeTakesTurn], resuming(small())),
        canary(
            &[R::ReceiptOfRequest],
            Config {
                ops: 2,
                requests_max: 2,
                ..resuming(small())
            },
        ),
        canary(&[R::HandedOverIsDone], small()),
        canary(
            &[R::LiveMovesRegister],
            Config {
                marks: true,
                cuts_from: 3,
                ..three(logged())
            },
        ),
        canary(
            &[R::StartedCommitsState],
            Config {
                seals_max: 2,
                ..three(logged())
            },
        ),
        canary(&[R::ReplayIsLogged], logged()),
        canary(
            &[R::ReplayHasLatestMark],
            Config {
                cuts_from: 3,
                ..three(logged())
            },
        ),
        canary(
            &[R::ReplayFromSealedTag],
            Config {
                seals_max: 2,
                ..logged()
            },
        ),
        canary(
            &[R::AllLoggedHasRun],
            Config {
                honest: true,
                ..logged()
            },
        ),
        canary(&[R::UnknownMayBeReplayed], logged()),
        canary(
            &[R::ReplayedOfIncarnation],
            Config {
                strangers_max: 1,
                sessions_max: 3,
                cuts_from: 3,
                ..three(logged())
            },
        ),
        canary(
            &[R::ForgottenIsUnknown],
            Config {
                closings_max: 1,
                seals_max: 2,
                requests_max: 2,
                ..small()
            },
        ),
        canary(
            &[R::GoneIsUnknown],
            Config {
                incarnations_max: 1,
                requests_max: 2,
                ..small()
            },
        ),
        canary(
            &[R::ChainReachesHead],
            Config {
                closings_max: 1,
                ..small()
            },
        ),
        canary(
            &[R::FormerIsProved],
            Config {
                strangers_max: 1,
                sessions_max: 3,
                ..three(small())
            },
        ),
    ]
}

/// Rules of which each is enough without the other: what the answer to a resume has under its MAC. Both are kept.
pub const REDUNDANT: [Rule; 2] = [Rule::ResumedNamesGeneration, Rule::ResumedHasNonce];
