//! The only place that executes a plan: engine, journal, lock.

mod bootstrap;
mod config;
mod engine;
mod install;
mod journal;
mod lease;
mod lock;
mod node;
mod quorum;
mod reboot;
mod waves;
mod wipe;

pub use bootstrap::begun_on;
pub use config::reboots;
pub use engine::{World, run};
pub use journal::{CutOff, Entry, Journal, last_run};
pub use lease::{Held, Holder, Lease, give_up};
pub use lock::Lock;
pub use reboot::losses;
pub use waves::Parallel;
