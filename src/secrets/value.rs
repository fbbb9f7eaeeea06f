//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

use aes_gcm::aead::consts::{U12, U16, U32};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit, Nonce};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::yaml::Value;

/// The random key of one file, which encrypts its values; itself encrypted to the recipients.
pub(super) type DataKey = Zeroizing<[u8; 32]>;

/// A decrypted leaf.
#[derive(Clone)]
pub(super) enum Plain {
    Str(Zeroizing<String>),
    /// A string that is not UTF-8; only binary files hold such.
    Bytes(Zeroizing<Vec<u8>>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// RFC 3339.
    Time(String),
    Comment(Zeroizing<String>),
}

impl Plain {
    /// The leaf a YAML or JSON scalar stands for; `None` for null.
    ///
    /// # Errors
    /// Scalars that sops refuses: integers above `i64::MAX`, and tags.
    pub(super) fn from_scalar(value: Value) -> Result<Option<Self>> {
        Ok(Some(match value {
            Value::Null => return Ok(None),
            Value::Str(text) => Self::Str(text.into()),
            Value::Int(number) => Self::Int(number),
            Value::Float(number) => Self::Float(number),
            Value::Bool(truth) => Self::Bool(truth),
            Value::Time(time) => Self::Time(time),
            Value::Uint(_) => return Err(Error::invalid("an integer above 9223372036854775807; quote it")),
            Value::Tagged(tag, _) => return Err(Error::invalid(format!("the tag {tag} is not supported"))),
            Value::Seq(_) | Value::Map(_) => return Err(Error::failed("a collection is no leaf")),
        }))
    }

