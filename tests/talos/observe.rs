use nodeprep::error::Kind;
use nodeprep::model::disks::Holder;
use nodeprep::model::node::{Node, Status};
use nodeprep::observe::about::about_all;
use nodeprep::observe::nodes::{observe, observe_all};
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
        .with("Disks.block.talos.dev", &[("vda", "size: 10"), ("nvme0n1", "size: 20\nserial: S1\nlater: 1")])
        .with("SystemDisks.block.talos.dev", &[("system-disk", "diskID: vda\ndevPath: /dev/vda")])
        .with(
            "BlockDevices.block.talos.dev",
            &[("vda", "type: disk"), ("nvme0n1", "type: disk\nmajor: 259\nminor: 2")],
        )
        .file("/run/udev/data/b259:2", "S:disk/by-diskseq/3\nI:1200450\nE:ID_SERIAL=x\nV:1\n")
        .with("DiscoveredVolumes.block.talos.dev", &[("vda", "type: disk\nname: gpt"), ("nvme0n1", "type: disk\nname: ''")])
        .with("VolumeStatuses.block.talos.dev", &[("u-openebs", "phase: Ready\nlocation: /dev/nvme1n1p1\nsize: 30")])
        .with(
            "MountStatuses.block.talos.dev",
            &[("u-openebs", "source: /dev/nvme1n1p1\ntarget: /var/mnt/openebs\nfilesystem: xfs\nprojectQuotaSupport: true")],
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
    assert_eq!((node.cert_days_left, node.maintenance), (Some(3501), false));
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

#[tokio::test]
async fn a_disk_is_free_only_when_udev_found_nothing_on_it_either() {
    let record = |found: &str| format!("I:1200450\n{found}V:1\n");
    let table = [
        (Some(record("")), Ok(())),
        (Some(record("E:ID_FS_TYPE=ntfs\n")), Err("holds ntfs")),
        (Some(record("E:ID_FS_TYPE=linux_raid_member\n")), Err("holds a RAID array")),
        (Some(record("E:ID_PART_TABLE_TYPE=dos\n")), Err("holds an MBR with 0 partitions")),
        (Some("E:ID_FS_TYPE=\n".into()), Err("is not done with it yet")),
        (Some("x".repeat(1 << 20)), Err("is longer than")),
        (None, Err("has no record of it yet")),
    ];
    for (record, free) in table {
        let mut machine = machine();
        machine.files =
            record.iter().map(|text| ("/run/udev/data/b259:2".to_owned(), text.clone())).collect();
        let disks = observed(machine).await.disks.unwrap();
        let found = &disks[0].eligible;
        match (found, free) {
            (Ok(()), Ok(())) => {}
            (Err(why), Err(words)) if why.contains(words) => {}
            _ => panic!("{found:?} instead of {free:?}"),
        }
    }
}

/// As the real one of v1.11.5 did after a partition was taken out of its table.
#[tokio::test]
async fn a_partition_that_only_talos_still_lists_does_not_hold_its_disk() {
    let list =
        "major minor  #blocks  name\n\n 254        0   12582912 vda\n 259        2    5242880 nvme0n1\n";
    let there = format!("{list} 259        4    5240832 nvme0n1p1\n");
    let mbr = Some("holds an MBR with 1 partition");
    for (list, held) in [(Some(list), None), (Some(&there), mbr), (Some("nonsense"), mbr), (None, mbr)] {
        let mut machine = machine().with(
            "BlockDevices.block.talos.dev",
            &[
                ("vda", "type: disk"),
                ("nvme0n1", "type: disk\nmajor: 259\nminor: 2"),
                ("nvme0n1p1", "type: partition\nmajor: 259\nminor: 4\nparent: nvme0n1\npartitionNumber: 1"),
            ],
        );
        if let Some(list) = list {
            machine = machine.file("/proc/partitions", list);
        }
        let disks = observed(machine).await.disks.unwrap();
        assert_eq!(disks[0].eligible.as_ref().err().map(String::as_str), held, "{list:?}");
    }
}

/// A client whose connections all go to one server, whatever they are made to.
fn client_of(address: std::net::SocketAddr, ca: &Ca) -> Client {
    let dial: nodeprep::dial::Dial = std::sync::Arc::new(move |_, _| {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn nodeprep::dial::Io>)
        })
    });
    let options = Options { dial, ..Options::default() };
    Client::connect(&context(ca, ca), &["10.0.0.7".into()], &options).unwrap()
}

#[tokio::test]
async fn a_machine_in_maintenance_mode_is_read_without_credentials_and_one_that_is_not_is_not() {
    let stage = |stage: &str| {
        let status = format!("stage: {stage}\nstatus: {{ready: true}}\n");
        machine().with("MachineStatuses.runtime.talos.dev", &[("machine", status.as_str())])
    };
    let ca = Ca::new();
    let address = Server::maintenance(stage("maintenance")).listen().await;
    let node = observe(&client_of(address, &ca), "10.0.0.7", now()).await.unwrap();
    assert!(node.maintenance && node.faults().is_empty(), "{:?}", node.faults());
    assert_eq!(node.cert_days_left, None);
    assert!(
        node.config.unwrap().is_none() && node.labels.unwrap().is_none(),
        "what needs a role is not asked for"
    );
    assert_eq!(node.disks.unwrap().len(), 2);

    // A stranger's certificate alone proves nothing.
    let address = Server::maintenance(stage("running")).listen().await;
    let node = observe(&client_of(address, &ca), "10.0.0.7", now()).await.unwrap();
    assert!(!node.maintenance && !node.answers());
    let error = node.version.unwrap_err();
    assert!(error.what.contains("not from the CA of the talosconfig"), "{error}");
}

#[tokio::test]
async fn extensions_and_clocks_are_told_and_a_silent_time_server_is_data() {
    let seconds = jiff::Timestamp::now().as_second();
    let with = |clock: Option<(i64, i64)>| {
        let mut machine = machine()
            .with(
                "ExtensionStatuses.runtime.talos.dev",
                &[("0", "image: x\nmetadata:\n  name: iscsi-tools\n  version: v0.2.0\n")],
            )
            .with(
                "TimeStatuses.v1alpha1.talos.dev",
                &[("node", "synced: true\nepoch: 1\nsyncDisabled: false\n")],
            );
        machine.clock = clock;
        machine
    };
    for (clock, here, server) in [
        (Some((seconds + 3600, seconds + 3600)), Some(3600), Some(0)),
        (Some((seconds - 3600, seconds)), Some(-3600), Some(-3600)),
        (None, None, None),
    ] {
        let ca = Ca::new();
        let address = Server::new(with(clock), &ca, &ca).listen().await.to_string();
        let client = Client::connect(&context(&ca, &ca), &[address], &Options::default()).unwrap();
        let nodes = observe_all(&client, &["10.0.0.7".into()], now()).await.unwrap();
        let about = about_all(&client, &nodes).await.remove(0).unwrap();
        assert_eq!(about.extensions.unwrap(), [("iscsi-tools".to_owned(), "v0.2.0".to_owned())]);
        assert_eq!(about.synced.unwrap(), Some(true));
        let near = |found: Option<i64>, wanted: Option<i64>| match (found, wanted) {
            (Some(found), Some(wanted)) => (found - wanted).abs() < 600,
            (found, wanted) => found == wanted,
        };
        let told = about.clock.ok();
        assert!(near(told.map(|clock| clock.ahead_of_here.as_secs()), here), "{told:?}");
        assert!(near(told.map(|clock| clock.ahead_of_server.as_secs()), server), "{told:?}");
    }
}
