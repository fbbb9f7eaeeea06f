//! Encrypting and decrypting whole files, as `sops` does.
//!
//! Both directions are splices: each value's bytes are replaced where they stand, so layout, quoting and comments
//! of everything else survive.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;
use rand::RngCore as _;
use secrecy::{ExposeSecret as _, SecretSlice};
use zeroize::{Zeroize as _, Zeroizing};

use super::age::{Identities, unwrap_key, wrap_key};
use super::gap;
use super::mac::Mac;
use super::metadata::{Metadata, Selector};
use super::recipient::Recipient;
use super::splice::{
    Edit, apply, behind_metadata, insertion, placed, pretty, removal, sealed_over, swallows, unbroken,
    written,
};
use super::tree::{Leaf, What, walk};
use super::value::{self, DataKey, Plain, additional_data};
use crate::error::{Error, Result};
use crate::yaml::{self, Kind, Node, Stream, Value};

/// How a file's text is structured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
    /// Any bytes, wrapped into JSON when encrypted.
    Binary,
}

impl Format {
    /// The format by the file name's last extension, as sops chooses it.
    ///
    /// # Errors
    /// `.env` and `.ini`, which sops treats specially and this does not support.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            Some(other @ ("env" | "ini")) => {
                Err(Error::invalid(format!("{}: .{other} files are not supported", path.display()))
                    .hint("use a YAML or JSON file, or sops itself"))
            }
            _ => Ok(Self::Binary),
        }
    }
}

/// A decrypted file.
pub struct Decrypted {
    content: SecretSlice<u8>,
    pub settings: Settings,
}

impl std::fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decrypted").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Decrypted {
    /// The plain bytes; whoever takes them must keep them from logs and files.
    pub fn expose(&self) -> &[u8] {
        self.content.expose_secret()
    }

    /// The plain text.
    ///
    /// # Errors
    /// A binary file that is not UTF-8.
    pub fn expose_text(&self) -> Result<&str> {
        std::str::from_utf8(self.expose()).map_err(|_| Error::invalid("the decrypted content is no text"))
    }
}

/// What a file is encrypted with besides its key: enough to encrypt it the same way again.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub recipients: Vec<Recipient>,
    pub selector: Selector,
    pub mac_only_encrypted: bool,
}

/// Decrypts a file with whichever identity fits and verifies its MAC.
///
/// # Errors
/// Not encrypted, tampered with, no identity that fits (the message names the recipients and every place that was
/// looked at), malformed, or not supported: all [`crate::error::Kind::Invalid`].
pub fn decrypt(text: &str, format: Format, identities: &Identities) -> Result<Decrypted> {
    let stream = parse(text, format)?;
    let metadata = metadata(&stream)?;
    let key = unwrap_key(&metadata.age, identities)?;
    let content = match format {
        Format::Binary => decrypt_binary(&stream, &metadata, &key)?,
        _ => Zeroizing::new(decrypt_with(&stream, format, &metadata, &key)?.as_bytes().to_vec()),
    };
    let recipients = metadata.age.iter().filter_map(|entry| entry.recipient.parse().ok()).collect();
    Ok(Decrypted {
        content: SecretSlice::from(content.to_vec()),
        settings: Settings {
            recipients,
            selector: metadata.selector,
            mac_only_encrypted: metadata.mac_only_encrypted,
        },
    })
}

/// Encrypts a file with a new data key. `now` becomes `lastmodified`.
///
/// # Errors
/// No recipients, already encrypted, or content that sops cannot hold (a list at the root, keys that are no text,
/// anchors, integers above 63 bits).
pub fn encrypt(content: &[u8], format: Format, settings: &Settings, now: Timestamp) -> Result<String> {
    let mut key = DataKey::default();
    rand::rng().fill_bytes(key.as_mut());
    let metadata = Metadata {
        age: wrap_key(&key, &settings.recipients)?,
        last_modified: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        mac: String::new(),
        selector: settings.selector.clone(),
        mac_only_encrypted: settings.mac_only_encrypted,
    };
    if format == Format::Binary {
        return encrypt_binary(content, metadata, &key);
    }
    let text = std::str::from_utf8(content).map_err(|_| Error::invalid("the content is no text"))?;
    if settings.selector.is_by_comments() && text.contains("\r\n") {
        return Err(Error::invalid("comments say here what is encrypted, and the lines end with CR LF: behind text of several lines sops takes such comments for those of something else")
            .hint("write the file with LF alone, for example with dos2unix"));
    }
    let stream = parse(text, format)?;
    let encrypted = encrypt_with(&stream, format, metadata, &key)?;
    check_round_trip(&stream, &encrypted, format, &key)?;
    Ok(encrypted)
}

