//! What runs leave on this machine: a folder each, `<state>/<cluster>/runs/<number>-<verb>`, read by `status`, `abort` and
//! whatever compares runs. It holds the plan (`plan.json`), the journal (`journal.jsonl`), everything that happened
//! (`events.jsonl`), the machines as they were found (`observed.json`) and how it ended (`outcome.json`); no secret.

use std::fmt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::journal::{self, CutOff, Entry, Journal};
use super::outputs::{self, Outputs};
use super::tape::Tape;
use crate::config_doc::hide;
use crate::error::{Error, Result};
use crate::intent::API_VERSION;
use crate::model::node::Node;
use crate::plan::{Key, Saved};
use crate::state::{State, make_private_dir, now, remove, write_json};

/// So many runs are kept; one that was cut off, and the last one of each verb, are kept beyond that.
const KEPT: usize = 200;

const JOURNAL: &str = "journal.jsonl";

/// How a run ended, as `outcome.json` says it. There is none while it goes on, nor of one that was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    pub api_version: String,
    pub kind: String,
    pub id: String,
    pub verb: String,
    pub cluster: String,
    /// Of nodeprep.
    pub version: String,
    pub began: String,
    pub ended: String,
    pub ok: bool,
    pub summary: String,
}

/// The machines as they were found, as `observed.json` has them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedNodes {
    pub api_version: String,
    pub kind: String,
    pub nodes: Vec<Node>,
}

/// A run that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeptRun {
    /// Counts up; the journals of releases before that had no folders are 0.
    number: u64,
    verb: String,
    journal: PathBuf,
}

impl fmt::Display for KeptRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{}", self.number, self.verb)
    }
}

impl KeptRun {
    /// # Errors
    /// The journal can't be read, or is of a newer release.
    fn entries(&self) -> Result<Vec<Entry>> {
        journal::entries(&self.journal)
    }

    fn dir(&self) -> Option<&Path> {
        self.journal.parent().filter(|_| self.number > 0)
    }
}

/// A run that is going on: its folder and its journal.
#[derive(Debug)]
pub struct RunRecord {
    run: KeptRun,
    cluster: String,
    began: String,
    pub journal: Journal,
    /// What the same steps had left in runs of the verb since the last that ended well.
    pub(super) former: Outputs,
}

impl RunRecord {
    /// Makes the folder of a new run, with its plan; folders of long ago go.
    ///
    /// # Errors
    /// It can't be written: nothing may be done then.
    pub fn begin(state: &State, verb: &str, saved: Saved, key: &Key) -> Result<Self> {
        let kept = all(state)?;
        let number = kept.last().map_or(0, |run| run.number) + 1;
        let of_verb = kept.iter().rev().filter(|run| run.verb == verb);
        let former = outputs::left(of_verb.map(KeptRun::entries), &saved)?;
        let dir = folder(state).join(format!("{number:06}-{verb}"));
        make_private_dir(&dir)?;
        write_json(&dir.join("plan.json"), &saved)?;
        let (began, cluster) = (now(), saved.cluster.clone());
        let run = KeptRun { number, verb: verb.to_owned(), journal: dir.join(JOURNAL) };
        let begin = Entry::Begin {
            version: journal::VERSION,
            at: began.clone(),
            verb: verb.to_owned(),
            plan: saved.digest(key),
            cluster: saved.cluster,
            pid: std::process::id(),
            steps: saved.steps.into_iter().map(Into::into).collect(),
        };
        let journal = Journal::create(&run.journal, &begin)?;
        last_is(state, &run)?;
        forget(&kept)?;
        Ok(Self { run, cluster, began, journal, former })
    }

    /// Writes the events of the run down, from those on that came before it.
    pub(super) fn keep_events(&self, tape: &Tape) -> Result<()> {
        tape.keep(&self.run.journal.with_file_name("events.jsonl"))
    }

    /// Keeps how the machines were found.
    pub(super) fn observed(&self, nodes: Vec<Node>) -> Result<()> {
        let nodes = ObservedNodes { api_version: API_VERSION.into(), kind: "Observed".into(), nodes };
        write_json(&self.run.journal.with_file_name("observed.json"), &nodes)
    }

    /// The run has ended; checks may go on with its record, and end it again.
    pub fn end(&mut self, ok: bool, summary: &str) -> Result<()> {
        self.journal.end(ok, summary)?;
        let outcome = RunOutcome {
            api_version: API_VERSION.into(),
            kind: "Run".into(),
            id: self.run.to_string(),
            verb: self.run.verb.clone(),
            cluster: self.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            began: self.began.clone(),
            ended: now(),
            ok,
            summary: hide(summary),
        };
        write_json(&self.run.journal.with_file_name("outcome.json"), &outcome)
    }
}

fn folder(state: &State) -> PathBuf {
    state.dir().join("runs")
}

