//! Links of a topology, in their short and their extended form.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::node::Position;
use crate::config::reader::{Cursor, Fields};
use crate::config::values::{interface, number_of, text};

/// The node that stands for the management network, where links lead to it: a bridge.
pub(super) const MANAGEMENT: &str = "mgmt-net";

/// The UDP port of VXLAN links that name none.
const VXLAN_PORT: u16 = 14789;

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) struct End {
    pub(in crate::lab) node: String,
    pub(in crate::lab) interface: String,
    pub(in crate::lab) mac: Option<[u8; 6]>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) struct Link {
    pub(in crate::lab) ends: Ends,
    /// Octets; where none is said, 1500.
    pub(in crate::lab) mtu: Option<u32>,
}

/// What a link joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) enum Ends {
    /// Two nodes.
    Nodes(End, End),
    /// A node and the host, where an interface of this name appears.
    Host(End, String),
    /// A node and the network that this interface of the host is in (macvlan).
    Macvlan(End, String, Mode),
    /// Nothing: an interface that drops what is sent.
    Dummy(End),
    /// A node and the far end of a VXLAN tunnel that starts at the host.
    Vxlan(End, Tunnel),
}

/// A VXLAN tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) struct Tunnel {
    /// Its far end.
    pub(in crate::lab) remote: IpAddr,
    /// 24 bits.
    pub(in crate::lab) vni: u32,
    /// The UDP port of both ends.
    pub(in crate::lab) port: u16,
}

/// How interfaces of the same parent speak to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum Mode {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

impl Link {
    /// The ends that are in nodes.
    pub(in crate::lab) fn nodes(&self) -> impl Iterator<Item = &End> {
        let (one, other) = match &self.ends {
            Ends::Nodes(one, other) => (one, Some(other)),
            Ends::Host(end, _)
            | Ends::Macvlan(end, ..)
            | Ends::Dummy(end)
            | Ends::Vxlan(end, _) => (end, None),
        };
        [one].into_iter().chain(other)
    }
}

#[derive(Clone, Copy)]
enum Type {
    Veth,
    Host,
    Macvlan,
    Dummy,
    Management,
    Vxlan,
}

const TYPES: [(&str, Type); 8] = [
    ("veth", Type::Veth),
    // What it stitches together at the host is one link for the nodes.
    ("veth-stitch", Type::Veth),
    ("host", Type::Host),
    ("macvlan", Type::Macvlan),
    ("dummy", Type::Dummy),
    ("mgmt-net", Type::Management),
    ("vxlan", Type::Vxlan),
    ("vxlan-stitch", Type::Vxlan),
];

/// What the reader of links has to know of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has its own interfaces.
    Node,
    /// It stands empty for a container, whose system names interfaces in its own way.
    Empty,
    /// It is the host.
    Host,
}

/// What links are read with: the nodes that there are, and the ends that are taken.
pub(super) struct Reader<'a> {
    nodes: BTreeMap<&'a str, Place>,
    /// Interfaces of nodes, and of the host under the name of no node; with the line that has them.
    taken: std::cell::RefCell<BTreeMap<(String, String), Position>>,
}

