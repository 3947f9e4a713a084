//! What labs are up, as files under `/run/weft/labs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

const ROOT: &str = "/run/weft/labs";

/// A lab that is up, or was being built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lab {
    pub(super) name: String,
    pub(super) nodes: Vec<LabNode>,
}

/// A node of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LabNode {
    pub(super) name: String,
    /// `weft router` runs in it.
    pub(super) router: bool,
    /// What else runs in it.
    pub(super) cmd: Option<String>,
    pub(super) env: Vec<(String, String)>,
    /// The process that holds its mount namespace.
    pub(super) holder: Option<i32>,
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

    pub(super) fn save(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.folder())?;
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(self.folder().join("lab.json"), text).context("cannot write the lab's state")
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
        let pid = std::fs::read_to_string(self.pid_file(node))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        super::node::lives(pid).then_some(pid)
    }
}

/// Labs and nodes for a human.
pub(super) fn table(labs: &[Lab]) -> String {
    let mut rows = vec![["LAB", "NODE", "KIND", "STATE", "PID", "NAMESPACE"].map(str::to_owned)];
    for lab in labs {
        for node in &lab.nodes {
            let pid = lab.pid(node);
            let runs = node.router || node.cmd.is_some();
            rows.push([
                lab.name.clone(),
                node.name.clone(),
                if node.router { "router" } else { "host" }.into(),
                match (pid, runs) {
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
