//! Runs the checks in the order of the registry, and cleans up after them.

use std::sync::Mutex;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch;
use tokio::time::Instant;

use super::nodes::{Nodes, StorageNode, tolerations};
use super::scratch::Scratch;
use super::{CHECKS, Check, Context, Per, Run, Stop, Subject, broken, nodes};
use crate::error::{Error, Kind, Result};
use crate::event::{CheckResult, EventKind, Events, SubjectId, Verdict};
use crate::intent::Class;

/// The image of the test provisioner that stands in for OpenEBS where its own image can't be had.
const STAND_IN: &str = "openebs-standin";
/// Nodes that are probed at the same time.
const AT_ONCE: usize = 16;

/// What a run of the checks found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub results: Vec<CheckResult>,
    pub errors: Vec<Unrun>,
    /// It was run in a sandbox.
    pub simulated: bool,
}

/// A check that could not run.
#[derive(Debug)]
pub struct Unrun {
    pub id: String,
    pub subject: SubjectId,
    pub error: Error,
}

impl Outcome {
    /// Whether the run passed: nothing failed, everything could run, something passed, and what was asked for
    /// by name (`only`) was not skipped. Warnings fail it when `strict`.
    pub fn passed(&self, only: &[String], strict: bool) -> Result<()> {
        let is = |wanted: fn(&Verdict) -> bool| self.results.iter().filter(move |r| wanted(&r.verdict));
        let failed = is(|v| matches!(v, Verdict::Fail { .. })).count();
        let warned = is(|v| matches!(v, Verdict::Warn { .. })).count();
        let proves = |r: &&CheckResult| match r.verdict {
            Verdict::Warn { .. } => !r.without_subject,
            _ => matches!(r.verdict, Verdict::Pass { .. }),
        };
        let passed = self.results.iter().filter(proves).count();
        let asked = is(|v| matches!(v, Verdict::Skip { .. })).find(|r| only.contains(&r.id));
        let checks = |n: usize| if n == 1 { "1 check".to_owned() } else { format!("{n} checks") };
        let what = match () {
            () if failed > 0 => format!("{} failed", checks(failed)),
            () if !self.errors.is_empty() => format!("{} could not run", checks(self.errors.len())),
            () if asked.is_some() => format!("check {} was skipped", asked.map_or("", |r| r.id.as_str())),
            () if passed == 0 => "nothing was proven".to_owned(),
            () if strict && warned > 0 => format!("{} warned", checks(warned)),
            () => return Ok(()),
        };
        // An API server that is away, or takes no call of ours, proves nothing of the storage.
        let told = |kind| self.errors.iter().find(move |unrun| unrun.error.kind == kind);
        let away = told(Kind::Unavailable).or_else(|| told(Kind::Invalid));
        Err(match away.filter(|_| failed == 0) {
            Some(unrun) => Error { what: format!("{what}: {}", unrun.error.what), ..unrun.error.clone() },
            None => Error::new(Kind::CheckFailed, what),
        })
    }
}

/// Runs the checks (those of `only`, or all, without those of `skip`), and removes the test objects whatever
/// happens. Errors: an unknown check, a cluster that can't be read, interrupted through `cancel`, or test
/// objects that could not be removed.
pub async fn run(
    ctx: &Context,
    only: &[String],
    skip: &[String],
    cancel: watch::Receiver<bool>,
) -> Result<Outcome> {
    let checks = chosen(only, skip)?;
    let run = Run { ctx, scratch: Scratch::new(ctx)?, probed: Mutex::default() };
    let judged = tokio::select! {
        biased;
        judged = all(&run, &checks) => judged,
        () = cancelled(cancel) => Err(Error::new(Kind::Interrupted, "interrupted while checking")),
    };
    let removed = run.scratch.remove().await;
    match (judged, removed) {
        (Ok(outcome), Ok(())) => Ok(outcome),
        (Ok(mut outcome), Err(error)) => {
            outcome.errors.push(Unrun { id: "cleanup".into(), subject: SubjectId::Cluster, error });
            Ok(outcome)
        }
        (Err(error), Ok(())) => Err(error),
        (Err(mut error), Err(left)) => {
            error.what = format!("{}; {}", error.what, left.what);
            error.hint = left.hint;
            Err(error)
        }
    }
}

