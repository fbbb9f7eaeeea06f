//! Edits of machine configs: golden cases, tables of odd spellings, and laws over generated configs.

mod laws;
mod secrets;

use std::path::{Path, PathBuf};

use nodeprep::config_doc::{ConfigDoc, REDACTED, redact};
use nodeprep::error::{Error, Result};
use nodeprep::yaml::{Stream, Value};

use crate::common::diff;

const VOLUME: &str = "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\nprovisioning:\n    diskSelector:\n        match: disk.wwid == \"eui.01\"\n    minSize: 100GiB\n";

fn labelled(config: &str, key: &str, value: &str) -> Result<String> {
    let mut doc = ConfigDoc::parse(config)?;
    let changed = doc.set_node_label(key, value)?;
    assert_eq!(changed, doc.text() != config);
    assert_eq!(doc.labels().get(key).map(String::as_str), Some(value));
    assert!(!doc.set_node_label(key, value)?, "twice is once");
    Ok(doc.text().to_owned())
}

fn upserted(config: &str, name: &str, wanted: &str) -> Result<String> {
    let mut doc = ConfigDoc::parse(config)?;
    doc.upsert_document("UserVolumeConfig", name, wanted)?;
    assert!(!doc.upsert_document("UserVolumeConfig", name, wanted)?, "twice is once");
    Ok(doc.text().to_owned())
}

#[test]
fn a_label_is_set_whatever_the_spelling_of_the_place() -> Result<()> {
    let table = [
        // (config, after setting a/b=x)
        ("machine:\n  type: worker\n", "machine:\n  type: worker\n  nodeLabels:\n    a/b: \"x\"\n"),
        ("machine:\n  type: worker", "machine:\n  type: worker\n  nodeLabels:\n    a/b: \"x\""),
        (
            "machine:\n    type: worker # w\n# end\n",
            "machine:\n    type: worker # w\n    nodeLabels:\n        a/b: \"x\"\n# end\n",
        ),
        ("machine:\ncluster: {}\n", "machine:\n    nodeLabels:\n        a/b: \"x\"\ncluster: {}\n"),
        ("machine: {}\n", "machine: {nodeLabels: {a/b: \"x\"}}\n"),
        ("machine: {type: worker}\n", "machine: {type: worker, nodeLabels: {a/b: \"x\"}}\n"),
        (
            "machine:\n  nodeLabels:\n  type: worker\n",
            "machine:\n  nodeLabels:\n    a/b: \"x\"\n  type: worker\n",
        ),
        (
            "machine:\n  nodeLabels: # foo\n  type: worker\n",
            "machine:\n  nodeLabels: # foo\n    a/b: \"x\"\n  type: worker\n",
        ),
        ("machine:\n  nodeLabels: null # foo\n", "machine:\n  nodeLabels:  # foo\n    a/b: \"x\"\n"),
        ("machine:\n  nodeLabels: {}  # none\n", "machine:\n  nodeLabels: {a/b: \"x\"}  # none\n"),
        ("machine:\n  nodeLabels: { c: d, }\n", "machine:\n  nodeLabels: { c: d, a/b: \"x\", }\n"),
        ("machine:\n  nodeLabels: {c: }\n", "machine:\n  nodeLabels: {c: , a/b: \"x\" }\n"),
        (
            "machine:\n  nodeLabels:\n    c: d # e\n\n    # f\n  type: worker\n",
            "machine:\n  nodeLabels:\n    c: d # e\n    a/b: \"x\"\n\n    # f\n  type: worker\n",
        ),
        ("machine:\n  nodeLabels:\n    a/b: y # why\n", "machine:\n  nodeLabels:\n    a/b: \"x\" # why\n"),
        ("machine:\n  nodeLabels:\n    \"a/b\": 'y'\n", "machine:\n  nodeLabels:\n    \"a/b\": \"x\"\n"),
        (
            "machine:\n  nodeLabels:\n    a/b:\n    c: d\n",
            "machine:\n  nodeLabels:\n    a/b: \"x\"\n    c: d\n",
        ),
        ("machine:\n  nodeLabels:\n    a/b: null\n", "machine:\n  nodeLabels:\n    a/b: \"x\"\n"),
        (
            "machine:\n  nodeLabels:\n    a/b: |\n      y\n    c: d\n",
            "machine:\n  nodeLabels:\n    a/b: \"x\"\n    c: d\n",
        ),
        ("machine:\n  nodeLabels:\n    a/b: x # plain\n", "machine:\n  nodeLabels:\n    a/b: x # plain\n"),
        (
            "machine:\r\n  type: worker\r\ncluster:\r\n",
            "machine:\r\n  type: worker\r\n  nodeLabels:\r\n    a/b: \"x\"\r\ncluster:\r\n",
        ),
        (
            "machine:\n  files:\n    - content: |+\n        x\n\n\ncluster: {}\n",
            "machine:\n  files:\n    - content: |+\n        x\n\n\n  nodeLabels:\n    a/b: \"x\"\ncluster: {}\n",
        ),
        (
            "---\nmachine:\n  type: worker\n...\n---\nkind: X\nlabels: {}\n",
            "---\nmachine:\n  type: worker\n  nodeLabels:\n    a/b: \"x\"\n...\n---\nkind: X\nlabels: {}\n",
        ),
        (
            "machine: {type: worker}\n---\nkind: KubeNodeConfig\n",
            "machine: {type: worker}\n---\nkind: KubeNodeConfig\nlabels:\n    a/b: \"x\"\n",
        ),
        ("kind: KubeNodeConfig\nlabels:\n  c: d\n", "kind: KubeNodeConfig\nlabels:\n  c: d\n  a/b: \"x\"\n"),
        ("\u{feff}machine:\n  type: w\n", "\u{feff}machine:\n  type: w\n  nodeLabels:\n    a/b: \"x\"\n"),
    ];
    for (config, expected) in table {
        let text = labelled(config, "a/b", "x").map_err(|error| error.at(format!("{config:?}")))?;
        assert_eq!(text, expected, "{config:?}");
    }
    Ok(())
}

