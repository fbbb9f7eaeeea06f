//! What may be wiped and removed: never without the disk's token, never what is in use, never what can't be told apart.

use nodeprep::error::Kind;
use nodeprep::model::claims::{Attached, Claimed, KubeNode, Mounting, Pool, Users};
use nodeprep::model::disks::udev::Record;
use nodeprep::model::disks::{Facts, join};
use nodeprep::model::node::{MachineConfig, Mount, Node, Status, Version};
use nodeprep::plan::wipe::{Now, Wipe, WipeRequest, find, ghost, look, plan};
use nodeprep::plan::{Action, NodeAction, Plan, Risk, remove};
use nodeprep::talos::resources::{BlockDevice, DiscoveredVolume, DiskSpec, Item, MountStatus, VolumeStatus};
use secrecy::ExposeSecret;

const CONFIG: &str = "version: v1alpha1\nmachine:\n    type: worker\n";
const VOLUME: &str = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs\n";

fn item<T>(id: &str, spec: T) -> Item<T> {
    Item { id: id.into(), version: "1".into(), labels: Default::default(), spec }
}

fn disk(id: &str, serial: &str, wwid: &str) -> Item<DiskSpec> {
    let spec = DiskSpec {
        dev_path: format!("/dev/{id}"),
        size: 100 << 30,
        serial: serial.into(),
        wwid: wwid.into(),
        ..DiskSpec::default()
    };
    item(id, spec)
}

fn whole(id: &str, name: &str) -> Item<DiscoveredVolume> {
    item(id, DiscoveredVolume { kind: "disk".into(), name: name.into(), ..Default::default() })
}

fn part(disk: &str, index: u32, label: &str) -> Item<DiscoveredVolume> {
    let spec = DiscoveredVolume {
        kind: "partition".into(),
        parent: disk.into(),
        name: "xfs".into(),
        partition_label: label.into(),
        partition_index: index,
        size: 1 << 30,
        ..Default::default()
    };
    item(&format!("{disk}p{index}"), spec)
}

/// A system disk `vda`, an empty disk, a disk with xfs on it, and one with a volume `openebs` that the node does not
/// have.
fn facts() -> Facts {
    let disks = vec![
        disk("vda", "SYS", "w.SYS"),
        disk("nvme0n1", "BLANK", "w.BLANK"),
        disk("nvme1n1", "XFS", "w.XFS"),
        disk("nvme2n1", "OLD", "w.OLD"),
    ];
    let discovered = vec![
        whole("vda", "gpt"),
        part("vda", 1, "EPHEMERAL"),
        whole("nvme0n1", ""),
        whole("nvme1n1", "xfs"),
        whole("nvme2n1", "gpt"),
        part("nvme2n1", 1, "u-openebs"),
        part("nvme2n1", 2, "other"),
    ];
    Facts {
        system_disk: Some("vda".into()),
        discovered,
        udev: disks.iter().map(|disk| (disk.id.clone(), Ok(Record::default()))).collect(),
        disks,
        volumes: Some(Vec::new()),
        ..Facts::default()
    }
}

/// The same, but the disk's only partition is a volume that the node has and has mounted.
fn with_volume() -> Facts {
    let mut facts = facts();
    facts.discovered.retain(|found| found.spec.partition_label != "other");
    let status =
        VolumeStatus { phase: "ready".into(), location: "/dev/nvme2n1p1".into(), ..Default::default() };
    facts.volumes = Some(vec![item("u-openebs", status)]);
    let mount = MountStatus {
        source: "/dev/nvme2n1p1".into(),
        target: "/var/mnt/openebs".into(),
        ..Default::default()
    };
    facts.mounts = vec![item("u-openebs", mount)];
    facts
}

fn node(address: &str, facts: &Facts) -> Node {
    let version = Version {
        tag: "v1.11.5".into(),
        parsed: (1, 11, 5),
        platform: "metal".into(),
        container: false,
        arch: "amd64".into(),
        simulated: false,
    };
    let mounts = facts.mounts.iter().map(|mount| Mount {
        source: mount.spec.source.clone(),
        target: mount.spec.target.clone(),
        filesystem: "xfs".into(),
        size: None,
        available: None,
        flags: Default::default(),
    });
    Node {
        address: address.into(),
        version: Ok(version),
        hostname: Ok(Some("n1".into())),
        machine_type: Ok(Some("worker".into())),
        status: Ok(Status { stage: "running".into(), ready: true, unmet: Vec::new() }),
        disks: Ok(join(facts)),
        mounts: Ok(mounts.collect()),
        volumes: Ok(facts.volumes.clone().unwrap_or_default()),
        wanted_labels: Ok(Default::default()),
        labels: Ok(None),
        config: Ok(Some(MachineConfig { text: format!("{CONFIG}{VOLUME}").into(), version: "7".into() })),
        maintenance: false,
        fingerprint: None,
        cert_days_left: Some(300),
    }
}

fn named(name: &str) -> [String; 1] {
    [name.to_owned()]
}

