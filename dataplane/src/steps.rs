//! Service chains in nftables: which step a packet takes next.
//!
//! A packet's step is its mark, and a mark leads into a table with one way. Marks are given where a packet comes from: at
//! attachments of tenants with chains, at the arms of service nodes, and, for what tells no node by its label alone, at tunnel
//! devices. The hooks are at these devices only: other packets of the host do not pass them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::Command;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_overlay::Vni;
use weft_overlay::chain::{Direction, Fragments, Match};

use self::load::{GENERATION, Hook};
pub(crate) use self::load::{GRACE, Loaded, StepTable};
use self::tree::{Field, Node, Part, Tree};
use crate::model::Family;

mod load;
mod tree;

/// Our table of chains.
pub(crate) const TABLE: &str = "weft-chains";

/// How a packet with a label is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Leg {
    /// It came from the overlay.
    Arrived = 1,
    /// This router puts it on the way.
    Sent = 2,
    /// As [`Leg::Arrived`], in the other direction of a symmetric chain.
    ArrivedReverse = 3,
    /// As [`Leg::Sent`], in the other direction.
    SentReverse = 4,
}

impl Leg {
    pub(crate) const ALL: [Self; 4] = [
        Self::Arrived,
        Self::Sent,
        Self::ArrivedReverse,
        Self::SentReverse,
    ];

    /// It has just come from the overlay.
    pub(crate) fn is_arrival(self) -> bool {
        matches!(self, Self::Arrived | Self::ArrivedReverse)
    }

    /// It goes in where others come back.
    pub(crate) fn is_reverse(self) -> bool {
        matches!(self, Self::ArrivedReverse | Self::SentReverse)
    }

    /// The mark of such packets, and the number of the table that it leads to.
    pub(crate) fn mark(self, label: Vni) -> u32 {
        crate::RANGE + ((self as u32) << 24) + label.get()
    }
}

/// Every mark of a step, and no other, is this in [`STEPS_MASK`]'s bits.
pub(crate) const STEPS: u32 = crate::RANGE + (1 << 24);
/// Which bits.
pub(crate) const STEPS_MASK: u32 = 0xfc00_0000;
/// The mark of packets of tenants with chains until nftables has said which step they take: that of no label, so that none of them goes
/// anywhere where nftables does not.
pub(crate) const UNDECIDED: u32 = STEPS;
/// With the bits of a label: its marks of all legs are alike in them.
pub(crate) const LABEL_MASK: u32 = STEPS_MASK | 0x00ff_ffff;

/// What a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct StepCounter {
    /// The tenant's primary VNI.
    pub vni: Vni,
    /// The chain's name.
    pub chain: String,
    /// Which way.
    pub direction: Direction,
    /// So many services are behind.
    pub passed: usize,
    /// Packets that were dropped for want of the next service; else those that went on.
    pub dropped: bool,
}

/// The counter of packets with a service's label that came from the overlay and were dropped here.
fn arrival_counter(label: Vni) -> String {
    format!("label-{label}")
}

impl StepCounter {
    fn name(&self) -> String {
        let what = if self.dropped { "drop" } else { "step" };
        let way = match self.direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        };
        format!("{what}-{}-{}-{way}-{}", self.vni, self.passed, self.chain)
    }
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They get this mark.
    Mark(u32),
    /// They leave the chain with their tenant's.
    Leave,
    /// They go no further.
    Drop,
}

/// Packets at a place, what becomes of them and who counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepRule {
    /// Which; all where absent.
    pub(crate) matches: Option<Match>,
    pub(crate) counter: String,
    pub(crate) verdict: Verdict,
    /// What becomes of fragments that do not say the ports that `matches` asks for, and who counts those that are dropped.
    pub(crate) fragments: Fragments,
    pub(crate) dropped: String,
}

impl StepRule {
    pub(crate) fn new(
        matches: Option<Match>,
        mut counter: StepCounter,
        verdict: Verdict,
        fragments: Fragments,
    ) -> Self {
        counter.dropped = true;
        let dropped = counter.name();
        counter.dropped = verdict == Verdict::Drop;
        Self {
            matches,
            counter: counter.name(),
            verdict,
            fragments,
            dropped,
        }
    }

