//! A claim binds to a volume on the pod's node and disk, and data written to it is read back.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::mount::{self, Mount};
use super::pod::DATA;
use super::probe::{Finished, Watch};
use super::{Check, Per, Run, Stop, Subject, broken};
use crate::error::{Code, Error};
use crate::event::{Measurement, Unit, Verdict};
use crate::intent::{Backend, Class, Csi, Intent, Size, VolumeType};
use crate::model::affinity::{self, Fit};
use crate::model::mounts::{self, mount_of, volume_at};
use crate::model::said::{self, By};

pub(super) const CHECK: Check = Check {
    id: "pvc",
    title: "a claim binds on the pod's node, on the disk meant for it, and keeps data",
    per: Per::Node,
    needs: &["provisioner", "storage-class", "binding-mode"],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// Writes a megabyte of noise and says its checksum.
pub(super) const WRITE: &str = "head -c 1048576 /dev/urandom >/tmp/noise
dd if=/tmp/noise of=/data/probe bs=65536 conv=fsync
wrote=$(sha256sum </tmp/noise)
echo \"wrote ${wrote%% *}\"
";

/// Reads it from the disk and says its checksum. A plain read would be answered from the node's memory, whatever the
/// disk kept; only a file system without direct reads is read that way, and that is said.
pub(super) const READ: &str = "if ! dd if=/data/probe of=/tmp/back bs=65536 iflag=direct; then
  cat /data/probe >/tmp/back
  echo 'from memory'
fi
read=$(sha256sum </tmp/back)
echo \"read ${read%% *}\"
";

/// Says how many KiB are free on the volume's file system.
const FREE: &str = "free=$(df -Pk /data | tail -n 1 | tr -s ' ' | cut -d' ' -f4)\necho \"free $free\"\n";

/// Shows the pod's mounts.
const MOUNTS: &str = "echo mounts\ncat /proc/self/mountinfo";

/// A claim on one node that bound, and what the pod that used it said.
#[derive(Debug, Clone)]
pub(super) struct Probed {
    volume: PersistentVolume,
    finished: Finished,
    /// From the claim's making until its volume was bound, and until the pod had ended.
    bound: Duration,
    done: Duration,
}

/// What comes of a claim and a pod on the subject's node; it is made once, for whoever asks first.
pub(super) async fn probed(run: &Run<'_>, subject: &Subject<'_>) -> Result<Probed, Stop> {
    let name = subject.name();
    let known = run.probed.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    if let Some(known) = known {
        return known;
    }
    let probed = probe(run, subject).await;
    run.probed.lock().unwrap_or_else(PoisonError::into_inner).insert(name, probed.clone());
    probed
}

async fn probe(run: &Run<'_>, subject: &Subject<'_>) -> Result<Probed, Stop> {
    let (class, started) = (subject.class()?, Instant::now());
    let claim = run.scratch.name("pvc");
    let (image, work) = (&run.ctx.intent.images.shell, [WRITE, READ, FREE, MOUNTS].concat());
    let probe = subject.probe(&claim, image, &work)?;
    run.scratch.claim(&claim, &class.name, run.ctx.intent.validation.claim_size).await?;
    run.scratch.make(probe.pod()?).await?;
    let watch = Watch { run, subject, claim: &claim, pod: &claim };
    let volume = watch.bound().await?;
    let bound = started.elapsed();
    let finished = watch.finished().await?;
    Ok(Probed { volume, finished, bound, done: started.elapsed() })
}

impl Probed {
    /// The node that its pod ran on.
    pub(super) async fn node(&self, run: &Run<'_>) -> Result<Node, Stop> {
        run.node(&self.finished.node).await
    }

    /// Where the volume lies; `node` is the one that its pod ran on.
    pub(super) fn place(&self, node: &Node, class: &Class, intent: &Intent) -> Result<VolumeSite, Stop> {
        let at = At { node: &self.finished.node, container: in_container(node) };
        placed(&self.volume, &self.mount()?, class, intent, at)
    }

    fn mount(&self) -> Result<Mount, Stop> {
        let missing = || Error::failed(format!("the pod on {} sees no mount at {DATA}", self.finished.node));
        Ok(mount::find(&self.finished.output.text, DATA).ok_or_else(missing)?)
    }
}

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let class = subject.class()?;
    let probed = probed(run, subject).await?;
    let Probed { volume, finished, bound, done } = &probed;
    data_kept(finished, class)?;
    let node = probed.node(run).await?;
    if class.csi.is_none() {
        on_node(volume, &node)?;
    }
    let mount = probed.mount()?;
    let place = probed.place(&node, class, &run.ctx.intent)?;
    if let Some(doubt) = too_large(finished, run.ctx.intent.validation.claim_size, class) {
        return Ok(doubt);
    }
    Ok(match place {
        VolumeSite::Own(summary) => {
            let noexec = Measurement { value: f64::from(u8::from(mount.has("noexec"))), unit: Unit::YesNo };
            let (bound, done) = (Measurement::seconds(*bound), Measurement::seconds(*done));
            let measurements = [("bound", bound), ("done", done), ("noexec", noexec)];
            let measurements = measurements.map(|(name, m)| (name.to_owned(), m)).into();
            Verdict::Pass { summary: summary + how_read(&finished.output.text), measurements }
        }
        VolumeSite::Doubtful { why, hint } => Verdict::warn(why, hint),
    })
}

