//! Applying a machine config: look again, dry run, apply, look at what came of it.
//!
//! Talos keeps one timer for a config that is being tried. Every ApplyConfiguration that is not a try stops it, a dry run
//! too, and the config that was tried stays (internal/app/machined, ApplyConfiguration); so dry runs are tries, and
//! nothing is applied while the config in force is not the one that the node would boot with.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::ExposeSecret;

use super::super::RunContext;
use super::seen::{await_labels, await_volumes};
use super::{quorum, reboot};
use crate::config_doc::ConfigDoc;
use crate::error::{Code, Error, Kind, Result};
use crate::event::Events;
use crate::observe::nodes;
use crate::plan::{Action, ApplyConfig, NodeAction, Plan, disks};
use crate::talos::client::Mode;
use crate::talos::resources::{Item, MachineConfig, id};
use crate::talos::{Client, Node};
use crate::wait::{Look, Wait};

/// So many looks at a node that answers settle that a config did not come to it.
const LOOKS: usize = 5;

/// What a node has after a call whose reply was lost.
enum AfterCall {
    Ours,
    Another,
    Former,
}

/// Applies a machine config; true when the node's config was changed.
pub(in crate::session) async fn apply_config(
    client: &Client,
    work: &ApplyConfig,
    context: &RunContext,
    events: &Events,
) -> Result<bool> {
    let turn = ConfigWrite { client, node: client.node(&work.address)?, work, context, events };
    let staged = context.manner.mode == Mode::Staged;
    let configs = Configs::read(&turn.node).await?;
    if staged && configs.boots_with(work) && !configs.runs(work) {
        events.warn("staged already: it takes effect at the node's next boot");
        return Ok(false);
    }
    configs.refuse_pending(&turn.node)?;
    let changed = !configs.runs(work);
    if changed {
        configs.same_base(&turn.node, work)?;
        turn.change().await?;
    }
    if staged {
        events.warn("staged: it takes effect at the node's next boot");
    } else if !changed {
        turn.seen().await?;
    }
    Ok(changed)
}

/// One node's turn to get its config.
struct ConfigWrite<'a> {
    client: &'a Client,
    node: Node,
    work: &'a ApplyConfig,
    context: &'a RunContext,
    events: &'a Events,
}