/// Finds and plans with these tokens alone.
fn planned(nodes: &[Node], asked: WipeRequest<'_>) -> Result<Plan, (Kind, String)> {
    let told = |e: nodeprep::error::Error| (e.kind, format!("{} / {}", e.what, e.hint.unwrap_or_default()));
    plan(find(nodes, asked).map_err(told)?, asked.tokens).map_err(told)
}

fn wipes(plan: &Plan) -> Vec<&Wipe> {
    let steps = plan.steps.iter();
    steps
        .filter_map(|step| match &step.action {
            Action::Node(NodeAction::Wipe(wipe)) => Some(wipe),
            _ => None,
        })
        .collect()
}

#[test]
fn a_disk_is_wiped_only_by_its_own_token() {
    let nodes = [node("10.0.0.1", &facts())];
    let disks = named("nvme1n1");
    for (name, tokens, words) in [
        ("none", vec![], "--wipe-disk XFS"),
        ("another disk's", vec!["OLD".to_owned()], "--wipe-disk XFS"),
        ("its name", vec!["nvme1n1".to_owned()], "--wipe-disk XFS"),
        ("a part of it", vec!["XF".to_owned()], "--wipe-disk XFS"),
        ("in other letters", vec!["xfs".to_owned()], "--wipe-disk XFS"),
    ] {
        let asked = WipeRequest { disks: &disks, tokens: &tokens, ..WipeRequest::default() };
        let (kind, what) = planned(&nodes, asked).expect_err(name);
        assert_eq!(kind, Kind::Refused, "{name}");
        assert!(what.contains(words), "{name}: {what}");
    }
    let tokens = named("XFS");
    for asked in [
        WipeRequest { disks: &disks, tokens: &tokens, ..WipeRequest::default() },
        WipeRequest { disks: &named("/dev/nvme1n1"), tokens: &tokens, ..WipeRequest::default() },
        WipeRequest { tokens: &tokens, ..WipeRequest::default() },
        WipeRequest { tokens: &["XFS".to_owned(), "XFS".to_owned()], ..WipeRequest::default() },
    ] {
        let plan = planned(&nodes, asked).expect("it is its token");
        let [step] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
        assert_eq!((step.risk, step.id.as_str()), (Risk::Destroy, "node/10.0.0.1/wipe/XFS"));
        assert!(step.action.changes() && step.why.contains("xfs"), "{step:?}");
        assert_eq!(
            (wipes(&plan)[0].id.serial.as_deref(), wipes(&plan)[0].id.wwid.as_deref()),
            (Some("XFS"), Some("w.XFS"))
        );
    }
}

#[test]
fn what_must_not_be_wiped_is_refused_with_its_token_too() {
    let change = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        node("10.0.0.1", &facts)
    };
    let spec = |facts: &mut Facts, change: &dyn Fn(&mut DiskSpec)| change(&mut facts.disks[2].spec);
    let as_is = || change(&|_| {});
    let mut maintenance = as_is();
    maintenance.maintenance = true;
    let mut old = as_is();
    old.version.as_mut().expect("a version").parsed = (1, 9, 6);
    let mut blind = as_is();
    blind.volumes = Err(nodeprep::error::Error::unavailable("no answer"));
    let on_top = |facts: &mut Facts| {
        let upper =
            BlockDevice { kind: "disk".into(), secondaries: vec!["nvme1n1".into()], ..Default::default() };
        facts.devices.push(item("dm-0", upper));
    };
    let mounted = |facts: &mut Facts| {
        let mount = MountStatus {
            source: "/dev/nvme1n1".into(),
            target: "/var/mnt/legacy".into(),
            ..Default::default()
        };
        facts.mounts.push(item("x", mount));
    };
    let wanted = |facts: &mut Facts| {
        facts.discovered.push(part("nvme1n1", 1, "u-data"));
        facts.volumes =
            Some(vec![item("u-data", VolumeStatus { phase: "waiting".into(), ..Default::default() })]);
    };
    let table: Vec<(&str, Node, &str, &str)> = vec![
        ("the system disk", as_is(), "SYS", "Talos is installed on it"),
        (
            "Talos' disk, when the node does not say which it is",
            change(&|facts| facts.system_disk = None),
            "SYS",
            "does not say which disk it runs from",
        ),
        ("a mounted disk", change(&mounted), "XFS", "mounted at /var/mnt/legacy"),
        ("a volume in use", node("10.0.0.1", &with_volume()), "OLD", "volume u-openebs lies on it"),
        ("a volume that Talos is about to adopt", change(&wanted), "XFS", "asks for user volume data"),
        ("a disk below another device", change(&on_top), "XFS", "dm-0 lies on it"),
        ("a read-only disk", change(&|facts| spec(facts, &|it| it.readonly = true)), "XFS", "is read-only"),
        ("a CD-ROM", change(&|facts| spec(facts, &|it| it.cdrom = true)), "XFS", "is a CD-ROM"),
        (
            "one disk seen twice, by serial",
            change(&|facts| spec(facts, &|it| (it.serial, it.wwid) = ("OLD".into(), "w.OLD".into()))),
            "OLD",
            "more than one disk",
        ),
        (
            "one disk seen twice, by another's serial",
            change(&|facts| spec(facts, &|it| it.wwid = "w.OLD".into())),
            "XFS",
            "says it is the same disk",
        ),
        ("a node in maintenance mode", maintenance, "XFS", "maintenance mode"),
        ("a Talos before 1.10", old, "XFS", "upgrade to Talos 1.10"),
    ];
    for (name, node, token, words) in table {
        let (kind, what) = planned(&[node], WipeRequest { tokens: &named(token), ..WipeRequest::default() })
            .expect_err(name);
        assert_eq!(kind, Kind::Refused, "{name}: {what}");
        assert!(what.contains(words), "{name}: no `{words}` in {what}");
    }
    let nameless = change(&|facts| spec(facts, &|it| (it.serial, it.wwid) = (String::new(), String::new())));
    let asked = WipeRequest { disks: &named("nvme1n1"), tokens: &named(""), ..WipeRequest::default() };
    assert!(planned(&[nameless], asked).expect_err("no serial").1.contains("neither serial nor WWID"));
    let (kind, _) = planned(&[blind], WipeRequest { tokens: &named("XFS"), ..WipeRequest::default() })
        .expect_err("blind");
    assert_eq!(kind, Kind::Unavailable, "a part that could not be read stops it");
}

