//! What was asked for: `nodeprep.yaml`, typed and validated, its errors pointing at the line; and how a first one is made.

#[macro_use]
mod as_text;
mod address;
mod class;
mod cron;
mod duration;
pub mod import;
pub mod init;
mod node;
mod parse;
mod pods;
pub mod quantity;
mod schedule;
mod size;
mod typed;
mod types;
mod validate;
mod volume;

pub use address::{distinct, distinct_by, same_address};
pub use class::*;
pub use cron::Cron;
pub use duration::Duration;
pub use node::OnNode;
pub use parse::{parse, parse_with, schema};
pub use pods::*;
pub use schedule::*;
pub use size::{MaxSize, Percent, Size};
pub use types::*;
pub use volume::*;
