//! What tells a disk from the others of its machine, whatever the kernel calls it at this boot, and finding it again by that.

use serde::Serialize;

use super::Disk;
use crate::error::{Error, Result};
use crate::model::resources::DiskSpec;

/// A disk by what it says of itself, which a reboot does not change. What it does not say, or says in blanks, is no part of it;
/// a disk that says it later is another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiskId {
    pub serial: Option<String>,
    pub wwid: Option<String>,
}

impl DiskId {
    pub fn of(spec: &DiskSpec) -> Self {
        let known = |text: &String| (!text.trim().is_empty()).then(|| text.clone());
        Self { serial: known(&spec.serial), wwid: known(&spec.wwid) }
    }

    /// Nothing tells such a disk from others.
    pub const fn is_empty(&self) -> bool {
        self.serial.is_none() && self.wwid.is_none()
    }

    /// The one disk of this id; a disk that another one says to be too is not told from it.
    ///
    /// # Errors
    /// `Kind::Refused`: none or several, and by what they were looked for.
    pub fn find<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk> {
        let same = || disks.iter().filter(|disk| !self.is_empty() && Self::of(&disk.spec) == *self);
        let found: Vec<&Disk> = same().chain(same().filter_map(|disk| disk.twin(disks))).collect();
        if let [disk] = found[..] {
            return Ok(disk);
        }
        let mut names: Vec<&str> = found.iter().map(|disk| disk.id.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        Err(Error::refused(match names[..] {
            [] => format!("is not there any more: no disk has {self}"),
            _ => format!(
                "is there more than once: {} have {self}, or can't be told from it",
                names.join(" and ")
            ),
        })
        .hint("run it again, to plan from what is there now"))
    }

    /// What is known, by its field's name.
    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [("serial", self.serial.as_deref()), ("wwid", self.wwid.as_deref())];
        fields.into_iter().filter_map(|(field, value)| Some((field, value?)))
    }
}

impl std::fmt::Display for DiskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.serial, &self.wwid) {
            (Some(serial), Some(wwid)) => write!(f, "the serial {serial} and the WWID {wwid}"),
            (Some(serial), None) => write!(f, "the serial {serial} and no WWID"),
            (None, Some(wwid)) => write!(f, "the WWID {wwid} and no serial"),
            (None, None) => f.write_str("neither serial nor WWID"),
        }
    }
}

impl Disk {
    pub fn identity(&self) -> DiskId {
        DiskId::of(&self.spec)
    }

