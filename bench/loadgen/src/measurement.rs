//! What one thread of the generator sees: counts, latencies, and a timeline.

use hdrhistogram::Histogram;

use crate::target::Nanos;

/// Length of an interval of the timeline: short beside the stalls that are looked for.
const INTERVAL: Nanos = 20_000_000;

/// One interval of the timeline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Operations answered in it.
    pub operations: u64,
    /// The longest latency of an answer in it.
    pub latency_max_us: u64,
}

/// Counts, latencies, and a timeline. Latencies are of operations that were due in the measured time.
pub struct Measurement {
    /// The present moment: the driver sets it before each turn.
    pub now: Nanos,
    from: Nanos,
    to: Nanos,
    /// Operations answered in the measured time.
    pub operations: u64,
    /// Operations answered at any time.
    pub operations_in_all: u64,
    /// Frames answered at any time, each with all its checks.
    pub frames_in_all: u64,
    /// The moment of the last answer.
    pub last_answer: Nanos,
    /// From due to answered, nanoseconds.
    pub latency: Histogram<u64>,
    /// From answered to certified, nanoseconds.
    pub certification: Histogram<u64>,
    /// From due to handed to the socket, nanoseconds: how late the generator itself is, per frame.
    pub late: Histogram<u64>,
    /// From the beginning of the measured time on.
    pub timeline: Vec<Interval>,
}

impl Measurement {
    /// Nothing yet, of what is measured from one moment to another.
    pub fn new(from: Nanos, to: Nanos) -> Self {
        Self {
            now: 0,
            from,
            to,
            operations: 0,
            operations_in_all: 0,
            frames_in_all: 0,
            last_answer: 0,
            latency: histogram(),
            certification: histogram(),
            late: histogram(),
            timeline: Vec::new(),
        }
    }

    fn measures(&self, moment: Nanos) -> bool {
        (self.from..self.to).contains(&moment)
    }

    /// A frame that was due at this moment is answered, and its checks have passed.
    pub fn answered(&mut self, due: Nanos, operations: u32) {
        let (operations, latency) = (u64::from(operations), self.now.saturating_sub(due));
        self.operations_in_all += operations;
        self.frames_in_all += 1;
        self.last_answer = self.now;
        if self.measures(due) {
            self.latency.saturating_record_n(latency, operations);
        }
        if self.measures(self.now) {
            self.operations += operations;
            let index = ((self.now - self.from) / INTERVAL) as usize;
            if self.timeline.len() <= index {
                self.timeline.resize(index + 1, Interval::default());
            }
            let interval = &mut self.timeline[index];
            interval.operations += operations;
            interval.latency_max_us = interval.latency_max_us.max(latency / 1000);
        }
    }

    /// Operations that were answered at this moment are certified now.
    pub fn certified(&mut self, answered: Nanos, operations: u64) {
        if self.measures(answered) {
            let latency = self.now.saturating_sub(answered);
            self.certification.saturating_record_n(latency, operations);
        }
    }

    /// A frame that was due at this moment is given to the socket.
    pub fn sent(&mut self, due: Nanos) {
        if self.measures(due) {
            self.late.saturating_record(self.now.saturating_sub(due));
        }
    }

    /// Take in what another thread saw.
    pub fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.operations_in_all += other.operations_in_all;
        self.frames_in_all += other.frames_in_all;
        self.last_answer = self.last_answer.max(other.last_answer);
        for (ours, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.certification, &other.certification),
            (&mut self.late, &other.late),
        ] {
            ours.add(theirs).expect("all have the same bounds");
        }
        let length = self.timeline.len().max(other.timeline.len());
        self.timeline.resize(length, Interval::default());
        for (ours, theirs) in self.timeline.iter_mut().zip(&other.timeline) {
            ours.operations += theirs.operations;
            ours.latency_max_us = ours.latency_max_us.max(theirs.latency_max_us);
        }
    }

    /// Length of an interval of the timeline in milliseconds.
    pub const INTERVAL_MS: u64 = INTERVAL / 1_000_000;
}

/// Up to 1,000 s, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000_000, 3).expect("the bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measured_time_counts() {
        let mut measurement = Measurement::new(1_000_000_000, 2_000_000_000);
        for (due, now) in [
            (900_000_000, 950_000_000),
            (990_000_000, 1_000_000_000),
            (1_990_000_000, 2_090_000_000),
        ] {
            measurement.now = now;
            measurement.answered(due, 10);
        }
        assert_eq!(measurement.operations_in_all, 30);
        assert_eq!(
            measurement.operations, 10,
            "the second frame was answered in the measured time"
        );
        assert_eq!(measurement.latency.len(), 10, "the third frame was due in it");
        assert!(measurement.latency.max() >= 99_900_000);
    }
}
