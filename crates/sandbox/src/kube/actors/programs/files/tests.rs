#![expect(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::Command;

use super::super::{Mount, Run, shell};
use super::*;
use crate::host::{Host, Place};

const DISK: &str = "/disk";

fn host() -> Host {
    let mut host = Host::default();
    let directories = [("/pv".to_owned(), Directory::default())].into();
    host.mounts.insert(DISK.into(), FileSystem { size: 1 << 30, directories, ..FileSystem::default() });
    host
}

/// Runs the script as the simulated machine does: what it prints, and its status.
fn run(host: &mut Host, words: &str) -> (String, i32) {
    let at = Place { mount: DISK.into(), root: "/pv".into(), read_only: false };
    let mounts = [Mount { point: "/data".into(), place: at, scratch: false }];
    let work = super::super::tests::files(words);
    shell::run(&format!("set -e\n{work}"), host, &mounts, Run { uid: "u", now: 1_700_000_000 })
}

fn listed(host: &mut Host, words: &str) -> Listing {
    let (text, status) = run(host, words);
    assert_eq!(status, 0, "{text}");
    text.parse().unwrap()
}

/// What the script prints in a real shell, in a new folder; nothing where that can't be had.
fn real(count: &str, bytes: &str) -> Option<Listing> {
    let id = Command::new("busybox").args(["id", "-u"]).output();
    if !id.is_ok_and(|id| id.stdout == b"0\n") {
        let _ = writeln!(std::io::stderr(), "NOT RUN: the drill's script, which needs busybox and root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let installed = Command::new("busybox").args(["--install", "-s"]).arg(&bin).status().unwrap();
    assert!(installed.success());
    let mut sh = Command::new(bin.join("sh"));
    sh.env_clear().env("PATH", &bin).args(["-c", SCRIPT, "files.sh", "data"]);
    let output = sh.arg(folder.path().join("data")).args([count, bytes]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().parse().unwrap())
}

/// What of an entry is the same wherever and whenever the script runs.
fn fixed(entry: &Entry) -> String {
    let Entry { name, mode, uid, gid, size, modified, links, what, .. } = entry;
    let modified = if *modified <= OLD { *modified } else { 0 };
    let content = match what {
        What::Target(target) => target.to_string(),
        What::Sum(sum) if [0, 4, 5, 6, 7, 10].contains(size) || name.to_string().contains("owner") => {
            format!("{sum:?}")
        }
        _ => String::new(),
    };
    let folder = mode >> 12 == 0o4;
    let (size, links) = if folder { (0, 0) } else { (*size, *links) };
    let own = name.0 == b".wrote" || entry.is_root() || name.0.starts_with(b"small/");
    let content = if own { String::new() } else { content };
    let mode = if entry.is_root() { 0 } else { *mode };
    format!("{name} {mode:o} {uid}:{gid} {size} {modified} {links} {content}")
}

#[test]
fn the_machine_writes_what_a_real_shell_writes() {
    let Some(real) = real("250", "2000000") else { return };
    let here = listed(&mut host(), "data /data 250 2000000");
    let lines = |listing: &Listing| listing.entries.iter().map(fixed).collect::<Vec<_>>();
    assert_eq!(lines(&here), lines(&real));
    let sparse = |listing: &Listing| {
        let half = |entry: &&Entry| entry.size > 1 << 16 && entry.blocks * 512 < entry.size / 2;
        listing.entries.iter().filter(half).map(|entry| entry.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (sparse(&here), sparse(&real)),
        (vec!["odd/sparse".to_owned()], vec!["odd/sparse".to_owned()])
    );
}

#[test]
fn what_is_there_stays_and_harm_is_done_to_the_content_of_one_file() {
    let mut host = host();
    let first = listed(&mut host, "data /data 20 100000");
    assert_eq!(first.written, Written::Now(1_700_000_000));
    let again = listed(&mut host, "data /data 20 100000");
    assert_eq!((again.written, &again.entries), (Written::Before(1_700_000_000), &first.entries));
    assert_eq!(listed(&mut host, "list /data"), again);
    let harmed = listed(&mut host, "harm /data");
    let differ = harmed.entries.iter().zip(&first.entries).filter(|(is, was)| is != was);
    let differ: Vec<(&Entry, &Entry)> = differ.collect();
    let [(is, was)] = differ.as_slice() else { panic!("{differ:?}") };
    assert_eq!((Some(&is.name), is.modified, is.size), (harmed.harmed.as_ref(), was.modified, was.size));
    assert_ne!(is.what, was.what);
}

#[test]
fn what_goes_wrong_is_said() {
    let mut full = host();
    full.mounts.get_mut(DISK).unwrap().used = 1 << 30;
    let mut locked = host();
    locked.mounts.get_mut(DISK).unwrap().options.push("ro".into());
    for (host, words, said, status) in [
        (&mut full, "data /data 20 100000", "No space left on device", 1),
        (&mut locked, "data /data 20 100000", "Read-only file system", 1),
        (&mut host(), "harm /data", "there is no file to harm", 1),
        (&mut host(), "list /nowhere", "can't cd to /nowhere", 2),
        (&mut host(), "burn /data", "neither data, list nor harm", 2),
    ] {
        let (text, code) = run(host, words);
        assert!(text.contains(said) && code == status, "{words}: {text} {code}");
    }
    assert_eq!(listed(&mut host(), "list /data").written, Written::Unknown);
}
