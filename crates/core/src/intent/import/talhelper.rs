//! `talconfig.yaml`: nodes, what their groups give them, and patches.

use super::documents::{apply, machine_disks};
use super::tree::Source;
use super::volume::UserVolume;
use super::{Around, Machine, checked, name};
use crate::error::Result;
use crate::yaml::Node;

/// The nodes with their volumes; `variables` are those that patches in files are filled in with.
pub(super) fn machines(
    source: &Source,
    around: &dyn Around,
    variables: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<Vec<Machine>> {
    let root = source.only()?;
    let mut machines = Vec::new();
    for node in source.list(root.get(&["nodes"]))? {
        let called = name(source, node, "hostname")?;
        let Some(list) = source.text(node.get(&["ipAddress"]))? else {
            let what = format!("node {called} has no `ipAddress`");
            return Err(source.wrong(node, &what, "write the address of its machine API"));
        };
        let addresses: Vec<String> = list.split(',').map(|one| one.trim().to_owned()).collect();
        checked(source, node.get(&["ipAddress"]).unwrap_or(node), &addresses, &machines)?;
        let control_plane = source.flag(node.get(&["controlPlane"]))? == Some(true);
        let group = root.get(&[if control_plane { "controlPlane" } else { "worker" }]);
        let member = Member { source, around, variables, root, node, group };
        let volumes = member.volumes(notes)?;
        machines.push(Machine { name: called.to_owned(), addresses, control_plane, volumes });
    }
    Ok(machines)
}

/// A node with its group.
struct Member<'n> {
    source: &'n Source,
    around: &'n dyn Around,
    variables: &'n dyn Fn(&str) -> Option<String>,
    root: &'n Node,
    node: &'n Node,
    group: Option<&'n Node>,
}

impl<'n> Member<'n> {
    /// What the node says of itself, an empty list too; else what its group says.
    fn own(&self, key: &str) -> Option<&'n Node> {
        let said = |node: &'n Node| node.get(&[key]).filter(|value| !value.is_null());
        said(self.node).or_else(|| self.group.and_then(said))
    }

    fn volumes(&self, notes: &mut Vec<String>) -> Result<Vec<UserVolume>> {
        let source = self.source;
        let mut volumes: Vec<UserVolume> = Vec::new();
        for item in source.list(self.own("userVolumes"))? {
            let read = UserVolume::read(source, item, notes)?;
            if volumes.iter().any(|known| known.name == read.name) {
                let what = format!("volume {} is listed twice", read.name);
                return Err(source.wrong(item, &what, "name each volume once"));
            }
            volumes.push(read);
        }
        for item in source.list(self.own("volumes"))? {
            let name = source.text(item.get(&["name"]))?.unwrap_or_default();
            let place = source.place(item);
            notes.push(format!(
                "{place}: the system volume {name} stays with talhelper: nodeprep leaves it alone."
            ));
        }
        if let Some(disks) = self.own("machineDisks") {
            machine_disks(source, disks, notes)?;
        }
        for patch in self.patches()? {
            self.patch(patch, &mut volumes, notes)?;
        }
        Ok(volumes)
    }

    /// The patches in their order: the group's, the node's, everybody's.
    fn patches(&self) -> Result<Vec<&'n Node>> {
        let source = self.source;
        let own = self.node.get(&["patches"]).filter(|list| !list.is_null());
        let group = self.group.and_then(|group| group.get(&["patches"]));
        let instead = source.flag(self.node.get(&["overridePatches"]))? == Some(true) && own.is_some();
        let group = if instead { None } else { group };
        let mut patches = Vec::new();
        for list in [group, own, self.root.get(&["patches"])] {
            patches.extend(source.list(list)?);
        }
        Ok(patches)
    }

    /// Merges one patch: written here, or in a file of its own after an `@`. A Go template can't be read without talhelper.
    fn patch(&self, item: &Node, volumes: &mut Vec<UserVolume>, notes: &mut Vec<String>) -> Result<()> {
        let source = self.source;
        if item.is_null() {
            return Ok(());
        }
        // A variable that is not set matters only where a volume speaks of it.
        let Some(text) = item.text() else {
            return Err(source.wrong(
                item,
                "is no text",
                "write the patch after a `|-`, or the name of its file after an @",
            ));
        };
        let place = source.place(item);
        let file = text.strip_prefix('@').map(str::trim);
        let (name, text) = match file.map(|path| (path, self.around.read(path))) {
            None => (format!("{place}: in this patch"), text.to_owned()),
            Some((path, Ok(Some(text)))) => (path.to_owned(), text),
            Some((path, missing)) => {
                let why = missing.err().map_or_else(|| "it is not there".to_owned(), |e| e.what);
                notes.push(format!("{place}: the patch {path} was not looked at: {why}."));
                return Ok(());
            }
        };
        if text.contains("{{") {
            notes.push(format!("{name}: a template of talhelper was not looked at."));
            return Ok(());
        }
        let patch = Source::parse(&name, text)?;
        // What is written here was filled in with the file.
        let patch = if file.is_some() { patch.substituted(self.variables)? } else { patch };
        apply(&patch, volumes, notes)
    }
}
