//! Service nodes, what routers are told of them, and what they count.

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_overlay::chain::{Arm, Chain, Match, NodeAttachment, OnFailure, Selection, Service};
use weft_overlay::intent::ServiceState;

use super::super::*;
use super::domain::{A, Domain, M, Mode, tenant, vni};
use super::lab::{Lab, Router};

/// At the first router, with one arm.
pub(super) const FIREWALL: u32 = 20001;
/// At the router in the middle, with two.
pub(super) const INSPECTION: u32 = 20002;

pub(super) fn arm(interface: &str, net: u8) -> Arm {
    Arm {
        interface: interface.into(),
        addresses: vec![
            Ipv4Addr::new(169, 254, net, 2).into(),
            Ipv6Addr::new(0xfd77, net.into(), 0, 0, 0, 0, 0, 2).into(),
        ],
    }
}

pub(super) fn service(name: &str, label: u32, attachment: Option<NodeAttachment>) -> Service {
    Service {
        name: name.into(),
        label: vni(label),
        attachment,
        on_failure: OnFailure::Closed,
        rewrites: false,
        selection: Selection::Nearest,
    }
}

pub(super) fn firewall(here: bool) -> Service {
    let attachment = here.then(|| NodeAttachment {
        inside: arm("fw0", 1),
        outside: None,
    });
    service("firewall", FIREWALL, attachment)
}

pub(super) fn inspection(here: bool) -> Service {
    let attachment = here.then(|| NodeAttachment {
        inside: arm("in0", 2),
        outside: Some(arm("out0", 3)),
    });
    service("inspection", INSPECTION, attachment)
}

/// From the first site to the second, and back.
pub(super) fn chain(labels: &[u32]) -> Chain {
    Chain {
        name: "web".into(),
        matches: Match {
            sources: vec![
                "10.0.1.0/24".parse().unwrap(),
                "2001:db8:10:1::/64".parse().unwrap(),
            ],
            destinations: vec![
                "10.0.2.0/24".parse().unwrap(),
                "2001:db8:10:2::/64".parse().unwrap(),
            ],
            ..Match::default()
        },
        services: labels.iter().map(|label| vni(*label)).collect(),
        symmetric: true,
    }
}

pub(super) fn red(
    attachment: Option<&str>,
    services: Vec<Service>,
    chains: Vec<Chain>,
) -> IntentDelta {
    let (id, intent) = tenant(0, "red", 10001, attachment);
    let intent = intent.map(|mut intent| {
        intent.services = services;
        intent.chains = chains;
        intent
    });
    IntentDelta {
        tenants: vec![(id, intent)],
        ..IntentDelta::default()
    }
}

pub(super) const HERE: ServiceState = ServiceState {
    local: true,
    prefer_remote: false,
    remote: None,
};

/// At another router; groups have the numbers of labels.
pub(super) fn at(mode: Mode, label: u32, node: u8) -> (IntentDelta, ServiceState) {
    let delta = IntentDelta {
        groups: vec![mode.slot(label, label, node)],
        ..IntentDelta::default()
    };
    let state = ServiceState {
        remote: Some(weft_overlay::intent::GroupId(label)),
        ..ServiceState::default()
    };
    (delta, state)
}

/// A service node: forwards between its interfaces, each `(its own, the router's end, net)`.
pub(super) fn node(lab: &mut Lab, name: &str, router: &str, arms: &[(&str, &str, u8)]) {
    lab.add(&[name]);
    for (own, theirs, net) in arms {
        lab.link(
            (router, theirs, &format!("169.254.{net}.1/30")),
            (name, own, &format!("169.254.{net}.2/30")),
        );
        lab.run(
            router,
            &format!("ip addr add fd77:{net}::1/64 dev {theirs} nodad"),
        );
        lab.run(
            name,
            &format!("ip addr add fd77:{net}::2/64 dev {own} nodad; sysctl -qw net.ipv4.conf.{own}.rp_filter=0"),
        );
    }
    lab.run(
        name,
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.all.send_redirects=0",
    );
    let (first, last) = (arms[0].2, arms[arms.len() - 1].2);
    for (site, net) in [(1, first), (2, last)] {
        lab.run(
            name,
            &format!(
                "ip route add 10.0.{site}.0/24 via 169.254.{net}.1; ip -6 route add 2001:db8:10:{site}::/64 via fd77:{net}::1"
            ),
        );
    }
}

