//! nodeprep takes Talos machines from bare NVMe disks to proven, backed-up Kubernetes storage.
//!
//! The modules, in the order of the flow (ARCHITECTURE.md):
//!
//! * what is asked: [`intent`]
//! * what is there: [`observe`], read through [`talos`] and [`cluster`]
//! * what to do about it: [`plan`], with [`stack`] and [`config_doc`]
//! * doing it: [`session`]
//! * judging it: [`check`]
//! * telling it: [`event`], [`report`]
//! * underneath: [`secrets`], [`state`], [`yaml`], [`dial`], [`s3`], [`error`], `packed`; on top: [`cli`]
//! * to try it all without machines: [`sandbox`]

pub mod check;
pub mod cli;
pub mod cluster;
pub mod config_doc;
pub mod dial;
pub mod error;
pub mod event;
pub mod intent;
pub mod model;
pub mod observe;
mod packed;
pub mod plan;
pub mod report;
pub mod s3;
pub mod sandbox;
pub mod secrets;
pub mod session;
pub mod stack;
pub mod state;
pub mod talos;
pub mod yaml;
