//! Random schedules of faults: whatever goes wrong, a run ends converged or stopped with a true reason and keeps the laws,
//! and once nothing goes wrong any more the next run converges. One that fails is repeated by
//! `NODEPREP_SEED=N cargo test --test all nemesis`; `NODEPREP_SEEDS=N` runs so many.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nodeprep::error::{Error, Kind};
use nodeprep::plan::Plan;
use nodeprep_sandbox::machine::Mode;
use nodeprep_sandbox::machine::disks::Disk;
use nodeprep_sandbox::scenario::Scenario;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::common::report;
use crate::fleet::{Session, paused};
use crate::laws::{APPLY, CONFIGS, Laws, Meddling, changes, meddle};

/// How many schedules a plain `cargo test` runs; they take seconds each without optimization.
const SEEDS: u64 = 10;
/// A run that does not end within so much simulated time hangs.
const LONGEST: Duration = Duration::from_secs(3600);
/// The machine that others change.
const FIRST: &str = "10.5.0.2";
/// How a scenario calls the cluster's API server.
const KUBERNETES: &str = "kubernetes";
/// More runs than there are faults to use up.
const RUNS: usize = 40;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Apply,
    Bootstrap,
}

impl Verb {
    fn schedule(self, random: &mut StdRng) -> String {
        match self {
            Self::Apply => schedule(random),
            Self::Bootstrap => bare(random),
        }
    }

    async fn run(self, session: &Session) -> nodeprep::error::Result<()> {
        match self {
            Self::Apply => session.apply().await,
            Self::Bootstrap => session.bootstrap().await,
        }
    }

    /// What is left to do.
    async fn plan(self, session: &Session) -> nodeprep::error::Result<Plan> {
        let planned = match self {
            Self::Apply => session.plan().await?,
            Self::Bootstrap => session.plan_bootstrap().await?,
        };
        Ok(planned.plan)
    }
}

/// Machines without a config, and what goes wrong with them.
fn bare(random: &mut StdRng) -> String {
    let machines = random.random_range(1..=4);
    let mut text = String::from("machines:\n");
    for index in 0..machines {
        let version = ["v1.11.5", "v1.13.9"].choose(random).unwrap();
        let role = if index == 0 || random.random_bool(0.6) { "controlplane" } else { "worker" };
        text += &format!("  - {{maintenance: true, version: {version}, role: {role}}}\n");
    }
    text += "faults:\n";
    for _ in 0..random.random_range(1..=6) {
        let machine = format!("10.5.0.{}", 2 + random.random_range(0..machines));
        let calls = [
            "ApplyConfiguration",
            "Bootstrap",
            "Kubeconfig",
            "List",
            "Get *",
            "List *",
            "Watch *",
            "EtcdMemberList",
            "*",
        ];
        let kind = match random.random_range(0..6) {
            0 => "error: overloaded".to_owned(),
            1 => format!("delay: {}s", random.random_range(1..=45)),
            2 => "reset: true".to_owned(),
            3 | 4 => "dropAfterActing: true".to_owned(),
            _ => "reboot: true".to_owned(),
        };
        let call = calls.choose(random).unwrap();
        let after = if call.contains('*') { random.random_range(0..=25) } else { random.random_range(0..=2) };
        let times = random.random_range(1..=3);
        text +=
            &format!("  - {{where: '{machine}', call: '{call}', after: {after}, times: {times}, {kind}}}\n");
    }
    text
}

