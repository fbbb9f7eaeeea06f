//! Documents of volumes: what Talos takes in them, release by release, and what they ask for (siderolabs/talos,
//! pkg/machinery/config/types/block).

use serde::Deserialize;
use serde_json::Value;

use super::config::release;
use super::locator;
use crate::intent::{MaxSize, Size, VolumeType};

/// A volume's document: a `UserVolumeConfig` (Talos 1.10 and later), a `RawVolumeConfig` or an `ExistingVolumeConfig`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VolumeDocument {
    #[serde(rename = "apiVersion")]
    _version: String,
    kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    volume_type: Option<String>,
    #[serde(default)]
    pub provisioning: Provisioning,
    #[serde(default)]
    pub discovery: Discovery,
    #[serde(default)]
    pub filesystem: FileSystem,
    #[serde(default)]
    pub mount: Value,
    #[serde(default)]
    encryption: Option<Value>,
    #[serde(default)]
    pub trim: Value,
    #[serde(default)]
    pub scrub: Value,
}

/// Where an existing volume is found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Discovery {
    #[serde(default)]
    pub volume_selector: Selector,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provisioning {
    #[serde(default)]
    pub disk_selector: Selector,
    /// A text or a number.
    #[serde(default)]
    min_size: Value,
    #[serde(default)]
    max_size: Value,
    #[serde(default)]
    grow: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    #[serde(rename = "match", default)]
    pub expression: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSystem {
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub project_quota_support: bool,
    #[serde(default, rename = "xfs")]
    _xfs: Option<Value>,
}

const LONGEST_NAME: usize = 34;
/// What a partition takes at least when nothing is said, in bytes.
const LEAST: u64 = 100 << 20;
/// From these releases on a size may be in percent, or below zero.
const PERCENT: (u64, u64) = (1, 12);
const NEGATIVE: (u64, u64) = (1, 13);
/// What Talos says of a text that is no size.
const NO_SIZE: &str = "strconv.ParseFloat: parsing \"\": invalid syntax";
/// Keys of a volume, and the first release that has them.
const NEW_KEYS: [(&str, (u64, u64)); 7] = [
    ("/filesystem/projectQuotaSupport", (1, 11)),
    ("/volumeType", (1, 12)),
    ("/mount/secure", (1, 13)),
    ("/mount/disableAccessTime", (1, 13)),
    ("/filesystem/xfs", (1, 14)),
    ("/trim", (1, 14)),
    ("/scrub", (1, 14)),
];
/// Talos' own volumes, and the release from which on they can be configured.
const SYSTEM: [(&str, (u64, u64)); 7] = [
    ("STATE", (1, 0)),
    ("EPHEMERAL", (1, 0)),
    ("IMAGECACHE", (1, 0)),
    ("ETCD", (1, 14)),
    ("CRI", (1, 14)),
    ("KUBELET", (1, 14)),
    ("LOG", (1, 14)),
];

/// The other kinds of documents, and the keys that they have besides `apiVersion`, `kind` and `name`.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "UserVolumeConfig",
        &["volumeType", "provisioning", "filesystem", "mount", "encryption", "trim", "scrub"],
    ),
    ("RawVolumeConfig", &["provisioning", "encryption"]),
    ("ExistingVolumeConfig", &["discovery", "mount", "trim", "scrub"]),
];
/// From this release on a directory has flags of its own.
pub(super) const DIRECTORY_FLAGS: (u64, u64) = (1, 14);

/// Whether a document of this kind is a volume's.
pub(super) fn is_volume(kind: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == kind)
}

impl VolumeDocument {
    /// Reads one as the Talos of this version does.
    pub(super) fn read(document: Value, version: &str) -> Result<Self, String> {
        let unknown = |path: &str, value: &Value| {
            let key = path.trim_start_matches('/').replace('/', ":\n    ");
            Err(format!("unknown keys found during decoding:\n{key}: {value}\n"))
        };
        for (path, first) in NEW_KEYS {
            if release(version) < first
                && let Some(value) = document.pointer(path)
            {
                return unknown(path, value);
            }
        }
        let taken = KEYS.iter().find(|(kind, _)| document["kind"] == *kind).map_or(&[][..], |(_, keys)| keys);
        let every = ["apiVersion", "kind", "name"];
        for (key, value) in document.as_object().into_iter().flatten() {
            if !every.contains(&key.as_str()) && !taken.contains(&key.as_str()) {
                return unknown(key, value);
            }
        }
        if document["kind"] != "ExistingVolumeConfig"
            && let Some(value) = document.pointer("/mount/readOnly")
        {
            return unknown("/mount/readOnly", value);
        }
        let volume: Self = serde_json::from_value(document)
            .map_err(|error| format!("unknown keys found during decoding: {error}"))?;
        volume.named()?;
        match volume.volume_type.as_deref() {
            None | Some("partition" | "disk" | "directory") => {}
            Some(other) => return Err(format!("unsupported volume type {other:?}")),
        }
        match volume.of() {
            VolumeType::Directory => volume.directory(version)?,
            VolumeType::Disk => volume.provisioning.of_disk()?,
            VolumeType::Partition | VolumeType::Raw => volume.provisioning.validate(true, version)?,
            VolumeType::Existing => locator::check(&volume.discovery.volume_selector.expression)?,
        }
        Ok(volume)
    }

