//! A volume as Talos' documents and talhelper's `userVolumes` say it.

use secrecy::{ExposeSecret, SecretString};

use super::tree::Source;
use crate::error::Result;
use crate::intent::{Duration, FilesystemType, MaxSize, Mount, Size, VolumeType};
use crate::yaml::{Kind, Node};

/// What is known of a volume; of what is not said, Talos' own defaults count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserVolume {
    pub name: String,
    pub kind: Option<VolumeType>,
    /// Its disk, as a CEL expression.
    pub matches: Option<String>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
    pub grow: Option<bool>,
    pub filesystem: Option<FilesystemType>,
    pub quota: Option<bool>,
    /// The keys that open it, in the order of their slots.
    pub encryption: Vec<Key>,
    pub mount: Mount,
    pub trim: Option<Duration>,
    pub scrub: Option<Duration>,
    /// Where it is first spoken of.
    pub place: String,
}

/// What opens an encrypted volume.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    NodeId,
    Tpm,
    /// The address of a key server.
    Kms(String),
    /// A passphrase.
    Static(Secret),
}

/// A text that nobody is shown.
#[derive(Debug, Clone)]
pub struct Secret(pub SecretString);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

/// The keys that are carried over. Any other one gets a note.
const CARRIED: [&str; 19] = [
    "apiVersion",
    "kind",
    "name",
    "volumeType",
    "provisioning.diskSelector.match",
    "provisioning.minSize",
    "provisioning.maxSize",
    "provisioning.grow",
    "filesystem.type",
    "filesystem.projectQuotaSupport",
    "encryption.provider",
    "encryption.keys",
    "mount.secure",
    "mount.disableAccessTime",
    "trim.enabled",
    "trim.interval",
    "scrub.enabled",
    "scrub.interval",
    "$patch",
];

