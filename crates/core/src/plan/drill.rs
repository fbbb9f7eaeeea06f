//! A drill, as a plan: fresh files are written, backed up, destroyed, restored beside, and compared; then one byte is changed, which
//! the comparison has to see. All that it makes has its run's label, and goes at the end whatever came of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::action::{Comparison, DrillLimits, DrillRecord};
use super::restore::MODIFIERS;
use super::step::When;
use super::{
    Action, AwaitBackup, AwaitRestore, BackupRequest, Effect, JobAction, ObjectAction, Plan, RestoreRequest,
    Step, Target, Traces, VeleroAction, Wanted,
};
use crate::error::Result;
use crate::intent::{Backup, Duration, Size};
use crate::judge::coverage::{ClaimName, Covered};
use crate::judge::restore::RestoreScope;
use crate::judge::taints::beside_control_planes;
use crate::model::object::{EXPIRES, Object, TEST_RUN};
use crate::model::{HOSTNAME, frame};
use crate::stack::drill::{Amount, harm, write};
use crate::stack::{MANAGED_BY, backup_spec};

/// The claim, the pods, their container and their volume.
const CLAIM: &str = "files";
const WRITER: &str = "writer";
const HARMER: &str = "harmer";
pub const CONTAINER: &str = "files";
const VOLUME: &str = "files";
const FOLDER: &str = "/data";
/// How long what a drill made is kept from `cleanup`, and its backup in the store, when the drill itself did not remove them.
const LIFETIME: Duration = Duration(6 * 3600);

/// What a drill is to try.
#[derive(Debug, Clone)]
pub struct DrillAsked {
    /// Names it and all that it makes.
    pub id: String,
    pub begun: Timestamp,
    pub class: String,
    pub amount: Amount,
    pub image: String,
    /// Of its pods, beside control planes.
    pub tolerations: Vec<Value>,
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
}

impl DrillAsked {
    fn source(&self) -> String {
        format!("nodeprep-{}", self.id)
    }

    fn target(&self) -> String {
        format!("nodeprep-{}-back", self.id)
    }
}

/// Plans a drill.
///
/// # Errors
/// `Failed` when the template of a backup is broken.
pub fn plan(backup: &Backup, asked: &DrillAsked) -> Result<Plan> {
    let mut steps: Vec<Step> = Vec::new();
    let stages = before(backup, asked)?.into_iter().chain(after(backup, asked));
    for (stage, title, action) in stages {
        let former = steps.last().map(|step| step.id.clone());
        let step = Step::new(id(stage), Target::Cluster, title, action);
        steps.push(Step { needs: former.into_iter().collect(), ..step });
    }
    for (stage, of, title, action) in at_the_end(backup, asked) {
        let step = Step::new(id(stage), Target::Cluster, title, action);
        steps.push(Step { needs: vec![id(of)], when: When::Always, ..step });
    }
    Ok(Plan { steps: steps.into_iter().map(shown).collect(), ..Plan::default() })
}

