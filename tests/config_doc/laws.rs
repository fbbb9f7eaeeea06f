//! Laws of config edits over generated configs.

use nodeprep::config_doc::{ConfigDoc, redact};
use nodeprep::yaml::quote;
use proptest::prelude::*;

use crate::common::diff;

/// How one generated config is written.
#[derive(Debug, Clone)]
struct Config {
    text: String,
    secrets: Vec<String>,
}

fn secret() -> impl Strategy<Value = String> {
    // A prefix that nothing else in the generator writes.
    "S3cr[A-Za-z0-9+/]{8,50}"
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9./-]{0,12}",
        "[a-z ]{0,8}".prop_map(|text| format!("'{text}'")),
        "\\PC{0,8}".prop_map(|text| quote(&text)),
        (0i64..100_000).prop_map(|number| number.to_string()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("~".to_owned()),
        Just(String::new()),
    ]
}

fn comment() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "[a-z: {}'\"]{0,20}".prop_map(|text| format!(" # {text}"))]
}

/// Lines below `machine:` or at the top of a document, without indentation.
fn entry(key: String) -> impl Strategy<Value = Vec<String>> {
    let name = key.clone();
    let nested = key.clone();
    let listed = key.clone();
    let block = key.clone();
    prop_oneof![
        (scalar(), comment()).prop_map(move |(value, comment)| vec![format!("{name}: {value}{comment}")]),
        (scalar(), scalar(), comment()).prop_map(move |(a, b, comment)| vec![
            format!("{nested}:{comment}"),
            format!("\ta: {a}"),
            "\t# between".to_owned(),
            format!("\tb: {b}"),
        ]),
        (scalar(), "[a-z]{1,5}").prop_map(move |(a, b)| vec![
            format!("{listed}:"),
            format!("\t- x: {b}"),
            format!("\t  y: {a}"),
            format!("\t- {{z: [{b}, 1], w: }}"),
        ]),
        ("[|>][+-]?", "[a-z :#]{1,20}").prop_map(move |(header, line)| vec![
            format!("{block}: {header}"),
            format!("\tx{line}"),
            String::new(),
            format!("\ty{line}"),
            String::new(),
        ]),
        Just(vec![format!("{key}: {{}}"), "# # example".to_owned(), "# example: {a: b}".to_owned()]),
    ]
}

fn entries() -> impl Strategy<Value = Vec<String>> {
    let key = proptest::collection::btree_set("kk[a-z]{1,8}", 0..6);
    key.prop_flat_map(|keys| keys.into_iter().map(entry).collect::<Vec<_>>()).prop_map(|lists| lists.concat())
}

fn labels() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        Just(vec![]),
        Just(vec!["nodeLabels:".to_owned()]),
        Just(vec!["nodeLabels: {} # none".to_owned()]),
        Just(vec!["nodeLabels: null".to_owned()]),
        Just(vec!["nodeLabels: {c/d: e, 'a/b': \"f\"}".to_owned()]),
        "[a-z]{1,5}".prop_map(|value| vec![
            "nodeLabels: # mine".to_owned(),
            "\t# first".to_owned(),
            format!("\ta/b: {value} # why"),
            "\tc/d: 'x'".to_owned(),
        ]),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let secrets = proptest::collection::vec(secret(), 6);
    let style =
        (prop_oneof![Just(2usize), Just(4)], any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (secrets, entries(), labels(), entries(), entries(), style).prop_map(
        |(secrets, machine, labels, cluster, other, (step, windows, new_style, ended, newline))| {
            let mut lines = vec!["version: v1alpha1 # the schema".to_owned(), "machine:".to_owned()];
            let labels_here = if new_style { vec![] } else { labels.clone() };
            let mut inner =
                vec![format!("token: {}", secrets[0]), format!("ca: {{crt: Q1JU, key: \"{}\"}}", secrets[1])];
            inner.extend(machine);
            inner.extend(labels_here);
            lines.extend(inner.iter().map(|line| indent(line)));
            lines.extend(["cluster:".to_owned(), format!("\tsecret: '{}'", secrets[2])]);
            lines.extend([format!("\t# token: {}", secrets[3])]);
            lines.extend([format!("\tserviceAccount:\n\t\tkey: |\n\t\t\t{}", secrets[4])]);
            lines.extend(cluster.iter().map(|line| indent(line)));
            if new_style {
                lines.extend([
                    "---".to_owned(),
                    "apiVersion: v1alpha1".to_owned(),
                    "kind: KubeNodeConfig".to_owned(),
                ]);
                lines.extend(labels.iter().map(|line| line.replace("nodeLabels", "labels")));
            }
            lines.extend(["--- # what is this?".to_owned(), "kind: Unknown".to_owned()]);
            lines
                .push(format!("encryption: {{keys: [{{slot: 0, static: {{passphrase: {}}}}}]}}", secrets[5]));
            lines.extend(other);
            lines.extend(ended.then(|| "...".to_owned()));
            let mut text = lines.join("\n").replace('\t', &" ".repeat(step));
            text.push_str(if newline { "\n" } else { "" });
            Config { text: if windows { text.replace('\n', "\r\n") } else { text }, secrets }
        },
    )
}

