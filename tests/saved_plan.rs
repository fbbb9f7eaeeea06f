//! A plan that was reviewed is carried out as it was, or not at all; on another machine where a key is shared.

use std::fs;
use std::path::{Path, PathBuf};

/// The exit code, and all that was said.
fn run(folder: &Path, args: &str) -> (Option<i32>, String) {
    let args = format!("{args} --sandbox-state fleet --progress plain");
    let output = crate::common::nodeprep(folder).args(args.split_whitespace()).output().unwrap();
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

/// What another machine has not got.
fn forget_own_key(folder: &Path) {
    fn keys(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let found = entries.flat_map(|path| if path.is_dir() { keys(&path) } else { vec![path] });
        found.filter(|path| path.ends_with("digest.key")).collect()
    }
    let found = keys(&folder.join("fleet"));
    assert_eq!(found.len(), 1, "{found:?}");
    fs::remove_file(&found[0]).unwrap();
}

fn begun() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.yaml"), "machines: [{}]\nspeed: 100\n").unwrap();
    fs::write(folder.path().join("key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(folder.path().join("other"), "0123456789abcdef0123456789abcdeX\n").unwrap();
    fs::write(folder.path().join("short"), "0123456789abcdef\n").unwrap();
    assert_eq!(run(folder.path(), "status --sandbox s.yaml").0, Some(0));
    folder
}

#[test]
fn a_plan_of_another_machine_is_carried_out_by_a_key_that_both_have() {
    let folder = begun();
    let folder = folder.path();
    let (code, said) = run(folder, "plan --out reviewed --plan-key key");
    assert_eq!(code, Some(0), "{said}");
    assert!(!fs::read_to_string(folder.join("reviewed")).unwrap().contains("0123456789abcdef"));
    run(folder, "plan --out own");
    forget_own_key(folder);
    for (args, says) in [
        ("--plan own", "made with another key"),
        ("--plan reviewed", "apply --plan FILE --plan-key KEY"),
        ("--plan reviewed --plan-key other", "made with another key"),
        ("--plan reviewed --plan-key short", "can be guessed"),
        ("--plan reviewed --plan-key none", "can't read the plan's key none"),
        ("--yes --plan-key key", "goes with --plan"),
    ] {
        let (code, said) = run(folder, &format!("apply --no-validate {args}"));
        assert!(code == Some(2) && said.contains(says), "{args}: {code:?} {said}");
        assert!(!said.contains("0123456789abcdef"), "{args}: {said}");
    }
    assert_eq!(run(folder, "plan --exit-code").0, Some(4), "nothing was changed");
    let (code, said) = run(folder, "apply --no-validate --plan reviewed --plan-key key");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(folder, "plan --exit-code").0, Some(0));
}

#[test]
fn a_plan_is_not_carried_out_when_the_world_moved() {
    let folder = begun();
    let folder = folder.path();
    assert_eq!(run(folder, "plan --out reviewed").0, Some(0));
    let file = folder.join("fleet/nodeprep.yaml");
    let text = fs::read_to_string(&file).unwrap();
    for (change, says) in [
        (
            text.replace("0 2 * * *", "0 3 * * *"),
            "create Schedule velero/daily-backup would do something else now",
        ),
        (
            text.replace("default: true", "default: true\n  - {name: more, basePath: /var/mnt/openebs/more}"),
            "create StorageClass more has become necessary",
        ),
        (text.replace("name: sandbox", "name: other"), "the plan is for sandbox, the file for other"),
    ] {
        fs::write(&file, change).unwrap();
        // The file's name is part of what this machine knows a cluster by.
        let (code, said) = run(folder, "apply --no-validate --plan reviewed");
        let other = says.starts_with("the plan is for") && code == Some(2);
        assert!(other || code == Some(5) && said.contains(says), "{says}: {code:?} {said}");
    }
    fs::write(&file, text).unwrap();
    let (code, said) = run(folder, "apply --no-validate --plan reviewed");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(folder, "apply --no-validate --plan reviewed");
    assert!(
        code == Some(5) && said.contains("create Schedule velero/daily-backup is not needed any more"),
        "{said}"
    );
}
