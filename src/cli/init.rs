//! `init`: a first nodeprep.yaml, from another tool's file or the cluster's own members, the nodes' disks and what
//! somebody answers.

mod backup;
mod class;

use std::path::{Path, PathBuf};

use super::Global;
use super::patches::{read, replace};
use crate::error::{Error, Kind, Result};
use crate::intent::import::Import;
use crate::intent::init::{self, Answers, Different, Proposal, Volume};
use crate::intent::{self, Size, distinct_by};
use crate::model::node::Node;
use crate::observe::nodes::observe_all;
use crate::report;
use crate::talos::Client;
use crate::talos::connect::Endpoint;
use crate::talos::resources::Member;

/// The volume's name when nothing is said.
const VOLUME: &str = "openebs";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A topf.yaml or talconfig.yaml to take the nodes from [default: the members that the talosconfig's endpoints tell].
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The cluster's name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The volume's name; Talos mounts it at /var/mnt/NAME [default: openebs].
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Which disk it takes: a CEL expression or a preset, such as nvme, serial:… or largest-free-nvme.
    #[arg(long = "match", value_name = "SELECTOR")]
    matches: Option<String>,
    /// The least size of a volume, such as 100GiB.
    #[arg(long, value_name = "SIZE", value_parser = Size::parse)]
    min_size: Option<Size>,
    #[command(flatten)]
    backup: backup::Args,
    /// Ask nothing; take what was found.
    #[arg(short, long)]
    yes: bool,
    /// Overwrite the file if there is one.
    #[arg(long)]
    force: bool,
}

/// `file` is where it is written, also in a sandbox, which has a file of its own.
pub(super) async fn run(global: &Global, args: &Args, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    if file.exists() && !args.force {
        return Err(Error::refused(format!("{name} is there already"))
            .hint("write another one with -f FILE, or overwrite it with --force"));
    }
    let import = args.from.as_deref().map(read).transpose()?;
    let found = look(global, import.as_ref()).await?;
    found.notes.iter().for_each(|note| report::stderr(&format!("! {note}\n")));
    let asking = Asking { somebody: !args.yes && report::somebody() };
    let mut answers = asking.answers(args, import.as_ref(), &found)?;
    answers.notes.iter().for_each(|note| report::stderr(&format!("! {note}\n")));
    answers.name = asking.cluster_name(args, import.as_ref(), &found)?;
    let addresses: Vec<&str> = answers.nodes.iter().map(|node| node.address.as_str()).collect();
    answers.default_class = class::is_missing(global, &addresses).await;
    answers.backup = asking.backup(&args.backup)?;
    let text = init::text(&answers);
    good(&text, import.as_ref())?;
    let secrets = backup::Secrets::of(&answers, file, &args.backup, &asking)?;
    if asking.somebody {
        report::stderr(&text);
        asking.confirm(&format!("Write this to {name}?"))?;
    }
    secrets.write()?;
    replace(file, text.as_bytes())?;
    report::stdout(&format!("wrote {name}\n`nodeprep plan` shows what it would change\n"));
    Ok(())
}

/// What was made of the answers is a file that nodeprep takes. What is wrong is so in what was asked or read: nothing is
/// written yet that could be looked at.
fn good(text: &str, import: Option<&Import>) -> Result<()> {
    let from = import.map_or("what was asked for", |import| import.file.as_str());
    intent::parse("", text.as_bytes()).map(drop).map_err(|e| {
        let what = e.what.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit()).trim_start();
        Error { what: format!("{from}: {what}"), ..e }
    })
}

/// What is known of the cluster.
struct KnownCluster {
    /// The name of the talosconfig's context.
    context: Option<String>,
    /// Addresses, with what people call them.
    machines: Vec<(String, String)>,
    /// Those that could be read.
    nodes: Vec<Node>,
    notes: Vec<String>,
}