    /// What a directory takes.
    fn directory(&self, version: &str) -> Result<(), String> {
        let flags = release(version) >= DIRECTORY_FLAGS;
        for (wrong, what) in [
            (self.provisioning != Provisioning::default(), "provisioning spec"),
            (self.encryption.is_some(), "encryption spec"),
            (self.filesystem != FileSystem::default(), "filesystem spec"),
            (!flags && !self.mount.is_null(), "mount spec"),
            (!self.mount["disableAccessTime"].is_null(), "mount.disableAccessTime"),
        ] {
            if wrong {
                return Err(format!("{what} is invalid for volumeType directory"));
            }
        }
        Ok(())
    }

    fn named(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > LONGEST_NAME {
            return Err(format!("name must be between 1 and {LONGEST_NAME} characters long"));
        }
        if self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Ok(());
        }
        Err("name can only contain lowercase and uppercase ASCII letters, digits, and hyphens".to_owned())
    }

    /// What the volume is made of.
    pub fn of(&self) -> VolumeType {
        match (self.kind.as_str(), self.volume_type.as_deref()) {
            ("RawVolumeConfig", _) => VolumeType::Raw,
            ("ExistingVolumeConfig", _) => VolumeType::Existing,
            (_, Some("disk")) => VolumeType::Disk,
            (_, Some("directory")) => VolumeType::Directory,
            _ => VolumeType::Partition,
        }
    }

    /// The id of the volume.
    pub fn id(&self) -> String {
        let prefix = match self.of() {
            VolumeType::Raw => "r",
            VolumeType::Existing => "e",
            VolumeType::Partition | VolumeType::Disk | VolumeType::Directory => "u",
        };
        format!("{prefix}-{}", self.name)
    }

    /// Whether it is made on a disk when it is not there: the others hold nothing up.
    pub fn is_made(&self) -> bool {
        !matches!(self.of(), VolumeType::Directory | VolumeType::Existing)
    }

    /// Its place among the volumes, which are made one after the other (siderolabs/talos, CompareVolumeConfigs).
    pub fn order(&self) -> (bool, bool, u64, String) {
        let Provisioning { grow, max_size, .. } = &self.provisioning;
        let most = text(max_size).and_then(|text| MaxSize::parse(&text).ok());
        let most = match most {
            Some(MaxSize::Bytes(most) | MaxSize::AllBut(most)) => most.0,
            _ => u64::MAX,
        };
        (self.is_made(), *grow == Some(true), most, self.id())
    }

    /// Least and most bytes that the volume takes of so many that are free.
    pub fn sizes(&self, free: u64) -> (u64, u64) {
        let Provisioning { min_size, max_size, .. } = &self.provisioning;
        let least = text(min_size).and_then(|text| Size::parse(&text).ok()).map_or(LEAST, |size| size.0);
        let most = text(max_size).and_then(|text| MaxSize::parse(&text).ok());
        let most = match most {
            // Talos forgets of a raw volume that its size is below zero.
            Some(MaxSize::AllBut(size)) if self.of() == VolumeType::Raw => Some(MaxSize::Bytes(size)),
            Some(MaxSize::AllButPercent(part)) if self.of() == VolumeType::Raw => {
                Some(MaxSize::Percent(part))
            }
            most => most,
        };
        (least, most.map_or(free, |most| most.of(free)))
    }

    /// The file system that is made on it.
    pub fn format(&self) -> &str {
        match self.of() {
            VolumeType::Raw => "",
            _ => self.filesystem.kind.as_deref().unwrap_or("xfs"),
        }
    }
}

impl Provisioning {
    /// The most bytes to take of so many that are free.
    pub fn most(&self, free: u64) -> u64 {
        let most = text(&self.max_size).and_then(|text| MaxSize::parse(&text).ok());
        most.map_or(free, |most| most.of(free))
    }

