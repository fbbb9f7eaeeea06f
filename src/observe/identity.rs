//! Whether the machines and the Kubernetes API that a run acts on are of one cluster.
//!
//! Proof is an authority of Kubernetes that a machine's config and the API server have in common, or a Node object that
//! tells the machine-id of the machine of that name. Anything else is refused: what one cluster is silent of says nothing
//! about the other.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::nodes::{self, AT_ONCE};
use crate::cluster::Cluster;
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Kind, Result};
use crate::model::HOSTNAME;
use crate::model::node::Node;
use crate::talos::Client;
use crate::yaml;

/// The kubelet tells it in its Node object (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";
/// The document that holds Kubernetes' authorities from Talos 1.14 on.
const AUTHORITIES: &str = "KubeAPIServerCAConfig";
/// The ConfigMap with the API server's authorities, which Kubernetes keeps in each namespace.
const ROOT_CA: &str = "kube-root-ca.crt";

/// What a machine says of the cluster that it is in.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    pub address: String,
    /// Its name in Kubernetes, once it has one.
    pub name: Option<String>,
    /// It has seen its Node object.
    registered: bool,
    /// The certificates of Kubernetes' authorities in its config, as DER.
    authorities: Vec<Vec<u8>>,
}

impl From<&Node> for Witness {
    fn from(node: &Node) -> Self {
        let config = node.config.as_ref().ok().and_then(Option::as_ref);
        Self {
            address: node.address.clone(),
            name: node.hostname.as_ref().ok().cloned().flatten(),
            registered: matches!(node.labels, Ok(Some(_))),
            authorities: config.map(|c| authorities(c.text.expose_secret())).unwrap_or_default(),
        }
    }
}

/// Asks each machine; those that do not answer are left out.
///
/// # Errors
/// None answers: the first one's.
pub async fn witnesses(client: &Client, addresses: &[String]) -> Result<Vec<Witness>> {
    let asked = stream::iter(addresses).map(|address| async move {
        let node = client.node(address)?;
        let (name, labels, config) =
            tokio::join!(nodes::hostname(&node), nodes::labels(&node), nodes::config(&node));
        let config = config?.map(|config| authorities(config.text.expose_secret()));
        Ok(Witness {
            address: address.clone(),
            name: name?,
            registered: matches!(labels, Ok(Some(_))),
            authorities: config.unwrap_or_default(),
        })
    });
    let answers: Vec<Result<Witness>> = asked.buffered(AT_ONCE).collect().await;
    match answers.iter().find_map(|answer| answer.as_ref().err()) {
        Some(error) if answers.iter().all(Result::is_err) => Err(error.clone()),
        _ => Ok(answers.into_iter().flatten().collect()),
    }
}

/// Every certificate that the config names as an authority of Kubernetes.
fn authorities(config: &str) -> Vec<Vec<u8>> {
    let Ok(doc) = ConfigDoc::parse(config) else { return Vec::new() };
    let legacy = doc.legacy().and_then(|document| document.root.get(&["cluster"]));
    let keys = ["ca", "acceptedCAs"].into_iter().filter_map(|key| legacy?.get(&[key]));
    let of_kind = doc.documents().filter(|document| document.id.kind.as_deref() == Some(AUTHORITIES));
    keys.chain(of_kind.map(|document| document.root)).flat_map(certificates).collect()
}

/// The certificates below a node of a document, each PEM or base64 of PEM.
fn certificates(node: &yaml::Node) -> Vec<Vec<u8>> {
    let Some(text) = node.text() else {
        let values = node.entries().iter().map(|(_, value)| value);
        return values.chain(node.items()).flat_map(certificates).collect();
    };
    let decoded = BASE64_STANDARD.decode(text.trim()).ok();
    pem(decoded.as_deref().unwrap_or(text.as_bytes()))
}

fn pem(text: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(text).flatten().map(|certificate| certificate.to_vec()).collect()
}

/// The Node objects of the cluster that the machines were proven to be of.
#[derive(Debug)]
pub struct Listed {
    nodes: Vec<v1::Node>,
    /// What the machines said; empty where they were not asked.
    machines: Vec<Witness>,
}

/// A machine's Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// The value of its label `kubernetes.io/hostname`.
    pub hostname: String,
}

impl Listed {
    async fn read(cluster: &Cluster, machines: Vec<Witness>) -> Result<Self> {
        Ok(Self { nodes: cluster.list_of(None, "").await?, machines })
    }

