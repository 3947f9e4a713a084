use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const F: u32 = 20001;
const I: u32 = 20002;
const G: u32 = 20003;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn labels(numbers: &[u32]) -> Vec<Vni> {
    numbers.iter().map(|number| vni(*number)).collect()
}

fn service(label: u32, arms: usize) -> Service {
    let arm = |interface: &str| Arm {
        interface: format!("{interface}{label}"),
        addresses: vec![Ipv4Addr::new(169, 254, 0, 2).into()],
    };
    Service {
        name: format!("s{label}"),
        label: vni(label),
        attachment: (arms > 0).then(|| NodeAttachment {
            inside: arm("in"),
            outside: (arms > 1).then(|| arm("out")),
        }),
        on_failure: OnFailure::Closed,
        rewrites: false,
        selection: Selection::Nearest,
    }
}

fn chain(name: &str, services: &[u32], from: &[&str], to: &[&str]) -> Chain {
    let nets = |item: &[&str]| item.iter().map(|net| net.parse().unwrap()).collect();
    Chain {
        name: name.into(),
        matches: Match {
            sources: nets(from),
            destinations: nets(to),
            ..Match::default()
        },
        services: labels(services),
        symmetric: false,
    }
}

fn symmetric(chain: Chain) -> Chain {
    Chain {
        symmetric: true,
        ..chain
    }
}

fn at(label: u32, outside: bool) -> Place {
    Place::Behind {
        service: vni(label),
        outside,
    }
}

fn messages(services: &[Service], chains: &[Chain]) -> Vec<String> {
    let problems = check(services, chains).into_iter();
    problems
        .map(|problem| format!("{}: {}", problem.message, problem.help))
        .collect()
}

#[test]
fn the_place_says_the_step() {
    let services = [service(F, 2), service(I, 1)];
    let both = symmetric(chain("web", &[F, I], &["10.0.1.0/24"], &["10.0.2.0/24"]));
    let turns = turns(&services, &[both]);
    let at_entrance = &turns[&Place::Entrance];
    assert_eq!(at_entrance[0].rest, labels(&[F, I]));
    assert_eq!(at_entrance[1].rest, labels(&[I, F]));
    assert_eq!(
        at_entrance[1].matches.as_ref().unwrap().sources,
        ["10.0.2.0/24".parse().unwrap()]
    );
    // Of two arms each is passed in one direction: nothing else is looked at.
    let [outside] = &turns[&at(F, true)][..] else {
        panic!("{turns:?}")
    };
    assert_eq!(
        (outside.rest.clone(), &outside.matches),
        (labels(&[I]), &None)
    );
    let [inside] = &turns[&at(F, false)][..] else {
        panic!("{turns:?}")
    };
    assert_eq!((inside.rest.clone(), &inside.matches), (labels(&[]), &None));
    // Of one arm the conditions tell.
    let behind = &turns[&at(I, false)];
    let rests: Vec<_> = behind.iter().map(|turn| turn.rest.clone()).collect();
    assert_eq!(rests, [labels(&[]), labels(&[F])]);
    assert!(behind.iter().all(|turn| turn.matches.is_some()));
}

