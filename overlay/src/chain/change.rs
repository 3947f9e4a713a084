//! From one list of chains to another while packets are on their way, and while routers are told one after the other.
//!
//! A packet may be led by the old chains at one router and by the new ones at the next. It is not to miss a service of both its
//! old chain and its new one. Where that could be, some services need other labels together with the change ([`relabel`]): a
//! router with the old chains does not know the new label then, drops what comes with it, and the other way round.
//! What is at a service node while the router that the node is attached to changes is that router's to care for ([`Change`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Chain, Direction, Match, Place, Service, Turn, behind, turns};
use crate::Vni;

/// A tenant's services, and its chains sorted by priority.
pub type Plan<'a> = (&'a [Service], &'a [Chain]);

/// What a change of chains does to packets that are on their way through this router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The old chains, by the labels that their services have now.
    pub old: Vec<Chain>,
    /// What comes next by them at each place.
    pub before: BTreeMap<Place, Vec<Turn>>,
    /// What holds of that until packets on old chains have finished them: places that the new chains say nothing of.
    pub keep: BTreeMap<Place, Vec<Turn>>,
    /// A packet that a node of this router has would miss a service of both its chains: such packets have to be through before the
    /// new chains begin.
    pub conflicts: bool,
    /// Labels of services that had another one before: what comes with them is on a new chain.
    pub relabelled: BTreeSet<Vni>,
}

impl Change {
    /// Between these.
    pub fn between(old: Plan<'_>, new: Plan<'_>) -> Self {
        let mixed = Mixed::new(old, new);
        let conflicts = mixed.conflicts();
        let Mixed {
            old, relabelled, ..
        } = mixed;
        let mut keep = old.places.clone();
        keep.retain(|place, _| *place != Place::Entrance && !mixed.new.places.contains_key(place));
        Self {
            old: old.chains,
            before: old.places,
            keep,
            conflicts,
            relabelled,
        }
    }
}

/// Labels, of those in the new chains, that have to be others before routers can be told of the change one after the other: no
/// packet misses a service of both its old chain and its new one then, whichever routers it comes by.
pub fn relabel(old: Plan<'_>, new: Plan<'_>) -> BTreeSet<Vni> {
    let taken = taken(old, new);
    if !taken.is_empty() {
        return taken;
    }
    if !may_miss(old, new) {
        return BTreeSet::new();
    }
    let mut mixed = Mixed::new(old, new);
    let before = mixed.relabelled.clone();
    while let Some(labels) = mixed.missed() {
        mixed.relabelled.extend(labels);
    }
    &mixed.relabelled - &before
}

/// Whether a packet may miss a service at all: where an old and a new way have one in common, and are not the same services in the same
/// order. Many chains have few lists of services between them.
fn may_miss(old: Plan<'_>, new: Plan<'_>) -> bool {
    let lists = |chains: &[Chain]| -> BTreeSet<(Vec<Vni>, bool)> {
        let lists = chains.iter();
        lists
            .map(|one| (one.services.clone(), one.symmetric))
            .collect()
    };
    let (before, after) = (lists(old.1), lists(new.1));
    let before = before.into_iter().map(|(services, symmetric)| {
        let services = services.iter().map(|label| label_now(*label, old.0, new.0));
        (services.collect::<Vec<Vni>>(), symmetric)
    });
    before.into_iter().any(|(before, symmetric)| {
        after.iter().any(|(after, also)| {
            let same = before == *after && !symmetric && !also;
            !same && before.iter().any(|one| after.contains(one))
        })
    })
}

/// The label that an old service has now: a service is its label, or its name where it has another label now.
fn label_now(label: Vni, old: &[Service], new: &[Service]) -> Vni {
    if new.iter().any(|one| one.label == label) {
        return label;
    }
    let before = old.iter().find(|one| one.label == label);
    let now = before.and_then(|old| new.iter().find(|one| one.name == old.name));
    now.map_or(label, |one| one.label)
}

/// Labels of new services that were another one's, which is there still, or had another one: what comes with them may be for that.
fn taken(old: Plan<'_>, new: Plan<'_>) -> BTreeSet<Vni> {
    let used =
        |label: &Vni, (_, chains): Plan<'_>| chains.iter().any(|one| one.services.contains(label));
    let labels = new.0.iter().filter(|one| {
        let before = old.0.iter().find(|before| before.label == one.label);
        before.is_some_and(|before| {
            let there = new.0.iter().any(|other| other.name == before.name);
            let had = old.0.iter().any(|other| other.name == one.name);
            before.name != one.name
                && (there || had)
                && used(&one.label, old)
                && used(&one.label, new)
        })
    });
    labels.map(|one| one.label).collect()
}

