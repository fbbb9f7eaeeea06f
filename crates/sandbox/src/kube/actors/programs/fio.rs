//! fio's random writes, as far as they can be told from the disk's speed: its report in JSON, and its errors.

use serde_json::{Map, Value, json};

use super::shell::{Data, Fault, Said, Shell};
use crate::host::Speed;
use crate::kube::actors::objects::{digest, hash};

/// Bytes of one write.
const BLOCK: f64 = 4096.0;
/// Percentiles, and how many standard deviations from the middle they lie.
const PERCENTILES: [(&str, f64); 17] = [
    ("1.000000", -2.326),
    ("5.000000", -1.645),
    ("10.000000", -1.282),
    ("20.000000", -0.842),
    ("30.000000", -0.524),
    ("40.000000", -0.253),
    ("50.000000", 0.0),
    ("60.000000", 0.253),
    ("70.000000", 0.524),
    ("80.000000", 0.842),
    ("90.000000", 1.282),
    ("95.000000", 1.645),
    ("99.000000", NINETY_NINTH),
    ("99.500000", 2.576),
    ("99.900000", 3.090),
    ("99.950000", 3.291),
    ("99.990000", 3.719),
];
const NINETY_NINTH: f64 = 2.326;

/// Runs it and returns its status.
pub(super) fn run(shell: &mut Shell<'_>, options: &[&str], said: &mut Said) -> i32 {
    let options: Map<String, Value> = options
        .iter()
        .filter_map(|option| option.strip_prefix("--"))
        .map(|option| option.split_once('=').unwrap_or((option, "1")))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let option = |name: &str| options.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (path, size) = (option("filename"), option("size").parse().unwrap_or(0));
    let seconds: u32 = option("runtime").parse().unwrap_or(0);
    let data = Data::Other { size, sha256: digest(&format!("fio of {}", shell.run.uid)) };
    let (error, words) = match shell.write(&path, data) {
        Ok(()) => (0, String::new()),
        Err(Fault::NoSpace(written)) => (
            28,
            format!(
                "fio: io_u error on file {path}: No space left on device: write offset={written}, buflen=4096\n\
                 fio: pid=12, err=28/file:io_u.c:1889, func=io_u error, error=No space left on device"
            ),
        ),
        Err(Fault::ReadOnly) => (
            30,
            "fio: pid=0, err=30/file:filesetup.c:155, func=unlink, error=Read-only file system".to_owned(),
        ),
        Err(Fault::NoDirectory) => (
            2,
            "fio: pid=0, err=2/file:filesetup.c:175, func=open, error=No such file or directory".to_owned(),
        ),
    };
    if error != 0 {
        said.wrong(&words, error);
    }
    let speed = shell.system(&path).map(|system| system.speed).filter(|_| error == 0);
    let written = speed.map_or_else(|| idle(0), |speed| written(wobbled(speed, shell.run.uid), seconds));
    let report = report(&options, error, seconds, &written);
    said.line(&serde_json::to_string_pretty(&report).unwrap_or_default(), i32::from(error != 0))
}

/// No two disks are quite the same: up to three percent more or less, always the same for the same pod.
fn wobbled(speed: Speed, uid: &str) -> Speed {
    let [a, b, c, ..] = hash(uid);
    let part = |byte: u8| 1.0 + (f64::from(byte) - 127.5) / 127.5 * 0.03;
    Speed { iops: speed.iops * part(a), p50: speed.p50 * part(b), p99: speed.p99 * part(c) }
}

/// What was done in the time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of a disk, far from the limits"
)]
fn written(speed: Speed, seconds: u32) -> Value {
    let time = f64::from(seconds.max(1));
    let (middle, late) = (speed.p50.max(0.001), speed.p99.max(speed.p50).max(0.001));
    let latency = |deviations: f64| middle * (late / middle).powf(deviations / NINETY_NINTH) * 1000.0;
    let percentile: Map<String, Value> =
        PERCENTILES.iter().map(|(name, at)| ((*name).to_owned(), json!(latency(*at) as u64))).collect();
    let number = (speed.iops * time) as u64;
    let times = |share: f64| {
        json!({
            "min": (latency(-3.719) * share) as u64, "max": (latency(4.265) * share) as u64,
            "mean": latency(0.3) * share, "stddev": (latency(1.0) - latency(0.0)) * share, "N": number,
        })
    };
    let mut done = idle(seconds.max(1).saturating_mul(1000));
    let mut clat = times(0.98);
    clat["percentile"] = Value::Object(percentile);
    let news = json!({
        "io_bytes": (speed.iops * time * BLOCK) as u64, "io_kbytes": (speed.iops * time * 4.0) as u64,
        "bw_bytes": (speed.iops * BLOCK) as u64, "bw": (speed.iops * 4.0) as u64, "iops": speed.iops,
        "total_ios": number, "slat_ns": times(0.02), "clat_ns": clat, "lat_ns": times(1.0),
    });
    json_patch::merge(&mut done, &news);
    done
}

