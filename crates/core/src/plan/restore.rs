//! A restore, as a plan: what Velero is asked for, and that it came of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::step::chain;
use super::{Action, AwaitRestore, ObjectAction, Plan, RestoreRequest, Step, Target, VeleroAction, Wanted};
use crate::error::{Error, Result, together};
use crate::judge::backup::{ReadVolume, phase};
use crate::judge::coverage::{ClaimName, name_of};
use crate::judge::restore::{Contents, Live, Obstacles, RestoreScope, named, obstacles};
use crate::judge::velero::kinds::Backup;
use crate::model::object::Object;
use crate::stack::MANAGED_BY;

/// The id of the step that makes the Restore.
const MAKE: &str = "restore/make";
/// The ConfigMap with what a restore changes of the objects on their way. Source: velero site, restore-resource-modifiers.md.
pub const MODIFIERS: &str = "nodeprep-restore";

/// What a person asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreAsked {
    pub scope: RestoreScope,
    /// This claim alone, with its pods.
    pub claim: Option<ClaimName>,
    /// What exists already stays, and the rest is restored.
    pub skip_existing: bool,
    /// A backup that lacks something is good enough.
    pub allow_partially_failed: bool,
}

impl RestoreAsked {
    /// Nothing of the backup is left out.
    pub fn is_everything(&self) -> bool {
        self.claim.is_none() && self.scope.namespaces.is_empty()
    }
}

/// What a restore is planned from.
#[derive(Debug)]
pub struct RestoreFacts<'a> {
    /// Velero's namespace.
    pub velero: &'a str,
    pub backup: &'a Backup,
    /// All that was read for the backup.
    pub volumes: &'a [ReadVolume],
    /// Nothing when the store can't be read from here.
    pub contents: Option<&'a Contents>,
}

/// Plans a restore beside what exists.
///
/// # Errors
/// `Invalid` for what the backup does not hold, `Refused` when files would not come back where something exists already,
/// `Unavailable` while a namespace ends.
pub fn plan(asked: &RestoreAsked, facts: &RestoreFacts<'_>, live: &Live) -> Result<Plan> {
    let chosen = choose(asked, facts)?;
    let mut found = obstacles(&chosen.wanted, &asked.scope, chosen.judged(facts), live);
    stand_in_the_way(asked, &found)?;
    let left: BTreeSet<&String> = found.existing.iter().collect();
    let mut warnings: Vec<String> =
        left.iter().map(|what| format!("{what} exists already and is left as it is")).collect();
    let stays = |volume: &ReadVolume| {
        asked.scope.claim(volume).is_some_and(|claim| left.contains(&format!("claim {claim}")))
    };
    let wanted: Vec<ReadVolume> = chosen.wanted.iter().filter(|volume| !stays(volume)).cloned().collect();
    warnings.extend(chosen.along);
    warnings.append(&mut found.warnings);
    warnings.extend(found.bare.iter().map(|(claim, why)| format!("claim {claim}: {why}")));
    let lost = wanted.iter().filter_map(|volume| Some((volume, volume.fault.as_ref()?)));
    warnings.extend(lost.map(|(volume, why)| format!("{volume}: its files are not in the backup: {why}")));
    let spec = spec(asked, facts, &chosen.labels);
    let steps = steps(asked, facts, spec, wanted, found.bare);
    Ok(Plan { steps, warnings, ..Plan::default() })
}

/// Goes on with a Restore that was asked for in the same words: what exists by now is what it brought.
///
/// # Errors
/// `Invalid` for what the backup does not hold.
pub fn go_on(asked: &RestoreAsked, facts: &RestoreFacts<'_>) -> Result<Plan> {
    let chosen = choose(asked, facts)?;
    let bare = obstacles(&chosen.wanted, &asked.scope, chosen.judged(facts), &Live::default()).bare;
    let spec = spec(asked, facts, &chosen.labels);
    Ok(Plan { steps: steps(asked, facts, spec, chosen.wanted, bare), ..Plan::default() })
}

/// All that Velero would be asked for.
///
/// # Errors
/// `Invalid` for what the backup does not hold.
pub fn request(asked: &RestoreAsked, facts: &RestoreFacts<'_>) -> Result<String> {
    Ok(words(asked, &spec(asked, facts, &choose(asked, facts)?.labels)))
}

fn words(asked: &RestoreAsked, spec: &Value) -> String {
    json!({"spec": spec, "classes": asked.scope.classes}).to_string()
}

fn stand_in_the_way(asked: &RestoreAsked, found: &Obstacles) -> Result<()> {
    let mut errors = Vec::new();
    if !found.existing.is_empty() && !asked.skip_existing {
        let beside = "--namespace-mappings OLD:NEW restores beside what exists; --skip-existing leaves it as it is and restores \
                      the rest; what is to be replaced has to be deleted first";
        let what = format!("Velero leaves what exists as it is, with its files: {}", named(&found.existing));
        errors.push(Error::refused(what).hint(beside));
    }
    if !found.refused.is_empty() {
        let hint = "delete what is named (the backup has it too), or restore beside it with --namespace-mappings OLD:NEW";
        errors.push(Error::refused(named(&found.refused)).hint(hint));
    }
    if !found.ending.is_empty() {
        errors.push(Error::unavailable(named(&found.ending)).hint("run it again when it is gone"));
    }
    together(errors).map_or(Ok(()), Err)
}

