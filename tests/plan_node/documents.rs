//! What each Talos is given, and what of a volume that exists may change.

use nodeprep::intent::Passphrase;
use nodeprep::plan::{Passphrases, machine};
use nodeprep::report;
use secrecy::SecretString;

use super::bench::{GIB, Holds, Machine, applied, disk, intent, partitions};

const VOLUME: &str = r#"name: openebs, disk: {match: disk.serial == "A"}, minSize: 10GiB"#;

fn file(volume: &str, more: &str) -> String {
    format!("volumes:\n  - {{{volume}{}{more}}}\n", if more.is_empty() { "" } else { ", " })
}

fn blank(minor: u64) -> Machine {
    Machine::new(minor, &[disk("nvme0n1", "A", Holds::Nothing)])
}

/// The release of Talos that the README's tables give for something.
fn since(what: &str) -> u64 {
    let rows =
        include_str!("../../README.md").lines().filter(|row| row.starts_with('|') && row.contains(what));
    let releases: Vec<&str> = rows.filter_map(|row| row.rsplit("| 1.").next()?.strip_suffix(" |")).collect();
    releases.iter().find_map(|release| release.parse().ok()).unwrap_or_else(|| panic!("{what}: {releases:?}"))
}

#[test]
fn what_a_talos_does_not_know_is_refused_with_the_release_that_the_readme_names() {
    let with = |more: &str| file(VOLUME, more);
    let disk = r#"name: a, disk: {match: disk.serial == "A"}"#;
    for (wish, row) in [
        (with(""), "`minSize`"),
        (with("filesystem: {projectQuota: true}"), "`filesystem.projectQuota`"),
        (with("type: raw"), "| `raw`"),
        (with("maxSize: 80%"), "`maxSize` in percent"),
        (file(disk, "type: disk"), "| `disk`"),
        (file("name: a, type: directory", ""), "| `directory`"),
        (with("maxSize: -10GiB"), "`maxSize` below zero"),
        (with("mount: {secure: false}"), "below zero (all but so much), `mount.secure`"),
        (with("mount: {disableAccessTime: true}"), "`mount.disableAccessTime`"),
        (file("name: a, type: directory", "mount: {secure: false}"), "`mount.secure` of a directory"),
        (with("trim: 168h"), "`trim`"),
        (with("scrub: 720h"), "`scrub`"),
    ] {
        let first = since(row);
        let refusal = blank(first - 1).refuses(&wish);
        assert!(refusal.contains(&format!("upgrade to Talos 1.{first} or later")), "{wish}: {refusal}");
        assert_eq!(blank(first).plan(&wish).unwrap().changes(), 1, "{wish}");
    }
}

#[test]
fn a_talos_that_names_volumes_by_device_is_read_and_never_written_to() {
    for minor in [8, 9] {
        for wish in [file(VOLUME, ""), "labels: {storage: fast}\n".to_owned()] {
            let refusal = blank(minor).refuses(&wish);
            assert!(refusal.contains("has no user volumes") && refusal.contains("1.10"), "{refusal}");
        }
    }
    let mut labelled = blank(9);
    labelled.apply(&blank(10).config_of("labels: {storage: fast}\n"));
    assert!(labelled.is_done("labels: {storage: fast}\n"), "what is there is adopted");
}

#[test]
fn mounts_without_programs_are_said_from_talos_1_14_on_by_the_facts() {
    let why = |minor, patch, more: &str| {
        let mut machine = blank(minor);
        machine.version.2 = patch;
        machine.plan(&file(VOLUME, more)).unwrap().steps.remove(0).why
    };
    assert!(why(14, 0, "").contains("noexec"));
    assert_eq!(why(14, 0, "mount: {secure: false}"), "");
    assert_eq!(why(14, 0, "type: raw"), "");
    assert_eq!(why(13, 3, ""), "");
    assert!(why(13, 2, "").contains("kubelet"));
}

