//! Claims bind only on nodes that have the disk meant for them, and `validate` says so of every node.

use nodeprep::check::Outcome;
use nodeprep::event::Verdict;
use nodeprep::intent::Intent;
use nodeprep_sandbox::kube::object::time;
use nodeprep_sandbox::scenario::Scenario;
use serde_json::{Value, json};

use crate::fleet::{Session, paused};

/// Every verdict, in a line each.
fn told(outcome: &Outcome) -> Vec<String> {
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let line = |result: &nodeprep::event::CheckResult| {
        let verdict = match &result.verdict {
            Verdict::Pass { .. } => "pass".to_owned(),
            Verdict::Warn { why, .. } => format!("warn: {why}"),
            Verdict::Fail { why, .. } => format!("fail: {why}"),
            Verdict::Skip { why } => format!("skip: {why}"),
        };
        format!("{} {} {verdict}", result.id, result.subject)
    };
    outcome.results.iter().map(line).collect()
}

fn of<'a>(told: &'a [String], check: &str) -> Vec<&'a str> {
    let lines = told.iter().filter(|line| line.starts_with(&format!("{check} ")));
    lines.map(|line| line.split_once(' ').unwrap().1).collect()
}

/// The file does not give the volume to the fifth machine.
fn without_the_last(intent: &mut Intent) {
    let last = intent.nodes.last_mut().unwrap();
    last.volumes.insert("openebs".into(), None);
}

/// Sends a request as somebody else.
fn ask(session: &Session, path: &str, patch: &Value) {
    session.fleet.act(|world, now| world.api.make_as("somebody", "PATCH", path, patch, &time(now)));
}

#[test]
fn twenty_runs_on_a_fleet_with_a_node_without_the_volume_give_one_verdict() {
    let outcomes = paused(async {
        let mut session = Session::start(&Scenario::of(5)).await;
        without_the_last(&mut session.intent);
        session.apply().await.unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..20 {
            outcomes.push(told(&session.check().await.unwrap()));
        }
        outcomes
    });
    let first = &outcomes[0];
    assert_eq!(
        of(first, "placement"),
        [
            "openebs-hostpath on talos-1 pass",
            "openebs-hostpath on talos-2 pass",
            "openebs-hostpath on talos-3 pass",
            "openebs-hostpath on talos-4 pass"
        ]
    );
    // No drill was run, and none is asked for.
    let judged = |line: &&String| !line.starts_with("drill ");
    assert!(first.iter().filter(judged).all(|line| line.ends_with(" pass")), "{first:#?}");
    assert!(outcomes.iter().all(|outcome| outcome == first), "{outcomes:#?}");
}

#[test]
fn a_class_that_is_open_to_a_node_without_the_volume_fails_placement() {
    let told = paused(async {
        let mut session = Session::start(&Scenario::of(5)).await;
        without_the_last(&mut session.intent);
        session.apply().await.unwrap();
        let path = "/apis/storage.k8s.io/v1/storageclasses/openebs-hostpath";
        ask(&session, path, &json!({"allowedTopologies": null}));
        told(&session.check().await.unwrap())
    });
    let placement = of(&told, "placement");
    assert_eq!(placement.len(), 5, "{told:#?}");
    let fifth = placement.iter().find(|line| line.contains("talos-5")).unwrap();
    assert!(
        fifth
            .contains("fail: class openebs-hostpath allows talos-5, which the file does not give its volume"),
        "{fifth}"
    );
}

#[test]
fn a_node_of_the_file_that_is_not_proven_has_a_failing_row() {
    let told = paused(async {
        let mut session = Session::start(&Scenario::of(3)).await;
        session.apply().await.unwrap();
        let mut other = session.intent.nodes[0].clone();
        other.address = "10.5.0.9".into();
        session.intent.nodes.push(other);
        ask(&session, "/api/v1/nodes/talos-2", &json!({"spec": {"unschedulable": true}}));
        ask(
            &session,
            "/api/v1/nodes/talos-3",
            &json!({"metadata": {"labels": {"openebs.io/storage-node": "no"}}}),
        );
        told(&session.check().await.unwrap())
    });
    let placement = of(&told, "placement");
    assert_eq!(
        placement,
        [
            "openebs-hostpath on 10.5.0.9 fail: the cluster has no node with the address 10.5.0.9",
            "openebs-hostpath on talos-1 pass",
            "openebs-hostpath on talos-2 fail: node talos-2 is cordoned: no pod can be sent there",
            "openebs-hostpath on talos-3 fail: node talos-3 lacks the label openebs.io/storage-node=true",
        ],
        "{told:#?}"
    );
    let pvc = of(&told, "pvc");
    assert!(
        pvc[1].ends_with("talos-1 pass") && pvc[2].contains("skip: node talos-2 is cordoned"),
        "{pvc:#?}"
    );
}
