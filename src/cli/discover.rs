//! `discover`: every node's disks and who owns their bytes.

use serde_json::{Value, json};

use super::Global;
use super::global::{Output, observe};
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::observe::disks::{Disk, NEWEST, Selector};
use crate::observe::nodes::Node;
use crate::plan::disks::human;
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Try a selector: show only the disks that a CEL expression matches, such as
    /// 'disk.transport == "nvme" && !system_disk', or a preset (nvme, ssd, serial:…, wwid:…, largest-free-nvme).
    #[arg(long, value_name = "CEL")]
    select: Option<String>,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let selector = args.select.as_deref().map(Selector::parse).transpose()?;
    selector.as_ref().map_or(Ok(()), |selector| selector.check(NEWEST))?;
    let (client, addresses) = targets(global)?;
    let busy = report::busy(global.progress, "reading the nodes");
    let mut nodes = observe(&client, &addresses).await?;
    drop(busy);
    let mut tried: Vec<Option<Result<String>>> = Vec::new();
    for node in &mut nodes {
        tried.push(selector.as_ref().map(|selector| keep(selector, node)));
    }
    match args.output {
        Output::Table => report::stdout(&text(&nodes, &tried)),
        Output::Json => report::stdout(&format!("{:#}\n", json(&nodes, selector.as_ref(), &tried))),
    }
    let failed = nodes.iter().zip(tried).find_map(|(node, tried)| Some((node, tried?.err()?)));
    failed.map_or(Ok(()), |(node, error)| Err(error.at(&node.address)))
}

/// Keeps the disks that the selector matches, and says how many they are.
fn keep(selector: &Selector, node: &mut Node) -> Result<String> {
    if let Ok(version) = &node.version {
        let (major, minor, _) = version.parsed;
        selector.check((major, minor))?;
    }
    let Ok(disks) = &mut node.disks else { return Ok("its disks are not known".to_owned()) };
    let (chosen, all) = (selector.choose(disks, |_| false)?, disks.len());
    *disks = chosen.into_iter().filter_map(|i| disks.get(i).cloned()).collect();
    Ok(format!("matches {} of {all} disks", disks.len()))
}

/// The file's nodes; without a file, those of the talosconfig's context, or of `--nodes`.
fn targets(global: &Global) -> Result<(crate::talos::Client, Vec<String>)> {
    let intent: Option<Intent> = if global.file.exists() { Some(global.intent()?) } else { None };
    if let Some(intent) = &intent
        && let Some(targets) = global.talos(intent)?
    {
        return Ok(targets);
    }
    let client = global.talos_client()?;
    let addresses =
        if global.nodes.is_empty() { global.talos_context()?.nodes } else { global.nodes.clone() };
    if addresses.is_empty() {
        return Err(
            Error::invalid("no nodes to look at").hint("name them with --nodes, or list them in the file")
        );
    }
    Ok((client, addresses))
}

