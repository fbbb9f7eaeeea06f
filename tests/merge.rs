//! Patches of machine configs: what Talos' own code makes of them (recorded by `e2e/oracle/record`), and laws.

mod against;
mod laws;
mod written;

use std::path::{Path, PathBuf};

use nodeprep::config_doc::ConfigDoc;
use nodeprep::yaml::{Stream, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// The versions of Talos whose answers are recorded.
pub const VERSIONS: [&str; 4] = ["v1.10.9", "v1.11.5", "v1.12.6", "v1.13.9"];

/// Where our answer is not Talos' (all versions, or those named) and why that is right.
const DIFFERENT: [(&str, &[&str], &str); 0] = [];

pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// What one version of Talos answered, by case.
pub fn recorded(folder: &str, version: &str) -> Json {
    let text = std::fs::read_to_string(golden(&format!("{folder}/{version}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Compares a text with the golden file, or writes the file when the golden files are renewed.
pub fn assert_golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "{}", path.display());
}

/// Every folder with a config and a patch.
fn cases() -> Vec<(String, String, String)> {
    let mut cases: Vec<_> = std::fs::read_dir(golden("merge"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.is_dir())
        .map(|folder| {
            let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            (name, read("config.yaml"), read("patch.yaml"))
        })
        .collect();
    cases.sort();
    cases
}

fn patched(config: &str, patch: &str) -> Result<String, String> {
    let mut doc = ConfigDoc::parse(config).map_err(|error| error.what)?;
    let changed = doc.patch(patch).map_err(|error| error.what)?;
    assert_eq!(changed, doc.text() != config);
    Ok(doc.text().to_owned())
}

/// `result.yaml` is the config after the patch, `refused` why there is none.
#[test]
fn every_case_gives_the_text_or_the_refusal_beside_it() {
    for (name, config, patch) in cases() {
        let folder = golden("merge").join(&name);
        let (file, other, text) = match patched(&config, &patch) {
            Ok(text) => ("result.yaml", "refused", text),
            Err(why) => ("refused", "result.yaml", why + "\n"),
        };
        assert_golden(&folder.join(file), &text);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let _ = std::fs::remove_file(folder.join(other));
        }
        assert!(!folder.join(other).exists(), "{name}: there is a stale {other}");
    }
}

#[test]
fn every_version_of_talos_gives_what_we_give_but_where_it_is_said_why_not() {
    let cases = cases();
    assert!(cases.len() >= 60);
    let mut surprises = Vec::new();
    for version in VERSIONS {
        let answers = recorded("merge", version);
        for (name, config, patch) in &cases {
            let answer = answers.get(name).unwrap_or(&Json::Null);
            let difference = difference(answer, &patched(config, patch));
            let known = DIFFERENT.iter().any(|(case, versions, _)| {
                case == name && (versions.is_empty() || versions.contains(&version))
            });
            if difference.is_some() != known {
                let what = difference.unwrap_or_else(|| "there is no difference any more".to_owned());
                surprises.push(format!("{version} {name}: {what}"));
            }
        }
    }
    assert!(surprises.is_empty(), "\n{}", surprises.join("\n"));
}

/// How our answer differs from Talos'.
fn difference(talos: &Json, ours: &Result<String, String>) -> Option<String> {
    let refused = talos.get("error").and_then(Json::as_str);
    match (refused, ours) {
        (Some(_), Err(_)) => None,
        (Some(error), Ok(_)) => Some(format!("Talos refuses: {error}")),
        (None, Err(error)) => Some(format!("we refuse: {error}")),
        (None, Ok(text)) => {
            let read = talos.get("same").and_then(Json::as_str) == Some(&digest(text));
            let same = read && meaning_of(talos) == meaning(text);
            (!same).then(|| "the results differ".to_owned())
        }
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The documents by apiVersion, kind and name, without what is empty or false: Talos writes such fields, or leaves them out.
fn meaning(text: &str) -> Vec<(String, Json)> {
    let stream = Stream::parse(text).unwrap();
    let documents = stream.documents().iter().map(|document| document.root.value());
    let mut documents: Vec<_> = documents
        .filter(|value| !matches!(value, Value::Null))
        .map(|value| {
            let text = |key| match value.get(key) {
                Some(Value::Str(text)) => Some(text.clone()),
                _ => None,
            };
            let kind = text("kind").unwrap_or_else(|| "v1alpha1".to_owned());
            let name = text("name").map(|name| format!("/{name}")).unwrap_or_default();
            let id = format!("{}/{kind}{name}", text("apiVersion").unwrap_or_default());
            (id, prune(json(value)).unwrap_or(Json::Null))
        })
        .collect();
    documents.sort_by(|a, b| a.0.cmp(&b.0));
    documents
}

fn meaning_of(talos: &Json) -> Vec<(String, Json)> {
    let documents = talos.get("documents").and_then(Json::as_object).unwrap();
    let pruned = |value: &Json| prune(value.clone()).unwrap_or(Json::Null);
    let mut documents: Vec<_> = documents.iter().map(|(id, value)| (id.clone(), pruned(value))).collect();
    documents.sort_by(|a, b| a.0.cmp(&b.0));
    documents
}

fn json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => bool.into(),
        Value::Int(number) => number.into(),
        Value::Uint(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Time(text) | Value::Str(text) | Value::Tagged(_, text) => text.into(),
        Value::Seq(items) => items.into_iter().map(json).collect(),
        Value::Map(entries) => entries
            .into_iter()
            .map(|(key, value)| (json(key).as_str().unwrap_or_default().to_owned(), json(value)))
            .collect(),
    }
}

fn prune(value: Json) -> Option<Json> {
    match value {
        Json::Null | Json::Bool(false) => None,
        Json::String(text) if text.is_empty() => None,
        // A number and its text are one to a field of type string; which it is, Talos said by reading our text.
        Json::Number(number) => Some(number.to_string().into()),
        Json::Object(map) => {
            let map: serde_json::Map<_, _> =
                map.into_iter().filter_map(|(key, value)| Some((key, prune(value)?))).collect();
            (!map.is_empty()).then_some(Json::Object(map))
        }
        Json::Array(items) => {
            let items: Vec<_> = items.into_iter().filter_map(prune).collect();
            (!items.is_empty()).then_some(Json::Array(items))
        }
        value => Some(value),
    }
}