#[test]
fn what_cannot_be_told_is_refused_with_what_is_missing() {
    let services = [service(F, 1), service(I, 1)];
    let found = messages(&services, &[chain("a", &[F, I, F], &[], &[])]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`s20001` stands twice"), "{found:?}");
    assert!(found[0].contains("a label of its own"), "{found:?}");

    let found = messages(&services, &[symmetric(chain("a", &[F], &[], &[]))]);
    assert!(found[0].contains("directions"), "{found:?}");
    let overlapping = chain("a", &[F], &["10.0.0.0/8"], &["10.0.2.0/24"]);
    assert_eq!(messages(&services, &[symmetric(overlapping)]).len(), 1);

    let mut translating = services.clone();
    translating[0].rewrites = true;
    let two = [
        chain("a", &[F], &[], &["10.0.2.0/24"]),
        chain("b", &[F, I], &[], &[]),
    ];
    assert_eq!(messages(&services, &two), Vec::<String>::new());
    let found = messages(&translating, &two);
    assert!(
        found[0].contains("an attachment for this chain") && found[0].contains("20001"),
        "{found:?}"
    );
    let both = symmetric(chain("a", &[F, I], &["10.0.1.0/24"], &[]));
    let found = messages(&translating, std::slice::from_ref(&both));
    assert!(found[0].contains("`outside`, is missing"), "{found:?}");
    translating[0] = Service {
        rewrites: true,
        ..service(F, 2)
    };
    assert_eq!(messages(&translating, &[both]), Vec::<String>::new());
}

#[test]
fn what_a_service_has_changed_is_led_on_all_the_same() {
    let mut services = [service(F, 1), service(I, 1), service(G, 1)];
    services[0].rewrites = true;
    let from = |name, services: &[u32], net| chain(name, services, &[net], &[]);
    // Behind F nothing has the source that a chain asks for, and there is one way for all.
    let two = [
        from("a", &[F, I], "10.0.1.0/24"),
        from("b", &[F, I], "10.0.2.0/24"),
    ];
    assert_eq!(messages(&services, &two), Vec::<String>::new());
    let places = turns(&services, &two);
    for (label, rest) in [(F, &[I][..]), (I, &[])] {
        let [only] = &places[&at(label, false)][..] else {
            panic!("{places:?}")
        };
        assert_eq!((&only.matches, &only.rest), (&None, &labels(rest)));
    }
    // Behind I there are two, and what F has changed would leave without G.
    let two = [
        from("a", &[F, I, G], "10.0.1.0/24"),
        from("b", &[I], "10.0.2.0/24"),
    ];
    let found = messages(&services, &two);
    assert!(
        found[0].contains("`s20002` is behind a service that changes"),
        "{found:?}"
    );
    // With nothing left there is nothing to miss.
    let two = [
        from("a", &[F, I], "10.0.1.0/24"),
        from("b", &[I, G], "10.0.2.0/24"),
    ];
    assert_eq!(messages(&services, &two), Vec::<String>::new());
}

#[test]
fn loops_and_long_chains_are_refused() {
    let mut services = [service(F, 1), service(I, 1)];
    let two = [
        chain("a", &[F, I], &[], &["10.0.2.0/24"]),
        chain("b", &[I, F], &[], &[]),
    ];
    assert_eq!(messages(&services, &two), Vec::<String>::new());
    services[1].rewrites = true;
    let found = messages(&services, &two);
    assert!(
        found[0].starts_with("the chains make a loop: `s20002`, then `s20001`, then `s20002`"),
        "{found:?}"
    );
    let many: Vec<u32> = (1..=17).collect();
    let found = messages(&[], &[chain("long", &many, &[], &[])]);
    assert!(found[0].contains("16 at most"), "{found:?}");
}

#[test]
fn a_change_says_what_packets_on_their_way_need() {
    let services = [service(F, 1), service(I, 1), service(G, 1)];
    let change = |old: &[u32], new: &[u32]| {
        let (old, new) = (chain("a", old, &[], &[]), chain("a", new, &[], &[]));
        Change::between((&services, &[old]), (&services, &[new]))
    };
    // One more, one less: packets behind F pass what is in both.
    for (old, new) in [
        (&[F, I][..], &[F, G, I][..]),
        (&[F, I], &[F, I, G]),
        (&[F, I], &[F]),
        (&[F, I], &[G, F, I]),
    ] {
        assert!(!change(old, new).conflicts, "{old:?} to {new:?}");
    }
    // F is in no chain any more, and what is in it still has to go to I.
    let gone = change(&[F, I], &[I]);
    assert!(!gone.conflicts);
    assert_eq!(gone.keep[&at(F, false)][0].rest, labels(&[I]));
    // What is behind F by the old one would miss I.
    assert!(change(&[F, I], &[I, F]).conflicts);
    // Other packets are not concerned.
    let old = [chain("a", &[F, I], &[], &["10.0.2.0/24"])];
    let new = [chain("b", &[I, F], &[], &["10.0.3.0/24"])];
    assert!(!Change::between((&services, &old), (&services, &new)).conflicts);
    // F stays in the other chain: what comes back from it and has no chain there would leave.
    let other = chain("b", &[F], &[], &["10.0.3.0/24"]);
    let with = |labels: &[u32]| [chain("a", labels, &[], &["10.0.2.0/24"]), other.clone()];
    let (old, new) = (with(&[F, I]), with(&[I]));
    assert!(Change::between((&services, &old), (&services, &new)).conflicts);
}

/// The services with new labels: 1000 more.
fn relabelled(
    services: &[Service],
    chains: &[Chain],
    which: &BTreeSet<Vni>,
) -> (Vec<Service>, Vec<Chain>) {
    let (mut services, mut chains) = (services.to_vec(), chains.to_vec());
    let of_chains = chains.iter_mut().flat_map(|chain| &mut chain.services);
    let labels = services
        .iter_mut()
        .map(|item| &mut item.label)
        .chain(of_chains);
    for label in labels.filter(|label| which.contains(label)) {
        *label = vni(label.get() + 1000);
    }
    (services, chains)
}

#[test]
fn services_that_change_places_want_other_labels() {
    let services = [service(F, 0), service(I, 0), service(G, 0)];
    let wanted = |old: &[Chain], new: &[Chain]| {
        let found = relabel((&services, old), (&services, new));
        found.iter().map(|item| item.get()).collect::<Vec<_>>()
    };
    let simple = |old: &[u32], new: &[u32]| {
        wanted(&[chain("a", old, &[], &[])], &[chain("a", new, &[], &[])])
    };
    // One router with the old chain and one with the new: what comes and goes is passed, or dropped.
    for (old, new) in [
        (&[F, I][..], &[F, G, I][..]),
        (&[F, G, I], &[F, I]),
        (&[F, I], &[I]),
        (&[F, I], &[]),
        (&[], &[F, I]),
    ] {
        assert_eq!(simple(old, new), [0; 0], "{old:?} to {new:?}");
    }
    // The last of the one order is the first of the other.
    assert_eq!(simple(&[F, I], &[I, F]), [F, I]);
    // With other labels there is nothing more to do.
    let (old, new) = (
        [chain("a", &[F, I], &[], &[])],
        [chain("a", &[I, F], &[], &[])],
    );
    let (other, new) = relabelled(&services, &new, &labels(&[F, I]).into_iter().collect());
    assert_eq!(relabel((&services, &old), (&other, &new)), BTreeSet::new());
    // F knows those of the other chain alone, and takes what it does not know for done.
    let beside = chain("b", &[F], &[], &["10.0.3.0/24"]);
    let with = |labels: &[u32]| [chain("a", labels, &[], &["10.0.2.0/24"]), beside.clone()];
    assert_eq!(wanted(&with(&[F, I]), &with(&[I])), [F]);
    // The same order, for other packets.
    let split = |first: &[u32], second: &[u32]| {
        [
            chain("a", first, &[], &["10.0.2.0/24"]),
            chain("b", second, &[], &["10.0.3.0/24"]),
        ]
    };
    assert_eq!(
        wanted(&split(&[F, I], &[I, F]), &split(&[I, F], &[F, I])),
        [F, I]
    );
    // A third chain beside them concerns neither, nor does what never gets there.
    let two = split(&[F, I], &[I, F]);
    let three = [&two[..], &[chain("c", &[G], &[], &[])]].concat();
    assert_eq!(wanted(&two, &three), [0; 0]);
    let behind = [&[chain("all", &[F, I], &[], &[])][..], &two].concat();
    assert_eq!(wanted(&behind, &behind[..2]), [0; 0]);
}

#[test]
fn a_label_that_changes_its_service_is_a_service_that_changes_places() {
    let services = [service(F, 0), service(I, 0)];
    let mut swapped = services.clone();
    (swapped[0].label, swapped[1].label) = (vni(I), vni(F));
    let (old, new) = (
        [chain("a", &[F, I], &[], &[])],
        [chain("a", &[I, F], &[], &[])],
    );
    assert_eq!(relabel((&services, &old), (&swapped, &new)).len(), 2);
    // Also where each is alone in its chain.
    let each = |labels: [u32; 2]| {
        [
            chain("a", &labels[..1], &[], &["10.0.2.0/24"]),
            chain("b", &labels[1..], &[], &["10.0.3.0/24"]),
        ]
    };
    assert_eq!(
        relabel((&services, &each([F, I])), (&swapped, &each([I, F]))).len(),
        2
    );
    // One that takes the label that the other has given up.
    let mut taken = services.clone();
    (taken[0].label, taken[1].label) = (vni(I), vni(G));
    assert_eq!(
        relabel((&services, &each([F, I])), (&taken, &each([I, G]))),
        [vni(I)].into()
    );
    // Another name is the same service.
    let mut renamed = services.clone();
    renamed[0].name = "wall".into();
    assert_eq!(
        relabel((&services, &each([F, I])), (&renamed, &each([F, I]))),
        BTreeSet::new()
    );
}

#[test]
fn a_chain_that_turns_its_direction_waits_for_what_comes_back_by_the_arm_of_the_other() {
    let services = [service(F, 2), service(I, 2)];
    let old = [symmetric(chain(
        "a",
        &[F, I],
        &["10.0.1.0/24"],
        &["10.0.2.0/24"],
    ))];
    let new = [symmetric(chain(
        "a",
        &[I, F],
        &["10.0.2.0/24"],
        &["10.0.1.0/24"],
    ))];
    assert_eq!(
        relabel((&services, &old), (&services, &new)),
        BTreeSet::new()
    );
    assert!(Change::between((&services, &old), (&services, &new)).conflicts);
    // A second arm, and the same chains: what comes back by the first is led on.
    let (one, two) = (
        [service(F, 1), service(I, 1)],
        [service(F, 2), service(I, 1)],
    );
    let chains = [chain("a", &[F, I], &[], &[])];
    let change = Change::between((&one, &chains), (&two, &chains));
    assert_eq!(change.keep[&at(F, false)][0].rest, labels(&[I]));
}

/// Follows a packet to wherever routers with the old chains and with the new ones may lead it, and says the services that it has
/// passed where it arrives.
struct Follower<'a> {
    sides: [(&'a [Service], &'a [Chain]); 2],
    /// A router may change while its node has the packet.
    meanwhile: bool,
    flow: Flow,
    arrived: Vec<BTreeSet<String>>,
}

