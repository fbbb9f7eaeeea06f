//! Documents of volumes: what Talos takes in them, release by release, and what they ask for (siderolabs/talos,
//! pkg/machinery/config/types/block).

use serde::Deserialize;
use serde_json::Value;

use super::config::release;
use crate::intent::{MaxSize, Size};

/// A `UserVolumeConfig` (Talos 1.10 and later).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UserVolume {
    #[serde(rename = "apiVersion")]
    _version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub volume_type: Option<String>,
    #[serde(default)]
    pub provisioning: Provisioning,
    #[serde(default)]
    pub filesystem: FileSystem,
    #[serde(default)]
    pub mount: Option<Value>,
    #[serde(default)]
    pub encryption: Option<Value>,
    #[serde(default, rename = "trim")]
    _trim: Option<Value>,
    #[serde(default, rename = "scrub")]
    _scrub: Option<Value>,
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
/// Keys of a user volume, and the first release that has them.
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

impl UserVolume {
    /// Reads one as the Talos of this version does.
    pub(super) fn read(document: Value, version: &str) -> Result<Self, String> {
        for (path, first) in NEW_KEYS {
            if release(version) < first
                && let Some(value) = document.pointer(path)
            {
                let key = path.trim_start_matches('/').replace('/', ":\n    ");
                return Err(format!("unknown keys found during decoding:\n{key}: {value}\n"));
            }
        }
        let volume: Self = serde_json::from_value(document)
            .map_err(|error| format!("unknown keys found during decoding: {error}"))?;
        volume.named()?;
        let set = |wrong: bool, what: &str| match wrong {
            true => Err(format!("{what} is invalid for volumeType directory")),
            false => Ok(()),
        };
        match volume.volume_type.as_deref().unwrap_or("partition") {
            "directory" => {
                set(volume.provisioning != Provisioning::default(), "provisioning spec")?;
                set(volume.encryption.is_some(), "encryption spec")?;
                set(volume.filesystem != FileSystem::default(), "filesystem spec")?;
            }
            "disk" => volume.provisioning.of_disk()?,
            "partition" => volume.provisioning.validate(true, version)?,
            other => return Err(format!("unsupported volume type {other:?}")),
        }
        Ok(volume)
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

    pub fn is_disk(&self) -> bool {
        self.volume_type.as_deref() == Some("disk")
    }

    pub fn is_directory(&self) -> bool {
        self.volume_type.as_deref() == Some("directory")
    }

    /// Least and most bytes that the volume takes of so many that are free.
    pub fn sizes(&self, free: u64) -> (u64, u64) {
        let Provisioning { min_size, .. } = &self.provisioning;
        let least = text(min_size).and_then(|text| Size::parse(&text).ok()).map_or(LEAST, |size| size.0);
        (least, self.provisioning.most(free))
    }

    pub fn kind(&self) -> &str {
        self.filesystem.kind.as_deref().unwrap_or("xfs")
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

    fn read(more: &Value, version: &str) -> Result<UserVolume, String> {
        let mut document = json!({"apiVersion": "v1alpha1", "kind": "UserVolumeConfig", "name": "data"});
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        UserVolume::read(document, version)
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
            assert!(named(name).unwrap().is_directory(), "{name}");
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
