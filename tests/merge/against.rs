//! Many generated patches against Talos' own code, where an oracle is built (`e2e/oracle/record`).

use std::fs::File;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;

use super::laws::config;
use super::{digest, patched};

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

/// `NODEPREP_ORACLE=~/.cache/nodeprep-lab/bin/oracle-v1.13.9 cargo test --test all -- --ignored talos_reads_our`
#[test]
#[ignore = "needs an oracle of Talos: e2e/oracle/record"]
fn talos_reads_our_results_as_what_it_makes_itself() {
    let oracle = std::env::var("NODEPREP_ORACLE").expect("the path of an oracle");
    let (mut runner, pairs) = (TestRunner::deterministic(), (config(true), patch()));
    let pairs: Vec<_> = (0..PAIRS)
        .map(|_| pairs.new_tree(&mut runner).unwrap().current())
        .map(|(config, patch)| {
            let ours = patched(&config, &patch);
            (config, patch, ours)
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("lines");
    let lines: Vec<_> = pairs
        .iter()
        .map(|(config, patch, ours)| {
            serde_json::json!({"config": config, "patches": [patch], "result": ours.clone().ok()}).to_string()
                + "\n"
        })
        .collect();
    std::fs::write(&input, lines.concat()).unwrap();
    let run = Command::new(oracle)
        .arg("lines")
        .stdin(File::open(&input).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(run.status.success());
    let answers: Vec<Json> = String::from_utf8(run.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), pairs.len());
    let mut refused = 0;
    for ((config, patch, ours), answer) in pairs.iter().zip(&answers) {
        let error = answer.get("error").and_then(Json::as_str);
        let show = || format!("{answer}\n--- config\n{config}\n--- patch\n{patch}\n--- ours\n{ours:?}");
        match ours {
            Ok(text) if error.is_none() => {
                let same = answer.get("same").and_then(Json::as_str);
                assert_eq!(same, Some(digest(text).as_str()), "{}", show());
            }
            // What is to be deleted is not there: Talos fails, here nothing changes.
            Ok(_) => {
                let not_there = error.is_some_and(|error| error.contains("lookup failed"));
                assert!(not_there, "{}", show());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused * 10 < PAIRS, "{refused} of {PAIRS} are refused here");
}
