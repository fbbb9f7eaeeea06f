//! The programs in pods that come to an end, or sleep when their work is done: shell scripts whose commands are all known, and what
//! a provisioner's helper pods do. Anything else runs for ever.

mod commands;
pub(super) mod crash;
mod files;
mod fio;
mod script;
mod shell;

use std::time::Duration;

use serde_json::Value;

use super::objects::list;
use super::text;
use crate::host::{Host, Place, below};

/// A directory of the machine that a container sees.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// Where the container sees it; nothing for the root of its image.
    pub point: String,
    pub place: Place,
    /// The pod's own space, which goes with it.
    pub scratch: bool,
}

/// By whom a program is run, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    /// The pod's.
    pub uid: &'a str,
    /// In seconds since 1970.
    pub now: i64,
}

/// What a program left.
#[derive(Debug)]
pub(super) struct Ended {
    pub log: String,
    /// The container's exit code; none when it sleeps from now on.
    pub status: Option<i32>,
}

/// A program that is known to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program<'a> {
    Shell(&'a str),
    /// Makes a volume's directory.
    Make(&'a str),
    /// Removes it.
    Remove(&'a str),
    /// Limits it to its size, at this path.
    Limit(&'a str),
}

/// The program of a pod's first container, if it is known to end.
pub(super) fn of(pod: &Value) -> Option<Program<'_>> {
    let words = list(pod, "/spec/containers/0/command").iter().chain(list(pod, "/spec/containers/0/args"));
    let mut words = words.map(|word| word.as_str().unwrap_or_default());
    let words = [(); 6].map(|()| words.next());
    match words {
        [Some("/bin/sh" | "sh"), Some("-c"), Some(script), None, ..] => {
            let read = script::read(script).filter(|script| script::only(script, &commands::KNOWN));
            let quota = text(pod, "/metadata/name").starts_with("quota-").then(|| {
                let mounts = list(pod, "/spec/containers/0/volumeMounts");
                Program::Limit(mounts.first().map_or("", |mount| text(mount, "/mountPath")))
            });
            let ends = |script: &script::Script| ends(pod) || script::sleeps_then(script);
            if read.as_ref().is_some_and(ends) { Some(Program::Shell(script)) } else { quota }
        }
        [Some("mkdir"), Some("-m"), Some("0777"), Some("-p"), Some(path), None] => Some(Program::Make(path)),
        [Some("rm"), Some("-rf"), Some(path), None, ..] => Some(Program::Remove(path)),
        _ => None,
    }
}

/// Whether what ends is not started again.
fn ends(pod: &Value) -> bool {
    matches!(text(pod, "/spec/restartPolicy"), "Never" | "OnFailure")
}

impl Program<'_> {
    /// How long it runs.
    pub(super) fn takes(&self) -> Duration {
        match self {
            Self::Shell(script) => Duration::from_millis(300) + shell::takes(script),
            _ => Duration::from_millis(200),
        }
    }

    /// Does on the machine what the program does.
    pub(super) fn run(&self, host: &mut Host, mounts: &[Mount], run: Run<'_>) -> Ended {
        match self {
            Self::Shell(script) => {
                let (log, status) = shell::run(script, host, mounts, run);
                Ended { log, status: (status != shell::SLEEPS).then_some(status) }
            }
            Self::Make(path) => make(host, mounts, path),
            Self::Remove(path) => remove(host, mounts, path),
            Self::Limit(path) => limit(host, mounts, path),
        }
    }
}

/// Where a path of the container lies on the machine; none on a file system of the image.
fn place(mounts: &[Mount], path: &str) -> Option<(Place, bool)> {
    let within = mounts.iter().filter_map(|mount| Some((mount, below(path, &mount.point)?)));
    let (mount, rest) = within.max_by_key(|(mount, _)| mount.point.len())?;
    let root = format!("{}{}", mount.place.root.trim_end_matches('/'), rest.trim_end_matches('/'));
    let root = if root.is_empty() { "/".to_owned() } else { root };
    Some((Place { root, ..mount.place.clone() }, mount.scratch))
}

/// Whether nothing can be written there.
fn read_only(host: &Host, place: &Place) -> bool {
    let system = host.mounts.get(&place.mount);
    place.read_only || system.is_none_or(|system| system.options.iter().any(|option| option == "ro"))
}

fn make(host: &mut Host, mounts: &[Mount], path: &str) -> Ended {
    let writable = place(mounts, path).map(|(place, _)| place).filter(|place| !read_only(host, place));
    match writable {
        Some(place) => {
            host.make_directory(&place);
            Ended { log: String::new(), status: Some(0) }
        }
        None => failed(&format!("mkdir: can't create directory '{path}': Read-only file system")),
    }
}

fn remove(host: &mut Host, mounts: &[Mount], path: &str) -> Ended {
    let Some((place, _)) = place(mounts, path) else { return Ended { log: String::new(), status: Some(0) } };
    let within = |root: &String| below(root, &place.root).is_some();
    let held = host.mounts.get(&place.mount).is_some_and(|system| system.directories.keys().any(within));
    if held && read_only(host, &place) {
        return failed(&format!("rm: can't remove '{path}': Read-only file system"));
    }
    host.remove_directory(&place);
    Ended { log: String::new(), status: Some(0) }
}

/// Needs a file system that was mounted with project quotas.
fn limit(host: &Host, mounts: &[Mount], path: &str) -> Ended {
    let quotas = |option: &String| matches!(option.as_str(), "prjquota" | "pquota");
    let system = place(mounts, path).and_then(|(place, _)| host.mounts.get(&place.mount));
    if system.is_some_and(|system| system.options.iter().any(quotas)) {
        return Ended { log: String::new(), status: Some(0) };
    }
    failed("foreign file system, or project quotas are not enabled on it")
}

fn failed(why: &str) -> Ended {
    Ended { log: format!("{why}\n"), status: Some(1) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::objects::digest;
    use super::super::scene::BASE;
    use super::*;
    use crate::host::FileSystem;

    /// Before the last line of a frame.
    const MARK: &str = "the end: ";

    /// A script whose last line says how long its output is, and its checksum and its status.
    pub(in super::super) fn framed(work: &str) -> String {
        format!(
            "(\nset -e\n{work}\n) >/tmp/result 2>&1\nstatus=$?\ncat /tmp/result\nprintf '{MARK}%s %s %s\\n' \
             \"$(($(wc -c </tmp/result)))\" \"$(sha256sum </tmp/result | cut -d' ' -f1)\" \"$status\"\n"
        )
    }

    /// The work of a drill's pod.
    pub(in super::super) fn files(words: &str) -> String {
        format!("sh -c '{}' files.sh {words}", files::SCRIPT.replace('\'', r"'\''"))
    }

    /// The text and the status of a framed log.
    pub(in super::super) fn unframed(log: &str) -> (String, i32) {
        let at = log.rfind(MARK).unwrap_or_else(|| panic!("no frame: {log}"));
        let (text, line) = log.split_at(at);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[2..4], [text.len().to_string().as_str(), digest(text).as_str()], "{log}");
        (text.to_owned(), words[4].parse().unwrap_or(-1))
    }

    fn pod(name: &str, command: &Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [{
            "command": command, "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }]}})
    }

    #[test]
    fn only_known_programs_end() {
        let script = framed("true");
        for (name, command, program) in [
            ("p", json!(["/bin/sh", "-c", script]), Some(Program::Shell(&script))),
            (
                "p",
                json!(["sh", "-c", "sleep 1 && echo $(wc -c </x)"]),
                Some(Program::Shell("sleep 1 && echo $(wc -c </x)")),
            ),
            ("p", json!(["sh", "-c", "while true; do sleep 1; done"]), None),
            ("p", json!(["sh", "-c", "echo $(python3 -c x)"]), None),
            ("p", json!(["mkdir", "-m", "0777", "-p", "/data/pvc-1"]), Some(Program::Make("/data/pvc-1"))),
            ("p", json!(["rm", "-rf", "/data/pvc-1"]), Some(Program::Remove("/data/pvc-1"))),
            ("quota-pvc-1", json!(["sh", "-c", "xfs_quota"]), Some(Program::Limit("/data"))),
            ("p", json!(["sh", "-c", "xfs_quota"]), None),
            ("p", json!(["/velero"]), None),
            ("p", json!(["rm", "-rf", "/a", "/b"]), None),
            ("p", json!(null), None),
        ] {
            assert_eq!(of(&pod(name, &command)), program, "{command}");
        }
        assert_eq!(of(&json!({})), None);
        let mut again = pod("p", &json!(["sh", "-c", "true"]));
        again["spec"]["restartPolicy"] = json!("Always");
        assert_eq!(of(&again), None);
        again["spec"]["containers"][0]["command"] = json!(["sh", "-c", "true\nsleep infinity"]);
        assert_eq!(of(&again), Some(Program::Shell("true\nsleep infinity")));
    }

    #[test]
    fn helpers_make_limit_and_remove_a_directory() {
        let mut host = Host::default();
        host.mounts.insert(BASE.into(), FileSystem::default());
        let at = Place { mount: BASE.into(), root: "/".into(), read_only: false };
        let mounts = [Mount { point: "/data".into(), place: at, scratch: false }];
        let directories =
            |host: &Host| -> Vec<String> { host.mounts[BASE].directories.keys().cloned().collect() };
        let done = |program: Program<'_>, host: &mut Host| {
            program.run(host, &mounts, Run { uid: "u", now: 0 }).status.unwrap()
        };
        assert_eq!(done(Program::Make("/data/pvc-1"), &mut host), 0);
        assert_eq!(done(Program::Make("/data/pvc-10"), &mut host), 0);
        assert_eq!(done(Program::Make("/other/pvc-1"), &mut host), 1);
        assert_eq!(directories(&host), ["/pvc-1", "/pvc-10"]);
        assert_eq!(done(Program::Limit("/data"), &mut host), 1);
        host.mounts.entry(BASE.into()).or_default().options.push("prjquota".into());
        assert_eq!(done(Program::Limit("/data"), &mut host), 0);
        assert_eq!(done(Program::Remove("/data/pvc-1"), &mut host), 0);
        assert_eq!(directories(&host), ["/pvc-10"]);
        host.mounts.entry(BASE.into()).or_default().options.push("ro".into());
        assert_eq!(done(Program::Make("/data/pvc-2"), &mut host), 1);
        assert_eq!(done(Program::Remove("/data/pvc-10"), &mut host), 1);
    }
}