#[test]
fn values_that_look_like_something_else_stay_strings() -> Result<()> {
    for value in ["true", "1", "null", "", "a b", "x: y", "\"q\"", "2024-01-01", "0x1f"] {
        labelled("machine:\n  nodeLabels: {a: true}\n", "a", value)?;
        labelled("machine:\n  nodeLabels:\n    a: 1\n", "a", value)?;
        labelled("machine: {}\n", "true", value)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_edited_safely_is_refused_and_nothing_changes() -> Result<()> {
    let table = [
        ("machine:\n  nodeLabels: [a]\n", "line 2: machine.nodeLabels is of another type"),
        ("machine:\n  nodeLabels: &x {c: d}\nother: *x\n", "written with an anchor, alias or tag"),
        ("machine:\n  nodeLabels:\n    a/b: &x y\n", "anchor, alias or tag"),
        ("machine:\n  nodeLabels:\n    a/b: {c: d}\n", "is of another type"),
        ("kind: Other\n", "no place for node labels"),
        ("machine: text\n", "machine is of another type"),
    ];
    for (config, message) in table {
        let mut doc = ConfigDoc::parse(config)?;
        let error = doc.set_node_label("a/b", "x").err().map(|error| error.what).unwrap_or_default();
        assert!(error.contains(message), "{config:?}: {error}");
        assert_eq!(doc.text(), config);
    }
    assert!(ConfigDoc::parse("kind: A\nname: b\n---\nkind: A\nname: b\n").is_err());
    assert!(ConfigDoc::parse("- a\n").is_err());
    assert!(ConfigDoc::parse("a: 1\na: 2\n").is_err());
    Ok(())
}

#[test]
fn a_document_is_appended_after_any_end() -> Result<()> {
    let table = [
        ("machine: {}\n", "machine: {}\n---\n"),
        ("machine: {}", "machine: {}\n---\n"),
        ("machine: {}\n...\n", "machine: {}\n...\n---\n"),
        ("machine: {}\n# end", "machine: {}\n# end\n---\n"),
        ("machine: {}\n---\nkind: X\n", "machine: {}\n---\nkind: X\n---\n"),
        ("", "---\n"),
    ];
    for (config, before) in table {
        assert_eq!(upserted(config, "openebs", VOLUME)?, format!("{before}{VOLUME}"), "{config:?}");
    }
    let windows = upserted("machine: {}\r\n", "openebs", &format!("---\n{VOLUME}"))?;
    assert_eq!(windows, format!("machine: {{}}\n---\n{VOLUME}").replace('\n', "\r\n"));
    Ok(())
}

#[test]
fn a_document_that_is_there_is_left_alone_or_merged() -> Result<()> {
    let config =
        format!("machine: {{}}\n---\n# mine\n{VOLUME}    grow: true # keep\n---\nkind: X\nname: openebs\n");
    assert_eq!(upserted(&config, "openebs", VOLUME)?, config);
    let bigger =
        VOLUME.replace("100GiB", "200GiB") + "filesystem:\n    type: xfs\n    projectQuotaSupport: true\n";
    let expected = config
        .replace("100GiB", "200GiB")
        .replace("# keep\n", "# keep\nfilesystem:\n    type: xfs\n    projectQuotaSupport: true\n");
    assert_eq!(upserted(&config, "openebs", &bigger)?, expected);
    Ok(())
}

#[test]
fn a_wanted_document_must_be_what_it_is_said_to_be() -> Result<()> {
    let mut doc = ConfigDoc::parse("machine: {}\n")?;
    assert!(doc.upsert_document("UserVolumeConfig", "other", VOLUME).is_err());
    assert!(doc.upsert_document("X", "", "kind: X\n---\nkind: Y\n").is_err());
    let list = "kind: X\nlist: [a]\n";
    assert!(doc.upsert_document("X", "", list)?);
    assert!(doc.upsert_document("X", "", "kind: X\nlist: [b]\n").is_err(), "a list is not merged");
    assert_eq!(doc.get_document("X", ""), Some("---\nkind: X\nlist: [a]\n"));
    assert_eq!(doc.get_document("X", "y"), None);
    Ok(())
}

#[test]
fn no_secret_is_left_in_a_redacted_config() {
    let pem = "LS0tLS1CRUdJTiBFRDI1NTE5IFBSSVZBVEUgS0VZLS0tLS0KTUM0Q0FRQXdCUVlESzJWd0JDSUVJRGlzCi0tLS0tRU5EIEVEMjU1MTkgUFJJVkFURSBLRVktLS0tLQo=";
    let config = format!(
        "machine:\n  token: S1.S2\n  ca: {{crt: Q1JU, key: S3}}\n  files:\n    - content: |\n        S4\n        S5\n      path: /var/x\n  env: {{https_proxy: http://u:S6@p:1}}\n  sysctls: {{net.key: \"1\"}}\n  nodeLabels: {{x/token: shown}}\ncluster:\n  id: shown-id\n  secret: \"S7\" # S8 stays: comments are words\n  # token: S9\n  aescbcEncryptionSecret: 'S10'\n  serviceAccount:\n    key: {pem}\n---\nkind: UserVolumeConfig\nencryption:\n  keys:\n    - slot: 0\n      static: {{passphrase: S11}}\n---\nkind: ExtensionServiceConfig\nenvironment:\n  - TS_AUTHKEY=S12\n  - TS_HOST=shown-host\nurl: https://x/?jointoken=S13&b=1\nwireguard: {{privateKey: S14, publicKey: shown-public}}\nodd: {pem}\n"
    );
    let text = redact(&config);
    for secret in (1..15).filter(|number| *number != 8).map(|number| format!("S{number}")) {
        let found = text
            .match_indices(&secret)
            .any(|(at, _)| !text[at + secret.len()..].starts_with(|next: char| next.is_ascii_digit()));
        assert!(!found, "{secret} in {text}");
    }
    assert!(!text.contains(pem), "{text}");
    for shown in [
        "shown ",
        "shown-id",
        "shown-host",
        "shown-public",
        "Q1JU",
        "path: /var/x",
        "{net.key: \"1\"}",
        "TS_AUTHKEY=",
    ] {
        assert!(text.contains(shown.trim_end()), "{shown} in {text}");
    }
    assert!(ConfigDoc::parse(&text).is_ok(), "{text}");
    assert_eq!(redact(&text), text);
    assert!(!redact("token: S1\n  bad: [\n").contains("S1"));
}

#[test]
fn a_diff_shows_the_changed_lines_with_three_of_context() {
    let before = "a: 1\nb: 2\nc: 3\nd: 4\ntoken: S1\nmachine:\n  nodeLabels:\n    x: \"1\"\n";
    let after = before.replace("S1", "S2").replace("x: \"1\"", "x: \"2\"");
    let text = diff(before, &after);
    assert_eq!(
        text,
        format!(
            "@@ -5,4 +5,4 @@\n token: {REDACTED}\n machine:\n   nodeLabels:\n-    x: \"1\"\n+    x: \"2\"\n"
        )
    );
    assert_eq!(diff(before, &before.replace("S1", "S2")), "");
}

/// `tests/config_doc/<case>/`: `config.yaml`, then `labels` (lines `key=value`) and `document.yaml` applied to it,
/// must be `expected.yaml` byte for byte, and mean what `oracle.yaml` does, which talosctl made of the same edits.
#[test]
fn golden_cases() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_doc");
    let mut cases: Vec<PathBuf> =
        entries(&root)?.into_iter().filter(|case| case.join("config.yaml").is_file()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        golden(&case).map_err(|error| error.at(case.display()))?;
    }
    Ok(())
}

fn golden(case: &Path) -> Result<()> {
    let config = read(&case.join("config.yaml"))?;
    let edited = edited(case, &config)?;
    let expected = case.join("expected.yaml");
    if crate::common::renews() {
        std::fs::write(&expected, &edited).map_err(|error| Error::failed(error.to_string()))?;
    }
    assert_eq!(edited, read(&expected)?, "{}", case.display());
    if let Ok(oracle) = std::fs::read_to_string(case.join("oracle.yaml")) {
        assert_eq!(meaning(&edited)?, meaning(&oracle)?, "{}", case.display());
        assert_eq!(self::edited(case, &oracle)?, oracle, "{}: nothing to add to it", case.display());
    }
    for secret in secrets(&Stream::parse(config.as_str())?) {
        assert!(!redact(&config).contains(&secret), "{}: {secret}", case.display());
        assert!(!diff(&config, &edited).contains(&secret), "{}: {secret}", case.display());
    }
    Ok(())
}

fn edited(case: &Path, config: &str) -> Result<String> {
    let mut doc = ConfigDoc::parse(config)?;
    assert_eq!(doc.text(), config);
    for line in std::fs::read_to_string(case.join("labels")).unwrap_or_default().lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        doc.set_node_label(key, value)?;
    }
    if let Ok(document) = std::fs::read_to_string(case.join("document.yaml")) {
        doc.upsert_document("UserVolumeConfig", "openebs", &document)?;
    }
    Ok(doc.text().to_owned())
}

