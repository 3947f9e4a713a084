//! Chains change under packets: those on old chains finish them, or are dropped, before what holds of these goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_overlay::Vni;
use weft_overlay::chain::{Chain, Change, Place, Plan, Service, Turn, turns};

/// How long no packet begins a chain whose old and new order are at odds: longer than one takes through all services.
const HOLD: Duration = Duration::from_millis(300);
/// How many old chains are thought of.
const MOST: usize = 16;
/// How long old chains are thought of.
const KEEP: Duration = Duration::from_secs(5);

/// A tenant's old chains, while packets may be on them. Times count from when nftables has taken what follows from them.
#[derive(Default)]
pub(super) struct Drain {
    /// The latest first.
    past: Vec<Past>,
    hold: Option<Hold>,
}

/// Services and chains of before.
struct Past {
    services: Vec<Service>,
    chains: Vec<Chain>,
    /// From these to the chains of now.
    change: Change,
    until: Option<Instant>,
    /// Other routers are not served by it any more, so that its packets are through when it goes.
    closed: bool,
}

/// The latest of the old chains is in force.
struct Hold {
    until: Option<Instant>,
    /// Labels of the new chains alone.
    relabelled: BTreeSet<Vni>,
}

/// What comes next at places, and the chains that this speaks of.
#[derive(Default)]
pub(super) struct Places {
    pub(super) turns: BTreeMap<Place, Vec<Turn>>,
    pub(super) chains: Vec<Chain>,
}

impl Places {
    /// Of chains.
    pub(super) fn of(services: &[Service], chains: &[Chain]) -> Self {
        Self {
            turns: turns(services, chains),
            chains: chains.to_vec(),
        }
    }

    /// More of them, where nothing is said yet.
    fn add(&mut self, places: &BTreeMap<Place, Vec<Turn>>, chains: &[Chain]) {
        let first = self.chains.len();
        self.chains.extend(chains.iter().cloned());
        for (place, turns) in places {
            let moved = turns.iter().cloned().map(|mut turn| {
                turn.chain += first;
                turn
            });
            self.turns.entry(*place).or_insert_with(|| moved.collect());
        }
    }
}

impl Drain {
    /// From `before` to `wanted`. Says whether packets have to be held back.
    pub(super) fn change(&mut self, now: Instant, before: Plan<'_>, wanted: Plan<'_>) -> bool {
        self.advance(now);
        for past in &mut self.past {
            past.change = Change::between((&past.services, &past.chains), wanted);
        }
        // While the last change is held back no packet is on its chains.
        if self.hold.is_none() && !before.1.is_empty() {
            let past = Past {
                services: before.0.to_vec(),
                chains: before.1.to_vec(),
                change: Change::between(before, wanted),
                until: None,
                closed: false,
            };
            self.past.insert(0, past);
            self.past.truncate(MOST);
        }
        let conflicts = self.past.iter().any(|past| past.change.conflicts);
        self.hold = conflicts.then(|| Hold {
            until: None,
            relabelled: self
                .past
                .iter()
                .flat_map(|past| past.change.relabelled.clone())
                .collect(),
        });
        conflicts
    }