    fn validate(&self, required: bool, version: &str) -> Result<(), String> {
        if required && self.disk_selector.expression.is_empty() {
            return Err("disk selector is required".to_owned());
        }
        let least = text(&self.min_size).map(|text| Size::parse(&text).map_err(|_| text)).transpose();
        let least = least.map_err(|text| match text.strip_prefix('-').map(Size::parse) {
            Some(Ok(_)) if release(version) >= NEGATIVE => "min size cannot be negative",
            _ => NO_SIZE,
        })?;
        let most = text(&self.max_size).map(|text| MaxSize::parse(&text)).transpose();
        let most = match most.map_err(|_| NO_SIZE)? {
            Some(MaxSize::Percent(_)) if release(version) < PERCENT => {
                return Err("unhandled size name: %".into());
            }
            Some(MaxSize::AllBut(_) | MaxSize::AllButPercent(_)) if release(version) < NEGATIVE => {
                return Err(NO_SIZE.into());
            }
            most => most,
        };
        match (least, most) {
            (Some(least), Some(MaxSize::Bytes(most))) if least > most => {
                Err("min size is greater than max size".to_owned())
            }
            (None, None) if required => Err("min size or max size is required".to_owned()),
            _ => Ok(()),
        }
    }

    /// A whole disk has no size of its own.
    fn of_disk(&self) -> Result<(), String> {
        if self.disk_selector.expression.is_empty() {
            return Err("disk selector is required".to_owned());
        }
        if self.grow.is_some() || !self.min_size.is_null() || !self.max_size.is_null() {
            return Err("min size, max size and grow are not supported".to_owned());
        }
        Ok(())
    }
}

/// The name and the place of one of Talos' own volumes.
pub(super) fn system_volume(document: &Value, version: &str) -> Result<(String, Provisioning), String> {
    let name = document["name"].as_str().unwrap_or_default();
    let known: Vec<&str> =
        SYSTEM.iter().filter(|(_, first)| release(version) >= *first).map(|(name, _)| *name).collect();
    if !known.contains(&name) {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        return Err(format!("only [{}] volumes are supported", known.join(" ")));
    }
    let provisioning = match &document["provisioning"] {
        Value::Null => Provisioning::default(),
        found => serde_json::from_value(found.clone())
            .map_err(|error| format!("unknown keys found during decoding: {error}"))?,
    };
    if name == "STATE" && provisioning != Provisioning::default() {
        return Err("provisioning config is not allowed for the \"STATE\" volume".to_owned());
    }
    provisioning.validate(false, version)?;
    Ok((name.to_owned(), provisioning))
}

