#![expect(clippy::unwrap_used)]

use futures::StreamExt;
use serde_json::json;

use super::*;
use crate::fleet::Fleet;
use crate::kube::object::time;
use crate::scenario::Scenario;
use crate::serve::network::Network;

const THREE: &str = "speed: 100\nmachines: [{role: controlplane}, {role: controlplane}, {}]";

fn api(scenario: &str) -> Api {
    let now = Timestamp::UNIX_EPOCH;
    let world = World::new(&Scenario::parse("scenario", scenario).unwrap(), now);
    Api { fleet: Fleet::new(world, now, Network::memory()), maintained: None }
}

/// The lines of a check that waits so many seconds, and how it ends; `key` is how the machine is named.
async fn health(
    api: &Api,
    key: &'static str,
    node: &str,
    wait: u64,
    named: ClusterInfo,
) -> (Vec<String>, Reply) {
    let mut request = Request::new(HealthCheckRequest {
        wait_timeout: Some(Duration::from_secs(wait).try_into().unwrap()),
        cluster_info: Some(named),
    });
    request.metadata_mut().insert(key, node.parse().unwrap());
    let mut replies = api.health_check(request).await.unwrap().into_inner();
    let (mut lines, mut end) = (Vec::new(), Ok(HealthCheckProgress::default()));
    while let Some(reply) = replies.next().await {
        match reply {
            Ok(progress) if progress.metadata.as_ref().is_none_or(|m| m.error.is_empty()) => {
                lines.push(progress.message);
            }
            other => end = other,
        }
    }
    (lines, end)
}

fn oks(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.ends_with(": OK")).count()
}

#[tokio::test(start_paused = true)]
async fn a_fleet_whose_machines_are_all_up_is_healthy() {
    let (lines, end) = health(&api(THREE), "node", "10.5.0.3", 60, ClusterInfo::default()).await;
    assert!(end.is_ok_and(|end| end == HealthCheckProgress::default()), "{lines:#?}");
    assert_eq!(lines[0], r#"discovered nodes: ["10.5.0.2" "10.5.0.3" "10.5.0.4"]"#);
    assert_eq!((oks(&lines), lines.len()), (CHECKS.len(), CHECKS.len() + 1), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_off_is_waited_for_until_it_is_too_late() {
    for (machine, waited) in [("", "apid to be ready"), ("role: controlplane, ", "etcd to be healthy")] {
        let api = api(&THREE.replace("{}]", &format!("{{{machine}off: true}}]")));
        let (lines, end) = health(&api, "node", "10.5.0.2", 60, ClusterInfo::default()).await;
        assert_eq!(end.unwrap_err().code(), tonic::Code::DeadlineExceeded);
        let last = lines.last().unwrap();
        assert!(last.contains(waited) && last.contains("10.5.0.4: rpc error: code = Unavailable"), "{last}");
        // Of a call that could go to several machines, one of the answers says it.
        let (_, end) = health(&api, "nodes", "10.5.0.2", 60, ClusterInfo::default()).await;
        let metadata = end.unwrap().metadata.unwrap();
        assert_eq!(metadata.hostname, "10.5.0.2");
        assert_eq!(metadata.error, "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_reboots_is_waited_for() {
    let api = api(THREE);
    let reboot = |address| {
        api.fleet.act(|world, now| {
            let (machine, timers) = world.machine(address).unwrap();
            machine.reboot(timers, now);
        });
    };
    reboot("10.5.0.4");
    let (lines, end) = health(&api, "node", "10.5.0.2", 60, ClusterInfo::default()).await;
    assert!(end.is_ok() && oks(&lines) == CHECKS.len(), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("apid to be ready: 10.5.0.4: rpc error")), "{lines:#?}");
    // The machine that checks is no exception.
    reboot("10.5.0.2");
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("node", "10.5.0.2".parse().unwrap());
    assert!(api.health_check(request).await.is_err_and(|status| status.code() == tonic::Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_illness_is_found() {
    let named = |controlplanes: &[&str], workers: &[&str]| ClusterInfo {
        control_plane_nodes: controlplanes.iter().map(|address| (*address).to_owned()).collect(),
        worker_nodes: workers.iter().map(|address| (*address).to_owned()).collect(),
        ..ClusterInfo::default()
    };
    let (all, none) = (ClusterInfo::default(), ("GET", "/api/v1/nodes", json!(null)));
    let cordon = ("PATCH", "/api/v1/nodes/talos-3", json!({"spec": {"unschedulable": true}}));
    let unlabel = json!({"metadata": {"labels": {CONTROL_PLANE: null}}});
    for (node, named, (method, path, body), why) in [
        ("10.5.0.4", all.clone(), none.clone(), "no request forwarding"),
        (
            "10.5.0.2",
            named(&["10.5.0.2"], &["10.5.0.4"]),
            none.clone(),
            r#"etcd member ips ["10.5.0.2" "10.5.0.3"] are not subset of control plane node ips ["10.5.0.2"]"#,
        ),
        ("10.5.0.2", named(&["10.5.0.2", "10.5.0.4"], &[]), none.clone(), "\"etcd\" is not there"),
        ("10.5.0.2", named(&["10.5.0.2", "10.5.0.3"], &["10.5.0.9"]), none.clone(), "i/o timeout"),
        (
            "10.5.0.2",
            named(&["10.5.0.2", "10.5.0.3"], &[]),
            none,
            r#"unexpected nodes with IPs ["10.5.0.4"]"#,
        ),
        (
            "10.5.0.2",
            all.clone(),
            ("DELETE", "/api/v1/nodes/talos-3", json!(null)),
            r#"can't find expected node with IPs ["10.5.0.4"]"#,
        ),
        (
            "10.5.0.2",
            all.clone(),
            ("PATCH", "/api/v1/nodes/talos-3", json!({"metadata": {"labels": {CONTROL_PLANE: ""}}})),
            "all control plane components to be ready: unexpected nodes",
        ),
        ("10.5.0.2", all.clone(), cordon, "some nodes are not schedulable: [talos-3]"),
        (
            "10.5.0.2",
            all,
            ("PATCH", "/api/v1/nodes/talos-2", unlabel),
            "to be ready: can't find expected node",
        ),
    ] {
        // Slow, so that what is taken away does not come back.
        let api = api(&THREE.replace("100", "0.001"));
        api.fleet.act(|world, now| world.api.make_as("x", method, path, &body, &time(now)));
        let (lines, end) = health(&api, "node", node, 60, named).await;
        assert!(end.is_err_and(|status| status.code() == tonic::Code::DeadlineExceeded), "{why}: {lines:#?}");
        assert!(lines.last().unwrap().contains(why), "{why}: {lines:#?}");
    }
}
