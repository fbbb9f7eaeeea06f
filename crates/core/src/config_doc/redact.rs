//! Machine configs without their secrets, and diffs of them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use similar::TextDiff;

use super::ConfigDoc;
use crate::yaml::{Kind, Node, Stream};

/// What stands where a secret was.
pub const REDACTED: &str = "<redacted>";

/// Maps whose keys are names that people chose, not names of fields.
const FREE_KEYS: [&str; 5] = ["nodeLabels", "nodeAnnotations", "labels", "annotations", "sysctls"];
/// What can hold anything, secrets included: files (`machine.files`, `EtcFileConfig`, `ExtensionServiceConfig`), inline
/// manifests, a manifest's data, headers of downloads.
pub(super) const FREE_TEXT: [&str; 7] =
    ["content", "contents", "data", "stringData", "manifest", "headers", "extraManifestHeaders"];
/// Endings of field names whose value is a secret, in lower case.
const SECRET_ENDINGS: [&str; 16] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwords",
    "pwd",
    "authorization",
    "cookie",
    "passphrase",
    "key",
    "auth",
    "credential",
    "credentials",
    "psk",
    "passwd",
];

/// `key: value`, also in a comment or as a list item.
static COMMENTED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^([#\s-]*["']?)([\w./-]+)(["']?\s*[:=]\s*)(\S.*)$"#).ok());
/// User information in a URL, and parameters of it that carry secrets.
static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i)(://)[^/@\s]+@|([?&;\s](?:[\w.-]*(?:token|secret|password|passphrase|key|psk))=)[^&;\s]+",
    )
    .ok()
});
/// What only a key, a token or a hash looks like: no words, no path, no dots.
static BLOB: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[A-Za-z0-9+/_=-]{40,}").ok());

/// The config with every secret replaced by [`REDACTED`]; everything else byte for byte. A text that is not valid
/// YAML is not shown at all.
pub fn redact(config: &str) -> String {
    match Stream::parse(config) {
        Ok(stream) => without_secrets(&stream),
        Err(_) => format!("<{} bytes that are not valid YAML, not shown>\n", config.len()),
    }
}

fn without_secrets(stream: &Stream) -> String {
    let mut places = secret_places(stream);
    let known = texts(stream, &places);
    for document in stream.documents() {
        repeated(&document.root, &known, &mut places);
        let comments = document.comments.iter();
        places.extend(comments.filter_map(|span| Some((span.clone(), comment(stream.slice(span), &known)?))));
    }
    places.sort_by_key(|(span, _)| span.start);
    places.dedup_by(|(later, _), (earlier, _)| later.start < earlier.end);
    let mut text = stream.text().to_owned();
    for (span, shown) in places.into_iter().rev() {
        if text.get(span.clone()).is_some() {
            text.replace_range(span, &shown);
        }
    }
    text
}

impl ConfigDoc {
    /// A unified diff from what the config was before, both without their secrets, three lines of context; empty if nothing
    /// else differs.
    pub fn diff_from(&self, before: &Self) -> String {
        let (before, after) = (without_secrets(&before.stream), without_secrets(&self.stream));
        TextDiff::from_lines(&before, &after).unified_diff().context_radius(3).to_string()
    }
}

type Places = Vec<(Range<usize>, String)>;

/// Every place that holds a secret, and what is shown there.
fn secret_places(stream: &Stream) -> Places {
    let mut places = Vec::new();
    for document in stream.documents() {
        secrets(&document.root, None, false, &mut places);
    }
    places
}

/// The secrets of the stream that are long enough to be known again elsewhere.
pub(super) fn secret_values(stream: &Stream) -> HashSet<String> {
    texts(stream, &secret_places(stream))
}

fn texts(stream: &Stream, places: &Places) -> HashSet<String> {
    let hidden = places.iter().filter(|(_, shown)| shown == REDACTED);
    hidden.filter_map(|(span, _)| secret_text(stream, span)).collect()
}

fn secrets(node: &Node, key: Option<&str>, secret: bool, out: &mut Places) {
    match &node.kind {
        Kind::Scalar { text, .. } => out.extend(scalar(text, secret).map(|shown| {
            (node.span.clone(), if shown == REDACTED { shown } else { crate::yaml::quote(&shown) })
        })),
        Kind::Seq { items, .. } => {
            let mut value_of_flag = false;
            for item in items {
                secrets(item, key, secret || value_of_flag, out);
                // `--password`, and its value as the next argument.
                value_of_flag = item.text().is_some_and(|text| text.starts_with('-') && is_secret_name(text));
            }
        }
        Kind::Map { entries, .. } => {
            let free = key.is_some_and(|key| FREE_KEYS.contains(&key));
            // A container's `env`: {name: PASSWORD, value: …}
            let named = node.get(&["name"]).and_then(Node::text).is_some_and(is_secret_name);
            for (name, value) in entries {
                let name = name.text().unwrap_or_default();
                let own = !free && (is_secret_name(name) || FREE_TEXT.contains(&name));
                secrets(value, Some(name), secret || own || (named && name == "value"), out);
            }
        }
    }
}