    /// The bytes that are encrypted and that go into the MAC.
    pub(super) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Str(text) | Self::Comment(text) => text.as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Int(number) => number.to_string().into_bytes(),
            Self::Float(number) => float(*number).into_bytes(),
            Self::Bool(true) => b"True".to_vec(),
            Self::Bool(false) => b"False".to_vec(),
            Self::Time(time) => time.clone().into_bytes(),
        })
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Str(text) | Self::Comment(text) if text.is_empty())
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Str(_) | Self::Bytes(_) => "str",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Time(_) => "time",
            Self::Comment(_) => "comment",
        }
    }

    fn decode(bytes: Zeroizing<Vec<u8>>, kind: &str) -> Option<Self> {
        let text = || std::str::from_utf8(&bytes).ok();
        Some(match kind {
            "str" | "bytes" => match text() {
                Some(text) => Self::Str(text.to_owned().into()),
                None => Self::Bytes(bytes),
            },
            "comment" => Self::Comment(text()?.to_owned().into()),
            "int" => Self::Int(text()?.parse().ok()?),
            "float" => Self::Float(parse_float(text()?)?),
            "bool" => match text()? {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Self::Bool(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Self::Bool(false),
                _ => return None,
            },
            "time" => match crate::yaml::resolve(text()?, true, None) {
                Value::Time(time) => Self::Time(time),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// Go's `FormatFloat(f, 'f', -1, 64)`.
fn float(number: f64) -> String {
    if number == f64::INFINITY {
        "+Inf".to_owned()
    } else if number == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        number.to_string()
    }
}

fn parse_float(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

/// The additional data that binds a value to its place: the map keys from the root, each followed by a colon; list
/// indices do not count, and the root itself is `:`.
pub(super) fn additional_data(path: &[String]) -> String {
    format!("{}:", path.join(":"))
}

/// Encrypts a leaf; an empty text stays empty.
pub(super) fn encrypt(plain: &Plain, key: &DataKey, additional_data: &str) -> Result<String> {
    if plain.is_empty() {
        return Ok(String::new());
    }
    let mut iv = [0u8; 32];
    rand::rng().fill_bytes(&mut iv);
    let bytes = plain.bytes();
    let payload = Payload { msg: &bytes, aad: additional_data.as_bytes() };
    let sealed = AesGcm::<Aes256, U32>::new(&(**key).into())
        .encrypt(&Nonce::from(iv), payload)
        .map_err(|_| Error::failed("a value could not be encrypted"))?;
    let (data, tag) = sealed.split_at(sealed.len().saturating_sub(16));
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    Ok(format!(
        "ENC[AES256_GCM,data:{},iv:{},tag:{},type:{}]",
        base64(data),
        base64(&iv),
        base64(tag),
        plain.type_name()
    ))
}

/// Decrypts a text; an empty one stays empty.
///
/// # Errors
/// The text is not an encrypted value, or it was changed, moved, or encrypted with another data key.
pub(super) fn decrypt(text: &str, key: &DataKey, additional_data: &str) -> Result<Plain> {
    if text.is_empty() {
        return Ok(Plain::Str(Zeroizing::default()));
    }
    let parts = Parts::parse(text)
        .ok_or_else(|| Error::invalid("expected an encrypted value (ENC[AES256_GCM,…]), found plain text"))?;
    let payload = Payload { msg: &parts.sealed, aad: additional_data.as_bytes() };
    let bytes = match parts.iv.len() {
        32 => AesGcm::<Aes256, U32>::new(&(**key).into()).decrypt(&nonce::<32>(&parts.iv)?.into(), payload),
        16 => AesGcm::<Aes256, U16>::new(&(**key).into()).decrypt(&nonce::<16>(&parts.iv)?.into(), payload),
        12 => AesGcm::<Aes256, U12>::new(&(**key).into()).decrypt(&nonce::<12>(&parts.iv)?.into(), payload),
        length => return Err(Error::invalid(format!("an encrypted value has an IV of {length} bytes"))),
    };
    let bytes = bytes.map_err(|_| {
        Error::invalid("an encrypted value does not authenticate: it was changed, or moved to another key")
    })?;
    Plain::decode(Zeroizing::new(bytes), parts.kind)
        .ok_or_else(|| Error::invalid(format!("an encrypted value is not of its type {:?}", parts.kind)))
}

fn nonce<const N: usize>(iv: &[u8]) -> Result<[u8; N]> {
    iv.try_into().map_err(|_| Error::invalid("an encrypted value has an IV of a wrong length"))
}

struct Parts<'t> {
    /// Data and tag in one.
    sealed: Vec<u8>,
    iv: Vec<u8>,
    kind: &'t str,
}

impl<'t> Parts<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let inner = text.strip_prefix("ENC[AES256_GCM,data:")?;
        let (data, rest) = inner.split_once(",iv:")?;
        let (iv, rest) = rest.split_once(",tag:")?;
        let (tag, rest) = rest.split_once(",type:")?;
        let kind = rest.strip_suffix(']')?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        let (mut sealed, iv, tag) = (decode(data)?, decode(iv)?, decode(tag)?);
        sealed.extend(tag);
        Some(Self { sealed, iv, kind })
    }
}

/// Whether the text has the form of an encrypted value.
pub(super) fn is_encrypted(text: &str) -> bool {
    Parts::parse(text).is_some()
}

/// Whether the text is an encrypted comment.
pub(super) fn is_comment(text: &str) -> bool {
    Parts::parse(text).is_some_and(|parts| parts.kind == "comment")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of sops' own `aes/cipher_test.go`: a 32-byte IV and the path as additional data.
    #[test]
    fn a_value_that_sops_encrypted_decrypts_only_at_its_place() -> Result<()> {
        let key = Zeroizing::new([b'f'; 32]);
        let sealed = "ENC[AES256_GCM,data:oYyi,iv:MyIDYbT718JRr11QtBkcj3Dwm4k1aCGZBVeZf0EyV8o=,tag:t5z2Z023Up0kxwCgw1gNxg==,type:str]";
        assert!(matches!(decrypt(sealed, &key, "bar:")?, Plain::Str(text) if *text == "foo"));
        assert!(decrypt(sealed, &key, "").is_err());
        assert!(decrypt(sealed, &key, "baz:").is_err());
        assert_eq!(additional_data(&["stringData".to_owned(), "cloud".to_owned()]), "stringData:cloud:");
        assert_eq!(additional_data(&[]), ":");
        Ok(())
    }
}
