//! What a topology says of a node, in layers: defaults, kind, group, the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stages::{self, Stages};
use crate::config::reader::Cursor;
use crate::config::values::{list, text};

/// Keys of containerlab that only matter where nodes are containers, and whether a user wants to know that they have no effect here.
const WITHOUT_EFFECT: [(&str, bool); 35] = [
    ("image", false),
    ("image-pull-policy", false),
    ("type", false),
    ("labels", false),
    ("position", false),
    ("license", true),
    ("runtime", true),
    ("user", true),
    ("ports", true),
    ("publish", true),
    ("dns", true),
    ("cpu", true),
    ("cpu-set", true),
    ("memory", true),
    ("shm-size", true),
    ("cap-add", true),
    ("cgroup-parent", true),
    ("devices", true),
    ("restart-policy", true),
    ("auto-remove", true),
    ("certificate", true),
    ("config", true),
    ("extras", true),
    ("credentials", true),
    ("components", true),
    ("enforce-startup-config", true),
    ("suppress-startup-config", true),
    ("daemons", true),
    ("mgmt-net", true),
    ("privileged", false),
    ("sandbox", true),
    ("kernel", true),
    ("SANs", true),
    // All nodes are made at once; the wait was for no more.
    ("wait-for", false),
    ("__IMPORT_ENVS", false),
];

/// Folders of the system itself: what a topology binds of them is there or not, as the host is.
const SYSTEM: [&str; 6] = ["/boot", "/dev", "/lib", "/run", "/sys", "/var/run"];

/// Files that containerlab writes of a lab that is up.
const WRITTEN: [&str; 4] = [
    "ansible-inventory.yml",
    "authorized_keys",
    "nornir-simple-inventory.yml",
    "topology-data.json",
];

/// A file or folder of the host in a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::lab) struct Bind {
    /// On the host; `None` for an empty folder of the node's own.
    pub(in crate::lab) source: Option<PathBuf>,
    /// In the node, absolute.
    pub(in crate::lab) destination: PathBuf,
    /// The node may not write to it.
    pub(in crate::lab) read_only: bool,
}

/// How a node's health is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) struct HealthCheck {
    /// Program and arguments.
    pub(in crate::lab) test: Vec<String>,
    /// Before the first one.
    pub(in crate::lab) start_period: Duration,
    /// Between two.
    pub(in crate::lab) interval: Duration,
    /// How long one may take: then it has failed, and is ended.
    pub(in crate::lab) timeout: Duration,
    /// How many may fail, one behind the other.
    pub(in crate::lab) retries: u64,
}

/// Whose network namespace a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lab) enum Network {
    /// Its own.
    #[default]
    Own,
    /// Its own, without a way to the management network.
    Alone,
    /// That of another node.
    Of(String),
    /// The host's, which a lab has none of its nodes in.
    Host,
}