/// The text of a scalar that is not shown, if it is long enough to be known again elsewhere.
fn secret_text(stream: &Stream, span: &Range<usize>) -> Option<String> {
    let text = stream.slice(span).trim_matches(['"', '\'']);
    let known = text.len() >= 8 && text != REDACTED && !text.contains(char::is_whitespace);
    known.then(|| text.to_owned())
}

/// A secret is one wherever it stands, also below an innocent name.
fn repeated(node: &Node, known: &HashSet<String>, out: &mut Places) {
    match &node.kind {
        Kind::Scalar { text, .. } if known.contains(text) => {
            out.push((node.span.clone(), REDACTED.to_owned()));
        }
        Kind::Scalar { .. } => {}
        Kind::Seq { items, .. } => items.iter().for_each(|item| repeated(item, known, out)),
        Kind::Map { entries, .. } => entries.iter().for_each(|(_, value)| repeated(value, known, out)),
    }
}

/// What to show instead of a scalar that holds a secret.
fn scalar(text: &str, secret: bool) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if secret || is_private_key(text) {
        return Some(REDACTED.to_owned());
    }
    let named = text.split_once('=').filter(|(name, value)| is_secret_name(name) && !value.is_empty());
    if let Some((name, _)) = named {
        return Some(format!("{name}={REDACTED}"));
    }
    // Most texts hold neither a URL nor a parameter.
    if !text.contains('=') && !text.contains("://") {
        return None;
    }
    let shown = without_url_secrets(text);
    (shown != text).then_some(shown)
}

pub(super) fn without_url_secrets(text: &str) -> String {
    URL.as_ref().map_or_else(
        || REDACTED.to_owned(),
        |url| url.replace_all(text, format!("$1$2{REDACTED}")).into_owned(),
    )
}

/// Comments are no data, but people comment out keys.
fn comment(text: &str, known: &HashSet<String>) -> Option<String> {
    if known.iter().any(|secret| text.contains(secret)) {
        return Some(format!("# {REDACTED}"));
    }
    let fields = COMMENTED.as_ref().and_then(|commented| commented.captures(text));
    let shown = match fields.as_ref().map(|fields| (&fields[1], &fields[2], &fields[3])) {
        Some((start, name, colon)) if is_secret_name(name) => format!("{start}{name}{colon}{REDACTED}"),
        _ => without_url_secrets(text),
    };
    let shown = without_blobs(&shown);
    (shown != text).then_some(shown)
}

/// The text without what only looks like a key.
pub(super) fn without_blobs(text: &str) -> String {
    let Some(blob) = BLOB.as_ref() else { return REDACTED.to_owned() };
    let shown = blob.replace_all(text, |found: &regex::Captures<'_>| {
        if looks_random(&found[0]) { REDACTED.to_owned() } else { found[0].to_owned() }
    });
    shown.into_owned()
}

/// Upper case, lower case and digits together: not a word, a path or a rule of dashes.
pub(super) fn looks_random(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.trim_matches(|c| matches!(c, '"' | '\'' | ' ' | '-' | '#'));
    let joint = |c| matches!(c, '_' | '-');
    if name.contains(joint) {
        return is_secret_name(&name.replace(joint, ""));
    }
    let ends = |ending: &str| {
        let end = name.len().checked_sub(ending.len()).and_then(|at| name.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(ending))
    };
    let public = ends("publickey") || ends("requireauth");
    !public && SECRET_ENDINGS.iter().any(|ending| ends(ending))
}

/// A PEM private key, or base64 of one, wherever it stands.
pub(super) fn is_private_key(text: &str) -> bool {
    if text.contains("PRIVATE KEY") || text.contains("AGE-SECRET-KEY-") {
        return true;
    }
    if !text.trim_start().starts_with('L') {
        return false;
    }
    let packed: String = text.split_whitespace().collect();
    let decoded = packed.starts_with("LS0tLS1").then(|| BASE64_STANDARD.decode(packed.as_bytes()));
    matches!(decoded, Some(Ok(bytes)) if String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"))
}
