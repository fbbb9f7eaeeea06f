//! Selectors in a word, for those that most people need.

use std::borrow::Cow;
use std::fmt;

use super::{Release, accept, select};
use crate::error::{Error, Result};
use crate::model::disks::Disk;

/// How a volume's disk is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector<'a> {
    /// By a CEL expression, written by hand or by a preset.
    Expression(Cow<'a, str>),
    /// The largest NVMe disk that is free, which only the node's disks can tell.
    LargestFreeNvme,
}

const NVME: &str = "disk.transport == \"nvme\" && !system_disk";

/// Solid-state disks that are built in: no card, stick or image.
const SSD: &str = "!disk.rotational && !disk.readonly && !disk.cdrom && !(disk.transport in [\"\", \"usb\", \"mmc\"]) \
                   && !system_disk";

impl<'a> Selector<'a> {
    /// Reads a preset, or takes the text for an expression.
    ///
    /// # Errors
    /// `Kind::Invalid` when a preset misses its value.
    pub fn parse(text: &'a str) -> Result<Self> {
        let text = text.trim();
        let expression = match text {
            "nvme" => NVME.into(),
            "ssd" => SSD.into(),
            "largest-free-nvme" => return Ok(Self::LargestFreeNvme),
            _ => match text.split_once(':') {
                Some((name @ ("serial" | "wwid"), value)) => by_name(name, value.trim())?.into(),
                _ => text.into(),
            },
        };
        Ok(Self::Expression(expression))
    }

    /// Whether a release of Talos takes it.
    ///
    /// # Errors
    /// As [`accept`].
    pub fn check(&self, talos: Release) -> Result<()> {
        match self {
            Self::Expression(expression) => accept(expression, talos),
            Self::LargestFreeNvme => Ok(()),
        }
    }

    /// The indices of the disks it matches, in their order. A preset that takes a free disk takes the one
    /// that holds the volume already, if there is one.
    ///
    /// # Errors
    /// As [`select`]; `Kind::Refused` when a preset can't choose.
    pub fn choose(&self, disks: &[Disk], holds: impl Fn(&Disk) -> bool) -> Result<Vec<usize>> {
        match self {
            Self::Expression(expression) => select(expression, disks),
            Self::LargestFreeNvme => largest_free_nvme(disks, holds),
        }
    }
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expression(expression) => f.write_str(expression),
            Self::LargestFreeNvme => f.write_str("largest-free-nvme"),
        }
    }
}

fn by_name(name: &str, value: &str) -> Result<String> {
    if value.is_empty() {
        return Err(Error::invalid(format!("the disk selector `{name}:` names no {name}"))
            .hint(format!("write {name}:… as `nodeprep discover -o json` shows it")));
    }
    Ok(format!("disk.{name} == {}", quoted(value)))
}

/// A text as CEL reads it; CEL and JSON escape quotes, backslashes and control characters alike.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The largest NVMe disk that is free, or the one that holds the volume already.
fn largest_free_nvme(disks: &[Disk], holds: impl Fn(&Disk) -> bool) -> Result<Vec<usize>> {
    let nvme = disks.iter().enumerate().filter(|(_, disk)| disk.spec.transport == "nvme");
    let held: Vec<usize> = nvme.clone().filter(|(_, disk)| holds(disk)).map(|(index, _)| index).collect();
    if !held.is_empty() {
        return Ok(held);
    }
    let free: Vec<_> = nvme.filter(|(_, disk)| disk.eligible.is_ok()).collect();
    let most = free.iter().map(|(_, disk)| disk.spec.size).max();
    let largest: Vec<_> = free.into_iter().filter(|(_, disk)| Some(disk.spec.size) == most).collect();
    if let [_, _, ..] = largest[..] {
        let names: Vec<String> =
            largest.iter().map(|(_, disk)| format!("{} (serial {})", disk.id, disk.spec.serial)).collect();
        return Err(Error::refused(format!(
            "the largest free NVMe disks are equally large: {}",
            names.join(", ")
        ))
        .hint("choose one of them by its serial, such as serial:S64…"));
    }
    Ok(largest.into_iter().map(|(index, _)| index).collect())
}