impl ConfigWrite<'_> {
    /// Applies the config, and waits for what it asks for; a control plane is left alone while etcd is not well.
    async fn change(&self) -> Result<()> {
        let Self { client, node, work, context, events } = self;
        let mode = context.manner.mode;
        same_disks(node, work).await?;
        let reboots = match judged(node, work).await? {
            Judged::Taken(warnings) => {
                warnings.iter().for_each(|warning| events.warn(format!("the node warns: {warning}")));
                false
            }
            Judged::NeedsReboot(error) if matches!(mode, Mode::NoReboot | Mode::Try) => {
                return Err(error.hint(
                    "--mode auto lets the node reboot; --mode staged leaves it to the node's next boot",
                ));
            }
            Judged::NeedsReboot(_) => mode == Mode::Auto,
        };
        let etcd = self.holds(reboots).await?;
        if reboots {
            // The drain takes its time: what was judged before it is judged again.
            let write = async {
                self.holds(true).await?;
                self.write().await.map(drop)
            };
            reboot::around(context, node, events, write).await?;
        } else {
            let before = self.write().await?;
            if mode == Mode::Try {
                self.keep_or_lose(&before).await?;
            }
        }
        if mode != Mode::Staged {
            self.seen().await?;
        }
        match etcd {
            true => quorum::again(client, node, context.manner.deadlines.etcd.std(), events).await,
            false => Ok(()),
        }
    }

    /// Whether etcd runs on the node, and is well; without the node too, where that is to reboot.
    async fn holds(&self, reboots: bool) -> Result<bool> {
        let Self { client, node, work, context, .. } = self;
        Ok(work.control_plane && quorum::holds(client, node, &context.cluster, reboots).await?)
    }

    /// Looks once more, right before the write: somebody else may have applied meanwhile, or taken the Lease over. Returns what
    /// was there.
    async fn write(&self) -> Result<Configs> {
        let configs = Configs::read(&self.node).await?;
        configs.refuse_pending(&self.node)?;
        configs.same_base(&self.node, self.work)?;
        self.context.still_ours().await?;
        self.send(self.context.manner.mode, &configs).await?;
        Ok(configs)
    }

    /// Sends the config, over the one that existed `before`. A lost reply is settled by looking whether the node has it;
    /// that it has not is settled by several looks, as the node may be at it still.
    async fn send(&self, mode: Mode, before: &Configs) -> Result<()> {
        let Self { node, work, .. } = self;
        let timeout = (mode == Mode::Try).then(|| self.longest_try());
        let Err(error) = node.apply(bytes(work), mode, false, timeout).await else {
            return Ok(());
        };
        if error.kind != Kind::Unavailable {
            return Err(error);
        }
        let has = |configs: &Configs| match mode {
            Mode::Staged => configs.boots_with(work),
            Mode::Try => configs.runs(work),
            // What is only tried runs too, and is taken back.
            Mode::Auto | Mode::NoReboot => configs.runs(work) && configs.refuse_pending(node).is_ok(),
        };
        let mut without = 0;
        let what = format!("{} to show whether it has the config", node.address());
        let found = Wait::new(what, self.within(), self.events).later().until(async || {
            let Ok(configs) = Configs::read(node).await else {
                without = 0;
                return Ok(Look::not_yet("it does not answer"));
            };
            without += 1;
            Ok(if has(&configs) {
                Look::Done(AfterCall::Ours)
            } else if !configs.runs(work) && configs.active.version != before.active.version {
                Look::Done(AfterCall::Another)
            } else if without == LOOKS {
                Look::Done(AfterCall::Former)
            } else {
                Look::not_yet("it runs the former one")
            })
        });
        match found.await {
            Ok(AfterCall::Ours) => Ok(()),
            Ok(AfterCall::Another) => {
                Err(error.hint("the node has another config by now: run it again, to plan from it"))
            }
            Ok(AfterCall::Former) | Err(_) => {
                Err(error.hint("the node does not have the config; run it again"))
            }
        }
    }

    /// Waits until what the config asks for is there.
    async fn seen(&self) -> Result<()> {
        let Self { client, node, work, events, .. } = self;
        await_volumes(client, &work.address, &work.volumes, self.within(), events).await?;
        await_labels(node, &work.labels, self.within(), events).await
    }

    /// Makes a tried config permanent when everything that it asks for is there; else the node takes it back.
    async fn keep_or_lose(&self, before: &Configs) -> Result<()> {
        let Err(error) = self.seen().await else {
            return self.send(Mode::NoReboot, before).await;
        };
        let what = "the node to take the tried config back";
        let taken_back = Wait::new(what, self.longest_try(), self.events).until(async || {
            let now = Configs::read(&self.node).await;
            let back = now.is_ok_and(|now| text(&now.active) == text(&before.active));
            Ok(if back { Look::Done(()) } else { Look::not_yet(&error.what) })
        });
        Err(match taken_back.await {
            Ok(()) => error.hint(
                "the node took the config back by itself; what it wrote to the disk meanwhile is still there",
            ),
            Err(_) => {
                error.hint("the node did not take the tried config back yet: talosctl get machineconfig")
            }
        })
    }

    fn within(&self) -> Duration {
        self.context.manner.deadlines.volumes.std()
    }

    /// A try lasts longer than what it is to show is waited for: volumes first, labels after them.
    fn longest_try(&self) -> Duration {
        self.within() * 2 + Duration::from_secs(60)
    }
}

/// The nodes that a plan reboots, as they say themselves; only Talos before 1.14 ever does.
///
/// # Errors
/// A node refuses its config, or can't be asked.
pub async fn reboots(client: &Client, plan: &Plan) -> Result<Vec<String>> {
    let configs = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Node(NodeAction::Config(work)) => Some(work),
        _ => None,
    });
    let asked = stream::iter(configs).map(|work| reboot(client, work)).buffered(nodes::AT_ONCE);
    let asked: Vec<Option<String>> = asked.try_collect().await?;
    Ok(asked.into_iter().flatten().collect())
}

