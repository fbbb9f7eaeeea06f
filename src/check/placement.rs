//! Each node that a class allows has the disk meant for it: no claim can bind to a directory of another.

use super::pvc::{VolumeSite, probed};
use super::{Check, Per, Run, Stop, Subject};
use crate::event::Verdict;

pub(super) const CHECK: Check = Check {
    id: "placement",
    title: "the class's nodes are there, and each has the disk meant for it",
    per: Per::Allowed,
    needs: &["provisioner", "storage-class", "binding-mode"],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let (class, intent) = (subject.class()?, &run.ctx.intent);
    let Some(node) = &subject.node else {
        let labels: Vec<_> = intent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let who = if labels.is_empty() { "takes pods".into() } else { format!("has {}", labels.join(", ")) };
        let why = format!("class {} has no node: none {who}", class.name);
        return Ok(Verdict::fail(why, "`kubectl get nodes --show-labels` shows what there is"));
    };
    if let Some(unfit) = &node.unfit {
        let (why, hint) = (unfit.why.clone(), unfit.hint.clone());
        // Where the file names no node, nothing says that this one is to hold volumes.
        let named = !intent.nodes.is_empty() || !intent.labels.is_empty();
        return Ok(if named { Verdict::fail(why, hint) } else { Verdict::warn(why, hint) });
    }
    let place = async {
        let probed = probed(run, subject).await?;
        probed.place(&probed.node(run).await?, class, intent)
    };
    let place = match place.await {
        Err(Stop::Fault { why, hint }) if node.beyond => {
            return Ok(Verdict::fail(
                format!(
                    "class {} allows {}, which the file does not give its volume: {why}",
                    class.name, node.name
                ),
                format!(
                    "limit the class to the nodes that have its volume (allowedTopologies; `nodeprep apply`), or: {hint}"
                ),
            ));
        }
        place => place?,
    };
    Ok(match place {
        VolumeSite::Own(summary) if node.beyond => {
            Verdict::pass(format!("{summary}; the file does not name it"))
        }
        VolumeSite::Own(summary) => Verdict::pass(summary),
        VolumeSite::Doubtful { why, hint } => Verdict::warn(why, hint),
    })
}