    fn named(&self, name: &str) -> Option<&v1::Node> {
        self.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))
    }

    /// The node with this address or name.
    fn at(&self, address: &str) -> Option<&v1::Node> {
        self.nodes.iter().find(|node| {
            let mut told = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            node.metadata.name.as_deref() == Some(address) || told.any(|known| known.address == address)
        })
    }

    /// Which node each address is of: by the name that the machine there told, else by the address.
    pub fn members(&self, addresses: &[String]) -> BTreeMap<String, Member> {
        let named = |address: &str| {
            let machine = self.machines.iter().find(|machine| machine.address == address)?;
            machine.name.as_deref().map(|name| self.named(name))
        };
        let member = |address: &String| {
            let metadata = &named(address).unwrap_or_else(|| self.at(address))?.metadata;
            let name = metadata.name.clone()?;
            let hostname = metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME));
            let hostname = hostname.unwrap_or(&name).clone();
            Some((address.clone(), Member { name, hostname }))
        };
        addresses.iter().filter_map(member).collect()
    }
}

/// Fails unless the machines and the API server are of one cluster.
///
/// # Errors
/// `Kind::Invalid`: they are not, or nothing proves it.
pub async fn prove(
    client: &Client,
    machines: impl IntoIterator<Item: Into<Witness>>,
    cluster: &Cluster,
) -> Result<Listed> {
    let listed = Listed::read(cluster, machines.into_iter().map(Into::into).collect()).await?;
    let machines = listed.machines.as_slice();
    let served = served(cluster).await?;
    match by_authority(machines, &served, |name| listed.named(name).is_some()) {
        Proof::One => return Ok(listed),
        Proof::Two(why) => return Err(two(cluster, why)),
        Proof::Open => {}
    }
    let mut away = None;
    for machine in machines {
        let Some(node) = machine.name.as_deref().and_then(|name| listed.named(name)) else { continue };
        let told = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let told = told.map_or("", |told| told.machine_id.as_str());
        match machine_id(client, machine).await {
            Ok(own) if !told.is_empty() && own.as_deref() == Some(told) => return Ok(listed),
            Err(error) if error.kind == Kind::Unavailable => away = Some(error),
            other => drop(other?),
        }
    }
    if let Some(away) = away {
        return Err(away);
    }
    let names: Vec<&str> = machines.iter().map(|m| m.name.as_deref().unwrap_or(&m.address)).collect();
    let named = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    Err(two(cluster, format!("nothing proves that {named} of the talosconfig is one of its nodes")))
}

/// Fails unless the cluster has a node of one of these addresses: all that can be said without the machine API.
///
/// # Errors
/// `Kind::Invalid`: it has none.
pub async fn prove_listed(addresses: &[String], cluster: &Cluster) -> Result<Listed> {
    let listed = Listed::read(cluster, Vec::new()).await?;
    match addresses.iter().any(|address| listed.at(address).is_some()) {
        true => Ok(listed),
        false => Err(two(cluster, "none of the nodes that the file lists has an address there".into())),
    }
}

fn two(cluster: &Cluster, why: String) -> Error {
    Error::invalid(format!("the machines and {} are not of one cluster: {why}", cluster.name())).hint(
        "name the kubeconfig and the talosconfig of one cluster: --kubeconfig, --context, --talosconfig, --talos-context; \
         `talosctl kubeconfig` writes the kubeconfig of the machines",
    )
}

