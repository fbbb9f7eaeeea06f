//! Volume locators: the CEL expressions by which Talos finds an existing volume (siderolabs/talos, celenv.VolumeLocator).

use cel::{Context, Program, Value as Cel};
use serde_json::{Value, json};

use super::disks::Disk;
use crate::model::disks::deep;

/// Longer ones are refused: reading is recursive.
const MOST_BYTES: usize = 4096;

/// Takes an expression, or says in Talos' words why not.
pub(super) fn check(expression: &str) -> Result<(), String> {
    if expression.is_empty() {
        return Err("volume selector is required".to_owned());
    }
    deep(|| read(expression).map(drop)).map_err(|error| error.what)?
}

/// The kernel's name of the device that an expression matches, the first by its name, and what Talos recognises there.
pub(super) fn find(expression: &str, disks: &[Disk]) -> Result<Option<(String, String)>, String> {
    deep(|| first(expression, disks)).map_err(|error| error.what)?
}

fn first(expression: &str, disks: &[Disk]) -> Result<Option<(String, String)>, String> {
    let program = read(expression)?;
    let of =
        |disk: &Disk| disk.discovered().into_iter().map(|(id, volume)| (id, volume, disk.spec())).collect();
    let mut all: Vec<(String, Value, Value)> = disks.iter().flat_map::<Vec<_>, _>(of).collect();
    all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    for (id, volume, disk) in all {
        let format = volume["name"].as_str().unwrap_or_default().to_owned();
        let mut context = Context::default();
        for (name, value) in [("volume", filled(&VOLUME, volume)), ("disk", filled(&DISK, disk))] {
            context.add_variable(name, value).map_err(|error| error.to_string())?;
        }
        match program.execute(&context) {
            Ok(Cel::Bool(true)) => return Ok(Some((id, format))),
            Ok(_) => {}
            Err(error) => return Err(format!("error evaluating volume locator: {error}")),
        }
    }
    Ok(None)
}

fn read(expression: &str) -> Result<Program, String> {
    let invalid = |why: String| format!("volume selector is invalid: {why}");
    if expression.len() > MOST_BYTES {
        return Err(invalid("too long".to_owned()));
    }
    Program::compile(expression).map_err(|error| invalid(error.to_string()))
}

const VOLUME: [&str; 8] = [
    "name",
    "label",
    "uuid",
    "partition_label",
    "partition_uuid",
    "partition_type",
    "parent",
    "parent_dev_path",
];
const DISK: [&str; 6] = ["model", "serial", "wwid", "uuid", "modalias", "transport"];

/// A message whose texts are empty where nothing is said.
fn filled(texts: &[&str], mut message: Value) -> Value {
    for text in texts {
        if message[text].is_null() {
            message[text] = json!("");
        }
    }
    message
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::disks::{Contents, Partition};
    use super::*;

    #[test]
    fn the_first_volume_that_matches_is_taken() {
        let part =
            |label: &str, format: &str| Partition { label: label.into(), format: format.into(), size: 1 };
        let gpt = Contents::Gpt(BTreeMap::from([(1, part("a", "xfs")), (2, part("b", ""))]));
        let disk = |name: &str, serial: &str, contents| Disk {
            name: name.into(),
            serial: serial.into(),
            size: 1 << 40,
            contents,
            ..Disk::default()
        };
        let disks = [disk("nvme0n1", "A", gpt), disk("nvme1n1", "", Contents::Whole("xfs".into()))];
        for (expression, found) in [
            ("volume.partition_label == 'b'", Some(("nvme0n1p2", ""))),
            ("volume.name == 'xfs'", Some(("nvme0n1p1", "xfs"))),
            ("volume.name == 'xfs' && disk.serial == ''", Some(("nvme1n1", "xfs"))),
            ("volume.size > 1u && disk.serial == 'A'", Some(("nvme0n1", "gpt"))),
            ("volume.label == 'x'", None),
        ] {
            let found = found.map(|(device, format)| (device.to_owned(), format.to_owned()));
            assert_eq!(find(expression, &disks), Ok(found), "{expression}");
        }
        for (expression, word) in
            [("", "required"), ("volume.name ==", "invalid"), (&"(".repeat(5000), "too long")]
        {
            assert!(check(expression).unwrap_err().contains(word), "{expression}");
        }
        assert!(find("volume.nothing == 'x'", &disks).unwrap_err().contains("evaluating"));
    }
}
