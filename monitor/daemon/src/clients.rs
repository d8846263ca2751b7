//! The authorized clients of an instance, and the admin requests that change them.
//!
//! Invariants: keys are valid and distinct, and there is always at least one admin. An admin request is authenticated before anything here
//! sees it; what it asks for has no effect unless its status is [`Status::Done`].

use ed25519_dalek::VerifyingKey;
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::machine::Role;

use crate::identity::PublicKey;

/// Clients at the most: bounds the sealed state.
pub const CLIENTS_MAX: usize = 1024;
/// Bytes of a client's name at the most.
pub const NAME_BYTES_MAX: usize = 64;
/// Name of the client that a fresh instance has.
const FIRST_ADMIN_NAME: &str = "admin";

/// A client that may open sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it may do.
    pub role: Role,
    /// Its key.
    pub key: PublicKey,
    /// For people; at most [`NAME_BYTES_MAX`].
    pub name: String,
}

impl Client {
    /// Append the encoding: role, key, name with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.role as u8);
        out.extend_from_slice(&self.key);
        out.push(self.name.len() as u8); // at most NAME_BYTES_MAX
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Read a client.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let role = Role::from_u8(reader.u8()?).ok_or(Malformed)?;
        let key = *reader.array()?;
        VerifyingKey::from_bytes(&key).map_err(|_| Malformed)?;
        let length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.take(length)?).map_err(|_| Malformed)?;
        if length > NAME_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(Self {
            role,
            key,
            name: name.to_owned(),
        })
    }
}

/// The outcome of an admin request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It took effect.
    Done = 0,
    /// Not what the protocol allows.
    Malformed = 1,
    /// The session's client is no admin.
    Forbidden = 2,
    /// There is a client with this key.
    AlreadyThere = 3,
    /// There is no client with this key.
    NotThere = 4,
    /// There are [`CLIENTS_MAX`].
    TooMany = 5,
    /// Nobody could manage clients any more.
    WouldRemoveLastAdmin = 6,
}

/// An admin request, split but not authenticated.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedAdminRequest<'a> {
    /// Session.
    pub session: u64,
    /// One more than that of the session's request before.
    pub sequence: u64,
    /// Operation and arguments.
    pub operation: &'a [u8],
    /// All that the MAC covers.
    pub covered: &'a [u8],
    /// The MAC.
    pub mac: &'a Mac,
}

impl<'a> UnverifiedAdminRequest<'a> {
    /// Split a request into its parts; the operation is not parsed.
    pub fn split(request: &'a [u8]) -> Result<Self, Malformed> {
        let (covered, mac) = request.split_last_chunk().ok_or(Malformed)?;
        let mut reader = Reader::new(covered);
        Ok(Self {
            session: reader.u64()?,
            sequence: reader.u64()?,
            operation: reader.rest(),
            covered,
            mac,
        })
    }
}

/// What an admin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Authorize a client.
    Add(Client),
    /// Take a client's authorization away.
    Remove(PublicKey),
    /// Say who is authorized.
    List,
}

impl Operation {
    /// Read an operation, with nothing after it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let operation = match reader.u8()? {
            1 => Self::Add(Client::decode(&mut reader)?),
            2 => Self::Remove(*reader.array()?),
            3 => Self::List,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(operation)
    }
}

/// The authorized clients, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients(Vec<Client>);

impl Clients {
    /// Those of a fresh instance: one admin.
    pub fn first(admin: PublicKey) -> Self {
        Self(vec![Client {
            role: Role::Admin,
            key: admin,
            name: FIRST_ADMIN_NAME.to_owned(),
        }])
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// The role of the client with this key; `None` if it is not authorized.
    pub fn role(&self, key: &PublicKey) -> Option<Role> {
        self.0
            .iter()
            .find(|client| client.key == *key)
            .map(|client| client.role)
    }

    /// Authorize a client.
    pub fn add(&mut self, client: Client) -> Status {
        if self.role(&client.key).is_some() {
            Status::AlreadyThere
        } else if self.0.len() >= CLIENTS_MAX {
            Status::TooMany
        } else {
            self.0.push(client);
            Status::Done
        }
    }

    /// Take the authorization of the client with this key away.
    pub fn remove(&mut self, key: &PublicKey) -> Status {
        let is_admin = |client: &&Client| client.role == Role::Admin;
        match self.role(key) {
            None => Status::NotThere,
            Some(Role::Admin) if self.0.iter().filter(is_admin).count() == 1 => Status::WouldRemoveLastAdmin,
            Some(_) => {
                self.0.retain(|client| client.key != *key);
                Status::Done
            }
        }
    }

    /// Bytes of the encoding at the most.
    pub fn encoded_bytes_max(&self) -> usize {
        2 + self.0.len() * (1 + 32 + 1 + NAME_BYTES_MAX)
    }

    /// Append the encoding: count, and each client.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u16).to_le_bytes()); // at most CLIENTS_MAX
        for client in &self.0 {
            client.encode(out);
        }
    }

