use nodeprep::error::Kind;
use nodeprep::observe::disks::Holder;
use nodeprep::observe::nodes::{Node, Status, observe, observe_all};
use nodeprep::talos::proto::machine::MountStat;
use nodeprep::talos::{Client, client::Options};
use secrecy::ExposeSecret;

use super::pki::{Ca, context, now};
use super::server::{Machine, Server};

fn machine() -> Machine {
    let mut machine = Machine::talos("v1.11.5")
        .with("Nodenames.kubernetes.talos.dev", &[("nodename", "nodename: n1\nskipNodeRegistration: false\n")])
        .with("MachineTypes.config.talos.dev", &[("machine-type", "controlplane\n")])
        .with(
            "MachineStatuses.runtime.talos.dev",
            &[("machine", "stage: Running\nstatus:\n  ready: false\n  unmetConditions:\n  - name: time\n    reason: no NTP\n")],
        )
        .with("Disks.block.talos.dev", &[("vda", "size: 10"), ("nvme0n1", "size: 20\ntransport: nvme\nlater: 1")])
        .with("SystemDisks.block.talos.dev", &[("system-disk", "diskID: vda\ndevPath: /dev/vda")])
        .with("BlockDevices.block.talos.dev", &[("vda", "type: disk"), ("nvme0n1", "type: disk")])
        .with("DiscoveredVolumes.block.talos.dev", &[("vda", "type: disk\nname: gpt"), ("nvme0n1", "type: disk\nname: ''")])
        .with("VolumeStatuses.block.talos.dev", &[("u-openebs", "phase: Ready\nlocation: /dev/nvme1n1p1\nsize: 30")])
        .with(
            "MountStatuses.runtime.talos.dev",
            &[("u-openebs", "source: /dev/nvme1n1p1\ntarget: /var/mnt/openebs\nfilesystemType: xfs\noptions: [rw, prjquota]")],
        )
        .with("NodeLabelSpecs.k8s.talos.dev", &[("a/b", "key: a/b\nvalue: 'true'")])
        .with("NodeStatuses.kubernetes.talos.dev", &[("n1", "nodename: n1\nlabels:\n  a/b: 'true'\n  c: d")])
        .with("MachineConfigs.config.talos.dev", &[("v1alpha1", "version: v1alpha1\n---\nkind: X\n")]);
    machine.mounts = vec![MountStat {
        mounted_on: "/var/mnt/openebs".into(),
        size: 30,
        available: 29,
        ..Default::default()
    }];
    machine
}

async fn observed(machine: Machine) -> Node {
    let ca = Ca::new();
    let address = Server::new(machine, &ca, &ca).listen().await.to_string();
    let client = Client::connect(&context(&ca, &ca), &[address], &Options::default()).unwrap();
    observe(&client, "10.0.0.7", now()).await.unwrap()
}

#[tokio::test]
async fn everything_of_a_machine_is_read_at_once() {
    let node = observed(machine()).await;
    assert!(node.faults().is_empty(), "{:?}", node.faults());
    assert_eq!(node.hostname.unwrap().as_deref(), Some("n1"));
    let version = node.version.unwrap();
    assert_eq!((version.parsed, version.container), ((1, 11, 5), false));
    assert_eq!(node.machine_type.unwrap().as_deref(), Some("controlplane"));
    let unmet = vec!["time: no NTP".to_owned()];
    assert_eq!(node.status.unwrap(), Status { stage: "running".into(), ready: false, unmet });
    let disks: Vec<_> = node.disks.unwrap().into_iter().map(|disk| (disk.id, disk.holder)).collect();
    assert_eq!(disks, [("nvme0n1".to_owned(), Holder::Nothing), ("vda".to_owned(), Holder::System)]);
    let volumes = node.volumes.unwrap();
    assert_eq!((volumes[0].id.as_str(), volumes[0].spec.phase.as_str()), ("u-openebs", "ready"));
    let mounts = node.mounts.unwrap();
    assert_eq!((mounts[0].target.as_str(), mounts[0].available), ("/var/mnt/openebs", Some(29)));
    assert_eq!(node.wanted_labels.unwrap()["a/b"], "true");
    assert_eq!(node.labels.unwrap().unwrap().len(), 2);
    let config = node.config.unwrap().unwrap();
    assert!(!format!("{config:?}").contains("kind"));
    assert_eq!(
        (config.text.expose_secret(), config.version.as_str()),
        ("version: v1alpha1\n---\nkind: X\n", "7")
    );
    assert_eq!(node.cert_days_left, 3501);
}

#[tokio::test]
async fn a_part_that_cannot_be_read_leaves_the_rest() {
    let mut machine = machine().with("Disks.block.talos.dev", &[("sda", "size: very big")]);
    machine.resources.remove("MachineConfigs.config.talos.dev");
    let node = observed(machine).await;
    let faults: Vec<_> = node.faults().iter().map(|(part, error)| (*part, error.kind)).collect();
    assert_eq!(faults, [("disks", Kind::Failed), ("config", Kind::Invalid)]);
    let error = node.disks.unwrap_err();
    assert!(error.what.contains("Disks.block.talos.dev sda") && !error.what.contains("very big"), "{error}");
    assert!(node.volumes.is_ok() && node.hostname.is_ok());
}

#[tokio::test]
async fn a_dead_machine_is_observed_as_dead() {
    let ca = Ca::new();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::connect(&context(&ca, &ca), &[closed.to_string()], &Options::default()).unwrap();
    let nodes = observe_all(&client, &["10.0.0.7".into(), "10.0.0.8".into()], now()).await.unwrap();
    for (node, address) in nodes.iter().zip(["10.0.0.7", "10.0.0.8"]) {
        assert_eq!(node.address, address);
        let faults = node.faults();
        assert_eq!(faults.len(), 10);
        assert!(
            faults.iter().all(|(_, error)| error.kind == Kind::Unavailable && error.what.contains(address))
        );
    }
}
