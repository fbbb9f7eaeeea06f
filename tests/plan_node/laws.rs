//! The laws that planning keeps, over random machines and wishes: no write reaches a disk that the plan does not name
//! by serial or WWID, nothing that a disk holds is lost, and what is planned is not planned again.

use nodeprep::intent::parse;
use nodeprep::model::disks::join;
use nodeprep::plan::disks::still;
use nodeprep::plan::{Passphrases, Plan, machine};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestCaseResult;
use secrecy::ExposeSecret;

use super::bench::{Disk, GIB, Holds, Machine, applied};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn holds() -> impl Strategy<Value = Holds> {
    let label = prop::sample::select(vec!["u-a", "u-b", "r-a", "u-other", "data", "EPHEMERAL", ""]);
    let partition = (label, prop::sample::select(vec!["xfs", "ext4", "luks", ""]), 1..40u64)
        .prop_map(|(label, format, size)| (label.to_owned(), format.to_owned(), size * GIB));
    let format = prop::sample::select(vec!["xfs", "ext4", "lvm2-pv", "zfs", "luks", "swap"]);
    prop_oneof![
        8 => Just(Holds::Nothing),
        1 => Just(Holds::Gpt(Vec::new())),
        1 => Just(Holds::Mbr),
        1 => format.prop_map(|format| Holds::Whole(format.to_owned())),
        2 => prop::collection::vec(partition, 1..3).prop_map(Holds::Gpt),
    ]
}

/// Serials and WWIDs are mostly their own; some are missing, some are there twice.
fn disks() -> impl Strategy<Value = Vec<Disk>> {
    let one = (holds(), 0..12usize, 0..12usize, 20..200u64);
    prop::collection::vec(one, 1..5).prop_map(|found| {
        let name = |kind: &str, i: usize, odd: usize| match odd {
            0 => String::new(),
            1 => format!("{kind}0"),
            _ => format!("{kind}{i}"),
        };
        let disk = |(i, (holds, serial, wwid, size)): (usize, (Holds, usize, usize, u64))| Disk {
            id: format!("nvme{i}n1"),
            serial: name("S", i, serial),
            wwid: name("W", i, wwid),
            size: size * GIB,
            holds,
            system: false,
        };
        found.into_iter().enumerate().map(disk).collect()
    })
}

fn machines() -> impl Strategy<Value = Machine> {
    (disks(), 9..15u64, 10..99u64, any::<bool>()).prop_map(|(disks, minor, ephemeral, container)| {
        let mut machine = Machine::new(minor, &disks);
        machine.container = container && minor > 12;
        if let Some(Disk { holds: Holds::Gpt(partitions), .. }) = machine.disks.last_mut() {
            partitions[2].2 = ephemeral * GIB;
        }
        machine
    })
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..4usize).prop_map(|i| format!("disk.serial == \"S{i}\"")),
        2 => (0..4usize).prop_map(|i| format!("disk.wwid == \"W{i}\"")),
        1 => prop::sample::select(vec![
            "disk.transport == \"nvme\"", "true", "!system_disk", "system_disk", "disk.size > 100u * GiB",
        ]).prop_map(str::to_owned),
    ]
}

