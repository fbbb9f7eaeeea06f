//! What the pods of a plan work out, and what is judged of that.

use std::sync::PoisonError;
use std::time::Duration;

use indicatif::BinaryBytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::RunContext;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::intent;
use crate::judge::drill::{DRILLS, DrillOutcome, kept};
use crate::judge::files::{compare, in_words};
use crate::judge::pods::serious;
use crate::model::files::{Listing, Written};
use crate::model::frame;
use crate::plan::drill::CONTAINER;
use crate::plan::{
    ASKED, Comparison, DrillLimits, DrillRecord, ENDED, JobAction, NODE, RPO, RTO, SAME, SEEN, WROTE,
};
use crate::session::outputs::StepRecord;
use crate::stack::MANAGED_BY;
use crate::wait::{Look, Wait};

pub(super) async fn carry_out(
    action: &JobAction,
    context: &RunContext,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    match action {
        JobAction::Listing { namespace, pod } => listing(context, namespace, pod, record, events).await,
        JobAction::Compare(what) => compared(context, what, record, events),
        JobAction::Limits(limits) => within_limits(limits, record, events),
        JobAction::Record(what) => keep(context, what, record).await,
    }
}

/// Waits until a pod has listed its volume's files.
async fn listing(
    context: &RunContext,
    namespace: &str,
    pod: &str,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    let (cluster, deadlines) = (context.cluster()?, &context.manner.deadlines);
    let title = format!("pod {namespace}/{pod}");
    let node = begun(cluster, (namespace, pod), deadlines.workloads.std(), events).await?;
    let text = printed(cluster, (namespace, pod), deadlines.backup.std(), events).await?;
    let seen = cluster.time().await?;
    let listing: Listing = text.parse().map_err(|why| Error::failed(format!("{title}: {why}")))?;
    record.leave(NODE, &node)?;
    record.leave(SEEN, &seen.as_second().to_string())?;
    if let Written::Now(wrote) = listing.written {
        record.leave(WROTE, &wrote.to_string())?;
    }
    events.say(format!("{title} on {node} listed {} entries", listing.entries.len()));
    context.listings.lock().unwrap_or_else(PoisonError::into_inner).insert(record.id.to_owned(), listing);
    Ok(false)
}

/// Waits until the pod's own program was begun; its node.
async fn begun(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    within: Duration,
    events: &Events,
) -> Result<String> {
    let wait = Wait::new(format!("pod {namespace}/{name} to begin"), within, events);
    let begun = wait.until(async || {
        let Some(pod) = cluster.get_of::<Pod>(Some(namespace), name).await? else {
            return Err(Error::failed(format!("pod {namespace}/{name} is gone: somebody deleted it")));
        };
        let status = pod.status.clone().unwrap_or_default();
        let mut states = status.container_statuses.iter().flatten().filter_map(|one| one.state.as_ref());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        match node.filter(|_| states.any(|state| state.running.is_some() || state.terminated.is_some())) {
            Some(node) => Ok(Look::Done(node)),
            None => {
                let phase = status.phase.unwrap_or_default();
                Ok(Look::not_yet(serious(&[pod]).unwrap_or(phase)))
            }
        }
    });
    begun.await.map_err(|late| {
        late.or_hint(
            "`nodeprep validate --only pvc` says why a volume is not made, `kubectl describe pod` why a pod does not begin",
            |what, last| Error::new(Kind::CheckFailed, format!("{what}: {last}")),
        )
    })
}

/// Waits until the pod has printed its whole result.
async fn printed(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    within: Duration,
    events: &Events,
) -> Result<String> {
    let wait = Wait::new(format!("pod {namespace}/{name} to be done"), within, events);
    let output = wait.until(async || {
        let log = cluster.logs(namespace, name, CONTAINER).await?;
        match frame::read(&log) {
            Ok(output) => Ok(Look::Done(output)),
            Err(why) => {
                let pod: Option<Pod> = cluster.get_of(Some(namespace), name).await?;
                let phase = pod.and_then(|pod| pod.status?.phase).unwrap_or_default();
                match phase.as_str() {
                    "Running" => Ok(Look::not_yet("it is at work")),
                    phase => Err(Error::new(
                        Kind::CheckFailed,
                        format!("pod {namespace}/{name} is {phase}: {why}"),
                    )),
                }
            }
        }
    });
    let output =
        output.await.map_err(|late| late.or(|what, last| Error::failed(format!("{what}: {last}"))))?;
    match output.status {
        0 => Ok(output.text),
        status => Err(Error::new(
            Kind::CheckFailed,
            format!("pod {namespace}/{name} failed with {status}: {}", output.text.trim()),
        )),
    }
}

