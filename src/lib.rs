//! nodeprep takes Talos machines from bare NVMe disks to proven, backed-up Kubernetes storage.
//!
//! The modules, in the order of the flow (ARCHITECTURE.md):
//!
//! * what is asked: [`intent`]
//! * what exists: [`observe`], read through [`talos`] and [`cluster`]
//! * what to do about it: [`plan`], with [`stack`] and [`config_doc`]
//! * doing it: [`session`]
//! * judging it: [`judge`], [`check`]
//! * telling it: [`event`], [`report`]
//! * underneath: [`secrets`], [`state`], [`yaml`], [`dial`], [`s3`], [`error`]; on top: [`cli`]
//! * to try it all without machines: the package `nodeprep-sandbox`, which only [`cli`] knows

pub use nodeprep_core::{config_doc, error, event, intent, judge, model, plan, stack, yaml};
pub use nodeprep_wire::dial;

pub mod check;
pub mod cli;
pub mod cluster;
pub mod observe;
pub mod report;
pub mod s3;
pub mod secrets;
pub mod session;
pub mod state;
pub mod talos;
pub mod wait;
