//! The topology of the demo, with any speaker as the transit AS: domain A (a1, edge ea), transit t, domain B (edge
//! eb, b1), tenants red and blue with the same prefixes on a1 and b1.

/// The routers of the two domains.
pub const ROUTERS: [&str; 4] = ["a1", "ea", "eb", "b1"];
/// The addresses of t, towards ea and towards eb.
pub const T: [&str; 2] = ["198.51.100.2", "198.51.100.5"];
/// The neighbours of t, ea and eb.
pub const EDGES: [&str; 2] = ["198.51.100.1", "198.51.100.6"];

/// A lab: the topology without its name, and the files beside it.
#[derive(Clone, Debug)]
pub struct Topology {
    /// containerlab's format.
    pub text: String,
    /// Name and content.
    pub files: Vec<(String, String)>,
}

fn inside(name: &str, asn: u32, endpoint: &str, edge: &str, prefix: &str) -> String {
    format!(
        "router: {{ name: {name}, router_id: {endpoint}, asn: {asn}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: {endpoint}, install_underlay: true }}
tenants:
  - {{ name: red, vni: 10001, interfaces: [red0], prefixes: [{prefix}] }}
  - {{ name: blue, vni: 10002, interfaces: [blue0], prefixes: [{prefix}] }}
neighbors:
  - {{ address: {edge}, asn: {asn} }}
"
    )
}

fn edge(name: &str, asn: u32, endpoint: &str, inner: &str, transit: &str) -> String {
    format!(
        "router: {{ name: {name}, router_id: {endpoint}, asn: {asn}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: {endpoint}, install_underlay: true }}
neighbors:
  - {{ address: {inner}, asn: {asn} }}
  # The addresses inside the domain stay inside.
  - address: {transit}
    asn: 64999
    accept_vnis: [10001-10002]
    export: [{endpoint}/32, {{ prefix: 10.0.0.0/8, le: 32 }}]
"
    )
}

fn transit() -> String {
    "router: { name: t, router_id: 192.0.2.99, asn: 64999, default_policy: accept }
install: [192.0.2.0/24]
neighbors:
  - { address: 198.51.100.1, asn: 64601 }
  - { address: 198.51.100.6, asn: 64602 }
"
    .to_owned()
}

fn node(name: &str, config: bool, exec: &[String]) -> String {
    let mut text = format!("    {name}:\n      kind: linux\n      image: weft:latest\n");
    if config {
        text += &format!("      binds: [\"{name}.yaml:/etc/weft/weft.yaml\"]\n");
    }
    if !exec.is_empty() {
        text += "      exec:\n";
        for line in exec {
            text += &format!("        - {line}\n");
        }
    }
    text
}

/// Nodes and links as one topology. A node is its name, whether `NAME.yaml` configures a weft router in it, and the
/// commands that prepare it.
pub fn topology(nodes: &[(&str, bool, Vec<String>)], links: &[(&str, &str)]) -> String {
    let mut text = "topology:\n  nodes:\n".to_owned();
    for (name, config, exec) in nodes {
        text += &node(name, *config, exec);
    }
    text += "  links:\n";
    for (a, b) in links {
        text += &format!("    - endpoints: [\"{a}\", \"{b}\"]\n");
    }
    text
}

/// What a forwarding router needs in its namespace: addresses as `DEVICE ADDRESS/LENGTH`.
pub fn forwarding(addresses: &[&str]) -> Vec<String> {
    let mut exec = vec![
        "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
        "sysctl -qw net.ipv4.conf.all.rp_filter=0".to_owned(),
    ];
    for address in addresses {
        let (device, address) = address.split_once(' ').unwrap();
        exec.push(format!("ip address add {address} dev {device}"));
    }
    exec
}

fn host(address: &str, gateway: &str) -> Vec<String> {
    vec![
        format!("ip address add {address} dev eth1"),
        format!("ip route replace default via {gateway}"),
    ]
}

/// The two domains. With `weft_transit` t is a weft router, else it only has its links, `extra` commands, and what a
/// test starts in it.
pub fn two_domains(weft_transit: bool, extra: &[&str]) -> Topology {
    let tenants = |gateway: &str| {
        let on = |device: &str| format!("{device} {gateway}/24");
        [on("red0"), on("blue0")]
    };
    let a = tenants("10.0.1.1");
    let b = tenants("10.0.2.1");
    let mut t = forwarding(&["eth1 198.51.100.2/30", "eth2 198.51.100.5/30"]);
    t.extend(extra.iter().map(|line| (*line).to_owned()));
    let nodes = [
        (
            "a1",
            true,
            forwarding(&["lo 192.0.2.11/32", "eth1 10.255.1.1/30", &a[0], &a[1]]),
        ),
        (
            "ea",
            true,
            forwarding(&[
                "lo 192.0.2.12/32",
                "eth1 10.255.1.2/30",
                "eth2 198.51.100.1/30",
            ]),
        ),
        ("t", weft_transit, t),
        (
            "eb",
            true,
            forwarding(&[
                "lo 192.0.2.22/32",
                "eth1 198.51.100.6/30",
                "eth2 10.255.2.1/30",
            ]),
        ),
        (
            "b1",
            true,
            forwarding(&["lo 192.0.2.21/32", "eth1 10.255.2.2/30", &b[0], &b[1]]),
        ),
        ("red-a", false, host("10.0.1.10/24", "10.0.1.1")),
        ("blue-a", false, host("10.0.1.10/24", "10.0.1.1")),
        ("red-b", false, host("10.0.2.10/24", "10.0.2.1")),
        ("blue-b", false, host("10.0.2.10/24", "10.0.2.1")),
    ];
    let links = [
        ("a1:eth1", "ea:eth1"),
        ("ea:eth2", "t:eth1"),
        ("t:eth2", "eb:eth1"),
        ("eb:eth2", "b1:eth1"),
        ("a1:red0", "red-a:eth1"),
        ("a1:blue0", "blue-a:eth1"),
        ("b1:red0", "red-b:eth1"),
        ("b1:blue0", "blue-b:eth1"),
    ];
    let mut files = vec![
        (
            "a1.yaml",
            inside("a1", 64601, "192.0.2.11", "10.255.1.2", "10.0.1.0/24"),
        ),
        (
            "ea.yaml",
            edge("ea", 64601, "192.0.2.12", "10.255.1.1", T[0]),
        ),
        (
            "eb.yaml",
            edge("eb", 64602, "192.0.2.22", "10.255.2.2", T[1]),
        ),
        (
            "b1.yaml",
            inside("b1", 64602, "192.0.2.21", "10.255.2.1", "10.0.2.0/24"),
        ),
    ];
    if weft_transit {
        files.push(("t.yaml", transit()));
    }
    Topology {
        text: topology(&nodes, &links),
        files: files
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text))
            .collect(),
    }
}
