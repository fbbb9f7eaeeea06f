//! The disk's own speed, measured by fio through a claim: random 4k writes, direct, queue depth 32.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::probe::Watch;
use super::{Check, Per, Run, Stop, Subject};
use crate::error::Error;
use crate::event::{Measurement, Unit, Verdict};
use crate::intent::{Fio, Size};
use crate::model::frame::Output;

pub(super) const CHECK: Check = Check {
    id: "fio",
    title: "fio writes at the disk's own speed",
    per: Per::Node,
    needs: &["pvc"],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

const MIB: u64 = 1 << 20;

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let (class, validation) = (subject.class()?, &run.ctx.intent.validation);
    let claim = run.scratch.name("fio");
    let work = work(&validation.fio);
    let image = &run.ctx.intent.images.fio;
    let probe = subject.probe(&claim, image, &work)?;
    run.scratch.claim(&claim, &class.name, claim_size(validation.claim_size, validation.fio.size)).await?;
    let seconds = validation.fio.runtime.0 + validation.timeout.0;
    run.scratch.make(probe.job(seconds)?).await?;
    let watch = Watch { run, subject, claim: &claim, pod: &claim };
    let finished = watch.finished_within(validation.fio.runtime.std()).await?;
    verdict(&finished.output, &validation.fio, class.place())
}

/// A claim that holds fio's file and the file system's own needs.
fn claim_size(wanted: Size, file: Size) -> Size {
    Size(wanted.0.max((file.0 + file.0 / 8).next_multiple_of(MIB)))
}

/// Looks for room first, so that the file can't fill a disk that others use, then measures.
fn work(fio: &Fio) -> String {
    let (size, runtime) = (fio.size.0, fio.runtime.0);
    let needed = (size / 1024).saturating_mul(2);
    format!(
        "free=$(df -Pk /data | tail -n 1 | tr -s ' ' | cut -d' ' -f4)\n\
         if [ \"$free\" -lt {needed} ]; then echo \"{TOO_FULL}$free\"; exit 0; fi\n\
         fio --name=nodeprep --filename=/data/fio --rw=randwrite --ioengine=libaio --iodepth=32 --bs=4k \
         --direct=1 --time_based --runtime={runtime} --size={size} --end_fsync=1 --randrepeat=0 \
         --refill_buffers --output-format=json\n"
    )
}

/// What the probe says, with the free KiB, when the disk has no room to measure.
const TOO_FULL: &str = "nodeprep-too-full ";

/// The part of fio's JSON that is judged (fio 3.x, HOWTO "Interpreting the output").
#[derive(Debug, Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    /// An errno, 0 when all went well.
    error: i64,
    write: Io,
}

#[derive(Debug, Deserialize)]
struct Io {
    iops: f64,
    /// Bytes a second.
    bw_bytes: f64,
    total_ios: u64,
    #[serde(default)]
    short_ios: u64,
    #[serde(default)]
    drop_ios: u64,
    clat_ns: Latency,
}

