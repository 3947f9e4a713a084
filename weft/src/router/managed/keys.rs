//! What sessions with other routers of the domain are signed with, as the controller says it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_bgp::Password;
use weft_discovery::proto::{SessionKey, item::Item};
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

/// Why sessions are not signed, by the neighbours' addresses.
pub(super) fn unsigned(view: &View) -> HashMap<IpAddr, String> {
    let unsigned = said(view).filter(|(_, said)| !said.unsigned.is_empty());
    unsigned
        .map(|(address, said)| (address, said.unsigned.clone()))
        .collect()
}
