//! The `sops` block of an encrypted file: who can read it, which values are encrypted, and its MAC.

use regex::Regex;

use crate::error::{Error, Result};
use crate::yaml::{Node, Value};

/// The sops release whose files ours are like.
const VERSION: &str = "3.13.3";
const DEFAULT_UNENCRYPTED_SUFFIX: &str = "_unencrypted";

/// Which leaves are encrypted; at most one rule per file.
#[derive(Debug, Clone)]
pub enum Selector {
    /// All but those below a key with this ending.
    UnencryptedSuffix(String),
    /// Only those below a key with this ending.
    EncryptedSuffix(String),
    UnencryptedRegex(Regex),
    EncryptedRegex(Regex),
    /// All but those after a comment that matches.
    UnencryptedCommentRegex(Regex),
    /// Only those after a comment that matches.
    EncryptedCommentRegex(Regex),
}

impl Default for Selector {
    fn default() -> Self {
        Self::UnencryptedSuffix(DEFAULT_UNENCRYPTED_SUFFIX.to_owned())
    }
}

impl Selector {
    /// Whether comments decide what is encrypted.
    pub(super) fn is_by_comments(&self) -> bool {
        matches!(self, Self::UnencryptedCommentRegex(_) | Self::EncryptedCommentRegex(_))
    }

    /// The names sops gives the rules, in metadata and in `.sops.yaml`.
    pub(super) const NAMES: [&'static str; 6] = [
        "unencrypted_suffix",
        "encrypted_suffix",
        "unencrypted_regex",
        "encrypted_regex",
        "unencrypted_comment_regex",
        "encrypted_comment_regex",
    ];

    /// A rule by its name; `None` for a name that is no rule.
    ///
    /// # Errors
    /// The regular expression is not valid.
    pub fn new(name: &str, value: &str) -> Result<Option<Self>> {
        let regex = || {
            Regex::new(value)
                .map_err(|_| Error::invalid(format!("{name} {value:?} is no valid regular expression")))
        };
        Ok(Some(match name {
            "unencrypted_suffix" => Self::UnencryptedSuffix(value.to_owned()),
            "encrypted_suffix" => Self::EncryptedSuffix(value.to_owned()),
            "unencrypted_regex" => Self::UnencryptedRegex(regex()?),
            "encrypted_regex" => Self::EncryptedRegex(regex()?),
            "unencrypted_comment_regex" => Self::UnencryptedCommentRegex(regex()?),
            "encrypted_comment_regex" => Self::EncryptedCommentRegex(regex()?),
            _ => return Ok(None),
        }))
    }

    /// The one rule in a map, `None` if there is none.
    pub(super) fn read(map: &Node) -> Result<Option<Self>> {
        let mut found = None;
        for name in Self::NAMES {
            let Some(value) = map.get(&[name]).and_then(Node::text).filter(|text| !text.is_empty()) else {
                continue;
            };
            if found.is_some() {
                return Err(Error::invalid(
                    "more than one of encrypted_regex, encrypted_suffix and their like is set",
                ));
            }
            found = Self::new(name, value)?;
        }
        Ok(found)
    }

    fn name_and_value(&self) -> (&'static str, &str) {
        match self {
            Self::UnencryptedSuffix(text) => ("unencrypted_suffix", text),
            Self::EncryptedSuffix(text) => ("encrypted_suffix", text),
            Self::UnencryptedRegex(regex) => ("unencrypted_regex", regex.as_str()),
            Self::EncryptedRegex(regex) => ("encrypted_regex", regex.as_str()),
            Self::UnencryptedCommentRegex(regex) => ("unencrypted_comment_regex", regex.as_str()),
            Self::EncryptedCommentRegex(regex) => ("encrypted_comment_regex", regex.as_str()),
        }
    }

    /// Whether the leaf below these keys and after these comments is encrypted. A comment is not chosen by itself.
    pub(super) fn picks(&self, path: &[String], comments: &[Vec<&str>], is_comment: bool) -> bool {
        let mut keys = path.iter();
        let all = || comments.iter().flatten();
        match self {
            Self::UnencryptedSuffix(suffix) => !keys.any(|key| key.ends_with(suffix)),
            Self::EncryptedSuffix(suffix) => keys.any(|key| key.ends_with(suffix)),
            Self::UnencryptedRegex(regex) => !keys.any(|key| regex.is_match(key)),
            Self::EncryptedRegex(regex) => keys.any(|key| regex.is_match(key)),
            Self::UnencryptedCommentRegex(regex) => !all().any(|comment| regex.is_match(comment)),
            Self::EncryptedCommentRegex(regex) => {
                let itself = usize::from(is_comment);
                let earlier = all().count().saturating_sub(itself);
                all().take(earlier).any(|comment| regex.is_match(comment))
            }
        }
    }
}

/// The data key for one recipient.
#[derive(Debug, Clone)]
pub(super) struct AgeEntry {
    pub recipient: String,
    /// An armored age file.
    pub enc: String,
}

#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub age: Vec<AgeEntry>,
    /// Exactly as written: the MAC is bound to this text.
    pub last_modified: String,
    pub mac: String,
    pub selector: Selector,
    pub mac_only_encrypted: bool,
}

