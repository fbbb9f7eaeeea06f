//! A restore on demand: that it is called good only when the files of every volume are back, that nothing which exists is taken for
//! restored, and that it outlives the process that asked for it.

use std::time::Duration;

use nodeprep::error::{Error, Kind, Result};
use nodeprep::intent::Location;
use nodeprep::judge::coverage::Scope;
use nodeprep::judge::restore::{Contents, RestoreScope};
use nodeprep::model::object::Deletion;
use nodeprep::observe::restores::Source;
use nodeprep::plan::restore::RestoreAsked;
use nodeprep::session::{self, Manner};
use serde_json::{Value, json};

use crate::backup_now::{apply, back_up, made, of_app, run, session};
use crate::fleet::{Session, paused};

/// A fleet with an application, and a backup of it.
async fn backed_up() -> (Session, Source) {
    let session = session().await;
    back_up(&session, &of_app()).await.unwrap();
    let name = made(&session).await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    (session, Source::Backup(name))
}

/// The same, and the application is lost.
async fn lost() -> (Session, Source) {
    let (session, source) = backed_up().await;
    delete(&session, ("v1", "Namespace", None, "app")).await;
    (session, source)
}

pub(crate) async fn delete(
    session: &Session,
    (version, kind, namespace, name): (&str, &str, Option<&str>, &str),
) {
    let cluster = session.cluster().await.unwrap();
    let live = cluster.get(version, kind, namespace, name).await.unwrap().unwrap();
    cluster.remove(&Deletion::of(&live), &session.events, Duration::from_secs(120)).await.unwrap();
}

async fn restore(session: &Session, source: &Source, asked: &RestoreAsked) -> Result<()> {
    let reach = session.reach(session.kubeconfig());
    let backup = session.intent.backup.clone().unwrap();
    let none = async |_: &Location, _: &str| Err::<Contents, _>("not asked for".to_owned());
    let make =
        async |connected| session::plan_restore(&reach, &backup, source, asked, &none, connected).await;
    session.open("restore")?.carry_out(&Manner::default(), make, async |_| Ok(false)).await
}

async fn refused(session: &Session, source: &Source, asked: &RestoreAsked) -> Error {
    let error = restore(session, source, asked).await.unwrap_err();
    assert!(restores(session).await.is_empty(), "nothing was begun: {error}");
    error
}

async fn restores(session: &Session) -> Vec<Value> {
    session.cluster().await.unwrap().list("velero.io/v1", "Restore", Some("velero"), "").await.unwrap()
}

fn told(session: &Session) -> String {
    session.told.lock().unwrap().join("\n")
}

/// Everything, as the command line asks for it.
fn everything(session: &Session) -> RestoreAsked {
    let left_out = session.intent.installed_namespaces();
    RestoreAsked { scope: RestoreScope { left_out, ..RestoreScope::default() }, ..RestoreAsked::default() }
}

fn as_copy() -> RestoreAsked {
    let mappings = [("app".to_owned(), "copy".to_owned())].into();
    RestoreAsked { scope: RestoreScope { mappings, ..RestoreScope::default() }, ..RestoreAsked::default() }
}

#[test]
fn a_lost_namespace_comes_back_with_its_files_and_a_second_restore_finds_it_there() {
    paused(async {
        let (session, source) = lost().await;
        restore(&session, &source, &RestoreAsked::default()).await.unwrap();
        assert!(told(&session).contains("brought 1 volume back with 8 B in "), "{}", told(&session));
        let cluster = session.cluster().await.unwrap();
        let pod = cluster.get("v1", "Pod", Some("app"), "db").await.unwrap().unwrap();
        assert_eq!(pod["status"]["phase"], "Running");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = restore(&session, &source, &RestoreAsked::default()).await.unwrap_err();
        assert_eq!(again.kind, Kind::Refused, "{again}");
        assert!(
            again.what.contains("Velero leaves what exists as it is, with its files: claim app/data"),
            "{again}"
        );
        assert_eq!(restores(&session).await.len(), 1, "one that was judged is not gone on with");
    });
}

