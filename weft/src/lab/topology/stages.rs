//! `stages` of a node: what it waits for, and commands when it enters and leaves each.
//!
//! All namespaces and links of a lab come at once, for all nodes, so a wait for another node's `create` or `create-links` is over when commands
//! begin. A wait for what comes later holds the node back before its first command of `configure`, under whichever stage it stands up to there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::reader::Cursor;
use crate::config::values::{list, text};

/// A part of a node's way up, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::lab) enum Stage {
    /// Its namespaces and its root are made.
    Create,
    /// Its links are made.
    CreateLinks,
    /// Its commands are run, and what runs in it is started.
    Configure,
    /// Its health check passes; without one, what runs in it has been started.
    Healthy,
    /// What runs in it has ended.
    Exit,
}

impl Stage {
    pub(in crate::lab) const ALL: [Self; 5] = [
        Self::Create,
        Self::CreateLinks,
        Self::Configure,
        Self::Healthy,
        Self::Exit,
    ];

    /// As the file says it.
    pub(in crate::lab) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateLinks => "create-links",
            Self::Configure => "configure",
            Self::Healthy => "healthy",
            Self::Exit => "exit",
        }
    }
}

/// What a node does at one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lab) struct Steps {
    /// Nodes, and the stage that each must have left.
    pub(in crate::lab) wait_for: Vec<(String, Stage)>,
    /// Commands on the way in.
    pub(in crate::lab) enter: Vec<String>,
    /// Commands on the way out.
    pub(in crate::lab) leave: Vec<String>,
}

/// The steps of all stages, by [`Stage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lab) struct Stages {
    steps: [Steps; 5],
    /// Commands for the host, which a lab does not run.
    pub(super) on_host: Vec<String>,
}

impl Stages {
    pub(in crate::lab) fn at(&self, stage: Stage) -> &Steps {
        &self.steps[stage as usize]
    }

    /// What holds a node back before it enters this stage. See the module on waits of the first two.
    pub(in crate::lab) fn waits(&self, stage: Stage) -> impl Iterator<Item = &(String, Stage)> {
        let under = match stage {
            Stage::Create | Stage::CreateLinks => &self.steps[0..0],
            Stage::Configure => &self.steps[..=Stage::Configure as usize],
            later => &self.steps[later as usize..=later as usize],
        };
        under
            .iter()
            .flat_map(|steps| &steps.wait_for)
            .filter(|(_, stage)| *stage >= Stage::Configure)
    }

    /// Adds what a nearer layer says.
    pub(super) fn extend(&mut self, nearer: Self) {
        self.on_host.extend(nearer.on_host);
        for (steps, more) in self.steps.iter_mut().zip(nearer.steps) {
            steps.wait_for.extend(more.wait_for);
            steps.enter.extend(more.enter);
            steps.leave.extend(more.leave);
        }
    }

    /// Nothing is said of this stage or a later one.
    pub(in crate::lab) fn end_before(&self, stage: Stage) -> bool {
        self.steps[stage as usize..]
            .iter()
            .all(|steps| *steps == Steps::default())
    }
}

/// Reads `stages`. Each wait is given to `awaited` with its place, to be compared with the nodes.
pub(super) fn read<'a>(at: &Cursor<'a>, awaited: &mut Vec<(String, Cursor<'a>)>) -> Option<Stages> {
    let mut stages = Stages::default();
    let mut fields = at.fields("a mapping of stages")?;
    for (stage, steps) in Stage::ALL.into_iter().zip(&mut stages.steps) {
        let Some(at) = fields.get(stage.name()).filter(|at| !at.is_null()) else {
            continue;
        };
        let mut fields = at.fields("a mapping with `wait-for` and `exec`")?;
        let waits = fields.optional("wait-for", |at| at.list("a list of nodes and stages", wait));
        for wait in waits.into_iter().flatten() {
            awaited.push((wait.value.0.clone(), wait.at));
            steps.wait_for.push(wait.value);
        }
        if let Some(at) = fields.get("exec") {
            commands(&at, steps, &mut stages.on_host)?;
        }
        fields.finish();
    }
    fields.finish();
    Some(stages)
}