/// A fleet and what goes wrong with it, as a scenario file says it.
fn schedule(random: &mut StdRng) -> String {
    let machines = random.random_range(1..=3);
    let mut text = String::from("machines:\n");
    for index in 0..machines {
        let version = ["v1.11.5", "v1.12.4"].choose(random).unwrap();
        let held = ["", "xfs", "mbr", "u-other", "lvm2-pv"].choose(random).unwrap();
        text += &format!(
            "  - version: {version}\n    namesSwap: {}\n    role: {}\n    disks:\n\
             \x20     - {{name: nvme0n1, size: 1TB, serial: FREE{index}, wwid: eui.{index}1}}\n\
             \x20     - {{name: nvme1n1, size: 800GB, serial: HELD{index}, wwid: eui.{index}2, holds: '{held}'}}\n\
             \x20     - {{name: sda, size: 200GB, serial: SYS{index}, holds: talos}}\n",
            random.random_bool(0.3),
            if index == 0 { "controlplane" } else { "worker" },
        );
    }
    text += "faults:\n";
    for _ in 0..random.random_range(1..=6) {
        let machine = format!("10.5.0.{}", 2 + random.random_range(0..machines));
        let (place, calls) = match random.random_range(0..4) {
            0 | 1 => {
                (machine.as_str(), &["ApplyConfiguration", "Get *", "List *", "Watch *", "Version", "*"][..])
            }
            2 => ("kubernetes", &["GET *", "PATCH *", "POST *", "*"][..]),
            _ => ("*", &["*", "List *"][..]),
        };
        let kind = match random.random_range(0..7) {
            0 => "error: overloaded".to_owned(),
            1 => format!("delay: {}s", random.random_range(1..=45)),
            2 => "reset: true".to_owned(),
            3 => "dropAfterActing: true".to_owned(),
            4 => format!("cutAfter: {}s", random.random_range(1..=5)),
            5 if place != "kubernetes" => "reboot: true".to_owned(),
            _ => "compact: true".to_owned(),
        };
        let (after, times) = (random.random_range(0..=25), random.random_range(1..=3));
        let call = calls.choose(random).unwrap();
        text +=
            &format!("  - {{where: '{place}', call: '{call}', after: {after}, times: {times}, {kind}}}\n");
    }
    text
}

/// What went wrong until now.
#[derive(Debug, Default)]
struct Wrong {
    /// Where something did: machines, or `kubernetes`.
    places: BTreeSet<String>,
    /// Somebody else changed the config of the first machine.
    meddled: bool,
}

impl Wrong {
    /// A run that stopped must name what stood in its way: a place where something went wrong, as one that can't be used
    /// now, or as one that lost its first config by it; or the machine that somebody else changed. For nothing else may it
    /// stop.
    fn is_told_by(&self, error: &Error) -> Result<(), String> {
        let names = |place: &String| {
            error.what.contains(if place == KUBERNETES { "the API server" } else { place.as_str() })
        };
        let struck = self.places.iter().any(names);
        let rebooted = self.places.iter().any(|place| place != KUBERNETES);
        let told = match error.kind {
            // Somebody else's apply is under way, right when a plan is judged in a dry run.
            Kind::Unavailable if error.what.contains("another apply configuration") => self.meddled,
            Kind::Unavailable => struck,
            // Nodes that reboot can take no pods for a while.
            Kind::Refused if error.what.contains("(not Ready)") => rebooted,
            Kind::Refused if error.what.contains("came back without its config") => struck,
            Kind::Refused => self.meddled && error.what.contains(FIRST),
            _ => false,
        };
        if told {
            Ok(())
        } else {
            Err(format!("stopped for what is no reason: {error} ({:?}); {self:?}", error.kind))
        }
    }
}

/// How the runs of a schedule ended before the one that converged.
#[derive(Debug, Default)]
struct Ends {
    stopped: usize,
    killed: usize,
}

