//! Chains that cannot work are refused, with what is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chain, Direction, LONGEST, Place, Service, Turn, changed_before, turns};
use crate::Vni;

/// What is wrong with a tenant's chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The chain, by its place in the list.
    pub chain: usize,
    /// What it is.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Looks whether every packet's next step can be told; says what is wrong with which chain.
pub fn check(services: &[Service], chains: &[Chain]) -> Vec<Problem> {
    let name = |label: Vni| {
        let one = services.iter().find(|service| service.label == label);
        one.map_or_else(|| format!("label {label}"), |one| format!("`{}`", one.name))
    };
    let mut problems = Vec::new();
    let mut problem = |chain, message: String, help: String| {
        problems.push(Problem {
            chain,
            message,
            help,
        });
    };
    let mut twice = false;
    for (at, chain) in chains.iter().enumerate() {
        if chain.services.len() > LONGEST {
            problem(
                at,
                format!("a chain of {} services", chain.services.len()),
                format!("a chain has {LONGEST} at most"),
            );
        }
        let mut seen = BTreeSet::new();
        for label in &chain.services {
            if !seen.insert(label) {
                twice = true;
                problem(
                    at,
                    format!("{} stands twice in the chain", name(*label)),
                    format!(
                        "what comes back from it does not say whether for the first or the second time: attach the node once more, \
                         as another service with an interface and a label of its own beside {label}"
                    ),
                );
            }
        }
        if chain.symmetric && !chain.matches.tells_direction() {
            problem(
                at,
                "nothing tells the directions of the symmetric chain apart".into(),
                "say in `match` where its packets come from or go to, and not the same for both"
                    .into(),
            );
        }
    }
    if twice {
        return problems;
    }
    if let Some(cycle) = rewriting_cycle(services, chains) {
        let names: Vec<String> = cycle.iter().map(|label| name(*label)).collect();
        let last = cycle.last().copied();
        let chain = chains
            .iter()
            .position(|one| last.is_some_and(|last| one.services.contains(&last)));
        problem(
            chain.unwrap_or_default(),
            format!("the chains make a loop: {}", names.join(", then ")),
            "a service in it changes addresses or ports, so that a packet may go from one chain into the other: give each chain an \
             attachment of its own to that service"
                .into(),
        );
        return problems;
    }
    let changed = changed_before(services, chains);
    for (place, turns) in turns(services, chains) {
        let Place::Behind { service, outside } = place else {
            continue;
        };
        let rewrites = services
            .iter()
            .any(|one| one.label == service && one.rewrites);
        // Nothing is missed where nothing is left for those that are not recognized.
        let missed = |turn: &&Turn| {
            let before = |label: &Vni| {
                services
                    .iter()
                    .any(|one| one.label == *label && one.rewrites)
            };
            turn.direction == Direction::Forward
                && turn.passed.iter().any(before)
                && !turn.rest.is_empty()
        };
        let misses = changed.contains(&service) && turns.iter().any(|turn| missed(&turn));
        if !rewrites && !misses {
            continue;
        }
        if let Some(other) = turns.iter().find(|turn| turn.rest != turns[0].rest) {
            let what = match rewrites {
                true => "changes addresses or ports",
                false => "is behind a service that changes addresses or ports",
            };
            problem(
                other.chain,
                format!(
                    "{} {what}, and stands in `{}` too, where something else comes next",
                    name(service),
                    chains[turns[0].chain].name
                ),
                missing(&turns, other, outside, service),
            );
        }
    }
    problems
}

fn missing(turns: &[Turn], other: &Turn, outside: bool, service: Vni) -> String {
    if turns[0].chain == other.chain && !outside {
        return format!(
            "nothing tells the directions apart behind it: the second arm of label {service}, `outside`, is missing"
        );
    }
    format!(
        "nothing tells the chains apart behind it: an attachment for this chain, with an interface and a label of its own beside {service}, is missing"
    )
}

/// Services that follow each other in a circle over several chains, one of which changes what the chains are told apart by.
fn rewriting_cycle(services: &[Service], chains: &[Chain]) -> Option<Vec<Vni>> {
    let mut next: BTreeMap<Vni, BTreeSet<Vni>> = BTreeMap::new();
    for chain in chains {
        for pair in chain.services.windows(2) {
            next.entry(pair[0]).or_default().insert(pair[1]);
        }
    }
    let rewriting = services.iter().filter(|service| service.rewrites);
    rewriting
        .map(|service| service.label)
        .find_map(|start| circle(&next, start))
}

/// The shortest way from a service back to itself.
fn circle(next: &BTreeMap<Vni, BTreeSet<Vni>>, start: Vni) -> Option<Vec<Vni>> {
    let mut seen = BTreeSet::from([start]);
    let mut ways = std::collections::VecDeque::from([vec![start]]);
    while let Some(way) = ways.pop_front() {
        for label in next.get(way.last()?).into_iter().flatten() {
            if *label == start {
                return Some([&way[..], &[start]].concat());
            }
            if seen.insert(*label) {
                ways.push_back([&way[..], &[*label]].concat());
            }
        }
    }
    None
}
