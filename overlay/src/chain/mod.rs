//! Service chains: a tenant's packets go through services, in order, before they reach their destination.
//!
//! A service is named by a label, a VNI of its own, wherever in the network its node is. A router knows where a packet is in
//! its chain by where the packet comes from: a tenant's attachment, or the arm of a service node. [`turns`] says what
//! comes next at each of these places.

mod change;
mod check;
#[cfg(test)]
mod tests;
pub mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Serialize;

use crate::Vni;

pub use change::{Change, Plan, relabel};
pub use check::{Problem, check};

/// Most services of one chain.
pub const LONGEST: usize = 16;

/// What becomes of packets for a service whose node does not do its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They are dropped, and counted.
    #[default]
    Closed,
    /// They skip the service.
    Open,
    /// They go to the next router that has the label; dropped where there is none.
    Over,
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Over => "over",
        })
    }
}

/// Which of several routers with a service's label is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The nearest one, by the rules of BGP and then by the underlay's metric; one of several that are equally near.
    #[default]
    Nearest,
    /// All that are equally near share the flows, each flow by one of them.
    Share,
    /// The one with the lowest endpoint, from wherever: both directions of a flow meet there.
    Pinned,
}

/// One interface to a service node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Arm {
    /// Its name.
    pub interface: String,
    /// The node's addresses on its link, at most one of each family: packets of the other family do not get there.
    pub addresses: Vec<IpAddr>,
}

/// How a service node is attached to this router.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NodeAttachment {
    /// Where packets go in, and come back where there is no other arm.
    pub inside: Arm,
    /// Where they come back. In the other direction of a symmetric chain they go in here.
    pub outside: Option<Arm>,
}

impl NodeAttachment {
    /// Both arms, or the only one.
    pub fn arms(&self) -> impl Iterator<Item = &Arm> {
        [&self.inside].into_iter().chain(&self.outside)
    }
}

/// A service of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Service {
    /// Unique in the tenant.
    pub name: String,
    /// The VNI that is its label, on every router that has it.
    pub label: Vni,
    /// Where its node is attached to this router; `None` where it is elsewhere.
    pub attachment: Option<NodeAttachment>,
    /// What becomes of its packets when its node fails.
    pub on_failure: OnFailure,
    /// It changes addresses or ports: conditions do not recognize a packet behind it.
    pub rewrites: bool,
    /// Which router is taken.
    pub selection: Selection,
}

/// Which packets: all conditions that say something hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Match {
    /// One of these has the source; any where empty.
    pub sources: Vec<IpNet>,
    /// One of these has the destination; any where empty.
    pub destinations: Vec<IpNet>,
    /// IP protocol; with ports one that has ports.
    pub protocol: Option<u8>,
    /// One of these has the source port; any where empty. For fragments that do not say their ports see [`fragments`].
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The same of the destination port.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: Option<u8>,
}

impl Match {
    /// What the packets of the other direction have.
    pub fn reversed(&self) -> Self {
        Self {
            sources: self.destinations.clone(),
            destinations: self.sources.clone(),
            protocol: self.protocol,
            source_ports: self.destination_ports.clone(),
            destination_ports: self.source_ports.clone(),
            dscp: self.dscp,
        }
    }

    /// Whether a packet has all of it.
    pub fn judge(&self, flow: &Flow) -> Verdict {
        fn one<T, V>(each: &[T], value: Option<V>, has: impl Fn(&T, V) -> bool) -> Option<bool>
        where
            V: Copy,
        {
            if each.is_empty() {
                return Some(true);
            }
            let value = value?;
            Some(each.iter().any(|each| has(each, value)))
        }
        let port = |range: &RangeInclusive<u16>, port: u16| range.contains(&port);
        let exactly = |want: Option<u8>, value: Option<u8>| match want {
            None => Some(true),
            Some(want) => value.map(|value| value == want),
        };
        let asked = [
            (
                "source",
                one(&self.sources, flow.source, |net, each| net.contains(&each)),
            ),
            (
                "destination",
                one(&self.destinations, Some(flow.destination), |net, each| {
                    net.contains(&each)
                }),
            ),
            ("protocol", exactly(self.protocol, flow.protocol)),
            (
                "source port",
                one(&self.source_ports, flow.source_port, port),
            ),
            (
                "destination port",
                one(&self.destination_ports, flow.destination_port, port),
            ),
            ("code point", exactly(self.dscp, Some(flow.dscp))),
        ];
        if asked.iter().any(|(_, has)| *has == Some(false)) {
            return Verdict::No;
        }
        match asked.into_iter().find(|(_, has)| has.is_none()) {
            Some((what, _)) => Verdict::Needs(what),
            None => Verdict::Yes,
        }
    }

