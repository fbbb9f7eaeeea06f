//! Wiping over the real wire: what is sent, and what becomes of a reply that is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nodeprep::error::{Error, Kind};
use nodeprep::event::{Event, EventKind, Events};
use nodeprep::observe::nodes::observe_all;
use nodeprep::plan::wipe::{WipeRequest, find, plan};
use nodeprep::plan::{Action, AwaitVolume, NodeAction, Plan, Step, Target};
use nodeprep::session::{Manner, Planned, Reached, Session};
use nodeprep::state::State;
use nodeprep::talos::Client;
use nodeprep::talos::client::Options;

use super::pki::{Ca, context, now};
use super::server::{Machine, Server, WipeFault};

const RECORD: &str = "I:1200450\nE:ID_SERIAL=x\nV:1\n";

/// A system disk, and a disk with two partitions, of which one is a former cluster's volume.
fn machine() -> Machine {
    let blank = [("vda", "type: disk\nname: gpt"), ("nvme0n1", "type: disk\nname: ''")];
    let part = |index: u32, label: &str| {
        format!(
            "type: partition\nparent: nvme0n1\nname: xfs\nsize: 9\npartition_label: {label}\npartition_index: {index}"
        )
    };
    let (old, other) = (part(1, "u-old"), part(2, "other"));
    let full = [
        ("vda", "type: disk\nname: gpt"),
        ("nvme0n1", "type: disk\nname: gpt"),
        ("nvme0n1p1", old.as_str()),
        ("nvme0n1p2", other.as_str()),
    ];
    let mut machine = Machine::talos("v1.11.5")
        .with("MachineStatuses.runtime.talos.dev", &[("machine", "stage: running\n")])
        .with(
            "Disks.block.talos.dev",
            &[
                ("vda", "size: 10\nserial: SYS"),
                ("nvme0n1", "size: 20\nserial: S1\nwwid: w.S1\ndev_path: /dev/nvme0n1"),
            ],
        )
        .with("SystemDisks.block.talos.dev", &[("system-disk", "diskID: vda")])
        .with("BlockDevices.block.talos.dev", &[("nvme0n1", "type: disk\nmajor: 259\nminor: 2")])
        .with("DiscoveredVolumes.block.talos.dev", &full)
        .with("VolumeStatuses.block.talos.dev", &[])
        .with("MountStatuses.block.talos.dev", &[])
        .file("/run/udev/data/b259:2", RECORD);
    let after = blank.map(|(id, spec)| (id.to_owned(), spec.to_owned())).into();
    machine.after_wipe = BTreeMap::from([("DiscoveredVolumes.block.talos.dev".to_owned(), after)]);
    machine
}

/// What became of a run: its result, what was wiped, and the events.
struct Ran {
    result: Result<(), Error>,
    wipes: Vec<String>,
    events: Vec<Event>,
}

async fn client(machine: Machine) -> Client {
    let ca = Ca::new();
    let address = Server::new(machine, &ca, &ca).listen().await.to_string();
    Client::connect(&context(&ca, &ca), &[address], &Options::default()).unwrap()
}

/// Plans on the machine as it is `before`, and carries the plan out on the one that is there `then`.
async fn run(before: Machine, then: Machine, zeroes: bool) -> Ran {
    let tokens = ["S1".to_owned()];
    let nodes = observe_all(&client(before).await, &["10.0.0.7".into()], now()).await.unwrap();
    let asked = WipeRequest { tokens: &tokens, zeroes, ..WipeRequest::default() };
    let plan = plan(find(&nodes, asked).unwrap(), &tokens).unwrap();
    carried_out(plan, then).await
}

async fn carried_out(plan: Plan, machine: Machine) -> Ran {
    let wipes = machine.wipes.clone();
    let talos = Some(client(machine).await);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let events = Events::new(String::new, move |event| sink.lock().unwrap().push(event));
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), "test").unwrap();
    let (_stop, interrupted) = tokio::sync::watch::channel(false);
    let session = Session::open("wipe", "test", state, events, interrupted).unwrap();
    let planned = RefCell::new(Some(Planned::new(plan, talos, Reached::None, Vec::new())));
    let make = async |_| Ok(planned.take().unwrap());
    let result = session.carry_out(&Manner::default(), make, async |_| Ok(false)).await;
    let wipes = wipes.lock().unwrap().clone();
    let events = seen.lock().unwrap().clone();
    Ran { result, wipes, events }
}