/// The provisioner gives a claim what it asks for, whether the disk has it or not: a claim that can't be filled is told.
fn too_large(finished: &Finished, asked: Size, class: &Class) -> Option<Verdict> {
    let free = Size(word(&finished.output.text, "free")?.trim().parse::<u64>().ok()?.saturating_mul(1024));
    let why = || {
        format!(
            "the claim asks for {asked}, and only {free} are free under {} on {}: nothing keeps what is asked for",
            class.place(),
            finished.node
        )
    };
    (free < asked).then(|| {
        Verdict::warn(
            why(),
            "lower `validation.claimSize`, or make room: more than the disk has can be claimed",
        )
    })
}

/// What the probe wrote must be what it read.
fn data_kept(finished: &Finished, class: &Class) -> Result<(), Stop> {
    let (text, node) = (&finished.output.text, &finished.node);
    if finished.output.status != 0 {
        let said = reason(text);
        return Err(Stop::fail(
            format!("writing to the volume on {node} failed: {said}"),
            write_hint(said::code(By::Program, said), class),
        ));
    }
    match (word(text, "wrote"), word(text, "read")) {
        (Some(wrote), Some(read)) if wrote == read => Ok(()),
        (Some(wrote), Some(read)) => Err(Stop::fail(
            format!("the volume on {node} gave back other data: wrote sha256 {wrote}, read {read}"),
            "the disk or its file system is damaged: look at the kernel's log (`talosctl dmesg`)",
        )),
        _ => Err(Error::failed("the probe did not say what it wrote and read").into()),
    }
}

/// What the probe said under this key.
pub(super) fn word<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// Why the work failed: the last line that says more than how much `dd` has copied until then.
pub(super) fn reason(text: &str) -> &str {
    let counts = |line: &str| said::COPIED.iter().any(|words| words.are_in(line));
    text.lines().rev().find(|line| !line.trim().is_empty() && !counts(line)).unwrap_or("no reason given")
}

/// What is to be said of how the data was read.
pub(super) fn how_read(text: &str) -> &'static str {
    if text.lines().any(|line| line == "from memory") {
        " (read from the node's memory: its file system has no direct reads)"
    } else {
        ""
    }
}

/// What to do about an error of writing.
pub(super) fn write_hint(code: Option<Code>, class: &Class) -> String {
    let base = class.place();
    match code {
        Some(Code::ReadOnly) => format!(
            "{base} is read-only for the kubelet: the user volume is not mounted there; make it ready"
        ),
        Some(Code::NoSpace) => format!("free some space under {base}, or lower `validation.claimSize`"),
        Some(Code::NotPermitted) => format!(
            "directories under {base} must be writable for any user, as the provisioners make them (mode 0777)"
        ),
        _ => "look at the node's disk and its kernel's log (`talosctl dmesg`)".to_owned(),
    }
}

/// The volume's node affinity must hold for the node that the pod ran on.
fn on_node(volume: &PersistentVolume, node: &Node) -> Result<(), Stop> {
    let (name, ran) = (volume.name_any(), node.name_any());
    let hint = "the provisioner must pin its volumes: a pod elsewhere would find an empty directory";
    let Some(pinned) = affinity::pinned_to(volume) else {
        return Err(Stop::fail(format!("volume {name} is pinned to no node"), hint));
    };
    if affinity::fit(affinity::terms(volume), &ran, node.labels()) == Fit::Yes {
        return Ok(());
    }
    Err(Stop::fail(format!("volume {name} is pinned to {pinned}, but its pod ran on {ran}"), hint))
}

