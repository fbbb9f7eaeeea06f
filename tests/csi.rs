//! Classes of CSI drivers, from the file to the verdict.

use nodeprep::check::Outcome;
use nodeprep::event::Verdict;
use nodeprep::intent::{Class, Csi};
use nodeprep_sandbox::scenario::Scenario;
use serde_json::{Value, json};

use crate::fleet::{Session, paused};

const DRIVER: &str = "local.csi.example.com";

fn class(csi: Value) -> Class {
    serde_json::from_value(json!({"name": "fast", "csi": csi})).unwrap()
}

/// A fleet whose file asks for a class of a driver beside OpenEBS' own.
async fn session(csi: Value) -> Session {
    let text = "machines: [{role: controlplane}, {role: worker}, {role: worker}]";
    let mut session = Session::start(&Scenario::parse("s.yaml", text).unwrap()).await;
    session.intent.classes.push(class(csi));
    session.intent.backup = None;
    session
}

async fn install_driver(session: &Session) {
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": {},
    });
    session.cluster().await.unwrap().apply(&driver).await.unwrap();
}

fn told(outcome: &Outcome) -> Vec<String> {
    let of_class = |subject: &String| subject == "fast" || subject.starts_with("fast on ");
    let results = outcome.results.iter().map(|result| (result, result.subject.to_string()));
    let told = results.filter(|(_, subject)| of_class(subject)).map(|(result, subject)| {
        let verdict = match &result.verdict {
            Verdict::Pass { .. } => "pass".to_owned(),
            Verdict::Warn { why, .. } | Verdict::Fail { why, .. } | Verdict::Skip { why } => why.clone(),
        };
        format!("{} {subject}: {verdict}", result.id)
    });
    told.collect()
}

#[test]
fn a_class_of_a_driver_is_made_and_proven_on_the_nodes_that_have_the_driver() {
    paused(async {
        let session =
            session(json!({"driver": DRIVER, "parameters": {"type": "nvme"}, "expansion": true})).await;
        install_driver(&session).await;
        session.apply().await.unwrap();
        assert!(session.plan().await.unwrap().plan.is_empty());
        let outcome = session.check().await.unwrap();
        let told = told(&outcome);
        assert!(told.len() >= 8 && told.iter().all(|line| line.ends_with(": pass")), "{told:#?}");
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    });
}

#[test]
fn a_class_that_binds_at_once_is_proven_as_such() {
    paused(async {
        let session = session(json!({"driver": DRIVER, "bindingMode": "Immediate"})).await;
        install_driver(&session).await;
        session.apply().await.unwrap();
        let told = told(&session.check().await.unwrap());
        assert!(told.contains(&"binding-mode fast: pass".to_owned()), "{told:#?}");
    });
}

#[test]
fn a_driver_that_no_node_has_and_a_class_that_is_not_as_the_file_says_fail() {
    paused(async {
        let mut session = session(json!({"driver": DRIVER, "parameters": {"type": "nvme"}})).await;
        session.apply().await.unwrap();
        let without = told(&session.check().await.unwrap());
        assert!(
            without.contains(&format!("storage-class fast: no node has the CSI driver {DRIVER}")),
            "{without:#?}"
        );
        assert!(without.iter().all(|line| !line.ends_with(": pass")), "nothing is proven: {without:#?}");
        install_driver(&session).await;
        let class = session.intent.classes.last_mut().unwrap();
        let parameters = [("type".to_owned(), "hdd".to_owned())].into();
        class.csi = class.csi.take().map(|csi| Csi { parameters, ..csi });
        let other = told(&session.check().await.unwrap());
        assert_eq!(
            other.first().unwrap(),
            "storage-class fast: class fast: its parameter type is nvme; the file says hdd"
        );
    });
}
