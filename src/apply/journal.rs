//! The write-ahead journal: what a run is about to do is on disk before it is done.
//!
//! One JSON object a line, in `<state>/<cluster>/journal.jsonl`, mode 0600, synced after each line. It holds ids,
//! titles and digests, and no secret: neither configs nor objects are written.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::state::{Lines, State, now};

/// The journal's format; a reader refuses a newer one.
const VERSION: u32 = 1;

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
        steps: Vec<Planned>,
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
    End {
        at: String,
        ok: bool,
        summary: String,
    },
}

/// A step as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub id: String,
    pub target: String,
    pub title: String,
}

/// A digest of what the plan does, made of what it shows (which has no secrets in it), as 64 hex digits.
pub fn digest(plan: &Plan) -> String {
    let mut hash = Sha256::new();
    for step in &plan.steps {
        for part in [&step.id, &step.target, &step.title, &step.diff] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An open journal; every entry is on disk when its call returns.
#[derive(Debug)]
pub struct Journal(Lines);

impl Journal {
    /// Starts a new run: the former journal is kept beside it as `journal.1.jsonl`.
    pub fn begin(state: &State, verb: &str, cluster: &str, plan: &Plan) -> Result<Self> {
        let path = state.journal();
        if path.exists() {
            std::fs::rename(&path, state.dir().join("journal.1.jsonl")).map_err(|e| {
                Error::failed(format!("can't put the former journal {} aside: {e}", path.display()))
            })?;
        }
        let mut journal = Self(Lines::create(&path)?);
        let steps = plan
            .steps
            .iter()
            .map(|s| Planned { id: s.id.clone(), target: s.target.clone(), title: s.title.clone() })
            .collect();
        journal.0.write(&Entry::Begin {
            version: VERSION,
            at: now(),
            verb: verb.to_owned(),
            cluster: cluster.to_owned(),
            pid: std::process::id(),
            plan: digest(plan),
            steps,
        })?;
        Ok(journal)
    }

    pub fn started(&mut self, id: &str) -> Result<()> {
        self.0.write(&Entry::Started { at: now(), id: id.to_owned() })
    }

    pub fn done(&mut self, id: &str, changed: bool) -> Result<()> {
        self.0.write(&Entry::Done { at: now(), id: id.to_owned(), changed })
    }

    pub fn failed(&mut self, id: &str, error: &str) -> Result<()> {
        self.0.write(&Entry::Failed { at: now(), id: id.to_owned(), error: error.to_owned() })
    }

    pub fn end(&mut self, ok: bool, summary: &str) -> Result<()> {
        self.0.write(&Entry::End { at: now(), ok, summary: summary.to_owned() })
    }
}

/// The entries of the last run, or none when there was none. A last line that a crash cut short is left out.
pub fn last_run(state: &State) -> Result<Vec<Entry>> {
    let path = state.journal();
    let file = match File::open(&path) {
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
    fn what_was_begun_is_read_back_and_a_cut_last_line_is_left_out() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        assert_eq!(last_run(&state).unwrap(), []);
        let mut journal = Journal::begin(&state, "apply", "home", &Plan::default()).unwrap();
        journal.started("a").unwrap();
        let mut file = File::options().append(true).open(state.journal()).unwrap();
        file.write_all(b"{\"entry\":\"done\",\"at\":\"2026").unwrap();
        let entries = last_run(&state).unwrap();
        assert!(matches!(&entries[..], [Entry::Begin { .. }, Entry::Started { id, .. }] if id == "a"));
        assert_eq!(std::fs::metadata(state.journal()).unwrap().permissions().mode() & 0o777, 0o600);
        Journal::begin(&state, "apply", "home", &Plan::default()).unwrap();
        assert_eq!(last_run(&state).unwrap().len(), 1);
    }

    #[test]
    fn a_torn_line_in_the_middle_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        std::fs::write(state.journal(), "{\"entry\":\n{}\n").unwrap();
        assert!(last_run(&state).unwrap_err().what.contains("journal.jsonl:1:"));
    }
}
