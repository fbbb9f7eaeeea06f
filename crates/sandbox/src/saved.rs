//! The world on disk, between the commands that act on it.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::faults::Faults;
use super::kube::api::Saved as SavedApi;
use super::machine::Machine;
use super::machine::resources::{MACHINE_CONFIG, PERSISTENT_CONFIG};
use super::object_store::ObjectStore;
use super::timers::Timers;
use super::world::World;
use crate::config_doc::redact;
use crate::error::{Error, Kind, Result};

/// A machine's configs, which may be somebody's own: their secrets are in clear text nowhere.
const fn configs(machine: &mut Machine) -> [&mut Option<String>; 3] {
    let Machine { active, persistent, before_try, .. } = machine;
    [active, persistent, before_try]
}

/// Puts other texts where its configs are published.
fn publish(machine: &mut Machine, text: impl Fn(&str) -> Value) {
    let published = machine.published.types.get_mut(MACHINE_CONFIG);
    published.into_iter().flatten().for_each(|(id, found)| found.spec = text(id));
}

/// The folder's own key.
fn key(folder: &Path) -> Option<age::x25519::Identity> {
    let text = std::fs::read_to_string(folder.join(super::KEY)).ok()?;
    text.lines().find_map(|line| line.parse().ok())
}

/// A world as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) api: SavedApi,
    pub(super) machines: Vec<Machine>,
    pub(super) timers: Timers,
    pub(super) faults: Faults,
    pub(super) store: ObjectStore,
    pub(super) certificate_days: i32,
    /// Those of the machines, in their order, which only the folder's key opens.
    #[serde(default)]
    pub(super) configs: Option<String>,
}

/// Takes the folder, which is made if it does not exist; none while another process has it.
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
    let mut saved: Saved = serde_json::from_slice(&text).map_err(|error| {
        Error::invalid(format!("{}: {error}", path.display()))
            .hint("it was written by another version, or damaged: remove the folder to begin anew")
    })?;
    if let Some(sealed) = saved.configs.take() {
        let opened = key(folder).and_then(|key| age::decrypt(&key, sealed.as_bytes()).ok());
        let read = opened.and_then(|text| serde_json::from_slice::<Vec<[Option<String>; 3]>>(&text).ok());
        let read = read.ok_or_else(|| {
            Error::invalid(format!("{}: age.key does not open the configs in it", path.display()))
                .hint("remove the folder to begin anew")
        })?;
        for (machine, kept) in saved.machines.iter_mut().zip(read) {
            configs(machine).into_iter().zip(kept).for_each(|(place, config)| *place = config);
        }
    }
    for machine in &mut saved.machines {
        let (active, persistent) = (machine.active.clone(), machine.persistent.clone());
        publish(machine, |id| match (id, &active, &persistent) {
            (PERSISTENT_CONFIG, _, Some(text)) | (_, Some(text), _) => Value::from(text.as_str()),
            _ => Value::Null,
        });
    }
    Ok(Some(World::restore(saved)))
}

pub(super) fn save(folder: &Path, world: &World) -> Result<()> {
    let mut saved = world.keep();
    let fail = |error: &dyn std::fmt::Display| Error::failed(format!("the configs can't be kept: {error}"));
    match key(folder) {
        Some(key) => {
            let configs: Vec<[Option<String>; 3]> =
                saved.machines.iter_mut().map(|machine| configs(machine).map(Option::take)).collect();
            let text = serde_json::to_vec(&configs).map_err(|error| fail(&error))?;
            let sealed = age::encrypt_and_armor(&key.to_public(), &text).map_err(|error| fail(&error))?;
            saved.configs = Some(sealed);
        }
        None => {
            let found = saved.machines.iter_mut().flat_map(configs).flatten();
            found.for_each(|config| *config = redact(config));
        }
    }
    saved.machines.iter_mut().for_each(|machine| publish(machine, |_| Value::Null));
    let text = serde_json::to_vec(&saved).map_err(|error| Error::failed(error.to_string()))?;
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
