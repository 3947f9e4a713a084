//! What a reload from one configuration to another does, before it is done: by the same comparisons as the reload's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;
use weft_bgp::{NeighborConfig, Transition};

use super::hook::Classes;
use super::reload::keep_fixed;
use super::setup::{self, SessionKeys};
use crate::config::{Config, Controller, Group, Neighbor, Tenant};

/// Something that is otherwise, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// As `neighbour 192.0.2.2`.
    pub item: String,
    /// `added`, `removed`, or the keys that differ.
    pub change: String,
    /// What a reload does.
    pub effect: Effect,
    /// The same in words.
    pub says: String,
}

/// How much a change costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Effect {
    /// It is done while everything goes on.
    InPlace,
    /// A neighbour's routes are gone through again: it is asked for them, or told what differs.
    Reevaluated,
    /// A session ends, or packets of a tenant are dropped for a moment.
    Interrupts,
    /// Nothing, until the router starts anew.
    Restart,
}

fn difference(item: String, change: &str, effect: Effect, says: &str) -> Difference {
    Difference {
        item,
        change: change.to_owned(),
        effect,
        says: says.to_owned(),
    }
}

/// All that differs, in the order of the file.
pub(crate) fn differences(now: &Config, wanted: &Config) -> Vec<Difference> {
    let mut kept = wanted.clone();
    let mut all: Vec<Difference> = keep_fixed(now, &mut kept)
        .into_iter()
        .map(|section| waits(section, now, wanted))
        .collect();
    let others = [
        ("controller", controller(now) != controller(wanted)),
        ("discovery", now.discovery != wanted.discovery),
    ];
    let others = others.into_iter().filter(|(_, differs)| *differs);
    all.extend(others.map(|(section, _)| waits(section, now, wanted)));
    all.extend(of_overlay(now, &kept));
    all.extend(of_tenants(now, &kept));
    all.extend(of_groups(now, &kept));
    all.extend(of_neighbors(now, &kept));
    let networks = |config: &Config| config.networks.iter().copied().collect::<BTreeSet<_>>();
    let (before, after) = (networks(now), networks(&kept));
    for (prefixes, change, says) in [
        (&after - &before, "added", "is announced"),
        (&before - &after, "removed", "is withdrawn"),
    ] {
        let prefixes = prefixes.into_iter();
        all.extend(prefixes.map(|one| {
            let item = format!("network {one}");
            difference(item, change, Effect::InPlace, says)
        }));
    }
    all
}

/// Without the token, which nobody is shown.
fn controller(config: &Config) -> Option<Controller> {
    let controller = config.controller.clone();
    controller.map(|one| Controller { token: None, ..one })
}

fn value(one: &impl Serialize) -> Value {
    // What was read is printed.
    serde_json::to_value(one).unwrap_or_default()
}

