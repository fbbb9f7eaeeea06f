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
    /// The region that its buckets are in.
    pub region: Option<String>,
    /// Its name alone is known to the DNS, none that begins with a bucket's.
    #[serde(default)]
    pub by_path: bool,
    /// It speaks no TLS.
    #[serde(default)]
    pub plain: bool,
    /// The certificate of the authority that signed its own, which no public one did.
    pub authority: Option<String>,
    /// It knows no checksum headers.
    #[serde(default)]
    pub no_checksums: bool,
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

/// How a client asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreCall {
    pub key: Key,
    pub bucket: String,
    pub region: String,
    /// The endpoint; nothing for the public one.
    pub url: Option<String>,
    pub path_style: bool,
    /// The certificates that it takes beside the public ones.
    pub trusts: String,
    /// It sends checksum headers.
    pub checksums: bool,
}

impl StoreCall {
    /// The address of the bucket's objects.
    fn address(&self) -> String {
        let url = self.url.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", self.region));
        let (scheme, host) = url.split_once("://").unwrap_or(("https", &url));
        if self.path_style {
            format!("{scheme}://{host}/{}", self.bucket)
        } else {
            format!("{scheme}://{}.{host}/", self.bucket)
        }
    }

    fn host(&self) -> String {
        let address = self.address();
        let host = address.split("://").last().unwrap_or_default().split(['/', ':']).next();
        host.unwrap_or_default().to_owned()
    }

    fn over_tls(&self) -> bool {
        self.address().starts_with("https://")
    }
}

/// Why a request is refused.
enum Refusal {
    /// Before it is sent.
    Unsent(String),
    /// By the network, or by the other end before it answers.
    Broken(String),
    /// By an answer with this status and text.
    Answered(u16, String),
}

impl ObjectStore {
    /// Why it refuses a request, as the AWS client words it; `request` is the request's id.
    pub fn refusal(&self, asked: &StoreCall, request: &str) -> Option<String> {
        Some(match self.refused(asked)? {
            Refusal::Unsent(why) => why,
            Refusal::Broken(why) => unsent(asked, &why),
            Refusal::Answered(code, why) => answer(code, request, &why),
        })
    }

    /// The same for a request whose answer has no text, only a status. That there is no such bucket can't be told then.
    pub fn refusal_of_head(&self, asked: &StoreCall, request: &str) -> Option<String> {
        match self.refused(asked)? {
            Refusal::Unsent(why) => Some(why),
            Refusal::Broken(why) => Some(unsent(asked, &why)),
            Refusal::Answered(403, _) => Some(answer(403, request, "api error Forbidden: Forbidden")),
            Refusal::Answered(301, _) => {
                Some(answer(301, request, "api error MovedPermanently: Moved Permanently"))
            }
            Refusal::Answered(400, _) => Some(answer(400, request, "api error BadRequest: Bad Request")),
            Refusal::Answered(..) => None,
        }
    }

    /// Why it refuses to keep an object, where it takes other requests.
    pub fn refusal_of_put(&self, asked: &StoreCall, request: &str) -> Option<String> {
        let header = "api error InvalidArgument: Unsupported header 'x-amz-sdk-checksum-algorithm' received for this API call.";
        let of_all = self.refusal(asked, request);
        of_all.or_else(|| (self.no_checksums && asked.checksums).then(|| answer(400, request, header)))
    }

