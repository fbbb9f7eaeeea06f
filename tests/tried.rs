//! A config that is tried: kept when everything that it asks for came of it (see tests/scenarios/tried.yaml), else taken back.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nodeprep::error::Kind;
use nodeprep::session::Manner;
use nodeprep::talos::client::Mode;
use nodeprep_sandbox::scenario::Scenario;
use serde_json::json;

use crate::fleet::{Session, paused};

const LABEL: &str = "openebs.io/storage-node";

fn trying() -> Manner {
    Manner { mode: Mode::Try, ..Manner::default() }
}

/// The configs that the machine runs and boots with.
fn configs(session: &Session) -> (Option<String>, Option<String>) {
    let world = session.fleet.look();
    let machine = world.machines.values().next().unwrap();
    (machine.active.clone(), machine.persistent.clone())
}

#[test]
fn a_config_that_does_not_bring_about_what_it_asks_for_is_taken_back_by_the_node() {
    paused(async {
        let scenario = Scenario::parse("scenario.yaml", "machines: [{}]").unwrap();
        let session = Session::start(&scenario).await;
        let before = configs(&session);
        let planned = session.plan().await.unwrap();
        // Talos leaves a label alone that somebody else set, so the one that is asked for never comes.
        let nodes: Api<Node> = Api::all(session.cluster().await.unwrap().client());
        let name = nodes.list(&Default::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
        let theirs = Patch::Merge(json!({"metadata": {"labels": {LABEL: "theirs"}}}));
        nodes.patch(&name, &PatchParams::default(), &theirs).await.unwrap();
        let error = session.carry_out(planned, &trying()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{error}");
        assert!(error.what.contains(LABEL), "{error}");
        assert!(error.hint.unwrap().contains("took the config back by itself"));
        assert_eq!(configs(&session), before);
        let told = session.told.lock().unwrap().concat();
        assert!(told.contains("the node to take the tried config back"), "{told}");
        // What the try wrote is a leftover now, which nothing adopts or overwrites.
        let gone = Patch::Merge(json!({"metadata": {"labels": {LABEL: null}}}));
        nodes.patch(&name, &PatchParams::default(), &gone).await.unwrap();
        let refused = session.plan().await.err().unwrap();
        assert_eq!(refused.kind, Kind::Refused);
        assert!(refused.what.contains("u-openebs"), "{refused}");
    });
}

/// The third call is the one that makes it permanent, after a dry run and the try.
#[test]
fn a_confirmation_that_is_lost_is_not_seen_in_a_config_that_is_only_tried() {
    paused(async {
        let lost = "{where: 10.5.0.2, call: ApplyConfiguration, after: 2, times: 1, reset: true}";
        let scenario = Scenario::parse("scenario.yaml", &format!("machines: [{{}}]\nfaults: [{lost}]"));
        let session = Session::start(&scenario.unwrap()).await;
        let before = configs(&session);
        let planned = session.plan().await.unwrap();
        let error = session.carry_out(planned, &trying()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert_eq!(configs(&session).1, before.1, "it boots with what it had");
    });
}
