//! Nodes of services, and what tells whether packets have passed them: each service leaves its bit in the code point.

use std::time::Duration;

use crate::topology::forwarding;
use crate::{Lab, wait_until};

/// A node with one arm that leaves `bit`, 1 or 2, in what passes.
pub fn service(address: &str, gateway: &str, bit: u8) -> Vec<String> {
    let mut exec = forwarding(&[address]);
    exec.push(format!("ip route add default via {gateway}"));
    let rule = |was: u8| format!("add rule inet s f ip dscp {was} ip dscp set {};", was | bit);
    exec.push(format!(
        "nft 'add table inet s; add chain inet s f {{ type filter hook forward priority 0; }}; {} {}'",
        rule(3 - bit),
        rule(0)
    ));
    exec
}

/// Counts echo requests that a host sends, as `sent`.
pub const SENDER: &str = "nft 'add table inet s; add counter inet s sent; add chain inet s o { type filter hook output priority 0; }; add rule inet s o icmp type echo-request counter name sent'";

/// Counts echo requests that arrive at a host: those that have passed both services as `both`, and `other` ones.
pub const RECEIVER: &str = "nft 'add table inet s; add counter inet s both; add counter inet s other; add chain inet s i { type filter hook input priority 0; }; add rule inet s i icmp type echo-request ip dscp 3 counter name both accept; add rule inet s i icmp type echo-request counter name other'";

/// What a counter of a node says, in packets.
///
/// # Panics
/// Where there is none.
pub fn counted(lab: &Lab, node: &str, counter: &str) -> u64 {
    let text = lab.run(node, &format!("nft list counter inet s {counter}"));
    let mut words = text.split_whitespace();
    words.find(|word| *word == "packets");
    words.next().unwrap().parse().unwrap()
}

/// Waits until routers have a way for each step of their first chain.
///
/// # Panics
/// Where that takes a minute.
pub fn whole(lab: &Lab, routers: &[&str]) {
    for router in routers {
        wait_until("the chain is whole", Duration::from_secs(60), || {
            let chains = lab.get(router, "chains")?;
            (chains[0]["state"]["code"] == "whole").then_some(())
        });
    }
}

/// Waits until a node counts so many packets more.
///
/// # Panics
/// Where that takes a minute.
pub fn wait_for(lab: &Lab, node: &str, counter: &str, more: u64) {
    let before = counted(lab, node, counter);
    let what = format!("{more} packets more are {counter}");
    wait_until(&what, Duration::from_secs(60), || {
        (counted(lab, node, counter) >= before + more).then_some(())
    });
}
