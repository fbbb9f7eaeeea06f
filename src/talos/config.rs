//! talosconfig: where it lies, which of its contexts is meant, and the credentials in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Where Talos mounts the talosconfig of a pod (siderolabs/talos, `ServiceAccountMountPath`).
const IN_CLUSTER: &str = "/var/run/secrets/talos.dev/config";

const RENEW: &str = "make a new one with `talosctl config new --roles os:admin NEW_FILE` while a valid one exists, or \
                     from the secrets: `talosctl gen config --with-secrets secrets.yaml --output-types talosconfig \
                     -o NEW_FILE CLUSTER https://ENDPOINT:6443`";

/// Where a talosconfig may lie. The environment is read by the caller.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `--talosconfig`; once given, no other place counts.
    pub flag: Option<PathBuf>,
    /// `$TALOSCONFIG`.
    pub talosconfig: Option<PathBuf>,
    /// `$TALOS_HOME`.
    pub talos_home: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl Places {
    /// The places in the order talosctl looks at them (siderolabs/talos, pkg/machinery/client/config/path.go).
    pub fn candidates(&self) -> Vec<PathBuf> {
        if let Some(flag) = &self.flag {
            return vec![flag.clone()];
        }
        let directory = self.talos_home.clone().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.or_else(|| self.home.as_ref().map(|home| home.join(".talos")));
        let named = self.talosconfig.clone().filter(|path| !path.as_os_str().is_empty());
        named
            .into_iter()
            .chain(directory.map(|path| path.join("config")))
            .chain([PathBuf::from(IN_CLUSTER)])
            .collect()
    }

    /// The first place where there is a file; `Kind::Invalid` naming every place when there is none.
    pub fn find(&self) -> Result<PathBuf> {
        let candidates = self.candidates();
        if let Some(found) = candidates.iter().find(|path| path.exists()) {
            return Ok(found.clone());
        }
        let places: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Err(Error::invalid(format!("no talosconfig at {}", places.join(", ")))
            .hint("name it with --talosconfig or TALOSCONFIG"))
    }
}

/// One context of a talosconfig: whom to call and with which credentials.
pub struct Context {
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// The addresses to connect to, as written: host or host:port.
    pub endpoints: Vec<String>,
    /// The nodes meant when none are named.
    pub nodes: Vec<String>,
    /// When the client certificate expires.
    pub expires: Timestamp,
    pub(super) ca: Vec<CertificateDer<'static>>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    key: SecretString,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("file", &self.file)
            .field("endpoints", &self.endpoints)
            .field("nodes", &self.nodes)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    contexts: Option<BTreeMap<String, ContextEntry>>,
}

#[derive(Deserialize)]
struct ContextEntry {
    /// The name `endpoints` had once.
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
    #[serde(default)]
    nodes: Option<Vec<String>>,
    #[serde(default)]
    ca: Option<String>,
    #[serde(default)]
    crt: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    auth: Option<Auth>,
    #[serde(default, rename = "proxy-url")]
    proxy: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    siderov1: Option<IgnoredAny>,
}

impl Context {
    /// Whether an authority, base64 of PEM as machine configs have it, is the one that it trusts.
    pub fn trusts(&self, authority: &str) -> bool {
        let pem = STANDARD.decode(authority.trim()).unwrap_or_default();
        CertificateDer::from_pem_slice(&pem).is_ok_and(|authority| self.ca.contains(&authority))
    }

    /// Of the authority that it trusts.
    pub fn fingerprint(&self) -> String {
        let first = self.ca.first().map(Sha256::digest).unwrap_or_default();
        first.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Finds and reads the talosconfig; `name` is `--context`, otherwise the file's own choice counts.
    ///
    /// All errors are `Kind::Invalid`: nothing found, malformed, no such context, no or expired credentials.
    pub fn load(places: &Places, name: Option<&str>, now: Timestamp) -> Result<Self> {
        let file = places.find()?;
        let text = fs_err::read_to_string(&file)
            .map(Zeroizing::new)
            .map_err(|error| Error::invalid(error.to_string()))?;
        Self::parse(&text, &file, name, now)
    }

    /// Reads the text of a talosconfig; `file` is named in errors. See [`Context::load`].
    pub fn parse(text: &str, file: &Path, name: Option<&str>, now: Timestamp) -> Result<Self> {
        let at = file.display();
        let File { context, contexts } = read(text).map_err(|error| error.at(&at))?;
        let mut contexts = contexts.unwrap_or_default();
        let chosen = name.map(str::to_owned).or(context).filter(|name| !name.is_empty());
        let known = contexts.keys().cloned().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has: {known}") };
        let Some(name) = chosen else {
            return Err(Error::invalid(format!("{at}: no context is chosen; {known}"))
                .hint("name one with --talos-context"));
        };
        let Some(entry) = contexts.remove(&name) else {
            return Err(Error::invalid(format!("{at}: no context {name:?}; {known}"))
                .hint("name one with --talos-context"));
        };
        entry.into_context(&name, file, now).map_err(|error| error.at(format!("{at}: context {name:?}")))
    }

    /// The private key, parsed anew for every use so that only the secrecy type keeps it.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.expose_secret().as_bytes()).map_err(|error| {
            Error::invalid(format!("{}: context {:?}: key: {error}", self.file.display(), self.name))
        })
    }
}