impl Follower<'_> {
    /// Where a router leads a packet that comes back from a service, if it knows that.
    fn next(&self, side: usize, label: Vni) -> Option<Option<Vni>> {
        self.behind(side, self.place(side, label))
    }

    fn behind(&self, side: usize, place: Place) -> Option<Option<Vni>> {
        let (services, chains) = self.sides[side];
        let places = turns(services, chains);
        Some(self.choose(places.get(&place)?))
    }

    /// Where it comes back: of two arms its direction says by which.
    fn place(&self, side: usize, label: Vni) -> Place {
        let (services, chains) = self.sides[side];
        let places = turns(services, chains);
        let entrance = places.get(&Place::Entrance).into_iter().flatten();
        let mut its = entrance.filter(|turn| {
            let matches = turn.matches.as_ref();
            turn.rest.contains(&label)
                && matches.is_none_or(|item| item.judge(&self.flow) == Verdict::Yes)
        });
        let direction = its.next().map_or(Direction::Forward, |turn| turn.direction);
        behind(services, label, direction)
    }

    fn choose(&self, turns: &[Turn]) -> Option<Vni> {
        let taken = turns.iter().find(|turn| {
            let matches = turn.matches.as_ref();
            matches.is_none_or(|item| item.judge(&self.flow) == Verdict::Yes)
        });
        taken?.rest.first().copied()
    }

    fn name(&self, label: Vni) -> String {
        let all = self.sides.iter().flat_map(|(services, _)| *services);
        all.into_iter()
            .find(|item| item.label == label)
            .unwrap()
            .name
            .clone()
    }

    fn chain(&self, side: usize) -> Vec<Vni> {
        let (services, chains) = self.sides[side];
        let places = turns(services, chains);
        let entrance = places.get(&Place::Entrance).into_iter().flatten();
        let mut turns = entrance.filter(|turn| {
            turn.matches
                .as_ref()
                .is_none_or(|item| item.judge(&self.flow) == Verdict::Yes)
        });
        turns
            .next()
            .map(|turn| turn.rest.clone())
            .unwrap_or_default()
    }

    fn go(&mut self, next: Option<Vni>, passed: &BTreeSet<String>, hops: usize) {
        let Some(label) = next else {
            self.arrived.push(passed.clone());
            return;
        };
        if hops == 9 {
            return;
        }
        let passed = &(passed | &BTreeSet::from([self.name(label)]));
        for side in [0, 1] {
            let Some(next) = self.next(side, label) else {
                continue;
            };
            self.go(next, passed, hops + 1);
            if side == 0 && self.meanwhile {
                // It is not what it was when the packet comes back: what it has no word for goes on as before, by the labels of now.
                let now = |label: Vni| {
                    let name = self.name(label);
                    let new = self.sides[1].0.iter().find(|item| item.name == name);
                    new.map_or(label, |item| item.label)
                };
                let kept = next.map(now);
                let Place::Behind { outside, .. } = self.place(0, label) else {
                    continue;
                };
                let place = Place::Behind {
                    service: now(label),
                    outside,
                };
                let next = self.behind(1, place).unwrap_or(kept);
                self.go(next, passed, hops + 1);
            }
        }
    }
}

