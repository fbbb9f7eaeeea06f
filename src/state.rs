//! What is kept on this machine between runs: a folder per cluster, and files of JSON lines that are on disk before
//! what they say is done.

use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a cluster's runs, lock and list of test objects are kept.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

/// What tells a cluster from others of its name: the fingerprints of its authorities, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterIdentity {
    /// Of the machine API's authority.
    pub talos: Option<String>,
    /// Of Kubernetes' authority.
    pub kubernetes: Option<String>,
}

impl ClusterIdentity {
    fn kinds(&self) -> [Option<&String>; 2] {
        [self.talos.as_ref(), self.kubernetes.as_ref()]
    }

    /// Whether both are of one cluster; nothing when they have nothing that could be compared. The machines decide: beside
    /// their configuration may lie one of Kubernetes that is another cluster's.
    fn same(&self, other: &Self) -> Option<bool> {
        self.kinds().into_iter().zip(other.kinds()).find_map(|(one, other)| Some(one? == other?))
    }

    /// The file beside a cluster's records that holds it; empty when there is none.
    fn read(folder: &Path) -> Self {
        let text = std::fs::read(folder.join(IDENTITY)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// In a cluster's folder: of which cluster it is.
const IDENTITY: &str = "cluster.json";

impl State {
    /// The folder of the cluster of this name and identity: `dir/<cluster>`, or `dir/<cluster>@…` when that is another one's.
    ///
    /// # Errors
    /// `Kind::Invalid`: several clusters have the name, and nothing is known of this one.
    pub fn find(dir: &Path, cluster: &str, identity: &ClusterIdentity) -> Result<Self> {
        let beside = format!("{cluster}@");
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let (names, others): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| name == cluster || name.starts_with(&beside));
        let Some(known) = identity.kinds().into_iter().flatten().next() else {
            if names.len() > 1 {
                return Err(Error::invalid(format!(
                    "{} clusters that this machine knows are called {cluster}",
                    names.len()
                ))
                .hint("name the one that is meant with --talosconfig or --kubeconfig"));
            }
            return Self::open(dir, names.first().map_or(cluster, String::as_str));
        };
        let same = |name: &String| ClusterIdentity::read(&dir.join(name)).same(identity) == Some(true);
        let own = || format!("{beside}{}", known.get(..12).unwrap_or(known));
        let taken = ClusterIdentity::read(&dir.join(cluster)).same(identity) == Some(false);
        // Whatever the file, or the talosconfig where there is none, calls it: a cluster has one folder, and one lock.
        let name =
            names.iter().find(|name| same(name)).or_else(|| others.iter().find(|name| same(name))).cloned();
        let found = Self::open(dir, &name.unwrap_or_else(|| if taken { own() } else { cluster.to_owned() }))?;
        let before = ClusterIdentity::read(&found.dir);
        let after = ClusterIdentity {
            talos: identity.talos.clone().or_else(|| before.talos.clone()),
            kubernetes: identity.kubernetes.clone().or_else(|| before.kubernetes.clone()),
        };
        if after != before {
            write_json(&found.dir.join(IDENTITY), &after)?;
        }
        Ok(found)
    }

    /// `dir/<cluster>`, made with mode 0700.
    pub fn open(dir: &Path, cluster: &str) -> Result<Self> {
        let dir = dir.join(cluster);
        make_private_dir(&dir)?;
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
}

/// The time, as events and journals write it: RFC 3339 in UTC, to the millisecond.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Makes a folder for its owner only (mode 0700), and those above it; one that exists stays as it is.
///
/// # Errors
/// `Kind::Failed` with the path.
pub fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Error::failed(format!("can't make the state folder {}: {error}", dir.display()))
            .hint("set NODEPREP_STATE to a folder that can be written")
    })
}

/// Writes a value as JSON, as [`write_private`] writes.
///
/// # Errors
/// `Kind::Failed` with the path.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::failed(format!("can't write {}: {error}", path.display())))?;
    write_private(path, &bytes)
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

/// Removes a file, if it is there.
///
/// # Errors
/// `Kind::Failed` with the path.
pub fn remove(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::failed(error.to_string())),
        _ => Ok(()),
    }
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
    /// Makes the file; one that exists already is another run's, and an error.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file)
        };
        Ok(Self { file: open().map_err(failed)? })
    }

    /// Goes on with a file that exists; a last line that a crash cut short goes.
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

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_name_have_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |talos: &str, kubernetes: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            ClusterIdentity { talos: some(talos), kubernetes: some(kubernetes) }
        };
        let name = |talos: &str, kubernetes: &str| {
            let found = State::find(folder.path(), "home", &identity(talos, kubernetes));
            found.map(|state| state.dir.file_name().unwrap().to_str().unwrap().to_owned())
        };
        let steps = [
            ("nothing is known of it yet", ("", ""), "home"),
            ("the first that says who it is", ("aaaa", ""), "home"),
            ("its other authority is learned", ("aaaa", "kkkk"), "home"),
            ("by its other authority alone", ("", "kkkk"), "home"),
            ("one authority was renewed", ("aaaa", "llll"), "home"),
            ("another cluster", ("bbbb", ""), "home@bbbb"),
            ("the other again", ("bbbb", "mmmm"), "home@bbbb"),
            ("the first again", ("aaaa", ""), "home"),
            ("a third, beside the first one's kubeconfig", ("cccc", "llll"), "home@cccc"),
            ("the other by its other authority", ("", "mmmm"), "home@bbbb"),
        ];
        for (what, (talos, kubernetes), expected) in steps {
            assert_eq!(name(talos, kubernetes).unwrap(), expected, "{what}");
        }
        let by_another_name = State::find(folder.path(), "admin@home", &identity("aaaa", "")).unwrap();
        assert_eq!(by_another_name.dir, folder.path().join("home"), "as a talosconfig calls it");
        let error = name("", "").unwrap_err();
        assert!(error.what.contains("3 clusters that this machine knows are called home"), "{error}");
    }
}
