use std::path::PathBuf;

use super::*;

/// Reads a text in a folder in which `r.yaml` lies.
fn read(text: &str) -> Result<Topology, String> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let folder = std::env::temp_dir().join(format!(
        "weft-topology-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("r.yaml"), "").unwrap();
    std::fs::write(folder.join("vars"), "FROM_FILE=1\n").unwrap();
    let variable = |name: &str| (name == "SET").then(|| "value".to_owned());
    let result = Topology::parse("lab.clab.yaml", text, &folder, &variable).map_err(|errors| {
        errors
            .to_string()
            .replace(&folder.display().to_string(), "")
    });
    std::fs::remove_dir_all(&folder).unwrap();
    result
}

fn node<'a>(topology: &'a Topology, name: &str) -> &'a Node {
    topology
        .nodes
        .iter()
        .find(|node| node.name == name)
        .unwrap()
}

#[test]
fn nodes_inherit_from_defaults_kind_and_group() {
    let topology = read(
        "name: x
mgmt: {network: y}
topology:
  defaults: {env: {A: 1}, group: routers, binds: ['r.yaml:/file', '/var/data']}
  kinds:
    linux: {image: 'weft:latest', exec: [first], sysctls: {net.ipv4.ip_forward: 1, net.ipv6.conf.all.forwarding: 0}}
  groups:
    routers: {kind: linux, exec: [second], env-files: [vars], aliases: [gw]}
    switches: {kind: bridge}
  nodes:
    z: {binds: ['r.yaml:/etc/weft/weft.yaml:ro', 'r.yaml:/file'], exec: [third], env: {B: two}, sysctls: {net.ipv6.conf.all.forwarding: 1}}
    a: &host
    m: {<<: *host}
    s: {group: switches}
  links:
    - endpoints: ['z:eth1', 'a:eth1']
      mtu: 1600
",
    )
    .unwrap();
    let names: Vec<&str> = topology
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a", "m", "s"], "in the order of the file");
    let router = node(&topology, "z");
    assert_eq!(router.exec, ["first", "second", "third"]);
    let env: Vec<(&str, &str)> = router
        .env
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("B", "two"), ("FROM_FILE", "1")]);
    let sysctls: Vec<(&str, &str)> = router
        .sysctls
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        sysctls,
        [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1")
        ]
    );
    assert_eq!(router.aliases, ["gw"]);
    let destinations: Vec<_> = router
        .binds
        .iter()
        .map(|bind| {
            (
                bind.destination.clone(),
                bind.read_only,
                bind.source.is_some(),
            )
        })
        .collect();
    let path = PathBuf::from;
    assert_eq!(
        destinations,
        [
            (path("/var/data"), false, false),
            (path("/etc/weft/weft.yaml"), true, true),
            (path("/file"), false, true)
        ]
    );
    assert_eq!(
        (node(&topology, "s").kind, router.kind),
        (Kind::Bridge, Kind::Linux)
    );
    assert_eq!(topology.links[0].mtu, Some(1600));
}

#[test]
fn an_entry_point_is_given_the_command() {
    let topology =
        read("name: x\ntopology:\n  nodes:\n    r: {entrypoint: sh /start.sh, cmd: now}\n    h:\n")
            .unwrap();
    assert_eq!(
        node(&topology, "r").cmd.as_deref(),
        Some("sh /start.sh now")
    );
    assert_eq!(node(&topology, "h").cmd, None);
}

#[test]
fn keys_without_effect_are_named_once() {
    let topology = read(
        "name: x\ntopology:\n  defaults: {image: alpine, memory: 1G}\n  nodes:\n    r: {ports: ['80:80']}\n    h: {mgmt-ipv4: 172.20.20.2}\n",
    )
    .unwrap();
    assert_eq!(
        topology.notes,
        ["without containers these have no effect: memory, ports"]
    );
}

