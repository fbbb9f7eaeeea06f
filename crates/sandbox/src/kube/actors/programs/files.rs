//! The script of `manifests/drill`, which writes, lists and harms a volume's files. It is known by its text, as a program
//! is by its name: what it is made of (awk, find, xargs) is not simulated. Its test holds each entry against what the
//! script does in a real shell.

use std::collections::BTreeMap;

use super::shell::{Data, Said, Shell};
use super::{place, read_only};
use crate::host::{Directory, File, FileSystem, Inode};
use crate::kube::actors::objects::digest;
use crate::model::files::{Entry, Listing, Name, What, Written};

pub(super) const SCRIPT: &str = include_str!("../../../../../../manifests/drill/files.sh");
const WROTE: &str = ".wrote";
/// The time that the script gives to old files.
const OLD: i64 = 981_173_106;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

pub(super) fn run(shell: &mut Shell<'_>, words: &[&str], said: &mut Said) -> i32 {
    let [verb, folder, words @ ..] = words else { return said.wrong("files.sh: parameter not set", 2) };
    let room = shell.system(folder).map_or(0, FileSystem::available);
    let at = place(shell.mounts, folder).map(|(place, _)| place);
    let found = at.and_then(|at| shell.host.directory(&at).cloned().map(|directory| (at, directory)));
    let Some((at, mut directory)) = found else {
        return said.wrong(&format!("files.sh: cd: can't cd to {folder}: No such file or directory"), 2);
    };
    let read_only = read_only(shell.host, &at);
    let (mut harmed, mut now) = (None, false);
    match (*verb, words) {
        ("data", [count, bytes]) if is_new(&directory) => {
            if read_only {
                return said.wrong("files.sh: can't create .begun: Read-only file system", 1);
            }
            let tree = Tree::new(shell.run.uid, shell.run.now);
            let Some(files) = tree.filled(count, bytes) else {
                return said.wrong("files.sh: arithmetic syntax error", 2);
            };
            if files.values().map(File::takes).sum::<u64>() > room {
                return said.wrong("dd: error writing 'large/1': No space left on device", 1);
            }
            directory.files.extend(files);
            now = true;
        }
        ("data", [_, _]) | ("list", []) => {}
        ("harm", []) => {
            let Some(name) = victim(&directory) else { return said.wrong("there is no file to harm", 1) };
            if read_only {
                return said.wrong(&format!("dd: can't open './{name}': Read-only file system"), 1);
            }
            if let Some(file) = directory.files.get_mut(&name) {
                (file.sha256, file.text) = (digest(&format!("another {}", file.sha256)), None);
            }
            harmed = Some(Name(name.into_bytes()));
        }
        _ => return said.wrong(&format!("files.sh: {verb} is neither data, list nor harm"), 2),
    }
    said.print(Data::Text(listing(&directory, harmed, now).to_string()));
    if let Some(kept) = shell.host.directory_mut(&at) {
        *kept = directory;
    }
    0
}

/// What a restore leaves in a volume is nobody's file.
fn is_own(name: &str) -> bool {
    !name.starts_with(".velero/")
}

fn is_new(directory: &Directory) -> bool {
    !directory.files.keys().any(|name| is_own(name))
}

/// The file of which a byte is changed: the one in the middle.
fn victim(directory: &Directory) -> Option<String> {
    let plain =
        |file: &File| file.size > 0 && file.is_file() && file.inode.is_none_or(|inode| inode.links == 1);
    let fits = |name: &str| is_own(name) && name != WROTE && !name.contains('\n');
    let names = directory.files.iter().filter(|(name, file)| fits(name) && plain(file));
    let names: Vec<&String> = names.map(|(name, _)| name).collect();
    names.get(names.len() / 2).map(|name| (*name).clone())
}

fn listing(directory: &Directory, harmed: Option<Name>, now: bool) -> Listing {
    let wrote = directory.files.get(WROTE).and_then(|file| file.text.as_deref()?.trim().parse().ok());
    let written = match wrote {
        Some(time) if now => Written::Now(time),
        Some(time) => Written::Before(time),
        None => Written::Unknown,
    };
    let root = File { inode: Some(Inode { mode: FOLDER | 0o777, ..Inode::default() }), ..File::default() };
    let root = (".".to_owned(), root);
    let own = directory.files.iter().filter(|(name, _)| is_own(name));
    let mut entries: Vec<Entry> =
        own.chain([(&root.0, &root.1)]).map(|(name, file)| entry(name, file)).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Listing { written, harmed, entries }
}

fn entry(name: &str, file: &File) -> Entry {
    let Inode { mode, uid, gid, modified, links, blocks } = file.inode.unwrap_or_else(|| plain(file.size));
    let what = match mode & 0o170_000 {
        FILE => What::Sum(sum(&file.sha256)),
        SYMLINK => What::Target(Name(file.text.clone().unwrap_or_default().into_bytes())),
        _ => What::Nothing,
    };
    let name = Name(name.as_bytes().to_vec());
    Entry { name, mode, uid, gid, size: file.size, modified, links, blocks, what }
}

fn plain(size: u64) -> Inode {
    Inode { mode: FILE | 0o644, links: 1, blocks: size.div_ceil(4096) * 8, ..Inode::default() }
}

