//! The only place that executes a plan: engine, journal, lock.

mod config;
mod engine;
mod journal;
mod lease;
mod lock;
mod node;
mod quorum;
mod reboot;
mod waves;
mod wipe;

pub use config::reboots;
pub use engine::{World, run};
pub use journal::{CutOff, Entry, Journal, last_run};
pub use lease::{Held, Holder, Lease, give_up};
pub use lock::Lock;
pub use waves::Parallel;
