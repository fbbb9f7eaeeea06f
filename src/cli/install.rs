//! `install`: the stack alone.

use super::Global;
use super::apply::{Care, Pace, carry_out};
use super::plan::Part;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    care: Care,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    carry_out(global, &intent, "install", Part::Stack, &args.care, &Pace::default(), super::interrupted())
        .await
}