fn wait(at: Cursor<'_>) -> Option<(String, Stage)> {
    let mut fields = at.fields("a mapping with `node` and `stage`")?;
    let node = fields.required("node", "it says which node is awaited", |at| {
        text(&at, "the name of a node")
    });
    let words = Stage::ALL.map(|stage| (stage.name(), stage));
    let stage = fields.required(
        "stage",
        "it says which stage the node must have left",
        |at| at.choice(&words),
    );
    fields.finish();
    Some((node?, stage?))
}

fn commands(at: &Cursor<'_>, steps: &mut Steps, on_host: &mut Vec<String>) -> Option<()> {
    let line = |at: Cursor<'_>| text(&at, "a command");
    if at.is_mapping() {
        let mut fields = at.fields("commands")?;
        let mut lines = |key| fields.optional(key, |at| list(&at, "a list of commands", line));
        let (enter, leave) = (lines("on-enter"), lines("on-exit"));
        fields.finish();
        steps.enter.extend(enter.into_iter().flatten());
        steps.leave.extend(leave.into_iter().flatten());
        return Some(());
    }
    let read = |at: Cursor<'_>| {
        let mut fields = at.fields("a mapping with `command`")?;
        let command = fields.required("command", "it is what is run", line);
        let phases = [("on-enter", true), ("on-exit", false)];
        let enter = match fields.get("phase") {
            None => Some(true),
            Some(at) => at.choice(&phases),
        };
        let targets = [("container", false), ("host", true)];
        let host = fields
            .get("target")
            .map_or(Some(false), |at| at.choice(&targets));
        fields.finish();
        Some((host?, enter?, command?))
    };
    for (host, enter, command) in list(at, "a list of commands", read)? {
        match (host, enter) {
            (true, _) => on_host.push(command),
            (false, true) => steps.enter.push(command),
            (false, false) => steps.leave.push(command),
        }
    }
    Some(())
}

/// A ring of waits in which nobody could go on, as `a, b, a`.
pub(super) fn ring(nodes: &BTreeMap<&str, &Stages>) -> Option<Vec<String>> {
    let mut done = Vec::new();
    for name in nodes.keys() {
        if let Some(ring) = follow(nodes, (name, Stage::Exit), &mut Vec::new(), &mut done) {
            return Some(ring);
        }
    }
    None
}

/// Goes from one node's stage to all that it waits for.
fn follow<'a>(
    nodes: &BTreeMap<&'a str, &'a Stages>,
    here: (&'a str, Stage),
    way: &mut Vec<(&'a str, Stage)>,
    done: &mut Vec<(&'a str, Stage)>,
) -> Option<Vec<String>> {
    if done.contains(&here) {
        return None;
    }
    if let Some(first) = way.iter().position(|at| *at == here) {
        let mut names: Vec<String> = way[first..]
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .chain([here.0.to_owned()])
            .collect();
        names.dedup();
        return Some(names);
    }
    way.push(here);
    let before = match here.1 {
        Stage::Exit => Some(Stage::Healthy),
        Stage::Healthy => Some(Stage::Configure),
        Stage::Create | Stage::CreateLinks | Stage::Configure => None,
    };
    let before = before.map(|stage| (here.0, stage));
    let stages = nodes.get(here.0).copied();
    let waits = stages.into_iter().flat_map(|stages| stages.waits(here.1));
    let waits = waits.map(|(name, stage)| (name.as_str(), *stage));
    for next in before.into_iter().chain(waits) {
        let found = follow(nodes, next, way, done);
        if found.is_some() {
            return found;
        }
    }
    way.pop();
    done.push(here);
    None
}
