//! What a topology says that takes a container, in words for the user: one line for each thing, with the nodes that it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layers::{Bind, Layer};
use crate::lab::CONFIG;

/// Images without a service of their own: what a node of them does is in its topology.
const BARE: [&str; 12] = [
    "almalinux",
    "alpine",
    "busybox",
    "centos",
    "debian",
    "fedora",
    "kali-rolling",
    "netshoot",
    "network-multitool",
    "rockylinux",
    "toolbox",
    "ubuntu",
];

/// What is not made.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Nodes by the kind that needs a container.
    pub(super) kinds: BTreeMap<String, Vec<String>>,
    /// Nodes that would have the host's network.
    pub(super) networks: Vec<String>,
    /// Nodes that would be bridges of Open vSwitch.
    pub(super) switches: Vec<String>,
    /// Files that are not there.
    pub(super) binds: BTreeSet<PathBuf>,
    /// Nodes by their image, which starts nothing here.
    images: BTreeMap<String, Vec<String>>,
    /// Nodes with a start-up configuration.
    startup: Vec<String>,
    /// Commands that are for the host, with their nodes.
    on_host: Vec<String>,
    /// Keys without effect that the user should know of.
    without_effect: BTreeSet<&'static str>,
}

impl LeftOut {
    /// A node that is the host.
    pub(super) fn host(&mut self, name: &str, layer: &Layer<'_>) {
        let lines = layer.exec.iter().chain(&layer.stages.on_host);
        self.on_host
            .extend(lines.map(|line| format!("{name}: `{line}`")));
    }

    /// What a node says and cannot have.
    pub(super) fn keys(&mut self, name: &str, layer: &Layer<'_>) {
        self.without_effect.extend(&layer.without_effect);
        if layer.startup_config.is_some() {
            self.startup.push(name.to_owned());
        }
        let lines = layer.stages.on_host.iter();
        self.on_host
            .extend(lines.map(|line| format!("{name}: `{line}`")));
    }

    /// The image of a node in which it alone would start something.
    pub(super) fn image(
        &mut self,
        name: &str,
        image: Option<&str>,
        layer: &Layer<'_>,
        binds: &[Bind],
    ) {
        let Some(image) = image else { return };
        let last = image.rsplit('/').next().unwrap_or(image);
        let bare = last.split([':', '@']).next().unwrap_or(last);
        let router = binds
            .iter()
            .any(|bind| bind.destination == Path::new(CONFIG));
        if !router && layer.command().is_none() && !BARE.contains(&bare) {
            let nodes = self.images.entry(image.to_owned()).or_default();
            nodes.push(name.to_owned());
        }
    }

    /// What is said where nothing is left.
    pub(super) fn everything(&self) -> String {
        let kinds = self.kinds.iter().map(|(kind, names)| {
            format!("{} of kind `{kind}`, which needs a container", are(names))
        });
        let networks = (!self.networks.is_empty())
            .then(|| format!("{} in the host's network", are(&self.networks)));
        kinds.chain(networks).collect::<Vec<_>>().join("; ")
    }

    /// A line for each thing.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (kind, names) in &self.kinds {
            let stands = match names.len() {
                1 => "it stands empty, with its links alone",
                _ => "they stand empty, with their links alone",
            };
            notes.push(format!(
                "{} of kind `{kind}`, which needs a container: {stands}",
                are(names)
            ));
        }
        if !self.networks.is_empty() {
            notes.push(format!(
                "{} in the host's network, which a lab leaves alone (`network-mode: host`): nothing runs there, links alone are made",
                are(&self.networks)
            ));
        }
        if !self.switches.is_empty() {
            notes.push(format!(
                "{} of kind `ovs-bridge`: here a bridge of the kernel",
                are(&self.switches)
            ));
        }
        if !self.on_host.is_empty() {
            notes.push(format!(
                "a lab runs no commands on the host; left out: {}",
                self.on_host.join("; ")
            ));
        }
        if !self.startup.is_empty() {
            notes.push(format!(
                "{} given a `startup-config`, which the system in a container would read: bind the file and read it with `exec`",
                are(&self.startup)
            ));
        }
        if !self.images.is_empty() {
            let images = self.images.iter();
            let images = images.map(|(image, names)| format!("{image} ({})", names.join(", ")));
            notes.push(format!(
                "images are not used; what they start by themselves needs a container, or `exec` with a program of the host: {}",
                images.collect::<Vec<_>>().join(", ")
            ));
        }
        if !self.binds.is_empty() {
            let files = self.binds.iter().map(|path| path.display().to_string());
            notes.push(format!(
                "not bound, since the host has it not: {}",
                files.collect::<Vec<_>>().join(", ")
            ));
        }
        if !self.without_effect.is_empty() {
            let keys: Vec<&str> = self.without_effect.iter().copied().collect();
            notes.push(format!(
                "without containers these have no effect: {}",
                keys.join(", ")
            ));
        }
        notes
    }
}

/// `node a is`, `nodes a, b are`.
fn are(names: &[String]) -> String {
    match names {
        [name] => format!("node {name} is"),
        names => format!("nodes {} are", names.join(", ")),
    }
}
