//! A machine's first config: the machine is looked at again, judges the config in a dry run, gets it, installs Talos and
//! comes back with it.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::super::RunContext;
use super::seen::{await_labels, await_open};
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::model::node::MAINTENANCE;
use crate::observe::nodes;
use crate::plan::bootstrap::Install;
use crate::talos::client::Mode;
use crate::talos::resources::{MachineConfig, MachineStatus, SystemDisk, id};
use crate::talos::{self, Client, Node};
use crate::wait::{Look, Wait};

/// A machine that took its config leaves maintenance mode within seconds.
const LEAVES: Duration = Duration::from_secs(30);
/// The stages of a machine that is done with the installation.
const UP: [&str; 2] = ["booting", "running"];

/// Gives a machine its first config; true when it was given.
pub(in crate::session) async fn install(
    client: &Client,
    work: &Install,
    context: &RunContext,
    events: &Events,
) -> Result<bool> {
    let turn = FirstConfig { client, node: client.node(&work.address)?, work, context, events };
    let given = match turn.stands().await? {
        Stands::Configured(true) => false,
        Stands::Configured(false) => return Err(turn.another_config()),
        Stands::Maintenance => {
            turn.give().await?;
            true
        }
    };
    turn.seen().await?;
    Ok(given)
}

/// How a machine stands.
enum Stands {
    /// It has a config; whether it is this one.
    Configured(bool),
    Maintenance,
}

struct FirstConfig<'a> {
    client: &'a Client,
    node: Node,
    work: &'a Install,
    context: &'a RunContext,
    events: &'a Events,
}

impl FirstConfig<'_> {
    /// # Errors
    /// It does not answer, or answers in maintenance mode with another key: it was started again, or it is another machine.
    async fn stands(&self) -> Result<Stands> {
        match self.node.spec::<MachineConfig>(id::ACTIVE_CONFIG).await {
            Ok(found) => {
                let is = found.is_some_and(|config| self.is_ours(config.spec.0.expose_secret()));
                Ok(Stands::Configured(is))
            }
            Err(error) if talos::is_stranger(&error) => {
                let status = self.bare()?.spec::<MachineStatus>(id::MACHINE).await?;
                match status {
                    Some(status) if status.spec.stage == MAINTENANCE => Ok(Stands::Maintenance),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn is_ours(&self, text: &str) -> bool {
        let ours = self.work.config.expose_secret();
        let means = |text: &str| ConfigDoc::parse(text).ok();
        text == ours || means(text).zip(means(ours)).is_some_and(|(one, other)| one.means(&other))
    }

    /// The machine without credentials, by the key that it had when the plan was made.
    fn bare(&self) -> Result<Node> {
        let address = &self.work.address;
        self.client.insecure(address, Some(&self.work.fingerprint))?.node(address)
    }

    fn another_config(&self) -> Error {
        Error::refused(format!(
            "{}: somebody else gave it a config since the plan was made",
            self.node.address()
        ))
        .hint("run it again, to plan from what is there now")
    }

    /// Looks at the disks once more, lets the machine judge the config, and gives it.
    async fn give(&self) -> Result<()> {
        let (bare, work) = (self.bare()?, self.work);
        if let Some(disk) = &work.disk {
            disk.still(&nodes::disks(&bare).await?).map_err(|error| error.at(&work.address))?;
        }
        let config = work.config.expose_secret().as_bytes();
        let judged = bare.apply(config, Mode::Auto, true, None).await?;
        judged.warnings.iter().for_each(|warning| self.events.warn(format!("the machine warns: {warning}")));
        match bare.apply(config, Mode::Auto, false, None).await {
            Err(error) if error.kind == Kind::Unavailable => self.taken(error).await,
            other => other.map(drop),
        }
    }

    /// The reply was lost: it was taken when the machine is not in maintenance mode any more, or does not answer, as it starts
    /// again then. Whether its config is ours is seen later.
    async fn taken(&self, lost: Error) -> Result<()> {
        let what = format!("{} to leave maintenance mode", self.node.address());
        let left = Wait::new(what, LEAVES, self.events).until(async || match self.stands().await {
            Ok(Stands::Maintenance) => Ok(Look::not_yet("it is in it still")),
            Err(error) if error.kind != Kind::Unavailable => Err(error),
            Ok(_) | Err(_) => Ok(Look::Done(())),
        });
        left.await.map_err(|late| late.or(|_, _| lost))
    }

    /// Waits until Talos is installed and the machine has everything that its config asks for.
    async fn seen(&self) -> Result<()> {
        let Self { node, work, context, events, .. } = self;
        let within = context.manner.deadlines.bootstrap.std();
        let check = async || Ok(self.lacks().await?.map(|why| ("Talos to be installed".to_owned(), why)));
        await_open::<MachineStatus>(node, within, events, check).await.map_err(|late| {
            late.or_hint(
                "the machine's console, or `talosctl dmesg`, shows what it waits for",
                |what, last| {
                    Error::failed(format!("{}: {what}: {last}, after {}s", node.address(), within.as_secs()))
                },
            )
        })?;
        await_labels(node, &work.labels, context.manner.deadlines.volumes.std(), events).await
    }

    /// What keeps Talos from being there; nothing when it is.
    ///
    /// # Errors
    /// `Kind::Refused` when it never will be: the installation failed, or somebody else configured the machine.
    async fn lacks(&self) -> Result<Option<String>> {
        match self.stands().await {
            Ok(Stands::Configured(true)) => {}
            Ok(Stands::Configured(false)) => return Err(self.another_config()),
            Ok(Stands::Maintenance) => return Ok(Some("it is still in maintenance mode".into())),
            // It was away, and is in maintenance mode again: with a new key.
            Err(error) if error.kind == Kind::Refused => {
                return Err(Error::refused(format!(
                    "{}: came back without its config: the installation failed",
                    self.node.address()
                ))
                .hint("the machine's console shows why; run this again when that is mended"));
            }
            Err(error) if error.kind == Kind::Unavailable => {
                return Ok(Some("it does not answer; it installs Talos, or starts".into()));
            }
            Err(error) => return Ok(Some(error.what)),
        }
        let status = self.node.spec::<MachineStatus>(id::MACHINE).await?;
        let stage = status.map(|status| status.spec.stage).unwrap_or_default();
        if !UP.contains(&stage.as_str()) {
            return Ok(Some(format!("it is {stage}")));
        }
        let disk = self.node.spec::<SystemDisk>(id::SYSTEM_DISK).await?;
        Ok(disk.is_none_or(|disk| disk.spec.disk_id.is_empty()).then(|| "Talos is on no disk yet".to_owned()))
    }
}
