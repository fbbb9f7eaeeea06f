//! etcd is begun on one machine, once for each cluster.

use std::path::Path;
use std::time::Duration;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::RunContext;
use super::node::quorum;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::plan::bootstrap::Bootstrap;
use crate::state::{now, write_json};
use crate::talos::resources::Member;
use crate::talos::{self, Client};
use crate::wait::{Late, Look, Wait};

/// A machine that may have taken the call is not asked again before this time: it begins etcd once the image is there.
const AGAIN: Duration = Duration::from_secs(60);

/// Which machine was asked to begin etcd.
#[derive(Debug, Serialize, Deserialize)]
struct EtcdRecord {
    address: String,
    at: String,
}

/// The machine that a run of before asked to begin etcd, as the file says that it wrote then.
///
/// # Errors
/// The file can't be read.
pub fn begun_on(record: &Path) -> Result<Option<String>> {
    let failed = |why: String| Error::failed(format!("{}: {why}", record.display()));
    match std::fs::read(record) {
        Ok(bytes) => {
            let read: EtcdRecord =
                serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
            Ok(Some(read.address))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Begins etcd unless that was done, and waits until all control planes are its members; true when it was begun.
pub(super) async fn carry_out(work: &Bootstrap, context: &RunContext, events: &Events) -> Result<bool> {
    let (client, within) = (context.talos()?, context.manner.deadlines.bootstrap.std());
    let deadline = Instant::now() + within;
    let mut lost: Option<Instant> = None;
    let mut begun = false;
    let wait = Wait::new(format!("{} to begin etcd", work.address), within, events);
    let done = wait.until(async || {
        if !fresh(client, work).await? {
            return Ok(Look::Done(()));
        }
        if lost.is_some_and(|lost| lost.elapsed() < AGAIN) {
            return Ok(Look::not_yet("it was asked, and its answer was lost"));
        }
        note(work)?;
        begun = true;
        match client.node(&work.address)?.bootstrap().await {
            Ok(talos::Bootstrap::Taken | talos::Bootstrap::HasData) => Ok(Look::Done(())),
            Ok(talos::Bootstrap::NotYet(why)) => Ok(Look::not_yet(why)),
            Err(error) => {
                lost = Some(Instant::now());
                Err(error)
            }
        }
    });
    let late = |why| {
        Error::unavailable(format!("{}: etcd can't be begun: {why}", work.address))
            .hint("run this again; etcd is begun on this machine only")
    };
    done.await.map_err(|end| match end {
        Late::Open { last, .. } => late(last),
        Late::Away { error, .. } => late(error.what),
        Late::Never(error) => error,
    })?;
    let left = deadline.saturating_duration_since(Instant::now());
    quorum::formed(client, &work.address, work.control_planes.len(), left, events).await?;
    Ok(begun)
}

/// Whether no control plane has data of etcd: all of them are asked, and there may be no other.
async fn fresh(client: &Client, work: &Bootstrap) -> Result<bool> {
    let asked = work.control_planes.iter().map(async |address| {
        let node = client.node(address)?;
        let (data, members) = tokio::try_join!(node.has_etcd_data(), node.specs::<Member>())?;
        let theirs = |member: &Member| {
            member.machine_type == "controlplane"
                && !member
                    .addresses
                    .iter()
                    .chain([&member.hostname])
                    .any(|at| work.control_planes.contains(at))
        };
        let other = members.into_iter().map(|member| member.spec).find(theirs);
        Ok::<_, Error>((data, other))
    });
    let found = try_join_all(asked).await?;
    if let Some(other) = found.iter().find_map(|(_, other)| other.as_ref()) {
        return Err(Error::refused(format!(
            "the cluster has a control plane that is not listed: {} ({})",
            other.hostname,
            other.addresses.join(", ")
        ))
        .hint("list all control planes in the file; etcd is begun only when none of them has data"));
    }
    Ok(!found.iter().any(|(data, _)| *data))
}

/// Writes down which machine is asked, before it is: after a crash no other may be.
fn note(work: &Bootstrap) -> Result<()> {
    match begun_on(&work.record)? {
        Some(former) if former == work.address => Ok(()),
        Some(former) => Err(Error::refused(format!("a former run began etcd on {former}"))),
        None => write_json(&work.record, &EtcdRecord { address: work.address.clone(), at: now() }),
    }
}
