//! `.sops.yaml`: whom to encrypt to, and which values, by the file's path.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::age::Environment;
use super::metadata::{OTHER_KINDS, Selector, names_someone};
use super::recipient::Recipient;
use super::sops::Settings;
use crate::error::{Error, Result};
use crate::yaml::{self, Node, Stream, Value};

/// The settings to encrypt `path` with: recipients given by flag, else `SOPS_AGE_RECIPIENTS`, else the first rule of
/// the `.sops.yaml` above `path` (or of `SOPS_CONFIG`) that matches. The rule's selector counts in every case.
///
/// # Errors
/// Nobody to encrypt to, or somebody that only sops can encrypt to; an unreadable or malformed `.sops.yaml`, or no rule of
/// it that matches.
pub fn settings_for(path: &Path, recipients: &[Recipient], env: &Environment) -> Result<Settings> {
    if let Some((name, kind)) = env.other_recipients.first() {
        return Err(Error::invalid(format!(
            "{name} names {kind} keys to encrypt to, and only age keys are supported"
        ))
        .hint(format!("encrypt with sops, or unset {name}: nobody is left out silently")));
    }
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
    let found = || -> Result<Option<Settings>> {
        let rules = Stream::parse(text)?.merged()?;
        let Some(rule) = matching(&rules, &relative)? else { return Ok(None) };
        let recipients = if given.is_empty() { recipients_of(&rules, rule)? } else { given.clone() };
        settings(rule, recipients).map(Some)
    };
    match found().map_err(|error| error.at(config.display()))? {
        Some(settings) => Ok(settings),
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
/// The text is malformed, or the rule needs what is not supported: more than one key group, no age recipient, or one of
/// another kind.
pub fn creation_rule(config: &str, path: &str) -> Result<Option<Settings>> {
    let rules = Stream::parse(config)?.merged()?;
    let rule = matching(&rules, path)?;
    rule.map(|rule| settings(rule, recipients_of(&rules, rule)?)).transpose()
}

fn matching<'a>(config: &'a Stream, path: &str) -> Result<Option<&'a Node>> {
    let rules = config.documents().first().and_then(|document| document.root.get(&["creation_rules"]));
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
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

fn settings(rule: &Node, recipients: Vec<Recipient>) -> Result<Settings> {
    Ok(Settings {
        recipients,
        selector: Selector::read(rule)?.unwrap_or_default(),
        mac_only_encrypted: rule.get(&["mac_only_encrypted"]).and_then(Node::scalar)
            == Some(Value::Bool(true)),
    })
}

/// Whom a rule names.
#[derive(Default)]
struct Named {
    age: Vec<Recipient>,
    /// The others: where their key stands, and their kind.
    others: Vec<(usize, String)>,
}

fn recipients_of(config: &Stream, rule: &Node) -> Result<Vec<Recipient>> {
    let mut named = Named::default();
    match rule.get(&["key_groups"]).map(Node::items).unwrap_or_default() {
        [] => named.add(rule)?,
        [group] => named.add_group(group)?,
        _ => return Err(Error::invalid("a creation rule with more than one key group is not supported")),
    }
    match named.others.first() {
        _ if named.age.is_empty() => {
            let mut kinds: Vec<_> = named.others.into_iter().map(|(_, kind)| kind).collect();
            kinds.dedup();
            let only =
                if kinds.is_empty() { String::new() } else { format!(", only {} keys", kinds.join(" and ")) };
            Err(Error::invalid(format!("the creation rule that matches names no age recipient{only}"))
                .hint("only age is supported; add `age: age1…` to the rule, or encrypt with sops"))
        }
        Some((offset, kind)) => {
            let (line, column) = yaml::line_column(config.text(), *offset);
            Err(Error::invalid(format!(
                "line {line}, column {column}: the rule encrypts to {kind} keys too, and only age keys are supported"
            ))
            .hint("encrypt with sops, or give the age recipients by --age: nobody is left out silently"))
        }
        None => {
            let mut seen = HashSet::new();
            named.age.retain(|recipient| seen.insert(recipient.to_string()));
            Ok(named.age)
        }
    }
}

impl Named {
    /// A group's recipients, with those of the groups that it takes in (`merge`).
    fn add_group(&mut self, group: &Node) -> Result<()> {
        for inner in group.get(&["merge"]).map(Node::items).unwrap_or_default() {
            self.add_group(inner)?;
        }
        for (key, list) in group.entries() {
            let name = key.text().unwrap_or_default();
            let known = ["merge", "age"].contains(&name) || OTHER_KINDS.iter().any(|kind| kind.0 == name);
            if !known && names_someone(list) {
                self.others.push((key.span.start, name.to_owned()));
            }
        }
        self.add(group)
    }

    fn add(&mut self, keys: &Node) -> Result<()> {
        for (key, list) in keys.entries() {
            let kind = OTHER_KINDS.iter().find(|kind| key.text() == Some(kind.0));
            if let Some((_, kind)) = kind.filter(|_| names_someone(list)) {
                self.others.push((key.span.start, (*kind).to_owned()));
            }
        }
        let Some(age) = keys.get(&["age"]).filter(|age| !age.is_null()) else { return Ok(()) };
        for list in if age.items().is_empty() { std::slice::from_ref(age) } else { age.items() } {
            self.age.extend(Recipient::parse_list(list.text().unwrap_or_default())?);
        }
        Ok(())
    }
}