async fn cancelled(mut cancel: watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn chosen(only: &[String], skip: &[String]) -> Result<Vec<Check>> {
    if let Some(unknown) = only.iter().chain(skip).find(|id| !CHECKS.iter().any(|c| c.id == *id)) {
        let known: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
        return Err(Error::invalid(format!("there is no check `{unknown}`"))
            .hint(format!("the checks are {}", known.join(", "))));
    }
    let wanted =
        |c: &Check| (only.is_empty() || only.iter().any(|o| o == c.id)) && !skip.iter().any(|s| s == c.id);
    Ok(CHECKS.iter().copied().filter(wanted).collect())
}

async fn all(run: &Run<'_>, checks: &[Check]) -> Result<Outcome> {
    let labels = labels(run).await?;
    let sites = sites(run.ctx).await?;
    let mut outcome = Outcome { simulated: run.ctx.cluster.simulated(), ..Outcome::default() };
    for check in checks {
        for group in subjects(run.ctx, check, &sites) {
            let judged = stream::iter(&group).map(|subject| judge(run, check, subject, &outcome, &labels));
            let judged: Vec<_> = judged.buffered(AT_ONCE).collect().await;
            for result in judged {
                match result {
                    Ok(result) => outcome.results.push(result),
                    Err(unrun) => outcome.errors.push(unrun),
                }
            }
        }
    }
    Ok(outcome)
}

/// The label `simulated` in a sandbox, and `stand-in` when the provisioner is the test stand-in.
async fn labels(run: &Run<'_>) -> Result<Vec<String>> {
    if run.ctx.cluster.simulated() {
        return Ok(vec!["simulated".to_owned()]);
    }
    for provisioner in run.ctx.intent.provisioners() {
        let pods = Api::<Pod>::namespaced(run.ctx.cluster.client(), provisioner.namespace());
        let pods = pods.list(&ListParams::default()).await;
        let pods = pods.map_err(broken(format!("can't list pods of {}", provisioner.namespace())))?;
        let mut images = pods.iter().filter_map(|p| p.spec.as_ref()).flat_map(|s| &s.containers);
        if images.any(|c| c.image.as_deref().is_some_and(|image| image.contains(STAND_IN))) {
            return Ok(vec!["stand-in".to_owned()]);
        }
    }
    Ok(Vec::new())
}

/// The nodes that each class of the file is judged on, in the file's order.
///
/// # Errors
/// `Kind::Invalid`: a node is asked for that is neither the file's nor the cluster's.
async fn sites(ctx: &Context) -> Result<Vec<Vec<StorageNode>>> {
    let listed = Api::<Node>::all(ctx.cluster.client()).list(&ListParams::default()).await;
    let listed = listed.map_err(broken("can't list nodes"))?.items;
    let classes = Api::<StorageClass>::all(ctx.cluster.client()).list(&ListParams::default()).await;
    let classes = classes.map_err(broken("can't list storage classes"))?.items;
    let nodes = Nodes { listed: &listed, intent: &ctx.intent, names: &ctx.names, scope: &ctx.scope };
    if let Some(unknown) = nodes.unknown().first() {
        let known: Vec<_> = listed.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        return Err(Error::invalid(format!(
            "--nodes {unknown}: neither the file nor the cluster has such a node"
        ))
        .hint(format!("the cluster has {}", known.join(", "))));
    }
    let drivers = match ctx.intent.classes.iter().any(|class| class.csi.is_some()) {
        true => nodes::drivers(&ctx.cluster).await?,
        false => Vec::new(),
    };
    let of = |class: &Class| {
        let live = classes.iter().find(|live| live.metadata.name.as_ref() == Some(&class.name));
        let mut found = nodes.of(class, live);
        if let Some(csi) = &class.csi {
            found.retain(|node| nodes::has_driver(&drivers, &node.name, &csi.driver));
        }
        found
    };
    Ok(ctx.intent.classes.iter().map(of).collect())
}

/// The subjects of a check, in groups: those of one group are on different nodes and are judged together.
fn subjects<'a>(ctx: &'a Context, check: &Check, sites: &[Vec<StorageNode>]) -> Vec<Vec<Subject<'a>>> {
    let subject = |class, node: Option<&StorageNode>, nodes: &[StorageNode]| {
        let fit = || nodes.iter().filter(|node| node.unfit.is_none() && !node.beyond);
        let hosts = match node {
            Some(node) => vec![node.hostname.clone()],
            None => fit().map(|node| node.hostname.clone()).collect(),
        };
        let tolerations = node.map_or_else(|| tolerations(fit()), |node| tolerations([node]));
        let mut subject =
            Subject { class, node: node.cloned(), hosts, tolerations, events: ctx.events.clone() };
        subject.events = ctx.events.of(subject.name(), check.id);
        subject
    };
    let classes = ctx.intent.classes.iter().zip(sites);
    let on_nodes = |class, nodes: &[StorageNode]| {
        let judged = nodes.iter().filter(|node| check.per == Per::Allowed || !node.beyond);
        let on: Vec<_> = judged.map(|node| subject(Some(class), Some(node), nodes)).collect();
        if on.is_empty() { vec![subject(Some(class), None, nodes)] } else { on }
    };
    match check.per {
        Per::Cluster | Per::Backup => vec![vec![subject(None, None, &[])]],
        Per::Node | Per::Allowed => classes.map(|(class, nodes)| on_nodes(class, nodes)).collect(),
        Per::Class => classes.map(|(class, nodes)| vec![subject(Some(class), None, nodes)]).collect(),
    }
}

