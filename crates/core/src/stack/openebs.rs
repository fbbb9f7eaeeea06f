//! OpenEBS LocalPV hostpath: the provisioner with the least rights, and its storage classes.

use serde_json::json;

use super::{Component, Sources, StackItem, objects, template, topology};
use crate::error::Result;
use crate::intent::{Class, FilesystemType, Intent};
use crate::model::object::Ready;

pub(super) const COMPONENT: Component = Component {
    id: ID,
    listed: &["StorageClass"],
    asked: |intent| intent.provisioner.openebs.is_some(),
    render,
};

const ID: &str = "openebs";
const WORKLOAD: &str = "openebs-localpv-provisioner";

/// Where OpenEBS puts volumes of a class that names no path.
const DEFAULT_BASE_PATH: &str = "/var/mnt/openebs";

fn render(sources: &Sources<'_>) -> Result<Vec<StackItem>> {
    let intent = sources.intent;
    let Some(openebs) = &intent.provisioner.openebs else { return Ok(Vec::new()) };
    let namespace = &openebs.namespace;
    let workload = openebs.workload.kind();
    let mut items = Vec::new();
    let values = json!({"namespace": namespace});
    let source = include_str!("../../../../manifests/namespace.yaml.j2");
    items.extend(objects(ID, template::fill("namespace.yaml.j2", source, &values)?));
    let source = include_str!("../../../../manifests/openebs/rbac.yaml.j2");
    items.extend(objects(ID, template::fill("openebs/rbac.yaml.j2", source, &values)?));
    let values = json!({
        "namespace": namespace,
        "workload": workload,
        "replicas": openebs.replicas.unwrap_or(1),
        "node_selector": openebs.node_selector,
        "tolerations": openebs.tolerations,
        "resources": openebs.resources,
        "image": intent.images.provisioner,
        "probes": probes(&intent.images.provisioner),
        "helper_image": intent.images.helper,
        "base_path": intent.openebs_classes().find_map(Class::base_path).unwrap_or(DEFAULT_BASE_PATH),
    });
    let source = include_str!("../../../../manifests/openebs/provisioner.yaml.j2");
    items.extend(objects(ID, template::fill("openebs/provisioner.yaml.j2", source, &values)?));
    items.push(StackItem::Ready(Ready::Workload {
        kind: workload.into(),
        namespace: namespace.clone(),
        name: WORKLOAD.into(),
    }));
    for class in intent.openebs_classes() {
        let values = json!({
            "name": class.name,
            "base_path": class.base_path(),
            "quota": quota(intent, class),
            "reclaim_policy": class.reclaim_policy,
            "default": class.default,
            "topologies": topology::of(intent, class, sources.hosts),
        });
        let source = include_str!("../../../../manifests/openebs/storageclass.yaml.j2");
        items.extend(objects(ID, template::fill("openebs/storageclass.yaml.j2", source, &values)?));
    }
    Ok(items)
}

/// How a release says whether it is well: from 4.6 on over HTTP; before that its chart looked for the process. Nothing is
/// asked of an image whose tag is no release: what it does not serve would end it again and again.
fn probes(image: &str) -> &'static str {
    match release(image) {
        Some(release) if release >= (4, 6) => "http",
        Some(_) => "exec",
        None => "none",
    }
}

/// The first two numbers of a tag such as `4.6.0`, `v4.6.0-rc1` or `4.6`; a digest may follow.
fn release(image: &str) -> Option<(u32, u32)> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    let (_, tag) = name.split_once(':')?;
    let mut numbers = tag.strip_prefix('v').unwrap_or(tag).split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The setting that limits each volume to its request, when the class lies on a volume with project quota.
fn quota(intent: &Intent, class: &Class) -> Option<&'static str> {
    let volume = intent.volume_of(class.base_path()?)?;
    volume.filesystem.project_quota.then_some(match volume.filesystem.kind {
        FilesystemType::Xfs => "XFSQuota",
        FilesystemType::Ext4 => "EXT4Quota",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_those_that_the_release_has() {
        for (image, wanted) in [
            ("docker.io/openebs/provisioner-localpv:4.6.0", "http"),
            ("mirror.lab:5000/openebs/provisioner-localpv:v5.0.1-rc1@sha256:aa", "http"),
            ("x/provisioner-localpv:10.0", "http"),
            ("openebs/provisioner-localpv:4.5.1", "exec"),
            ("openebs/provisioner-localpv:3.5.0", "exec"),
            ("mirror.lab:5000/openebs/provisioner-localpv", "none"),
            ("openebs/provisioner-localpv:ci", "none"),
            ("openebs/provisioner-localpv@sha256:4.6", "none"),
        ] {
            assert_eq!(probes(image), wanted, "{image}");
        }
    }
}
