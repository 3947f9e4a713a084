//! Processes in nodes.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill as send_signal};
use nix::unistd::Pid;

use super::CONFIG;
use super::state::{Lab, LabNode};

/// True while the process runs; one that has ended and waits for its parent does not.
pub(super) fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}

/// A command that will run in the node's namespaces, with this `weft` on its path.
pub(super) fn command(lab: &Lab, node: &LabNode, words: &[String]) -> anyhow::Result<Command> {
    let holder = node.holder.filter(|pid| lives(*pid)).with_context(|| {
        format!(
            "node {} of lab {} is not up: `weft lab up --reconfigure`",
            node.name, lab.name
        )
    })?;
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &holder.to_string(), "--mount", "--net", "--"])
        .args(words);
    let own = std::env::current_exe()?;
    if let Some(folder) = own.parent() {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display()));
    }
    let state = lab.folder().join(format!("{}.state", node.name));
    command.env("STATE_DIRECTORY", state);
    command.envs(node.env.iter().map(|(key, value)| (key, value)));
    Ok(command)
}

/// Starts what runs in the node, where it does not run yet.
pub(super) fn start(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    if lab.pid(node).is_some() {
        bail!("node {} is running", node.name);
    }
    let own = std::env::current_exe()?.display().to_string();
    let words = match &node.cmd {
        _ if node.router => vec![own, "router".into(), "--config".into(), CONFIG.into()],
        Some(cmd) => vec!["sh".into(), "-c".into(), format!("exec {cmd}")],
        None => bail!("node {} is a host: nothing runs in it", node.name),
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(lab.log(node))?;
    let child = command(lab, node, &words)?
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A lab outlives the terminal that it was made in.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", words.join(" ")))?;
    std::fs::write(lab.pid_file(node), child.id().to_string())?;
    Ok(())
}

/// Sends SIGHUP to the node's router.
pub(super) fn reload(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    let Some(pid) = lab.pid(node).filter(|_| node.router) else {
        bail!("no router runs in node {}", node.name)
    };
    Ok(send_signal(Pid::from_raw(pid), Signal::SIGHUP)?)
}

/// Kills what runs in the node and waits until it is gone.
pub(super) fn kill(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    let Some(pid) = lab.pid(node) else {
        bail!("nothing runs in node {}", node.name)
    };
    end(pid, Signal::SIGKILL)
}

/// Sends a signal and waits until the process is gone, at most a few seconds.
pub(super) fn end(pid: i32, signal: Signal) -> anyhow::Result<()> {
    // It may have ended by itself.
    let _ = send_signal(Pid::from_raw(pid), signal);
    let until = Instant::now() + Duration::from_secs(5);
    while lives(pid) {
        if Instant::now() > until {
            bail!("process {pid} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
