//! Disk selectors beside Talos' own answers (`tests/golden/cel`, recorded by `e2e/oracle`), and at the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodeprep::model::disks::{Disk, Holder, NEWEST, Uses, accept, select};
use nodeprep::talos::resources::DiskSpec;
use serde::Deserialize;

use crate::common::{golden, nodeprep};

/// Since Talos 1.14 what is no number is compared with one, and is not less; here it fails still.
const ORDERED_ANYHOW: &[&str] = &["not a number ordered"];

/// What Talos takes and nodeprep refuses, and why. The reverse is never right.
const CAUTIOUS: &[(&str, &[&str])] = &[
    (
        "nothing of a disk is one of these",
        &[
            "type name of the message",
            "message literal",
            "dyn",
            "type",
            "null equals null",
            "timestamp",
            "duration",
            "duration method",
        ],
    ),
    (
        "the `cel` crate reads or writes some texts in another way",
        &["uint of string", "double of string", "bool of string", "string of double", "backticks"],
    ),
    (
        "elements of several types can only be typed as anything",
        &[
            "list of two types",
            "list of int and uint",
            "map of two kinds of values",
            "map of two kinds of keys",
        ],
    ),
    ("elements of nothing have no type", &["empty list indexed", "macro over an empty list"]),
    (
        "the `cel` crate has no double keys and refuses a key that is there twice; Talos takes the last",
        &["map of double keys", "map with a key twice", "map with a computed key"],
    ),
    ("it fails on every disk", &["map select with int keys"]),
    (
        "Talos 1.13 reads it otherwise than those before",
        &["macro variable with a leading dot in the condition", "leading dot in a macro that hides disk"],
    ),
    (
        "the `regex` crate could read it otherwise than Go",
        &[
            "matches a unicode class",
            "matches with a brace",
            "matches a repetition of a repetition",
            "matches a wrong expression",
            "matches a look ahead",
            "matches a computed expression",
        ],
    ),
];

#[derive(Deserialize)]
struct Case {
    name: String,
    expression: String,
}

