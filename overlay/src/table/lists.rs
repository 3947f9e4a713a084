//! Path lists: what prefixes with the same candidates share, so that the loss of a forwarding next hop costs a change a
//! list, not one a prefix (prefix-independent convergence).
//!
//! A list is the whole input of the decision: every way with its preference. Two prefixes with one list are decided
//! alike whatever is reachable, so the decision is made once a list.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::decision::{Contender, judge};
use super::types::{Preference, Reason};
use crate::intent::{ForwardingNextHop, Group, GroupId, NextHopSet};

/// What equal ways do beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Sharing {
    /// All are used.
    Equal,
    /// All are used, and a flow stays where it is while that is there.
    Sticky,
    /// One of them is used.
    One,
}

/// A candidate, as far as the decision looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) forwarding: ForwardingNextHop,
    pub(super) preference: Preference,
    pub(super) bandwidth: u32,
    /// What equal ones do beside each other.
    pub(super) sharing: Sharing,
}

impl Contender for Way {
    fn preference(&self) -> &Preference {
        &self.preference
    }

    fn forwarding(&self) -> Option<ForwardingNextHop> {
        Some(self.forwarding)
    }
}

/// Which of a list's ways are used, by number; none where nothing is reachable.
type Used = SmallVec<[u16; 4]>;

struct PathList {
    ways: Arc<[Way]>,
    users: u32,
    used: Used,
}

struct Reach {
    metric: Option<u32>,
    /// Somebody has said how it is reached, or that it is not.
    known: bool,
    /// Lists that have a way over it.
    lists: FxHashSet<u32>,
}

/// The path lists in use, and the addresses that they lead over.
#[derive(Default)]
pub(super) struct PathLists {
    lists: Vec<Option<PathList>>,
    ids: HashMap<Arc<[Way]>, u32, FxBuildHasher>,
    free: Vec<u32>,
    /// Free as soon as whoever holds the group has been told that it is gone.
    freed: Vec<u32>,
    reach: FxHashMap<IpAddr, Reach>,
    changed: Vec<(GroupId, Option<Group>)>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
}

impl PathLists {
    /// The list of these ways, one user more. `ways` is sorted and without duplicates, and not empty.
    pub(super) fn acquire(&mut self, ways: &[Way]) -> u32 {
        if let Some(&id) = self.ids.get(ways) {
            if let Some(list) = self.get_mut(id) {
                list.users += 1;
            }
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.lists.push(None);
            (self.lists.len() - 1) as u32
        });
        self.reach_for(id, ways);
        let ways: Arc<[Way]> = ways.into();
        let used = self.resolve(&ways);
        if !used.is_empty() {
            self.changed.push((GroupId(id), Some(group(&ways, &used))));
        }
        self.ids.insert(ways.clone(), id);
        self.lists[id as usize] = Some(PathList {
            ways,
            users: 1,
            used,
        });
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: u32) {
        let Some(list) = self.get_mut(id) else { return };
        list.users -= 1;
        if list.users > 0 {
            return;
        }
        let Some(list) = self.lists[id as usize].take() else {
            return;
        };
        self.ids.remove(&list.ways);
        self.freed.push(id);
        if !list.used.is_empty() {
            self.changed.push((GroupId(id), None));
        }
        let addresses = list.ways.iter().map(|way| way.forwarding.address);
        self.forget_reach(id, addresses);
    }

    /// Makes the ways of a list others, which are not empty, where only one uses it: its group stays, and changes under its
    /// routes. False where that cannot be.
    pub(super) fn change(&mut self, id: u32, ways: &[Way]) -> bool {
        let known = self.ids.get(ways).copied();
        let Some(list) = self.get_mut(id).filter(|list| list.users == 1) else {
            return false;
        };
        if known.is_some() {
            return known == Some(id);
        }
        let after: Arc<[Way]> = ways.into();
        let before = std::mem::replace(&mut list.ways, after.clone());
        self.ids.remove(&before);
        self.ids.insert(after.clone(), id);
        self.reach_for(id, &after);
        let stays: FxHashSet<IpAddr> = after.iter().map(|way| way.forwarding.address).collect();
        let gone = before.iter().map(|way| way.forwarding.address);
        self.forget_reach(id, gone.filter(|address| !stays.contains(address)));
        let used = self.resolve(&after);
        let group = (!used.is_empty()).then(|| group(&after, &used));
        if let Some(list) = self.get_mut(id) {
            let was_usable = !std::mem::replace(&mut list.used, used).is_empty();
            if was_usable || group.is_some() {
                self.changed.push((GroupId(id), group));
            }
        }
        true
    }

    /// A list leads over the addresses of its ways.
    fn reach_for(&mut self, id: u32, ways: &[Way]) {
        for way in ways {
            let address = way.forwarding.address;
            let reach = self.reach.entry(address).or_insert_with(|| {
                self.track.push(address);
                Reach {
                    metric: None,
                    known: false,
                    lists: FxHashSet::default(),
                }
            });
            reach.lists.insert(id);
        }
    }

    /// A list leads over these addresses no more.
    fn forget_reach(&mut self, id: u32, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if let Some(reach) = self.reach.get_mut(&address) {
                reach.lists.remove(&id);
                if reach.lists.is_empty() {
                    self.reach.remove(&address);
                    self.untrack.push(address);
                }
            }
        }
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut PathList> {
        self.lists.get_mut(id as usize)?.as_mut()
    }

    /// Something of the list is reachable: routes may use it.
    pub(super) fn is_usable(&self, id: u32) -> bool {
        let list = self.lists.get(id as usize).and_then(Option::as_ref);
        list.is_some_and(|list| !list.used.is_empty())
    }

    /// How far an address is in the underlay, if it is reached at all.
    pub(super) fn metric(&self, address: IpAddr) -> Option<u32> {
        self.reach.get(&address)?.metric
    }

    fn resolve(&self, ways: &[Way]) -> Used {
        let metric = |way: &Way| {
            self.metric(way.forwarding.address)
                .ok_or(Reason::ForwardingNextHopUnreachable)
        };
        let lost = judge(ways, &metric);
        let used = (0..).zip(&lost).filter(|(_, lost)| lost.is_none());
        let most = match ways.first() {
            Some(Way {
                sharing: Sharing::One,
                ..
            }) => 1,
            _ => usize::MAX,
        };
        used.map(|(at, _)| at).take(most).collect()
    }

    /// How addresses are reached now; the lists that became usable, or are no longer.
    pub(super) fn handle_reachability(
        &mut self,
        changes: &[(IpAddr, Option<u32>)],
    ) -> FxHashSet<u32> {
        let mut affected: FxHashSet<u32> = FxHashSet::default();
        for (address, metric) in changes {
            if let Some(reach) = self.reach.get_mut(address) {
                reach.known = true;
                if std::mem::replace(&mut reach.metric, *metric) != *metric {
                    affected.extend(&reach.lists);
                }
            }
        }
        let mut affected: Vec<u32> = affected.into_iter().collect();
        affected.sort_unstable();
        let mut toggled = FxHashSet::default();
        for id in affected {
            let Some(list) = self.lists[id as usize].as_ref() else {
                continue;
            };
            let used = self.resolve(&list.ways);
            if used == list.used {
                continue;
            }
            if used.is_empty() != list.used.is_empty() {
                toggled.insert(id);
            }
            let group = (!used.is_empty()).then(|| group(&list.ways, &used));
            self.changed.push((GroupId(id), group));
            if let Some(list) = self.get_mut(id) {
                list.used = used;
            }
        }
        toggled
    }

    /// Groups that changed since the last call, the last entry of each last.
    pub(super) fn poll_groups(&mut self) -> Vec<(GroupId, Option<Group>)> {
        self.free.append(&mut self.freed);
        std::mem::take(&mut self.changed)
    }

    /// The addresses that ways lead over, with what the underlay says of them.
    pub(super) fn reached(&self) -> impl Iterator<Item = (IpAddr, Option<u32>)> {
        self.reach.iter().map(|(one, reach)| (*one, reach.metric))
    }

    /// The addresses that are known not to be reached.
    pub(super) fn unreached(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.reach.iter();
        all.filter(|(_, reach)| reach.known && reach.metric.is_none())
            .map(|(address, _)| *address)
    }

    /// The addresses that the ways of a list lead over.
    pub(super) fn addresses(&self, id: u32) -> impl Iterator<Item = IpAddr> {
        let list = self.lists.get(id as usize).and_then(Option::as_ref);
        let ways = list.map_or(&[][..], |list| &list.ways);
        ways.iter().map(|way| way.forwarding.address)
    }

    /// Addresses to resolve from now on, and those to forget.
    pub(super) fn poll_tracking(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        (
            std::mem::take(&mut self.track),
            std::mem::take(&mut self.untrack),
        )
    }
}