/// One volume of a file, as its line.
fn volume(name: &'static str) -> impl Strategy<Value = String> {
    let kind = prop_oneof![
        5 => Just("partition"), 2 => Just("disk"), 1 => Just("directory"), 2 => Just("raw"), 1 => Just("existing"),
    ];
    let most = prop_oneof![
        3 => Just(String::new()),
        3 => (1..150u64).prop_map(|n| format!("{n}GiB")),
        1 => (1..100u64).prop_map(|n| format!("{n}%")),
        1 => (1..100u64).prop_map(|n| format!("-{n}GiB")),
    ];
    let label = prop::sample::select(vec!["", "data", "u-other"]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (kind, selector(), 1..120u64, most, label, flags).prop_map(
        move |(kind, selector, least, most, label, (shared, grow, secure))| {
            let mut line = format!("  - name: {name}\n    type: {kind}\n");
            let sized = matches!(kind, "partition" | "raw");
            if kind != "directory" {
                line += &format!("    disk: {{match: '{selector}', shared: {}}}\n", shared && sized);
                line = line.replace(", shared: false", "");
            }
            if sized {
                line += &format!("    minSize: {least}GiB\n");
                if !most.is_empty() {
                    line += &format!("    maxSize: {most}\n");
                }
                if grow {
                    line += "    grow: true\n";
                }
            }
            if kind == "existing" && !label.is_empty() {
                line += &format!("    partition: {label}\n");
            }
            if secure && kind != "raw" {
                line += "    mount: {secure: false}\n";
            }
            line
        },
    )
}

fn files() -> impl Strategy<Value = String> {
    let volumes = NAMES.map(|name| prop::option::weighted(0.7, volume(name)));
    volumes.prop_map(|volumes| {
        let lines: String = volumes.into_iter().flatten().collect();
        let volumes = if lines.is_empty() { String::new() } else { format!("volumes:\n{lines}") };
        format!(
            "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: lab}}\n\
             nodes: [{{address: 10.0.0.1}}]\nlabels: {{storage: fast}}\n{volumes}"
        )
    })
}

fn planned(machine: &Machine, file: &str) -> Option<Plan> {
    let intent = parse("nodeprep.yaml", file.as_bytes()).ok()?;
    machine::plan(&intent, &machine.node(), &Passphrases::new()).ok()
}

/// Plans, lets Talos act, and looks at what was written; false when there was no plan.
fn keeps_the_laws(machine: &mut Machine, file: &str, rotate: usize) -> Result<bool, TestCaseError> {
    let Some(plan) = planned(machine, file) else { return Ok(false) };
    let Some(work) = applied(&plan) else { return Ok(true) };
    let before = machine.clone();
    // The names of the disks mean nothing.
    let data = machine.disks.len() - 1;
    let ids: Vec<String> = machine.disks.iter().map(|disk| disk.id.clone()).collect();
    for (i, disk) in machine.disks.iter_mut().take(data).enumerate() {
        disk.id.clone_from(&ids[(i + rotate) % data]);
    }
    // The look right before the write, and the one of a run that was killed after it, find what the plan saw.
    let found = |machine: &Machine| {
        work.disks.iter().try_for_each(|approved| still(approved, &join(&machine.facts())))
    };
    prop_assert!(found(machine).is_ok(), "{:?}", found(machine));
    let writes = machine.apply(work.config.expose_secret());
    prop_assert!(found(machine).is_ok(), "{:?}", found(machine));
    for write in writes {
        let disk = &before.disks[write.disk];
        let named = work.disks.iter().filter(|approved| {
            approved.id.serial.as_ref().is_none_or(|serial| *serial == disk.serial)
                && approved.id.wwid.as_ref().is_none_or(|wwid| *wwid == disk.wwid)
                && approved.name == disk.id
                && !approved.adopted
        });
        prop_assert!(named.count() > 0, "law 3: {} is written and not approved", disk.id);
        prop_assert!(!write.lost, "law 4: {} held {:?}", disk.id, disk.holds);
    }
    for (before, after) in before.disks.iter().zip(&machine.disks) {
        kept(before, after)?;
    }
    for wait in &work.volumes {
        prop_assert!(machine.ready.contains(&wait.id), "{} does not come up", wait.id);
        let partition = !machine.config.contains(&format!("name: {}\nvolumeType", &wait.id[2..]));
        let there = before.disks.iter().any(|disk| disk.partitions().iter().any(|(l, ..)| *l == wait.id));
        let known = before.ready.contains(&wait.id);
        prop_assert!(known || !there || !partition, "law 4: {} of a former cluster is adopted", wait.id);
    }
    let again = planned(machine, file);
    let empty = again.as_ref().is_some_and(|plan| plan.steps.is_empty());
    prop_assert!(empty, "law 1: {again:?}");
    Ok(true)
}

/// Whatever was on a disk is there still.
fn kept(before: &Disk, after: &Disk) -> TestCaseResult {
    match &before.holds {
        Holds::Nothing => {}
        Holds::Mbr | Holds::Whole(_) => prop_assert_eq!(&before.holds, &after.holds),
        Holds::Gpt(partitions) => prop_assert!(after.partitions().starts_with(partitions)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_writes_where_it_does_not_say_or_loses_what_is_there_or_comes_back(
        machine in machines(), first in files(), second in files(), rotate in 0..5usize,
    ) {
        let mut machine = machine;
        keeps_the_laws(&mut machine, &first, rotate)?;
        keeps_the_laws(&mut machine, &second, rotate)?;
    }
}

/// The random wishes are not all refused: else the laws above would hold for nothing.
#[test]
fn many_random_wishes_are_planned() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut made = 0;
    for _ in 0..100 {
        let mut machine = machines().new_tree(&mut runner).unwrap().current();
        let file = files().new_tree(&mut runner).unwrap().current();
        machine.version.1 = 14;
        made += usize::from(keeps_the_laws(&mut machine, &file, 1).unwrap() && !machine.ready.is_empty());
    }
    assert!(made > 10, "{made} of 100");
}
