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
use crate::model::object::{Object, TEST_RUN};
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
    let (source, target, velero) = (asked.source(), asked.target(), backup.namespace.clone());
    let text = |id: &str| format!("drill/{id}");
    let object = |value: Value| Action::Object(ObjectAction::Apply(ours(value, asked)));
    let listing = |namespace: &str, pod: &str| {
        Action::Job(JobAction::Listing { namespace: namespace.into(), pod: pod.into() })
    };
    let spec = backup_spec(backup, std::slice::from_ref(&source), None, LIFETIME)?;
    let request = BackupRequest { namespace: velero.clone(), prefix: format!("nodeprep-{}", asked.id), spec };
    let claim = ClaimName { namespace: source.clone(), name: CLAIM.into() };
    let covered = Covered { claim, uid: String::new(), pod: WRITER.into(), volume: VOLUME.into() };
    let backed_up = AwaitBackup {
        of: text("backup"),
        namespace: velero.clone(),
        wanted: vec![covered],
        left_out: BTreeMap::new(),
        newer_than: Some(text("written")),
    };
    let scope =
        RestoreScope { mappings: [(source.clone(), target.clone())].into(), ..RestoreScope::default() };
    let restored = AwaitRestore {
        of: text("restore"),
        namespace: velero.clone(),
        wanted: Wanted::OfBackup(text("backup")),
        scope,
        bare: BTreeMap::new(),
    };
    let compare = |after: &str, harmed: bool| {
        Action::Job(JobAction::Compare(Comparison { before: text("written"), after: text(after), harmed }))
    };
    let delete = |namespace: &str| {
        Action::Object(ObjectAction::DeleteRun { namespace: namespace.to_owned(), run: asked.id.clone() })
    };
    let needed = [
        ("namespace", format!("Namespace {source}"), object(namespace(&source, asked))),
        ("claim", format!("claim {source}/{CLAIM} of class {}", asked.class), object(claim_object(asked))),
        ("writer", format!("pod {source}/{WRITER}, which writes fresh files"), object(writer(asked))),
        ("written", "wait until the files are written".into(), listing(&source, WRITER)),
        ("backup", format!("back up namespace {source}"), Action::Velero(VeleroAction::Backup(request))),
        (
            "backed-up",
            "wait until the backup holds them".into(),
            Action::Velero(VeleroAction::Await(backed_up)),
        ),
        ("destroy", format!("Namespace {source} with the files"), delete(&source)),
        (
            "restore",
            format!("restore them into namespace {target}"),
            Action::Velero(VeleroAction::Restore(restore(backup, asked, &text("backup"), &text("written")))),
        ),
        ("restored", "wait until they are back".into(), Action::Velero(VeleroAction::AwaitRestore(restored))),
        ("read", "wait until they are read".into(), listing(&target, WRITER)),
        ("compare", "compare them file by file".into(), compare("read", false)),
        ("harmer", format!("pod {target}/{HARMER}, which changes one byte"), object(harmer(asked))),
        ("harmed", "wait until one is changed".into(), listing(&target, HARMER)),
        ("control", "see that the comparison finds that byte".into(), compare("harmed", true)),
        ("limits", "judge how long it took".into(), Action::Job(JobAction::Limits(limits(asked, text)))),
    ];
    let mut steps: Vec<Step> = Vec::new();
    for (id, title, action) in needed {
        let before = steps.last().map(|step| step.id.clone());
        let step = Step::new(text(id), Target::Cluster, title, action);
        steps.push(Step { needs: before.into_iter().collect(), ..step });
    }
    let record = DrillRecord {
        namespace: velero.clone(),
        id: asked.id.clone(),
        class: asked.class.clone(),
        compared: text("compare"),
        control: text("control"),
        limits: text("limits"),
    };
    let traces = Traces { namespace: velero, backup: text("backup"), restore: text("restore") };
    for (id, needs, title, action) in [
        ("record", "namespace", "keep what came of it".into(), Action::Job(JobAction::Record(record))),
        ("clean-target", "restore", format!("Namespace {target}"), delete(&target)),
        ("clean-source", "namespace", format!("Namespace {source}, if it is still there"), delete(&source)),
        (
            "clean-velero",
            "backup",
            "the drill's backup and restore".into(),
            Action::Velero(VeleroAction::Forget(traces)),
        ),
    ] {
        let step = Step::new(text(id), Target::Cluster, title, action);
        steps.push(Step { needs: vec![text(needs)], when: When::Always, ..step });
    }
    Ok(Plan { steps: steps.into_iter().map(shown).collect(), ..Plan::default() })
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

fn limits(asked: &DrillAsked, text: impl Fn(&str) -> String) -> DrillLimits {
    DrillLimits {
        rto: asked.rto,
        rpo: asked.rpo,
        written: text("written"),
        backed_up: text("backed-up"),
        restore: text("restore"),
        read: text("read"),
    }
}

fn restore(backup: &Backup, asked: &DrillAsked, made: &str, written: &str) -> RestoreRequest {
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
        backup: Some(made.to_owned()),
        away_from: Some(written.to_owned()),
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
            "annotations": {"nodeprep.dev/expires": expires.to_string()},
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
    let roles = ["control-plane", "master"];
    let roles =
        roles.map(|role| json!({"key": format!("node-role.kubernetes.io/{role}"), "operator": "Exists"}));
    let tolerations: Vec<Value> = roles.into_iter().chain(asked.tolerations.iter().cloned()).collect();
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
            "tolerations": tolerations,
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