    /// Read the clients.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.u16()?;
        (0..count)
            .map(|_| Client::decode(reader))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn client(seed: u16, role: Role) -> Client {
        let mut secret = [0; 32];
        secret[..2].copy_from_slice(&seed.to_le_bytes());
        Client {
            role,
            key: SigningKey::from_bytes(&secret).verifying_key().to_bytes(),
            name: format!("client {seed}"),
        }
    }

    #[test]
    fn adding_and_removing() {
        let (admin, reader) = (client(0, Role::Admin), client(1, Role::Read));
        let mut clients = Clients::first(admin.key);
        assert_eq!(clients.role(&admin.key), Some(Role::Admin));
        assert_eq!(clients.add(reader.clone()), Status::Done);
        assert_eq!(clients.role(&reader.key), Some(Role::Read));
        assert_eq!(clients.add(client(1, Role::Write)), Status::AlreadyThere);
        assert_eq!(clients.role(&reader.key), Some(Role::Read));
        assert_eq!(clients.remove(&reader.key), Status::Done);
        assert_eq!(clients.remove(&reader.key), Status::NotThere);
        assert_eq!(clients.role(&reader.key), None);
    }

    #[test]
    fn the_last_admin_stays() {
        let (one, other) = (client(0, Role::Admin), client(1, Role::Admin));
        let mut clients = Clients::first(one.key);
        assert_eq!(clients.add(client(2, Role::Write)), Status::Done);
        assert_eq!(clients.remove(&one.key), Status::WouldRemoveLastAdmin);
        assert_eq!(clients.add(other.clone()), Status::Done);
        assert_eq!(clients.remove(&one.key), Status::Done);
        assert_eq!(clients.remove(&other.key), Status::WouldRemoveLastAdmin);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut clients = Clients::first(client(0, Role::Admin).key);
        for seed in 1..CLIENTS_MAX as u16 {
            assert_eq!(clients.add(client(seed, Role::Read)), Status::Done);
        }
        assert_eq!(clients.add(client(CLIENTS_MAX as u16, Role::Read)), Status::TooMany);
    }

    #[test]
    fn encoding_roundtrip_and_malformed_operations() {
        let mut clients = Clients::first(client(0, Role::Admin).key);
        assert_eq!(clients.add(client(1, Role::Read)), Status::Done);
        let mut bytes = Vec::new();
        clients.encode(&mut bytes);
        assert_eq!(Clients::decode(&mut Reader::new(&bytes)), Ok(clients));
        for length in 0..bytes.len() {
            assert_eq!(Clients::decode(&mut Reader::new(&bytes[..length])), Err(Malformed));
        }

        let mut add = vec![1];
        client(5, Role::Write).encode(&mut add);
        assert_eq!(Operation::decode(&add), Ok(Operation::Add(client(5, Role::Write))));
        add.push(0);
        assert_eq!(Operation::decode(&add), Err(Malformed), "trailing byte");
        add.pop();
        add[1] = 4;
        assert_eq!(Operation::decode(&add), Err(Malformed), "role");
        assert_eq!(Operation::decode(&[]), Err(Malformed));
        assert_eq!(Operation::decode(&[4]), Err(Malformed));
        let mut long = client(5, Role::Write);
        long.name = "x".repeat(NAME_BYTES_MAX + 1);
        let mut add = vec![1];
        long.encode(&mut add);
        assert_eq!(Operation::decode(&add), Err(Malformed), "name");
    }
}
