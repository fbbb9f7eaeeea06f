//! The write-ahead journal: what a run is about to do is on disk before it is done.
//!
//! One JSON object a line, in the run's folder, mode 0600, synced after each line. It holds ids, titles and digests, and no
//! secret: neither configs nor objects are written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config_doc;
use crate::error::{Error, Result};
use crate::plan::{SavedStep, Target};
use crate::state::{Lines, now};

/// The journal's format; a reader refuses a newer one.
pub(super) const VERSION: u32 = 4;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    Begin {
        version: u32,
        at: String,
        verb: String,
        cluster: String,
        pid: u32,
        plan: String,
        steps: Vec<PlannedStep>,
    },
    Started {
        at: String,
        id: String,
    },
    Done {
        at: String,
        id: String,
        changed: bool,
    },
    Failed {
        at: String,
        id: String,
        error: String,
    },
    /// What a step leaves for later ones, and for the run that goes on with this one.
    Output {
        at: String,
        id: String,
        name: String,
        value: String,
    },
    /// The checks are begun; `run` names their test objects.
    Proving {
        at: String,
        run: String,
    },
    /// What one check found on one subject: `pass`, `warn`, `fail`, `skip`, or `error` when it could not run.
    Judged {
        at: String,
        check: String,
        subject: String,
        verdict: String,
        #[serde(default)]
        why: String,
    },
    End {
        at: String,
        ok: bool,
        summary: String,
    },
}

/// A step as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub id: String,
    pub target: Target,
    pub title: String,
    /// The keyed digest of what it does and of what it was planned from; empty in a journal of version 1.
    #[serde(default)]
    pub digest: String,
}

/// An open journal; every entry is on disk when its call returns.
#[derive(Debug)]
pub struct Journal(Lines);

impl Journal {
    /// A new one, of a run that begins.
    pub(super) fn create(path: &Path, begin: &Entry) -> Result<Self> {
        let mut journal = Self(Lines::create(path)?);
        journal.0.write(begin)?;
        Ok(journal)
    }

    /// Goes on with one that has entries.
    pub(super) fn reopen(path: &Path) -> Result<Self> {
        Lines::append(path).map(Self)
    }

    /// The checks begin; `run` names their test objects.
    pub(super) fn proving(&mut self, run: &str) -> Result<()> {
        self.0.write(&Entry::Proving { at: now(), run: run.to_owned() })
    }

    pub fn judged(&mut self, check: &str, subject: &str, verdict: &str, why: &str) -> Result<()> {
        let (check, subject) = (check.to_owned(), subject.to_owned());
        let why = config_doc::hide(why);
        self.0.write(&Entry::Judged { at: now(), check, subject, verdict: verdict.to_owned(), why })
    }

    pub fn started(&mut self, id: &str) -> Result<()> {
        self.0.write(&Entry::Started { at: now(), id: id.to_owned() })
    }

    pub fn done(&mut self, id: &str, changed: bool) -> Result<()> {
        self.0.write(&Entry::Done { at: now(), id: id.to_owned(), changed })
    }

    pub fn failed(&mut self, id: &str, error: &str) -> Result<()> {
        self.0.write(&Entry::Failed { at: now(), id: id.to_owned(), error: config_doc::hide(error) })
    }

    pub(super) fn output(&mut self, id: &str, name: &str, value: &str) -> Result<()> {
        let (id, name, value) = (id.to_owned(), name.to_owned(), config_doc::hide(value));
        self.0.write(&Entry::Output { at: now(), id, name, value })
    }

    pub fn end(&mut self, ok: bool, summary: &str) -> Result<()> {
        self.0.write(&Entry::End { at: now(), ok, summary: config_doc::hide(summary) })
    }
}

impl From<SavedStep> for PlannedStep {
    fn from(step: SavedStep) -> Self {
        Self { id: step.id, target: step.target, title: step.title, digest: step.digest }
    }
}

