//! Topology files in containerlab's format.
//!
//! What a file says is done; what takes a container is left out and named ([`Topology::notes`]), its links are there; what is wrong is refused with its place.
//!
//! | module | what it is |
//! |---|---|
//! | [`variables`] | `${VARIABLE}`, before anything is read |
//! | [`layers`] | what a node may have, and how it inherits |
//! | [`stages`] | the order in which nodes come up |
//! | [`links`] | links |
//! | [`management`] | the network that containers would be managed by |
//! | [`left_out`] | what takes a container, in words |

mod layers;
mod left_out;
mod links;
mod management;
mod stages;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::config::ConfigErrors;
use crate::config::node::{self, Kind as Value, Node as Yaml, Position};
use crate::config::reader::{Cursor, Problems};
use crate::config::report::Problem;
use layers::Layer;
pub(super) use layers::{Bind, HealthCheck, Network};
use left_out::LeftOut;
use links::Place;
pub(super) use links::{End, Ends, Link, Mode};
use management::Subnets;
pub(super) use management::{INTERFACE as MANAGED, Management};
pub(super) use stages::{Stage, Stages};

/// A topology, with everything that nodes inherit written out.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) name: String,
    /// In the order of the file.
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    /// What the file says and has no effect, for the user.
    pub(super) notes: Vec<String>,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Commands that are run in it once its links are there.
    pub(super) exec: Vec<String>,
    pub(super) binds: Vec<Bind>,
    /// Environment of everything that runs in it.
    pub(super) env: BTreeMap<String, String>,
    /// What runs in it, where it is no router.
    pub(super) cmd: Option<String>,
    /// The image of a container that it would be.
    pub(super) image: Option<String>,
    /// Kernel parameters by their path below `/proc/sys`.
    pub(super) sysctls: BTreeMap<String, String>,
    /// Names by which the other nodes know it, beside its own.
    pub(super) aliases: Vec<String>,
    pub(super) network: Network,
    /// Its place in the management network.
    pub(super) management: Option<Management>,
    /// How long its commands wait.
    pub(super) startup_delay: Duration,
    pub(super) health: Option<HealthCheck>,
    pub(super) stages: Stages,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A router or a host.
    Linux,
    /// A bridge of its name, to which its links are attached.
    Bridge,
    /// A namespace with its links and nothing else: what it would be needs a container.
    Empty,
}

impl Node {
    /// A node of which nothing is said but its links.
    fn without_words(name: String, kind: Kind) -> Self {
        Self {
            name,
            kind,
            exec: Vec::new(),
            binds: Vec::new(),
            env: BTreeMap::new(),
            cmd: None,
            image: None,
            sysctls: BTreeMap::new(),
            aliases: Vec::new(),
            network: Network::Own,
            management: None,
            startup_delay: Duration::ZERO,
            health: None,
            stages: Stages::default(),
        }
    }
}

impl Topology {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or a [`ConfigErrors`] with everything that is wrong with it.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        let base = std::path::absolute(file)?;
        let base = base.parent().unwrap_or(Path::new("/"));
        Ok(Self::parse(&shown, &text, base, &|name| {
            std::env::var(name).ok()
        })?)
    }

    /// Reads a text; `file` is its name in errors, `base` where relative paths start.
    fn parse(
        file: &str,
        text: &str,
        base: &Path,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let alone = |text: &str, position, message: String, help: Option<&str>| {
            let problem = Problem {
                position,
                length: 1,
                path: String::new(),
                message,
                help: help.map(str::to_owned),
            };
            ConfigErrors::new(file, text, vec![problem])
        };
        if let Some(position) = template(text) {
            let help = "render it first, and give the result to `weft lab up`";
            let what = "a Go template, not a topology".to_owned();
            return Err(alone(text, position, what, Some(help)));
        }
        let text = &variables::expand(text, variable)
            .map_err(|missing| alone(text, missing.position, missing.message, None))?;
        let root = node::parse(text).map_err(|error| {
            let message = format!("this is not YAML: {}", error.message);
            alone(text, error.position, message, None)
        })?;
        let Some(root) = root.map(merged) else {
            let start = Position { line: 1, column: 1 };
            let message = "the file is empty, expected a topology".to_owned();
            return Err(alone(text, start, message, None));
        };
        let problems = Problems::default();
        let topology = document(&Cursor::root(&root, &problems), base);
        match (topology, problems.into_inner()) {
            (Some(topology), problems) if problems.is_empty() => Ok(topology),
            (_, mut problems) => {
                // What many nodes inherit is wrong in one place.
                let mut seen = BTreeSet::new();
                problems.retain(|problem| seen.insert(problem.position));
                Err(ConfigErrors::new(file, text, problems))
            }
        }
    }

    /// Whether it matters that a node leaves this stage: it has steps there, or later, or another node waits for that.
    pub(super) fn awaits(&self, node: &Node, stage: Stage) -> bool {
        let late = |(name, awaited): &(String, Stage)| *name == node.name && *awaited >= stage;
        let waits = |other: &Node| {
            Stage::ALL
                .into_iter()
                .any(|at| other.stages.waits(at).any(late))
        };
        !node.stages.end_before(stage) || self.nodes.iter().any(waits)
    }
}