#[derive(Debug, Deserialize)]
struct Latency {
    /// Nanoseconds by percentile, such as `99.000000`; missing when nothing was done.
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// The report within fio's output, which may say other things before and after it.
fn report(text: &str) -> Result<Job, Error> {
    let start = text.find('{').ok_or_else(|| {
        let said = text.lines().last().unwrap_or("nothing at all");
        Error::failed(format!("fio gave no report; it said: {said}"))
            .hint("`images.fio` needs fio 3 with libaio")
    })?;
    let mut reports = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Report>();
    let report = reports.next().and_then(Result::ok);
    let jobs = report.map(|r| r.jobs).unwrap_or_default();
    jobs.into_iter()
        .next()
        .ok_or_else(|| Error::failed("fio's report can't be read: it is cut or of an unknown form"))
}

fn verdict(output: &Output, floors: &Fio, base: &str) -> Result<Verdict, Stop> {
    if let Some(free) = output.text.lines().find_map(|line| line.strip_prefix(TOO_FULL)) {
        return Ok(Verdict::fail(
            format!(
                "only {free} KiB are free under {base}; measuring needs twice the {} of fio's file",
                floors.size
            ),
            "free some space, or lower `validation.fio.size`",
        ));
    }
    let job = report(&output.text)?;
    if job.error != 0 {
        let (meaning, hint) = errno(job.error);
        return Ok(Verdict::fail(format!("fio failed under {base}: error {} ({meaning})", job.error), hint));
    }
    let write = &job.write;
    if output.status != 0 || write.total_ios == 0 {
        let why = format!("fio ended with status {} after {} writes", output.status, write.total_ios);
        return Err(Error::failed(why).into());
    }
    let p = |percentile| write.clat_ns.percentile.get(percentile).map(|ns| ns / 1000.0);
    let (Some(p50), Some(p99)) = (p("50.000000"), p("99.000000")) else {
        return Err(Error::failed("fio's report has no latencies").into());
    };
    let numbers =
        format!("{:.0} IOPS, {:.1} MB/s, p50 {p50:.0} µs, p99 {p99:.0} µs", write.iops, write.bw_bytes / 1e6);
    if write.short_ios + write.drop_ios > 0 {
        let why = format!("{} writes were short and {} dropped ({numbers})", write.short_ios, write.drop_ios);
        return Ok(Verdict::fail(why, "the disk does not do what it is told: look at `talosctl dmesg`"));
    }
    if let Some(least) = floors.min_iops.filter(|least| write.iops < *least as f64) {
        let why = format!("{numbers}: fewer than the {least} IOPS asked for");
        return Ok(Verdict::fail(why, SLOW));
    }
    if let Some(most) = floors.max_p99_us.filter(|most| p99 > *most as f64) {
        let why = format!("{numbers}: the 99th percentile is over the {most} µs asked for");
        return Ok(Verdict::fail(why, SLOW));
    }
    let measured = [
        ("iops", write.iops, Unit::Iops),
        ("bandwidth", write.bw_bytes, Unit::BytesPerSecond),
        ("p50", p50, Unit::Microseconds),
        ("p99", p99, Unit::Microseconds),
    ];
    let measurements = measured.map(|(name, value, unit)| (name.to_owned(), Measurement { value, unit }));
    Ok(Verdict::Pass { summary: "random writes of 4 KiB".to_owned(), measurements: measurements.into() })
}

const SLOW: &str = "is the volume on the disk you meant (check pvc), is the disk busy, hot or worn \
                    (`smartctl`), is the pod throttled? Else lower the floor in `validation.fio`";

/// What an errno of fio's means here (errno(3), Linux numbers).
fn errno(code: i64) -> (&'static str, &'static str) {
    match code {
        1 => ("not permitted", "the container runtime's seccomp profile blocks fio's I/O calls"),
        5 => ("I/O error", "the disk is failing: look at the kernel's log (`talosctl dmesg`) and replace it"),
        13 => ("permission denied", "directories of volumes must be writable for any user (mode 0777)"),
        22 => {
            ("invalid argument", "the file system takes no direct I/O of 4k blocks: is it on a disk at all?")
        }
        28 => ("no space left", "free some space, or lower `validation.fio.size`"),
        30 => ("read-only file system", "the user volume is not mounted for the kubelet: make it ready"),
        38 => ("not implemented", "the kernel or the sandbox of the container has no libaio calls"),
        122 => (
            "quota exceeded",
            "the class's quota is smaller than the claim: raise it, or lower `validation.fio.size`",
        ),
        _ => ("see errno(3)", "look at the kernel's log (`talosctl dmesg`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../tests/fio/randwrite.json");
    const BASE: &str = "/var/mnt/openebs";

    fn judged(text: &str, status: i32, floors: &Fio) -> Result<Verdict, Stop> {
        verdict(&Output { text: text.to_owned(), status }, floors, BASE)
    }

    fn could_not_run(text: &str, status: i32) -> Error {
        match judged(text, status, &Fio::default()) {
            Err(Stop::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn fails(text: &str, status: i32, floors: &Fio) -> (String, String) {
        match judged(text, status, floors) {
            Ok(Verdict::Fail { why, hint }) => (why, hint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_numbers_of_a_real_report_are_read() {
        let Ok(Verdict::Pass { measurements, .. }) = judged(GOOD, 0, &Fio::default()) else { panic!() };
        let value = |name: &str| measurements[name].value;
        assert_eq!((value("iops"), value("bandwidth")), (12372.382851, 50_677_280.0));
        assert_eq!((value("p50"), value("p99")), (230.4, 18_219.008));
    }

    #[test]
    fn words_before_and_after_the_report_do_no_harm() {
        let text =
            format!("note: both iodepth >= 1 and synchronous I/O engine are selected\n{GOOD}\nfio: bye {{\n");
        assert!(matches!(judged(&text, 0, &Fio::default()), Ok(Verdict::Pass { .. })));
    }

    #[test]
    fn a_slow_disk_fails_by_the_floors() {
        let (why, _) = fails(GOOD, 0, &Fio { min_iops: Some(12_373), ..Fio::default() });
        assert!(why.contains("12373 IOPS asked"), "{why}");
        let (why, _) = fails(GOOD, 0, &Fio { max_p99_us: Some(18_219), ..Fio::default() });
        assert!(why.contains("18219 µs asked"), "{why}");
        let met = Fio { min_iops: Some(12_372), max_p99_us: Some(18_220), ..Fio::default() };
        assert!(matches!(judged(GOOD, 0, &met), Ok(Verdict::Pass { .. })));
    }

    #[test]
    fn an_error_of_the_disk_fails_with_its_meaning() {
        let full = include_str!("../../tests/fio/no-space.txt");
        let (why, hint) = fails(full, 1, &Fio::default());
        assert!(why.contains("28 (no space left)") && hint.contains("fio.size"), "{why} {hint}");
        let read_only = include_str!("../../tests/fio/read-only.txt");
        let (why, hint) = fails(read_only, 1, &Fio::default());
        assert!(why.contains("30 (read-only") && hint.contains("user volume"), "{why} {hint}");
        let (why, hint) = fails("nodeprep-too-full 1024\n", 0, &Fio::default());
        assert!(why.contains("1024 KiB") && hint.contains("fio.size"), "{why} {hint}");
        let (why, _) = fails(&GOOD.replacen("\"short_ios\" : 0", "\"short_ios\" : 3", 2), 0, &Fio::default());
        assert!(why.contains("3 writes were short"), "{why}");
    }

    #[test]
    fn no_report_or_a_cut_one_could_not_run() {
        assert!(could_not_run("", 1).what.contains("nothing"));
        let missing = include_str!("../../tests/fio/no-engine.txt");
        assert!(could_not_run(missing, 1).what.contains("no report"));
        for end in [GOOD.len() / 4, GOOD.len() / 2, GOOD.len() - 3] {
            could_not_run(&GOOD[..end], 0);
        }
        could_not_run("{\"jobs\": []}", 0);
        could_not_run(GOOD, 2);
        could_not_run(&GOOD.replace("\"total_ios\" : 24819", "\"total_ios\" : 0"), 0);
        could_not_run(&GOOD.replace("\"99.000000\"", "\"98.000000\""), 0);
    }

    #[test]
    fn the_claim_holds_the_file_and_the_parameters_are_the_seeds() {
        assert_eq!(claim_size(Size(1 << 30), Size(512 << 20)), Size(1 << 30));
        assert_eq!(claim_size(Size(64 << 20), Size(128 << 20)), Size(144 << 20));
        let work = work(&Fio::default());
        for parameter in [
            "rw=randwrite",
            "ioengine=libaio",
            "iodepth=32",
            "bs=4k",
            "direct=1",
            "time_based",
            "runtime=30 ",
            "size=536870912 ",
            "end_fsync=1",
            "randrepeat=0",
            "refill_buffers",
            "output-format=json",
        ] {
            assert!(work.contains(&format!("--{parameter}")), "{parameter}");
        }
        assert!(work.contains("-lt 1048576 "));
    }
}
