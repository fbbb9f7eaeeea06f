//! What is asked of one node: what the file says for all of them, and what its own entry says differently.

use std::collections::BTreeMap;

use super::{Class, Ephemeral, Intent, Volume, VolumeOverride};
use crate::model::mounts::volume_at;

/// What is asked of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct OnNode {
    pub labels: BTreeMap<String, String>,
    pub volumes: Vec<Volume>,
    pub ephemeral: Option<Ephemeral>,
}

impl Intent {
    /// The namespaces of what the file installs.
    pub fn installed_namespaces(&self) -> Vec<String> {
        let velero = self.backup.iter().map(|backup| backup.namespace.clone());
        let openebs = self.provisioner.openebs.iter().map(|openebs| openebs.namespace.clone());
        velero.chain(openebs).collect()
    }

    /// The addresses of the nodes that the file lists.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// What is asked of the node with this address; of one that the file does not list, what is asked of all.
    pub fn on(&self, address: &str) -> OnNode {
        let mut on =
            OnNode { labels: self.labels.clone(), volumes: self.volumes.clone(), ephemeral: self.ephemeral };
        let Some(node) = self.nodes.iter().find(|node| node.address == address) else { return on };
        for (key, value) in &node.labels {
            match value {
                Some(value) => on.labels.insert(key.clone(), value.clone()),
                None => on.labels.remove(key),
            };
        }
        on.volumes.retain(|volume| node.volumes.get(&volume.name) != Some(&None));
        for volume in &mut on.volumes {
            if let Some(Some(different)) = node.volumes.get(&volume.name) {
                volume.take(different);
            }
        }
        on.ephemeral = node.ephemeral.or(on.ephemeral);
        on
    }

    /// Whether the node with this address gets the volume that the class is on; a class that is on none is everywhere.
    pub fn gives(&self, address: &str, class: &Class) -> bool {
        let Some(volume) = class.base_path().and_then(|path| self.volume_of(path)) else { return true };
        self.on(address).volumes.iter().any(|there| there.name == volume.name)
    }

    /// The volume that a path is on.
    pub fn volume_of(&self, path: &str) -> Option<&Volume> {
        let name = volume_at(path)?;
        self.volumes.iter().find(|volume| volume.name == name)
    }
}

impl Volume {
    fn take(&mut self, different: &VolumeOverride) {
        if let Some(disk) = &different.disk {
            self.disk = disk.clone();
        }
        self.min_size = different.min_size.or(self.min_size);
        self.max_size = different.max_size.or(self.max_size);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use crate::intent::parse;

    #[test]
    fn a_node_takes_what_the_file_says_but_for_what_its_entry_says() {
        let text = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n\
            labels: {storage: fast, rack: a}\nvolumes:\n  \
            - {name: fast, disk: {match: disk.transport == \"nvme\"}, minSize: 1GiB}\n  \
            - {name: slow, disk: {match: disk.rotational}, minSize: 1GiB, maxSize: 2GiB}\n\
            nodes:\n  - address: 10.0.0.1\n  - address: 10.0.0.2\n    labels: {rack: b, storage: null}\n    \
            volumes:\n      fast: null\n      slow: {disk: {match: disk.serial == \"S\"}, maxSize: 50%}\n";
        let intent = parse("x", text.as_bytes()).unwrap();
        let (plain, other) = (intent.on("10.0.0.1"), intent.on("10.0.0.2"));
        assert_eq!((plain.labels.len(), &plain.volumes), (2, &intent.volumes));
        assert_eq!(other.labels.into_iter().collect::<Vec<_>>(), [("rack".to_owned(), "b".to_owned())]);
        let [slow] = &other.volumes[..] else { panic!("{:?}", other.volumes) };
        assert_eq!(slow.disk.matches, "disk.serial == \"S\"");
        assert_eq!(slow.max_size.unwrap().to_string(), "50%");
        assert_eq!(slow.min_size, intent.volumes[1].min_size);
    }
}
