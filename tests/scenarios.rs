//! Faults staged in the sandbox, one file each in `tests/scenarios`: what nodeprep then says, how it ends, and what is left.
//!
//! A file holds the scenario, edits of the sandbox's nodeprep.yaml, and steps: commands with their exit codes and words,
//! and requests that somebody else sends to the cluster. The redacted log of the whole is beside it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use nodeprep::cluster::Cluster;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scene {
    proves: String,
    #[serde(default)]
    scenario: Value,
    /// What is replaced in nodeprep.yaml, and by what.
    #[serde(default)]
    edits: Vec<(String, String)>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Arguments of nodeprep.
    #[serde(default)]
    run: String,
    #[serde(default)]
    exits: i32,
    /// Expressions that must be found in what it printed.
    #[serde(default)]
    says: Vec<String>,
    /// Expressions that must not.
    #[serde(default)]
    never: Vec<String>,
    /// A request to the API server: method, path, body.
    #[serde(default)]
    ask: Option<(String, String, Value)>,
    /// A change of the file: what it replaces, and what with.
    #[serde(default)]
    edit: Option<(String, String)>,
}

fn nodeprep(folder: &Path, args: &str) -> Command {
    let mut command = crate::common::nodeprep(folder);
    command
        .args(args.split_whitespace())
        .args(["--progress", "plain", "--sandbox-state"])
        .arg(folder.join("fleet"));
    command
}

/// Runs one command; what it printed, redacted, with the command before it.
fn run(folder: &Path, step: &Step) -> String {
    let output = nodeprep(folder, &step.run).output().unwrap();
    let text = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(step.exits), "{}: {text}", step.run);
    assert!(!text.contains("panicked"), "{text}");
    let found = |pattern: &String| Regex::new(pattern).unwrap().is_match(&text);
    for pattern in &step.says {
        assert!(found(pattern), "{}: {pattern:?} is not in: {text}", step.run);
    }
    for pattern in &step.never {
        assert!(!found(pattern), "{}: {pattern:?} is in: {text}", step.run);
    }
    format!("$ nodeprep {}\n{}exit {}\n\n", step.run, redacted(&text, folder), step.exits)
}

/// Sends a request as somebody else, while the fleet is served.
fn ask(folder: &Path, (method, path, body): &(String, String, Value)) {
    let mut served = nodeprep(folder, "sandbox up").stdout(Stdio::piped()).spawn().unwrap();
    // The first line comes when it is served.
    let mut line = String::new();
    BufReader::new(served.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::connect(Some(&folder.join("fleet/kubeconfig")), None, &nodeprep::dial::tcp())
            .await
            .unwrap();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request =
            hyper::Request::builder().method(method.as_str()).uri(path).header("content-type", kind);
        let request = request.body(body.to_string().into_bytes()).unwrap();
        cluster.client().request::<Value>(request).await.unwrap();
    });
    Command::new("kill").args(["-INT", &served.id().to_string()]).status().unwrap();
    assert!(served.wait().unwrap().success());
}

/// Waits, times, ids and places differ from run to run.
fn redacted(text: &str, folder: &Path) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rules = [
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
            (r"\d{4}-\d\d-\d\d, \d+ days ago", "<date>"),
            // By whom it was looked at last.
            (r"(location archive is Unavailable): [^;\n]*", "$1: <words>"),
            // It may just be made.
            (r"schedule ([a-z]+-backup): [^;\n]*", "schedule $1: <backups>"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
            (r"nodeprep-\d{14}", "nodeprep-<time>"),
            (r"127\.0\.0\.1:\d+", "<address>"),
            (r"the connection broke: .*", "the connection broke: <how>"),
            (r"\b[0-9a-f]{8}-[0-9a-f]{1,6}\b", "<run>"),
            (r"\d+(\.\d+)? ?s\b", "<seconds>"),
            (r"\d+(\.\d+)? (IOPS|MB/s|µs)", "<n> $2"),
            (r"-[0-9a-z]{8,10}-[0-9a-z]{5}\b", "-<pod>"),
            // What the kubelet says first, and from its second try on.
            (r#"ImagePullBackOff: Back-off pulling image "[^"]*": ErrImagePull"#, "ErrImagePull"),
            // The columns of a table are as wide as what is in them.
            (r"(\S) {2,}", "$1  "),
        ];
        rules.map(|(pattern, with)| (Regex::new(pattern).unwrap(), with)).into()
    });
    let text = text.replace(&*folder.display().to_string(), "<folder>");
    // How often a wait is told depends on the machine; the plan and its steps are the same in all.
    const BEGINS: [&str; 5] = ["~ ", "+ create", "    @@", "     ", "  ✔ "];
    const HOLDS: [&str; 3] = [" … ", "waiting for", "    +"];
    let kept = |line: &&str| {
        line.contains('[') && line.contains("✔")
            || !BEGINS.iter().any(|part| line.starts_with(part))
                && !HOLDS.iter().any(|part| line.contains(part))
    };
    let lines = text.lines().filter(kept);
    let text: String = lines.map(|line| format!("{}\n", line.trim_end())).collect();
    RULES.iter().fold(text, |text, (rule, with)| rule.replace_all(&text, *with).into_owned())
}

fn change(text: &mut String, (old, new): &(String, String)) {
    assert!(text.contains(old), "nodeprep.yaml has no {old:?}: {text}");
    *text = text.replace(old, new);
}

fn play(path: &Path) {
    let scene: Scene = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut scenario = scene.scenario;
    scenario["speed"] = 20.into();
    fs::write(folder.join("scenario.yaml"), scenario.to_string()).unwrap();
    let begun = nodeprep(folder, "status --sandbox scenario.yaml").output().unwrap();
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let file = folder.join("fleet/nodeprep.yaml");
    let mut text = fs::read_to_string(&file).unwrap();
    for edit in &scene.edits {
        change(&mut text, edit);
    }
    fs::write(&file, &text).unwrap();
    let mut log = format!("{}\n\n", scene.proves);
    for step in &scene.steps {
        match (&step.ask, &step.edit) {
            (Some(request), _) => {
                ask(folder, request);
                log += &format!("# {} {}\n\n", request.0, request.1);
            }
            (None, Some(edit)) => {
                change(&mut text, edit);
                fs::write(&file, &text).unwrap();
            }
            (None, None) => log += &run(folder, step),
        }
    }
    let name = path.file_stem().unwrap().to_str().unwrap();
    insta::with_settings!({snapshot_path => "scenarios", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, log);
    });
}

fn scenes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// Several at a time: most of a scene is waiting.
#[test]
fn every_staged_fault_ends_as_it_should() {
    const AT_ONCE: usize = 6;
    let scenes = scenes();
    assert!(scenes.len() >= 15, "{}", scenes.len());
    let next = std::sync::Mutex::new(scenes.iter());
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(path) = next.lock().unwrap().next() else { return };
                    if std::panic::catch_unwind(|| play(path)).is_err() {
                        failed.lock().unwrap().push(path.file_name().unwrap().to_owned());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}