/// Where a volume lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VolumeSite {
    /// On a mount meant for it.
    Own(String),
    Doubtful {
        why: String,
        hint: String,
    },
}

/// The node of a volume's pod.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a str,
    /// Talos runs in a container there, and has no disks.
    container: bool,
}

/// Whether Talos runs in a container: then the kernel is another system's, and is not called Talos'.
fn in_container(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.is_some_and(|info| info.os_image.starts_with("Talos") && !info.kernel_version.ends_with("-talos"))
}

/// Whether the volume lies under the class's base path, on a file system of its own.
fn placed(
    volume: &PersistentVolume,
    mount: &Mount,
    class: &Class,
    intent: &Intent,
    at: At<'_>,
) -> Result<VolumeSite, Stop> {
    let node = at.node;
    let spec = volume.spec.as_ref();
    let local = spec.and_then(|s| s.local.as_ref()).map(|l| l.path.as_str());
    let host_path = spec.and_then(|s| s.host_path.as_ref()).map(|h| h.path.as_str());
    let name = volume.name_any();
    let base = match class.backend() {
        Backend::HostPath { base_path } => base_path.trim_end_matches('/'),
        Backend::Csi(csi) => return of_driver(volume, mount, csi, node),
    };
    let Some(path) = local.or(host_path) else {
        let why = format!("volume {name} is neither of type local nor hostPath: where it lies can't be told");
        return Ok(VolumeSite::Doubtful { why, hint: "judge such a class by its own driver's tools".into() });
    };
    if !path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/')) {
        return Err(Stop::fail(
            format!("volume {name} lies at {path}, not under the base path {base}"),
            "the class's configuration is not the file's: `nodeprep plan` shows the difference (OpenEBS reads \
             BasePath only from the annotation cas.openebs.io/config)",
        ));
    }
    if mount.has("ro") {
        return Err(Stop::fail(
            format!("volume {name} is mounted read-only"),
            write_hint(Some(Code::ReadOnly), class),
        ));
    }
    if let Some(stray) = astray(path, mount, base, node) {
        if let Some(place) = directory(path, mount, base, intent, at) {
            return Ok(place);
        }
        let promised = base.starts_with(mounts::MOUNTS) || !intent.volumes.is_empty();
        let hint = mount_hint(base);
        return if promised {
            Err(Stop::fail(stray, hint))
        } else {
            Ok(VolumeSite::Doubtful { why: stray, hint })
        };
    }
    if host_path.is_some() {
        return Ok(VolumeSite::Doubtful {
            why: format!(
                "volume {name} is of type hostPath: Velero's file-system backup skips it without an error"
            ),
            hint: "have the provisioner make volumes of type local (rancher local-path: annotation \
                   `defaultVolumeType: local` on the class)"
                .into(),
        });
    }
    let Mount { kind, source, .. } = mount;
    Ok(VolumeSite::Own(format!("on {node}, {kind} on {source}, a mount of its own")))
}

/// Whether a volume is of its class's CSI driver; where that has it is the driver's own matter.
fn of_driver(volume: &PersistentVolume, mount: &Mount, csi: &Csi, node: &str) -> Result<VolumeSite, Stop> {
    let name = volume.name_any();
    let driver = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).map(|csi| csi.driver.as_str());
    if driver != Some(csi.driver.as_str()) {
        let is = driver.map_or_else(|| "of no CSI driver".to_owned(), |other| format!("of {other}"));
        return Err(Stop::fail(
            format!("volume {name} is {is}, not of {}", csi.driver),
            "another class of this name made it: `kubectl get pv` shows whose it is",
        ));
    }
    if mount.has("ro") {
        return Err(Stop::fail(
            format!("volume {name} is mounted read-only"),
            "`kubectl describe pod` and the driver's node pods say why",
        ));
    }
    let Mount { kind, source, .. } = mount;
    Ok(VolumeSite::Own(format!("on {node}, {kind} on {source}, a volume of {}", csi.driver)))
}

