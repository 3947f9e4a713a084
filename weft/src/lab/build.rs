//! Builds labs and takes them down.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, bail};

use super::outcome::{Miss, Outcome};
use super::place::Held;
use super::state::{Lab, LabNode};
use super::topology::{Ends, Kind, Link, MANAGED, Network, Node, Topology};
use super::{CONFIG, network, node, order, place};

/// A lab that is up.
pub(super) struct Built {
    pub(super) lab: Lab,
    /// What the nodes' commands wrote, in the order of nodes.
    pub(super) output: String,
    /// What is not as the topology says, and cannot be here.
    pub(super) notes: Vec<String>,
    /// Commands and parameters that failed.
    pub(super) failed: Vec<String>,
}

/// Builds a lab; where that fails, nothing of it stays.
pub(super) fn up(topology: &Topology) -> anyhow::Result<Built> {
    if let Some(lab) = Lab::find(Some(&topology.name))? {
        // Says why.
        lab.claim()?;
    }
    let nodes = topology.nodes.iter().map(|node| LabNode {
        name: node.name.clone(),
        router: node.kind == Kind::Linux
            && node
                .binds
                .iter()
                .any(|bind| bind.destination == Path::new(CONFIG)),
        bridge: node.kind == Kind::Bridge,
        empty: node.kind == Kind::Empty,
        cmd: node.cmd.clone(),
        image: node.image.clone(),
        env: node.env.clone().into_iter().collect(),
        holder: None,
        files: Vec::new(),
    });
    let host_interfaces = topology.links.iter().filter_map(|link| match &link.ends {
        Ends::Host(_, host) => Some(host.clone()),
        Ends::Nodes(..) | Ends::Macvlan(..) | Ends::Dummy(_) | Ends::Vxlan(..) => None,
    });
    let mut lab = Lab {
        name: topology.name.clone(),
        nodes: nodes.collect(),
        host_interfaces: host_interfaces.collect(),
    };
    // What is there already is not the lab's, and would be taken down with it.
    for node in &lab.nodes {
        let name = lab.namespace(&node.name);
        if place::netns(&name).exists() {
            bail!(
                "the network namespace {name} is there already: where nothing needs it, `ip netns del {name}`"
            );
        }
    }
    for interface in &lab.host_interfaces {
        if nix::net::if_::if_nametoindex(interface.as_str()).is_ok() {
            bail!("the host has an interface {interface} already");
        }
    }
    // Before anything is made, so that `down` knows of it whatever happens.
    lab.claim()?;
    match build(topology, &mut lab) {
        Ok((notes, failed)) => Ok(Built {
            output: written(&lab),
            lab,
            notes,
            failed,
        }),
        Err(error) => match down(&lab) {
            Ok(()) => Err(error),
            Err(failed) => {
                Err(error.context(format!("and it could not be cleaned up: {failed:#}")))
            }
        },
    }
}

/// What the nodes' commands wrote.
fn written(lab: &Lab) -> String {
    let records = lab.nodes.iter().map(|node| lab.record(node));
    // Most wrote nothing.
    records
        .filter_map(|record| std::fs::read_to_string(record).ok())
        .collect()
}

/// What could not be done here, and what failed.
fn build(topology: &Topology, lab: &mut Lab) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    place::prepare_names()?;
    let outcome = Outcome::default();
    let read_only = spaces(topology, lab, &outcome)?;
    let mut notes: Vec<String> = read_only
        .into_iter()
        .map(|what| format!("nodes see this read-only: {what}"))
        .collect();
    order::before_links(topology, lab, &outcome)?;
    let namespaces: Vec<String> = lab
        .nodes
        .iter()
        .map(|node| lab.namespace(&node.name))
        .collect();
    let refused = network::link(&topology.links, |name| {
        let at = topology.nodes.iter().position(|node| node.name == name);
        at.map_or("", |at| namespaces[at].as_str())
    })?;
    let links = topology.links.iter().enumerate();
    let made = links.filter(|(at, _)| !refused.iter().any(|(refused, _)| refused == at));
    let made: Vec<&Link> = made.map(|(_, link)| link).collect();
    order::each(topology, lab, |node, there| {
        let ends = made.iter().flat_map(|link| link.nodes());
        let ends = ends.filter(|end| end.node == node.name);
        let names: Vec<&str> = ends.map(|end| end.interface.as_str()).collect();
        place::within(lab.holder(there)?, || {
            if node.kind == Kind::Bridge {
                network::bridge(&node.name, &names)?;
            }
            if !names.is_empty() {
                network::raise(&names)?;
            }
            outcome.add(&node.name, parameters(node, true));
            if let Some(management) = &node.management {
                let interface = match node.kind {
                    Kind::Bridge => node.name.as_str(),
                    Kind::Linux | Kind::Empty => MANAGED,
                };
                network::address(interface, management)?;
                let file = Path::new("/etc/resolv.conf");
                if !node.binds.iter().any(|bind| bind.destination == file) {
                    // The host's servers lie behind a default route that leads nowhere: a question would wait for its time to be over. Where the file cannot be
                    // written, it does.
                    let _ = std::fs::write(file, "# a lab has no way to the host's name servers\n");
                }
            }
            Ok(())
        })
        .with_context(|| format!("node {}", node.name))
    })?;
    order::configure(topology, lab, &outcome)?;
    if !order::names(topology, lab)? {
        notes.push(
            "nodes do not know each other by name: /etc/hosts cannot be written in them".into(),
        );
    }
    let (missed, failed) = outcome.told(topology.nodes.iter().map(|node| node.name.as_str()));
    notes.extend(missed);
    let refused = refused.into_iter().map(|(_, what)| what);
    Ok((notes, refused.chain(failed).collect()))
}