/// Where the text has an action of a Go template, outside of comments.
fn template(text: &str) -> Option<Position> {
    text.lines().enumerate().find_map(|(number, line)| {
        let at = line
            .find("{{")
            .filter(|_| !line.trim_start().starts_with('#'))?;
        // `{{` in YAML proper is a mapping whose key is a mapping: nothing that a topology has.
        Some(Position {
            line: number + 1,
            column: line[..at].chars().count() + 1,
        })
    })
}

/// Every `<<` of the tree replaced by what it stands for (YAML 1.1 merge keys): a key of its own wins.
fn merged(node: Yaml) -> Yaml {
    let kind = match node.kind {
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(merged).collect()),
        Value::Mapping(entries) => {
            let mut own: Vec<(Yaml, Yaml)> = Vec::new();
            let mut sources: Vec<Yaml> = Vec::new();
            for (key, value) in entries {
                let value = merged(value);
                match (scalar(&key), value.kind) {
                    (Some("<<"), Value::Sequence(items)) => sources.extend(items),
                    (Some("<<"), kind @ Value::Mapping(_)) => sources.push(Yaml { kind, ..value }),
                    // A node without a word of its own, such as `a: &host`, gives nothing.
                    (Some("<<"), Value::Scalar { text, .. })
                        if matches!(text.as_str(), "" | "~" | "null") => {}
                    (_, kind) => own.push((key, Yaml { kind, ..value })),
                }
            }
            for source in sources {
                if let Value::Mapping(entries) = source.kind {
                    for (key, value) in entries {
                        if !own.iter().any(|(there, _)| scalar(there) == scalar(&key)) {
                            own.push((key, value));
                        }
                    }
                }
            }
            Value::Mapping(own)
        }
        scalar => scalar,
    };
    Yaml { kind, ..node }
}