#[test]
fn what_can_change_without_making_a_volume_anew_is_changed_and_the_rest_is_refused() {
    let mut machine = blank(14);
    let first = file(VOLUME, "maxSize: 20GiB");
    machine.apply(&machine.config_of(&first));
    assert!(machine.is_done(&first));
    for (more, lines) in [
        ("maxSize: 20GiB, mount: {secure: false}", "secure: false"),
        ("maxSize: 20GiB, trim: 168h", "interval: 168h0m0s"),
        ("maxSize: 20GiB, grow: true", "grow: true"),
        ("maxSize: 30GiB, grow: true", "maxSize: 30GiB"),
    ] {
        let mut machine = machine.clone();
        let config = machine.config_of(&file(VOLUME, more));
        assert!(config.contains(lines), "{more}: {config}");
        assert!(machine.apply(&config).is_empty());
        assert!(machine.is_done(&file(VOLUME, more)), "{more}");
    }
    for (wish, words) in [
        (file(VOLUME, "maxSize: 30GiB"), "maxSize 20GiB, the file says 30GiB"),
        (file(VOLUME, ""), "maxSize 20GiB, the file says not set"),
        (file(VOLUME, "maxSize: 20GiB, filesystem: {type: ext4}"), "filesystem.type xfs"),
        (file(VOLUME, "maxSize: 20GiB, filesystem: {projectQuota: true}"), "projectQuotaSupport"),
        (file(VOLUME, "maxSize: 20GiB, encryption: {keys: [tpm]}"), "other encryption"),
        (file(VOLUME, "maxSize: 20GiB, type: raw"), "UserVolumeConfig in the machine config"),
        (file("name: openebs, type: directory", ""), "volumeType partition"),
    ] {
        let refusal = machine.refuses(&wish);
        assert!(refusal.contains(words), "{wish}: {refusal}");
    }
}

#[test]
fn a_document_that_people_wrote_is_left_as_it_is() {
    let mut machine = blank(11);
    machine.disks[0].holds = partitions(&[("u-openebs", "xfs", 99 * GIB)]);
    machine.ready.push("u-openebs".into());
    machine.config.push_str(
        "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: openebs # ours\nprovisioning:\n  minSize: \"10737418240\"\n  \
         grow: true\n  diskSelector: {match: '!system_disk'}\n",
    );
    assert!(machine.is_done(&file(VOLUME, "")));
}

#[test]
fn a_passphrase_is_in_the_config_and_in_nothing_that_is_shown() {
    let text = file(VOLUME, "encryption: {keys: [{static: {file: keys.sops.yaml, key: openebs}}]}");
    let plan = |machine: &Machine, passphrase: &str| {
        let from = Passphrase { file: "keys.sops.yaml".into(), key: "openebs".into() };
        let passphrases: Passphrases = [(from, SecretString::from(passphrase))].into();
        machine::plan(&intent(&text), &machine.node(), &passphrases)
    };
    for passphrase in ["hunter2 hunter2", "- [ \"x'\\ #: {hunter2", "hünter2\nhunter2: |\n"] {
        let mut machine = blank(11);
        let planned = plan(&machine, passphrase).unwrap();
        let config = secrecy::ExposeSecret::expose_secret(&applied(&planned).unwrap().config).to_owned();
        let documents: Vec<serde_json::Value> = serde_yaml::from_multiple(&config).unwrap();
        assert_eq!(documents[1]["encryption"]["keys"][0]["static"]["passphrase"], passphrase);
        let shown =
            format!("{planned:?}{}{}", report::plan_text(&planned, true), report::plan_json("lab", &planned));
        assert!(shown.contains("passphrase") && !shown.contains("unter2"), "{shown}");
        machine.apply(&config);
        assert!(plan(&machine, passphrase).unwrap().steps.is_empty());
        let refusal = plan(&machine, "hunter3").unwrap_err();
        assert!(refusal.what.contains("other encryption") && !refusal.what.contains("unter"), "{refusal}");
    }
}

#[test]
fn a_container_gets_directories_and_is_told_what_they_are_not() {
    let mut machine = blank(12);
    machine.container = true;
    let wish = file(VOLUME, "filesystem: {projectQuota: true}");
    let plan = machine.plan(&wish).unwrap();
    assert!(plan.warnings[0].contains("is a directory"), "{:?}", plan.warnings);
    let config = machine.config_of(&wish);
    assert!(config.ends_with("kind: UserVolumeConfig\nname: openebs\nvolumeType: directory\n"), "{config}");
    machine.apply(&config);
    assert!(machine.is_done(&wish));
    for more in ["type: raw", "encryption: {keys: [nodeID]}"] {
        assert!(machine.refuses(&file(VOLUME, more)).contains("in a container"), "{more}");
    }
    machine.version.1 = 11;
    assert!(machine.refuses(&wish).contains("Talos 1.12 or later"));
}

#[test]
fn the_ephemeral_partition_is_not_capped_once_it_is_made() {
    let mut machine = blank(11);
    let cap = "ephemeral: {maxSize: 50GiB}\n";
    assert!(machine.refuses(cap).contains("made already, with 90.0GiB"));
    let made = std::mem::replace(&mut machine.disks[1].holds, Holds::Nothing);
    machine.apply(&machine.config_of(cap));
    machine.disks[1].holds = made;
    assert!(machine.is_done(cap), "the config says so since before the first boot");
    assert!(machine.refuses("ephemeral: {maxSize: 60GiB}\n").contains("made already"));
    assert!(machine.refuses("ephemeral: {maxSize: 50%}\n").contains("in bytes"));
}
