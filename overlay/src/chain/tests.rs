use std::net::Ipv4Addr;

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
    let nets = |of: &[&str]| of.iter().map(|net| net.parse().unwrap()).collect();
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
