//! What exists: nodes and cluster. Each part is a Result: "could not read" is data, not an abort.

pub mod about;
pub mod backups;
pub mod claims;
pub mod cluster;
pub mod contents;
pub mod identity;
pub mod nodes;
pub mod restores;
