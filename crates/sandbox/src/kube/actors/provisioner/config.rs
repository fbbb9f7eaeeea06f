//! What OpenEBS's hostpath provisioner is asked for: the settings of a class, and what it refuses.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::{objects::list, text};

const ANNOTATION: &str = "cas.openebs.io/config";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Where a class's volumes go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    kind: String,
    base: String,
    /// The labels of a node that its volumes are bound by.
    keys: Vec<String>,
    /// Each volume is limited to its size.
    pub(super) quota: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct Item {
    name: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    enabled: String,
    #[serde(default)]
    list: Vec<String>,
}

impl Config {
    /// The settings of a class, and below them those of a claim, which does not choose the base path.
    pub(super) fn read(class: &Value, claim: &Value, base: &str) -> Result<Self, String> {
        let mut found: BTreeMap<String, Item> = BTreeMap::new();
        for (what, object) in [("PersistentVolumeClaim", claim), ("StorageClass", class)] {
            let items = items(object)
                .map_err(|why| format!("failed to read the annotation {ANNOTATION} of the {what}: {why}"))?;
            let trusted = what == "StorageClass";
            let items = items.into_iter().filter(|item| trusted || item.name.trim() != "BasePath");
            found.extend(items.map(|item| (item.name.trim().to_owned(), item)));
        }
        let value = |name: &str| found.get(name).map(|item| item.value.trim().to_owned());
        let keys = match (found.get("NodeAffinityLabels"), value("NodeAffinityLabel")) {
            (Some(item), _) if !item.list.is_empty() => item.list.clone(),
            (_, Some(key)) if !key.is_empty() => vec![key],
            _ => vec![HOSTNAME.to_owned()],
        };
        Ok(Self {
            kind: value("StorageType").unwrap_or_else(|| "hostpath".to_owned()),
            base: value("BasePath").unwrap_or_else(|| base.to_owned()),
            keys,
            quota: ["XFSQuota", "EXT4Quota"].iter().any(|name| {
                found.get(*name).is_some_and(|item| item.enabled.trim().eq_ignore_ascii_case("true"))
            }),
        })
    }

    /// The directory that holds the volumes' directories.
    pub(super) fn base(&self) -> Result<String, String> {
        if !self.base.starts_with('/') {
            return Err(format!("base path {:?} is not absolute", self.base));
        }
        let parts: Vec<&str> = self.base.split('/').filter(|part| !part.is_empty()).collect();
        let base = format!("/{}", parts.join("/"));
        if parts.len() < 2 {
            return Err(format!("volume directory {{{base}}} should not be under root directory"));
        }
        Ok(base)
    }

    /// The labels by which a volume is bound to the node.
    pub(super) fn labels(&self, node: &Value) -> Result<BTreeMap<String, String>, String> {
        let label = |key: &String| {
            let value = node["metadata"]["labels"][key.as_str()].as_str().map(str::to_owned);
            let name = text(node, "/metadata/name");
            value
                .map(|value| (key.clone(), value))
                .ok_or_else(|| format!("configuration error, node{{{name}}} has no label {key}"))
        };
        self.keys.iter().map(label).collect()
    }

    /// What a volume of this kind can't be.
    pub(super) fn refuse(&self, claim: &Value) -> Result<(), String> {
        let kind = &self.kind;
        if claim["spec"]["volumeMode"] == "Block" {
            return Err(format!("PV with BlockMode is not supported with StorageType {kind}"));
        }
        if kind != "hostpath" {
            return Err(format!("PV with StorageType {kind} is not supported"));
        }
        Ok(())
    }
}

/// What no volume of this provisioner can be.
pub(super) fn refuse(claim: &Value) -> Result<(), String> {
    let spec = &claim["spec"];
    match text(spec, "/dataSource/kind") {
        "" => {}
        "VolumeSnapshot" => return Err("snapshot feature not supported by this provisioner".into()),
        "PersistentVolumeClaim" => return Err("clone feature not supported by this provisioner".into()),
        other => return Err(format!("{other} is not supported as a data source by this provisioner")),
    }
    if !spec["selector"].is_null() {
        return Err("claim.Spec.Selector is not supported".into());
    }
    if list(spec, "/accessModes").iter().any(|mode| mode != "ReadWriteOnce") {
        return Err("Only support ReadWriteOnce access mode".into());
    }
    Ok(())
}

