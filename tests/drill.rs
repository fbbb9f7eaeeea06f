//! The script of a drill in a real busybox, and what the comparison of its listings sees.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nodeprep::judge::files::{Change, Comparison, compare, in_words};
use nodeprep::model::files::{Listing, Name, What, Written};
use nodeprep::stack::drill::{self, Amount};
use proptest::prelude::*;

const SMALL: Amount = Amount { files: 120, bytes: 600_000 };

/// A volume, and a shell that has busybox's commands and no others.
struct Volume {
    _folder: tempfile::TempDir,
    bin: PathBuf,
    data: PathBuf,
}

impl Volume {
    /// None on a machine without busybox, or without its root's rights; that is said past the test runner.
    fn new() -> Option<Self> {
        let id = Command::new("busybox").args(["id", "-u"]).output();
        if !id.is_ok_and(|id| id.stdout == b"0\n") {
            let _ = writeln!(std::io::stderr(), "NOT RUN: the drill's script, which needs busybox and root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [bin, data] = ["bin", "data"].map(|name| folder.path().join(name));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&data).unwrap();
        assert!(Command::new("busybox").args(["--install", "-s"]).arg(&bin).status().unwrap().success());
        Some(Self { _folder: folder, bin, data })
    }

    fn sh(&self, work: &str) -> Result<String, String> {
        let mut sh = Command::new(self.bin.join("sh"));
        sh.env_clear().env("PATH", &self.bin).current_dir("/").args(["-c", &format!("set -e\n{work}\n")]);
        let output = sh.output().unwrap();
        let [said, wrong] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        // Both are in a pod's log.
        if output.status.success() && wrong.is_empty() { Ok(said) } else { Err(wrong) }
    }

    fn listing(&self, work: &str) -> Listing {
        self.sh(work).unwrap().parse().unwrap()
    }

    fn folder(&self) -> &str {
        self.data.to_str().unwrap()
    }

    fn write(&self) -> Listing {
        self.listing(&drill::write(self.folder(), SMALL))
    }

    fn list(&self) -> Listing {
        self.listing(&drill::list(self.folder()))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }
}

/// Every file's bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        if kind.is_dir() {
            found.extend(contents(&path));
        } else if kind.is_file() {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn what_was_written_is_listed_the_same_again_and_stays() {
    let Some(volume) = Volume::new() else { return };
    let wrote = volume.write();
    let Written::Now(time) = wrote.written else { panic!("{:?}", wrote.written) };
    let found = volume.write();
    assert_eq!((found.written, &found.entries), (Written::Before(time), &wrote.entries));
    assert_eq!(volume.list(), found);
    let same = compare(&wrote, &found);
    assert_eq!((same.lost, same.noted, same.entries), (vec![], vec![], wrote.entries.len()));
    let small = wrote.entries.iter().filter(|entry| entry.name.0.starts_with(b"small/") && entry.size > 0);
    assert_eq!(small.filter(|entry| matches!(entry.what, What::Sum(_))).count(), 120);
    assert!((550_000..9_500_000).contains(&same.bytes), "{}", same.bytes);
}

#[test]
fn files_are_new_each_time_and_an_unfinished_tree_is_written_anew() {
    let Some(volume) = Volume::new() else { return };
    let first = volume.write();
    fs::write(volume.at(".begun"), "").unwrap();
    let second = volume.write();
    assert!(matches!(second.written, Written::Now(_)));
    let changed = compare(&first, &second).lost;
    let new = |change: &Change| matches!(change, Change::Content);
    let small = |name: &Name| name.0.starts_with(b"small/");
    assert!(changed.iter().filter(|one| new(&one.change) && small(&one.name)).count() >= 118, "{changed:?}");
    assert!(
        !changed.iter().any(|one| matches!(one.change, Change::Missing(_) | Change::New(_))),
        "{changed:?}"
    );
}

#[test]
fn what_a_restore_left_half_is_listed_and_not_written_over() {
    let Some(volume) = Volume::new() else { return };
    let wrote = volume.write();
    fs::remove_file(volume.at(".wrote")).unwrap();
    fs::remove_file(volume.at("odd/old")).unwrap();
    fs::create_dir(volume.at(".velero")).unwrap();
    fs::write(volume.at(".velero/5c6e"), "").unwrap();
    let found = volume.write();
    assert_eq!(found.written, Written::Unknown);
    let lost = compare(&wrote, &found).lost;
    let missing: Vec<String> = lost
        .iter()
        .filter(|one| matches!(one.change, Change::Missing(_)))
        .map(|one| one.name.to_string())
        .collect();
    assert_eq!(missing, [".wrote", "odd/old"]);
    let empty = Volume::new().unwrap();
    fs::create_dir(empty.at(".velero")).unwrap();
    fs::write(empty.at(".velero/5c6e"), "").unwrap();
    assert!(matches!(empty.write().written, Written::Now(_)));
}

#[test]
fn harm_changes_one_byte_of_one_file_and_nothing_else_and_is_seen_as_that() {
    let Some(volume) = Volume::new() else { return };
    let before = volume.write();
    let bytes = contents(&volume.data);
    let after = volume.listing(&drill::harm(volume.folder()));
    let harmed = after.harmed.clone().unwrap();
    let changed = contents(&volume.data);
    let differ: Vec<_> = bytes.iter().filter(|(path, content)| changed[*path] != **content).collect();
    let [(path, content)] = differ.as_slice() else { panic!("{} files differ", differ.len()) };
    assert_eq!(path.strip_prefix(&volume.data).unwrap().to_str().unwrap(), harmed.to_string());
    let flipped = content.iter().zip(&changed[*path]).filter(|(was, is)| was != is).count();
    assert_eq!((flipped, changed.len()), (1, bytes.len()));
    let found = compare(&before, &after);
    assert!(found.is_only_content_of(&harmed), "{}", in_words(&found.lost));
    assert!(found.noted.is_empty());
}

/// What a comparison found: what it calls a loss, and what it only notes, as name and change.
fn seen(found: &Comparison) -> (Vec<String>, Vec<String>) {
    let words = |list: &[nodeprep::judge::files::Difference]| list.iter().map(ToString::to_string).collect();
    (words(&found.lost), words(&found.noted))
}

#[test]
fn each_kind_of_harm_is_seen_as_exactly_that() {
    type Case = (fn(&Volume), &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 11] = [
        (
            |volume| {
                fs::set_permissions(volume.at("odd/mode-4755"), fs::Permissions::from_mode(0o755)).unwrap()
            },
            &["odd/mode-4755 had the mode 4755, and has 0755"],
            &[],
        ),
        (
            |volume| fs::set_permissions(volume.at("odd/setgid"), fs::Permissions::from_mode(0o775)).unwrap(),
            &["odd/setgid had the mode 2775, and has 0775"],
            &[],
        ),
        (
            |volume| chown(volume.at("odd/mode-0600"), Some(7), None).unwrap(),
            &["odd/mode-0600 belonged to 0:0, and belongs to 7:0"],
            &[],
        ),
        (
            |volume| _ = volume.sh(&format!("touch -d @2 {}/odd/old", volume.folder())).unwrap(),
            &["odd/old was last changed at 1, and now at 2 (seconds since 1970)"],
            &[],
        ),
        (
            |volume| {
                let old = fs::metadata(volume.at("odd")).unwrap().mtime();
                fs::remove_file(volume.at("odd/two\nlines")).unwrap();
                volume.sh(&format!("touch -d @{old} {}/odd", volume.folder())).unwrap();
            },
            &["file odd/two\\nlines is missing"],
            &[],
        ),
        (
            |volume| {
                fs::write(volume.at("odd/old-folder/new"), "new").unwrap();
                volume.sh(&format!("touch -d @981173106 {}/odd/old-folder", volume.folder())).unwrap();
            },
            &["file odd/old-folder/new was not there before"],
            &[],
        ),
        (
            |volume| {
                let old = fs::metadata(volume.at("odd")).unwrap().mtime();
                fs::remove_file(volume.at("odd/link")).unwrap();
                symlink("../large/2", volume.at("odd/link")).unwrap();
                volume
                    .sh(&format!(
                        "cd {}; touch -h -d @981173106 odd/link; touch -d @{old} odd",
                        volume.folder()
                    ))
                    .unwrap();
            },
            &["symlink odd/link led to ../large/1, and leads to ../large/2"],
            &[],
        ),
        (
            |volume| {
                let old = fs::metadata(volume.at("odd")).unwrap().mtime();
                volume
                    .sh(&format!(
                        "cd {}/odd; cp -p two-of-two new; mv new two-of-two; touch -d @{old} .",
                        volume.folder()
                    ))
                    .unwrap();
            },
            &[],
            &[
                "odd/one-of-two was a file of 2 names (hard links), and is one of 1",
                "odd/two-of-two was a file of 2 names (hard links), and is one of 1",
            ],
        ),
        (
            |volume| {
                let old = fs::metadata(volume.at("odd")).unwrap().mtime();
                volume.sh(&format!("cd {}/odd; cat sparse >new; touch -r sparse new; mv new sparse; touch -d @{old} .; sync", volume.folder())).unwrap();
            },
            &[],
            &["odd/sparse took 65536 bytes of the disk (it had holes), and takes 8388608"],
        ),
        (
            |volume| {
                let old = fs::metadata(volume.at("odd")).unwrap().mtime();
                volume
                    .sh(&format!(
                        "cd {}/odd; rmdir nothing; : >nothing; chmod 0755 nothing; touch -d @{old} .",
                        volume.folder()
                    ))
                    .unwrap();
            },
            &["odd/nothing was a folder, and is a file"],
            &[],
        ),
        (
            |volume| {
                volume
                    .sh(&format!("cd {}/odd; printf 'older' >old; touch -d @2 old", volume.folder()))
                    .unwrap();
            },
            &["odd/old had 4 bytes, and has 5"],
            &[],
        ),
    ];
    let Some(volume) = Volume::new() else { return };
    let mut before = volume.write();
    for (harm, lost, noted) in cases {
        harm(&volume);
        let after = volume.list();
        let found = seen(&compare(&before, &after));
        assert_eq!(
            (found.0, found.1),
            (lost.iter().map(ToString::to_string).collect(), noted.iter().map(ToString::to_string).collect())
        );
        before = after;
    }
}

#[test]
fn twenty_thousand_files_are_written_and_listed_in_seconds() {
    let Some(volume) = Volume::new() else { return };
    let (started, amount) = (Instant::now(), Amount { bytes: 64 << 20, ..Amount::FULL });
    let text = volume.sh(&drill::write(volume.folder(), amount)).unwrap();
    let wrote = started.elapsed();
    let listing: Listing = text.parse().unwrap();
    assert!(listing.entries.len() > 20_000 && text.len() < 4 << 20, "{} bytes", text.len());
    let started = Instant::now();
    let again = volume.list();
    let (listed, started) = (started.elapsed(), Instant::now());
    assert!(compare(&listing, &again).lost.is_empty());
    let compared = started.elapsed();
    // A machine that others use too has its bad moments.
    assert!(
        wrote + listed < Duration::from_secs(120) && compared < Duration::from_secs(2),
        "{wrote:?} {listed:?} {compared:?}"
    );
}

#[test]
fn a_full_or_missing_folder_is_told() {
    let Some(volume) = Volume::new() else { return };
    let gone = volume.sh(&drill::list("/nowhere/it's")).unwrap_err();
    assert!(gone.contains("can't cd to /nowhere/it's: No such file or directory"), "{gone}");
    let none = volume.sh(&drill::harm(volume.folder())).unwrap_err();
    assert!(none.contains("there is no file to harm"), "{none}");
    // A limit is what a full disk is for those who write.
    let full = volume
        .sh(&format!("ulimit -f 100\ntrap '' XFSZ\n{}", drill::write(volume.folder(), Amount::QUICK)))
        .unwrap_err();
    assert!(full.contains("dd: error writing 'large/1': File too large"), "{full}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_name_is_listed_as_it_is_whatever_is_in_it(
        names in proptest::collection::btree_set("[ -~\n\\\\é\u{1}]{1,9}|-n|\\\\041|x\n(0|f){64}  \\.|\\* ", 1..8),
        bytes in proptest::collection::vec(128_u8.., 1..4),
        target in "[ -~\n]{1,20}|' -> '|' -> 'x'//"
    ) {
        // The one text that ends an entry; the listing says that it is not understood.
        prop_assume!(!target.contains("//\n"));
        let Some(volume) = Volume::new() else { return Ok(()) };
        let mut wanted: Vec<Vec<u8>> = names.into_iter().map(String::into_bytes).collect();
        wanted.push(bytes);
        wanted.retain(|name| !name.contains(&b'/') && !matches!(name.as_slice(), b"." | b".." | b".velero"));
        for name in &wanted {
            fs::write(volume.data.join(OsStr::from_bytes(name)), name).unwrap();
        }
        symlink(&target, volume.at("a-link")).unwrap();
        wanted.extend([b".".to_vec(), b"a-link".to_vec()]);
        wanted.sort();
        wanted.dedup();
        let listing = volume.list();
        let found: Vec<Vec<u8>> = listing.entries.iter().map(|entry| entry.name.0.clone()).collect();
        prop_assert_eq!(found, wanted);
        let link = listing.entries.iter().find(|entry| entry.name.0 == b"a-link");
        prop_assert_eq!(link.map(|link| link.what.clone()), Some(What::Target(Name(target.into_bytes()))));
    }
}