fn text(nodes: &[Node], tried: &[Option<Result<String>>]) -> String {
    let mut text = String::new();
    for (node, tried) in nodes.iter().zip(tried) {
        text.push_str(&headline(node));
        if let Some(tried) = tried {
            let found = tried.as_ref().unwrap_or_else(|error| &error.what);
            text.push_str(&format!("  selector: {found}\n"));
        }
        if let Ok(disks) = &node.disks
            && !matches!(tried, Some(Err(_)))
        {
            // A selector that matches memory is not what somebody meant, so it is shown then.
            let rows = disks.iter().filter(|disk| tried.is_some() || !disk.is_memory()).map(row).collect();
            let header = ["DISK", "SIZE", "TRANSPORT", "MODEL", "SERIAL", "HOLDS", "FREE"];
            for line in report::table(&header, rows).lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        for (what, error) in node.faults() {
            text.push_str(&format!("  {what}: could not be read: {error}\n"));
        }
        if let (Ok(volumes), Ok(mounts)) = (&node.volumes, &node.mounts) {
            for volume in volumes.iter().filter(|v| v.id.starts_with("u-")) {
                let path = format!("/var/mnt/{}", volume.id.trim_start_matches("u-"));
                let mounted =
                    if mounts.iter().any(|m| m.target == path) { "mounted at" } else { "not mounted at" };
                let error = &volume.spec.error_message;
                let error = if error.is_empty() { String::new() } else { format!(": {error}") };
                text.push_str(&format!(
                    "  volume {} {}, {mounted} {path}{error}\n",
                    volume.id, volume.spec.phase
                ));
            }
        }
    }
    text
}

fn headline(node: &Node) -> String {
    let version = node.version.as_ref().map_or("of unknown version", |v| v.tag.as_str());
    let name = match &node.hostname {
        Ok(Some(name)) => format!(" ({name})"),
        _ => String::new(),
    };
    let simulated = if node.simulated() { ", simulated" } else { "" };
    let place = if node.version.as_ref().is_ok_and(|v| v.container) { ", in a container" } else { "" };
    let role = node.machine_type.as_ref().ok().and_then(|role| role.as_deref()).unwrap_or("no role");
    let stage = node.status.as_ref().map_or("unknown stage", |s| s.stage.as_str());
    let days = node.cert_days_left;
    format!(
        "{}{name}: Talos {version}, {role}, {stage}{place}{simulated}; client certificate good for {days} days\n",
        node.address
    )
}

fn row(disk: &Disk) -> Vec<String> {
    let or_dash = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
    let free = match &disk.eligible {
        Ok(()) => "yes".to_owned(),
        // The column before says it.
        Err(_) if disk.is_held() => "no".to_owned(),
        Err(why) => format!("no: {why}"),
    };
    vec![
        disk.id.clone(),
        human(disk.spec.size),
        or_dash(&disk.spec.transport),
        or_dash(&disk.spec.model),
        or_dash(&disk.spec.serial),
        disk.holder.to_string(),
        free,
    ]
}

fn json(nodes: &[Node], selector: Option<&Selector>, tried: &[Option<Result<String>>]) -> Value {
    json!({
        "apiVersion": crate::intent::API_VERSION,
        "kind": "Nodes",
        "simulated": nodes.iter().any(Node::simulated),
        "selector": selector.map(ToString::to_string),
        "nodes": nodes.iter().zip(tried).map(|(node, tried)| node_json(node, tried.as_ref())).collect::<Vec<_>>(),
    })
}

fn node_json(node: &Node, tried: Option<&Result<String>>) -> Value {
    let faults: serde_json::Map<String, Value> =
        node.faults().into_iter().map(|(part, error)| (part.to_owned(), error.what.clone().into())).collect();
    let disks = node.disks.as_deref().unwrap_or_default();
    let volumes = node.volumes.as_deref().unwrap_or_default();
    json!({
        "address": node.address,
        "name": node.hostname.as_ref().ok(),
        "version": node.version.as_ref().ok().map(|v| &v.tag),
        "container": node.version.as_ref().ok().map(|v| v.container),
        "role": node.machine_type.as_ref().ok(),
        "stage": node.status.as_ref().ok().map(|s| &s.stage),
        "ready": node.status.as_ref().ok().map(|s| s.ready),
        "certificateDaysLeft": node.cert_days_left,
        "labels": node.labels.as_ref().ok(),
        "wantedLabels": node.wanted_labels.as_ref().ok(),
        "disks": disks.iter().map(disk_json).collect::<Vec<_>>(),
        "volumes": volumes.iter().map(|v| json!({
            "id": v.id, "phase": v.spec.phase, "location": v.spec.location, "size": v.spec.size,
            "filesystem": v.spec.filesystem, "error": v.spec.error_message,
        })).collect::<Vec<_>>(),
        "unreadable": faults,
        "selectorError": tried.and_then(|tried| tried.as_ref().err()).map(|error| &error.what),
    })
}

fn disk_json(disk: &Disk) -> Value {
    let spec = &disk.spec;
    json!({
        "id": disk.id, "path": spec.dev_path, "size": spec.size, "model": spec.model, "serial": spec.serial,
        "wwid": spec.wwid, "transport": spec.transport, "rotational": spec.rotational, "readonly": spec.readonly,
        "system": disk.system, "holds": disk.holder.to_string(), "free": disk.eligible.is_ok(),
        "why": disk.eligible.as_ref().err(),
    })
}