#[test]
fn a_token_names_one_disk_of_all_nodes() {
    let nodes = [node("10.0.0.1", &facts()), node("10.0.0.2", &facts())];
    let tokens = named("XFS");
    let (kind, what) =
        planned(&nodes, WipeRequest { tokens: &tokens, ..WipeRequest::default() }).expect_err("shared");
    assert!(kind == Kind::Refused && what.contains("10.0.0.1 nvme1n1, 10.0.0.2 nvme1n1"), "{what}");
    let (kind, what) = planned(&nodes, WipeRequest { tokens: &named("NOPE"), ..WipeRequest::default() })
        .expect_err("unknown");
    assert!(kind == Kind::Invalid && what.contains("NOPE"), "{what}");
    let asked = WipeRequest { disks: &named("nvme1n1"), tokens: &tokens, ..WipeRequest::default() };
    assert_eq!(planned(&nodes, asked).expect_err("a name of two nodes").0, Kind::Invalid);
    assert_eq!(
        planned(&nodes[..1], WipeRequest { disks: &named("sdz"), ..asked }).expect_err("no disk").0,
        Kind::Invalid
    );
}

#[test]
fn where_the_serial_does_not_tell_disks_apart_the_wwid_is_the_token() {
    let mut facts = facts();
    // Two namespaces of one controller.
    facts.disks[3].spec.serial = "XFS".into();
    let nodes = [node("10.0.0.1", &facts)];
    let disks = named("nvme1n1");
    let serial =
        planned(&nodes, WipeRequest { disks: &disks, tokens: &named("XFS"), ..WipeRequest::default() });
    assert_eq!(serial.expect_err("a serial of two").0, Kind::Refused);
    let wwid = planned(&nodes, WipeRequest { tokens: &named("w.XFS"), ..WipeRequest::default() })
        .expect("one disk's WWID");
    assert!(wipes(&wwid)[0].what.contains("nvme1n1"));
}

#[test]
fn nothing_is_done_to_a_blank_disk_and_a_leftover_partition_goes_alone() {
    let nodes = [node("10.0.0.1", &facts())];
    let blank =
        planned(&nodes, WipeRequest { tokens: &named("BLANK"), ..WipeRequest::default() }).expect("a plan");
    assert!(blank.is_empty() && blank.skipped.len() == 1);

    let tokens = named("OLD");
    let leftover = WipeRequest { volume: Some("openebs"), tokens: &tokens, ..WipeRequest::default() };
    let plan = planned(&nodes, leftover).expect("a plan");
    assert_eq!(wipes(&plan)[0].partition.as_deref(), Some("u-openebs"));
    assert_eq!(plan.steps[0].id, "node/10.0.0.1/wipe/OLD/u-openebs");
    let devices = look(wipes(&plan)[0], nodes[0].disks.as_ref().expect("disks")).expect("as it was");
    assert_eq!(devices, Now::Same(vec![("nvme2n1p1".into(), true)]));

    assert_eq!(
        planned(&nodes, WipeRequest { tokens: &[], ..leftover }).expect_err("no token").0,
        Kind::Refused
    );
    let none = planned(&nodes, WipeRequest { volume: Some("nope"), ..leftover }).expect("a plan");
    assert!(none.is_empty() && none.skipped.len() == 1);
    let (kind, what) = planned(&[node("10.0.0.1", &with_volume())], leftover).expect_err("it has it");
    assert!(kind == Kind::Refused && what.contains("nodeprep remove"), "{what}");
}