/// The node, if applying this reboots it.
async fn reboot(client: &Client, work: &ApplyConfig) -> Result<Option<String>> {
    let node = client.node(&work.address)?;
    Configs::read(&node).await?.refuse_pending(&node)?;
    match judged(&node, work).await? {
        Judged::Taken(_) => Ok(None),
        Judged::NeedsReboot(_) => Ok(Some(work.address.clone())),
    }
}

/// The configs of a node.
struct Configs {
    active: Item<MachineConfig>,
    /// The one that it boots with next, where Talos tells it.
    persistent: Option<Item<MachineConfig>>,
}

impl Configs {
    async fn read(node: &Node) -> Result<Self> {
        let mut all = node.specs::<MachineConfig>().await?;
        let mut take = |id| all.iter().position(|config| config.id == id).map(|at| all.swap_remove(at));
        let active = take(id::ACTIVE_CONFIG).ok_or_else(|| {
            Error::failed(format!("{}: has no machine config", node.address()))
                .hint("`nodeprep bootstrap` gives a machine in maintenance mode the one that the file names")
        })?;
        Ok(Self { active, persistent: take(id::PERSISTENT_CONFIG) })
    }

    fn runs(&self, work: &ApplyConfig) -> bool {
        text(&self.active) == work.config.expose_secret()
    }

    fn boots_with(&self, work: &ApplyConfig) -> bool {
        self.persistent.as_ref().is_some_and(|config| text(config) == work.config.expose_secret())
    }

    /// A config that is staged or being tried would be lost, or made permanent, by another one.
    fn refuse_pending(&self, node: &Node) -> Result<()> {
        let meaning = |config| ConfigDoc::parse(text(config)).ok();
        let same = |persistent| {
            text(persistent) == text(&self.active)
                || meaning(persistent).zip(meaning(&self.active)).is_some_and(|(a, b)| a.means(&b))
        };
        if self.persistent.as_ref().is_none_or(same) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{}: the machine config in force is not the one that it boots with: one is staged, or being tried",
            node.address()
        ))
        .hint("a try ends by itself, and a staged config takes effect when the node reboots; run this again then"))
    }

    /// The plan was made from this version of the config; a newer one would be overwritten.
    fn same_base(&self, node: &Node, work: &ApplyConfig) -> Result<()> {
        let version = &self.active.version;
        if *version == work.base_version {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{}: its machine config changed since the plan was made (version {} then, {version} now)",
            node.address(),
            work.base_version
        ))
        .hint("run it again, to plan from what is there now"))
    }
}

fn text(config: &Item<MachineConfig>) -> &str {
    config.spec.0.expose_secret()
}

/// The approved disks are found again by serial and WWID, and are still what the plan saw.
async fn same_disks(node: &Node, work: &ApplyConfig) -> Result<()> {
    if work.disks.is_empty() {
        return Ok(());
    }
    let now = nodes::disks(node).await?;
    for approved in &work.disks {
        disks::still(approved, &now).map_err(|e| e.at(&work.address))?;
    }
    Ok(())
}

/// What a node says of a config in a dry run.
enum Judged {
    /// It takes it at once, with these warnings.
    Taken(Vec<String>),
    /// It would have to reboot, and says so in this error.
    NeedsReboot(Error),
}

/// The node's own judgement.
///
/// # Errors
/// It refuses the config, or can't be asked.
async fn judged(node: &Node, work: &ApplyConfig) -> Result<Judged> {
    match node.apply(bytes(work), Mode::Try, true, None).await {
        Ok(dry) => Ok(Judged::Taken(dry.warnings)),
        Err(error) if error.code == Some(Code::NeedsReboot) => Ok(Judged::NeedsReboot(error)),
        Err(error) => Err(error),
    }
}

fn bytes(work: &ApplyConfig) -> &[u8] {
    work.config.expose_secret().as_bytes()
}
