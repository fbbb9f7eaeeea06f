#![expect(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::host::{Directory, Place as At};
use crate::kube::actors::objects::condition_of;
use crate::kube::actors::programs::tests::{files, framed, unframed};
use crate::kube::actors::scene::{BASE, Scene};

const WRITE: &str = "head -c 1048576 /dev/urandom >/tmp/noise\ndd if=/tmp/noise of=/data/probe bs=65536 conv=fsync\n\
                     wrote=$(sha256sum </tmp/noise)\necho \"wrote ${wrote%% *}\"\necho mounts\ncat /proc/self/mountinfo\n";

/// A pod that works on the volume `pv`, and has no other rights.
fn probe(name: &str, work: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "fsGroup": 65534},
            "containers": [{
                "name": "probe", "image": "docker.io/library/busybox:1.36",
                "command": ["/bin/sh", "-c", framed(work)],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    })
}

fn pod(name: &str, spec: &Value) -> Value {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mount = |volume: &Value| json!({"name": volume["name"], "mountPath": "/mounted"});
    let mounts: Vec<Value> = volumes.map(mount).collect();
    let mut all = json!({"containers": [{"name": "main", "image": "x:1", "volumeMounts": mounts}]});
    json_patch::merge(&mut all, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": all})
}

/// A machine with a bound claim, whose volume the container runtime made a directory for.
fn stage_with_volume(prepare: impl FnOnce(&mut Scene)) -> Scene {
    let mut scene = Scene::new(&["n1"]);
    prepare(&mut scene);
    let host = scene.host("n1");
    let place = host.place(&format!("{BASE}/pv")).unwrap();
    host.mounts.get_mut(&place.mount).unwrap().directories.insert(place.root, Directory::default());
    let claim = scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "storageClassName": "", "volumeName": "pv", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]});
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": format!("{BASE}/pv")},
            "claimRef": {"namespace": "default", "name": "data", "uid": claim["metadata"]["uid"]},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }));
    let path = "/api/v1/namespaces/default/persistentvolumeclaims/data/status";
    scene.patch(path, &json!({"status": {"phase": "Bound"}}));
    scene
}

fn phase(scene: &Scene, name: &str) -> String {
    text(&scene.get("/pods", "default", name).unwrap(), "/status/phase").to_owned()
}

fn waiting(scene: &Scene, name: &str) -> String {
    let pod = scene.get("/pods", "default", name).unwrap();
    text(&pod, "/status/containerStatuses/0/state/waiting/reason").to_owned()
}

/// The events of one reason.
fn told(scene: &Scene, reason: &str) -> Vec<String> {
    let told = scene.events("default").into_iter();
    told.filter_map(|event| Some(event.strip_prefix(reason)?.strip_prefix(": ")?.to_owned())).collect()
}

#[test]
fn a_pod_starts_within_a_second_and_runs_for_ever() {
    let mut scene = Scene::new(&["n1"]);
    scene.apply(pod("p", &json!({"initContainers": [{"name": "first", "image": "y:1"}]})));
    scene.run(0);
    assert_eq!((phase(&scene, "p").as_str(), waiting(&scene, "p").as_str()), ("Pending", "PodInitializing"));
    scene.run(1);
    let pod = scene.get("/pods", "default", "p").unwrap();
    assert_eq!(phase(&scene, "p"), "Running");
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert!(holds(&pod, kind), "{kind}: {pod}");
    }
    assert!(!text(&pod, "/status/podIP").is_empty() && !text(&pod, "/status/startTime").is_empty());
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(told(&scene, "Started"), ["Started container first", "Started container main"]);
    let version = scene.api.store.version();
    scene.run(1000);
    assert_eq!(scene.api.store.version(), version);
}

#[test]
fn a_probe_ends_with_a_framed_log_of_what_it_did() {
    let mut scene = stage_with_volume(|_| {});
    scene.apply(probe("writer", WRITE));
    scene.run(3);
    assert_eq!(phase(&scene, "writer"), "Succeeded");
    let (text, status) = unframed(&scene.log("default", "writer"));
    assert!(status == 0 && text.contains("\nwrote ") && text.contains(" /pv /data rw,"), "{text}");
    assert!(text.contains(" - xfs /dev/nvme0n1p1 rw"), "{text}");
    let at = At { mount: BASE.into(), root: "/pv".into(), read_only: false };
    assert_eq!(scene.host("n1").directory(&at).unwrap().files["probe"].size, 1 << 20);
    let ended = scene.get("/pods", "default", "writer").unwrap();
    let ended = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(0), &json!("Completed")));
    scene.delete("/api/v1/namespaces/default/pods/writer");
    scene.run(1);
    assert!(scene.api.logs.is_empty());
}