#[test]
fn a_partition_that_only_the_kernel_still_knows_is_told_from_one_that_is_there() {
    let nodes = [node("10.0.0.1", &facts())];
    let plan =
        planned(&nodes, WipeRequest { tokens: &named("OLD"), ..WipeRequest::default() }).expect("a plan");
    let wiped = [("nvme2n1p1".to_owned(), true)];
    for (parts, expected) in [
        (&[(1, "u-openebs"), (2, "other")][..], None),
        (&[(2, "other")], None),
        (&[], None),
        (&[(1, ""), (2, "other")], Some(false)),
        (&[(1, "")], Some(true)),
        (&[(1, ""), (3, "")], Some(false)),
    ] {
        let mut facts = facts();
        facts.discovered.retain(|found| !found.id.starts_with("nvme2n1p"));
        facts.discovered.extend(parts.iter().map(|(index, label)| part("nvme2n1", *index, label)));
        let made = ghost(wipes(&plan)[0], &wiped, &join(&facts));
        assert_eq!(made, None, "what holds a file system is a partition that somebody made since");
        for found in facts.discovered.iter_mut().filter(|found| found.spec.partition_label.is_empty()) {
            found.spec.name = if found.spec.kind == "disk" { found.spec.name.clone() } else { String::new() };
        }
        let found = ghost(wipes(&plan)[0], &wiped, &join(&facts));
        assert_eq!(
            found.map(|ghost| (ghost.disk, ghost.alone)),
            expected.map(|alone| ("nvme2n1".into(), alone))
        );
    }
}

#[test]
fn right_before_the_wipe_the_disk_is_found_again_whatever_its_name() {
    let nodes = [node("10.0.0.1", &facts())];
    let plan =
        planned(&nodes, WipeRequest { tokens: &named("OLD"), ..WipeRequest::default() }).expect("a plan");
    let wipe = wipes(&plan)[0];
    let then = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        look(wipe, &join(&facts))
    };
    let partitions_first = [("nvme2n1p1", true), ("nvme2n1p2", true), ("nvme2n1", false)];
    let same = partitions_first.map(|(name, drop)| (name.to_owned(), drop)).to_vec();
    assert_eq!(then(&|_| {}).expect("as it was"), Now::Same(same));

    // The names swap: what is on the other disk stays out of it.
    let swapped = then(&|facts| {
        let (xfs, old) = (facts.disks[2].spec.clone(), facts.disks[3].spec.clone());
        facts.disks[2].spec = DiskSpec { dev_path: "/dev/nvme1n1".into(), ..old };
        facts.disks[3].spec = DiskSpec { dev_path: "/dev/nvme2n1".into(), ..xfs };
        facts.discovered = vec![
            whole("nvme2n1", "xfs"),
            whole("nvme1n1", "gpt"),
            part("nvme1n1", 1, "u-openebs"),
            part("nvme1n1", 2, "other"),
        ];
    });
    let Ok(Now::Same(devices)) = swapped else { panic!("{swapped:?}") };
    assert!(devices.iter().all(|(name, _)| name.starts_with("nvme1n1")), "{devices:?}");

    let wiped = then(&|facts| {
        facts.discovered.retain(|found| !found.id.starts_with("nvme2n1"));
        facts.discovered.push(whole("nvme2n1", ""));
    });
    assert_eq!(wiped.expect("wiped"), Now::Wiped);
    let half = then(&|facts| facts.discovered.retain(|found| found.id != "nvme2n1p2"));
    assert!(matches!(half.expect("half"), Now::Other(_)));
    let written = then(&|facts| facts.discovered.push(part("nvme2n1", 3, "new")));
    assert!(matches!(written.expect("written"), Now::Other(_)));

    for (name, result) in [
        ("gone", then(&|facts| facts.disks.retain(|disk| disk.id != "nvme2n1"))),
        (
            "there twice",
            then(&|facts| facts.disks[2].spec.serial = "OLD".into()).and_then(|_| {
                then(&|facts| {
                    (facts.disks[2].spec.serial, facts.disks[2].spec.wwid) = ("OLD".into(), "w.OLD".into());
                })
            }),
        ),
        ("of another WWID", then(&|facts| facts.disks[3].spec.wwid = "w.NEW".into())),
        ("of no WWID any more", then(&|facts| facts.disks[3].spec.wwid.clear())),
        (
            "beside one that hides its WWID",
            then(&|facts| {
                (facts.disks[2].spec.serial, facts.disks[2].spec.wwid) = ("OLD".into(), String::new())
            }),
        ),
        ("the system's by now", then(&|facts| facts.system_disk = Some("nvme2n1".into()))),
        (
            "in use by now",
            then(&|facts| {
                let status = VolumeStatus { location: "/dev/nvme2n1p1".into(), ..Default::default() };
                facts.volumes = Some(vec![item("u-openebs", status)]);
            }),
        ),
        (
            "asked for by now",
            then(&|facts| {
                facts.volumes = Some(vec![item("u-openebs", VolumeStatus::default())]);
            }),
        ),
    ] {
        assert_eq!(result.expect_err(name).kind, Kind::Refused, "{name}");
    }
}

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A cluster of two nodes, of which the first is the one at 10.0.0.1.
fn cluster() -> Users {
    let node = |name: &str, address: &str| KubeNode {
        name: name.into(),
        labels: [(HOSTNAME.to_owned(), name.to_owned()), ("rack".to_owned(), name.to_owned())].into(),
        addresses: vec![address.into()],
    };
    Users { nodes: vec![node("n1", "10.0.0.1"), node("n2", "10.0.0.2")], ..Users::default() }
}

