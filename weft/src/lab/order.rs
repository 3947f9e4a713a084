//! How the nodes of a lab come up: each on a thread of its own, held back by what it waits for.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::bail;

use super::outcome::Outcome;
use super::state::{Lab, LabNode};
use super::topology::{Node, Stage, Topology};
use super::{network, node, place};

/// Which stages nodes have left, for those that wait.
#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    left: BTreeMap<String, Stage>,
    failed: bool,
}

impl Board {
    /// The node has left the stage, and all before it.
    fn left(&self, node: &str, stage: Stage) {
        self.change(|state| _ = state.left.insert(node.to_owned(), stage));
    }

    /// Nobody has to wait any longer.
    fn fail(&self) {
        self.change(|state| state.failed = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until the node has left the stage.
    ///
    /// # Errors
    /// Another node has failed.
    fn wait(&self, node: &str, stage: Stage) -> anyhow::Result<()> {
        let reached = |state: &State| state.left.get(node).is_some_and(|left| *left >= stage);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| !state.failed && !reached(state))
            .unwrap_or_else(PoisonError::into_inner);
        if reached(&state) {
            return Ok(());
        }
        bail!(Held)
    }
}

/// A node did not come up because another one failed.
#[derive(Debug, thiserror::Error)]
#[error("held back by a node that failed")]
struct Held;

/// Runs the commands that nodes have for the time before their links.
pub(super) fn before_links(
    topology: &Topology,
    lab: &Lab,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    each(topology, lab, |node, there| {
        let create = node.stages.at(Stage::Create);
        let links = node.stages.at(Stage::CreateLinks);
        let lines = [&create.enter, &create.leave, &links.enter];
        run(lab, there, lines.into_iter().flatten(), outcome)
    })
}

/// Runs lines in a node; one that fails holds no other back.
fn run<'a>(
    lab: &Lab,
    there: &LabNode,
    lines: impl Iterator<Item = &'a String> + Send,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    let record = node::record(lab, there)?;
    place::within(lab.holder(there)?, || {
        lines.try_for_each(|line| {
            outcome.add(&there.name, node::script(there, line, &record)?);
            Ok(())
        })
    })
}

/// Configures all nodes and starts what runs in them.
pub(super) fn configure(topology: &Topology, lab: &Lab, outcome: &Outcome) -> anyhow::Result<()> {
    let board = Board::default();
    each(topology, lab, |node, there| {
        let result = rise(topology, node, lab, there, &board, outcome);
        if result.is_err() {
            board.fail();
        }
        result
    })
}

/// What one node does on its way up, from its first command on.
fn rise(
    topology: &Topology,
    node: &Node,
    lab: &Lab,
    there: &LabNode,
    board: &Board,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let wait = |stage| {
        let mut waits = node.stages.waits(stage);
        waits.try_for_each(|(name, stage)| board.wait(name, *stage))
    };
    let run = |lines: &[&[String]]| run(lab, there, lines.iter().copied().flatten(), outcome);
    std::thread::sleep(node.startup_delay);
    wait(Stage::Configure)?;
    let links = node.stages.at(Stage::CreateLinks);
    let configure = node.stages.at(Stage::Configure);
    run(&[&links.leave, &configure.enter, &node.exec])?;
    if there.runs() {
        match node::lacks(lab, there)? {
            Some(miss) => outcome.add(&there.name, [miss]),
            None => node::start(lab, there)?,
        }
    }
    run(&[&configure.leave])?;
    board.left(&node.name, Stage::Configure);
    if !topology.awaits(node, Stage::Healthy) {
        return Ok(());
    }
    wait(Stage::Healthy)?;
    let steps = node.stages.at(Stage::Healthy);
    run(&[&steps.enter])?;
    healthy(node, lab, there)?;
    run(&[&steps.leave])?;
    board.left(&node.name, Stage::Healthy);
    if !topology.awaits(node, Stage::Exit) {
        return Ok(());
    }
    wait(Stage::Exit)?;
    while lab.pid(there).is_some() {
        std::thread::sleep(node::LOOK_EVERY);
    }
    let steps = node.stages.at(Stage::Exit);
    run(&[&steps.enter, &steps.leave])?;
    board.left(&node.name, Stage::Exit);
    Ok(())
}

/// Waits until the node's health check passes, where it has one.
fn healthy(node: &Node, lab: &Lab, there: &LabNode) -> anyhow::Result<()> {
    let Some(health) = &node.health else {
        return Ok(());
    };
    std::thread::sleep(health.start_period);
    for failed in 1.. {
        if node::probe(lab, there, &health.test, health.timeout)? {
            return Ok(());
        }
        if failed >= health.retries {
            break;
        }
        std::thread::sleep(health.interval);
    }
    bail!(
        "node {}: not healthy: `{}` failed {} times",
        node.name,
        health.test.join(" "),
        health.retries
    )
}

/// Writes the names of all nodes to the `/etc/hosts` of each, with the addresses that they have now. Whether that could be done.
pub(super) fn names(topology: &Topology, lab: &Lab) -> anyhow::Result<bool> {
    let known = Mutex::new(BTreeMap::new());
    each(topology, lab, |node, there| {
        let found = place::within(lab.holder(there)?, network::addresses)?;
        known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.name.clone(), found);
        Ok(())
    })?;
    let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    for node in &topology.nodes {
        for address in known.get(&node.name).into_iter().flatten() {
            let names = [&node.name].into_iter().chain(&node.aliases);
            let names: Vec<&str> = names.map(String::as_str).collect();
            text.push_str(&format!("{address} {}\n", names.join(" ")));
        }
    }
    if text.is_empty() {
        return Ok(true);
    }
    let file = std::path::Path::new("/etc/hosts");
    let written = std::sync::atomic::AtomicBool::new(true);
    each(topology, lab, |node, there| {
        if node.binds.iter().any(|bind| bind.destination == file) {
            return Ok(());
        }
        let append = || -> std::io::Result<()> {
            let old = std::fs::read_to_string(file).unwrap_or_default();
            std::fs::write(file, format!("{old}\n{text}"))
        };
        if place::within(lab.holder(there)?, || Ok(append()?)).is_err() {
            written.store(false, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(written.into_inner())
}

/// Runs a task for every node at once; all that went wrong, in the order of nodes.
pub(super) fn each(
    topology: &Topology,
    lab: &Lab,
    task: impl Fn(&Node, &LabNode) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let results = std::thread::scope(|scope| {
        let pairs = topology.nodes.iter().zip(&lab.nodes);
        let threads: Vec<_> = pairs
            .map(|(node, there)| {
                let task = &task;
                scope.spawn(move || task(node, there))
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    let errors: Vec<String> = results
        .into_iter()
        .filter_map(Result::err)
        .filter(|error| !error.is::<Held>())
        .map(|error| format!("{error:#}"))
        .collect();
    match errors.is_empty() {
        true => Ok(()),
        false => bail!("{}", errors.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_stage_is_left() {
        let board = Board::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.wait("a", Stage::Configure));
            board.left("b", Stage::Exit);
            board.left("a", Stage::Healthy);
            assert!(waiting.join().unwrap().is_ok());
        });
    }

    #[test]
    fn who_waits_for_what_will_not_come_is_let_go() {
        let board = Board::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.wait("a", Stage::Configure));
            board.fail();
            assert!(waiting.join().unwrap().unwrap_err().is::<Held>());
        });
        board.left("a", Stage::Configure);
        assert!(board.wait("a", Stage::Configure).is_ok());
    }
}
