//! When frames are sent: as soon as others are answered (closed loop), or when they are due (open loop).

use crate::target::Nanos;
use crate::workload::Source;

/// Frames that are sent at the most before the ones before them are answered, on one connection: below the bound of a ZetaKV server, which
/// stops reading at 1,024.
pub const IN_FLIGHT_MAX: usize = 1000;

/// When frames are sent.
pub enum Pace {
    /// So many in flight on each connection.
    Closed { depth: usize },
    /// At moments of a Poisson process, whatever is answered.
    Open { next: Nanos, mean_gap: f64 },
}

impl Pace {
    /// `depth` in flight on each connection.
    pub const fn closed(depth: usize) -> Self {
        Self::Closed { depth }
    }

    /// So many frames per second, from the start on.
    pub fn open(frames_per_second: f64) -> Self {
        Self::Open {
            next: 0,
            mean_gap: 1e9 / frames_per_second,
        }
    }

    /// The next moment that a frame is due; `None` in a closed loop.
    pub const fn next_due(&self) -> Option<Nanos> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { next, .. } => Some(*next),
        }
    }

    /// Go on to the next moment. Gaps are independent, and exponential.
    pub fn advance(&mut self, source: &mut Source) {
        if let Self::Open { next, mean_gap } = self {
            *next += (-(1.0 - source.chance()).ln() * *mean_gap) as Nanos;
        }
    }

    /// Frames that one connection may have in flight.
    pub const fn in_flight_max(&self) -> usize {
        match self {
            Self::Closed { depth } => *depth,
            Self::Open { .. } => IN_FLIGHT_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Distribution, Mix};

    #[test]
    fn an_open_loop_has_its_rate() {
        let mut source = Source::mix(Mix::C, Distribution::Uniform, 1, 1);
        let mut pace = Pace::open(1000.0);
        for _ in 0..100_000 {
            pace.advance(&mut source);
        }
        let seconds = pace.next_due().expect("an open loop") as f64 / 1e9;
        assert!((seconds / 100.0 - 1.0).abs() < 0.02, "100,000 frames took {seconds} s");
    }
}
