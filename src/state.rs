//! What is kept on this machine between runs: a folder per cluster, and files of JSON lines that are on disk before
//! what they say is done.

use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};
use serde::Serialize;

use crate::error::{Error, Result};

/// Where a cluster's journal, lock and list of test objects are kept.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// `dir/<cluster>`, made with mode 0700.
    pub fn open(dir: &Path, cluster: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = dir.join(cluster);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| {
            Error::failed(format!("can't make the state folder {}: {e}", dir.display()))
                .hint("set NODEPREP_STATE to a folder that can be written")
        })?;
        Ok(Self { dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }
}

/// The time, as events and journals write it: RFC 3339 in UTC, to the millisecond.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A file of JSON lines, mode 0600; each line is on disk when `write` returns.
#[derive(Debug)]
pub struct Lines {
    file: File,
}

impl Lines {
    /// Makes the file; one that is there already is another run's, and an error.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file)
        };
        Ok(Self { file: open().map_err(failed)? })
    }

    pub fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        std::io::Write::write_all(&mut self.file, &text).and_then(|()| self.file.sync_data()).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::failed(format!("can't keep what is done on record: {error}"))
        .hint("nothing more is done without it")
}
