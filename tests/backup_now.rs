//! A backup on demand: that it is called good only when it holds every claim, and that it outlives the process that asked for
//! it.

use std::time::Duration;

use nodeprep::error::{Kind, Result};
use nodeprep::intent;
use nodeprep::judge::coverage::Scope;
use nodeprep::session::{self, Manner};
use nodeprep_sandbox::scenario::Scenario;
use serde_json::{Value, json};

use crate::fleet::{Session, paused};

const KEPT: intent::Duration = intent::Duration(720 * 3600);

/// A fleet with everything installed, and an application whose claim is mounted.
pub(crate) async fn session() -> Session {
    let text = "machines: [{role: controlplane}, {role: worker}]";
    let session = Session::start(&Scenario::parse("s.yaml", text).unwrap()).await;
    session.apply().await.unwrap();
    apply(&session, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})).await;
    claim(&session, "data").await;
    run(&session, ("writer", "data"), json!(["sh", "-c", "echo 1234567 > /data/file"]), "Succeeded").await;
    run(&session, ("db", "data"), json!(["db"]), "Running").await;
    session
}

/// Runs a pod that mounts the claim, up to this phase.
pub(crate) async fn run(session: &Session, (name, claim): (&str, &str), command: Value, phase: &str) {
    let container = json!({
        "name": "c", "image": "example.com/db:1", "command": command,
        "volumeMounts": [{"name": "files", "mountPath": "/data"}],
    });
    let volume = json!({"name": "files", "persistentVolumeClaim": {"claimName": claim}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "app", "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]},
    });
    apply(session, pod).await;
    for _ in 0..60 {
        let cluster = session.cluster().await.unwrap();
        let pod = cluster.get("v1", "Pod", Some("app"), name).await.unwrap().unwrap();
        if pod["status"]["phase"] == phase {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{name} is not {phase}");
}

pub(crate) async fn claim(session: &Session, name: &str) {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "app"},
        "spec": {"storageClassName": "openebs-hostpath", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
    });
    apply(session, claim).await;
}

pub(crate) async fn apply(session: &Session, object: Value) {
    session.cluster().await.unwrap().apply(&object).await.unwrap();
}

pub(crate) async fn back_up(session: &Session, scope: &Scope) -> Result<()> {
    let reach = session.reach(session.kubeconfig());
    let backup = session.intent.backup.clone().unwrap();
    let make = async |connected| session::plan_backup(&reach, &backup, scope, KEPT, connected).await;
    session.open("backup")?.carry_out(&Manner::default(), make, async |_| Ok(false)).await
}

/// The Backups that nodeprep made.
pub(crate) async fn made(session: &Session) -> Vec<Value> {
    let cluster = session.cluster().await.unwrap();
    let ours = "app.kubernetes.io/managed-by=nodeprep";
    cluster.list("velero.io/v1", "Backup", Some("velero"), ours).await.unwrap()
}

pub(crate) fn of_app() -> Scope {
    Scope::Namespaces(vec!["app".into()])
}

#[test]
fn a_backup_is_good_when_the_files_of_every_claim_were_read() {
    paused(async {
        let session = session().await;
        for scope in [of_app(), Scope::All, Scope::Labels(vec![("app".into(), "db".into())])] {
            back_up(&session, &scope).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let told = session.told.lock().unwrap().join("\n");
        assert_eq!(told.matches("holds 1 claim with 8 B").count(), 3, "{told}");
        let made = made(&session).await;
        assert_eq!(made.len(), 3);
        assert!(made.iter().all(|backup| backup["status"]["phase"] == "Completed"), "{made:#?}");
        assert!(made.iter().all(|backup| backup["spec"]["storageLocation"] == "default"), "{made:#?}");
    });
}

#[test]
fn what_is_not_in_a_backup_is_named_and_no_success() {
    paused(async {
        let session = session().await;
        claim(&session, "unused").await;
        run(&session, ("once", "unused"), json!(["sh", "-c", "echo 1 > /data/file"]), "Succeeded").await;
        let error = back_up(&session, &of_app()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CheckFailed);
        assert!(
            error.what.contains("claim app/unused is not: its pod once is Succeeded, not Running"),
            "{error}"
        );
        assert!(error.what.contains("holds 1 claim, but"), "the rest is there: {error}");
    });
}

#[test]
fn a_claim_whose_pod_is_where_velero_s_agent_is_not_is_told_to_be_in_no_backup() {
    paused(async {
        let session = session().await;
        // Without an agent on its node a volume can't be read.
        let cluster = session.cluster().await.unwrap();
        let set = cluster.get("apps/v1", "DaemonSet", Some("velero"), "node-agent").await.unwrap().unwrap();
        let gone = nodeprep::model::object::Deletion::of(&set);
        cluster.remove(&gone, &session.events, Duration::from_secs(60)).await.unwrap();
        let error = back_up(&session, &of_app()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CheckFailed);
        assert!(error.what.contains("claim app/data is not: Velero's agent does not run on node"), "{error}");
    });
}

#[test]
fn a_namespace_that_is_not_there_is_refused_and_one_without_claims_is_told() {
    paused(async {
        let session = session().await;
        let (reach, backup) = (session.reach(session.kubeconfig()), session.intent.backup.clone().unwrap());
        let empty = Scope::Namespaces(vec!["default".into()]);
        let planned = session::plan_backup(&reach, &backup, &empty, KEPT, None).await.unwrap();
        let told = ["there is no claim in namespace default: the backup holds objects alone"];
        assert_eq!(planned.plan.warnings, told);
        let error = back_up(&session, &Scope::Namespaces(vec!["ap".into()])).await.unwrap_err();
        assert_eq!((error.kind, error.what.as_str()), (Kind::Invalid, "there is no namespace ap to back up"));
        assert!(made(&session).await.is_empty());
    });
}

#[test]
fn a_backup_goes_on_when_its_run_is_killed_and_the_next_run_waits_for_it() {
    paused(async {
        let session = session().await;
        // Killed at once after the Backup was made; a process that is killed between the note of its name and the Backup
        // itself makes one with a name of its own.
        let killed = tokio::time::timeout(Duration::from_millis(500), back_up(&session, &of_app())).await;
        assert!(killed.is_err() && made(&session).await.len() == 1, "it was under way");
        let again = tokio::time::timeout(Duration::from_millis(500), back_up(&session, &of_app())).await;
        assert!(again.is_err(), "still under way");
        back_up(&session, &of_app()).await.unwrap();
        assert_eq!(made(&session).await.len(), 1, "the same one");
        let told = session.told.lock().unwrap().join("\n");
        assert!(told.contains("is under way since a run that was cut off"), "{told}");
        // What is over is not the next backup.
        tokio::time::sleep(Duration::from_secs(2)).await;
        back_up(&session, &of_app()).await.unwrap();
        assert_eq!(made(&session).await.len(), 2);
    });
}
