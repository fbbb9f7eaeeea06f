//! Programs that are to run for ever and end by themselves, again and again.

use std::time::Duration;

use serde_json::Value;

use crate::kube::actors::objects::list;
use crate::kube::actors::{names, text};

/// How a container ends soon after each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Crash {
    /// The container's name.
    pub container: String,
    pub after: Duration,
    pub code: i32,
    /// The last that it writes.
    pub words: String,
}

/// The image of a container that ends soon after each start, and is ready until then.
const EXITS: &str = "exits-soon";

/// The first of a pod's containers that ends so.
pub(in super::super) fn of(pod: &Value) -> Option<Crash> {
    list(pod, "/spec/containers").iter().find_map(|container| {
        let image = text(container, "/image");
        if image.contains(EXITS) {
            return Some(ends(container, 2, 1, "this program ends soon after each start".to_owned()));
        }
        let (_, name) = names(pod);
        (image.contains("provisioner-localpv") && !writable(pod, container, "/tmp")).then(|| {
            // Its log library opens a file there, and ends the program when it can't.
            let file = format!("/tmp/provisioner-localpv.{name}.unknownuser.log.INFO");
            let why = format!("log: cannot create log: open {file}: read-only file system");
            ends(container, 0, 2, format!("log: exiting because of error: {why}"))
        })
    })
}

fn ends(container: &Value, seconds: u64, code: i32, words: String) -> Crash {
    let after = Duration::from_millis(200) + Duration::from_secs(seconds);
    Crash { container: text(container, "/name").to_owned(), after, code, words }
}

/// Whether the container can write there: to its own root file system, or to a volume.
fn writable(pod: &Value, container: &Value, directory: &str) -> bool {
    let mounts = list(container, "/volumeMounts").iter();
    let mut here = mounts.filter(|mount| text(mount, "/mountPath").trim_end_matches('/') == directory);
    match here.next() {
        Some(mount) => {
            let volume = list(pod, "/spec/volumes").iter().find(|volume| volume["name"] == mount["name"]);
            let scratch = volume.is_some_and(|volume| !volume["emptyDir"].is_null());
            scratch && mount["readOnly"] != true
        }
        None => container["securityContext"]["readOnlyRootFilesystem"] != true,
    }
}

/// How long the kubelet waits before it starts a container again that was started again so often.
pub(in super::super) fn back_off(restarts: u64) -> Duration {
    let doubled = u32::try_from(restarts).unwrap_or(u32::MAX).min(5);
    Duration::from_secs(10 * 2_u64.pow(doubled)).min(Duration::from_secs(300))
}

/// What the kubelet says while it waits.
pub(in super::super) fn message(pod: &Value, container: &str, restarts: u64) -> String {
    let (namespace, name) = names(pod);
    let seconds = back_off(restarts).as_secs();
    let wait =
        if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) };
    let uid = text(pod, "/metadata/uid");
    format!("back-off {wait} restarting failed container={container} pod={name}_{namespace}({uid})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(image: &str, container: &Value) -> Value {
        let mut one = json!({"name": "c", "image": image});
        json_patch::merge(&mut one, container);
        let volumes = json!([{"name": "tmp", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s"}}]);
        json!({"metadata": {"name": "p"}, "spec": {"containers": [one], "volumes": volumes}})
    }

    #[test]
    fn the_provisioner_ends_where_it_can_write_no_log() {
        let locked = json!({"readOnlyRootFilesystem": true});
        let mount = |name: &str| json!([{"name": name, "mountPath": "/tmp"}]);
        for (container, ends) in [
            (json!({}), false),
            (json!({"securityContext": locked}), true),
            (json!({"securityContext": locked, "volumeMounts": mount("tmp")}), false),
            (json!({"securityContext": locked, "volumeMounts": mount("s")}), true),
        ] {
            let crash = of(&pod("mirror.test/openebs/provisioner-localpv:4.6.0", &container));
            assert_eq!(crash.as_ref().map(|crash| crash.code), ends.then_some(2), "{container}");
            assert!(crash.is_none_or(|crash| crash.words.contains("read-only file system")));
            assert_eq!(of(&pod("x/other:1", &container)), None);
        }
        assert_eq!(of(&pod("x:exits-soon", &json!({}))).map(|crash| crash.code), Some(1));
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes() {
        let waits = [0, 1, 2, 5, 40].map(|restarts| back_off(restarts).as_secs());
        assert_eq!(waits, [10, 20, 40, 300, 300]);
    }
}
