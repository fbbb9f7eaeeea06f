//! The stack on a real cluster: `NODEPREP_LIVE=<kubeconfig> cargo test --test all stack_live -- --ignored --nocapture`.
//! `NODEPREP_LIVE_INTENT` names another nodeprep.yaml than the lab's; its Secrets are the lab's store keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nodeprep::cluster::Cluster;
use nodeprep::error::Kind;
use nodeprep::event::{Events, What};
use nodeprep::plan::{Action, Plan, stack as planner};
use nodeprep::stack::{self, Item, StackSecret};
use nodeprep::{intent, observe};
use secrecy::SecretString;

const LAB: &str = r#"
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: lab}
provisioner: {openebs: {}}
classes:
  - {name: openebs-hostpath, basePath: /var/mnt/openebs, default: true}
backup:
  location: {bucket: velero, region: us-east-1, url: "http://10.88.0.1:7070", pathStyle: true}
  secrets: [unused.sops.yaml]
  schedules: [{name: daily, cron: "0 2 * * *"}]
images: {provisioner: "docker.io/nodeprep/openebs-standin:4.0.0"}
"#;

fn secret(name: &str, key: &str, value: &str) -> StackSecret {
    StackSecret { name: name.into(), data: BTreeMap::from([(key.into(), SecretString::from(value))]) }
}

fn secrets(store_key: &str) -> Vec<StackSecret> {
    let cloud =
        format!("[default]\naws_access_key_id={store_key}\naws_secret_access_key=labsecretlabsecret\n");
    vec![
        secret("cloud-credentials", "cloud", &cloud),
        secret("velero-repo-credentials", "repository-password", "a password of the lab"),
    ]
}

fn file() -> intent::Intent {
    let text = std::env::var_os("NODEPREP_LIVE_INTENT").map(|path| std::fs::read(path).unwrap());
    intent::parse("nodeprep.yaml", &text.unwrap_or_else(|| LAB.into())).unwrap()
}

async fn connect() -> Cluster {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = PathBuf::from(std::env::var_os("NODEPREP_LIVE").unwrap());
    Cluster::connect(Some(&kubeconfig), None).await.unwrap()
}

fn events() -> Events {
    Events::new(String::new, |event| {
        if let What::Waiting { what, last } = event.what {
            eprintln!("  waiting for {what}: {last}");
        }
    })
}

async fn plan(cluster: &Cluster, intent: &intent::Intent, items: &[Item]) -> nodeprep::error::Result<Plan> {
    planner::plan(intent, items, &observe::cluster::observe(cluster, items).await?)
}

async fn carry_out(cluster: &Cluster, plan: Plan, within: Duration) -> nodeprep::error::Result<()> {
    for step in plan.steps {
        eprintln!("{}: {}", step.title, step.why);
        match step.action {
            Action::ApplyObject(object) => {
                cluster.apply(&object.value, false, object.create_only).await?;
            }
            Action::AwaitReady(ready) => cluster.await_ready(&ready, &events(), within).await?,
            other => panic!("the stack plans no {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: NODEPREP_LIVE"]
async fn applying_twice_is_applying_once() {
    let (cluster, intent) = (connect().await, file());
    let items = stack::render(&intent, &secrets("labaccess")).unwrap();
    let first = plan(&cluster, &intent, &items).await.unwrap();
    eprintln!("{}: {} changes", cluster.name(), first.changes());
    carry_out(&cluster, first, Duration::from_secs(300)).await.unwrap();
    let second = plan(&cluster, &intent, &items).await.unwrap();
    let left: Vec<_> = second.steps.iter().map(|step| format!("{}\n{}", step.title, step.diff)).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[tokio::test]
#[ignore = "needs a cluster that holds the stack: NODEPREP_LIVE"]
async fn a_wrong_store_key_is_told_with_the_way_out_and_heals() {
    let (cluster, intent) = (connect().await, file());
    let wrong = stack::render(&intent, &secrets("nobody")).unwrap();
    let broken = plan(&cluster, &intent, &wrong).await.unwrap();
    assert!(!broken.is_empty());
    // Velero looks at its location when its spec changes and once a minute.
    let error = carry_out(&cluster, broken, Duration::from_secs(150)).await.unwrap_err();
    eprintln!("{error}\n{:?}", error.hint);
    assert_eq!(error.kind, Kind::Failed);
    assert!(error.what.contains("InvalidAccessKeyId"), "{error}");
    assert!(error.hint.unwrap().contains("aws_access_key_id"));
    let right = stack::render(&intent, &secrets("labaccess")).unwrap();
    carry_out(&cluster, plan(&cluster, &intent, &right).await.unwrap(), Duration::from_secs(150))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster that holds the stack: NODEPREP_LIVE"]
async fn what_somebody_else_changed_is_reported_and_not_taken_by_force() {
    use kube::api::{Api, Patch, PatchParams};
    let (cluster, intent) = (connect().await, file());
    let items = stack::render(&intent, &secrets("labaccess")).unwrap();
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(cluster.client(), "velero");
    let scale = |replicas: i32| serde_json::json!({ "spec": { "replicas": replicas } });
    let other = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    deployments.patch("velero", &other, &Patch::Merge(scale(0))).await.unwrap();
    let error = plan(&cluster, &intent, &items).await.unwrap_err();
    deployments.patch("velero", &other, &Patch::Merge(scale(1))).await.unwrap();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.what.contains("\"somebody\"") && error.what.contains(".spec.replicas"), "{error}");
}