/// `last` leads to the folder of the last run.
fn last_is(state: &State, run: &KeptRun) -> Result<()> {
    let failed = |error: std::io::Error| Error::failed(format!("can't say which run is the last: {error}"));
    let (link, new) = (state.dir().join("last"), state.dir().join("last.new"));
    remove(&new)?;
    std::os::unix::fs::symlink(Path::new("runs").join(run.to_string()), &new).map_err(failed)?;
    std::fs::rename(&new, &link).map_err(failed)
}

/// Runs of long ago go, but for those that somebody may have to go on with.
fn forget(kept: &[KeptRun]) -> Result<()> {
    let newest_of_verb =
        |at: usize, run: &KeptRun| !kept.iter().skip(at + 1).any(|other| other.verb == run.verb);
    for (at, run) in kept.iter().enumerate().take(kept.len().saturating_sub(KEPT)) {
        if let Some(dir) = run.dir()
            && !newest_of_verb(at, run)
        {
            fs::remove_dir_all(dir).map_err(|error| Error::failed(error.to_string()))?;
        }
    }
    Ok(())
}

/// Every run that is kept, the last one at the end.
///
/// # Errors
/// A journal can't be read.
fn all(state: &State) -> Result<Vec<KeptRun>> {
    let mut runs = former(state)?;
    let folders = std::fs::read_dir(folder(state)).into_iter().flatten().flatten();
    let found = folders.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (number, verb) = name.split_once('-')?;
        Some(KeptRun {
            number: number.parse().ok().filter(|number| *number > 0)?,
            verb: verb.to_owned(),
            journal: entry.path().join(JOURNAL),
        })
    });
    let mut found: Vec<KeptRun> = found.collect();
    found.sort_by_key(|run| run.number);
    runs.extend(found);
    Ok(runs)
}