/// What of the backup is asked for.
#[derive(Debug, Default)]
struct Chosen {
    wanted: Vec<ReadVolume>,
    /// One of these sets of labels has what comes back; empty for everything.
    labels: Vec<BTreeMap<String, String>>,
    /// What comes along unasked.
    along: Vec<String>,
}

impl Chosen {
    /// The objects that are judged: of one claim its own alone.
    fn judged<'a>(&self, facts: &RestoreFacts<'a>) -> Option<&'a Contents> {
        facts.contents.filter(|_| self.labels.is_empty())
    }
}

fn choose(asked: &RestoreAsked, facts: &RestoreFacts<'_>) -> Result<Chosen> {
    whole_enough(asked, facts)?;
    known_namespaces(&asked.scope, facts)?;
    match &asked.claim {
        Some(claim) => one_claim(claim, facts),
        None => {
            let taken = |volume: &&ReadVolume| asked.scope.takes(volume.namespace());
            Ok(Chosen { wanted: facts.volumes.iter().filter(taken).cloned().collect(), ..Chosen::default() })
        }
    }
}

fn whole_enough(asked: &RestoreAsked, facts: &RestoreFacts<'_>) -> Result<()> {
    let name = facts.backup.metadata.name.as_deref().unwrap_or_default();
    match phase(facts.backup) {
        "Completed" => Ok(()),
        "PartiallyFailed" if asked.allow_partially_failed => Ok(()),
        "PartiallyFailed" => Err(Error::refused(format!(
            "backup {name} is PartiallyFailed: it does not hold everything"
        ))
        .hint(format!(
            "`nodeprep backup describe {name}` says what it lacks; --allow-partially-failed restores the rest"
        ))),
        phase => Err(Error::invalid(format!("backup {name} is {phase}: nothing can be restored from it"))
            .hint("`nodeprep backup list` names those that are Completed")),
    }
}

fn known_namespaces(scope: &RestoreScope, facts: &RestoreFacts<'_>) -> Result<()> {
    let Some(contents) = facts.contents else { return Ok(()) };
    let held: BTreeSet<&str> = contents
        .entries
        .iter()
        .map(|entry| if entry.kind == "Namespace" { entry.name.as_str() } else { entry.namespace.as_str() })
        .filter(|name| !name.is_empty())
        .collect();
    let missing =
        scope.namespaces.iter().chain(scope.mappings.keys()).find(|name| !held.contains(name.as_str()));
    missing.map_or(Ok(()), |name| {
        let held: Vec<&str> = held.into_iter().collect();
        Err(Error::invalid(format!("the backup holds no namespace {name}"))
            .hint(format!("its namespaces are {}", held.join(", "))))
    })
}

