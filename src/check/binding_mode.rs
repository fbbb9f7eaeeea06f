//! A claim waits for a pod, and binds when one wants it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use tokio::time::Instant;

use super::probe::{Watch, phase, volume_name};
use super::wait::{Look, until};
use super::{Check, Per, Run, Stop, Subject};
use crate::event::{Measurement, Verdict};
use crate::intent::BindingMode;
use crate::judge::why::{Sign, quote};

pub(super) const CHECK: Check = Check {
    id: "binding-mode",
    title: "a claim stays Pending until a pod wants it, then binds",
    per: Per::Class,
    needs: &["provisioner", "storage-class"],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

async fn judge(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let (class, validation) = (subject.class()?, &run.ctx.intent.validation);
    if class.binding_mode() == BindingMode::Immediate {
        return at_once(run, subject).await;
    }
    let claim = run.scratch.name("binding");
    run.scratch.claim(&claim, &class.name, validation.claim_size).await?;
    let watch = Watch { run, subject, claim: &claim, pod: &claim };
    stays_pending(&watch).await?;
    let wanted = Instant::now();
    let image = &run.ctx.intent.images.shell;
    let probe = subject.probe(&claim, image, "true")?;
    run.scratch.make(probe.pod()?).await?;
    watch.bound().await?;
    let measurement = Measurement::seconds(wanted.elapsed());
    Ok(Verdict::Pass {
        summary: format!("Pending for {}, then Bound for a pod", validation.pending_for),
        measurements: [("bound".to_owned(), measurement)].into(),
    })
}

/// A claim of a class that binds at once has its volume without any pod.
async fn at_once(run: &Run<'_>, subject: &Subject<'_>) -> Result<Verdict, Stop> {
    let (class, validation) = (subject.class()?, &run.ctx.intent.validation);
    let (claim, made) = (run.scratch.name("binding"), Instant::now());
    run.scratch.claim(&claim, &class.name, validation.claim_size).await?;
    Watch { run, subject, claim: &claim, pod: &claim }.bound().await?;
    let measurement = Measurement::seconds(made.elapsed());
    Ok(Verdict::Pass {
        summary: "Bound at once, as the file says (Immediate)".to_owned(),
        measurements: [("bound".to_owned(), measurement)].into(),
    })
}

/// Watches the lone claim: for `pendingFor` it must stay Pending, and must say that it waits for a pod.
async fn stays_pending(watch: &Watch<'_>) -> Result<(), Stop> {
    let validation = &watch.run.ctx.intent.validation;
    let (started, pending_for) = (Instant::now(), validation.pending_for.std());
    let limit = pending_for + validation.timeout.std();
    let waited = until(&watch.subject.events, "the lone claim to stay Pending", limit, || async {
        let (claim, signs) = (watch.read_claim().await?, watch.signs().await?);
        if let Some((why, hint)) = hasty(&claim, &signs, &watch.subject.name()) {
            return Err(Stop::fail(why, hint));
        }
        let waits = signs.iter().any(|s| s.reason == "WaitForFirstConsumer");
        Ok(match (started.elapsed() >= pending_for, waits) {
            (true, true) => Look::Done(()),
            (false, _) => Look::not_yet("it is Pending, as it should be"),
            (true, false) => Look::not_yet("it is Pending, but nothing says that it waits for a pod"),
        })
    });
    waited.await?.map_err(|last| {
        Stop::fail(
            format!("claim {}: {last} (event WaitForFirstConsumer)", watch.claim),
            "is the class there, and is kube-controller-manager running?",
        )
    })
}

/// What shows that a volume was, or was to be, made for a claim that no pod wants.
fn hasty(claim: &PersistentVolumeClaim, signs: &[Sign], class: &str) -> Option<(String, String)> {
    let hint = format!(
        "the class must have `volumeBindingMode: WaitForFirstConsumer`: `kubectl delete storageclass {class}` \
         (volumes stay), then make it again (`nodeprep apply`)"
    );
    if phase(claim) == "Bound" || volume_name(claim).is_some() {
        return Some(("the claim was bound without a pod: the class binds Immediate".to_owned(), hint));
    }
    let failed = signs.iter().find(|sign| sign.has_failed());
    let sign = failed.or_else(|| signs.iter().find(|sign| sign.is_asked_for()))?;
    Some((format!("a volume was asked for without a pod: {}", quote(sign)), hint))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::judge::why::On;

    #[test]
    fn a_lone_claim_may_only_wait() {
        let claim = |phase: &str, volume: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({ "spec": { "volumeName": volume }, "status": { "phase": phase } }))
                .unwrap()
        };
        let sign = |reason: &str, message: &str| Sign {
            on: On::Claim,
            name: "c".into(),
            reason: reason.into(),
            message: message.into(),
        };
        let waiting = [sign("WaitForFirstConsumer", "waiting for first consumer")];
        assert_eq!(hasty(&claim("Pending", ""), &waiting, "fast"), None);
        for (claim, signs, why) in [
            (claim("Bound", "pvc-1"), vec![], "bound without a pod"),
            (claim("Pending", "pvc-1"), vec![], "bound without a pod"),
            (
                claim("Pending", ""),
                vec![sign("ExternalProvisioning", "Waiting for a volume")],
                "Waiting for a volume",
            ),
            (
                claim("Pending", ""),
                vec![
                    sign("ExternalProvisioning", "Waiting for a volume"),
                    sign("ProvisioningFailed", "configuration error, no node was specified"),
                ],
                "no node was specified",
            ),
        ] {
            let (said, hint) = hasty(&claim, &signs, "fast").unwrap();
            assert!(said.contains(why) && hint.contains("WaitForFirstConsumer"), "{said}");
        }
    }
}
