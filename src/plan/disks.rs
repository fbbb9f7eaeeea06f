//! Which disk a volume goes to: exactly one, that holds nothing, or that holds this very volume already.

use crate::error::{Error, Result};
use crate::intent::Volume;
use crate::observe::disks::{Disk, Holder, Selector};
use crate::plan::ApprovedDisk;

/// The disk for a volume on one node.
#[derive(Debug)]
pub enum Choice {
    /// An empty disk, that will be written.
    Empty(ApprovedDisk),
    /// The volume is there already, on this disk.
    Holds(ApprovedDisk),
}

impl Choice {
    pub fn describe(&self) -> &str {
        &self.disk().what
    }

    pub fn disk(&self) -> &ApprovedDisk {
        match self {
            Self::Empty(disk) | Self::Holds(disk) => disk,
        }
    }
}

/// Chooses, or refuses with the candidates listed ([`crate::error::Kind::Refused`]).
///
/// Every disk that the selector matches counts, also one that could not be used: Talos itself takes the first
/// that fits, so an expression that matches two disks may take the other one tomorrow.
pub fn choose(volume: &Volume, disks: &[Disk]) -> Result<Choice> {
    let matched: Vec<&Disk> = Selector::parse(&volume.disk.matches)
        .and_then(|selector| selector.choose(disks, Some(&volume.name)))
        .map_err(|e| e.at(format!("volume {}", volume.name)))?
        .into_iter()
        .filter_map(|i| disks.get(i))
        .collect();
    let place = format!("volume {}", volume.name);
    let [disk] = matched[..] else {
        return Err(not_one(&place, volume, &matched, disks));
    };
    let approved = ApprovedDisk {
        volume: volume.name.clone(),
        serial: known(&disk.spec.serial),
        wwid: known(&disk.spec.wwid),
        name: disk.id.clone(),
        what: describe(disk),
    };
    if matches!(&disk.holder, Holder::UserVolume(name) if *name == volume.name) {
        return Ok(Choice::Holds(approved));
    }
    if let Err(why) = &disk.eligible {
        return Err(Error::refused(format!("{place}: {} is not free: {why}", describe(disk)))
            .hint("nodeprep writes to empty disks only; choose another disk, or empty this one yourself if nothing on it is needed"));
    }
    if approved.serial.is_none() && approved.wwid.is_none() {
        return Err(Error::refused(format!("{place}: {} has neither serial nor WWID", describe(disk)))
            .hint("its name may mean another disk after a reboot, so nodeprep does not write to it"));
    }
    if twins(disk, disks) {
        return Err(Error::refused(format!(
            "{place}: another disk says it has the serial of {}",
            describe(disk)
        ))
        .hint("they may be one disk seen twice; nodeprep can't tell them apart safely"));
    }
    if disk.spec.size < volume.min_size.0 {
        return Err(Error::refused(format!(
            "{place}: {} is smaller than minSize {}",
            describe(disk),
            volume.min_size
        ))
        .hint("lower minSize or choose a larger disk"));
    }
    Ok(Choice::Empty(approved))
}

/// The approved disk, found again by what does not change, is still empty or holds its volume.
pub fn still(approved: &ApprovedDisk, disks: &[Disk]) -> Result<()> {
    let mut found = disks.iter().filter(|disk| match (&approved.serial, &approved.wwid) {
        (None, None) => false,
        (serial, wwid) => {
            serial.as_ref().is_none_or(|serial| disk.spec.serial == *serial)
                && wwid.as_ref().is_none_or(|wwid| disk.spec.wwid == *wwid)
        }
    });
    let what = &approved.what;
    let (Some(disk), None) = (found.next(), found.next()) else {
        return Err(Error::refused(format!(
            "the approved disk {what} is not there any more, or more than once"
        ))
        .hint("run it again, to plan from what is there now"));
    };
    let holds = matches!(&disk.holder, Holder::UserVolume(name) if *name == approved.volume);
    match &disk.eligible {
        Err(why) if !holds => {
            Err(Error::refused(format!("the approved disk {what} is not free any more: {why}"))
                .hint("run it again, to plan from what is there now"))
        }
        _ => Ok(()),
    }
}

/// Another disk with the same WWID, or with the same serial where there is no WWID to tell them apart.
fn twins(disk: &Disk, disks: &[Disk]) -> bool {
    disks.iter().filter(|other| other.id != disk.id).any(|other| {
        let (ours, theirs) = (&disk.spec, &other.spec);
        if ours.wwid.is_empty() || theirs.wwid.is_empty() {
            !ours.serial.is_empty() && ours.serial == theirs.serial
        } else {
            ours.wwid == theirs.wwid
        }
    })
}

fn not_one(place: &str, volume: &Volume, matched: &[&Disk], all: &[Disk]) -> Error {
    let list = |disks: &mut dyn Iterator<Item = &Disk>| {
        disks.map(|disk| format!("\n  {}{}", describe(disk), state(disk))).collect::<String>()
    };
    let expression = &volume.disk.matches;
    if matched.is_empty() {
        let real = list(&mut all.iter().filter(|d| !matches!(d.holder, Holder::System) && !d.is_memory()));
        return Error::refused(format!("{place}: no disk matches `{expression}`; the node has:{real}"))
            .hint("correct the selector; `nodeprep discover --select` tries one");
    }
    let found = list(&mut matched.iter().copied());
    Error::refused(format!("{place}: `{expression}` matches {} disks:{found}", matched.len()))
        .hint("make it match exactly one, for example by its serial: disk.serial == \"…\"")
}

fn state(disk: &Disk) -> String {
    disk.eligible.as_ref().err().map_or_else(|| " — free".to_owned(), |why| format!(" — {why}"))
}

fn describe(disk: &Disk) -> String {
    let part =
        |name: &str, value: &str| if value.is_empty() { String::new() } else { format!(", {name} {value}") };
    let spec = &disk.spec;
    format!(
        "{} ({}{}{})",
        disk.id,
        human(spec.size),
        part("model", &spec.model),
        part("serial", &spec.serial)
    )
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Bytes as people read them: `4.0GiB`.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}
