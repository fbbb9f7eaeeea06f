//! A machine's configuration: which documents Talos takes, and what they ask for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::intent::Size;

/// What a configuration asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The document that has no kind.
    pub main: Value,
    pub volumes: Vec<UserVolume>,
    /// `machine.nodeLabels`.
    pub labels: BTreeMap<String, String>,
    /// Of the main document or of a `HostnameConfig`.
    pub hostname: Option<String>,
}

/// A `UserVolumeConfig` (Talos 1.10 and later).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UserVolume {
    #[serde(rename = "apiVersion")]
    _version: String,
    #[serde(rename = "kind")]
    _kind: String,
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
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provisioning {
    #[serde(default)]
    pub disk_selector: Selector,
    #[serde(default)]
    pub min_size: Option<String>,
    #[serde(default)]
    pub max_size: Option<String>,
    #[serde(default)]
    pub grow: bool,
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
}

/// Kinds of documents that are taken and not looked into.
const OTHER_KINDS: [&str; 11] = [
    "ExistingVolumeConfig",
    "ExtensionServiceConfig",
    "KmsgLogConfig",
    "LinkConfig",
    "RawVolumeConfig",
    "SideroLinkConfig",
    "SwapVolumeConfig",
    "TrustedRootsConfig",
    "VolumeConfig",
    "WatchdogTimerConfig",
    "ZswapConfig",
];
const NO_MAIN: &str = "the applied machine configuration doesn't contain v1alpha1 config, did you mean to patch the \
                       machine config instead?";
const MAIN_KEYS: [&str; 5] = ["version", "debug", "persist", "machine", "cluster"];
/// What of `machine` changes without a reboot before 1.14 (siderolabs/talos, runtime.CanApplyImmediate).
const IMMEDIATE: [&str; 18] = [
    "acceptedCAs",
    "ca",
    "certSANs",
    "controlPlane",
    "features",
    "install",
    "kernel",
    "kubelet",
    "logging",
    "network",
    "nodeAnnotations",
    "nodeLabels",
    "nodeTaints",
    "pods",
    "registries",
    "seccompProfiles",
    "sysctls",
    "time",
];

impl Config {
    /// What is mounted into the kubelet besides what Talos does: destination and source.
    pub fn extra_mounts(&self) -> BTreeMap<String, String> {
        let mounts = self.main["machine"]["kubelet"]["extraMounts"].as_array().into_iter().flatten();
        let path = |mount: &Value, key: &str| Some(mount[key].as_str()?.trim_end_matches('/').to_owned());
        mounts.filter_map(|mount| Some((path(mount, "destination")?, path(mount, "source")?))).collect()
    }
}

/// Major and minor of a version such as `v1.11.5`.
pub fn release(tag: &str) -> (u64, u64) {
    let mut numbers = tag.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// Reads a configuration as the Talos of this version does; the error is its refusal.
pub fn parse(text: &str, version: &str) -> Result<Config, String> {
    let mut config = Config::default();
    let documents: Vec<Value> =
        serde_yaml::from_multiple(text).map_err(|error| format!("error decoding document: {error}"))?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document["kind"].as_str() {
            None => config.main = main(document)?,
            Some("UserVolumeConfig") if release(version) >= (1, 10) => {
                let volume = volume(document, version)?;
                if config.volumes.iter().any(|other| other.name == volume.name) {
                    return Err(format!("duplicate v1alpha1 UserVolumeConfig document: {}", volume.name));
                }
                config.volumes.push(volume);
            }
            Some("HostnameConfig") => config.hostname = document["hostname"].as_str().map(str::to_owned),
            Some(kind) if OTHER_KINDS.contains(&kind) => {}
            Some(kind) => return Err(format!("error decoding document /v1alpha1/{kind}/: not registered")),
        }
    }
    if config.main.is_null() {
        return Err(NO_MAIN.to_owned());
    }
    if let Some(hostname) = config.main["machine"]["network"]["hostname"].as_str() {
        config.hostname = Some(hostname.to_owned());
    }
    for (key, value) in config.main["machine"]["nodeLabels"].as_object().into_iter().flatten() {
        config.labels.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
    }
    Ok(config)
}

/// The two configs side by side around a field, as Talos shows them (google/go-cmp): with what stands beside it, the
/// machine's token too.
pub fn difference(old: &Value, new: &Value, field: &str) -> String {
    let beside = ["type", "token"].map(|key| format!("  \t\tMachine{key}: {},\n", old["machine"][key]));
    let side =
        |mark: char, config: &Value| format!("{mark} \t\tMachine{field}: {},\n", config["machine"][field]);
    format!(
        "  &v1alpha1.Config{{\n  \tMachineConfig: &v1alpha1.MachineConfig{{\n{}{}{}  \t}},\n  }}\n",
        beside.concat(),
        side('-', old),
        side('+', new)
    )
}

fn main(document: Value) -> Result<Value, String> {
    let Some(map) = document.as_object() else { return Err("the document is not a mapping".to_owned()) };
    if let Some(unknown) = map.keys().find(|key| !MAIN_KEYS.contains(&key.as_str())) {
        return Err(format!("unknown keys found during decoding:\n{unknown}: {}\n", map[unknown]));
    }
    if document["version"] != "v1alpha1" {
        return Err("missing version: v1alpha1".to_owned());
    }
    for part in ["machine", "cluster"] {
        if !document[part].is_object() {
            return Err(format!("{part} instructions are required"));
        }
    }
    Ok(document)
}