impl Metadata {
    /// Reads the block from the root of a file's first document; `None` if there is no block.
    ///
    /// # Errors
    /// The block is malformed, or uses what is not supported: several key groups, or no age recipient.
    pub(super) fn read(root: &Node) -> Result<Option<Self>> {
        let Some(block) = root.get(&["sops"]) else { return Ok(None) };
        let group = key_group(block)?;
        let age = group.get(&["age"]).map(Node::items).unwrap_or_default();
        let age = age.iter().map(age_entry).collect::<Result<Vec<_>>>()?;
        if age.is_empty() {
            return Err(no_age(&other_kinds(group)));
        }
        Ok(Some(Self {
            age,
            last_modified: required(block, "lastmodified")?,
            mac: required(block, "mac")?,
            selector: Selector::read(block)?.unwrap_or_default(),
            mac_only_encrypted: block.get(&["mac_only_encrypted"]).and_then(Node::scalar)
                == Some(Value::Bool(true)),
        }))
    }

    /// The block as JSON, keys in the order in which sops writes them.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let age: Vec<_> = self
            .age
            .iter()
            .map(|entry| serde_json::json!({"enc": entry.enc, "recipient": entry.recipient}))
            .collect();
        let (name, value) = self.selector.name_and_value();
        let mut fields = vec![
            ("age", age.into()),
            (name, value.into()),
            ("lastmodified", self.last_modified.as_str().into()),
            ("mac", self.mac.as_str().into()),
            ("version", VERSION.into()),
        ];
        if self.mac_only_encrypted {
            fields.push(("mac_only_encrypted", true.into()));
        }
        fields.sort_by_key(|(name, _)| *name);
        serde_json::Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The block as lines of block YAML, indented by `indent` spaces.
    pub(super) fn to_yaml(&self, indent: usize) -> String {
        let mut lines = vec!["sops:".to_owned()];
        let json = self.to_json();
        for (name, value) in json.as_object().into_iter().flatten() {
            if name == "age" {
                lines.push("    age:".to_owned());
                self.age.iter().for_each(|entry| entry.lines(&mut lines));
            } else {
                let text = value.as_str().map_or_else(|| value.to_string(), crate::yaml::quote);
                lines.push(format!("    {name}: {text}"));
            }
        }
        let indent = " ".repeat(indent);
        lines.iter().map(|line| format!("{indent}{line}\n")).collect()
    }
}

impl AgeEntry {
    fn lines(&self, lines: &mut Vec<String>) {
        lines.push("        - enc: |".to_owned());
        lines.extend(self.enc.lines().map(|line| format!("            {line}")));
        lines.push(format!("          recipient: {}", self.recipient));
    }
}

/// What sops can encrypt to besides age: the names in files and rules, and how people call it.
pub(super) const OTHER_KINDS: [(&str, &str); 8] = [
    ("pgp", "PGP"),
    ("kms", "AWS KMS"),
    ("gcp_kms", "Google Cloud KMS"),
    ("hckms", "Huawei Cloud KMS"),
    ("azure_kv", "Azure Key Vault"),
    ("azure_keyvault", "Azure Key Vault"),
    ("hc_vault", "HashiCorp Vault"),
    ("hc_vault_transit_uri", "HashiCorp Vault"),
];

/// The kinds besides age that a map of recipients names.
pub(super) fn other_kinds(keys: &Node) -> Vec<&'static str> {
    let named = |name: &str| keys.get(&[name]).is_some_and(names_someone);
    OTHER_KINDS.iter().filter(|(name, _)| named(name)).map(|(_, kind)| *kind).collect()
}

/// Whether a list of recipients, or a text of them, is not empty.
pub(super) fn names_someone(list: &Node) -> bool {
    match list.text() {
        Some(text) => !list.is_null() && text.split(',').any(|part| !part.trim().is_empty()),
        None => !list.items().is_empty() || !list.entries().is_empty(),
    }
}

/// The one map with everyone's entries. A threshold says nothing where there is one group: sops splits no key then.
fn key_group(block: &Node) -> Result<&Node> {
    let flat = block.get(&["age"]).is_some_and(names_someone) || !other_kinds(block).is_empty();
    match block.get(&["key_groups"]).map(Node::items).unwrap_or_default() {
        [group] if !flat => Ok(group),
        [_, _, ..] if !flat => {
            Err(Error::invalid("the data key is shared between several key groups, which is not supported")
                .hint("decrypt it with sops, or encrypt it again with one group of age recipients"))
        }
        _ => Ok(block),
    }
}

fn no_age(others: &[&str]) -> Error {
    if others.is_empty() {
        return Error::invalid("the file is encrypted to no age recipient, nor to anybody else");
    }
    let kinds = others.join(" and ");
    Error::invalid(format!("the file is encrypted to no age recipient, only to {kinds} keys; those are not supported")).hint(
        "add an age recipient (age1…): put it into .sops.yaml and run `sops updatekeys` where the other key is",
    )
}

fn age_entry(entry: &Node) -> Result<AgeEntry> {
    Ok(AgeEntry { recipient: required(entry, "recipient")?, enc: required(entry, "enc")? })
}

fn required(map: &Node, key: &str) -> Result<String> {
    let text = map.get(&[key]).and_then(Node::text).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| Error::invalid(format!("the sops metadata has no {key}")))
}
