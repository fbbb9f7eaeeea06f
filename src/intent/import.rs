//! What the files of other tools say of a cluster: topf's `topf.yaml` and talhelper's `talconfig.yaml`.
//!
//! Read as their programs read them: postfinance/topf v0.5.0 (pkg/config/topf_config.go, node.go) and
//! budimanjojo/talhelper v3 (pkg/config/config.go, defaults.go, nodeconfigs.go). Keys that say nothing of nodes or
//! volumes are left alone.

use std::net::IpAddr;

use super::validate::dns_name;
use super::{MaxSize, Size};
use crate::error::{Error, Result};
use crate::yaml::{Kind, Node, PathPart, Stream};

/// What sops writes in place of a value.
const ENCRYPTED: &str = "ENC[AES256_GCM,";

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

/// A user volume that the file gives a node.
#[derive(Debug, Clone, PartialEq)]
pub struct UserVolume {
    pub name: String,
    /// `partition`, `disk` or `directory`.
    pub kind: String,
    /// Its disk, as a CEL expression.
    pub matches: Option<String>,
    pub min_size: Option<Size>,
    pub max_size: Option<MaxSize>,
    pub filesystem: Option<String>,
    pub quota: bool,
    pub encrypted: bool,
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

/// Two ways to write one address are equal.
fn same_address(one: &str, two: &str) -> bool {
    match (one.parse::<IpAddr>(), two.parse::<IpAddr>()) {
        (Ok(one), Ok(two)) => one == two,
        _ => one.eq_ignore_ascii_case(two),
    }
}

/// Reads a `topf.yaml` or a `talconfig.yaml`, told apart by what is in it; `file` is what errors call it.
///
/// # Errors
/// `Kind::Invalid` with the line: neither of them, not one YAML document, a node without name or address, or a value that
/// is encrypted or filled in by the tool.
pub fn import(file: &str, bytes: &[u8]) -> Result<Import> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::invalid(format!("{file}: not a text file (invalid UTF-8 at byte {})", e.valid_up_to()))
    })?;
    let stream = Stream::parse(text).map_err(|e| e.at(file))?;
    let found = stream.documents().len();
    let [document] = stream.documents() else {
        return Err(Error::invalid(format!("{file}: holds {found} documents, one is wanted"))
            .hint("name a topf.yaml or a talconfig.yaml"));
    };
    let reader = Reader { file, stream: &stream, root: &document.root };
    let keeper = reader.keeper()?;
    let name = match keeper {
        Keeper::Topf => "host",
        Keeper::Talhelper => "hostname",
    };
    let partial = document.root.get(&["nodesProvider"]).is_some_and(|provider| !provider.is_null());
    let machines = (0..reader.count(&["nodes".into()])?)
        .map(|i| reader.machine(keeper, name, i))
        .collect::<Result<Vec<_>>>()?;
    if machines.is_empty() && !partial {
        return Err(reader.wrong(&["nodes".into()], "lists no nodes", "write the nodes below `nodes`"));
    }
    let cluster = reader.text(keeper, &["clusterName".into()])?.map(str::to_owned);
    Ok(Import { keeper, file: file.to_owned(), cluster, machines, partial })
}

type Path<'p> = &'p [PathPart<'p>];

struct Reader<'a> {
    file: &'a str,
    stream: &'a Stream,
    root: &'a Node,
}

impl<'a> Reader<'a> {
    fn wrong(&self, path: Path<'_>, what: &str, hint: &str) -> Error {
        let place = (1..=path.len()).rev().find_map(|n| self.stream.position(0, path.get(..n)?));
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        Error::invalid(format!("{}{place}: {what}", self.file)).hint(hint)
    }

    /// Whose file it is, by what its nodes are called and where the cluster is.
    fn keeper(&self) -> Result<Keeper> {
        let nodes = self.root.get(&["nodes"]).map(Node::items).unwrap_or_default();
        let has = |key: &str, of_node: &str| {
            self.root.get(&[key]).is_some() || nodes.iter().any(|node| node.get(&[of_node]).is_some())
        };
        match (has("clusterEndpoint", "host"), has("endpoint", "hostname")) {
            (true, false) => Ok(Keeper::Topf),
            (false, true) => Ok(Keeper::Talhelper),
            _ => Err(Error::invalid(format!("{}: neither a topf.yaml nor a talconfig.yaml", self.file))
                .hint("a topf.yaml has clusterEndpoint, and nodes with `host`; a talconfig.yaml has endpoint, and nodes with `hostname`")),
        }
    }

