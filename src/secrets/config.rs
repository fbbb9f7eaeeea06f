//! `.sops.yaml`: whom to encrypt to, and which values, by the file's path.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::age::{Environment, Recipient};
use super::metadata::Selector;
use super::sops::Settings;
use crate::error::{Error, Result};
use crate::yaml::{Node, Stream, Value};

/// The settings to encrypt `path` with: recipients given by flag, else `SOPS_AGE_RECIPIENTS`, else the first rule of
/// the `.sops.yaml` above `path` (or of `SOPS_CONFIG`) that matches. The rule's selector counts in every case.
///
/// # Errors
/// Nobody to encrypt to, an unreadable or malformed `.sops.yaml`, or no rule of it that matches.
pub fn settings_for(path: &Path, recipients: &[Recipient], env: &Environment) -> Result<Settings> {
    let from_env = env.age_recipients.as_deref().map(Recipient::parse_list).transpose()?.unwrap_or_default();
    let given = if recipients.is_empty() { from_env } else { recipients.to_vec() };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let config = env.sops_config.clone().or_else(|| find(&path));
    let Some(config) = config else {
        return if given.is_empty() {
            Err(Error::invalid(format!("{}: nobody to encrypt to", path.display()))
                .hint("give --age age1…, set SOPS_AGE_RECIPIENTS, or write creation_rules into .sops.yaml"))
        } else {
            Ok(Settings { recipients: given, ..Settings::default() })
        };
    };
    let text = std::fs::read_to_string(&config)
        .map_err(|error| Error::invalid(format!("{}: {error}", config.display())))?;
    let base = config.parent().unwrap_or_else(|| Path::new(""));
    let relative = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().replace('\\', "/");
    let rule = creation_rule(&text, &relative).map_err(|error| error.at(config.display()))?;
    match rule {
        Some(rule) if given.is_empty() => Ok(rule),
        Some(rule) => Ok(Settings { recipients: given, ..rule }),
        None if given.is_empty() => {
            Err(Error::invalid(format!("{}: no creation rule matches {relative}", config.display()))
                .hint("add a rule with a path_regex that matches it, or give --age age1…"))
        }
        None => Ok(Settings { recipients: given, ..Settings::default() }),
    }
}

/// The `.sops.yaml` in the file's directory or the nearest one above.
fn find(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).map(|dir| dir.join(".sops.yaml")).find(|config| config.is_file())
}

/// The first rule of a `.sops.yaml` whose `path_regex` matches `path` (relative to it, `/` between the parts); a
/// rule without one matches everything.
///
/// # Errors
/// The text is malformed, or the rule needs what is not supported: more than one key group, no age recipient.
pub fn creation_rule(config: &str, path: &str) -> Result<Option<Settings>> {
    let stream = Stream::parse(config)?;
    let rules = stream.documents().first().and_then(|document| document.root.get(&["creation_rules"]));
    for rule in rules.map(Node::items).unwrap_or_default() {
        let matches = match rule.get(&["path_regex"]).and_then(Node::text).filter(|text| !text.is_empty()) {
            Some(pattern) => Regex::new(pattern)
                .map_err(|_| {
                    Error::invalid(format!("path_regex {pattern:?} is no valid regular expression"))
                })?
                .is_match(path),
            None => true,
        };
        if matches {
            return settings(rule).map(Some);
        }
    }
    Ok(None)
}

fn settings(rule: &Node) -> Result<Settings> {
    let groups = rule.get(&["key_groups"]).map(Node::items).unwrap_or_default();
    if groups.len() > 1 {
        return Err(Error::invalid("a creation rule with more than one key group is not supported"));
    }
    let keys = groups.first().unwrap_or(rule);
    let recipients = match keys.get(&["age"]) {
        Some(list) if !list.items().is_empty() => list
            .items()
            .iter()
            .map(|item| item.text().unwrap_or_default().trim().parse())
            .collect::<Result<_>>()?,
        Some(text) => Recipient::parse_list(text.text().unwrap_or_default())?,
        None => Vec::new(),
    };
    if recipients.is_empty() {
        return Err(Error::invalid("the creation rule that matches names no age recipient")
            .hint("only age is supported; add `age: age1…` to the rule"));
    }
    Ok(Settings {
        recipients,
        selector: Selector::read(rule)?.unwrap_or_default(),
        mac_only_encrypted: rule.get(&["mac_only_encrypted"]).and_then(Node::scalar)
            == Some(Value::Bool(true)),
    })
}