#[test]
fn links_are_short_or_extended() {
    let topology = read(
        "name: x
topology:
  nodes:
    a:
    b:
  links:
    - endpoints: ['a:eth1', 'b:eth1']
    - type: veth
      endpoints:
        - {node: a, interface: eth2, mac: '02:00:00:00:00:0a'}
        - {node: b, interface: n}
    - endpoints: ['host:up0', 'a:eth3']
    - {type: host, endpoint: {node: a, interface: eth4}, host-interface: up1}
    - {type: macvlan, endpoint: {node: a, interface: eth5}, host-interface: e0, mode: vepa}
    - {type: dummy, endpoint: {node: b, interface: d0}}
",
    )
    .unwrap();
    let end = |node: &str, interface: &str| End {
        node: node.to_owned(),
        interface: interface.to_owned(),
        mac: None,
    };
    let ends: Vec<Ends> = topology.links.into_iter().map(|link| link.ends).collect();
    let with_mac = End {
        mac: Some([2, 0, 0, 0, 0, 10]),
        ..end("a", "eth2")
    };
    let expected = [
        Ends::Nodes(end("a", "eth1"), end("b", "eth1")),
        Ends::Nodes(with_mac, end("b", "n")),
        Ends::Host(end("a", "eth3"), "up0".to_owned()),
        Ends::Host(end("a", "eth4"), "up1".to_owned()),
        Ends::Macvlan(end("a", "eth5"), "e0".to_owned(), Mode::Vepa),
        Ends::Dummy(end("b", "d0")),
    ];
    assert_eq!(ends, expected);
}

#[test]
fn a_link_may_lead_to_the_management_network_and_to_another_host() {
    let topology = read(
        "name: x
topology:
  nodes:
    a:
    srl: {kind: nokia_srlinux}
    outside: {kind: host, exec: [reboot]}
  links:
    - endpoints: ['a:eth1', 'mgmt-net:a1']
    - {type: mgmt-net, endpoint: {node: a, interface: eth2}, host-interface: a2}
    - {type: vxlan, endpoint: {node: a, interface: eth3}, remote: 192.0.2.1, vni: 7, udp-port: 4789}
    - {type: vxlan-stitch, endpoint: {node: a, interface: eth4}, remote: '2001:db8::1', vni: 8}
    - endpoints: ['a:eth5', 'srl:ethernet-1/1']
    - endpoints: ['srl:GigabitEthernet0/0/0/1', 'outside:up0']
",
    )
    .unwrap();
    let end = |node: &str, interface: &str| End {
        node: node.to_owned(),
        interface: interface.to_owned(),
        mac: None,
    };
    let tunnel = |remote: &str, vni, port| links::Tunnel {
        remote: remote.parse().unwrap(),
        vni,
        port,
    };
    let ends: Vec<Ends> = topology
        .links
        .iter()
        .map(|link| link.ends.clone())
        .collect();
    let expected = [
        Ends::Nodes(end("a", "eth1"), end("mgmt-net", "a1")),
        Ends::Nodes(end("a", "eth2"), end("mgmt-net", "a2")),
        Ends::Vxlan(end("a", "eth3"), tunnel("192.0.2.1", 7, 4789)),
        Ends::Vxlan(end("a", "eth4"), tunnel("2001:db8::1", 8, 14789)),
        Ends::Nodes(end("a", "eth5"), end("srl", "ethernet-1-1")),
        Ends::Host(end("srl", "Ethernet0-0-0-1"), "up0".to_owned()),
    ];
    assert_eq!(ends, expected);
    assert_eq!(node(&topology, "mgmt-net").kind, Kind::Bridge);
    assert!(topology.nodes.iter().all(|node| node.name != "outside"));
    assert!(
        topology
            .notes
            .iter()
            .any(|note| note.contains("outside: `reboot`"))
    );
}

