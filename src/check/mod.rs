//! The checks, one file each, and their registry.
//!
//! A check judges one subject and answers with a verdict; "could not run" is an error. Only [`scratch`]
//! makes objects in the cluster, and it removes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use crate::cluster::{Cluster, from_kube};
use crate::error::Error;
use crate::event::{Events, SubjectId, Verdict};
use crate::intent::{Class, Intent};

mod backup;
mod backup_coverage;
mod binding_mode;
mod drill;
mod fio;
mod mount;
mod nodes;
mod persistence;
mod placement;
mod pod;
mod probe;
mod provisioner;
mod pvc;
mod rights;
mod run;
mod scratch;
mod storage_class;
mod wait;

pub use nodes::StorageNode;
pub use run::{Outcome, Unrun, run};
pub use scratch::{Cleaned, cleanup, left};

/// Every check, in the order they run.
pub const CHECKS: &[Check] = &[
    provisioner::CHECK,
    storage_class::CHECK,
    binding_mode::CHECK,
    placement::CHECK,
    pvc::CHECK,
    persistence::CHECK,
    fio::CHECK,
    backup::CHECK,
    backup_coverage::CHECK,
    drill::CHECK,
];

/// One check, as a value.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub id: &'static str,
    pub title: &'static str,
    /// What it judges one by one.
    pub per: Per,
    /// Checks that must have passed on the same subject for this one to make sense.
    pub needs: &'static [&'static str],
    judge: Judge,
}

type Judge = for<'a> fn(&'a Run<'a>, &'a Subject<'a>) -> LocalBoxFuture<'a, Result<Verdict, Stop>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Cluster,
    /// The file's `backup`; told once, where the file has none.
    Backup,
    /// Each storage class of the file.
    Class,
    /// Each storage class on each node that is to hold its volumes.
    Node,
    /// The same, whether they can hold them now or not, and each other node that the class allows.
    Allowed,
}

/// What the checks work with.
#[derive(Debug)]
pub struct Context {
    pub intent: Intent,
    pub cluster: Cluster,
    pub events: Events,
    /// Only these nodes, by address or name; all when empty.
    pub scope: Vec<String>,
    /// The names in Kubernetes of the file's addresses, where the machines told them.
    pub names: BTreeMap<String, String>,
    /// Names the run's objects and its journal: lower-case letters, digits and dashes.
    pub run_id: String,
    /// When the run started.
    pub now: Timestamp,
    /// The repository's password in the file's secrets; the error says why they can't be read.
    pub password: Result<Option<SecretString>, Error>,
    /// The folder that keeps the journal of the test objects.
    pub state: PathBuf,
}

/// One run of the checks.
#[derive(Debug)]
pub struct Run<'a> {
    ctx: &'a Context,
    scratch: scratch::Scratch,
    /// What came of the claim on each node of each class, which two checks judge.
    probed: Mutex<BTreeMap<String, Result<pvc::Probed, Stop>>>,
}

/// What a check judges.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    class: Option<&'a Class>,
    node: Option<StorageNode>,
    /// The hosts that a class's own probes may run on; the first is the one that they are sent to.
    hosts: Vec<String>,
    /// The taints that its pods put up with.
    tolerations: Vec<Value>,
    /// The events of this check on this subject.
    events: Events,
}

impl<'a> Subject<'a> {
    pub fn id(&self) -> SubjectId {
        match (self.class, &self.node) {
            (Some(class), Some(node)) => {
                SubjectId::Node { class: class.name.clone(), node: node.name.clone() }
            }
            (Some(class), None) => SubjectId::Class(class.name.clone()),
            (None, _) => SubjectId::Cluster,
        }
    }

    /// As it is shown: `cluster`, a class, or a class on a node.
    pub fn name(&self) -> String {
        self.id().to_string()
    }

    fn class(&self) -> Result<&'a Class, Stop> {
        self.class.ok_or_else(|| Error::failed("the check was given no storage class").into())
    }

    /// A probe on the host that the subject's probes are sent to, with a claim of its own name.
    fn probe<'p>(&'p self, name: &'p str, image: &'p str, work: &'p str) -> Result<pod::Probe<'p>, Stop> {
        Ok(pod::Probe { name, image, work, claim: name, hosts: self.pin()?, tolerations: &self.tolerations })
    }

    /// The host that a probe is sent to.
    fn pin(&self) -> Result<&[String], Stop> {
        self.hosts.get(..1).ok_or_else(|| {
            Stop::fail(
                format!("{} has no node that can hold its volumes now", self.name()),
                "check placement says of each node why not",
            )
        })
    }
}

/// Why a check ended early: a fault of what it judges, or an error of the check itself.
#[derive(Debug, Clone)]
pub enum Stop {
    Fault { why: String, hint: String },
    Error(Error),
}

impl Stop {
    pub fn fail(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fault { why: why.into(), hint: hint.into() }
    }
}

/// Turns an error of the Kubernetes API into ours: what was tried, and the server's words.
fn broken(tried: impl std::fmt::Display) -> impl FnOnce(kube::Error) -> Error {
    move |error| from_kube(&tried.to_string(), error)
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
