//! Talos' resources: what they are called, and how what is in them is read.
//!
//! Names: siderolabs/talos, pkg/machinery/resources.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use super::proto::config::MachineConfigSpec;
use super::proto::cosi::resource as cosi;
use crate::error::{Error, Result};
pub use crate::model::resources::*;

/// A resource as it was read; its text may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    pub namespace: String,
    /// The full type, such as `Disks.block.talos.dev`.
    pub kind: String,
    pub id: String,
    /// Decimal, or `undefined` for something that does not exist.
    pub version: String,
    /// `running` or `tearingDown`.
    pub phase: String,
    pub labels: BTreeMap<String, String>,
    pub yaml: String,
    /// The same in the proto form of its type.
    pub proto: Vec<u8>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("version", &self.version)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl From<cosi::Resource> for Resource {
    fn from(resource: cosi::Resource) -> Self {
        let metadata = resource.metadata.unwrap_or_default();
        let spec = resource.spec.unwrap_or_default();
        Self {
            namespace: metadata.namespace,
            kind: metadata.r#type,
            id: metadata.id,
            version: metadata.version,
            phase: metadata.phase,
            labels: metadata.labels.into_iter().collect(),
            yaml: spec.yaml_spec,
            proto: spec.proto_spec,
        }
    }
}

impl Resource {
    /// Reads the text as a spec; `Kind::Failed` naming the resource and the line when it is not one. The text itself
    /// is never quoted.
    fn yaml<T: DeserializeOwned>(&self) -> Result<T> {
        let options =
            serde_yaml::options! { strict_booleans: true, legacy_octal_numbers: true, with_snippet: false };
        serde_yaml::from_str_with_options(&self.yaml, options).map_err(|error| {
            let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
            self.unknown(&place.unwrap_or_default())
        })
    }

    fn unknown(&self, place: &str) -> Error {
        Error::failed(format!("{} {}: its spec is not what Talos documents{place}", self.kind, self.id))
            .hint("this release of Talos may be newer than nodeprep knows")
    }

    /// The spec together with what is known of the resource.
    pub fn decode<T: Spec>(&self) -> Result<Item<T>> {
        Ok(Item {
            id: self.id.clone(),
            version: self.version.clone(),
            labels: self.labels.clone(),
            spec: T::read(self)?,
        })
    }
}

/// A typed spec and where its resources are found.
pub trait Spec: Sized {
    const NAMESPACE: &'static str;
    const TYPE: &'static str;

    /// # Errors
    /// `Kind::Failed`, naming the resource, when it is not of this kind.
    fn read(resource: &Resource) -> Result<Self>;
}

macro_rules! kinds {
    ($($spec:ident = $namespace:literal, $kind:literal;)*) => {
        $(impl Spec for $spec {
            const NAMESPACE: &'static str = $namespace;
            const TYPE: &'static str = $kind;

            fn read(resource: &Resource) -> Result<Self> {
                resource.yaml()
            }
        })*
    };
}

kinds! {
    DiskSpec = "runtime", "Disks.block.talos.dev";
    SystemDisk = "runtime", "SystemDisks.block.talos.dev";
    BlockDevice = "runtime", "BlockDevices.block.talos.dev";
    DiscoveredVolume = "runtime", "DiscoveredVolumes.block.talos.dev";
    VolumeStatus = "runtime", "VolumeStatuses.block.talos.dev";
    MountStatus = "runtime", "MountStatuses.block.talos.dev";
    MachineStatus = "runtime", "MachineStatuses.runtime.talos.dev";
    Extension = "runtime", "ExtensionStatuses.runtime.talos.dev";
    TimeStatus = "runtime", "TimeStatuses.v1alpha1.talos.dev";
    PlatformMetadata = "runtime", "PlatformMetadatas.talos.dev";
    SecurityState = "runtime", "SecurityStates.talos.dev";
    Member = "cluster", "Members.cluster.talos.dev";
    MachineType = "config", "MachineTypes.config.talos.dev";
    Nodename = "k8s", "Nodenames.kubernetes.talos.dev";
    NodeStatus = "k8s", "NodeStatuses.kubernetes.talos.dev";
    NodeLabel = "k8s", "NodeLabelSpecs.k8s.talos.dev";
}

/// Ids of resources of which there is one.
pub mod id {
    pub const SYSTEM_DISK: &str = "system-disk";
    pub const MACHINE: &str = "machine";
    pub const MACHINE_TYPE: &str = "machine-type";
    pub const NODENAME: &str = "nodename";
    pub const PLATFORM: &str = "platformmetadata";
    pub const TIME: &str = "node";
    pub const SECURITY: &str = "securitystate";
    /// The configuration in force.
    pub const ACTIVE_CONFIG: &str = "v1alpha1";
    /// The configuration of the next boot, which differs after [`Mode::Staged`](super::super::client::Mode::Staged).
    pub const PERSISTENT_CONFIG: &str = "persistent";
}

/// All documents of a machine's configuration, as one text full of secrets.
#[derive(Debug, Clone)]
pub struct MachineConfig(pub SecretString);

impl Spec for MachineConfig {
    const NAMESPACE: &'static str = "config";
    const TYPE: &'static str = "MachineConfigs.config.talos.dev";

    fn read(resource: &Resource) -> Result<Self> {
        let spec = MachineConfigSpec::decode(resource.proto.as_slice());
        let bytes = spec.map_err(|_| resource.unknown(""))?.yaml_marshalled;
        let text = String::from_utf8(bytes).map_err(|_| resource.unknown(": not UTF-8"))?;
        if text.is_empty() { Err(resource.unknown(": empty")) } else { Ok(Self(text.into())) }
    }
}
