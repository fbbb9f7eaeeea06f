//! Nodes and their disks as text for people, and as data.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::disks::{Disk, EXISTING_VOLUME, USER_VOLUME, is_volume};
use crate::model::mounts::mount_of;
use crate::model::node::Node;
use crate::observe::about::{About, Clock};
use crate::plan::disks::human;
use crate::report;

/// Clocks that are further apart are worth a word: certificates, etcd and S3 signatures begin to fail.
const APART: SignedDuration = SignedDuration::from_secs(2);

/// A node, what else is known of it, and what a selector made of its disks: how many it kept, or why it could not.
pub(super) struct Shown<'a> {
    pub(super) node: &'a Node,
    pub(super) about: Option<&'a About>,
    pub(super) tried: &'a Option<Result<String>>,
}

/// A table of disks for each node, with what could not be read.
pub(super) fn text(shown: &[Shown<'_>], wide: bool) -> String {
    let mut text = String::new();
    for Shown { node, about, tried } in shown {
        if !node.answers() {
            let why = node.version.as_ref().err().map_or("", |error| error.what.as_str());
            text.push_str(&format!("{}: could not be read: {why}\n", node.address));
            continue;
        }
        text.push_str(&headline(node, *about));
        if wide {
            text.push_str(&details(node, *about));
        }
        if let Some(tried) = tried {
            let found = tried.as_ref().unwrap_or_else(|error| &error.what);
            text.push_str(&format!("  selector: {found}\n"));
        }
        if let Ok(disks) = &node.disks
            && !matches!(tried, Some(Err(_)))
        {
            // A selector that matches memory is not what somebody meant, so it is shown then.
            let disks = disks.iter().filter(|disk| tried.is_some() || !disk.is_memory());
            text.push_str(&table(disks, wide));
        }
        for (what, error) in node.faults() {
            text.push_str(&format!("  {what}: could not be read: {error}\n"));
        }
        text.push_str(&volumes(node));
    }
    text
}

fn headline(node: &Node, about: Option<&About>) -> String {
    let version = node.version.as_ref().map_or("of unknown version", |v| v.tag.as_str());
    let name = match &node.hostname {
        Ok(Some(name)) => format!(" ({name})"),
        _ => String::new(),
    };
    let simulated = if node.simulated() { ", simulated" } else { "" };
    let place = if node.version.as_ref().is_ok_and(|v| v.container) { ", in a container" } else { "" };
    let role = node.machine_type.as_ref().ok().and_then(|role| role.as_deref()).unwrap_or("no role");
    let stage = node.status.as_ref().map_or("unknown stage", |s| s.stage.as_str());
    let credentials = node.cert_days_left.map_or_else(
        || "not configured yet, read without credentials".to_owned(),
        |days| format!("client certificate good for {days} days"),
    );
    let clock = about.and_then(clock_trouble).map(|trouble| format!("; {trouble}")).unwrap_or_default();
    format!(
        "{}{name}: Talos {version}, {role}, {stage}{place}{simulated}; {credentials}{clock}\n",
        node.address
    )
}

/// What is wrong with a clock, if anything.
fn clock_trouble(about: &About) -> Option<String> {
    let clock = about.clock.as_ref().ok();
    let apart = |from: SignedDuration, whom: &str| (from.abs() > APART).then(|| off(from, whom));
    let of_here = clock.and_then(|clock| apart(clock.ahead_of_here, "this machine's"));
    let of_server = clock.and_then(|clock| apart(clock.ahead_of_server, "its time server's"));
    let free = matches!(about.synced, Ok(Some(false))).then(|| "its clock follows no time server".to_owned());
    of_here.or(of_server).or(free)
}

/// `its clock is 3s ahead of this machine's`
fn off(ahead: SignedDuration, whom: &str) -> String {
    let way = if ahead.is_negative() { "behind" } else { "ahead of" };
    let seconds = ahead.abs().as_secs_f64();
    format!("its clock is {seconds:.1} s {way} {whom}")
}

fn details(node: &Node, about: Option<&About>) -> String {
    let mut lines = Vec::new();
    if let Ok(version) = &node.version {
        lines.push(format!("platform: {} {}", version.platform, version.arch));
    }
    if let Some(about) = about {
        match &about.extensions {
            Ok(all) if all.is_empty() => lines.push("extensions: none".into()),
            Ok(all) => {
                let named: Vec<_> = all.iter().map(|(name, version)| format!("{name} {version}")).collect();
                lines.push(format!("extensions: {}", named.join(", ")));
            }
            Err(error) => lines.push(format!("extensions: could not be read: {error}")),
        }
        lines.push(match (&about.clock, clock_trouble(about)) {
            (_, Some(trouble)) => format!("clock: {trouble}"),
            (Ok(_), None) => "clock: with this machine's and its time server's".into(),
            (Err(error), None) => format!("clock: could not be compared: {error}"),
        });
    }
    if let Ok(Some(labels)) = &node.labels {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(format!("labels: {}", labels.join(", ")));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

fn table<'a>(disks: impl Iterator<Item = &'a Disk>, wide: bool) -> String {
    let mut header = vec!["DISK", "SIZE", "TRANSPORT", "MODEL", "SERIAL", "HOLDS", "FREE"];
    if wide {
        header.insert(5, "WWID");
        header.insert(7, "VOLUMES");
        header.insert(8, "MOUNTED");
    }
    let rows = disks.map(|disk| row(disk, wide)).collect();
    report::table(&header, rows).lines().map(|line| format!("  {line}\n")).collect()
}

fn row(disk: &Disk, wide: bool) -> Vec<String> {
    let or_dash = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
    let free = match &disk.eligible {
        Ok(()) => "yes".to_owned(),
        // The column before says it.
        Err(_) if disk.is_held() => "no".to_owned(),
        Err(why) => format!("no: {why}"),
    };
    let mut row = vec![
        disk.id.clone(),
        human(disk.spec.size),
        or_dash(&disk.spec.transport),
        or_dash(&disk.spec.model),
        or_dash(&disk.spec.serial),
        disk.holds(),
        free,
    ];
    if wide {
        let volumes: Vec<_> = disk.uses.volumes.iter().map(|(id, phase)| format!("{id} {phase}")).collect();
        row.insert(5, or_dash(&disk.spec.wwid));
        row.insert(7, or_dash(&volumes.join(", ")));
        row.insert(8, or_dash(&disk.uses.mounts.join(", ")));
    }
    row
}

/// The volumes of a node that its config asks for, wherever they are.
fn volumes(node: &Node) -> String {
    let (Ok(volumes), Ok(mounts)) = (&node.volumes, &node.mounts) else { return String::new() };
    let mut text = String::new();
    for volume in volumes {
        let mounted = [USER_VOLUME, EXISTING_VOLUME].iter().find_map(|kind| volume.id.strip_prefix(kind));
        if mounted.is_none() && !is_volume(&volume.id) {
            continue;
        }
        let error = volume.spec.error_message.lines().next();
        let error = error.map_or_else(String::new, |error| format!(": {error}"));
        let place = mounted.map_or_else(String::new, |name| {
            let path = mount_of(name);
            let mounted = mounts.iter().any(|mount| mount.target == path);
            format!(", {} {path}", if mounted { "mounted at" } else { "not mounted at" })
        });
        text.push_str(&format!("  volume {} {}{place}{error}\n", volume.id, volume.spec.phase));
    }
    text
}

/// `ADDRESS/DISK`, a line each.
pub(super) fn names(shown: &[Shown<'_>]) -> String {
    let of = |Shown { node, tried, .. }: &Shown<'_>| {
        let disks = node.disks.iter().flatten().filter(|disk| tried.is_some() || !disk.is_memory());
        disks.map(|disk| format!("{}/{}\n", node.address, disk.id)).collect::<String>()
    };
    shown.iter().filter(|shown| !matches!(shown.tried, Some(Err(_)))).map(of).collect()
}

pub(super) fn yaml(shown: &[Shown<'_>], selector: Option<&str>) -> Result<String> {
    serde_yaml::to_string(&json(shown, selector))
        .map_err(|e| Error::failed(format!("can't be written as YAML: {e}")))
}

pub(super) fn json(shown: &[Shown<'_>], selector: Option<&str>) -> Value {
    json!({
        "apiVersion": crate::intent::API_VERSION,
        "kind": "Nodes",
        "simulated": shown.iter().any(|shown| shown.node.simulated()),
        "selector": selector,
        "nodes": shown.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(Shown { node, about, tried }: &Shown<'_>) -> Value {
    let about = *about;
    let mut faults: Map<String, Value> =
        node.faults().into_iter().map(|(part, error)| (part.to_owned(), error.what.clone().into())).collect();
    if let Some(about) = about {
        let mut also = |part: &str, error: Option<&Error>| {
            faults.extend(error.map(|error| (part.to_owned(), error.what.clone().into())));
        };
        also("extensions", about.extensions.as_ref().err());
        also("time status", about.synced.as_ref().err());
        also("clock", about.clock.as_ref().err());
    }
    let version = node.version.as_ref().ok();
    let disks = node.disks.as_deref().unwrap_or_default();
    let volumes = node.volumes.as_deref().unwrap_or_default();
    let extensions = about.and_then(|about| about.extensions.as_ref().ok());
    json!({
        "address": node.address,
        "name": node.hostname.as_ref().ok(),
        "version": version.map(|v| &v.tag),
        "platform": version.map(|v| &v.platform),
        "architecture": version.map(|v| &v.arch),
        "container": version.map(|v| v.container),
        "maintenance": node.maintenance,
        "role": node.machine_type.as_ref().ok(),
        "stage": node.status.as_ref().ok().map(|s| &s.stage),
        "ready": node.status.as_ref().ok().map(|s| s.ready),
        "certificateDaysLeft": node.cert_days_left,
        "clock": clock_json(about),
        "extensions": extensions.map(|all| all.iter().cloned().collect::<BTreeMap<_, _>>()),
        "labels": node.labels.as_ref().ok(),
        "wantedLabels": node.wanted_labels.as_ref().ok(),
        "disks": disks.iter().map(disk_json).collect::<Vec<_>>(),
        "volumes": volumes.iter().map(|v| json!({
            "id": v.id, "phase": v.spec.phase, "location": v.spec.location, "size": v.spec.size,
            "filesystem": v.spec.filesystem, "error": v.spec.error_message,
        })).collect::<Vec<_>>(),
        "unreadable": faults,
        "selectorError": tried.as_ref().and_then(|tried| tried.as_ref().err()).map(|error| &error.what),
    })
}

fn clock_json(about: Option<&About>) -> Value {
    let clock = about.and_then(|about| about.clock.as_ref().ok());
    let seconds = |ahead: fn(&Clock) -> SignedDuration| clock.map(|clock| ahead(clock).as_secs_f64());
    json!({
        "synced": about.and_then(|about| about.synced.as_ref().ok().copied().flatten()),
        "secondsAheadOfHere": seconds(|clock| clock.ahead_of_here),
        "secondsAheadOfServer": seconds(|clock| clock.ahead_of_server),
    })
}

fn disk_json(disk: &Disk) -> Value {
    let spec = &disk.spec;
    json!({
        "id": disk.id, "path": spec.dev_path, "size": spec.size, "model": spec.model, "serial": spec.serial,
        "wwid": spec.wwid, "transport": spec.transport, "rotational": spec.rotational, "readonly": spec.readonly,
        "cdrom": spec.cdrom, "system": disk.system, "holds": disk.holds(), "free": disk.eligible.is_ok(),
        "why": disk.eligible.as_ref().err(),
        "partitions": disk.partitions.iter().map(|part| json!({
            "id": part.id, "index": part.index, "label": part.label, "format": part.format, "size": part.size,
        })).collect::<Vec<_>>(),
        "volumes": disk.uses.volumes.iter().map(|(id, phase)| json!({"id": id, "phase": phase})).collect::<Vec<_>>(),
        "mounts": disk.uses.mounts, "below": disk.uses.uppers, "leftoverVolumes": disk.uses.strays,
    })
}
