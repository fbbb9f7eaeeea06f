//! OpenEBS LocalPV hostpath: the provisioner with the least rights, and its storage classes.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Item, objects, template, topology};
use crate::error::Result;
use crate::intent::{Class, FilesystemType, Intent, Openebs};
use crate::plan::Ready;

const COMPONENT: &str = "openebs";
const WORKLOAD: &str = "openebs-localpv-provisioner";

/// Where OpenEBS puts volumes of a class that names no path.
const DEFAULT_BASE_PATH: &str = "/var/mnt/openebs";

pub(super) fn render(
    intent: &Intent,
    openebs: &Openebs,
    hosts: &BTreeMap<String, String>,
) -> Result<Vec<Item>> {
    let namespace = &openebs.namespace;
    let workload = openebs.workload.kind();
    let mut items = Vec::new();
    let values = json!({"namespace": namespace});
    let source = include_str!("../../manifests/namespace.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("namespace.yaml.j2", source, &values)?));
    let source = include_str!("../../manifests/openebs/rbac.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("openebs/rbac.yaml.j2", source, &values)?));
    let values = json!({
        "namespace": namespace,
        "workload": workload,
        "node_selector": openebs.node_selector,
        "image": intent.images.provisioner,
        "helper_image": intent.images.helper,
        "base_path": intent.classes.first().map_or(DEFAULT_BASE_PATH, |class| &class.base_path),
    });
    let source = include_str!("../../manifests/openebs/provisioner.yaml.j2");
    items.extend(objects(COMPONENT, template::fill("openebs/provisioner.yaml.j2", source, &values)?));
    items.push(Item::Ready(Ready::Workload {
        kind: workload.into(),
        namespace: namespace.clone(),
        name: WORKLOAD.into(),
    }));
    for class in &intent.classes {
        let values = json!({
            "name": class.name,
            "base_path": class.base_path,
            "quota": quota(intent, class),
            "reclaim_policy": class.reclaim_policy,
            "default": class.default,
            "topologies": topology::of(intent, class, hosts),
        });
        let source = include_str!("../../manifests/openebs/storageclass.yaml.j2");
        items.extend(objects(COMPONENT, template::fill("openebs/storageclass.yaml.j2", source, &values)?));
    }
    Ok(items)
}

/// The setting that limits each volume to its request, when the class lies on a volume with project quota.
fn quota(intent: &Intent, class: &Class) -> Option<&'static str> {
    let volume = intent.volume_of(&class.base_path)?;
    volume.filesystem.project_quota.then_some(match volume.filesystem.kind {
        FilesystemType::Xfs => "XFSQuota",
        FilesystemType::Ext4 => "EXT4Quota",
    })
}
