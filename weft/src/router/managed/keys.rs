//! What sessions with other routers of the domain are signed with, as the controller says it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_bgp::Password;
use weft_discovery::proto::{self, SessionKey, item::Item};
use weft_discovery::view::View;

use crate::router::setup::SessionKeys;

/// What is said of the session with each neighbour, with its address.
fn said(view: &View) -> impl Iterator<Item = (IpAddr, &SessionKey)> {
    view.iter().filter_map(|(key, item)| {
        let Some(Item::SessionKey(said)) = &item.item else {
            return None;
        };
        let other = format!("neighbor/{}", key.strip_prefix("key/")?);
        match &view.get(&other)?.item {
            Some(Item::Neighbor(neighbor)) => Some((neighbor.address.parse().ok()?, said)),
            _ => None,
        }
    })
}

/// Two views say the same but for keys: many of these change one behind the other.
pub(super) fn is_all_that_differs(one: &View, other: &View) -> bool {
    fn others(view: &View) -> impl Iterator<Item = (&String, &proto::Item)> {
        let is_key = |item: &proto::Item| matches!(item.item, Some(Item::SessionKey(_)));
        view.iter().filter(move |(_, item)| !is_key(item))
    }
    others(one).eq(others(other))
}

/// What is no key is none that the other end has: there is no session.
fn password(octets: &[u8]) -> Option<Password> {
    match octets.len() {
        0 => None,
        1..=80 => Some(Password::Key(octets.into())),
        length => {
            let why = format!("the controller's key has {length} octets, and one has 1 to 80");
            Some(Password::Unreadable(Arc::from(why)))
        }
    }
}

/// By the neighbours' addresses: what is in force, and what follows it.
pub(super) fn read(view: &View) -> SessionKeys {
    let keys = said(view).map(|(address, said)| {
        let both = [password(&said.key), password(&said.next)];
        (address, both)
    });
    keys.filter(|(_, both)| both.iter().any(Option::is_some))
        .collect()
}

/// The same, with those `before` of neighbours that are no more: the last that these are told is signed as before.
pub(super) fn until_gone(view: &View, before: &SessionKeys) -> SessionKeys {
    let there: HashSet<IpAddr> = view
        .values()
        .filter_map(|item| match &item.item {
            Some(Item::Neighbor(neighbor)) => neighbor.address.parse().ok(),
            _ => None,
        })
        .collect();
    let mut keys = before.clone();
    keys.retain(|address, _| !there.contains(address));
    keys.extend(read(view));
    keys
}

/// Why sessions are not signed, by the neighbours' addresses.
pub(super) fn unsigned(view: &View) -> HashMap<IpAddr, String> {
    let unsigned = said(view).filter(|(_, said)| !said.unsigned.is_empty());
    unsigned
        .map(|(address, said)| (address, said.unsigned.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_discovery::proto::Neighbor;

    use super::*;

    fn view(others: &[(&str, &str, &str)]) -> View {
        let items = others.iter().flat_map(|(name, key, unsigned)| {
            let neighbor = Item::Neighbor(Neighbor {
                address: format!("192.0.2.{}", name.len()),
                ..Neighbor::default()
            });
            let said = Item::SessionKey(SessionKey {
                key: key.as_bytes().to_vec(),
                unsigned: (*unsigned).to_owned(),
                ..SessionKey::default()
            });
            [
                (format!("neighbor/{name}"), neighbor),
                (format!("key/{name}"), said),
            ]
        });
        let items = items.map(|(key, item)| (key, proto::Item { item: Some(item) }));
        items.collect::<BTreeMap<_, _>>()
    }

    fn at(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn who_goes_is_told_so_with_the_key_that_it_had() {
        let before = read(&view(&[
            ("a", "one", ""),
            ("bb", "two", ""),
            ("ccc", "", "old"),
        ]));
        assert_eq!(before.len(), 2);
        let after = view(&[("a", "three", ""), ("ccc", "", "old")]);
        let [one, other, less] = [
            view(&[("a", "one", ""), ("ccc", "two", "")]),
            after.clone(),
            view(&[("a", "one", "")]),
        ];
        assert!(is_all_that_differs(&one, &other) && !is_all_that_differs(&one, &less));
        let until = until_gone(&after, &before);
        assert_eq!(until[&at(2)], before[&at(2)]);
        assert_eq!(until[&at(1)], [password(b"three"), None]);
        assert_eq!(read(&after).len(), 1);
        // One that stays and does not sign any more is not signed with.
        let unsigned = view(&[("a", "", "old"), ("bb", "two", "")]);
        assert!(!until_gone(&unsigned, &before).contains_key(&at(1)));
        assert_eq!(super::unsigned(&unsigned)[&at(1)], "old");
    }

    #[test]
    fn what_is_too_long_for_a_key_leaves_no_session() {
        let long = "x".repeat(81);
        let keys = read(&view(&[("a", &long, "")]));
        assert!(matches!(keys[&at(1)][0], Some(Password::Unreadable(_))));
    }
}