/// The nodes of `--nodes`, else of the file, else the cluster's members; and what is on them, as far as they can be read.
async fn look(global: &Global, import: Option<&Import>) -> Result<KnownCluster> {
    let reach = global.reach();
    let (context, client) = (reach.talos_context(), reach.talos());
    let mut machines: Vec<(String, String)> =
        global.nodes.iter().map(|address| (address.clone(), String::new())).collect();
    let mut notes = Vec::new();
    if let Some(import) = import {
        let listed =
            import.machines.iter().filter_map(|m| Some((m.addresses.first()?.clone(), m.name.clone())));
        if machines.is_empty() {
            machines = listed.collect();
        }
        if import.partial {
            notes.push(format!(
                "{}: a program adds nodes that it does not list; add them yourself",
                import.file
            ));
        }
    }
    if machines.is_empty() {
        let (context, client) = match (&context, &client) {
            (Ok(context), Ok(client)) => (context, client),
            (Err(e), _) | (_, Err(e)) => {
                let hint = "name the nodes with --nodes, a topf.yaml or talconfig.yaml with --from, or a talosconfig with --talosconfig";
                return Err(Error::new(e.kind, format!("no nodes are known: {}", e.what)).hint(hint));
            }
        };
        machines = members(client, &context.nodes, &context.endpoints).await?;
    }
    let machines = distinct_by(machines, |(address, _)| address);
    let addresses: Vec<String> = machines.iter().map(|(address, _)| address.clone()).collect();
    let nodes = match client {
        Ok(client) => {
            let _busy = report::busy(global.progress, "reading the nodes");
            observe_all(&client, &addresses, jiff::Timestamp::now()).await?
        }
        Err(e) => {
            notes.push(format!(
                "the nodes were not read, so that nothing is known of their disks: {}",
                e.what
            ));
            Vec::new()
        }
    };
    for node in &nodes {
        if let Err(e) = &node.disks {
            notes.push(format!("{}: nothing is known of its disks: {}", node.address, e.what));
        }
    }
    Ok(KnownCluster { context: context.ok().map(|context| context.name), machines, nodes, notes })
}