/// What is written as a text or as a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: &Value, version: &str) -> Result<VolumeDocument, String> {
        let mut document = json!({"apiVersion": "v1alpha1", "kind": "UserVolumeConfig", "name": "data"});
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        VolumeDocument::read(document, version)
    }

    fn partition(sizes: &Value) -> Value {
        let mut provisioning = json!({"diskSelector": {"match": "true"}});
        for (key, value) in sizes.as_object().unwrap() {
            provisioning[key] = value.clone();
        }
        json!({"provisioning": provisioning})
    }

    #[test]
    fn sizes_are_taken_from_the_release_on_that_has_them() {
        for (sizes, first, least, most) in [
            (json!({"minSize": "1GiB"}), 10, 1 << 30, 100 << 30),
            (json!({"maxSize": "10GiB"}), 10, LEAST, 10 << 30),
            (json!({"minSize": 1073741824}), 10, 1 << 30, 100 << 30),
            (json!({"maxSize": "50%"}), 12, LEAST, 50 << 30),
            (json!({"minSize": "1GiB", "maxSize": "-10GiB"}), 13, 1 << 30, 90 << 30),
        ] {
            for minor in 10..=14 {
                let volume = read(&partition(&sizes), &format!("v1.{minor}.0"));
                assert_eq!(volume.is_ok(), minor >= first, "{sizes} 1.{minor}: {volume:?}");
                if let Ok(volume) = volume {
                    assert_eq!(volume.sizes(100 << 30), (least, most), "{sizes}");
                }
            }
        }
        for (sizes, word) in [
            (json!({}), "min size or max size is required"),
            (json!({"minSize": "2GiB", "maxSize": "1GiB"}), "min size is greater"),
            (json!({"minSize": "-2GiB"}), "cannot be negative"),
            (json!({"maxSize": "ten"}), "ParseFloat"),
        ] {
            assert!(read(&partition(&sizes), "v1.14.1").unwrap_err().contains(word), "{sizes}");
        }
    }

    #[test]
    fn names_and_types_are_those_that_talos_takes() {
        let named = |name: &str| read(&json!({"name": name, "volumeType": "directory"}), "v1.13.9");
        for name in ["Longhorn", "a", "A-1", &"x".repeat(34)] {
            assert_eq!(named(name).unwrap().of(), VolumeType::Directory, "{name}");
        }
        for (name, word) in
            [("", "between 1 and 34"), ("a_b", "hyphens"), (&"x".repeat(35), "between 1 and 34")]
        {
            assert!(named(name).unwrap_err().contains(word), "{name}");
        }
        let selector = json!({"diskSelector": {"match": "true"}});
        for (more, word) in [
            (json!({"volumeType": "directory", "provisioning": selector}), "provisioning spec is invalid"),
            (json!({"volumeType": "directory", "filesystem": {"type": "xfs"}}), "filesystem spec is invalid"),
            (
                json!({"volumeType": "disk", "provisioning": {"diskSelector": {"match": "true"}, "minSize": "1GiB"}}),
                "not supported",
            ),
            (json!({"volumeType": "disk"}), "disk selector is required"),
            (json!({"volumeType": "cloud"}), "cloud"),
            (json!({}), "disk selector is required"),
        ] {
            assert!(read(&more, "v1.13.9").unwrap_err().contains(word), "{more}");
        }
        let disk = json!({"volumeType": "disk", "provisioning": selector, "trim": {"enabled": true}});
        assert!(read(&disk, "v1.13.9").unwrap_err().contains("trim"));
        read(&disk, "v1.14.1").unwrap();
    }

    #[test]
    fn each_kind_of_document_has_keys_of_its_own() {
        let document = |kind: &str, more: &Value| {
            let mut document = json!({"apiVersion": "v1alpha1", "kind": kind, "name": "data"});
            for (key, value) in more.as_object().unwrap() {
                document[key] = value.clone();
            }
            VolumeDocument::read(document, "v1.14.1")
        };
        let provisioning = json!({"diskSelector": {"match": "true"}, "minSize": "1GiB", "maxSize": "-10GiB"});
        let found = json!({"volumeSelector": {"match": "volume.name == 'xfs'"}});
        let raw = document("RawVolumeConfig", &json!({"provisioning": provisioning})).unwrap();
        assert_eq!(
            (raw.id().as_str(), raw.sizes(100 << 30)),
            ("r-data", (1 << 30, 10 << 30)),
            "not all but 10 GiB"
        );
        let old = json!({"discovery": found, "mount": {"readOnly": true}, "trim": {"interval": "24h"}});
        assert_eq!(document("ExistingVolumeConfig", &old).unwrap().id(), "e-data");
        for (kind, more, word) in [
            ("RawVolumeConfig", json!({"provisioning": provisioning, "mount": {}}), "mount"),
            (
                "ExistingVolumeConfig",
                json!({"discovery": found, "provisioning": provisioning}),
                "provisioning",
            ),
            ("ExistingVolumeConfig", json!({}), "volume selector is required"),
            ("UserVolumeConfig", json!({"volumeType": "directory", "mount": {"readOnly": true}}), "readOnly"),
            ("UserVolumeConfig", json!({"volumeType": "directory", "discovery": found}), "discovery"),
        ] {
            assert!(document(kind, &more).unwrap_err().contains(word), "{kind}: {more}");
        }
    }

    #[test]
    fn a_directory_has_flags_of_its_own_from_1_14_on() {
        let directory =
            |mount: Value, version| read(&json!({"volumeType": "directory", "mount": mount}), version);
        assert!(
            directory(json!({"secure": false}), "v1.13.9").unwrap_err().contains("mount spec is invalid")
        );
        directory(json!({"secure": false}), "v1.14.1").unwrap();
        let refused = directory(json!({"disableAccessTime": true}), "v1.14.1").unwrap_err();
        assert!(refused.contains("mount.disableAccessTime is invalid"), "{refused}");
    }

    #[test]
    fn talos_own_volumes_are_those_of_the_release() {
        let read = |name: &str, provisioning: Value, version: &str| {
            system_volume(&json!({"name": name, "provisioning": provisioning}), version)
        };
        assert_eq!(
            read("EPHEMERAL", json!({"maxSize": "10GiB"}), "v1.11.5").unwrap().1.most(1 << 40),
            10 << 30
        );
        assert!(
            read("ETCD", Value::Null, "v1.13.9")
                .unwrap_err()
                .contains("only [\"STATE\" \"EPHEMERAL\" \"IMAGECACHE\"]")
        );
        read("ETCD", json!({"maxSize": "10GiB"}), "v1.14.1").unwrap();
        assert!(read("STATE", json!({"maxSize": "10GiB"}), "v1.14.1").unwrap_err().contains("not allowed"));
    }
}
