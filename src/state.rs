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

    /// The key of this folder's digests, made when it is first asked for.
    pub fn key(&self) -> Result<[u8; 64]> {
        let path = self.dir.join("digest.key");
        let failed = |why: &dyn std::fmt::Display| Error::failed(format!("{}: {why}", path.display()));
        match std::fs::read(&path) {
            Ok(bytes) => {
                bytes.try_into().map_err(|_| failed(&"not 64 bytes long").hint("remove it, and plan again"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; 64] = rand::random();
                let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
                let written = file.and_then(|mut file| {
                    std::io::Write::write_all(&mut file, &key).and_then(|()| file.sync_all())
                });
                written.map_err(|error| failed(&error))?;
                Ok(key)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }
}

/// The time, as events and journals write it: RFC 3339 in UTC, to the millisecond.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Writes a file for its owner only (mode 0600), whole or not at all.
///
/// # Errors
/// `Kind::Failed` with the path.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder(path))?.sync_all()
    };
    write().map_err(|error| Error::failed(format!("can't write {}: {error}", path.display())))
}

/// Writes a file for its owner only, whole, unless there is one of this name; true when it was written.
///
/// # Errors
/// `Kind::Failed` with the path.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<bool> {
    let write = || -> std::io::Result<bool> {
        let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    };
    write().map_err(|error| Error::failed(format!("can't write {}: {error}", path.display())))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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

    /// Goes on with a file that is there; a last line that a crash cut short goes.
    pub fn append(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let bytes = std::fs::read(path)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let file = OpenOptions::new().append(true).open(path)?;
            if whole < bytes.len() {
                file.set_len(whole as u64)?;
            }
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
