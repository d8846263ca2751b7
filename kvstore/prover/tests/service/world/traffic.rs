//! What the clients of a world send, and what they make of its answers.

use zetakv_verifier::request::RESUME_BYTES;

use super::World;
use crate::client::Action;

/// No client of these tests comes so far.
const SEQUENCE_FAR_AHEAD: u64 = 1 << 40;

impl World {
    /// An honest request of the first client of thread 0.
    pub fn request(&mut self, operations: Vec<(Vec<u8>, Action)>) {
        let worker = &mut self.workers[0];
        let client = &mut worker.clients[0];
        let body = client.request(&self.crypto, operations, 0);
        worker.prover.submit(client.session, &body).expect("a frame");
    }

    /// Somebody sends a resume of the first client's session on thread 0, without its keys.
    pub fn forged_resume(&mut self) {
        let worker = &mut self.workers[0];
        let session = worker.clients[0].session;
        let mut resume = [0; RESUME_BYTES];
        resume[..8].copy_from_slice(&session.to_le_bytes());
        worker.prover.submit_resume(session, &resume).expect("a frame");
    }

    /// A client sends something: usually an honest request, sometimes one that will be rejected or refused.
    pub(super) fn send(&mut self, thread: u16) {
        if self.is_quiet || self.shape.keys == 0 {
            return;
        }
        let count = match self.rng.u8(0..10) {
            0 => self.rng.usize(50..200),
            _ => self.rng.usize(1..12),
        };
        let operations: Vec<_> = (0..count).map(|_| self.operation(thread)).collect();
        let after_ts = match self.rng.u8(0..20) {
            0 => (u64::from(self.durable.epoch) + 50) << 32, // beyond every clock
            1 => u64::from(u32::MAX),                        // the last moment of an epoch long gone
            2 => (u64::from(self.durable.epoch) + 1) << 32 | u64::from(u32::MAX), // of one that some threads may have left
            3..10 => 0,
            _ => self.newest_ts,
        };
        let trick = self.rng.u8(0..24);
        let nonce = core::array::from_fn(|_| self.rng.u8(..));
        let worker = &mut self.workers[usize::from(thread)];
        let index = self.rng.usize(0..worker.clients.len());
        let client = &mut worker.clients[index];
        let origin = client.session;
        if client.resuming.is_some() {
            return; // a client waits for the answer
        }
        match trick {
            0 => {
                let (mut body, _) = client.encode(&self.crypto, client.sequence + 1, &operations, after_ts);
                let length = u32::from_le_bytes(body[..4].try_into().expect("4 bytes")) as usize;
                body[4 + length - 1] ^= 1;
                worker.prover.submit(origin, &body).expect("a frame");
            }
            1 => {
                let (body, _) = client.encode(&self.crypto, SEQUENCE_FAR_AHEAD, &operations, 0);
                worker.prover.submit(origin, &body).expect("a frame");
            }
            2 => {
                let resume = client.resume(&self.crypto, nonce);
                worker.prover.submit_resume(origin, &resume).expect("a frame");
            }
            _ => {
                let body = client.request(&self.crypto, operations.clone(), after_ts);
                if let Some(journal) = &mut self.journal {
                    journal.note_sent((origin, client.sequence), operations);
                }
                worker.prover.submit(origin, &body).expect("a frame");
            }
        }
    }

    fn operation(&mut self, thread: u16) -> (Vec<u8>, Action) {
        let keys = &self.workers[usize::from(thread)].keys;
        // most operations go to few keys
        let range = if self.rng.bool() {
            keys.len()
        } else {
            keys.len().div_ceil(8)
        };
        let key = keys[self.rng.usize(0..range)].clone();
        let action = match self.rng.u8(0..12) {
            0..5 => Action::Get,
            5..8 => Action::Put(self.value()),
            8 => Action::Delete,
            9 => Action::Insert(self.value()),
            10 => {
                let now = self.workers[usize::from(thread)].model.get(&key).cloned();
                let expected = if self.rng.u8(0..4) > 0 { now } else { Some(self.value()) };
                let new = if self.rng.u8(0..4) > 0 {
                    Some(self.value())
                } else {
                    None
                };
                Action::CompareAndSet(expected, new)
            }
            _ => Action::Increment(self.rng.i64(..)),
        };
        (key, action)
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.rng.u8(0..40) {
            0..12 => return self.rng.i64(-9..9).to_le_bytes().to_vec(),
            12..25 => self.rng.usize(0..33),
            25..35 => self.rng.usize(33..200),
            35..39 => self.rng.usize(1024..3000),
            _ => self.rng.usize(50_000..150_000),
        };
        let byte = self.rng.u8(..);
        vec![byte; length]
    }

    pub(super) fn deliver(&mut self, thread: u16, origin: u64, frame: &[u8]) {
        let worker = &mut self.workers[usize::from(thread)];
        let client = worker
            .clients
            .iter_mut()
            .find(|client| client.session == origin)
            .expect("a client");
        let (header, body) = frame.split_at(5);
        let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
        assert_eq!(frame.len(), 4 + length as usize);
        match header[4] {
            0x82 => {
                self.receipts += 1;
                if self.rows_are_honest {
                    let answered = client.sent.front().expect("a request").sequence;
                    if let Some(journal) = &mut self.journal {
                        journal.note_answered(thread, (origin, answered));
                    }
                    let ts = client.check_receipt(&self.crypto, &mut worker.model, body);
                    self.newest_ts = self.newest_ts.max(ts);
                }
            }
            0x83 => {
                check_rejected(body);
                let is_of_older_generation = body[18] == 4;
                assert!(
                    !is_of_older_generation || client.resuming.is_some(),
                    "it comes before the answer to the resume"
                );
                self.rejections += 1;
            }
            0x84 => {
                self.resumes += 1;
                if self.rows_are_honest {
                    client.check_resumed(&self.crypto, body);
                }
            }
            kind => panic!("an unknown frame {kind:#x}"),
        }
    }
}

/// Only what the clients meant to be rejected is: what has no good MAC, has a sequence far ahead, or is of an older generation.
fn check_rejected(body: &[u8]) {
    let sequence = u64::from_le_bytes(body[10..18].try_into().expect("8 bytes"));
    assert!(
        matches!(body[18], 2 | 4) || (body[18] == 3 && sequence >= SEQUENCE_FAR_AHEAD),
        "request {sequence} was rejected for reason {}",
        body[18]
    );
}