fn terms(key: &str, values: &[&str]) -> serde_json::Value {
    serde_json::json!([{"matchExpressions": [{"key": key, "operator": "In", "values": values}]}])
}

fn claimed(path: &str, terms: serde_json::Value) -> Claimed {
    let (name, claim) = ("pvc-1".into(), Some("db/data-0".into()));
    let terms = serde_json::from_value(terms).expect("terms of an affinity");
    Claimed { name, claim, paths: vec![path.into()], driver: None, terms }
}

fn resident(path: &str) -> Users {
    Users { volumes: vec![claimed(path, serde_json::json!([]))], ..cluster() }
}

fn pod(path: &str, node: Option<&str>) -> Mounting {
    let node = node.map(str::to_owned);
    Mounting {
        name: "pod x/y".into(),
        node,
        selector: Default::default(),
        paths: vec![path.into()],
        is_there: true,
    }
}

fn removed(node: &Node, keep: bool, users: &Users, tokens: &[String]) -> Result<Plan, (Kind, String)> {
    unused(node, keep, users, tokens, &[])
}

fn unused(
    node: &Node,
    keep_data: bool,
    users: &Users,
    tokens: &[String],
    unused_by: &[String],
) -> Result<Plan, (Kind, String)> {
    let asked = remove::RemoveRequest { volume: "openebs", keep_data, unused_by };
    let found = remove::find(node, asked, Some(users));
    let told = |e: nodeprep::error::Error| (e.kind, format!("{} / {}", e.what, e.hint.unwrap_or_default()));
    found.and_then(|removal| remove::plan(vec![removal], tokens)).map_err(told)
}

#[test]
fn a_volume_is_unmounted_then_gone_and_only_then_wiped() {
    let node = node("10.0.0.1", &with_volume());
    let plan = removed(&node, false, &cluster(), &named("OLD")).expect("a plan");
    let [config, gone, wipe] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    let Action::Node(NodeAction::Config(apply)) = &config.action else { panic!("{config:?}") };
    assert_eq!((apply.config.expose_secret(), apply.base_version.as_str()), (CONFIG, "7"));
    assert!(config.diff.contains("-name: openebs"), "{}", config.diff);
    let Action::Node(NodeAction::AwaitGone { volume, .. }) = &gone.action else { panic!("{gone:?}") };
    assert_eq!((volume.id.as_str(), volume.mount.as_deref()), ("u-openebs", Some("/var/mnt/openebs")));
    let Action::Node(NodeAction::Wipe(wipe)) = &wipe.action else { panic!("{wipe:?}") };
    assert_eq!((wipe.partition.as_deref(), wipe.token.as_str()), (Some("u-openebs"), "OLD"));

    let kept = removed(&node, true, &cluster(), &[]).expect("its data stay");
    assert_eq!(kept.steps.len(), 2);
    assert_eq!(removed(&node, false, &cluster(), &[]).expect_err("no token").0, Kind::Refused);
}

#[test]
fn a_raw_volume_goes_as_one_with_a_file_system_does() {
    let raw = |facts: &mut Facts| {
        let label = |found: &mut Item<DiscoveredVolume>| {
            if found.spec.partition_label == "u-openebs" {
                found.spec.partition_label = "r-openebs".into();
            }
        };
        facts.discovered.iter_mut().for_each(label);
        facts.mounts.clear();
    };
    let mut facts = with_volume();
    raw(&mut facts);
    facts.volumes.iter_mut().flatten().for_each(|volume| volume.id = "r-openebs".into());
    let mut own = node("10.0.0.1", &facts);
    let text = format!("{CONFIG}{}", VOLUME.replace("UserVolumeConfig", "RawVolumeConfig"));
    own.config = Ok(Some(MachineConfig { text: text.into(), version: "7".into() }));
    let plan = removed(&own, false, &cluster(), &named("OLD")).expect("a plan");
    let [config, gone, wipe] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    let Action::Node(NodeAction::Config(apply)) = &config.action else { panic!("{config:?}") };
    assert_eq!(apply.config.expose_secret(), CONFIG);
    let Action::Node(NodeAction::AwaitGone { volume, .. }) = &gone.action else { panic!("{gone:?}") };
    assert_eq!((volume.id.as_str(), volume.mount.as_deref()), ("r-openebs", None));
    let Action::Node(NodeAction::Wipe(wipe)) = &wipe.action else { panic!("{wipe:?}") };
    assert_eq!(wipe.partition.as_deref(), Some("r-openebs"));
    let block = resident("/dev/disk/by-partlabel/r-openebs");
    assert_eq!(removed(&own, false, &block, &named("OLD")).expect_err("a claim on it").0, Kind::Refused);
    drivers_may_have_it(&own);
    let tokens = named("OLD");
    let asked = WipeRequest { volume: Some("openebs"), tokens: &tokens, ..WipeRequest::default() };
    assert_eq!(planned(&[own], asked).expect_err("it is in use").0, Kind::Refused);

    // What is left of one that no config asks for.
    facts.volumes = Some(Vec::new());
    let mut left = node("10.0.0.1", &facts);
    let old = left.disks.iter().flatten().find(|disk| disk.spec.serial == "OLD").expect("it is there");
    assert_eq!(old.holds(), "leftover raw volume openebs");
    left.config = Ok(Some(MachineConfig { text: CONFIG.into(), version: "8".into() }));
    let plan = planned(&[left], asked).expect("a plan");
    assert_eq!(wipes(&plan)[0].partition.as_deref(), Some("r-openebs"));
}

