//! `weft lab`: routers, hosts and links in network namespaces, from a topology file in containerlab's format.
//!
//! A node is a network namespace (`NAME-NODE` in `ip netns`) and a mount namespace, in which the topology's binds
//! stand at their paths. A node that binds a file to [`CONFIG`] is a router: `weft router` runs in it. What is up is
//! written under `/run/weft/labs/NAME`, so that a lab whose build broke off can be taken down too.

mod build;
mod node;
mod state;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use state::Lab;
use topology::Topology;

/// Where a router's configuration stands in its node.
const CONFIG: &str = "/etc/weft/weft.yaml";

/// Build and use labs of routers in network namespaces.
#[derive(clap::Args)]
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
        of: Of,
        /// The command and its arguments, behind `--`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// List labs and their nodes.
    Ls,
    /// Print what a node's router or command wrote.
    Logs {
        #[command(flatten)]
        of: Of,
    },
    /// Kill a node's router as `kill -9` does; its kernel goes on forwarding.
    Kill {
        #[command(flatten)]
        of: Of,
    },
    /// Have a node's router read its configuration again; its log says what changed.
    Reload {
        #[command(flatten)]
        of: Of,
    },
    /// Start a node's router again.
    Start {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(clap::Args)]
struct Of {
    /// The lab; may be left out where one lab is up.
    #[arg(long)]
    lab: Option<String>,
    /// The node.
    node: String,
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
            let lab = build::up(&topology)?;
            let routers = lab.nodes.iter().filter(|node| node.router).count();
            print(&format!(
                "lab {}: {} nodes, {} links, {routers} routers running\n",
                lab.name,
                lab.nodes.len(),
                topology.links.len()
            ))?;
        }
        LabCommand::Down { lab } => {
            let lab = match &lab {
                Some(name) if std::path::Path::new(name).is_file() => {
                    Some(Topology::read(name.as_ref())?.name)
                }
                other => other.clone(),
            };
            match Lab::find(lab.as_deref())? {
                Some(lab) => {
                    build::down(&lab)?;
                    print(&format!("lab {}: down\n", lab.name))?;
                }
                None => print("no such lab is up\n")?,
            }
        }
        LabCommand::Exec { of, command } => {
            let lab = Lab::named(of.lab.as_deref())?;
            let status = node::command(&lab, lab.node(&of.node)?, &command)?.status()?;
            return Ok(ExitCode::from(
                u8::try_from(status.code().unwrap_or(1)).unwrap_or(1),
            ));
        }
        LabCommand::Ls => print(&state::table(&Lab::all()?))?,
        LabCommand::Logs { of } => {
            let lab = Lab::named(of.lab.as_deref())?;
            let log = lab.log(lab.node(&of.node)?);
            print(&std::fs::read_to_string(&log).unwrap_or_default())?;
        }
        LabCommand::Kill { of } => {
            let lab = Lab::named(of.lab.as_deref())?;
            node::kill(&lab, lab.node(&of.node)?)?;
        }
        LabCommand::Reload { of } => {
            let lab = Lab::named(of.lab.as_deref())?;
            node::reload(&lab, lab.node(&of.node)?)?;
        }
        LabCommand::Start { of } => {
            let lab = Lab::named(of.lab.as_deref())?;
            node::start(&lab, lab.node(&of.node)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    crate::cli::print(text)
}
