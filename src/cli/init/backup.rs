//! Where backups go, and the SOPS files that the new file names: credentials, the repository's password, passphrases.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rand::RngCore as _;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::{Asking, no_answer};
use crate::error::{Error, Result};
use crate::intent::init::{self, Answers, BACKUP_SECRETS, Backup, VOLUME_SECRETS};
use crate::intent::{CREDENTIALS_SECRET, LOCATION, Location};
use crate::report;
use crate::secrets::{
    Environment, Format, NewKey, Recipient, Settings, creation_rule, encrypt, settings_for,
};
use crate::stack::{CLOUD_KEY, REPOSITORY_SECRET};
use crate::state::write_new_private;
use crate::yaml::quote;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The S3 bucket that backups go to; the credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
    /// asked for.
    #[arg(long, value_name = "BUCKET")]
    backup_bucket: Option<String>,
    /// The store's address, such as https://s3.example.com; for AWS none is needed.
    #[arg(long, value_name = "URL")]
    backup_url: Option<String>,
    /// The store's region [default: us-east-1].
    #[arg(long, value_name = "REGION")]
    backup_region: Option<String>,
    /// Whether the bucket is part of the path, not of the host's name [default: true with --backup-url].
    #[arg(long, value_name = "BOOL")]
    backup_path_style: Option<bool>,
    /// No backup; the file says what that means.
    #[arg(long, conflicts_with_all = ["backup_bucket", "backup_url", "backup_region", "backup_path_style"])]
    no_backup: bool,
    /// Whom the secrets are encrypted to, such as age1… [default: by .sops.yaml, else the age key, else a new one].
    #[arg(long, value_delimiter = ',', value_name = "RECIPIENT")]
    age: Vec<String>,
}

impl Asking {
    /// Where backups go.
    pub(super) fn backup(&self, args: &Args) -> Result<Backup> {
        if args.no_backup {
            return Ok(Backup::Refused);
        }
        let given = args.backup_bucket.is_some() || args.backup_url.is_some() || args.backup_region.is_some();
        if !given && !self.somebody {
            report::stderr(
                "! no backup is in the file: give --backup-bucket, and --backup-url for anything but AWS; or --no-backup\n",
            );
            return Ok(Backup::Unsaid);
        }
        if !given && !yes("Back the volumes up to an S3 store?")? {
            return Ok(Backup::Refused);
        }
        let some = |text: &str| !text.is_empty();
        let url = match &args.backup_url {
            Some(url) => Some(url.clone()),
            None if given => None,
            None => Some(self.text("The store's address (- for AWS)", None, some, "--backup-url")?),
        };
        let url = url.filter(|url| url != "-");
        let bucket = match &args.backup_bucket {
            Some(bucket) => bucket.clone(),
            None => self.text("The bucket", None, some, "--backup-bucket")?,
        };
        let region = match &args.backup_region {
            Some(region) => region.clone(),
            None => self.text("The region", Some("us-east-1".into()), some, "--backup-region")?,
        };
        let path_style = match args.backup_path_style {
            Some(style) => style,
            None if self.somebody && url.is_some() => {
                yes("Is the bucket part of the path (most stores but AWS)?")?
            }
            None => url.is_some(),
        };
        Ok(Backup::To(Location {
            name: LOCATION.into(),
            bucket,
            prefix: None,
            region,
            url,
            path_style,
            checksum_algorithm: None,
            ca_cert: None,
            credentials_secret: None,
        }))
    }

    /// The store's credentials: of the environment, else what somebody types unseen.
    fn credentials(&self) -> Result<Option<(String, SecretString)>> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(id), Some(key)) = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Some((id, key.into())));
        }
        if !self.somebody {
            return Ok(None);
        }
        let id = self.text("The store's access key", None, |text| !text.is_empty(), "AWS_ACCESS_KEY_ID")?;
        let key = dialoguer::Password::new().with_prompt("Its secret key").interact().map_err(no_answer)?;
        Ok(Some((id, key.into())))
    }
}

fn yes(prompt: &str) -> Result<bool> {
    dialoguer::Confirm::new().with_prompt(prompt).default(true).interact().map_err(no_answer)
}

/// What is to be written beside the new file; nothing of it takes the place of a file that exists.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    key: Option<(NewKey, PathBuf)>,
    /// With what is in them, encrypted where it is secret.
    files: Vec<(PathBuf, String)>,
}

impl Secrets {
    /// Asks for what is missing and encrypts it.
    pub(super) fn of(answers: &Answers, file: &Path, args: &Args, asking: &Asking) -> Result<Self> {
        let base = file.parent().unwrap_or_else(|| Path::new(""));
        let mut plain = Vec::new();
        let missing = |path: &str| {
            let there = base.join(path).exists();
            if there {
                report::stderr(&format!("! {path} is there already, and was left as it is\n"));
            }
            !there
        };
        if matches!(answers.backup, Backup::To(_)) && missing(BACKUP_SECRETS) {
            match asking.credentials()? {
                Some((id, key)) => plain.push((BACKUP_SECRETS, velero(&id, &key))),
                None => report::stderr(&format!(
                    "! {BACKUP_SECRETS} was not written: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run it at a terminal to be asked\n"
                )),
            }
        }
        let passphrases = init::passphrases(answers);
        if !passphrases.is_empty() && missing(VOLUME_SECRETS) {
            let data = passphrases.iter().map(|(key, secret)| (key.as_str(), secret.0.expose_secret()));
            plain.push((VOLUME_SECRETS, secret("nodeprep-volumes", None, data)));
        }
        let mut secrets = Self::default();
        for (path, content) in plain {
            let path = base.join(path);
            let settings = secrets.settings(&path, base, &args.age)?;
            let text = encrypt(content.as_bytes(), Format::Yaml, &settings, Timestamp::now())
                .map_err(|e| e.at(path.display()))?;
            secrets.files.push((path, text));
        }
        Ok(secrets)
    }