#[test]
fn an_existing_volume_is_only_let_go_of() {
    let mut node = node("10.0.0.1", &facts());
    let text = format!("{CONFIG}{}", VOLUME.replace("UserVolumeConfig", "ExistingVolumeConfig"));
    node.config = Ok(Some(MachineConfig { text: text.into(), version: "7".into() }));
    let plan = removed(&node, false, &cluster(), &[]).expect("no token is needed: nothing is wiped");
    assert!(
        plan.steps.iter().all(|step| !matches!(step.action, Action::Node(NodeAction::Wipe(_)))),
        "{:?}",
        plan.steps
    );
    let both = format!("{CONFIG}{VOLUME}{}", VOLUME.replace("UserVolumeConfig", "ExistingVolumeConfig"));
    node.config = Ok(Some(MachineConfig { text: both.into(), version: "7".into() }));
    assert_eq!(removed(&node, false, &cluster(), &named("OLD")).expect_err("which one").0, Kind::Refused);
}

#[test]
fn a_removal_that_was_cut_short_goes_on_and_one_that_is_done_has_nothing_to_do() {
    let without = MachineConfig { text: CONFIG.into(), version: "8".into() };
    let mut half = node("10.0.0.1", &facts());
    half.config = Ok(Some(without.clone()));
    let plan = removed(&half, false, &cluster(), &named("OLD")).expect("the partition is left");
    assert!(
        matches!(plan.steps[..], [nodeprep::plan::Step { action: Action::Node(NodeAction::Wipe(_)), .. }]),
        "{:?}",
        plan.steps
    );

    let mut empty = facts();
    empty.discovered.retain(|found| found.spec.partition_label != "u-openebs");
    let mut done = node("10.0.0.1", &empty);
    done.config = Ok(Some(without));
    let plan = removed(&done, false, &cluster(), &[]).expect("nothing is left");
    assert!(plan.steps.is_empty() && plan.skipped.len() == 1);
}

/// A raw volume is anybody's who takes disks: a CSI driver that is here, or that has volumes here.
fn drivers_may_have_it(node: &Node) {
    let running = |node: &str, driver: &str| Users {
        drivers: [(node.to_owned(), [driver.to_owned()].into())].into(),
        ..cluster()
    };
    let attached = |node: &str| Attached {
        node: node.into(),
        driver: "local.csi.openebs.io".into(),
        volume: "pvc-1".into(),
    };
    let csi = |terms| Claimed { paths: Vec::new(), driver: Some("topolvm.io".into()), ..claimed("", terms) };
    for (name, users, driver) in [
        ("runs here", running("n1", "zfs.csi.openebs.io"), Some("zfs.csi.openebs.io")),
        ("runs here and is not known", running("n1", "disks.example"), Some("disks.example")),
        ("runs elsewhere", running("n2", "zfs.csi.openebs.io"), None),
        ("keeps its volumes elsewhere", running("n1", "nfs.csi.k8s.io"), None),
        (
            "has a volume here",
            Users { volumes: vec![csi(terms(HOSTNAME, &["n1"]))], ..cluster() },
            Some("topolvm.io"),
        ),
        (
            "has a volume anywhere",
            Users { volumes: vec![csi(serde_json::json!([]))], ..cluster() },
            Some("topolvm.io"),
        ),
        ("has a volume elsewhere", Users { volumes: vec![csi(terms(HOSTNAME, &["n2"]))], ..cluster() }, None),
        (
            "attached here",
            Users { attached: vec![attached("n1")], ..cluster() },
            Some("local.csi.openebs.io"),
        ),
        ("attached elsewhere", Users { attached: vec![attached("n2")], ..cluster() }, None),
    ] {
        let result = removed(node, false, &users, &named("OLD"));
        assert_eq!(result.is_err(), driver.is_some(), "{name}: {result:?}");
        if let (Err((kind, what)), Some(driver)) = (result, driver) {
            assert!(
                kind == Kind::Refused && what.contains(&format!("--unused-by {driver}")),
                "{name}: {what}"
            );
            unused(node, false, &users, &named("OLD"), &named(driver)).expect(name);
        }
    }
}