/// Where a volume lies for which the file wants no disk: in a directory of Talos' own data partition, which is mounted at
/// `/var`.
fn directory(path: &str, mount: &Mount, base: &str, intent: &Intent, at: At<'_>) -> Option<VolumeSite> {
    let name = volume_at(base)?;
    let volume = intent.volumes.iter().find(|volume| volume.name == name)?;
    let here = path.strip_prefix("/var").is_some_and(|within| mount.root.ends_with(within));
    if !here || mount.kind == "tmpfs" || mount.kind == "ramfs" {
        return None;
    }
    let (node, Mount { kind, source, .. }) = (at.node, mount);
    match volume.kind {
        VolumeType::Directory => Some(VolumeSite::Own(format!(
            "on {node}, {kind} on {source}: a directory of Talos' own, as volume {name} asks"
        ))),
        VolumeType::Partition | VolumeType::Disk if at.container => Some(VolumeSite::Doubtful {
            why: format!(
                "volume {name} is a directory on {node}, where Talos runs in a container: it has no size, file system or quota of its own"
            ),
            hint: format!("say so in the file if that is meant: {{name: {name}, type: directory}}"),
        }),
        _ => None,
    }
}

/// What is wrong with where the volume's file system is mounted.
fn astray(path: &str, mount: &Mount, base: &str, node: &str) -> Option<String> {
    let Mount { root, kind, source, .. } = mount;
    if mount.deleted() {
        return Some(format!("the directory {path} on {node} was deleted while its pod used it"));
    }
    if kind == "tmpfs" || kind == "ramfs" {
        return Some(format!("{base} on {node} is in memory ({kind}): data is lost with the next boot"));
    }
    match mount.mounted_at(path) {
        Some(point) if mount::is_own(point, base) => None,
        Some(point) => Some(format!(
            "no disk is mounted at {base} on {node}: volumes lie on the {kind} of {source}, which is mounted at {point}"
        )),
        None => Some(format!(
            "no disk is mounted at {base} on {node}: volumes lie on a part ({root}) of the {kind} of {source}"
        )),
    }
}

fn mount_hint(base: &str) -> String {
    match volume_at(base) {
        Some(name) => format!(
            "make the Talos user volume `{name}` ready, so that its disk is mounted at {} \
             (`nodeprep apply`), and move what lies in the directory beneath first",
            mount_of(name)
        ),
        _ => format!("mount a disk of its own at {base}, or put the class on a user volume under /var/mnt"),
    }
}

