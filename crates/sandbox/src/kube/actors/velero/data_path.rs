//! How a volume's files get into a backup and back: a PodVolumeBackup or PodVolumeRestore, and a pod of its own on the
//! volume's machine that moves the files.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::objects::{collection, delete, digest, list, number, path};
use super::super::provisioner::works;
use super::super::{Stage, names, owned_by, text};
use super::bucket::{Bucket, Repository, snapshot_key};
use super::mounted::{self, Mounted};
use super::{WHO, helper, set_status, timer};
use crate::host::{Directory, File};

/// By these labels the volumes of a backup and of a restore are found.
pub(super) const BACKUP_UID: &str = "velero.io/backup-uid";
pub(super) const RESTORE_UID: &str = "velero.io/restore-uid";
const AGENT: &str = "node-agent";
/// A pod that does not run by then never will.
const PREPARE: Duration = Duration::from_secs(30 * 60);
/// Opening the repository.
const OPEN: Duration = Duration::from_secs(1);
/// Bytes in a millisecond.
const SPEED: u64 = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Backup,
    Restore,
}

impl Way {
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Backup => "velero.io/podvolumebackups",
            Self::Restore => "velero.io/podvolumerestores",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::Backup => "PVB",
            Self::Restore => "PVR",
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// The volumes of a backup or a restore.
pub(super) fn volumes(stage: &Stage<'_>, way: Way, of: &Value) -> Vec<Value> {
    let label = match way {
        Way::Backup => BACKUP_UID,
        Way::Restore => RESTORE_UID,
    };
    let mut items = stage.all(way.resource(), names(of).0);
    items.retain(|item| item["metadata"]["labels"][label] == of["metadata"]["uid"]);
    items
}

/// Whether it has come to an end, well or not.
pub(super) fn over(item: &Value) -> bool {
    matches!(text(item, "/status/phase"), "Completed" | "Failed" | "Canceled")
}

/// Whether an agent runs on the node.
pub(super) fn has_agent(stage: &Stage<'_>, home: &str, node: &str) -> bool {
    agent(stage, home, node).is_some()
}

fn agent<'a>(stage: &'a Stage<'_>, home: &'a str, node: &str) -> Option<&'a Value> {
    let mut pods = stage.api.store.list("/pods", home).map(|(_, pod)| pod);
    pods.find(|pod| {
        pod["metadata"]["labels"]["role"] == AGENT && text(pod, "/spec/nodeName") == node && works(stage, pod)
    })
}

pub(super) fn act(stage: &mut Stage<'_>, server: &Value) {
    for way in [Way::Backup, Way::Restore] {
        for item in stage.all(way.resource(), names(server).0) {
            if !over(&item) {
                Move { way, server, item: &item }.tend(stage);
            }
        }
    }
}

/// A volume's files on their way.
struct Move<'a> {
    way: Way,
    server: &'a Value,
    item: &'a Value,
}

