//! Volumes and nodes in nodeprep.yaml: every mistake is at its line, and the examples have none.

use nodeprep::intent::{parse, schema};

const HEAD: &str = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n";

/// Below the header, which has three lines.
fn refused(text: &str) -> String {
    let error = parse("nodeprep.yaml", format!("{HEAD}{text}").as_bytes()).unwrap_err();
    format!("{} {}", error.what, error.hint.unwrap_or_default())
}

/// It is refused at this place of the file, in these words.
fn refused_at(text: &str, place: &str, words: &str) {
    let refusal = refused(text);
    assert!(
        refusal.contains(&format!("nodeprep.yaml{place}")) && refusal.contains(words),
        "{text}: {refusal}"
    );
}

#[test]
fn a_volume_takes_only_what_its_type_knows() {
    let volume = |line: &str| format!("volumes:\n- name: a\n  disk: {{match: disk.rotational}}\n  {line}\n");
    for (lines, place, words) in [
        ("type: partition", ":5:3", "needs `minSize`"),
        ("type: raw", ":5:3", "needs `minSize`"),
        ("type: directory", ":6:3", "`disk` is nothing for a volume of type directory"),
        ("type: disk\n  maxSize: 1GiB", ":8:12", "it is for partition, raw"),
        ("type: disk\n  grow: true", ":8:9", "`grow`"),
        ("type: raw\n  minSize: 1GiB\n  filesystem: {type: xfs}", ":9:3", "`filesystem`"),
        ("type: raw\n  minSize: 1GiB\n  mount: {secure: true}", ":9:3", "`mount`"),
        ("type: existing\n  minSize: 1GiB", ":8:12", "`minSize`"),
        ("type: existing\n  encryption: {keys: [tpm]}", ":8:3", "`encryption`"),
        ("minSize: 1GiB\n  mount: {readOnly: true}", ":8:21", "it is for existing"),
        ("minSize: 1GiB\n  partition: DATA", ":8:14", "it is for existing"),
        ("minSize: 1GiB\n  maxSize: 1MiB", ":8:12", "smaller than minSize 1GiB"),
        ("minSize: 1GiB\n  maxSize: 101%", ":8:", "between 1% and 100%"),
        ("minSize: 0GiB", ":7:12", "needs `minSize`"),
        ("minSize: 1GiB\n  encryption: {keys: []}", ":8:", "without keys"),
        ("minSize: 1GiB\n  encryption: {keys: [{kms: {endpoint: host}}]}", ":8:", "endpoint"),
        ("minSize: 1GiB\n  encryption: {keys: [password]}", ":8:", "password"),
        ("minSize: 1GiB\n  trim: 5s", ":8:9", "too often"),
        ("minSize: 1GiB\n  filesystem: {type: ext4, projectQuota: true}", ":8:", "needs an XFS"),
    ] {
        refused_at(&volume(lines), place, words);
    }
    let shared = "volumes:\n- {name: a, disk: {match: disk.rotational, shared: true}, minSize: 1GiB}\n";
    assert!(refused(shared).contains("needs `maxSize`"));
    assert!(refused("volumes:\n- {name: a, minSize: 1GiB}\n").contains("needs `disk.match`"));
    assert!(refused("ephemeral: {maxSize: 0}\n").contains("is nothing"));
}

#[test]
fn what_a_node_has_differently_is_checked_where_it_says_so() {
    let with = |entry: &str| {
        format!(
            "volumes:\n- {{name: a, disk: {{match: disk.rotational}}, minSize: 10GiB}}\n\
             nodes:\n- address: 10.0.0.1\n  {entry}\n"
        )
    };
    for (entry, place, words) in [
        ("volumes: {b: null}", ":8:", "`volumes` lists a"),
        ("volumes:\n    a: {maxSize: 1GiB}", ":9:", "smaller than minSize 10GiB"),
        ("volumes:\n    a: {disk: {match: disk.nope}}", ":9:", "nope"),
        ("volumes:\n    a: {size: 1GiB}", ":9:", "size"),
        ("volumes:\n    a: 5GiB", ":9:", ""),
        ("labels: {a b: c}", ":8:", "not a label key"),
        ("labels: {a: b c}", ":8:", "not a label value"),
        ("label: {a: b}", ":8:", "label"),
    ] {
        refused_at(&with(entry), place, words);
    }
}

#[test]
fn the_examples_are_files_of_today() {
    for (name, text) in [
        ("backups.yaml", include_str!("../../examples/backups.yaml")),
        ("home-lab.yaml", include_str!("../../examples/home-lab.yaml")),
        ("two-classes.yaml", include_str!("../../examples/two-classes.yaml")),
    ] {
        parse(name, text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn the_schema_has_what_a_node_may_have_differently() {
    let schema = schema();
    let node = &schema["$defs"]["Node"]["properties"];
    let volume = node["volumes"]["additionalProperties"].to_string();
    assert!(volume.contains("VolumeOverride") && volume.contains("null"), "{volume}");
    let kinds = schema["$defs"]["VolumeType"].to_string();
    for kind in ["partition", "disk", "directory", "raw", "existing"] {
        assert!(kinds.contains(kind), "{kinds}");
    }
}

#[test]
fn every_mistake_of_a_file_is_said_at_once() {
    let text = "labels: {\"a b\": x}\nvolumes:\n- {name: a_b, disk: {match: disk.rotational}, minSize: 1GiB}\n\
                - {name: c, disk: {match: disk.nothing}, minSize: 2GiB, maxSize: 1GiB}\n";
    let refusal = refused(text);
    for place in [":4:17", ":6:10", ":7:27", ":7:66"] {
        assert!(refusal.contains(&format!("nodeprep.yaml{place}")), "{place}: {refusal}");
    }
    assert!(!refused("ephemeral: {maxSize: 0}\n").contains("things"), "one mistake is one error");
}
