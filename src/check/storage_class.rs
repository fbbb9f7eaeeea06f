//! The storage class is there and says what the file says.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use serde::Deserialize;

use super::{Check, Per, Run, Stop, Subject, broken, nodes};
use crate::event::Verdict;
use crate::intent::{Backend, BindingMode, Csi, Provisioner};

pub(super) const CHECK: Check = Check {
    id: "storage-class",
    title: "the storage class is as the file says",
    per: Per::Class,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// Where OpenEBS reads its settings from; `parameters` mean nothing to it.
const CONFIG: &str = "cas.openebs.io/config";

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let class = subject.class()?;
    let found = Api::<StorageClass>::all(run.ctx.cluster.client()).get_opt(&class.name).await;
    let found = found.map_err(broken(format!("can't read storage class {}", class.name)))?;
    let Some(found) = found else {
        let why = format!("storage class {} does not exist", class.name);
        return Ok(Verdict::fail(why, "make it with `nodeprep apply`"));
    };
    match class.backend() {
        Backend::HostPath { base_path } => {
            let provisioner = run.ctx.intent.provisioner_of(class).map(Provisioner::name);
            settings(&found, &class.name, base_path, provisioner)
        }
        Backend::Csi(csi) => {
            if let Some(differs) = csi_differs(&found, csi) {
                let name = &class.name;
                return Ok(Verdict::fail(format!("class {name}: {differs}"), again(name)));
            }
            driven(run, csi).await
        }
    }
}

/// What helps where a class can't be changed in place.
fn again(name: &str) -> String {
    format!("`kubectl delete storageclass {name}` (volumes stay), then make it again (`nodeprep apply`)")
}

/// What of a class is not as the file says of its CSI driver.
fn csi_differs(found: &StorageClass, csi: &Csi) -> Option<String> {
    let none = BTreeMap::new();
    let parameters = found.parameters.as_ref().unwrap_or(&none);
    let mode = found.volume_binding_mode.as_deref().unwrap_or(BindingMode::Immediate.name());
    let options = found.mount_options.as_deref().unwrap_or_default();
    if found.provisioner != csi.driver {
        return Some(format!("it is served by {}, not by {}", found.provisioner, csi.driver));
    }
    if mode != csi.binding_mode.name() {
        return Some(format!("its volumeBindingMode is {mode}, not {}", csi.binding_mode.name()));
    }
    let keys: BTreeSet<&String> = parameters.keys().chain(csi.parameters.keys()).collect();
    let other = keys.into_iter().find(|key| parameters.get(*key) != csi.parameters.get(*key));
    if let Some(key) = other {
        let said = |value: Option<&String>| value.map_or_else(|| "not set".to_owned(), Clone::clone);
        let (is, wanted) = (said(parameters.get(key)), said(csi.parameters.get(key)));
        return Some(format!("its parameter {key} is {is}; the file says {wanted}"));
    }
    if options != csi.mount_options.as_slice() {
        return Some(format!("its mountOptions are {options:?}, not {:?}", csi.mount_options));
    }
    let expands = found.allow_volume_expansion == Some(true);
    (expands != csi.expansion)
        .then(|| format!("its allowVolumeExpansion is {expands}, not {}", csi.expansion))
}

/// Whether any node has the driver: the kubelet registers it there (its CSINode).
async fn driven(run: &Run<'_>, csi: &Csi) -> Result<Verdict, Stop> {
    let nodes = nodes::drivers(&run.ctx.cluster).await?;
    let drivers = nodes.iter().flat_map(|node| &node.spec.drivers);
    let count = drivers.filter(|driver| driver.name == csi.driver).count();
    if count == 0 {
        return Ok(Verdict::fail(
            format!("no node has the CSI driver {}", csi.driver),
            "install the driver, as its documentation says: nodeprep makes its class alone",
        ));
    }
    let mode = csi.binding_mode.name();
    Ok(Verdict::pass(format!("served by {} on {count} of {} nodes, {mode}", csi.driver, nodes.len())))
}