/// What one layer says, or several together.
#[derive(Clone, Default)]
pub(super) struct Layer<'a> {
    pub(super) kind: Option<(String, Cursor<'a>)>,
    pub(super) group: Option<String>,
    pub(super) image: Option<String>,
    pub(super) exec: Vec<String>,
    pub(super) binds: Vec<(String, Cursor<'a>)>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) entrypoint: Option<String>,
    pub(super) cmd: Option<String>,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) aliases: Vec<String>,
    pub(super) network: Option<(Network, Cursor<'a>)>,
    /// Addresses in the management network, IPv4 and IPv6.
    pub(super) management: [Option<IpAddr>; 2],
    pub(super) startup_delay: Option<Duration>,
    pub(super) startup_config: Option<Cursor<'a>>,
    pub(super) health: Option<HealthCheck>,
    pub(super) stages: Stages,
    pub(super) awaited: Vec<(String, Cursor<'a>)>,
    /// Keys without effect that the user should know of.
    pub(super) without_effect: BTreeSet<&'static str>,
}

impl<'a> Layer<'a> {
    /// Reads a layer; relative paths start at `base`.
    pub(super) fn read(at: &Cursor<'a>, base: &Path) -> Option<Self> {
        let mut layer = Self::default();
        if at.is_null() {
            return Some(layer);
        }
        let mut fields = at.fields("a mapping of what a node has")?;
        let string = |at: Cursor<'_>| text(&at, "a text");
        let lines = |at: Cursor<'_>| list(&at, "a list of texts", |at| text(&at, "a text"));
        layer.kind = fields.optional("kind", |at| Some((text(&at, "a kind of node")?, at)));
        layer.group = fields.optional("group", string);
        layer.image = fields
            .get("image")
            .and_then(|at| at.scalar().map(str::to_owned));
        layer.exec = fields.optional("exec", lines).unwrap_or_default();
        let binds = fields.optional("binds", |at| {
            at.list("a list such as [file:/etc/file]", |at| text(&at, "a bind"))
        });
        layer.binds = binds
            .into_iter()
            .flatten()
            .map(|bind| (bind.value, bind.at))
            .collect();
        for file in fields
            .optional("env-files", |at| at.list("a list of files", string))
            .into_iter()
            .flatten()
        {
            let path = resolve(base, &file.value);
            match std::fs::read_to_string(&path) {
                Ok(text) => layer.env.extend(assignments(&text)),
                Err(error) => file
                    .at
                    .problem(format!("cannot read {}: {error}", path.display()), None),
            }
        }
        layer
            .env
            .extend(fields.optional("env", |at| pairs(&at)).unwrap_or_default());
        // An empty one is none.
        let mut command = |key| {
            fields.optional(key, |at| match at.scalar() {
                Some("") => None,
                _ => text(&at, "a text"),
            })
        };
        (layer.entrypoint, layer.cmd) = (command("entrypoint"), command("cmd"));
        layer.sysctls = fields
            .optional("sysctls", |at| sysctls(&at))
            .unwrap_or_default();
        layer.aliases = fields.optional("aliases", lines).unwrap_or_default();
        layer.network = fields.optional("network-mode", |at| Some((network(&at)?, at)));
        let mut address = |key, old| {
            let read = |at: Cursor<'a>| at.parse("an IP address");
            fields
                .optional(key, read)
                .or_else(|| fields.optional(old, read))
        };
        layer.management = [
            address("mgmt-ipv4", "mgmt_ipv4"),
            address("mgmt-ipv6", "mgmt_ipv6"),
        ];
        layer.startup_delay = fields.optional("startup-delay", |at| seconds(&at));
        layer.startup_config = fields.get("startup-config");
        layer.health = fields.optional("healthcheck", |at| health(&at));
        if let Some(at) = fields.get("stages").filter(|at| !at.is_null()) {
            layer.stages = stages::read(&at, &mut layer.awaited).unwrap_or_default();
        }
        for (key, told) in WITHOUT_EFFECT {
            if fields.get(key).is_some() && told {
                layer.without_effect.insert(key);
            }
        }
        fields.finish();
        Some(layer)
    }

    /// Adds what a nearer layer says: lists are joined, of values the nearest holds.
    pub(super) fn extend(&mut self, nearer: &Self) {
        let nearer = nearer.clone();
        self.kind = nearer.kind.or(self.kind.take());
        self.group = nearer.group.or(self.group.take());
        self.image = nearer.image.or(self.image.take());
        self.entrypoint = nearer.entrypoint.or(self.entrypoint.take());
        self.cmd = nearer.cmd.or(self.cmd.take());
        self.network = nearer.network.or(self.network.take());
        for (own, nearer) in self.management.iter_mut().zip(nearer.management) {
            *own = nearer.or(*own);
        }
        self.startup_delay = nearer.startup_delay.or(self.startup_delay);
        self.startup_config = nearer.startup_config.or(self.startup_config.take());
        self.health = nearer.health.or(self.health.take());
        self.exec.extend(nearer.exec);
        self.binds.extend(nearer.binds);
        self.env.extend(nearer.env);
        self.sysctls.extend(nearer.sysctls);
        self.aliases.extend(nearer.aliases);
        self.stages.extend(nearer.stages);
        self.awaited.extend(nearer.awaited);
        self.without_effect.extend(nearer.without_effect);
    }

    /// What runs in the node: what an entry point is given as arguments is the command.
    pub(super) fn command(&self) -> Option<String> {
        let words: Vec<&str> = [&self.entrypoint, &self.cmd]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

/// A path of the topology file: `~` is the user's home.
fn resolve(base: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => base.join(path),
    }
}

/// Reads binds as `source:destination[:options]`, or `destination` alone. `own` is the folder that containerlab keeps for the node, with those of its lab above it.
/// Sources that the host does not have, or that only containerlab writes, are added to `missing`. `__clabNodeName__` is the name of the node.
pub(super) fn binds(
    binds: &[(String, Cursor<'_>)],
    base: &Path,
    own: &Path,
    missing: &mut BTreeSet<PathBuf>,
) -> Vec<Bind> {
    let mut result: Vec<Bind> = Vec::new();
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    for (written, at) in binds {
        let written = written.replace("__clabNodeName__", &name);
        let mut parts = written.splitn(3, ':');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let options = parts.next().unwrap_or_default();
        let Some(destination) = Some(second.unwrap_or(first)).filter(|path| path.starts_with('/'))
        else {
            at.expected::<()>("`source:destination`, with an absolute path in the node");
            continue;
        };
        let source = second.map(|_| {
            let own_path = |prefix: &str, folder: &Path| {
                let rest = first.strip_prefix(prefix)?;
                Some(folder.join(rest.trim_start_matches('/')))
            };
            own_path("__clabNodeDir__", own)
                .or_else(|| own_path("__clabDir__", own.parent().unwrap_or(own)))
                .unwrap_or_else(|| resolve(base, first))
        });
        if let Some(source) = source.as_ref().filter(|source| !source.exists()) {
            let written = source.file_name().and_then(|name| name.to_str());
            let written = written.is_some_and(|name| WRITTEN.contains(&name));
            if written || SYSTEM.iter().any(|folder| source.starts_with(folder)) {
                missing.insert(source.clone());
                continue;
            }
            at.problem(format!("{} is not there", source.display()), None);
            continue;
        }
        let bind = Bind {
            source,
            destination: PathBuf::from(destination),
            read_only: options.split(',').any(|option| option == "ro"),
        };
        // The nearest layer's holds.
        result.retain(|other| other.destination != bind.destination);
        result.push(bind);
    }
    result
}

/// A mapping of names to numbers, texts or nothing.
fn pairs(at: &Cursor<'_>) -> Option<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    if at.is_null() {
        return Some(pairs);
    }
    for (key, value) in at.entries("a mapping of names to values")? {
        match (key.scalar(), value.scalar()) {
            (Some(key), Some(text)) => _ = pairs.insert(key.to_owned(), text.to_owned()),
            (Some(key), None) if value.is_null() => _ = pairs.insert(key.to_owned(), String::new()),
            _ => _ = value.expected::<()>("a text or a number"),
        }
    }
    Some(pairs)
}

/// The lines `NAME=VALUE` of a file.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn sysctls(at: &Cursor<'_>) -> Option<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    if at.is_null() {
        return Some(values);
    }
    for (key, value) in at.entries("a mapping of kernel parameters to values")? {
        let Some(name) = key.scalar() else { continue };
        let path = sysctl_path(name);
        let whole = !path.split('/').any(|part| matches!(part, "" | "." | ".."));
        match value.scalar() {
            _ if !whole || !path.starts_with("net/") => key.problem(
                format!("`{name}` is the host's, not a node's: a node has those under `net.`"),
                None,
            ),
            Some(text) => _ = values.insert(path, text.to_owned()),
            None => _ = value.expected::<()>("a value"),
        }
    }
    Some(values)
}

/// The path of a kernel parameter below `/proc/sys`: separated by `/`, or by `.`, and then a `/` stands for a `.` in a name.
fn sysctl_path(name: &str) -> String {
    match (name.find('/'), name.find('.')) {
        (Some(slash), dot) if dot.is_none_or(|dot| slash < dot) => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

fn network(at: &Cursor<'_>) -> Option<Network> {
    let mode = text(at, "`none`, `bridge` or `container:NODE`")?;
    match mode.split_once(':') {
        Some(("container", node)) => Some(Network::Of(node.to_owned())),
        _ => match mode.as_str() {
            "bridge" => Some(Network::Own),
            "none" => Some(Network::Alone),
            "host" => Some(Network::Host),
            _ => at.expected("`none`, `bridge` or `container:NODE`"),
        },
    }
}

fn seconds(at: &Cursor<'_>) -> Option<Duration> {
    at.number("seconds", 0..=86_400).map(Duration::from_secs)
}

fn health(at: &Cursor<'_>) -> Option<HealthCheck> {
    let mut fields = at.fields("a mapping with `test`")?;
    let mut test = fields.required("test", "it is what is run", |at| {
        list(&at, "a list such as [CMD-SHELL, COMMAND]", |at| {
            text(&at, "a text")
        })
    });
    if let Some(test) = &mut test {
        match test.first().map(String::as_str) {
            Some("CMD") => _ = test.remove(0),
            Some("CMD-SHELL") => test
                .splice(0..1, ["sh", "-c"].map(str::to_owned))
                .for_each(drop),
            _ => _ = at.expected::<()>("a test that begins with CMD or CMD-SHELL"),
        }
    }
    // As with containers, 0 is as good as nothing.
    let mut time = |key, usual| {
        let said = fields.optional(key, |at| seconds(&at));
        let said = said.filter(|time| !time.is_zero());
        said.unwrap_or(Duration::from_secs(usual))
    };
    let start_period = time("start-period", 0);
    let (interval, timeout) = (time("interval", 30), time("timeout", 30));
    let retries = fields.optional("retries", |at| at.number("a count", 1..=1000));
    fields.finish();
    Some(HealthCheck {
        test: test?,
        start_period,
        interval,
        timeout,
        retries: retries.unwrap_or(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_are_written_with_dots_or_slashes() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.100/rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
        ] {
            assert_eq!(sysctl_path(name), path);
        }
    }

    #[test]
    fn an_environment_file_has_a_variable_a_line() {
        let read = assignments("# a comment\nA=1\n\n B = two words \nnothing\n");
        let expected = [("A", "1"), ("B", "two words")];
        assert_eq!(
            read,
            expected
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        );
    }
}
