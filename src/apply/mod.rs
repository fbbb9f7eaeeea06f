//! The only place that executes a plan: engine, journal, lock.

mod engine;
mod journal;
mod lock;
mod node;
mod wipe;

pub use engine::{World, run};
pub use journal::{Entry, Journal, digest, last_run};
pub use lock::Lock;
