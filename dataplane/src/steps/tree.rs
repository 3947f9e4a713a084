//! Which of many rules can be a packet's: a tree of look-ups whose leaves are short lists.
//!
//! The first rule that matches decides, in the tree as in the list. Where a list is long it is split by the field that leaves the
//! shortest ones: the values of that field fall into disjoint intervals, and each interval has the rules, in their order, that a packet
//! in it may match. nftables looks an interval up in logarithmic time (a verdict map), so that a packet passes a few look-ups and a few
//! rules however many chains there are. (The idea of HiCuts, Gupta and McKeown 1999, with intervals as the rules have them.)

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use weft_overlay::chain::{Fragments, Match};

use super::StepRule;
use crate::model::Family;

/// A list that is no longer is not split.
const SHORT: usize = 8;
/// Look-ups behind one another at most; nftables lets 16 chains follow one another.
const DEPTH: usize = 4;
/// Lines in all lists of a tree: so many, and so many for each rule. They are shared out among the lists that one is split into. nft
/// takes a tenth of a millisecond for each.
const COPIES: (usize, usize) = (1024, 8);
/// Lines of all intervals of one look-up, for each line of the list that is split.
const COPIES_AT_ONCE: usize = 4;

/// What packets are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Destination,
    Source,
    DestinationPort,
    SourcePort,
}

impl Field {
    const ALL: [Self; 4] = [
        Self::Destination,
        Self::Source,
        Self::DestinationPort,
        Self::SourcePort,
    ];

    fn is_port(self) -> bool {
        matches!(self, Self::DestinationPort | Self::SourcePort)
    }

    /// Of which packets the intervals are, and what is in none of them, of a list that is split.
    fn parts(self, part: Part) -> (Part, Part) {
        match self.is_port() {
            true => (Part::WithPorts, Part::WithoutPorts),
            false => (part, part),
        }
    }
}

/// Of which packets a part of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    All,
    /// Those that say ports.
    WithPorts,
    /// Those that do not: later fragments, and protocols without.
    WithoutPorts,
}

/// An interval of a field's values, both ends included.
pub(super) type Interval = (u128, u128);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Rules, one after the other, by their places in the list.
    List(Vec<usize>),
    Split {
        field: Field,
        /// Disjoint, in order.
        ways: Vec<(Interval, usize)>,
        /// Where packets go that are in none.
        rest: usize,
    },
}

/// The tree for one family. Nodes come after those that they lead to.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<(Node, Part)>,
    pub(super) root: usize,
}

impl Tree {
    pub(super) fn new(rules: &[StepRule], family: Family) -> Self {
        let bounds = rules.iter().map(|rule| Bounds::new(rule, family)).collect();
        let (some, each) = COPIES;
        let mut growing = Growing {
            bounds,
            known: BTreeMap::new(),
            nodes: Vec::new(),
        };
        let all = (0..rules.len()).collect();
        let budget = some + each * rules.len();
        let root = growing.grow(all, Part::All, DEPTH, budget);
        Self {
            nodes: growing.nodes,
            root,
        }
    }
}

/// What a packet needs to match a rule: intervals by field, none where any value will do.
struct Bounds {
    /// No packet of the family matches.
    never: bool,
    fields: [Option<Vec<Interval>>; 4],
    /// Lines that say what becomes of later fragments.
    fragments: usize,
}

impl Bounds {
    fn new(rule: &StepRule, family: Family) -> Self {
        let mut bounds = Self {
            never: false,
            fields: [const { None }; 4],
            fragments: match &rule.fragments {
                Fragments::Follow { unless } => unless.len() + 1,
                Fragments::Others => 0,
            },
        };
        let Some(matches) = &rule.matches else {
            return bounds;
        };
        let Match {
            sources,
            destinations,
            source_ports,
            destination_ports,
            ..
        } = matches;
        for (field, nets) in [(Field::Destination, destinations), (Field::Source, sources)] {
            let of_family = nets.iter().filter(|net| Family::of(**net) == family);
            let found: Vec<Interval> = of_family.map(|net| net_interval(*net)).collect();
            bounds.never |= found.is_empty() && !nets.is_empty();
            bounds.fields[field as usize] = (!found.is_empty()).then_some(found);
        }
        for (field, ranges) in [
            (Field::DestinationPort, destination_ports),
            (Field::SourcePort, source_ports),
        ] {
            let found: Vec<Interval> = ranges.iter().map(port_interval).collect();
            bounds.fields[field as usize] = (!found.is_empty()).then_some(found);
        }
        bounds
    }