fn settings(
    found: &StorageClass,
    name: &str,
    base_path: &str,
    provisioner: Option<&str>,
) -> Result<Verdict, Stop> {
    let again = again(name);
    if let Some(wanted) = provisioner.filter(|wanted| *wanted != found.provisioner) {
        let why = format!("class {name} is served by {}, not by {wanted}", found.provisioner);
        return Ok(Verdict::fail(why, format!("the provisioner of a class can't be changed: {again}")));
    }
    let mode = found.volume_binding_mode.as_deref().unwrap_or("Immediate");
    if mode != "WaitForFirstConsumer" {
        let why = format!(
            "class {name} has volumeBindingMode {mode}: volumes are made before a pod has chosen a node"
        );
        let hint = format!(
            "the mode can't be changed in place: {again} with `volumeBindingMode: WaitForFirstConsumer`"
        );
        return Ok(Verdict::fail(why, hint));
    }
    let openebs = found.provisioner == "openebs.io/local";
    if openebs {
        openebs_config(found, name, base_path)?;
    }
    if found.allow_volume_expansion == Some(true) {
        let why = format!(
            "class {name} allows expansion, but a directory can't be resized: claims would wait for ever"
        );
        return Ok(Verdict::warn(
            why,
            format!("kubectl patch storageclass {name} -p '{{\"allowVolumeExpansion\":false}}'"),
        ));
    }
    if openebs && found.parameters.as_ref().is_some_and(|p| !p.is_empty()) {
        let why = format!("class {name} has parameters, which OpenEBS ignores");
        return Ok(Verdict::warn(
            why,
            format!("settings belong in the annotation {CONFIG}; remove the parameters: {again}"),
        ));
    }
    Ok(Verdict::pass(format!("served by {}, {mode}", found.provisioner)))
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

/// OpenEBS' settings must be a hostpath under the file's base path.
fn openebs_config(found: &StorageClass, name: &str, base_path: &str) -> Result<(), Stop> {
    let wanted = base_path.trim_end_matches('/');
    let hint = format!(
        "set the annotation {CONFIG} with StorageType hostpath and BasePath {wanted} (`nodeprep apply`)"
    );
    let fail = |why: String| Err(Stop::fail(why, hint.clone()));
    let Some(text) = found.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG)) else {
        return fail(format!(
            "class {name} has no annotation {CONFIG}: OpenEBS would use /var/openebs/local"
        ));
    };
    let entries: Vec<Entry> = match serde_yaml::from_str(text) {
        Ok(entries) => entries,
        Err(e) => return fail(format!("class {name}: annotation {CONFIG} can't be read: {e}")),
    };
    let value = |key: &str| entries.iter().find(|e| e.name == key).and_then(|e| e.value.as_deref());
    match value("StorageType") {
        Some("hostpath") => {}
        other => {
            return fail(format!("class {name} has StorageType {}, not hostpath", other.unwrap_or("(none)")));
        }
    }
    match value("BasePath").map(|path| path.trim_end_matches('/')) {
        Some(path) if path == wanted => Ok(()),
        Some(path) => fail(format!("class {name} has BasePath {path}, not {wanted}")),
        None => fail(format!("class {name} has no BasePath: OpenEBS would use /var/openebs/local")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Change = fn(&mut Value);

    fn verdict(change: impl Fn(&mut Value)) -> Verdict {
        let mut class = json!({
            "metadata": { "name": "fast", "annotations": {
                CONFIG: "- name: StorageType\n  value: hostpath\n- name: BasePath\n  value: /var/mnt/openebs/\n\
                         - name: XFSQuota\n  enabled: \"true\"\n  data:\n    softLimitGrace: \"0%\"\n",
            } },
            "provisioner": "openebs.io/local",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        change(&mut class);
        let class = serde_json::from_value(class).unwrap();
        match settings(&class, "fast", "/var/mnt/openebs", Some("openebs.io/local")) {
            Ok(verdict) => verdict,
            Err(Stop::Fault { why, hint }) => Verdict::fail(why, hint),
            Err(Stop::Error(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn a_class_that_says_what_the_file_says_passes() {
        assert!(matches!(verdict(|_| ()), Verdict::Pass { .. }));
    }

    #[test]
    fn every_wrong_setting_fails_with_its_fix() {
        let config =
            |text: &'static str| move |c: &mut Value| c["metadata"]["annotations"][CONFIG] = json!(text);
        let cases: [(&str, Change, &str); 4] = [
            (
                "rancher.io/local-path",
                |c| c["provisioner"] = json!("rancher.io/local-path"),
                "kubectl delete storageclass",
            ),
            ("Immediate", |c| c["volumeBindingMode"] = json!("Immediate"), "WaitForFirstConsumer"),
            ("Immediate", |c| c["volumeBindingMode"] = Value::Null, "WaitForFirstConsumer"),
            (
                "/var/openebs/local",
                |c| c["metadata"]["annotations"] = Value::Null,
                "BasePath /var/mnt/openebs",
            ),
        ];
        let fails = |verdict: Verdict, why: &str, hint: &str| match verdict {
            Verdict::Fail { why: w, hint: h } => assert!(w.contains(why) && h.contains(hint), "{w} / {h}"),
            other => panic!("{why}: {other:?}"),
        };
        for (why, change, hint) in cases {
            fails(verdict(change), why, hint);
        }
        for (why, text) in [
            ("/var/openebs/local", "- name: StorageType\n  value: hostpath\n"),
            (
                "not /var/mnt/openebs",
                "- {name: StorageType, value: hostpath}\n- {name: BasePath, value: /data/x}\n",
            ),
            ("StorageType device", "- {name: StorageType, value: device}\n"),
            ("can't be read", "{not: a list"),
        ] {
            fails(verdict(config(text)), why, CONFIG);
        }
    }

    #[test]
    fn a_class_of_a_csi_driver_must_be_as_the_file_says() {
        let csi: Csi = serde_json::from_value(json!({
            "driver": "ebs.csi.aws.com", "parameters": {"type": "gp3", "iops": "16000"}, "expansion": true,
        }))
        .unwrap();
        let differs = |change: fn(&mut Value)| {
            let mut class = json!({
                "metadata": {"name": "fast-ssd"}, "provisioner": "ebs.csi.aws.com",
                "parameters": {"type": "gp3", "iops": "16000"},
                "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
            });
            change(&mut class);
            csi_differs(&serde_json::from_value(class).unwrap(), &csi)
        };
        assert_eq!(differs(|_| ()), None);
        let cases: [(Change, &str); 6] = [
            (|class| class["provisioner"] = json!("kubernetes.io/aws-ebs"), "kubernetes.io/aws-ebs"),
            (|class| class["volumeBindingMode"] = Value::Null, "volumeBindingMode is Immediate"),
            (|class| class["parameters"]["iops"] = json!("3000"), "iops is 3000; the file says 16000"),
            (|class| class["parameters"]["kmsKeyId"] = json!("k"), "kmsKeyId is k; the file says not set"),
            (|class| class["mountOptions"] = json!(["debug"]), "mountOptions"),
            (|class| class["allowVolumeExpansion"] = Value::Null, "allowVolumeExpansion is false, not true"),
        ];
        for (change, word) in cases {
            let said = differs(change).unwrap();
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn what_is_useless_but_harmless_warns() {
        for (change, word) in [
            ((|c| c["allowVolumeExpansion"] = json!(true)) as fn(&mut Value), "expansion"),
            (|c| c["parameters"] = json!({ "basePath": "/x" }), "parameters"),
        ] {
            let Verdict::Warn { why, .. } = verdict(change) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        }
    }
}