/// The journals of the release before, which had no folders: `journal.1.jsonl`, those of runs of other verbs that were cut
/// off, and `journal.jsonl`.
fn former(state: &State) -> Result<Vec<KeptRun>> {
    let files = std::fs::read_dir(state.dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (name.starts_with("cut-") || name.starts_with("journal.")) && name.ends_with(".jsonl")
    };
    let mut runs = Vec::new();
    for journal in files.filter(is_one) {
        if let Some(Entry::Begin { verb, at, .. }) = journal::entries(&journal)?.into_iter().next() {
            runs.push((at, KeptRun { number: 0, verb, journal }));
        }
    }
    runs.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// The entries of the last run, or none when there was none.
pub fn last_run(state: &State) -> Result<Vec<Entry>> {
    for run in all(state)?.iter().rev() {
        let entries = run.entries()?;
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// The runs that were cut off and are neither gone on with nor given up, the newest first: of each verb, its last run.
pub fn cut_offs(state: &State) -> Result<Vec<CutOff>> {
    Ok(cut_off_runs(state)?.into_iter().map(|(_, cut)| cut).collect())
}

fn cut_off_runs(state: &State) -> Result<Vec<(KeptRun, CutOff)>> {
    let (mut verbs, mut found) = (Vec::new(), Vec::new());
    for run in all(state)?.into_iter().rev() {
        if verbs.contains(&run.verb) {
            continue;
        }
        let entries = run.entries()?;
        // One that was killed before it had begun says nothing.
        if entries.is_empty() {
            continue;
        }
        verbs.push(run.verb.clone());
        found.extend(CutOff::of(&entries).map(|cut| (run, cut)));
    }
    Ok(found)
}

/// Nothing is left to do for a verb: its run that was cut off ends well.
pub(super) fn settle(state: &State, verb: &str) -> Result<()> {
    for (run, cut) in cut_off_runs(state)?.into_iter().filter(|(run, _)| run.verb == verb) {
        Journal::reopen(&run.journal)?.end(true, &format!("nothing was left to do; {cut}"))?;
    }
    Ok(())
}

/// All runs that were cut off end. Returns what they were.
pub(super) fn give_up(state: &State) -> Result<Vec<CutOff>> {
    let cut_off = cut_off_runs(state)?;
    for (run, cut) in &cut_off {
        Journal::reopen(&run.journal)?.end(false, &format!("given up: {cut}"))?;
    }
    Ok(cut_off.into_iter().map(|(_, cut)| cut).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::plan::Plan;

    const KEY: Key = [0; 64];

    fn begin(state: &State, verb: &str) -> RunRecord {
        RunRecord::begin(state, verb, Saved::of("home", &Plan::default(), &KEY), &KEY).unwrap()
    }

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), "home").unwrap();
        (dir, state)
    }

    fn last(state: &State) -> PathBuf {
        state.dir().join("last")
    }

    #[test]
    fn what_was_begun_is_read_back_and_a_cut_last_line_is_left_out() {
        let (_dir, state) = state();
        assert_eq!(last_run(&state).unwrap(), []);
        begin(&state, "apply").journal.started("a").unwrap();
        let journal = last(&state).join(JOURNAL);
        let mut file = std::fs::File::options().append(true).open(&journal).unwrap();
        file.write_all(b"{\"entry\":\"done\",\"at\":\"2026").unwrap();
        let entries = last_run(&state).unwrap();
        assert!(matches!(&entries[..], [Entry::Begin { .. }, Entry::Started { id, .. }] if id == "a"));
        assert_eq!(std::fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(give_up(&state).unwrap().len(), 1);
        assert!(matches!(last_run(&state).unwrap()[..], [_, Entry::Started { .. }, Entry::End { .. }]));
        begin(&state, "apply");
        assert_eq!(last_run(&state).unwrap().len(), 1);
    }

    #[test]
    fn a_run_leaves_its_plan_and_how_it_ended() {
        let (_dir, state) = state();
        let mut run = begin(&state, "apply");
        run.observed(Vec::new()).unwrap();
        assert!(!last(&state).join("outcome.json").exists(), "it goes on");
        run.end(true, "apply: done, 0 changes").unwrap();
        let read = |name: &str| std::fs::read_to_string(last(&state).join(name)).unwrap();
        let outcome: RunOutcome = serde_json::from_str(&read("outcome.json")).unwrap();
        assert!(outcome.ok && outcome.id == "000001-apply" && outcome.kind == "Run", "{outcome:?}");
        assert_eq!(Saved::parse("plan.json", &read("plan.json")).unwrap().cluster, "home");
        let observed: ObservedNodes = serde_json::from_str(&read("observed.json")).unwrap();
        assert!(observed.nodes.is_empty() && observed.api_version == API_VERSION);
    }

    #[test]
    fn runs_of_long_ago_go_but_for_one_that_was_cut_off_and_the_last_of_its_verb() {
        let (_dir, state) = state();
        drop(begin(&state, "wipe"));
        begin(&state, "remove").end(true, "done").unwrap();
        for _ in 0..KEPT + 5 {
            begin(&state, "apply").end(true, "done").unwrap();
        }
        let kept = all(&state).unwrap();
        let names: Vec<String> = kept.iter().take(3).map(ToString::to_string).collect();
        assert_eq!(names, ["000001-wipe", "000002-remove", "000007-apply"]);
        assert_eq!(cut_offs(&state).unwrap().len(), 1, "the wipe");
        // The next one has a number of its own, whatever is gone.
        assert_eq!(begin(&state, "apply").run.to_string(), format!("{:06}-apply", KEPT + 8));
    }

    #[test]
    fn journals_of_the_release_before_are_read_and_those_of_a_later_one_refused_with_a_word() {
        let (_dir, state) = state();
        let line = |verb: &str, at: &str, version: u32| {
            format!(
                "{{\"entry\":\"begin\",\"version\":{version},\"at\":\"{at}\",\"verb\":\"{verb}\",\"cluster\":\"home\",\"pid\":1,\
                 \"plan\":\"\",\"steps\":[]}}\n"
            )
        };
        let write = |name: &str, text: String| std::fs::write(state.dir().join(name), text).unwrap();
        write("journal.jsonl", line("apply", "2026-11-02", 3));
        write("cut-wipe.jsonl", line("wipe", "2026-11-01", 3));
        let verbs = |state: &State| -> Vec<String> {
            cut_offs(state).unwrap().into_iter().map(|cut| cut.verb).collect()
        };
        assert_eq!(verbs(&state), ["apply", "wipe"]);
        settle(&state, "wipe").unwrap();
        assert_eq!(verbs(&state), ["apply"]);
        begin(&state, "apply").end(true, "done").unwrap();
        assert!(verbs(&state).is_empty(), "its next run went on with it");
        write("journal.jsonl", line("apply", "2026-11-02", journal::VERSION + 1));
        assert!(cut_offs(&state).unwrap_err().what.ends_with("written by a newer nodeprep"));
    }

    #[test]
    fn a_run_that_was_killed_before_it_had_begun_hides_no_other() {
        let (_dir, state) = state();
        drop(begin(&state, "apply"));
        drop(begin(&state, "apply"));
        std::fs::write(last(&state).join(JOURNAL), "{\"entry\":").unwrap();
        assert_eq!(cut_offs(&state).unwrap().len(), 1);
        assert_eq!(begin(&state, "apply").run.to_string(), "000003-apply");
    }

    #[test]
    fn a_torn_line_in_the_middle_is_an_error_that_names_the_line() {
        let (_dir, state) = state();
        drop(begin(&state, "apply"));
        std::fs::write(last(&state).join(JOURNAL), "{\"entry\":\n{}\n").unwrap();
        assert!(last_run(&state).unwrap_err().what.contains("journal.jsonl:1:"));
    }
}
