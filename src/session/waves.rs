//! In which order nodes have their turns: machines that have no config yet at the same time, control planes before workers,
//! which join by them; then control planes one at a time, then the workers, several at a time, and what the cluster as a
//! whole needs when all of them are ready.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::plan::{Action, NodeAction, Step, Target, When};

/// How many workers have their turn at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallel {
    Nodes(usize),
    /// Of the workers that have something to do; at least one.
    Percent(usize),
}

impl Default for Parallel {
    fn default() -> Self {
        Self::Percent(25)
    }
}

impl fmt::Display for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Parallel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str, most| {
            digits
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or("a number of nodes, such as 5, or a part of them, such as 25%")
        };
        Ok(match text.strip_suffix('%') {
            Some(digits) => Self::Percent(number(digits, 100)?),
            None => Self::Nodes(number(text, usize::MAX)?),
        })
    }
}

impl Parallel {
    fn of(self, nodes: usize) -> usize {
        match self {
            Self::Nodes(count) => count,
            Self::Percent(percent) => nodes.saturating_mul(percent).div_ceil(100),
        }
        .max(1)
    }
}

/// How many machines get their first config at the same time.
const NEW_AT_ONCE: usize = 50;

/// How many steps of the cluster are carried out at the same time, where none of them needs another.
const CLUSTER_AT_ONCE: usize = 4;

/// A node's steps, or the cluster's, with their places in the plan.
pub(super) type Lane<'a> = Vec<(usize, &'a Step)>;

/// What is done at the same time. The next wave begins when this one has ended.
#[derive(Debug)]
pub(super) struct Wave<'a> {
    pub(super) lanes: Vec<Lane<'a>>,
    pub(super) at_once: usize,
    /// How many steps of a lane are carried out at the same time.
    pub(super) steps_at_once: usize,
}

impl<'a> Wave<'a> {
    fn of_nodes(lanes: Vec<Lane<'a>>, at_once: usize) -> Self {
        Wave { lanes, at_once, steps_at_once: 1 }
    }
}

/// The waves of a plan without what is done at its end; none is empty.
pub(super) fn waves(steps: &[Step], parallel: Parallel) -> Vec<Wave<'_>> {
    let mut nodes: Vec<Lane<'_>> = Vec::new();
    let mut places: HashMap<&Target, usize> = HashMap::new();
    let mut cluster = Lane::new();
    for step in steps.iter().enumerate().filter(|(_, step)| step.when == When::Needed) {
        if !step.1.target.is_node() {
            cluster.push(step);
            continue;
        }
        let place = *places.entry(&step.1.target).or_insert(nodes.len());
        match nodes.get_mut(place) {
            Some(lane) => lane.push(step),
            None => nodes.push(vec![step]),
        }
    }
    let (new, nodes): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|lane| is_new(lane));
    let (first, later): (Vec<_>, Vec<_>) = new.into_iter().partition(|lane| is_control_plane(lane));
    let new = [first, later].into_iter().filter(|lanes| !lanes.is_empty());
    let mut waves: Vec<Wave<'_>> = new.map(|lanes| Wave::of_nodes(lanes, NEW_AT_ONCE)).collect();
    let (control_planes, workers): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|lane| is_control_plane(lane));
    waves.extend(control_planes.into_iter().map(|lane| Wave::of_nodes(vec![lane], 1)));
    if !workers.is_empty() {
        let at_once = parallel.of(workers.len());
        waves.push(Wave::of_nodes(workers, at_once));
    }
    if !cluster.is_empty() {
        waves.push(Wave { lanes: vec![cluster], at_once: 1, steps_at_once: CLUSTER_AT_ONCE });
    }
    waves
}

fn is_control_plane(lane: &Lane<'_>) -> bool {
    lane.iter().any(|(_, step)| match &step.action {
        Action::Node(NodeAction::Config(work)) => work.control_plane,
        Action::Node(NodeAction::Install(work)) => work.control_plane,
        _ => false,
    })
}

