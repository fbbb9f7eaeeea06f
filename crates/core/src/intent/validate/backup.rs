//! Rules of `backup`: the stores and their credentials.

use std::net::IpAddr;

use super::{DNS_LABEL, Path, Rules, certificates, dns_label, dns_name};
use crate::intent::{Backup, Intent, Location};

const CLAIMS: &str = "write namespace and name, such as `media/cache` or `media/*`";

impl Rules<'_> {
    pub(super) fn backup(&self, intent: &Intent) {
        let Some(backup) = &intent.backup else { return };
        let at = |key: &'static str| ["backup".into(), key.into()];
        let found = format!("namespace `{}` is not allowed", backup.namespace);
        self.check(dns_label(&backup.namespace), &at("namespace"), &found, DNS_LABEL);
        self.credentials_secret(&at("credentialsSecret"), &backup.credentials_secret);
        self.check(
            !backup.secrets.is_empty(),
            &at("secrets"),
            "no secrets file is named",
            "name the SOPS files that hold the S3 credentials and the repository password",
        );
        self.location(&at("location"), &backup.location);
        let own = [at("location").as_slice(), &["credentialsSecret".into()]].concat();
        let found = "the default location's credentials are those of the server";
        let none = backup.location.credentials_secret.is_none();
        self.check(none, &own, found, "write it as `backup.credentialsSecret`");
        for (i, location) in backup.locations.iter().enumerate() {
            let of = ["backup".into(), "locations".into(), i.into()];
            self.location(&of, location);
            let before = || backup.all_locations().take(i + 1);
            let found = format!("location {} is listed twice", location.name);
            let name = [&of[..], &["name".into()]].concat();
            let twice = before().any(|other| other.name == location.name);
            self.check(
                !twice,
                &name,
                &found,
                "name each location once; that of `backup.location` is `default` unless it says otherwise",
            );
            if let Some(other) = before().find(|other| folder(other) == folder(location)) {
                let found =
                    format!("locations {} and {} are one folder of one bucket", other.name, location.name);
                self.check(false, &of, &found, "give each a bucket or a `prefix` of its own");
            }
        }
        self.schedules(backup);
        self.protection(backup);
    }

    /// How old backups may be, and what needs none.
    fn protection(&self, backup: &Backup) {
        for (namespaces, rpo) in &backup.rpo {
            let at = ["backup".into(), "rpo".into(), namespaces.as_str().into()];
            self.check(rpo.0 > 0, &at, "no backup is newer than 0 s", "write a time such as 26h");
        }
        for (i, exception) in backup.exceptions.iter().enumerate() {
            let at = |key: &'static str| ["backup".into(), "exceptions".into(), i.into(), key.into()];
            let allowed = "write why these claims need no backup: who reads the report wants to know";
            self.check(
                !exception.reason.trim().is_empty(),
                &at("reason"),
                "an exception without a reason",
                allowed,
            );
            self.check(!exception.claims.is_empty(), &at("claims"), "an exception for no claim", CLAIMS);
            for claim in &exception.claims {
                let parts = claim.split('/').collect::<Vec<_>>();
                let good =
                    matches!(parts[..], [namespace, name] if !namespace.is_empty() && !name.is_empty());
                self.check(good, &at("claims"), &format!("`{claim}` names no claims"), CLAIMS);
            }
        }
    }

    fn credentials_secret(&self, path: Path<'_>, name: &str) {
        let found = format!("`{name}` is not a name for a Secret");
        self.check(dns_name(name), path, &found, DNS_LABEL);
        let found = "velero-repo-credentials is the Secret with the repository's password";
        let allowed = "give the Secret with the store's credentials another name";
        self.check(name != "velero-repo-credentials", path, found, allowed);
    }

    fn location(&self, of: Path<'_>, location: &Location) {
        let at = |key: &'static str| [of, &[key.into()]].concat();
        if let Some(secret) = &location.credentials_secret {
            self.credentials_secret(&at("credentialsSecret"), secret);
        }
        let found = format!("`{}` is not a name for a location", location.name);
        self.check(dns_label(&location.name), &at("name"), &found, DNS_LABEL);
        let bucket = &location.bucket;
        let found = format!("`{bucket}` is not a bucket's name");
        let allowed = "use 3 to 63 small letters, digits, dashes and dots, a letter or digit first and last; a folder in it goes \
                       to `backup.location.prefix`";
        self.check(is_bucket(bucket), &at("bucket"), &found, allowed);
        if let Some(prefix) = &location.prefix {
            let good = prefix.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            let found = format!("`{prefix}` is not a folder in a bucket");
            self.check(
                good,
                &at("prefix"),
                &found,
                "write one such as `lab` or `clusters/lab`, without a slash first and last",
            );
        }
        let good = !location.region.is_empty() && !location.region.contains(char::is_whitespace);
        let found = format!("`{}` is not a region", location.region);
        self.check(good, &at("region"), &found, "write the bucket's; MinIO and most others take us-east-1");
        if let Some(url) = &location.url
            && let Err((what, allowed)) = is_endpoint(url, bucket)
        {
            self.check(false, &at("url"), &format!("`{url}` {what}"), &allowed);
        }
        if let Some(ca) = &location.ca_cert {
            let path = at("caCert");
            let clear = location.url.as_deref().is_some_and(|url| url.starts_with("http://"));
            let found = "a store that is spoken to in the clear shows no certificate";
            self.check(
                !clear,
                &path,
                found,
                "write https:// in `backup.location.url`, or leave `caCert` out",
            );
            if certificates::are_inline(ca)
                && let Err((line, why)) = certificates::check(ca)
            {
                let found = format!("line {line} of the certificates: {why}");
                self.check(false, &path, &found, certificates::HINT);
            }
        }
    }
}

