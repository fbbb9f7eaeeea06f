//! Over the in-memory network, with one thread and paused time, a run is the same each time.

use std::time::Duration;

use nodeprep_sandbox::scenario::Scenario;

use crate::fleet::{Session, paused};

/// The whole job, from bare disks to all verdicts: every call that the fleet took and every event, with their times,
/// and how long it took, as the simulated clock says.
async fn whole_job(scenario: &str) -> (Vec<String>, Duration) {
    let session = Session::start(&Scenario::parse("scenario.yaml", scenario).unwrap()).await;
    let began = tokio::time::Instant::now();
    session.apply().await.unwrap();
    let again = session.plan().await.unwrap().plan;
    assert!(again.is_empty(), "{:#?}", again.steps);
    session.check().await.unwrap().passed(&[], false).unwrap();
    let took = began.elapsed();
    let calls = session.fleet.calls().into_iter();
    let mut lines: Vec<_> = calls.map(|c| format!("{} {} {} {}", c.at, c.place, c.call, c.faulty)).collect();
    lines.append(&mut session.told.lock().unwrap());
    (lines, took)
}

#[test]
fn the_whole_job_is_the_same_call_by_call_and_event_by_event() {
    for scenario in [
        "seed: 1",
        "seed: 2\nspeed: 3\nfaults:\n\
         - {where: 10.5.0.3, call: ApplyConfiguration, after: 2, times: 1, dropAfterActing: true}\n\
         - {where: kubernetes, call: GET *, after: 30, times: 2, error: overloaded}\n\
         - {where: '*', call: List *, after: 9, times: 3, delay: 2s}\n",
    ] {
        let ((first, took), (second, _)) = (paused(whole_job(scenario)), paused(whole_job(scenario)));
        assert!(first.len() > 300 && took > Duration::from_secs(10), "{} lines, {took:?}", first.len());
        let differ = first.iter().zip(&second).find(|(first, second)| first != second);
        assert_eq!(differ, None);
        assert_eq!(first.len(), second.len());
    }
}