async fn machine_id(client: &Client, machine: &Witness) -> Result<Option<String>> {
    let found = client.node(&machine.address)?.read(MACHINE_ID, 64).await?;
    Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// The API server's authorities by its own word; where it does not tell, the only one that the kubeconfig trusts.
async fn served(cluster: &Cluster) -> Result<Vec<Vec<u8>>> {
    let told = match cluster.get_of::<v1::ConfigMap>(Some("kube-system"), ROOT_CA).await {
        Ok(Some(map)) => {
            let certificates = map.data.as_ref().and_then(|data| data.get("ca.crt"));
            certificates.map(|text| pem(text.as_bytes())).unwrap_or_default()
        }
        Err(error) if error.kind == Kind::Unavailable => return Err(error),
        // It may not be read, or does not exist.
        Ok(None) | Err(_) => Vec::new(),
    };
    let trusted = cluster.authorities();
    Ok(if told.is_empty() && trusted.len() == 1 { trusted.to_vec() } else { told })
}

#[derive(Debug, PartialEq, Eq)]
enum Proof {
    One,
    Two(String),
    /// It needs another proof.
    Open,
}

/// What the authorities tell. Clusters that were made from one set of secrets share them: a machine that has seen its Node
/// object must be listed too.
fn by_authority(machines: &[Witness], served: &[Vec<u8>], listed: impl Fn(&str) -> bool) -> Proof {
    let registered = machines.iter().filter(|machine| machine.registered);
    let mut names = registered.filter_map(|machine| machine.name.as_deref()).peekable();
    if let Some(first) = names.peek().copied()
        && !names.any(listed)
    {
        return Proof::Two(format!("it has no node {first}"));
    }
    let common = |machine: &Witness| machine.authorities.iter().any(|authority| served.contains(authority));
    if machines.iter().any(common) { Proof::One } else { Proof::Open }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authority(name: &str) -> (String, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    #[test]
    fn the_authorities_of_a_config_are_found_whatever_the_version() {
        let ((one, one_der), (two, two_der)) = (authority("one"), authority("two"));
        let (base64, indented) = (BASE64_STANDARD.encode(&one), two.trim_end().replace('\n', "\n    "));
        let old = format!(
            "version: v1alpha1\ncluster:\n  ca: {{crt: {base64}, key: c2VjcmV0}}\n  acceptedCAs:\n    - crt: {}\n",
            BASE64_STANDARD.encode(&two)
        );
        let new = format!(
            "version: v1alpha1\nmachine: {{ca: {{crt: {base64}}}}}\n---\napiVersion: v1alpha1\nkind: {AUTHORITIES}\n\
             issuingCA:\n  cert: |\n    {indented}\n  key: nothing\n"
        );
        assert_eq!(authorities(&old), [one_der, two_der.clone()]);
        assert_eq!(authorities(&new), [two_der], "the machine API's own authority is another");
        for none in ["", "version: v1alpha1\ncluster: {ca: {crt: LS0t}}\n", "{", "version: v1alpha1\n"] {
            assert!(authorities(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_node_is_found_by_what_its_machine_is_called_else_by_its_address() {
        let node = |name: &str, address: &str, host: &str| {
            serde_json::from_value(serde_json::json!({"metadata": {"name": name, "labels": {HOSTNAME: host}},
                "status": {"addresses": [{"address": address}]}}))
            .unwrap()
        };
        let nodes = vec![node("n1", "10.0.0.1", "h1"), node("n2", "10.0.0.2", "h2")];
        let machine = |address: &str, name: &str| Witness {
            address: address.into(),
            name: Some(name.into()),
            ..Witness::default()
        };
        // The second machine has a name that no node has: whoever has its address now is another one.
        let machines = vec![machine("a.lan", "n1"), machine("10.0.0.1", "gone")];
        let listed = Listed { nodes, machines };
        let addresses = ["a.lan", "10.0.0.1", "10.0.0.2", "n1", "10.0.0.9"].map(str::to_owned);
        let members = listed.members(&addresses);
        let told: Vec<_> = members.iter().map(|(a, m)| format!("{a} {} {}", m.name, m.hostname)).collect();
        assert_eq!(told, ["10.0.0.2 n2 h2", "a.lan n1 h1", "n1 n1 h1"]);
    }

    #[test]
    fn machines_are_of_the_cluster_whose_authority_they_have_and_which_lists_them() {
        let machine = |name: &str, registered: bool, authority: &[u8]| Witness {
            address: "10.0.0.1".into(),
            name: Some(name.into()),
            registered,
            authorities: vec![authority.to_vec()],
        };
        let (a, b) = (b"a".as_slice(), b"b".as_slice());
        for (what, machines, expected) in [
            ("its authority, listed", vec![machine("n1", true, a)], Proof::One),
            ("its authority, not registered yet", vec![machine("new", false, a)], Proof::One),
            ("one of two is listed", vec![machine("gone", true, a), machine("n1", true, a)], Proof::One),
            ("of the same secrets", vec![machine("x", true, a)], Proof::Two("it has no node x".into())),
            ("of other secrets", vec![machine("x", true, b)], Proof::Two("it has no node x".into())),
            ("of other secrets, names alike", vec![machine("n1", true, b)], Proof::Open),
            ("of other secrets, not registered", vec![machine("n1", false, b)], Proof::Open),
            ("nobody", vec![], Proof::Open),
        ] {
            assert_eq!(by_authority(&machines, &[a.to_vec()], |name| name == "n1"), expected, "{what}");
        }
    }
}
