//! `patches`: what apply would put into the machine configs, as files for those who keep configs with another tool.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use secrecy::ExposeSecret;

use super::Global;
use super::beside::Beside;
use crate::config_doc::ConfigDoc;
use crate::error::{Error, Result};
use crate::intent::import::{Import, import};
use crate::model::node::Node;
use crate::observe::nodes::observe_answering;
use crate::plan::machine::asked;
use crate::plan::patches::{Host, PatchFile, Tool, WantedConfig, files};
use crate::report;
use crate::state::write_private;

/// The tools by their names.
fn tools() -> impl TypedValueParser<Value = Tool> {
    let named = |name: String| Tool::ALL.into_iter().find(|tool| tool.name() == name).ok_or("no such tool");
    PossibleValuesParser::new(Tool::ALL.map(Tool::name)).try_map(named)
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tool that keeps the machine configs.
    #[arg(long = "for", value_parser = tools(), value_name = "TOOL", required_unless_present = "onto", requires = "out")]
    tool: Option<Tool>,
    /// The folder to write to.
    #[arg(long, value_name = "DIR", requires = "tool")]
    out: Option<PathBuf>,
    /// Merge it into this machine config, of one node, as talosctl would; what else the file says stays as it is written.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tool", "out", "from", "force"])]
    onto: Option<PathBuf>,
    /// The tool's own file, for the names that it gives the nodes [default: topf.yaml or talconfig.yaml in DIR].
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Overwrite files that exist and say something else.
    #[arg(long)]
    force: bool,
}

/// What is written, and where to.
struct Task<'a> {
    tool: Tool,
    out: &'a Path,
    from: Option<&'a Path>,
    force: bool,
}

pub(super) async fn run(global: &Global, args: &Args) -> Result<()> {
    match (&args.onto, args.tool, &args.out) {
        (None, Some(tool), Some(out)) => {
            let task = Task { tool, out, from: args.from.as_deref(), force: args.force };
            for_tool(global, &task).await
        }
        (Some(path), ..) => onto(global, path).await,
        _ => Err(Error::invalid("--for and --out belong together")),
    }
}

/// What the file asks of the nodes' configs.
async fn wanted(global: &Global) -> Result<(Vec<WantedConfig>, bool)> {
    let intent = global.intent()?;
    let passphrases = global.passphrases(&intent)?;
    let addresses = global.addresses(&intent)?;
    if addresses.is_empty() {
        return Err(Error::invalid(format!("{} lists no nodes", global.file.display()))
            .hint("a patch is for a node: list them below `nodes`"));
    }
    let client = global.reach().talos()?;
    let busy = report::busy(global.progress, "reading the nodes");
    let nodes = observe_answering(&client, &addresses, jiff::Timestamp::now()).await?;
    drop(busy);
    let asked = nodes.iter().map(|node| asked(&intent, node, &passphrases)).collect::<Result<Vec<_>>>()?;
    Ok((asked, nodes.iter().any(Node::simulated)))
}

/// Merges what the file asks of one node into that node's config.
async fn onto(global: &Global, path: &Path) -> Result<()> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::invalid(format!("can't read {name}: {e}")))?;
    let before = ConfigDoc::parse(&text).map_err(|e| e.at(&name))?;
    let (asked, simulated) = wanted(global).await?;
    let [one] = <[WantedConfig; 1]>::try_from(asked).map_err(|all| {
        Error::invalid(format!("{name} is the config of one node, and the file lists {}", all.len()))
            .hint("name the node with --nodes")
    })?;
    for warning in &one.warnings {
        report::stderr(&format!("! {warning}\n"));
    }
    let host = Host { name: one.address.clone(), asked: one };
    let mut after = before.clone();
    for file in files(Tool::Talosctl, &[host], false)? {
        after.patch(file.text.expose_secret()).map_err(|e| e.at(&name))?;
        if file.secret {
            report::stderr(&format!("! {name} holds a passphrase in plaintext from now on\n"));
        }
    }
    if simulated {
        report::stdout("simulated: it names disks of a sandbox\n");
    }
    if after.text() == before.text() {
        report::stdout(&format!("unchanged {name}\n"));
        return Ok(());
    }
    report::stdout(&after.diff_from(&before));
    write_private(path, after.text().as_bytes())?;
    report::stdout(&format!("wrote {name}\n"));
    Ok(())
}

async fn for_tool(global: &Global, task: &Task<'_>) -> Result<()> {
    let own = task.own_file()?;
    let (asked, simulated) = wanted(global).await?;
    let hosts = asked.into_iter().map(|asked| host(asked, own.as_ref())).collect::<Result<Vec<_>>>()?;
    let complete = own.as_ref().is_some_and(|own| {
        let here: BTreeSet<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        !own.partial && own.machines.iter().all(|machine| here.contains(machine.name.as_str()))
    });
    let files = files(task.tool, &hosts, complete)?;
    for warning in hosts.iter().flat_map(|host| &host.asked.warnings) {
        report::stderr(&format!("! {warning}\n"));
    }
    task.write(&files)?;
    if simulated {
        report::stdout("simulated: these files name disks of a sandbox\n");
    }
    report::stdout(&task.usage(&hosts, &files, own.as_ref()));
    Ok(())
}

