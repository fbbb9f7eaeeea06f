//! What several tests need.

use std::path::Path;
use std::process::Command;

use nodeprep::stack::StackSecret;
use secrecy::SecretString;

/// nodeprep in a folder that is its home too, with no other environment.
pub fn nodeprep(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    command.current_dir(folder).env_clear().env("HOME", folder);
    command
}

pub fn secret(name: &str, data: &[(&str, &str)]) -> StackSecret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect();
    StackSecret { name: name.into(), data }
}
