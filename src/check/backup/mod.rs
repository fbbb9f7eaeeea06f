//! Backups have somewhere to go, and go there: Velero runs, its locations answer, its repositories open with the file's
//! password, and each schedule of the file has made the backups that were due, in the location that it names.

mod location;
mod password;
mod schedules;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::provisioner::{standing, workloads_of};
use super::wait::{Look, until};
use super::{Check, Per, Run, Stop, Subject, broken};
use crate::cluster::{Standing, Steady};
use crate::event::Verdict;
use crate::intent::{Backup, Schedule};
use crate::judge::store::StoreAddress;
use crate::judge::velero::kinds::{self, BackupRepository, BackupStorageLocation};
use crate::judge::workload::Workload;
use crate::{plan, stack};

pub(super) const CHECK: Check = Check {
    id: "backup",
    title: "Velero runs, its locations answer, and the backups that are due were made",
    per: Per::Backup,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// The name that Velero's server looks for on its nodes.
const NODE_AGENT: &str = "node-agent";
const INSTALL: &str = "install Velero with `nodeprep apply`, or correct `backup.namespace`";

/// What one look at a part found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Fine(String),
    Warn { why: String, hint: String },
    Fault { why: String, hint: String },
}

impl Finding {
    fn fault(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fault { why: why.into(), hint: hint.into() }
    }

    fn warn(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Warn { why: why.into(), hint: hint.into() }
    }
}

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let Some(backup) = &run.ctx.intent.backup else {
        return Ok(Verdict::warn(
            "nothing is backed up: the file has no `backup`",
            "add `backup` with a bucket and a schedule; what is on one node's disk is lost with it",
        ));
    };
    let namespace = backup.namespace.as_str();
    let limit = run.ctx.intent.validation.timeout.std();
    let steady = tokio::sync::Mutex::new(Steady::default());
    let ready = until(&subject.events, "Velero to be ready", limit, || async {
        running(run, namespace, &mut *steady.lock().await).await
    });
    if let Err(last) = ready.await? {
        let hint = format!(
            "`kubectl -n {namespace} describe pods` says more; node-agent needs the namespace's label \
                            pod-security.kubernetes.io/enforce=privileged"
        );
        return Ok(Verdict::fail(last, hint));
    }
    let password = repository_password(run, namespace).await?;
    let mut found = vec![password];
    let mut stores = BTreeMap::new();
    for location in backup.all_locations() {
        let (finding, store) = located(run, subject, backup, &location.name).await?;
        found.push(finding);
        stores.insert(location.name.as_str(), store);
    }
    let https = "write https:// in `backup.location.url`, with `caCert` for an authority of your own";
    found.extend(plan::stack::in_the_clear(backup).map(|why| Finding::warn(why, https)));
    found.extend(made(run, backup, &stores, run.ctx.cluster.time().await?).await?);
    Ok(verdict(found))
}

/// Whether a location answers, and what its store is called.
async fn located(
    run: &Run<'_>,
    subject: &Subject<'_>,
    backup: &Backup,
    name: &str,
) -> Result<(Finding, StoreAddress), Stop> {
    let limit = run.ctx.intent.validation.timeout.std();
    let what = format!("backup location {name} to be validated");
    let looked = until(&subject.events, &what, limit, || async {
        location::judge(&read_location(run, backup, name).await?, run.ctx.cluster.time().await?)
    });
    let finding = match looked.await {
        Ok(Ok(summary)) => Finding::Fine(summary),
        Ok(Err(last)) => {
            let hint = format!("read Velero's log: kubectl -n {} logs deployment/velero", backup.namespace);
            Finding::fault(last, hint)
        }
        Err(Stop::Fault { why, hint }) => Finding::fault(why, hint),
        Err(stop) => return Err(stop),
    };
    let finding = match (finding, schedules_at(backup, name)) {
        (Finding::Fault { why, hint }, Some(schedules)) => {
            Finding::fault(format!("{why}; nothing of {schedules} is backed up there"), hint)
        }
        (finding, _) => finding,
    };
    let found = run.ctx.cluster.get_of(Some(&backup.namespace), name).await?;
    Ok((finding, found.as_ref().map(StoreAddress::of).unwrap_or_default()))
}

/// The file's schedules whose backups go to a location, for people.
fn schedules_at(backup: &Backup, location: &str) -> Option<String> {
    let there = backup.schedules.iter().filter(|schedule| backup.location_of(schedule) == location);
    let names: Vec<&str> = there.map(Schedule::name).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("schedule {one}")),
        many => Some(format!("schedules {}", many.join(", "))),
    }
}

/// What the repositories and the schedules say.
async fn made(
    run: &Run<'_>,
    backup: &Backup,
    stores: &BTreeMap<&str, StoreAddress>,
    now: Timestamp,
) -> Result<Vec<Finding>, Stop> {
    let (cluster, namespace) = (&run.ctx.cluster, Some(backup.namespace.as_str()));
    let live = cluster.list_of(namespace, "").await?;
    let backups = cluster.list_of::<kinds::Backup>(namespace, "").await?;
    let mut found = Vec::new();
    for repository in cluster.list_of::<BackupRepository>(namespace, "").await? {
        let kept_at = repository.spec.backup_storage_location.as_deref().and_then(|name| stores.get(name));
        found.extend(kept_at.and_then(|store| location::repository(&repository, store)));
    }
    found.extend(schedules::judge(&stack::schedules(backup)?, &live, &backups, stores, now));
    Ok(found)
}

