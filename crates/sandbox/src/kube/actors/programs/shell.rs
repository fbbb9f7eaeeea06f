//! The shell of pods' programs, as busybox has it: what a script does with files, variables, pipes and failures. Its
//! commands are in `commands`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{Command, Does, Part, Redirect, Script, Step, What, When, Word};
use super::{Mount, Run, commands, place, read_only, script};
use crate::host::{File, FileSystem, Host, Place};
use crate::kube::actors::objects::digest;

/// The status of a shell that sleeps for ever.
pub(super) const SLEEPS: i32 = i32::MIN;

/// How long the commands take that take long.
pub(super) fn takes(work: &str) -> Duration {
    let seconds = work.split_whitespace().zip(work.split_whitespace().skip(1)).filter_map(|(word, next)| {
        let sleeps = if word == "sleep" { next } else { word.strip_prefix("--runtime=")? };
        sleeps.parse().ok()
    });
    Duration::from_secs(seconds.fold(0, u64::saturating_add))
}

/// Runs a script: what it prints, and its status.
pub(super) fn run(work: &str, host: &mut Host, mounts: &[Mount], run: Run<'_>) -> (String, i32) {
    let Some(script) = script::read(work) else { return ("sh: syntax error\n".to_owned(), 2) };
    let mut shell = Shell {
        host,
        mounts,
        run,
        scratch: BTreeMap::new(),
        variables: BTreeMap::new(),
        strict: false,
        last: 0,
        substituted: 0,
    };
    let mut said = Said::default();
    let status = match shell.script(&script, None, &mut said, false) {
        Ok(status) | Err(status) => status,
    };
    (said.0.iter().map(|(_, data)| data.text()).collect(), status)
}

/// What a file holds, or a program prints: a text, or something of which only size and checksum are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Text(String),
    Other { size: u64, sha256: String },
}

impl Data {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Other { .. } => "",
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Other { size, .. } => *size,
        }
    }

    pub(super) fn sha256(&self) -> String {
        match self {
            Self::Text(text) => digest(text),
            Self::Other { sha256, .. } => sha256.clone(),
        }
    }

    /// One after the other.
    fn joined(parts: Vec<Self>) -> Self {
        if let [one] = parts.as_slice() {
            return one.clone();
        }
        if parts.iter().all(|part| matches!(part, Self::Text(_))) {
            return Self::Text(parts.iter().map(Self::text).collect());
        }
        let sums: String = parts.iter().map(Self::sha256).collect();
        Self::Other { size: parts.iter().map(Self::size).sum(), sha256: digest(&sums) }
    }

    fn of(file: &File) -> Self {
        match &file.text {
            Some(text) => Self::Text(text.clone()),
            None => Self::Other { size: file.size, sha256: file.sha256.clone() },
        }
    }
}

/// What was printed, in its order: on which descriptor, and what.
#[derive(Debug, Default)]
pub(super) struct Said(Vec<(usize, Data)>);

impl Said {
    pub(super) fn print(&mut self, data: Data) {
        self.0.push((1, data));
    }

    /// Prints a line, and returns the status.
    pub(super) fn line(&mut self, line: &str, status: i32) -> i32 {
        self.print(Data::Text(format!("{line}\n")));
        status
    }

    /// Says on the second descriptor what went wrong, and returns the status.
    pub(super) fn wrong(&mut self, line: &str, status: i32) -> i32 {
        self.0.push((2, Data::Text(format!("{line}\n"))));
        status
    }

    /// Takes what was printed on the first descriptor; the rest is said there.
    fn split(self, there: &mut Self) -> Data {
        let (printed, wrong) = self.0.into_iter().partition(|(fd, _)| *fd == 1);
        let printed: Vec<(usize, Data)> = printed;
        there.0.extend::<Vec<_>>(wrong);
        Data::joined(printed.into_iter().map(|(_, data)| data).collect())
    }
}

/// A shell at work.
pub(super) struct Shell<'a> {
    pub(super) host: &'a mut Host,
    pub(super) mounts: &'a [Mount],
    pub(super) run: Run<'a>,
    /// The files of the pod's own space.
    scratch: BTreeMap<String, Data>,
    variables: BTreeMap<String, String>,
    /// The first failure ends it (`set -e`).
    pub(super) strict: bool,
    /// The status of the last step, and of what was last put in place.
    last: i32,
    substituted: i32,
}

/// Why a file can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    NoDirectory,
    ReadOnly,
    /// So many bytes were written.
    NoSpace(u64),
}

/// A status; the error ends the shell.
pub(super) type Flow = Result<i32, i32>;

/// Where a descriptor goes: to another, or into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Fd(usize),
    File(String),
}

