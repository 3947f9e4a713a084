//! The data plane on the real kernel, in network namespaces of its own.

mod breakout;
mod chains;
mod chains_icmp;
mod domain;
mod isolation;
mod lab;
mod lossy;
mod modes;
mod paths;
mod ports;
mod repair;
mod routes;
mod segments;
mod senders;
mod services;
mod tenants;
mod underlay;
mod upkeep;
mod vlans;
mod walls;

use crate::bpf::Classifier;
use crate::netlink::socket::Netlink;
use lab::Lab;

/// Packets that a host was asked by, of both families.
fn asked(lab: &Lab, host: &str) -> u32 {
    counted(lab, host, "t")
}

/// Packets that the rules of a table counted.
fn counted(lab: &Lab, host: &str, table: &str) -> u32 {
    let text = lab.run(host, &format!("nft list chain inet {table} i"));
    let counts = text.split("packets ").skip(1);
    counts
        .map(|rest| rest.split(' ').next().unwrap().parse::<u32>().unwrap())
        .sum()
}

/// The number of a device.
fn index(lab: &Lab, node: &str, device: &str) -> u32 {
    let text = lab.run(node, &format!("ip -o link show dev {device}"));
    text.split(':').next().unwrap().parse().unwrap()
}

/// Whether our programs look at a device's packets.
fn attached(lab: &Lab, node: &str, device: &str) -> bool {
    let device = index(lab, node, device);
    lab.inside(node, move || {
        Classifier::is_attached(&mut Netlink::open().unwrap(), device)
    })
}
