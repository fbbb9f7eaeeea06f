//! A sandbox whose machines have no configuration: from the first configurations to a cluster that answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nodeprep::cluster::Cluster;
use nodeprep::intent;
use nodeprep::sandbox::Sandbox;
use nodeprep::sandbox::scenario::Scenario;
use nodeprep::sandbox::serve::network::Network;
use nodeprep::talos::client::{Mode, Options};
use nodeprep::talos::config::Places;
use nodeprep::talos::{Client, Context, PORT};
use tokio::net::TcpStream;

use crate::fleet::paused;

const BARE: &str = include_str!("../examples/bare.yaml");

fn talos(sandbox: &Sandbox) -> Client {
    let flag = Some(sandbox.talosconfig());
    let places = Places { flag, talosconfig: None, talos_home: None, home: None };
    let context = Context::load(&places, None, Timestamp::now()).unwrap();
    let options = Options { dial: sandbox.dial(), ..Options::default() };
    Client::connect(&context, &context.endpoints, &options).unwrap()
}

#[test]
fn machines_are_configured_as_the_folder_says_and_the_bootstrap_makes_a_cluster_of_them() {
    paused(async {
        let scenario = Scenario::parse("bare.yaml", BARE).unwrap();
        let sandbox = Sandbox::start(&scenario, None, Network::memory(), Timestamp::now()).await.unwrap();
        let (fleet, talos) = (Arc::clone(sandbox.fleet().unwrap()), talos(&sandbox));
        let intent = intent::parse("nodeprep.yaml", &std::fs::read(sandbox.file()).unwrap()).unwrap();
        for node in &intent.nodes {
            let path = sandbox.folder.join(node.config.as_ref().unwrap());
            let machine = talos.insecure(&node.address, None).unwrap().node(&node.address).unwrap();
            let config = std::fs::read(path).unwrap();
            machine.apply(&config, Mode::Auto, false, None).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let etcd = async |address: &str| {
            let services = talos.node(address).unwrap().services().await.unwrap();
            services.into_iter().find(|service| service.id == "etcd").map(|service| service.state)
        };
        assert_eq!(etcd("10.5.0.2").await.as_deref(), Some("Preparing"));
        assert_eq!(etcd("10.5.0.3").await, None);
        let cluster = async || {
            let cluster = Cluster::connect(Some(&sandbox.kubeconfig()), None, &sandbox.dial()).await?;
            cluster.get("v1", "Node", None, "talos-1").await
        };
        assert!(cluster().await.is_err());
        fleet.act(|world, now| {
            let (machine, timers) = world.machine("10.5.0.2").unwrap();
            machine.bootstrap(timers, now).unwrap();
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        let node = cluster().await.unwrap().unwrap();
        assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
        let config = std::fs::read_to_string(sandbox.kubeconfig()).unwrap();
        assert_eq!(fleet.kubeconfig(), Some(config.as_str()));
    });
}

#[tokio::test]
async fn machines_are_reached_by_other_processes_at_their_addresses_of_the_loopback_interface() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Not what another run of this test listens at.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = format!("127.{}.{low}.2", 64 + high % 64);
    let text = format!(
        "machines: [{{role: controlplane, maintenance: true, address: {own}}}, {{maintenance: true}}]"
    );
    let (scenario, folder) = (Scenario::parse("scenario", &text).unwrap(), tempfile::tempdir().unwrap());
    let start = || Sandbox::start(&scenario, Some(folder.path()), Network::Loopback, Timestamp::now());
    let sandbox = start().await.unwrap();
    assert_eq!(sandbox.maintenance()[1], (own.clone(), format!("{own}:{PORT}").parse().unwrap()));
    assert!(TcpStream::connect((own.as_str(), PORT)).await.is_ok());

    // Whoever joins the sandbox knows where the others are.
    let joined = start().await.unwrap();
    assert!(joined.joined());
    assert_eq!(joined.maintenance(), sandbox.maintenance());
    for (sandbox, address) in [(&sandbox, "10.5.0.3"), (&joined, "10.5.0.3"), (&joined, own.as_str())] {
        let machine = talos(sandbox).insecure(address, None).unwrap().node(address).unwrap();
        let stages = machine.list("runtime", "MachineStatuses.runtime.talos.dev").await.unwrap();
        assert_eq!(stages.len(), 1, "{address}");
    }
}
