//! The S3 store that backups go to, as far as a client can tell: what it lets in, and how it refuses the rest.

use serde::{Deserialize, Serialize};

/// What the store takes; where it says nothing, it takes anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ObjectStore {
    /// The id of the access key that it knows.
    pub accepts: Option<String>,
    /// The secret key that belongs to it.
    pub secret: Option<String>,
    pub buckets: Option<Vec<String>>,
    /// What every request ends with, such as the network's error.
    pub refuses: Option<String>,
}

/// An access key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

impl Key {
    /// Reads an AWS credentials file; what it does not hold is empty.
    pub fn read(file: &str) -> Self {
        let value = |wanted: &str| {
            let mut pairs = file.lines().filter_map(|line| line.split_once('='));
            let found = pairs.find(|(name, _)| name.trim() == wanted);
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self { id: value("aws_access_key_id"), secret: value("aws_secret_access_key") }
    }
}

impl ObjectStore {
    /// Why it refuses a request, as the AWS client words it; `request` is the request's id.
    pub fn refusal(&self, key: &Key, bucket: &str, request: &str) -> Option<String> {
        if let Some(why) = &self.refuses {
            return Some(why.clone());
        }
        if key.id.is_empty() || key.secret.is_empty() {
            let why = "failed to refresh cached credentials, static credentials are empty";
            return Some(format!("get identity: get credentials: {why}"));
        }
        let known = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|one| one == given);
        let (code, why) = if !known(&self.accepts, &key.id) {
            (
                403,
                "api error InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
            )
        } else if !known(&self.secret, &key.secret) {
            (
                403,
                "api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you \
                 provided. Check your key and signing method.",
            )
        } else if self.buckets.as_ref().is_some_and(|all| !all.iter().any(|one| one == bucket)) {
            (404, "NoSuchBucket: The specified bucket does not exist")
        } else {
            return None;
        };
        Some(format!(
            "https response error StatusCode: {code}, RequestID: {request}, HostID: {request}, {why}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_is_read_as_the_client_reads_it() {
        let file = "[default]\naws_access_key_id = lab\naws_secret_access_key=a=b\n";
        assert_eq!(Key::read(file), Key { id: "lab".into(), secret: "a=b".into() });
        assert_eq!(Key::read("nothing"), Key::default());
    }

    #[test]
    fn what_is_wrong_is_refused_in_the_clients_words() {
        let store =
            |accepts: Option<&str>, secret: Option<&str>, bucket: Option<&str>, refuses: Option<&str>| {
                ObjectStore {
                    accepts: accepts.map(str::to_owned),
                    secret: secret.map(str::to_owned),
                    buckets: bucket.map(|one| vec![one.to_owned()]),
                    refuses: refuses.map(str::to_owned),
                }
            };
        let key = Key { id: "id".into(), secret: "secret".into() };
        for (store, words) in [
            (store(None, None, None, None), None),
            (store(Some("id"), Some("secret"), Some("velero"), None), None),
            (
                store(Some("other"), None, None, None),
                Some("403, RequestID: 7, HostID: 7, api error InvalidAccessKeyId"),
            ),
            (store(Some("id"), Some("other"), None, None), Some("api error SignatureDoesNotMatch: The")),
            (store(None, None, Some("other"), None), Some("StatusCode: 404")),
            (store(None, None, None, Some("dial tcp: no such host")), Some("dial tcp: no such host")),
        ] {
            let refusal = store.refusal(&key, "velero", "7");
            match words {
                None => assert_eq!(refusal, None),
                Some(words) => assert!(refusal.is_some_and(|why| why.contains(words)), "{words}"),
            }
        }
        let empty = ObjectStore::default().refusal(&Key::default(), "velero", "7");
        assert!(empty.is_some_and(|why| why.contains("static credentials are empty")));
    }
}
