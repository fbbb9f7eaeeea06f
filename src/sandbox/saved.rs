//! The world on disk, between the commands that act on it.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::kube::api::Saved as SavedApi;
use super::machine::Machine;
use super::object_store::ObjectStore;
use super::timers::Timers;
use super::world::World;
use crate::error::{Error, Kind, Result};

/// A world as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) api: SavedApi,
    pub(super) machines: Vec<Machine>,
    pub(super) timers: Timers,
    pub(super) faults: Faults,
    pub(super) store: ObjectStore,
    pub(super) certificate_days: i32,
}

/// Takes the folder, which is made if it is not there; none while another process has it.
pub(super) fn lock(folder: &Path) -> Result<Option<File>> {
    let fail = |error: std::io::Error| {
        Error::invalid(format!("can't use the sandbox folder {}: {error}", folder.display()))
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let mut options = File::options();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"));
    let lock = lock.map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) if folder.join("kubeconfig").exists() => Ok(None),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(Kind::Unavailable, "another process is just setting this sandbox up")
                .hint("try again in a moment"))
        }
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// The world that is kept in a folder, if there is one.
pub(super) fn load(folder: &Path) -> Result<Option<World>> {
    let path = folder.join("world.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::invalid(format!("can't read {}: {error}", path.display()))),
    };
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| {
        Error::invalid(format!("{}: {error}", path.display()))
            .hint("it was written by another version, or damaged: remove the folder to begin anew")
    })?;
    Ok(Some(World::restore(saved)))
}

pub(super) fn save(folder: &Path, world: &World) -> Result<()> {
    let text = serde_json::to_vec(&world.keep()).map_err(|error| Error::failed(error.to_string()))?;
    write(&folder.join("world.json"), &text)
}

/// Writes a file of mode 0600 that is whole or not there.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| Error::failed(format!("can't write {}: {error}", path.display()));
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
