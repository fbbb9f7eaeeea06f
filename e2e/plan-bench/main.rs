//! Plans for a thousand machines with twelve disks each, from state that was observed already. Prints one line of JSON:
//! milliseconds (the middle of five), the most memory in megabytes, and how many plans there were.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints what it measured, and stops at the first surprise"
)]

use std::time::Instant;

use nodeprep::plan::{Passphrases, machine};

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/plan_node/bench.rs"]
mod bench;

const MACHINES: usize = 1000;
const DISKS: usize = 12;

fn nodes() -> Vec<nodeprep::model::node::Node> {
    let machine = |number: usize| {
        let disks: Vec<_> = (0..DISKS)
            .map(|i| {
                // The last is free; the others are a file system, a volume of somebody else, and so on.
                let holds = match i {
                    _ if i == DISKS - 1 => bench::Holds::Nothing,
                    i if i % 3 == 0 => bench::Holds::Mbr,
                    i if i % 3 == 1 => bench::Holds::Whole("xfs".into()),
                    _ => bench::partitions(&[("data", "ext4", 40 * bench::GIB), ("more", "xfs", bench::GIB)]),
                };
                bench::disk(&format!("nvme{i}n1"), &format!("S{number}-{i}"), holds)
            })
            .collect();
        let mut node = bench::Machine::new(13, &disks).node();
        node.address = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
        node
    };
    (0..MACHINES).map(machine).collect()
}

fn main() {
    let nodes = nodes();
    let listed: String = nodes.iter().map(|node| format!("  - {{address: {}}}\n", node.address)).collect();
    let intent = bench::intent(&format!(
        "nodes:\n{listed}labels: {{storage: fast}}\nvolumes:\n  - name: openebs\n    disk: {{match: largest-free-nvme}}\n    minSize: 10GiB\n"
    ));
    let mut took = Vec::new();
    let mut plans = 0;
    for _ in 0..5 {
        let begin = Instant::now();
        plans = machine::plan_all(&intent, &nodes, &Passphrases::new()).unwrap().steps.len();
        took.push(begin.elapsed().as_millis());
    }
    took.sort_unstable();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    let (ms, mb) = (took[took.len() / 2], kib / 1024);
    println!("{{\"plans\": {plans}, \"ms\": {ms}, \"mb\": {mb}}}");
}
