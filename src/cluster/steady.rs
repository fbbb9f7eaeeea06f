//! Whether pods that are ready stay so. A container that ends soon after each start is ready in between, and a controller
//! counts it then; so what ended before has to stay up for longer than it did. No clock of this machine is compared with
//! those of the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::reason::{count, exit, items, short, text};

/// How long a container that never ended has to be up.
const FIRST: Duration = Duration::from_secs(10);
/// How much longer one that ended has to be up than before, and the most that is waited for.
const LONGER: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(120);
/// What the kubelet says of a container whose node went down below it.
const NODE_DOWN: &str = "Unknown";

/// What was seen of containers, over several looks at a workload.
#[derive(Debug, Default)]
pub struct Steady {
    /// By the pod's uid and the container's name: how often it was started again, and since when that was so.
    seen: BTreeMap<(String, String), (i64, Instant)>,
}

/// The clocks of nodes: their kubelets' last word, by the node's name.
pub(super) type Clocks = BTreeMap<String, Timestamp>;

impl Steady {
    /// Why the pods are not known to stay ready; None when they are. `ready_for` is how long their controller has seen each
    /// of them be ready.
    pub(super) fn doubt(&mut self, pods: &[Value], ready_for: Duration, clocks: &Clocks) -> Option<String> {
        let now = Instant::now();
        let mut doubt = None;
        for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
            for container in items(&pod["status"], "containerStatuses") {
                let (name, restarts) = (text(container, "name"), count(container, "restartCount"));
                let key = (text(&pod["metadata"], "uid").to_owned(), name.to_owned());
                let seen = self.seen.entry(key).or_insert((restarts, now));
                if seen.0 != restarts {
                    *seen = (restarts, now);
                }
                let needed = needed(container, ready_for);
                let up = age(pod, container, clocks).unwrap_or_default().max(now - seen.1);
                if up < needed {
                    doubt.get_or_insert_with(|| why(pod, container, needed));
                }
            }
        }
        doubt
    }
}

/// The nodes whose clocks are asked: those of containers that need a time of their own.
pub(super) fn nodes(pods: &[Value], ready_for: Duration) -> Vec<&str> {
    let asks = |pod: &&Value| {
        items(&pod["status"], "containerStatuses").iter().any(|one| !needed(one, ready_for).is_zero())
    };
    let mut nodes: Vec<&str> = pods.iter().filter(asks).map(|pod| text(&pod["spec"], "nodeName")).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn ended(container: &Value) -> &Value {
    &container["lastState"]["terminated"]
}

/// It ended by itself before, and not with its node.
fn crashed(container: &Value) -> bool {
    count(container, "restartCount") > 0 && text(ended(container), "reason") != NODE_DOWN
}

fn needed(container: &Value, ready_for: Duration) -> Duration {
    if !crashed(container) {
        return FIRST.saturating_sub(ready_for);
    }
    let (from, to) = (time(ended(container), "startedAt"), time(ended(container), "finishedAt"));
    (between(from, to).unwrap_or_default() + LONGER).min(MOST)
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    text(value, key).parse().ok()
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    to?.duration_since(from?).try_into().ok()
}

/// How long the container is up, by its node's own clock.
fn age(pod: &Value, container: &Value, clocks: &Clocks) -> Option<Duration> {
    let now = clocks.get(text(&pod["spec"], "nodeName")).copied();
    between(time(&container["state"]["running"], "startedAt"), now)
}

fn why(pod: &Value, container: &Value, needed: Duration) -> String {
    let (name, seconds) = (text(&pod["metadata"], "name"), needed.as_secs());
    let stays = format!("it has to stay up for {seconds} s");
    if crashed(container) {
        return short(&format!(
            "{}; it was started again, and {stays}",
            exit(name, container, ended(container))
        ));
    }
    format!("pod {name}: container {} was just started; {stays}", text(container, "name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn pod(restarts: u32, started: &str, ended: &Value) -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n1"},
            "status": {"containerStatuses": [{
                "name": "c", "restartCount": restarts, "state": {"running": {"startedAt": started}},
                "lastState": {"terminated": ended},
            }]},
        })
    }

    /// It ran for 20 seconds.
    fn crash() -> Value {
        json!({"exitCode": 1, "reason": "Error", "message": "log: cannot create log", "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:20Z"})
    }

    fn clock(time: &str) -> Clocks {
        time.parse().map(|time| Clocks::from([("n1".to_owned(), time)])).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_before_has_to_stay_up_for_longer_than_it_did() {
        let mut steady = Steady::default();
        let mut doubt = |pod: Value| steady.doubt(&[pod], LONG, &Clocks::new());
        let first = doubt(pod(1, "2026-01-01T00:00:30Z", &crash())).unwrap_or_default();
        assert!(first.contains("ended with code 1: log: cannot create log"), "{first}");
        assert!(first.contains("for 50 s"), "{first}");
        tokio::time::advance(Duration::from_secs(40)).await;
        // It ended once more between two looks, so it begins anew.
        assert!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash())).is_some());
        tokio::time::advance(Duration::from_secs(49)).await;
        assert!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash())).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash())), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_of_long_ago_costs_nothing_where_the_node_tells_its_time() {
        let crashed = pod(3, "2026-01-01T00:01:00Z", &crash());
        for (time, known) in [("2026-01-01T00:01:49Z", false), ("2026-01-01T00:01:50Z", true), ("", false)] {
            let doubt = Steady::default().doubt(std::slice::from_ref(&crashed), LONG, &clock(time));
            assert_eq!(doubt.is_none(), known, "{time}: {doubt:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_needs_its_controllers_word_or_a_moment() {
        let started = "2026-01-01T00:00:00Z";
        let node_down = json!({"exitCode": 255, "reason": "Unknown"});
        for first in [pod(0, started, &Value::Null), pod(1, started, &node_down)] {
            assert_eq!(Steady::default().doubt(std::slice::from_ref(&first), LONG, &Clocks::new()), None);
            let mut steady = Steady::default();
            let mut doubt = || steady.doubt(std::slice::from_ref(&first), Duration::ZERO, &Clocks::new());
            assert!(doubt().is_some_and(|why| why.contains("just started")));
            tokio::time::advance(Duration::from_secs(10)).await;
            assert_eq!(doubt(), None);
        }
    }
}
