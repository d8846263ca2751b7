use super::*;

const SESSION: u64 = 7;
const THREAD: u16 = 3;
const TS: u64 = 5 << 32 | 9;

fn keys() -> ThreadKeys {
    ThreadKeys {
        request: [1; 32],
        receipt: [2; 32],
    }
}

/// A get and a put of records of 100 bytes, sent.
fn sent(records: &Records) -> (Lane, Vec<u8>) {
    let mut lane = Lane::new(SESSION, THREAD, Some(keys()));
    for (record, action) in [(1, Action::Get), (2, Action::Put(4))] {
        lane.waiting.push(Operation { record, action });
    }
    let mut frame = Vec::new();
    lane.send(records, 17, TS - 1, 5, &mut frame);
    (lane, frame)
}

/// What of a receipt is changed in a test.
#[derive(Clone)]
struct Answer {
    header: ReceiptHeader,
    results: Vec<OperationResult>,
    payload: Vec<u8>,
}

impl Answer {
    fn honest(records: &Records) -> Self {
        let value = records.value(1, 0);
        Self {
            header: ReceiptHeader {
                session: SESSION,
                generation: 1,
                thread: THREAD,
                count: 2,
                sequence: 1,
                ts: TS,
                error: 0,
            },
            results: vec![OperationResult::Value(value.commitment), OperationResult::Ok],
            payload: [&[1], value.bytes.as_slice()].concat(),
        }
    }

    /// The receipt, with a right MAC, as the answer to this frame.
    fn receipt(&self, frame: &[u8]) -> Vec<u8> {
        let length = u32::from_le_bytes(*frame[5..].first_chunk().expect("a length")) as usize;
        let request = &frame[9..9 + length];
        let mut receipt = self.header.encode().to_vec();
        for result in &self.results {
            result.encode(&mut receipt);
        }
        let request_mac = &request[length - MAC_BYTES..];
        let mac = mac(&keys().receipt, MacDomain::Receipt, &[&receipt, request_mac]);
        receipt.extend_from_slice(&mac);
        receipt
    }

    fn is_taken(&self, records: &Records) -> bool {
        let (mut lane, frame) = sent(records);
        lane.receive(&self.receipt(&frame), &self.payload, records).is_ok()
    }
}

fn records() -> Records {
    Records::new(10, 100, false, true)
}

#[test]
fn an_honest_receipt_is_taken_once() {
    let records = records();
    let (mut lane, frame) = sent(&records);
    let answer = Answer::honest(&records);
    let receipt = answer.receipt(&frame);
    let answered = lane
        .receive(&receipt, &answer.payload, &records)
        .expect("an honest answer");
    assert_eq!((answered.due, answered.operations, answered.ts), (17, 2, TS));
    assert!(
        lane.receive(&receipt, &answer.payload, &records).is_err(),
        "no request is in flight"
    );
}

#[test]
fn every_bit_of_a_receipt_is_covered_by_its_mac() {
    let records = records();
    let answer = Answer::honest(&records);
    for bit in 0..8 * (RECEIPT_HEADER_BYTES + 40) {
        let (mut lane, frame) = sent(&records);
        let mut receipt = answer.receipt(&frame);
        receipt[bit / 8] ^= 1 << (bit % 8);
        assert!(lane.receive(&receipt, &answer.payload, &records).is_err(), "bit {bit}");
    }
}

#[test]
fn a_receipt_of_another_request_is_refused() {
    let records = records();
    let honest = Answer::honest(&records);
    assert!(honest.is_taken(&records));
    let changes: [fn(&mut ReceiptHeader); 8] = [
        |header| header.session += 1,
        |header| header.generation += 1,
        |header| header.thread += 1,
        |header| header.count -= 1,
        |header| header.sequence += 1,
        |header| header.error = 2,
        |header| header.ts = TS - 1,
        |header| header.ts = 4 << 32 | 9,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut answer = honest.clone();
        change(&mut answer.header);
        assert!(!answer.is_taken(&records), "change {number}");
    }
}

#[test]
fn results_and_values_must_fit_the_operations() {
    let records = records();
    let honest = Answer::honest(&records);
    let changes: [fn(&mut Answer, &Records); 7] = [
        |answer, _| answer.results[0] = OperationResult::Value(Commitment::Null),
        |answer, _| answer.results[1] = OperationResult::Forbidden,
        |answer, records| answer.results[0] = OperationResult::Value(records.value(2, 0).commitment),
        |answer, _| answer.payload[9] ^= 1,
        |answer, _| answer.payload[0] = 0,
        |answer, _| answer.payload.push(0),
        |answer, records| {
            answer.results[0] = OperationResult::Value(records.value(2, 0).commitment);
            answer.payload[1..].copy_from_slice(&records.value(2, 0).bytes);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut answer = honest.clone();
        change(&mut answer, &records);
        assert!(!answer.is_taken(&records), "change {number}");
    }
}
