//! What the files of other tools say of a cluster: topf's `topf.yaml` and talhelper's `talconfig.yaml`, with the patches that
//! belong to them.
//!
//! Read as their programs read them: postfinance/topf v0.5.0 (pkg/config) and budimanjojo/talhelper v3.1.16 (pkg/config,
//! pkg/substitute, pkg/patcher, pkg/generate). What is said of volumes is carried over, refused with its place, or named in a
//! note; what says nothing of nodes or volumes is left alone.

mod documents;
mod substitute;
mod talhelper;
mod topf;
mod tree;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use volume::{Key, Secret, UserVolume};

use self::tree::Source;
use super::same_address;
use super::validate::dns_name;
use crate::error::{Error, Result};
use crate::yaml::Node;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    Topf,
    Talhelper,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    pub keeper: Keeper,
    /// The file, as errors call it.
    pub file: String,
    pub cluster: Option<String>,
    pub machines: Vec<Machine>,
    /// A program adds nodes that the file does not list.
    pub partial: bool,
    /// What was not looked at, or has no counterpart here; each with its place.
    pub notes: Vec<String>,
}

/// A node of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub name: String,
    /// At least one; the first is the one to speak to.
    pub addresses: Vec<String>,
    pub control_plane: bool,
    pub volumes: Vec<UserVolume>,
}

/// What lies around a file: the files that it names, and the environment.
pub trait Around {
    /// A file, decrypted if it is one of sops; its path counts from the folder of the file that is read. None when there is
    /// no such file.
    ///
    /// # Errors
    /// It can't be read or decrypted.
    fn read(&self, path: &str) -> Result<Option<String>>;
    /// The files below a folder, as `read` takes them, in the order of their names.
    fn list(&self, folder: &str) -> Vec<String>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

impl Import {
    /// The node with this address or name.
    pub fn machine(&self, address: &str, name: Option<&str>) -> Option<&Machine> {
        let by_address =
            |machine: &&Machine| machine.addresses.iter().any(|known| same_address(known, address));
        let by_name = |machine: &&Machine| machine.name == address || Some(machine.name.as_str()) == name;
        self.machines.iter().find(by_address).or_else(|| self.machines.iter().find(by_name))
    }
}

/// Reads a `topf.yaml` or a `talconfig.yaml`, told apart by what is in it; `file` is what errors call it.
///
/// # Errors
/// `Kind::Invalid` with the line: neither of them, not one YAML document, a node without name or address or listed twice, a
/// value that is encrypted or can't be filled in, or a volume that can't be said in a nodeprep.yaml.
pub fn import(file: &str, bytes: &[u8], around: &dyn Around) -> Result<Import> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::invalid(format!("{file}: not a text file (invalid UTF-8 at byte {})", e.valid_up_to()))
    })?;
    let mut source = Source::parse(file, text.to_owned())?;
    let keeper = keeper(&source)?;
    let mut notes = Vec::new();
    let known = match keeper {
        Keeper::Topf => BTreeMap::new(),
        Keeper::Talhelper => substitute::variables(around, &mut notes),
    };
    let variables = |name: &str| known.get(name).cloned().or_else(|| around.variable(name));
    if keeper == Keeper::Talhelper {
        source = source.substituted(&variables)?;
    }
    let root = source.only()?;
    let partial = root.get(&["nodesProvider"]).is_some_and(|provider| !provider.is_null());
    let machines = match keeper {
        Keeper::Topf => topf::machines(&source, around, &mut notes)?,
        Keeper::Talhelper => talhelper::machines(&source, around, &variables, &mut notes)?,
    };
    if machines.is_empty() && !partial {
        let nodes = root.get(&["nodes"]).unwrap_or(root);
        return Err(source.wrong(nodes, "lists no nodes", "write the nodes below `nodes`"));
    }
    let cluster = source.text(root.get(&["clusterName"]))?.map(str::to_owned);
    // A group's volumes are read for each of its nodes.
    let mut seen = BTreeSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    Ok(Import { keeper, file: file.to_owned(), cluster, machines, partial, notes })
}

/// Whose file it is, by what its nodes are called and where the cluster is.
fn keeper(source: &Source) -> Result<Keeper> {
    let root = source.only()?;
    let nodes = root.get(&["nodes"]).map(Node::items).unwrap_or_default();
    let has = |key: &str, of_node: &str| {
        root.get(&[key]).is_some() || nodes.iter().any(|node| node.get(&[of_node]).is_some())
    };
    match (has("clusterEndpoint", "host"), has("endpoint", "hostname")) {
        (true, false) => Ok(Keeper::Topf),
        (false, true) => Ok(Keeper::Talhelper),
        _ => Err(Error::invalid(format!("{}: neither a topf.yaml nor a talconfig.yaml", source.name()))
            .hint("a topf.yaml has clusterEndpoint, and nodes with `host`; a talconfig.yaml has endpoint, and nodes with `hostname`")),
    }
}

/// The name of a node, which it must have.
fn name<'n>(source: &Source, node: &'n Node, key: &str) -> Result<&'n str> {
    let found = source.text(node.get(&[key]))?;
    found.ok_or_else(|| {
        let at = node.get(&[key]).unwrap_or(node);
        source.wrong(at, &format!("a node without `{key}`"), "give each node its name")
    })
}

/// An address is one, and no other node's.
fn checked(source: &Source, at: &Node, addresses: &[String], others: &[Machine]) -> Result<()> {
    if let Some(bad) = addresses.iter().find(|one| one.parse::<IpAddr>().is_err() && !dns_name(one)) {
        let what = format!("`{bad}` is not an address");
        return Err(source.wrong(at, &what, "write an IP or a host name, without scheme and port"));
    }
    let ours = |known: &String| addresses.iter().any(|address| same_address(known, address));
    match others.iter().find(|other| other.addresses.iter().any(ours)) {
        Some(other) => {
            let what = format!("{} has this address too", other.name);
            Err(source.wrong(at, &what, "list each node once"))
        }
        None => Ok(()),
    }
}
