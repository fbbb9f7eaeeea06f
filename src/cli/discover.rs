//! `discover`: every node's disks and who owns their bytes.

mod view;

use super::Global;
use crate::error::{Error, Result};
use crate::intent::{Intent, distinct};
use crate::model::disks::{NEWEST, Selector};
use crate::model::node::{Node, all_answered};
use crate::observe::about::about_all;
use crate::observe::nodes::observe_all;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Listing,
    /// Try a selector: show only the disks that a CEL expression matches, such as
    /// 'disk.transport == "nvme" && !system_disk', or a preset (nvme, ssd, serial:…, wwid:…, largest-free-nvme).
    #[arg(long, value_name = "CEL")]
    select: Option<String>,
}

/// How a list is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Listing {
    #[default]
    Table,
    /// The table with WWIDs, volumes and mounts; extensions, labels and clocks.
    Wide,
    Json,
    Yaml,
    /// Only names: `ADDRESS/DISK`, a line each.
    Name,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let selector = args.select.as_deref().map(Selector::parse).transpose()?;
    selector.as_ref().map_or(Ok(()), |selector| selector.check(NEWEST))?;
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
    let tried: Vec<_> = nodes.iter_mut().map(|node| Some(keep(selector.as_ref()?, node))).collect();
    let mut about = about.iter().map(|about| about.as_ref().ok());
    let shown: Vec<view::Shown<'_>> = nodes
        .iter()
        .zip(&tried)
        .map(|(node, tried)| view::Shown { node, about: about.next().flatten(), tried })
        .collect();
    let selector = selector.map(|selector| selector.to_string());
    report::stdout(&match args.output {
        Listing::Table => view::text(&shown, false),
        Listing::Wide => view::text(&shown, true),
        Listing::Json => format!("{:#}\n", view::json(&shown, selector.as_deref())),
        Listing::Yaml => view::yaml(&shown, selector.as_deref())?,
        Listing::Name => view::names(&shown),
    });
    // What could be read was shown; what could not is still an error.
    let failed = nodes.iter().zip(tried).find_map(|(node, tried)| Some((node, tried?.err()?)));
    failed.map_or(answered, |(node, error)| Err(error.at(&node.address)))
}

/// Keeps the disks that the selector matches, and says how many they are.
fn keep(selector: &Selector<'_>, node: &mut Node) -> Result<String> {
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
pub(super) fn targets(global: &Global) -> Result<(crate::talos::Client, Vec<String>)> {
    let intent: Option<Intent> = if global.file.exists() { Some(global.intent()?) } else { None };
    let listed = intent.as_ref().map_or(Ok(Vec::new()), |intent| global.addresses(intent))?;
    let reach = global.reach();
    let client = reach.talos()?;
    let addresses = match (listed.is_empty(), global.nodes.is_empty()) {
        (false, _) => listed,
        (true, true) => distinct(&reach.talos_context()?.nodes),
        (true, false) => distinct(&global.nodes),
    };
    if addresses.is_empty() {
        return Err(
            Error::invalid("no nodes to look at").hint("name them with --nodes, or list them in the file")
        );
    }
    Ok((client, addresses))
}