    /// Packets that came with a label that nothing can be done for here.
    pub(crate) fn arrival(
        matches: Option<Match>,
        label: Vni,
        verdict: Verdict,
        fragments: Fragments,
    ) -> Self {
        let counter = match verdict {
            Verdict::Drop => arrival_counter(label),
            _ => format!("passed-{label}"),
        };
        Self {
            matches,
            counter,
            verdict,
            fragments,
            dropped: arrival_counter(label),
        }
    }
}

/// Devices whose packets are looked at, and the rules for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepPlace {
    /// Name and number: a device that was made again has to be hooked again.
    pub(crate) devices: BTreeSet<(String, u32)>,
    /// The mark of the tenant.
    pub(crate) mark: u32,
    /// The router's own addresses there, which are not chained.
    pub(crate) own: BTreeSet<IpAddr>,
    /// For IPv4, for IPv6.
    pub(crate) rules: [Vec<StepRule>; 2],
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepRules {
    /// By name.
    pub(crate) places: BTreeMap<String, StepPlace>,
    /// At tunnel devices, by the mark that a label gave.
    pub(crate) arrivals: BTreeMap<u32, [Vec<StepRule>; 2]>,
    /// Tunnel devices, name and number.
    pub(crate) tunnels: BTreeSet<(String, u32)>,
    /// Counters that stay, whether a rule counts by them now or not.
    pub(crate) counters: BTreeSet<String>,
}

/// Made first, so that its removal never fails for want of it; and once more, so that its signature is told of.
fn no_table_in(family: &str) -> String {
    format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n").repeat(2)
}

fn no_table() -> String {
    ["inet", "netdev"].map(no_table_in).concat()
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match &items[..] {
        [one] => one.clone(),
        _ => format!("{{ {} }}", items.join(", ")),
    }
}

fn ports(ranges: &[RangeInclusive<u16>]) -> String {
    join(
        ranges
            .iter()
            .map(|range| match range.start() == range.end() {
                true => range.start().to_string(),
                false => format!("{}-{}", range.start(), range.end()),
            }),
    )
}

/// Conditions as nft writes them: those about addresses, code point and protocol, and those about ports. None where no packet of
/// the family has them.
fn conditions(matches: &Match, family: Family) -> Option<(String, String)> {
    let word = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let mut common = String::new();
    for (side, nets) in [
        ("saddr", &matches.sources),
        ("daddr", &matches.destinations),
    ] {
        if nets.is_empty() {
            continue;
        }
        let nets: Vec<IpNet> = nets
            .iter()
            .filter(|net| Family::of(**net) == family)
            .copied()
            .collect();
        if nets.is_empty() {
            return None;
        }
        // An interval that covers another is refused, and says all that the other does.
        let nets = IpNet::aggregate(&nets);
        // All addresses: nft has no word for them.
        if nets.iter().any(|net| net.prefix_len() == 0) {
            continue;
        }
        let _ = write!(common, "{word} {side} {} ", join(nets));
    }
    if let Some(dscp) = matches.dscp {
        let _ = write!(common, "{word} dscp {dscp} ");
    }
    if let Some(protocol) = matches.protocol {
        let _ = write!(common, "meta l4proto {protocol} ");
    }
    let mut with_ports = String::new();
    for (side, ranges) in [
        ("sport", &matches.source_ports),
        ("dport", &matches.destination_ports),
    ] {
        if !ranges.is_empty() {
            let _ = write!(with_ports, "th {side} {} ", ports(ranges));
        }
    }
    Some((common, with_ports))
}

/// One rule, for packets of this part.
fn put_rule(out: &mut String, rule: &StepRule, family: Family, part: Part) {
    // What does not say its ports.
    let fragment = match family {
        Family::V4 => "ip frag-off & 0x1fff != 0 ",
        Family::V6 => "frag frag-off != 0 ",
    };
    let verdict = match rule.verdict {
        Verdict::Mark(mark) => format!("meta mark set 0x{mark:08x} accept"),
        Verdict::Leave => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
    };
    let counter = &rule.counter;
    let mut put = |condition: &str, counter: &str, verdict: &str| {
        let _ = writeln!(out, "    {condition}counter name \"{counter}\" {verdict}");
    };
    let Some(matches) = &rule.matches else {
        return put("", counter, &verdict);
    };
    let Some((common, with_ports)) = conditions(matches, family) else {
        return;
    };
    if part != Part::WithoutPorts || with_ports.is_empty() {
        put(&format!("{common}{with_ports}"), counter, &verdict);
    }
    if let Fragments::Follow { unless } = &rule.fragments
        && part != Part::WithPorts
    {
        for other in unless {
            if let Some((other, _)) = conditions(other, family) {
                put(&format!("{common}{other}{fragment}"), &rule.dropped, "drop");
            }
        }
        put(&format!("{common}{fragment}"), counter, &verdict);
    }
}