/// Nothing runs on it yet that could be disturbed.
fn is_new(lane: &Lane<'_>) -> bool {
    lane.iter().any(|(_, step)| matches!(step.action, Action::Node(NodeAction::Install(_))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::object::Object;
    use crate::plan::bootstrap::{Bootstrap, Install};
    use crate::plan::{ApplyConfig, ObjectAction};

    fn step(target: &str, action: Action) -> Step {
        Step::new(format!("{target}/{}", action.changes()), target.to_owned().into(), "", action)
    }

    fn config(target: &str, control_plane: bool) -> Step {
        let work = ApplyConfig {
            address: target.into(),
            control_plane,
            base_version: String::new(),
            config: String::new().into(),
            volumes: Vec::new(),
            labels: Vec::new(),
            disks: Vec::new(),
        };
        step(target, Action::Node(NodeAction::Config(work)))
    }

    fn first(target: &str, control_plane: bool) -> Step {
        let first = Install {
            address: target.into(),
            control_plane,
            config: String::new().into(),
            labels: Vec::new(),
            fingerprint: String::new(),
            disk: None,
        };
        step(target, Action::Node(NodeAction::Install(first)))
    }

    fn told(steps: &[Step]) -> Vec<String> {
        let wave = |wave: &Wave<'_>| {
            let lane = |lane: &Lane<'_>| {
                lane.iter().map(|(i, step)| format!("{i}:{}", step.target)).collect::<Vec<_>>().join(" ")
            };
            let lanes: Vec<String> = wave.lanes.iter().map(lane).collect();
            format!("{} {} [{}]", wave.at_once, wave.steps_at_once, lanes.join(", "))
        };
        waves(steps, Parallel::Nodes(2)).iter().map(wave).collect()
    }

    fn wait(target: &str) -> Step {
        step(target, Action::Node(NodeAction::AwaitVolumes { address: target.into(), volumes: Vec::new() }))
    }

    fn object() -> Step {
        let object = Object { value: json!({}), component: "velero", secret: false, create_only: false };
        step("cluster", Action::Object(ObjectAction::Apply(object)))
    }

    #[test]
    fn control_planes_come_one_at_a_time_then_workers_then_the_cluster() {
        let steps = [
            config("w1", false),
            config("c1", true),
            wait("w1"),
            object(),
            config("w2", false),
            config("c2", true),
            wait("w3"),
            object(),
        ];
        assert_eq!(
            told(&steps),
            ["1 1 [1:c1]", "1 1 [5:c2]", "2 1 [0:w1 2:w1, 4:w2, 6:w3]", "1 4 [3:cluster 7:cluster]",]
        );
        assert!(waves(&[], Parallel::default()).is_empty());
    }

    #[test]
    fn new_machines_come_all_at_once_workers_after_the_control_planes_that_they_join_by() {
        let begin = Bootstrap { address: "c1".into(), control_planes: Vec::new(), record: "r".into() };
        let begin = step("cluster", Action::Etcd(begin));
        let steps = [first("w1", false), first("c1", true), first("c2", true), first("w2", false), begin];
        assert_eq!(told(&steps), ["50 1 [1:c1, 2:c2]", "50 1 [0:w1, 3:w2]", "1 4 [4:cluster]"]);
    }

    #[test]
    fn a_part_of_the_workers_is_at_least_one_and_nonsense_is_refused() {
        for (text, nodes, at_once) in
            [("1", 9, 1), ("50", 9, 50), ("25%", 1, 1), ("25%", 9, 3), ("100%", 7, 7), ("1%", 1000, 10)]
        {
            assert_eq!(text.parse::<Parallel>().unwrap().of(nodes), at_once, "{text} of {nodes}");
        }
        for text in ["", "0", "-1", "0%", "101%", "x", "1.5", "5 %", "%", "99999999999999999999999"] {
            assert!(text.parse::<Parallel>().is_err(), "{text:?}");
        }
    }
}
