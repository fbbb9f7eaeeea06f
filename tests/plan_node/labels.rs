use super::bench::{Machine, applied};

const FILE: &str = "labels: {storage: fast}\n";

#[test]
fn a_label_that_somebody_else_set_to_another_value_is_a_conflict() {
    for (config, node, expected) in [
        (None, None, Ok("label storage=fast")),
        (None, Some("fast"), Ok("label storage=fast")),
        (None, Some("slow"), Err("somebody else")),
        // Talos wants what is there: it is Talos' own, and the config has the last word.
        (Some("slow"), Some("slow"), Ok("label storage=fast (was slow)")),
        (Some("slow"), None, Ok("label storage=fast (was slow)")),
        (Some("slow"), Some("other"), Err("somebody else")),
    ] {
        let mut machine = Machine::new(11, &[]);
        if let Some(value) = config {
            machine.apply(&machine.config_of(&format!("labels: {{storage: {value}}}\n")));
        }
        machine.labels = node.map(|value| ("storage".to_owned(), value.to_owned())).into_iter().collect();
        match expected {
            Ok(title) => assert_eq!(machine.plan(FILE).unwrap().steps[0].title, title),
            Err(words) => assert!(machine.refuses(FILE).contains(words), "{config:?} {node:?}"),
        }
    }
}

#[test]
fn a_node_of_its_own_gets_labels_of_its_own() {
    let mut machine = Machine::new(11, &[]);
    let file = "labels: {storage: fast, zone: a}\nnodes:\n  - {address: 10.0.0.1, labels: {zone: b, storage: null}}\n";
    let plan = machine.plan(file).unwrap();
    assert_eq!(applied(&plan).unwrap().labels, [("zone".to_owned(), "b".to_owned())]);
    machine.apply(&machine.config_of(file));
    assert!(machine.is_done(file));
}

#[test]
fn a_worker_may_not_set_what_node_restriction_forbids_and_a_control_plane_may() {
    let file = "labels: {node-role.kubernetes.io/storage: \"\"}\n";
    let mut machine = Machine::new(11, &[]);
    assert!(machine.refuses(file).contains("NodeRestriction"));
    machine.role = "controlplane";
    assert_eq!(machine.plan(file).unwrap().changes(), 1);
}
