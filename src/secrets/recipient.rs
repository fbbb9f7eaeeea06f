//! Whom a file is encrypted to.

use std::fmt;
use std::str::FromStr;

use age::x25519;

use super::hybrid;
use crate::error::{Error, Result};

/// Who can decrypt: a public key, `age1…` or, post-quantum, `age1pq1…`.
#[derive(Clone)]
pub enum Recipient {
    Classic(x25519::Recipient),
    Hybrid(Box<hybrid::Recipient>),
}

impl FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("AGE-SECRET-KEY-") {
            return Err(Error::invalid("a secret key was given where a recipient (age1…) is expected")
                .hint("`nodeprep secrets keygen` writes the recipient as the public key into the key file"));
        }
        if text.starts_with("age1pq1") {
            return text.parse().map(|key| Self::Hybrid(Box::new(key))).map_err(|why| {
                Error::invalid(format!("the post-quantum recipient {} {why}", shortened(text)))
            });
        }
        let kind = recipient_kind(text);
        text.parse().map(Self::Classic).map_err(|_| match kind {
            Kind::Age => Error::invalid(format!("the recipient {text:?} {}", hybrid::NOT_ONE)),
            _ => Error::invalid(format!("{:?} is {}", shortened(text), kind.text()))
                .hint("only recipients age1… and age1pq1… are supported"),
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classic(key) => key.fmt(f),
            Self::Hybrid(key) => key.fmt(f),
        }
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Recipient {
    /// Recipients separated by commas, as `--age` and `SOPS_AGE_RECIPIENTS` hold them.
    ///
    /// # Errors
    /// One of them is no such recipient.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    /// For messages: a post-quantum one is two thousand characters long.
    pub(super) fn short(&self) -> String {
        shortened(&self.to_string())
    }

    pub(super) fn encrypt(&self, bytes: &[u8]) -> Result<String, age::EncryptError> {
        match self {
            Self::Classic(key) => age::encrypt_and_armor(key, bytes),
            Self::Hybrid(key) => age::encrypt_and_armor(key.as_ref(), bytes),
        }
    }
}

/// A recipient's kind by its first letters, as sops tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Age,
    Ssh,
    Plugin,
    Unknown,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Age => "an age recipient",
            Self::Ssh => "an SSH key",
            Self::Plugin => "a recipient of an age plugin",
            Self::Unknown => "no age recipient",
        }
    }
}

pub(super) fn recipient_kind(text: &str) -> Kind {
    match text.strip_prefix("age1") {
        Some(rest) if rest.starts_with("pq1") || !rest.contains('1') => Kind::Age,
        Some(_) => Kind::Plugin,
        None if text.starts_with("ssh-") => Kind::Ssh,
        None => Kind::Unknown,
    }
}

pub(super) fn shortened(recipient: &str) -> String {
    match (recipient.get(..24), recipient.len() > 200) {
        (Some(start), true) => format!("{start}…"),
        _ => recipient.to_owned(),
    }
}
