//! `install`: the stack alone.

use super::Global;
use super::apply::{Consent, Rollout, carry_out, open};
use crate::error::Result;
use crate::session::Part;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    consent: Consent,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let intent = global.intent()?;
    let session = open(global, &intent.metadata.name, "install", super::interrupted(global.events()))?;
    carry_out(global, &intent, &session, Part::Stack, &args.consent, &Rollout::default()).await
}
