//! Whether a volume's files came back as they were: two listings, entry by entry.
//!
//! What Velero 1.18's uploader keeps (kopia 0.22, `snapshot/upload/upload.go` and `snapshot/restore/local_fs_output.go`): content,
//! owner, permissions with setuid, setgid and sticky, the time of the last change of files and symlinks, a symlink's target. A folder
//! gets the time of the newest entry in it (`snapshot/snapshotfs/repofs.go`). It keeps no hard links, no named pipes, sockets and devices, no holes (unless the restore asks for `writeSparseFiles`), and no
//! extended attributes, which are not listed. Owners and permissions that it was not allowed to set it leaves out without a
//! word. The volume's own folder has another time afterwards, since the restore's mark is written there.

use std::cmp::Ordering;
use std::fmt::{self, Display};

use crate::error::first;
use crate::model::files::{Entry, Listing, Name, Type, What};

/// Of so many differences each is told; the others are counted.
const TOLD: usize = 10;
/// Smaller files have no holes that would be worth a word.
const HOLES: u64 = 1 << 16;

/// What became of a volume's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Entries that were there before, files among them, and the bytes in these.
    pub entries: usize,
    pub files: usize,
    pub bytes: u64,
    /// What should have come back otherwise.
    pub lost: Vec<Difference>,
    /// What Velero is known not to keep.
    pub noted: Vec<Difference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub name: Name,
    pub change: Change,
}

/// What it was, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Missing(Type),
    New(Type),
    Type(Type, Type),
    /// Of the same size.
    Content,
    Size(u64, u64),
    Target(Name, Name),
    Permissions(u32, u32),
    Owner((u32, u32), (u32, u32)),
    Modified(i64, i64),
    /// The same of a folder.
    FolderModified(i64, i64),
    /// How many names the file has.
    Links(u64, u64),
    /// Bytes on the disk: it had holes, and has none.
    Holes(u64, u64),
}

/// Compares what is there with what was there before.
pub fn compare(before: &Listing, after: &Listing) -> Comparison {
    let files = || before.entries.iter().filter(|entry| entry.kind() == Type::File);
    let mut found = Comparison {
        entries: before.entries.len(),
        files: files().count(),
        bytes: files().fold(0, |sum, file| sum.saturating_add(file.size)),
        lost: Vec::new(),
        noted: Vec::new(),
    };
    let (mut before, mut after) = (before.entries.iter().peekable(), after.entries.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(was), Some(is)) => was.name.cmp(&is.name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let was = before.next_if(|_| order.is_le());
        let is = after.next_if(|_| order.is_ge());
        match (was, is) {
            (Some(was), Some(is)) => changes(was, is, &mut |change| found.add(&is.name, change)),
            (Some(was), None) => found.add(&was.name, Change::Missing(was.kind())),
            (None, Some(is)) => found.add(&is.name, Change::New(is.kind())),
            (None, None) => return found,
        }
    }
}

/// What of an entry is not as it was.
fn changes(was: &Entry, is: &Entry, add: &mut impl FnMut(Change)) {
    if was.kind() != is.kind() {
        return add(Change::Type(was.kind(), is.kind()));
    }
    match (&was.what, &is.what) {
        (What::Target(before), What::Target(after)) if before != after => {
            add(Change::Target(before.clone(), after.clone()));
        }
        (What::Sum(_), What::Sum(_)) if was.size != is.size => add(Change::Size(was.size, is.size)),
        (What::Sum(before), What::Sum(after)) if before != after => add(Change::Content),
        _ => {}
    }
    if was.kind() != Type::Symlink && was.permissions() != is.permissions() {
        add(Change::Permissions(was.permissions(), is.permissions()));
    }
    if (was.uid, was.gid) != (is.uid, is.gid) {
        add(Change::Owner((was.uid, was.gid), (is.uid, is.gid)));
    }
    if was.modified != is.modified && !was.is_root() {
        let change = if was.kind() == Type::Directory { Change::FolderModified } else { Change::Modified };
        add(change(was.modified, is.modified));
    }
    if was.kind() == Type::File {
        if was.links != is.links {
            add(Change::Links(was.links, is.links));
        }
        let on_disk = |entry: &Entry| entry.blocks.saturating_mul(512);
        // A file system may pack or preallocate what it likes; that half of a file is not there is no chance.
        let half = |entry: &Entry| on_disk(entry) <= entry.size / 2;
        if was.size == is.size && was.size >= HOLES && half(was) && !half(is) {
            add(Change::Holes(on_disk(was), on_disk(is)));
        }
    }
}