/// The same file readable for other recipients; data key and values stay. `sops updatekeys` does this.
///
/// # Errors
/// As [`decrypt`], and no recipients.
pub fn update_keys(text: &str, format: Format, identities: &Identities, to: &[Recipient]) -> Result<String> {
    let stream = parse(text, format)?;
    let mut metadata = metadata(&stream)?;
    let key = unwrap_key(&metadata.age, identities)?;
    metadata.age = wrap_key(&key, to)?;
    let mut edits = Vec::new();
    for document in stream.documents().iter().filter(|document| document.root.get(&["sops"]).is_some()) {
        let comment =
            behind_metadata(&stream, document).map(|span| format!("{}\n", stream.slice(span).trim_end()));
        edits.extend(removal(&stream, document).map(|(span, _)| (span, comment.unwrap_or_default().into())));
        edits.push(insertion(&stream, document, format, &metadata)?);
    }
    Ok(apply(text, edits).to_string())
}

/// Whether the text is a file that sops encrypted: it has a `sops` block at its root.
pub fn is_encrypted(text: &str, format: Format) -> bool {
    let documents =
        |stream: Stream| stream.documents().iter().any(|document| document.root.get(&["sops"]).is_some());
    parse(text, format).is_ok_and(documents)
}

fn parse(text: &str, format: Format) -> Result<Stream> {
    if format != Format::Yaml {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| {
            Error::invalid(format!("not valid JSON: line {}, column {}", error.line(), error.column()))
        })?;
    }
    Stream::parse(text)
}

fn metadata(stream: &Stream) -> Result<Metadata> {
    let first =
        stream.documents().first().map(|document| Metadata::read(&document.root)).transpose()?.flatten();
    first.ok_or_else(|| {
        Error::invalid("refused: the file holds secrets in plaintext, it has no sops metadata")
            .hint("encrypt it with `nodeprep secrets encrypt`")
    })
}

/// The decrypted text, MAC verified.
fn decrypt_with(
    stream: &Stream,
    format: Format,
    metadata: &Metadata,
    key: &DataKey,
) -> Result<Zeroizing<String>> {
    let mut mac = Mac::new(metadata.mac_only_encrypted);
    let mut edits: Vec<Edit> = Vec::new();
    for document in stream.documents() {
        let places =
            DocumentPaths { paths: map_paths(&document.root), comment_lists: comment_lists(&document.root) };
        walk(stream, document, &mut |leaf| {
            let picked =
                metadata.selector.picks(&leaf.path, &leaf.comments, matches!(leaf.what, What::Comment(_)));
            edits.extend(decrypt_leaf(stream, format, &leaf, picked, key, &places, &mut mac)?);
            Ok(())
        })?;
        let moved = behind_metadata(stream, document).map(|span| {
            let plain = decrypt_comment(stream, span, key, &places.paths).map(|(_, comment)| comment);
            plain.unwrap_or_else(|| stream.slice(span).trim_end().to_owned().into())
        });
        let comment = moved.map_or_else(Zeroizing::default, |text| Zeroizing::new(format!("{}\n", *text)));
        edits.extend(
            removal(stream, document).map(|(span, rest)| (span, format!("{}{}", *comment, *rest).into())),
        );
    }
    mac.verify(&metadata.mac, key, &metadata.last_modified)?;
    Ok(apply(stream.text(), edits))
}

fn decrypt_leaf(
    stream: &Stream,
    format: Format,
    leaf: &Leaf<'_>,
    picked: bool,
    key: &DataKey,
    places: &DocumentPaths,
    mac: &mut Mac,
) -> Result<Vec<Edit>> {
    let node = match &leaf.what {
        What::Comment(span) => {
            return Ok(decrypt_comment(stream, span, key, &places.paths).into_iter().collect());
        }
        What::Scalar(node) | What::Item(node) => node,
    };
    let scalar = node.scalar().unwrap_or(Value::Null);
    let here = |error: Error| {
        let (line, _) = yaml::line_column(stream.text(), node.span.start);
        error.at(format!("line {line}, {}", leaf.path.join(".")))
    };
    let plain = match (picked, scalar) {
        (_, Value::Null) => return Ok(Vec::new()),
        (false, scalar) => {
            if let Some(plain) = Plain::from_scalar(scalar).map_err(here)? {
                mac.add(&plain, false);
            }
            return Ok(Vec::new());
        }
        (true, Value::Str(text)) => value::decrypt(&text, key, &additional_data(&leaf.path)).map_err(here)?,
        (true, _) => return Err(here(Error::invalid("expected an encrypted value, found a plain one"))),
    };
    mac.add(&plain, true);
    if let (Plain::Comment(comment), What::Item(_)) = (&plain, &leaf.what) {
        let last_of_only = places.comment_lists.contains(&node.span.start);
        return Ok(vec![comment_for_item(stream, node, comment, last_of_only)]);
    }
    let indent = leaf.indent.filter(|indent| !swallows(stream.text(), &node.span, *indent));
    Ok(placed(stream.text(), &node.span, written(&plain, format, indent)))
}

