//! The trusted register in a TPM 2.0, and how a command line names a register of either kind.
//!
//! It is trusted only where it is used. So it stands behind the monitor's trait [`TrustedRegister`](zetakv_monitor::register::TrustedRegister),
//! in a crate of its own, and only the two programs know of it.
//!
//! The library exists for these programs and for the tests; it is no interface for others.

#![forbid(unsafe_code)]

pub mod error;
pub mod register;
pub mod stream;
pub mod wire;

use std::ops::RangeInclusive;

use zetakv_monitor::register::OpenRegister;
use zetakv_monitor::register::file::FileRegister;

use crate::register::TpmRegister;
use crate::stream::TpmAddress;

const USAGE: &str = "a register is `file`, `tpm:PATH:INDEX` or `tpm:HOST:PORT:INDEX`, with an index like 0x01800100 (0x01000000 to 0x01bfffff)";
/// Handles of NV indices that the TPM's owner may define.
const NV_HANDLES: RangeInclusive<u32> = 0x0100_0000..=0x01bf_ffff;

/// The register that a command line names.
pub fn named(text: &str) -> Result<OpenRegister, &'static str> {
    if text == "file" {
        return Ok(Box::new(FileRegister::open));
    }
    let (address, index) = parse(text).ok_or(USAGE)?;
    Ok(Box::new(move |directory, identity| {
        let address = address.clone();
        Box::new(TpmRegister {
            connect: Box::new(move || address.connect()),
            index,
            auth: identity.tpm_auth.clone(),
            path: directory.join("register.tpm"),
        })
    }))
}

fn parse(text: &str) -> Option<(TpmAddress, u32)> {
    let (place, index) = text.strip_prefix("tpm:")?.rsplit_once(':')?;
    let index = u32::from_str_radix(index.strip_prefix("0x")?, 16).ok()?;
    let address = if place.starts_with('/') {
        TpmAddress::Device(place.into())
    } else {
        place.contains(':').then(|| TpmAddress::Tcp(place.to_owned()))?
    };
    NV_HANDLES.contains(&index).then_some((address, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let device = TpmAddress::Device("/dev/tpmrm0".into());
        assert_eq!(parse("tpm:/dev/tpmrm0:0x01800100"), Some((device, 0x0180_0100)));
        let tcp = TpmAddress::Tcp("localhost:2321".to_owned());
        assert_eq!(parse("tpm:localhost:2321:0x1000000"), Some((tcp, 0x0100_0000)));
        assert!(named("file").is_ok() && named("tpm:/dev/tpmrm0:0x01800100").is_ok());
        for wrong in [
            "",
            "tpm",
            "paper",
            "tpm:/dev/tpmrm0",
            "tpm:localhost:0x01800100",
            "tpm:/dev/tpmrm0:0x81000000",
            "tpm:/dev/tpmrm0:25166080",
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