/// Who leads a packet: a router with the old chains or one with the new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Led {
    Old,
    New,
}

/// One direction of a chain.
struct Way {
    direction: Direction,
    matches: Match,
    services: Vec<Vni>,
}

/// One list of chains.
struct Side {
    chains: Vec<Chain>,
    ways: Vec<Way>,
    known: BTreeSet<Vni>,
    places: BTreeMap<Place, Vec<Turn>>,
}

impl Side {
    fn new((services, chains): Plan<'_>) -> Self {
        let ways = chains.iter().flat_map(|chain| {
            let forward = Way {
                direction: Direction::Forward,
                matches: chain.matches.clone(),
                services: chain.services.clone(),
            };
            let reverse = chain.symmetric.then(|| Way {
                direction: Direction::Reverse,
                matches: chain.matches.reversed(),
                services: chain.services.iter().rev().copied().collect(),
            });
            [forward].into_iter().chain(reverse)
        });
        Self {
            chains: chains.to_vec(),
            ways: ways.collect(),
            known: chains
                .iter()
                .flat_map(|one| &one.services)
                .copied()
                .collect(),
            places: turns(services, chains),
        }
    }

    /// An earlier one takes all packets of `matches`.
    fn takes(&self, before: usize, matches: &Match) -> bool {
        let mut earlier = self.ways[..before].iter();
        earlier.any(|way| way.matches.covers(matches))
    }

    /// What a router does with packets of a pair at a place behind a service, where the chain of theirs says nothing of it.
    fn taken_for(&self, pair: Pair<'_>, turns: &[&Turn]) -> Vec<Next> {
        // What no chain says anything of leaves; where an arm is of one turn alone, all takes that.
        let mut found = vec![None];
        for direction in [Direction::Forward, Direction::Reverse] {
            let its = turns.iter().filter(|turn| turn.direction == direction);
            let only = its.clone().count() == 1;
            let taken = its.filter(|turn| {
                let overlaps =
                    |one: &Match| one.overlaps(&pair.0.matches) && one.overlaps(&pair.1.matches);
                only || turn.matches.as_ref().is_none_or(overlaps)
            });
            found.extend(taken.map(|turn| turn.rest.first().copied()));
        }
        found
    }
}

/// A packet's way by its old chain, and the one by its new chain.
type Pair<'a> = (&'a Way, &'a Way);

/// Where a packet goes: to a service, or, with `None`, to its destination.
type Next = Option<Vni>;

/// Routers with the old chains and with the new ones beside each other.
struct Mixed {
    /// The services as they were, by their labels of now, and as they are.
    services: Vec<Service>,
    now: Vec<Service>,
    old: Side,
    new: Side,
    relabelled: BTreeSet<Vni>,
    /// Ways of packets that may have both, the old one and the new one, and the services of both.
    pairs: Vec<(usize, usize, Vec<Vni>)>,
}

impl Mixed {
    fn new((old_services, old_chains): Plan<'_>, new: Plan<'_>) -> Self {
        let now = |label: Vni| label_now(label, old_services, new.0);
        let mut relabelled = BTreeSet::new();
        let mut services = old_services.to_vec();
        for service in &mut services {
            let label = now(service.label);
            if label != service.label {
                relabelled.insert(label);
                service.label = label;
            }
        }
        let mut chains = old_chains.to_vec();
        for label in chains.iter_mut().flat_map(|chain| &mut chain.services) {
            *label = now(*label);
        }
        let now = new.0.to_vec();
        let (old, new) = (Side::new((&services, &chains)), Side::new(new));
        Self {
            services,
            now,
            pairs: pairs(&old, &new),
            old,
            new,
            relabelled,
        }
    }

