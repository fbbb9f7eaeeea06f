//! The sandbox tells what a real cluster tells: `tests/conformance/events.yaml` is made, `recorded-events.json` holds the events
//! of a real one. Recorded anew with a KUBECONFIG of the lab: `cargo test --test all events::record -- --ignored`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use nodeprep_sandbox::scenario::{Role, Scenario};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::conformance::folder;
use crate::fleet::{Session, paused};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// What the namespace enforces.
    #[serde(default = "privileged")]
    level: String,
    make: Vec<Value>,
    of: String,
    until: BTreeSet<String>,
}

fn privileged() -> String {
    "privileged".into()
}

/// By case: what was told, each thing once.
type Told = BTreeMap<String, BTreeSet<String>>;

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_yaml::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// Makes everything, and listens.
async fn hear(client: &Client) -> Told {
    let mut told = Told::new();
    for (index, case) in read::<Vec<Case>>("events.yaml").iter().enumerate() {
        let namespace = format!("events-{index}");
        let label = json!({"pod-security.kubernetes.io/enforce": case.level});
        let object = json!({"metadata": {"name": namespace, "labels": label}});
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        // A pod is refused until its namespace has its service account.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for object in &case.make {
            make(client, &namespace, object).await;
        }
        told.insert(case.name.clone(), heard(client, &namespace, case).await);
        namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    }
    let classes = Api::<k8s_openapi::api::storage::v1::StorageClass>::all(client.clone());
    classes.delete("events", &DeleteParams::default()).await.unwrap();
    told
}

async fn make(client: &Client, namespace: &str, object: &Value) {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let TypeMeta { api_version, kind } = object.types.clone().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match kind.as_str() {
        "StorageClass" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// The events of the case's object, once all reasons were told.
async fn heard(client: &Client, namespace: &str, case: &Case) -> BTreeSet<String> {
    let (kind, name) = case.of.split_once('/').map_or((case.of.as_str(), None), |(k, n)| (k, Some(n)));
    let mut reasons = BTreeSet::new();
    for _ in 0..120 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
        let of = |event: &Event| {
            let object = &event.involved_object;
            object.kind.as_deref() == Some(kind) && (name.is_none() || object.name.as_deref() == name)
        };
        let events: Vec<Event> = events.unwrap().items.into_iter().filter(of).collect();
        reasons = events.iter().filter_map(|event| event.reason.clone()).collect();
        if reasons.is_superset(&case.until) {
            return events.iter().map(line).collect();
        }
    }
    panic!("{}: only {reasons:?} were told", case.name)
}

/// An event without what differs from cluster to cluster and from run to run.
fn line(event: &Event) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let component = event.source.as_ref().and_then(|source| source.component.clone());
    let component = component.or_else(|| event.reporting_component.clone());
    let mut message = text(&event.message);
    for (pattern, steady) in [
        (r"events-\d+", "(namespace)"),
        (r"\b(web|once|each)-[a-z0-9]+(-[a-z0-9]{5})?", "$1-(id)"),
        (r"(Successfully assigned \S+ to )\S+", "$1(node)"),
        (r"in [0-9.]+m?s \([0-9.]+m?s including waiting\)", "in (time)"),
        (r"Image size: \d+ bytes", "Image size: (size)"),
    ] {
        message = Regex::new(pattern).unwrap().replace_all(&message, steady).into_owned();
    }
    format!("{} {} from {}: {message}", text(&event.type_), text(&event.reason), text(&component))
}

#[tokio::test]
#[ignore = "needs a real Kubernetes"]
async fn record() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let told = hear(&Client::try_default().await.unwrap()).await;
    let text = serde_json::to_string_pretty(&told).unwrap();
    std::fs::write(folder().join("recorded-events.json"), text + "\n").unwrap();
}

/// What the sandbox tells otherwise: the line of the real one, that of the sandbox (none: it does not tell it), and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    name: String,
    real: Option<String>,
    sandbox: Option<String>,
    why: String,
}

#[test]
fn the_sandbox_tells_what_a_real_cluster_tells() {
    let mut ours = paused(async {
        // Recorded on nodes without taints.
        let mut scenario = Scenario::default();
        scenario.machines.iter_mut().for_each(|machine| machine.role = Role::Worker);
        let session = Session::start(&scenario).await;
        hear(&session.cluster().await.unwrap().client()).await
    });
    let mut real: Told = read("recorded-events.json");
    for Difference { name, real: of_real, sandbox, why } in read::<Vec<Difference>>("different-events.yaml") {
        assert!(!why.is_empty());
        for (told, line) in [(&mut real, of_real), (&mut ours, sandbox)] {
            let lines = told.get_mut(&name).unwrap();
            assert!(line.is_none_or(|line| lines.remove(&line)), "{name}: a listed difference is not there");
        }
    }
    let pretty = |told: &Told| serde_json::to_string_pretty(told).unwrap();
    let diff = similar::TextDiff::from_lines(pretty(&real), pretty(&ours)).unified_diff().to_string();
    assert!(diff.is_empty(), "- real, + sandbox:\n{diff}");
    assert!(real.len() >= 14);
}
