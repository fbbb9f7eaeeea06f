//! The object store, asked from this machine before Velero asks it. What it answers is a hint: the machine may not reach what
//! the cluster does, or by another way.

mod call;
mod sign;
#[cfg(test)]
mod tests;

use hyper::body::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;

use crate::dial::Dial;
use call::{Broken, Call, Endpoint};

/// A bucket, and how it is asked.
#[derive(Debug, Clone)]
pub struct Store {
    /// Nothing for AWS.
    pub url: Option<String>,
    pub bucket: String,
    pub prefix: Option<String>,
    pub region: String,
    pub path_style: bool,
    /// Objects are sent with a checksum in a header.
    pub checksums: bool,
    /// Certificates (PEM) beside the public ones.
    pub ca_cert: Option<String>,
    pub key: Key,
}

/// An access key.
#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub secret: SecretString,
}

impl Key {
    /// The key below `[default]` of an AWS credentials file.
    pub fn read(file: &str) -> Option<Self> {
        let (mut id, mut secret, mut ours) = (None, None, false);
        for line in file.lines().map(str::trim) {
            if line.starts_with('[') {
                ours = line.trim_matches(['[', ']']).trim() == "default";
            } else if let Some((name, value)) = line.split_once('=').filter(|_| ours) {
                match name.trim() {
                    "aws_access_key_id" => id = Some(value.trim().to_owned()),
                    "aws_secret_access_key" => secret = Some(SecretString::from(value.trim())),
                    _ => {}
                }
            }
        }
        Some(Self { id: id.filter(|id| !id.is_empty())?, secret: secret? })
    }
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The bucket is listed: nothing changes.
    List,
    /// An object is put, read, and removed as well.
    Write,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Works,
    /// The store was there and refused, or its other end was none that can be spoken to.
    Refused(String),
    /// It is not known what the store would say.
    Unreached(String),
}

/// Asks the store. A test object that was put is removed whatever else happens.
pub async fn ask(store: &Store, depth: Depth, dial: &Dial, now: Timestamp) -> Answer {
    let tried = async {
        let at = Endpoint::of(store)?;
        let call = Call { store, at: &at, dial, now };
        list(&call).await?;
        if depth == Depth::Write { write(&call).await } else { Ok(()) }
    };
    match tried.await {
        Ok(()) => Answer::Works,
        Err(Broken::Refused(why)) => Answer::Refused(why),
        Err(Broken::Unreached(why)) => Answer::Unreached(why),
    }
}

/// An object below the store's prefix.
///
/// # Errors
/// Why it can't be had, for people.
pub async fn get(store: &Store, key: &str, dial: &Dial, now: Timestamp) -> Result<Bytes, String> {
    let got = async {
        let at = Endpoint::of(store)?;
        let key = store.prefix.as_ref().map_or_else(|| key.to_owned(), |prefix| format!("{prefix}/{key}"));
        let call = Call { store, at: &at, dial, now };
        call.load(&key).await.map_err(|broken| broken.at("GetObject"))
    };
    got.await.map_err(|broken| match broken {
        Broken::Refused(why) => why,
        Broken::Unreached(why) => format!("not reached from here: {why}"),
    })
}

async fn list(call: &Call<'_>) -> Result<(), Broken> {
    let prefix = call
        .store
        .prefix
        .as_deref()
        .map_or_else(String::new, |prefix| sign::encode(&format!("{prefix}/"), false));
    let query = format!("list-type=2&max-keys=1&prefix={prefix}");
    let body = call.send("GET", "", &query, b"").await.map_err(|broken| broken.at("ListObjectsV2"))?;
    if String::from_utf8_lossy(&body).contains("ListBucketResult") {
        return Ok(());
    }
    Err(Broken::Refused("ListObjectsV2: what answers gives not an S3 answer".into()))
}

async fn write(call: &Call<'_>) -> Result<(), Broken> {
    let content = format!("{:032x}", rand::random::<u128>());
    let name = format!("nodeprep-probe-{content}");
    let key = call.store.prefix.as_ref().map_or_else(|| name.clone(), |prefix| format!("{prefix}/{name}"));
    call.send("PUT", &key, "", content.as_bytes()).await.map_err(|broken| broken.at("PutObject"))?;
    let read = call.send("GET", &key, "", b"").await.map_err(|broken| broken.at("GetObject"));
    let removed = call.send("DELETE", &key, "", b"").await;
    let read = read?;
    removed.map_err(|broken| broken.at(&format!("DeleteObject ({key} is left in the bucket)")))?;
    if read == content.as_bytes() {
        Ok(())
    } else {
        Err(Broken::Refused("GetObject: it gives back another object than was put".into()))
    }
}
