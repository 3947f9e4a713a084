//! How routes of the underlay are reached: recursive next hops (RFC 4271 section 5.1.3).
//!
//! A next hop is resolved by the longest match among the routes of others, as the kernel answers for it, and our own; ours lead to
//! the next hop that they have themselves, and so on, until a route of others says by which gateways and links. A route of ours that
//! would be the best match on its own next hop's way would lead to itself: it is not installed (section 9.1.2.1). A route that only
//! *contains* its next hop is as good as any, where a more specific one leads there.
//!
//! The outcome is a function of the routes of others and ours, whatever the order in which they came. It is worked out once for each
//! distinct next hop, never once for each route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{RouteSpec, Way, underlay_metric};
use crate::ways::WaySets;

/// What the kernel says of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has no route, or one that drops or leads to the router itself.
    Nothing,
    /// A route of somebody else is the best match.
    Foreign(Match),
    /// One of ours is; what is behind it the kernel does not say while it is there.
    Ours(IpNet),
}

/// A route of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) prefix: IpNet,
    pub(crate) metric: u32,
    /// Those over links with carrier; none where there is none.
    pub(crate) ways: Vec<Way>,
}

/// What is to become of a route that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It leads here, or nowhere.
    Now(Option<RouteSpec>),
    /// [`Resolver::decide`] says, once the kernel has been asked.
    Later,
}

/// What changed for routes.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// Routes, and where they lead from now on: `None` where they are not to be installed. Sorted.
    pub(crate) changed: Vec<(IpNet, Option<RouteSpec>)>,
    /// What the kernel answered is a route of ours that is to go first: then it is to be asked again.
    pub(crate) again: bool,
}

struct Hop {
    address: IpAddr,
    routes: usize,
    answer: Option<Answer>,
    /// Where routes by it lead; `None` where it does not resolve.
    spec: Option<RouteSpec>,
    /// It has been decided on.
    known: bool,
}

/// What leads on from a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Our own route, and the number of its next hop.
    Route(IpNet, u32),
    /// A route of others.
    Foreign,
    Nothing,
    /// Not known while a route of ours is in the way.
    Hidden,
}

/// Where a way of steps ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the route of others that this next hop has.
    At(u32),
    Nothing,
    Hidden,
    /// It comes back to itself.
    Loop,
}

/// A next hop that has no route, with how many of ours wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) address: IpAddr,
    pub(crate) routes: usize,
}

/// The routes that are wanted in the underlay, and their next hops.
#[derive(Default)]
pub(crate) struct Resolver {
    routes: FxHashMap<IpNet, u32>,
    /// How many routes there are of each length, IPv4 and IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
    hops: Vec<Option<Hop>>,
    by_address: BTreeMap<IpAddr, u32>,
    free: Vec<u32>,
    /// Routes that would lead to themselves.
    loops: BTreeSet<IpNet>,
    /// Next hops that the kernel is to be asked about.
    to_ask: BTreeSet<u32>,
    /// Routes that wait for a decision.
    waiting: Vec<IpNet>,
}

