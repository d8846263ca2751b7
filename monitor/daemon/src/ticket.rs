//! Tickets: with a write-ahead log, what a later incarnation must know of a session that no sealed state knows yet.
//!
//! They only serve to answer clients that ask what took effect of a former session; what is replayed does not depend on them.

use zeroize::Zeroizing;
use zetakv_verifier::clocks::THREADS_MAX;
use zetakv_verifier::codec::{Malformed, Reader};

use crate::envelope::{self, OVERHEAD_BYTES, Purpose};
use crate::error::Error;
use crate::identity::Secret;
use crate::sessions::EndedSession;

const CONTENT_BYTES: usize = 8 + 16 + 32 + 2;
/// Bytes of a ticket.
pub const TICKET_BYTES: usize = CONTENT_BYTES + OVERHEAD_BYTES;

/// The ticket of a session of that number, as it begins.
pub fn seal(number: u64, session: &EndedSession, key: &Secret) -> Result<Vec<u8>, Error> {
    let mut content = Zeroizing::new(Vec::with_capacity(CONTENT_BYTES));
    content.extend_from_slice(&number.to_le_bytes());
    content.extend_from_slice(&session.incarnation);
    content.extend_from_slice(session.former_key.as_slice());
    content.extend_from_slice(&(session.last_sequences.len() as u16).to_le_bytes()); // at most THREADS_MAX
    envelope::seal(key, Purpose::Ticket, &content)
}

/// The session of a ticket that this monitor made, and its number.
pub fn open(ticket: &[u8], key: &Secret) -> Result<(u64, EndedSession), Malformed> {
    let content = envelope::open(key, Purpose::Ticket, ticket)?;
    let mut reader = Reader::new(&content);
    let number = reader.u64()?;
    let incarnation = *reader.array()?;
    let former_key = Secret::new(*reader.array()?);
    let threads = usize::from(reader.u16()?);
    reader.end()?;
    if threads > THREADS_MAX {
        return Err(Malformed);
    }
    let last_sequences = vec![0; threads];
    Ok((
        number,
        EndedSession {
            incarnation,
            former_key,
            last_sequences,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        Secret::new([3; 32])
    }

    fn session() -> EndedSession {
        EndedSession {
            incarnation: [1; 16],
            former_key: Secret::new([2; 32]),
            last_sequences: vec![0; 4],
        }
    }

    #[test]
    fn roundtrip() {
        let ticket = seal(7, &session(), &key()).expect("random bytes");
        assert_eq!(ticket.len(), TICKET_BYTES);
        let (number, opened) = open(&ticket, &key()).expect("its own");
        assert_eq!((number, opened.incarnation), (7, [1; 16]));
        assert_eq!(opened.former_key, Secret::new([2; 32]));
        assert_eq!(opened.last_sequences, [0; 4]);
    }

    #[test]
    fn changed_cut_and_foreign_ones_are_refused() {
        let ticket = seal(7, &session(), &key()).expect("random bytes");
        for index in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[index] ^= 1;
            assert!(open(&bad, &key()).is_err(), "byte {index}");
            assert!(open(&ticket[..index], &key()).is_err(), "cut at {index}");
        }
        assert!(open(&ticket, &Secret::new([4; 32])).is_err(), "of another monitor");
    }

    #[test]
    fn a_ticket_is_no_sealed_state_and_the_reverse() {
        let content = [0; CONTENT_BYTES];
        let state = envelope::seal(&key(), Purpose::State, &content).expect("random bytes");
        assert!(open(&state, &key()).is_err());
        let ticket = seal(7, &session(), &key()).expect("random bytes");
        assert!(envelope::open(&key(), Purpose::State, &ticket).is_err());
        assert!(envelope::open(&key(), Purpose::Ticket, &ticket).is_ok());
    }
}
