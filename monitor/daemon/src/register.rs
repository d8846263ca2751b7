//! The trusted register: the one thing that the host cannot put back. It commits to the latest sealed state, and to the latest start.
//!
//! A sealed state is only as fresh as this register. Two kinds: a file in the monitor's own state directory protects against the
//! *store* being put back to an older copy, but not against whoever puts back the monitor's directory with it; an index of a TPM
//! protects against that, too.

pub mod file;
pub mod tpm;
pub mod tpm_stream;
pub mod tpm_wire;

use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use zetakv_verifier::value::Hash;

use crate::error::Error;
use crate::identity::{Identity, IncarnationId};
use crate::register::file::FileRegister;
use crate::register::tpm::TpmRegister;
use crate::register::tpm_stream::TpmAddress;

/// What is committed to.
///
/// The incarnation is what makes a start final: a state that an earlier incarnation sealed, and that the host kept back, is no longer
/// accepted once another incarnation has begun without it and has told clients what took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commitment {
    /// Hash of the latest sealed state.
    pub sealed: Hash,
    /// The latest incarnation: only what it seals may come next. Zeros before the first.
    pub incarnation: IncarnationId,
}

/// Holds the latest commitment.
pub trait TrustedRegister: Send {
    /// The commitment.
    fn read(&self) -> Result<Commitment, Error>;

    /// Hold this from now on, whatever it holds: at the very first start, or when an operator says that what it held is lost.
    fn initialize(&mut self, commitment: &Commitment) -> Result<(), Error>;

    /// Replace `expected` by `new`, durably. When this returns an error, the register holds one of the two. After an [`Error::File`] the
    /// same call may be made again.
    fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), Error>;
}

/// Which register a monitor uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RegisterAddress {
    /// A file in its state directory.
    #[default]
    File,
    /// An NV index of a TPM.
    Tpm(TpmAddress, u32),
}

/// Handles of NV indices that the TPM's owner may define.
const NV_HANDLES: RangeInclusive<u32> = 0x0100_0000..=0x01bf_ffff;

impl FromStr for RegisterAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const USAGE: &str = "a register is `file`, `tpm:PATH:INDEX` or `tpm:HOST:PORT:INDEX`, with an index like 0x01800100 (0x01000000 to 0x01bfffff)";
        if text == "file" {
            return Ok(Self::File);
        }
        let (place, index) = text
            .strip_prefix("tpm:")
            .and_then(|rest| rest.rsplit_once(':'))
            .ok_or(USAGE)?;
        let index = index
            .strip_prefix("0x")
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .filter(|index| NV_HANDLES.contains(index))
            .ok_or(USAGE)?;
        let address = if place.starts_with('/') {
            TpmAddress::Device(place.into())
        } else if place.contains(':') {
            TpmAddress::Tcp(place.to_owned())
        } else {
            return Err(USAGE);
        };
        Ok(Self::Tpm(address, index))
    }
}

impl RegisterAddress {
    /// The register, for the monitor with this state directory and identity.
    pub fn open(&self, directory: &Path, identity: &Identity) -> Box<dyn TrustedRegister> {
        match self {
            Self::File => Box::new(FileRegister::new(
                directory.join("register"),
                identity.register_key.clone(),
            )),
            Self::Tpm(address, index) => {
                let address = address.clone();
                Box::new(TpmRegister {
                    connect: Box::new(move || address.connect()),
                    index: *index,
                    auth: identity.tpm_auth.clone(),
                    path: directory.join("register.tpm"),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!("file".parse(), Ok(RegisterAddress::File));
        let device = TpmAddress::Device("/dev/tpmrm0".into());
        assert_eq!(
            "tpm:/dev/tpmrm0:0x01800100".parse(),
            Ok(RegisterAddress::Tpm(device, 0x0180_0100))
        );
        let tcp = TpmAddress::Tcp("localhost:2321".to_owned());
        assert_eq!(
            "tpm:localhost:2321:0x1000000".parse(),
            Ok(RegisterAddress::Tpm(tcp, 0x0100_0000))
        );
        for wrong in [
            "",
            "tpm",
            "tpm:/dev/tpmrm0",
            "tpm:localhost:0x01800100",
            "tpm:/dev/tpmrm0:0x81000000",
            "tpm:/dev/tpmrm0:25166080",
        ] {
            assert!(wrong.parse::<RegisterAddress>().is_err(), "{wrong}");
        }
    }
}