impl Run<'_> {
    async fn node(&self, name: &str) -> Result<Node, Stop> {
        let node = Api::<Node>::all(self.ctx.cluster.client()).get(name).await;
        Ok(node.map_err(broken(format!("can't read node {name}")))?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::frame::Output;

    const OWN: &str = "90 80 259:3 /pvc-1 /data rw,noexec - xfs /dev/nvme1n1p1 rw";

    fn class(base_path: &str) -> Class {
        serde_json::from_value(json!({ "name": "fast", "basePath": base_path })).unwrap()
    }

    fn intent() -> Intent {
        let head = json!({ "apiVersion": "nodeprep.dev/v1alpha1", "kind": "Cluster", "metadata": { "name": "lab" } });
        serde_json::from_value(head).unwrap()
    }

    fn volume(spec: Value) -> PersistentVolume {
        serde_json::from_value(json!({ "metadata": { "name": "pvc-1" }, "spec": spec })).unwrap()
    }

    fn local(path: &str) -> PersistentVolume {
        volume(json!({ "local": { "path": path } }))
    }

    fn place(volume: &PersistentVolume, line: &str, base: &str) -> Result<VolumeSite, Stop> {
        placed(volume, &mount::find(line, DATA).unwrap(), &class(base), &intent(), METAL)
    }

    const METAL: At<'static> = At { node: "n1", container: false };

    fn fault<T: std::fmt::Debug>(result: Result<T, Stop>) -> (String, String) {
        match result {
            Err(Stop::Fault { why, hint }) => (why, hint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_reason_is_not_how_much_was_copied() {
        let full =
            "dd: error writing '/data/probe': No space left on device\n3+0 records in\n2+0 records out\n";
        assert_eq!(reason(full), "dd: error writing '/data/probe': No space left on device");
        assert_eq!(reason("16+0 records in\n16+0 records out\n"), "no reason given");
    }

    #[test]
    fn a_volume_on_its_own_disk_passes() {
        let base = "/var/mnt/openebs";
        let own = place(&local("/var/mnt/openebs/pvc-1"), OWN, base).unwrap();
        assert_eq!(own, VolumeSite::Own("on n1, xfs on /dev/nvme1n1p1, a mount of its own".into()));
        assert!(matches!(
            place(&local("/var/mnt/openebs/pvc-1"), OWN, "/var/mnt/openebs/"),
            Ok(VolumeSite::Own(_))
        ));
        let deeper = "90 80 259:3 /fast/pvc-1 /data rw - xfs /dev/nvme1n1p1 rw";
        let place = place(&local("/var/mnt/openebs/fast/pvc-1"), deeper, "/var/mnt/openebs/fast");
        assert!(matches!(place, Ok(VolumeSite::Own(_))));
    }

    #[test]
    fn a_volume_on_the_system_disk_fails_and_names_the_user_volume() {
        let base = "/var/mnt/openebs";
        for (line, word) in [
            ("90 80 259:6 /mnt/openebs/pvc-1 /data rw - xfs /dev/nvme0n1p6 rw", "mounted at /var"),
            ("90 80 8:1 /var/mnt/openebs/pvc-1 /data rw - ext4 /dev/sda1 rw", "mounted at /"),
            (
                "90 80 8:1 /lab/n1/openebs/pvc-1 /data rw - ext4 /dev/sda1 rw",
                "a part (/lab/n1/openebs/pvc-1)",
            ),
            ("90 80 0:9 /pvc-1 /data rw - tmpfs tmpfs rw", "in memory"),
            ("90 80 8:1 /pvc-1//deleted /data rw - ext4 /dev/sda1 rw", "deleted"),
        ] {
            let (why, hint) = fault(place(&local("/var/mnt/openebs/pvc-1"), line, base));
            assert!(why.contains(word) && hint.contains("user volume `openebs`"), "{why} {hint}");
        }
    }

    #[test]
    fn a_directory_is_where_it_is_asked_for_and_a_partition_is_one_in_a_container_only() {
        let metal = "90 80 259:6 /mnt/data/pvc-1 /data rw - xfs /dev/sda4 rw";
        let container = "90 80 8:1 /docker/volumes/x/_data/mnt/data/pvc-1 /data rw - ext4 /dev/sda1 rw";
        let memory = "90 80 0:9 /mnt/data/pvc-1 /data rw - tmpfs tmpfs rw";
        let (in_container, other) =
            (At { container: true, ..METAL }, "90 80 8:1 /pvc-2 /data rw - ext4 /dev/sda1 rw");
        let judged = |kind: &str, line: &str, at: At<'_>| {
            let mut asked = intent();
            asked.volumes.push(serde_json::from_value(json!({ "name": "data", "type": kind })).unwrap());
            let mount = mount::find(line, DATA).unwrap();
            match placed(&local("/var/mnt/data/pvc-1"), &mount, &class("/var/mnt/data"), &asked, at) {
                Ok(VolumeSite::Own(said)) => format!("own: {said}"),
                Ok(VolumeSite::Doubtful { why, .. }) => format!("warn: {why}"),
                Err(Stop::Fault { why, .. }) => format!("fault: {why}"),
                Err(_) => panic!("{line}"),
            }
        };
        for (kind, line, at, said) in [
            (
                "directory",
                metal,
                METAL,
                "own: on n1, xfs on /dev/sda4: a directory of Talos' own, as volume data asks",
            ),
            ("directory", container, in_container, "own: on n1, ext4"),
            ("directory", memory, METAL, "fault: /var/mnt/data on n1 is in memory"),
            ("directory", other, METAL, "fault: "),
            ("partition", container, in_container, "warn: volume data is a directory on n1"),
            ("partition", metal, METAL, "fault: no disk is mounted"),
            ("raw", container, in_container, "fault: "),
        ] {
            let judged = judged(kind, line, at);
            assert!(judged.starts_with(said), "{kind} {line}: {judged}");
        }
    }

    #[test]
    fn where_no_disk_was_promised_the_system_disk_only_warns() {
        let line = "90 80 8:1 /openebs/local/pvc-1 /data rw - ext4 /dev/sda1 rw";
        let base = "/var/openebs/local";
        let VolumeSite::Doubtful { why, hint } =
            place(&local("/var/openebs/local/pvc-1"), line, base).unwrap()
        else {
            panic!()
        };
        assert!(why.contains("mounted at /var") && hint.contains(base), "{why} {hint}");
        let mut promised = intent();
        let volume = json!({ "name": "data", "disk": { "match": "!system_disk" }, "minSize": "1GiB" });
        promised.volumes.push(serde_json::from_value(volume).unwrap());
        let mount = mount::find(line, DATA).unwrap();
        fault(placed(&local("/var/openebs/local/pvc-1"), &mount, &class(base), &promised, METAL));
    }

    #[test]
    fn a_volume_elsewhere_or_read_only_fails() {
        let base = "/var/mnt/openebs";
        for path in ["/var/openebs/local/pvc-1", "/var/mnt/openebs-old/pvc-1", "/var/mnt/openebs"] {
            let (why, _) = fault(place(&local(path), OWN, base));
            assert!(why.contains("not under the base path"), "{why}");
        }
        for line in [OWN.replace("rw,noexec", "ro"), OWN.replace("nvme1n1p1 rw", "nvme1n1p1 ro")] {
            let (why, _) = fault(place(&local("/var/mnt/openebs/pvc-1"), &line, base));
            assert!(why.contains("read-only"), "{why}");
        }
    }

    #[test]
    fn a_host_path_volume_warns_that_velero_skips_it() {
        let host_path = volume(json!({ "hostPath": { "path": "/var/mnt/openebs/pvc-1" } }));
        let Ok(VolumeSite::Doubtful { why, .. }) = place(&host_path, OWN, "/var/mnt/openebs") else {
            panic!()
        };
        assert!(why.contains("Velero"), "{why}");
        let other = volume(json!({ "csi": { "driver": "x", "volumeHandle": "y" } }));
        assert!(matches!(place(&other, OWN, "/var/mnt/openebs"), Ok(VolumeSite::Doubtful { .. })));
        let astray = "90 80 259:6 /mnt/openebs/pvc-1 /data rw - xfs /dev/nvme0n1p6 rw";
        fault(place(&host_path, astray, "/var/mnt/openebs"));
    }

    #[test]
    fn a_volume_is_pinned_to_the_node_of_its_pod() {
        let node: Node = serde_json::from_value(
            json!({ "metadata": { "name": "n1", "labels": { "kubernetes.io/hostname": "h1" } } }),
        )
        .unwrap();
        let pinned = |key: &str, operator: &str, value: &str| {
            volume(json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": key, "operator": operator, "values": [value] }] },
            ] } } }))
        };
        assert!(on_node(&pinned("kubernetes.io/hostname", "In", "h1"), &node).is_ok());
        assert_eq!(affinity::pinned_to(&pinned("kubernetes.io/hostname", "In", "h1")).as_deref(), Some("h1"));
        for (volume, word) in [
            (pinned("kubernetes.io/hostname", "In", "h2"), "pinned to h2, but its pod ran on n1"),
            (pinned("kubernetes.io/hostname", "NotIn", "h1"), "pinned to no node"),
            (pinned("zone", "In", "h1"), "but its pod ran on n1"),
            (volume(json!({})), "pinned to no node"),
        ] {
            let (why, _) = fault(on_node(&volume, &node));
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn the_probes_work_reads_past_the_memory_and_says_when_it_cannot() {
        let folder = tempfile::Builder::new().tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let run = |dd: &str| {
            let script = [WRITE, READ].concat().replace("/data/", &format!("{}/", folder.path().display()));
            let script = script.replace("/tmp/", &format!("{}/tmp-", folder.path().display()));
            let script = format!("set -e\n{dd}\n{script}");
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let no_direct = "dd() { case \"$*\" in *direct*) return 1 ;; *) command dd \"$@\" ;; esac; }";
        for dd in ["", no_direct] {
            let text = run(dd);
            assert_eq!(word(&text, "wrote").map(str::len), Some(64), "{text}");
            assert_eq!(word(&text, "wrote"), word(&text, "read"));
            // Where the source lies on a file system without direct reads, the first case can't be told.
            assert!(dd.is_empty() || !how_read(&text).is_empty(), "{text}");
        }
    }

    #[test]
    fn data_must_be_read_back_as_it_was_written() {
        let finished =
            |status, text: &str| Finished { node: "n1".into(), output: Output { text: text.into(), status } };
        let judge = |status, text: &str| data_kept(&finished(status, text), &class("/var/mnt/openebs"));
        assert!(judge(0, "16+0 records in\nwrote abc\nread abc\nmounts\n").is_ok());
        for (status, text, word, hint_word) in [
            (0, "wrote abc\nread abd\n", "gave back other data", "dmesg"),
            (1, "dd: can't open '/data/probe': Read-only file system\n", "Read-only", "user volume"),
            (1, "dd: error writing '/data/probe': No space left on device\n", "No space", "claimSize"),
            (1, "dd: can't open '/data/probe': Permission denied\n", "Permission", "0777"),
        ] {
            let (why, hint) = fault(judge(status, text));
            assert!(why.contains(word) && hint.contains(hint_word), "{why} {hint}");
        }
        assert!(matches!(judge(0, "wrote abc\n"), Err(Stop::Error(_))));
    }
}