/// Of a direction in which nothing was done.
fn idle(runtime: u32) -> Value {
    let none = json!({"min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0});
    json!({
        "io_bytes": 0, "io_kbytes": 0, "bw_bytes": 0, "bw": 0, "iops": 0.0, "runtime": runtime, "total_ios": 0,
        "short_ios": 0, "drop_ios": 0, "slat_ns": none, "clat_ns": none, "lat_ns": none,
    })
}

fn report(options: &Map<String, Value>, error: i32, seconds: u32, written: &Value) -> Value {
    json!({
        "fio version": "fio-3.38-simulated",
        "jobs": [{
            "jobname": options.get("name"), "groupid": 0, "error": error, "eta": 0, "elapsed": seconds.saturating_add(1),
            "job options": options, "read": idle(0), "write": written, "trim": idle(0),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::super::shell;
    use super::*;
    use crate::host::{Directory, FileSystem, Host, Place};
    use crate::kube::actors::programs::{Mount, Run};

    const WORK: &str = "free=$(df -Pk /data | tail -n 1 | tr -s ' ' | cut -d' ' -f4)\n\
        if [ \"$free\" -lt 1048576 ]; then echo \"too-full $free\"; exit 0; fi\n\
        fio --name=all --filename=/data/fio --rw=randwrite --ioengine=libaio --iodepth=32 --bs=4k --direct=1 \
        --time_based --runtime=30 --size=536870912 --end_fsync=1 --randrepeat=0 --refill_buffers --output-format=json\n";

    /// What is said with so many bytes free, and the status.
    fn said(work: &str, free: u64, read_only: bool, uid: &str) -> (String, i32) {
        let disk = FileSystem {
            size: free,
            directories: [("/pvc-1".to_owned(), Directory::default())].into(),
            ..FileSystem::default()
        };
        let mut host = Host::default();
        host.mounts.insert("/disk".into(), disk);
        let place = Place { mount: "/disk".into(), root: "/pvc-1".into(), read_only };
        shell::run(
            work,
            &mut host,
            &[Mount { point: "/data".into(), place, scratch: false }],
            Run { uid, now: 0 },
        )
    }

    fn report_in(text: &str) -> Value {
        serde_json::from_str(&text[text.find('{').unwrap_or(0)..]).unwrap_or_default()
    }

    #[test]
    fn the_report_tells_the_disks_speed() {
        let (text, status) = said(WORK, 4 << 30, false, "u1");
        let report = report_in(&text);
        let job = &report["jobs"][0];
        assert_eq!(
            (status, &job["error"], &report["fio version"]),
            (0, &json!(0), &json!("fio-3.38-simulated"))
        );
        let number = |pointer: &str| job.pointer(pointer).and_then(Value::as_f64).unwrap_or(-1.0);
        for (pointer, wanted) in [
            ("/write/iops", 182_000.0),
            ("/write/bw_bytes", 182_000.0 * 4096.0),
            ("/write/total_ios", 182_000.0 * 30.0),
            ("/write/clat_ns/percentile/50.000000", 160_000.0),
            ("/write/clat_ns/percentile/99.000000", 420_000.0),
        ] {
            let found = number(pointer);
            assert!((found / wanted - 1.0).abs() < 0.031, "{pointer}: {found}");
        }
        assert_eq!(job["job options"]["iodepth"], "32");
        assert_eq!(said(WORK, 4 << 30, false, "u1").0, text);
        assert_ne!(said(WORK, 4 << 30, false, "u2").0, text);
    }

    #[test]
    fn it_fails_as_fio_fails() {
        let fio = WORK.lines().last().unwrap_or_default();
        for (case, work, free, read_only, status, error, words) in [
            ("too full to try", WORK, 1000 << 20, false, 0, json!(null), "too-full 1024000\n"),
            ("full", fio, 1 << 20, false, 1, json!(28), "No space left on device: write offset=1048576"),
            ("read-only", fio, 4 << 30, true, 1, json!(30), "err=30/file:filesetup.c"),
        ] {
            let (text, ended) = said(work, free, read_only, "u1");
            assert!(text.contains(words) && ended == status, "{case}: {text} {ended}");
            assert_eq!(report_in(&text)["jobs"][0]["error"], error, "{case}");
        }
    }
}