fn indent(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!("\t{line}") }
}

fn parsed(text: &str) -> Result<ConfigDoc, TestCaseError> {
    ConfigDoc::parse(text).map_err(|error| TestCaseError::fail(format!("{}\n{text}", error.what)))
}

fn edited(config: &Config, value: &str) -> Result<ConfigDoc, TestCaseError> {
    let volume = "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: v\nprovisioning: {grow: true}\n";
    let mut doc = parsed(&config.text)?;
    let mut edit = || {
        doc.set_node_label("a/b", value)?;
        doc.set_node_label("openebs.io/storage-node", "true")?;
        doc.upsert_document("UserVolumeConfig", "v", volume)
    };
    edit().map_err(|error| TestCaseError::fail(format!("{}\n{}", error.what, config.text)))?;
    Ok(doc)
}

/// The lines of `after` that are not in `before`, if `before` is a subsequence of it but for changed label lines.
fn is_subsequence(before: &str, after: &str) -> bool {
    let mut lines = after.lines();
    let own = |line: &str| ["a/b", "abels"].iter().any(|mark| line.contains(mark));
    before.lines().filter(|line| !own(line)).all(|line| lines.any(|other| other == line))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_edit_changes_no_byte(config in config()) {
        let doc = parsed(&config.text)?;
        prop_assert_eq!(doc.text(), config.text.as_str());
    }

    #[test]
    fn editing_twice_is_editing_once(config in config(), value in "[a-z0-9]{0,6}") {
        let once = edited(&config, &value)?;
        let again = edited(&Config { text: once.text().to_owned(), ..config.clone() }, &value)?;
        prop_assert_eq!(once.text(), again.text());
        let labels = once.labels();
        prop_assert_eq!(labels.get("a/b"), Some(&value));
        prop_assert_eq!(labels.get("openebs.io/storage-node").map(String::as_str), Some("true"));
    }

    #[test]
    fn every_line_that_is_not_a_label_survives_in_order(config in config(), value in "[a-z]{0,6}") {
        let doc = edited(&config, &value)?;
        prop_assert!(is_subsequence(&config.text, doc.text()), "{}\n=====\n{}", config.text, doc.text());
    }

    #[test]
    fn no_secret_shows_in_what_is_redacted_or_in_a_diff(config in config(), other in config()) {
        let shown = [redact(&config.text), diff(&config.text, &other.text), format!("{:?}", parsed(&config.text)?)];
        for secret in config.secrets.iter().chain(&other.secrets) {
            for text in &shown {
                prop_assert!(!text.contains(secret.as_str()), "{secret} in {text}");
            }
        }
    }

    #[test]
    fn a_redacted_config_is_a_config(config in config()) {
        let redacted = redact(&config.text);
        let (before, after) = (parsed(&config.text)?, parsed(&redacted)?);
        prop_assert_eq!(before.documents().count(), after.documents().count());
        prop_assert_eq!(before.labels(), after.labels());
    }
}