/// One verdict of all: every fault is told, then every warning.
fn verdict(found: Vec<Finding>) -> Verdict {
    let (mut faults, mut warnings, mut fine) =
        ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()), Vec::new());
    for one in found {
        let (into, why, hint) = match one {
            Finding::Fine(summary) => {
                fine.push(summary);
                continue;
            }
            Finding::Warn { why, hint } => (&mut warnings, why, hint),
            Finding::Fault { why, hint } => (&mut faults, why, hint),
        };
        into.0.push(why);
        if !into.1.contains(&hint) {
            into.1.push(hint);
        }
    }
    fine.retain(|summary| !summary.is_empty());
    let told = |(whys, hints): &(Vec<String>, Vec<String>)| (whys.join("; "), hints.join("; "));
    match (faults.0.is_empty(), warnings.0.is_empty()) {
        (false, _) => {
            let (why, hint) = told(&faults);
            Verdict::fail(why, hint)
        }
        (true, false) => {
            let (why, hint) = told(&warnings);
            fine.insert(0, why);
            Verdict::warn(fine.join("; "), hint)
        }
        (true, true) => Verdict::pass(fine.join("; ")),
    }
}

/// Whether the server and the agents are ready, and stay so.
async fn running(run: &Run<'_>, namespace: &str, steady: &mut Steady) -> Result<Look<()>, Stop> {
    let all = workloads_of(run, namespace).await?;
    let (servers, agents): (Vec<Workload>, Vec<Workload>) =
        all.into_iter().partition(|workload| matches!(workload, Workload::Deployment(_)));
    let server = servers.into_iter().find(|server| {
        let label = |key: &&str| server.labels()?.get(*key);
        let named = |key: &&str| label(key).is_some_and(|label| label == "velero");
        server.name() == "velero" || ["app.kubernetes.io/name", "component"].iter().any(named)
    });
    let Some(server) = server else {
        return Err(Stop::fail(format!("Velero's server is not in namespace {namespace}"), INSTALL));
    };
    let Some(agents) = agents.into_iter().find(|agents| agents.name() == NODE_AGENT) else {
        return Err(Stop::fail(
            format!(
                "there is no DaemonSet {NODE_AGENT} in namespace {namespace}: local volumes can't be backed up"
            ),
            "install it with `nodeprep apply` (Helm: `deployNodeAgent: true`)",
        ));
    };
    Ok(match standing(run, &[server, agents], steady).await? {
        Standing::Ready => Look::Done(()),
        Standing::NotYet(why) | Standing::Stuck(why) => Look::not_yet(why),
    })
}

/// The repository's password must be there, not be the one that everybody knows, and be the file's. It is never shown.
async fn repository_password(run: &Run<'_>, namespace: &str) -> Result<Finding, Stop> {
    const NAME: &str = stack::REPOSITORY_SECRET.0;
    let secrets = Api::<Secret>::namespaced(run.ctx.cluster.client(), namespace);
    let secret = secrets.get_opt(NAME).await;
    let secret = secret.map_err(broken(format!("can't read Secret {namespace}/{NAME}")))?;
    let wanted = run.ctx.password.as_ref();
    match password::fault(secret.as_ref(), wanted.ok().and_then(Option::as_ref)) {
        Some((why, hint)) => Ok(Finding::fault(format!("Secret {namespace}/{NAME} {why}"), hint)),
        None => Ok(match wanted {
            Ok(_) => Finding::Fine(String::new()),
            Err(error) => Finding::warn(
                format!("whether the repository's password is the file's is not known: {}", error.what),
                error.hint.clone().unwrap_or_else(|| "name the age key, as for `nodeprep plan`".into()),
            ),
        }),
    }
}

async fn read_location(run: &Run<'_>, backup: &Backup, name: &str) -> Result<BackupStorageLocation, Stop> {
    let namespace = backup.namespace.as_str();
    let found = run.ctx.cluster.get_of(Some(namespace), name).await?;
    found.ok_or_else(|| Stop::fail(format!("there is no BackupStorageLocation {namespace}/{name}"), INSTALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_and_a_hint_once() {
        let fine = || Finding::Fine("location s3 is Available".into());
        let fault = |why: &str| Finding::fault(why, "do this");
        let warning = || Finding::warn("w", "x");
        assert_eq!(
            verdict(vec![Finding::Fine(String::new()), fine()]),
            Verdict::pass("location s3 is Available")
        );
        assert_eq!(verdict(vec![fine(), warning()]), Verdict::warn("w; location s3 is Available", "x"));
        assert_eq!(verdict(vec![fault("a"), warning(), fault("b")]), Verdict::fail("a; b", "do this"));
    }
}
