//! `install`: the stack alone.

use super::Global;
use super::apply::{Care, Pace, carry_out, open};
use crate::error::Result;
use crate::session::Part;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    care: Care,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let session = open(global, &intent.metadata.name, "install", super::interrupted(global.events()))?;
    carry_out(global, &intent, &session, Part::Stack, &args.care, &Pace::default()).await
}