/// The documents without what is empty or false: talosctl writes such fields or leaves them out as it likes.
fn meaning(text: &str) -> Result<Vec<Value>> {
    let stream = Stream::parse(text)?;
    Ok(stream.documents().iter().filter_map(|document| prune(document.root.value())).collect())
}

fn prune(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Str(text) if text.is_empty() => None,
        Value::Map(entries) => {
            let entries: Vec<_> =
                entries.into_iter().filter_map(|(key, value)| Some((key, prune(value)?))).collect();
            (!entries.is_empty()).then_some(Value::Map(entries))
        }
        Value::Seq(items) => {
            let items: Vec<_> = items.into_iter().filter_map(prune).collect();
            (!items.is_empty()).then_some(Value::Seq(items))
        }
        value => Some(value),
    }
}

/// What must never show of a generated config.
fn secrets(config: &Stream) -> Vec<String> {
    let paths: [&[&str]; 11] = [
        &["machine", "token"],
        &["machine", "ca", "key"],
        &["cluster", "secret"],
        &["cluster", "token"],
        &["cluster", "secretboxEncryptionSecret"],
        &["cluster", "aescbcEncryptionSecret"],
        &["cluster", "ca", "key"],
        &["cluster", "aggregatorCA", "key"],
        &["cluster", "serviceAccount", "key"],
        &["cluster", "etcd", "ca", "key"],
        &["machine", "acceptedCAs", "key"],
    ];
    let documents = config.documents();
    let found = paths.iter().filter_map(|path| documents.first()?.root.get(path)?.text().map(str::to_owned));
    found.filter(|text| !text.is_empty()).collect()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::failed(error.to_string()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::failed(error.to_string()).at(path.display()))
}
