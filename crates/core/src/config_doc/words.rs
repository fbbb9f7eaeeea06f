//! What nodes and API servers say, without the secrets that they repeat: a config that is refused comes back in the
//! refusal, an object in the error about it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use secrecy::{ExposeSecret, SecretString};

use super::redact::{
    FREE_TEXT, REDACTED, is_private_key, is_secret_name, looks_random, secret_values, without_blobs,
    without_url_secrets,
};
use crate::yaml::Stream;

/// Shorter texts are not known again: they are parts of words.
const SHORTEST: usize = 6;
/// A field and its value: `name: value`, `"name":"value"`, `name=value`, wherever they stand in a line.
static FIELD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"([\w./\[\]-]+)(\\?["']?(?:\s*=|:)\s*)((?:(?:Invalid|Unsupported|Duplicate) value: )?)(\\?"(?:[^"\\]|\\.)*"|'[^']*'|[{\[&].*|[^\s]+)"#,
    )
    .ok()
});

/// The secrets that this run holds, by a digest of each.
static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

#[derive(Default)]
struct Known {
    digests: RandomState,
    secrets: RwLock<HashMap<u64, SecretString>>,
}

impl Known {
    fn add(&self, secret: &str) {
        let digest = self.digests.hash_one(secret);
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.entry(digest).or_insert_with(|| secret.into());
    }
}

/// Notes a value that was decrypted, so that [`hide`] knows it again: also as base64, and each line of it.
pub fn hold(value: &str) {
    let add = |text: &str| {
        if worth(text) {
            KNOWN.add(text);
        }
    };
    add(value);
    add(value.trim());
    if worth(value) {
        add(&BASE64_STANDARD.encode(value));
    }
    for line in value.lines().filter(|line| line.len() < value.len()) {
        // A file of settings: what is behind the names. A region is no secret, and stands in many a text.
        match line.split_once('=') {
            Some((name, _)) if name.trim().ends_with("region") => {}
            Some((_, right)) if !line.trim_end().ends_with('=') => {
                add(right.trim().trim_matches(['"', '\'']))
            }
            _ => add(line.trim()),
        }
    }
}

/// Notes the values of a file's fields whose names are those of secrets: of a machine config, or of credentials.
pub fn hold_fields(text: &str) {
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '-', '#']);
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = name.trim_matches(['"', '\'']);
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        let named = is_secret_name(name) || name.ends_with("key-data");
        // A `key` may be that of a label.
        let plain = |c: char| c.is_ascii_lowercase() || matches!(c, '-' | '.' | '/' | '_');
        if named && value.len() >= 8 && !value.contains(' ') && !value.chars().all(plain) {
            KNOWN.add(value);
        }
    }
}

/// Neither a number nor a lower-case word, as names of buckets and regions are.
fn worth(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let word = text.bytes().all(|byte| byte.is_ascii_lowercase());
    text.len() >= SHORTEST && !(digits && text.len() < 10) && !(word && text.len() < 12)
}

/// The text without the secrets that this run holds.
pub fn hide(text: &str) -> String {
    let secrets = KNOWN.secrets.read().unwrap_or_else(PoisonError::into_inner);
    let found = secrets.values().map(ExposeSecret::expose_secret).filter(|secret| text.contains(*secret));
    without(text, found.collect())
}

/// What somebody else said, without what is a secret there by its name or its look, or is one that this run holds.
pub fn words(text: &str) -> String {
    if is_plain(text) {
        return hide(text);
    }
    let mut shown = String::with_capacity(text.len());
    // The lines that belong to a secret field: those that are further in than it.
    let mut below: Option<usize> = None;
    let mut within_key = false;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '\t', '+', '-', '#']).len();
        if within_key || below.is_some_and(|of| indent > of || line.trim().is_empty()) {
            within_key = within_key && !line.contains("-----END ");
            continue;
        }
        below = None;
        let end = &line[line.trim_end().len()..];
        let content = line.trim_end();
        if let Some(at) = content.find("-----BEGIN ").filter(|_| content.contains("PRIVATE KEY")) {
            within_key = !content.contains("-----END ");
            shown.push_str(&format!("{}{REDACTED}{end}", &content[..at]));
        } else if let Some(name) = opens(content) {
            below = Some(indent);
            shown.push_str(&format!("{}{name}: {REDACTED}{end}", &content[..indent]));
        } else {
            shown.push_str(&fields(content));
            shown.push_str(end);
        }
    }
    hide(&shown)
}

