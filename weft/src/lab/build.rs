//! Builds labs and takes them down.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::state::{Lab, LabNode};
use super::topology::{Node, Topology};
use super::{CONFIG, node};

fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ip(words: &[&str]) -> anyhow::Result<String> {
    run(Command::new("ip").args(words))
}

/// Builds a lab; where that fails, nothing of it stays.
pub(super) fn up(topology: &Topology) -> anyhow::Result<Lab> {
    if Lab::find(Some(&topology.name))?.is_some() {
        bail!(
            "lab {0} is up: `weft lab down {0}` first, or `weft lab up --reconfigure`",
            topology.name
        );
    }
    let nodes = topology.nodes.iter().map(|(name, node)| LabNode {
        name: name.clone(),
        router: node
            .binds
            .iter()
            .any(|(_, destination)| destination == Path::new(CONFIG)),
        cmd: node.cmd.clone(),
        env: node.env.clone().into_iter().collect(),
        holder: None,
    });
    let mut lab = Lab {
        name: topology.name.clone(),
        nodes: nodes.collect(),
    };
    // Before anything is made, so that `down` knows of it whatever happens.
    lab.save()?;
    if let Err(error) = build(topology, &mut lab) {
        if let Err(failed) = down(&lab) {
            return Err(error.context(format!("and it could not be cleaned up: {failed:#}")));
        }
        return Err(error);
    }
    Ok(lab)
}

fn build(topology: &Topology, lab: &mut Lab) -> anyhow::Result<()> {
    for at in 0..lab.nodes.len() {
        let namespace = lab.namespace(&lab.nodes[at].name);
        ip(&["netns", "add", &namespace])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        let name = lab.nodes[at].name.clone();
        lab.nodes[at].holder = Some(hold(lab, &name, &topology.nodes[&name])?);
        lab.save()?;
    }
    for link in &topology.links {
        let [(a, a_if), (b, b_if)] = &link.ends;
        let (a_ns, b_ns) = (lab.namespace(a), lab.namespace(b));
        ip(&[
            "link", "add", a_if, "netns", &a_ns, "type", "veth", "peer", "name", b_if, "netns",
            &b_ns,
        ])?;
        for (namespace, interface) in [(&a_ns, a_if), (&b_ns, b_if)] {
            let mtu = link.mtu.unwrap_or(1500).to_string();
            ip(&["-n", namespace, "link", "set", interface, "mtu", &mtu, "up"])?;
        }
    }
    for of in &lab.nodes {
        for line in &topology.nodes[&of.name].exec {
            let words = ["sh", "-c", line].map(str::to_owned);
            run(&mut node::command(lab, of, &words)?)
                .with_context(|| format!("node {}: exec `{line}`", of.name))?;
        }
    }
    for of in lab.nodes.iter().filter(|of| of.router || of.cmd.is_some()) {
        node::start(lab, of)?;
    }
    Ok(())
}

/// Starts the process that holds a node's mount namespace, with the binds in place. A bind's folder is covered by an
/// overlay, so that nothing is written to the host's.
fn hold(lab: &Lab, name: &str, node: &Node) -> anyhow::Result<i32> {
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    let mut script = String::from("set -e; mount --make-rprivate /; ");
    let mut covered: Vec<&Path> = Vec::new();
    for (source, destination) in &node.binds {
        let folder = destination.parent().unwrap_or(Path::new("/"));
        if !covered.contains(&folder) {
            let layers = lab.folder().join(format!("{name}.layer{}", covered.len()));
            std::fs::create_dir_all(layers.join("upper"))?;
            std::fs::create_dir_all(layers.join("work"))?;
            std::fs::create_dir_all(folder)?;
            script.push_str(&format!(
                "mount -t overlay overlay -o lowerdir={0},upperdir={1}/upper,workdir={1}/work {0}; ",
                quote(folder),
                quote(&layers)
            ));
            covered.push(folder);
        }
        let made = if source.is_dir() { "mkdir -p" } else { "touch" };
        script.push_str(&format!(
            "{made} {0}; mount --bind {1} {0}; ",
            quote(destination),
            quote(source)
        ));
    }
    script.push_str("echo ready; exec sleep infinity");
    let mut child = {
        use std::os::unix::process::CommandExt;
        Command::new("ip")
            .args(["netns", "exec", &lab.namespace(name), "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot run ip")?
    };
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    }
    if line.trim() != "ready" {
        let output = child.wait_with_output()?;
        bail!(
            "node {name}: cannot bind: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // `ip netns exec` becomes the shell, and the shell `sleep`: all have this number.
    i32::try_from(child.id()).context("a process number out of range")
}

/// Takes a lab down, from whatever state it is in.
pub(super) fn down(lab: &Lab) -> anyhow::Result<()> {
    let known = ip(&["netns", "list"])?;
    for of in &lab.nodes {
        let namespace = lab.namespace(&of.name);
        if !known
            .lines()
            .any(|line| line.split(' ').next() == Some(&namespace))
        {
            continue;
        }
        // Everything in it, whoever started it.
        for pid in ip(&["netns", "pids", &namespace])?
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            node::end(pid, Signal::SIGKILL)?;
        }
        ip(&["netns", "del", &namespace])?;
    }
    if lab.folder().exists() {
        std::fs::remove_dir_all(lab.folder()).context("cannot remove the lab's files")?;
    }
    Ok(())
}