    /// The value at a path; null is none.
    fn at(&self, path: Path<'_>) -> Option<&'a Node> {
        self.root.at(path).filter(|node| !node.is_null())
    }

    /// How many items the list at a path has.
    fn count(&self, path: Path<'_>) -> Result<usize> {
        match self.at(path).map(|node| &node.kind) {
            None => Ok(0),
            Some(Kind::Seq { items, .. }) => Ok(items.len()),
            Some(_) => Err(self.wrong(path, "is no list", "write one item a line, each after a dash")),
        }
    }

    fn text(&self, keeper: Keeper, path: Path<'_>) -> Result<Option<&'a str>> {
        let Some(node) = self.at(path) else { return Ok(None) };
        let Some(text) = node.text() else {
            return Err(self.wrong(path, "is no text", "write a text or a number"));
        };
        if text.starts_with(ENCRYPTED) {
            let hint = "decrypt it to another file first: nodeprep secrets decrypt FILE > plain.yaml";
            return Err(self.wrong(path, "is encrypted with sops", hint));
        }
        if keeper == Keeper::Talhelper && text.contains('$') {
            let hint = "write its value in a copy of the file, and name the copy";
            return Err(self.wrong(path, &format!("`{text}` is filled in by talhelper"), hint));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn flag(&self, path: Path<'_>) -> bool {
        self.at(path).and_then(Node::text) == Some("true")
    }

    fn machine(&self, keeper: Keeper, name: &'static str, i: usize) -> Result<Machine> {
        let at = |key: &'static str| -> [PathPart<'static>; 3] { ["nodes".into(), i.into(), key.into()] };
        let Some(called) = self.text(keeper, &at(name))? else {
            return Err(self.wrong(
                &at(name),
                &format!("a node without `{name}`"),
                "give each node its name",
            ));
        };
        let address = if keeper == Keeper::Topf { "ip" } else { "ipAddress" };
        let addresses = match (self.text(keeper, &at(address))?, keeper) {
            // topf finds a node without an address by its name.
            (None, Keeper::Topf) => vec![called.to_owned()],
            (None, Keeper::Talhelper) => {
                let what = format!("node {called} has no `ipAddress`");
                return Err(self.wrong(&at(address), &what, "write the address of its machine API"));
            }
            (Some(address), Keeper::Topf) => vec![address.to_owned()],
            (Some(list), Keeper::Talhelper) => list.split(',').map(|one| one.trim().to_owned()).collect(),
        };
        if let Some(bad) = addresses.iter().find(|one| one.parse::<IpAddr>().is_err() && !dns_name(one)) {
            let what = format!("`{bad}` is not an address");
            return Err(self.wrong(
                &at(address),
                &what,
                "write an IP or a host name, without scheme and port",
            ));
        }
        let control_plane = match keeper {
            Keeper::Topf => self.text(keeper, &at("role"))? == Some("control-plane"),
            Keeper::Talhelper => self.flag(&at("controlPlane")),
        };
        let volumes = if keeper == Keeper::Talhelper {
            self.volumes(&at("userVolumes"), control_plane)?
        } else {
            Vec::new()
        };
        Ok(Machine { name: called.to_owned(), addresses, control_plane, volumes })
    }

    /// The volumes of a node in talconfig.yaml: its own, else its group's.
    fn volumes(&self, own: Path<'_>, control_plane: bool) -> Result<Vec<UserVolume>> {
        let group = if control_plane { "controlPlane" } else { "worker" };
        let group: [PathPart<'_>; 2] = [group.into(), "userVolumes".into()];
        let base: Path<'_> = if self.count(own)? > 0 { own } else { &group };
        (0..self.count(base)?).map(|i| self.volume(base, i)).collect()
    }

    fn volume(&self, base: Path<'_>, i: usize) -> Result<UserVolume> {
        let at = |keys: &[&'static str]| under(base, i, keys);
        let text = |keys: &[&'static str]| self.text(Keeper::Talhelper, &at(keys));
        let Some(name) = text(&["name"])? else {
            return Err(self.wrong(&at(&["name"]), "a volume without `name`", "give each volume its name"));
        };
        let least = text(&["provisioning", "minSize"])?.map(Size::parse).transpose();
        let most = text(&["provisioning", "maxSize"])?.map(MaxSize::parse).transpose();
        let hint = "write a size such as 100GiB";
        Ok(UserVolume {
            name: name.to_owned(),
            kind: text(&["volumeType"])?.unwrap_or("partition").to_owned(),
            matches: text(&["provisioning", "diskSelector", "match"])?.map(str::to_owned),
            min_size: least.map_err(|e| self.wrong(&at(&["provisioning", "minSize"]), &e, hint))?,
            max_size: most.map_err(|e| self.wrong(&at(&["provisioning", "maxSize"]), &e, hint))?,
            filesystem: text(&["filesystem", "type"])?.map(str::to_owned),
            quota: self.flag(&at(&["filesystem", "projectQuotaSupport"])),
            encrypted: self.at(&at(&["encryption"])).is_some(),
        })
    }
}

fn under<'p>(base: Path<'p>, i: usize, keys: &[&'p str]) -> Vec<PathPart<'p>> {
    base.iter().copied().chain([i.into()]).chain(keys.iter().map(|key| PathPart::Key(key))).collect()
}
