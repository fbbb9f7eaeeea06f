#![expect(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::host::Directory;

const DISK: &str = "/var/mnt/openebs";
const WRITE: &str = "head -c 1048576 /dev/urandom >/tmp/noise\n\
                     dd if=/tmp/noise of=/data/probe bs=65536 conv=fsync\n\
                     wrote=$(sha256sum </tmp/noise)\necho \"wrote ${wrote%% *}\"\n";
const READ: &str = "if ! dd if=/data/probe of=/tmp/back bs=65536 iflag=direct; then\n  \
                    cat /data/probe >/tmp/back\n  echo 'from memory'\nfi\n\
                    read=$(sha256sum </tmp/back)\necho \"read ${read%% *}\"\n";

fn host() -> Host {
    let mut host = Host::default();
    let disk = FileSystem {
        source: "/dev/nvme0n1p1".into(),
        kind: "xfs".into(),
        options: vec!["rw".into(), "relatime".into()],
        size: 1 << 30,
        directories: [("/pvc-1".to_owned(), Directory::default())].into(),
        ..FileSystem::default()
    };
    host.mounts.insert(DISK.into(), disk);
    host.mounts
        .insert("/var".into(), FileSystem { kind: "xfs".into(), size: 1 << 30, ..FileSystem::default() });
    host
}

fn mounts(read_only: bool) -> [Mount; 2] {
    let mount = |point: &str, mount: &str, root: &str, scratch: bool| Mount {
        point: point.into(),
        place: Place { mount: mount.into(), root: root.into(), read_only: read_only && !scratch },
        scratch,
    };
    [mount("/data", DISK, "/pvc-1", false), mount("/tmp", "/var", "/lib/kubelet/tmp", true)]
}

/// Runs it to its first failure.
fn run(work: &str, host: &mut Host, mounts: &[Mount], uid: &str) -> (String, i32) {
    super::run(&format!("set -e\n{work}"), host, mounts, Run { uid, now: 0 })
}

fn sh(host: &mut Host, work: &str) -> (String, i32) {
    run(work, host, &mounts(false), "u1")
}

fn word<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?")
}

#[test]
fn data_is_written_and_read_back_by_the_same_pod_and_the_next() {
    let mut host = host();
    let (text, status) = sh(&mut host, &[WRITE, READ].concat());
    assert_eq!((status, word(&text, "wrote ").len()), (0, 64), "{text}");
    assert_eq!(word(&text, "wrote "), word(&text, "read "));
    assert!(text.starts_with("16+0 records in\n16+0 records out\n1048576 bytes (1.0MB) copied"), "{text}");
    let (next, status) = run(&["ls -la /data\n", READ].concat(), &mut host, &mounts(false), "u2");
    assert!(status == 0 && next.contains("1048576 Jan  1 00:00 probe"), "{next}");
    assert_eq!(word(&next, "read "), word(&text, "wrote "));
    assert_eq!(host.mounts[DISK].available(), (1 << 30) - (1 << 20));
}

