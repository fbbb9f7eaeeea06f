//! A machine's configuration: which documents Talos takes, and what they ask for.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::documents::{Provisioning, VolumeDocument, is_volume, system_volume};

/// What a configuration asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The document that has no kind.
    pub main: Value,
    pub volumes: Vec<VolumeDocument>,
    /// Of a `KubeNodeConfig`, else `machine.nodeLabels`.
    pub labels: BTreeMap<String, String>,
    /// Of the main document or of a `HostnameConfig`.
    pub hostname: Option<String>,
    /// What a `VolumeConfig` says of Talos' own data partition.
    pub ephemeral: Provisioning,
    /// The `UnattendedInstallConfig`; null without one.
    pub unattended: Value,
    /// The `FilesystemTrimConfig` and the `FilesystemScrubConfig`; null without one.
    pub trim: Value,
    pub scrub: Value,
}

const NO_MAIN: &str = "the applied machine configuration doesn't contain v1alpha1 config, did you mean to patch the \
                       machine config instead?";
const MAIN_KEYS: [&str; 5] = ["version", "debug", "persist", "machine", "cluster"];
/// What of `machine` changes without a reboot before 1.14 (siderolabs/talos, runtime.CanApplyImmediate).
const IMMEDIATE: [&str; 19] = [
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
    "sysfs",
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
/// A document, and what of the main one it does not go together with, in Talos' words (siderolabs/talos,
/// V1Alpha1ConflictValidate).
const CONFLICTS: [(&str, &str, &str); 7] = [
    (
        "UnattendedInstallConfig",
        "/machine/install",
        "UnattendedInstallConfig config is incompatible with v1alpha1 config (.machine.install)",
    ),
    ("KubeNodeConfig", "/machine/nodeLabels", ".machine.nodeLabels is already set in v1alpha1 config"),
    (
        "KubeNodeConfig",
        "/machine/nodeAnnotations",
        ".machine.nodeAnnotations is already set in v1alpha1 config",
    ),
    ("KubeNodeConfig", "/machine/nodeTaints", ".machine.nodeTaints is already set in v1alpha1 config"),
    (
        "KubeNodeConfig",
        "/machine/kubelet/nodeIP",
        ".machine.kubelet.nodeIP is already set in v1alpha1 config",
    ),
    (
        "KubeletConfig",
        "/machine/kubelet",
        "kubelet config is already set in v1alpha1 config (.machine.kubelet)",
    ),
    (
        "KubeAPIServerCAConfig",
        "/cluster/ca",
        "kube-apiserver CA is already set in v1alpha1 config (.cluster.ca)",
    ),
];

/// Major and minor of a version such as `v1.11.5`.
pub fn release(tag: &str) -> (u64, u64) {
    let mut numbers = tag.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// Whether the Talos of this version has such a document. Asked of Talos' own code, once per release (e2e/oracle); an older
/// release than those counts as the oldest without user volumes, a newer one as the newest.
fn is_registered(kind: &str, version: &str) -> bool {
    type Kinds = BTreeMap<String, Vec<String>>;
    type Release = ((u64, u64), Vec<String>);
    static KINDS: LazyLock<Vec<Release>> = LazyLock::new(|| {
        let recorded: Kinds =
            serde_json::from_str(include_str!("kinds.json")).expect("kinds.json is a table");
        let mut kinds: Vec<_> = recorded.into_iter().map(|(tag, kinds)| (release(&tag), kinds)).collect();
        kinds.sort();
        kinds
    });
    let release = release(version);
    let upto = KINDS.iter().rfind(|(of, _)| *of <= release);
    let new = upto.is_none() && kind == "UserVolumeConfig";
    !new && upto.or_else(|| KINDS.first()).is_some_and(|(_, kinds)| kinds.iter().any(|known| known == kind))
}

/// Reads a configuration as the Talos of this version does; the error is its refusal.
pub fn parse(text: &str, version: &str) -> Result<Config, String> {
    let mut config = Config::default();
    let documents: Vec<Value> =
        serde_yaml::from_multiple(text).map_err(|error| format!("error decoding document: {error}"))?;
    let mut seen = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let said = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        let (api, kind, name) = (said("apiVersion"), said("kind"), said("name"));
        let id = format!("{api}/{}/{name}", if kind.is_empty() { "v1alpha1" } else { &kind });
        if seen.contains(&id) {
            return Err(format!("duplicate document {id} is not allowed"));
        }
        let wrong = |why: String| format!("error decoding document {id}: {why}");
        if kind.is_empty() {
            config.main = main(document)?;
        } else if api.is_empty() {
            return Err(wrong("missing apiVersion".to_owned()));
        } else if api != "v1alpha1" || !is_registered(&kind, version) {
            return Err(wrong(format!("{kind:?} {api:?}: not registered")));
        } else {
            config.add(&kind, document, version).map_err(|why| {
                if why.starts_with("unknown keys") { wrong(why) } else { format!("{kind}/{name}: {why}") }
            })?;
        }
        seen.push(id);
    }
    if config.main.is_null() {
        return Err(NO_MAIN.to_owned());
    }
    let has = |kind: &str| seen.iter().any(|id| id.starts_with(&format!("v1alpha1/{kind}/")));
    let clash = |(kind, path, _): &&(&str, &str, &str)| {
        has(kind) && config.main.pointer(path).is_some_and(|value| !value.is_null())
    };
    if let Some((.., why)) = CONFLICTS.iter().find(clash) {
        return Err((*why).to_owned());
    }
    if let Some(hostname) = config.main["machine"]["network"]["hostname"].as_str() {
        config.hostname = Some(hostname.to_owned());
    }
    let labels = labels(&config.main["machine"]["nodeLabels"]);
    config.labels.extend(labels);
    Ok(config)
}

/// What a configuration changes, as Talos shows it: with what stands beside it, the machine's token too.
pub fn difference(old: &str, new: &str) -> String {
    similar::TextDiff::from_lines(old, new).unified_diff().header("a", "b").to_string()
}

impl Config {
    /// Takes what a document besides the main one asks for.
    fn add(&mut self, kind: &str, document: Value, version: &str) -> Result<(), String> {
        match kind {
            volume if is_volume(volume) => self.volumes.push(VolumeDocument::read(document, version)?),
            "HostnameConfig" => self.hostname = document["hostname"].as_str().map(str::to_owned),
            "KubeNodeConfig" => self.labels.extend(labels(&document["labels"])),
            "UnattendedInstallConfig" => self.unattended = document,
            "FilesystemTrimConfig" => self.trim = document,
            "FilesystemScrubConfig" => self.scrub = document,
            "VolumeConfig" => {
                let (name, provisioning) = system_volume(&document, version)?;
                if name == "EPHEMERAL" {
                    self.ephemeral = provisioning;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn labels(map: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    map.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
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

/// Whether a change waits for a reboot, as some of the main document do before 1.14. The other documents never do.
pub fn needs_reboot(old: &Config, new: &Config, version: &str) -> bool {
    let (Some(before), Some(after)) = (old.main["machine"].as_object(), new.main["machine"].as_object())
    else {
        return false;
    };
    let mut keys = before.keys().chain(after.keys());
    release(version) < (1, 14)
        && keys.any(|key| !IMMEDIATE.contains(&key.as_str()) && before.get(key) != after.get(key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIN: &str = "version: v1alpha1\nmachine: {type: worker, nodeLabels: {a: b}}\ncluster: {}\n";
    const VOLUME: &str = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\nprovisioning:\n  \
        diskSelector: {match: disk.serial == \"A\"}\n  minSize: 2GiB\n  grow: true\n";

    fn document(kind: &str) -> String {
        format!("---\napiVersion: v1alpha1\nkind: {kind}\n")
    }

    #[test]
    fn what_a_configuration_asks_for_is_read() {
        let config = parse(&[MAIN, VOLUME].concat(), "v1.11.5").unwrap();
        assert_eq!(config.labels["a"], "b");
        let volume = &config.volumes[0];
        assert_eq!(
            (volume.name.as_str(), volume.sizes(5 << 30), volume.format()),
            ("openebs", (2 << 30, 5 << 30), "xfs")
        );
        let bare = MAIN.replace(", nodeLabels: {a: b}", "");
        let node = document("KubeNodeConfig") + "labels: {c: d}\n";
        assert_eq!(parse(&[&bare, node.as_str()].concat(), "v1.14.1").unwrap().labels["c"], "d");
    }

    #[test]
    fn what_that_talos_does_not_know_is_refused() {
        let with = |more: &str| [MAIN, VOLUME, more].concat();
        for (text, version, word) in [
            (with("  other: 1\n"), "v1.11.5", "unknown"),
            (with("filesystem: {projectQuotaSupport: true}\n"), "v1.10.3", "projectQuotaSupport"),
            (with("volumeType: directory\n"), "v1.11.5", "volumeType"),
            (with("---\nkind: Nothing\n"), "v1.11.5", "missing apiVersion"),
            (with(&document("Nothing")), "v1.11.5", "\"Nothing\" \"v1alpha1\": not registered"),
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
    fn a_document_is_taken_from_the_release_on_that_has_it() {
        for (kind, first) in [
            ("KmsgLogConfig", 10),
            ("EthernetConfig", 10),
            ("SwapVolumeConfig", 11),
            ("ResolverConfig", 12),
            ("BondConfig", 12),
            ("Layer2VIPConfig", 12),
            ("OOMConfig", 12),
            ("ImageVerificationConfig", 13),
            ("KubeAPIServerCAConfig", 14),
            ("LVMVolumeGroupConfig", 14),
        ] {
            for minor in 10..=15 {
                let taken = parse(&[MAIN, &document(kind)].concat(), &format!("v1.{minor}.0"));
                assert_eq!(taken.is_ok(), minor >= first, "{kind} 1.{minor}: {taken:?}");
            }
        }
    }

    #[test]
    fn what_is_said_twice_in_two_ways_is_refused_as_talos_does() {
        let bare = "version: v1alpha1\nmachine: {type: worker}\ncluster: {}\n";
        for (main, kind, word) in [
            (
                bare.replace("worker", "worker, install: {disk: /dev/sda}"),
                "UnattendedInstallConfig",
                "incompatible",
            ),
            (
                bare.replace("worker", "worker, nodeLabels: {a: b}"),
                "KubeNodeConfig",
                ".machine.nodeLabels is already",
            ),
            (bare.replace("worker", "worker, kubelet: {}"), "KubeletConfig", "(.machine.kubelet)"),
            (
                bare.replace("cluster: {}", "cluster: {ca: {crt: a}}"),
                "KubeAPIServerCAConfig",
                "(.cluster.ca)",
            ),
        ] {
            let refusal = parse(&[&main, document(kind).as_str()].concat(), "v1.14.1").unwrap_err();
            assert!(refusal.contains(word), "{refusal}");
            parse(&[bare, &document(kind)].concat(), "v1.14.1").unwrap();
        }
    }

    #[test]
    fn what_talos_generates_is_taken_by_the_release_that_it_is_for() {
        let generated = [
            include_str!("../../../../tests/golden/generated/1.14/controlplane.yaml"),
            include_str!("../../../../tests/golden/generated/1.14/worker.yaml"),
        ];
        for text in generated {
            assert!(!parse(text, "v1.14.1").unwrap().unattended.is_null());
            assert!(parse(text, "v1.13.9").unwrap_err().contains("not registered"));
        }
        assert!(
            parse(generated[0], "v1.14.1")
                .unwrap()
                .labels
                .contains_key("node-role.kubernetes.io/control-plane")
        );
    }

    #[test]
    fn only_some_changes_wait_for_a_reboot() {
        let config = |text: &str| parse(text, "v1.11.5").unwrap();
        let (old, labels) = (config(MAIN), config(&MAIN.replace("a: b", "a: c")));
        let files = config(&MAIN.replace("type: worker", "type: worker, files: []"));
        assert!(!needs_reboot(&old, &labels, "v1.11.5"));
        assert!(needs_reboot(&old, &files, "v1.11.5"));
        assert!(!needs_reboot(&old, &files, "v1.14.0"));
        assert!(!needs_reboot(&old, &config(&[MAIN, VOLUME].concat()), "v1.11.5"));
    }

    proptest! {
        #[test]
        fn no_configuration_makes_it_panic(text in "[-a-zA-Z:{}\\[\\] \n]{0,80}") {
            let _ = (parse(&text, "v1.11.5"), parse(&[MAIN, &text].concat(), "v1.14.0"));
        }
    }
}
