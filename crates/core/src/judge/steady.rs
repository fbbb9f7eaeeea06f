//! Whether pods that are ready stay so. A container that ends soon after each start is ready in between, and a controller
//! counts it then; so what ended before has to stay up for longer than it did. No clock of this machine is compared with
//! those of the nodes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::pods::{AGAIN, containers, exit, last_end, name, short, some, staying};
use super::words::NODE_DOWN;

/// How long a container that never ended has to be up.
const FIRST: Duration = Duration::from_secs(10);
/// How much longer one that ended has to be up than before, and the most that is waited for.
const LONGER: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(120);

/// What was seen of containers, over several looks at a workload.
#[derive(Debug, Default)]
pub struct Steady {
    /// By the pod's uid and the container's name: how often it was started again, and since when that was so.
    seen: BTreeMap<(String, String), (i32, Instant)>,
}

/// The clocks of nodes: their kubelets' last word, by the node's name.
pub type Clocks = BTreeMap<String, Timestamp>;

impl Steady {
    /// Why the pods are not known to stay ready; None when they are. `ready_for` is how long their controller has seen each
    /// of them be ready, and `now` when they were looked at.
    pub fn doubt(
        &mut self,
        pods: &[Pod],
        ready_for: Duration,
        clocks: &Clocks,
        now: Instant,
    ) -> Option<String> {
        let mut doubt = None;
        for pod in staying(pods) {
            for container in containers(pod) {
                let restarts = container.restart_count;
                let key = (some(&pod.metadata.uid).to_owned(), container.name.clone());
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
pub fn nodes(pods: &[Pod], ready_for: Duration) -> Vec<&str> {
    let asks = |pod: &&Pod| containers(pod).iter().any(|one| !needed(one, ready_for).is_zero());
    let mut nodes: Vec<&str> = pods.iter().filter(asks).map(node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().map_or("", |spec| some(&spec.node_name))
}

/// It ended by itself before, and not with its node.
fn crashed(container: &ContainerStatus) -> bool {
    let with_node = last_end(container).is_some_and(|ended| NODE_DOWN.are(some(&ended.reason)));
    container.restart_count > 0 && !with_node
}

fn needed(container: &ContainerStatus, ready_for: Duration) -> Duration {
    if !crashed(container) {
        return FIRST.saturating_sub(ready_for);
    }
    let lived = last_end(container)
        .and_then(|ended| between(ended.started_at.as_ref()?.0, ended.finished_at.as_ref()?.0));
    (lived.unwrap_or_default() + LONGER).min(MOST)
}

fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    to.duration_since(from).try_into().ok()
}

/// How long the container is up, by its node's own clock.
fn age(pod: &Pod, container: &ContainerStatus, clocks: &Clocks) -> Option<Duration> {
    let running = container.state.as_ref()?.running.as_ref()?;
    between(running.started_at.as_ref()?.0, *clocks.get(node(pod))?)
}

fn why(pod: &Pod, container: &ContainerStatus, needed: Duration) -> String {
    let stays = format!("it has to stay up for {} s", needed.as_secs());
    let name = name(pod);
    if !crashed(container) {
        return format!("pod {name}: container {} was just started; {stays}", container.name);
    }
    let ended = last_end(container).map_or_else(
        || format!("container {} of pod {name} ended before", container.name),
        |ended| exit(name, container, ended),
    );
    short(&format!("{ended}; {AGAIN}, and {stays}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn pod(restarts: u32, started: &str, ended: &Value) -> Pod {
        from_value(json!({
            "metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n1"},
            "status": {"containerStatuses": [{
                "name": "c", "restartCount": restarts, "state": {"running": {"startedAt": started}},
                "lastState": {"terminated": ended},
            }]},
        }))
        .unwrap()
    }

    fn seconds(since: Instant, seconds: u64) -> Instant {
        since + Duration::from_secs(seconds)
    }

    /// It ran for 20 seconds.
    fn crash() -> Value {
        json!({"exitCode": 1, "reason": "Error", "message": "log: cannot create log", "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:20Z"})
    }

    fn clock(time: &str) -> Clocks {
        time.parse().map(|time| Clocks::from([("n1".to_owned(), time)])).unwrap_or_default()
    }

    #[test]
    fn what_ended_before_has_to_stay_up_for_longer_than_it_did() {
        let (mut steady, start) = (Steady::default(), Instant::now());
        let mut doubt = |pod: Pod, at: u64| steady.doubt(&[pod], LONG, &Clocks::new(), seconds(start, at));
        let first = doubt(pod(1, "2026-01-01T00:00:30Z", &crash()), 0).unwrap_or_default();
        assert!(first.contains("ended with code 1: log: cannot create log"), "{first}");
        assert!(first.contains("for 50 s"), "{first}");
        // It ended once more between two looks, so it begins anew.
        assert!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash()), 40).is_some());
        assert!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash()), 89).is_some());
        assert_eq!(doubt(pod(2, "2026-01-01T00:01:10Z", &crash()), 90), None);
    }

    #[test]
    fn a_crash_of_long_ago_costs_nothing_where_the_node_tells_its_time() {
        let crashed = pod(3, "2026-01-01T00:01:00Z", &crash());
        for (time, known) in [("2026-01-01T00:01:49Z", false), ("2026-01-01T00:01:50Z", true), ("", false)] {
            let pods = std::slice::from_ref(&crashed);
            let doubt = Steady::default().doubt(pods, LONG, &clock(time), Instant::now());
            assert_eq!(doubt.is_none(), known, "{time}: {doubt:?}");
        }
    }

    #[test]
    fn a_first_start_needs_its_controllers_word_or_a_moment() {
        let (started, now) = ("2026-01-01T00:00:00Z", Instant::now());
        let node_down = json!({"exitCode": 255, "reason": "Unknown"});
        for first in [pod(0, started, &Value::Null), pod(1, started, &node_down)] {
            let pods = std::slice::from_ref(&first);
            assert_eq!(Steady::default().doubt(pods, LONG, &Clocks::new(), now), None);
            let mut steady = Steady::default();
            let mut doubt = |at| steady.doubt(pods, Duration::ZERO, &Clocks::new(), seconds(now, at));
            assert!(doubt(0).is_some_and(|why| why.contains("just started")));
            assert_eq!(doubt(10), None);
        }
    }

    #[test]
    fn one_that_was_started_again_is_doubted_although_nobody_kept_how_it_ended() {
        let again = pod(2, "2026-01-01T00:00:00Z", &Value::Null);
        let why = Steady::default().doubt(&[again], LONG, &Clocks::new(), Instant::now());
        assert!(why.is_some_and(|why| why.contains("started again") && why.contains("for 30 s")));
    }
}
