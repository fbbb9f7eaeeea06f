//! The stack's steps: one per object that would change, and the waits that its order needs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::step::after;
use super::{Action, Effect, ObjectAction, Plan, Skipped, Step, Target, WaitAction};
use crate::error::{Error, Result};
use crate::intent::{Class, Intent, Provisioner};
use crate::model::cluster::{ClusterState, DryRun, Leftovers, ObjectState};
use crate::model::object::{Object, Ready};
use crate::stack::StackItem;

mod backup;
mod diff;
mod placement;
mod prune;

use prune::Pruned;

pub use backup::{DIFFERS, OLD_AND_NEW, in_the_clear, same, unprotected};

/// The fields of a StorageClass that the API server never changes.
/// Source: k8s.io/kubernetes, pkg/apis/storage/validation, ValidateStorageClassUpdate.
const FIXED: [&str; 4] = ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"];

/// What must change in the cluster for the items to be there, in their order. `observed` is of the same items.
///
/// # Errors
/// `Refused` when an object that would change belongs to Helm, Flux or Argo CD, when another manager holds a field, when
/// a StorageClass would have to be replaced, or when no node can run a workload's pods; `Failed` when the API server does not take an object.
pub fn plan(intent: &Intent, items: &[StackItem], observed: &ClusterState) -> Result<Plan> {
    let mut plan = Plan { skipped: skipped(intent), warnings: warnings(intent, observed), ..Plan::default() };
    let Pruned { first, mut last, warnings } = prune::plan(intent, items, observed)?;
    plan.warnings.extend(warnings);
    let (mut foreign, mut order) = (Vec::new(), Order::default());
    for item in items {
        match item {
            StackItem::Object(object) => {
                let state = state_of(object, observed)?;
                if let Some(why) = unserved(state, items) {
                    plan.skipped.push(Skipped { what: object.title(), why });
                    continue;
                }
                let steps = object_steps(state, observed)?;
                if let (false, Some(owner)) = (steps.is_empty(), &state.owner) {
                    foreign.push((object.title(), owner.clone()));
                }
                order.component = object.component;
                order.add(&mut plan.steps, steps, object.namespace());
            }
            StackItem::Ready(ready) => {
                let step = ready_step(ready, observed, &plan.steps);
                order.add(&mut plan.steps, step, None);
            }
        }
    }
    after(&first, &mut plan.steps);
    plan.steps.splice(0..0, first);
    after(&plan.steps, &mut last);
    plan.steps.extend(last);
    placed(intent, items, observed, &plan.steps)?;
    if foreign.is_empty() { Ok(plan) } else { Err(owned(&foreign)) }
}

/// What comes after what: the steps of a component one after the other, and those of another one at the same time.
#[derive(Default)]
struct Order {
    /// Of the item that is being planned.
    component: &'static str,
    /// The last step of each component.
    last: BTreeMap<&'static str, String>,
}

impl Order {
    fn add(&mut self, plan: &mut Vec<Step>, steps: impl IntoIterator<Item = Step>, namespace: Option<&str>) {
        let namespace = namespace.map(|name| id("object", None, "Namespace", name));
        for mut step in steps {
            step.needs.extend(self.last.insert(self.component, step.id.clone()));
            // Components may share a namespace, which the first of them makes.
            let made = plan.iter().find(|other| Some(&other.id) == namespace.as_ref());
            step.needs.extend(made.map(|made| made.id.clone()).filter(|made| !step.needs.contains(made)));
            plan.push(step);
        }
    }
}

/// The plan where the file asks for nothing to be installed: what was installed before is named.
///
/// # Errors
/// As [`plan`].
pub fn plan_nothing(intent: &Intent, leftovers: Leftovers) -> Result<Plan> {
    let observed = ClusterState { leftovers, ..ClusterState::default() };
    let left = prune::plan(intent, &[], &observed)?.warnings;
    let warnings = backup::unprotected(intent).into_iter().chain(left).collect();
    Ok(Plan { warnings, ..Plan::default() })
}