#[test]
fn fio_takes_its_time_and_reports_the_disks_speed() {
    let mut scene = stage_with_volume(|_| {});
    let work =
        "fio --name=all --filename=/data/fio --rw=randwrite --time_based --runtime=30 --size=536870912\n";
    scene.apply(probe("fio", work));
    scene.run(29);
    assert_eq!(phase(&scene, "fio"), "Running");
    scene.run(3);
    let (text, status) = unframed(&scene.log("default", "fio"));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &report["jobs"][0]["error"]), (0, &json!(0)));
    assert!(report["jobs"][0]["write"]["iops"].as_f64().unwrap() > 170_000.0);
    let mut scene = stage_with_volume(|scene| scene.timers.speed = 10.0);
    scene.apply(probe("fio", work));
    scene.run(5);
    assert_eq!(phase(&scene, "fio"), "Succeeded");
}

#[test]
fn a_volume_that_is_not_where_it_should_be_shows_as_on_a_real_machine() {
    const GONE: &str = "MountVolume.NewMounter initialization failed for volume \"pv\" : path \"/var/mnt/openebs/pv\" does \
                        not exist";
    // A disk that the kubelet does not see.
    let mut scene = stage_with_volume(|scene| {
        scene.host("n1").hidden.insert(BASE.into());
    });
    scene.apply(probe("p", WRITE));
    scene.run(5);
    assert_eq!(
        (phase(&scene, "p").as_str(), told(&scene, "FailedMount")),
        ("Pending", vec![GONE.to_owned()])
    );
    scene.host("n1").hidden.clear();
    scene.run(15);
    assert_eq!(phase(&scene, "p"), "Succeeded");

    // No disk: the runtime makes directories below /var/mnt on the system disk, where the kubelet can only read.
    let mut scene = stage_with_volume(|scene| {
        scene.host("n1").mounts.remove(BASE);
    });
    scene.apply(probe("p", WRITE));
    scene.run(5);
    let (text, status) = unframed(&scene.log("default", "p"));
    assert_eq!((text.as_str(), status), ("dd: can't open '/data/probe': Read-only file system\n", 1));
    assert_eq!(phase(&scene, "p"), "Succeeded");

    // A disk that is full.
    let mut scene = stage_with_volume(|scene| {
        let disk = scene.host("n1").mounts.get_mut(BASE).unwrap();
        disk.used = disk.size - 4096;
    });
    scene.apply(probe("p", WRITE));
    scene.run(5);
    let (text, status) = unframed(&scene.log("default", "p"));
    assert!(
        text.starts_with("dd: error writing '/data/probe': No space left on device\n") && status == 1,
        "{text}"
    );

    // The directory was lost.
    let mut scene = stage_with_volume(|_| {});
    scene.host("n1").mounts.get_mut(BASE).unwrap().directories.clear();
    scene.apply(probe("p", WRITE));
    scene.run(5);
    assert_eq!(told(&scene, "FailedMount"), [GONE]);
}

#[test]
fn what_keeps_a_pod_from_starting_is_told_and_can_be_healed() {
    let secret = |optional: bool| json!({"volumes": [{"name": "s", "secret": {"secretName": "gone", "optional": optional}}]});
    let mut scene = Scene::new(&["n1"]);
    scene.apply(pod("p", &secret(false)));
    scene.apply(pod("q", &secret(true)));
    scene.apply(pod("r", &json!({"volumes": [{"name": "c", "configMap": {"name": "gone"}}]})));
    scene.run(30);
    let said = |volume: &str, what: &str| {
        format!("MountVolume.SetUp failed for volume \"{volume}\" : {what} \"gone\" not found")
    };
    assert_eq!(told(&scene, "FailedMount"), [said("s", "secret"), said("c", "configmap")]);
    assert_eq!(["p", "q", "r"].map(|name| phase(&scene, name)), ["Pending", "Running", "Pending"]);
    scene.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gone"}}));
    scene.run(2);
    assert_eq!(phase(&scene, "p"), "Running");

    // Past the scheduler, a claim that waits for its first consumer waits for ever.
    let claim =
        json!({"nodeName": "n1", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    scene.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"storageClassName": "none", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}},
    }));
    scene.apply(pod("bypass", &claim));
    scene.run(2);
    assert!(
        told(&scene, "FailedMount")
            .iter()
            .any(|why| why.ends_with("error processing PVC default/data: PVC is not bound"))
    );
}

#[test]
fn an_image_that_is_not_there_backs_off() {
    let mut scene = Scene::new(&["n1"]);
    scene.apply(pod(
        "p",
        &json!({"containers": [{"name": "main", "image": "registry.test/does-not-exist:1"}]}),
    ));
    scene.run(1);
    assert_eq!((phase(&scene, "p").as_str(), waiting(&scene, "p").as_str()), ("Pending", "ErrImagePull"));
    scene.run(5);
    assert_eq!(waiting(&scene, "p"), "ImagePullBackOff");
    assert_eq!(told(&scene, "BackOff"), ["Back-off pulling image \"registry.test/does-not-exist:1\""]);
    let failed = told(&scene, "Failed");
    assert!(
        failed[0].starts_with(
            "Failed to pull image \"registry.test/does-not-exist:1\": rpc error: code = NotFound"
        )
    );
    assert_eq!(failed[1..], ["Error: ErrImagePull", "Error: ImagePullBackOff"]);
}

