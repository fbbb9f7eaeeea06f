//! age keys: where sops looks for identities, whom it encrypts to, and new keys.

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::x25519;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::hybrid;
use super::metadata::AgeEntry;
use super::recipient::{Kind, Recipient, recipient_kind, shortened};
use super::value::DataKey;
use crate::error::{Error, Result};

/// The environment variables and directories that sops looks at.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `SOPS_AGE_KEY`: identities separated by white space.
    pub age_key: Option<SecretString>,
    /// `SOPS_AGE_KEY_FILE`
    pub age_key_file: Option<PathBuf>,
    /// `SOPS_AGE_KEY_CMD`: prints identities.
    pub age_key_cmd: Option<String>,
    /// `SOPS_AGE_RECIPIENTS`: separated by commas.
    pub age_recipients: Option<String>,
    /// The variables that name recipients of other kinds, and are set.
    pub other_recipients: Vec<(&'static str, &'static str)>,
    /// `SOPS_CONFIG`: the path of a `.sops.yaml`.
    pub sops_config: Option<PathBuf>,
    /// The user's configuration directory: `XDG_CONFIG_HOME`, else the platform's.
    pub config_dir: Option<PathBuf>,
}

const OTHER_RECIPIENTS: [(&str, &str); 6] = [
    ("SOPS_PGP_FP", "PGP"),
    ("SOPS_KMS_ARN", "AWS KMS"),
    ("SOPS_GCP_KMS_IDS", "Google Cloud KMS"),
    ("SOPS_HUAWEICLOUD_KMS_IDS", "Huawei Cloud KMS"),
    ("SOPS_AZURE_KEYVAULT_URLS", "Azure Key Vault"),
    ("SOPS_VAULT_URIS", "HashiCorp Vault"),
];

impl Environment {
    /// Reads this process' environment.
    pub fn from_process() -> Self {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// Reads variables through `get`.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let platform = if cfg!(target_os = "macos") {
            home.map(|home| home.join("Library/Application Support"))
        } else if cfg!(windows) {
            path("AppData")
        } else {
            home.map(|home| home.join(".config"))
        };
        Self {
            age_key: text("SOPS_AGE_KEY").map(SecretString::from),
            age_key_file: path("SOPS_AGE_KEY_FILE"),
            age_key_cmd: text("SOPS_AGE_KEY_CMD"),
            age_recipients: text("SOPS_AGE_RECIPIENTS"),
            other_recipients: OTHER_RECIPIENTS.into_iter().filter(|(name, _)| path(name).is_some()).collect(),
            sops_config: path("SOPS_CONFIG"),
            config_dir: path("XDG_CONFIG_HOME").or(platform),
        }
    }
}

/// A private key.
#[derive(Clone)]
enum Identity {
    Classic(x25519::Identity),
    Hybrid(Box<hybrid::Identity>),
}

impl Identity {
    fn public(&self) -> Recipient {
        match self {
            Self::Classic(key) => Recipient::Classic(key.to_public()),
            Self::Hybrid(key) => Recipient::Hybrid(Box::new(key.to_public())),
        }
    }

    fn text(&self) -> SecretString {
        match self {
            Self::Classic(key) => key.to_string(),
            Self::Hybrid(key) => key.to_text(),
        }
    }

    fn decrypt(&self, file: &[u8]) -> Result<Vec<u8>, age::DecryptError> {
        match self {
            Self::Classic(key) => age::decrypt(key, file),
            Self::Hybrid(key) => age::decrypt(key.as_ref(), file),
        }
    }
}

/// Everything that may decrypt, and every place that was looked at.
#[derive(Clone, Default)]
pub struct Identities {
    keys: Vec<Identity>,
    tried: Vec<String>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("tried", &self.tried).finish_non_exhaustive()
    }
}