impl Comparison {
    fn add(&mut self, name: &Name, change: Change) {
        let list = if change.is_loss() { &mut self.lost } else { &mut self.noted };
        list.push(Difference { name: name.clone(), change });
    }

    /// Whether this file's content was lost, and nothing else: what a comparison must see of harm.
    pub fn is_only_content_of(&self, name: &Name) -> bool {
        let content =
            |difference: &Difference| difference.name == *name && difference.change == Change::Content;
        matches!(self.lost.as_slice(), [one] if content(one))
    }
}

impl Change {
    /// Whether Velero keeps it, so that it should have come back.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Missing(kind) => *kind != Type::Special,
            Self::Links(before, after) => after > before,
            Self::Holes(..) | Self::FolderModified(..) => false,
            _ => true,
        }
    }
}

/// Differences in words: the first ones, and how many more there are.
pub fn in_words(differences: &[Difference]) -> String {
    first(differences.iter().map(Difference::to_string), TOLD)
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.change {
            Change::Missing(kind) => write!(f, "{} {name} is missing", kind.word()),
            Change::New(kind) => write!(f, "{} {name} was not there before", kind.word()),
            Change::Type(before, after) => {
                write!(f, "{name} was a {}, and is a {}", before.word(), after.word())
            }
            Change::Content => write!(f, "{name} has other content, of the same size"),
            Change::Size(before, after) => write!(f, "{name} had {before} bytes, and has {after}"),
            Change::Target(before, after) => {
                write!(f, "symlink {name} led to {before}, and leads to {after}")
            }
            Change::Permissions(before, after) => {
                write!(f, "{name} had the mode {before:04o}, and has {after:04o}")
            }
            Change::Owner(before, after) => write!(
                f,
                "{name} belonged to {}:{}, and belongs to {}:{}",
                before.0, before.1, after.0, after.1
            ),
            Change::Modified(before, after) | Change::FolderModified(before, after) => {
                write!(f, "{name} was last changed at {before}, and now at {after} (seconds since 1970)")
            }
            Change::Links(before, after) => {
                write!(f, "{name} was a file of {before} names (hard links), and is one of {after}")
            }
            Change::Holes(before, after) => {
                write!(f, "{name} took {before} bytes of the disk (it had holes), and takes {after}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::files::Written;

    fn entry(name: &str, mode: u32, what: What) -> Entry {
        let name = Name(name.as_bytes().to_vec());
        Entry { name, mode, uid: 0, gid: 0, size: 1 << 20, modified: 7, links: 1, blocks: 2048, what }
    }

    fn listing(entries: Vec<Entry>) -> Listing {
        Listing { written: Written::Now(7), harmed: None, entries }
    }

    fn tree() -> Listing {
        let target = What::Target(Name(b"file".to_vec()));
        listing(vec![
            entry(".", 0o040_777, What::Nothing),
            entry("file", 0o100_644, What::Sum([1; 32])),
            entry("folder", 0o042_775, What::Nothing),
            entry("link", 0o120_777, target),
            entry("pipe", 0o010_644, What::Nothing),
            Entry { blocks: 0, ..entry("sparse", 0o100_644, What::Sum([2; 32])) },
            Entry { links: 2, ..entry("two", 0o104_755, What::Sum([3; 32])) },
        ])
    }

    /// The differences after a change of one entry, and whether they are losses.
    fn after(place: usize, change: fn(&mut Entry)) -> Vec<(String, bool)> {
        let mut changed = tree();
        change(&mut changed.entries[place]);
        let found = compare(&tree(), &changed);
        let words =
            |list: &[Difference], lost| list.iter().map(|one| (one.to_string(), lost)).collect::<Vec<_>>();
        [words(&found.lost, true), words(&found.noted, false)].concat()
    }

    #[test]
    fn each_change_is_seen_as_what_it_is() {
        type Case = (usize, fn(&mut Entry), &'static [(&'static str, bool)]);
        let cases: [Case; 15] = [
            (1, |e| e.what = What::Sum([9; 32]), &[("file has other content, of the same size", true)]),
            (
                1,
                |e| (e.what, e.size) = (What::Sum([9; 32]), 5),
                &[("file had 1048576 bytes, and has 5", true)],
            ),
            (1, |e| e.mode = 0o100_600, &[("file had the mode 0644, and has 0600", true)]),
            (6, |e| e.mode = 0o100_755, &[("two had the mode 4755, and has 0755", true)]),
            (2, |e| e.gid = 5, &[("folder belonged to 0:0, and belongs to 0:5", true)]),
            (
                2,
                |e| e.modified = 8,
                &[("folder was last changed at 7, and now at 8 (seconds since 1970)", false)],
            ),
            (
                3,
                |e| e.what = What::Target(Name(b"x".to_vec())),
                &[("symlink link led to file, and leads to x", true)],
            ),
            (3, |e| e.mode = 0o120_700, &[]),
            (
                1,
                |e| (e.mode, e.what) = (0o040_644, What::Nothing),
                &[("file was a file, and is a folder", true)],
            ),
            (6, |e| e.links = 1, &[("two was a file of 2 names (hard links), and is one of 1", false)]),
            (1, |e| e.links = 2, &[("file was a file of 1 names (hard links), and is one of 2", true)]),
            (
                5,
                |e| e.blocks = 2048,
                &[("sparse took 0 bytes of the disk (it had holes), and takes 1048576", false)],
            ),
            // What a folder takes is the file system's business, and what the volume's folder says of its time the restore's.
            (2, |e| (e.size, e.blocks, e.links) = (6, 0, 9), &[]),
            (0, |e| e.modified = 8, &[]),
            (0, |e| e.mode = 0o040_755, &[(". had the mode 0777, and has 0755", true)]),
        ];
        for (place, change, wanted) in cases {
            let found = after(place, change);
            let found: Vec<(&str, bool)> =
                found.iter().map(|(words, lost)| (words.as_str(), *lost)).collect();
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn what_is_gone_and_what_came_is_told_and_a_pipe_is_only_noted() {
        let mut less = tree();
        less.entries.retain(|entry| !matches!(entry.name.0.as_slice(), b"file" | b"pipe"));
        let found = compare(&tree(), &less);
        assert_eq!(
            (in_words(&found.lost).as_str(), in_words(&found.noted).as_str()),
            ("file file is missing", "special file pipe is missing")
        );
        assert_eq!((found.entries, found.files, found.bytes), (7, 3, 3 << 20));
        let back = compare(&less, &tree());
        assert_eq!(
            in_words(&back.lost),
            "file file was not there before; special file pipe was not there before"
        );
    }

    #[test]
    fn only_the_harm_that_was_done_is_the_harm_that_is_seen() {
        let file = Name(b"file".to_vec());
        let mut harmed = tree();
        assert!(!compare(&tree(), &harmed).is_only_content_of(&file));
        harmed.entries[1].what = What::Sum([9; 32]);
        assert!(compare(&tree(), &harmed).is_only_content_of(&file));
        assert!(!compare(&tree(), &harmed).is_only_content_of(&Name(b"two".to_vec())));
        harmed.entries[6].uid = 1;
        assert!(!compare(&tree(), &harmed).is_only_content_of(&file));
    }

    #[test]
    fn many_differences_are_counted() {
        let many = (10..30).map(|place| entry(&place.to_string(), 0o100_644, What::Sum([0; 32]))).collect();
        let words = in_words(&compare(&listing(many), &listing(Vec::new())).lost);
        assert!(
            words.starts_with("file 10 is missing; file 11")
                && words.ends_with("file 19 is missing; and 10 more"),
            "{words}"
        );
    }

    proptest! {
        #[test]
        fn names_that_are_in_one_listing_alone_are_all_told(which in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..40)) {
            let of = |side: fn(&(bool, bool)) -> bool| {
                let entries = which.iter().enumerate().filter(|(_, on)| side(on));
                listing(entries.map(|(place, _)| entry(&format!("{place:02}"), 0o100_644, What::Sum([0; 32]))).collect())
            };
            let (before, after) = (of(|on| on.0), of(|on| on.1));
            let found = compare(&before, &after);
            prop_assert_eq!(found.lost.len(), which.iter().filter(|(before, after)| before != after).count());
            prop_assert_eq!(compare(&before, &before).lost, []);
        }
    }
}