/// A chain that begins with `first` and goes on with the rules, and the chains that it looks up.
fn put_chain(out: &mut String, name: &str, first: &str, rules: &[StepRule], family: Family) {
    let tree = Tree::new(rules, family);
    for (at, (node, part)) in tree.nodes.iter().enumerate() {
        match at == tree.root {
            true => {
                let _ = write!(out, "  chain {GENERATION}{name} {{\n{first}");
            }
            false => {
                let _ = writeln!(out, "  chain {GENERATION}{name}-{at} {{");
            }
        }
        match node {
            Node::List(list) => {
                for rule in list {
                    put_rule(out, &rules[*rule], family, *part);
                }
            }
            Node::Split { field, ways, rest } => {
                let (field, value) = field_word(*field, family);
                let ways = ways.iter().map(|((low, high), to)| {
                    let (low, high) = (value(*low), value(*high));
                    match low == high {
                        true => format!("{low} : goto {GENERATION}{name}-{to}"),
                        false => format!("{low}-{high} : goto {GENERATION}{name}-{to}"),
                    }
                });
                let ways: Vec<String> = ways.collect();
                let _ = writeln!(out, "    {field} vmap {{ {} }}", ways.join(", "));
                let _ = writeln!(out, "    goto {GENERATION}{name}-{rest}");
            }
        }
        out.push_str("  }\n");
    }
}

/// How nft writes a field, and its values.
type FieldWord = (&'static str, fn(u128) -> String);

fn field_word(field: Field, family: Family) -> FieldWord {
    let v4 = |value: u128| std::net::Ipv4Addr::from_bits(value as u32).to_string();
    let v6 = |value: u128| std::net::Ipv6Addr::from_bits(value).to_string();
    match (field, family) {
        (Field::Destination, Family::V4) => ("ip daddr", v4),
        (Field::Destination, Family::V6) => ("ip6 daddr", v6),
        (Field::Source, Family::V4) => ("ip saddr", v4),
        (Field::Source, Family::V6) => ("ip6 saddr", v6),
        (Field::DestinationPort, _) => ("th dport", |value| value.to_string()),
        (Field::SourcePort, _) => ("th sport", |value| value.to_string()),
    }
}

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "ip"), (Family::V6, "ip6")];

/// A chain that leads to those of the families.
fn put_families(out: &mut String, name: &str) {
    let [v4, v6] = FAMILIES.map(|(_, word)| format!("{word} : goto {GENERATION}{name}-{word}"));
    let _ = writeln!(
        out,
        "  chain {GENERATION}{name} {{\n    meta protocol vmap {{ {v4}, {v6} }}\n    drop\n  }}"
    );
}

/// How nft writes the names of devices.
fn quoted(devices: &BTreeSet<(String, u32)>) -> String {
    let names = devices.iter().map(|(name, _)| format!("\"{name}\""));
    names.collect::<Vec<_>>().join(", ")
}

impl StepRules {
    fn counters(&self) -> BTreeSet<&str> {
        let places = self.places.values().map(|place| &place.rules);
        let rules = places.chain(self.arrivals.values()).flatten().flatten();
        let used = rules.flat_map(|rule| [rule.counter.as_str(), rule.dropped.as_str()]);
        used.chain(self.counters.iter().map(String::as_str))
            .collect()
    }

    /// Counts what becomes of packets of this chain from now on, also while nothing does.
    pub(crate) fn keep_counters(&mut self, mut counter: StepCounter, services: usize) {
        for passed in 0..=services {
            counter.passed = passed;
            for dropped in [false, true] {
                counter.dropped = dropped;
                self.counters.insert(counter.name());
            }
        }
    }

