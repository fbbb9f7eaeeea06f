//! The direction of dependencies, as ARCHITECTURE.md draws it.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the packages have their modules; the sandbox's are one, which may use each other.
const ROOTS: [&str; 4] = ["src", "crates/core/src", "crates/wire/src", SANDBOX];
const SANDBOX: &str = "crates/sandbox/src";

/// What each module may use of the packages, from the bottom up; `error` and `event` may be used by all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dial", &[]),
    ("error", &[]),
    ("event", &[]),
    ("state", &[]),
    ("wait", &[]),
    ("s3", &["dial"]),
    ("yaml", &[]),
    ("config_doc", &["yaml"]),
    ("secrets", &["yaml"]),
    ("model", &[]),
    ("intent", &["model", "yaml"]),
    ("judge", &["config_doc", "intent", "model"]),
    ("stack", &["intent", "model"]),
    ("plan", &["config_doc", "intent", "judge", "model", "stack", "yaml"]),
    ("talos", &["config_doc", "dial", "model"]),
    ("cluster", &["config_doc", "dial", "judge", "model", "wait"]),
    ("observe", &["cluster", "config_doc", "intent", "judge", "model", "stack", "talos", "yaml"]),
    ("sandbox", &["config_doc", "dial", "intent", "model", "talos"]),
    (
        "session",
        &[
            "cluster",
            "config_doc",
            "dial",
            "intent",
            "judge",
            "model",
            "observe",
            "plan",
            "stack",
            "state",
            "talos",
            "wait",
        ],
    ),
    (
        "check",
        &["cluster", "config_doc", "intent", "judge", "model", "observe", "plan", "stack", "state", "wait"],
    ),
    ("report", &["check", "config_doc", "intent", "plan", "state"]),
];

