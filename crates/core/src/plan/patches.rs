//! What the file asks of machine configs, as files for those who keep their configs with another tool.
//!
//! The documents are whole, whether they are in a node's config already or not: topf, talhelper and talm make configs
//! anew, and what is not in their files goes away. How each of them reads its files:
//!
//! * talosctl: `--config-patch @FILE`, several documents in one file (siderolabs/talos, configpatcher `LoadPatch`).
//! * topf: `all/`, then `<role>/`, then `node/<host>/`, in lexical order (postfinance/topf v0.5.0, pkg/config/patches.go).
//! * talhelper: keys of a node in `talconfig.yaml`; files below `patches` (budimanjojo/talhelper v3, pkg/config/config.go).
//! * talm: `talm apply -f nodes/<name>.yaml -f FILE`, the second a patch without a modeline
//!   (cozystack/talm, README "Apply with side-patches").

mod talhelper;

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::config_doc::KUBE_NODE_CONFIG;
use crate::error::{Error, Result};
use crate::model::node::Node;
use crate::yaml;

/// After the patches that people number from 00 on, so that nothing of theirs is merged over it by chance.
const TOPF_FILE: &str = "50-nodeprep.yaml";

/// Who keeps the machine configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Talosctl,
    Topf,
    Talhelper,
    Talm,
}

impl Tool {
    pub const ALL: [Self; 4] = [Self::Talosctl, Self::Topf, Self::Talhelper, Self::Talm];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Talosctl => "talosctl",
            Self::Topf => "topf",
            Self::Talhelper => "talhelper",
            Self::Talm => "talm",
        }
    }
}

/// What the file asks of one node's machine config.
#[derive(Debug)]
pub struct WantedConfig {
    pub address: String,
    /// The node's name in Kubernetes, if it has one.
    pub name: Option<String>,
    pub documents: Vec<Document>,
    pub labels: Vec<(String, String)>,
    /// The config keeps its labels in a document of their own.
    pub kube_node_config: bool,
    pub warnings: Vec<String>,
}

impl WantedConfig {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            address: node.address.clone(),
            name: node.hostname.as_ref().ok().cloned().flatten(),
            documents: Vec::new(),
            labels: Vec::new(),
            kube_node_config: false,
            warnings: Vec::new(),
        }
    }
}

/// A whole document of a machine config.
#[derive(Debug, Clone)]
pub struct Document {
    pub kind: &'static str,
    pub name: String,
    pub(super) text: SecretString,
    /// It is in the node's config already.
    pub there: bool,
    /// It names its disk by what does not change.
    pub(super) pinned: bool,
    /// It holds a passphrase.
    pub secret: bool,
}

impl Document {
    pub(super) fn new(kind: &'static str, name: &str, text: &str) -> Self {
        let text = SecretString::from(format!("{}\n", text.trim_end()));
        Self { kind, name: name.to_owned(), text, there: false, pinned: true, secret: false }
    }

    fn text(&self) -> &str {
        self.text.expose_secret()
    }
}

/// What is asked of a node, and what the tool calls the node.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub asked: WantedConfig,
}

/// A file to be written.
#[derive(Debug)]
pub struct PatchFile {
    /// Counted from the folder that is written to.
    pub path: PathBuf,
    pub text: SecretString,
    /// The node it is for, if it is for one alone.
    pub host: Option<String>,
    /// It holds a passphrase in plaintext.
    pub secret: bool,
}

/// The files for a tool. `complete`: the tool has no other nodes than these.
///
/// # Errors
/// `Kind::Invalid`: two nodes of one name, a name that no file can have, or a text that the tool would read otherwise.
pub fn files(tool: Tool, hosts: &[Host], complete: bool) -> Result<Vec<PatchFile>> {
    for (number, host) in hosts.iter().enumerate() {
        let name = file_name(&host.name)?;
        let same = |other: &&Host| file_name(&other.name).is_ok_and(|other| other == name);
        if let Some(other) = hosts.iter().take(number).find(same) {
            let (one, two) = (&other.asked.address, &host.asked.address);
            return Err(Error::invalid(format!("{one} and {two} are both called {name}"))
                .hint("each node needs a name of its own: see `nodeprep discover`"));
        }
        readable(tool, host)?;
    }
    match tool {
        Tool::Talosctl => each(hosts, |name| format!("{name}.yaml")),
        Tool::Talm => each(hosts, |name| format!("{name}.nodeprep.yaml")),
        Tool::Topf => topf(hosts, complete && hosts.len() > 1),
        Tool::Talhelper => talhelper::files(hosts),
    }
}

fn each(hosts: &[Host], path: impl Fn(&str) -> String) -> Result<Vec<PatchFile>> {
    let mut files = Vec::new();
    for host in hosts {
        let path = path(&file_name(&host.name)?);
        files.extend(Patch::of(&host.asked).file(path, Some(host)));
    }
    Ok(files)
}