impl Identities {
    /// Collects the identities of the file given by flag, then of all the places where sops looks: `SOPS_AGE_KEY`,
    /// `SOPS_AGE_KEY_FILE`, `SOPS_AGE_KEY_CMD` (run without `SOPS_AGE_RECIPIENT`) and
    /// `<config dir>/sops/age/keys.txt`. What is missing or unreadable there is remembered for the error of a
    /// decryption that fails. SSH keys and plugins are not supported.
    ///
    /// # Errors
    /// The file given by flag cannot be read or holds no identity.
    pub fn load(flag: Option<&Path>, env: &Environment) -> Result<Self> {
        let mut found = Self::default();
        if let Some(path) = flag {
            let text =
                read(path).map_err(|why| Error::invalid(format!("age key {}: {why}", path.display())))?;
            let keys =
                parse(&text).map_err(|why| Error::invalid(format!("age key {}: {why}", path.display())))?;
            found.add(path.display().to_string(), Ok(keys));
        }
        match &env.age_key {
            Some(text) => found.add("SOPS_AGE_KEY", parse_words(text.expose_secret())),
            None => found.tried.push("SOPS_AGE_KEY (not set)".to_owned()),
        }
        match &env.age_key_file {
            Some(path) => {
                let keys = read(path).and_then(|text| parse(&text));
                found.add(format!("SOPS_AGE_KEY_FILE {}", path.display()), keys);
            }
            None => found.tried.push("SOPS_AGE_KEY_FILE (not set)".to_owned()),
        }
        match &env.age_key_cmd {
            Some(command) => found.add("SOPS_AGE_KEY_CMD", run(command).and_then(|text| parse(&text))),
            None => found.tried.push("SOPS_AGE_KEY_CMD (not set)".to_owned()),
        }
        match &env.config_dir {
            Some(dir) => {
                let path = dir.join("sops/age/keys.txt");
                found.add(path.display().to_string(), read(&path).and_then(|text| parse(&text)));
            }
            None => found.tried.push("the default key file (no home directory)".to_owned()),
        }
        Ok(found)
    }

    /// Takes identities from their text alone; for tests and for keys that were just made.
    ///
    /// # Errors
    /// A line is no age identity.
    pub fn from_text(text: &str) -> Result<Self> {
        let keys = parse(text).map_err(Error::invalid)?;
        Ok(Self { keys, tried: vec!["the given identities".to_owned()] })
    }

    /// Decrypts an age file, armored or not, with the first identity that fits.
    ///
    /// # Errors
    /// None fits, or the file is damaged.
    pub fn open(&self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, age::DecryptError> {
        let mut failure = age::DecryptError::NoMatchingKeys;
        for identity in &self.keys {
            match identity.decrypt(file) {
                Ok(bytes) => return Ok(Zeroizing::new(bytes)),
                Err(age::DecryptError::NoMatchingKeys) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn add(&mut self, source: impl Into<String>, keys: Result<Vec<Identity>, String>) {
        let source = source.into();
        match keys {
            Ok(keys) => {
                let public: Vec<_> = keys.iter().map(|key| key.public().short()).collect();
                self.tried.push(format!("{source} ({})", public.join(", ")));
                self.keys.extend(keys);
            }
            Err(why) => self.tried.push(format!("{source} ({why})")),
        }
    }
}

/// The identities in a key file's text: one per line, `#` for comments.
fn parse(text: &str) -> Result<Vec<Identity>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    some(lines.map(identity).collect())
}

/// As [`parse`], with several on a line.
fn parse_words(text: &str) -> Result<Vec<Identity>, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    some(lines.flat_map(str::split_whitespace).map(identity).collect())
}

fn some(keys: Result<Vec<Identity>, String>) -> Result<Vec<Identity>, String> {
    keys.and_then(|keys| if keys.is_empty() { Err("holds no identity".to_owned()) } else { Ok(keys) })
}

/// Errors never quote the text: it is, or was meant to be, a secret.
fn identity(text: &str) -> Result<Identity, String> {
    const SUPPORTED: &str = "only AGE-SECRET-KEY-1… and AGE-SECRET-KEY-PQ-1… are supported";
    if text.starts_with("AGE-SECRET-KEY-PQ-1") {
        let key = text.parse().map(|key| Identity::Hybrid(Box::new(key)));
        return key.map_err(|why| format!("holds a post-quantum identity that {why}"));
    }
    if text.starts_with("AGE-SECRET-KEY-1") {
        let key = text.parse().map(Identity::Classic);
        return key.map_err(|_| format!("holds a line that is no age identity: it {}", hybrid::NOT_ONE));
    }
    if text.starts_with("AGE-PLUGIN-") {
        return Err(format!("holds a plugin's identity, {SUPPORTED}"));
    }
    if text.starts_with("-----BEGIN") {
        return Err(format!("holds an SSH key or an encrypted key file, {SUPPORTED}"));
    }
    Err(format!("holds a line that is no age identity, {SUPPORTED}"))
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "not found".to_owned(),
        kind => kind.to_string(),
    })
}