#[test]
fn a_volume_with_data_of_the_cluster_stays() {
    let mut facts = with_volume();
    facts.disks[3].spec.symlinks = vec!["/dev/disk/by-id/nvme-OLD".into(), "/dev/disk/by-path/pci-3".into()];
    facts.disks[2].spec.symlinks = vec!["/dev/disk/by-id/nvme-XFS".into()];
    for volume in facts.volumes.iter_mut().flatten() {
        volume.spec.partition_uuid = "0A-1".into();
    }
    let mut node = node("10.0.0.1", &facts);
    let kubelet = "    kubelet:\n        extraMounts:\n            - {destination: /var/openebs/local, type: bind, source: /var/mnt/openebs/local}\n";
    let own = "    pods:\n        - metadata: {name: own}\n          spec: {volumes: [{name: a, hostPath: {path: /var/mnt/data}}]}\n";
    let text = format!("{CONFIG}{kubelet}{own}{VOLUME}");
    node.config = Ok(Some(MachineConfig { text: text.clone().into(), version: "7".into() }));
    let here = "/var/mnt/openebs/pvc-1";
    let at = |path: &str| resident(path);
    let with = |terms| Users { volumes: vec![claimed(here, terms)], ..cluster() };
    let pods = |pod: Mounting| Users { pods: vec![pod], ..cluster() };
    let idle = |path: &str| Mounting { is_there: false, ..pod(path, None) };
    let pool = |path: &str| Users {
        pools: vec![Pool { title: "DiskPool x/y".into(), of: vec!["n1".into()], paths: vec![path.into()] }],
        ..cluster()
    };
    let mut stranger = with(terms(HOSTNAME, &["n2"]));
    stranger.nodes.retain(|node| node.name != "n1");
    // Sure of it, possible, or none.
    for (name, users, expected) in [
        ("on no node in particular", at(here), Some("db/data-0")),
        ("the mount itself", at("/var/mnt/openebs/"), Some("db/data-0")),
        ("by a way around", at("/var/mnt/./x/..//openebs/a"), Some("db/data-0")),
        ("above the mount", at("/var/mnt"), Some("db/data-0")),
        ("through the kubelet's bind", at("/var/openebs/local/pvc-1"), Some("db/data-0")),
        ("beside the bind", at("/var/openebs/other"), None),
        ("another volume's folder", at("/var/mnt/openebs2/pvc-1"), None),
        ("its partition", at("/dev/nvme2n1p1"), Some("db/data-0")),
        ("its whole disk", at("/dev/nvme2n1/"), Some("db/data-0")),
        ("another disk", at("/dev/nvme1n1"), None),
        ("by label", at("/dev/disk/by-partlabel/u-openebs"), Some("db/data-0")),
        ("by another label", at("/dev/disk/by-partlabel/r-openebs"), None),
        ("by id", at("/dev/disk/by-id/nvme-OLD"), Some("db/data-0")),
        ("by id and part", at("/dev/disk/by-id/nvme-OLD-part1"), Some("db/data-0")),
        ("by path and another part", at("/dev/disk/by-path/pci-3-part2"), None),
        ("another disk's id", at("/dev/disk/by-id/nvme-XFS-part1"), None),
        ("by the partition's uuid", at("/dev/disk/by-partuuid/0a-1"), Some("db/data-0")),
        ("by another uuid", at("/dev/disk/by-partuuid/0a-2"), None),
        ("by a file system that nobody tells of", at("/dev/disk/by-uuid/1"), Some("--unused-by pvc-1")),
        ("by an id that no disk has", at("/dev/disk/by-id/nvme-GONE"), Some("--unused-by pvc-1")),
        ("on a stack, where there is none", at("/dev/mapper/vg-lv"), None),
        ("on this node", with(terms(HOSTNAME, &["n1"])), Some("db/data-0")),
        ("on another node", with(terms(HOSTNAME, &["n2"])), None),
        ("on another by its rack", with(terms("rack", &["n2"])), None),
        ("on a node that is gone", with(terms(HOSTNAME, &["n9"])), Some("db/data-0")),
        ("where the cluster does not know the node", stranger, Some("db/data-0")),
        ("a pod here", pods(pod(here, Some("n1"))), Some("pod x/y")),
        ("a pod that waits", pods(pod(here, None)), Some("pod x/y")),
        ("a pod elsewhere", pods(pod(here, Some("n2"))), None),
        ("a pod with all volumes", pods(pod("/var/mnt", Some("n1"))), Some("pod x/y")),
        ("a pod that looks at the node", pods(pod("/", Some("n1"))), None),
        ("a pod with the device", pods(pod("/dev/nvme2n1p1", Some("n1"))), Some("pod x/y")),
        ("a pod with all devices", pods(pod("/dev", Some("n1"))), None),
        ("a pod with no disk", pods(pod("/dev/fuse", Some("n1"))), None),
        ("what would make a pod", pods(idle(here)), Some("--unused-by 'pod x/y'")),
        ("a pool", pool("/dev/disk/by-id/nvme-OLD"), Some("DiskPool x/y")),
        ("a pool elsewhere", pool("/dev/nvme1n1"), None),
    ] {
        for keep in [false, true] {
            let result = removed(&node, keep, &users, &named("OLD"));
            assert_eq!(result.is_err(), expected.is_some(), "{name}: {result:?}");
            if let (Err((kind, what)), Some(words)) = (result, expected) {
                assert!(kind == Kind::Refused && what.contains(words), "{name}: {what}");
                let passed = unused(&node, keep, &users, &named("OLD"), &["pvc-1".into(), "pod x/y".into()]);
                assert_eq!(passed.is_ok(), words.contains("--unused-by"), "{name}: {passed:?}");
            }
        }
    }
    node.config = Ok(Some(MachineConfig {
        text: text.replace("mnt/data", "mnt/openebs/x").into(),
        version: "7".into(),
    }));
    let (kind, what) = removed(&node, true, &cluster(), &[]).expect_err("a pod of the config");
    assert!(kind == Kind::Refused && what.contains("static pod own"), "{what}");
}