    fn side(&self, led: Led) -> &Side {
        match led {
            Led::Old => &self.old,
            Led::New => &self.new,
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (Pair<'_>, &[Vni])> {
        let pairs = self.pairs.iter();
        pairs.map(|(old, new, both)| {
            (
                (&self.old.ways[*old], &self.new.ways[*new]),
                both.as_slice(),
            )
        })
    }

    /// Where a router may lead a packet that comes back from a service, if it knows that.
    fn next(&self, pair: Pair<'_>, led: Led, service: Vni) -> Vec<Next> {
        let way = match led {
            Led::Old => pair.0,
            Led::New => pair.1,
        };
        if let Some(at) = way.services.iter().position(|one| *one == service) {
            return vec![way.services.get(at + 1).copied()];
        }
        let side = self.side(led);
        if !side.known.contains(&service) {
            return Vec::new();
        }
        let here = side.places.iter().filter(
            |(place, _)| matches!(place, Place::Behind { service: one, .. } if *one == service),
        );
        let turns: Vec<&Turn> = here.flat_map(|(_, turns)| turns).collect();
        side.taken_for(pair, &turns)
    }

    /// Routers that a packet may come to with a service's label, from one that leads it so.
    fn at(&self, from: Led, service: Vni) -> impl Iterator<Item = Led> {
        let same = self.relabelled.contains(&service);
        let all = [Led::Old, Led::New].into_iter();
        all.filter(move |led| (*led == from || !same) && self.side(*led).known.contains(&service))
    }

    /// How a packet that goes so comes to its destination without `missed`: the services where routers with the old chains and
    /// with the new ones follow each other.
    fn past(
        &self,
        pair: Pair<'_>,
        missed: Vni,
        start: impl IntoIterator<Item = (Led, Next)>,
    ) -> Option<BTreeSet<Vni>> {
        // Where it is, and by way of which of those before.
        let mut seen: BTreeMap<(Vni, Led), usize> = BTreeMap::new();
        let mut steps: Vec<(Option<usize>, Option<Vni>)> = Vec::new();
        let mut open: Vec<(Option<usize>, Led, Next)> = Vec::new();
        open.extend(start.into_iter().map(|(led, next)| (None, led, next)));
        while let Some((before, from, next)) = open.pop() {
            let Some(service) = next else {
                let mut mixed = BTreeSet::new();
                let mut at = before;
                while let Some(step) = at {
                    mixed.extend(steps[step].1);
                    at = steps[step].0;
                }
                return Some(mixed);
            };
            if service == missed {
                continue;
            }
            for led in self.at(from, service) {
                if seen.contains_key(&(service, led)) {
                    continue;
                }
                let step = steps.len();
                seen.insert((service, led), step);
                steps.push((before, (led != from).then_some(service)));
                let next = self.next(pair, led, service).into_iter();
                open.extend(next.map(|next| (Some(step), led, next)));
            }
        }
        None
    }

    /// How a packet misses a service of both its chains, from where it comes in: the services where it goes from one list of
    /// chains to the other.
    fn missed(&self) -> Option<BTreeSet<Vni>> {
        let mut pairs = self.pairs();
        pairs.find_map(|(pair, both)| {
            let start = [(Led::Old, pair.0), (Led::New, pair.1)];
            let start = start.map(|(led, way)| (led, way.services.first().copied()));
            both.iter()
                .find_map(|missed| self.past(pair, *missed, start))
        })
    }

    /// A packet that a node of this router has while its chains change misses a service of both.
    fn conflicts(&self) -> bool {
        let mut pairs = self.pairs();
        pairs.any(|(pair, both)| {
            let services = pair.0.services.iter().enumerate();
            services.into_iter().any(|(at, service)| {
                let here = self.services.iter().find(|one| one.label == *service);
                if here.is_none_or(|one| one.attachment.is_none()) {
                    return false;
                }
                let passed = &pair.0.services[..=at];
                let next = self.coming_back(pair, *service).into_iter();
                let start = next.map(|next| (Led::New, next));
                let mut missed = both.iter().filter(|one| !passed.contains(one));
                missed.any(|missed| self.past(pair, *missed, start.clone()).is_some())
            })
        })
    }

    /// Where a packet goes that went to a node by the old chains and comes back to the new ones.
    fn coming_back(&self, pair: Pair<'_>, service: Vni) -> Vec<Next> {
        let place = behind(&self.services, service, pair.0.direction);
        let Some(turns) = self.new.places.get(&place) else {
            return self.next(pair, Led::Old, service);
        };
        match pair.1.services.contains(&service)
            && behind(&self.now, service, pair.1.direction) == place
        {
            true => self.next(pair, Led::New, service),
            false => self.new.taken_for(pair, &turns.iter().collect::<Vec<_>>()),
        }
    }
}

/// The old and the new way of packets that may have both, where these differ, and the services that are in both.
fn pairs(old: &Side, new: &Side) -> Vec<(usize, usize, Vec<Vni>)> {
    let mut found = Vec::new();
    for (i, before) in old.ways.iter().enumerate() {
        for (j, after) in new.ways.iter().enumerate() {
            let same = before.services == after.services && before.direction == after.direction;
            let both = before
                .services
                .iter()
                .filter(|one| after.services.contains(one));
            let both: Vec<Vni> = both.copied().collect();
            // The cheap questions first: there are many pairs.
            if same || both.is_empty() || !before.matches.overlaps(&after.matches) {
                continue;
            }
            let never = [&before.matches, &after.matches]
                .iter()
                .any(|one| old.takes(i, one) || new.takes(j, one));
            if !never {
                found.push((i, j, both));
            }
        }
    }
    found
}