/// Modules that are pure: no clock, no I/O, no async.
const PURE: &[&str] = &["plan", "intent", "stack", "model", "judge", "config_doc", "error", "event", "yaml"];
const IMPURE: &[&str] =
    &["tokio::", "tonic::", "kube::", "std::fs", "fs_err::", "Timestamp::now", "std::env", "async fn"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Module name and text without its tests, for every source file in a module.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for package in ROOTS {
        sources(&root.join(package), &mut paths);
    }
    let mut modules = Vec::new();
    for path in paths {
        let in_package = |package: &&&str| path.starts_with(root.join(package));
        let package = ROOTS.iter().find(in_package).expect("below a package");
        let relative = path.strip_prefix(root.join(package)).expect("below it").to_owned();
        let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let module = if *package == SANDBOX { "sandbox" } else { first.trim_end_matches(".rs") }.to_owned();
        let text = fs::read_to_string(&path).expect("a text");
        let test_file = relative.file_stem().is_some_and(|s| s.to_string_lossy().contains("tests"));
        if !test_file && !matches!(module.as_str(), "lib" | "main" | "cli") {
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            modules.push((module, relative, text));
        }
    }
    modules
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    let sandbox = Path::new(env!("CARGO_MANIFEST_DIR")).join(SANDBOX);
    let of_sandbox = |name: &str| sandbox.join(name).is_dir() || sandbox.join(format!("{name}.rs")).is_file();
    for (module, path, text) in modules() {
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module}: add it to ALLOWED"));
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let own = if module == "sandbox" { of_sandbox(&name) } else { name == module };
                let free = own || matches!(name.as_str(), "error" | "event" | "");
                if !free && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{}: {module} uses {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_command_line_knows_the_sandbox() {
    let knows: Vec<PathBuf> = modules()
        .into_iter()
        .filter(|(.., text)| text.contains("nodeprep_sandbox"))
        .map(|(_, path, _)| path)
        .collect();
    assert!(knows.is_empty(), "{knows:#?}");
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    assert!(!library.expect("a text").contains("nodeprep_sandbox"), "it hands the sandbox on");
}

/// What the sandbox is called itself, and what it is made of.
const OF_SANDBOX: [&str; 4] =
    ["nodeprep_core", "nodeprep_wire", "nodeprep-sandbox-", "sandbox.nodeprep.dev/"];

#[test]
fn the_sandbox_knows_no_name_and_no_text_of_the_program() {
    let sandbox = modules().into_iter().filter(|(module, ..)| module == "sandbox");
    let wrong: Vec<String> = sandbox
        .flat_map(|(_, path, text)| {
            let known = OF_SANDBOX.iter().fold(text, |text, own| text.replace(own, ""));
            let named = known.lines().filter(|line| line.contains("nodeprep")).map(str::to_owned);
            named.map(|line| format!("{}: {line}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_no_circle() {
    for (place, (module, used)) in ALLOWED.iter().enumerate() {
        for name in *used {
            let below = ALLOWED.iter().take(place).any(|(below, _)| below == name);
            assert!(below, "{module} may use {name}, which does not stand below it");
        }
    }
}

#[test]
fn pure_modules_have_no_clock_no_io_and_no_async() {
    let mut wrong = Vec::new();
    for (module, path, text) in modules() {
        if PURE.contains(&module.as_str()) {
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                    wrong.push(format!("{}: {word}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_under_five_hundred_lines() {
    let long: Vec<String> = modules()
        .into_iter()
        .map(|(_, path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .map(|(path, lines)| format!("{}: {lines}", path.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// What errors say is for people: who decides by it is wrong as soon as somebody words it better.
#[test]
fn nothing_is_decided_by_the_words_of_an_error() {
    let reads = regex::Regex::new(
        r"\b(what|hint|message|reason)(\(\))?\s*\.(as_str\(\)\s*\.)?(contains|starts_with|ends_with|matches|find)\(|\.to_string\(\)\s*\.(contains|starts_with)\(|\.what\s*[!=]=",
    )
    .expect("a pattern");
    let mut wrong = Vec::new();
    for (module, path, text) in modules() {
        // Where words are read, and what the address says that a store was asked at.
        let edge = [Path::new("model/said.rs"), Path::new("judge/store.rs")];
        if module != "sandbox" && !edge.contains(&path.as_path()) {
            wrong.extend(
                reads.find_iter(&text).map(|found| format!("{}: {}", path.display(), found.as_str())),
            );
        }
    }
    assert!(wrong.is_empty(), "give the error a code: {wrong:#?}");
}

/// Where words of other programs stand. They are of one type, which nothing but `words` makes: what has no source does not
/// compile.
const TABLES: [&str; 4] = ["judge/pods.rs", "judge/store.rs", "judge/words.rs", "model/said.rs"];

#[test]
fn what_others_say_stands_in_tables_that_name_the_sources() {
    let made = regex::Regex::new(r"use crate::model::said::[^;]*\bwords\b").expect("a pattern");
    // A list of bare texts that a text is searched for.
    let bare = regex::Regex::new(r"\.(any|find|position)\(\|[^|]*\|\s*[\w.()]*\b(message|reason|said|text|why|line|words)(\(\))?\.(contains|starts_with|find)\([*&]*\w+\)")
        .expect("a pattern");
    let judges = ["check", "cluster", "judge", "observe", "s3", "session", "talos"];
    let (mut holds, mut wrong) = (Vec::new(), Vec::new());
    for (module, path, text) in modules() {
        if made.is_match(&text) || path == Path::new("model/said.rs") {
            holds.push(path.to_string_lossy().into_owned());
        }
        if judges.contains(&module.as_str()) {
            wrong
                .extend(bare.find_iter(&text).map(|found| format!("{}: {}", path.display(), found.as_str())));
        }
        if path == Path::new("model/said.rs") {
            assert!(
                text.contains("pub struct Words {")
                    && text.contains("assert!(!text.is_empty() && source.len() > 10")
            );
            assert!(!text.contains("pub text:") && !text.contains("pub source:"), "anybody could make them");
        }
    }
    holds.sort();
    assert_eq!(holds, TABLES);
    assert!(wrong.is_empty(), "make them `Words`: {wrong:#?}");
}