/// What is made or changed, or is not ready, must have a node to run on.
fn placed(intent: &Intent, items: &[StackItem], observed: &ClusterState, steps: &[Step]) -> Result<()> {
    let of = |object: &Object| {
        let ids = ["object", "ready"].map(|what| id(what, object.namespace(), object.kind(), object.name()));
        steps.iter().any(|step| ids.contains(&step.id))
    };
    for item in items {
        if let StackItem::Object(object) = item
            && of(object)
            && let Some(refusal) = placement::refusal(intent, object, &observed.nodes)
        {
            return Err(refusal);
        }
    }
    Ok(())
}

fn skipped(intent: &Intent) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    let mut skip = |what: &str, why: String| skipped.push(Skipped { what: what.into(), why });
    if let Some(external) = &intent.provisioner.external {
        skip("provisioner", format!("{} is installed by somebody else", external.name));
    } else if intent.provisioner.openebs.is_none() {
        skip("provisioner", "there is no `provisioner` in the file".into());
    }
    if intent.backup.is_none() {
        skip("backup", "there is no `backup` in the file".into());
    }
    skipped
}

fn warnings(intent: &Intent, observed: &ClusterState) -> Vec<String> {
    let mut said = default_classes(intent, observed);
    said.extend(backup::warnings(intent, observed));
    said
}

fn default_classes(intent: &Intent, observed: &ClusterState) -> Vec<String> {
    let installed = |class: &&Class| !matches!(intent.provisioner_of(class), Some(Provisioner::External(_)));
    let Some(ours) = intent.classes.iter().filter(installed).find(|class| class.default) else {
        return Vec::new();
    };
    let others = observed.default_classes.iter().filter(|name| **name != ours.name);
    let warn = |other| {
        format!("StorageClass {other} is the default too: of several, the newest is taken; unmark one")
    };
    others.map(warn).collect()
}

fn state_of<'a>(object: &Object, observed: &'a ClusterState) -> Result<&'a ObjectState> {
    let same = |state: &&ObjectState| {
        state.wanted.api_version() == object.api_version() && state.wanted.title() == object.title()
    };
    let missing = || Error::failed(format!("{} was not looked at before planning", object.title()));
    observed.objects.iter().find(same).ok_or_else(missing)
}

/// Why the object can't be made at all: the cluster does not serve its kind, and nothing of the plan brings it.
fn unserved(state: &ObjectState, items: &[StackItem]) -> Option<String> {
    let DryRun::NotServed(why) = &state.dry_run else { return None };
    let wanted = &state.wanted;
    let group = wanted.api_version().split_once('/').map_or("", |(group, _)| group);
    let brings = |item: &StackItem| match item {
        StackItem::Object(crd) if crd.kind() == "CustomResourceDefinition" => {
            let spec = &crd.value["spec"];
            spec["group"] == group && spec["names"]["kind"] == wanted.kind()
        }
        _ => false,
    };
    (!items.iter().any(brings)).then(|| why.clone())
}

/// The steps that make one object be as wanted; none when it is.
fn object_steps(state: &ObjectState, observed: &ClusterState) -> Result<Vec<Step>> {
    let object = &state.wanted;
    if let (Some(live), None) = (&state.live, &state.owner)
        && prune::WORKLOADS.contains(&object.kind())
        && object.value["spec"]["selector"] != live["spec"]["selector"]
    {
        let why = "the labels by which it finds its pods are others now, and can't be changed in place";
        let gone = prune::removal(live, why, &observed.leftovers)?;
        let made = step(object, "create", "it was deleted", diff::changed(object, live, &object.value));
        return Ok(vec![gone, Step { effect: Effect::Create, ..made }]);
    }
    Ok(object_step(state)?.into_iter().collect())
}