fn changed(ran: &Ran) -> Vec<bool> {
    let done = ran.events.iter().filter_map(|event| match event.what {
        EventKind::StepDone { changed } => Some(changed),
        _ => None,
    });
    done.collect()
}

#[tokio::test]
async fn partitions_go_before_their_table_and_the_nodes_own_checks_are_kept() {
    let ran = run(machine(), machine(), false).await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.wipes, ["nvme0n1p1-drop nvme0n1p2-drop nvme0n1"]);
    assert_eq!(changed(&ran), [true]);
    let ran = run(machine(), machine(), true).await;
    assert_eq!(ran.wipes, ["nvme0n1p1-drop-zeroes nvme0n1p2-drop-zeroes nvme0n1-zeroes"]);
}

#[tokio::test]
async fn a_lost_reply_is_settled_by_looking() {
    let with = |wipe_fault| Machine { wipe_fault, ..machine() };
    let ran = run(machine(), with(WipeFault::LostAfter), false).await;
    ran.result.as_ref().unwrap();
    assert_eq!((ran.wipes.len(), changed(&ran)), (1, vec![true]), "it was done, and is not done again");

    let ran = run(machine(), with(WipeFault::LostBefore), false).await;
    let error = ran.result.unwrap_err();
    assert_eq!((error.kind, ran.wipes.len()), (Kind::Unavailable, 0), "{error}");
    assert!(error.hint.unwrap().contains("nothing was wiped"));

    let error = run(machine(), with(WipeFault::LostAfter), true).await.result.unwrap_err();
    assert!(error.hint.unwrap().contains("can't be seen"), "whether every byte is zero does not show");
}

#[tokio::test]
async fn a_partition_that_the_kernel_does_not_let_go_of_is_looked_at_and_wiped_again() {
    let with = |wipe_fault| Machine { wipe_fault, ..machine() };
    for (fault, wipes) in [(WipeFault::BusyOnce, 1), (WipeFault::BusyAfter, 1)] {
        let ran = run(machine(), with(fault), false).await;
        ran.result.as_ref().unwrap();
        assert_eq!((ran.wipes.len(), changed(&ran)), (wipes, vec![true]));
    }
}

/// Three looks, which are seconds apart, and then the write; the node here goes on showing it.
#[tokio::test]
async fn a_partition_that_only_the_kernel_still_shows_has_the_table_written_anew_of_a_disk_that_goes_as_a_whole_alone()
 {
    let discovered = "DiscoveredVolumes.block.talos.dev";
    let part = "type: partition\nparent: nvme0n1\nsize: 9\npartition_index: 1\n";
    let (old, ghost) = (format!("{part}name: xfs\npartition_label: u-old"), format!("{part}name: ''"));
    let other = format!("{part}name: ext4");
    let shown =
        |part: &str| machine().with(discovered, &[("nvme0n1", "type: disk\nname: gpt"), ("nvme0n1p1", part)]);
    let whole = "nvme0n1p1-drop nvme0n1";
    let cases = [
        ("a partition", Some("old"), &ghost, &["nvme0n1p1-drop"][..]),
        ("the disk", None, &ghost, &[whole, "nvme0n1"]),
        ("the disk, on which somebody made another since", None, &other, &[whole]),
    ];
    let tried = cases.map(async |(name, volume, after, wiped)| {
        let after = shown(after).resources[discovered].clone();
        let with = || Machine {
            after_wipe: BTreeMap::from([(discovered.to_owned(), after.clone())]),
            ..shown(&old)
        };
        let tokens = ["S1".to_owned()];
        let nodes = observe_all(&client(with()).await, &["10.0.0.7".into()], now()).await.unwrap();
        let asked = WipeRequest { volume, tokens: &tokens, ..WipeRequest::default() };
        let plan = plan(find(&nodes, asked).unwrap(), &tokens).unwrap();
        let then = with();
        let wipes = then.wipes.clone();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(11), carried_out(plan, then)).await;
        assert!(ended.is_err(), "{name}: it waits on");
        assert_eq!(wipes.lock().unwrap()[..], *wiped, "{name}");
    });
    futures::future::join_all(tried).await;
}

