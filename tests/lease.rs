//! The cluster's lock while its API server is away: held, and checked again before anything is changed.

use std::cell::Cell;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nodeprep::error::Kind;
use nodeprep::session::{Lease, LeaseHolder, Manner};
use nodeprep_sandbox::scenario::Scenario;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{Session, paused};
use crate::laws::changes;

const WITHIN: Duration = Duration::from_secs(600);

/// A cluster whose Lease can't be renewed so many times, and the Lease.
async fn held(times: u32) -> (Session, Lease) {
    let fault = format!("{{where: kubernetes, call: 'PUT *', times: {times}, error: away, code: 500}}");
    let scenario = format!("machines: [{{}}]\nfaults: [{fault}]");
    let session = Session::start(&Scenario::parse("s.yaml", &scenario).unwrap()).await;
    let holder = LeaseHolder { place: "here/state".into(), run: "nodeprep apply, pid 1".into() };
    let lease = Lease::take(&session.cluster().await.unwrap(), &holder, false).await.unwrap();
    (session, lease)
}

async fn taken_by_another(session: &Session) {
    let leases: Api<Object> = Api::namespaced(session.cluster().await.unwrap().client(), "kube-system");
    let theirs = Patch::Merge(json!({"spec": {"holderIdentity": "there/state (nodeprep apply, pid 2)"}}));
    leases.patch("nodeprep", &PatchParams::default(), &theirs).await.unwrap();
}

#[test]
fn a_lease_that_can_not_be_renewed_for_a_while_is_waited_for_only_once_others_may_take_it() {
    paused(async {
        let (_session, lease) = held(6).await;
        let begun = Instant::now();
        sleep(Duration::from_secs(50)).await;
        lease.held().sure(WITHIN).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(52), "it is not stale yet: {:?}", begun.elapsed());
        sleep(Duration::from_secs(20)).await;
        lease.held().sure(WITHIN).await.unwrap();
        let renewed = Duration::from_secs(7 * 15)..Duration::from_secs(8 * 15);
        assert!(renewed.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    });
}

#[test]
fn one_that_another_run_took_meanwhile_stops_this_one_before_it_changes_anything() {
    paused(async {
        let scenario = Scenario::parse("s.yaml", "machines: [{}]").unwrap();
        let session = Session::start(&scenario).await;
        session.fleet.calls();
        // Somebody thinks about the plan, which is made again then, under the Lease: meanwhile it grows old, and is taken.
        let again = Cell::new(false);
        let make = async |connected| {
            if again.replace(true) {
                sleep(Duration::from_secs(70)).await;
                taken_by_another(&session).await;
                sleep(Duration::from_secs(20)).await;
            }
            session.planned(connected).await
        };
        let run = session.open("apply").unwrap();
        let error = run.carry_out(&Manner::default(), make, async |_| Ok(true)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.what.contains("taken over by there/state (nodeprep apply, pid 2)"), "{error}");
        assert_eq!(changes(&session.fleet.calls()), [""; 0]);
    });
}

#[test]
fn one_of_which_nothing_can_be_learned_stops_the_run_in_the_end() {
    paused(async {
        let (_session, lease) = held(u32::MAX).await;
        sleep(Duration::from_secs(70)).await;
        let error = lease.held().sure(WITHIN).await.unwrap_err();
        assert!(error.kind == Kind::Unavailable && error.what.contains("could not be renewed"), "{error}");
    });
}
