//! A backup location's bucket, as Velero's plugin for S3 works with it, and the repositories with the volumes' files in it.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::objects::{digest, list};
use super::super::{Stage, names, text};
use super::LOCATIONS;
use crate::object_store::{Key, StoreCall};

/// What comes from the plugin is marked so.
const PLUGIN: &str = "rpc error: code = Unknown desc = ";
/// Velero's own password, when nobody set one.
const PASSWORD: &str = "static-passw0rd";

/// A location's bucket, and how it is asked for what is in it.
#[derive(Debug)]
pub(super) struct Bucket {
    prefix: String,
    asked: StoreCall,
}

impl Bucket {
    pub(super) fn of(stage: &Stage<'_>, server: &Value, location: &Value) -> Self {
        let prefix = text(location, "/spec/objectStorage/prefix").trim_matches('/');
        let config = &location["spec"]["config"];
        let trusts = BASE64_STANDARD.decode(text(location, "/spec/objectStorage/caCert")).unwrap_or_default();
        let asked = StoreCall {
            key: Key::read(&credentials(stage, server, location).unwrap_or_default()),
            bucket: text(location, "/spec/objectStorage/bucket").to_owned(),
            region: config["region"].as_str().unwrap_or_default().to_owned(),
            url: config["s3Url"].as_str().map(str::to_owned),
            path_style: config["s3ForcePathStyle"] == "true",
            trusts: String::from_utf8(trusts).unwrap_or_default(),
            checksums: config["checksumAlgorithm"] != "",
        };
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") }, asked }
    }

    /// The bucket of the location that a backup is kept in.
    pub(super) fn of_backup(stage: &Stage<'_>, server: &Value, backup: &Value) -> Option<Self> {
        let location = stage.get(LOCATIONS, names(backup).0, text(backup, "/spec/storageLocation"))?;
        Some(Self::of(stage, server, location))
    }

    fn allowed(&self, stage: &Stage<'_>, operation: &str, tried: &str) -> Result<(), String> {
        let refusal = match operation {
            "HeadObject" => stage.store.refusal_of_head(&self.asked, &request(stage)),
            "PutObject" => stage.store.refusal_of_put(&self.asked, &request(stage)),
            _ => stage.store.refusal(&self.asked, &request(stage)),
        };
        refusal.map_or(Ok(()), |why| Err(refused(operation, tried, &why)))
    }

    /// Where the location has a key in the bucket.
    fn place(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The names of the folders in a folder, such as `backups`; the error says why they can't be listed.
    pub(super) fn folders(&self, stage: &Stage<'_>, folder: &str) -> Result<BTreeSet<String>, String> {
        self.allowed(stage, "ListObjectsV2", "")?;
        let keys = stage.store.list(&self.asked.bucket, &self.place(&format!("{folder}/")));
        Ok(keys.filter_map(|key| Some(key.split_once('/')?.0.to_owned())).collect())
    }

    pub(super) fn has(&self, stage: &Stage<'_>, key: &str) -> Result<bool, String> {
        self.allowed(stage, "HeadObject", "")?;
        Ok(stage.store.get(&self.asked.bucket, &self.place(key), "").is_ok())
    }

    pub(super) fn get(&self, stage: &Stage<'_>, key: &str) -> Result<Value, String> {
        let (operation, key) = ("GetObject", self.place(key));
        let tried = format!("error getting object {key}: ");
        self.allowed(stage, operation, &tried)?;
        let found = stage.store.get(&self.asked.bucket, &key, &request(stage)).cloned();
        found.map_err(|why| refused(operation, &tried, &why))
    }

    pub(super) fn put(&self, stage: &mut Stage<'_>, key: &str, object: Value) -> Result<(), String> {
        let key = self.place(key);
        self.allowed(stage, "PutObject", &format!("error putting object {key}: "))?;
        stage.store.put(&self.asked.bucket, &key, object);
        Ok(())
    }

    /// Removes everything in a folder.
    pub(super) fn remove(&self, stage: &mut Stage<'_>, folder: &str) -> Result<(), String> {
        self.allowed(stage, "ListObjectsV2", "")?;
        stage.store.remove(&self.asked.bucket, &self.place(&format!("{folder}/")));
        Ok(())
    }

    /// Removes an object from a bucket that is known to be open.
    pub(super) fn forget(&self, stage: &mut Stage<'_>, key: &str) {
        stage.store.remove(&self.asked.bucket, &self.place(key));
    }

    /// Opens the repository of a namespace. One that does not exist is made, when it is to be written to; its password is the
    /// one that it was made with.
    pub(super) fn open(&self, stage: &mut Stage<'_>, of: &Repository<'_>, make: bool) -> Result<(), String> {
        let Repository { home, namespace, location } = of;
        let tried = format!("error to boost backup repository connection {location}-{namespace}-kopia");
        let failed = |why: &str| format!("{tried}: error to connect backup repo: {why}");
        if let Some(why) = stage.store.refusal(&self.asked, &request(stage)) {
            let why = format!(
                "error to connect to storage: unable to determine if bucket {:?} exists: {why}",
                self.asked.bucket
            );
            return Err(failed(&why));
        }
        let key = self.place(&snapshot_key(namespace, "kopia.repository"));
        let password = json!(password(stage, home));
        let connect = "error to connect repo with storage: error to connect to repository";
        match stage.store.get(&self.asked.bucket, &key, "").ok() {
            Some(made_with) if *made_with == password => Ok(()),
            Some(_) => Err(failed(&format!("{connect}: invalid repository password"))),
            None if make => {
                stage.store.put(&self.asked.bucket, &key, password);
                Ok(())
            }
            None => Err(failed(&format!("{connect}: repository not initialized in the provided storage"))),
        }
    }
}

/// The repository of a namespace's volumes.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    /// Velero's namespace.
    pub(super) home: &'a str,
    pub(super) namespace: &'a str,
    pub(super) location: &'a str,
}

/// The place of something in the repository of a namespace, such as a volume's snapshot.
pub(super) fn snapshot_key(namespace: &str, id: &str) -> String {
    format!("kopia/{namespace}/{id}")
}

/// Why an operation failed, in the plugin's words.
fn refused(operation: &str, tried: &str, why: &str) -> String {
    format!("{PLUGIN}{tried}operation error S3: {operation}, {why}")
}

/// An id for a request.
fn request(stage: &Stage<'_>) -> String {
    format!("{:016X}", stage.api.store.version())
}

/// What tells the repositories' password from others.
fn password(stage: &Stage<'_>, home: &str) -> String {
    let secret = stage.get("/secrets", home, "velero-repo-credentials");
    let set = secret
        .and_then(|secret| BASE64_STANDARD.decode(secret["data"]["repository-password"].as_str()?).ok());
    let password = set.and_then(|bytes| String::from_utf8(bytes).ok());
    digest(password.as_deref().unwrap_or(PASSWORD).trim())
}

/// The location's credentials file, or else the one that the server's pod is given.
fn credentials(stage: &Stage<'_>, server: &Value, location: &Value) -> Option<String> {
    let own = &location["spec"]["credential"];
    let (name, key) = if own.is_null() {
        let mut secrets =
            list(server, "/spec/volumes").iter().map(|volume| text(volume, "/secret/secretName"));
        (secrets.find(|name| !name.is_empty())?, "cloud")
    } else {
        (text(own, "/name"), text(own, "/key"))
    };
    let secret = stage.get("/secrets", names(server).0, name)?;
    let file = BASE64_STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(file).ok()
}
