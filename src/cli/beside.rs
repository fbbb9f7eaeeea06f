//! What lies beside another tool's file: the files that it names, and the environment.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::intent::import::Around;
use crate::secrets::{Environment, Format, Identities, decrypt, is_encrypted};

/// The folder of a file.
#[derive(Debug)]
pub(super) struct Beside {
    folder: PathBuf,
}

impl Beside {
    pub(super) fn of(file: &Path) -> Self {
        Self { folder: file.parent().map(Path::to_owned).unwrap_or_default() }
    }
}

impl Around for Beside {
    fn read(&self, path: &str) -> Result<Option<String>> {
        let bytes = match std::fs::read(self.folder.join(path)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::invalid(format!("can't read {path}: {e}"))),
        };
        let text =
            String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{path}: not a text file")))?;
        if !is_encrypted(&text, Format::Yaml) {
            return Ok(Some(text));
        }
        let identities = Identities::load(None, &Environment::from_process())?;
        let plain = decrypt(&text, Format::Yaml, &identities)?;
        Ok(Some(plain.expose_text()?.to_owned()))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.folder, Path::new(folder), 0, &mut found);
        found
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// How deep folders are looked into: a link may lead back up.
const DEEPEST: usize = 16;

fn walk(base: &Path, folder: &Path, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(base.join(folder)) else { return };
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    for name in names {
        let path = folder.join(name);
        if !base.join(&path).is_dir() {
            found.push(path.to_string_lossy().into_owned());
        } else if depth < DEEPEST {
            walk(base, &path, depth + 1, found);
        }
    }
}
