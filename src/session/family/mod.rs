//! How actions are carried out, a file per family. What else a family knows of its actions is in the plan (`plan/action`).

mod etcd;
mod job;
mod local;
mod node;
mod object;
mod velero;
mod wait;

pub use etcd::begun_on;
pub use node::{losses, reboots};

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::outputs::StepRecord;
use super::{Held, Manner, Reached};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::model::files::Listing;
use crate::plan::Action;
use crate::talos;

/// What all steps of a run need: connections, and how they are carried out.
#[derive(Debug)]
pub(super) struct RunContext {
    pub talos: Option<talos::Client>,
    pub cluster: Reached,
    /// The cluster's lock, where there is a cluster.
    pub lease: Option<Held>,
    /// Who the run is, for others that come after it ([`super::LeaseHolder::place`]).
    pub place: String,
    pub manner: Manner,
    /// True once the run was interrupted.
    pub interrupted: watch::Receiver<bool>,
    /// What pods of this run listed, by the id of the step.
    pub listings: Mutex<BTreeMap<String, Listing>>,
}

impl RunContext {
    /// # Errors
    /// The cluster's lock is not ours any more.
    pub(super) async fn still_ours(&self) -> Result<()> {
        match &self.lease {
            Some(lease) => lease.sure(self.manner.deadlines.reboot.std()).await,
            None => Ok(()),
        }
    }

    fn talos(&self) -> Result<&talos::Client> {
        self.talos.as_ref().ok_or_else(|| Error::failed("this step needs a connection to the machine API"))
    }

    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.here().ok_or_else(|| Error::failed("this step needs a connection to the cluster"))
    }
}

/// Carries an action out; true when something was changed.
pub(super) async fn carry_out(
    action: &Action,
    context: &RunContext,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    match action {
        Action::Node(action) => node::carry_out(action, context, events).await,
        Action::Object(action) => object::carry_out(action, context, events).await,
        Action::Wait(action) => wait::carry_out(action, context, events).await,
        Action::Etcd(action) => etcd::carry_out(action, context, events).await,
        Action::Velero(action) => velero::carry_out(action, context, record, events).await,
        Action::Job(action) => job::carry_out(action, context, record, events).await,
        Action::Local(action) => local::carry_out(action, context, events).await,
    }
}