#[test]
fn a_host_path_where_the_machine_is_read_only_is_refused_by_the_runtime() {
    let mut scene = Scene::new(&["n1"]);
    let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    scene.patch("/api/v1/namespaces/default", &level);
    let paths = |path: &str| json!({"volumes": [{"name": "dev", "hostPath": {"path": "/dev"}}, {"name": "v", "hostPath": {"path": path}}]});
    scene.apply(pod("p", &paths("/opt/volumes")));
    scene.apply(pod("q", &paths("/var/openebs/local")));
    scene.run(5);
    assert_eq!(
        (phase(&scene, "q").as_str(), waiting(&scene, "p").as_str()),
        ("Running", "CreateContainerError")
    );
    let failed = told(&scene, "Failed");
    assert!(
        failed.len() == 1 && failed[0].ends_with("mkdir /opt/volumes: read-only file system"),
        "{failed:?}"
    );
}

#[test]
fn a_helper_pod_makes_its_directory_as_the_runtime_sees_it() {
    let mut scene = Scene::new(&["n1"]);
    let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    scene.patch("/api/v1/namespaces/default", &level);
    let helper = |command: &Value| {
        json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": "local-path-init", "image": "x:1", "command": command,
                "volumeMounts": [{"name": "data", "mountPath": "/data/"}, {"name": "dev", "mountPath": "/dev"}],
            }],
            "volumes": [
                {"name": "data", "hostPath": {"path": format!("{BASE}/")}}, {"name": "dev", "hostPath": {"path": "/dev"}},
            ],
        })
    };
    scene.host("n1").hidden.insert(BASE.into());
    scene.apply(pod("init-pvc-1", &helper(&json!(["mkdir", "-m", "0777", "-p", "/data/pvc-1"]))));
    scene.run(2);
    assert_eq!(phase(&scene, "init-pvc-1"), "Succeeded");
    assert_eq!(scene.host("n1").mounts[BASE].directories.keys().collect::<Vec<_>>(), ["/pvc-1"]);
    scene.apply(pod("cleanup-pvc-1", &helper(&json!(["rm", "-rf", "/data/pvc-1"]))));
    scene.run(2);
    assert!(
        phase(&scene, "cleanup-pvc-1") == "Succeeded" && scene.host("n1").mounts[BASE].directories.is_empty()
    );
}

#[test]
fn a_machine_that_was_down_starts_its_pods_again() {
    let mut scene = stage_with_volume(|_| {});
    scene.apply(pod("p", &json!({})));
    scene.apply(probe("probe", "sleep 60"));
    scene.run(5);
    scene.host("n1").down = true;
    scene.run(100);
    let node = scene.get("/nodes", "", "n1").unwrap();
    let ready = condition_of(&node, "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("Unknown"), &json!("NodeStatusUnknown")));
    assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 2);
    assert!(!holds(&scene.get("/pods", "default", "p").unwrap(), "Ready"));
    assert_eq!(["p", "probe"].map(|name| phase(&scene, name)), ["Running", "Running"]);
    scene.apply(pod("late", &json!({})));
    scene.run(5);
    assert_eq!(phase(&scene, "late"), "Pending");
    scene.host("n1").down = false;
    scene.run(10);
    let node = scene.get("/nodes", "", "n1").unwrap();
    assert!(holds(&node, "Ready") && node["spec"]["taints"].is_null(), "{node}");
    let pod = scene.get("/pods", "default", "p").unwrap();
    assert!(holds(&pod, "Ready") && pod["status"]["containerStatuses"][0]["restartCount"] == 1, "{pod}");
    assert_eq!(["late", "probe"].map(|name| phase(&scene, name)), ["Running", "Failed"]);
    assert!(scene.events("default").contains(&"NodeReady: Node n1 status is now: NodeReady".to_owned()));
}

#[test]
fn a_pod_that_sleeps_when_its_work_is_done_runs_on_and_does_it_again_after_its_machine_was_down() {
    let mut scene = stage_with_volume(|_| {});
    let mut sleeper = probe("sleeper", "");
    let work = framed(&files("data /data 20 100000")) + "sleep infinity";
    sleeper["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", work]);
    sleeper["spec"]["restartPolicy"] = json!("Always");
    scene.apply(sleeper);
    scene.run(5);
    let log = |scene: &mut Scene| unframed(&scene.log("default", "sleeper"));
    let (text, status) = log(&mut scene);
    assert!(status == 0 && text.starts_with("wrote "), "{text}");
    let version = scene.api.store.version();
    scene.run(100);
    assert_eq!((phase(&scene, "sleeper").as_str(), scene.api.store.version()), ("Running", version));
    scene.host("n1").down = true;
    scene.run(100);
    scene.host("n1").down = false;
    scene.run(10);
    assert_eq!(log(&mut scene), (text.replacen("wrote ", "found ", 1), 0));
}

#[test]
fn a_pod_that_fails_before_it_would_sleep_ends() {
    let mut scene = stage_with_volume(|_| {});
    let mut pod = probe("p", "");
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", "echo a\nexit 7\nsleep infinity"]);
    scene.apply(pod);
    scene.run(5);
    assert_eq!((phase(&scene, "p").as_str(), scene.log("default", "p").as_str()), ("Failed", "a\n"));
}
