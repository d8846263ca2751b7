//! To go on from an old sealed state all the same, by an admin's signed decision.
//!
//! Invariant: an override does not move the register, but where the operator says that it is lost; so until the new state is started from,
//! nothing has happened.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer as _, SigningKey};
use zetakv_monitor::error as monitor;
use zetakv_monitor::files::read_client_key;
use zetakv_monitor::identity::{IncarnationId, to_hex};
use zetakv_monitor::overrides::{Decision, MAGIC, Override, SIGNED_DOMAIN, STATEMENT_BYTES_MAX};
use zetakv_monitor::register::Commitment;
use zetakv_monitor::sealed::{SealedState, Standing, sealed_hash};
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_verifier::codec::Malformed;
use zetakv_verifier::machine::Role;

use crate::sealed_states::open;
use crate::{Error, log};

/// What the operator decides.
#[derive(Debug)]
pub struct Wish {
    /// File of the key that signs.
    pub admin_key: PathBuf,
    /// Why.
    pub reason: String,
    /// Whether to set the register up again.
    pub register_lost: bool,
}

/// Go on from an old sealed state: a new one, of a new instance, which the monitor accepts in place of what the register commits to now.
pub fn override_rollback(directory: &StateDirectory, sealed: &[u8], wish: &Wish) -> Result<Vec<u8>, Error> {
    let mut state = open(directory, sealed)?;
    let replaced = replaced(directory, &state, sealed, wish.register_lost)?;
    let admin = read_client_key(&wish.admin_key)?
        .ok_or_else(|| monitor::Error::state(&wish.admin_key, "there is no such file"))?;
    if state.clients.role(&admin.verifying_key().to_bytes()) != Some(Role::Admin) {
        return Err("the key is not that of an admin in this sealed state: an admin must sign an override".into());
    }
    let history = state.certify(&directory.identity)?.1;
    let decision = Decision {
        old_instance: state.instance,
        epoch: history.epoch,
        head: history.head,
        replaced,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |it| it.as_secs()),
        reason: wish.reason.clone(),
    };
    let signed = sign(&decision, &admin).map_err(|_| "a reason of 1 to 200 bytes is needed: every client is told")?;
    log(format_args!(
        "override: instance {} continues instance {} from epoch {}; later epochs are lost; admin {}; reason: {:?}",
        to_hex(&signed.new_instance()),
        to_hex(&decision.old_instance),
        decision.epoch,
        to_hex(&signed.admin_key),
        decision.reason
    ));
    state.instance = signed.new_instance();
    state.tags.clear(); // nothing that ran on the branch that is given up is replayed on this one
    state
        .overrides
        .push(signed)
        .map_err(|_| "this store has been overridden as often as it can be: copy its data to a new one")?;
    let overriding = state.seal(&directory.identity.sealing_key)?;
    if wish.register_lost {
        directory.register().initialize(&Commitment {
            sealed: sealed_hash(&overriding),
            incarnation: IncarnationId::default(),
        })?;
    }
    Ok(overriding)
}

