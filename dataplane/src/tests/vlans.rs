//! Service nodes on VLANs: one that two tenants share, and one on the link of a tenant's hosts.

use std::collections::BTreeMap;

use weft_overlay::chain::{NodeAttachment, Service};

use super::super::*;
use super::domain::{A, Domain, M, Mode, tenant, vni};
use super::lab::{Lab, privileged};
use super::services::{FIREWALL, HERE, INSPECTION, arm, at, chain, node_stamps, service, stamp};

/// The second tenant's, at the node that is the first one's firewall.
const THEIRS: u32 = 20003;
const WHAT: &str = "service nodes by VLAN";

fn has_vlans() -> bool {
    let lab = Lab::new(&["a", "b"]);
    lab.link(("a", "e", "192.0.2.1/30"), ("b", "e", "192.0.2.2/30"));
    let add = "ip link add link e name e.10 type vlan id 10";
    let has = lab.try_run("a", add).status.success();
    if !has {
        eprintln!("not on this kernel: {WHAT}");
        let debian = std::env::var_os("WEFT_IN_VM").is_some();
        assert!(!debian, "Debian's kernel has VLANs");
    }
    has
}

/// A VLAN on a link: the router's end, and the node's, which is in its namespace wherever the link ends.
fn vlan(lab: &Lab, (link, far, far_link): (&str, &str, &str), number: u8, name: &str, net: u8) {
    let own = format!("v{number}");
    lab.batch(
        "a",
        None,
        &format!(
            "link add link {link} name {link}.{number} type vlan id {number}
addr add 169.254.{net}.1/30 dev {link}.{number}
addr add fd77:{net}::1/64 dev {link}.{number} nodad
link set {link}.{number} up"
        ),
    );
    let namespace = lab.ns(name);
    lab.batch(
        far,
        None,
        &format!(
            "link add link {far_link} name {own} type vlan id {number}\nlink set {own} netns {namespace}"
        ),
    );
    lab.batch(
        name,
        None,
        &format!(
            "addr add 169.254.{net}.2/30 dev {own}
addr add fd77:{net}::2/64 dev {own} nodad
link set {own} up"
        ),
    );
    // What comes by a VLAN goes back by it.
    for (family, via) in [
        ("-4", format!("169.254.{net}.1")),
        ("-6", format!("fd77:{net}::1")),
    ] {
        let lines = format!(
            "rule add iif {own} lookup {number}\nroute add default via {via} dev {own} table {number}"
        );
        lab.batch(name, Some(family), &lines);
    }
    lab.run(
        name,
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
             net.ipv4.conf.{own}.rp_filter=0 net.ipv4.conf.all.send_redirects=0"
        ),
    );
}

/// Counts what a shared node forwards for each tenant, by VLAN, and stamps it as `stamp` does.
fn stamp_by_vlan(lab: &Lab, name: &str) {
    let rules: String = [(10, "red", (0, 1), (3, 4)), (20, "blue", (0, 5), (5, 6))]
        .map(|(number, tenant, there, back)| {
            let only = format!("iifname v{number} oifname v{number} ");
            node_stamps(&only, tenant, there, back)
        })
        .concat();
    let counters = ["red1", "red2", "blue1", "blue2", "wrong"]
        .map(|counter| format!("add counter inet s {counter}; "))
        .concat();
    lab.run(
        name,
        &format!(
            "nft 'add table inet s; {counters} add chain inet s f {{ type filter hook forward priority 0; }}; \
             {rules} add rule inet s f counter name wrong'"
        ),
    );
}

/// Everything that nodes have counted.
fn counters(lab: &Lab) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in ["f", "g"] {
        let text = lab.run(name, "nft list counters");
        let mut words = text.split_whitespace();
        while words.any(|word| word == "counter") {
            let counter = words.next().unwrap();
            words.find(|word| *word == "packets");
            let packets = words.next().unwrap().parse().unwrap();
            counts.insert(format!("{name} {counter}"), packets);
        }
    }
    counts
}

fn tell(domain: &Domain) {
    let at_arm = |interface: &str, net| NodeAttachment {
        inside: arm(interface, net),
        outside: None,
    };
    for (router, attached, next) in [
        (&domain.a, true, None),
        (&domain.middle, false, Some(A)),
        (&domain.b, true, Some(M)),
    ] {
        let here = |interface: &str, net| next.is_none().then(|| at_arm(interface, net));
        let one = |id, name: &str, number, services: Vec<Service>| {
            let attachment = format!("{name}0");
            let (id, intent) = tenant(id, name, number, attached.then_some(&attachment));
            let intent = intent.map(|mut intent| {
                let labels: Vec<u32> = services.iter().map(|one| one.label.get()).collect();
                intent.chains = vec![chain(&labels)];
                intent.services = services;
                intent
            });
            (id, intent)
        };
        // The addresses of both arms to the shared node are the same.
        let red = vec![
            service("firewall", FIREWALL, here("trunk0.10", 1)),
            service("inspection", INSPECTION, here("red0.10", 2)),
        ];
        let blue = vec![service("theirs", THEIRS, here("trunk0.20", 1))];
        let mut delta = IntentDelta {
            tenants: vec![one(0, "red", 10001, red), one(1, "blue", 10002, blue)],
            ..IntentDelta::default()
        };
        for label in [FIREWALL, INSPECTION, THEIRS] {
            let state = match next {
                None => HERE,
                Some(node) => {
                    let (groups, state) = at(domain.mode, label, node);
                    delta.groups.extend(groups.groups);
                    state
                }
            };
            delta.services.push((vni(label), Some(state)));
        }
        router.apply(delta);
        assert_eq!(router.status().refused, []);
    }
}

#[test]
fn a_node_serves_two_tenants_by_vlan() {
    const N: u64 = 20;
    if !privileged() || !has_vlans() {
        return;
    }
    let mut domain = Domain::new(Mode::PLAIN);
    let lab = &mut domain.lab;
    lab.add(&["f", "g"]);
    lab.link(
        ("a", "trunk0", "198.51.100.9/30"),
        ("f", "eth0", "198.51.100.10/30"),
    );
    vlan(lab, ("trunk0", "f", "eth0"), 10, "f", 1);
    vlan(lab, ("trunk0", "f", "eth0"), 20, "f", 1);
    // Tagged beside the tenant's host, which is not.
    vlan(lab, ("red0", "red-a", "eth0"), 10, "g", 2);
    stamp_by_vlan(lab, "f");
    stamp(lab, "g", (1, 2), (2, 3));
    tell(&domain);
    let lab = &domain.lab;
    let sites = ["10.0.2.10", "2001:db8:10:2::10"];
    for to in sites {
        domain.wait_for_ping("red-a", to);
        domain.wait_for_ping("blue-a", to);
    }
    let mut before = counters(lab);
    for (host, passed) in [
        ("red-a", ["f red2", "g to2", "g to1", "f red1"].as_slice()),
        ("blue-a", &["f blue2", "f blue1"]),
    ] {
        for to in sites {
            assert!(domain.ping_fast(host, to, N), "{host} to {to}");
        }
        let after = counters(lab);
        let more: BTreeMap<&str, u64> = after
            .iter()
            .map(|(counter, packets)| (counter.as_str(), packets - before[counter]))
            .filter(|(_, packets)| *packets > 0)
            .collect();
        let expected = passed.iter().map(|counter| (*counter, 2 * N)).collect();
        assert_eq!(more, expected, "{host}");
        before = after;
    }
    println!("pings: {WHAT}");
}
