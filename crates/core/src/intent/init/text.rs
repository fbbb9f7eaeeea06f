//! The text of a first `nodeprep.yaml`.

use super::{Answers, Backup, LABEL, Node, Volume, passphrase_key};
use crate::intent::import::Key;
use crate::intent::{API_VERSION, KIND, Location, MaxSize, Mount, Size, VolumeType};
use crate::model::mounts::mount_of;
use crate::yaml;

const HEAD: &str = "\
# Written by `nodeprep init`; `nodeprep schema` tells every key there is.
# `nodeprep plan` shows what this would change, `nodeprep apply` does it and proves the result.
";
const NODES: &str = "
# The nodes' machine API addresses. What one node has differently stands below its address.
nodes:
";
const VOLUMES: &str = "
# A volume on each node; Talos mounts it at /var/mnt/<name>. `match` must find exactly one disk of a node, that is empty or
# holds this volume already: a CEL expression over disk.*, or nvme, ssd, serial:…, wwid:… or largest-free-nvme.
volumes:
";
const PROVISIONER: &str = "
# What makes claims into directories on the volumes.
provisioner:
  openebs:
    nodeSelector:
";
const CLASSES: &str = "
# `default: true` makes one of them the cluster's default class.
classes:
";
const BACKUP: &str = "
# Backups by Velero to an S3 store, with the credentials in a SOPS file:
# backup:
#   location: {bucket: backups, region: us-east-1, url: \"https://s3.example.com\", pathStyle: true}
#   secrets: [secrets/velero.sops.yaml]
#   schedules: [{preset: daily}]
";
const NO_BACKUP: &str = "
# No backup: what is on a volume is on one disk of one node, and is lost with either of them. Nothing here copies it anywhere.
";

