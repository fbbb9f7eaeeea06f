//! What was asked for: `nodeprep.yaml`, typed and validated, its errors pointing at the line; and how a first one is made.

mod cron;
pub mod import;
pub mod init;
mod node;
mod parse;
mod pods;
mod size;
mod types;
mod validate;
mod volume;

pub use cron::Cron;
pub use node::OnNode;
pub use parse::{parse, parse_with, schema};
pub use pods::*;
pub use size::{Duration, MaxSize, Size};
pub use types::*;
pub use volume::*;
