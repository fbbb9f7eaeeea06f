//! Data outlives its pod, and the next pod finds it on the same node.

use super::pod::Probe;
use super::probe::{Finished, Watch};
use super::pvc::{READ, WRITE, how_read, reason, word, write_hint};
use super::{Check, Per, Run, Stop, Subject};
use crate::error::Error;
use crate::event::Verdict;
use crate::intent::Class;
use crate::model::said::{self, By};

pub(super) const CHECK: Check = Check {
    id: "persistence",
    title: "data outlives its pod, on the same node",
    per: Per::Class,
    needs: &["pvc"],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let class = subject.class()?;
    let (writer, reader) = (run.scratch.name("writer"), run.scratch.name("reader"));
    let image = &run.ctx.intent.images.shell;
    let claim = writer.as_str();
    let write = subject.probe(&writer, image, WRITE)?;
    run.scratch.claim(claim, &class.name, run.ctx.intent.validation.claim_size).await?;
    run.scratch.make(write.pod()?).await?;
    let wrote = Watch { run, subject, claim, pod: &writer }.finished().await?;
    if wrote.output.status != 0 {
        let said = reason(&wrote.output.text);
        return Err(Stop::fail(
            format!("writing failed on {}: {said}", wrote.node),
            write_hint(said::code(By::Program, said), class),
        ));
    }
    run.scratch.delete_pod(&writer).await?;
    let work = ["ls -la /data\n", READ].concat();
    // The volume alone has to bring it to the same node.
    let read = Probe { name: &reader, work: &work, hosts: &subject.hosts, ..write };
    run.scratch.make(read.pod()?).await?;
    let read = Watch { run, subject, claim, pod: &reader }.finished().await?;
    same(&wrote, &read, class)
}

/// The second pod must have read what the first wrote; on the same node, where the volume is a directory of it.
fn same(wrote: &Finished, read: &Finished, class: &Class) -> Result<Verdict, Stop> {
    if wrote.node != read.node && class.csi.is_none() {
        return Ok(Verdict::fail(
            format!("the data is on {}, but the next pod started on {}", wrote.node, read.node),
            "the provisioner must pin its volumes to their node (node affinity)",
        ));
    }
    let node = &read.node;
    if read.output.status != 0 {
        return Ok(Verdict::fail(
            format!("the data was gone when the next pod came to {node}: {}", read.output.text.trim()),
            "is the class's base path on a disk, or in memory, or mounted over meanwhile?",
        ));
    }
    match (word(&wrote.output.text, "wrote"), word(&read.output.text, "read")) {
        (Some(before), Some(after)) if before == after => {
            let how = how_read(&read.output.text);
            Ok(Verdict::pass(format!("the next pod read the same data on {node}{how}")))
        }
        (Some(before), Some(after)) => Ok(Verdict::fail(
            format!("the next pod on {node} read other data: sha256 {after}, not {before}"),
            "the disk or its file system is damaged: look at the kernel's log (`talosctl dmesg`)",
        )),
        _ => Err(Error::failed("a probe did not say its checksum").into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::frame::Output;

    fn finished(node: &str, status: i32, text: &str) -> Finished {
        Finished { node: node.into(), output: Output { text: text.into(), status } }
    }

    #[test]
    fn the_next_pod_must_read_the_same_on_the_same_node() {
        let class: Class = serde_json::from_value(json!({"name": "c", "basePath": "/var/mnt/c"})).unwrap();
        let same = |wrote: &Finished, read: &Finished| same(wrote, read, &class);
        let wrote = finished("n1", 0, "16+0 records in\nwrote abc\n");
        assert!(matches!(
            same(&wrote, &finished("n1", 0, "16+0 records in\nread abc\n")),
            Ok(Verdict::Pass { .. })
        ));
        for (read, word) in [
            (finished("n2", 0, "read abc\n"), "started on n2"),
            (finished("n1", 1, "sh: can't open /data/probe: no such file"), "gone"),
            (finished("n1", 0, "read abd\n"), "other data"),
        ] {
            let Ok(Verdict::Fail { why, .. }) = same(&wrote, &read) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        }
        assert!(matches!(same(&wrote, &finished("n1", 0, "")), Err(Stop::Error(_))));
    }
}