/// What a location is, whatever it is called.
fn folder(location: &Location) -> (Option<&str>, &str, Option<&str>) {
    let url = location.url.as_deref().map(|url| url.trim_end_matches('/'));
    (url, &location.bucket, location.prefix.as_deref())
}

/// Source: Amazon S3 User Guide, "General purpose bucket naming rules".
fn is_bucket(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (3..=63).contains(&name.len())
        && name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().last())
        && !name.contains("..")
        && name.parse::<IpAddr>().is_err()
}

/// What is wrong with an endpoint, and what to write.
fn is_endpoint(url: &str, bucket: &str) -> std::result::Result<(), (&'static str, String)> {
    let write = || Err(("is not an address", "write https://host or http://host:port".to_owned()));
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(("has no scheme", "write https://host or http://host:port".into()));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(("is not of HTTP", "write https://host or http://host:port".into()));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(("holds credentials", "they go into the Secret of `backup.credentialsSecret`".into()));
    }
    if path.trim_matches('/') == bucket {
        return Err(("holds the bucket", "leave it out: `backup.location.bucket` names it".into()));
    }
    if !path.is_empty() || rest.contains(['?', '#']) {
        return Err((
            "holds a path",
            "end it with the host or its port; a folder in the bucket goes to `backup.location.prefix`"
                .into(),
        ));
    }
    let Ok(uri) = format!("{scheme}://{authority}/").parse::<http::Uri>() else { return write() };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let named = dns_name(&host.to_ascii_lowercase()) || host.parse::<IpAddr>().is_ok();
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    let ported = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if named && ported { Ok(()) } else { write() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_and_a_host_and_no_bucket() {
        for good in [
            "https://s3.lab",
            "http://10.0.0.5:9000",
            "https://[fd00::1]:9000",
            "https://s3.lab/",
            "https://minio.minio.svc.cluster.local:443",
        ] {
            assert_eq!(is_endpoint(good, "velero"), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("s3.lab", "no scheme"),
            ("s3.lab:9000", "no scheme"),
            ("ftp://s3.lab", "not of HTTP"),
            ("https://", "not an address"),
            ("https:///velero", "holds the bucket"),
            ("https://s3.lab/velero", "holds the bucket"),
            ("https://s3.lab/velero/", "holds the bucket"),
            ("https://s3.lab/a/b", "holds a path"),
            ("https://s3.lab?x=y", "holds a path"),
            ("https://id:key@s3.lab", "holds credentials"),
            ("https://s3.lab:", "not an address"),
            ("https://s3.lab:0", "not an address"),
            ("https://s3.lab:99999", "not an address"),
            ("https://s3 lab", "not an address"),
            ("https://s3..lab", "not an address"),
        ] {
            let found = is_endpoint(bad, "velero");
            assert!(found.as_ref().is_err_and(|(what, _)| what.contains(word)), "{bad}: {found:?}");
        }
    }

    #[test]
    fn a_bucket_is_named_by_the_rules_of_s3() {
        for good in ["velero", "my-backups.lab", "123"] {
            assert!(is_bucket(good), "{good}");
        }
        for bad in [
            "",
            "ab",
            "Velero",
            "my_bucket",
            "-velero",
            "velero-",
            "a..b",
            "velero/lab",
            "10.0.0.1",
            "s3://velero",
        ] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }
}
