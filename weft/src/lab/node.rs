//! Processes in nodes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill as send_signal, killpg};
use nix::unistd::Pid;

use super::outcome::{self, Miss};
use super::state::{Lab, LabNode};
use super::{CONFIG, place, root};

/// How often a process is asked whether it has ended.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// True while the process runs; one that has ended and waits for its parent does not. Its first thread may have ended while others hold
/// its sockets still.
pub(super) fn lives(pid: i32) -> bool {
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
            || threads() > 1
    })
}

/// A command with the node's environment and this `weft` on its path; it runs where the thread is that starts it.
fn command(node: &LabNode, words: &[String]) -> Command {
    let mut command = Command::new(words.first().map_or("true", String::as_str));
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(words.iter().skip(1))
        .env("PATH", format!("{}:{path}", root::PROGRAMS))
        .env("STATE_DIRECTORY", root::STATE)
        .envs(node.env.iter().map(|(key, value)| (key, value)));
    command
}

/// Runs a command in the node, with the caller's terminal.
pub(super) fn run(lab: &Lab, node: &LabNode, words: &[String]) -> anyhow::Result<ExitStatus> {
    place::within(lab.holder(node)?, || {
        let what = || format!("node {}: cannot run {}", node.name, words.join(" "));
        command(node, words).status().with_context(what)
    })
}

/// The file in which is kept what the node's commands wrote. To be opened on the host: the node has no lab's files.
pub(super) fn record(lab: &Lab, node: &LabNode) -> anyhow::Result<File> {
    let path = lab.record(node);
    File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs a line in a shell, on a thread that is in the node. What it wrote is appended to its record, with the line before it. What is returned says how it failed.
///
/// # Errors
/// There is no shell, or no room for the record.
pub(super) fn script(node: &LabNode, line: &str, mut file: &File) -> anyhow::Result<Option<Miss>> {
    let start = file.seek(SeekFrom::End(0))?;
    let words = ["sh", "-c", line].map(str::to_owned);
    // Into a file: what a line leaves behind in the background holds a pipe open.
    let status = command(node, &words)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .status()
        .context("cannot run `sh`")?;
    let mut wrote = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut wrote)?;
    let wrote = String::from_utf8_lossy(&wrote).into_owned();
    // The line stands above what it wrote; one that was silent leaves nothing.
    file.set_len(start)?;
    if !wrote.is_empty() {
        let end = if wrote.ends_with('\n') { "" } else { "\n" };
        file.write_all(format!("{}$ {line}\n{wrote}{end}", node.name).as_bytes())?;
    }
    if status.success() {
        return Ok(None);
    }
    let line = outcome::short(line);
    let program = outcome::not_found(&wrote);
    if let (Some(program), Some(_)) = (program, &node.image) {
        let program = program.to_owned();
        return Ok(Some(Miss::NoProgram { program, line }));
    }
    let source = program.map(outcome::source).unwrap_or_default();
    // The rest of it stands in the record.
    let said = match wrote.trim().split_once('\n') {
        Some((first, _)) => format!(": {} …", first.trim_end()),
        None if wrote.trim().is_empty() => String::new(),
        None => format!(": {}", wrote.trim()),
    };
    let how = format!("{status}{said}{source}");
    Ok(Some(Miss::Failed { line, how }))
}

/// What the node's command lacks in a node that would be a container: many are arguments for what the image starts.
pub(super) fn lacks(lab: &Lab, node: &LabNode) -> anyhow::Result<Option<Miss>> {
    let (Some(cmd), Some(_), false) = (&node.cmd, &node.image, node.router) else {
        return Ok(None);
    };
    let program = cmd.split_whitespace().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or(program);
    let number = program.bytes().all(|octet| octet.is_ascii_digit());
    // Arguments for an entry point; and the host has an `init`, which is no node's.
    if program.starts_with('-') || number || ["init", "systemd"].contains(&name) {
        return Ok(Some(Miss::ForImage(outcome::short(cmd))));
    }
    // The name alone: an assignment or a quote is for the shell to judge.
    if program.contains(['=', '\'', '"', '$', '(', '`']) {
        return Ok(None);
    }
    let words = ["sh", "-c", "command -v -- \"$0\"", program].map(str::to_owned);
    let there = probe(lab, node, &words, Duration::from_secs(10))?;
    Ok((!there).then(|| Miss::NoProgram {
        program: program.to_owned(),
        line: outcome::short(cmd),
    }))
}

