//! `discover`: every node's disks and who owns their bytes.

mod view;

use super::Global;
use super::global::all_answered;
use crate::error::{Error, Result};
use crate::intent::Intent;
use crate::observe::about::about_all;
use crate::observe::disks::select;
use crate::observe::nodes::{Node, observe_all};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Listing,
    /// Show only the disks that a CEL expression matches, such as 'disk.transport == "nvme" && !system_disk'.
    #[arg(long, value_name = "CEL")]
    select: Option<String>,
}

/// How a list is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Listing {
    #[default]
    Table,
    /// The table with WWIDs, volumes and mounts; extensions, labels and clocks.
    Wide,
    Json,
    Yaml,
    /// Only names: `ADDRESS/DISK`, a line each.
    Name,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let (client, addresses) = targets(global)?;
    let busy = report::busy(global.progress, "reading the nodes");
    let mut nodes = observe_all(&client, &addresses, jiff::Timestamp::now()).await?;
    let answered = all_answered(&nodes);
    if !nodes.iter().any(Node::answers) {
        return answered;
    }
    let about = match args.output {
        Listing::Name => Vec::new(),
        _ => about_all(&client, &nodes).await,
    };
    drop(busy);
    if let Some(expression) = &args.select {
        for node in &mut nodes {
            if let Ok(disks) = &mut node.disks {
                let chosen = select(expression, disks)?;
                *disks = chosen.into_iter().filter_map(|i| disks.get(i).cloned()).collect();
            }
        }
    }
    let about: Vec<_> = about.into_iter().map(Result::ok).collect();
    report::stdout(&match args.output {
        Listing::Table => view::text(&nodes, &about, false),
        Listing::Wide => view::text(&nodes, &about, true),
        Listing::Json => format!("{:#}\n", view::json(&nodes, &about)),
        Listing::Yaml => view::yaml(&nodes, &about)?,
        Listing::Name => view::names(&nodes),
    });
    // What could be read was shown; what could not is still an error.
    answered
}

/// The file's nodes; without a file, those of the talosconfig's context, or of `--nodes`.
pub(super) fn targets(global: &Global) -> Result<(crate::talos::Client, Vec<String>)> {
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
