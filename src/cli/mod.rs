//! One file per verb: its arguments and its run.

mod apply;
mod cleanup;
mod discover;
mod global;
mod install;
mod plan;
mod secrets;
mod status;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Kind, Result};
use crate::report;

pub use global::Global;

/// From bare NVMe disks on Talos to proven, backed-up Kubernetes storage.
#[derive(Debug, Parser)]
#[command(name = "nodeprep", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every node's disks and who owns their bytes.
    Discover(discover::Args),
    /// Show what apply would change, and change nothing.
    Plan(plan::Args),
    /// Make it so: volumes, labels, the stack; then prove it.
    Apply(apply::Args),
    /// Install the stack alone: provisioner, classes, Velero.
    Install(install::Args),
    /// Prove that the storage works.
    Validate(validate::Args),
    /// Show what the last run did and where it stopped.
    Status(status::Args),
    /// Remove what tests left in the cluster.
    Cleanup(cleanup::Args),
    /// Make keys; encrypt and decrypt SOPS files.
    Secrets(secrets::Args),
    /// Print the JSON schema of nodeprep.yaml.
    Schema,
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

/// The whole program; returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let global = cli.global;
    match cli.verb {
        Verb::Schema => report::stdout(&format!("{:#}\n", crate::intent::schema())),
        Verb::Completions { shell } => completions(shell),
        Verb::Secrets(args) => secrets::run(args)?,
        Verb::Status(args) => status::run(&global, &args)?,
        Verb::Discover(args) => on_runtime(discover::run(&global, &args))?,
        Verb::Plan(args) => return on_runtime(plan::run(&global, &args)),
        Verb::Apply(args) => on_runtime(apply::run(&global, &args))?,
        Verb::Install(args) => on_runtime(install::run(&global, &args))?,
        Verb::Validate(args) => on_runtime(validate::run(&global, &args))?,
        Verb::Cleanup(args) => on_runtime(cleanup::run(&global, &args))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a verb that speaks to nodes or the cluster.
fn on_runtime<T>(verb: impl Future<Output = Result<T>>) -> Result<T> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| Error::failed("another TLS provider is installed already"))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("can't start the runtime: {e}")))?
        .block_on(verb)
}

fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nodeprep", &mut script);
    report::stdout(&String::from_utf8_lossy(&script));
}

/// Set to true on Ctrl-C or SIGTERM; a second signal ends the process at once.
pub(crate) fn interrupted() -> tokio::sync::watch::Receiver<bool> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        for round in 1.. {
            signal().await;
            if round > 1 {
                #[expect(clippy::exit, reason = "the second signal means now")]
                std::process::exit(i32::from(Kind::Interrupted.exit_code()));
            }
            report::stderr("\ninterrupted: finishing the step and cleaning up; again to stop at once\n");
            let _ = sender.send(true);
        }
    });
    receiver
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    /// Clap keeps the values of one id in one place: a global switch's default would become the verb's own argument.
    #[test]
    fn no_argument_of_a_verb_has_the_id_of_a_global_one() {
        fn check(command: &clap::Command, global: &[clap::Id]) {
            for verb in command.get_subcommands() {
                let own: Vec<_> = verb.get_arguments().map(|arg| arg.get_id()).collect();
                assert!(own.iter().all(|id| !global.contains(id)), "{}: {own:?}", verb.get_name());
                check(verb, global);
            }
        }
        let cli = super::Cli::command();
        let global = cli.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.get_id().clone());
        check(&cli, &global.collect::<Vec<_>>());
    }
}