/// Why a check is not made on a subject: its node can't hold volumes now, which is told once, or another check failed.
fn skipped(check: &Check, subject: &Subject<'_>, before: &Outcome) -> Option<String> {
    match subject.node.as_ref().and_then(|node| node.unfit.as_ref()) {
        Some(_) if check.per == Per::Allowed => None,
        Some(unfit) => Some(unfit.why.clone()),
        None => blocked(check, &subject.id(), before),
    }
}

async fn judge(
    run: &Run<'_>,
    check: &Check,
    subject: &Subject<'_>,
    before: &Outcome,
    labels: &[String],
) -> Result<CheckResult, Unrun> {
    let started = Instant::now();
    subject.events.send(EventKind::StepStarted { title: check.title.to_owned() });
    let verdict = match skipped(check, subject, before) {
        Some(why) => Verdict::skip(why),
        None => match (check.judge)(run, subject).await {
            Ok(verdict) => verdict,
            Err(Stop::Fault { why, hint }) => Verdict::fail(why, hint),
            Err(Stop::Error(error)) => {
                report_error(&subject.events, &error);
                return Err(Unrun { id: check.id.into(), subject: subject.id(), error });
            }
        },
    };
    let result = CheckResult {
        id: check.id.to_owned(),
        title: check.title.to_owned(),
        subject: subject.id(),
        seconds: started.elapsed().as_secs_f64(),
        verdict,
        labels: labels.to_vec(),
        without_subject: check.per == Per::Backup && run.ctx.intent.backup.is_none(),
    };
    subject.events.send(EventKind::Checked { check: result.clone() });
    Ok(result)
}

fn report_error(events: &Events, error: &Error) {
    events.send(EventKind::StepFailed { error: error.what.clone(), hint: error.hint.clone() });
}

