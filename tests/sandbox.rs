//! nodeprep's own adapters against the sandbox's servers, over TCP and TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nodeprep::cluster::Cluster;
use nodeprep::error::Kind;
use nodeprep::event::Events;
use nodeprep::plan::{Action, Plan, stack as planner};
use nodeprep::sandbox::kube::api::Api;
use nodeprep::sandbox::serve::kube::{self, kubeconfig};
use nodeprep::sandbox::serve::pki::Authority;
use nodeprep::stack::{self, Item, StackSecret};
use nodeprep::{intent, observe};
use secrecy::SecretString;
use serde_json::{Value, json};

const FILE: &str = "
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: sandbox}
provisioner: {openebs: {}}
classes:
  - {name: openebs-hostpath, basePath: /var/mnt/openebs}
backup:
  location: {bucket: velero, region: us-east-1}
  secrets: [unused.sops.yaml]
  schedules: [{name: daily, cron: 0 2 * * *}]
";

struct Sandbox {
    server: Arc<kube::Cluster>,
    client: Cluster,
}

impl Sandbox {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = Authority::new("sandbox").unwrap();
        let server = kube::Cluster::new(Api::default());
        let address = server.serve(&authority).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let text = kubeconfig(address, &authority, &authority.client("system:masters").unwrap());
        std::fs::write(&path, text.to_string()).unwrap();
        let client = Cluster::connect(Some(&path), None).await.unwrap();
        Self { server, client }
    }

    async fn plan(&self, items: &[Item]) -> nodeprep::error::Result<Plan> {
        planner::plan(&file(), items, &observe::cluster::observe(&self.client, items).await?)
    }

    /// Says of a workload or a location that it is ready, as its controller would.
    fn ready(&self, path: &str, status: &Value) {
        self.server.act(|api, now| {
            let mut status = status.clone();
            if status["lastValidationTime"] == "now" {
                status["lastValidationTime"] = json!(now);
            }
            api.make_as("controller", "PATCH", path, &json!({"status": status}), now)
        });
    }
}

fn file() -> intent::Intent {
    intent::parse("nodeprep.yaml", FILE.as_bytes()).unwrap()
}

fn items() -> Vec<Item> {
    let secret = |name: &str, key: &str, value: &str| StackSecret {
        name: name.into(),
        data: BTreeMap::from([(key.into(), SecretString::from(value))]),
    };
    let secrets = [
        secret("cloud-credentials", "cloud", "[default]"),
        secret("velero-repo-credentials", "repository-password", "own"),
    ];
    stack::render(&file(), &secrets).unwrap()
}

#[tokio::test]
async fn the_stack_is_made_once_and_then_nothing_is_left_to_change() {
    let sandbox = Sandbox::new().await;
    let items = items();
    let first = sandbox.plan(&items).await.unwrap();
    assert!(first.changes() > 25, "{}", first.changes());
    let quiet = Events::new(String::new, |_| {});
    let replicas = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1});
    let daemons = json!({"observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1});
    for step in first.steps {
        match step.action {
            Action::ApplyObject(object) => {
                let applied = sandbox.client.apply(&object.value, false, object.create_only).await;
                assert!(applied.is_ok(), "{}: {applied:?}", step.title);
            }
            Action::AwaitReady(ready) => {
                for (path, status) in [
                    (
                        "/apis/apps/v1/namespaces/openebs/deployments/openebs-localpv-provisioner/status",
                        &replicas,
                    ),
                    ("/apis/apps/v1/namespaces/velero/deployments/velero/status", &replicas),
                    ("/apis/apps/v1/namespaces/velero/daemonsets/node-agent/status", &daemons),
                    (
                        "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default",
                        &json!({"phase": "Available", "lastValidationTime": "now"}),
                    ),
                ] {
                    sandbox.ready(path, status);
                }
                sandbox.client.await_ready(&ready, &quiet, Duration::from_secs(5)).await.unwrap();
            }
            other => panic!("the stack plans no {other:?}"),
        }
    }
    let second = sandbox.plan(&items).await.unwrap();
    let left: Vec<_> = second.steps.iter().map(|step| format!("{}\n{}", step.title, step.diff)).collect();
    assert!(left.is_empty(), "{left:#?}");

    // What somebody else changes is reported, and not taken by force.
    let path = "/apis/apps/v1/namespaces/velero/deployments/velero?fieldManager=somebody";
    sandbox.server.act(|api, now| api.make_as("x", "PATCH", path, &json!({"spec": {"replicas": 0}}), now));
    let error = sandbox.plan(&items).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.what.contains("\"somebody\" using apps/v1 manages .spec.replicas"), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_sandboxs_authority_is_turned_away() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (authority, stranger) = (Authority::new("sandbox").unwrap(), Authority::new("other").unwrap());
    let server = kube::Cluster::new(Api::default());
    let address = server.serve(&authority).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let text = kubeconfig(address, &authority, &stranger.client("system:masters").unwrap());
    std::fs::write(&path, text.to_string()).unwrap();
    let client = Cluster::connect(Some(&path), None).await;
    let refused = match client {
        Ok(client) => client.get("v1", "Namespace", None, "default").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}