#[test]
fn a_namespace_comes_back_beside_itself_and_the_schedules_newest_backup_is_found() {
    paused(async {
        let (session, source) = backed_up().await;
        restore(&session, &source, &as_copy()).await.unwrap();
        assert!(told(&session).contains("brought 1 volume back"), "{}", told(&session));
        let cluster = session.cluster().await.unwrap();
        assert!(cluster.get("v1", "PersistentVolumeClaim", Some("copy"), "data").await.unwrap().is_some());
        let none = restore(&session, &Source::Schedule("nightly".into()), &as_copy()).await.unwrap_err();
        assert_eq!(
            (none.kind, none.what.contains("schedule nightly has no complete backup")),
            (Kind::Invalid, true)
        );
    });
}

#[test]
fn everything_comes_back_beside_what_the_file_itself_has_installed() {
    paused(async {
        let session = session().await;
        back_up(&session, &Scope::All).await.unwrap();
        let source = Source::Newest("default".into());
        delete(&session, ("v1", "Namespace", None, "app")).await;
        restore(&session, &source, &everything(&session)).await.unwrap();
        assert!(told(&session).contains("brought 1 volume back with 8 B"), "{}", told(&session));
        assert_eq!(restores(&session).await[0]["spec"]["excludedNamespaces"], json!(["velero", "openebs"]));
    });
}

#[test]
fn what_exists_stands_in_the_way_unless_it_may_stay() {
    paused(async {
        let (session, source) = backed_up().await;
        let error = refused(&session, &source, &RestoreAsked::default()).await;
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.hint.as_deref().unwrap_or_default().contains("--namespace-mappings"), "{error:?}");
        let skipping = RestoreAsked { skip_existing: true, ..RestoreAsked::default() };
        restore(&session, &source, &skipping).await.unwrap();
        assert!(told(&session).contains("brought 0 volumes back"), "{}", told(&session));
    });
}

#[test]
fn a_pod_that_exists_would_leave_its_claim_empty() {
    paused(async {
        let (session, source) = lost().await;
        apply(&session, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})).await;
        run(&session, ("db", "data"), json!(["db"]), "Pending").await;
        for skip_existing in [false, true] {
            let asked = RestoreAsked { skip_existing, ..RestoreAsked::default() };
            let error = refused(&session, &source, &asked).await;
            assert_eq!(error.kind, Kind::Refused);
            assert!(
                error.what.contains("pod app/db exists already, so that claim app/data would come back"),
                "{error}"
            );
        }
    });
}

#[test]
fn a_restore_goes_on_when_its_run_is_killed_and_the_next_run_judges_it() {
    paused(async {
        let (session, source) = lost().await;
        let asked = RestoreAsked::default();
        for _ in 0..2 {
            let killed =
                tokio::time::timeout(Duration::from_millis(1500), restore(&session, &source, &asked)).await;
            assert!(killed.is_err() && restores(&session).await.len() == 1, "it was under way");
        }
        // It ends while nobody waits for it: what exists by then is what it brought.
        tokio::time::sleep(Duration::from_secs(120)).await;
        restore(&session, &source, &asked).await.unwrap();
        assert_eq!(restores(&session).await.len(), 1, "the same one");
        assert!(told(&session).contains("was begun by a run that was cut off"), "{}", told(&session));
        assert!(told(&session).contains("brought 1 volume back with 8 B"), "{}", told(&session));
    });
}

#[test]
fn a_restore_whose_volumes_stay_empty_is_no_success() {
    paused(async {
        let (session, source) = lost().await;
        delete(&session, ("apps/v1", "DaemonSet", Some("velero"), "node-agent")).await;
        let error = restore(&session, &source, &RestoreAsked::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CheckFailed);
        assert!(
            error.what.contains("it is PartiallyFailed") && error.what.contains("claim app/data: "),
            "{error}"
        );
    });
}

#[test]
fn a_backup_that_is_not_there_or_holds_other_namespaces_is_named() {
    paused(async {
        let (session, source) = backed_up().await;
        let error = refused(&session, &Source::Backup("nightly".into()), &as_copy()).await;
        assert_eq!((error.kind, error.what.contains("there is no backup nightly")), (Kind::Invalid, true));
        let away = "dial tcp 10.0.0.9:9000: connect: connection refused";
        session.fleet.act(|world, _| world.store.refuses = Some(away.to_owned()));
        tokio::time::sleep(Duration::from_secs(90)).await;
        let error = refused(&session, &source, &as_copy()).await;
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.what.contains("location default is Unavailable"), "{error}");
    });
}