impl Move<'_> {
    fn tend(&self, stage: &mut Stage<'_>) {
        if self.item["spec"]["cancel"] == true {
            return self.end(stage, json!({"phase": "Canceled"}));
        }
        let phase = text(self.item, "/status/phase");
        let Some(client) = self.client(stage) else {
            // Who restores waits for the pod.
            if self.way == Way::Backup || !matches!(phase, "" | "New") {
                let pod = text(self.item, "/spec/pod/name");
                let why = format!("error getting client pod {pod}: pods {pod:?} not found");
                self.fail(stage, &format!("error to expose {}: {why}", self.way.short()));
            }
            return;
        };
        if !has_agent(stage, names(self.item).0, text(&client, "/spec/nodeName")) {
            return;
        }
        match phase {
            "" | "New" if self.way == Way::Backup || helper::runs(&client) => self.accept(stage, &client),
            "Accepted" => self.prepare(stage),
            "Prepared" => self.begin(stage, &client),
            "InProgress" => self.go_on(stage, &client),
            _ => {}
        }
    }

    /// The pod whose volume it is.
    fn client(&self, stage: &Stage<'_>) -> Option<Value> {
        let of = &self.item["spec"]["pod"];
        let pod = stage.get("/pods", text(of, "/namespace"), text(of, "/name"));
        pod.filter(|pod| pod["metadata"]["uid"] == of["uid"]).cloned()
    }

    fn fail(&self, stage: &mut Stage<'_>, why: &str) {
        self.end(stage, json!({"phase": "Failed", "message": why}));
    }

    /// Its pod goes when it is over.
    fn end(&self, stage: &mut Stage<'_>, mut status: Value) {
        let now = stage.time();
        if self.item["status"]["startTimestamp"].is_null() {
            status["startTimestamp"] = json!(now);
        }
        status["completionTimestamp"] = json!(now);
        set_status(stage, self.item, &status);
        stage.timers.forget(&timer(self.item));
        let (home, name) = names(self.item);
        if stage.get("/pods", home, name).is_some() {
            delete(stage, WHO, &format!("{}/{name}", collection("v1", "Pod", home)));
        }
    }

    fn accept(&self, stage: &mut Stage<'_>, client: &Value) {
        let node = text(client, "/spec/nodeName");
        let status = json!({"phase": "Accepted", "acceptedTimestamp": stage.time(), "node": node});
        set_status(stage, self.item, &status);
        if let Err(why) = self.expose(stage, client) {
            self.fail(stage, &format!("error to expose {}: {why}", self.way.short()));
        }
    }

    /// Makes the pod that moves the files.
    fn expose(&self, stage: &mut Stage<'_>, client: &Value) -> Result<(), String> {
        let Mounted { path, .. } = mounted::find(stage, client, text(self.item, "/spec/volume"))?;
        let (home, name) = names(self.item);
        let node = text(client, "/spec/nodeName");
        let agent = agent(stage, home, node).cloned().unwrap_or_default();
        let (uid, word) = (&self.item["metadata"]["uid"], self.way.word());
        let mount = format!("/{}", text(self.item, "/metadata/uid"));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": {format!("velero.io/pod-volume-{word}"): name},
                "ownerReferences": owned_by(self.item),
            },
            "spec": {
                "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "serviceAccountName": agent["spec"]["serviceAccountName"], "securityContext": {"runAsUser": 0},
                "containers": [{
                    "name": uid, "image": agent["spec"]["containers"][0]["image"], "imagePullPolicy": "Never",
                    "command": ["/velero", "pod-volume", word],
                    "args": [
                        format!("--volume-path={mount}"), "--resource-timeout=10m0s",
                        format!("--pod-volume-{word}={name}"),
                    ],
                    "volumeMounts": [{"name": uid, "mountPath": mount, "mountPropagation": "HostToContainer"}],
                }],
                "volumes": [{"name": uid, "hostPath": {"path": path}}],
            },
        });
        let made = stage.ask(WHO, "POST", &collection("v1", "Pod", home), &pod);
        made.map(|_| ()).map_err(|why| format!("error to create hosting pod: {why}"))
    }

    /// Waits for the pod.
    fn prepare(&self, stage: &mut Stage<'_>) {
        let (home, name) = names(self.item);
        let pod = stage.get("/pods", home, name).cloned().unwrap_or_default();
        let short = self.way.short();
        if works(stage, &pod) {
            set_status(stage, self.item, &json!({"phase": "Prepared"}));
        } else if let Some(why) = hopeless(&pod) {
            let message =
                format!("found a {short} {home}/{name} with expose error: {why}. mark it as cancel");
            self.end(stage, json!({"phase": "Canceled", "message": message}));
        } else if stage.done(&format!("{}prepare", timer(self.item)), PREPARE) {
            self.fail(stage, &format!("timeout on preparing {short}"));
        }
    }

    fn begin(&self, stage: &mut Stage<'_>, client: &Value) {
        stage.timers.forget(&timer(self.item));
        let total = match self.way {
            Way::Restore => number(self.item, "/spec/snapshotSize").unwrap_or(0),
            Way::Backup => self.files(stage, client).map_or(0, |files| size(&files)),
        };
        let progress = json!({"totalBytes": total, "bytesDone": 0});
        let status = json!({"phase": "InProgress", "startTimestamp": stage.time(), "progress": progress});
        set_status(stage, self.item, &status);
        self.moved(stage, total);
    }

    /// Whether so many bytes have been moved since that was asked first.
    fn moved(&self, stage: &mut Stage<'_>, bytes: u64) -> bool {
        stage.done(&format!("{}move", timer(self.item)), OPEN + Duration::from_millis(bytes / SPEED))
    }

    fn go_on(&self, stage: &mut Stage<'_>, client: &Value) {
        let word = self.way.word();
        let (home, name) = names(self.item);
        let pod = stage.get("/pods", home, name);
        if pod.is_none_or(|pod| text(pod, "/status/phase") == "Failed") {
            return self.fail(stage, &format!("data path {word} failed: "));
        }
        if !self.moved(stage, number(self.item, "/status/progress/totalBytes").unwrap_or(0)) {
            return;
        }
        let moved = match self.way {
            Way::Backup => self.back_up(stage, client),
            Way::Restore => self.restore(stage, client),
        };
        match moved {
            Ok(mut status) => {
                status["phase"] = json!("Completed");
                self.end(stage, status);
            }
            Err(why) => {
                let service = format!("Failed to run data path service for {} {name}", self.way.short());
                self.fail(stage, &format!("data path {word} failed: {service}: {why}"));
            }
        }
    }

    fn files(&self, stage: &Stage<'_>, client: &Value) -> Option<Directory> {
        let place = mounted::find(stage, client, text(self.item, "/spec/volume")).ok()?.place?;
        stage.hosts.get(text(client, "/spec/nodeName"))?.directory(&place).cloned()
    }

    /// Opens the repository of the volume's namespace.
    fn open(&self, stage: &mut Stage<'_>, namespace: &str) -> Result<Bucket, String> {
        let (home, _) = names(self.item);
        let location = text(self.item, "/spec/backupStorageLocation");
        let found = stage.get(super::LOCATIONS, home, location).cloned();
        let found = found.ok_or_else(|| format!("error getting backup storage location {location}"));
        let bucket = found.map(|location| Bucket::of(stage, self.server, &location));
        let opened = bucket.and_then(|bucket| {
            bucket.open(stage, &Repository { home, namespace, location }, self.way == Way::Backup)?;
            Ok(bucket)
        });
        opened.map_err(|why| format!("error to initialize data path: {why}"))
    }

    fn back_up(&self, stage: &mut Stage<'_>, client: &Value) -> Result<Value, String> {
        let namespace = names(client).0;
        let bucket = self.open(stage, namespace)?;
        let files = self.files(stage, client).unwrap_or_default();
        if files.files.is_empty() {
            return Ok(json!({"message": "volume was empty so no snapshot was taken"}));
        }
        let mut id = digest(text(self.item, "/metadata/uid"));
        id.truncate(32);
        let total = size(&files);
        let files = serde_json::to_value(files).map_err(|error| error.to_string())?;
        bucket.put(stage, &snapshot_key(namespace, &id), files).map_err(|why| self.failed(&why))?;
        Ok(json!({"snapshotID": id, "progress": {"totalBytes": total, "bytesDone": total}}))
    }

    fn failed(&self, why: &str) -> String {
        let (name, word) = (names(self.item).1, self.way.word());
        format!("Data path for {} {name} failed: Failed to run kopia {word}: {why}", self.way.short())
    }

    fn restore(&self, stage: &mut Stage<'_>, client: &Value) -> Result<Value, String> {
        let (namespace, id) = (text(self.item, "/spec/sourceNamespace"), text(self.item, "/spec/snapshotID"));
        let bucket = self.open(stage, namespace)?;
        let lost = || self.failed(&format!("Unable to load snapshot {id}: snapshot not found"));
        let found = bucket.get(stage, &snapshot_key(namespace, id)).map_err(|_| lost())?;
        let Ok(found) = serde_json::from_value::<Directory>(found) else { return Err(lost()) };
        let total = size(&found);
        let sparse = self.item["spec"]["uploaderSettings"]["WriteSparseFiles"] == "true";
        self.write(stage, client, written(found, sparse)).map_err(|why| {
            self.failed(&format!(
                "Failed to copy snapshot data to the target: restore error: error copying: {why}"
            ))
        })?;
        Ok(json!({"progress": {"totalBytes": total, "bytesDone": total}}))
    }

    /// Writes the files into the volume, and beside them the mark that the pod waits for.
    fn write(&self, stage: &mut Stage<'_>, client: &Value, found: Directory) -> Result<(), String> {
        let place = mounted::find(stage, client, text(self.item, "/spec/volume"))?.place;
        let Some(place) = place else { return Ok(()) };
        let host = stage.hosts.get_mut(text(client, "/spec/nodeName")).ok_or("no such node")?;
        let system = host.mounts.get(&place.mount).ok_or("no such file system")?;
        if place.read_only || system.options.iter().any(|option| option == "ro") {
            return Err("read-only file system".to_owned());
        }
        if system.available() < found.files.values().map(File::takes).sum() {
            return Err("no space left on device".to_owned());
        }
        let directory = host.directory_mut(&place).ok_or("no such file or directory")?;
        directory.files.extend(found.files);
        let done = File { sha256: digest(""), ..File::default() };
        let of = list(self.item, "/metadata/ownerReferences").first();
        directory.files.insert(helper::mark(of.map_or("", |of| text(of, "/uid"))), done);
        Ok(())
    }
}