/// What is known of a document before its leaves are visited.
struct DocumentPaths {
    /// The additional data of every map and list.
    paths: Vec<String>,
    /// The starts of the last items of lists that hold nothing but encrypted comments.
    comment_lists: HashSet<usize>,
}

/// The encrypted comments of a list are items of it: back to a comment, dash included. A list without any other item is
/// written as an empty one below its comments.
fn comment_for_item(stream: &Stream, node: &Node, comment: &str, last_of_only: bool) -> Edit {
    let before = stream.text().get(..node.span.start).unwrap_or_default();
    let start = before.trim_end_matches([' ', '\t']).strip_suffix('-').map_or(node.span.start, str::len);
    let indent = " ".repeat(gap::column(stream.text(), start));
    let empty = if last_of_only { format!("\n{indent}[]") } else { String::new() };
    (start..node.span.end, format!("#{comment}{empty}").into())
}

fn comment_lists(root: &Node) -> HashSet<usize> {
    fn collect(node: &Node, out: &mut HashSet<usize>) {
        let comment = |item: &Node| item.as_str().is_some_and(value::is_comment);
        if let Some(last) = node.items().last().filter(|_| node.items().iter().all(comment)) {
            out.insert(last.span.start);
        }
        node.items().iter().for_each(|item| collect(item, out));
        node.entries().iter().for_each(|(_, value)| collect(value, out));
    }
    let mut out = HashSet::new();
    collect(root, &mut out);
    out
}

/// A comment does not say where it was encrypted: whichever place of the document fits. One that fits nowhere was
/// never encrypted, or its place is gone; comments are no part of the MAC, so it is left as it is.
fn decrypt_comment(stream: &Stream, span: &Range<usize>, key: &DataKey, paths: &[String]) -> Option<Edit> {
    let text = stream.slice(span).strip_prefix('#')?;
    if !value::is_encrypted(text) {
        return None;
    }
    paths.iter().find_map(|path| match value::decrypt(text, key, path) {
        Ok(Plain::Comment(comment)) => Some((span.clone(), format!("#{}", *comment).into())),
        _ => None,
    })
}

/// The additional data of every map and list in the document.
fn map_paths(root: &Node) -> Vec<String> {
    fn collect(node: &Node, path: &mut Vec<String>, out: &mut Vec<String>) {
        if !matches!(node.kind, Kind::Scalar { .. }) {
            out.push(additional_data(path));
        }
        for (key, value) in node.entries() {
            path.push(key.text().unwrap_or_default().to_owned());
            collect(value, path, out);
            path.pop();
        }
        node.items().iter().for_each(|item| collect(item, path, out));
    }
    let mut out = Vec::new();
    collect(root, &mut Vec::new(), &mut out);
    out.dedup();
    out
}

fn encrypt_with(stream: &Stream, format: Format, mut metadata: Metadata, key: &DataKey) -> Result<String> {
    let mut mac = Mac::new(metadata.mac_only_encrypted);
    let mut edits: Vec<Edit> = Vec::new();
    if stream.documents().is_empty() {
        return Err(Error::invalid("there is nothing to encrypt"));
    }
    for document in stream.documents() {
        if document.root.is_null() {
            return Err(Error::invalid("a document of the file is empty").hint("remove the extra `---`"));
        }
        if document.root.get(&["sops"]).is_some() {
            return Err(Error::invalid("the file is encrypted already: it has a top-level key `sops`"));
        }
        walk(stream, document, &mut |leaf| {
            let picked =
                metadata.selector.picks(&leaf.path, &leaf.comments, matches!(leaf.what, What::Comment(_)));
            if metadata.selector.is_by_comments() {
                refuse_handed_on(stream, &leaf)?;
            }
            edits.extend(encrypt_leaf(stream, format, &leaf, picked, key, &mut mac)?);
            Ok(())
        })?;
    }
    metadata.mac = mac.seal(key, &metadata.last_modified)?;
    for document in stream.documents() {
        edits.push(insertion(stream, document, format, &metadata)?);
    }
    Ok(apply(stream.text(), edits).to_string())
}