async fn survives(verb: Verb, seed: u64) -> Result<Ends, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let text = verb.schedule(&mut random);
    let session = Session::start(&Scenario::parse("schedule.yaml", &text).map_err(|e| e.to_string())?).await;
    let approved = |disk: &Disk| disk.serial.starts_with("FREE") || disk.serial.starts_with("SIMS");
    let laws = Laws::of(&session.fleet, verb == Verb::Apply, approved);
    // Now and then somebody else changes the first machine's config, or tries one, while a run looks at it.
    let others = (verb == Verb::Apply && random.random_bool(0.4)).then(|| {
        let mode = if random.random_bool(0.5) { Mode::NoReboot } else { Mode::Try };
        let after = random.random_range(0..4);
        (after, meddle(&session.fleet, FIRST, CONFIGS, after, Meddling::Config(mode)))
    });
    let (mut wrong, mut ends, mut why) = (Wrong::default(), Ends::default(), Vec::new());
    for _ in 0..RUNS {
        // Now and then the run is killed: what it would have done next is never done.
        let patience =
            if random.random_bool(0.3) { Duration::from_secs(random.random_range(1..30)) } else { LONGEST };
        let ended = tokio::time::timeout(patience, verb.run(&session)).await;
        let calls = session.fleet.calls();
        laws.kept(&calls, &session.fleet)?;
        wrong.meddled = others.as_ref().is_some_and(|(after, count)| count.load(Ordering::Relaxed) > *after);
        wrong.places.extend(calls.iter().filter(|call| call.faulty).map(|call| call.place.clone()));
        match ended {
            Ok(Ok(())) => return law_1(verb, &session).await.map(|()| ends),
            Ok(Err(error)) => {
                wrong.is_told_by(&error)?;
                ends.stopped += 1;
                why.push(error.to_string());
            }
            Err(_) if patience == LONGEST => return Err("a run did not end".into()),
            Err(_) => {
                ends.killed += 1;
                why.push(format!("killed after {patience:?}"));
                // Machines that were given their first config are away while they install Talos.
                let given = calls.iter().filter(|call| verb == Verb::Bootstrap && call.call == APPLY);
                wrong.places.extend(given.map(|call| call.place.clone()));
            }
        }
        // A machine that boots refuses every call at once; whoever tries again takes longer.
        tokio::time::sleep(Duration::from_secs(random.random_range(1..60))).await;
    }
    Err(format!("{RUNS} runs did not converge: {why:#?}"))
}

/// After it nothing is left to do, and doing it again changes nothing.
async fn law_1(verb: Verb, session: &Session) -> Result<(), String> {
    session.fleet.look().faults.0.clear();
    session.fleet.set_gate(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let plan = verb.plan(session).await.map_err(|error| format!("the plan after it: {error}"))?;
    let steps: Vec<&str> = plan.steps.iter().map(|step| step.title.as_str()).collect();
    if !plan.is_empty() {
        return Err(format!("after {verb:?} there is still: {steps:?}"));
    }
    verb.run(session).await.map_err(|error| format!("the run after it: {error}"))?;
    let changed = changes(&session.fleet.calls());
    if changed.is_empty() { Ok(()) } else { Err(format!("{verb:?} twice changes: {changed:?}")) }
}

#[test]
fn whatever_goes_wrong_a_run_converges_or_stops_with_a_true_reason() {
    all_survive(Verb::Apply);
}

#[test]
fn whatever_goes_wrong_a_bootstrap_ends_in_one_cluster_or_stops_with_a_true_reason() {
    all_survive(Verb::Bootstrap);
}

fn all_survive(verb: Verb) {
    let set = |key: &str| std::env::var(key).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = set("NODEPREP_SEED").map_or(0..set("NODEPREP_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let (seeds, wrong, ends) = (Mutex::new(seeds), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let next = || seeds.lock().unwrap().next();
    let work = || {
        while let Some(seed) = next() {
            match paused(survives(verb, seed)) {
                Ok(ended) => ends.lock().unwrap().push(ended),
                Err(why) => {
                    let text = verb.schedule(&mut StdRng::seed_from_u64(seed));
                    wrong.lock().unwrap().push(format!("NODEPREP_SEED={seed}: {why}\n{text}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().unwrap().get()).for_each(|_| drop(scope.spawn(work)));
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} schedules:\n{}", wrong.len(), wrong.join("\n"));
    let ends: Vec<Ends> = ends.into_inner().unwrap();
    let sum = |count: fn(&Ends) -> usize| ends.iter().map(count).sum::<usize>();
    let (stopped, killed) = (sum(|ends| ends.stopped), sum(|ends| ends.killed));
    report(&format!(
        "{verb:?}: {} schedules converged, after {stopped} runs that stopped with a reason and {killed} that were killed",
        ends.len()
    ));
}