    /// Whom to encrypt to: by the .sops.yaml that exists, else by one that is made here.
    fn settings(&mut self, path: &Path, base: &Path, age: &[String]) -> Result<Settings> {
        let env = Environment::from_process();
        let given = age.iter().map(|text| text.parse()).collect::<Result<Vec<Recipient>>>()?;
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let there = whole.ancestors().skip(1).any(|folder| folder.join(".sops.yaml").is_file());
        if there || env.sops_config.is_some() {
            return settings_for(path, &given, &env);
        }
        let config = base.join(".sops.yaml");
        let relative = path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned();
        let text = match self.files.iter().find(|(path, _)| *path == config) {
            Some((_, text)) => text.clone(),
            None => {
                let listed = env.age_recipients.as_deref().map(Recipient::parse_list).transpose()?;
                let recipients = match (given, listed) {
                    (given, _) if !given.is_empty() => given,
                    (_, Some(listed)) if !listed.is_empty() => listed,
                    _ => self.own_key(&env)?,
                };
                let text = sops_config(&recipients);
                self.files.push((config.clone(), text.clone()));
                text
            }
        };
        let rule = creation_rule(&text, &relative).map_err(|e| e.at(config.display()))?;
        rule.ok_or_else(|| Error::failed(format!("{}: no rule for {relative}", config.display())))
    }

    /// The age key where sops looks for one; a new one when there is none.
    fn own_key(&mut self, env: &Environment) -> Result<Vec<Recipient>> {
        let hint = "give --age age1…, the public key that the secrets are to be encrypted to";
        if env.age_key.is_some() || env.age_key_cmd.is_some() {
            return Err(Error::invalid("whom to encrypt the secrets to is not known").hint(hint));
        }
        let usual = env.config_dir.as_ref().map(|folder| folder.join("sops/age/keys.txt"));
        let Some(path) = env.age_key_file.clone().or(usual) else {
            return Err(Error::invalid("there is no place for an age key: HOME is not set").hint(hint));
        };
        if path.exists() {
            let text = std::fs::read_to_string(&path).map(Zeroizing::new);
            let text = text.map_err(|e| Error::invalid(format!("age key {}: {e}", path.display())))?;
            let public = text.lines().find_map(|line| line.trim().strip_prefix("# public key:"));
            let Some(public) = public else {
                let what = format!("age key {}: it does not say its public key", path.display());
                return Err(Error::invalid(what).hint(hint));
            };
            return Ok(vec![public.trim().parse()?]);
        }
        let key = NewKey::generate(Timestamp::now());
        let recipient = key.recipient();
        self.key = Some((key, path));
        Ok(vec![recipient])
    }

    pub(super) fn write(&self) -> Result<()> {
        if let Some((key, path)) = &self.key {
            key.write(path)?;
            let path = path.display();
            report::stdout(&format!("wrote {path}: the age key that opens the secrets; keep a copy of it\n"));
        }
        for (path, text) in &self.files {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| Error::failed(format!("can't write {}: {e}", path.display())))?;
            }
            if !write_new_private(path, text.as_bytes())? {
                return Err(Error::refused(format!("{} is there already", path.display())));
            }
            report::stdout(&format!("wrote {}\n", path.display()));
        }
        Ok(())
    }
}

/// The rules of a repository that keeps machine configs, manifests and these secrets.
fn sops_config(recipients: &[Recipient]) -> String {
    let age = recipients.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    format!(
        "creation_rules:\n  - path_regex: talos/.*\\.sops\\.ya?ml\n    mac_only_encrypted: true\n    age: {age}\n  \
         - path_regex: (bootstrap|kubernetes|secrets)/.*\\.sops\\.ya?ml\n    encrypted_regex: ^(data|stringData)$\n    \
         mac_only_encrypted: true\n    age: {age}\nstores:\n  yaml:\n    indent: 2\n"
    )
}

/// The store's credentials, and a new password for what is kept there.
fn velero(id: &str, key: &SecretString) -> Zeroizing<String> {
    let mut random = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(random.as_mut_slice());
    let password = Zeroizing::new(BASE64_STANDARD.encode(random.as_slice()));
    let cloud = Zeroizing::new(format!(
        "[default]\naws_access_key_id={id}\naws_secret_access_key={}\n",
        key.expose_secret()
    ));
    let (name, entry) = (CREDENTIALS_SECRET, CLOUD_KEY);
    let cloud = secret(name, Some("velero"), [(entry, cloud.as_str())].into_iter());
    let (name, entry) = REPOSITORY_SECRET;
    let repository = secret(name, Some("velero"), [(entry, password.as_str())].into_iter());
    Zeroizing::new(format!("{}---\n{}", *cloud, *repository))
}

fn secret<'d>(
    name: &str,
    namespace: Option<&str>,
    data: impl Iterator<Item = (&'d str, &'d str)>,
) -> Zeroizing<String> {
    let namespace = namespace.map_or_else(String::new, |namespace| format!("  namespace: {namespace}\n"));
    let mut text = Zeroizing::new(format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n{namespace}stringData:\n"
    ));
    for (key, value) in data {
        let (key, value) = (quote(key), Zeroizing::new(quote(value)));
        text.push_str(&format!("  {key}: {}\n", *value));
    }
    text
}
