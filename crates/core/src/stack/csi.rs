//! Storage classes of CSI drivers that somebody else installed.

use serde_json::json;

use super::{Component, Sources, StackItem, objects, template};
use crate::error::Result;
use crate::intent::{Backend, Intent};

pub(super) const COMPONENT: Component = Component { id: ID, listed: &["StorageClass"], asked, render };

const ID: &str = "csi";

fn asked(intent: &Intent) -> bool {
    intent.classes.iter().any(|class| class.csi.is_some())
}

fn render(sources: &Sources<'_>) -> Result<Vec<StackItem>> {
    let mut items = Vec::new();
    for class in &sources.intent.classes {
        let Backend::Csi(csi) = class.backend() else { continue };
        let values = json!({
            "name": class.name,
            "driver": csi.driver,
            "parameters": csi.parameters,
            "binding_mode": csi.binding_mode.name(),
            "expansion": csi.expansion,
            "mount_options": csi.mount_options,
            "reclaim_policy": class.reclaim_policy,
            "default": class.default,
        });
        let source = include_str!("../../../../manifests/csi/storageclass.yaml.j2");
        items.extend(objects(ID, template::fill("csi/storageclass.yaml.j2", source, &values)?));
    }
    Ok(items)
}