#[test]
fn what_goes_wrong_is_said_as_busybox_says_it() {
    type Case = (&'static str, &'static str, fn(&mut Host), &'static str, i32);
    let cases: [Case; 7] = [
        (
            "full",
            WRITE,
            |host| host.mounts.get_mut(DISK).unwrap().used = (1 << 30) - 131_072,
            "dd: error writing '/data/probe': No space left on device\n3+0 records in\n2+0 records out\n",
            1,
        ),
        ("gone", READ, |_| {}, "cat: can't open '/data/probe': No such file or directory\n", 1),
        (
            "removed",
            WRITE,
            |host| host.mounts.get_mut(DISK).unwrap().directories.clear(),
            "dd: can't open '/data/probe': No such file or directory\n",
            1,
        ),
        ("unknown", "python3 -c x", |_| {}, "sh: python3: not found (simulated)\n", 127),
        ("in an assignment", "x=$(uname -r)", |_| {}, "sh: uname: not found (simulated)\n", 127),
        ("ends", "echo one\nexit 7\necho two", |_| {}, "one\n", 7),
        ("nothing", "true\n\nsleep 3", |_| {}, "", 0),
    ];
    for (case, work, change, end, wanted) in cases {
        let mut host = host();
        change(&mut host);
        let (text, status) = sh(&mut host, work);
        assert!(text.ends_with(end) && status == wanted, "{case}: {text} {status}");
    }
    let (text, status) = run(WRITE, &mut host(), &mounts(true), "u1");
    assert_eq!((text.as_str(), status), ("dd: can't open '/data/probe': Read-only file system\n", 1));
}

#[test]
fn a_file_system_in_memory_has_no_direct_reads() {
    let mut host = host();
    host.mounts.get_mut(DISK).unwrap().kind = "tmpfs".into();
    let (text, status) = sh(&mut host, &[WRITE, READ].concat());
    assert!(status == 0 && text.contains("Invalid argument\nfrom memory\nread "), "{text}");
}

#[test]
fn the_mounts_are_told_as_the_kernel_tells_them() {
    let mut host = host();
    let line = |host: &mut Host, read_only| {
        let (text, _) = run("echo mounts\ncat /proc/self/mountinfo", host, &mounts(read_only), "u1");
        text.lines().find(|line| line.contains(" /data ")).unwrap_or_default().to_owned()
    };
    assert_eq!(
        line(&mut host, false),
        "1210 1201 259:1 /pvc-1 /data rw,relatime - xfs /dev/nvme0n1p1 rw,attr2,inode64,logbufs=8,logbsize=32k,noquota"
    );
    assert!(line(&mut host, true).contains(" /data ro,relatime - "));
    host.mounts.get_mut(DISK).unwrap().directories.clear();
    assert!(line(&mut host, false).contains(" /pvc-1//deleted /data "));
}

#[test]
fn scripts_do_what_they_do_in_a_real_shell() {
    for script in [
        "echo a; echo b && echo c || echo d",
        "false || echo x; false && echo y; echo $?",
        "(set -e; false; echo no); echo $?",
        "set -e; if ! false; then echo yes; else echo no; fi; false; echo no",
        "x='a  b c'; echo $x; echo \"$x\" \"${x%% *}\" ${x}$x",
        "echo 'a  b   c' | tr -s ' ' | cut -d' ' -f2",
        "printf '%s-%d\\n' a 7; echo $((3)) \"$(echo in; exit 4)\"",
        "x=$(exit 3); echo $?; x=$(echo 'a b'); echo $x",
        "(echo out; cat /nowhere 2>/dev/null; echo more >/dev/null) 2>&1 | wc -c",
        "printf abc | sha256sum | cut -d' ' -f1",
        "[ 3 -lt 4 ] && echo less; [ a = b ] || echo other; test -z '' && echo empty",
        "echo a; exit 7; echo no",
        "# note\necho \"a#b\" \\\n  c # end",
        "printf 'one\\ntwo\\nthree\\n' | tail -n 1",
        "if false; then echo a; else echo b; fi >/dev/null; echo c",
        "echo a\\ b \"c\\\"d\" 'e\"f' a${nothing}b ''",
        "set -e; x=$(false); echo no",
        "set -e; false | true; echo yes; (exit 3) || echo three; ! true; echo still",
        "printf '%s' \"$(($(printf 12345 | wc -c)))\"",
    ] {
        let real = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        let real = (String::from_utf8(real.stdout).unwrap(), real.status.code().unwrap());
        assert_eq!(super::run(script, &mut Host::default(), &[], Run { uid: "u", now: 0 }), real, "{script}");
    }
}

#[test]
fn what_is_printed_goes_where_it_is_sent() {
    for (script, said) in [
        (
            "(echo out; ls -la /none) >/tmp/a 2>&1; echo $?; cat /tmp/a",
            "1\nout\nls: /none: No such file or directory\n",
        ),
        ("echo one >/data/a; echo two >>/data/a; cat /data/a; wc -c /data/a", "one\ntwo\n8 /data/a\n"),
        ("echo one >/data/a; echo two >/data/a; cat </data/a", "two\n"),
        ("cat </data/none; echo $?", "sh: can't open /data/none: no such file\n1\n"),
        ("echo x >/nowhere/a; echo $?", "sh: can't create /nowhere/a: Read-only file system\n1\n"),
        ("dd if=/dev/zero of=/data/a bs=1024 count=4 2>/dev/null; wc -c </data/a", "4096\n"),
    ] {
        assert_eq!(
            super::run(script, &mut host(), &mounts(false), Run { uid: "u", now: 0 }).0,
            said,
            "{script}"
        );
    }
}

#[test]
fn what_takes_long_is_known_beforehand() {
    for (work, seconds) in [("sleep 3\nsleep 4", 7), ("fio --name=a --runtime=30 --size=1", 30), ("true", 0)]
    {
        assert_eq!(takes(work).as_secs(), seconds, "{work}");
    }
}

proptest! {
    #[test]
    fn no_script_makes_it_panic(work in "(head|dd|cat|if|then|fi|x=|\\$\\(|\\(|\\$\\(\\(|\\)|%%|[ -~]|é|\n){0,40}") {
        let _ = (takes(&work), sh(&mut host(), &work));
    }
}
