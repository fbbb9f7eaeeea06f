//! What several tests need.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodeprep::config_doc::ConfigDoc;
use nodeprep::error::Result;
use nodeprep::intent::import::Around;
use nodeprep::stack::StackSecret;
use secrecy::SecretString;

/// nodeprep in a folder that is its home too, with no other environment.
pub(crate) fn nodeprep(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    command.current_dir(folder).env_clear().env("HOME", folder);
    command
}

/// A golden file, or a folder of them.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// Whether the golden files are renewed.
pub(crate) fn renews() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Compares a text with the golden file, or writes the file when the golden files are renewed.
pub(crate) fn assert_golden(path: &Path, text: &str) {
    if renews() {
        std::fs::write(path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "{}", path.display());
}

pub(crate) fn secret(name: &str, data: &[(&str, &str)]) -> StackSecret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect();
    StackSecret { name: name.into(), data }
}

/// Says what a test found, also where it passes: what is printed there is not shown.
pub(crate) fn report(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Nothing lies around the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone;

impl Around for Alone {
    fn read(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn list(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// What a plan shows of a change.
pub(crate) fn diff(before: &str, after: &str) -> String {
    let parsed = |text| ConfigDoc::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    parsed(after).diff_from(&parsed(before))
}