    /// The tables that follow; empty where there is nothing to do.
    pub(crate) fn table(&self) -> StepTable {
        let (mut decisions, mut hooks) = (String::new(), BTreeMap::new());
        for (name, place) in &self.places {
            if place.devices.is_empty() {
                continue;
            }
            for (family, word) in FAMILIES {
                // What is for the link itself, and for the router.
                let local = match family {
                    Family::V4 => "ip daddr { 224.0.0.0/4, 255.255.255.255 } accept",
                    Family::V6 => "ip6 daddr { fe80::/10, ff00::/8 } accept",
                };
                let mut first = format!("    {local}\n");
                let own: Vec<&IpAddr> = place
                    .own
                    .iter()
                    .filter(|each| each.is_ipv4() == (family == Family::V4))
                    .collect();
                if !own.is_empty() {
                    let _ = writeln!(first, "    {word} daddr {} accept", join(own));
                }
                let (name, rules) = (format!("{name}-{word}"), &place.rules[family as usize]);
                put_chain(&mut decisions, &name, &first, rules, family);
            }
            put_families(&mut decisions, name);
            // Where the classifier is, they come as undecided.
            let rules = vec![
                format!("meta mark set 0x{:08x}", place.mark),
                format!("goto {GENERATION}{name}"),
            ];
            let devices = place.devices.clone();
            hooks.insert(name.clone(), Hook { devices, rules });
        }
        if !self.arrivals.is_empty() && !self.tunnels.is_empty() {
            for (mark, rules) in &self.arrivals {
                for (family, word) in FAMILIES {
                    let name = format!("arrived-{mark:08x}-{word}");
                    put_chain(&mut decisions, &name, "", &rules[family as usize], family);
                }
                put_families(&mut decisions, &format!("arrived-{mark:08x}"));
            }
            let marks = self.arrivals.keys();
            let marks: Vec<String> = marks
                .map(|mark| format!("0x{mark:08x} : goto {GENERATION}arrived-{mark:08x}"))
                .collect();
            let _ = writeln!(
                decisions,
                "  chain {GENERATION}arrivals {{\n    meta mark vmap {{ {} }}\n  }}",
                marks.join(", ")
            );
            let rules = vec![format!("goto {GENERATION}arrivals")];
            let devices = self.tunnels.clone();
            hooks.insert("arrivals".into(), Hook { devices, rules });
        }
        let counters = self.counters().into_iter().map(str::to_owned).collect();
        StepTable {
            decisions,
            hooks,
            others: self.other_protocols(),
            counters,
        }
    }

    /// The table before it. The kernel shows IPv4 and IPv6 alone to the other one, and afterwards takes off one tag without a VLAN after
    /// another: what is in them would be led past all services. ARP is for the router itself.
    fn other_protocols(&self) -> String {
        let places = self.places.values().flat_map(|place| &place.devices);
        let devices: BTreeSet<_> = places.chain(&self.tunnels).cloned().collect();
        if devices.is_empty() {
            return String::new();
        }
        format!(
            "table netdev {TABLE} {{
  chain other-protocols {{
    type filter hook ingress devices = {{ {} }} priority -1; policy accept;
    meta protocol != {{ ip, ip6, arp }} counter drop
  }}
}}
",
            quoted(&devices)
        )
    }
}

/// Removes the tables.
pub(crate) fn unload() -> Result<(), String> {
    crate::nftables::load(&no_table())
}

/// What is counted now, packets and octets by name.
fn counters() -> Option<BTreeMap<String, (u64, u64)>> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Object>,
    }
    #[derive(Deserialize)]
    struct Object {
        counter: Option<Counter>,
    }
    #[derive(Deserialize)]
    struct Counter {
        name: String,
        packets: u64,
        bytes: u64,
    }
    let output = Command::new("nft")
        .args(["-j", "list", "counters", "table", "inet", TABLE])
        .output()
        .ok()?;
    let listing: Listing = serde_json::from_slice(&output.stdout).ok()?;
    let counters = listing.nftables.into_iter().filter_map(|each| each.counter);
    Some(
        counters
            .map(|each| (each.name, (each.packets, each.bytes)))
            .collect(),
    )
}

/// What was counted at the steps of chains, as long as the chains are the same.
#[derive(Clone, Debug, Default)]
pub struct StepCounts(BTreeMap<String, (u64, u64)>);

impl StepCounts {
    /// Reads them from the kernel; none where there are no chains.
    pub fn read() -> Self {
        Self(counters().unwrap_or_default())
    }

    /// Packets of a step.
    pub fn packets(&self, counter: &StepCounter) -> u64 {
        self.0
            .get(&counter.name())
            .map_or(0, |(packets, _)| *packets)
    }

    /// Packets with a service's label that came from the overlay and were dropped here.
    pub fn dropped_on_arrival(&self, label: Vni) -> u64 {
        let counter = self.0.get(&arrival_counter(label));
        counter.map_or(0, |(packets, _)| *packets)
    }
}