/// The text of the file.
pub fn text(answers: &Answers) -> String {
    let mut text = HEAD.to_owned();
    for note in &answers.notes {
        text.push_str(&format!("# {}\n", comment(note)));
    }
    let name = yaml::string(&answers.name);
    text.push_str(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  name: {name}\n{NODES}"));
    answers.nodes.iter().for_each(|node| text.push_str(&node_text(node, answers)));
    let label = format!("{LABEL}: \"true\"");
    text.push_str(&format!("\n# Set on every node, through its machine config.\nlabels:\n  {label}\n"));
    if answers.volumes.is_empty() {
        return text;
    }
    text.push_str(VOLUMES);
    answers.volumes.iter().for_each(|volume| text.push_str(&volume_text(volume)));
    let mounted: Vec<&Volume> = answers.volumes.iter().filter(|v| v.kind != VolumeType::Raw).collect();
    if mounted.is_empty() {
        return text;
    }
    text.push_str(&format!("{PROVISIONER}      {label}\n{CLASSES}"));
    for (i, volume) in mounted.into_iter().enumerate() {
        let mut class = "openebs-hostpath".to_owned();
        if i > 0 {
            class = format!("openebs-{}", volume.name.to_ascii_lowercase().trim_matches('-'));
        }
        let path = yaml::string(&mount_of(&volume.name));
        text.push_str(&format!("  - name: {}\n    basePath: {path}\n", yaml::string(&class)));
        if i == 0 && answers.default_class {
            text.push_str("    default: true\n");
        }
    }
    match &answers.backup {
        Backup::Unsaid => text.push_str(BACKUP),
        Backup::Refused => text.push_str(NO_BACKUP),
        Backup::To(location) => text.push_str(&backup(location)),
    }
    text
}

/// Every night, to the store.
fn backup(location: &Location) -> String {
    let mut text =
        "\n# Backups by Velero to an S3 store, with the credentials in a SOPS file.\nbackup:\n  location:\n"
            .to_owned();
    text.push_str(&format!("    bucket: {}\n", yaml::string(&location.bucket)));
    text.push_str(&format!("    region: {}\n", yaml::string(&location.region)));
    if let Some(url) = &location.url {
        text.push_str(&format!("    url: {}\n", yaml::string(url)));
    }
    if location.path_style {
        text.push_str("    pathStyle: true\n");
    }
    let file = super::BACKUP_SECRETS;
    text.push_str(&format!(
        "  secrets:\n    - {file}\n  schedules:\n    - preset: daily # at 02:00 UTC, kept for 30 days, all namespaces but kube-*\n"
    ));
    text
}

fn node_text(node: &Node, answers: &Answers) -> String {
    let about = if node.about.is_empty() { String::new() } else { format!(" # {}", comment(&node.about)) };
    let mut text = format!("  - address: {}{about}\n", yaml::string(&node.address));
    let without = |volume: &Volume| node.different.get(&volume.name) == Some(&None);
    if !answers.volumes.is_empty() && answers.volumes.iter().all(without) {
        // The provisioner's pods have no business there either.
        text.push_str(&format!("    labels:\n      {LABEL}: null\n"));
    }
    if !node.different.is_empty() {
        text.push_str("    volumes:\n");
    }
    for (name, different) in &node.different {
        let name = yaml::string(name);
        let Some(different) = different else {
            text.push_str(&format!("      {name}: null # left out here\n"));
            continue;
        };
        text.push_str(&format!("      {name}:\n"));
        if let Some(matches) = &different.matches {
            text.push_str(&format!("        disk:\n          match: {}\n", selector(matches)));
        }
        text.push_str(&sizes(different.min_size, different.max_size, "        "));
    }
    text
}

fn volume_text(volume: &Volume) -> String {
    let mut text = format!("  - name: {}\n", yaml::string(&volume.name));
    if volume.kind != VolumeType::Partition {
        text.push_str(&format!("    type: {}\n", volume.kind.name()));
    }
    if let Some(matches) = &volume.matches {
        text.push_str(&format!("    disk:\n      match: {}\n", selector(matches)));
    }
    text.push_str(&sizes(volume.min_size, volume.max_size, "    "));
    if let Some(grow) = volume.grow {
        text.push_str(&format!("    grow: {grow}\n"));
    }
    if volume.filesystem.is_some() || volume.quota {
        text.push_str("    filesystem:\n");
    }
    if let Some(kind) = volume.filesystem {
        text.push_str(&format!("      type: {}\n", kind.name()));
    }
    if volume.quota {
        text.push_str("      projectQuota: true\n");
    }
    if !volume.encryption.is_empty() {
        text.push_str("    encryption:\n      keys:\n");
    }
    for (slot, key) in volume.encryption.iter().enumerate() {
        text.push_str(&match key {
            Key::NodeId => "        - nodeID\n".to_owned(),
            Key::Tpm => "        - tpm\n".to_owned(),
            Key::Kms(endpoint) => {
                format!("        - kms:\n            endpoint: {}\n", yaml::string(endpoint))
            }
            Key::Static(_) => {
                let (file, key) = (super::VOLUME_SECRETS, passphrase_key(volume, slot));
                format!(
                    "        - static:\n            file: {file}\n            key: {}\n",
                    yaml::string(&key)
                )
            }
        });
    }
    text.push_str(&mount(&volume.mount));
    for (key, every) in [("trim", volume.trim), ("scrub", volume.scrub)] {
        if let Some(every) = every {
            text.push_str(&format!("    {key}: {every}\n"));
        }
    }
    text
}

fn mount(mount: &Mount) -> String {
    let flags = [("secure", mount.secure), ("disableAccessTime", mount.disable_access_time)];
    let flags: String =
        flags.into_iter().filter_map(|(key, flag)| Some(format!("      {key}: {}\n", flag?))).collect();
    if flags.is_empty() { flags } else { format!("    mount:\n{flags}") }
}

fn sizes(least: Option<Size>, most: Option<MaxSize>, indent: &str) -> String {
    let least = least.map(|size| format!("{indent}minSize: {size}\n"));
    let most = most.map(|size| format!("{indent}maxSize: {}\n", yaml::string(&size.to_string())));
    least.into_iter().chain(most).collect()
}

/// The text on one line, whatever is in it.
fn comment(text: &str) -> String {
    let breaks = |c: char| {
        c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

/// CEL has quotes of its own, so that single ones around it read best.
fn selector(text: &str) -> String {
    let plain = yaml::string(text);
    if plain == text || text.chars().any(char::is_control) {
        return plain;
    }
    format!("'{}'", text.replace('\'', "''"))
}
