//! What a run was about to make in the cluster, on disk before it is made: one JSON line per object.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::{Lines, remove};

const PREFIX: &str = "scratch-";
const SUFFIX: &str = ".jsonl";

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    kind: String,
    namespace: String,
    name: String,
}

/// The journal of one run; removed when the objects are.
#[derive(Debug)]
pub(super) struct ScratchRecord {
    path: PathBuf,
    /// Opened by the first object.
    lines: Mutex<Option<Lines>>,
}

impl ScratchRecord {
    pub(super) fn new(folder: &Path, run_id: &str) -> Self {
        Self { path: folder.join(format!("{PREFIX}{run_id}{SUFFIX}")), lines: Mutex::default() }
    }

    /// Whether anything was journaled in this run.
    pub(super) fn written(&self) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Says what is about to be made; it is on disk when this returns.
    pub(super) fn making(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = match &mut *lines {
            Some(lines) => lines,
            none => none.insert(Lines::create(&self.path)?),
        };
        lines.write(&Line { kind: kind.into(), namespace: namespace.into(), name: name.into() })
    }

    /// Forgets the run: its objects are gone.
    pub(super) fn close(&self) -> Result<()> {
        forget(&self.path)
    }
}

/// Removes the journal of a run whose objects are gone.
pub(super) fn forget(path: &Path) -> Result<()> {
    // The run itself may be quicker.
    remove(path).map_err(|error| error.at("can't remove the journal of test objects"))
}

/// The journals that earlier runs left: the namespace, the run's id and the file of each.
pub(super) fn left(folder: &Path) -> Result<Vec<(String, String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |e| Error::failed(format!("can't read the journals of test objects: {e}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(run_id) = name.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(SUFFIX)) else { continue };
        let run_id = run_id.to_owned();
        // A line that was cut by a crash names nothing that was made.
        let text = fs::read_to_string(&path).map_err(failed)?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let namespace = lines.find(|line| line.kind == "Namespace").map(|line| line.name).unwrap_or_default();
        found.push((namespace, run_id, path));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_journal_outlives_a_crash_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(left(&folder.path().join("none")).unwrap().is_empty(), "no folder yet");
        let state = folder.path().to_owned();
        let journal = ScratchRecord::new(&state, "r1");
        assert!(!journal.written());
        journal.making("Namespace", "", "nodeprep-r1").unwrap();
        journal.making("Pod", "nodeprep-r1", "pvc-1").unwrap();
        assert!(journal.written());
        let path = state.join("scratch-r1.jsonl");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"kind\":\"Po").unwrap();
        fs::write(state.join("other.json"), "{}").unwrap();
        assert_eq!(left(&state).unwrap(), [("nodeprep-r1".into(), "r1".into(), path)]);
        journal.close().unwrap();
        assert!(left(&state).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_made_when_the_journal_cannot_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(ScratchRecord::new(file.path(), "r1").making("Pod", "n", "p").is_err());
    }
}
