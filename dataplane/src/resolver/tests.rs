//! The resolver against a kernel that is a list of routes.

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A kernel's table: routes of others, each out of one link, and those of ours that are installed.
#[derive(Default)]
struct Kernel {
    foreign: BTreeMap<IpNet, (u32, Vec<Way>)>,
    ours: BTreeMap<IpNet, RouteSpec>,
    sets: WaySets,
}

impl Kernel {
    fn add(&mut self, prefix: &str, gateway: Option<&str>, interface: u32) {
        let way = Way {
            gateway: gateway.map(ip),
            interface,
            onlink: false,
            weight: 1,
        };
        let one = self.foreign.entry(net(prefix)).or_default();
        one.1.push(way);
    }

    fn ask(&self, address: IpAddr) -> Answer {
        let holds = |prefix: &&IpNet| prefix.contains(&address);
        let foreign = self
            .foreign
            .keys()
            .filter(holds)
            .max_by_key(|one| one.prefix_len());
        let ours = self
            .ours
            .keys()
            .filter(holds)
            .max_by_key(|one| one.prefix_len());
        match (foreign, ours) {
            (None, None) => Answer::Nothing,
            (None, Some(ours)) => Answer::Ours(*ours),
            (Some(foreign), Some(ours))
                if ours.prefix_len() > foreign.prefix_len()
                    || (ours == foreign && underlay_metric(ours) < self.foreign[foreign].0) =>
            {
                Answer::Ours(*ours)
            }
            (Some(foreign), _) => {
                let (metric, ways) = self.foreign[foreign].clone();
                Answer::Foreign(Match {
                    prefix: *foreign,
                    metric,
                    ways,
                })
            }
        }
    }

    /// As the data plane does it.
    fn settle(&mut self, resolver: &mut Resolver) {
        for _ in 0..100 {
            for (number, address) in resolver.questions() {
                resolver.answer(number, self.ask(address));
            }
            let decision = resolver.decide(&mut self.sets);
            for (prefix, spec) in decision.changed {
                self.place(prefix, spec);
            }
            if !decision.again {
                return;
            }
        }
        panic!("it does not come to an end");
    }

    fn place(&mut self, prefix: IpNet, spec: Option<RouteSpec>) {
        match spec {
            Some(spec) => self.ours.insert(prefix, spec),
            None => self.ours.remove(&prefix),
        };
    }

    fn set(&mut self, resolver: &mut Resolver, prefix: &str, via: Option<&str>) {
        if let Placed::Now(spec) = resolver.set(net(prefix), via.map(ip)) {
            self.place(net(prefix), spec);
        }
        if resolver.is_open() {
            self.settle(resolver);
        }
    }

    fn changed(&mut self, resolver: &mut Resolver) {
        resolver.ask_all();
        self.settle(resolver);
    }
}

fn via(gateway: &str, interface: u32) -> RouteSpec {
    RouteSpec::Via {
        gateway: ip(gateway),
        interface: Some(interface),
    }
}

#[test]
fn a_route_may_contain_its_next_hop_where_a_longer_match_leads_there() {
    let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
    kernel.add("198.51.100.0/30", None, 2);
    for prefix in ["0.0.0.0/0", "198.51.100.0/24", "198.51.0.0/16"] {
        kernel.set(&mut resolver, prefix, Some("198.51.100.2"));
        assert_eq!(
            kernel.ours[&net(prefix)],
            via("198.51.100.2", 2),
            "{prefix}"
        );
    }
    assert_eq!(resolver.loops().count() + resolver.unresolved().count(), 0);
    // The address goes: nothing but they themselves leads there.
    kernel.foreign.clear();
    kernel.changed(&mut resolver);
    assert_eq!(kernel.ours, BTreeMap::new());
    kernel.add("198.51.100.0/30", None, 2);
    kernel.changed(&mut resolver);
    assert_eq!(kernel.ours.len(), 3);
}

#[test]
fn a_route_that_would_be_the_best_match_for_its_next_hop_is_not_installed() {
    let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
    kernel.add("0.0.0.0/0", Some("203.0.113.1"), 2);
    kernel.set(&mut resolver, "192.0.2.0/24", Some("192.0.2.10"));
    kernel.set(&mut resolver, "10.0.0.0/8", Some("192.0.2.10"));
    assert_eq!(kernel.ours.get(&net("192.0.2.0/24")), None);
    assert_eq!(kernel.ours[&net("10.0.0.0/8")], via("203.0.113.1", 2));
    assert_eq!(resolver.loops().collect::<Vec<_>>(), [net("192.0.2.0/24")]);
    // One metric before the kernel's own decides that of two with one prefix.
    let mut kernel = Kernel::default();
    kernel
        .foreign
        .insert(net("2001:db8::/64"), (256, Vec::new()));
    kernel.add("2001:db8::/64", None, 2);
    let mut resolver = Resolver::default();
    kernel.set(&mut resolver, "2001:db8::/64", Some("2001:db8::2"));
    assert_eq!(kernel.ours[&net("2001:db8::/64")], via("2001:db8::2", 2));
}

