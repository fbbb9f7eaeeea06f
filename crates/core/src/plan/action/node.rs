//! What is done to one machine through the Talos API.

use secrecy::ExposeSecret;

use super::Family;
use crate::plan::bootstrap::Install;
use crate::plan::saved::Digest;
use crate::plan::wipe::Wipe;
use crate::plan::{ApplyConfig, AwaitVolume};

#[derive(Debug)]
pub enum NodeAction {
    Config(ApplyConfig),
    /// The first config of a machine in maintenance mode.
    Install(Install),
    Wipe(Wipe),
    /// The config asks for these volumes already, and they are not ready yet.
    AwaitVolumes {
        address: String,
        volumes: Vec<AwaitVolume>,
    },
    /// The config does not ask for this volume any more; Talos unmounts it when nothing uses it.
    AwaitGone {
        address: String,
        volume: AwaitVolume,
    },
}

impl Family for NodeAction {
    fn changes(&self) -> bool {
        match self {
            Self::Config(_) | Self::Install(_) | Self::Wipe(_) => true,
            Self::AwaitVolumes { .. } | Self::AwaitGone { .. } => false,
        }
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Config(work) => digest
                .text("config")
                .text(&work.address)
                .text(&work.base_version)
                .text(work.config.expose_secret())
                .text(&format!("{:?} {:?} {:?}", work.volumes, work.labels, work.disks)),
            Self::Install(work) => digest
                .text("install")
                .text(&work.address)
                .text(work.config.expose_secret())
                .text(&work.fingerprint)
                .text(&format!("{:?} {:?}", work.labels, work.disk)),
            Self::Wipe(wipe) => digest.text("wipe").text(&format!("{wipe:?}")),
            Self::AwaitVolumes { address, volumes } => {
                digest.text("volumes").text(address).text(&format!("{volumes:?}"))
            }
            Self::AwaitGone { address, volume } => {
                digest.text("gone").text(address).text(&format!("{volume:?}"))
            }
        };
    }
}