/// What a run that did not end had begun: its verb, when it began, and the steps that were in the middle of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    pub verb: String,
    pub at: String,
    pub during: Vec<PlannedStep>,
    /// The checks' run, when it was cut off while they ran.
    pub proving: Option<String>,
}

impl CutOff {
    /// None when the run ended, or there was none.
    pub fn of(entries: &[Entry]) -> Option<Self> {
        let (Entry::Begin { verb, at, steps, .. }, rest) = entries.split_first()? else { return None };
        let mut open: Vec<&str> = Vec::new();
        let (mut ended, mut proving) = (false, None);
        for entry in rest {
            match entry {
                Entry::Started { id, .. } => open.push(id),
                Entry::Done { id, .. } | Entry::Failed { id, .. } => open.retain(|other| other != id),
                // What was done is proven after its end, and that ends too.
                Entry::Proving { run, .. } => (ended, proving) = (false, Some(run.clone())),
                Entry::End { .. } => (ended, proving) = (true, None),
                Entry::Begin { .. } | Entry::Judged { .. } | Entry::Output { .. } => {}
            }
        }
        if ended {
            return None;
        }
        let during = steps.iter().filter(|step| open.contains(&step.id.as_str())).cloned().collect();
        Some(Self { verb: verb.clone(), at: at.clone(), during, proving })
    }
}

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` of {} was cut off ", self.verb, self.at)?;
        if let Some(run) = &self.proving {
            return write!(f, "while the storage was proven; its test objects may be left (run {run})");
        }
        if self.during.is_empty() {
            return f.write_str("between two steps");
        }
        let titles: Vec<String> =
            self.during.iter().map(|step| format!("{}: {}", step.target, step.title)).collect();
        write!(f, "during {}", titles.join("; "))
    }
}

/// The entries of a journal, or none where there is no file. A last line that a crash cut short is left out.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::failed(format!("can't read the journal {}: {e}", path.display()))),
    };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(std::result::Result::ok).collect();
    let mut entries = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(Entry::Begin { version, .. }) if version > VERSION => {
                return Err(Error::invalid(format!("{}: written by a newer nodeprep", path.display())));
            }
            Ok(entry) => entries.push(entry),
            Err(_) if number + 1 == lines.len() => break,
            Err(e) => return Err(Error::invalid(format!("{}:{}: {e}", path.display(), number + 1))),
        }
    }
    Ok(entries)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    #[test]
    fn a_run_that_did_not_end_says_in_the_middle_of_what_it_was() {
        let step = |id: &str| PlannedStep {
            id: id.into(),
            target: Target::node("n"),
            title: format!("do {id}"),
            digest: String::new(),
        };
        let at = String::from("today");
        let begin = Entry::Begin {
            version: VERSION,
            at: at.clone(),
            verb: "apply".into(),
            cluster: "home".into(),
            pid: 1,
            plan: String::new(),
            steps: vec![step("a"), step("b")],
        };
        let started = |id: &str| Entry::Started { at: at.clone(), id: id.into() };
        let done = |id: &str| Entry::Done { at: at.clone(), id: id.into(), changed: true };
        let end = Entry::End { at: at.clone(), ok: false, summary: String::new() };
        let says = |rest: &[Entry]| {
            CutOff::of(&[std::slice::from_ref(&begin), rest].concat()).map(|cut| cut.to_string())
        };
        assert_eq!(CutOff::of(&[]), None);
        assert_eq!(
            says(&[started("a"), done("a")]).unwrap(),
            "`apply` of today was cut off between two steps"
        );
        let during = says(&[started("a"), done("a"), started("b")]).unwrap();
        assert_eq!(during, "`apply` of today was cut off during n: do b");
        assert_eq!(says(&[started("a"), end.clone()]), None);
        let proving = Entry::Proving { at: at.clone(), run: "r1".into() };
        let said = "`apply` of today was cut off while the storage was proven; its test objects may be left (run r1)";
        assert_eq!(says(&[started("a"), done("a"), end.clone(), proving.clone()]).as_deref(), Some(said));
        assert_eq!(says(&[proving, end]), None);
    }
}
