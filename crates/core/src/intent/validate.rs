//! Rules beyond types, each error at its line.

mod backup;
pub(super) mod certificates;
mod pods;
mod schedules;
mod volumes;

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{API_VERSION, Class, Intent, KIND, Provisioner};
use crate::error::{Error, Result, together};
use crate::yaml::{Node, PathPart, Stream};

/// Finds a broken rule's line by its path in the file, and keeps all that are broken.
struct Rules<'a> {
    name: &'a str,
    stream: Stream,
    faults: RefCell<Vec<Error>>,
}

pub(super) fn validate(name: &str, text: &str, intent: &Intent) -> Result<()> {
    let rules = Rules { name, stream: Stream::parse(text)?, faults: RefCell::default() };
    if rules.stream.documents().len() != 1 {
        return Err(Error::invalid(format!(
            "{name}: holds {} documents, one is wanted",
            rules.stream.documents().len()
        )));
    }
    rules.header(intent);
    rules.nodes(intent);
    rules.volumes(intent);
    rules.labels(intent);
    rules.stack(intent);
    rules.backup(intent);
    together(rules.faults.into_inner()).map_or(Ok(()), Err)
}

type Path<'p> = &'p [PathPart<'p>];

/// What is wrong with what the file says at a path.
pub(super) fn broken(name: &str, bytes: &[u8], path: Path<'_>, what: &str) -> Error {
    let stream = std::str::from_utf8(bytes).map_err(|_| Error::invalid(name)).and_then(Stream::parse);
    stream.map_or_else(
        |error| error,
        |stream| Rules { name, stream, faults: RefCell::default() }.broken(path, what, ""),
    )
}

impl Rules<'_> {
    fn broken(&self, path: Path<'_>, what: &str, allowed: &str) -> Error {
        // What is missing has no line; what it is missing from has.
        let place = (1..=path.len()).rev().find_map(|n| self.stream.position(0, path.get(..n)?));
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        Error::invalid(format!("{}{place}: {what}", self.name)).hint(allowed)
    }

    /// Notes a broken rule; whether it is kept.
    fn check(&self, good: bool, path: Path<'_>, what: &str, allowed: &str) -> bool {
        if !good {
            let error = self.broken(path, what, allowed);
            self.faults.borrow_mut().push(error);
        }
        good
    }

    fn header(&self, intent: &Intent) {
        let found = format!("apiVersion is `{}`", intent.api_version);
        self.check(
            intent.api_version == API_VERSION,
            &["apiVersion".into()],
            &found,
            "write `nodeprep.dev/v1alpha1`",
        );
        let found = format!("kind is `{}`", intent.kind);
        self.check(intent.kind == KIND, &["kind".into()], &found, "write `Cluster`");
        let found = format!("metadata.name is `{}`", intent.metadata.name);
        let path = ["metadata".into(), "name".into()];
        self.check(dns_label(&intent.metadata.name), &path, &found, DNS_LABEL);
    }

    fn nodes(&self, intent: &Intent) {
        let mut seen = BTreeSet::new();
        for (i, node) in intent.nodes.iter().enumerate() {
            let path = ["nodes".into(), i.into(), "address".into()];
            let host = node.address.parse::<std::net::IpAddr>().is_ok() || dns_name(&node.address);
            let found = format!("`{}` is not an address", node.address);
            self.check(host, &path, &found, "write an IP or a host name, without scheme and port");
            let found = format!("{} is listed twice", node.address);
            self.check(seen.insert(&node.address), &path, &found, "list each node once");
        }
    }

    fn labels(&self, intent: &Intent) {
        for (key, value) in &intent.labels {
            self.label(&["labels".into(), key.as_str().into()], key, value);
        }
    }

    fn label(&self, path: Path<'_>, key: &str, value: &str) {
        let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
        let good = label_part(name) && !name.is_empty() && prefix.is_none_or(dns_name);
        let found = format!("`{key}` is not a label key");
        self.check(
            good,
            path,
            &found,
            "write `name` or `prefix.example/name`, the name at most 63 letters, digits, - _ .",
        );
        let found = format!("`{value}` is not a label value");
        let allowed = "at most 63 letters, digits, - _ . between letters or digits";
        self.check(label_part(value), path, &found, allowed);
    }

    fn stack(&self, intent: &Intent) {
        let said = self.stream.documents().first().and_then(|document| document.root.get(&["provisioner"]));
        self.check(
            said.is_none_or(Node::is_null) || intent.provisioners().next().is_some(),
            &["provisioner".into()],
            "provisioner names none",
            "write `openebs: {}` below it, or `external` for one that somebody else installed",
        );
        for provisioner in intent.provisioners() {
            let kind = if matches!(provisioner, Provisioner::Openebs(_)) { "openebs" } else { "external" };
            let path = ["provisioner".into(), kind.into(), "namespace".into()];
            let found = format!("namespace `{}` is not allowed", provisioner.namespace());
            self.check(dns_label(provisioner.namespace()), &path, &found, DNS_LABEL);
        }
        self.pods(intent);
        let (mut seen, mut default) = (BTreeSet::new(), false);
        for (i, class) in intent.classes.iter().enumerate() {
            let at = |key: &'static str| ["classes".into(), i.into(), key.into()];
            let name = &class.name;
            self.check(dns_name(name), &at("name"), &format!("`{name}` is not a class name"), DNS_LABEL);
            self.check(
                seen.insert(name),
                &at("name"),
                &format!("class {name} is listed twice"),
                "name each class once",
            );
            self.backend(intent, i, class);
            self.check(
                !(default && class.default),
                &at("default"),
                "two classes are the default",
                "keep one",
            );
            default |= class.default;
        }
    }

    /// A class has one backend, and it is known whose it is.
    fn backend(&self, intent: &Intent, i: usize, class: &Class) {
        let of = |path: &[PathPart<'static>]| [&["classes".into(), i.into()], path].concat();
        let name = &class.name;
        match (&class.base_path, &class.csi) {
            (Some(base), None) => self.base_path(&of(&["basePath".into()]), base),
            (None, Some(csi)) => {
                let found = format!("`{}` is not the name of a CSI driver", csi.driver);
                let path = of(&["csi".into(), "driver".into()]);
                self.check(dns_name(&csi.driver), &path, &found, "write one such as ebs.csi.aws.com");
                self.check(
                    class.provisioner.is_none(),
                    &of(&["provisioner".into()]),
                    &format!("class {name} is of a CSI driver, and of no provisioner of the file"),
                    "take `provisioner` out of the class",
                );
                return;
            }
            (None, None) => {
                self.check(
                    false,
                    &of(&[]),
                    &format!("class {name} does not say where its volumes are"),
                    "write `basePath: /var/mnt/<volume>`, or `csi: {driver: …}` for a class of a CSI driver",
                );
            }
            (Some(_), Some(_)) => {
                self.check(
                    false,
                    &of(&["csi".into()]),
                    &format!("class {name} has a basePath, and a CSI driver"),
                    "keep one of them",
                );
                return;
            }
        }
        let count = intent.provisioners().count();
        let at = of(&["provisioner".into()]);
        if count == 0 {
            self.check(
                false,
                &["classes".into()],
                "classes need a provisioner",
                "add `provisioner: {openebs: {}}`, or `external` for one that somebody else installed",
            );
        } else if intent.provisioner_of(class).is_none() {
            self.check(
                false,
                &at,
                &format!("class {name} is of a provisioner that the file does not have"),
                "list it below `provisioner`, or name the one that is there",
            );
        } else if count > 1 {
            self.check(
                class.provisioner.is_some(),
                &at,
                &format!("the file has {count} provisioners, and class {name} does not say whose it is"),
                "add `provisioner: openebs` or `provisioner: external` to the class",
            );
        }
    }

    fn base_path(&self, path: Path<'_>, base: &str) {
        let parts: Vec<&str> = base.trim_start_matches('/').split('/').collect();
        let clean = base.starts_with('/') && parts.iter().all(|p| !p.is_empty() && *p != "." && *p != "..");
        let found = format!("`{base}` is not an absolute path");
        self.check(
            clean,
            path,
            &found,
            "write one such as /var/mnt/openebs, without `..` and a slash at the end",
        );
        let found = format!("`{base}` is directly under the root directory, which OpenEBS refuses");
        self.check(!clean || parts.len() > 1, path, &found, "use a deeper one such as /var/mnt/openebs");
    }
}

const DNS_LABEL: &str = "use 1 to 63 small letters, digits and dashes, a letter or digit first and last";

pub(super) fn dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(dns_label)
}

/// A label's value or the name of its key (Kubernetes, "Labels and Selectors").
fn label_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}