/// The same, of an answer to a config that was sent: its own secrets are known too.
pub fn answer_to(config: &str, text: &str) -> String {
    let secrets = match Stream::parse(config) {
        Ok(stream) => secret_values(&stream),
        // What can't be read can't be told apart.
        Err(_) => return format!("<{} bytes about a config that is not valid YAML, not shown>", text.len()),
    };
    words(&without(text, secrets.iter().map(String::as_str).filter(|s| text.contains(*s)).collect()))
}

fn without(text: &str, mut secrets: Vec<&str>) -> String {
    // One may be a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED))
}

/// Most texts hold no field, no URL, no key and nothing long.
fn is_plain(text: &str) -> bool {
    !text.contains([':', '='])
        && !text.contains("-----BEGIN ")
        && !text.split_whitespace().any(|word| word.len() >= 40)
}

/// The name of a secret field that the line is the first of: what follows is further in.
fn opens(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '\t', '+', '-', '#']);
    let (name, rest) = line.split_once(':')?;
    let opened = ["", "|", "|-", "|+", ">", ">-"].contains(&rest.trim())
        || rest.trim_end().ends_with(['{', '[', '(', '`']);
    let name = name.trim_matches(['"', '\'']);
    let secret = is_secret_name(name) || FREE_TEXT.contains(&name) || name.ends_with("Content");
    (opened && secret && !name.contains(' ')).then_some(name)
}

