//! Which cluster is meant: kubeconfig files by kubectl's rules, or the pod's own service account.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::Config;
use kube::config::{ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::proxy::Proxy;
use crate::config_doc;
use crate::error::{Error, Result, chain};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// A cluster's connection data, and what people call it.
pub(super) struct Connection {
    pub config: Config,
    /// What its connections go through.
    pub proxy: Option<Proxy>,
    pub name: String,
}

/// Finds and reads the connection data.
pub(super) async fn load(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Connection> {
    let places = places(kubeconfig);
    let Some(files) = read_all(&places, kubeconfig.is_some())? else {
        return in_cluster(&places);
    };
    let name = context.map(str::to_owned).or_else(|| files.current_context.clone()).filter(|n| !n.is_empty());
    let Some(name) = name else {
        return Err(Error::invalid(format!("{}: no current context is set", list(&places)))
            .hint(format!("name one with --context: {}", contexts(&files))));
    };
    if !files.contexts.iter().any(|c| c.name == name) {
        return Err(Error::invalid(format!("{}: no context named `{name}`", list(&places)))
            .hint(format!("contexts there: {}", contexts(&files))));
    }
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    let own = proxy_url(&files, &name);
    let mut config = Config::from_custom_kubeconfig(files, &options)
        .await
        .map_err(|e| Error::invalid(format!("context `{name}`: {}", chain(&e))))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    refuse_expired(&config, &name)?;
    hold_credentials(&mut config);
    let proxy = Proxy::of(&config.cluster_url, own.as_deref(), &environment);
    let proxy = proxy.map_err(|error| error.at(format!("context `{name}`")))?;
    let name = format!("context {name} ({})", config.cluster_url);
    Ok(Connection { config, proxy, name })
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The proxy that the context's cluster names itself.
fn proxy_url(files: &Kubeconfig, context: &str) -> Option<String> {
    let context = files.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    let cluster = files.clusters.iter().find(|one| one.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The credentials are known again in what others say. A login command that nobody can answer is told so, and what it
/// prints as its errors, which may hold a token, is not passed on.
fn hold_credentials(config: &mut Config) {
    let auth = &mut config.auth_info;
    for secret in [&auth.token, &auth.password, &auth.client_key_data].into_iter().flatten() {
        config_doc::hold(secret.expose_secret());
    }
    if let Some(exec) = &mut auth.exec
        && !std::io::stdin().is_terminal()
        && exec.interactive_mode != Some(ExecInteractiveMode::Always)
    {
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
}

/// Whether the connection data of a file trust this authority, which is base64 of PEM as machine configs have it.
pub async fn trusts(kubeconfig: &Path, context: Option<&str>, authority: &str) -> Result<bool> {
    let found = load(Some(kubeconfig), context).await?;
    let pem = BASE64_STANDARD.decode(authority.trim()).unwrap_or_default();
    let Ok(authority) = CertificateDer::from_pem_slice(&pem) else { return Ok(false) };
    Ok(found.config.root_cert.is_some_and(|trusted| trusted.iter().any(|one| **one == *authority)))
}

/// What tells the cluster from others, without asking it: of the authority that the files trust, else of the server's address.
pub fn fingerprint(kubeconfig: Option<&Path>, context: Option<&str>) -> Option<String> {
    let files = read_all(&places(kubeconfig), false).ok()??;
    let name = context.map(str::to_owned).or_else(|| files.current_context.clone())?;
    let context = files.contexts.iter().find(|one| one.name == name)?.context.as_ref()?;
    let cluster = files.clusters.iter().find(|one| one.name == context.cluster)?.cluster.as_ref()?;
    let data = cluster.certificate_authority_data.as_ref().map(|data| data.trim().as_bytes().to_vec());
    let read = || std::fs::read(cluster.certificate_authority.as_ref()?).ok();
    let what = data.or_else(read).or_else(|| cluster.server.clone().map(String::into_bytes))?;
    Some(Sha256::digest(&what).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether there is anything where kubectl looks for its configuration, or this process runs in a pod.
pub fn has_config() -> bool {
    places(None).iter().any(|path| path.exists()) || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// The files kubectl would read, in its order; those of `KUBECONFIG` are merged.
fn places(flag: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = flag {
        return vec![path.to_owned()];
    }
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|value| std::env::split_paths(&value).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect()
}

/// Reads and merges the files; one that is missing counts as empty (as kubectl does), unless it `must_exist`.
fn read_all(places: &[PathBuf], must_exist: bool) -> Result<Option<Kubeconfig>> {
    let mut merged: Option<Kubeconfig> = None;
    for path in places {
        let one = match Kubeconfig::read_from(path) {
            Ok(one) => one,
            Err(KubeconfigError::ReadConfig(e, _)) if e.kind() == std::io::ErrorKind::NotFound => {
                if must_exist {
                    return Err(Error::invalid(format!("{}: no such kubeconfig", path.display()))
                        .hint("`talosctl kubeconfig` writes one for a Talos cluster"));
                }
                continue;
            }
            Err(error) => return Err(unreadable(path, &error)),
        };
        merged = Some(match merged {
            None => one,
            Some(before) => before.merge(one).map_err(|e| unreadable(path, &e))?,
        });
    }
    Ok(merged)
}

/// The parser's snippet of the file is left out: it could quote a key.
fn unreadable(path: &Path, error: &KubeconfigError) -> Error {
    let why = match error {
        KubeconfigError::Parse(e) => match e.location() {
            Some(at) => format!("not a kubeconfig (line {}, column {})", at.line(), at.column()),
            None => "not a kubeconfig".into(),
        },
        KubeconfigError::ReadConfig(e, _) => e.to_string(),
        other => chain(other),
    };
    Error::invalid(format!("{}: {why}", path.display()))
}

fn in_cluster(tried: &[PathBuf]) -> Result<Connection> {
    let mut config = Config::incluster().map_err(|_| {
        Error::invalid(format!("no kubeconfig: tried {} and the pod's service account", list(tried)))
            .hint("give --kubeconfig FILE or set KUBECONFIG; `talosctl kubeconfig` writes one")
    })?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let proxy = Proxy::of(&config.cluster_url, None, &environment)?;
    let name = format!("in-cluster ({})", config.cluster_url);
    Ok(Connection { config, proxy, name })
}

/// An expired client certificate only shows as "Unauthorized" at the server; here its date can be told.
fn refuse_expired(config: &Config, context: &str) -> Result<()> {
    let auth = &config.auth_info;
    let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
        (Some(data), _) => BASE64_STANDARD.decode(data.trim()).ok(),
        (None, Some(path)) => fs_err::read(path).ok(),
        (None, None) => None,
    };
    let Some(not_after) = pem.as_deref().and_then(not_after) else { return Ok(()) };
    let expires = jiff::Timestamp::from_second(not_after)
        .map_err(|e| Error::invalid(format!("context `{context}`: client certificate: {e}")))?;
    if expires > jiff::Timestamp::now() {
        return Ok(());
    }
    Err(Error::invalid(format!("context `{context}`: the client certificate expired on {expires}"))
        .hint("get a new kubeconfig: `talosctl kubeconfig --force`"))
}

/// When the first certificate of a PEM text ends, in Unix seconds.
fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

fn list(places: &[PathBuf]) -> String {
    match places {
        [] => "no file (HOME is not set)".into(),
        _ => places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

fn contexts(files: &Kubeconfig) -> String {
    match files.contexts.as_slice() {
        [] => "none".into(),
        all => all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]

    use super::*;
    use crate::error::Kind;

    /// A kubeconfig with one context, whose user has the given fields.
    fn write(dir: &Path, context: &str, server: &str, user: &str) -> PathBuf {
        let path = dir.join(format!("{context}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {context}\n\
             contexts: [{{name: {context}, context: {{cluster: {context}, user: {context}}}}}]\n\
             clusters: [{{name: {context}, cluster: {{server: \"{server}\"}}}}]\n\
             users: [{{name: {context}, user: {user}}}]\n"
        );
        fs_err::write(&path, text).unwrap();
        path
    }

    async fn refusal(path: &Path, context: Option<&str>) -> Error {
        load(Some(path), context).await.err().unwrap()
    }

    #[tokio::test]
    async fn a_kubeconfig_that_will_not_do_says_which_file_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "lab", "https://127.0.0.1:1", "{token: hunter2}");
        let missing = refusal(&dir.path().join("none"), None).await;
        assert_eq!(missing.kind, Kind::Invalid);
        assert!(missing.what.contains("none: no such kubeconfig"), "{missing}");
        let unknown = refusal(&path, Some("prod")).await;
        assert!(unknown.what.contains("no context named `prod`"), "{unknown}");
        assert_eq!(unknown.hint.as_deref(), Some("contexts there: lab"));
        let broken = dir.path().join("broken");
        fs_err::write(&broken, "users: [{name: x, user: {token: hunter2").unwrap();
        let broken = refusal(&broken, None).await;
        assert!(broken.what.contains("not a kubeconfig"), "{broken}");
        assert!(!broken.what.contains("hunter2"), "{broken}");
        let empty = dir.path().join("empty");
        fs_err::write(&empty, "").unwrap();
        assert!(refusal(&empty, None).await.what.contains("no current context"));
    }

    #[test]
    fn several_files_are_merged_and_a_missing_one_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let one = write(dir.path(), "one", "https://127.0.0.1:1", "{}");
        let two = write(dir.path(), "two", "https://127.0.0.1:2", "{}");
        let merged = read_all(&[one, dir.path().join("none"), two], false).unwrap().unwrap();
        assert_eq!(contexts(&merged), "one, two");
        assert_eq!(merged.current_context.as_deref(), Some("one"));
        assert!(read_all(&[dir.path().join("none")], false).unwrap().is_none());
    }

    #[tokio::test]
    async fn an_expired_client_certificate_is_named_with_its_date() {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, expired) in [(2020, true), (2090, false)] {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 1, 2);
            let certificate = BASE64_STANDARD.encode(params.self_signed(&key).unwrap().pem());
            let user = format!(
                "{{client-certificate-data: {certificate}, client-key-data: {}}}",
                BASE64_STANDARD.encode(key.serialize_pem())
            );
            let path = write(dir.path(), "lab", "https://127.0.0.1:1", &user);
            let result = load(Some(&path), None).await;
            assert_eq!(result.is_err(), expired);
            if let Err(error) = result {
                assert_eq!(error.kind, Kind::Invalid);
                assert!(error.what.contains("expired on 2020-01-02T"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_down_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "lab", "http://127.0.0.1:1", "{}");
        let error =
            crate::cluster::Cluster::connect(Some(&path), None, &crate::dial::tcp()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.what.contains("context lab (http://127.0.0.1:1/)"), "{error}");
    }
}