/// # Errors
/// `CheckFailed` when what came back is not what was written, or when harm was not seen.
fn compared(
    context: &RunContext,
    what: &Comparison,
    record: &StepRecord<'_, '_>,
    events: &Events,
) -> Result<bool> {
    let listings = context.listings.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |step: &String| {
        listings.get(step).ok_or_else(|| Error::failed(format!("step {step} listed no files")))
    };
    let (before, after) = (of(&what.before)?, of(&what.after)?);
    let failed = |why: String, hint: &str| Err(Error::new(Kind::CheckFailed, why).hint(hint));
    if !matches!(before.written, Written::Now(_)) || matches!(after.written, Written::Now(_)) {
        return failed(
            "the restored volume was written anew, so nothing came back".into(),
            "was the restored volume empty? `nodeprep backup describe` says what the backup holds",
        );
    }
    let found = compare(before, after);
    if what.harmed {
        return match &after.harmed {
            Some(name) if found.is_only_content_of(name) => {
                events.say(format!("the changed byte of {name} was seen, and nothing else"));
                record.leave(SAME, "yes")?;
                Ok(false)
            }
            _ => failed(
                format!("a byte was changed, and the comparison says: {}", in_words(&found.lost)),
                "a comparison that does not see harm proves nothing; please report it",
            ),
        };
    }
    if !found.lost.is_empty() {
        return failed(
            format!("what came back is not what was written: {}", in_words(&found.lost)),
            "backups of this cluster do not restore what they were made of: look at Velero's versions and the store",
        );
    }
    let told = format!("{} files with {} came back as they were", found.files, BinaryBytes(found.bytes));
    let noted = if found.noted.is_empty() {
        String::new()
    } else {
        format!("; Velero does not keep: {}", in_words(&found.noted))
    };
    events.say(format!("{told}{noted}"));
    record.leave(SAME, &told)?;
    Ok(false)
}

/// # Errors
/// `CheckFailed` when the restore or the backup took longer than the file allows.
fn within_limits(limits: &DrillLimits, record: &StepRecord<'_, '_>, events: &Events) -> Result<bool> {
    let time = |step: &str, name: &str| -> Result<u64> {
        let text = record.of(step, name)?;
        text.parse().map_err(|_| Error::failed(format!("step {step}: {name} is {text}, which is no time")))
    };
    let rto = time(&limits.read, SEEN)?.saturating_sub(time(&limits.restore, ASKED)?);
    let rpo = time(&limits.backed_up, ENDED)?.saturating_sub(time(&limits.written, WROTE)?);
    record.leave(RTO, &rto.to_string())?;
    record.leave(RPO, &rpo.to_string())?;
    let (from, to) = (record.of(&limits.written, NODE)?, record.of(&limits.read, NODE)?);
    let place =
        if from == to { format!("on the same node, {to},") } else { format!("on another node, {to},") };
    events.say(format!(
        "restored {place} in {rto} s (RTO), {rpo} s after the last byte it was in a backup (RPO)"
    ));
    let over = |what: &str, took: u64, most: Option<intent::Duration>| {
        let most = most.filter(|most| took > most.0)?;
        Some(format!("the {what} took {took} s, more than the {most} of `backup.drill`"))
    };
    let late: Vec<String> =
        [over("restore", rto, limits.rto), over("backup", rpo, limits.rpo)].into_iter().flatten().collect();
    if late.is_empty() {
        record.leave(SAME, "yes")?;
        return Ok(false);
    }
    Err(Error::new(Kind::CheckFailed, late.join("; "))
        .hint("more CPU and memory for the node agents, a nearer store, or a limit that is true"))
}

/// Keeps what came of a drill in the cluster, beside those of before. One that somebody interrupted proves nothing, neither way.
async fn keep(context: &RunContext, what: &DrillRecord, record: &StepRecord<'_, '_>) -> Result<bool> {
    let cluster = context.cluster()?;
    let of = |step: &String, name: &str| record.of(step, name).ok();
    let seconds = |name: &str| of(&what.limits, name).and_then(|text| text.parse().ok());
    let (rto, rpo) = (seconds(RTO), seconds(RPO));
    let outcome = DrillOutcome {
        at: cluster.time().await?,
        class: what.class.clone(),
        passed: [&what.compared, &what.control, &what.limits].iter().all(|step| of(step, SAME).is_some()),
        compared: of(&what.compared, SAME),
        rto,
        rpo,
    };
    if !outcome.passed && *context.interrupted.borrow() {
        return Ok(false);
    }
    let live = cluster.get("v1", "ConfigMap", Some(&what.namespace), DRILLS).await?;
    let former = live.as_ref().map_or(&Value::Null, |live| &live["data"]);
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": DRILLS, "namespace": what.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "data": kept(former, &what.id, &outcome),
    });
    cluster.apply(&object).await.map(|_| true)
}