/// Makes the namespaces of all nodes, those whose network others have first. What nodes see read-only.
fn spaces(topology: &Topology, lab: &mut Lab, outcome: &Outcome) -> anyhow::Result<Vec<String>> {
    let mut read_only = Vec::new();
    for own in [true, false] {
        let made: Mutex<Vec<(usize, Held)>> = Mutex::new(Vec::new());
        let result = order::each(topology, lab, |node, there| {
            let other = match &node.network {
                Network::Own | Network::Alone | Network::Host => None,
                Network::Of(other) => Some(lab.namespace(other)),
            };
            if other.is_none() != own {
                return Ok(());
            }
            let scratch = lab.scratch(&node.name)?;
            let name = lab.namespace(&node.name);
            let held = place::make(&node.name, &name, other.as_deref(), &node.binds, &scratch)?;
            let holder = held.holder;
            let at = lab.nodes.iter().position(|other| other.name == there.name);
            let mut made = made
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            made.extend(at.map(|at| (at, held)));
            drop(made);
            place::within(holder, || {
                network::loopback()?;
                outcome.add(&node.name, parameters(node, false));
                Ok(())
            })
            .with_context(|| format!("node {}", node.name))
        });
        let made = made
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (at, held) in made {
            lab.nodes[at].holder = Some(held.holder);
            lab.nodes[at].files = held.root.files;
            for what in held.root.read_only {
                if !read_only.contains(&what) {
                    read_only.push(what);
                }
            }
        }
        lab.save()?;
        result?;
    }
    read_only.sort();
    Ok(read_only)
}

/// Sets a node's kernel parameters; the thread is in its network. Before links are there, those of their interfaces are not, and nothing is missed.
fn parameters(node: &Node, all: bool) -> Vec<Miss> {
    let set = |(path, value): (&String, &String)| {
        let file = Path::new("/proc/sys").join(path);
        let name = path.replace('/', ".");
        match (file.exists(), all) {
            (false, true) => Some(Miss::NoParameter(name)),
            (false, false) => None,
            (true, _) => {
                let error = std::fs::write(&file, value).err()?;
                all.then(|| Miss::Failed {
                    line: format!("sysctls: {name} = {value}"),
                    how: error.to_string(),
                })
            }
        }
    };
    node.sysctls.iter().filter_map(set).collect()
}

/// Takes a lab down, from whatever state it is in.
pub(super) fn down(lab: &Lab) -> anyhow::Result<()> {
    let host = place::number(Path::new("/proc/self/ns/net"));
    let networks: Vec<(String, (u64, u64))> = lab
        .nodes
        .iter()
        .map(|node| lab.namespace(&node.name))
        .filter_map(|name| Some((name.clone(), place::number(&place::netns(&name))?)))
        .filter(|(_, number)| Some(*number) != host)
        .collect();
    let running: Vec<i32> = lab.nodes.iter().filter_map(|node| lab.pid(node)).collect();
    node::end(&running)?;
    // The kernel takes a minute, with everybody's network held, to delete a namespace with 300,000 routes over next-hop objects; their removal in
    // bulk takes a second.
    std::thread::scope(|scope| {
        for node in lab.nodes.iter().filter(|node| node.router) {
            let name = lab.namespace(&node.name);
            scope.spawn(move || {
                // Where that fails, the namespace goes with all that is in it, only later.
                let _ = place::within_network(&name, || crate::router::down(true));
            });
        }
    });
    let numbers: Vec<(u64, u64)> = networks.iter().map(|(_, number)| *number).collect();
    loop {
        // Everything in it, whoever started it, and what that has started meanwhile.
        let left = place::processes(&numbers)?;
        if left.is_empty() {
            break;
        }
        node::end(&left)?;
    }
    for (name, _) in &networks {
        place::forget(name)?;
    }
    network::remove(&lab.host_interfaces)?;
    if lab.folder().exists() {
        std::fs::remove_dir_all(lab.folder()).context("cannot remove the lab's files")?;
    }
    Ok(())
}
