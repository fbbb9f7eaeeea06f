//! The design's laws, as far as the recorded calls of a run and the disks of the machines show them:
//!
//! 1. *After `apply`, `plan` is empty.* What runs after a run that converged asks for no change ([`changes`]).
//! 2. *Bootstrap once.* In all runs together, the call `Bootstrap` is made to one machine only.
//! 3. *Only approved disks are written.* Each volume of a config that is applied names exactly one disk of its machine, by
//!    serial or WWID, and that disk is approved; and no other disk holds anything else than before.
//! 4. *No data is lost without its token.* A disk that held something holds it still. `apply` knows no token, so no call
//!    wipes, resets or deletes (but for its own Lease).
//! 5. *One control plane at a time.* A run that was not told to reboot makes no call that could; a machine's first config
//!    disturbs nobody.
//! 6. *A plan never resumes on a world that moved.* A config is applied only when the same bytes were judged in a dry run,
//!    over the very config that the plan was made from, and none is staged or being tried, which it would undo or keep. And
//!    nothing is changed before the cluster's lock is taken, or after it was let go. What is there after a kill is compared
//!    in `crash.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nodeprep::error::Kind;
use nodeprep::observe;
use nodeprep::plan::wipe::{self, WipeRequest};
use nodeprep_sandbox::fleet::{Call, Change, Fleet, Gate, Moment};
use nodeprep_sandbox::machine::disks::{Contents, Disk};
use nodeprep_sandbox::machine::{Apply, Mode};
use nodeprep_sandbox::scenario::{Scenario, fingerprint};
use serde_json::Value;

use crate::fleet::{Session, paused};

pub(crate) const APPLY: &str = "ApplyConfiguration";
/// How the engine reads the configs of a node, and how a plan reads the one that it is made from.
pub(crate) const CONFIGS: &str = "List MachineConfigs.config.talos.dev";
const BASE: &str = "Get MachineConfigs.config.talos.dev";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Calls that lose data, and calls that take a machine down.
const LOSE: [&str; 4] = ["BlockDeviceWipe", "Reset", "EtcdRecover", "MetaDelete"];
const DISRUPT: [&str; 4] = ["Reboot", "Shutdown", "Upgrade", "Rollback"];

/// Disks by the address of their machine.
type Disks = BTreeMap<String, Vec<Disk>>;

/// What holds for all runs of a test.
pub(crate) struct Laws {
    /// As it was when the disks were approved.
    before: Disks,
    approved: fn(&Disk) -> bool,
    /// The runs take the cluster's lock.
    locks: bool,
    /// The machines that were asked to begin etcd.
    bootstrapped: Mutex<BTreeSet<String>>,
}

impl Laws {
    /// From how the fleet is now.
    pub(crate) fn of(fleet: &Fleet, locks: bool, approved: fn(&Disk) -> bool) -> Self {
        Self { before: disks(fleet), approved, locks, bootstrapped: Mutex::default() }
    }

    /// Whether one run, killed or not, kept the laws: by its calls, and by what is on the disks after it.
    pub(crate) fn kept(&self, calls: &[Call], fleet: &Fleet) -> Result<(), String> {
        self.only_approved_disks_changed(&disks(fleet))?;
        let mut held = !self.locks;
        let mut bootstrapped = self.bootstrapped.lock().unwrap();
        for (index, call) in calls.iter().enumerate() {
            let wrong = |what: &str| Err(format!("{} {}: {what}", call.place, call.call));
            if LOSE.contains(&call.call.as_str()) {
                return wrong("loses data, and no token was given");
            }
            if DISRUPT.contains(&call.call.as_str()) {
                return wrong("takes a machine down");
            }
            if call.call == "Bootstrap" && bootstrapped.insert(call.place.clone()) && bootstrapped.len() > 1 {
                return wrong("bootstraps a second machine");
            }
            let Some(change) = &call.change else { continue };
            if call.call == APPLY {
                self.may_apply(&calls[..index], call, change).or_else(|what| wrong(&what))?;
            }
            if change.dry {
                continue;
            }
            if is_lease(call) {
                held = !call.call.starts_with("DELETE") || !self.locks;
            } else if call.call.starts_with("DELETE") {
                return wrong("deletes something");
            } else if !held {
                return wrong("changes something without the lock");
            }
        }
        Ok(())
    }