fn sum(hex: &str) -> [u8; 32] {
    let mut sum = [0; 32];
    for (byte, place) in sum.iter_mut().zip((0..).step_by(2)) {
        *byte = hex.get(place..place + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    }
    sum
}

/// Files on their way into a volume.
struct Tree<'a> {
    files: BTreeMap<String, File>,
    /// What one pod writes no other one does.
    uid: &'a str,
    now: i64,
}

impl<'a> Tree<'a> {
    fn new(uid: &'a str, now: i64) -> Self {
        Self { files: BTreeMap::new(), uid, now }
    }

    /// None when a number is none.
    fn filled(mut self, count: &str, bytes: &str) -> Option<BTreeMap<String, File>> {
        let (count, bytes): (u64, u64) = (count.parse().ok()?, bytes.parse().ok()?);
        self.small(count);
        let large = bytes.saturating_sub(count.saturating_mul(3000)).max(8);
        self.folder("large", 0o755, (0, 0));
        for (name, part) in [("large/1", 2), ("large/2", 4), ("large/3", 8), ("large/4", 8)] {
            self.noise(name, large / part);
        }
        self.odd();
        let now = format!("{}\n", self.now);
        self.text(WROTE, &now);
        Some(self.files)
    }

    fn small(&mut self, count: u64) {
        self.folder("small", 0o755, (0, 0));
        for n in 0..count {
            if n % 100 == 0 {
                self.folder(&format!("small/{:03}", n / 100), 0o755, (0, 0));
            }
            let inode = self.noise(&format!("small/{:03}/{n}", n / 100), 1 + n * 7919 % 6000);
            match n % 10 {
                3 => (inode.uid, inode.gid) = (1000, 1000),
                5 => inode.modified = OLD,
                7 => inode.mode = FILE | 0o640,
                _ => {}
            }
        }
    }

    fn odd(&mut self) {
        for (name, mode, owner) in [
            ("odd", 0o755, (0, 0)),
            ("odd/nothing", 0o755, (0, 0)),
            ("odd/setgid", 0o2775, (1234, 5678)),
            ("odd/sticky", 0o1777, (0, 0)),
            ("odd/closed", 0o700, (0, 0)),
            ("odd/deep", 0o755, (0, 0)),
        ] {
            self.folder(name, mode, owner);
        }
        self.folder("odd/old-folder", 0o755, (0, 0)).modified = OLD;
        let mut deep = "odd/deep".to_owned();
        for level in 1..=16 {
            deep += &format!("/{level}");
            self.folder(&deep, 0o755, (0, 0));
        }
        self.text(&format!("{deep}/file"), "deep\n");
        self.text("odd/empty", "");
        self.noise("odd/sparse", 8 << 20).blocks = 128;
        self.noise("odd/one-of-two", 5000).links = 2;
        let other = self.files.get("odd/one-of-two").cloned().unwrap_or_default();
        self.files.insert("odd/two-of-two".to_owned(), other);
        self.symlink("odd/link", "../large/1").modified = OLD;
        let dangling = self.symlink("odd/dangling", "not there/at all");
        (dangling.uid, dangling.gid) = (1234, 5678);
        let names = [
            "-dash",
            "with  blanks ",
            "quotes ' and \"",
            "back\\slash",
            "star *",
            "größe-日本-🚀",
            "two\nlines",
        ];
        for name in names {
            self.text(&format!("odd/{name}"), "names\n");
        }
        for mode in [0, 0o400, 0o600, 0o755, 0o4755, 0o2755] {
            self.text(&format!("odd/mode-{mode:04o}"), &format!("{mode:04o}\n")).mode = FILE | mode;
        }
        for (uid, gid) in [(1234, 5678), (65534, 65534), (0, 1_000_660_000)] {
            let inode = self.text(&format!("odd/owner-{uid}:{gid}"), &format!("{uid}:{gid}\n"));
            (inode.uid, inode.gid) = (uid, gid);
        }
        self.text("odd/old", "old\n").modified = 1;
        self.text("odd/closed/file", "closed\n");
    }

    fn add(&mut self, name: &str, mode: u32, file: File) -> &mut Inode {
        let inode = Inode { mode, modified: self.now, ..plain(file.size) };
        let kept = self.files.entry(name.to_owned()).or_default();
        *kept = file;
        kept.inode.insert(inode)
    }

    fn folder(&mut self, name: &str, mode: u32, (uid, gid): (u32, u32)) -> &mut Inode {
        let inode = self.add(name, FOLDER | mode, File::default());
        (inode.uid, inode.gid, inode.links) = (uid, gid, 2);
        inode
    }

    fn symlink(&mut self, name: &str, target: &str) -> &mut Inode {
        let file = File { size: target.len() as u64, text: Some(target.to_owned()), ..File::default() };
        let inode = self.add(name, SYMLINK | 0o777, file);
        inode.blocks = 0;
        inode
    }

    fn text(&mut self, name: &str, text: &str) -> &mut Inode {
        let (size, sha256) = (text.len() as u64, digest(text));
        self.add(name, FILE | 0o644, File { size, sha256, text: Some(text.to_owned()), inode: None })
    }

    fn noise(&mut self, name: &str, size: u64) -> &mut Inode {
        let sha256 = digest(&format!("{size} bytes of noise of {} in {name}", self.uid));
        self.add(name, FILE | 0o644, File { size, sha256, ..File::default() })
    }
}

#[cfg(test)]
mod tests;