#[test]
fn nodes_that_would_be_containers_have_a_management_network() {
    let topology = read(
        "name: x
mgmt: {ipv4-subnet: 192.0.2.0/28, ipv6-subnet: '2001:db8::/64'}
topology:
  nodes:
    a: {image: alpine}
    b: {image: alpine, mgmt-ipv4: 192.0.2.2, mgmt-ipv6: '2001:db8::b'}
    alone: {image: alpine, network-mode: none}
    own: {image: alpine}
    weft:
  links:
    - endpoints: ['own:eth0', 'weft:eth0']
",
    )
    .unwrap();
    let has = |name| {
        let management = node(&topology, name).management.as_ref();
        let texts = management.map(|management| {
            let addresses = management.addresses.iter().map(ToString::to_string);
            let gateways = management.gateways.iter().map(ToString::to_string);
            (addresses.collect::<Vec<_>>(), gateways.collect::<Vec<_>>())
        });
        texts.unwrap_or_default()
    };
    let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(ToString::to_string).collect() };
    assert_eq!(has("a"), (texts(&["192.0.2.3/28"]), texts(&["192.0.2.1"])));
    let both = ["192.0.2.2/28", "2001:db8::b/64"];
    assert_eq!(
        has("b"),
        (texts(&both), texts(&["192.0.2.1", "2001:db8::1"]))
    );
    for name in ["alone", "own", "weft"] {
        assert_eq!(has(name), (vec![], vec![]), "{name}");
    }
    let gateway = ["192.0.2.1/28", "2001:db8::1/64"];
    assert_eq!(has("mgmt-net"), (texts(&gateway), vec![]));
    assert_eq!(topology.links.len(), 3);
}

#[test]
fn what_takes_a_container_is_left_out_with_a_line_and_the_rest_is_there() {
    let topology = read(
        "name: x
topology:
  defaults: {kind: linux}
  nodes:
    s1: {kind: nokia_srlinux, startup-config: s1.cfg, license: gone.key, binds: ['gone:/x'], exec: [sr_cli]}
    s2: {kind: nokia_srlinux}
    h: {image: 'alpine:3', startup-config: /h.sh, binds: ['/run/no-such.sock:/run/x.sock', '__clabDir__/topology-data.json:/data']}
    r: {image: 'quay.io/frrouting/frr:10', cmd: '', entrypoint: '', stages: {configure: {exec: [{command: beside, target: host}]}}}
    out: {network-mode: host, exec: ['ip link del eth0']}
    sw: {kind: ovs-bridge, image: 'x', entrypoint: /start}
    own: {image: 'weft:latest'}
  links:
    - endpoints: ['s1:e1-1', 'h:eth1']
",
    )
    .unwrap();
    let kind = |name| node(&topology, name).kind;
    assert_eq!(
        (kind("s1"), kind("out"), kind("sw"), kind("h")),
        (Kind::Empty, Kind::Empty, Kind::Bridge, Kind::Linux)
    );
    assert!(node(&topology, "s1").exec.is_empty() && node(&topology, "out").exec.is_empty());
    assert!(node(&topology, "h").binds.is_empty());
    assert_eq!(node(&topology, "own").image, None);
    assert_eq!(
        (&node(&topology, "sw").cmd, &node(&topology, "sw").image),
        (&None, &None)
    );
    let notes = topology.notes.join("\n");
    for part in [
        "nodes s1, s2 are of kind `nokia_srlinux`, which needs a container",
        "node out is in the host's network",
        "node sw is of kind `ovs-bridge`",
        "left out: r: `beside`",
        "node h is given a `startup-config`",
        "quay.io/frrouting/frr:10 (r)",
        "/run/no-such.sock",
        "topology-data.json",
    ] {
        assert!(notes.contains(part), "{part} in\n{notes}");
    }
    assert!(
        !notes.contains("alpine") && !notes.contains("weft:latest") && !notes.contains("license")
    );
}

#[test]
fn a_node_waits_before_its_first_command_for_what_comes_later_elsewhere() {
    let topology = read(
        "name: x
topology:
  nodes:
    a:
      stages:
        create: {wait-for: [{node: b, stage: healthy}, {node: b, stage: create}]}
        create-links: {exec: [{command: one}, {command: two, phase: on-exit, target: container}]}
        configure: {exec: {on-enter: [three]}}
        healthy: {wait-for: [{node: b, stage: exit}]}
    b: {healthcheck: {test: [CMD-SHELL, 'true'], interval: 1}}
",
    )
    .unwrap();
    let a = &node(&topology, "a").stages;
    let waits = |stage| a.waits(stage).cloned().collect::<Vec<_>>();
    assert!(waits(Stage::Create).is_empty());
    assert_eq!(waits(Stage::Configure), [("b".to_owned(), Stage::Healthy)]);
    assert_eq!(waits(Stage::Healthy), [("b".to_owned(), Stage::Exit)]);
    assert_eq!(a.at(Stage::CreateLinks).enter, ["one"]);
    assert_eq!(a.at(Stage::CreateLinks).leave, ["two"]);
    assert_eq!(a.at(Stage::Configure).enter, ["three"]);
    assert!(topology.awaits(node(&topology, "b"), Stage::Exit));
    assert!(topology.awaits(node(&topology, "a"), Stage::Healthy));
    assert!(!topology.awaits(node(&topology, "a"), Stage::Exit));
    assert_eq!(
        node(&topology, "b").health.as_ref().unwrap().test,
        ["sh", "-c", "true"]
    );
}

