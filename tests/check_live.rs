//! Drives the checks against a real cluster: `KUBECONFIG` names it, `NODEPREP_FILE` the file that says what is
//! wanted, `NODEPREP_ONLY` (checks, by commas) narrows the run, and `NODEPREP_EXPECT` says what must come out, such as
//! `provisioner=fail:enforce=privileged,pvc=skip` (id, verdict, and a word that its text must hold).

use std::sync::Arc;

use nodeprep::check::{Context, Outcome, cleanup, run};
use nodeprep::cluster::Cluster;
use nodeprep::event::{Event, Events, Verdict, What};
use nodeprep::state::{self, State};

type Failure = Box<dyn std::error::Error>;

fn failure(error: nodeprep::error::Error) -> Failure {
    format!("{} (hint: {})", error.what, error.hint.unwrap_or_default()).into()
}

fn words(name: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_default();
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[expect(clippy::print_stdout, reason = "the run is to be read")]
fn show(event: &Event) {
    let place =
        format!("{} {}", event.target.as_deref().unwrap_or("-"), event.step.as_deref().unwrap_or("-"));
    match &event.what {
        What::Checked { check } => {
            println!("{place}: {:.1}s {:?} {:?}", check.seconds, check.verdict, check.labels)
        }
        What::StepFailed { error, hint } => println!("{place}: ERROR {error} (hint: {hint:?})"),
        What::Waiting { what, last } => println!("{place}: waiting for {what}: {last}"),
        What::Note { message } | What::Warning { message } => println!("{place}: {message}"),
        _ => {}
    }
}

async fn context() -> Result<Context, Failure> {
    let path = std::env::var("NODEPREP_FILE")?;
    let intent = nodeprep::intent::parse(&path, &std::fs::read(&path)?).map_err(failure)?;
    let now = jiff::Timestamp::now();
    Ok(Context {
        intent,
        cluster: Cluster::connect(None, None).await.map_err(failure)?,
        events: Events::new(state::now, |event| show(&event)),
        run_id: format!("t{}", now.as_millisecond()),
        now,
        since: tokio::time::Instant::now(),
        state: State::open(&std::env::temp_dir(), "nodeprep-check-live").map_err(failure)?.dir().to_owned(),
    })
}

fn verdict(outcome: &Outcome, id: &str) -> Vec<(&'static str, String)> {
    let results = outcome.results.iter().filter(|r| r.id == id).map(|r| match &r.verdict {
        Verdict::Pass { summary, .. } => ("pass", summary.clone()),
        Verdict::Warn { why, hint } => ("warn", format!("{why} | {hint}")),
        Verdict::Fail { why, hint } => ("fail", format!("{why} | {hint}")),
        Verdict::Skip { why } => ("skip", why.clone()),
    });
    let errors = outcome.errors.iter().filter(|e| e.id == id);
    results.chain(errors.map(|e| ("error", format!("{} | {:?}", e.error.what, e.error.hint)))).collect()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_checks_find_what_is_expected() -> Result<(), Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let context = context().await?;
    let (stop, cancel) = tokio::sync::watch::channel(false);
    let stop = Arc::new(stop);
    if let Ok(seconds) = std::env::var("NODEPREP_CANCEL_AFTER") {
        let (stop, after) = (Arc::clone(&stop), std::time::Duration::from_secs(seconds.parse()?));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = stop.send(true);
        });
    }
    let outcome = match run(&context, &words("NODEPREP_ONLY"), &[], cancel).await {
        Ok(outcome) => outcome,
        Err(error) if error.kind == nodeprep::error::Kind::Interrupted => {
            assert_eq!(error.what, "interrupted while checking", "removal succeeded");
            return Ok(());
        }
        Err(error) => return Err(failure(error)),
    };
    for expected in words("NODEPREP_EXPECT") {
        let (id, wanted) = expected.split_once('=').ok_or("NODEPREP_EXPECT is id=verdict[:word],...")?;
        let (wanted, word) = wanted.split_once(':').unwrap_or((wanted, ""));
        let got = verdict(&outcome, id);
        let found = got.iter().any(|(verdict, text)| *verdict == wanted && text.contains(word));
        assert!(found, "{id} was to be {wanted} with `{word}`: {got:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn cleanup_removes_what_runs_left() -> Result<(), Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let context = context().await?;
    cleanup(&context.cluster, &context.state, &context.events).await.map_err(failure)?;
    Ok(())
}