impl UserVolume {
    /// Reads one; what has no counterpart goes to the notes.
    pub(super) fn read(source: &Source, node: &Node, notes: &mut Vec<String>) -> Result<Self> {
        let text = |path: &[&str]| source.text(node.get(path));
        let flag = |path: &[&str]| source.flag(node.get(path));
        let Some(name) = text(&["name"])? else {
            return Err(source.wrong(node, "a volume without `name`", "give each volume its name"));
        };
        let mut left = Vec::new();
        uncarried(node, "", &mut left);
        for (key, value) in left {
            notes.push(format!(
                "{}: `{key}` of volume {name} was left out: it has no counterpart here.",
                source.place(value)
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            kind: parsed(source, node, &["volumeType"], "write partition, disk or directory", kind)?,
            matches: text(&["provisioning", "diskSelector", "match"])?.map(|text| text.trim().to_owned()),
            min_size: parsed(
                source,
                node,
                &["provisioning", "minSize"],
                "write a size such as 100GiB",
                Size::parse,
            )?,
            max_size: parsed(
                source,
                node,
                &["provisioning", "maxSize"],
                "write a size such as 100GiB",
                MaxSize::parse,
            )?,
            grow: flag(&["provisioning", "grow"])?,
            filesystem: parsed(
                source,
                node,
                &["filesystem", "type"],
                "nodeprep makes xfs and ext4",
                filesystem,
            )?,
            quota: flag(&["filesystem", "projectQuotaSupport"])?,
            encryption: encryption(source, node)?,
            mount: Mount {
                secure: flag(&["mount", "secure"])?,
                disable_access_time: flag(&["mount", "disableAccessTime"])?,
                read_only: None,
            },
            trim: upkeep(source, node, "trim", notes)?,
            scrub: upkeep(source, node, "scrub", notes)?,
            place: source.place(node),
        })
    }

    /// A later document of the same name is merged over this one.
    pub(super) fn merge(&mut self, later: Self) {
        fn over<T>(have: &mut Option<T>, later: Option<T>) {
            if later.is_some() {
                *have = later;
            }
        }
        over(&mut self.kind, later.kind);
        over(&mut self.matches, later.matches);
        over(&mut self.min_size, later.min_size);
        over(&mut self.max_size, later.max_size);
        over(&mut self.grow, later.grow);
        over(&mut self.filesystem, later.filesystem);
        over(&mut self.quota, later.quota);
        over(&mut self.mount.secure, later.mount.secure);
        over(&mut self.mount.disable_access_time, later.mount.disable_access_time);
        over(&mut self.trim, later.trim);
        over(&mut self.scrub, later.scrub);
        self.encryption.extend(later.encryption);
    }
}

/// The value at a path, read by a parser of its own.
fn parsed<T>(
    source: &Source,
    node: &Node,
    path: &[&str],
    hint: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>> {
    let Some(value) = node.get(path) else { return Ok(None) };
    let text = source.text(Some(value))?;
    text.map(parse).transpose().map_err(|what| source.wrong(value, &what, hint))
}

fn kind(text: &str) -> Result<VolumeType, String> {
    match text {
        "partition" => Ok(VolumeType::Partition),
        "disk" => Ok(VolumeType::Disk),
        "directory" => Ok(VolumeType::Directory),
        other => Err(format!("`{other}` is no type of a volume")),
    }
}

fn filesystem(text: &str) -> Result<FilesystemType, String> {
    match text {
        "xfs" => Ok(FilesystemType::Xfs),
        "ext4" => Ok(FilesystemType::Ext4),
        other => Err(format!("`{other}` is no file system that nodeprep makes")),
    }
}

/// Keys that are not carried over, with their values; nothing for what is empty.
fn uncarried<'n>(node: &'n Node, above: &str, left: &mut Vec<(String, &'n Node)>) {
    for (key, value) in node.entries() {
        let key = key.text().unwrap_or("?");
        let path = if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") };
        let inner = format!("{path}.");
        let empty = value.is_null()
            || matches!(&value.kind, Kind::Map { entries, .. } if entries.is_empty())
            || matches!(&value.kind, Kind::Seq { items, .. } if items.is_empty());
        if CARRIED.iter().any(|known| known.starts_with(&inner)) && matches!(value.kind, Kind::Map { .. }) {
            uncarried(value, &path, left);
        } else if !empty && !CARRIED.contains(&path.as_str()) {
            left.push((path, value));
        }
    }
}

/// How often a volume is trimmed or scrubbed.
fn upkeep(source: &Source, node: &Node, key: &str, notes: &mut Vec<String>) -> Result<Option<Duration>> {
    let Some(value) = node.get(&[key]).filter(|value| !value.is_null()) else { return Ok(None) };
    let every = parsed(source, value, &["interval"], "write one such as 168h", Duration::parse)?;
    if source.flag(value.get(&["enabled"]))? == Some(true) && every.is_some() {
        return Ok(every);
    }
    let place = source.place(value);
    notes.push(format!("{place}: `{key}` was left out: nodeprep asks for it by its interval alone."));
    Ok(None)
}

/// The keys of a volume's encryption. What can't be said of them is refused: the volume would be less safe without.
fn encryption(source: &Source, volume: &Node) -> Result<Vec<Key>> {
    let hint = "leave that volume out of nodeprep.yaml: give --volume and --match for another one";
    let Some(node) = volume.get(&["encryption"]).filter(|node| !node.entries().is_empty()) else {
        return match volume
            .get(&["encryption"])
            .filter(|node| node.text().is_some_and(|text| !text.is_empty()))
        {
            Some(node) if !node.is_null() => {
                Err(source.wrong(node, "is no map", "write `provider` and `keys`"))
            }
            _ => Ok(Vec::new()),
        };
    };
    let provider = node.get(&["provider"]);
    if source.text(provider)? != Some("luks2") {
        return Err(source.wrong(provider.unwrap_or(node), "encryption without the provider luks2", hint));
    }
    let mut keys = Vec::new();
    for item in source.list(node.get(&["keys"]))? {
        let slot = source.text(item.get(&["slot"]))?.unwrap_or("0");
        let slot: usize =
            slot.parse().map_err(|_| source.wrong(item, &format!("`{slot}` is no slot"), hint))?;
        keys.push((slot, key(source, item, hint)?, item));
    }
    keys.sort_by_key(|(slot, _, _)| *slot);
    for (number, (slot, _, item)) in keys.iter().enumerate() {
        if *slot != number {
            let what = "the slots of the keys are not 0, 1, 2 and so on: nodeprep numbers them so";
            return Err(source.wrong(item, what, hint));
        }
    }
    if keys.is_empty() {
        return Err(source.wrong(node, "encryption without keys", "list nodeID, tpm, kms or static"));
    }
    Ok(keys.into_iter().map(|(_, key, _)| key).collect())
}

fn key(source: &Source, item: &Node, hint: &str) -> Result<Key> {
    let mut found = None;
    for (name, value) in item.entries() {
        let allowed: &[&str] = match name.text() {
            Some("slot") => continue,
            // Null is a key that does not exist.
            _ if value.is_null() => continue,
            Some("nodeID" | "tpm") => &[],
            Some("kms") => &["endpoint"],
            Some("static") => &["passphrase"],
            Some("lockToState") if source.flag(Some(value))? != Some(true) => continue,
            _ => return Err(source.wrong(name, "nodeprep can't ask for this of a key", hint)),
        };
        if let Some((other, _)) =
            value.entries().iter().find(|(key, _)| !key.text().is_some_and(|key| allowed.contains(&key)))
        {
            return Err(source.wrong(other, "nodeprep can't ask for this of a key", hint));
        }
        let inner = |key: &str| {
            let text = source.text(value.get(&[key]))?;
            text.ok_or_else(|| source.wrong(value, &format!("a key without `{key}`"), "write it"))
        };
        let one = match name.text() {
            Some("nodeID") => Key::NodeId,
            Some("tpm") => Key::Tpm,
            Some("kms") => Key::Kms(inner("endpoint")?.to_owned()),
            _ => Key::Static(Secret(inner("passphrase")?.into())),
        };
        if found.replace(one).is_some() {
            return Err(source.wrong(name, "two keys in one slot", hint));
        }
    }
    found.ok_or_else(|| source.wrong(item, "a slot without a key", "write nodeID, tpm, kms or static"))
}
