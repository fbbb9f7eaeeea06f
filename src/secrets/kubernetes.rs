//! Kubernetes Secrets out of encrypted manifests.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretSlice;

use super::age::Identities;
use super::sops::{Format, decrypt};
use crate::error::{Error, Result};
use crate::yaml::{Node, Stream};

/// A `v1/Secret`, decrypted; its values never show in `Debug`.
#[derive(Debug)]
pub struct KubeSecret {
    pub namespace: Option<String>,
    pub name: String,
    /// `type`, such as `Opaque`.
    pub kind: Option<String>,
    pub data: BTreeMap<String, SecretSlice<u8>>,
}

/// Reads and decrypts a manifest of one or more Secrets.
///
/// # Errors
/// Unreadable; not encrypted at all (refused: it holds secrets in plaintext); tampered with; no identity fits;
/// malformed: all [`crate::error::Kind::Invalid`], with the path.
pub fn load_kubernetes_secrets(path: &Path, identities: &Identities) -> Result<Vec<KubeSecret>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::invalid(format!("secrets file {}: {error}", path.display())))?;
    let format = match Format::of(path)? {
        Format::Binary => Format::Yaml,
        format => format,
    };
    kubernetes_secrets(&text, format, identities)
        .map_err(|error| error.at(format!("secrets file {}", path.display())))
}

/// As [`load_kubernetes_secrets`], from the text of a manifest.
///
/// # Errors
/// As there.
pub fn kubernetes_secrets(text: &str, format: Format, identities: &Identities) -> Result<Vec<KubeSecret>> {
    let decrypted = decrypt(text, format, identities)?;
    let stream = Stream::parse(decrypted.expose_text()?)?.merged()?;
    let secrets: Vec<_> = stream
        .documents()
        .iter()
        .filter(|document| !document.root.is_null())
        .map(|document| secret(&document.root))
        .collect::<Result<_>>()?;
    if secrets.is_empty() { Err(Error::invalid("it holds no Secret")) } else { Ok(secrets) }
}

fn secret(root: &Node) -> Result<KubeSecret> {
    let text = |path: &[&str]| root.get(path).and_then(Node::as_str).map(str::to_owned);
    if text(&["kind"]).as_deref() != Some("Secret") || text(&["apiVersion"]).as_deref() != Some("v1") {
        return Err(Error::invalid("expected documents of apiVersion v1 and kind Secret"));
    }
    let name = text(&["metadata", "name"]).ok_or_else(|| Error::invalid("a Secret has no metadata.name"))?;
    let mut data = BTreeMap::new();
    for (key, value) in entries(root, "data") {
        let packed: String = scalar(&name, key, value)?.split_whitespace().collect();
        let bytes = BASE64_STANDARD.decode(packed).map_err(|_| {
            Error::invalid(format!("Secret {name}: data.{} is not base64", key.text().unwrap_or_default()))
        })?;
        data.insert(key.text().unwrap_or_default().to_owned(), SecretSlice::from(bytes));
    }
    // As in the API server, stringData wins over data.
    for (key, value) in entries(root, "stringData") {
        let bytes = scalar(&name, key, value)?.as_bytes().to_vec();
        data.insert(key.text().unwrap_or_default().to_owned(), SecretSlice::from(bytes));
    }
    Ok(KubeSecret { namespace: text(&["metadata", "namespace"]), name, kind: text(&["type"]), data })
}

fn entries<'a>(root: &'a Node, field: &str) -> &'a [(Node, Node)] {
    root.get(&[field]).map(Node::entries).unwrap_or_default()
}

fn scalar<'a>(name: &str, key: &Node, value: &'a Node) -> Result<&'a str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None if value.is_null() => Ok(""),
        None => {
            let key = key.text().unwrap_or_default();
            Err(Error::invalid(format!("Secret {name}: the value of {key} is no text"))
                .hint("quote it in the manifest"))
        }
    }
}