/// What the statement says of the register; zeros if it is lost.
fn replaced(
    directory: &StateDirectory,
    state: &SealedState,
    sealed: &[u8],
    register_lost: bool,
) -> Result<Commitment, Error> {
    match directory.register().read() {
        Ok(_) if register_lost => Err("the register is there and can be read: leave --register-lost out".into()),
        Ok(committed) if Standing::of(state, &sealed_hash(sealed), &committed) != Standing::Behind => {
            Err("the service starts from this sealed state: there is nothing to override".into())
        }
        Ok(committed) => Ok(committed),
        Err(error) if register_lost => {
            log(format_args!("the register is given up: {error}"));
            Ok(Commitment::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Sign a decision; malformed if its reason is too short or too long.
pub fn sign(decision: &Decision, admin: &SigningKey) -> Result<Override, Malformed> {
    let mut statement = Vec::with_capacity(STATEMENT_BYTES_MAX);
    statement.extend_from_slice(MAGIC);
    statement.extend_from_slice(&decision.old_instance);
    statement.extend_from_slice(&decision.epoch.to_le_bytes());
    statement.extend_from_slice(&decision.head);
    statement.extend_from_slice(&decision.replaced.sealed);
    statement.extend_from_slice(&decision.replaced.incarnation);
    statement.extend_from_slice(&decision.time.to_le_bytes());
    statement.extend_from_slice(&admin.verifying_key().to_bytes());
    statement.push(u8::try_from(decision.reason.len()).map_err(|_| Malformed)?);
    statement.extend_from_slice(decision.reason.as_bytes());
    let signature = admin.sign(&[SIGNED_DOMAIN, &statement].concat());
    statement.extend_from_slice(&signature.to_bytes());
    Override::verify(&statement) // our own is held to what a stranger's is
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;
    use zetakv_monitor::identity::{Identity, InstanceId, Secret};
    use zetakv_monitor::overrides::{OVERRIDES_MAX, Overrides, REASON_BYTES_MAX};
    use zetakv_monitor::register::TrustedRegister;
    use zetakv_monitor::sealed::{NotStarted, accept, genesis_hash};
    use zetakv_verifier::codec::Reader;
    use zetakv_verifier::violation::ViolationCode;

    use super::*;

    fn admin() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn decision(old_instance: InstanceId, reason: &str) -> Decision {
        Decision {
            old_instance,
            epoch: 5,
            head: [2; 32],
            replaced: Commitment {
                sealed: [3; 32],
                incarnation: [4; 16],
            },
            time: 1_800_000_000,
            reason: reason.to_owned(),
        }
    }

    fn signed(old_instance: InstanceId) -> Override {
        sign(&decision(old_instance, "the disk is lost"), &admin()).expect("well-formed")
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let it = signed([1; 16]);
        assert_eq!(Override::verify(it.statement()), Ok(it.clone()));
        for index in 0..it.statement().len() {
            let mut bad = it.statement().to_vec();
            bad[index] ^= 1;
            assert!(Override::verify(&bad).is_err(), "byte {index}");
            assert!(Override::verify(&it.statement()[..index]).is_err(), "cut at {index}");
        }
        let longer = [it.statement(), &[0]].concat();
        assert!(Override::verify(&longer).is_err());
    }

    #[test]
    fn a_reason_is_needed_and_has_a_limit() {
        let sign = |reason: &str| sign(&decision([1; 16], reason), &admin());
        assert!(sign("").is_err());
        assert!(sign(&"x".repeat(REASON_BYTES_MAX)).is_ok_and(|it| it.statement().len() == STATEMENT_BYTES_MAX));
        assert!(sign(&"x".repeat(REASON_BYTES_MAX + 1)).is_err());
        assert!(sign(&"x".repeat(300)).is_err());
    }

    #[test]
    fn each_begins_its_own_instance_and_continues_the_one_before() {
        let first = signed([1; 16]);
        let second = signed(first.new_instance());
        assert_ne!(first.new_instance(), second.new_instance());
        let list = |statements: [&Override; 2]| {
            let mut overrides = Overrides::default();
            for it in statements {
                overrides.push(it.clone()).expect("not too many");
            }
            overrides
        };
        let both = list([&first, &second]);
        assert_eq!(Overrides::default().instance(&[1; 16]), Some([1; 16]));
        assert_eq!(both.instance(&[1; 16]), Some(second.new_instance()));
        assert_eq!(both.instance(&[2; 16]), None);
        assert_eq!(list([&second, &first]).instance(&[1; 16]), None);
    }

    #[test]
    fn encoding_roundtrip_and_limit() {
        let mut overrides = Overrides::default();
        for _ in 0..OVERRIDES_MAX {
            assert!(overrides.push(signed([1; 16])).is_ok());
        }
        assert!(overrides.push(signed([1; 16])).is_err());
        let mut bytes = Vec::new();
        overrides.encode(&mut bytes);
        assert_eq!(bytes.len(), overrides.encoded_bytes());
        assert_eq!(Overrides::decode(&mut Reader::new(&bytes)), Ok(overrides.clone()));
        bytes[0] += 1;
        bytes.extend_from_within(1..1 + 2 + signed([1; 16]).statement().len());
        assert_eq!(Overrides::decode(&mut Reader::new(&bytes)), Err(Malformed), "one more");
    }

    /// A register in memory.
    struct Held(Commitment);

    impl TrustedRegister for Held {
        fn read(&self) -> Result<Commitment, monitor::Error> {
            Ok(self.0)
        }

        fn initialize(&mut self, commitment: &Commitment) -> Result<(), monitor::Error> {
            self.0 = *commitment;
            Ok(())
        }

        fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), monitor::Error> {
            assert_eq!(self.0, *expected);
            self.initialize(new)
        }
    }

    fn identity() -> Identity {
        Identity::derive(&Secret::new([1; 32]))
    }

    /// The sealed states of epochs 1 to 3.
    fn line() -> [Vec<u8>; 3] {
        let mut state = SealedState::genesis(identity().first_instance, admin().verifying_key().to_bytes());
        state.incarnation = [2; 16];
        state.previous = genesis_hash();
        [(); 3].map(|()| {
            let sealed = state.seal(&identity().sealing_key).expect("random bytes");
            state.history = state.certify(&identity()).expect("there are epochs left").1;
            state.previous = sealed_hash(&sealed);
            sealed
        })
    }

    fn opened(sealed: &[u8]) -> SealedState {
        SealedState::open(sealed, &identity().sealing_key).expect("sealed with this key")
    }

    /// Begin this incarnation from a sealed state, if the monitor accepts it.
    fn start(offered: &[u8], incarnation: u8, register: &mut Held) -> Result<SealedState, ViolationCode> {
        match accept(offered, &identity(), register) {
            Ok((committed, state)) => {
                let begun = Commitment {
                    sealed: sealed_hash(offered),
                    incarnation: [incarnation; 16],
                };
                register.commit(&committed, &begun).expect("in memory");
                Ok(state.expect("not that of an empty store"))
            }
            Err(NotStarted::Refused(code, _)) => Err(code),
            Err(NotStarted::Error(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn an_override_is_accepted_once_and_only_while_the_register_holds_what_it_replaces() {
        let [first, second, third] = line();
        let now = Commitment {
            sealed: sealed_hash(&third),
            incarnation: [2; 16],
        };
        let mut register = Held(now);
        let mut refusal = |offered: &[u8]| start(offered, 3, &mut register).err();
        assert_eq!(refusal(&first), Some(ViolationCode::Rollback));
        let replace = |replaced, old_instance| {
            let mut state = opened(&first);
            let decision = Decision {
                head: state.certify(&identity()).expect("there are epochs left").1.head,
                epoch: 1,
                replaced,
                ..decision(old_instance, "a test")
            };
            let signed = sign(&decision, &admin()).expect("well-formed");
            state.instance = signed.new_instance();
            state.overrides.push(signed).expect("the first");
            state.seal(&identity().sealing_key).expect("random bytes")
        };
        let first_instance = identity().first_instance;
        let of_another_start = Commitment {
            incarnation: [9; 16],
            ..now
        };
        let early = replace(of_another_start, first_instance);
        assert_eq!(refusal(&early), Some(ViolationCode::Rollback));
        let foreign = replace(now, [8; 16]);
        assert_eq!(refusal(&foreign), Some(ViolationCode::SealedStateInvalid));

        let (overriding, unused) = (replace(now, first_instance), replace(now, first_instance));
        let state = start(&overriding, 3, &mut register).expect("accepted");
        assert_ne!(state.instance, first_instance);
        let (certificate, history) = state.certify(&identity()).expect("there are epochs left");
        assert!(certificate.is_none(), "that of the old instance is not issued again");
        let former = opened(&first).certify(&identity()).expect("there are epochs left").1;
        assert_eq!(history, former, "the chain goes on");

        assert!(start(&overriding, 4, &mut register).is_ok());
        for lost in [&unused, &first, &second, &third] {
            assert_eq!(start(lost, 5, &mut register).err(), Some(ViolationCode::Rollback));
        }
    }

    fn array<const N: usize>(json: &Json) -> [u8; N] {
        let hex = json.as_str().expect("hex");
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
    }

    #[test]
    fn golden_statements() {
        let path = format!("{}/../../tests/vectors/overrides.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the golden examples are in the repository");
        let golden: Json = serde_json::from_str(&text).expect("golden examples are JSON");
        let admin = SigningKey::from_bytes(&array(&golden["admin_seed"]));
        let chain = golden["chain"].as_array().expect("a list");
        let mut overrides = Overrides::default();
        for case in chain {
            let decision = Decision {
                old_instance: array(&case["old_instance"]),
                epoch: case["epoch"].as_u64().expect("a number") as u32,
                head: array(&case["head"]),
                replaced: Commitment {
                    sealed: array(&case["replaced_sealed"]),
                    incarnation: array(&case["replaced_incarnation"]),
                },
                time: case["time"].as_u64().expect("a number"),
                reason: case["reason"].as_str().expect("text").to_owned(),
            };
            let signed = sign(&decision, &admin).expect("well-formed");
            assert_eq!(to_hex(signed.statement()), case["statement"].as_str().expect("hex"));
            assert_eq!(signed.new_instance(), array(&case["new_instance"]));
            overrides.push(signed).expect("not too many");
        }
        let last = overrides.instance(&array(&chain[0]["old_instance"]));
        assert_eq!(last, Some(array(&chain[1]["new_instance"])));
    }
}