fn any_chains() -> impl Strategy<Value = Vec<Chain>> {
    let services = prop::sample::subsequence(vec![F, I, G], 0..=3).prop_shuffle();
    let matches = prop::sample::select(vec![None, Some(1..=1), Some(2..=2), Some(1..=2)]);
    let one = (services, matches, prop::bool::weighted(0.2)).prop_map(|(services, ports, both)| {
        let mut chain = chain("", &services, &["10.0.1.0/24"], &[]);
        if let Some(ports) = ports {
            chain.matches.protocol = Some(17);
            chain.matches.destination_ports = vec![ports];
        }
        chain.symmetric = both;
        chain
    });
    let named = |chains: Vec<Chain>| {
        let named = chains.into_iter().enumerate();
        named
            .map(|(number, chain)| Chain {
                name: number.to_string(),
                ..chain
            })
            .collect()
    };
    prop::collection::vec(one, 0..=3).prop_map(named)
}

/// Whether a packet may arrive without a service that is in its old chain and in its new one.
fn misses(old: Plan<'_>, new: Plan<'_>, meanwhile: bool) -> bool {
    let ports = [1, 2, 3].into_iter();
    let ports = ports.flat_map(|one| [1, 2, 3].map(|two| (one, two)));
    let mut flows = ports.flat_map(|ports| [(1, 2), (2, 1), (1, 1)].map(|nets| (nets, ports)));
    flows.any(|((from, to), (source_port, destination_port))| {
        let mut follower = Follower {
            sides: [old, new],
            meanwhile,
            flow: Flow {
                source: Some([10, 0, from, 10].into()),
                destination: [10, 0, to, 11].into(),
                protocol: Some(17),
                source_port: Some(source_port),
                destination_port: Some(destination_port),
                dscp: 0,
            },
            arrived: Vec::new(),
        };
        let chains = [0, 1].map(|side| follower.chain(side));
        let names = |labels: &[Vni]| {
            labels
                .iter()
                .map(|item| follower.name(*item))
                .collect::<BTreeSet<_>>()
        };
        let both = &names(&chains[0]) & &names(&chains[1]);
        for chain in &chains {
            follower.go(chain.first().copied(), &BTreeSet::new(), 0);
        }
        follower
            .arrived
            .iter()
            .any(|passed| !both.is_subset(passed))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever routers have the old chains and whatever the new ones.
    #[test]
    fn nothing_misses_a_service_of_both_its_chains(old in any_chains(), new in any_chains(), arms in 0..3usize) {
        let services = [service(F, arms), service(I, arms), service(G, arms)];
        let needed = relabel((&services, &old), (&services, &new));
        if old == new {
            prop_assert!(needed.is_empty());
        }
        let (others, new) = relabelled(&services, &new, &needed);
        prop_assert_eq!(relabel((&services, &old), (&others, &new)), BTreeSet::new());
        let change = Change::between((&services, &old), (&others, &new));
        let meanwhile = arms > 0 && !change.conflicts;
        prop_assert!(!misses((&services, &old), (&others, &new), meanwhile));
    }

    /// Labels change where it is for something.
    #[test]
    fn labels_stay_where_nothing_would_be_missed(old in any_chains(), new in any_chains()) {
        let services = [service(F, 0), service(I, 0), service(G, 0)];
        let needed = relabel((&services, &old), (&services, &new));
        if !needed.is_empty() && old.len() < 2 && new.len() < 2 {
            prop_assert!(misses((&services, &old), (&services, &new), false));
        }
    }
}

#[test]
fn fragments_go_where_they_may_belong_and_nowhere_else() {
    let services = [service(F, 1), service(I, 1)];
    let with_port = |mut chain: Chain, port: u16| {
        chain.matches.protocol = Some(17);
        chain.matches.destination_ports = vec![port..=port];
        chain
    };
    let follows = |chains: &[Chain], at: usize| {
        let turns = turns(&services, chains);
        match fragments(&turns[&Place::Entrance], at) {
            Fragments::Others => None,
            Fragments::Follow { unless } => Some(unless.len()),
        }
    };
    let some = with_port(chain("some", &[F], &[], &[]), 5000);
    let past = with_port(chain("past", &[], &[], &[]), 9000);
    let all = chain("all", &[I], &[], &["10.0.2.0/24"]);
    let tcp = {
        let mut chain = chain("tcp", &[I], &[], &[]);
        chain.matches.protocol = Some(6);
        chain
    };
    // Past services nobody is led who may not belong there; through them everybody who may.
    let chains = [past, some.clone(), all, tcp];
    assert_eq!(follows(&chains, 0), None);
    // What goes to the other chain's network may be either's; TCP is not.
    assert_eq!(follows(&chains, 1), Some(1));
    // Without ports there is nothing to guess.
    assert_eq!(follows(&chains, 2), None);
    // Through the same services it does not matter which it is.
    let same = with_port(chain("same", &[F], &[], &[]), 6000);
    assert_eq!(follows(&[some, same], 0), Some(0));
}