#[tokio::test]
async fn a_disk_that_was_not_looked_at_yet_is_not_taken_for_wiped() {
    let unseen = machine().with("DiscoveredVolumes.block.talos.dev", &[("vda", "type: disk\nname: gpt")]);
    let tokens = ["S1".to_owned()];
    let nodes = observe_all(&client(machine()).await, &["10.0.0.7".into()], now()).await.unwrap();
    let asked = WipeRequest { volume: Some("old"), tokens: &tokens, ..WipeRequest::default() };
    let plan = plan(find(&nodes, asked).unwrap(), &tokens).unwrap();
    let wipes = unseen.wipes.clone();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(4), carried_out(plan, unseen)).await;
    assert!(ended.is_err(), "it waits: {:?}", ended.map(|ran| ran.result));
    assert!(wipes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_node_refuses_is_refused_in_its_words() {
    let text = "blockdevice \"nvme0n1\" is in use by volume \"u-openebs\"";
    let ran = run(machine(), Machine { wipe_fault: WipeFault::Refuses(text), ..machine() }, false).await;
    let error = ran.result.unwrap_err();
    assert!(error.kind == Kind::Refused && error.what.contains(text), "{error}");
}

#[tokio::test]
async fn a_disk_that_is_not_what_the_plan_saw_is_not_touched() {
    let swapped = machine().with(
        "Disks.block.talos.dev",
        &[
            ("vda", "size: 10\nserial: SYS"),
            ("nvme0n1", "size: 20\nserial: S2\nwwid: w.S2\ndev_path: /dev/nvme0n1"),
        ],
    );
    let written = machine().with(
        "DiscoveredVolumes.block.talos.dev",
        &[("vda", "type: disk"), ("nvme0n1", "type: disk\nname: ext4")],
    );
    let used = machine()
        .with("VolumeStatuses.block.talos.dev", &[("u-old", "phase: ready\nlocation: /dev/nvme0n1p1")]);
    for (name, then) in
        [("another disk has its name", swapped), ("written meanwhile", written), ("in use", used)]
    {
        let ran = run(machine(), then, false).await;
        assert_eq!(ran.result.unwrap_err().kind, Kind::Refused, "{name}");
        assert!(ran.wipes.is_empty(), "{name}: {:?}", ran.wipes);
    }
    let mut blank = machine();
    blank.resources.extend(blank.after_wipe.clone());
    let ran = run(machine(), blank, false).await;
    ran.result.as_ref().unwrap();
    assert_eq!(
        (ran.wipes.len(), changed(&ran)),
        (0, vec![false]),
        "wiped before: a run that was killed goes on"
    );
}

#[tokio::test]
async fn a_volume_is_gone_when_neither_its_status_nor_its_mount_is_left() {
    let volume = AwaitVolume { id: "u-old".into(), mount: Some("/var/mnt/old".into()), secure: None };
    let plan = || {
        let action =
            Action::Node(NodeAction::AwaitGone { address: "10.0.0.7".into(), volume: volume.clone() });
        let step = Step::new("gone", Target::node("10.0.0.7"), "gone", action);
        Plan { steps: vec![step], ..Plan::default() }
    };
    carried_out(plan(), machine()).await.result.unwrap();
    for (kind, spec) in [
        ("VolumeStatuses.block.talos.dev", "phase: ready"),
        ("MountStatuses.block.talos.dev", "source: ''\ntarget: /var/mnt/old"),
    ] {
        let there = carried_out(plan(), machine().with(kind, &[("u-old", spec)]));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(2), there).await;
        assert!(waited.is_err(), "{kind}: it waits");
    }
}