    /// The same without ports.
    fn without_ports(&self) -> Self {
        Self {
            source_ports: Vec::new(),
            destination_ports: Vec::new(),
            ..self.clone()
        }
    }

    /// It looks at ports.
    fn has_ports(&self) -> bool {
        !self.source_ports.is_empty() || !self.destination_ports.is_empty()
    }

    /// Packets of one direction can be told from those of the other.
    fn tells_direction(&self) -> bool {
        let (from, to) = (&self.sources, &self.destinations);
        from.is_empty() != to.is_empty()
            || (!from.is_empty() && !overlap(from, to, nets_overlap))
            || self.source_ports != self.destination_ports
    }

    /// Every packet that has the other one has this one.
    fn covers(&self, other: &Self) -> bool {
        let any = |one: Option<u8>, two: Option<u8>| one.is_none() || one == two;
        within(&other.sources, &self.sources, |each, net| {
            net.contains(each)
        }) && within(&other.destinations, &self.destinations, |each, net| {
            net.contains(each)
        }) && any(self.protocol, other.protocol)
            && any(self.dscp, other.dscp)
            && within(&other.source_ports, &self.source_ports, range_within)
            && within(
                &other.destination_ports,
                &self.destination_ports,
                range_within,
            )
    }

    /// A packet may have both.
    fn overlaps(&self, other: &Self) -> bool {
        let same = |one: Option<u8>, two: Option<u8>| one.is_none() || two.is_none() || one == two;
        overlap(&self.sources, &other.sources, nets_overlap)
            && overlap(&self.destinations, &other.destinations, nets_overlap)
            && same(self.protocol, other.protocol)
            && same(self.dscp, other.dscp)
            && overlap(&self.source_ports, &other.source_ports, ranges_overlap)
            && overlap(
                &self.destination_ports,
                &other.destination_ports,
                ranges_overlap,
            )
    }
}

fn nets_overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(two) || two.contains(one)
}

fn ranges_overlap(one: &RangeInclusive<u16>, two: &RangeInclusive<u16>) -> bool {
    one.start() <= two.end() && two.start() <= one.end()
}

fn range_within(one: &RangeInclusive<u16>, two: &RangeInclusive<u16>) -> bool {
    two.start() <= one.start() && one.end() <= two.end()
}

/// Each of `inner` is in one of `outer`; everything is in an empty one.
fn within<T>(inner: &[T], outer: &[T], is_in: fn(&T, &T) -> bool) -> bool {
    outer.is_empty()
        || (!inner.is_empty() && inner.iter().all(|a| outer.iter().any(|b| is_in(a, b))))
}

/// Something is in both; everything is in an empty one.
fn overlap<T>(one: &[T], two: &[T], touch: fn(&T, &T) -> bool) -> bool {
    one.is_empty() || two.is_empty() || one.iter().any(|a| two.iter().any(|b| touch(a, b)))
}

/// A packet, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where it comes from.
    pub source: Option<IpAddr>,
    /// Where it goes.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Of TCP, UDP or SCTP.
    pub source_port: Option<u16>,
    /// Of the same.
    pub destination_port: Option<u16>,
    /// Differentiated services code point.
    pub dscp: u8,
}

/// Whether a packet has what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// This would have to be known.
    Needs(&'static str),
}

/// A chain of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Chain {
    /// Unique in the tenant.
    pub name: String,
    /// Which packets.
    pub matches: Match,
    /// Labels of the tenant's services, in order; none leads packets past the chains behind it.
    pub services: Vec<Vni>,
    /// Packets of the other direction go the other way round.
    pub symmetric: bool,
}

/// Where a packet is when its next step is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// It came in by an attachment of its tenant.
    Entrance,
    /// It came back from a service.
    Behind {
        /// The service's label.
        service: Vni,
        /// By the outside arm of two.
        outside: bool,
    },
}

/// Which way a chain is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// As it is written.
    Forward,
    /// From its end.
    Reverse,
}

/// What comes next for some packets at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The chain, by its place in the list.
    pub chain: usize,
    /// Which way.
    pub direction: Direction,
    /// Which packets; all where the place says everything.
    pub matches: Option<Match>,
    /// Labels that they have passed.
    pub passed: Vec<Vni>,
    /// Labels that they have before them.
    pub rest: Vec<Vni>,
}

/// What becomes of fragments that do not say their ports, where a turn looks at ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// There are none for which that matters: the turn does not look at ports, or leads past all services.
    Others,
    /// They go where those go that have the ports. Those that have one of these too may belong elsewhere, and are dropped: nobody knows
    /// which services they are to pass.
    Follow {
        /// Without ports.
        unless: Vec<Match>,
    },
}

