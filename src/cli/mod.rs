//! One file per verb: its arguments and its run.

mod abort;
mod apply;
mod backup;
mod beside;
mod bootstrap;
mod cleanup;
mod discover;
mod drill;
mod first_files;
mod global;
mod init;
mod install;
mod patches;
mod plan;
mod rehearsal;
mod remove;
mod restore;
mod sandbox;
mod secrets;
mod status;
mod store;
mod validate;
mod wipe;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{LazyLock, OnceLock};

use clap::{CommandFactory, Parser, Subcommand};
use nodeprep_sandbox::Sandbox;

use crate::check;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::report;

pub use first_files::first_files;
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
    /// Write a first nodeprep.yaml: from topf.yaml, talconfig.yaml or the cluster itself.
    Init(init::Args),
    /// Show every node's disks and who owns their bytes.
    Discover(discover::Args),
    /// Show what apply would change, and change nothing.
    Plan(plan::Args),
    /// Make it so: volumes, labels, the stack; then prove it.
    Apply(apply::Args),
    /// From machines in maintenance mode to a cluster: give each its config, begin etcd once, fetch the kubeconfig (into
    /// --kubeconfig, else beside the file); then apply.
    Bootstrap(bootstrap::Args),
    /// Write the machine config part as patches for talosctl, topf, talhelper or talm.
    Patches(patches::Args),
    /// Install the stack alone: provisioner, classes, Velero.
    Install(install::Args),
    /// Wipe a disk, or a leftover volume's partition; only by its serial.
    Wipe(wipe::Args),
    /// Take a volume away from nodes, and its data with it.
    Remove(remove::Args),
    /// Back up now, and see that every claim is in it; or list the backups.
    Backup(backup::Args),
    /// Bring back what a backup holds: everything, namespaces (also under other names), or one claim.
    Restore(restore::Args),
    /// Prove that backups restore: write fresh files, back them up, destroy them, restore them, compare.
    Drill(drill::Args),
    /// Prove that the storage works.
    Validate(validate::Args),
    /// Show what the last run did and where it stopped.
    Status(status::Args),
    /// Give up a run that was cut off: remove its test objects, release its locks.
    Abort(abort::Args),
    /// Remove what tests left in the cluster.
    Cleanup(cleanup::Args),
    /// Serve a simulated fleet to nodeprep, talosctl and kubectl.
    Sandbox(sandbox::Args),
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
    let done = ExitCode::SUCCESS;
    match cli.verb {
        Verb::Schema => report::stdout(&format!("{:#}\n", crate::intent::schema())),
        Verb::Completions { shell } => completions(shell),
        Verb::Secrets(args) => secrets::run(args)?,
        Verb::Sandbox(args) => on_runtime(sandbox::run(&global, &args))?,
        verb => {
            let file = global.file.clone();
            let global = Global { begins: matches!(verb, Verb::Bootstrap(_)), ..global };
            return on_runtime(in_sandbox(global, async |global| {
                match verb {
                    Verb::Init(args) => init::run(global, &args, &file).await?,
                    Verb::Patches(args) => patches::run(global, &args).await?,
                    Verb::Status(args) => status::run(global, &args)?,
                    Verb::Abort(args) => abort::run(global, &args).await?,
                    Verb::Discover(args) => discover::run(global, &args).await?,
                    Verb::Plan(args) => return plan::run(global, &args).await,
                    Verb::Apply(args) => apply::run(global, &args).await?,
                    Verb::Bootstrap(args) => bootstrap::run(global, &args).await?,
                    Verb::Install(args) => install::run(global, &args).await?,
                    Verb::Wipe(args) => wipe::run(global, &args).await?,
                    Verb::Remove(args) => remove::run(global, &args).await?,
                    Verb::Backup(args) => backup::run(global, &args).await?,
                    Verb::Restore(args) => restore::run(global, &args).await?,
                    Verb::Drill(args) => drill::run(global, &args).await?,
                    Verb::Validate(args) => validate::run(global, &args).await?,
                    Verb::Cleanup(args) => cleanup::run(global, &args).await?,
                    Verb::Schema | Verb::Completions { .. } | Verb::Secrets(_) | Verb::Sandbox(_) => {}
                }
                Ok(done)
            }));
        }
    }
    Ok(done)
}

/// Runs a verb, in the sandbox when the switches ask for one.
async fn in_sandbox(
    mut global: Global,
    verb: impl AsyncFnOnce(&Global) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let sandbox = global.enter_sandbox().await?;
    if sandbox.is_some() {
        global.events().say(
            "simulated: the nodes, the cluster and all figures are of a sandbox; nothing real is touched",
        );
    }
    let done = verb(&global).await;
    let saved = sandbox.as_ref().map_or(Ok(()), Sandbox::save);
    done.and_then(|code| saved.map(|()| code))
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

/// Where the running verb keeps the list of its test objects.
static MAY_LEAVE: OnceLock<PathBuf> = OnceLock::new();

/// The verb is about to make test objects, which are on record in this folder.
fn may_leave(folder: &Path) {
    let _ = MAY_LEAVE.set(folder.to_owned());
}

/// Says what a run that stops at once leaves, and how it goes.
fn left(events: &Events) {
    events.say("stopped at once: `nodeprep status` shows the step that may be half done");
    for namespace in MAY_LEAVE.get().map(|folder| check::left(folder).unwrap_or_default()).unwrap_or_default()
    {
        events.say(format!(
            "left in the cluster: namespace {namespace} and what is in it; `nodeprep cleanup` removes it"
        ));
    }
}

/// Set to true on Ctrl-C, SIGTERM or SIGHUP; a second signal ends the process at once.
pub(crate) fn interrupted(events: Events) -> tokio::sync::watch::Receiver<bool> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        for round in 1.. {
            signal().await;
            if round > 1 {
                left(&events);
                #[expect(clippy::exit, reason = "the second signal means now")]
                std::process::exit(i32::from(Kind::Interrupted.exit_code()));
            }
            events.say("interrupted: finishing the step and cleaning up; again to stop at once");
            let _ = sender.send(true);
        }
    });
    receiver
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let one = async |kind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::hangup()), if !hangup_is_ignored() => {}
    }
}

/// Whether the process was started so that it outlives its terminal, as `nohup` does.
fn hangup_is_ignored() -> bool {
    static IGNORED: LazyLock<bool> = LazyLock::new(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
    });
    *IGNORED
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
