//! The built-in state machine: operations on one key.

use crate::codec::{Malformed, Reader};
use crate::key::KeyHash;
use crate::machine::{OperationResult, Role, StateMachine};
use crate::value::{Commitment, Inline};

/// The key-value state machine.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue;

/// An operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key's hash.
    pub key: KeyHash,
    /// What to do.
    pub action: Action,
}

/// What an operation does with the record of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read it.
    Get,
    /// Write it.
    Put(Commitment),
    /// Write null.
    Delete,
    /// Write it, if it is null.
    Insert(Commitment),
    /// Write the second, if it is the first.
    CompareAndSet(Commitment, Commitment),
    /// Add to the 64-bit integer in it; null counts as 0.
    Increment(i64),
}

impl Action {
    /// The commitment that it would write and whose value the client sends along.
    pub const fn new_commitment(&self) -> Option<&Commitment> {
        match self {
            Self::Put(new) | Self::Insert(new) | Self::CompareAndSet(_, new) => Some(new),
            Self::Get | Self::Delete | Self::Increment(_) => None,
        }
    }
}

impl StateMachine for KeyValue {
    type Operation = Operation;

    fn decode(reader: &mut Reader<'_>) -> Result<Operation, Malformed> {
        let code = reader.u8()?;
        let key = *reader.array()?;
        let action = match code {
            1 => Action::Get,
            2 => Action::Put(not_null(Commitment::decode(reader)?)?),
            3 => Action::Delete,
            4 => Action::Insert(not_null(Commitment::decode(reader)?)?),
            5 => Action::CompareAndSet(Commitment::decode(reader)?, Commitment::decode(reader)?),
            6 => Action::Increment(reader.i64()?),
            _ => return Err(Malformed),
        };
        Ok(Operation { key, action })
    }

    fn keys(operation: &Operation) -> &[KeyHash] {
        core::slice::from_ref(&operation.key)
    }

    fn role(operation: &Operation) -> Role {
        match operation.action {
            Action::Get => Role::Read,
            _ => Role::Write,
        }
    }

    fn apply(operation: &Operation, values: &mut [Commitment]) -> OperationResult {
        let value = &mut values[0];
        match operation.action {
            Action::Get => OperationResult::Value(*value),
            Action::Put(new) => write(value, new),
            Action::Delete => write(value, Commitment::Null),
            Action::Insert(_) if !value.is_null() => OperationResult::Exists,
            Action::Insert(new) => write(value, new),
            Action::CompareAndSet(expected, _) if *value != expected => OperationResult::Mismatch(*value),
            Action::CompareAndSet(_, new) => write(value, new),
            Action::Increment(delta) => increment(value, delta),
        }
    }
}

fn not_null(commitment: Commitment) -> Result<Commitment, Malformed> {
    if commitment.is_null() {
        Err(Malformed)
    } else {
        Ok(commitment)
    }
}

fn write(value: &mut Commitment, new: Commitment) -> OperationResult {
    *value = new;
    OperationResult::Ok
}

fn increment(value: &mut Commitment, delta: i64) -> OperationResult {
    let old = match value {
        Commitment::Null => 0,
        Commitment::Inline(inline) => match inline.as_slice().try_into() {
            Ok(bytes) => i64::from_le_bytes(bytes),
            Err(_) => return OperationResult::NotANumber,
        },
        Commitment::Digest(..) => return OperationResult::NotANumber,
    };
    let Some(sum) = old.checked_add(delta) else {
        return OperationResult::Overflow;
    };
    let Some(inline) = Inline::new(&sum.to_le_bytes()) else {
        return OperationResult::NotANumber; // eight bytes always fit
    };
    *value = Commitment::Inline(inline);
    OperationResult::Value(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(action: Action, value: &mut Commitment) -> OperationResult {
        let operation = Operation { key: [0; 32], action };
        KeyValue::apply(&operation, core::slice::from_mut(value))
    }

    #[test]
    fn writes_and_conditions() {
        let (a, b) = (Commitment::of(b"a"), Commitment::of(&[7; 100]));
        let mut value = Commitment::Null;
        assert_eq!(run(Action::Insert(a), &mut value), OperationResult::Ok);
        assert_eq!(run(Action::Insert(b), &mut value), OperationResult::Exists);
        assert_eq!(
            run(Action::CompareAndSet(b, a), &mut value),
            OperationResult::Mismatch(a)
        );
        assert_eq!(run(Action::CompareAndSet(a, b), &mut value), OperationResult::Ok);
        assert_eq!(run(Action::Get, &mut value), OperationResult::Value(b));
        assert_eq!(run(Action::Delete, &mut value), OperationResult::Ok);
        assert_eq!(value, Commitment::Null);
    }

    #[test]
    fn increments() {
        let mut value = Commitment::Null;
        let number = |n: i64| Commitment::of(&n.to_le_bytes());
        assert_eq!(
            run(Action::Increment(-5), &mut value),
            OperationResult::Value(number(-5))
        );
        assert_eq!(run(Action::Increment(i64::MIN), &mut value), OperationResult::Overflow);
        assert_eq!(value, number(-5));
        value = Commitment::of(b"seven");
        assert_eq!(run(Action::Increment(1), &mut value), OperationResult::NotANumber);
    }

    #[test]
    fn what_an_action_writes() {
        let (a, b) = (Commitment::of(b"a"), Commitment::of(b"b"));
        for action in [Action::Put(b), Action::Insert(b), Action::CompareAndSet(a, b)] {
            assert_eq!(action.new_commitment(), Some(&b));
        }
        for action in [Action::Get, Action::Delete, Action::Increment(1)] {
            assert_eq!(action.new_commitment(), None);
        }
    }
}