    /// Time goes by: says whether something else holds now.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let before = (self.past.len(), self.hold.is_some());
        self.past.retain(|past| !over(past.until));
        if self.hold.as_ref().is_some_and(|hold| over(hold.until)) {
            self.hold = None;
        }
        let mut changed = before != (self.past.len(), self.hold.is_some());
        for past in self.past.iter_mut().filter(|past| !past.closed) {
            past.closed = over(past.until.map(|until| until - HOLD));
            changed |= past.closed;
        }
        changed
    }

    /// What follows from it is in the kernel.
    pub(super) fn loaded(&mut self, now: Instant) {
        for past in &mut self.past {
            past.until.get_or_insert(now + KEEP);
        }
        if let Some(hold) = &mut self.hold {
            hold.until.get_or_insert(now + HOLD);
        }
    }

    /// When something else will hold.
    pub(super) fn next(&self) -> Option<Instant> {
        let past = self.past.iter().filter_map(|past| match past.closed {
            true => past.until,
            false => past.until.map(|until| until - HOLD),
        });
        past.chain(self.hold.as_ref().and_then(|hold| hold.until))
            .min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.past.is_empty()
    }

    /// No packet begins a chain, and none comes from other routers.
    pub(super) fn holds(&self) -> bool {
        self.hold.is_some()
    }

    /// Who is sent packets with this label leads them by the new chains, and none has begun one.
    pub(super) fn holds_back(&self, label: Vni) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.relabelled.contains(&label))
    }

    /// What is in force while packets are held back: the latest of the old chains, and what holds of those before it.
    pub(super) fn held(&self) -> Places {
        let mut places = Places::default();
        for past in &self.past {
            places.add(&past.change.before, &past.change.old);
        }
        places
    }

    /// What holds beside the chains of now at places that these say nothing of, where packets finish old chains.
    pub(super) fn kept(&self) -> Places {
        let mut places = Places::default();
        for past in self.past.iter().filter(|past| !past.change.conflicts) {
            places.add(&past.change.keep, &past.change.old);
        }
        places
    }

    /// The same, where it is too late for that: packets would go on by the new chains.
    pub(super) fn late(&self) -> Places {
        let mut places = Places::default();
        for past in self.past.iter().filter(|past| past.change.conflicts) {
            places.add(&past.change.keep, &past.change.old);
        }
        places
    }

    /// Packets come from other routers for a service that old chains alone have.
    pub(super) fn serves(&self, label: Vni) -> bool {
        let mut open = self
            .past
            .iter()
            .filter(|past| !past.closed && !past.change.conflicts);
        open.any(|past| {
            past.change
                .old
                .iter()
                .any(|chain| chain.services.contains(&label))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use weft_overlay::chain::{Arm, Match, NodeAttachment, OnFailure, Selection};

    use super::*;

    /// Services with these labels, each with a node here and a number as its name, and a chain through those of `order`.
    fn plan(labels: &[(u32, u32)], order: &[u32]) -> (Vec<Service>, Vec<Chain>) {
        let services = labels.iter().map(|(name, label)| Service {
            name: name.to_string(),
            label: Vni::new(*label).unwrap(),
            attachment: Some(NodeAttachment {
                inside: Arm {
                    interface: format!("node{name}"),
                    addresses: vec![Ipv4Addr::new(169, 254, 0, 2).into()],
                },
                outside: None,
            }),
            on_failure: OnFailure::Closed,
            rewrites: false,
            selection: Selection::Nearest,
        });
        let label = |one: &u32| labels.iter().find(|(name, _)| name == one).unwrap().1;
        let chain = Chain {
            name: "web".into(),
            matches: Match::default(),
            services: order
                .iter()
                .map(|one| Vni::new(label(one)).unwrap())
                .collect(),
            symmetric: false,
        };
        (
            services.collect(),
            Vec::from_iter((!order.is_empty()).then_some(chain)),
        )
    }

    const SAME: [(u32, u32); 3] = [(1, 1), (2, 2), (3, 3)];

    fn behind(label: u32) -> Place {
        Place::Behind {
            service: Vni::new(label).unwrap(),
            outside: false,
        }
    }

    /// Changes one behind the other.
    fn changed(drain: &mut Drain, now: Instant, plans: &[(Vec<Service>, Vec<Chain>)]) -> Vec<bool> {
        let pairs = plans.windows(2);
        pairs
            .map(|pair| drain.change(now, (&pair[0].0, &pair[0].1), (&pair[1].0, &pair[1].1)))
            .collect()
    }

    #[test]
    fn other_routers_are_served_no_more_before_what_they_have_sent_is_led_on_no_more() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        let plans = [plan(&SAME, &[1, 2, 3]), plan(&SAME, &[2, 3])];
        assert_eq!(changed(&mut drain, now, &plans), [false]);
        let first = Vni::new(1).unwrap();
        drain.loaded(now);
        let later = now + KEEP - HOLD;
        assert!(drain.serves(first) && drain.next() == Some(later));
        assert!(drain.advance(later));
        assert!(!drain.serves(first));
        assert_eq!(drain.kept().turns[&behind(1)][0].rest.len(), 2);
        assert!(drain.advance(now + KEEP) && drain.is_over());
    }

    #[test]
    fn a_hold_lasts_from_when_the_kernel_has_it_and_takes_nothing_in() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        let plans = [
            plan(&SAME, &[1, 2, 3]),
            plan(&[(1, 1), (2, 12), (3, 13)], &[3, 2]),
        ];
        assert_eq!(changed(&mut drain, now, &plans), [true]);
        // However long that takes.
        assert!(!drain.advance(now + KEEP) && drain.holds() && drain.next().is_none());
        let now = now + KEEP;
        drain.loaded(now);
        assert!(drain.holds_back(Vni::new(13).unwrap()) && !drain.serves(Vni::new(1).unwrap()));
        assert_eq!(
            drain.held().turns[&behind(12)][0].rest,
            [Vni::new(13).unwrap()]
        );
        assert!(drain.advance(now + HOLD) && !drain.holds());
        // Who comes back from the first later than that would miss one of the others.
        assert!(!drain.serves(Vni::new(1).unwrap()) && drain.kept().turns.is_empty());
        assert!(drain.late().turns.contains_key(&behind(1)));
    }

    #[test]
    fn chains_before_the_last_ones_are_thought_of() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        let orders: [&[u32]; 4] = [&[1, 2], &[2], &[], &[2, 1]];
        let plans = orders.map(|order| plan(&SAME, order));
        assert_eq!(changed(&mut drain, now, &plans), [false, false, true]);
        // Held back, and then as it was.
        let back = [plan(&SAME, &[2, 1]), plan(&SAME, &[1, 2])];
        assert_eq!(changed(&mut drain, now, &back), [false]);
    }
}
