//! The message authentication code over a whole file.

use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use super::value::{DataKey, Plain, decrypt, encrypt};
use crate::error::{Error, Result};

/// SHA-256 of the text `sops`: what a MAC over encrypted values only starts with, so that it is never equal to a
/// MAC over all of them.
const ONLY_ENCRYPTED_START: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b,
    0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// SHA-512 over the plain bytes of the leaves in document order.
pub(super) struct Mac {
    hash: Sha512,
    only_encrypted: bool,
}

impl Mac {
    pub(super) fn new(only_encrypted: bool) -> Self {
        let mut hash = Sha512::new();
        if only_encrypted {
            hash.update(ONLY_ENCRYPTED_START);
        }
        Self { hash, only_encrypted }
    }

    /// Takes the next leaf in; comments are no part of the MAC.
    pub(super) fn add(&mut self, plain: &Plain, encrypted: bool) {
        if !matches!(plain, Plain::Comment(_)) && (encrypted || !self.only_encrypted) {
            self.hash.update(&*plain.bytes());
        }
    }

    /// The MAC as it is stored: upper-case hex, encrypted, bound to the time of the last change.
    pub(super) fn seal(self, key: &DataKey, last_modified: &str) -> Result<String> {
        encrypt(&Plain::Str(self.hex()), key, last_modified)
    }

    /// Compares with a stored MAC.
    ///
    /// # Errors
    /// The file, its MAC or its time was changed by something that does not have the data key.
    pub(super) fn verify(self, stored: &str, key: &DataKey, last_modified: &str) -> Result<()> {
        let stored = decrypt(stored, key, last_modified).map_err(|_| tampered("its MAC does not decrypt"))?;
        match stored {
            Plain::Str(text) if *text == *self.hex() => Ok(()),
            Plain::Str(text) if text.is_empty() => Err(tampered("it has no MAC")),
            _ => Err(tampered("MAC mismatch")),
        }
    }

    fn hex(self) -> Zeroizing<String> {
        Zeroizing::new(self.hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect())
    }
}

fn tampered(why: &str) -> Error {
    Error::invalid(format!("the file was changed without its key: {why}"))
        .hint("restore it from version control, or decrypt the intact file, change that and encrypt it again")
}
