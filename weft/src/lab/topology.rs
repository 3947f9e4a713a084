//! Topology files in containerlab's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A topology, with everything that nodes inherit written out.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) name: String,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) links: Vec<Link>,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Commands that are run in it once its links are there.
    pub(super) exec: Vec<String>,
    /// Source on the host and destination in the node.
    pub(super) binds: Vec<(PathBuf, PathBuf)>,
    /// Environment of everything that runs in it.
    pub(super) env: BTreeMap<String, String>,
    /// What runs in it, where it is no router.
    pub(super) cmd: Option<String>,
}

/// A link: node and interface at each end.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) ends: [(String, String); 2],
    pub(super) mtu: Option<u32>,
}

/// What containerlab knows and a lab without containers does not need.
type Ignored = Option<IgnoredAny>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileYaml {
    name: String,
    topology: TopologyYaml,
    #[serde(rename = "prefix")]
    _prefix: Ignored,
    #[serde(rename = "mgmt")]
    _mgmt: Ignored,
    #[serde(rename = "settings")]
    _settings: Ignored,
    #[serde(rename = "debug")]
    _debug: Ignored,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyYaml {
    #[serde(default)]
    defaults: NodeYaml,
    #[serde(default)]
    kinds: BTreeMap<String, NodeYaml>,
    #[serde(default)]
    groups: BTreeMap<String, NodeYaml>,
    nodes: BTreeMap<String, Option<NodeYaml>>,
    #[serde(default)]
    links: Vec<LinkYaml>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NodeYaml {
    kind: Option<String>,
    group: Option<String>,
    #[serde(default)]
    exec: Vec<String>,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cmd: Option<String>,
    #[serde(rename = "image")]
    _image: Ignored,
    #[serde(rename = "image-pull-policy")]
    _image_pull_policy: Ignored,
    #[serde(rename = "entrypoint")]
    _entrypoint: Ignored,
    #[serde(rename = "type")]
    _type: Ignored,
    #[serde(rename = "labels")]
    _labels: Ignored,
    #[serde(rename = "ports")]
    _ports: Ignored,
    #[serde(rename = "user")]
    _user: Ignored,
    #[serde(rename = "mgmt-ipv4")]
    _mgmt_ipv4: Ignored,
    #[serde(rename = "mgmt-ipv6")]
    _mgmt_ipv6: Ignored,
    #[serde(rename = "network-mode")]
    _network_mode: Ignored,
    #[serde(rename = "startup-config")]
    _startup_config: Ignored,
    #[serde(rename = "startup-delay")]
    _startup_delay: Ignored,
    #[serde(rename = "stages")]
    _stages: Ignored,
    #[serde(rename = "sysctls")]
    _sysctls: Ignored,
    #[serde(rename = "cap-add")]
    _cap_add: Ignored,
    #[serde(rename = "devices")]
    _devices: Ignored,
    #[serde(rename = "cpu")]
    _cpu: Ignored,
    #[serde(rename = "memory")]
    _memory: Ignored,
    #[serde(rename = "restart-policy")]
    _restart_policy: Ignored,
    #[serde(rename = "healthcheck")]
    _healthcheck: Ignored,
    #[serde(rename = "auto-remove")]
    _auto_remove: Ignored,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkYaml {
    endpoints: [String; 2],
    mtu: Option<u32>,
    #[serde(rename = "labels")]
    _labels: Ignored,
    #[serde(rename = "vars")]
    _vars: Ignored,
}

impl Topology {
    /// Reads and checks a file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        // The error of the parser names line and column.
        let yaml: FileYaml =
            serde_yaml::from_str(&text).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
        let short = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
                && !name.starts_with(['-', '.'])
        };
        if !short(&yaml.name) {
            bail!(
                "{shown}: name: `{}` is no lab name: letters, digits, `-`, `_`, `.`, at most 64",
                yaml.name
            );
        }
        let base = std::path::absolute(file)?
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let mut nodes = BTreeMap::new();
        for (name, node) in &yaml.topology.nodes {
            if !short(name) {
                bail!(
                    "{shown}: topology.nodes: `{name}` is no node name: letters, digits, `-`, `_`, `.`, at most 64"
                );
            }
            let node = node.clone().unwrap_or_default();
            nodes.insert(
                name.clone(),
                inherit(&yaml.topology, &node, &base)
                    .with_context(|| format!("{shown}: topology.nodes.{name}"))?,
            );
        }
        let mut links = Vec::new();
        let mut taken = BTreeMap::new();
        for (at, link) in yaml.topology.links.iter().enumerate() {
            let end = |text: &str| -> anyhow::Result<(String, String)> {
                let Some((node, interface)) = text.split_once(':') else {
                    bail!(
                        "{shown}: topology.links[{at}].endpoints: `{text}` is no endpoint: `node:interface`"
                    );
                };
                if !nodes.contains_key(node) {
                    let known: Vec<&str> = nodes.keys().map(String::as_str).collect();
                    bail!(
                        "{shown}: topology.links[{at}].endpoints: there is no node `{node}`: {}",
                        known.join(", ")
                    );
                }
                if interface.is_empty() || interface.len() > 15 {
                    bail!(
                        "{shown}: topology.links[{at}].endpoints: `{interface}` is no interface name: 1 to 15 octets"
                    );
                }
                Ok((node.to_owned(), interface.to_owned()))
            };
            let ends = [end(&link.endpoints[0])?, end(&link.endpoints[1])?];
            for end in &ends {
                if let Some(before) = taken.insert(end.clone(), at) {
                    bail!(
                        "{shown}: topology.links[{at}].endpoints: `{}:{}` stands in links[{before}] already",
                        end.0,
                        end.1
                    );
                }
            }
            links.push(Link {
                ends,
                mtu: link.mtu,
            });
        }
        Ok(Self {
            name: yaml.name,
            nodes,
            links,
        })
    }
}

/// Defaults, then kind, then group, then the node itself: lists are joined, the nearest value holds.
fn inherit(topology: &TopologyYaml, node: &NodeYaml, base: &Path) -> anyhow::Result<Node> {
    let kind = node.kind.as_ref().or(topology.defaults.kind.as_ref());
    if let Some(kind) = kind.filter(|kind| !["linux", "bridge"].contains(&kind.as_str())) {
        bail!("kind: `{kind}` needs a container: a lab without containers knows `linux`");
    }
    let of_kind = kind.and_then(|kind| topology.kinds.get(kind));
    let of_group = node
        .group
        .as_ref()
        .and_then(|group| topology.groups.get(group));
    let layers = [Some(&topology.defaults), of_kind, of_group, Some(node)];
    let mut result = Node::default();
    for layer in layers.into_iter().flatten() {
        result.exec.extend(layer.exec.iter().cloned());
        result.env.extend(layer.env.clone());
        result.cmd = layer.cmd.clone().or(result.cmd);
        for bind in &layer.binds {
            let mut parts = bind.split(':');
            let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
                bail!("binds: `{bind}` is no bind: `source:destination`");
            };
            let source = base.join(source);
            if !source.exists() {
                bail!("binds: {} is not there", source.display());
            }
            if !destination.starts_with('/') {
                bail!("binds: `{destination}` is no absolute path in the node");
            }
            result.binds.push((source, PathBuf::from(destination)));
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Topology, String> {
        let folder = std::env::temp_dir().join(format!(
            "weft-topology-{}-{:p}",
            std::process::id(),
            text.as_ptr()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("lab.clab.yaml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.join("r.yaml"), "").unwrap();
        let result = Topology::read(&file)
            .map_err(|error| format!("{error:#}").replace(&folder.display().to_string(), ""));
        std::fs::remove_dir_all(&folder).unwrap();
        result
    }

    #[test]
    fn nodes_inherit_and_containerlabs_own_keys_pass() {
        let topology = read(
            "name: x\nmgmt: {network: y}\ntopology:\n  defaults: {kind: linux, env: {A: '1'}}\n  kinds:\n    linux: {image: 'weft:latest', exec: [first]}\n  nodes:\n    r: {binds: ['r.yaml:/etc/weft/weft.yaml:ro'], exec: [second], env: {B: '2'}}\n    h:\n  links:\n    - endpoints: ['r:eth1', 'h:eth1']\n      mtu: 1600\n",
        )
        .unwrap();
        let router = &topology.nodes["r"];
        assert_eq!(router.exec, ["first", "second"]);
        assert_eq!(router.env.len(), 2);
        assert!(
            router.binds[0].0.ends_with("r.yaml")
                && router.binds[0].1.to_str() == Some("/etc/weft/weft.yaml")
        );
        assert_eq!(topology.links[0].mtu, Some(1600));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, expected) in [
            (
                "name: x\ntopology:\n  nodes:\n    r: {knd: linux}\n",
                "line 4",
            ),
            (
                "name: x\ntopology:\n  nodes:\n    r: {kind: srl}\n",
                "kind: `srl` needs a container",
            ),
            (
                "name: x\ntopology:\n  nodes:\n    r:\n  links:\n    - endpoints: ['r:eth1', 'q:eth1']\n",
                "there is no node `q`: r",
            ),
            (
                "name: x\ntopology:\n  nodes:\n    r:\n  links:\n    - endpoints: ['r:eth1', 'r:eth1']\n",
                "stands in links[0] already",
            ),
            (
                "name: x\ntopology:\n  nodes:\n    r: {binds: ['gone:/x']}\n",
                "gone is not there",
            ),
            (
                "name: a b\ntopology:\n  nodes: {}\n",
                "`a b` is no lab name",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