#[test]
fn variables_come_from_the_environment() {
    let topology = read(
        "name: ${LAB:=x}-${SET}\ntopology:\n  nodes:\n    r: {exec: ['echo $$HOME ${LOST}']}\n",
    )
    .unwrap();
    assert_eq!(topology.name, "x-value");
    assert_eq!(topology.nodes[0].exec, ["echo $HOME ${LOST}"]);
}

#[test]
fn errors_say_where_and_what() {
    let nodes = |nodes: &str| format!("name: x\ntopology:\n  nodes:\n    r: {nodes}\n");
    let links = |links: &str| nodes(&format!("\n  links:\n    - {links}"));
    for (text, place, expected) in [
        (nodes("{knd: linux}"), "4:9", "unknown key `knd`"),
        (
            nodes("{kind: srl}\n    q: {kind: srl}"),
            "4:5",
            "nodes r, q are of kind `srl`, which needs a container",
        ),
        (
            nodes("{network-mode: container:gone}"),
            "4:23",
            "found no such node",
        ),
        (
            nodes("{network-mode: container:r}"),
            "4:23",
            "its own network",
        ),
        (
            nodes("{sysctls: {kernel.panic: 1}}"),
            "4:19",
            "`kernel.panic` is the host's",
        ),
        (
            nodes("{sysctls: {net/../kernel/panic: 1}}"),
            "4:19",
            "is the host's",
        ),
        (nodes("{binds: ['gone:/x']}"), "4:17", "/gone is not there"),
        (
            nodes("{binds: ['r.yaml:x']}"),
            "4:17",
            "with an absolute path in the node",
        ),
        (
            nodes("{stages: {configure: {wait-for: [{node: q, stage: exit}]}}}"),
            "4:41",
            "there is no node `q`",
        ),
        (
            nodes("{stages: {configure: {wait-for: [{node: r, stage: never}]}}}"),
            "4:58",
            "expected `create`",
        ),
        (
            nodes(
                "{stages: {configure: {wait-for: [{node: q, stage: healthy}]}}}\n    q: {stages: {create: {wait-for: [{node: r, stage: configure}]}}}",
            ),
            "4:5",
            "wait for each other in a ring: q for r for q",
        ),
        (
            links("endpoints: ['r:eth1', 'q:eth1']"),
            "6:29",
            "there is no node `q`",
        ),
        (
            links("endpoints: ['r:eth1', 'r:eth1']"),
            "6:29",
            "stands in another link already",
        ),
        (
            links("endpoints: ['r:eth1', 'r:far-too-long-a-name']"),
            "6:29",
            "is no name of an interface",
        ),
        (
            links("{type: vxlan, endpoint: {node: r, interface: e}, remote: far, vni: 1}"),
            "6:64",
            "an IP address",
        ),
        (
            links("{type: veth, endpoints: [{node: r, interface: e, mac: x}, 'r:f']}"),
            "6:61",
            "a MAC address",
        ),
        (
            "name: a b\ntopology:\n  nodes: {}\n".to_owned(),
            "1:7",
            "a name of a lab",
        ),
        (
            "name: x\ntopology:\n  nodes:\n    {{ range . }}\n".to_owned(),
            "4:5",
            "a Go template",
        ),
        (
            "name: ${LAB:?say which}\n".to_owned(),
            "1:7",
            "`LAB` is not set: say which",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(
            error.contains(&format!("lab.clab.yaml:{place}\n")),
            "{text}\n{error}"
        );
    }
}