/// Counts what a node forwards that has `was` in its code point, and makes it `becomes`; and what has anything else.
pub(super) fn stamp(lab: &Lab, name: &str, there: (u8, u8), back: (u8, u8)) {
    let rules = node_stamps("", "to", there, back);
    lab.run(
        name,
        &format!(
            "nft 'add table inet s; add counter inet s to1; add counter inet s to2; add counter inet s wrong; \
             add chain inet s f {{ type filter hook forward priority 0; }}; {rules} add rule inet s f counter name wrong'"
        ),
    );
}

/// The rules of that, for what `only` says, with counters of this name.
pub(super) fn node_stamps(only: &str, counter: &str, there: (u8, u8), back: (u8, u8)) -> String {
    [(2, there), (1, back)]
        .into_iter()
        .flat_map(|(site, (was, becomes))| {
            [("ip", format!("10.0.{site}.0/24")), ("ip6", format!("2001:db8:10:{site}::/64"))]
                .map(|(word, net)| {
                    format!(
                        "add rule inet s f {only}{word} daddr {net} {word} dscp {was} counter name {counter}{site} {word} dscp set {becomes} accept;"
                    )
                })
        })
        .collect()
}

pub(super) fn counted(lab: &Lab, name: &str, counter: &str) -> u64 {
    let text = lab.run(name, &format!("nft list counter inet s {counter}"));
    let mut words = text.split_whitespace();
    words.find(|word| *word == "packets");
    words.next().unwrap().parse().unwrap()
}

/// Counts what comes to a host with a code point.
pub(super) fn watch(lab: &Lab, name: &str, dscp: u8) {
    lab.run(
        name,
        &format!(
            "nft 'add table inet s; add counter inet s stamped; add counter inet s other; \
             add chain inet s i {{ type filter hook input priority 0; }}; \
             add rule inet s i icmp type {{ echo-request, echo-reply }} ip dscp {dscp} counter name stamped accept; \
             add rule inet s i icmpv6 type {{ echo-request, echo-reply }} ip6 dscp {dscp} counter name stamped accept; \
             add rule inet s i icmp type {{ echo-request, echo-reply }} counter name other; \
             add rule inet s i icmpv6 type {{ echo-request, echo-reply }} counter name other'"
        ),
    );
}

/// The firewall at the first router, the inspection at the middle one, and a chain of both.
pub(super) fn with_services(mode: Mode) -> Domain {
    let mut domain = Domain::new(mode);
    node(&mut domain.lab, "f", "a", &[("eth0", "fw0", 1)]);
    node(
        &mut domain.lab,
        "i",
        "m",
        &[("eth0", "in0", 2), ("eth1", "out0", 3)],
    );
    let lab = &domain.lab;
    // An answer has the code point of its question.
    stamp(lab, "f", (0, 1), (3, 4));
    stamp(lab, "i", (1, 2), (2, 3));
    watch(lab, "red-b", 2);
    watch(lab, "red-a", 4);
    apply_chain(&domain, &[FIREWALL, INSPECTION]);
    domain
}

pub(super) fn apply_chain(domain: &Domain, labels: &[u32]) {
    let mode = domain.mode;
    let chains = || vec![chain(labels)];
    let tell = |router: &Router, attachment, here: &[u32], elsewhere: &[(u32, u8)]| {
        let local = |label| here.contains(&label);
        let services = vec![firewall(local(FIREWALL)), inspection(local(INSPECTION))];
        let mut delta = red(attachment, services, chains());
        delta
            .services
            .extend(here.iter().map(|label| (vni(*label), Some(HERE))));
        for (label, node) in elsewhere {
            let (groups, state) = at(mode, *label, *node);
            delta.groups.extend(groups.groups);
            delta.services.push((vni(*label), Some(state)));
        }
        router.apply(delta);
        assert_eq!(router.status().refused, [], "{mode}");
    };
    tell(&domain.a, Some("red0"), &[FIREWALL], &[(INSPECTION, M)]);
    tell(&domain.middle, None, &[INSPECTION], &[(FIREWALL, A)]);
    tell(
        &domain.b,
        Some("red0"),
        &[],
        &[(FIREWALL, M), (INSPECTION, M)],
    );
}