    /// What this disk says and no other of its machine: the field and its value, the serial first.
    pub fn marks(&self, disks: &[Self]) -> Vec<(&'static str, String)> {
        let ours = self.identity();
        let others: Vec<DiskId> =
            disks.iter().filter(|other| other.id != self.id).map(Self::identity).collect();
        let alone =
            |mark: &(&'static str, &str)| others.iter().all(|other| other.fields().all(|it| it != *mark));
        ours.fields().filter(alone).map(|(field, value)| (field, value.to_owned())).collect()
    }

    /// What a person has to say for this disk to be written to whatever is on it: its serial, or its WWID where the serial does
    /// not tell it from others.
    pub fn token(&self, disks: &[Self]) -> Option<String> {
        self.marks(disks).into_iter().next().map(|(_, value)| value)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;
    use crate::model::disks::{Facts, join};
    use crate::model::resources::Item;

    type Said = (&'static str, &'static str);
    /// A name, the id, the disks, and the name of the one that is found or words of the error.
    type Case<'a> = (&'a str, Said, &'a [Said], Result<&'a str, &'a str>);

    fn spec((serial, wwid): Said) -> DiskSpec {
        DiskSpec { serial: serial.into(), wwid: wwid.into(), ..DiskSpec::default() }
    }

    /// `sd0`, `sd1` and so on, by serial and WWID.
    fn disks(said: &[Said]) -> Vec<Disk> {
        let disk = |(at, said): (usize, &Said)| Item {
            id: format!("sd{at}"),
            version: "1".into(),
            labels: Default::default(),
            spec: spec(*said),
        };
        join(&Facts { disks: said.iter().enumerate().map(disk).collect(), ..Facts::default() })
    }

    #[test]
    fn a_disk_is_found_by_all_that_it_says_or_not_at_all() {
        let gone = "is not there any more: no disk has ";
        let table: [Case<'_>; 14] = [
            ("whatever its name", ("A", "w"), &[("B", "x"), ("A", "w")], Ok("sd1")),
            ("by its WWID alone", ("", "w"), &[("", "w"), ("A", "x")], Ok("sd0")),
            ("by its serial alone", ("A", ""), &[("A", ""), ("B", "")], Ok("sd0")),
            ("two namespaces of one controller", ("A", "w"), &[("A", "x"), ("A", "w")], Ok("sd1")),
            ("gone", ("A", "w"), &[("B", "x")], Err(gone)),
            ("of another controller", ("A", "w"), &[("A", "x")], Err("the serial A and the WWID w")),
            ("of another serial", ("A", "w"), &[("B", "w")], Err(gone)),
            ("its WWID is not told any more", ("A", "w"), &[("A", "")], Err(gone)),
            ("it tells a WWID now", ("A", ""), &[("A", "w")], Err("the serial A and no WWID")),
            ("in other letters, or with a blank", ("A", "w"), &[("a", "w"), ("A ", "w")], Err(gone)),
            ("two with one serial", ("A", ""), &[("A", ""), ("A", "")], Err("more than once: sd0 and sd1")),
            ("one on two paths", ("A", "w"), &[("A", "w"), ("A", "w")], Err("sd0 and sd1")),
            ("one that hides its WWID", ("A", "w"), &[("A", "w"), ("A", "")], Err("sd0 and sd1")),
            ("says nothing, or blanks", (" ", ""), &[(" ", "")], Err("neither serial nor WWID")),
        ];
        for (name, id, said, expected) in table {
            let disks = disks(said);
            let found = DiskId::of(&spec(id)).find(&disks);
            match (found, expected) {
                (Ok(disk), Ok(expected)) => assert_eq!(disk.id, expected, "{name}"),
                (Err(error), Err(words)) => {
                    assert!(error.what.contains(words), "{name}: {error}");
                    assert_eq!(error.kind, Kind::Refused, "{name}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_token_is_what_no_other_disk_says() {
        let table: [(&[Said], Option<&str>); 6] = [
            (&[("A", "w"), ("B", "x")], Some("A")),
            (&[("A", "w"), ("A", "x")], Some("w")),
            (&[("A", "w"), ("A", "w")], None),
            (&[("A", ""), ("A", "")], None),
            (&[(" ", "w"), (" ", "x")], Some("w")),
            (&[("", ""), ("A", "w")], None),
        ];
        for (said, token) in table {
            let disks = disks(said);
            assert_eq!(disks[0].token(&disks).as_deref(), token, "{said:?}");
        }
    }

    fn said() -> impl Strategy<Value = Said> {
        (prop::sample::select(vec!["", " ", "A", "A ", "B"]), prop::sample::select(vec!["", " ", "w", "x"]))
    }

    proptest! {
        #[test]
        fn what_is_found_says_all_that_the_id_says_and_is_never_one_of_two(
            id in said(),
            said in prop::collection::vec(said(), 0..6),
            locked in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut disks = disks(&said);
            for (disk, locked) in disks.iter_mut().zip(locked) {
                disk.spec.readonly = locked;
            }
            let id = DiskId::of(&spec(id));
            let known = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
            let same = |disk: &&Disk| known(&disk.spec.serial) == id.serial && known(&disk.spec.wwid) == id.wwid;
            match id.find(&disks) {
                Ok(disk) => {
                    prop_assert!(same(&disk) && !id.is_empty());
                    prop_assert_eq!(disks.iter().filter(same).count(), 1);
                    prop_assert!(disk.twin(&disks).is_none());
                }
                Err(error) => {
                    let only = disks.iter().filter(same).count() == 1 && !id.is_empty();
                    let twin = disks.iter().find(same).is_some_and(|disk| disk.twin(&disks).is_some());
                    prop_assert!(!only || twin, "{}", error);
                }
            }
            for disk in &disks {
                let Some(token) = disk.token(&disks) else { continue };
                let is = |disk: &&Disk| disk.spec.serial == token || disk.spec.wwid == token;
                prop_assert_eq!(disks.iter().find(is).unwrap().id.as_str(), disk.id.as_str());
                prop_assert_eq!(disks.iter().filter(is).count(), 1);
            }
        }
    }
}