fn scalar(node: &Yaml) -> Option<&str> {
    match &node.kind {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

fn short_name(at: &Cursor<'_>, what: &str) -> Option<String> {
    let fits = |text: &&str| {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['-', '.'])
    };
    match at.scalar().filter(fits) {
        Some(text) => Some(text.to_owned()),
        None => at.expected(format!(
            "{what}: letters, digits, `-`, `_`, `.`, at most 64"
        )),
    }
}

fn document(root: &Cursor<'_>, base: &Path) -> Option<Topology> {
    let mut fields = root.fields("a topology: a mapping with `name` and `topology`")?;
    let name = fields.required("name", "it names the lab", |at| {
        short_name(&at, "a name of a lab")
    });
    let subnets = Subnets::read(fields.get("mgmt").as_ref());
    // How containers are named.
    for key in ["prefix", "settings", "debug"] {
        fields.get(key);
    }
    let body = fields.required("topology", "it has the nodes and links", |at| {
        at.fields("a mapping with `nodes` and `links`")
    });
    fields.finish();
    let mut body = body?;
    let own = base.join(format!("clab-{}", name.as_deref().unwrap_or_default()));
    let defaults = match body.get("defaults") {
        Some(at) => Layer::read(&at, base)?,
        None => Layer::default(),
    };
    let mut layers = |key| -> Option<BTreeMap<String, Layer<'_>>> {
        let Some(at) = body.get(key).filter(|at| !at.is_null()) else {
            return Some(BTreeMap::new());
        };
        let entries = at.entries("a mapping of names to what nodes have")?;
        let named = entries
            .into_iter()
            .filter_map(|(name, at)| Some((name.scalar()?.to_owned(), Layer::read(&at, base)?)));
        Some(named.collect())
    };
    let (kinds, groups) = (layers("kinds")?, layers("groups")?);
    let nodes_at = body.required("nodes", "it has the nodes of the lab", Some)?;
    let mut nodes = Vec::new();
    let mut places: Vec<(&str, Place)> = Vec::new();
    let mut left_out = LeftOut::default();
    let mut awaited = Vec::new();
    let mut networks = Vec::new();
    let mut asked = Vec::new();
    for (name_at, at) in nodes_at.entries("a mapping of names to nodes")? {
        let (Some(name), Some(own_layer)) = (
            short_name(&name_at, "a name of a node"),
            Layer::read(&at, base),
        ) else {
            continue;
        };
        let group = own_layer.group.as_ref().or(defaults.group.as_ref());
        let group = group.and_then(|group| groups.get(group));
        let in_group = group.and_then(|group| group.kind.as_ref());
        let kind = own_layer
            .kind
            .as_ref()
            .or(in_group)
            .or(defaults.kind.as_ref());
        let mut layer = defaults.clone();
        let of_kind = kind.and_then(|(kind, _)| kinds.get(kind));
        for nearer in of_kind.into_iter().chain(group).chain([&own_layer]) {
            layer.extend(nearer);
        }
        awaited.extend(layer.awaited.iter().cloned());
        let network = layer.network.as_ref().map(|(network, _)| network);
        let kind = match kind.map_or("linux", |(kind, _)| kind.as_str()) {
            "host" => {
                left_out.host(&name, &layer);
                places.push((name_at.scalar()?, Place::Host));
                continue;
            }
            "linux" if network == Some(&Network::Host) => {
                left_out.networks.push(name.clone());
                Kind::Empty
            }
            "linux" => Kind::Linux,
            "bridge" => Kind::Bridge,
            "ovs-bridge" => {
                left_out.switches.push(name.clone());
                Kind::Bridge
            }
            other => {
                let kind = left_out.kinds.entry(other.to_owned()).or_default();
                kind.push(name.clone());
                Kind::Empty
            }
        };
        if kind == Kind::Bridge && name.len() > 15 {
            name_at.problem("a bridge has the name of its node: at most 15 octets", None);
        }
        if kind == Kind::Empty {
            places.push((name_at.scalar()?, Place::Empty));
            nodes.push(Node::without_words(name, kind));
            continue;
        }
        places.push((name_at.scalar()?, Place::Node));
        if let Some((Network::Of(other), at)) = &layer.network {
            networks.push((name.clone(), other.clone(), at.clone()));
        }
        left_out.keys(&name, &layer);
        let addresses = layer.management.iter().flatten();
        asked.push((name.clone(), addresses.copied().collect::<Vec<_>>()));
        let binds = layers::binds(&layer.binds, base, &own.join(&name), &mut left_out.binds);
        if kind == Kind::Bridge {
            // What nodes inherit to run is for those that are systems.
            (layer.image, layer.entrypoint, layer.cmd) = (None, None, None);
        }
        let image = layer.image.clone().filter(|image| !ours(image));
        left_out.image(&name, image.as_deref(), &layer, &binds);
        nodes.push(Node {
            cmd: layer.command(),
            kind,
            exec: layer.exec,
            binds,
            env: layer.env,
            image,
            sysctls: layer.sysctls,
            aliases: layer.aliases,
            network: layer.network.map_or(Network::Own, |(network, _)| network),
            management: None,
            startup_delay: layer.startup_delay.unwrap_or_default(),
            health: layer.health,
            stages: layer.stages,
            name,
        });
    }
    if !nodes.is_empty() && nodes.iter().all(|node| node.kind == Kind::Empty) {
        nodes_at.problem(
            left_out.everything(),
            Some("a lab in namespaces has nodes of kind `linux` and `bridge`".to_owned()),
        );
    }
    for (awaited, at) in &awaited {
        if !places.iter().any(|(name, _)| name == awaited) {
            at.problem(format!("there is no node `{awaited}`"), None);
        }
    }
    for (name, other, at) in &networks {
        let other = nodes.iter().find(|node| node.name == *other);
        match other.map(|other| &other.network) {
            _ if other.is_some_and(|other| other.name == *name) => {
                at.problem("a node cannot share its own network", None);
            }
            None => at.problem(
                "found no such node: containers outside of the lab are out of reach",
                None,
            ),
            Some(Network::Of(_)) => {
                at.problem(
                    "that node has another's network itself: name that one",
                    None,
                );
            }
            Some(Network::Own | Network::Alone | Network::Host) => {}
        }
    }
    let order = nodes.iter().map(|node| (node.name.as_str(), &node.stages));
    if let Some(ring) = stages::ring(&order.collect()) {
        let ring = ring.join(" for ");
        nodes_at.problem(format!("nodes wait for each other in a ring: {ring}"), None);
    }
    let reader = links::Reader::new(places.iter().copied());
    let links = match body.get("links").filter(|at| !at.is_null()) {
        Some(at) => at.list("a list of links", |at| reader.link(&at))?,
        None => Vec::new(),
    };
    body.finish();
    let mut links: Vec<Link> = links.into_iter().map(|link| link.value).collect();
    subnets.join(&mut nodes, &mut links, &asked);
    let managed = |end: &End| end.node == links::MANAGEMENT;
    if !nodes.iter().any(|node| node.name == links::MANAGEMENT)
        && links.iter().flat_map(Link::nodes).any(managed)
    {
        let name = links::MANAGEMENT.to_owned();
        nodes.push(Node {
            management: Some(subnets.bridge()),
            sysctls: management::ANSWERS
                .map(|(path, value)| (path.to_owned(), value.to_owned()))
                .into(),
            ..Node::without_words(name, Kind::Bridge)
        });
    }
    Some(Topology {
        name: name?,
        nodes,
        links,
        notes: left_out.notes(),
    })
}

/// Whether an image is that of this program.
fn ours(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next() == Some("weft")
}
