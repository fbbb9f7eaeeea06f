//! What was asked for: `nodeprep.yaml`, typed and validated, its errors pointing at the line.

mod parse;
mod size;
mod types;
mod validate;

pub use parse::{parse, schema};
pub use size::{Duration, Size};
pub use types::*;