/// Runs a command of words without quoting and takes what it prints.
fn run(command: &str) -> Result<Zeroizing<String>, String> {
    if command.contains(['"', '\'', '\\', '$', '|', ';', '&']) {
        return Err("only words without quotes are supported".to_owned());
    }
    let mut words = command.split_whitespace();
    let program = words.next().ok_or("is empty")?;
    let output = Command::new(program).args(words).output().map_err(|error| error.kind().to_string())?;
    if !output.status.success() {
        return Err(format!("failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map(Zeroizing::new).map_err(|_| "did not print text".to_owned())
}

/// A new identity.
pub struct NewKey {
    identity: Identity,
    created: Timestamp,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NewKey").field(&self.recipient()).finish()
    }
}

impl NewKey {
    pub fn generate(now: Timestamp) -> Self {
        Self { identity: Identity::Classic(x25519::Identity::generate()), created: now }
    }

    /// A key that quantum computers cannot break either.
    pub fn post_quantum(now: Timestamp) -> Self {
        Self { identity: Identity::Hybrid(Box::new(hybrid::Identity::generate())), created: now }
    }

    pub fn recipient(&self) -> Recipient {
        self.identity.public()
    }

    /// The key file as `age-keygen` writes it.
    pub fn to_text(&self) -> SecretString {
        let identity = self.identity.text();
        let created = self.created.strftime("%Y-%m-%dT%H:%M:%SZ");
        let public = self.recipient();
        format!("# created: {created}\n# public key: {public}\n{}\n", identity.expose_secret()).into()
    }

    /// Writes the key file, readable by its owner only, with its directories.
    ///
    /// # Errors
    /// There is a file already (a key is never overwritten), or it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Error::failed(format!("key file {}: {error}", path.display()));
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(self.to_text().expose_secret().as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::refused(format!(
                "key file {}: there is one already, and a key is never overwritten",
                path.display()
            ))
            .hint("give another path, or move the old key away; without it what it encrypted is lost"),
            _ => failed(error.error),
        })?;
        Ok(())
    }
}

/// Encrypts a file's data key to every recipient.
pub(super) fn wrap_key(key: &DataKey, recipients: &[Recipient]) -> Result<Vec<AgeEntry>> {
    if recipients.is_empty() {
        return Err(Error::invalid("nobody to encrypt to")
            .hint("give --age age1…, set SOPS_AGE_RECIPIENTS, or write creation_rules into .sops.yaml"));
    }
    recipients
        .iter()
        .map(|recipient| {
            let enc = recipient
                .encrypt(key.as_slice())
                .map_err(|error| Error::failed(format!("encrypting to {}: {error}", recipient.short())))?;
            Ok(AgeEntry { recipient: recipient.to_string(), enc })
        })
        .collect()
}

/// Decrypts a file's data key with the first identity that fits.
pub(super) fn unwrap_key(entries: &[AgeEntry], identities: &Identities) -> Result<DataKey> {
    let mut damaged = None;
    for entry in entries {
        match identities.open(entry.enc.trim().as_bytes()) {
            Ok(bytes) => {
                let key: [u8; 32] = bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| Error::invalid("the encrypted data key is not 32 bytes long"))?;
                return Ok(Zeroizing::new(key));
            }
            Err(age::DecryptError::NoMatchingKeys) => {}
            Err(error) => {
                damaged = Some(format!("; the entry of {} is damaged: {error}", shortened(&entry.recipient)))
            }
        }
    }
    let recipients: Vec<_> = entries.iter().map(|entry| shortened(&entry.recipient)).collect();
    let hint = match unsupported(entries) {
        Some(kinds) => format!(
            "{kinds} cannot be used here, only age1… and age1pq1… keys; add such a recipient: put it into .sops.yaml and \
             run `sops updatekeys` where the other key is"
        ),
        None => "set SOPS_AGE_KEY_FILE to the key file that holds the identity of one of these recipients"
            .to_owned(),
    };
    Err(Error::invalid(format!(
        "no age identity can decrypt this file: it is encrypted to {}; tried: {}{}",
        recipients.join(", "),
        identities.tried.join("; "),
        damaged.unwrap_or_default()
    ))
    .hint(hint))
}

/// The kinds of a file's recipients if none of them is one whose identity could be given.
fn unsupported(entries: &[AgeEntry]) -> Option<String> {
    let mut kinds: Vec<_> = entries
        .iter()
        .map(|entry| match recipient_kind(&entry.recipient) {
            Kind::Ssh => Some("SSH keys"),
            Kind::Plugin => Some("age plugins"),
            Kind::Age | Kind::Unknown => None,
        })
        .collect::<Option<_>>()?;
    kinds.sort_unstable();
    kinds.dedup();
    Some(kinds.join(" and "))
}
