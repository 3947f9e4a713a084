//! What labs are up, as files under `/run/weft/labs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::place;
use super::root::BoundFile;

const ROOT: &str = "/run/weft/labs";

/// A lab that is up, or was being built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lab {
    pub(super) name: String,
    /// In the order of the topology.
    pub(super) nodes: Vec<LabNode>,
    /// Interfaces of the host that its links made.
    #[serde(default)]
    pub(super) host_interfaces: Vec<String>,
}

/// A node of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LabNode {
    pub(super) name: String,
    /// `weft router` runs in it.
    pub(super) router: bool,
    /// Its links are attached to a bridge in it.
    #[serde(default)]
    pub(super) bridge: bool,
    /// It stands empty for a container.
    #[serde(default)]
    pub(super) empty: bool,
    /// What else runs in it.
    pub(super) cmd: Option<String>,
    /// The image of a container that it would be.
    #[serde(default)]
    pub(super) image: Option<String>,
    pub(super) env: Vec<(String, String)>,
    /// The process that holds its namespaces.
    pub(super) holder: Option<i32>,
    /// Files of the host that are bound in it.
    #[serde(default)]
    pub(super) files: Vec<BoundFile>,
}

impl LabNode {
    /// Whether something is started in it.
    pub(super) fn runs(&self) -> bool {
        self.router || self.cmd.is_some()
    }
}

impl Lab {
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(ROOT).join(&self.name)
    }

    pub(super) fn log(&self, node: &LabNode) -> PathBuf {
        self.folder().join(format!("{}.log", node.name))
    }

    pub(super) fn pid_file(&self, node: &LabNode) -> PathBuf {
        self.folder().join(format!("{}.pid", node.name))
    }

    /// The node's network namespace, as `ip netns` knows it.
    pub(super) fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// Where what the node's commands wrote is kept.
    pub(super) fn record(&self, node: &LabNode) -> PathBuf {
        self.folder().join(format!("{}.exec", node.name))
    }

    /// An empty folder for the node's root to be made in.
    pub(super) fn scratch(&self, node: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder().join(format!("{node}.root"));
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Writes it for the first time.
    ///
    /// # Errors
    /// A lab of that name is there, also where it is being built at this moment.
    pub(super) fn claim(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.folder())?;
        let draft = self.draft()?;
        let claimed = std::fs::hard_link(&draft, self.file());
        std::fs::remove_file(&draft)?;
        match claimed {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "lab {0} is up: `weft lab down {0}` first, or `weft lab up --reconfigure`",
                self.name
            ),
            other => other.context("cannot write the lab's state"),
        }
    }

    /// Writes it again.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        std::fs::rename(self.draft()?, self.file()).context("cannot write the lab's state")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("lab.json")
    }

    fn draft(&self) -> anyhow::Result<PathBuf> {
        let draft = self
            .folder()
            .join(format!("lab.json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&draft, text).context("cannot write the lab's state")?;
        Ok(draft)
    }

    /// All labs, by name.
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        let mut labs = Vec::new();
        let Ok(folders) = std::fs::read_dir(ROOT) else {
            return Ok(labs);
        };
        for folder in folders {
            let file = folder?.path().join("lab.json");
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            labs.push(
                serde_json::from_str(&text)
                    .with_context(|| format!("{} is damaged", file.display()))?,
            );
        }
        labs.sort_by(|a: &Self, b| a.name.cmp(&b.name));
        Ok(labs)
    }

    /// The lab of this name, or the only one; `None` where it is not up.
    pub(super) fn find(name: Option<&str>) -> anyhow::Result<Option<Self>> {
        let mut labs = Self::all()?;
        match name {
            Some(name) => Ok(labs.into_iter().find(|lab| lab.name == name)),
            None if labs.len() > 1 => {
                let names: Vec<&str> = labs.iter().map(|lab| lab.name.as_str()).collect();
                bail!(
                    "several labs are up, name one of them: {}",
                    names.join(", ")
                )
            }
            None => Ok(labs.pop()),
        }
    }

    /// The same, where it must be there.
    pub(super) fn named(name: Option<&str>) -> anyhow::Result<Self> {
        match Self::find(name)? {
            Some(lab) => Ok(lab),
            None => bail!(
                "{} is up: `weft lab up FILE` builds one",
                name.map_or("no lab".into(), |name| format!("no lab {name}"))
            ),
        }
    }

    pub(super) fn node(&self, name: &str) -> anyhow::Result<&LabNode> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| {
                let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                format!("lab {} has no node {name}: {}", self.name, names.join(", "))
            })
    }

    /// The process of the node's router or command, where it lives.
    pub(super) fn pid(&self, node: &LabNode) -> Option<i32> {
        let text = std::fs::read_to_string(self.pid_file(node)).ok()?;
        let pid = text.trim().parse().ok()?;
        self.owns(node, pid).then_some(pid)
    }

    /// The process that holds the node's namespaces.
    ///
    /// # Errors
    /// It is not there: the node was never made, or somebody ended it.
    pub(super) fn holder(&self, node: &LabNode) -> anyhow::Result<i32> {
        let holder = node.holder.filter(|pid| self.owns(node, *pid));
        holder.with_context(|| {
            format!(
                "node {} of lab {} is not up: `weft lab up --reconfigure`",
                node.name, self.name
            )
        })
    }

    /// The process lives, and is the node's: another one may have got its number.
    fn owns(&self, node: &LabNode, pid: i32) -> bool {
        let network = place::number(Path::new(&format!("/proc/{pid}/ns/net")));
        network.is_some()
            && network == place::number(&place::netns(&self.namespace(&node.name)))
            && super::node::lives(pid)
    }
}

/// Labs and nodes for a human.
pub(super) fn table(labs: &[Lab]) -> String {
    let mut rows = vec![["LAB", "NODE", "KIND", "STATE", "PID", "NAMESPACE"].map(str::to_owned)];
    for lab in labs {
        for node in &lab.nodes {
            let pid = lab.pid(node);
            rows.push([
                lab.name.clone(),
                node.name.clone(),
                match (node.router, node.bridge, node.empty) {
                    (true, ..) => "router",
                    (_, true, _) => "bridge",
                    (.., true) => "empty",
                    _ => "host",
                }
                .into(),
                match (pid, node.runs()) {
                    (Some(_), _) => "running",
                    (None, true) => "stopped",
                    (None, false) => "-",
                }
                .into(),
                pid.map_or("-".into(), |pid| pid.to_string()),
                lab.namespace(&node.name),
            ]);
        }
    }
    let widths: Vec<usize> = (0..6)
        .map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