/// A node as the tool calls it: by its own file, else by its name in Kubernetes.
fn host(asked: WantedConfig, own: Option<&Import>) -> Result<Host> {
    let Some(own) = own else {
        return Ok(Host { name: asked.name.clone().unwrap_or_else(|| asked.address.clone()), asked });
    };
    match own.machine(&asked.address, asked.name.as_deref()) {
        Some(machine) => Ok(Host { name: machine.name.clone(), asked }),
        None => Err(Error::invalid(format!("{}: no node has the address {}", own.file, asked.address))
            .hint("the patches are named as that file names the nodes: list the node there, or leave it out with --nodes")),
    }
}

impl Task<'_> {
    /// The tool's own file, if it is known.
    fn own_file(&self) -> Result<Option<Import>> {
        let usual = match self.tool {
            Tool::Topf => Some("topf.yaml"),
            Tool::Talhelper => Some("talconfig.yaml"),
            Tool::Talosctl | Tool::Talm => None,
        };
        let usual = usual.map(|name| self.out.join(name)).filter(|path| path.exists());
        self.from.map(Path::to_owned).or(usual).map(|path| read(&path)).transpose()
    }

    /// Writes all files or, when one is there and says something else, none.
    fn write(&self, files: &[PatchFile]) -> Result<()> {
        let mut changed = Vec::new();
        for file in files {
            let path = self.out.join(&file.path);
            match std::fs::read(&path) {
                Ok(there) if there == file.text.expose_secret().as_bytes() => {
                    report::stdout(&format!("unchanged {}\n", path.display()));
                }
                Ok(_) if !self.force => {
                    return Err(Error::refused(format!(
                        "{} is there and says something else",
                        path.display()
                    ))
                    .hint("move it away, write to another folder, or overwrite it with --force"));
                }
                Ok(_) => changed.push((path, file)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => changed.push((path, file)),
                Err(e) => return Err(Error::failed(format!("can't read {}: {e}", path.display()))),
            }
        }
        for (path, file) in changed {
            replace(&path, file.text.expose_secret().as_bytes())?;
            report::stdout(&format!("wrote {}\n", path.display()));
        }
        for file in files.iter().filter(|file| file.secret) {
            report::stderr(&format!(
                "! {} holds a passphrase in plaintext, and only you can read it{}\n",
                self.out.join(&file.path).display(),
                match self.tool {
                    Tool::Topf | Tool::Talhelper => ": encrypt it with sops before it goes anywhere else",
                    Tool::Talosctl | Tool::Talm => ": keep it out of git",
                }
            ));
        }
        Ok(())
    }

    /// What to do with the files.
    fn usage(&self, hosts: &[Host], files: &[PatchFile], own: Option<&Import>) -> String {
        if files.is_empty() {
            return "Nothing to write: the file asks nothing of the machine configs.\n".into();
        }
        let out = self.out.display();
        let each = |line: fn(&Host, &str) -> String| -> String {
            let of = |file: &PatchFile| {
                let host = hosts.iter().find(|host| Some(&host.name) == file.host.as_ref())?;
                Some(line(host, &self.out.join(&file.path).display().to_string()))
            };
            files.iter().filter_map(of).collect()
        };
        match self.tool {
            Tool::Talosctl => {
                let kept = each(|Host { asked, .. }, path| {
                    let address = &asked.address;
                    format!(
                        "  talosctl apply-config --nodes {address} --file <its config> --config-patch @{path}\n"
                    )
                });
                let text = format!("To apply them to configs that you keep:\n{kept}");
                // Talos would add a volume's keys to those that exist.
                if hosts.iter().any(|host| host.asked.documents.iter().any(|document| document.there)) {
                    return text;
                }
                let live = each(|Host { asked, .. }, path| {
                    format!("  talosctl patch machineconfig --nodes {} --patch @{path}\n", asked.address)
                });
                format!("{text}To apply them to configs that are on the nodes alone:\n{live}")
            }
            Tool::Topf => {
                let config = own.map_or_else(String::new, |own| format!(" --topfconfig {}", own.file));
                let beside = own.is_some_and(|own| Path::new(&own.file).parent() == Some(self.out));
                let place = format!("Put what is in {out} beside your topf.yaml, or into its patchesDir.\n");
                let place = if beside { "" } else { &place };
                format!("{place}To apply them:\n  topf{config} apply --dry-run\n  topf{config} apply\n")
            }
            Tool::Talhelper => format!(
                "Put the keys of {out}/talconfig.nodeprep.yaml into your talconfig.yaml, and the folder {out}/nodeprep, \
                 if there is one, beside it.\nTo apply them:\n  talhelper genconfig\n  talhelper gencommand apply | bash\n"
            ),
            Tool::Talm => {
                let apply =
                    each(|host, path| format!("  talm apply -f nodes/{}.yaml -f {path}\n", host.name));
                format!(
                    "To apply them, each time that a node's own file is applied (or put them into it, below its first line):\n{apply}"
                )
            }
        }
    }
}

/// Reads another tool's file.
pub(super) fn read(path: &Path) -> Result<Import> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::invalid(format!("can't read {name}: {e}")))?;
    import(&name, &bytes, &Beside::of(path))
}

/// Writes a file for its owner alone, and the folders that lead to it.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::failed(format!("can't write {}: {e}", path.display())))?;
    }
    write_private(path, content)
}
