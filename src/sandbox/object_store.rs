//! The S3 store that backups go to, as far as a client can tell: what it lets in, how it refuses the rest, and what lies in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// What lies in it, by bucket and key, such as `velero/backups/daily/velero-backup.json`. Everything is JSON here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, Value>,
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

/// Why a request is refused.
enum Refusal<'a> {
    /// Before the store answers.
    Unsent(&'a str),
    /// By an answer with this status and text.
    Answered(u16, &'static str),
}

impl ObjectStore {
    /// Why it refuses a request, as the AWS client words it; `request` is the request's id.
    pub fn refusal(&self, key: &Key, bucket: &str, request: &str) -> Option<String> {
        Some(match self.refused(key, bucket)? {
            Refusal::Unsent(why) => why.to_owned(),
            Refusal::Answered(code, why) => answer(code, request, why),
        })
    }

    /// The same for a request whose answer has no text, only a status. That there is no such bucket can't be told then.
    pub fn refusal_of_head(&self, key: &Key, bucket: &str, request: &str) -> Option<String> {
        match self.refused(key, bucket)? {
            Refusal::Unsent(why) => Some(why.to_owned()),
            Refusal::Answered(403, _) => Some(answer(403, request, "api error Forbidden: Forbidden")),
            Refusal::Answered(..) => None,
        }
    }

    fn refused(&self, key: &Key, bucket: &str) -> Option<Refusal<'_>> {
        if let Some(why) = &self.refuses {
            return Some(Refusal::Unsent(why));
        }
        if key.id.is_empty() || key.secret.is_empty() {
            return Some(Refusal::Unsent(
                "get identity: get credentials: failed to refresh cached credentials, static credentials are empty",
            ));
        }
        let known = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|one| one == given);
        if !known(&self.accepts, &key.id) {
            return Some(Refusal::Answered(
                403,
                "api error InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
            ));
        }
        if !known(&self.secret, &key.secret) {
            return Some(Refusal::Answered(
                403,
                "api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you \
                 provided. Check your key and signing method.",
            ));
        }
        let there = |all: &Vec<String>| all.iter().any(|one| one == bucket);
        let gone = self.buckets.as_ref().is_some_and(|all| !there(all));
        gone.then_some(Refusal::Answered(404, "NoSuchBucket: The specified bucket does not exist"))
    }

    /// An object; the error is the answer when there is none.
    pub fn get(&self, bucket: &str, key: &str, request: &str) -> Result<&Value, String> {
        let found = self.objects.get(&place(bucket, key));
        found.ok_or_else(|| answer(404, request, "NoSuchKey: The specified key does not exist."))
    }

    pub fn put(&mut self, bucket: &str, key: &str, object: Value) {
        self.objects.insert(place(bucket, key), object);
    }

    /// Removes every object whose key starts so.
    pub fn remove(&mut self, bucket: &str, prefix: &str) {
        let prefix = place(bucket, prefix);
        self.objects.retain(|key, _| !key.starts_with(&prefix));
    }

    /// What the keys that start so go on with.
    pub fn list<'a>(&'a self, bucket: &str, prefix: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let prefix = place(bucket, prefix);
        self.objects.keys().filter_map(move |key| key.strip_prefix(&prefix))
    }
}

fn place(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

fn answer(code: u16, request: &str, why: &str) -> String {
    format!("https response error StatusCode: {code}, RequestID: {request}, HostID: {request}, {why}")
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
                    ..ObjectStore::default()
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

    #[test]
    fn an_answer_without_a_text_says_less() {
        let key = Key { id: "id".into(), secret: "secret".into() };
        let head = |store: ObjectStore| store.refusal_of_head(&key, "velero", "7");
        let any = ObjectStore::default;
        assert_eq!(head(any()), None);
        assert_eq!(head(ObjectStore { buckets: Some(vec![]), ..any() }), None);
        let forbidden = head(ObjectStore { accepts: Some("other".into()), ..any() });
        assert!(forbidden.is_some_and(|why| why.ends_with("HostID: 7, api error Forbidden: Forbidden")));
        let unsent = head(ObjectStore { refuses: Some("no such host".into()), ..any() });
        assert_eq!(unsent.as_deref(), Some("no such host"));
    }

    #[test]
    fn what_was_put_is_there_until_it_is_removed() {
        let mut store = ObjectStore::default();
        for (bucket, key) in [("a", "x/1"), ("a", "x/2"), ("a", "y"), ("ab", "x/3")] {
            store.put(bucket, key, key.into());
        }
        assert_eq!(store.get("a", "x/2", "7"), Ok(&Value::from("x/2")));
        assert_eq!(store.list("a", "x/").collect::<Vec<_>>(), ["1", "2"]);
        store.remove("a", "x/");
        let why = "https response error StatusCode: 404, RequestID: 7, HostID: 7, NoSuchKey: The specified key does not exist.";
        assert_eq!(store.get("a", "x/2", "7"), Err(why.to_owned()));
        assert_eq!(store.list("a", "").chain(store.list("ab", "")).collect::<Vec<_>>(), ["y", "x/3"]);
    }
}
