//! `sandbox up`: a simulated fleet for nodeprep, talosctl and kubectl.

use super::Global;
use crate::error::{Error, Kind, Result};
use crate::report;
use crate::sandbox::Sandbox;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Serve the fleet on this machine until interrupted.
    Up,
}

pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let What::Up = args.what;
    let sandbox = Sandbox::start(&global.scenario()?, global.sandbox_state.as_deref()).await?;
    let Some(fleet) = sandbox.fleet() else {
        return Err(Error::new(Kind::Unavailable, format!("{} is served already", sandbox.folder.display()))
            .hint("use it with --sandbox-state, or name another folder"));
    };
    let machines = fleet.look().machines.len();
    let folder = sandbox.folder.display();
    report::stdout(&format!(
        "simulated fleet of {machines} machines; Ctrl-C ends it\n\
         export TALOSCONFIG={folder}/talosconfig KUBECONFIG={folder}/kubeconfig SOPS_AGE_KEY_FILE={folder}/age.key\n\
         talosctl get disks\nkubectl get nodes\nnodeprep -f {folder}/nodeprep.yaml plan\n"
    ));
    let mut interrupted = super::interrupted();
    let _ = interrupted.wait_for(|interrupted| *interrupted).await;
    sandbox.save()
}