impl<'n> Reader<'n> {
    pub(super) fn new(nodes: impl Iterator<Item = (&'n str, Place)>) -> Self {
        Self {
            nodes: nodes.collect(),
            taken: std::cell::RefCell::default(),
        }
    }

    /// Reads one link.
    pub(super) fn link(&self, at: &Cursor<'_>) -> Option<Link> {
        let mut fields = at.fields("a link: a mapping with `endpoints`")?;
        let kind = fields.optional("type", |at| at.choice(&TYPES));
        let has_type = fields.get("type").is_some();
        if has_type && kind.is_none() {
            return None;
        }
        let mtu = fields.optional("mtu", |at| number_of(&at, "octets", 68, 65_535));
        // What templates of configurations are filled with.
        fields.get("labels");
        fields.get("vars");
        let ends = match kind.unwrap_or(Type::Veth) {
            Type::Veth => fields.required(
                "endpoints",
                "it says what the link joins, such as [r1:eth1, r2:eth1]",
                |at| self.endpoints(&at),
            ),
            kind => {
                let end = match fields.get("endpoints") {
                    Some(at) if fields.get("endpoint").is_none() => self.single(&at),
                    _ => fields.required(
                        "endpoint",
                        "it says which node the link is of, and its interface",
                        |at| self.end(&at),
                    ),
                };
                let tunnel = match kind {
                    Type::Vxlan => tunnel(&mut fields),
                    _ => None,
                };
                let host = match kind {
                    Type::Dummy | Type::Vxlan => None,
                    _ => fields.required(
                        "host-interface",
                        "it names the interface of the host",
                        |at| Some((interface(&at)?, at)),
                    ),
                };
                match (kind, end, host) {
                    (Type::Host, Some(end), Some((host, at))) => {
                        self.take("", &host, &at)?;
                        Some(Ends::Host(end, host))
                    }
                    (Type::Macvlan, Some(end), Some((host, _))) => {
                        let modes = [
                            ("bridge", Mode::Bridge),
                            ("private", Mode::Private),
                            ("vepa", Mode::Vepa),
                            ("passthru", Mode::Passthru),
                        ];
                        let mode = fields.optional("mode", |at| at.choice(&modes));
                        Some(Ends::Macvlan(end, host, mode.unwrap_or(Mode::Bridge)))
                    }
                    (Type::Management, Some(end), Some((host, at))) => {
                        self.management(end, &host, &at)
                    }
                    (Type::Dummy, Some(end), _) => Some(Ends::Dummy(end)),
                    (Type::Vxlan, Some(end), _) => Some(Ends::Vxlan(end, tunnel?)),
                    _ => None,
                }
            }
        };
        fields.finish();
        Some(Link { ends: ends?, mtu })
    }

    /// Two ends, or one and what is no node.
    fn endpoints(&self, at: &Cursor<'_>) -> Option<Ends> {
        let ends = at.list("a list of two endpoints", Some)?;
        let [one, other] = ends.as_slice() else {
            return at.expected("two endpoints");
        };
        let special = |at: &Cursor<'_>| {
            let (kind, name) = at.scalar()?.split_once(':')?;
            let kinds = ["host", MANAGEMENT, "macvlan", "dummy"];
            match self.nodes.get(kind) {
                Some(Place::Host) => Some(("host", name.to_owned())),
                Some(_) => None,
                None => Some((
                    *kinds.iter().find(|known| **known == kind)?,
                    name.to_owned(),
                )),
            }
        };
        let (end, place, special) = match (special(&one.at), special(&other.at)) {
            (None, None) => return Some(Ends::Nodes(self.end(&one.at)?, self.end(&other.at)?)),
            (Some(special), None) => (&other.at, &one.at, special),
            (None, Some(special)) => (&one.at, &other.at, special),
            (Some(_), Some(_)) => return at.expected("a node at one of the ends"),
        };
        let (kind, name) = special;
        let end = self.end(end)?;
        match kind {
            "host" => {
                self.take("", &name, place)?;
                Some(Ends::Host(end, name))
            }
            "macvlan" => Some(Ends::Macvlan(end, name, Mode::Bridge)),
            "dummy" => Some(Ends::Dummy(end)),
            _ => self.management(end, &name, place),
        }
    }

    /// A link to the management network.
    fn management(&self, end: End, interface: &str, at: &Cursor<'_>) -> Option<Ends> {
        self.named(MANAGEMENT, interface, at)?;
        let port = End {
            node: MANAGEMENT.to_owned(),
            interface: interface.to_owned(),
            mac: None,
        };
        Some(Ends::Nodes(end, port))
    }

    /// A list of the one end that is in a node.
    fn single(&self, at: &Cursor<'_>) -> Option<End> {
        let ends = at.list("a list of one endpoint", Some)?;
        match ends.as_slice() {
            [end] => self.end(&end.at),
            _ => at.expected("one endpoint"),
        }
    }