/// A claim with its pods. Velero takes objects by their labels alone, and with a pod its claims.
/// Source: velero pkg/restore/actions/add_pvc_from_pod_action.go.
fn one_claim(claim: &ClaimName, facts: &RestoreFacts<'_>) -> Result<Chosen> {
    let contents = facts.contents.ok_or_else(|| {
        Error::invalid("--claim needs the backup's objects, which can't be read from here")
            .hint("--include-namespaces restores the claim's whole namespace, --namespace-mappings under another name")
    })?;
    let named = claim.to_string();
    let mut chosen = Chosen::default();
    let with_it: BTreeSet<&str> = facts
        .volumes
        .iter()
        .filter(|volume| volume.claim.as_deref() == Some(named.as_str()))
        .map(|volume| volume.pod.as_str())
        .collect();
    if with_it.is_empty() {
        return Err(Error::invalid(format!("the backup has no files of claim {claim}"))
            .hint("`nodeprep backup describe` lists the claims that it has"));
    }
    for pod in &contents.pods {
        if !with_it.contains(name_of(&pod.metadata).to_string().as_str()) {
            continue;
        }
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        if labels.is_empty() {
            return Err(Error::invalid(format!(
                "pod {} has no labels by which Velero could take it and claim {claim} alone",
                name_of(&pod.metadata)
            ))
            .hint("--include-namespaces restores the claim's whole namespace"));
        }
        chosen.labels.push(labels);
    }
    let taken = |labels: &BTreeMap<String, String>| {
        chosen.labels.iter().any(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let pods = contents.pods.iter().filter(|pod| {
        pod.metadata.namespace.as_deref() == Some(claim.namespace.as_str())
            && taken(pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
    });
    let pods: BTreeSet<String> = pods.map(|pod| name_of(&pod.metadata).to_string()).collect();
    chosen.wanted = facts.volumes.iter().filter(|volume| pods.contains(&volume.pod)).cloned().collect();
    let others = pods.iter().filter(|pod| !with_it.contains(pod.as_str()));
    chosen.along = others.map(|pod| format!("pod {pod} has the same labels, and comes along")).collect();
    let more = chosen.wanted.iter().filter(|volume| volume.claim.as_deref() != Some(named.as_str()));
    chosen.along.extend(more.map(|volume| format!("{volume} is of the same pod, and comes along")));
    Ok(chosen)
}

fn spec(asked: &RestoreAsked, facts: &RestoreFacts<'_>, labels: &[BTreeMap<String, String>]) -> Value {
    let scope = &asked.scope;
    let namespaces = match (&asked.claim, scope.namespaces.is_empty()) {
        (Some(claim), _) => vec![claim.namespace.clone()],
        (None, true) => vec!["*".to_owned()],
        (None, false) => scope.namespaces.clone(),
    };
    let mut spec = json!({
        "backupName": facts.backup.metadata.name,
        "includedNamespaces": namespaces,
        // A file with holes stays one: written full, it could need more than its disk has.
        "uploaderConfig": {"writeSparseFiles": true},
    });
    if !scope.left_out.is_empty() {
        spec["excludedNamespaces"] = json!(scope.left_out);
    }
    if !scope.mappings.is_empty() {
        spec["namespaceMapping"] = json!(scope.mappings);
    }
    if !labels.is_empty() {
        spec["orLabelSelectors"] = labels.iter().map(|labels| json!({"matchLabels": labels})).collect();
        spec["includedResources"] = json!(["pods", "persistentvolumeclaims", "persistentvolumes"]);
    }
    if !scope.classes.is_empty() {
        spec["resourceModifier"] = json!({"kind": "configmap", "name": MODIFIERS});
    }
    spec
}

fn steps(
    asked: &RestoreAsked,
    facts: &RestoreFacts<'_>,
    spec: Value,
    wanted: Vec<ReadVolume>,
    bare: BTreeMap<ClaimName, String>,
) -> Vec<Step> {
    let namespace = facts.velero.to_owned();
    let name = facts.backup.metadata.name.as_deref().unwrap_or_default();
    let mut steps = Vec::new();
    if !asked.scope.classes.is_empty() {
        let action = Action::Object(ObjectAction::Apply(modifiers(facts.velero, &asked.scope)));
        let title = format!("ConfigMap {namespace}/{MODIFIERS} with the classes that claims get");
        steps.push(Step::new("restore/classes", Target::Cluster, title, action));
    }
    let words = words(asked, &spec);
    let request = RestoreRequest {
        namespace: namespace.clone(),
        prefix: "nodeprep".into(),
        spec,
        words,
        backup: None,
        away_from: None,
    };
    let bytes: u64 = wanted.iter().filter_map(|volume| volume.bytes).sum();
    let why = match wanted.len() {
        0 => "it has no volume's files".to_owned(),
        1 => format!("with the files of one volume, {}", mebibytes(bytes)),
        many => format!("with the files of {many} volumes, {}", mebibytes(bytes)),
    };
    let title = format!("restore {} from backup {name}", what(asked));
    let make = VeleroAction::Restore(request);
    steps.push(Step { why, ..Step::new(MAKE, Target::Cluster, title, Action::Velero(make)) });
    let scope = asked.scope.clone();
    let seen = VeleroAction::AwaitRestore(AwaitRestore {
        of: MAKE.into(),
        namespace,
        wanted: Wanted::Volumes(wanted),
        scope,
        bare,
    });
    let title = "wait until all of it is back";
    steps.push(Step::new("restore/done", Target::Cluster, title, Action::Velero(seen)));
    chain(&mut steps);
    steps
}

/// What is restored, in words.
fn what(asked: &RestoreAsked) -> String {
    let to = |name: &str| match asked.scope.target(name) {
        same if same == name => name.to_owned(),
        other => format!("{name} as {other}"),
    };
    let all = || asked.scope.mappings.keys().map(|name| to(name)).collect::<Vec<_>>().join(", ");
    match (&asked.claim, asked.scope.namespaces.as_slice()) {
        (Some(claim), _) => match asked.scope.target(&claim.namespace) {
            same if same == claim.namespace => format!("claim {claim} with its pods"),
            other => format!("claim {claim} with its pods in namespace {other}"),
        },
        (None, []) if asked.scope.mappings.is_empty() => "everything".into(),
        (None, []) => format!("everything, namespace {}", all()),
        (None, [one]) => format!("namespace {}", to(one)),
        (None, many) => {
            format!("namespaces {}", many.iter().map(|name| to(name)).collect::<Vec<_>>().join(", "))
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Claims of a class get another one.
fn modifiers(velero: &str, scope: &RestoreScope) -> Object {
    let rules: Vec<Value> = scope
        .classes
        .iter()
        .map(|(old, new)| {
            json!({
                "conditions": {
                    "groupResource": "persistentvolumeclaims",
                    "matches": [{"path": "/spec/storageClassName", "value": old}],
                },
                "patches": [{"operation": "replace", "path": "/spec/storageClassName", "value": new}],
            })
        })
        .collect();
    let rules = json!({"version": "v1", "resourceModifierRules": rules}).to_string();
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": MODIFIERS, "namespace": velero, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "data": {"rules.yaml": rules},
    });
    Object { value, component: "velero", secret: false, create_only: false }
}