/// Keys of two mappings whose values differ.
fn keys(before: &Value, after: &Value) -> Vec<String> {
    let names = |one: &Value| {
        one.as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let all: BTreeSet<String> = names(before);
    let all = all.union(&names(after)).cloned().collect::<Vec<String>>();
    let differs = |key: &String| before.get(key) != after.get(key);
    all.into_iter().filter(differs).collect()
}

/// A section that does not change while the router runs.
fn waits(section: &str, now: &Config, wanted: &Config) -> Difference {
    let (before, after) = (value(now), value(wanted));
    let keys = keys(&before[section], &after[section]);
    let change = match keys.is_empty() {
        true => "otherwise".to_owned(),
        false => keys.join(", "),
    };
    let says = "stays as it is until the router starts anew";
    difference(section.to_owned(), &change, Effect::Restart, says)
}

/// What of the overlay changes while the router runs.
fn of_overlay(now: &Config, kept: &Config) -> Option<Difference> {
    let (before, after) = (value(&now.overlay), value(&kept.overlay));
    let keys = keys(&before, &after);
    (!keys.is_empty()).then(|| {
        let says = "holds at once";
        difference(
            "overlay".to_owned(),
            &keys.join(", "),
            Effect::InPlace,
            says,
        )
    })
}

fn of_tenants(now: &Config, kept: &Config) -> Vec<Difference> {
    let by_name = |config: &Config| -> BTreeMap<String, Tenant> {
        let tenants = config.tenants.iter();
        tenants.map(|one| (one.name.clone(), one.clone())).collect()
    };
    let (before, after) = (by_name(now), by_name(kept));
    let mut all = Vec::new();
    for (name, old) in &before {
        let item = || format!("tenant {name}");
        let Some(new) = after.get(name) else {
            let says = "its routes are withdrawn, and its packets go nowhere";
            all.push(difference(item(), "removed", Effect::Interrupts, says));
            continue;
        };
        if new.vni != old.vni {
            let says =
                "is removed, and made anew with another table: its packets are dropped meanwhile";
            all.push(difference(item(), "vni", Effect::Interrupts, says));
            continue;
        }
        let mut keys = keys(&value(old), &value(new));
        keys.retain(|key| key != "neighbors");
        if !keys.is_empty() {
            let says = "changes while its packets go on";
            all.push(difference(item(), &keys.join(", "), Effect::InPlace, says));
        }
        let sides = [(now, old), (kept, new)].map(|(config, tenant)| {
            let made = setup::site_neighbors(config, tenant).into_iter();
            let read = tenant.neighbors.iter().map(value);
            made.zip(read)
                .map(|(made, read)| (made.address, (made, read)))
                .collect()
        });
        all.extend(of_sessions(&sides, |address| {
            format!("neighbour {address} of tenant {name}")
        }));
    }
    let new = after.keys().filter(|name| !before.contains_key(*name));
    all.extend(new.map(|name| {
        let says = "is added";
        difference(format!("tenant {name}"), "added", Effect::InPlace, says)
    }));
    all
}

fn of_groups(now: &Config, kept: &Config) -> Vec<Difference> {
    let by_name = |config: &Config| -> BTreeMap<String, Group> {
        let groups = config.groups.iter();
        groups.map(|one| (one.name.clone(), one.clone())).collect()
    };
    let mut classes = Classes::new();
    let [mut before, mut after] = [now, kept].map(|config| {
        let groups = setup::dynamic(config, &mut classes).into_iter();
        groups
            .map(|one| (one.name.to_string(), one.template))
            .collect::<BTreeMap<_, _>>()
    });
    let (old, new) = (by_name(now), by_name(kept));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut all = Vec::new();
    for name in names {
        let item = format!("group {name}");
        let sides = (old.get(name), new.get(name));
        let (change, what) = match sides {
            (Some(old), Some(new)) => {
                let keys = keys(&value(old), &value(new));
                let made = before.remove(name).zip(after.remove(name));
                let what = made.map(|(before, after)| says(before.transition(&after)));
                if keys.is_empty() && what.is_none_or(|(effect, _)| effect == Effect::InPlace) {
                    continue;
                }
                (named(keys, what.map(|(effect, _)| effect)), what)
            }
            (None, _) => ("added".to_owned(), None),
            (_, None) => {
                let gone = before.remove(name).is_some();
                let what = (
                    Effect::Interrupts,
                    "sessions with its dynamic neighbours end",
                );
                ("removed".to_owned(), gone.then_some(what))
            }
        };
        // Those that are written down are told of by themselves.
        let (effect, says) = what.unwrap_or((Effect::InPlace, "its neighbours are told of below"));
        all.push(difference(item, &change, effect, says));
    }
    all
}

fn of_neighbors(now: &Config, kept: &Config) -> Vec<Difference> {
    let mut classes = Classes::new();
    let sides = [now, kept].map(|config| {
        let made = setup::neighbors(config, &mut classes, &SessionKeys::new());
        let read = config.neighbors.iter().map(|one: &Neighbor| value(one));
        let both = made.into_iter().zip(read);
        both.map(|(made, read)| (made.address, (made, read)))
            .collect()
    });
    of_sessions(&sides, |address| format!("neighbour {address}"))
}

type Sessions = BTreeMap<IpAddr, (NeighborConfig, Value)>;

fn of_sessions(sides: &[Sessions; 2], item: impl Fn(IpAddr) -> String) -> Vec<Difference> {
    let [before, after] = sides;
    let mut all = Vec::new();
    for (address, (old, read)) in before {
        let Some((new, reads)) = after.get(address) else {
            let says = "its session ends, and its routes go";
            all.push(difference(
                item(*address),
                "removed",
                Effect::Interrupts,
                says,
            ));
            continue;
        };
        let keys = keys(read, reads);
        let (effect, says) = match (&old.shutdown, &new.shutdown) {
            (None, Some(_)) => (Effect::Interrupts, "its session ends (shutdown)"),
            (Some(_), None) => (Effect::InPlace, "its session begins"),
            _ => says(old.transition(new)),
        };
        if !keys.is_empty() || effect != Effect::InPlace {
            let change = named(keys, Some(effect));
            all.push(difference(item(*address), &change, effect, says));
        }
    }
    let new = after.keys().filter(|address| !before.contains_key(address));
    all.extend(new.map(|address| {
        difference(
            item(*address),
            "added",
            Effect::InPlace,
            "its session begins",
        )
    }));
    all
}

/// What a session goes through.
fn says(transition: Transition) -> (Effect, &'static str) {
    match transition {
        Transition { restarts: true, .. } => {
            (Effect::Interrupts, "the session ends, and begins anew")
        }
        Transition {
            refreshes: true,
            announces: true,
            ..
        } => (
            Effect::Reevaluated,
            "it is asked for its routes again, and told what differs; the session stays",
        ),
        Transition {
            refreshes: true, ..
        } => (
            Effect::Reevaluated,
            "it is asked for its routes again (route refresh); the session stays",
        ),
        Transition {
            announces: true, ..
        } => (
            Effect::Reevaluated,
            "it is told what differs; the session stays",
        ),
        _ => (Effect::InPlace, "the session stays"),
    }
}

/// The keys that differ, or what else does: policies and lists are named in a neighbour, and written elsewhere.
fn named(keys: Vec<String>, effect: Option<Effect>) -> String {
    match (keys.is_empty(), effect) {
        (true, Some(Effect::Reevaluated)) => "what its policies name".to_owned(),
        (true, _) => "what is said elsewhere".to_owned(),
        (false, _) => keys.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "
router: { name: r, router_id: 192.0.2.1, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.1 }
prefix_lists: { own: [10.0.0.0/8] }
policies:
  in: [{ match: { prefixes: own }, then: accept }]
groups:
  - { name: spokes, asn: 64710, listen: [10.9.0.0/24], import: accept, export: accept }
tenants:
  - { name: red, vni: 10001, prefixes: [10.0.1.0/24] }
  - { name: blue, vni: 10002 }
neighbors:
  - { address: 192.0.2.2, asn: 64999, import: in, export: accept }
  - { address: 192.0.2.3, asn: 64601 }
  - { address: 192.0.2.4, asn: 64601, description: old }
networks: [198.51.100.0/24]
";

    fn lines(changes: &[(&str, &str)]) -> Vec<String> {
        let read = |text: &str| Config::parse("test", text).unwrap();
        let mut text = NOW.to_owned();
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replacen(old, new, 1);
        }
        let all = differences(&read(NOW), &read(&text));
        let shown = |one: &Difference| format!("{}: {}: {:?}", one.item, one.change, one.effect);
        all.iter().map(shown).collect()
    }

    #[test]
    fn what_a_change_costs_is_said_before() {
        assert_eq!(lines(&[]), [""; 0]);
        for (change, said) in [
            (
                ("description: old", "description: new"),
                "neighbour 192.0.2.4: description: InPlace",
            ),
            (
                (
                    "192.0.2.3, asn: 64601",
                    "192.0.2.3, asn: 64601, hold_time: 9",
                ),
                "neighbour 192.0.2.3: hold_time: Interrupts",
            ),
            (
                ("own: [10.0.0.0/8]", "own: [10.0.0.0/9]"),
                "neighbour 192.0.2.2: what its policies name: Reevaluated",
            ),
            (
                ("import: in, export: accept", "import: in, export: reject"),
                "neighbour 192.0.2.2: export: Reevaluated",
            ),
            (
                (
                    "192.0.2.3, asn: 64601",
                    "192.0.2.3, asn: 64601, shutdown: true",
                ),
                "neighbour 192.0.2.3: shutdown: Interrupts",
            ),
            (
                ("asn: 64710, listen", "asn: 64710, hold_time: 9, listen"),
                "group spokes: hold_time: Interrupts",
            ),
            (
                ("export: accept }\ntenants", "export: reject }\ntenants"),
                "group spokes: export: Reevaluated",
            ),
            (("vni: 10002", "vni: 10003"), "tenant blue: vni: Interrupts"),
            (
                ("prefixes: [10.0.1.0/24]", "prefixes: [10.0.2.0/24]"),
                "tenant red: prefixes: InPlace",
            ),
            (
                ("networks: [198.51.100.0/24]", "networks: [198.51.101.0/24]"),
                "network 198.51.101.0/24: added: InPlace network 198.51.100.0/24: removed: InPlace",
            ),
            (
                (
                    "endpoint: 192.0.2.1",
                    "endpoint: 192.0.2.1, probe_interval: 5",
                ),
                "overlay: probe_interval: Restart",
            ),
            (
                (
                    "endpoint: 192.0.2.1",
                    "endpoint: 192.0.2.1, uplinks: [wan9]",
                ),
                "overlay: uplinks: InPlace",
            ),
        ] {
            assert_eq!(lines(&[change]).join(" "), said, "{change:?}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_said() {
        let said = lines(&[
            ("  - { address: 192.0.2.3, asn: 64601 }\n", ""),
            (
                "networks:",
                "  - { address: 192.0.2.9, asn: 64601 }\nnetworks:",
            ),
            (
                "  - { name: blue, vni: 10002 }\n",
                "  - { name: green, vni: 10005 }\n",
            ),
        ]);
        assert_eq!(
            said,
            [
                "tenant blue: removed: Interrupts",
                "tenant green: added: InPlace",
                "neighbour 192.0.2.3: removed: Interrupts",
                "neighbour 192.0.2.9: added: InPlace",
            ]
        );
    }
}
