//! The tree against the list: the same rule decides, and few are looked at.

use weft_overlay::Vni;
use weft_overlay::chain::{Flow, Verdict as Matches};

use super::super::{StepRule, Verdict};
use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;

/// A stream of numbers (Knuth's constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn rule(matches: Option<Match>) -> StepRule {
    let label = Vni::new(1).unwrap();
    let follows = Fragments::Follow { unless: Vec::new() };
    StepRule::arrival(matches, label, Verdict::Leave, follows)
}

/// Where a packet comes to in the tree: the rules that it passes, in order, and how many look-ups that took.
fn passed(tree: &Tree, flow: &Flow) -> (Vec<usize>, usize) {
    let mut at = tree.root;
    let mut look_ups = 0;
    loop {
        let (field, ways, rest) = match &tree.nodes[at].0 {
            Node::List(list) => return (list.clone(), look_ups),
            Node::Split { field, ways, rest } => (field, ways, rest),
        };
        look_ups += 1;
        let value = match field {
            Field::Destination => Some(number(flow.destination)),
            Field::Source => flow.source.map(number),
            Field::DestinationPort => flow.destination_port.map(u128::from),
            Field::SourcePort => flow.source_port.map(u128::from),
        };
        let way = value.and_then(|value| {
            let at = ways.partition_point(|((_, high), _)| *high < value);
            ways.get(at).filter(|((low, _), _)| *low <= value)
        });
        at = way.map_or(*rest, |(_, to)| *to);
    }
}

/// The first rule of these that a packet has.
fn first(rules: &[StepRule], mut order: impl Iterator<Item = usize>, flow: &Flow) -> Option<usize> {
    order.find(|at| match &rules[*at].matches {
        None => true,
        Some(matches) => matches.judge(flow) == Matches::Yes,
    })
}

fn v4(high: u8, low: u64) -> IpAddr {
    std::net::Ipv4Addr::from_bits(u32::from(high) << 24 | low as u32).into()
}

fn net(high: u8, low: u64, length: u8) -> IpNet {
    IpNet::new(v4(high, low), length).unwrap().trunc()
}

fn some_rule(numbers: &mut Numbers) -> StepRule {
    let mut matches = Match::default();
    let nets = |numbers: &mut Numbers| {
        let count = numbers.below(3);
        let nets = (0..count).map(|_| {
            let length = [0, 8, 12, 20, 24, 32][numbers.below(6) as usize];
            net(10, numbers.below(1 << 24), length)
        });
        let mut nets: Vec<IpNet> = nets.collect();
        if numbers.below(4) == 0 {
            nets.push("2001:db8::/32".parse().unwrap());
        }
        nets
    };
    let ports = |numbers: &mut Numbers| {
        let count = numbers.below(3);
        let ranges = (0..count).map(|_| {
            let low = numbers.below(65536) as u16;
            low..=low.saturating_add(numbers.below(3000) as u16)
        });
        ranges.collect::<Vec<_>>()
    };
    matches.sources = nets(numbers);
    matches.destinations = nets(numbers);
    if numbers.below(2) == 0 {
        matches.protocol = Some([TCP, UDP][numbers.below(2) as usize]);
        matches.source_ports = ports(numbers);
        matches.destination_ports = ports(numbers);
    }
    rule((numbers.below(50) > 0).then_some(matches))
}

fn some_flow(numbers: &mut Numbers) -> Flow {
    let protocol = [TCP, UDP, GRE][numbers.below(3) as usize];
    let mut port = || (protocol != GRE).then(|| numbers.below(65536) as u16);
    let (source_port, destination_port) = (port(), port());
    Flow {
        source: Some(v4(10, numbers.below(1 << 24))),
        destination: v4(10, numbers.below(1 << 24)),
        protocol: Some(protocol),
        source_port,
        destination_port,
        dscp: 0,
    }
}

#[test]
fn the_same_rule_decides_as_in_the_list() {
    let mut numbers = Numbers(1);
    for count in [0, 1, 9, 40, 200] {
        for _ in 0..20 {
            let rules: Vec<StepRule> = (0..count).map(|_| some_rule(&mut numbers)).collect();
            let tree = Tree::new(&rules, Family::V4);
            for _ in 0..200 {
                let flow = some_flow(&mut numbers);
                let (list, _) = passed(&tree, &flow);
                assert!(list.is_sorted());
                let found = first(&rules, list.into_iter(), &flow);
                assert_eq!(
                    found,
                    first(&rules, 0..count, &flow),
                    "{flow:?}\n{rules:#?}"
                );
            }
        }
    }
}

