//! All tests of the crate's outside, in one program: each further one would compile and link the crate's generics anew.
//! What needs a real machine or the real sops is `#[ignore]`d; `e2e/` runs it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod architecture;
mod backup;
mod backup_now;
mod bare;
mod cel;
mod cli;
mod common;
mod config_doc;
mod conformance;
mod crash;
mod csi;
mod drill;
mod drilled;
mod events;
mod fleet;
mod graph;
mod init;
mod laws;
mod lease;
mod merge;
mod mounts;
mod nemesis;
mod one_cluster;
mod patches;
mod placement;
mod plan_disks;
mod plan_node;
mod plan_wipe;
mod quorum;
mod rehearsal;
mod repeatable;
mod restore;
mod sandbox;
mod saved_plan;
mod scenarios;
mod session;
mod sizes;
mod sops;
mod stack_plan;
mod stack_render;
mod talos;
mod tried;
mod volumes;
mod waves;
mod words;