/// What all nodes are to have alike goes to `all/`, if topf has no other nodes.
fn topf(hosts: &[Host], complete: bool) -> Result<Vec<PatchFile>> {
    let patches: Vec<Patch<'_>> = hosts.iter().map(|host| Patch::of(&host.asked)).collect();
    let mut common = Patch::default();
    if let (true, Some((first, rest))) = (complete, patches.split_first()) {
        common = first.clone();
        rest.iter().for_each(|other| common.keep(|part| other.has(part)));
    }
    let mut files = Vec::new();
    files.extend(common.file(format!("all/{TOPF_FILE}"), None));
    for (host, mut patch) in hosts.iter().zip(patches) {
        patch.keep(|part| !common.has(part));
        let path = format!("node/{}/{TOPF_FILE}", file_name(&host.name)?);
        files.extend(patch.file(path, Some(host)));
    }
    Ok(files)
}

/// A strategic merge patch in the making.
#[derive(Debug, Clone, Default)]
struct Patch<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// A label, and whether it goes to `KubeNodeConfig`.
    Label(&'a str, &'a str, bool),
    Document(&'a Document),
}

impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Label(key, value, kube), Self::Label(key2, value2, kube2)) => {
                (key, value, kube) == (key2, value2, kube2)
            }
            (Self::Document(one), Self::Document(two)) => one.text() == two.text(),
            _ => false,
        }
    }
}

impl<'a> Patch<'a> {
    fn of(asked: &'a WantedConfig) -> Self {
        let label = |(key, value): &'a (String, String)| Part::Label(key, value, asked.kube_node_config);
        let labels = asked.labels.iter().map(label);
        Self { parts: labels.chain(asked.documents.iter().map(Part::Document)).collect() }
    }

    fn has(&self, part: &Part<'_>) -> bool {
        self.parts.contains(part)
    }

    fn keep(&mut self, wanted: impl Fn(&Part<'_>) -> bool) {
        self.parts.retain(|part| wanted(part));
    }

    /// Nothing when there is nothing to write.
    fn file(&self, path: String, host: Option<&Host>) -> Option<PatchFile> {
        if self.parts.is_empty() {
            return None;
        }
        let whom = host.map_or_else(
            || "for all nodes.".to_owned(),
            |host| {
                let Host { name, asked } = host;
                format!(
                    "for {name} ({}). Disks are named by serial or WWID: it fits no other node.",
                    asked.address
                )
            },
        );
        let mut text = format!("# Written by `nodeprep patches` {whom}\n");
        text.push_str(&self.documents().join("---\n"));
        let secret =
            self.parts.iter().any(|part| matches!(part, Part::Document(document) if document.secret));
        let host = host.map(|host| host.name.clone());
        Some(PatchFile { path: path.into(), text: text.into(), host, secret })
    }

    /// The labels where this config keeps them, then the documents.
    fn documents(&self) -> Vec<String> {
        let mut found = Vec::new();
        for kube in [false, true] {
            let label = |part: &Part<'_>| match part {
                Part::Label(key, value, of) if *of == kube => Some(label_line(key, value)),
                _ => None,
            };
            let labels: Vec<String> = self.parts.iter().filter_map(label).collect();
            let (head, indent) = if kube {
                (format!("apiVersion: v1alpha1\nkind: {KUBE_NODE_CONFIG}\nlabels:\n"), "  ")
            } else {
                ("machine:\n  nodeLabels:\n".to_owned(), "    ")
            };
            if !labels.is_empty() {
                found.push(
                    head + &labels.iter().map(|label| format!("{indent}{label}\n")).collect::<String>(),
                );
            }
        }
        let document = |part: &Part<'_>| match part {
            Part::Document(document) => Some(document.text().to_owned()),
            Part::Label(..) => None,
        };
        found.extend(self.parts.iter().filter_map(document));
        found
    }
}

/// A label's value is text, whatever it looks like.
fn label_line(key: &str, value: &str) -> String {
    format!("{}: {}", yaml::string(key), yaml::quote(value))
}

/// A name as part of a path: an IPv6 address without its colons.
fn file_name(name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        return Err(Error::invalid(format!("{name:?} can't be the name of a file"))
            .hint("a node's name has letters, digits, dashes and dots"));
    }
    Ok(name.replace(':', "-"))
}

/// Refuses what the tool would take for something else than text: topf replaces vals' references (docs/configuration-model.md),
/// talhelper replaces variables and templates (pkg/substitute/envsubst.go, pkg/patcher/patcher.go).
fn readable(tool: Tool, host: &Host) -> Result<()> {
    let replaced: &[&str] = match tool {
        Tool::Talosctl | Tool::Talm => &[],
        Tool::Topf => &["ref+"],
        Tool::Talhelper => &["$", "{{", "}}"],
    };
    for document in &host.asked.documents {
        if let Some(found) = replaced.iter().find(|found| document.text().contains(**found)) {
            let (Document { kind, name, .. }, address) = (document, &host.asked.address);
            return Err(Error::invalid(format!(
                "{address}: {kind} {name} holds `{found}`, and {} would put something else in its place",
                tool.name()
            ))
            .hint("choose a passphrase, an endpoint or a label of a partition without it"));
        }
    }
    Ok(())
}