/// One line without the values of fields that are secrets.
fn fields(line: &str) -> String {
    let Some(field) = FIELD.as_ref() else { return REDACTED.to_owned() };
    let start = line.trim_start_matches([' ', '\t', '+', '-', '#', '{', '"', '\'']);
    let (mut shown, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = field.captures_at(line, at) {
        let (Some(name), Some(colon), Some(value)) = (found.get(1), found.get(2), found.get(4)) else {
            break;
        };
        // What follows a field that is no secret may be the name of one that is.
        at = colon.end();
        if is_secret(name.as_str(), &found[3], value.as_str(), start) {
            shown.push_str(&line[copied..value.start()]);
            shown.push_str(REDACTED);
            (copied, at) = (value.end(), value.end());
        }
    }
    shown.push_str(&line[copied..]);
    without_blobs(&without_url_secrets(&shown))
}

fn is_secret(name: &str, refused: &str, value: &str, start: &str) -> bool {
    // What can hold anything is taken for it only at the start of its line: it is a word of people too.
    let free = FREE_TEXT.contains(&name) && start.starts_with(name);
    let in_data =
        !refused.is_empty() && name.split(['.', '[']).any(|part| ["data", "stringData"].contains(&part));
    let named = !name.contains('/') && is_secret_name(name.trim_end_matches(']'));
    (named || free || in_data) && !is_said(value) || is_private_key(value)
}

/// Words of a sentence that follow a colon are no value: `the key: not found`.
fn is_said(value: &str) -> bool {
    let words =
        ["Required", "Invalid", "Not", "not", "no", "must", "unknown", "field", "may", "cannot", "is"];
    words.contains(&value) && !looks_random(value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What Talos and Kubernetes say, each with a secret in it, and what of it is still to be read.
    #[test]
    fn what_others_say_is_shown_without_the_secrets_in_it() {
        let key = BASE64_STANDARD.encode("-----BEGIN ED25519 PRIVATE KEY-----\nMC4CAQ\n-----END");
        for (said, left) in [
            ("unknown keys found during decoding:\nmachine:\n    tokn: a\n    token: hunter2\n", "tokn: a"),
            ("1 error occurred:\n\t* registry auth.password: hunter2 is too short\n", "is too short"),
            (
                "diff:   &v1alpha1.MachineConfig{\n- \tMachineToken: \"hunter2\",\n+ \tMachineType: \"worker\",",
                "worker",
            ),
            (
                "+ \tMachineKey: []uint8{\n+ \t\t0x01, 0x02, // |hunter2|\n+ \t},\n+ \tMachineType: \"worker\",",
                "worker",
            ),
            ("{\"machine\":{\"token\":\"hunter2\",\"type\":\"worker\"}}", "worker"),
            ("can't decode: token: hunter2", "can't decode"),
            ("line 3: password=hunter2; go on", "go on"),
            ("map[clusterSecret:hunter2 type:worker]", "clusterSecret"),
            (
                "machine:\n  files:\n    - content: |\n        hunter2\n        more hunter2\n      path: /etc/x\n",
                "/etc/x",
            ),
            (
                "Secret \"s\" is invalid: data[password]: Invalid value: \"hunter2\": must be base64",
                "must be base64",
            ),
            (
                "Secret \"s\" is invalid: data.cloud: Invalid value: \"hunter2\": must be base64",
                "must be base64",
            ),
            ("stringData:\n  cloud: hunter2\nkind: Secret", "kind: Secret"),
            ("get https://me:hunter2@mirror.local/v2/: 401", "mirror.local"),
            (&format!("can't parse {key} as a key hunter2").replace(" hunter2", ""), "as a key"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nis no key",
                "is no key",
            ),
        ] {
            let shown = words(said);
            assert!(!shown.contains("hunter2") && !shown.contains(&key), "{said:?}: {shown:?}");
            assert!(shown.contains(left) && shown.contains(REDACTED), "{said:?}: {shown:?}");
        }
    }

    #[test]
    fn what_holds_no_secret_is_shown_as_it_was_said() {
        for said in [
            "error dialing 10.5.0.3:50000: connection refused",
            "deployments.apps \"velero\" is forbidden: User \"dev\" cannot patch resource \"deployments\"",
            "Deployment.apps \"x\" is invalid: spec.template.spec.containers[0].image: Required value",
            "env[0].valueFrom.secretKeyRef.key: Required value",
            "admission webhook \"a.b.c\" denied the request: no label app.kubernetes.io/name",
            "pull image ghcr.io/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef: not found",
            "pod has unbound immediate PersistentVolumeClaims; the path /var/mnt/openebs/pvc-1 does not exist",
        ] {
            assert_eq!(words(said), said);
        }
    }

    #[test]
    fn a_secret_that_is_held_is_known_again_wherever_it_stands() {
        hold(
            "[default]\naws_access_key_id = AKIAHELD\naws_secret_access_key = he/ld+secret\nregion = here-1\n",
        );
        hold("us");
        hold("velero");
        hold_fields(
            "machine:\n  token: abcdef.0123456789held\n  ca: {}\n    key: node-role.kubernetes.io/control-plane\n",
        );
        let packed = BASE64_STANDARD.encode("held-as-value1");
        hold("held-as-value1");
        for secret in ["AKIAHELD", "he/ld+secret", "abcdef.0123456789held", &packed] {
            assert_eq!(hide(&format!("no {secret}, sorry")), format!("no {REDACTED}, sorry"));
        }
        let plain = "velero in us, region here-1, taint node-role.kubernetes.io/control-plane";
        assert_eq!(hide(plain), plain);
    }

    #[test]
    fn the_answer_to_a_config_does_not_give_its_secrets_back() {
        let config = "version: v1alpha1\nmachine:\n  token: very-plain-words\n  type: worker\ncluster: {}\n";
        let shown = answer_to(config, "can't use very-plain-words as a worker");
        assert_eq!(shown, format!("can't use {REDACTED} as a worker"));
        assert!(!answer_to("a: [", "a secret").contains("secret"));
        assert!(
            Stream::parse(config).is_ok_and(|stream| secret_values(&stream).contains("very-plain-words"))
        );
        assert_eq!(FIELD.as_ref().unwrap().captures_len(), 5);
    }
}