fn group(ways: &[Way], used: &Used) -> Group {
    let mut hops: Vec<(ForwardingNextHop, u32)> = used
        .iter()
        .map(|at| &ways[usize::from(*at)])
        .map(|way| (way.forwarding, way.bandwidth))
        .collect();
    // Of several paths to one forwarding next hop the widest says how wide it is.
    hops.sort_unstable_by_key(|(hop, bandwidth)| (*hop, std::cmp::Reverse(*bandwidth)));
    hops.dedup_by_key(|(hop, _)| *hop);
    // What decides before the underlay's metric does; MED does so only within one neighbouring AS.
    let rank = |way: &Way| {
        let Preference {
            local_pref,
            as_path_length,
            origin,
            ebgp,
            ..
        } = way.preference;
        (local_pref, as_path_length, origin, ebgp)
    };
    let differ = |a: &Way, b: &Way| a.forwarding != b.forwarding;
    Group {
        has_others: ways.iter().any(|way| differ(way, &ways[0])),
        may_share: ways.iter().enumerate().any(|(at, way)| {
            if way.sharing == Sharing::One {
                return false;
            }
            let others = &ways[at + 1..];
            others
                .iter()
                .any(|other| differ(way, other) && rank(way) == rank(other))
        }),
        sticky: ways.iter().any(|way| way.sharing == Sharing::Sticky),
        weights: weights(&hops),
        hops: NextHopSet(hops.into_iter().map(|(hop, _)| hop).collect()),
    }
}

/// Shares by bandwidth, the widest 256; none where one says nothing of it, or all say the same.
fn weights(hops: &[(ForwardingNextHop, u32)]) -> Vec<u16> {
    const MOST: u64 = 256;
    let bandwidths = || hops.iter().map(|(_, bandwidth)| *bandwidth);
    let (least, widest) = (bandwidths().min(), bandwidths().max());
    match (least, widest) {
        (Some(least), Some(widest)) if least > 0 && least < widest => bandwidths()
            .map(|bandwidth| {
                let share = u64::from(bandwidth) * MOST / u64::from(widest);
                share.clamp(1, MOST) as u16
            })
            .collect(),
        _ => Vec::new(),
    }
}