impl Shell<'_> {
    /// A failure ends nothing where it is `looked_at`.
    fn script(&mut self, script: &Script, input: Option<&Data>, said: &mut Said, looked_at: bool) -> Flow {
        let mut status = 0;
        for (place, step) in script.iter().enumerate() {
            let due = match step.when {
                When::Always => true,
                When::Success => status == 0,
                When::Failure => status != 0,
            };
            if due {
                let goes_on = script.get(place + 1).is_some_and(|next| next.when != When::Always);
                status = self.step(step, input, said, looked_at || step.not || goes_on)?;
            }
        }
        Ok(status)
    }

    fn step(&mut self, step: &Step, input: Option<&Data>, said: &mut Said, looked_at: bool) -> Flow {
        let status = self.pipe(&step.pipe, input, said, looked_at)?;
        self.last = if step.not { i32::from(status == 0) } else { status };
        if self.last != 0 && self.strict && !looked_at { Err(self.last) } else { Ok(self.last) }
    }

    fn pipe(&mut self, pipe: &[Command], input: Option<&Data>, said: &mut Said, looked_at: bool) -> Flow {
        let Some((last, before)) = pipe.split_last() else { return Ok(0) };
        if before.is_empty() {
            return self.command(last, input, said, looked_at);
        }
        let mut input = input.cloned();
        for command in before {
            let mut own = Said::default();
            self.apart(|shell| shell.command(command, input.as_ref(), &mut own, looked_at));
            input = Some(own.split(said));
        }
        Ok(self.apart(|shell| shell.command(last, input.as_ref(), said, looked_at)))
    }

    /// In a shell of its own, whose end is not that of this one.
    fn apart(&mut self, run: impl FnOnce(&mut Self) -> Flow) -> i32 {
        let kept = (self.variables.clone(), self.strict);
        let status = match run(self) {
            Ok(status) | Err(status) => status,
        };
        (self.variables, self.strict) = kept;
        status
    }

    fn command(&mut self, command: &Command, input: Option<&Data>, said: &mut Said, looked_at: bool) -> Flow {
        if command.redirects.is_empty() {
            return self.does(&command.does, input, said, looked_at);
        }
        let mut targets = [Target::Fd(1), Target::Fd(2)];
        let mut input = input.cloned();
        for redirect in &command.redirects {
            match redirect {
                Redirect::From(path) => {
                    let path = self.one(path, said)?;
                    let Some(data) = self.read(&path) else {
                        return Ok(said.wrong(&format!("sh: can't open {path}: no such file"), 1));
                    };
                    input = Some(data);
                }
                Redirect::To { fd, path, append } => {
                    let path = self.one(path, said)?;
                    let begun = self.read(&path).filter(|_| *append).unwrap_or(Data::Text(String::new()));
                    if let Err(fault) = self.write(&path, begun) {
                        return Ok(said.wrong(&format!("sh: can't create {path}: {}", why(fault)), 1));
                    }
                    targets[fd - 1] = Target::File(path);
                }
                Redirect::Like { fd, other } => targets[fd - 1] = targets[other - 1].clone(),
            }
        }
        let mut own = Said::default();
        let ended = self.does(&command.does, input.as_ref(), &mut own, looked_at);
        let mut files: BTreeMap<String, Vec<Data>> = BTreeMap::new();
        for (fd, data) in own.0 {
            match &targets[fd - 1] {
                Target::Fd(to) => said.0.push((*to, data)),
                Target::File(path) => files.entry(path.clone()).or_default().push(data),
            }
        }
        for (path, mut parts) in files {
            parts.splice(0..0, self.read(&path).filter(|begun| begun.size() > 0));
            if self.write(&path, Data::joined(parts)).is_err() {
                return Ok(said.wrong("sh: write error: No space left on device", 1));
            }
        }
        ended
    }

    fn does(&mut self, does: &Does, input: Option<&Data>, said: &mut Said, looked_at: bool) -> Flow {
        match does {
            Does::Group(script) => Ok(self.apart(|shell| shell.script(script, input, said, looked_at))),
            Does::If { condition, then, otherwise } => {
                let holds = self.script(condition, input, said, true)? == 0;
                self.script(if holds { then } else { otherwise }, input, said, looked_at)
            }
            Does::Simple { sets, words } => {
                self.substituted = 0;
                for (name, value) in sets {
                    let value = self.one(value, said)?;
                    self.variables.insert(name.clone(), value);
                }
                let mut expanded = Vec::new();
                for word in words {
                    self.expand(word, &mut expanded, said)?;
                }
                let words: Vec<&str> = expanded.iter().map(String::as_str).collect();
                if words.is_empty() { Ok(self.substituted) } else { commands::run(self, &words, input, said) }
            }
        }
    }

    /// The words that a word becomes: what is not quoted is split at blanks.
    fn expand(&mut self, word: &Word, words: &mut Vec<String>, said: &mut Said) -> Result<(), i32> {
        let mut open = false;
        let add = |text: &str, words: &mut Vec<String>, open: &mut bool| match words.last_mut() {
            Some(last) if *open => last.push_str(text),
            _ => {
                words.push(text.to_owned());
                *open = true;
            }
        };
        for part in word {
            let text = self.value(part, said)?;
            if part.quoted || matches!(part.what, What::Text(_)) {
                add(&text, words, &mut open);
                continue;
            }
            open &= !text.starts_with(char::is_whitespace);
            for (place, piece) in text.split_whitespace().enumerate() {
                open &= place == 0;
                add(piece, words, &mut open);
            }
            open &= !text.ends_with(char::is_whitespace);
        }
        Ok(())
    }

    /// A word that stays one.
    fn one(&mut self, word: &Word, said: &mut Said) -> Result<String, i32> {
        word.iter().map(|part| self.value(part, said)).collect()
    }

    fn value(&mut self, part: &Part, said: &mut Said) -> Result<String, i32> {
        Ok(match &part.what {
            What::Text(text) => text.clone(),
            What::Variable { name, .. } if name == "?" => self.last.to_string(),
            What::Variable { name, cut } => {
                let value = self.variables.get(name).map_or("", String::as_str);
                let short = cut.as_ref().and_then(|cut| match cut.strip_suffix('*') {
                    Some(begin) => value.split_once(begin).map(|(short, _)| short),
                    None => value.strip_suffix(cut.as_str()),
                });
                short.unwrap_or(value).to_owned()
            }
            What::Output(script) => {
                let mut own = Said::default();
                self.substituted = self.apart(|shell| shell.script(script, None, &mut own, false));
                own.split(said).text().trim_end_matches('\n').to_owned()
            }
            What::Number(word) => match self.one(word, said)?.trim().parse::<i64>() {
                Ok(number) => number.to_string(),
                Err(_) => return Err(said.wrong("sh: arithmetic syntax error", 2)),
            },
        })
    }

    pub(super) fn read(&self, path: &str) -> Option<Data> {
        match path {
            "/dev/null" => return Some(Data::Text(String::new())),
            "/proc/self/mountinfo" => return Some(Data::Text(commands::mountinfo(self))),
            _ => {}
        }
        let (place, scratch) = place(self.mounts, path)?;
        if scratch {
            return self.scratch.get(path).cloned();
        }
        let (directory, name) = parent(&place)?;
        self.host.directory(&directory)?.files.get(name).map(Data::of)
    }

    /// Writes a file over the one that existed.
    pub(super) fn write(&mut self, path: &str, data: Data) -> Result<(), Fault> {
        if path == "/dev/null" {
            return Ok(());
        }
        let (place, scratch) = place(self.mounts, path).ok_or(Fault::ReadOnly)?;
        if scratch {
            self.scratch.insert(path.to_owned(), data);
            return Ok(());
        }
        if read_only(self.host, &place) {
            return Err(Fault::ReadOnly);
        }
        let (directory, name) = parent(&place).ok_or(Fault::NoDirectory)?;
        self.host.directory_mut(&directory).ok_or(Fault::NoDirectory)?.files.remove(name);
        let room = self.system(path).map_or(0, FileSystem::available);
        let (size, sha256) = (data.size().min(room), data.sha256());
        let full = room < data.size();
        let text = match data {
            Data::Text(text) if !full => Some(text),
            _ => None,
        };
        if let Some(directory) = self.host.directory_mut(&directory) {
            directory.files.insert(name.to_owned(), File { size, sha256, text, inode: None });
        }
        if full { Err(Fault::NoSpace(size)) } else { Ok(()) }
    }

    /// The file system that a path lies on.
    pub(super) fn system(&self, path: &str) -> Option<&FileSystem> {
        let (place, _) = place(self.mounts, path)?;
        self.host.mounts.get(&place.mount)
    }
}

const fn why(fault: Fault) -> &'static str {
    match fault {
        Fault::NoDirectory => "nonexistent directory",
        Fault::ReadOnly => "Read-only file system",
        Fault::NoSpace(_) => "No space left on device",
    }
}

/// The directory that a file lies in, and its name there.
fn parent(place: &Place) -> Option<(Place, &str)> {
    let (root, name) = place.root.rsplit_once('/')?;
    let root = if root.is_empty() { "/" } else { root };
    Some((Place { root: root.to_owned(), ..place.clone() }, name))
}

#[cfg(test)]
mod tests;