#[test]
fn next_hops_are_recursive_behind_anything() {
    let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
    kernel.add("198.51.100.0/30", None, 2);
    kernel.add("192.0.2.10/32", Some("198.51.100.2"), 2);
    kernel.set(&mut resolver, "10.1.0.0/16", Some("192.0.2.10"));
    kernel.set(&mut resolver, "10.2.0.0/16", Some("10.1.0.1"));
    kernel.set(&mut resolver, "10.3.0.0/16", Some("10.2.0.1"));
    for prefix in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
        assert_eq!(
            kernel.ours[&net(prefix)],
            via("198.51.100.2", 2),
            "{prefix}"
        );
    }
    // It moves: all follow.
    kernel.foreign.remove(&net("192.0.2.10/32"));
    kernel.add("192.0.2.10/32", Some("198.51.100.1"), 3);
    kernel.changed(&mut resolver);
    assert_eq!(kernel.ours[&net("10.3.0.0/16")], via("198.51.100.1", 3));
    // Carrier is lost: none is left.
    kernel
        .foreign
        .get_mut(&net("192.0.2.10/32"))
        .unwrap()
        .1
        .clear();
    kernel.changed(&mut resolver);
    assert_eq!(kernel.ours, BTreeMap::new());
    let unresolved: Vec<Unresolved> = resolver.unresolved().collect();
    assert_eq!(unresolved.len(), 3, "{unresolved:?}");
    assert_eq!(unresolved[2].routes, 1);
}

#[test]
fn two_that_lead_to_each_other_lead_nowhere_and_what_leads_to_them_goes_past_them() {
    let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
    kernel.add("0.0.0.0/0", Some("203.0.113.1"), 2);
    kernel.set(&mut resolver, "10.1.0.0/16", Some("10.2.0.1"));
    kernel.set(&mut resolver, "10.3.0.0/16", Some("10.1.0.1"));
    kernel.set(&mut resolver, "10.2.0.0/16", Some("10.1.0.1"));
    assert_eq!(resolver.loops().count(), 2);
    assert_eq!(
        kernel.ours.keys().collect::<Vec<_>>(),
        [&net("10.3.0.0/16")]
    );
    kernel.set(&mut resolver, "10.2.0.0/16", None);
    assert_eq!(kernel.ours.len(), 2);
}

#[test]
fn several_ways_are_used_at_once_and_a_route_to_its_own_next_hop_is_none() {
    let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
    kernel.add("192.0.2.10/32", Some("198.51.100.2"), 2);
    kernel.add("192.0.2.10/32", Some("198.51.100.6"), 3);
    kernel.set(&mut resolver, "192.0.2.10/32", Some("192.0.2.10"));
    assert_eq!(kernel.ours, BTreeMap::new());
    kernel.set(&mut resolver, "10.0.0.0/8", Some("::ffff:192.0.2.10"));
    let RouteSpec::Ways(set) = kernel.ours[&net("10.0.0.0/8")] else {
        panic!("{:?}", kernel.ours);
    };
    assert_eq!(kernel.sets.get(set).len(), 2);
    // No IPv6 packet has an IPv4 gateway.
    kernel.set(&mut resolver, "2001:db8::/32", Some("::ffff:192.0.2.10"));
    assert_eq!(kernel.ours.get(&net("2001:db8::/32")), None);
}

/// A small generator: the same runs each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// Where the kernel sends a packet: its own look-ups, one after another, as the routes' *next hops* lead.
fn loops_in(kernel: &Kernel, resolver: &Resolver, prefix: IpNet) -> bool {
    let mut at = prefix;
    for _ in 0..64 {
        let Some(hop) = resolver.routes.get(&at).and_then(|hop| resolver.hop(*hop)) else {
            return false;
        };
        match kernel.ask(hop.address) {
            Answer::Ours(next) => at = next,
            _ => return false,
        }
    }
    true
}

#[test]
fn no_order_of_events_leads_to_a_loop_or_to_another_end() {
    const PREFIXES: [&str; 12] = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "10.2.0.0/16",
        "10.2.1.0/24",
        "10.2.1.0/30",
        "10.3.0.0/16",
        "10.3.0.1/32",
        "10.1.1.1/32",
        "10.0.1.0/24",
    ];
    const HOPS: [&str; 8] = [
        "10.0.0.1", "10.0.1.1", "10.1.1.1", "10.1.2.1", "10.2.1.1", "10.2.2.1", "10.3.0.1",
        "11.0.0.1",
    ];
    for seed in 1..=400 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (mut kernel, mut resolver) = (Kernel::default(), Resolver::default());
        let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
        for _ in 0..60 {
            let prefix = PREFIXES[random.below(PREFIXES.len())];
            match random.below(5) {
                0 => {
                    kernel.foreign.remove(&net(prefix));
                    kernel.changed(&mut resolver);
                }
                1 => {
                    let metric = [0, 100, 500][random.below(3)];
                    kernel.foreign.insert(net(prefix), (metric, Vec::new()));
                    // Some have no carrier.
                    if random.below(4) > 0 {
                        kernel.add(prefix, Some("203.0.113.1"), 2 + random.below(3) as u32);
                    }
                    kernel.changed(&mut resolver);
                }
                2 => {
                    wanted.remove(prefix);
                    kernel.set(&mut resolver, prefix, None);
                }
                _ => {
                    let hop = HOPS[random.below(HOPS.len())];
                    wanted.insert(prefix, hop);
                    kernel.set(&mut resolver, prefix, Some(hop));
                }
            }
            for prefix in kernel.ours.keys() {
                assert!(!loops_in(&kernel, &resolver, *prefix), "{seed}: {prefix}");
            }
        }
        // All at once, and the other way round, comes to the same.
        for backwards in [false, true] {
            let mut other = Kernel {
                foreign: kernel.foreign.clone(),
                ..Kernel::default()
            };
            let mut at_once = Resolver::default();
            let mut all: Vec<(&str, &str)> = wanted.clone().into_iter().collect();
            if backwards {
                all.reverse();
            }
            for (prefix, hop) in all {
                other.set(&mut at_once, prefix, Some(hop));
            }
            assert_eq!(
                other.ours, kernel.ours,
                "{seed}: {wanted:?} {:?}",
                kernel.foreign
            );
        }
    }
}