/// A comment above an item without a value is the next item's for sops, now and then: it must not decide what is encrypted.
fn refuse_handed_on(stream: &Stream, leaf: &Leaf<'_>) -> Result<()> {
    match leaf.what {
        What::Item(node)
            if node.span.is_empty() && leaf.comments.last().is_some_and(|own| !own.is_empty()) =>
        {
            let (line, _) = yaml::line_column(stream.text(), node.span.start);
            Err(Error::invalid(format!(
                "line {line}: a comment says what is encrypted, and stands above an item that is not written"
            ))
            .hint("write the item, for example `- null`, or put the comment elsewhere"))
        }
        _ => Ok(()),
    }
}

fn encrypt_leaf(
    stream: &Stream,
    format: Format,
    leaf: &Leaf<'_>,
    picked: bool,
    key: &DataKey,
    mac: &mut Mac,
) -> Result<Vec<Edit>> {
    let additional_data = additional_data(&leaf.path);
    let node = match &leaf.what {
        What::Comment(span) => {
            let text = stream.slice(span).strip_prefix('#').unwrap_or_default().trim_end_matches('\r');
            if !picked || text.is_empty() {
                return Ok(Vec::new());
            }
            let sealed = value::encrypt(&Plain::Comment(text.to_owned().into()), key, &additional_data)?;
            return Ok(vec![(span.clone(), format!("#{sealed}").into())]);
        }
        What::Scalar(node) | What::Item(node) => node,
    };
    let here = |error: Error| {
        let (line, _) = yaml::line_column(stream.text(), node.span.start);
        error.at(format!("line {line}, {}", leaf.path.join(".")))
    };
    let Some(plain) = Plain::from_scalar(node.scalar().unwrap_or(Value::Null)).map_err(here)? else {
        return Ok(Vec::new());
    };
    if node.tag.is_some() {
        return Err(here(Error::invalid("tags cannot be used in a file to encrypt")));
    }
    mac.add(&plain, picked);
    if !picked {
        return Ok(unbroken(stream.text(), node).into_iter().collect());
    }
    let sealed = value::encrypt(&plain, key, &additional_data)?;
    let plain_style = format == Format::Yaml && leaf.indent.is_some() && !sealed.is_empty();
    let text = if plain_style { sealed } else { format!("\"{sealed}\"") };
    Ok(sealed_over(stream.text(), node, text))
}

fn decrypt_binary(stream: &Stream, metadata: &Metadata, key: &DataKey) -> Result<Zeroizing<Vec<u8>>> {
    let data =
        stream.documents().first().and_then(|document| document.root.get(&["data"])).and_then(Node::as_str);
    let data = data.ok_or_else(|| Error::invalid("an encrypted binary file has no data"))?;
    let plain = value::decrypt(data, key, "data:")?;
    let mut mac = Mac::new(metadata.mac_only_encrypted);
    mac.add(&plain, true);
    mac.verify(&metadata.mac, key, &metadata.last_modified)?;
    Ok(plain.bytes())
}

fn encrypt_binary(content: &[u8], mut metadata: Metadata, key: &DataKey) -> Result<String> {
    metadata.selector = Selector::default();
    let plain = Plain::Bytes(Zeroizing::new(content.to_vec()));
    let mut mac = Mac::new(metadata.mac_only_encrypted);
    mac.add(&plain, true);
    metadata.mac = mac.seal(key, &metadata.last_modified)?;
    let data = if content.is_empty() { String::new() } else { value::encrypt(&plain, key, "data:")? };
    let sealed = serde_json::json!({"data": data, "sops": metadata.to_json()});
    Ok(pretty(&sealed, "\t")?.replace("\n\t", "\n") + "\n")
}

/// What was encrypted must decrypt to the same meaning before anything is written. What goes wrong here has no place in the
/// file that was given.
fn check_round_trip(plain: &Stream, encrypted: &str, format: Format, key: &DataKey) -> Result<()> {
    let back = || -> Result<Stream> {
        let stream = parse(encrypted, format)?;
        let mut text = decrypt_with(&stream, format, &metadata(&stream)?, key)?;
        let back = Stream::parse(text.as_str());
        text.zeroize();
        back
    };
    let values =
        |stream: &Stream| stream.documents().iter().map(|document| document.root.value()).collect::<Vec<_>>();
    if back().is_ok_and(|back| values(plain) == values(&back)) {
        Ok(())
    } else {
        Err(Error::failed("the encrypted file would not decrypt to what was given; nothing was written")
            .hint("encrypt it with sops, and report a file of this form as a fault of nodeprep"))
    }
}
