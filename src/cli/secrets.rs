//! `secrets`: keys and SOPS files.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::report;
use crate::secrets::{
    Environment, Format, Identities, NewKey, Recipient, Selector, Settings, decrypt, encrypt, settings_for,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make an age key; the public key is printed.
    Keygen {
        /// The key file; one that exists is never overwritten.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// A post-quantum key (age1pq1…), for age 1.3, sops 3.12, Flux 2.9 or later.
        #[arg(long)]
        pq: bool,
    },
    /// Encrypt a file, or stdin, to stdout or in place.
    Encrypt {
        #[command(flatten)]
        place: FileArgs,
        /// Recipients, such as age1… [default: SOPS_AGE_RECIPIENTS, then .sops.yaml].
        #[arg(long, value_delimiter = ',', value_name = "RECIPIENT")]
        age: Vec<String>,
        /// Encrypt only below keys that match; '^(data|stringData)$' fits Kubernetes Secrets.
        #[arg(long, value_name = "REGEX")]
        encrypted_regex: Option<String>,
    },
    /// Decrypt a file, or stdin, to stdout; the MAC is always verified.
    Decrypt {
        #[command(flatten)]
        place: FileArgs,
        /// A file of age identities, tried before the places where sops looks.
        #[arg(long, value_name = "FILE")]
        age_key_file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// The file; stdin without it.
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// Write the result into the file itself.
    #[arg(short, long, requires = "path")]
    in_place: bool,
    /// The format [default: by the file's extension; YAML for stdin].
    #[arg(long, value_enum, value_name = "FORMAT")]
    input_type: Option<InputType>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum InputType {
    Yaml,
    Json,
    Binary,
}

pub(super) fn run(args: Args) -> Result<()> {
    let env = Environment::from_process();
    match args.what {
        What::Keygen { output, pq } => {
            let make = if pq { NewKey::post_quantum } else { NewKey::generate };
            let key = make(Timestamp::now());
            key.write(&output)?;
            report::stdout(&format!("{}\n", key.recipient()));
            Ok(())
        }
        What::Encrypt { place, age, encrypted_regex } => {
            let content = place.read()?;
            let settings = settings(&place, &age, encrypted_regex.as_deref(), &env)?;
            let text = encrypt(&content, place.format()?, &settings, Timestamp::now())
                .map_err(|e| e.at(place.name()))?;
            place.write(text.as_bytes())
        }
        What::Decrypt { place, age_key_file } => {
            let content = place.read()?;
            let text = std::str::from_utf8(&content)
                .map_err(|_| Error::invalid(format!("{}: is not text", place.name())))?;
            let identities = Identities::load(age_key_file.as_deref(), &env)?;
            let plain = decrypt(text, place.format()?, &identities).map_err(|e| e.at(place.name()))?;
            place.write(plain.expose())
        }
    }
}

fn settings(
    place: &FileArgs,
    age: &[String],
    encrypted_regex: Option<&str>,
    env: &Environment,
) -> Result<Settings> {
    let recipients = age.iter().map(|text| text.parse()).collect::<Result<Vec<Recipient>>>()?;
    let path = place.path.as_deref().unwrap_or_else(|| Path::new("stdin.yaml"));
    let mut settings = settings_for(path, &recipients, env)?;
    if let Some(pattern) = encrypted_regex {
        let regex =
            regex::Regex::new(pattern).map_err(|e| Error::invalid(format!("--encrypted-regex: {e}")))?;
        settings.selector = Selector::EncryptedRegex(regex);
    }
    Ok(settings)
}

impl FileArgs {
    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".into(), |path| path.display().to_string())
    }

    fn format(&self) -> Result<Format> {
        match (self.input_type, &self.path) {
            (Some(InputType::Yaml), _) | (None, None) => Ok(Format::Yaml),
            (Some(InputType::Json), _) => Ok(Format::Json),
            (Some(InputType::Binary), _) => Ok(Format::Binary),
            (None, Some(path)) => Format::of(path),
        }
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut content = Zeroizing::new(Vec::new());
        let read = match &self.path {
            Some(path) => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut content)),
            None => std::io::stdin().lock().read_to_end(&mut content),
        };
        read.map_err(|e| Error::invalid(format!("can't read {}: {e}", self.name())))?;
        Ok(content)
    }

    /// To stdout, or into the file: a new file of mode 0600 that takes the old one's place; where a link leads, not the link's.
    fn write(&self, content: &[u8]) -> Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.in_place) else {
            let _ = std::io::stdout().lock().write_all(content);
            return Ok(());
        };
        let fail = |e: std::io::Error| Error::failed(format!("can't write {}: {e}", path.display()));
        let path = &std::fs::canonicalize(path).map_err(fail)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
        file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
        file.persist(path).map_err(|e| fail(e.error))?;
        Ok(())
    }
}
