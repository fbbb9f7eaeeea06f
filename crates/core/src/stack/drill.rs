//! What the pods of a drill run: a script that writes a volume's files, lists them, or harms one of them. What it prints
//! is a `model::files::Listing`.

const SCRIPT: &str = include_str!("../../../../manifests/drill/files.sh");

/// How much a drill writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Small files, of 3000 bytes on the average.
    pub files: u32,
    /// Of the small files and the large ones.
    pub bytes: u64,
}

impl Amount {
    pub const QUICK: Self = Self { files: 500, bytes: 64 << 20 };
    pub const FULL: Self = Self { files: 20_000, bytes: 1 << 30 };
}

/// Writes files into the folder, or leaves those that are there, and lists them.
pub fn write(folder: &str, amount: Amount) -> String {
    let Amount { files, bytes } = amount;
    format!("{} {files} {bytes}", script("data", folder))
}

/// Lists the files of a folder.
pub fn list(folder: &str) -> String {
    script("list", folder)
}

/// Changes one byte of one file of the folder, says of which, and lists them.
pub fn harm(folder: &str) -> String {
    script("harm", folder)
}

fn script(verb: &str, folder: &str) -> String {
    format!("sh -c {} files.sh {verb} {}", quoted(SCRIPT), quoted(folder))
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