    /// Laws 3 and 4, as the machines' own disks show them.
    fn only_approved_disks_changed(&self, after: &Disks) -> Result<(), String> {
        for (address, disks) in &self.before {
            for disk in disks {
                let now = after[address].iter().find(|now| now.serial == disk.serial);
                let now = now.ok_or_else(|| format!("{address}: {} is gone", disk.serial))?;
                let may = (self.approved)(disk) && disk.contents == Contents::Nothing;
                if now.contents != disk.contents && !may {
                    return Err(format!(
                        "{address}: {} holds {:?} now, was {:?}",
                        disk.serial, now.contents, disk.contents
                    ));
                }
            }
        }
        Ok(())
    }

    /// Laws 3, 5 and 6 for one config that is sent to one machine; `before` is what the run called until then.
    fn may_apply(&self, before: &[Call], call: &Call, change: &Change) -> Result<(), String> {
        let Some(standing) = call.config else { return Err("a machine that was not there".into()) };
        let first = standing.active == fingerprint("");
        if change.dry {
            let keeps = standing.tried && change.mode != Some(Mode::Try);
            return if keeps { Err("a dry run that ends a try".into()) } else { Ok(()) };
        }
        if first && change.mode == Some(Mode::Auto) {
            self.installs_on_an_approved_disk(&call.place, &change.body)?;
        } else if !matches!(change.mode, Some(Mode::NoReboot | Mode::Try | Mode::Staged)) {
            return Err(format!("may reboot: {:?}", change.mode));
        }
        self.asks_for_approved_disks(&call.place, &change.body)?;
        // What is tried is made permanent by applying the very same once more.
        if standing.tried && standing.active == fingerprint(&change.body) {
            return Ok(());
        }
        if standing.tried || standing.active != standing.persistent {
            return Err("applies while another config is staged or tried".into());
        }
        let over = |other: &Call| other.config.is_some_and(|config| config.active == standing.active);
        let mut here = before.iter().rev().filter(|other| other.place == call.place);
        let judged = |other: &&Call| {
            let dry = other.change.as_ref().is_some_and(|asked| asked.dry && asked.body == change.body);
            other.call == APPLY && dry && over(other)
        };
        if !here.clone().any(|other| judged(&other)) {
            return Err("no dry run judged these bytes over this config".into());
        }
        if first {
            return Ok(());
        }
        match here.find(|other| other.call == BASE) {
            Some(read) if over(read) => Ok(()),
            Some(_) => Err("the plan was made from another config".into()),
            None => Err("the config was never read".into()),
        }
    }

    fn installs_on_an_approved_disk(&self, address: &str, config: &str) -> Result<(), String> {
        let documents: Vec<Value> = serde_yaml::from_multiple(config).map_err(|error| error.to_string())?;
        let path = documents.iter().find_map(|document| document["machine"]["install"]["disk"].as_str());
        let disks = self.before.get(address).ok_or("a machine that was not there")?;
        let mut named = disks.iter().filter(|disk| path == Some(format!("/dev/{}", disk.name).as_str()));
        match named.next() {
            Some(disk) if (self.approved)(disk) => Ok(()),
            _ => Err(format!("installs Talos on {path:?}, which was not approved")),
        }
    }

    fn asks_for_approved_disks(&self, address: &str, config: &str) -> Result<(), String> {
        let documents: Vec<Value> = serde_yaml::from_multiple(config).map_err(|error| error.to_string())?;
        let disks = self.before.get(address).ok_or("a machine that was not there")?;
        for document in documents {
            let Some(selector) = document["provisioning"]["diskSelector"]["match"].as_str() else { continue };
            let quoted = |text: &str| !text.is_empty() && selector.contains(&format!("\"{text}\""));
            let named: Vec<&Disk> =
                disks.iter().filter(|disk| quoted(&disk.serial) || quoted(&disk.wwid)).collect();
            if !matches!(named[..], [disk] if (self.approved)(disk)) {
                return Err(format!("asks for a disk that was not approved: {selector}"));
            }
        }
        Ok(())
    }
}

fn disks(fleet: &Fleet) -> Disks {
    let world = fleet.look();
    world.machines.iter().map(|(address, machine)| (address.clone(), machine.disks.clone())).collect()
}

pub(crate) fn is_lease(call: &Call) -> bool {
    call.call.split_once(' ').is_some_and(|(_, path)| path.starts_with(LEASES))
}