/// In bytes; only files count.
fn size(directory: &Directory) -> u64 {
    directory.files.values().filter(|file| file.is_file()).map(|file| file.size).sum()
}

/// The files as kopia writes them: each has one name, and holes only where they are asked for; a folder has the time of the newest
/// entry in it. It keeps the rest.
fn written(mut directory: Directory, sparse: bool) -> Directory {
    let times: Vec<(String, i64)> = directory
        .files
        .iter()
        .filter_map(|(name, file)| Some((name.clone(), file.inode.as_ref()?.modified)))
        .collect();
    for (name, file) in directory.files.iter_mut().filter(|(_, file)| file.inode.is_some() && !file.is_file())
    {
        let within = format!("{name}/");
        let newest = times.iter().filter(|(one, _)| one.starts_with(&within)).map(|(_, time)| *time).max();
        if let (Some(newest), Some(inode)) = (newest, &mut file.inode) {
            inode.modified = newest;
        }
    }
    for file in directory.files.values_mut().filter(|file| file.is_file()) {
        if let Some(inode) = &mut file.inode {
            inode.links = 1;
            inode.blocks = if sparse { inode.blocks } else { file.size.div_ceil(4096) * 8 };
        }
    }
    directory
}

/// Why a pod will never run.
fn hopeless(pod: &Value) -> Option<String> {
    let (namespace, name) = names(pod);
    if text(pod, "/status/phase") == "Failed" {
        return Some("Pod is in abnormal state [Failed], message []".to_owned());
    }
    let stuck = list(pod, "/status/containerStatuses").iter().find_map(|one| {
        let reason = text(one, "/state/waiting/reason");
        matches!(reason, "ImagePullBackOff" | "ErrImageNeverPull").then(|| (text(one, "/name"), reason))
    });
    let (container, reason) = stuck?;
    Some(format!(
        "Container {container} in Pod {namespace}/{name} is in pull image failed with reason {reason}"
    ))
}

/// Tells the volumes of a backup or a restore that are under way to stop.
pub(super) fn cancel(stage: &mut Stage<'_>, way: Way, of: &Value) {
    for item in volumes(stage, way, of).iter().filter(|item| !over(item)) {
        let (short, phase) = (way.short(), text(item, "/status/phase"));
        let message =
            format!("{short} is in status {phase:?} during the velero server starting, mark it as cancel");
        let cancelled = json!({"spec": {"cancel": true}, "status": {"message": message}});
        let _ = stage.patch(WHO, &path(item), &cancelled);
    }
}
