//! A world that is served: one lock, the clock, and those who wait for changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::faults::Fault;
use super::serve::network::Network;
use super::world::World;

/// The world, shared by the servers.
#[derive(Debug)]
pub struct Fleet {
    world: Mutex<World>,
    /// Counts up when something was changed.
    changed: watch::Sender<u64>,
    started: (Timestamp, Instant),
    /// Where its servers listen.
    network: Network,
    /// What was called, when that is kept.
    calls: Mutex<Option<Vec<Call>>>,
}

/// A call that a server took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub at: Timestamp,
    /// As in a scenario's faults: a machine's address, or `kubernetes`.
    pub place: String,
    pub call: String,
    /// Something was staged to go wrong with it.
    pub faulty: bool,
}

impl Fleet {
    /// Starts the clock at this time. What is due is done from then on, while the fleet is held; must be called inside
    /// a Tokio runtime.
    pub fn new(world: World, now: Timestamp, network: Network) -> Arc<Self> {
        let fleet = Arc::new(Self {
            world: Mutex::new(world),
            changed: watch::Sender::new(0),
            started: (now, Instant::now()),
            network,
            calls: Mutex::default(),
        });
        let held = Arc::downgrade(&fleet);
        let mut changed = fleet.changed.subscribe();
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
                    changed = changed.changed() => if changed.is_err() { return },
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
        let before = world.revision();
        world.settle(now);
        let done = what(&mut world, now);
        world.settle(now);
        if world.revision() != before {
            self.changed.send_modify(|count| *count += 1);
        }
        done
    }

    /// The world as it is.
    pub fn look(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The fault that is staged for this call, if there is one.
    pub fn fault(&self, place: &str, call: &str) -> Option<Fault> {
        let fault = self.look().faults.at(place, call);
        if let Some(calls) = self.calls.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let (place, call) = (place.to_owned(), call.to_owned());
            calls.push(Call { at: self.now(), place, call, faulty: fault.is_some() });
        }
        fault
    }

    /// The calls since this was asked before; they are kept from the first time on.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.replace(Vec::new()).unwrap_or_default()
    }
}