/// What Talos says of a case.
#[derive(Deserialize, Debug)]
struct Answer {
    accepted: bool,
    matches: Vec<String>,
    /// The disks on which the evaluation fails.
    #[serde(default)]
    failed: BTreeMap<String, String>,
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn disks() -> Vec<Disk> {
    let raw: Vec<serde_json::Value> = read(&golden("cel/disks.json"));
    let disk = |raw: serde_json::Value| Disk {
        id: raw["id"].as_str().unwrap().to_owned(),
        system: raw["system_disk"].as_bool().unwrap(),
        spec: serde_json::from_value::<DiskSpec>(raw).unwrap(),
        holder: Holder::Nothing,
        partitions: Vec::new(),
        uses: Uses::default(),
        eligible: Ok(()),
    };
    raw.into_iter().map(disk).collect()
}

/// The ids of the disks that match, and of those on which the expression fails.
fn ours(expression: &str, disks: &[Disk]) -> (Vec<String>, Vec<String>) {
    if let Ok(chosen) = select(expression, disks) {
        return (chosen.into_iter().map(|index| disks[index].id.clone()).collect(), Vec::new());
    }
    let (mut matches, mut failed) = (Vec::new(), Vec::new());
    for disk in disks {
        match select(expression, std::slice::from_ref(disk)) {
            Ok(chosen) if chosen.is_empty() => {}
            Ok(_) => matches.push(disk.id.clone()),
            Err(_) => failed.push(disk.id.clone()),
        }
    }
    (matches, failed)
}

#[test]
fn every_selector_is_answered_as_each_talos_answers_it() {
    let cases: Vec<Case> = read(&golden("cel/cases.json"));
    let disks = disks();
    let mut answers: Vec<((u64, u64), BTreeMap<String, Answer>)> = Vec::new();
    for entry in fs::read_dir(golden("cel")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if let Some((major, minor)) = name.strip_prefix('v').and_then(|version| version.split_once('.')) {
            let minor = minor.split('.').next().unwrap();
            answers.push(((major.parse().unwrap(), minor.parse().unwrap()), read(&path)));
        }
    }
    assert!(answers.len() >= 4, "the answers of four releases are recorded");
    let (mut wrong, mut cautious) = (Vec::new(), Vec::new());
    for Case { name, expression } in &cases {
        let newest = accept(expression, NEWEST).is_ok().then(|| ours(expression, &disks));
        for (release, answers) in &answers {
            let Some(answer) = answers.get(name) else {
                wrong.push(format!("{name}: no answer of {release:?} is recorded"));
                continue;
            };
            let accepted = accept(expression, *release);
            let known = CAUTIOUS.iter().any(|(_, names)| names.contains(&name.as_str()));
            match (&accepted, answer.accepted, &newest) {
                (Err(_), false, _) => {}
                (Err(_), true, _) if known => cautious.push(name.as_str()),
                (Ok(()), true, Some((matches, failed))) => {
                    let failing: Vec<String> = answer.failed.keys().cloned().collect();
                    let mut failed = failed.clone();
                    failed.sort();
                    // What fails here is no match there: neither takes a disk.
                    let newer = *release >= (1, 14) && ORDERED_ANYHOW.contains(&name.as_str());
                    if matches != &answer.matches || (failed != failing && !newer) {
                        wrong.push(format!(
                            "{name} {release:?}: {expression}: {matches:?} {failed:?} is not {answer:?}"
                        ));
                    }
                }
                _ => wrong.push(format!("{name} {release:?}: {expression}: {accepted:?} is not {answer:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (_, names) in CAUTIOUS {
        for name in *names {
            assert!(cautious.contains(name), "{name} is no exception any more");
        }
    }
}

/// The exit code, and all that was said.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = nodeprep(folder).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_selector_is_tried_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&str, i32, &[&str]); 6] = [
        ("disk.size > 100 * GiB", 2, &["column 17", "100u * GiB"]),
        ("disk.seriel == 'x'", 2, &["column 6", "serial"]),
        ("serial:", 2, &["names no serial"]),
        ("nvme", 0, &["selector: matches 2 of 3 disks", "nvme1n1"]),
        ("largest-free-nvme", 0, &["selector: matches 1 of 3 disks", "nvme0n1"]),
        ("disk.size / 0u == 1u", 2, &["fails on disk"]),
    ];
    for (selector, code, words) in table {
        let arguments = ["discover", "--select", selector, "--sandbox"];
        let (found, said) = run(folder.path(), &arguments);
        assert_eq!(found, Some(code), "{selector}: {said}");
        assert!(!said.contains("panicked"), "{selector}: {said}");
        for word in words {
            assert!(said.contains(word), "{selector}: no `{word}` in: {said}");
        }
    }
}

#[test]
fn a_selector_that_is_wrong_is_told_at_its_line_and_column_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |selector: &str| {
        format!(
            "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: test}}\nnodes: [{{address: 127.0.0.1}}]\n\
             volumes:\n  - name: openebs\n    disk:\n      match: {selector}\n    minSize: 1GiB\n"
        )
    };
    let table: [(&str, &[&str]); 4] = [
        ("disk.size > 100 * GiB", &["nodeprep.yaml:8:", "column 17", "100u * GiB"]),
        ("serial:S64 || true", &["no talosconfig"]),
        ("largest-free-nvme", &["no talosconfig"]),
        ("largest-nvme", &["nodeprep.yaml:8:", "largest-free-nvme"]),
    ];
    for (selector, words) in table {
        fs::write(folder.path().join("nodeprep.yaml"), file(selector)).unwrap();
        let (code, said) = run(folder.path(), &["plan"]);
        assert_eq!(code, Some(2), "{selector}: {said}");
        for word in words {
            assert!(said.contains(word), "{selector}: no `{word}` in: {said}");
        }
    }
}