    /// `node:interface`, or a mapping of both and a MAC address.
    fn end(&self, at: &Cursor<'_>) -> Option<End> {
        if !at.is_mapping() {
            let allowed = "an endpoint: `node:interface`";
            let written = text(at, allowed)?;
            let Some((node, name)) = written.split_once(':') else {
                return at.expected(allowed);
            };
            self.known(node, at)?;
            let interface = self.called(node, name);
            self.named(node, &interface, at)?;
            return Some(End {
                node: node.to_owned(),
                interface,
                mac: None,
            });
        }
        let mut fields = at.fields("an endpoint")?;
        let node = fields.required("node", "it names the node", |at| {
            let node = text(&at, "the name of a node")?;
            self.known(&node, &at)?;
            Some(node)
        });
        let name = fields.required("interface", "it names the node's interface", |at| {
            Some((text(&at, "the name of an interface")?, at))
        });
        let mac = fields.optional("mac", |at| mac(&at));
        fields.get("vars");
        fields.finish();
        let (node, (name, at)) = (node?, name?);
        let name = self.called(&node, &name);
        self.named(&node, &name, &at)?;
        Some(End {
            node,
            interface: name,
            mac,
        })
    }

    fn known(&self, node: &str, at: &Cursor<'_>) -> Option<()> {
        if self.nodes.contains_key(node) {
            return Some(());
        }
        let known: Vec<&str> = self.nodes.keys().copied().collect();
        at.problem(
            format!("there is no node `{node}`"),
            Some(format!("the nodes are {}", known.join(", "))),
        );
        None
    }

    /// What an interface is called here: `ethernet-1/1` of a system in a container is no name that the kernel takes, its last 15 octets without `/` are.
    fn called(&self, node: &str, name: &str) -> String {
        if self.nodes.get(node) != Some(&Place::Empty) {
            return name.to_owned();
        }
        let octets: Vec<char> = name
            .chars()
            .filter(char::is_ascii)
            .map(|c| if matches!(c, '/' | ':' | ' ') { '-' } else { c })
            .collect();
        octets[octets.len().saturating_sub(15)..].iter().collect()
    }

    /// A name that the kernel takes, and that no other end has.
    fn named(&self, node: &str, name: &str, at: &Cursor<'_>) -> Option<()> {
        let fits = (1..16).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !fits {
            at.problem(
                format!("`{name}` is no name of an interface: 1 to 15 octets without `/`, `:` and spaces"),
                None,
            );
            return None;
        }
        self.take(node, name, at)
    }

    fn take(&self, node: &str, name: &str, at: &Cursor<'_>) -> Option<()> {
        let key = (node.to_owned(), name.to_owned());
        match self.taken.borrow_mut().insert(key, at.position()) {
            None => Some(()),
            Some(first) => {
                at.problem(
                    format!("the interface `{name}` stands in another link already"),
                    Some(format!("the first is on line {}", first.line)),
                );
                None
            }
        }
    }
}

/// The keys of a link of type `vxlan`.
fn tunnel(fields: &mut Fields<'_>) -> Option<Tunnel> {
    let remote = fields.required("remote", "it is the far end of the tunnel", |at| {
        at.parse("an IP address")
    });
    let vni = fields.required("vni", "it names the network in the tunnel", |at| {
        number_of(&at, "a VNI", 1, 0xff_ffff)
    });
    let port = |at: Cursor<'_>| number_of(&at, "a UDP port", 1, 65_535);
    let (port, old) = (
        fields.optional("dst-port", port),
        fields.optional("udp-port", port),
    );
    // The kernel takes a range of source ports; which of them is of no consequence.
    fields.get("src-port");
    Some(Tunnel {
        remote: remote?,
        vni: vni?,
        port: port.or(old).unwrap_or(VXLAN_PORT),
    })
}

fn mac(at: &Cursor<'_>) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = at.scalar().and_then(|text| {
        let two = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?;
        text.split(':').map(two).collect()
    });
    match octets.and_then(|octets| octets.try_into().ok()) {
        Some(mac) => Some(mac),
        None => at.expected("a MAC address such as 02:00:00:00:00:01"),
    }
}