/// What a step is called, its title, and what it does.
type Stage = (&'static str, String, Action);

fn id(stage: &str) -> String {
    format!("drill/{stage}")
}

/// Up to the moment when the files are only in the backup.
fn before(backup: &Backup, asked: &DrillAsked) -> Result<Vec<Stage>> {
    let (source, velero) = (asked.source(), backup.namespace.clone());
    let object = |value: Value| Action::Object(ObjectAction::Apply(ours(value, asked)));
    let spec = backup_spec(backup, std::slice::from_ref(&source), None, LIFETIME)?;
    let request = BackupRequest { namespace: velero.clone(), prefix: format!("nodeprep-{}", asked.id), spec };
    let claim = ClaimName { namespace: source.clone(), name: CLAIM.into() };
    let covered = Covered { claim, uid: String::new(), pod: WRITER.into(), volume: VOLUME.into() };
    let backed_up = VeleroAction::Await(AwaitBackup {
        of: id("backup"),
        namespace: velero,
        wanted: vec![covered],
        left_out: BTreeMap::new(),
        newer_than: Some(id("written")),
    });
    Ok(vec![
        ("namespace", format!("Namespace {source}"), object(namespace(&source, asked))),
        ("claim", format!("claim {source}/{CLAIM} of class {}", asked.class), object(claim_object(asked))),
        ("writer", format!("pod {source}/{WRITER}, which writes fresh files"), object(writer(asked))),
        ("written", "wait until the files are written".into(), listing(&source, WRITER)),
        ("backup", format!("back up namespace {source}"), Action::Velero(VeleroAction::Backup(request))),
        ("backed-up", "wait until the backup holds them".into(), Action::Velero(backed_up)),
        ("destroy", format!("Namespace {source} with the files"), delete(&source, asked)),
    ])
}

/// From then on.
fn after(backup: &Backup, asked: &DrillAsked) -> Vec<Stage> {
    let (source, target) = (asked.source(), asked.target());
    let mappings = [(source, target.clone())].into();
    let restored = VeleroAction::AwaitRestore(AwaitRestore {
        of: id("restore"),
        namespace: backup.namespace.clone(),
        wanted: Wanted::OfBackup(id("backup")),
        scope: RestoreScope { mappings, ..RestoreScope::default() },
        bare: BTreeMap::new(),
    });
    let restore = Action::Velero(VeleroAction::Restore(restore(backup, asked)));
    let compare = |after: &str, harmed: bool| {
        Action::Job(JobAction::Compare(Comparison { before: id("written"), after: id(after), harmed }))
    };
    let harmer = Action::Object(ObjectAction::Apply(ours(harmer(asked), asked)));
    vec![
        ("restore", format!("restore them into namespace {target}"), restore),
        ("restored", "wait until they are back".into(), Action::Velero(restored)),
        ("read", "wait until they are read".into(), listing(&target, WRITER)),
        ("compare", "compare them file by file".into(), compare("read", false)),
        ("harmer", format!("pod {target}/{HARMER}, which changes one byte"), harmer),
        ("harmed", "wait until one is changed".into(), listing(&target, HARMER)),
        ("control", "see that the comparison finds that byte".into(), compare("harmed", true)),
        ("limits", "judge how long it took".into(), Action::Job(JobAction::Limits(limits(asked)))),
    ]
}

/// Whatever came of it, each if this step was begun.
fn at_the_end(backup: &Backup, asked: &DrillAsked) -> [(&'static str, &'static str, String, Action); 4] {
    let (source, target, velero) = (asked.source(), asked.target(), backup.namespace.clone());
    let record = JobAction::Record(DrillRecord {
        namespace: velero.clone(),
        id: asked.id.clone(),
        class: asked.class.clone(),
        compared: id("compare"),
        control: id("control"),
        limits: id("limits"),
    });
    let traces = Traces { namespace: velero, backup: id("backup"), restore: id("restore") };
    let forget = Action::Velero(VeleroAction::Forget(traces));
    [
        ("record", "namespace", "keep what came of it".into(), Action::Job(record)),
        ("clean-target", "restore", format!("Namespace {target}"), delete(&target, asked)),
        (
            "clean-source",
            "namespace",
            format!("Namespace {source}, if it is still there"),
            delete(&source, asked),
        ),
        ("clean-velero", "backup", "the drill's backup and restore".into(), forget),
    ]
}

fn listing(namespace: &str, pod: &str) -> Action {
    Action::Job(JobAction::Listing { namespace: namespace.into(), pod: pod.into() })
}

fn delete(namespace: &str, asked: &DrillAsked) -> Action {
    Action::Object(ObjectAction::DeleteRun { namespace: namespace.to_owned(), run: asked.id.clone() })
}

/// A step's effect as the plan shows it.
fn shown(step: Step) -> Step {
    let effect = match &step.action {
        Action::Object(ObjectAction::Apply(_)) => Effect::Create,
        Action::Object(ObjectAction::DeleteRun { .. }) | Action::Velero(VeleroAction::Forget(_)) => {
            Effect::Delete
        }
        _ => step.effect,
    };
    Step { effect, ..step }
}

fn limits(asked: &DrillAsked) -> DrillLimits {
    DrillLimits {
        rto: asked.rto,
        rpo: asked.rpo,
        written: id("written"),
        backed_up: id("backed-up"),
        restore: id("restore"),
        read: id("read"),
    }
}

fn restore(backup: &Backup, asked: &DrillAsked) -> RestoreRequest {
    let spec = json!({
        "includedNamespaces": [asked.source()],
        "namespaceMapping": {asked.source(): asked.target()},
        "uploaderConfig": {"writeSparseFiles": true},
        "resourceModifier": {"kind": "configmap", "name": MODIFIERS},
    });
    RestoreRequest {
        namespace: backup.namespace.clone(),
        prefix: format!("nodeprep-{}", asked.id),
        words: asked.id.clone(),
        spec,
        backup: Some(id("backup")),
        away_from: Some(id("written")),
    }
}

/// What makes restored pods keep away from a node, where there is another one.
/// Source: velero site, restore-resource-modifiers.md (v1.18).
pub fn elsewhere(velero: &str, node: &str) -> Value {
    let expression = json!({"key": HOSTNAME, "operator": "NotIn", "values": [node]});
    let preferred = json!([{"weight": 100, "preference": {"matchExpressions": [expression]}}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    let rules = json!({"version": "v1", "resourceModifierRules": [{
        "conditions": {"groupResource": "pods"},
        "patches": [{"operation": "add", "path": "/spec/affinity", "value": affinity.to_string()}],
    }]});
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": MODIFIERS, "namespace": velero, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "data": {"rules.yaml": rules.to_string()},
    })
}

fn ours(mut value: Value, asked: &DrillAsked) -> Object {
    value["metadata"]["labels"][MANAGED_BY.0] = json!(MANAGED_BY.1);
    value["metadata"]["labels"][TEST_RUN] = json!(asked.id);
    Object { value, component: "drill", secret: false, create_only: false }
}

fn namespace(name: &str, asked: &DrillAsked) -> Value {
    let lifetime = SignedDuration::try_from(LIFETIME.std()).unwrap_or_default();
    let expires = asked.begun.checked_add(lifetime).unwrap_or(asked.begun);
    // The files have owners of all sorts, so their writer is root, without anything that reaches out of its container.
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "baseline"},
            "annotations": {EXPIRES: expires.to_string()},
        },
    })
}

fn claim_object(asked: &DrillAsked) -> Value {
    // File systems need some for themselves.
    let size = Size(asked.amount.bytes + asked.amount.bytes / 4 + (256 << 20));
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": asked.source(), "labels": {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": asked.class,
            "resources": {"requests": {"storage": size.quantity()}},
        },
    })
}

/// The same pod reads the files when it is restored: it writes only where nothing is.
fn writer(asked: &DrillAsked) -> Value {
    // Files are read by Velero through a pod that runs.
    let work = format!("{}sleep infinity\n", frame::script(&write(FOLDER, asked.amount)));
    pod(asked, &asked.source(), WRITER, &work)
}

fn harmer(asked: &DrillAsked) -> Value {
    pod(asked, &asked.target(), HARMER, &frame::script(&harm(FOLDER)))
}

fn pod(asked: &DrillAsked, namespace: &str, name: &str, work: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {},
            "annotations": {"backup.velero.io/backup-volumes-excludes": "tmp"},
        },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": beside_control_planes(&asked.tolerations),
            "containers": [{
                "name": CONTAINER, "image": asked.image, "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", work],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]},
                },
                "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}, {"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [
                {"name": VOLUME, "persistentVolumeClaim": {"claimName": CLAIM}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    })
}
