//! Storage classes, and what provisions their volumes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{External, Intent, Openebs};

/// What provisions volumes below a directory of the nodes. Both may be there: classes then say whose they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provisioners {
    /// OpenEBS LocalPV hostpath, installed by nodeprep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openebs: Option<Openebs>,
    /// A provisioner that somebody else installed; nodeprep only judges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// One of the file's provisioners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Provisioner<'a> {
    Openebs(&'a Openebs),
    External(&'a External),
}

impl<'a> Provisioner<'a> {
    /// The namespace its pods run in.
    pub fn namespace(self) -> &'a str {
        match self {
            Self::Openebs(openebs) => &openebs.namespace,
            Self::External(external) => &external.namespace,
        }
    }

    /// The provisioner's name in a StorageClass.
    pub fn name(self) -> &'a str {
        match self {
            Self::Openebs(_) => "openebs.io/local",
            Self::External(external) => &external.name,
        }
    }

    const fn kind(self) -> ProvisionerKind {
        match self {
            Self::Openebs(_) => ProvisionerKind::Openebs,
            Self::External(_) => ProvisionerKind::External,
        }
    }
}

/// A provisioner as a class names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionerKind {
    Openebs,
    External,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Class {
    pub name: String,
    /// The directory on the node under which volumes are made, such as `/var/mnt/openebs`. Each class has this, or `csi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_path: Option<String>,
    /// Whose the class is, where the file has more than one provisioner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<ProvisionerKind>,
    /// The class is of a CSI driver that somebody else installed; nodeprep makes the class alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi: Option<Csi>,
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
    /// Makes it the cluster's default class.
    #[serde(default)]
    pub default: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    #[default]
    Delete,
    Retain,
}

/// A class of a CSI driver, as the driver's documentation describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Csi {
    /// The driver's name, such as `ebs.csi.aws.com`.
    pub driver: String,
    /// The driver's own settings, such as `type: gp3`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub binding_mode: BindingMode,
    /// The driver can make volumes larger.
    #[serde(default)]
    pub expansion: bool,
    #[serde(default)]
    pub mount_options: Vec<String>,
}

/// When a claim gets its volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindingMode {
    /// When a pod wants it, where that pod runs.
    #[default]
    WaitForFirstConsumer,
    /// At once, wherever: right only for volumes that every node reaches.
    Immediate,
}

impl BindingMode {
    /// As a StorageClass says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitForFirstConsumer => "WaitForFirstConsumer",
            Self::Immediate => "Immediate",
        }
    }
}

/// What is behind a class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backend<'a> {
    /// A directory of the nodes, below which a provisioner makes one for each volume.
    HostPath {
        base_path: &'a str,
    },
    Csi(&'a Csi),
}

impl Class {
    pub fn backend(&self) -> Backend<'_> {
        match (&self.csi, &self.base_path) {
            (Some(csi), _) => Backend::Csi(csi),
            // The file's rules want one of them.
            (None, path) => Backend::HostPath { base_path: path.as_deref().unwrap_or_default() },
        }
    }

    /// The directory on the nodes, of a class that has one.
    pub fn base_path(&self) -> Option<&str> {
        match self.backend() {
            Backend::HostPath { base_path } => Some(base_path),
            Backend::Csi(_) => None,
        }
    }

    /// Where its volumes lie, for people: `/var/mnt/openebs`, `ebs.csi.aws.com`.
    pub fn place(&self) -> &str {
        match self.backend() {
            Backend::HostPath { base_path } => base_path,
            Backend::Csi(csi) => &csi.driver,
        }
    }

    /// When a claim of it gets its volume.
    pub fn binding_mode(&self) -> BindingMode {
        self.csi.as_ref().map_or(BindingMode::WaitForFirstConsumer, |csi| csi.binding_mode)
    }
}

impl Intent {
    /// The provisioners that the file names.
    pub fn provisioners(&self) -> impl Iterator<Item = Provisioner<'_>> {
        let Provisioners { openebs, external } = &self.provisioner;
        let openebs = openebs.as_ref().map(Provisioner::Openebs);
        openebs.into_iter().chain(external.as_ref().map(Provisioner::External))
    }

    /// The provisioner of a class; none of one of a CSI driver.
    pub fn provisioner_of(&self, class: &Class) -> Option<Provisioner<'_>> {
        let is_its = |one: &Provisioner<'_>| class.provisioner.is_none_or(|kind| kind == one.kind());
        self.provisioners().filter(|_| class.csi.is_none()).find(is_its)
    }

    /// The classes that OpenEBS serves.
    pub fn openebs_classes(&self) -> impl Iterator<Item = &Class> {
        let of = |class: &&Class| matches!(self.provisioner_of(class), Some(Provisioner::Openebs(_)));
        self.classes.iter().filter(of)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::intent::parse;

    fn file(provisioner: &str, class: &str) -> crate::error::Result<Intent> {
        let provisioner = match provisioner {
            "" => "provisioner:".to_owned(),
            named => format!("provisioner: {{{named}}}"),
        };
        let text = format!(
            "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: lab}}\n\
             {provisioner}\nclasses:\n  - {{name: fast, {class}}}\n"
        );
        parse("f", text.as_bytes())
    }

    const EXTERNAL: &str = "external: {name: rancher.io/local-path, namespace: s, selector: {app: x}}";

    #[test]
    fn a_class_has_one_backend_and_it_is_known_whose_it_is() {
        let both = format!("openebs: {{}}, {EXTERNAL}");
        let path = "basePath: /var/mnt/a";
        for (provisioner, class, of) in [
            ("openebs: {}", path, Some("openebs.io/local")),
            (EXTERNAL, path, Some("rancher.io/local-path")),
            (&both, "basePath: /var/mnt/a, provisioner: openebs", Some("openebs.io/local")),
            (&both, "basePath: /var/mnt/a, provisioner: external", Some("rancher.io/local-path")),
            ("", "csi: {driver: ebs.csi.aws.com}", None),
            ("openebs: {}", "csi: {driver: ebs.csi.aws.com, bindingMode: Immediate}", None),
        ] {
            let intent = file(provisioner, class).unwrap();
            let found = intent.provisioner_of(&intent.classes[0]).map(Provisioner::name);
            assert_eq!(found, of, "{provisioner} {class}");
        }
        for (provisioner, class, place, words) in [
            ("openebs: {}", "default: true", "f:6:5", "does not say where its volumes are"),
            (
                "openebs: {}",
                "basePath: /var/mnt/a, csi: {driver: d.io}",
                "f:6:",
                "a basePath, and a CSI driver",
            ),
            ("openebs: {}", "basePath: /var/mnt/a, provisioner: external", "f:6:", "the file does not have"),
            ("openebs: {}", "csi: {driver: d.io}, provisioner: openebs", "f:6:", "of no provisioner"),
            ("openebs: {}", "csi: {driver: 'EBS driver'}", "f:6:", "is not the name of a CSI driver"),
            ("", path, "f:5:", "classes need a provisioner"),
            (" ", "csi: {driver: d.io}", "f:4:", "provisioner names none"),
            (&both, path, "f:6:5", "does not say whose it is"),
        ] {
            let error = file(provisioner, class).unwrap_err();
            assert!(error.what.starts_with(place) && error.what.contains(words), "{class}: {error}");
            assert_eq!(error.kind.exit_code(), 2);
        }
    }
}
