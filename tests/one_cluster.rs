//! The machines and the API server of a run must be of one cluster; else nothing is planned, judged or removed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::nodeprep;

/// A fleet that is served until it is dropped.
pub(crate) struct Served {
    pub folder: PathBuf,
    process: Child,
}

impl Served {
    pub(crate) fn start(folder: &Path, name: &str, scenario: &str) -> Self {
        fs::write(folder.join(format!("{name}.yaml")), scenario).unwrap();
        let mut command = nodeprep(folder);
        command.args(["sandbox", "up", "--sandbox", &format!("{name}.yaml"), "--sandbox-state", name]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The first line comes when it is served.
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Self { folder: folder.join(name), process }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// Runs a verb on the machines of one fleet and the cluster of another; its exit code and what it said.
pub(crate) fn on(machines: &Served, cluster: &Served, verb: &str) -> (Option<i32>, String) {
    let state = machines.folder.parent().unwrap();
    let mut command = nodeprep(state);
    command.args(verb.split_whitespace()).args(["--progress", "plain"]);
    command.env("SOPS_AGE_KEY_FILE", machines.folder.join("age.key"));
    command.arg("--talosconfig").arg(machines.folder.join("talosconfig"));
    command.arg("--kubeconfig").arg(cluster.folder.join("kubeconfig"));
    let output = command.arg("-f").arg(machines.folder.join("nodeprep.yaml")).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn what_another_cluster_says_is_nobodys_word() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = |name, address, hostname| {
        let machine =
            format!("{{role: controlplane, address: {address}, hostname: {hostname}, version: v1.13.9}}");
        Served::start(folder.path(), name, &format!("speed: 20\nmachines: [{machine}]\n"))
    };
    let a = fleet("a", "10.5.0.2", "alpha");
    let (code, text) = on(&a, &a, "apply --yes --no-validate");
    assert_eq!(code, Some(0), "{text}");
    // Machines of another name and address; then such as are called and reached like those of the first.
    for (name, address, hostname) in [("b", "10.5.0.3", "beta"), ("c", "10.5.0.2", "alpha")] {
        let other = fleet(name, address, hostname);
        for verb in [
            "plan",
            "apply --yes --no-validate",
            "install --yes",
            "validate",
            "remove --volume openebs --nodes 10.5.0.2 --wipe-disk SIMA0001 --yes",
        ] {
            let (code, text) = on(&a, &other, verb);
            assert_eq!(code, Some(2), "{name}: {verb}: {text}");
            assert!(text.contains("are not of one cluster"), "{name}: {verb}: {text}");
            assert!(text.contains("hint: name the kubeconfig and the talosconfig of one cluster"), "{text}");
        }
    }
    // Nothing of all that has changed the first.
    let (code, text) = on(&a, &a, "plan --exit-code");
    assert_eq!(code, Some(0), "{text}");
}
