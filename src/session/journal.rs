//! The write-ahead journal: what a run is about to do is on disk before it is done.
//!
//! One JSON object a line, in `<state>/<cluster>/journal.jsonl`, mode 0600, synced after each line. It holds ids,
//! titles and digests, and no secret: neither configs nor objects are written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config_doc;
use crate::error::{Error, Result};
use crate::plan::{Key, Plan, Saved, SavedStep, Target};
use crate::state::{Lines, State, now, remove};

/// The journal's format; a reader refuses a newer one.
const VERSION: u32 = 3;

/// The journals that this process began.
static BEGUN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

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
    /// Starts a new run of a plan: the former journal is kept beside it as `journal.1.jsonl`, or as `cut-<verb>.jsonl` when it
    /// is that of another verb's run that was cut off, until that verb begins anew or it is given up.
    pub fn begin(state: &State, verb: &str, plan: Saved, key: &Key) -> Result<Self> {
        let path = state.journal();
        if path.exists() {
            let aside = match CutOff::of(&last_run(state)?) {
                Some(cut) if cut.verb != verb => cut_file(state, &cut.verb),
                _ => state.dir().join("journal.1.jsonl"),
            };
            std::fs::rename(&path, aside).map_err(|e| {
                Error::failed(format!("can't put the former journal {} aside: {e}", path.display()))
            })?;
        }
        let mut journal = Self(Lines::create(&path)?);
        remove(&cut_file(state, verb))?;
        BEGUN.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        journal.0.write(&Entry::Begin {
            version: VERSION,
            at: now(),
            verb: verb.to_owned(),
            plan: plan.digest(key),
            cluster: plan.cluster,
            pid: std::process::id(),
            steps: plan.steps.into_iter().map(PlannedStep::from).collect(),
        })?;
        Ok(journal)
    }

    /// Goes on with the journal of a run that did not end, to say what became of it.
    pub fn reopen(state: &State) -> Result<Self> {
        Lines::append(&state.journal()).map(Self)
    }

    /// The record of a proof: it goes on with that of the run in this process that it follows, else it is one of its own.
    /// None while the record is that of a run that was cut off: it is kept until somebody goes on with that or gives it up.
    pub fn proving(state: &State, cluster: &str, key: &Key, run: &str) -> Result<Option<Self>> {
        let follows = BEGUN.lock().unwrap_or_else(PoisonError::into_inner).contains(&state.journal());
        let mut journal = if follows {
            Self::reopen(state)?
        } else if CutOff::of(&last_run(state)?).is_some_and(|cut| cut.proving.is_none()) {
            return Ok(None);
        } else {
            Self::begin(state, "validate", Saved::of(cluster, &Plan::default(), key), key)?
        };
        journal.0.write(&Entry::Proving { at: now(), run: run.to_owned() })?;
        Ok(Some(journal))
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
                Entry::Begin { .. } | Entry::Judged { .. } => {}
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

/// What a run that was cut off and that another verb's run followed is kept as.
fn cut_file(state: &State, verb: &str) -> PathBuf {
    state.dir().join(format!("cut-{verb}.jsonl"))
}

/// The files of runs that were cut off and that another verb's run followed.
fn cut_files(state: &State) -> Vec<PathBuf> {
    let found = std::fs::read_dir(state.dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("cut-") && name.ends_with(".jsonl")
    };
    let mut found: Vec<PathBuf> = found.filter(is_one).collect();
    found.sort();
    found
}

/// The runs that were cut off and are neither gone on with nor given up: the last one, and those of other verbs before it.
pub fn cut_offs(state: &State) -> Result<Vec<CutOff>> {
    let mut found: Vec<CutOff> = CutOff::of(&last_run(state)?).into_iter().collect();
    for path in cut_files(state) {
        found.extend(CutOff::of(&entries(&path)?));
    }
    Ok(found)
}

/// Nothing is left to do for a verb: the record of its run that was cut off ends well.
pub(super) fn settle(state: &State, verb: &str) -> Result<()> {
    if let Some(cut) = CutOff::of(&last_run(state)?).filter(|cut| cut.verb == verb) {
        Journal::reopen(state)?.end(true, &format!("nothing was left to do; {cut}"))?;
    }
    remove(&cut_file(state, verb))
}

/// The records of all runs that were cut off end.
pub(super) fn give_up(state: &State) -> Result<()> {
    if let Some(cut) = CutOff::of(&last_run(state)?) {
        Journal::reopen(state)?.end(false, &format!("given up: {cut}"))?;
    }
    cut_files(state).iter().try_for_each(|path| remove(path))
}

/// The entries of the last run, or none when there was none. A last line that a crash cut short is left out.
pub fn last_run(state: &State) -> Result<Vec<Entry>> {
    entries(&state.journal())
}

fn entries(path: &Path) -> Result<Vec<Entry>> {
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
    use crate::plan::Plan;

    fn saved() -> Saved {
        Saved::of("home", &Plan::default(), &[0; 64])
    }

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

    #[test]
    fn what_was_begun_is_read_back_and_a_cut_last_line_is_left_out() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        assert_eq!(last_run(&state).unwrap(), []);
        let mut journal = Journal::begin(&state, "apply", saved(), &[0; 64]).unwrap();
        journal.started("a").unwrap();
        let mut file = File::options().append(true).open(state.journal()).unwrap();
        file.write_all(b"{\"entry\":\"done\",\"at\":\"2026").unwrap();
        let entries = last_run(&state).unwrap();
        assert!(matches!(&entries[..], [Entry::Begin { .. }, Entry::Started { id, .. }] if id == "a"));
        assert_eq!(std::fs::metadata(state.journal()).unwrap().permissions().mode() & 0o777, 0o600);
        Journal::reopen(&state).unwrap().end(false, "given up").unwrap();
        assert!(matches!(last_run(&state).unwrap()[..], [_, Entry::Started { .. }, Entry::End { .. }]));
        Journal::begin(&state, "apply", saved(), &[0; 64]).unwrap();
        assert_eq!(last_run(&state).unwrap().len(), 1);
    }

    #[test]
    fn a_proof_goes_on_with_the_record_of_its_run_and_leaves_that_of_one_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        let kinds = |state: &State| -> Vec<bool> {
            last_run(state).unwrap().iter().map(|entry| matches!(entry, Entry::Proving { .. })).collect()
        };
        Journal::begin(&state, "apply", saved(), &[0; 64]).unwrap().end(true, "done").unwrap();
        Journal::proving(&state, "home", &[0; 64], "r1").unwrap().unwrap();
        assert_eq!(kinds(&state), [false, false, true]);
        // As another process sees it.
        BEGUN.lock().unwrap().remove(&state.journal());
        Journal::proving(&state, "home", &[0; 64], "r2").unwrap().unwrap().end(false, "no").unwrap();
        assert_eq!(kinds(&state), [false, true, false]);
        Journal::begin(&state, "apply", saved(), &[0; 64]).unwrap();
        BEGUN.lock().unwrap().remove(&state.journal());
        assert!(Journal::proving(&state, "home", &[0; 64], "r3").unwrap().is_none());
        assert!(CutOff::of(&last_run(&state).unwrap()).is_some());
    }

    #[test]
    fn a_torn_line_in_the_middle_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        std::fs::write(state.journal(), "{\"entry\":\n{}\n").unwrap();
        assert!(last_run(&state).unwrap_err().what.contains("journal.jsonl:1:"));
    }
}