fn object_step(state: &ObjectState) -> Result<Option<Step>> {
    let object = &state.wanted;
    let title = object.title();
    let Some(live) = &state.live else {
        return match &state.dry_run {
            DryRun::Would(_) | DryRun::NotYet(_) | DryRun::NotServed(_) => Ok(Some(Step {
                effect: Effect::Create,
                ..step(object, "create", "it is not there", diff::created(object))
            })),
            DryRun::Conflict(text) | DryRun::Refused(text) => Err(not_taken(text)),
        };
    };
    if object.create_only {
        return Ok(None);
    }
    if object.kind() == "StorageClass" && state.owner.is_none() {
        refuse_fixed(&object.value, live)?;
    }
    match &state.dry_run {
        DryRun::Would(would) if diff::content(live) == diff::content(would) => Ok(None),
        DryRun::Would(would) => {
            let diff = diff::changed(object, live, would);
            Ok(Some(step(object, "change", "it differs from what is asked", diff)))
        }
        // Its owner is the reason, and is named by the caller.
        _ if state.owner.is_some() => Ok(Some(step(object, "change", "it differs from what is asked", String::new()))),
        DryRun::Conflict(text) => Err(Error::refused(text).hint(
            "change nodeprep.yaml to what is there, or let the other manager give these fields up; nodeprep never \
             takes a field by force",
        )),
        DryRun::Refused(text) => Err(not_taken(text)),
        DryRun::NotYet(why) | DryRun::NotServed(why) => Err(Error::unavailable(format!("{title}: {why}, but the object is; look again"))),
    }
}

fn not_taken(text: &str) -> Error {
    Error::failed(text).hint("the API server refused it in a dry run; nothing was changed")
}

fn step(object: &Object, verb: &str, why: &str, diff: String) -> Step {
    let id = id("object", object.namespace(), object.kind(), object.name());
    let title = format!("{verb} {}", object.title());
    let action = Action::Object(ObjectAction::Apply(object.clone()));
    Step { why: why.into(), diff, ..Step::new(id, Target::Cluster, title, action) }
}

fn id(what: &str, namespace: Option<&str>, kind: &str, name: &str) -> String {
    let parts = [Some(what), namespace, Some(kind), Some(name)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// A wait is needed when its condition does not hold, or holds only for what is about to be replaced.
fn ready_step(ready: &Ready, observed: &ClusterState, before: &[Step]) -> Option<Step> {
    let lacks = observed.waits.iter().find(|wait| wait.ready == *ready).and_then(|wait| wait.lacks.clone());
    let changes = |kind: &str, namespace: Option<&str>, name: &str| {
        let id = id("object", namespace, kind, name);
        before.iter().any(|step| step.id == id)
    };
    let (_, kind, namespace, name) = ready.subject();
    let why = match lacks {
        Some(lacks) => lacks,
        None if changes(kind, namespace, name) => "it changes".into(),
        None => return None,
    };
    let title = format!("wait for {}", ready.title());
    let action = Action::Wait(WaitAction::Ready(ready.clone()));
    Some(Step { why, ..Step::new(id("ready", namespace, kind, name), Target::Cluster, title, action) })
}

fn refuse_fixed(wanted: &Value, live: &Value) -> Result<()> {
    let differs = |field: &&&str| !wanted[**field].is_null() && wanted[**field] != live[**field];
    let fixed: Vec<String> = FIXED
        .iter()
        .filter(differs)
        .map(|field| format!("{field} is {}, asked for is {}", live[*field], wanted[*field]))
        .collect();
    if fixed.is_empty() {
        return Ok(());
    }
    let name = live["metadata"]["name"].as_str().unwrap_or_default();
    let what = format!("StorageClass {name} can't be changed in place: {}", fixed.join("; "));
    Err(Error::refused(what).hint(format!(
        "`kubectl delete storageclass {name}` and run again (volumes and claims that exist stay as they are), or give \
         the class in nodeprep.yaml another name"
    )))
}

/// What belongs to somebody else, by owner.
fn owned(foreign: &[(String, String)]) -> Error {
    let mut owners: Vec<&str> = foreign.iter().map(|(_, owner)| owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let each = |owner: &&str| {
        let objects: Vec<&str> =
            foreign.iter().filter(|(_, o)| o == owner).map(|(title, _)| title.as_str()).collect();
        format!("{} belongs to {owner}", objects.join(", "))
    };
    Error::refused(owners.iter().map(each).collect::<Vec<_>>().join("; ")).hint(
        "its owner would put everything back: make the change there (`provisioner: external` and no `backup` leave the \
         installation to it), or uninstall it there first",
    )
}
