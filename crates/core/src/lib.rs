//! The core of nodeprep: what is asked, what machines and clusters are made of, what to do about it, and what is told of
//! it. Values in, values out: there is no clock, no file, no socket, no thread here, and nothing that could have one
//! (`Cargo.toml`).

pub mod config_doc;
pub mod error;
pub mod event;
pub mod intent;
pub mod judge;
pub mod model;
pub mod plan;
pub mod stack;
pub mod yaml;
