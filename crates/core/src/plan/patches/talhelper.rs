//! Keys for `talconfig.yaml`, and patch files for what talhelper has no key for.
//!
//! A user volume of talhelper has name, volumeType, provisioning, filesystem and encryption, and takes no notice of any
//! other key; `volumes` are those of Talos itself (budimanjojo/talhelper v3, `UserVolume` and `Volume` of
//! pkg/config/config.go). `nodeLabels` go to the v1alpha1 document (pkg/talos/nodeconfig.go). `patches` may be
//! encrypted with SOPS, `talconfig.yaml` may not (pkg/patcher/patcher.go, pkg/config/loader.go).

use super::{Document, Host, Part, Patch, PatchFile, file_name, label_line};
use crate::error::Result;
use crate::plan::{ephemeral, volumes};
use crate::yaml::{self, Kind, Node, Stream};

const FILE: &str = "talconfig.nodeprep.yaml";
const HEAD: &str = "\
# Written by `nodeprep patches`: for each node, what its entry in talconfig.yaml needs beside what it has.
# What an entry says takes the place of what its group (controlPlane, worker) says, but for `patches`.
nodes:
";
/// Keys of a UserVolumeConfig that talhelper knows.
const KEYS: [&str; 5] = ["name", "volumeType", "provisioning", "filesystem", "encryption"];
/// What names a document; talhelper writes it itself.
const OWN: [&str; 2] = ["apiVersion", "kind"];

pub(super) fn files(hosts: &[Host]) -> Result<Vec<PatchFile>> {
    let (mut entries, mut files) = (String::new(), Vec::new());
    for host in hosts {
        let mut keys = Keys::default();
        let mut rest = Patch::of(&host.asked);
        rest.parts.retain(|part| !keys.take(part));
        let path = format!("nodeprep/{}.yaml", file_name(&host.name)?);
        let patch = rest.file(path.clone(), Some(host));
        if patch.is_some() || !keys.is_empty() {
            entries.push_str(&entry(host, &keys, patch.is_some().then_some(path.as_str())));
        }
        files.extend(patch);
    }
    if !entries.is_empty() {
        let text = format!("{HEAD}{entries}").into();
        files.insert(0, PatchFile { path: FILE.into(), text, host: None, secret: false });
    }
    Ok(files)
}

/// What goes to a node's entry.
#[derive(Default)]
struct Keys {
    labels: Vec<String>,
    volumes: Vec<Node>,
    user_volumes: Vec<Node>,
}

impl Keys {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.volumes.is_empty() && self.user_volumes.is_empty()
    }

    /// Takes a part that talhelper has a key for.
    fn take(&mut self, part: &Part<'_>) -> bool {
        match part {
            Part::Label(key, value, false) => self.labels.push(label_line(key, value)),
            Part::Label(.., true) => return false,
            Part::Document(document) => {
                let Some(volume) = volume(document) else { return false };
                match document.kind {
                    ephemeral::KIND => self.volumes.push(volume),
                    volumes::USER => self.user_volumes.push(volume),
                    _ => return false,
                }
            }
        }
        true
    }
}

/// The document as an item of a list, if talhelper knows all its keys.
fn volume(document: &Document) -> Option<Node> {
    if document.secret {
        return None;
    }
    let stream = Stream::parse(document.text()).ok()?;
    let [read] = stream.documents() else { return None };
    let mut root = read.root.clone();
    let Kind::Map { entries, .. } = &mut root.kind else { return None };
    entries.retain(|(key, _)| key.text().is_none_or(|key| !OWN.contains(&key)));
    let known = entries.iter().all(|(key, _)| key.text().is_some_and(|key| KEYS.contains(&key)));
    known.then_some(root)
}

fn entry(host: &Host, keys: &Keys, patch: Option<&str>) -> String {
    let Host { name, asked } = host;
    let mut text =
        format!("  - hostname: {}\n    ipAddress: {}\n", yaml::string(name), yaml::string(&asked.address));
    if !keys.labels.is_empty() {
        text.push_str("    nodeLabels:\n");
        keys.labels.iter().for_each(|label| text.push_str(&format!("      {label}\n")));
    }
    for (key, volumes) in [("volumes", &keys.volumes), ("userVolumes", &keys.user_volumes)] {
        if !volumes.is_empty() {
            text.push_str(&format!("    {key}:\n"));
            volumes.iter().for_each(|volume| yaml::write_item(&mut text, volume, 6, 2));
        }
    }
    if let Some(path) = patch {
        text.push_str(&format!("    patches:\n      - {}\n", yaml::quote(&format!("@./{path}"))));
    }
    text
}