fn volume(document: Value, version: &str) -> Result<UserVolume, String> {
    let wrong = |what: &str| format!("error validating UserVolumeConfig: {what}");
    let volume: UserVolume = serde_json::from_value(document)
        .map_err(|error| format!("unknown keys found during decoding: {error}"))?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if volume.name.is_empty() || volume.name.len() > 34 || !volume.name.chars().all(plain) {
        return Err(wrong(
            "name must be between 1 and 34 characters long, lowercase letters, digits and dashes",
        ));
    }
    if volume.provisioning.disk_selector.expression.is_empty() {
        return Err(wrong("disk selector is required"));
    }
    let size = |text: &Option<String>| -> Result<Option<Size>, String> {
        text.as_deref().map(Size::parse).transpose().map_err(|error| wrong(&error.to_string()))
    };
    let (least, most) = (size(&volume.provisioning.min_size)?, size(&volume.provisioning.max_size)?);
    if least.is_none() && most.is_none() {
        return Err(wrong("min size or max size is required"));
    }
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        return Err(wrong("min size is greater than max size"));
    }
    if volume.filesystem.project_quota_support && release(version) < (1, 11) {
        return Err(
            "unknown keys found during decoding:\nfilesystem:\n    projectQuotaSupport: true\n".to_owned()
        );
    }
    if volume.volume_type.is_some() && release(version) < (1, 12) {
        return Err("unknown keys found during decoding:\nvolumeType\n".to_owned());
    }
    Ok(volume)
}

impl UserVolume {
    /// Least and most bytes that the volume takes.
    pub fn sizes(&self) -> (u64, u64) {
        let size = |text: &Option<String>| {
            text.as_deref().and_then(|text| Size::parse(text).ok()).map(|size| size.0)
        };
        let least = size(&self.provisioning.min_size).unwrap_or(100 << 20);
        let most = size(&self.provisioning.max_size).unwrap_or(u64::MAX);
        (least, if self.provisioning.grow || self.provisioning.max_size.is_some() { most } else { least })
    }

    pub fn kind(&self) -> &str {
        self.filesystem.kind.as_deref().unwrap_or("xfs")
    }
}

/// What of a change waits for a reboot: the first such field, before 1.14.
pub fn needs_reboot(old: &Config, new: &Config, version: &str) -> Option<String> {
    if release(version) >= (1, 14) {
        return None;
    }
    let (Some(before), Some(after)) = (old.main["machine"].as_object(), new.main["machine"].as_object())
    else {
        return None;
    };
    let mut keys = before.keys().chain(after.keys());
    keys.find(|key| !IMMEDIATE.contains(&key.as_str()) && before.get(*key) != after.get(*key)).cloned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIN: &str = "version: v1alpha1\nmachine: {type: worker, nodeLabels: {a: b}}\ncluster: {}\n";
    const VOLUME: &str = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\nprovisioning:\n  \
        diskSelector: {match: disk.serial == \"A\"}\n  minSize: 2GiB\n  grow: true\n";

    #[test]
    fn what_a_configuration_asks_for_is_read() {
        let config = parse(&[MAIN, VOLUME].concat(), "v1.11.5").unwrap();
        assert_eq!(config.labels["a"], "b");
        let volume = &config.volumes[0];
        assert_eq!(
            (volume.name.as_str(), volume.sizes(), volume.kind()),
            ("openebs", (2 << 30, u64::MAX), "xfs")
        );
    }

    #[test]
    fn what_that_talos_does_not_know_is_refused() {
        let with = |more: &str| [MAIN, VOLUME, more].concat();
        for (text, version, word) in [
            (with("  other: 1\n"), "v1.11.5", "unknown"),
            (with("filesystem: {projectQuotaSupport: true}\n"), "v1.10.3", "projectQuotaSupport"),
            (with("volumeType: directory\n"), "v1.11.5", "volumeType"),
            (with("---\nkind: Nothing\n"), "v1.11.5", "not registered"),
            (with(VOLUME), "v1.11.5", "duplicate"),
            (with(""), "v1.9.6", "not registered"),
            (VOLUME.to_owned(), "v1.11.5", "contain v1alpha1 config"),
            (MAIN.replace("machine", "mashine"), "v1.11.5", "unknown keys"),
            ("a: [".to_owned(), "v1.11.5", "decoding"),
        ] {
            let refusal = parse(&text, version).unwrap_err();
            assert!(refusal.contains(word), "{refusal}");
        }
        assert!(parse(&with("filesystem: {projectQuotaSupport: true}\n"), "v1.11.5").is_ok());
    }

    #[test]
    fn only_some_changes_wait_for_a_reboot() {
        let config = |text: &str| parse(text, "v1.11.5").unwrap();
        let (old, labels) = (config(MAIN), config(&MAIN.replace("a: b", "a: c")));
        let files = config(&MAIN.replace("type: worker", "type: worker, files: []"));
        assert_eq!(needs_reboot(&old, &labels, "v1.11.5"), None);
        assert_eq!(needs_reboot(&old, &files, "v1.11.5").as_deref(), Some("files"));
        assert_eq!(needs_reboot(&old, &files, "v1.14.0"), None);
        assert_eq!(needs_reboot(&old, &config(&[MAIN, VOLUME].concat()), "v1.11.5"), None);
    }

    proptest! {
        #[test]
        fn no_configuration_makes_it_panic(text in "[-a-zA-Z:{}\\[\\] \n]{0,80}") {
            let _ = (parse(&text, "v1.11.5"), parse(&[MAIN, &text].concat(), "v1.14.0"));
        }
    }
}
