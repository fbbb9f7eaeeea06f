//! Objects that somebody waits for, each as its kind has it: what they lack to be ready, and what helps.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::pods;
use super::velero::kinds::{BackupStorageLocation, Schedule};
use super::velero::{Location, location_lacks, schedule_hint, schedule_lacks};
use super::workload::{Workload, crd_lacks, node_lacks};
use crate::error::Result;
use crate::model::object::{Ready, read};

/// An object that somebody waits for.
#[derive(Debug)]
pub enum Awaited {
    Crd(Box<CustomResourceDefinition>),
    Workload(Box<Workload>),
    Node(Box<Node>),
    BackupLocation(Box<BackupStorageLocation>),
    Schedule(Box<Schedule>),
}

impl Awaited {
    /// The object that tells of the condition.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(ready: &Ready, object: &Value) -> Result<Self> {
        Ok(match ready {
            Ready::Crd { .. } => Self::Crd(Box::new(read(object)?)),
            Ready::Workload { kind, .. } if kind == "DaemonSet" => {
                Self::Workload(Box::new(Workload::DaemonSet(read(object)?)))
            }
            Ready::Workload { .. } => Self::Workload(Box::new(Workload::Deployment(read(object)?))),
            Ready::Node { .. } => Self::Node(Box::new(read(object)?)),
            Ready::BackupLocation { .. } => Self::BackupLocation(Box::new(read(object)?)),
            Ready::Schedule { .. } => Self::Schedule(Box::new(read(object)?)),
        })
    }

    /// What its own status lacks.
    pub fn lacks(&self) -> Option<String> {
        match self {
            Self::Crd(crd) => crd_lacks(crd),
            Self::Workload(workload) => workload.lacks(),
            Self::Node(node) => node_lacks(node),
            Self::BackupLocation(location) => location_lacks(location),
            Self::Schedule(schedule) => schedule_lacks(schedule),
        }
    }

    /// What helps against the reason why it isn't ready, and whether that stays however long one waits.
    pub fn help(&self, why: &str) -> Option<(String, bool)> {
        match self {
            Self::BackupLocation(location) => {
                let advice = Location::of(location).advice(location)?;
                Some((advice.hint, advice.lasting))
            }
            Self::Schedule(schedule) => schedule_hint(schedule).map(|hint| (hint, true)),
            Self::Crd(_) | Self::Workload(_) | Self::Node(_) => {
                pods::hint(why).map(|hint| (hint.to_owned(), false))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_object_and_never_ready() {
        let (namespace, name) = (|| "velero".to_owned(), || "a".to_owned());
        let workload =
            |kind: &str| Ready::Workload { kind: kind.into(), namespace: namespace(), name: name() };
        for (ready, status) in [
            (workload("Deployment"), json!({"readyReplicas": "3"})),
            (workload("DaemonSet"), json!({"numberReady": "3"})),
            (Ready::Node { name: name() }, json!({"conditions": "Ready"})),
            (Ready::Crd { name: name() }, json!({"conditions": "Established"})),
            (
                Ready::BackupLocation { namespace: namespace(), name: name() },
                json!({"phase": "Available", "lastValidationTime": "yesterday"}),
            ),
            (
                Ready::Schedule { namespace: namespace(), name: name() },
                json!({"phase": "Enabled", "validationErrors": "x"}),
            ),
        ] {
            let (_, _, namespace, name) = ready.subject();
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "status": status});
            let error = Awaited::read(&ready, &object).map(|_| ready.title()).unwrap_err();
            assert!(
                error.what.starts_with(&format!("{}: what the API server says", ready.title())),
                "{error}"
            );
            assert!(
                Awaited::read(&ready, &json!({"metadata": {"name": name}}))
                    .is_ok_and(|one| one.lacks().is_some())
            );
        }
    }
}