    fn has_ports(&self) -> bool {
        let mut fields = Field::ALL.into_iter().filter(|field| field.is_port());
        fields.any(|field| self.fields[field as usize].is_some())
    }

    /// Lines in a list of this part; none where packets of the part do not match.
    fn lines(&self, part: Part) -> usize {
        match part {
            _ if self.never => 0,
            Part::All => 1 + self.fragments,
            Part::WithPorts => 1,
            Part::WithoutPorts => usize::from(!self.has_ports()) + self.fragments,
        }
    }
}

fn net_interval(net: IpNet) -> Interval {
    (number(net.network()), number(net.broadcast()))
}

fn port_interval(range: &RangeInclusive<u16>) -> Interval {
    ((*range.start()).into(), (*range.end()).into())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A list, split by a field.
struct Cut {
    /// Intervals, each with the rules that ask for it; once [`Cut::within`] a budget with those that ask nothing of the field, too.
    ways: Vec<(Interval, Vec<usize>)>,
    /// Those that ask nothing of the field.
    rest: Vec<usize>,
}

impl Cut {
    fn longest(&self) -> usize {
        let ways = self.ways.iter().map(|(_, rules)| rules.len());
        ways.max().unwrap_or(0).max(self.rest.len())
    }

    /// Lines of all intervals, where a rule has so many.
    fn copies(&self, lines: impl Fn(&usize) -> usize) -> usize {
        let rules = self.ways.iter().flat_map(|(_, rules)| rules);
        rules.map(lines).sum()
    }

    /// With neighbouring intervals made one where all of them would have more than `most` lines.
    fn within(self, most: usize, lines: impl Fn(&usize) -> usize) -> Option<Self> {
        let Self { ways, rest } = self;
        let rest_lines: usize = rest.iter().map(&lines).sum();
        let mut least = 1;
        loop {
            let mut merged: Vec<(Interval, BTreeSet<usize>)> = Vec::new();
            for ((low, high), rules) in &ways {
                match merged.last_mut() {
                    // What is between them asks nothing of the field: it may go where they go.
                    Some(((_, before), own)) if own.len() < least || own.iter().eq(rules) => {
                        *before = *high;
                        own.extend(rules);
                    }
                    _ => merged.push(((*low, *high), rules.iter().copied().collect())),
                }
            }
            let copies = merged.iter();
            let copies =
                copies.map(|(_, rules)| rules.iter().map(&lines).sum::<usize>() + rest_lines);
            if copies.sum::<usize>() <= most {
                let with_rest = merged.into_iter().map(|(interval, mut rules)| {
                    rules.extend(&rest);
                    (interval, rules.into_iter().collect())
                });
                let ways = with_rest.collect();
                return Some(Self { ways, rest });
            }
            if merged.len() <= 1 {
                return None;
            }
            least *= 2;
        }
    }
}

struct Growing {
    bounds: Vec<Bounds>,
    /// Nodes of the same rules are one.
    known: BTreeMap<(Vec<usize>, Part), usize>,
    nodes: Vec<(Node, Part)>,
}

impl Growing {
    /// The node for a list, with `depth` look-ups and `budget` lines in all of its lists at most.
    fn grow(&mut self, mut list: Vec<usize>, part: Part, depth: usize, budget: usize) -> usize {
        list.retain(|rule| self.bounds[*rule].lines(part) > 0);
        let key = (list, part);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let (list, part) = &key;
        let node = match self.best(list, *part, depth, budget) {
            None => Node::List(list.clone()),
            Some((field, cut)) => {
                let (ways, rest) = field.parts(*part);
                let copies = cut.copies(|rule| self.bounds[*rule].lines(ways)).max(1);
                let without = match field.is_port() {
                    true if *part == Part::WithPorts => Vec::new(),
                    true => list.clone(),
                    false => cut.rest,
                };
                let mut grow = |list: Vec<usize>, part| {
                    let lines: usize = list.iter().map(|rule| self.bounds[*rule].lines(part)).sum();
                    let share = budget * lines / copies;
                    self.grow(list, part, depth - 1, share)
                };
                let cuts = cut.ways.into_iter();
                let ways = cuts.map(|(interval, rules)| (interval, grow(rules, ways)));
                let ways = ways.collect();
                let rest = grow(without, rest);
                Node::Split { field, ways, rest }
            }
        };
        self.nodes.push((node, *part));
        let at = self.nodes.len() - 1;
        self.known.insert(key, at);
        at
    }

    /// The field that leaves the shortest lists, where that is worth a look-up.
    fn best(
        &self,
        list: &[usize],
        part: Part,
        depth: usize,
        budget: usize,
    ) -> Option<(Field, Cut)> {
        if list.len() <= SHORT || depth == 0 {
            return None;
        }
        let lines = |part| move |rule: &usize| self.bounds[*rule].lines(part);
        let most = budget.min(COPIES_AT_ONCE * list.iter().map(lines(part)).sum::<usize>());
        let fields = Field::ALL.into_iter();
        let fields = fields.filter(|field| part != Part::WithoutPorts || !field.is_port());
        let cuts = fields.filter_map(|field| {
            let lines = lines(field.parts(part).0);
            let cut = self.cut(list, field)?.within(most, lines)?;
            let key = (cut.longest(), cut.copies(lines));
            Some((field, cut, key))
        });
        let (field, cut, _) = cuts.min_by_key(|(.., key)| *key)?;
        // Half as long again is no gain.
        (cut.longest() * 4 <= list.len() * 3).then_some((field, cut))
    }

    fn cut(&self, list: &[usize], field: Field) -> Option<Cut> {
        let asked = |rule: &usize| self.bounds[*rule].fields[field as usize].as_ref();
        // Where rules begin and end to apply; the end is the first value behind.
        let mut edges: BTreeMap<u128, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for rule in list {
            for (low, high) in asked(rule).into_iter().flatten() {
                edges.entry(*low).or_default().0.push(*rule);
                if let Some(behind) = high.checked_add(1) {
                    edges.entry(behind).or_default().1.push(*rule);
                }
            }
        }
        if edges.is_empty() {
            return None;
        }
        let most = match field.is_port() {
            // What says a port is in one of the intervals, so that what is in none says no port.
            true => {
                edges.entry(0).or_default();
                u128::from(u16::MAX)
            }
            false => u128::MAX,
        };
        let rest = list.iter().filter(|rule| asked(rule).is_none());
        let rest: Vec<usize> = rest.copied().collect();
        let starts: Vec<u128> = edges.keys().copied().collect();
        // A rule may have intervals that overlap: how many of them apply.
        let mut apply: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ways: Vec<(Interval, Vec<usize>)> = Vec::new();
        for (at, (low, (begin, end))) in edges.into_iter().enumerate() {
            for rule in begin {
                *apply.entry(rule).or_default() += 1;
            }
            for rule in end {
                if let Some(count) = apply.get_mut(&rule) {
                    *count -= 1;
                    if *count == 0 {
                        apply.remove(&rule);
                    }
                }
            }
            let high = starts.get(at + 1).map_or(most, |next| next - 1);
            if low > most || apply.is_empty() && !field.is_port() {
                continue;
            }
            ways.push(((low, high), apply.keys().copied().collect()));
        }
        Some(Cut { ways, rest })
    }
}

#[cfg(test)]
mod tests;
