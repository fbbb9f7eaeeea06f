//! The proxy between here and an API server, found as kubectl finds it: the kubeconfig's own, else that of the environment.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dial::{Dial, Io};
use crate::error::{Error, Result};

/// The answer to CONNECT is never longer.
const LONGEST_ANSWER: usize = 8 << 10;

/// An HTTP proxy that passes connections on (RFC 9110, CONNECT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// The value of Proxy-Authorization.
    authorization: Option<String>,
}

impl Proxy {
    /// The proxy for a server: `own`, which holds always; else the one of the environment, unless it leaves the server out.
    pub(super) fn of(
        server: &Uri,
        own: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        if let Some(url) = own {
            return Self::parse("proxy-url", url).map(Some);
        }
        let https = server.scheme_str() != Some("http");
        let names = if https { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
        let Some((name, url)) = names.iter().find_map(|name| Some((name, environment(name)?))) else {
            return Ok(None);
        };
        let left_out = environment("NO_PROXY").or_else(|| environment("no_proxy")).unwrap_or_default();
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = server.port_u16().unwrap_or(if https { 443 } else { 80 });
        if is_left_out(host, port, &left_out) { Ok(None) } else { Self::parse(name, &url).map(Some) }
    }

    /// The URL may hold a password: it is not said.
    fn parse(name: &str, url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let wrong = || {
            Error::invalid(format!("{name}: not the URL of a proxy that can be used here"))
                .hint("http://HOST:PORT is; a server is reached without a proxy when NO_PROXY names it")
        };
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| wrong())?;
        let (Some(host), "http") = (uri.host(), scheme) else { return Err(wrong()) };
        let before = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: before.map(|(user, _)| format!("Basic {}", BASE64_STANDARD.encode(user))),
        })
    }

    /// Dials through the proxy.
    pub(super) fn dial(self, dial: &Dial) -> Dial {
        let (proxy, dial) = (Arc::new(self), Arc::clone(dial));
        Arc::new(move |host, port| {
            let (proxy, dial) = (Arc::clone(&proxy), Arc::clone(&dial));
            Box::pin(async move {
                let through = |error: &dyn std::fmt::Display| {
                    io::Error::other(format!("proxy {}:{}: {error}", proxy.host, proxy.port))
                };
                let mut stream =
                    dial(proxy.host.clone(), proxy.port).await.map_err(|error| through(&error))?;
                let answer = proxy.ask(&mut stream, &host, port).await.map_err(|error| through(&error))?;
                match answer.split_whitespace().nth(1) {
                    Some(code) if code.starts_with('2') => Ok(stream),
                    _ => Err(through(&format!("it answers: {}", answer.lines().next().unwrap_or_default()))),
                }
            })
        })
    }

    async fn ask(&self, stream: &mut Box<dyn Io>, host: &str, port: u16) -> io::Result<String> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let login = self
            .authorization
            .iter()
            .map(|login| format!("Proxy-Authorization: {login}\r\n"))
            .collect::<String>();
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // What follows the head is the server's own.
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < LONGEST_ANSWER {
            answer.push(stream.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Whether a list such as `NO_PROXY` names the server, as Go reads it (golang.org/x/net/http/httpproxy): domains and what
/// is below them, addresses, networks, each with a port where it matters; and this machine always.
fn is_left_out(host: &str, port: u16, list: &str) -> bool {
    let address = host.parse::<IpAddr>().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, length)) = entry.split_once('/') {
            let (network, length) = (network.parse::<IpAddr>().ok(), length.parse().ok());
            return matches!((address, network, length), (Some(a), Some(n), Some(l)) if is_within(a, n, l));
        }
        let named = entry.parse::<IpAddr>().ok();
        let (entry, only) = match entry.rsplit_once(':') {
            Some((entry, only)) if named.is_none() => (entry, Some(only)),
            _ => (entry, None),
        };
        if only.is_some_and(|only| only.parse() != Ok(port)) {
            return false;
        }
        let entry = entry.trim_matches(['[', ']']);
        if address.is_some() {
            return address == entry.parse().ok();
        }
        let domain = entry.trim_start_matches('*').to_ascii_lowercase();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let below = format!(".{}", domain.trim_start_matches('.'));
        host.ends_with(&below) || host == domain
    })
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let bits = |address| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((address, size), (network, of)) = (bits(address), bits(network));
    let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
    size == of && length <= size && address & mask == network & mask
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_directly_when_no_proxy_names_it() {
        for (host, list, left_out) in [
            ("10.0.0.5", "", false),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.6,10.0.0.0/24", true),
            ("10.0.1.5", "10.0.0.0/24", false),
            ("10.0.0.5", "10.0.0.5:6443", true),
            ("10.0.0.5", "10.0.0.5:443", false),
            ("fd00::5", "fd00::/8", true),
            ("fd00::5", "fd00::5", true),
            ("fd00::5", "10.0.0.0/0", false),
            ("api.home.lan", "home.lan", true),
            ("api.home.lan", ".home.lan", true),
            ("home.lan", ".home.lan", false),
            ("home.lan", "HOME.lan", true),
            ("nothome.lan", "home.lan", false),
            ("api.home.lan", " other , *.home.lan ", true),
            ("api.home.lan", "*", true),
            ("localhost", "", true),
            ("127.0.0.1", "", true),
        ] {
            assert_eq!(is_left_out(host, 6443, list), left_out, "{host} {list}");
        }
    }

    #[test]
    fn the_kubeconfig_s_own_proxy_holds_always_and_the_environment_s_unless_it_is_left_out() {
        let server: Uri = "https://10.0.0.5:6443".parse().unwrap();
        let found = |own, set: &'static [(&str, &str)]| {
            let environment = move |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            Proxy::of(&server, own, &environment)
        };
        let port = |found: Result<Option<Proxy>>| found.unwrap().map(|proxy| proxy.port);
        assert_eq!(port(found(None, &[])), None);
        assert_eq!(port(found(None, &[("https_proxy", "http://p:1"), ("HTTPS_PROXY", "p:2")])), Some(2));
        assert_eq!(port(found(None, &[("HTTP_PROXY", "http://p:1")])), None);
        assert_eq!(port(found(None, &[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "10.0.0.0/8")])), None);
        assert_eq!(port(found(Some("http://p:3"), &[("NO_PROXY", "*")])), Some(3));
        for bad in ["socks5://p:1", "https://u:hunter2@p:1", "http://u:hunter2@ p"] {
            let error = found(Some(bad), &[]).unwrap_err();
            assert!(error.hint.is_some() && !error.what.contains("hunter2"), "{error}");
        }
        let login = found(Some("http://u:p@h"), &[]).unwrap().unwrap();
        assert_eq!((login.port, login.authorization.as_deref()), (80, Some("Basic dTpw")));
    }

    /// What the proxy was asked, and what became of the connection when it answers so.
    async fn asked(answer: &'static str) -> (String, io::Result<String>) {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let stream = Arc::new(std::sync::Mutex::new(Some(ours)));
        let dial: Dial = Arc::new(move |_, _| {
            let stream = stream.lock().unwrap().take().unwrap();
            Box::pin(async { Ok(Box::new(stream) as Box<dyn Io>) })
        });
        let proxy = Proxy::parse("proxy-url", "http://u:p@proxy:8080").unwrap();
        let server = tokio::spawn(async move {
            let mut asked = vec![0; 1024];
            let length = theirs.read(&mut asked).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let got = match (proxy.dial(&dial))("10.0.0.5".into(), 6443).await {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.map(|_| text)
            }
            Err(error) => Err(error),
        };
        (server.await.unwrap(), got)
    }

    #[tokio::test]
    async fn a_connection_goes_through_the_proxy_that_says_yes() {
        let (asked_for, got) = asked("HTTP/1.1 200 Connection established\r\n\r\nhello").await;
        assert!(asked_for.starts_with("CONNECT 10.0.0.5:6443 HTTP/1.1\r\n"), "{asked_for}");
        assert!(asked_for.contains("Proxy-Authorization: Basic dTpw\r\n"), "{asked_for}");
        assert_eq!(got.unwrap(), "hello");
        let (_, got) = asked("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        assert!(got.unwrap_err().to_string().contains("proxy proxy:8080: it answers: HTTP/1.1 407"));
    }
}
