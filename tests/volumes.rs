//! What the sandbox says of volumes, beside what a real Talos v1.14.1 said of them in the lab (`talosctl get -o yaml`), without
//! what is another one each time, and without where a volume is that failed there. `golden/volumes` holds what was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use nodeprep_sandbox::scenario::Scenario;
use serde_json::Value;

use crate::fleet::{Session, paused};

const DISKS: &str = "{name: vda, size: 12GiB, serial: SYS0001, holds: talos}, {name: nvme0n1, size: 5GiB, serial: NVME-AAA0001}, \
                     {name: nvme1n1, size: 5GiB, serial: NVME-BBB0001}, {name: nvme2n1, size: 5GiB, serial: NVME-CCC0001, holds: xfs}";

/// By type and id.
type Specs = BTreeMap<(String, String), Value>;

fn recorded() -> Specs {
    let all: Vec<Value> = serde_json::from_str(include_str!("golden/volumes/v1.14.1.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.into_iter().map(|one| ((text(&one["type"]), text(&one["id"])), one["spec"].clone())).collect()
}

/// What the machine says of what it has once it is asked for these documents too.
async fn asked_for(session: &Session, documents: &str) -> Specs {
    session.fleet.act(|world, _| {
        let machine = world.machine("10.5.0.2").unwrap().0;
        machine.active = Some(format!("{}---\n{documents}", machine.active.take().unwrap()));
        machine.dirty = true;
    });
    tokio::time::sleep(Duration::from_secs(120)).await;
    let published = session.fleet.act(|world, _| world.machine("10.5.0.2").unwrap().0.published.clone());
    let lists = ["VolumeStatuses.block.talos.dev", "MountStatuses.block.talos.dev"];
    let all = lists.into_iter().flat_map(|list| published.of(list).map(move |(id, found)| (list, id, found)));
    all.map(|(list, id, found)| ((list.to_owned(), id.clone()), found.spec.clone())).collect()
}

#[test]
fn every_kind_of_volume_is_told_of_as_a_real_talos_did() {
    paused(async {
        let text = format!("machines: [{{version: v1.14.1, disks: [{DISKS}]}}]");
        let session = Session::start(&Scenario::parse("s.yaml", &text).unwrap()).await;
        let good = asked_for(&session, include_str!("golden/volumes/asked.yaml")).await;
        let all = asked_for(&session, include_str!("golden/volumes/asked-in-vain.yaml")).await;
        let recorded = recorded();
        assert_eq!(recorded.len(), 18);
        for (key, spec) in recorded {
            let said = if key.0.starts_with("Mount") { &good } else { &all };
            assert_eq!(said.get(&key), Some(&spec), "{key:?}");
        }
    });
}
