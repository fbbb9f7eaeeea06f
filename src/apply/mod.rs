//! The only place that executes a plan: engine, journal, lock.
