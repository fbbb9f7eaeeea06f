//! The few shell commands that nodeprep's probes are made of, each as busybox does it. Files have a size and a made-up
//! checksum, no content.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Mount, fio, place, read_only};
use crate::host::{File, FileSystem, Host, Place};
use crate::kube::actors::objects::digest;

/// How long the commands take that take long.
pub(super) fn takes(work: &str) -> Duration {
    let seconds = work.split_whitespace().zip(work.split_whitespace().skip(1)).filter_map(|(word, next)| {
        let sleeps = if word == "sleep" { next } else { word.strip_prefix("--runtime=")? };
        sleeps.parse().ok()
    });
    Duration::from_secs(seconds.fold(0, u64::saturating_add))
}

/// Runs the lines until the first that fails: what they print, and the status.
pub(super) fn run(work: &str, host: &mut Host, mounts: &[Mount], uid: &str) -> (String, i32) {
    let (variables, scratch) = (BTreeMap::new(), BTreeMap::new());
    let mut shell = Shell { host, mounts, uid, variables, scratch, output: String::new() };
    let lines: Vec<&str> = work.lines().collect();
    let status = shell.lines(&lines).err().unwrap_or(0);
    (shell.output, status)
}

/// The commands of a pod at work.
pub(super) struct Shell<'a> {
    pub(super) host: &'a mut Host,
    mounts: &'a [Mount],
    pub(super) uid: &'a str,
    pub(super) output: String,
    variables: BTreeMap<String, String>,
    /// The files of the pod's own space.
    scratch: BTreeMap<String, File>,
}

/// Why a file can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    NoDirectory,
    ReadOnly,
    /// So many bytes were written.
    NoSpace(u64),
}

/// Done, or the status that ends the script.
type Flow = Result<(), i32>;