impl ContextEntry {
    fn into_context(self, name: &str, file: &Path, now: Timestamp) -> Result<Context> {
        if self.auth.is_some_and(|auth| auth.siderov1.is_some()) {
            return Err(Error::invalid("this is an Omni context (auth.siderov1), which nodeprep cannot use")
                .hint("get one with a client certificate: `omnictl talosconfig --break-glass`"));
        }
        if self.proxy.is_some() {
            return Err(Error::invalid("this context has a proxy-url, which nodeprep cannot use")
                .hint("reach the endpoints without a proxy, with a context that has no proxy-url"));
        }
        let ca = certificates("ca", self.ca)?;
        let certificates = certificates("crt", self.crt)?;
        let key = private_key_pem(self.key)?;
        let leaf = certificates.first().ok_or_else(|| Error::invalid("crt: holds no certificate"))?;
        let expires = check_dates(leaf, now)?;
        let endpoints = self.endpoints.unwrap_or_default().into_iter().chain(self.target).collect();
        let nodes = self.nodes.unwrap_or_default();
        let context = Context {
            name: name.into(),
            file: file.into(),
            endpoints,
            nodes,
            expires,
            ca,
            certificates,
            key,
        };
        context.private_key()?;
        Ok(context)
    }
}

/// Reads the YAML. What it says about a fault is only the place, since the text holds a private key.
fn read(text: &str) -> Result<File> {
    let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        Error::invalid(format!("not a talosconfig: the YAML is malformed{}", place.unwrap_or_default()))
    })
}

/// Decodes one field: PEM in base64. The result can be a private key.
fn decode(field: &str, value: Option<&str>) -> Result<Zeroizing<Vec<u8>>> {
    let value = value.unwrap_or_default();
    if value.is_empty() {
        return Err(Error::invalid(format!("{field} is missing")).hint("a context needs ca, crt and key"));
    }
    let compact: Zeroizing<String> = Zeroizing::new(value.split_ascii_whitespace().collect());
    let bytes = STANDARD.decode(compact.as_bytes());
    bytes.map(Zeroizing::new).map_err(|_| Error::invalid(format!("{field} is not base64")))
}

fn certificates(field: &str, value: Option<String>) -> Result<Vec<CertificateDer<'static>>> {
    let pem = decode(field, value.as_deref())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::invalid(format!("{field} holds no certificate in PEM"))),
    }
}

/// The key's PEM, with the label that rustls knows. Talos writes `ED25519 PRIVATE KEY` around the same PKCS #8 bytes
/// (siderolabs/crypto, x509/constants.go).
fn private_key_pem(value: Option<String>) -> Result<SecretString> {
    let value = value.map(Zeroizing::new);
    let pem = decode("key", value.as_ref().map(|value| value.as_str()))?;
    let text = std::str::from_utf8(&pem).map_err(|_| Error::invalid("key holds no private key in PEM"))?;
    let pem = Zeroizing::new(text.replace("ED25519 PRIVATE KEY", "PRIVATE KEY"));
    Ok(SecretString::from(pem.as_str()))
}

/// When the certificate expires, if it is valid `now`.
fn check_dates(certificate: &CertificateDer<'_>, now: Timestamp) -> Result<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| Error::invalid(format!("crt holds no readable certificate: {error}")))?;
    let date = |seconds| {
        Timestamp::from_second(seconds).map_err(|_| Error::invalid("crt: its dates cannot be read"))
    };
    let validity = parsed.validity();
    let (begins, expires) = (date(validity.not_before.timestamp())?, date(validity.not_after.timestamp())?);
    if now >= expires {
        let ago = days_between(expires, now);
        return Err(Error::invalid(format!(
            "the client certificate expired on {}, {ago} days ago",
            day(expires)
        ))
        .hint(RENEW));
    }
    if now < begins {
        return Err(Error::invalid(format!(
            "the client certificate is not valid before {begins}; it is {now} here"
        ))
        .hint("check the clock of this machine"));
    }
    Ok(expires)
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Whole days, rounded down.
pub(crate) fn days_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second().saturating_sub(from.as_second()).div_euclid(24 * 60 * 60)
}