    fn refused(&self, asked: &StoreCall) -> Option<Refusal> {
        let StoreCall { key, bucket, .. } = asked;
        if let Some(why) = &self.refuses {
            return Some(Refusal::Unsent(why.clone()));
        }
        if key.id.is_empty() || key.secret.is_empty() {
            let why = "get identity: get credentials: failed to refresh cached credentials, static credentials are empty";
            return Some(Refusal::Unsent(why.into()));
        }
        if let Some(why) = self.unreached(asked) {
            return Some(Refusal::Broken(why));
        }
        let known = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|one| one == given);
        let answered = |code, why: &str| Some(Refusal::Answered(code, why.to_owned()));
        if let Some(region) = self.region.as_ref().filter(|region| **region != asked.region) {
            let given = &asked.region;
            let why = format!(
                "api error AuthorizationHeaderMalformed: The authorization header is malformed; the region '{given}' is wrong; \
                 expecting '{region}'"
            );
            return answered(400, &why);
        }
        if !known(&self.accepts, &key.id) {
            return answered(
                403,
                "api error InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.",
            );
        }
        if !known(&self.secret, &key.secret) {
            return answered(
                403,
                "api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you \
                 provided. Check your key and signing method.",
            );
        }
        let there = |all: &Vec<String>| all.iter().any(|one| one == bucket);
        let gone = self.buckets.as_ref().is_some_and(|all| !there(all));
        if gone { answered(404, "NoSuchBucket: The specified bucket does not exist") } else { None }
    }

    /// Why no request comes to it.
    fn unreached(&self, asked: &StoreCall) -> Option<String> {
        let host = asked.host();
        if self.by_path && !asked.path_style {
            return Some(format!("dial tcp: lookup {host}: no such host"));
        }
        if self.plain && asked.over_tls() {
            return Some("http: server gave HTTP response to HTTPS client".into());
        }
        let strange = self.authority.as_ref().filter(|authority| !asked.trusts.contains(authority.trim()));
        let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        strange.filter(|_| asked.over_tls()).map(|_| why.into())
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

fn unsent(asked: &StoreCall, why: &str) -> String {
    let address = asked.address();
    format!(
        "https response error StatusCode: 0, RequestID: , HostID: , request send failed, Get {address:?}: {why}"
    )
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
        let asked = asked();
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
            let refusal = store.refusal(&asked, "7");
            match words {
                None => assert_eq!(refusal, None),
                Some(words) => assert!(refusal.is_some_and(|why| why.contains(words)), "{words}"),
            }
        }
        let empty = ObjectStore::default().refusal(&StoreCall::default(), "7");
        assert!(empty.is_some_and(|why| why.contains("static credentials are empty")));
    }

    fn asked() -> StoreCall {
        let key = Key { id: "id".into(), secret: "secret".into() };
        let url = Some("https://minio.lab:9000".into());
        StoreCall {
            key,
            bucket: "velero".into(),
            region: "us-east-1".into(),
            url,
            checksums: true,
            ..StoreCall::default()
        }
    }

    #[test]
    fn the_way_it_is_asked_has_to_be_its_own() {
        let any = ObjectStore::default;
        let ca = "-----BEGIN CERTIFICATE-----\nAA==";
        let by_path = ObjectStore { by_path: true, ..any() };
        let plain = ObjectStore { plain: true, ..any() };
        let strange = ObjectStore { authority: Some(ca.into()), ..any() };
        let elsewhere = ObjectStore { region: Some("eu-central-1".into()), ..any() };
        let path = StoreCall { path_style: true, ..asked() };
        let clear = StoreCall { url: Some("http://minio.lab:9000".into()), ..path.clone() };
        let trusts = StoreCall { trusts: format!("{ca}\n"), ..path.clone() };
        let there = StoreCall { region: "eu-central-1".into(), ..path.clone() };
        for (store, asked, words) in [
            (
                &by_path,
                &asked(),
                Some(
                    "Get \"https://velero.minio.lab:9000/\": dial tcp: lookup velero.minio.lab: no such host",
                ),
            ),
            (&by_path, &path, None),
            (
                &plain,
                &path,
                Some(
                    "Get \"https://minio.lab:9000/velero\": http: server gave HTTP response to HTTPS client",
                ),
            ),
            (&plain, &clear, None),
            (&strange, &path, Some("x509: certificate signed by unknown authority")),
            (&strange, &trusts, None),
            (&strange, &clear, None),
            (&elsewhere, &path, Some("the region 'us-east-1' is wrong; expecting 'eu-central-1'")),
            (&elsewhere, &there, None),
        ] {
            let refusal = store.refusal(asked, "7");
            assert_eq!(refusal.is_some(), words.is_some(), "{words:?}: {refusal:?}");
            assert!(words.is_none_or(|words| refusal.is_some_and(|why| why.ends_with(words))), "{words:?}");
        }
        let no_checksums = ObjectStore { no_checksums: true, ..any() };
        assert_eq!(no_checksums.refusal(&path, "7"), None);
        assert!(no_checksums.refusal_of_put(&path, "7").is_some_and(|why| why.contains("InvalidArgument")));
        assert_eq!(no_checksums.refusal_of_put(&StoreCall { checksums: false, ..path }, "7"), None);
    }

    #[test]
    fn an_answer_without_a_text_says_less() {
        let head = |store: ObjectStore| store.refusal_of_head(&asked(), "7");
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