#[test]
fn a_volume_that_nobody_has_is_a_mistake() {
    let nodes = [node("10.0.0.1", &with_volume())];
    remove::refuse_unknown(&nodes, "openebs").expect("it is there");
    let error = remove::refuse_unknown(&nodes, "opnebs").expect_err("a slip");
    assert_eq!((error.kind, error.hint.as_deref()), (Kind::Invalid, Some("they have: openebs")), "{error}");
    // What is left of one is one too.
    let mut left = node("10.0.0.1", &facts());
    left.config = Ok(Some(MachineConfig { text: CONFIG.into(), version: "8".into() }));
    remove::refuse_unknown(&[left], "openebs").expect("its partition is there");
}

#[test]
fn a_volume_that_is_still_mounted_is_waited_for_before_it_is_wiped() {
    let mut facts = with_volume();
    facts.volumes = Some(Vec::new());
    let mut half = node("10.0.0.1", &facts);
    half.config = Ok(Some(MachineConfig { text: CONFIG.into(), version: "8".into() }));
    let plan = removed(&half, false, &cluster(), &named("OLD")).expect("a plan");
    let [gone, wipe] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert!(
        matches!(gone.action, Action::Node(NodeAction::AwaitGone { .. }))
            && matches!(wipe.action, Action::Node(NodeAction::Wipe(_)))
    );
}

#[test]
fn what_lies_on_a_raw_volume_is_told_when_planning() {
    let mut facts = with_volume();
    let upper =
        BlockDevice { kind: "disk".into(), secondaries: vec!["nvme2n1p1".into()], ..Default::default() };
    facts.devices.push(item("dm-0", upper));
    let (kind, what) = removed(&node("10.0.0.1", &facts), false, &cluster(), &named("OLD")).expect_err("LVM");
    assert!(kind == Kind::Refused && what.contains("dm-0 lies on it"), "{what}");
    for volume in facts.volumes.iter_mut().flatten() {
        volume.spec.encryption_provider = "luks2".into();
    }
    removed(&node("10.0.0.1", &facts), false, &cluster(), &named("OLD")).expect("its own device");
}

#[test]
fn a_volume_whose_disk_holds_another_or_is_the_systems_is_not_wiped() {
    let mut beside = with_volume();
    beside.discovered.push(part("nvme2n1", 2, "u-data"));
    let at = |location: &str| VolumeStatus {
        phase: "ready".into(),
        location: location.into(),
        ..Default::default()
    };
    beside.volumes =
        Some(vec![item("u-openebs", at("/dev/nvme2n1p1")), item("u-data", at("/dev/nvme2n1p2"))]);
    let mut system = with_volume();
    system.discovered.retain(|found| found.id != "nvme2n1p1");
    system.discovered.push(part("vda", 2, "u-openebs"));
    system.volumes = Some(vec![item("u-openebs", at("/dev/vdap2"))]);
    let mut twice = facts();
    twice.discovered.push(part("nvme1n1", 1, "u-openebs"));
    for (name, facts, words) in [
        ("another volume beside it", beside, "volume u-data lies on it"),
        ("the system disk", system, "Talos is installed on it"),
        ("two disks with such a partition", twice, "more than one disk holds user volume openebs"),
    ] {
        let (kind, what) =
            removed(&node("10.0.0.1", &facts), false, &cluster(), &named("OLD")).expect_err(name);
        assert!(kind == Kind::Refused && what.contains(words), "{name}: {what}");
    }
}