/// What becomes of the fragments of a turn at its place.
pub fn fragments(turns: &[Turn], at: usize) -> Fragments {
    let past = |turn: &Turn| turn.passed.is_empty() && turn.rest.is_empty();
    let turn = &turns[at];
    let Some(matches) = turn.matches.as_ref().filter(|each| each.has_ports()) else {
        return Fragments::Others;
    };
    if past(turn) {
        return Fragments::Others;
    }
    let own = matches.without_ports();
    let others = turns
        .iter()
        .filter(|other| other.rest != turn.rest && !past(other));
    let others = others.filter_map(|other| Some(other.matches.as_ref()?.without_ports()));
    let others: Vec<Match> = others.filter(|other| other.overlaps(&own)).collect();
    let unless = match others.iter().find(|other| other.covers(&own)) {
        // One that says all of it stands for the rest: many chains differ in ports alone.
        Some(covers) => vec![covers.clone()],
        None => joined(
            joined(others, |matches| &mut matches.destinations),
            |matches| &mut matches.sources,
        ),
    };
    Fragments::Follow { unless }
}

/// Those that differ in one list of networks alone are one with all of these networks.
fn joined(all: Vec<Match>, nets: impl Fn(&mut Match) -> &mut Vec<IpNet>) -> Vec<Match> {
    let mut by_rest: HashMap<(Match, bool), usize> = HashMap::new();
    let mut out: Vec<Match> = Vec::new();
    for mut matches in all {
        let own = std::mem::take(nets(&mut matches));
        // One without networks has them all.
        let key = (matches.clone(), own.is_empty());
        match by_rest.get(&key) {
            Some(at) => nets(&mut out[*at]).extend(own),
            None => {
                by_rest.insert(key, out.len());
                *nets(&mut matches) = own;
                out.push(matches);
            }
        }
    }
    for matches in &mut out {
        let nets = nets(matches);
        nets.sort_unstable();
        nets.dedup();
    }
    out
}

/// What comes next at each place, the first turn whose packets they are; what has no turn leaves the chain. `chains` are
/// sorted by priority.
pub fn turns(services: &[Service], chains: &[Chain]) -> BTreeMap<Place, Vec<Turn>> {
    let mut places: BTreeMap<Place, Vec<Turn>> = BTreeMap::new();
    for (number, chain) in chains.iter().enumerate() {
        let mut add = |direction, matches: &Match, labels: &[Vni]| {
            for at in 0..=labels.len() {
                let place = match at.checked_sub(1) {
                    None => Place::Entrance,
                    Some(before) => behind(services, labels[before], direction),
                };
                places.entry(place).or_default().push(Turn {
                    chain: number,
                    direction,
                    matches: Some(matches.clone()),
                    passed: labels[..at].to_vec(),
                    rest: labels[at..].to_vec(),
                });
            }
        };
        add(Direction::Forward, &chain.matches, &chain.services);
        if chain.symmetric {
            let labels: Vec<Vni> = chain.services.iter().rev().copied().collect();
            add(Direction::Reverse, &chain.matches.reversed(), &labels);
        }
    }
    let changed = changed_before(services, chains);
    for (place, turns) in &mut places {
        let Place::Behind { service, .. } = place else {
            continue;
        };
        let same = turns.iter().all(|turn| turn.rest == turns[0].rest);
        if changed.contains(service) && same {
            turns.truncate(1);
        }
        if let [only] = &mut turns[..] {
            only.matches = None;
        }
    }
    places
}

/// Services behind which packets may not have any more what their chain's conditions ask for: those that change addresses or ports,
/// and those behind them.
fn changed_before(services: &[Service], chains: &[Chain]) -> BTreeSet<Vni> {
    let rewriting = services.iter().filter(|each| each.rewrites);
    let rewriting: BTreeSet<Vni> = rewriting.map(|each| each.label).collect();
    let behind = chains.iter().flat_map(|chain| {
        let services = chain.services.iter();
        services.skip_while(|label| !rewriting.contains(label))
    });
    behind.copied().collect()
}

/// Where packets are behind a service.
fn behind(services: &[Service], label: Vni, direction: Direction) -> Place {
    let service = services.iter().find(|service| service.label == label);
    let attachment = service.and_then(|service| service.attachment.as_ref());
    let two_arms = attachment.is_some_and(|each| each.outside.is_some());
    Place::Behind {
        service: label,
        outside: two_arms && direction == Direction::Forward,
    }
}