/// What of these calls changes the world, besides the lock.
pub(crate) fn changes(calls: &[Call]) -> Vec<String> {
    let real = |call: &&Call| call.change.as_ref().is_some_and(|change| !change.dry) && !is_lease(call);
    calls.iter().filter(real).map(|call| format!("{} {}", call.place, call.call)).collect()
}

const ADDRESS: &str = "10.5.0.2";
const SCENARIO: &str = "machines:\n  - role: controlplane\n    disks:\n\
    \x20     - {name: nvme0n1, size: 1TB, serial: FREE, wwid: eui.1}\n\
    \x20     - {name: nvme1n1, size: 800GB, serial: HELD, wwid: eui.2, holds: xfs}\n\
    \x20     - {name: sda, size: 200GB, serial: SYS, holds: talos}\n";

async fn session() -> (Session, Laws) {
    let session = Session::start(&Scenario::parse("scenario.yaml", SCENARIO).unwrap()).await;
    let laws = Laws::of(&session.fleet, true, |disk| disk.serial == "FREE");
    (session, laws)
}

/// Something that is done to the calls of a run, or to the machine.
type Edit = fn(&mut Vec<Call>);

/// The call that applies the config.
fn applied(calls: &mut [Call]) -> &mut Call {
    calls.iter_mut().find(|call| call.call == APPLY && call.change.as_ref().is_some_and(|c| !c.dry)).unwrap()
}

fn insert(calls: &mut Vec<Call>, name: &str) {
    let call = Call { call: name.to_owned(), change: None, ..applied(calls).clone() };
    calls.push(call);
}

#[test]
fn each_breach_of_a_law_is_found_in_the_calls() {
    let (session, laws, calls) = paused(async {
        let (session, laws) = session().await;
        session.apply().await.unwrap();
        let calls = session.fleet.calls();
        laws.kept(&calls, &session.fleet).unwrap();
        assert!(changes(&calls).len() > 20, "{:?}", changes(&calls));
        session.apply().await.unwrap();
        assert!(changes(&session.fleet.calls()).is_empty());
        (session, laws, calls)
    });
    let breaches: [(&str, Edit); 14] = [
        ("without the lock", |calls| calls.retain(|call| !is_lease(call))),
        ("no dry run", |calls| calls.retain(|c| c.call != APPLY || !c.change.as_ref().unwrap().dry)),
        ("no dry run", |calls| applied(calls).change.as_mut().unwrap().body += "# other\n"),
        ("another config", |calls| {
            calls.iter_mut().filter(|c| c.call == BASE).for_each(|c| c.config.as_mut().unwrap().active += 1);
        }),
        ("never read", |calls| calls.retain(|c| c.call != BASE)),
        ("staged or tried", |calls| applied(calls).config.as_mut().unwrap().persistent += 1),
        ("staged or tried", |calls| applied(calls).config.as_mut().unwrap().tried = true),
        ("may reboot", |calls| applied(calls).change.as_mut().unwrap().mode = Some(Mode::Auto)),
        ("not approved", |calls| {
            let body = &mut applied(calls).change.as_mut().unwrap().body;
            *body = body.replace("FREE", "HELD");
        }),
        ("ends a try", |calls| {
            let call = applied(calls);
            (call.change.as_mut().unwrap().dry, call.config.as_mut().unwrap().tried) = (true, true);
        }),
        ("takes a machine down", |calls| insert(calls, "Reboot")),
        ("second machine", |calls| {
            insert(calls, "Bootstrap");
            insert(calls, "Bootstrap");
            calls.last_mut().unwrap().place = "10.5.0.3".into();
        }),
        ("no token", |calls| insert(calls, "BlockDeviceWipe")),
        ("deletes", |calls| {
            calls.last_mut().unwrap().call = "DELETE /api/v1/namespaces/velero".into();
            calls.last_mut().unwrap().change = Some(Change { dry: false, mode: None, body: String::new() });
        }),
    ];
    for (word, breach) in breaches {
        let mut calls = calls.clone();
        breach(&mut calls);
        let found = laws.kept(&calls, &session.fleet).unwrap_err();
        assert!(found.contains(word), "{word}: {found}");
    }
    let none = Laws { approved: |_| false, ..laws };
    assert!(none.kept(&[], &session.fleet).unwrap_err().contains("FREE holds Gpt"));
}

