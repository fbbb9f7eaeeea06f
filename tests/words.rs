//! What errors say and carry, how a run is interrupted, and what is on record of it: nodeprep as a process of its own, on a
//! fleet that is served here.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use nodeprep::check;
use nodeprep::cli::first_files;
use nodeprep_sandbox::Sandbox;
use nodeprep_sandbox::scenario::Scenario;
use nodeprep_sandbox::serve::network::Network;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fleet::{Session, paused};

/// What the sandbox's machine config and its secrets file hold.
const TOKEN: &str = "sim000.0123456789abcdef";
const PASSWORD: &str = "of-a-simulated-repository";

struct Bed {
    sandbox: Sandbox,
    home: TempDir,
    _runtime: Runtime,
}

impl Bed {
    fn new(scenario: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let scenario = Scenario::parse("scenario.yaml", scenario).unwrap();
        let sandbox = runtime
            .block_on(Sandbox::start(&scenario, None, Network::Loopback, Timestamp::now(), &first_files))
            .unwrap();
        Self { sandbox, home: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    /// With what is replaced in nodeprep.yaml.
    fn with(self, old: &str, new: &str) -> Self {
        let text = fs::read_to_string(self.sandbox.folder.join("nodeprep.yaml")).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(self.sandbox.folder.join("nodeprep.yaml"), text.replace(old, new)).unwrap();
        self
    }

    fn without_backup(self) -> Self {
        let text = fs::read_to_string(self.sandbox.folder.join("nodeprep.yaml")).unwrap();
        let (kept, rest) = text.split_once("\nbackup:\n").unwrap();
        let (_, validation) = rest.split_once("\nvalidation:\n").unwrap();
        fs::write(self.sandbox.folder.join("nodeprep.yaml"), format!("{kept}\nvalidation:\n{validation}"))
            .unwrap();
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = crate::common::nodeprep(self.home.path());
        command.arg("-f").arg(self.sandbox.folder.join("nodeprep.yaml"));
        if !args.contains(&"--talosconfig") {
            command.arg("--talosconfig").arg(self.sandbox.talosconfig());
        }
        if !args.contains(&"--kubeconfig") {
            command.arg("--kubeconfig").arg(self.sandbox.kubeconfig());
        }
        command.args(args).env("NODEPREP_STATE", self.home.path().join("state"));
        command.env("SOPS_AGE_KEY_FILE", self.sandbox.age_key());
        command
    }

    /// Runs it to its end; what it printed.
    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> String {
        let output = self.command(args).output().unwrap();
        said(&output, args, code)
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state/sandbox")
    }

    /// A process that has begun to make test objects.
    fn proving(&self) -> Child {
        let child = self.command(&["validate", "--progress", "plain"]);
        let child = { child }.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let made = || {
            let files = fs::read_dir(self.state()).into_iter().flatten().flatten();
            let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
            names.any(|name| name.starts_with("scratch-"))
        };
        while !made() {
            assert!(began.elapsed() < Duration::from_secs(60), "no test object was made");
            pause(20);
        }
        child
    }
}

#[track_caller]
fn said(output: &Output, args: &[&str], code: i32) -> String {
    let text = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    text
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Everything that a run printed and wrote down.
fn everything(bed: &Bed, printed: &str) -> String {
    let files = fs::read_dir(bed.state()).into_iter().flatten().flatten();
    let written = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect::<String>();
    [printed, &written, &bed.run(&["status"], 0), &bed.run(&["status", "--json"], 0)].concat()
}

#[test]
fn no_secret_that_is_held_comes_back_in_what_a_node_or_the_cluster_says() {
    let packed = BASE64_STANDARD.encode(PASSWORD);
    let of_node = |text: &str| format!("{{where: '*', call: ApplyConfiguration, after: 1, error: {text:?}}}");
    let secrets = "/api/v1/namespaces/velero/secrets*";
    let of_cluster = |text: &str| {
        let fault = |method: &str| {
            format!("{{where: kubernetes, call: '{method} {secrets}', code: 422, error: {text:?}}}")
        };
        format!("{}, {}", fault("PATCH"), fault("POST"))
    };
    let cases = [
        (
            of_node(&format!(
                "unknown keys found during decoding:\nmachine:\n    token: {TOKEN}\n    tokn: x"
            )),
            "tokn: x",
        ),
        (of_node(&format!("1 error occurred: can't use {TOKEN} here")), "here"),
        (of_cluster(&format!("Secret \"s\" is invalid: data[x]: Invalid value: \"{packed}\": no")), "no"),
        (of_cluster(&format!("denied: {PASSWORD} is too weak")), "is too weak"),
    ];
    for (fault, left) in cases {
        for progress in ["plain", "jsonl"] {
            let bed = Bed::new(&format!("speed: 20\nmachines: [{{}}]\nfaults: [{fault}]\n"));
            let output =
                bed.command(&["apply", "--yes", "--no-validate", "--progress", progress]).output().unwrap();
            assert!(!output.status.success(), "{fault}");
            let printed = said(&output, &[], output.status.code().unwrap());
            assert!(printed.contains("<redacted>") && printed.contains(left), "{fault}: {printed}");
            let all = everything(&bed, &printed);
            for secret in [TOKEN, PASSWORD, &packed] {
                assert!(!all.contains(secret), "{fault}: {secret} is in {all}");
            }
        }
    }
}

#[test]
fn a_config_that_needs_a_reboot_is_refused_without_its_secrets() {
    use nodeprep_sandbox::machine::config::difference;
    let config = format!("machine:\n    type: worker\n    token: {TOKEN}\n");
    let text = format!(
        "this config change can't be applied in immediate mode\ndiff:\n{}",
        difference(&config, &format!("{config}    env:\n        A: b\n"))
    );
    assert!(text.contains(TOKEN));
    let shown = nodeprep::config_doc::words(&text);
    assert!(!shown.contains(TOKEN) && shown.contains("can't be applied in immediate mode"), "{shown}");
}

#[test]
fn an_api_server_that_goes_away_is_said_to_be_away() {
    let bed = Bed::new("speed: 20\nmachines: [{}]\n")
        .without_backup()
        .with("validation:", "validation:\n  timeout: 5s");
    bed.run(&["apply", "--yes", "--no-validate"], 0);
    let mut child = bed.proving();
    bed.sandbox.fleet().unwrap().act(|world, _| {
        let away = nodeprep_sandbox::faults::Fault {
            place: "kubernetes".into(),
            call: "*".into(),
            reset: true,
            ..Default::default()
        };
        world.faults.0.push(away);
    });
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(240), "it does not end");
        pause(100);
    }
    let text = said(&child.wait_with_output().unwrap(), &["validate"], 75);
    assert!(text.contains("can't reach the API server") && !text.contains("does not exist"), "{text}");
    assert!(text.contains("hint: "), "{text}");

    let watch = "GET /apis/apps/v1/namespaces/openebs/deployments";
    let bed = Bed::new(&format!(
        "speed: 20\nmachines: [{{}}]\nfaults: [{{where: kubernetes, call: {watch:?}, reset: true}}]\n"
    ));
    let bed = bed.without_backup().with("validation:", "deadlines:\n  workloads: 6s\nvalidation:");
    let text = bed.run(&["apply", "--yes", "--no-validate", "--progress", "plain"], 75);
    assert!(text.contains("can't reach the API server") && !text.contains("does not exist"), "{text}");
}

#[test]
fn credentials_of_another_cluster_are_said_to_be_that_by_every_verb() {
    let (bed, other) = (Bed::new("machines: [{address: 127.0.0.1}]"), Bed::new("machines: [{}]"));
    let replaced = |path: PathBuf, from: PathBuf, keys: &[&str]| {
        let read = |path: PathBuf| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        let (own, other) = (read(path).to_string(), read(from).to_string());
        let value = |text: &str, key: &str| {
            let (_, rest) = text.split_once(&format!("\"{key}\":\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        keys.iter().fold(own.clone(), |text, key| text.replace(&value(&own, key), &value(&other, key)))
    };
    let talosconfig = replaced(bed.sandbox.talosconfig(), other.sandbox.talosconfig(), &["ca", "crt", "key"]);
    fs::write(bed.home.path().join("talosconfig"), talosconfig).unwrap();
    for verb in [&["plan"][..], &["discover"], &["apply", "--yes"]] {
        let text = bed.run(&[&["--talosconfig", "talosconfig"], verb].concat(), 2);
        assert!(text.contains("this talosconfig is not of this cluster"), "{verb:?}: {text}");
        assert!(!text.contains("port 50000"), "{verb:?}: {text}");
    }
    let keys = ["certificate-authority-data"];
    let kubeconfig = replaced(bed.sandbox.kubeconfig(), other.sandbox.kubeconfig(), &keys);
    fs::write(bed.home.path().join("kubeconfig"), kubeconfig).unwrap();
    for verb in [&["plan"][..], &["validate"], &["install", "--yes"], &["cleanup"]] {
        let text = bed.run(&[&["--kubeconfig", "kubeconfig"], verb].concat(), 2);
        assert!(text.contains("this kubeconfig is not of this cluster"), "{verb:?}: {text}");
    }
}

#[test]
fn what_a_login_command_prints_is_not_shown() {
    let bed = Bed::new("machines: [{}]");
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(bed.sandbox.kubeconfig()).unwrap()).unwrap();
    for (script, words) in [
        ("echo hunter2-token; echo hunter2-token >&2; exit 3", "the login command of the kubeconfig failed"),
        ("echo '{\"token\": hunter2-token'", "is no ExecCredential"),
    ] {
        let mut config = config.clone();
        config["users"][0]["user"] = serde_json::json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script],
            "interactiveMode": "IfAvailable",
        }});
        fs::write(bed.home.path().join("kubeconfig"), config.to_string()).unwrap();
        let mut command = bed.command(&["--kubeconfig", "kubeconfig", "validate"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = said(&output, &[script], 2);
        assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn missing_rights_are_named_all_at_once_and_nothing_is_made() {
    let bed = Bed::new(
        "speed: 20\nmachines: [{}]\ndenied: [create persistentvolumeclaims, get pods/log, delete jobs.batch]\n",
    );
    let bed = bed.without_backup();
    bed.run(&["apply", "--yes", "--no-validate"], 0);
    let text = bed.run(&["validate", "--progress", "plain"], 2);
    for right in ["create persistentvolumeclaims", "get pods/log", "delete jobs.batch"] {
        assert!(text.contains(right), "{right}: {text}");
    }
    assert!(text.contains("hint: nothing was made"), "{text}");
    let calls = bed.sandbox.fleet().unwrap().calls();
    assert!(!calls.iter().any(|call| call.call == "POST /api/v1/namespaces"), "{calls:?}");
}

#[test]
fn the_record_knows_how_the_proof_ended_and_that_it_was_cut_off() {
    let bed = Bed::new("speed: 20\nmachines: [{}]\n").without_backup();
    bed.run(&["apply", "--yes", "--progress", "plain"], 0);
    let text = bed.run(&["status"], 0);
    assert!(
        text.contains("proving") && text.contains("pass") && text.contains("ended well: validate:"),
        "{text}"
    );

    let mut child = bed.proving();
    assert!(bed.run(&["status"], 0).contains("still going on"));
    let text = bed.run(&["validate"], 75);
    assert!(text.contains("another run holds the lock"), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
    let text = bed.run(&["status"], 0);
    assert!(text.contains("killed while the storage was proven"), "{text}");
    let text = bed.run(&["abort"], 0);
    assert!(
        text.contains("while the storage was proven") && text.contains("removed namespace nodeprep-"),
        "{text}"
    );
    assert!(bed.run(&["status"], 0).contains("given up"));
    assert!(bed.run(&["cleanup"], 0).contains("Nothing was left"));

    let bed = bed.with("/var/mnt/openebs", "/var/mnt/elsewhere");
    bed.run(&["validate"], 3);
    let text = bed.run(&["status"], 0);
    assert!(
        text.contains("fail") && text.contains("ended: validate:") && !text.contains("ended well"),
        "{text}"
    );
}

#[test]
fn a_hangup_ends_a_run_as_ctrl_c_does_and_the_second_says_what_is_left() {
    let bed = Bed::new("speed: 20\nmachines: [{}]\n").without_backup();
    bed.run(&["apply", "--yes", "--no-validate"], 0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    let child = bed.proving();
    // Who runs the tests so that they outlive a terminal runs nodeprep so.
    let hangup = if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1 { "-TERM" } else { "-HUP" };
    signal(&child, hangup);
    let text = said(&child.wait_with_output().unwrap(), &["-HUP"], 130);
    assert!(text.contains("finishing the step and cleaning up"), "{text}");
    assert!(bed.run(&["cleanup"], 0).contains("Nothing was left"));

    // Its clean-up hangs: the namespace does not go.
    let child = bed.proving();
    bed.sandbox.fleet().unwrap().act(|world, _| {
        let slow = nodeprep_sandbox::faults::Fault {
            place: "kubernetes".into(),
            call: "GET *".into(),
            delay: Some(nodeprep::intent::Duration(20)),
            ..Default::default()
        };
        world.faults.0.push(slow);
    });
    signal(&child, "-INT");
    pause(500);
    signal(&child, "-INT");
    let text = said(&child.wait_with_output().unwrap(), &["-INT"], 130);
    assert!(text.contains("left in the cluster: namespace nodeprep-"), "{text}");
    assert!(text.contains("`nodeprep cleanup` removes it"), "{text}");
}

#[test]
fn what_a_finalizer_holds_is_named_with_it_and_not_waited_for_for_long() {
    paused(async {
        let session = Session::start(&Scenario::of(1)).await;
        let cluster = session.cluster().await.unwrap();
        let labels =
            serde_json::json!({"app.kubernetes.io/managed-by": "nodeprep", "nodeprep.dev/run": "r1"});
        let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "nodeprep-r1", "labels": labels}});
        let claim = serde_json::json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "nodeprep-r1", "finalizers": ["example.com/keep"]},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                "resources": {"requests": {"storage": "1Gi"}}}});
        for object in [namespace, claim] {
            cluster.apply(&object).await.unwrap();
        }
        let (folder, began) = (tempfile::tempdir().unwrap(), tokio::time::Instant::now());
        let error =
            check::cleanup(&cluster, folder.path(), session.fleet.now(), &session.events).await.unwrap_err();
        let held = "PersistentVolumeClaim nodeprep-r1/c, held by the finalizer example.com/keep";
        assert!(error.what.contains(held) && error.hint.is_some(), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(240), "{:?}", began.elapsed());
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process is looked at; whoever calls this has a deadline"
)]
fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
