//! Patches of machine configs: what Talos' own code makes of them (recorded by `e2e/oracle/record`), and laws.

mod against;
mod laws;
mod written;

use nodeprep::config_doc::ConfigDoc;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::common::{assert_golden, golden, renews};

/// The versions of Talos whose answers are recorded.
pub(crate) const VERSIONS: [&str; 5] = ["v1.10.9", "v1.11.5", "v1.12.6", "v1.13.9", "v1.14.1"];

/// Where our answer is not Talos' (that of all versions, or of those named), and why that is right.
const DIFFERENT: [(&str, &[&str], &str); 17] = [
    ("anchors-in-config", &[], "refused: the change would be made at the anchor's other places too"),
    ("ca-key-not-named", &[], "refused: Talos empties the key that the patch does not name"),
    ("delete-in-extra-config", &["v1.10.9", "v1.11.5"], "newer versions look into free-form values"),
    ("delete-key-of-nothing", &[], "Talos fails; there is nothing to delete"),
    ("delete-map-key-not-there", &[], "Talos fails; there is nothing to delete"),
    ("delete-member-not-there", &[], "Talos fails; there is nothing to delete"),
    ("delete-volume-field", &[], "refused: Talos empties minSize and the selector on the way"),
    ("disk-selector-size-same", &[], "Talos cannot merge sizes; this one is what is there"),
    ("document-selector-not-named", &[], "refused: Talos empties minSize and the selector"),
    (
        "document-twice-in-patch",
        &["v1.14.1"],
        "refused: Talos before 1.14 takes no document twice, and one of them is a mistake",
    ),
    ("empty-map-patch", &[], "Talos finds no document in it; it asks for nothing"),
    ("endpoint-loses-path", &[], "refused: Talos keeps the path of the URL that is replaced"),
    ("max-size-kept", &["v1.10.9", "v1.11.5"], "these empty a maxSize that the patch does not name"),
    ("max-size-percent-over-bytes", &[], "refused: Talos keeps the bytes"),
    ("null-item", &[], "refused: Talos reads an empty text"),
    ("two-items-of-one-key", &[], "refused: Talos merges the patch's items with each other"),
    ("unknown-kind", &[], "added as it is: the node may be of a version that knows it"),
];

/// How a version says that it has not got what a case is about.
const NOT_THERE_YET: [&str; 3] = ["not registered", "unknown keys found", "unhandled size name"];

/// What one version of Talos answered, by case.
pub(crate) fn recorded(folder: &str, version: &str) -> Json {
    let text = std::fs::read_to_string(golden(&format!("{folder}/{version}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
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
        if renews() {
            let _ = std::fs::remove_file(folder.join(other));
        }
        assert!(!folder.join(other).exists(), "{name}: there is a stale {other}");
    }
}

#[test]
fn every_version_of_talos_gives_what_we_give_but_where_it_is_said_why_not() {
    let cases = cases();
    assert!(cases.len() >= 60);
    let newest = recorded("merge", VERSIONS[VERSIONS.len() - 1]);
    let mut surprises = Vec::new();
    for version in VERSIONS {
        let answers = recorded("merge", version);
        for (name, config, patch) in &cases {
            let (answer, newest) = (&answers[name], &newest[name]);
            let known = DIFFERENT.iter().any(|(case, versions, _)| {
                case == name && (versions.is_empty() || versions.contains(&version))
            });
            let difference = difference(answer, &patched(config, patch));
            let too_old = newest["error"].is_null()
                && NOT_THERE_YET
                    .iter()
                    .any(|words| answer["error"].as_str().unwrap_or_default().contains(words));
            if difference.is_some() != known && !too_old {
                let what = difference.unwrap_or_else(|| "there is no difference any more".to_owned());
                surprises.push(format!("{version} {name}: {what}"));
            }
        }
    }
    assert!(surprises.is_empty(), "\n{}", surprises.join("\n"));
}

/// How our answer differs from Talos'; of a text it has said whether it reads it as what it makes itself.
fn difference(talos: &Json, ours: &Result<String, String>) -> Option<String> {
    match (talos["error"].as_str(), ours) {
        (Some(_), Err(_)) => None,
        (Some(error), Ok(_)) => Some(format!("Talos refuses: {error}")),
        (None, Err(error)) => Some(format!("we refuse: {error}")),
        (None, Ok(text)) if talos["same"] == digest(text) => None,
        (None, Ok(_)) => Some("the results differ, or have not been compared".to_owned()),
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
