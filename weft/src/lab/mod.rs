//! `weft lab`: routers, hosts and links in network namespaces, from a topology file in containerlab's format.
//!
//! A node is a network namespace (`NAME-NODE` in `ip netns`), a mount namespace with the host's file systems copied on write, and a name of its own. A node that binds
//! a file to [`CONFIG`] is a router: `weft router` runs in it. What is up is written under `/run/weft/labs/NAME`, so that a lab whose build broke off can be
//! taken down too.
//!
//! | module | what it is |
//! |---|---|
//! | [`topology`] | the file, as it was meant |
//! | [`build`] | a lab as a whole: up and down |
//! | [`order`] | how nodes come up, each at its own pace |
//! | [`outcome`] | what came out otherwise than the file says |
//! | [`place`] | threads in the namespaces of nodes |
//! | [`root`] | the file system that a node sees |
//! | [`network`] | links and bridges |
//! | [`node`] | processes in nodes |
//! | [`state`] | which labs are up |

mod build;
mod network;
mod node;
mod order;
mod outcome;
mod place;
mod root;
mod state;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use clap_complete::engine::ArgValueCandidates;

use state::Lab;
use topology::Topology;

use crate::cli::complete;

/// Where a router's configuration stands in its node.
const CONFIG: &str = "/etc/weft/weft.yaml";

const SHARED: &str = "\
A node has its own network, host name, and copy of the host's file systems: what its commands write, install or remove is gone \
with the lab, and the host never sees it. /var/lib/weft, /var/lib/weft-controller, /etc/weft, /run/weft and /run/netns begin empty in it.

Shared with the host are its processes and users, its clock, /sys beside what belongs to the network, and the files and folders under `binds` that are not `:ro`. \
Of /proc/sys a node can write net alone. Programs are the host's: a node's `image` is not used.

Of a topology, `${VARIABLE:=default}` is filled in; kinds are linux, bridge and host; links are of type veth, host, macvlan, dummy, vxlan or mgmt-net. What needs a \
container is left out, with a note: a node of another kind stands empty, with its links. A command that fails costs itself alone: the lab is up, and `up` fails with \
what failed.";

/// Build and use labs of routers in network namespaces.
#[derive(clap::Args)]
#[command(after_help = SHARED)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Build the nodes and links of a topology file and start its routers.
    Up {
        /// The topology, in containerlab's format.
        file: PathBuf,
        /// Take a lab of that name down first.
        #[arg(long)]
        reconfigure: bool,
    },
    /// Take a lab down: its processes, namespaces and files.
    Down {
        /// Its name, or its topology file; may be left out where one lab is up.
        lab: Option<String>,
    },
    /// Run a command in a node.
    Exec {
        #[command(flatten)]
        target: NodeArguments,
        /// The command and its arguments, behind `--`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// List labs and their nodes.
    Ls,
    /// Print what a node's commands, and its router, wrote.
    Logs {
        #[command(flatten)]
        target: NodeArguments,
    },
    /// Kill a node's router as `kill -9` does; its kernel goes on forwarding.
    Kill {
        #[command(flatten)]
        target: NodeArguments,
    },
    /// Have a node's router read its configuration again, as it is on the host now; its log says what changed.
    Reload {
        #[command(flatten)]
        target: NodeArguments,
    },
    /// Start a node's router again.
    Start {
        #[command(flatten)]
        target: NodeArguments,
    },
}

#[derive(clap::Args)]
struct NodeArguments {
    /// The lab; may be left out where one lab is up.
    #[arg(long, add = ArgValueCandidates::new(complete::labs))]
    lab: Option<String>,
    /// The node.
    #[arg(add = ArgValueCandidates::new(complete::nodes))]
    node: String,
}

/// The nodes of labs that are up, each with its lab's name.
pub(crate) fn nodes() -> Vec<(String, String)> {
    let labs = Lab::all().unwrap_or_default();
    let nodes = labs.into_iter().flat_map(|lab| {
        let nodes = lab.nodes.into_iter().map(|node| node.name);
        nodes.map(move |node| (lab.name.clone(), node))
    });
    nodes.collect()
}

/// Runs one of the lab's commands.
pub(crate) fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "a lab makes network namespaces, which needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run it with sudo"
        );
    }
    match args.command {
        LabCommand::Up { file, reconfigure } => {
            let topology = Topology::read(&file)?;
            if reconfigure && let Some(old) = Lab::find(Some(&topology.name))? {
                build::down(&old)?;
            }
            let built = build::up(&topology)?;
            let lab = &built.lab;
            let ended = node::ended(lab);
            let routers = lab.nodes.iter().filter(|node| node.router).count() - ended.len();
            let notes = topology.notes.iter().chain(&built.notes);
            let notes: String = notes.map(|note| format!("note: {note}\n")).collect();
            print(&format!(
                "{}{notes}lab {}: {} nodes, {} links, {routers} routers running\n",
                built.output,
                lab.name,
                lab.nodes.len(),
                topology.links.len()
            ))?;
            let failed = [built.failed, ended].concat();
            if !failed.is_empty() {
                anyhow::bail!(
                    "lab {} is up, without what failed:\n{}",
                    lab.name,
                    failed.join("\n")
                );
            }
        }
        LabCommand::Down { lab } => {
            let lab = match &lab {
                Some(name) if std::path::Path::new(name).is_file() => {
                    Some(Topology::read(name.as_ref())?.name)
                }
                other => other.clone(),
            };
            let lab = Lab::named(lab.as_deref())?;
            build::down(&lab)?;
            print(&format!("lab {}: down\n", lab.name))?;
        }
        LabCommand::Exec { target, command } => {
            let lab = Lab::named(target.lab.as_deref())?;
            let status = node::run(&lab, lab.node(&target.node)?, &command)?;
            return Ok(ExitCode::from(node::code(status)));
        }
        LabCommand::Ls => print(&state::table(&Lab::all()?))?,
        LabCommand::Logs { target } => {
            let lab = Lab::named(target.lab.as_deref())?;
            let node = lab.node(&target.node)?;
            // What it has not written yet is empty.
            let read = |file: PathBuf| std::fs::read_to_string(file).unwrap_or_default();
            print(&(read(lab.record(node)) + &read(lab.log(node))))?;
        }
        LabCommand::Kill { target } => {
            let lab = Lab::named(target.lab.as_deref())?;
            node::kill(&lab, lab.node(&target.node)?)?;
        }
        LabCommand::Reload { target } => {
            let lab = Lab::named(target.lab.as_deref())?;
            node::reload(&lab, lab.node(&target.node)?)?;
        }
        LabCommand::Start { target } => {
            let lab = Lab::named(target.lab.as_deref())?;
            node::start(&lab, lab.node(&target.node)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    crate::cli::print(text)
}
