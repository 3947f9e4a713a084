//! Services on the way, half of them at each router: nodes that forward what comes back to where it came from.

use std::net::Ipv4Addr;

use anyhow::Result;
use weft_overlay::Vni;
use weft_overlay::chain::{Arm, Chain, Match, NodeAttachment, OnFailure, Selection, Service};
use weft_overlay::intent::{
    ForwardingNextHop, Group, GroupId, IntentDelta, NextHopSet, ServiceState,
};

use crate::Mode;
use crate::pair::{Pair, endpoint, run};

/// Longest chain that is measured.
pub(crate) const MOST: usize = 4;

/// The router that a service is attached to: the first ones to the first.
fn site_of(service: usize) -> u8 {
    if service <= MOST / 2 { 1 } else { 2 }
}

fn label(service: usize) -> u32 {
    20_000 + service as u32
}

fn vni(service: usize) -> Result<Vni> {
    Ok(Vni::new(label(service))?)
}

/// Makes the nodes; says their names.
pub(crate) fn make(pair: &Pair, services: usize) -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for service in 1..=services {
        let (node, router) = (format!("s{service}"), format!("r{}", site_of(service)));
        let (ns, router_ns) = (pair.ns(&node), pair.ns(&router));
        run(&format!("ip netns add {ns}"))?;
        run(&format!(
            "ip link add eth0 netns {ns} type veth peer name s{service} netns {router_ns}"
        ))?;
        pair.ip(&node, &format!("addr add 169.254.{service}.2/30 dev eth0"))?;
        pair.ip(&node, "link set eth0 up")?;
        pair.ip(
            &router,
            &format!("addr add 169.254.{service}.1/30 dev s{service}"),
        )?;
        pair.ip(&router, &format!("link set s{service} up"))?;
        pair.ip(&node, &format!("route add default via 169.254.{service}.1"))?;
        for setting in [
            "ip_forward=1",
            "conf.all.rp_filter=0",
            "conf.eth0.rp_filter=0",
            "conf.all.send_redirects=0",
            "conf.eth0.send_redirects=0",
        ] {
            run(&format!("ip netns exec {ns} sysctl -qw net.ipv4.{setting}"))?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// The same steps with iproute2: a table and a rule each.
pub(crate) fn set_up(pair: &Pair, mode: &Mode, site: u8, services: usize) -> Result<()> {
    let node = format!("r{site}");
    let ns = pair.ns(&node);
    for service in 1..=services {
        let here = site_of(service) == site;
        let table = 200 + service;
        if here {
            run(&format!(
                "ip netns exec {ns} sysctl -qw net.ipv4.conf.s{service}.rp_filter=0 net.ipv4.conf.s{service}.send_redirects=0"
            ))?;
            pair.ip(
                &node,
                &format!("route add default via 169.254.{service}.2 dev s{service} table {table}"),
            )?;
        } else if site == 1 {
            let (own, other) = (endpoint(mode, 1), endpoint(mode, 2));
            pair.ip(
                &node,
                &format!(
                    "nexthop add id {table} encap ip id {} src {own} dst {other} ttl 64 via {other} onlink dev {}",
                    label(service),
                    mode.device
                ),
            )?;
            pair.ip(
                &node,
                &format!("route add default nhid {table} table {table}"),
            )?;
        }
        if here && site == 2 {
            run(&format!(
                "bridge -n {ns} vni add vni {} dev {}",
                label(service),
                mode.device
            ))?;
            pair.ip(
                &node,
                &format!("rule add pref 900 tun_id {} lookup {table}", label(service)),
            )?;
        }
        // What leads to it: users, or the service before it.
        let from = match service {
            1 => "red0 to 10.0.2.0/24".to_owned(),
            _ => format!("s{}", service - 1),
        };
        if site
            == if service == 1 {
                1
            } else {
                site_of(service - 1)
            }
        {
            pair.ip(
                &node,
                &format!("rule add pref 900 iif {from} lookup {table}"),
            )?;
        }
    }
    if services > 0 && site_of(services) == site {
        pair.ip(
            &node,
            &format!("rule add pref 900 iif s{services} lookup 100"),
        )?;
    }
    Ok(())
}

/// As Weft has it.
pub(crate) fn services(site: u8, services: usize) -> Result<Vec<Service>> {
    let all = (1..=services).map(|service| {
        let attachment = NodeAttachment {
            inside: Arm {
                interface: format!("s{service}"),
                addresses: vec![Ipv4Addr::new(169, 254, service as u8, 2).into()],
            },
            outside: None,
        };
        Ok(Service {
            name: format!("s{service}"),
            label: vni(service)?,
            attachment: (site_of(service) == site).then_some(attachment),
            on_failure: OnFailure::Closed,
            rewrites: false,
            selection: Selection::Nearest,
        })
    });
    all.collect()
}

/// Where the chain of what is measured stands among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    First,
    Last,
    /// What is measured takes no chain.
    Nowhere,
}

/// From the first host to the second, and so many that nothing takes.
pub(crate) fn chains(services: usize, others: usize, order: Order) -> Result<Vec<Chain>> {
    if services == 0 {
        return Ok(Vec::new());
    }
    let labels: Vec<Vni> = (1..=services).map(vni).collect::<Result<_>>()?;
    let chain = |name: String, destination: String| -> Result<Chain> {
        Ok(Chain {
            name,
            matches: Match {
                destinations: vec![destination.parse()?],
                ..Match::default()
            },
            services: labels.clone(),
            symmetric: false,
        })
    };
    let mut chains = Vec::new();
    for other in 0..others {
        let destination = format!("10.{}.{}.0/24", 1 + other / 256, other % 256);
        chains.push(chain(format!("other-{other}"), destination)?);
    }
    let own = chain("all".into(), "10.0.2.0/24".into())?;
    match order {
        Order::First => chains.insert(0, own),
        Order::Last => chains.push(own),
        Order::Nowhere => {}
    }
    Ok(chains)
}

/// Where each label's packets go; `hop` is the way to the other router.
pub(crate) fn intend(
    intent: &mut IntentDelta,
    site: u8,
    services: usize,
    hop: ForwardingNextHop,
) -> Result<()> {
    for service in 1..=services {
        let label = vni(service)?;
        let here = site_of(service) == site;
        let group = GroupId(100 + service as u32);
        if !here {
            let hop = ForwardingNextHop { vni: label, ..hop };
            let ways = Group {
                hops: NextHopSet(vec![hop]),
                weights: Vec::new(),
                has_others: false,
                may_share: false,
                sticky: false,
            };
            intent.groups.push((group, Some(ways)));
        }
        let state = ServiceState {
            local: here,
            prefer_remote: false,
            remote: (!here).then_some(group),
        };
        intent.services.push((label, Some(state)));
    }
    Ok(())
}
