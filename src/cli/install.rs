//! `install`: the stack alone.

use super::Global;
use super::apply::carry_out;
use super::plan::Part;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Carry the plan out unasked.
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    carry_out(global, &intent, "install", Part::Stack, args.yes, super::interrupted()).await
}