fn family(address: &IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl Resolver {
    /// A route is wanted by this next hop, or no longer.
    pub(crate) fn set(&mut self, prefix: IpNet, via: Option<IpAddr>) -> Placed {
        // Whatever leads to an address leads to it without a route by itself.
        let via = via
            .map(|via| via.to_canonical())
            .filter(|via| *via != prefix.addr() || prefix.prefix_len() < prefix.max_prefix_len());
        let before = self.routes.get(&prefix).copied();
        let address_before = before.and_then(|hop| Some(self.hop(hop)?.address));
        if via == address_before {
            return match before {
                Some(_) if self.waiting.contains(&prefix) => Placed::Later,
                _ => Placed::Now(self.spec(&prefix)),
            };
        }
        let after = via.map(|via| self.take(via));
        match after {
            Some(hop) => self.routes.insert(prefix, hop),
            None => self.routes.remove(&prefix),
        };
        let count = self.lengths[family(&prefix.addr())]
            .entry(prefix.prefix_len())
            .or_default();
        match (before, after) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count -= 1,
            _ => {}
        }
        if *count == 0 {
            self.lengths[family(&prefix.addr())].remove(&prefix.prefix_len());
        }
        if let Some(before) = before {
            self.give_back(before);
        }
        // That it led to itself was said of the next hop that it had.
        self.loops.remove(&prefix);
        // What leads to next hops has changed.
        let inside: Vec<u32> = self.hops_in(&prefix).collect();
        let contested = !inside.is_empty();
        self.to_ask.extend(inside);
        let Some(after) = after else {
            return Placed::Now(None);
        };
        if contested || !self.hop(after).is_some_and(|hop| hop.known) {
            self.waiting.push(prefix);
            return Placed::Later;
        }
        Placed::Now(self.spec(&prefix))
    }

    /// The kernel may answer otherwise from now on, whatever it is asked.
    pub(crate) fn ask_all(&mut self) {
        self.to_ask.extend(self.by_address.values());
    }

    /// There is something to be decided.
    pub(crate) fn is_open(&self) -> bool {
        !self.to_ask.is_empty() || !self.waiting.is_empty()
    }

    /// What the kernel is to be asked, each to be answered with [`Resolver::answer`].
    pub(crate) fn questions(&mut self) -> Vec<(u32, IpAddr)> {
        let numbers = std::mem::take(&mut self.to_ask);
        let question = |number| Some((number, self.hop(number)?.address));
        numbers.into_iter().filter_map(question).collect()
    }

    /// What the kernel says.
    pub(crate) fn answer(&mut self, number: u32, answer: Answer) {
        if let Some(hop) = self.hop_mut(number) {
            hop.answer = Some(answer);
        }
    }

    /// Works out where every next hop leads; says which routes change.
    pub(crate) fn decide(&mut self, sets: &mut WaySets) -> Decision {
        let mut without: FxHashSet<IpNet> = FxHashSet::default();
        let mut loops = BTreeSet::new();
        // Without a route that leads nowhere or to itself others match. Each round takes away what does on its account, all at
        // once, so that the order of next hops does not matter.
        let (steps, ends) = loop {
            let steps = self.steps(&without);
            let ends = self.ends(&steps);
            let mut gone = Vec::new();
            for step in &steps {
                let Some(Step::Route(prefix, to)) = step else {
                    continue;
                };
                let on_loop = || self.leads_back(*to, *prefix, &steps);
                match steps[*to as usize] {
                    Some(Step::Nothing) => gone.push(*prefix),
                    _ if ends[*to as usize] == Some(End::Loop) && on_loop() => {
                        gone.push(*prefix);
                        loops.insert(*prefix);
                    }
                    _ => {}
                }
            }
            if gone.is_empty() {
                break (steps, ends);
            }
            without.extend(gone);
        };
        let again = steps.contains(&Some(Step::Hidden));
        let mut changed = FxHashSet::default();
        for (number, end) in (0..).zip(ends) {
            let spec = match end {
                // Told when it is known; until then everything stays.
                None | Some(End::Hidden) => continue,
                Some(End::At(last)) => self.spec_at(last, sets),
                Some(End::Nothing | End::Loop) => None,
            };
            if let Some(hop) = self.hop_mut(number) {
                let known = std::mem::replace(&mut hop.known, true);
                if std::mem::replace(&mut hop.spec, spec) != spec && known {
                    changed.insert(number);
                }
            }
        }
        let before = std::mem::replace(&mut self.loops, loops);
        let mut prefixes: BTreeSet<IpNet> = before
            .symmetric_difference(&self.loops)
            .filter(|prefix| self.routes.contains_key(prefix))
            .copied()
            .collect();
        if !changed.is_empty() {
            let by_changed = self.routes.iter().filter(|(_, hop)| changed.contains(hop));
            prefixes.extend(by_changed.map(|(prefix, _)| *prefix));
        }
        let (decided, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(|prefix| self.routes.contains_key(prefix))
            .partition(|prefix| {
                let hop = self.routes.get(prefix).and_then(|hop| self.hop(*hop));
                hop.is_some_and(|hop| hop.known)
            });
        self.waiting = waiting;
        let decided: Vec<IpNet> = decided;
        prefixes.extend(decided);
        // Those whose answer was in the way.
        if again {
            let hidden = (0..).zip(&steps);
            let hidden = hidden.filter(|(_, step)| **step == Some(Step::Hidden));
            self.to_ask.extend(hidden.map(|(number, _)| number));
        }
        Decision {
            changed: prefixes
                .into_iter()
                .map(|prefix| (prefix, self.spec(&prefix)))
                .collect(),
            again,
        }
    }

    /// Where a route leads; `None` where it is not wanted, or not to be installed.
    pub(crate) fn spec(&self, prefix: &IpNet) -> Option<RouteSpec> {
        if self.loops.contains(prefix) {
            return None;
        }
        let hop = self.hop(*self.routes.get(prefix)?)?;
        // An IPv6 packet has no way to an IPv4 gateway.
        let crosses = prefix.addr().is_ipv6() && hop.address.is_ipv4();
        hop.spec.filter(|_| !crosses)
    }

    /// This prefix is wanted, if not installed.
    pub(crate) fn is_wanted(&self, prefix: &IpNet) -> bool {
        self.routes.contains_key(prefix)
    }

    /// The routes that would lead to themselves, in order.
    pub(crate) fn loops(&self) -> impl Iterator<Item = IpNet> {
        self.loops.iter().copied()
    }

    /// The next hops that lead nowhere, in order.
    pub(crate) fn unresolved(&self) -> impl Iterator<Item = Unresolved> {
        let hops = self.by_address.values().filter_map(|hop| self.hop(*hop));
        hops.filter(|hop| hop.known && hop.spec.is_none())
            .map(|hop| Unresolved {
                address: hop.address,
                routes: hop.routes,
            })
    }

    fn hop(&self, number: u32) -> Option<&Hop> {
        self.hops.get(number as usize)?.as_ref()
    }

    fn hop_mut(&mut self, number: u32) -> Option<&mut Hop> {
        self.hops.get_mut(number as usize)?.as_mut()
    }

    /// The number of a next hop, one route more.
    fn take(&mut self, address: IpAddr) -> u32 {
        if let Some(number) = self.by_address.get(&address).copied() {
            if let Some(hop) = self.hop_mut(number) {
                hop.routes += 1;
            }
            return number;
        }
        let hop = Hop {
            address,
            routes: 1,
            answer: None,
            spec: None,
            known: false,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.hops.push(None);
            (self.hops.len() - 1) as u32
        });
        self.hops[number as usize] = Some(hop);
        self.by_address.insert(address, number);
        self.to_ask.insert(number);
        number
    }

    fn give_back(&mut self, number: u32) {
        let Some(hop) = self.hop_mut(number) else {
            return;
        };
        hop.routes -= 1;
        if hop.routes == 0 {
            let address = hop.address;
            self.hops[number as usize] = None;
            self.by_address.remove(&address);
            self.to_ask.remove(&number);
            self.free.push(number);
        }
    }

    fn hops_in(&self, prefix: &IpNet) -> impl Iterator<Item = u32> {
        let inside = self.by_address.range(prefix.network()..=prefix.broadcast());
        inside.map(|(_, number)| *number)
    }

    /// The longest match among our own routes, without some.
    fn best(&self, address: IpAddr, without: &FxHashSet<IpNet>) -> Option<(IpNet, u32)> {
        let lengths = self.lengths[family(&address)].keys().rev();
        lengths
            .filter_map(|length| {
                let prefix = IpNet::new(address, *length).ok()?.trunc();
                Some((prefix, *self.routes.get(&prefix)?))
            })
            .find(|(prefix, _)| !without.contains(prefix))
    }

    /// What leads on from each next hop, by number.
    fn steps(&self, without: &FxHashSet<IpNet>) -> Vec<Option<Step>> {
        let step = |hop: &Hop| {
            let ours = self.best(hop.address, without);
            let step = ours.map(|(prefix, to)| Step::Route(prefix, to));
            let length = ours.map(|(prefix, _)| prefix.prefix_len());
            match hop.answer.as_ref()? {
                Answer::Nothing => Some(step.unwrap_or(Step::Nothing)),
                Answer::Ours(installed) if length < Some(installed.prefix_len()) => {
                    Some(Step::Hidden)
                }
                Answer::Ours(_) => step,
                Answer::Foreign(one) => {
                    let goes_first = |(prefix, _): &(IpNet, u32)| {
                        let (ours, theirs) = (prefix.prefix_len(), one.prefix.prefix_len());
                        ours > theirs || (ours == theirs && underlay_metric(prefix) < one.metric)
                    };
                    Some(
                        match step.filter(|_| ours.as_ref().is_some_and(goes_first)) {
                            Some(step) => step,
                            None if one.ways.is_empty() => Step::Nothing,
                            None => Step::Foreign,
                        },
                    )
                }
            }
        };
        let hops = self.hops.iter();
        hops.map(|hop| hop.as_ref().and_then(step)).collect()
    }

    /// Where the steps from each next hop end; `None` where nothing is known of it yet.
    fn ends(&self, steps: &[Option<Step>]) -> Vec<Option<End>> {
        let mut ends: Vec<Option<End>> = vec![None; steps.len()];
        // The walk that a next hop was last seen on.
        let mut seen: Vec<usize> = vec![usize::MAX; steps.len()];
        let mut walk = Vec::new();
        for start in 0..steps.len() {
            let mut at = start;
            walk.clear();
            let end = loop {
                if ends[at].is_some() {
                    break ends[at];
                }
                if seen[at] == start {
                    break Some(End::Loop);
                }
                seen[at] = start;
                walk.push(at);
                match steps[at] {
                    None if at == start => break None,
                    None | Some(Step::Hidden) => break Some(End::Hidden),
                    Some(Step::Nothing) => break Some(End::Nothing),
                    Some(Step::Foreign) => break Some(End::At(at as u32)),
                    Some(Step::Route(_, to)) => at = to as usize,
                }
            };
            for at in walk.drain(..) {
                ends[at] = end;
            }
        }
        ends
    }

    /// The steps from a next hop come by this route again: it is part of a loop, and does not only lead into one.
    fn leads_back(&self, from: u32, by: IpNet, steps: &[Option<Step>]) -> bool {
        let mut at = from;
        for _ in 0..=steps.len() {
            let Some(Step::Route(prefix, to)) = steps[at as usize] else {
                return false;
            };
            if prefix == by {
                return true;
            }
            at = to;
        }
        false
    }

    /// Where routes lead by a next hop that is reached as `last` is.
    fn spec_at(&self, last: u32, sets: &mut WaySets) -> Option<RouteSpec> {
        let hop = self.hop(last)?;
        let Some(Answer::Foreign(one)) = &hop.answer else {
            return None;
        };
        // What is on the link itself is its own gateway.
        let with_gateway = |way: &Way| Way {
            gateway: way.gateway.or(Some(hop.address)),
            ..*way
        };
        let ways: Vec<Way> = one.ways.iter().map(with_gateway).collect();
        let (first, several) = (ways.first().copied()?, ways.len() > 1);
        if several && let Some(set) = sets.number(ways) {
            return Some(RouteSpec::Ways(set));
        }
        let (gateway, interface) = (first.gateway?, first.interface);
        Some(if first.onlink {
            RouteSpec::OnLink { gateway, interface }
        } else {
            RouteSpec::Via {
                gateway,
                interface: Some(interface),
            }
        })
    }
}

#[cfg(test)]
mod tests;
