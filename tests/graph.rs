//! A plan is a graph: what has its turn when, whatever comes of the steps before it.

use nodeprep::model::object::{Deletion, Object};
use nodeprep::plan::{Action, ObjectAction, Plan, Step, Target, When};
use nodeprep::session::{Manner, Planned};
use nodeprep_sandbox::scenario::Scenario;
use serde_json::{Value, json};

use crate::fleet::{Session, paused};

/// A step of a plan: its id, what comes of it, what it needs, and when it has its turn.
type Line = (&'static str, Comes, &'static [&'static str], When);

#[derive(Clone, Copy)]
enum Comes {
    Done,
    /// The API server refuses it.
    Fails,
    /// It is deleted, and something holds on to it: it fails when the time is over.
    Slow,
}

fn config_map(name: &str, namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
}

async fn step(session: &Session, (id, comes, needs, when): Line) -> Step {
    let object = |value| Object { value, component: "test", secret: false, create_only: false };
    let action = match comes {
        Comes::Done => ObjectAction::Apply(object(config_map(id, "default"))),
        Comes::Fails => ObjectAction::Apply(object(config_map(id, "missing"))),
        Comes::Slow => {
            let mut held = config_map(id, "default");
            held["metadata"]["finalizers"] = json!(["example.com/held"]);
            let cluster = session.cluster().await.unwrap();
            cluster.apply(&held).await.unwrap();
            let live = cluster.get("v1", "ConfigMap", Some("default"), id).await.unwrap().unwrap();
            ObjectAction::Delete(Deletion::of(&live))
        }
    };
    let needs = needs.iter().map(|id| (*id).to_owned()).collect();
    Step { needs, when, ..Step::new(id, Target::Cluster, id, Action::Object(action)) }
}

/// What became of the steps, in this order: `+a` begun, `a` done, `!a` failed.
fn told(session: &Session) -> String {
    let told = session.told.lock().unwrap();
    let events = told.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<String> = events
        .filter_map(|event| {
            let sign = match event["event"].as_str()? {
                "step-started" => "+",
                "step-done" => "",
                "step-failed" => "!",
                _ => return None,
            };
            Some(format!("{sign}{}", event["step"].as_str()?))
        })
        .collect();
    told.join(" ")
}

#[test]
fn a_step_begins_when_what_it_needs_is_done_and_the_end_is_cleaned_up_whatever_comes() {
    use Comes::{Done, Fails, Slow};
    use When::{Always, Needed, Undo};
    let cases: [(&str, bool, &[Line], &str); 8] = [
        (
            "in their order, whatever their places",
            false,
            &[("b", Done, &["a"], Needed), ("a", Done, &[], Needed)],
            "+a a +b b",
        ),
        (
            "side by side",
            false,
            &[("a", Slow, &[], Needed), ("b", Done, &[], Needed), ("c", Done, &["b"], Needed)],
            "+a +b b +c c !a",
        ),
        (
            "a failure ends it",
            false,
            &[("a", Fails, &[], Needed), ("b", Done, &["a"], Needed), ("c", Done, &["b"], Needed)],
            "+a !a",
        ),
        (
            "or only what needs it",
            true,
            &[
                ("a", Fails, &[], Needed),
                ("b", Done, &["a"], Needed),
                ("c", Slow, &[], Needed),
                ("d", Done, &["c"], Needed),
                ("e", Done, &[], Needed),
            ],
            "+a +c +e !a e !c",
        ),
        (
            "cleaned up after success, and nothing taken back",
            false,
            &[("a", Done, &[], Needed), ("take-back", Done, &["a"], Undo), ("clean", Done, &["a"], Always)],
            "+a a +clean clean",
        ),
        (
            "taken back, then cleaned up after a failure",
            false,
            &[
                ("a", Done, &[], Needed),
                ("b", Fails, &["a"], Needed),
                ("take-back", Done, &["a"], Undo),
                ("clean", Done, &["b"], Always),
            ],
            "+a a +b !b +take-back take-back +clean clean",
        ),
        (
            "nothing that was not begun is cleaned up",
            false,
            &[
                ("a", Fails, &[], Needed),
                ("b", Done, &["a"], Needed),
                ("clean", Done, &["b"], Always),
                ("take-back", Done, &["b"], Undo),
            ],
            "+a !a",
        ),
        (
            "a clean-up that fails does not keep the others from theirs",
            false,
            &[("a", Done, &[], Needed), ("clean", Fails, &["a"], Always), ("more", Done, &["a"], Always)],
            "+a a +clean !clean +more more",
        ),
    ];
    for (what, keep_going, lines, expected) in cases {
        paused(async {
            let scenario = Scenario::parse("s.yaml", "machines: [{role: controlplane}]").unwrap();
            let session = Session::start(&scenario).await;
            let mut steps = Vec::new();
            for line in lines {
                steps.push(step(&session, *line).await);
            }
            let planned = session.plan().await.unwrap();
            let planned = Planned { plan: Plan { steps, ..Plan::default() }, ..planned };
            let done = session.carry_out(planned, &Manner { keep_going, ..Manner::default() }).await;
            assert_eq!(told(&session), expected, "{what}");
            assert_eq!(done.is_err(), expected.contains('!'), "{what}");
        });
    }
}

#[test]
fn a_run_in_which_a_step_had_no_turn_has_not_succeeded() {
    use When::Needed;
    for needs in [&["nowhere"] as &[&str], &["b"]] {
        paused(async {
            let scenario = Scenario::parse("s.yaml", "machines: [{role: controlplane}]").unwrap();
            let session = Session::start(&scenario).await;
            let mut steps = vec![step(&session, ("a", Comes::Done, &[], Needed)).await];
            steps.push(Step {
                needs: vec![needs[0].to_owned()],
                ..step(&session, ("b", Comes::Done, &[], Needed)).await
            });
            let planned = session.plan().await.unwrap();
            let planned = Planned { plan: Plan { steps, ..Plan::default() }, ..planned };
            let error = session.carry_out(planned, &Manner::default()).await.unwrap_err();
            assert_eq!(told(&session), "+a a");
            assert!(error.what.contains(&format!("step b had no turn: it needs {}", needs[0])), "{error}");
        });
    }
}

#[test]
fn what_was_begun_is_cleaned_up_after_an_interrupt_too() {
    paused(async {
        let scenario = Scenario::parse("s.yaml", "machines: [{role: controlplane}]").unwrap();
        let session = Session::start(&scenario).await;
        let mut steps = Vec::new();
        for line in [
            ("a", Comes::Slow, &[][..], When::Needed),
            ("b", Comes::Done, &["a"], When::Needed),
            ("clean", Comes::Done, &["a"], When::Always),
        ] {
            steps.push(step(&session, line).await);
        }
        let planned = session.plan().await.unwrap();
        let planned = Planned { plan: Plan { steps, ..Plan::default() }, ..planned };
        let manner = Manner::default();
        let run = session.carry_out(planned, &manner);
        let interrupt = async {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            session.interrupt();
            std::future::pending::<()>().await;
        };
        let error = tokio::select! { done = run => done.unwrap_err(), () = interrupt => unreachable!() };
        assert_eq!(told(&session), "+a !a +clean clean", "{error}");
    });
}