/// What somebody else does to the machine while a run is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddling {
    /// A config is applied, or staged, or tried for a minute.
    Config(Mode),
    /// The free disk gets a file system that Talos takes for nothing.
    Data,
}

/// Lets somebody meddle right before a call of this name goes in, when so many went in before it; the count of those calls.
pub(crate) fn meddle(
    fleet: &Arc<Fleet>,
    address: &str,
    name: &'static str,
    after: usize,
    what: Meddling,
) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (held, seen, place) = (Arc::downgrade(fleet), Arc::clone(&count), address.to_owned());
    let gate = move |call: &Call, moment: Moment| {
        let ours = moment == Moment::Comes && call.place == place && call.call == name;
        if ours && seen.fetch_add(1, Ordering::Relaxed) == after {
            held.upgrade().unwrap().act(|world, now| {
                let (machine, timers) = world.machine(&place).unwrap();
                let config = machine.active.clone().unwrap().replace("debug: false", "debug: true");
                match what {
                    Meddling::Config(mode) => {
                        let asked = Apply { config: &config, mode, dry_run: false, try_timeout: None };
                        // One that comes during another apply is refused, and nothing happened.
                        let _ = machine.apply(&asked, timers, now);
                    }
                    Meddling::Data => {
                        let free = |disk: &&mut Disk| disk.contents == Contents::Nothing;
                        if let Some(disk) = machine.disks.iter_mut().find(free) {
                            disk.contents = data();
                        }
                        machine.dirty = true;
                    }
                }
            });
        }
        false
    };
    fleet.set_gate(Some(Gate::new(gate)));
    count
}

fn data() -> Contents {
    Contents::Whole("ntfs".into())
}

#[test]
fn a_world_that_moved_since_it_was_planned_is_left_as_it_is() {
    const DISKS: &str = "List Disks.block.talos.dev";
    let staged = Meddling::Config(Mode::Staged);
    let (tried, applied) = (Meddling::Config(Mode::Try), Meddling::Config(Mode::NoReboot));
    // The first read is the plan's, and all others are the engine's.
    for (what, name, after) in [
        (staged, CONFIGS, 1),
        (staged, CONFIGS, 2),
        (tried, CONFIGS, 1),
        (tried, CONFIGS, 2),
        (applied, CONFIGS, 1),
        (applied, CONFIGS, 2),
        (Meddling::Data, DISKS, 0),
        (Meddling::Data, DISKS, 1),
    ] {
        paused(async {
            let (session, laws) = session().await;
            let count = meddle(&session.fleet, ADDRESS, name, after, what);
            let ended = session.apply().await;
            assert!(
                count.load(Ordering::Relaxed) > after,
                "{what:?} before {name} {after}: never came to it"
            );
            laws.kept(&session.fleet.calls(), &session.fleet)
                .unwrap_or_else(|breach| panic!("{what:?} before {name} {after}: {breach}"));
            let error = ended.expect_err("the world moved");
            assert_eq!(error.kind, Kind::Refused, "{what:?} before {name} {after}: {error}");
            let disks = disks(&session.fleet);
            let expected = if what == Meddling::Data { data() } else { Contents::Nothing };
            assert_eq!(disks[ADDRESS][0].contents, expected, "{what:?} before {name} {after}");
        });
    }
}

/// Law 4 where the calls begin: there is no step that wipes without the token of its disk.
#[test]
fn no_disk_that_holds_something_is_planned_to_be_wiped_without_its_own_token() {
    paused(async {
        let (session, _) = session().await;
        let planned = session.plan().await.unwrap();
        let addresses = [ADDRESS.to_owned()];
        let talos = planned.talos.unwrap();
        let nodes = observe::nodes::observe_all(&talos, &addresses, session.fleet.now()).await.unwrap();
        let named = ["nvme1n1".to_owned()];
        for (token, may) in [(None, false), (Some("FREE"), false), (Some("SYS"), false), (Some("HELD"), true)]
        {
            let tokens: Vec<String> = token.into_iter().map(str::to_owned).collect();
            let asked = WipeRequest { disks: &named, tokens: &tokens, ..WipeRequest::default() };
            let planned = wipe::plan(wipe::find(&nodes, asked).unwrap(), &tokens);
            assert_eq!(planned.is_ok(), may, "{token:?}: {planned:?}");
        }
    });
}
