//! Nodes have their turn in waves: what happens at the same time, and what a node that fails does to the others.

use std::time::Duration;

use nodeprep::session::{Manner, Parallel};
use nodeprep_sandbox::scenario::Scenario;

use crate::fleet::{Session, paused};

/// A control plane, so many workers, and faults.
async fn fleet(workers: usize, faults: &str) -> Session {
    let machines = format!("{{role: controlplane}}{}", ", {role: worker}".repeat(workers));
    Session::start(
        &Scenario::parse("s.yaml", &format!("machines: [{machines}]\nfaults: [{faults}]")).unwrap(),
    )
    .await
}

/// The addresses of the machines whose config asks for a volume.
fn configured(session: &Session) -> Vec<String> {
    let world = session.fleet.look();
    let asks = world.machines.iter().filter(|(_, machine)| {
        machine.active.as_ref().is_some_and(|config| config.contains("UserVolumeConfig"))
    });
    asks.map(|(address, _)| address.clone()).collect()
}

#[test]
fn workers_take_as_long_as_the_slowest_and_not_as_all_of_them_together() {
    let took = |parallel| {
        paused(async move {
            let session = fleet(8, "{where: '*', call: ApplyConfiguration, delay: 10s}").await;
            let mut planned = session.plan().await.unwrap();
            planned.plan.steps.retain(|step| step.target.is_node());
            let began = tokio::time::Instant::now();
            session.carry_out(planned, &Manner { parallel, ..Manner::default() }).await.unwrap();
            assert_eq!(configured(&session).len(), 9);
            began.elapsed()
        })
    };
    let (one, four, all) = (took(Parallel::Nodes(1)), took(Parallel::Nodes(4)), took(Parallel::Percent(100)));
    // The control plane's turn, then eight, two or one turns of workers.
    assert!(one > Duration::from_secs(9 * 20), "{one:?}");
    assert!(four < one * 4 / 9 && all < one * 3 / 9, "{one:?} {four:?} {all:?}");
}

#[test]
fn control_planes_are_never_changed_at_the_same_time() {
    paused(async {
        let machines = "machines: [{role: controlplane}, {role: controlplane}, {role: controlplane}]";
        let session = Session::start(&Scenario::parse("s.yaml", machines).unwrap()).await;
        let mut planned = session.plan().await.unwrap();
        planned.plan.steps.retain(|step| step.target.is_node());
        session.fleet.calls();
        let manner = Manner { parallel: Parallel::Percent(100), ..Manner::default() };
        session.carry_out(planned, &manner).await.unwrap();
        let applies = session.fleet.calls().into_iter().filter(|call| call.call == "ApplyConfiguration");
        let mut places: Vec<String> = applies.map(|call| call.place).collect();
        places.dedup();
        assert_eq!(places, ["10.5.0.2", "10.5.0.3", "10.5.0.4"]);
    });
}

#[test]
fn a_node_that_fails_keeps_the_others_from_their_turn_unless_told_to_go_on() {
    for (keep_going, expected) in
        [(false, &["10.5.0.2", "10.5.0.3"][..]), (true, &["10.5.0.2", "10.5.0.3", "10.5.0.5", "10.5.0.6"])]
    {
        paused(async {
            let session =
                fleet(4, "{where: 10.5.0.4, call: ApplyConfiguration, after: 1, error: overloaded}").await;
            let planned = session.plan().await.unwrap();
            let manner = Manner { parallel: Parallel::Nodes(1), keep_going, ..Manner::default() };
            let error = session.carry_out(planned, &manner).await.unwrap_err();
            assert!(error.what.contains("10.5.0.4"), "{error}");
            assert_eq!(configured(&session), expected);
            let cluster = session.cluster().await.unwrap();
            assert!(
                cluster.get("v1", "Namespace", None, "openebs").await.unwrap().is_none(),
                "the stack waits for all nodes"
            );
        });
    }
}
