//! Post-quantum age keys (`age1pq1…`), as the age specification of C2SP has them: the stanza and the two encodings. HPKE is a
//! crate's, its KEM is in `xwing`.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use age::secrecy::{ExposeSecret as _, SecretString};
use age::{DecryptError, EncryptError};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::{bech32_decode, bech32_encode, hpke_open, hpke_seal};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bech32::Hrp;
use hpke::rand_core::OsRng;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use rand::RngCore as _;
use zeroize::Zeroizing;

use super::xwing::{Private, Public, Share, XWing};

const STANZA: &str = "mlkem768x25519";
const INFO: &[u8] = b"age-encryption.org/mlkem768x25519";
/// Recipients with this label may only be together with others that have it.
const LABEL: &str = "postquantum";
const RECIPIENT: Hrp = Hrp::parse_unchecked("age1pq");
const IDENTITY: Hrp = Hrp::parse_unchecked("AGE-SECRET-KEY-PQ-");
const TAG_BYTES: usize = 16;

/// Why a text is no key of this kind; it never quotes the text.
pub(super) const NOT_ONE: &str = "is cut short or mistyped: its checksum or its length is wrong";

/// A public key, `age1pq1…`.
#[derive(Clone)]
pub struct Recipient(Public);

impl FromStr for Recipient {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Public::from_bytes(&decode(text, RECIPIENT)?).map(Self).map_err(|_| NOT_ONE)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32_encode(RECIPIENT, &self.0.to_bytes()))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl age::Recipient for Recipient {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let (share, body) = hpke_seal::<XWing, _>(&self.0, INFO, key.expose_secret(), &mut OsRng);
        let args = vec![BASE64_STANDARD_NO_PAD.encode(share.to_bytes())];
        Ok((vec![Stanza { tag: STANZA.to_owned(), args, body }], HashSet::from([LABEL.to_owned()])))
    }
}

/// A private key, `AGE-SECRET-KEY-PQ-1…`.
#[derive(Clone)]
pub(super) struct Identity(Private);

impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Private::from_bytes(&decode(text, IDENTITY)?).map(Self).map_err(|_| NOT_ONE)
    }
}

impl Identity {
    pub(super) fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(seed.as_mut());
        Self(Private::new(*seed))
    }

    pub(super) fn to_public(&self) -> Recipient {
        Recipient(XWing::sk_to_pk(&self.0))
    }

    pub(super) fn to_text(&self) -> SecretString {
        let seed = Zeroizing::new(self.0.to_bytes().to_vec());
        let text = Zeroizing::new(bech32_encode(IDENTITY, &seed));
        text.to_uppercase().into()
    }

    fn unwrap(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let [share] = stanza.args.as_slice() else { return Some(Err(DecryptError::InvalidHeader)) };
        let share = BASE64_STANDARD_NO_PAD.decode(share).ok();
        let share = share.and_then(|bytes| Share::from_bytes(&bytes).ok());
        let Some(share) = share.filter(|_| stanza.body.len() == FILE_KEY_BYTES + TAG_BYTES) else {
            return Some(Err(DecryptError::InvalidHeader));
        };
        if share.has_low_order() {
            return Some(Err(DecryptError::InvalidHeader));
        }
        // One that was made for another key decapsulates too; only then does it fail to open.
        let opened = Zeroizing::new(hpke_open::<XWing>(&share, &self.0, INFO, &stanza.body).ok()?);
        Some(Ok(FileKey::init_with_mut(|key| key.copy_from_slice(&opened))))
    }
}

impl age::Identity for Identity {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        if stanza.tag == STANZA { self.unwrap(stanza) } else { None }
    }
}

fn decode(text: &str, prefix: Hrp) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    bech32_decode(
        text,
        |_| NOT_ONE,
        |hrp| if hrp == prefix { Ok(()) } else { Err(NOT_ONE) },
        |_, bytes| Ok(Zeroizing::new(bytes.collect())),
    )
}