/// The cluster's members, as the first node tells that answers.
async fn members(client: &Client, nodes: &[String], endpoints: &[String]) -> Result<Vec<(String, String)>> {
    let hosts = endpoints.iter().filter_map(|text| Some(Endpoint::parse(text).ok()?.host));
    let known: Vec<String> = nodes.iter().cloned().chain(hosts).collect();
    let mut failed = None;
    for address in &known {
        match client.node(address)?.specs::<Member>().await {
            Ok(found) if !found.is_empty() => {
                return Ok(found.into_iter().filter_map(|member| reached(member.spec, &known)).collect());
            }
            Ok(_) => {}
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    match failed {
        Some(e) => Err(e),
        None if !nodes.is_empty() => Ok(nodes.iter().map(|node| (node.clone(), String::new())).collect()),
        None => Err(Error::invalid("no nodes are known: the cluster tells of no members")
            .hint("name the nodes with --nodes")),
    }
}

/// The address of a member that the talosconfig knows, else its first.
fn reached(member: Member, known: &[String]) -> Option<(String, String)> {
    let address =
        member.addresses.iter().find(|address| known.contains(address)).or(member.addresses.first())?;
    Some((address.clone(), member.hostname))
}

/// Asks where somebody is there to answer; else takes what was found, or says what is missing.
struct Asking {
    somebody: bool,
}

impl Asking {
    fn cluster_name(&self, args: &Args, import: Option<&Import>, found: &KnownCluster) -> Result<String> {
        if let Some(name) = &args.name {
            return Ok(name.clone());
        }
        let known = import.and_then(|import| import.cluster.as_deref()).or(found.context.as_deref());
        let known = known.and_then(init::cluster_name);
        self.text("The cluster's name", known, init::is_cluster_name, "--name")
    }

    /// Nodes and volumes: of the file that has volumes, unless one is named; else one volume on a disk of each node.
    fn answers(&self, args: &Args, import: Option<&Import>, found: &KnownCluster) -> Result<Answers> {
        let named = args.volume.is_some() || args.matches.is_some();
        if let Some(import) =
            import.filter(|import| !named && import.machines.iter().any(|m| !m.volumes.is_empty()))
        {
            let listed = |address: &str| import.machine(address, None).map(|machine| machine.name.clone());
            if let Some((unknown, _)) = found.machines.iter().find(|(address, _)| listed(address).is_none()) {
                return Err(Error::invalid(format!(
                    "--nodes {unknown}: not the address of a node of {}",
                    import.file
                ))
                .hint("name nodes as that file does, or take the volume from --volume and --match"));
            }
            let wanted: Vec<_> = found.machines.iter().filter_map(|(address, _)| listed(address)).collect();
            let mut import = import.clone();
            import.machines.retain(|machine| wanted.contains(&machine.name));
            let answers = init::from_import(&import, args.min_size)?;
            return Ok(answers);
        }
        let name = match &args.volume {
            Some(name) => name.clone(),
            None => {
                self.text("The volume's name", Some(VOLUME.into()), |text| !text.is_empty(), "--volume")?
            }
        };
        let notes = import.map(|import| import.notes.clone()).unwrap_or_default();
        let mut answers = Answers { notes, ..Answers::default() };
        for (address, about) in &found.machines {
            let node = found.nodes.iter().find(|node| node.address == *address);
            let role = node.and_then(|node| node.machine_type.as_ref().ok()?.as_deref());
            let hostname = node.and_then(|node| node.hostname.as_ref().ok()?.clone());
            let about = if about.is_empty() { hostname.unwrap_or_default() } else { about.clone() };
            let about = [Some(about.as_str()).filter(|about| !about.is_empty()), role];
            let about = about.into_iter().flatten().collect::<Vec<_>>().join(", ");
            answers.nodes.push(init::Node { address: address.clone(), about, ..init::Node::default() });
        }
        // A container has no disks; volumes are directories there.
        let nodes =
            found.nodes.iter().filter(|node| !node.version.as_ref().is_ok_and(|version| version.container));
        let disks: Vec<_> =
            nodes.filter_map(|node| Some((node.address.as_str(), node.disks.as_deref().ok()?))).collect();
        let proposal = init::propose(&name, &disks)?;
        let matches = match &args.matches {
            Some(matches) => matches.clone(),
            None => self.selector(&name, &proposal, disks.is_empty(), &mut answers)?,
        };
        let known = args.min_size.unwrap_or_else(|| init::min_size(proposal.smallest));
        let min_size = match args.min_size {
            Some(size) => size,
            None => {
                let text = self.text(
                    "Its least size",
                    Some(known.to_string()),
                    |t| Size::parse(t).is_ok(),
                    "--min-size",
                )?;
                Size::parse(&text).map_err(Error::invalid)?
            }
        };
        let mut versions = found.nodes.iter().map(|node| node.version.as_ref().map(|version| version.parsed));
        let quota = !found.nodes.is_empty() && versions.all(|v| v.is_ok_and(|v| v >= (1, 11, 0)));
        answers.volumes.push(Volume {
            name,
            matches: Some(matches),
            min_size: Some(min_size),
            quota,
            ..Volume::default()
        });
        Ok(answers)
    }

    /// The selector by the nodes' disks; what single nodes need instead goes to their entries.
    fn selector(
        &self,
        name: &str,
        proposal: &Proposal,
        blind: bool,
        answers: &mut Answers,
    ) -> Result<String> {
        let missing = |what: String, hint: &str| Err(Error::invalid(what).hint(hint));
        let proposed = match proposal.matches {
            Some(matches) => Some(matches.to_owned()),
            None if blind => {
                answers.notes.push(
                    "No disks are known: `match` is a guess; try it with `nodeprep discover --select`."
                        .into(),
                );
                Some("nvme".into())
            }
            None => None,
        };
        if proposed.is_none() && !self.somebody {
            return missing(
                "no node has a free NVMe disk, so that there is no disk to propose".into(),
                "say which disk the volume takes with --match; `nodeprep discover` shows them all",
            );
        }
        let selector = self.text(
            "Its disk: a CEL expression or a preset",
            proposed.clone(),
            |t| !t.is_empty(),
            "--match",
        )?;
        if proposed.as_ref() != Some(&selector) {
            return Ok(selector);
        }
        for node in &mut answers.nodes {
            if proposal.without.contains(&node.address) {
                node.different.insert(name.to_owned(), None);
            }
            let Some(disks) = proposal.undecided.get(&node.address) else { continue };
            let words: Vec<&str> = disks.iter().map(|(_, words)| words.as_str()).collect();
            if !self.somebody {
                return missing(
                    format!("{} has free NVMe disks of one size: {}", node.address, words.join(", ")),
                    "say which disk the volume takes with --match, or run it at a terminal to be asked",
                );
            }
            let prompt = format!("The disk of {}", node.address);
            let chosen = dialoguer::Select::new().with_prompt(prompt).items(&words).default(0).interact();
            let preset = disks.get(chosen.map_err(no_answer)?).map(|(preset, _)| preset.clone());
            node.different
                .insert(name.to_owned(), Some(Different { matches: preset, ..Different::default() }));
        }
        Ok(selector)
    }

    /// Asks until the answer is good; without somebody, what is known has to be.
    fn text(
        &self,
        prompt: &str,
        known: Option<String>,
        good: fn(&str) -> bool,
        switch: &str,
    ) -> Result<String> {
        if !self.somebody {
            return known
                .ok_or_else(|| Error::invalid(format!("{switch} is missing, and there is nobody to ask")));
        }
        let check = |text: &String| if good(text) { Ok(()) } else { Err("this can't be") };
        let mut input = dialoguer::Input::<String>::new().with_prompt(prompt).validate_with(check);
        if let Some(known) = known {
            input = input.default(known);
        }
        input.interact_text().map_err(no_answer)
    }

    fn confirm(&self, prompt: &str) -> Result<()> {
        let confirm = dialoguer::Confirm::new().with_prompt(prompt).default(true);
        if confirm.interact().map_err(no_answer)? {
            return Ok(());
        }
        Err(Error::new(Kind::Interrupted, "not confirmed; nothing was written"))
    }
}

fn no_answer(error: dialoguer::Error) -> Error {
    Error::new(Kind::Interrupted, format!("no answer ({error}); nothing was written"))
}
