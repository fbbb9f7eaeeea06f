//! A world that is served: one lock, the clock, and those who wait for changes.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::{Changes, Seen};
use super::faults::Fault;
use super::machine::{Machine, Mode};
use super::scenario::fingerprint;
use super::serve::network::Network;
use super::world::World;

/// The world, shared by the servers.
#[derive(Debug)]
pub struct Fleet {
    world: Mutex<World>,
    /// Counts up when something was changed.
    changed: Changes,
    /// Something is due sooner than it was.
    sooner: Arc<Notify>,
    started: (Timestamp, Instant),
    /// Where its servers listen.
    network: Network,
    /// What leads to its API server.
    kubeconfig: OnceLock<String>,
    /// What was called, when that is kept.
    calls: Mutex<Option<Vec<Call>>>,
    gate: Mutex<Option<Gate>>,
}

/// A call that a server took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub at: Timestamp,
    /// As in a scenario's faults: a machine's address, or `kubernetes`.
    pub place: String,
    pub call: String,
    /// What follows the path in a request to Kubernetes, such as the selector of what it lists.
    pub query: String,
    /// Something was staged to go wrong with it.
    pub faulty: bool,
    /// What it asks to change; nothing when it only reads.
    pub change: Option<Change>,
    /// How the machine's configurations stood when it came; kept for calls of a machine only.
    pub config: Option<Standing>,
}

/// What a call asks to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// To be judged, and not done.
    pub dry: bool,
    /// How a machine's configuration is to be applied.
    pub mode: Option<Mode>,
    pub body: String,
}

/// How a machine's configurations stand, by their fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub active: u64,
    /// Of the one that it boots with next.
    pub persistent: u64,
    /// The active one is only tried.
    pub tried: bool,
}

/// When a gate sees a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It came, and nothing was done yet.
    Comes,
    /// What it asks for is done, and it is not answered yet.
    Acted,
}

/// What sees every call at both moments, for tests that need to stop a client, or to change the world, at exactly one
/// of them. A call that it holds goes no further, and is never answered.
#[derive(Clone)]
pub struct Gate(Arc<Holds>);

type Holds = dyn Fn(&Call, Moment) -> bool + Send + Sync;

impl Gate {
    /// `holds` says whether a call is held.
    pub fn new(holds: impl Fn(&Call, Moment) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Standing {
    fn of(machine: &Machine) -> Self {
        let print = |config: &Option<String>| fingerprint(config.as_deref().unwrap_or_default());
        Self {
            active: print(&machine.active),
            persistent: print(&machine.persistent),
            tried: machine.before_try.is_some(),
        }
    }
}

impl Fleet {
    /// Starts the clock at this time. What is due is done from then on, while the fleet is held; must be called inside
    /// a Tokio runtime.
    pub fn new(world: World, now: Timestamp, network: Network) -> Arc<Self> {
        let fleet = Arc::new(Self {
            world: Mutex::new(world),
            changed: Changes::default(),
            sooner: Arc::default(),
            started: (now, Instant::now()),
            network,
            kubeconfig: OnceLock::new(),
            calls: Mutex::default(),
            gate: Mutex::default(),
        });
        let held = Arc::downgrade(&fleet);
        let (mut changed, sooner) = (fleet.changed.seen(), Arc::clone(&fleet.sooner));
        tokio::spawn(async move {
            loop {
                let Some(fleet) = held.upgrade() else { return };
                let wait = fleet.act(|world, now| world.next().map(|next| next.duration_since(now)));
                drop(fleet);
                let wait = wait.map_or(Duration::from_secs(3600), |wait| {
                    Duration::try_from(wait.max(SignedDuration::ZERO)).unwrap_or_default()
                });
                tokio::select! {
                    biased;
                    changed = changed.changed() => if changed.is_none() { return },
                    () = sooner.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        });
        fleet
    }

    /// Where its servers listen.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What leads to its API server, once that is served. It may not answer yet.
    pub fn kubeconfig(&self) -> Option<&str> {
        self.kubeconfig.get().map(String::as_str)
    }

    /// Its API server is served, and this leads to it. What was said first stays.
    pub fn set_kubeconfig(&self, text: String) {
        self.kubeconfig.get_or_init(|| text);
    }

    /// The sandbox's time.
    pub fn now(&self) -> Timestamp {
        let (start, began) = self.started;
        let passed = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::ZERO);
        start.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Does something to the world at this time, lets follow what follows, and wakes who waits for changes.
    pub fn act<T>(&self, what: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let now = self.now();
        let mut world = self.look();
        let (before, due) = (world.revision(), world.next());
        world.settle(now);
        let done = what(&mut world, now);
        world.settle(now);
        if world.revision() != before {
            self.changed.tell();
        } else if world.next().is_some_and(|next| due.is_none_or(|due| next < due)) {
            self.sooner.notify_one();
        }
        done
    }

    /// The world as it is.
    pub fn look(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changes(&self) -> Seen {
        self.changed.seen()
    }

    /// Lets a call in: keeps it, and says what is staged to go wrong with it. Never returns for one that is held.
    pub async fn admit(
        &self,
        place: &str,
        (name, query): (&str, &str),
        change: Option<Change>,
    ) -> (Call, Option<Fault>) {
        let (place, name, query) = (place.to_owned(), name.to_owned(), query.to_owned());
        let mut call = Call { at: self.now(), place, call: name, query, faulty: false, change, config: None };
        let (held, fault) = self.take(&mut call);
        if held {
            std::future::pending::<()>().await;
        }
        (call, fault)
    }

    /// Whether the call is held, and its fault. Whoever is told of it by the gate finds it among the calls.
    fn take(&self, call: &mut Call) -> (bool, Option<Fault>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.holds(call, Moment::Comes);
        let fault = self.look().faults.at(&call.place, &call.call);
        call.faulty = fault.is_some();
        if let Some(calls) = calls.as_mut() {
            call.config = self.look().machines.get(&call.place).map(Standing::of);
            calls.push(call.clone());
        }
        (held, fault)
    }

    /// What a call asks for is done. Never returns for one that is held.
    pub async fn acted(&self, call: &Call) {
        if self.holds(call, Moment::Acted) {
            std::future::pending::<()>().await;
        }
    }

    fn holds(&self, call: &Call, moment: Moment) -> bool {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner).clone();
        gate.is_some_and(|Gate(holds)| holds(call, moment))
    }

    /// From now on this gate sees every call, or none does.
    pub fn set_gate(&self, gate: Option<Gate>) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// The calls since this was asked before; they are kept from the first time on.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.replace(Vec::new()).unwrap_or_default()
    }
}
