//! The memory of the queue.

use super::*;

fn request(operations: u16) -> QueuedRequest {
    QueuedRequest {
        session: 1,
        generation: 1,
        sequence: 1,
        after_ts: Timestamp::new(1, 0),
        role: Role::Write,
        mac: Mac::default(),
        receipt_key: Zeroizing::new(MacKey::default()),
        operations,
        done: 0,
    }
}

#[test]
fn what_waits_is_moved_to_the_front_only_where_memory_ends() {
    let bytes_max = 100;
    let mut queue = Queue::new(bytes_max);
    let (memory, capacity) = (queue.operations.as_ptr(), queue.operations.capacity());
    assert_eq!(capacity, 2 * bytes_max);
    for read_before in [0, 100, 0, 100, 0] {
        assert!(queue.has_room(bytes_max));
        queue.push_request(request(1), &[7; 100]);
        assert_eq!(queue.read, read_before);
        assert!(!queue.has_room(1));
        assert!(queue.finish_operation(queue.operations.len()).is_some());
    }
    assert_eq!(
        (queue.operations.as_ptr(), queue.operations.capacity()),
        (memory, capacity)
    );
}
