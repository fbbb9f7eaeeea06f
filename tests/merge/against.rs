//! Many generated patches against Talos' own code, where an oracle is built (`e2e/oracle/record`).

use std::fs::File;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;

use super::laws::config;
use super::{cases, digest, patched};

const PAIRS: usize = 600;

fn patch() -> impl Strategy<Value = String> {
    let deletions = prop_oneof![
        Just("machine: {nodeLabels: {a: {$patch: delete}}}"),
        Just("machine: {nodeLabels: {$patch: delete}}"),
        Just("machine: {install: {$patch: delete}, certSANs: {$patch: delete}}"),
        Just("machine: {network: {interfaces: [{interface: eth0, $patch: delete}]}}"),
        Just(
            "machine: {network: {interfaces: [{interface: eth1, $patch: delete}, {interface: eth2, mtu: 7}]}}"
        ),
        Just("cluster: {network: {podSubnets: {$patch: delete}}}"),
        Just("apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: v\n$patch: delete"),
        Just("apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: v\nfilesystem: {type: ext4}"),
        Just("machine: {sysctls: {a: ''}, network: {}, time: null}\ndebug: false"),
    ];
    prop_oneof![3 => config(true), 1 => deletions.prop_map(|text| format!("{text}\n"))]
}

/// What Talos says where it fails and the outcome is plain all the same: nothing to delete, nothing asked for, what cannot be
/// merged is what is there already, or a kind and fields of a newer version.
const PLAIN: [&str; 5] =
    ["lookup failed", "config not found", "is not settable", "not registered", "unknown keys found"];

/// `NODEPREP_ORACLE=~/.cache/nodeprep-lab/bin/oracle-v1.13.9 cargo test --test all -- --ignored talos_reads_our`
#[test]
#[ignore = "needs an oracle of Talos: e2e/oracle/record"]
fn talos_reads_our_results_of_generated_patches_as_what_it_makes_itself() {
    let (mut runner, pairs) = (TestRunner::deterministic(), (config(true), patch()));
    let pairs: Vec<_> = (0..PAIRS).map(|_| pairs.new_tree(&mut runner).unwrap().current()).collect();
    let refused = compare(&pairs);
    assert!(refused * 10 < PAIRS, "{refused} of {PAIRS} are refused here");
}

#[test]
#[ignore = "needs an oracle of Talos: e2e/oracle/record"]
fn talos_reads_our_results_of_every_case_patched_with_every_other_as_what_it_makes_itself() {
    let cases = cases();
    for (_, config, _) in &cases {
        let pairs: Vec<_> = cases.iter().map(|(_, _, patch)| (config.clone(), patch.clone())).collect();
        let refused = compare(&pairs);
        assert!(refused * 2 < pairs.len(), "{refused} of {} are refused here", pairs.len());
    }
}

/// Asks the oracle about pairs of a config and a patch; how many of them are refused here.
fn compare(pairs: &[(String, String)]) -> usize {
    let ours: Vec<_> = pairs.iter().map(|(config, patch)| patched(config, patch)).collect();
    let line = |((config, patch), ours): (&(String, String), &Result<String, String>)| {
        let result = ours.as_ref().ok();
        serde_json::json!({"config": config, "patches": [patch], "result": result}).to_string() + "\n"
    };
    let answers = oracle(&pairs.iter().zip(&ours).map(line).collect::<String>());
    assert_eq!(answers.len(), pairs.len());
    for (((config, patch), ours), answer) in pairs.iter().zip(&ours).zip(&answers) {
        let right = match (ours, answer["error"].as_str()) {
            (Ok(text), None) => answer["same"] == digest(text),
            (Ok(_), Some(error)) => {
                PLAIN.iter().any(|plain| error.contains(plain)) || error.contains("zero Value")
            }
            (Err(_), _) => true,
        };
        assert!(right, "{answer}\n--- config\n{config}\n--- patch\n{patch}\n--- ours\n{ours:?}");
    }
    ours.iter().filter(|ours| ours.is_err()).count()
}

fn oracle(lines: &str) -> Vec<Json> {
    let oracle = std::env::var("NODEPREP_ORACLE").expect("the path of an oracle");
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("lines");
    std::fs::write(&input, lines).unwrap();
    let run = Command::new(oracle)
        .arg("lines")
        .stdin(File::open(&input).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(run.status.success());
    String::from_utf8(run.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