/// Why a check makes no sense: one that it needs did not pass on the same subject.
fn blocked(check: &Check, subject: &SubjectId, before: &Outcome) -> Option<String> {
    let needed = |id: &str, of: &SubjectId| check.needs.contains(&id) && of.concerns(subject);
    let failed = before.results.iter().find_map(|r| {
        let how = match r.verdict {
            Verdict::Fail { .. } => "failed",
            Verdict::Skip { .. } => "was skipped",
            Verdict::Pass { .. } | Verdict::Warn { .. } => return None,
        };
        needed(&r.id, &r.subject).then(|| format!("needs check {}, which {how} for {}", r.id, r.subject))
    });
    failed.or_else(|| {
        let unrun = before.errors.iter().find(|e| needed(&e.id, &e.subject))?;
        Some(format!("needs check {}, which could not run for {}", unrun.id, unrun.subject))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn result(id: &str, subject: &str, verdict: Verdict) -> CheckResult {
        let (title, labels) = (String::new(), Vec::new());
        let (id, subject) = (id.into(), subject.to_owned().into());
        CheckResult { id, title, subject, seconds: 0.0, verdict, labels, without_subject: false }
    }

    #[test]
    fn a_warning_that_there_is_nothing_to_judge_proves_nothing_whatever_it_says() {
        let passed = |without_subject: bool| {
            let warned = result("backup", "cluster", Verdict::warn("x", "y"));
            let results = vec![CheckResult { without_subject, ..warned }];
            Outcome { results, errors: Vec::new(), simulated: false }.passed(&[], false).is_ok()
        };
        assert!(passed(false) && !passed(true));
    }

    #[test]
    fn a_check_is_skipped_when_one_it_needs_did_not_pass_on_its_subject() {
        let fio = CHECKS.iter().find(|c| c.id == "fio").unwrap();
        let failed = |subject| Outcome {
            results: vec![result("pvc", subject, Verdict::fail("x", "y"))],
            errors: Vec::new(),
            simulated: false,
        };
        for (of, subject, skipped) in [
            ("a on n1", "a on n1", true),
            ("a on n1", "a on n2", false),
            ("a on n1", "a on n10", false),
            ("a", "a on n2", true),
            ("a", "ab", false),
            ("a", "b on n1", false),
            ("cluster", "a", true),
            ("a", "cluster", true),
        ] {
            let id = subject.to_owned().into();
            assert_eq!(blocked(fio, &id, &failed(of)).is_some(), skipped, "{of}: {subject}");
        }
        let skip = vec![result("pvc", "a", Verdict::skip("x"))];
        assert!(
            blocked(
                fio,
                &SubjectId::Class("a".into()),
                &Outcome { results: skip, errors: Vec::new(), simulated: false }
            )
            .is_some()
        );
        let warned = vec![result("pvc", "a", Verdict::warn("x", "y"))];
        assert!(
            blocked(
                fio,
                &SubjectId::Class("a".into()),
                &Outcome { results: warned, errors: Vec::new(), simulated: false }
            )
            .is_none()
        );
        let error =
            Unrun { id: "pvc".into(), subject: SubjectId::Class("a".into()), error: Error::failed("x") };
        assert!(
            blocked(
                fio,
                &SubjectId::Class("a".into()),
                &Outcome { results: Vec::new(), errors: vec![error], simulated: false }
            )
            .is_some()
        );
        let other = vec![result("backup", "cluster", Verdict::fail("x", "y"))];
        assert!(
            blocked(
                fio,
                &SubjectId::Class("a".into()),
                &Outcome { results: other, errors: Vec::new(), simulated: false }
            )
            .is_none()
        );
    }

    #[test]
    fn a_run_passes_only_when_something_was_proven_and_nothing_is_open() {
        let (pass, warn) = (|| Verdict::pass("ok"), || Verdict::warn("x", "y"));
        for (verdicts, only, strict, passed) in [
            (vec![pass()], None, true, true),
            (vec![pass(), warn()], None, false, true),
            (vec![pass(), warn()], None, true, false),
            (vec![pass(), Verdict::fail("x", "y")], None, false, false),
            (vec![Verdict::skip("x")], None, false, false),
            (vec![pass(), Verdict::skip("x")], None, false, true),
            (vec![pass(), Verdict::skip("x")], Some("c1"), false, false),
            (vec![], None, false, false),
        ] {
            let only: Vec<String> = only.into_iter().map(str::to_owned).collect();
            let results =
                verdicts.into_iter().enumerate().map(|(i, v)| result(&format!("c{i}"), "a", v)).collect();
            let mut outcome = Outcome { results, errors: Vec::new(), simulated: false };
            assert_eq!(outcome.passed(&only, strict).is_ok(), passed, "{outcome:?}");
            let error =
                Unrun { id: "x".into(), subject: SubjectId::Class("a".into()), error: Error::failed("x") };
            outcome.errors.push(error);
            assert_eq!(outcome.passed(&only, strict).unwrap_err().kind, Kind::CheckFailed);
        }
    }

    #[test]
    fn an_unknown_check_is_refused_with_the_known_ones() {
        let error = chosen(&["pvx".to_owned()], &[]).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.hint.unwrap().contains("binding-mode"));
        let ids = |only: &[&str], skip: &[&str]| -> Vec<&str> {
            let own = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
            chosen(&own(only), &own(skip)).unwrap().iter().map(|c| c.id).collect()
        };
        assert_eq!(ids(&[], &[]).len(), CHECKS.len());
        assert_eq!(ids(&["fio", "pvc"], &["fio"]), ["pvc"]);
    }

    #[test]
    fn a_check_needs_only_checks_that_run_before_it() {
        for (at, check) in CHECKS.iter().enumerate() {
            for need in check.needs {
                assert!(CHECKS[..at].iter().any(|c| c.id == *need), "{} needs {need}", check.id);
            }
        }
    }
}
