//! `sandbox up`: a simulated fleet for nodeprep, talosctl and kubectl.

use super::Global;
use crate::error::{Error, Result};
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Serve the fleet on this machine until interrupted.
    Up,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    let What::Up = args.what;
    let sandbox = global.start_sandbox().await?;
    let Some(fleet) = sandbox.fleet() else {
        return Err(Error::unavailable(format!("{} is served already", sandbox.folder.display()))
            .hint("use it with --sandbox-state, or name another folder"));
    };
    let machines = fleet.look().machines.len();
    let folder = sandbox.folder.display();
    let new: String = sandbox
        .maintenance()
        .iter()
        .map(|(node, address)| {
            format!("talosctl -n {address} get disks --insecure  # {node}, in maintenance mode\n")
        })
        .collect();
    report::stdout(&format!(
        "simulated fleet of {machines} machines; Ctrl-C ends it\n\
         export TALOSCONFIG={folder}/talosconfig KUBECONFIG={folder}/kubeconfig SOPS_AGE_KEY_FILE={folder}/age.key\n\
         talosctl get disks\nkubectl get nodes\nnodeprep -f {folder}/nodeprep.yaml plan\n{new}"
    ));
    let mut interrupted = super::interrupted(global.events());
    let _ = interrupted.wait_for(|interrupted| *interrupted).await;
    sandbox.save()
}