fn chain(change: impl FnOnce(&mut Match)) -> StepRule {
    let mut matches = Match::default();
    change(&mut matches);
    rule(Some(matches))
}

#[test]
fn of_five_hundred_chains_a_packet_passes_a_few() {
    let prefix = |at: u64| net(10, at << 8, 24);
    type Shape = fn(u64, &dyn Fn(u64) -> IpNet) -> StepRule;
    let shapes: [(&str, Shape); 6] = [
        ("by destination", |at, prefix| {
            chain(|matches| matches.destinations = vec![prefix(at)])
        }),
        ("by source", |at, prefix| {
            chain(|matches| matches.sources = vec![prefix(at)])
        }),
        ("by both, all nested in one", |at, prefix| {
            chain(|matches| {
                matches.sources = vec![net(10, 0, 8)];
                matches.destinations = vec![prefix(at)];
            })
        }),
        ("from one site, and the other direction", |at, prefix| {
            chain(|matches| {
                let (site, other) = (vec![prefix(900)], vec![prefix(at / 2)]);
                (matches.sources, matches.destinations) = match at % 2 {
                    0 => (site, other),
                    _ => (other, site),
                };
            })
        }),
        ("by port", |at, _| {
            chain(|matches| {
                matches.protocol = Some(TCP);
                matches.destination_ports = vec![1000 + at as u16..=1000 + at as u16];
            })
        }),
        ("by a grid of both", |at, prefix| {
            chain(|matches| {
                matches.sources = vec![prefix(at / 25)];
                matches.destinations = vec![prefix(at % 25)];
            })
        }),
    ];
    for (name, shape) in shapes {
        let rules: Vec<StepRule> = (0..500).map(|at| shape(at, &prefix)).collect();
        let tree = Tree::new(&rules, Family::V4);
        let mut longest = 0;
        let mut numbers = Numbers(7);
        for _ in 0..5000 {
            let mut flow = some_flow(&mut numbers);
            flow.source = Some(v4(10, numbers.below(1000) << 8 | 1));
            flow.destination = v4(10, numbers.below(1000) << 8 | 1);
            flow.destination_port = flow.destination_port.map(|port| 900 + port % 700);
            let (list, look_ups) = passed(&tree, &flow);
            let has_ports = flow.destination_port.is_some();
            if has_ports || name != "by port" {
                longest = longest.max(list.len() + look_ups);
            }
        }
        assert!(longest <= 12, "{name}: {longest}");
        let intervals = tree.nodes.iter().map(|(node, _)| match node {
            Node::List(_) => 0,
            Node::Split { ways, .. } => ways.len(),
        });
        let intervals: usize = intervals.sum();
        assert!(intervals <= 1100, "{name}: {intervals}");
    }
}

/// Symmetric chains: half of them by source, half by destination. And such that each contains the next one.
#[test]
fn a_tree_is_bounded_whatever_the_chains_are() {
    let half = |at: u64| {
        let prefix = net(10, at << 8, 24);
        chain(|matches| match at % 2 {
            0 => matches.sources = vec![prefix],
            _ => matches.destinations = vec![prefix],
        })
    };
    let nested = |at: u64| chain(|matches| matches.sources = vec![net(10, 0, 8 + (at % 24) as u8)]);
    let shapes: [(&dyn Fn(u64) -> StepRule, usize); 2] = [(&half, 140), (&nested, 500)];
    for (shape, most) in shapes {
        let rules: Vec<StepRule> = (0..500).map(shape).collect();
        let tree = Tree::new(&rules, Family::V4);
        let lists = tree.nodes.iter().filter_map(|(node, _)| match node {
            Node::List(list) => Some(list.len()),
            Node::Split { .. } => None,
        });
        let (some, each) = COPIES;
        let copies: usize = lists.sum();
        assert!(copies <= 2 * (some + each * rules.len()), "{copies}");
        let mut numbers = Numbers(7);
        for _ in 0..2000 {
            let mut flow = some_flow(&mut numbers);
            flow.source = Some(v4(10, numbers.below(1000) << 8 | 1));
            flow.destination = v4(10, numbers.below(1000) << 8 | 1);
            let (list, look_ups) = passed(&tree, &flow);
            assert!(list.len() + look_ups <= most, "{list:?}");
        }
    }
}