impl Shell<'_> {
    fn lines(&mut self, lines: &[&str]) -> Flow {
        let mut lines = lines.iter().map(|line| line.trim());
        while let Some(line) = lines.next() {
            if let Some(tried) = line.strip_prefix("if ! ").and_then(|line| line.strip_suffix("; then")) {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "fi").collect();
                if self.command(tried)? != 0 {
                    self.lines(&body)?;
                }
                continue;
            }
            let choice = line.strip_prefix("if ").and_then(|line| line.strip_suffix("; fi"));
            if let Some((condition, body)) = choice.and_then(|line| line.split_once("; then ")) {
                if self.command(condition)? == 0 {
                    let body: Vec<&str> = body.split("; ").collect();
                    self.lines(&body)?;
                }
                continue;
            }
            let status = if line.is_empty() { 0 } else { self.command(line)? };
            if status != 0 {
                return Err(status);
            }
        }
        Ok(())
    }

    /// One command's status; the error ends the script.
    fn command(&mut self, line: &str) -> Result<i32, i32> {
        if let Some((name, command)) = line.split_once("=$(").filter(|(name, _)| !name.contains(' ')) {
            return Ok(self.assign(name, command.trim_end_matches(')')));
        }
        let line = self.expand(line);
        let words = words(&line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["true"] | ["sleep", _] => 0,
            ["exit", status] => return Err(status.parse().unwrap_or(2)),
            ["[", a, "-lt", b, "]"] => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => i32::from(a >= b),
                _ => self.say(&format!("sh: {a}: bad number"), 2),
            },
            ["echo", said @ ..] => self.say(&said.join(" "), 0),
            ["head", "-c", size, "/dev/urandom", to] => self.noise(size, to),
            ["dd", pairs @ ..] => self.dd(pairs),
            ["cat", "/proc/self/mountinfo"] => {
                let info = self.mountinfo();
                self.output.push_str(&info);
                0
            }
            ["cat", from] => self.cat(from, None),
            ["cat", from, to] => self.cat(from, Some(to)),
            ["ls", "-la", path] => self.ls(path),
            ["fio", options @ ..] => fio::run(self, options),
            [word, ..] => self.say(&format!("sh: {word}: not found (simulated)"), 127),
            [] => 0,
        })
    }

    /// Prints a line, and returns the status.
    pub(super) fn say(&mut self, line: &str, status: i32) -> i32 {
        self.output.push_str(line);
        self.output.push('\n');
        status
    }

    /// `name=$(command)`.
    fn assign(&mut self, name: &str, command: &str) -> i32 {
        let value = if let Some(path) = command.strip_prefix("sha256sum <") {
            match self.read(path) {
                Some(file) => format!("{}  -", file.sha256),
                None => return self.say(&format!("sh: can't open {path}: no such file"), 1),
            }
        } else if let Some(path) = command.strip_prefix("df -Pk ").and_then(|rest| rest.strip_suffix(FOURTH))
        {
            let found = place(self.mounts, path).and_then(|(place, _)| self.host.mounts.get(&place.mount));
            match found {
                Some(system) => (system.available() / 1024).to_string(),
                None => return self.say(&format!("df: {path}: can't find mount point"), 1),
            }
        } else {
            let word = command.split(' ').next().unwrap_or_default();
            return self.say(&format!("sh: {word}: not found (simulated)"), 127);
        };
        self.variables.insert(name.to_owned(), value);
        0
    }

    /// `$name`, `${name}` and `${name%% *}` as their values.
    fn expand(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (name, value) in self.variables.iter().rev() {
            let first = value.split(' ').next().unwrap_or_default();
            line = line
                .replace(&format!("${{{name}%% *}}"), first)
                .replace(&format!("${{{name}}}"), value)
                .replace(&format!("${name}"), value);
        }
        line
    }

    fn noise(&mut self, size: &str, to: &str) -> i32 {
        let Ok(size) = size.parse() else { return self.say(&format!("head: invalid number '{size}'"), 1) };
        let file = File { size, sha256: digest(&format!("noise of {}", self.uid)) };
        self.redirect(to, file)
    }

    fn cat(&mut self, from: &str, to: Option<&str>) -> i32 {
        let Some(file) = self.read(from).cloned() else {
            return self.say(&format!("cat: can't open '{from}': No such file or directory"), 1);
        };
        to.map_or(0, |to| self.redirect(to, file))
    }

    /// Writes to where `>/path` says.
    fn redirect(&mut self, to: &str, file: File) -> i32 {
        let path = to.trim_start_matches('>');
        match self.write(path, file) {
            Ok(()) => 0,
            Err(Fault::NoDirectory) => {
                self.say(&format!("sh: can't create {path}: nonexistent directory"), 1)
            }
            Err(Fault::ReadOnly) => self.say(&format!("sh: can't create {path}: Read-only file system"), 1),
            Err(Fault::NoSpace(_)) => self.say("cat: write error: No space left on device", 1),
        }
    }

    fn dd(&mut self, pairs: &[&str]) -> i32 {
        let pairs: BTreeMap<&str, &str> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
        let get = |key: &str| pairs.get(key).copied().unwrap_or_default();
        let (from, to, block) = (get("if"), get("of"), get("bs").parse().unwrap_or(512).max(1));
        let Some(file) = self.read(from).cloned() else {
            return self.say(&format!("dd: can't open '{from}': No such file or directory"), 1);
        };
        if get("iflag") == "direct" && self.in_memory(from) {
            return self.say(&format!("dd: can't open '{from}': Invalid argument"), 1);
        }
        let size = file.size;
        match self.write(to, file) {
            Ok(()) => {
                let records = format!("{}+{}", size / block, u8::from(size % block > 0));
                let speed = format!(
                    "{size} bytes ({}) copied, 0.004000 seconds, {}/s",
                    short(size),
                    short(size.saturating_mul(250))
                );
                self.say(&format!("{records} records in\n{records} records out\n{speed}"), 0)
            }
            Err(Fault::NoSpace(written)) => {
                let done = written / block;
                let records = format!("{}+0 records in\n{done}+0 records out", done + 1);
                self.say(&format!("dd: error writing '{to}': No space left on device\n{records}"), 1)
            }
            Err(Fault::ReadOnly) => self.say(&format!("dd: can't open '{to}': Read-only file system"), 1),
            Err(Fault::NoDirectory) => {
                self.say(&format!("dd: can't open '{to}': No such file or directory"), 1)
            }
        }
    }

    fn in_memory(&self, path: &str) -> bool {
        let system = place(self.mounts, path).and_then(|(place, _)| self.host.mounts.get(&place.mount));
        system.is_some_and(|system| matches!(system.kind.as_str(), "tmpfs" | "ramfs"))
    }

    fn ls(&mut self, path: &str) -> i32 {
        let directory = place(self.mounts, path).and_then(|(place, _)| self.host.directory(&place));
        let Some(directory) = directory else {
            return self.say(&format!("ls: {path}: No such file or directory"), 1);
        };
        let row = |mode: &str, links: u8, size: u64, name: &str| {
            format!("{mode}    {links} 65534    65534    {size:>9} Jan  1 00:00 {name}\n")
        };
        let blocks: u64 = directory.files.values().map(|file| file.size.div_ceil(4096) * 4).sum();
        let mut said = format!("total {blocks}\n");
        said += &(row("drwxrwsrwx", 2, 19, ".") + &row("drwxr-xr-x", 1, 4096, ".."));
        for (name, file) in &directory.files {
            said += &row("-rw-r--r--", 1, file.size, name);
        }
        self.output.push_str(&said);
        0
    }

    /// The container's mounts, as the kernel tells them.
    fn mountinfo(&self) -> String {
        let mut text = String::from(
            "1201 1130 0:231 / / ro,relatime - overlay overlay rw,lowerdir=/var/lib/containerd\n\
             1202 1201 0:233 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
             1203 1201 0:234 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n",
        );
        for (mount, id) in self.mounts.iter().zip(1210..) {
            let Some(system) = self.host.mounts.get(&mount.place.mount) else { continue };
            let gone =
                !mount.scratch && mount.place.root != "/" && self.host.directory(&mount.place).is_none();
            let within = match mount.place.root.as_str() {
                "/" if !system.root.is_empty() => "",
                root => root,
            };
            let root =
                format!("{}{}{}", escape(&system.root), escape(within), if gone { "//deleted" } else { "" });
            let options =
                if system.options.is_empty() { "rw,relatime".to_owned() } else { system.options.join(",") };
            let options = match options.strip_prefix("rw") {
                Some(rest) if mount.place.read_only => format!("ro{rest}"),
                _ => options,
            };
            let device = self.host.mounts.keys().position(|point| *point == mount.place.mount).unwrap_or(0);
            let (point, kind, source) = (escape(&mount.point), &system.kind, escape(&system.source));
            let write = if system.options.iter().any(|option| option == "ro") { "ro" } else { "rw" };
            let more = if kind == "xfs" { ",attr2,inode64,logbufs=8,logbsize=32k,noquota" } else { "" };
            let _ = writeln!(
                text,
                "{id} 1201 259:{device} {root} {point} {options} - {kind} {source} {write}{more}"
            );
        }
        text
    }

    pub(super) fn read(&self, path: &str) -> Option<&File> {
        let (place, scratch) = place(self.mounts, path)?;
        if scratch {
            return self.scratch.get(path);
        }
        let (directory, name) = parent(&place)?;
        self.host.directory(&directory)?.files.get(name)
    }

    /// Writes a file over the one that was there.
    pub(super) fn write(&mut self, path: &str, file: File) -> Result<(), Fault> {
        let (place, scratch) = place(self.mounts, path).ok_or(Fault::ReadOnly)?;
        if scratch {
            self.scratch.insert(path.to_owned(), file);
            return Ok(());
        }
        if read_only(self.host, &place) {
            return Err(Fault::ReadOnly);
        }
        let (directory, name) = parent(&place).ok_or(Fault::NoDirectory)?;
        self.host.directory_mut(&directory).ok_or(Fault::NoDirectory)?.files.remove(name);
        let room = self.host.mounts.get(&place.mount).map_or(0, |system| system.available());
        let written = File { size: file.size.min(room), ..file };
        let (full, size) = (room < file.size, written.size);
        if let Some(directory) = self.host.directory_mut(&directory) {
            directory.files.insert(name.to_owned(), written);
        }
        if full { Err(Fault::NoSpace(size)) } else { Ok(()) }
    }

    /// The file system that a path lies on.
    pub(super) fn system(&self, path: &str) -> Option<&FileSystem> {
        let (place, _) = place(self.mounts, path)?;
        self.host.mounts.get(&place.mount)
    }
}

/// The fourth field of the last line.
const FOURTH: &str = " | tail -n 1 | tr -s ' ' | cut -d' ' -f4";

/// The directory that a file lies in, and its name there.
fn parent(place: &Place) -> Option<(Place, &str)> {
    let (root, name) = place.root.rsplit_once('/')?;
    let root = if root.is_empty() { "/" } else { root };
    Some((Place { root: root.to_owned(), ..place.clone() }, name))
}

/// A number of bytes as busybox shortens it.
fn short(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}MB", tenths / 10, tenths % 10)
}

/// As the kernel writes blanks in mountinfo.
fn escape(text: &str) -> String {
    text.replace('\\', "\\134").replace(' ', "\\040")
}

/// The words of a line, without their quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(letter), true),
            (None, ' ') => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