/// The node that a claim's volume is made on.
pub(super) fn check_node(node: Option<&Value>) -> Result<&Value, String> {
    let node = node.ok_or("configuration error, no node was specified")?;
    if node["metadata"]["labels"][HOSTNAME].as_str().is_none_or(str::is_empty) {
        let name = text(node, "/metadata/name");
        return Err(format!("configuration error, node{{{name}}} hostname is empty"));
    }
    Ok(node)
}

fn items(object: &Value) -> Result<Vec<Item>, String> {
    match object["metadata"]["annotations"][ANNOTATION].as_str() {
        Some(text) if !text.trim().is_empty() => {
            serde_yaml::from_str(text).map_err(|error| error.to_string())
        }
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn annotated(text: &str) -> Value {
        json!({"metadata": {"annotations": {ANNOTATION: text}}})
    }

    #[test]
    fn a_class_says_where_its_volumes_go_and_a_claim_does_not() {
        let class = annotated("- name: StorageType\n  value: hostpath\n- name: BasePath\n  value: /a/b/\n");
        let claim =
            annotated("- name: BasePath\n  value: /etc/x\n- name: NodeAffinityLabel\n  value: zone\n");
        let none = json!({});
        let read = |class: &Value, claim: &Value| Config::read(class, claim, "/var/openebs/local").unwrap();
        assert_eq!(read(&class, &claim).base().unwrap(), "/a/b");
        assert_eq!(read(&class, &claim).keys, ["zone"]);
        assert_eq!(read(&none, &claim).base().unwrap(), "/var/openebs/local");
        assert_eq!(read(&none, &none).keys, [HOSTNAME]);
        let list = annotated("- name: NodeAffinityLabels\n  list: [a, b]\n");
        let node = json!({"metadata": {"name": "n1", "labels": {"a": "1"}}});
        let why = read(&list, &none).labels(&node).unwrap_err();
        assert_eq!(why, "configuration error, node{n1} has no label b");
        assert!(Config::read(&annotated("{"), &none, "/a/b").is_err());
        let quota = annotated("- name: XFSQuota\n  enabled: \"true\"\n  data: {hardLimitGrace: \"0%\"}\n");
        assert!(read(&quota, &none).quota && !read(&class, &none).quota);
    }

    #[test]
    fn a_base_path_is_absolute_and_deeper_than_the_root() {
        for (base, why) in [
            ("/openebs", "volume directory {/openebs} should not be under root directory"),
            ("//openebs/", "volume directory {/openebs} should not be under root directory"),
            ("/", "volume directory {/} should not be under root directory"),
            ("var/openebs", "base path \"var/openebs\" is not absolute"),
        ] {
            let config = Config::read(&json!({}), &json!({}), base).unwrap();
            assert_eq!(config.base().unwrap_err(), why);
        }
    }

    #[test]
    fn what_a_local_volume_cannot_be_is_refused_in_the_provisioners_words() {
        let judge = |spec: Value| {
            let claim = json!({"spec": spec});
            refuse(&claim).and_then(|()| Config::read(&json!({}), &claim, "/a/b")?.refuse(&claim))
        };
        assert_eq!(judge(json!({"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"})), Ok(()));
        for (spec, why) in [
            (
                json!({"dataSource": {"kind": "VolumeSnapshot"}}),
                "snapshot feature not supported by this provisioner",
            ),
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim"}}),
                "clone feature not supported by this provisioner",
            ),
            (json!({"selector": {}}), "claim.Spec.Selector is not supported"),
            (json!({"accessModes": ["ReadWriteMany"]}), "Only support ReadWriteOnce access mode"),
            (json!({"accessModes": ["ReadWriteOncePod"]}), "Only support ReadWriteOnce access mode"),
            (json!({"volumeMode": "Block"}), "PV with BlockMode is not supported with StorageType hostpath"),
        ] {
            assert_eq!(judge(spec), Err(why.to_owned()));
        }
        let device = annotated("- name: StorageType\n  value: device\n");
        let config = Config::read(&device, &json!({}), "/a/b").unwrap();
        assert_eq!(config.refuse(&json!({})), Err("PV with StorageType device is not supported".into()));
    }

    #[test]
    fn a_volume_needs_a_node_with_a_hostname() {
        assert_eq!(check_node(None), Err("configuration error, no node was specified".into()));
        let node = json!({"metadata": {"name": "n1", "labels": {}}});
        assert_eq!(check_node(Some(&node)), Err("configuration error, node{n1} hostname is empty".into()));
    }
}