/// Whether a command succeeds in the node in this time. One that takes longer is killed, with what it started.
pub(super) fn probe(
    lab: &Lab,
    node: &LabNode,
    words: &[String],
    timeout: Duration,
) -> anyhow::Result<bool> {
    place::within(lab.holder(node)?, || {
        let mut command = command(node, words);
        let silent = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let Ok(mut child) = silent.spawn() else {
            return Ok(false);
        };
        let until = Instant::now() + timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() >= until {
                // It may have ended by itself.
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    })
}

/// Starts what runs in the node, where it does not run yet.
pub(super) fn start(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    if lab.pid(node).is_some() {
        bail!("node {} is running", node.name);
    }
    let words = match &node.cmd {
        _ if node.router => vec![
            format!("{}/weft", root::PROGRAMS),
            "router".into(),
            "--config".into(),
            CONFIG.into(),
        ],
        Some(cmd) => vec!["sh".into(), "-c".into(), format!("exec {cmd}")],
        None => bail!("node {} is a host: nothing runs in it", node.name),
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(lab.log(node))?;
    let holder = lab.holder(node)?;
    let pid = place::within(holder, || {
        root::follow(&node.files)?;
        let child = command(node, &words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A lab outlives the terminal that it was made in.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", words.join(" ")))?;
        Ok(child.id())
    })
    .with_context(|| format!("node {}", node.name))?;
    Ok(std::fs::write(lab.pid_file(node), pid.to_string())?)
}

/// Routers that ended as soon as they were started, with what they said last. One that runs has its API at once, or waits for somebody.
pub(super) fn ended(lab: &Lab) -> Vec<String> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const SAID: usize = 12;
    let until = Instant::now() + PATIENCE;
    let mut ended = Vec::new();
    for node in lab.nodes.iter().filter(|node| node.router) {
        loop {
            let Some(pid) = lab.pid(node).filter(|pid| lives(*pid)) else {
                let log = std::fs::read_to_string(lab.log(node)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let said = lines[lines.len().saturating_sub(SAID)..].join("\n  ");
                ended.push(format!("node {}: the router ended:\n  {said}", node.name));
                break;
            };
            let api = format!("/proc/{pid}/root/run/weft/api.sock");
            if Path::new(&api).exists() || Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    ended
}

/// Sends SIGHUP to the node's router, which then has the files that lie on the host now.
pub(super) fn reload(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    let Some(pid) = lab.pid(node).filter(|_| node.router) else {
        bail!("no router runs in node {}", node.name)
    };
    place::within(lab.holder(node)?, || root::follow(&node.files))
        .with_context(|| format!("node {}", node.name))?;
    Ok(send_signal(Pid::from_raw(pid), Signal::SIGHUP)?)
}

/// Kills what runs in the node and waits until it is gone.
pub(super) fn kill(lab: &Lab, node: &LabNode) -> anyhow::Result<()> {
    let Some(pid) = lab.pid(node) else {
        bail!("nothing runs in node {}", node.name)
    };
    end(&[pid])
}

/// Kills processes and waits until they are gone, at most a few seconds.
pub(super) fn end(pids: &[i32]) -> anyhow::Result<()> {
    for pid in pids {
        // It may have ended by itself.
        let _ = send_signal(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while let Some(pid) = pids.iter().find(|pid| lives(**pid)) {
        if Instant::now() > until {
            bail!("process {pid} does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What a shell would return for this status.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
