//! The values that configurations are made of, and lists in which each may stand once only.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_bgp_wire::{Asn, NextHop};
use weft_overlay::{Vni, VniSet, words};

use super::node::Position;
use super::reader::{At, Cursor};
use super::serial::host_bits;

pub(crate) fn number_of<T: TryFrom<u64>>(
    at: &Cursor<'_>,
    what: &str,
    from: u64,
    to: u64,
) -> Option<T> {
    // The ranges that are asked for fit their types.
    at.number(what, from..=to)?.try_into().ok()
}

pub(super) fn number(at: &Cursor<'_>, what: &str, from: u64, to: u64) -> Option<u16> {
    number_of(at, what, from, to)
}

pub(super) fn asn(at: &Cursor<'_>) -> Option<Asn> {
    if let Some(text) = at.scalar()
        && let Some(number) = other_notation(text)
    {
        at.problem(
            format!("found `{text}`, expected an AS number as one number (RFC 5396, asplain)"),
            Some(format!("write {number}")),
        );
        return None;
    }
    // 0 is reserved (RFC 7607), 2^32-1 too (RFC 7300), 23456 stands for others (RFC 6793).
    let asn = Asn(number_of(at, "an AS number", 1, u64::from(u32::MAX) - 1)?);
    match asn {
        Asn::TRANS => at.expected("an AS number, but not AS_TRANS"),
        asn => Some(asn),
    }
}

/// An AS number in asdot (RFC 5396) or with `AS` before it.
pub(crate) fn other_notation(text: &str) -> Option<u32> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let half = |text: &str| text.parse::<u16>().ok().filter(|_| digits(text));
    let bare = text.strip_prefix("AS").or_else(|| text.strip_prefix("as"));
    match (bare.unwrap_or(text).split_once('.'), bare) {
        (Some((high, low)), _) => Some(u32::from(half(high)?) << 16 | u32::from(half(low)?)),
        (None, Some(number)) => number.parse().ok().filter(|_| digits(number)),
        (None, None) => None,
    }
}

pub(super) fn hold_time(at: &Cursor<'_>) -> Option<u16> {
    match number(at, "seconds", 0, 65535)? {
        1 | 2 => at.expected("0 (no keepalives), or 3 to 65535 seconds (RFC 4271 section 4.2)"),
        seconds => Some(seconds),
    }
}

pub(super) fn vni(at: &Cursor<'_>) -> Option<Vni> {
    number_of(at, "a VNI", 1, u64::from(Vni::MAX.get())).and_then(|number| Vni::new(number).ok())
}

pub(super) fn id(at: &Cursor<'_>) -> Option<Ipv4Addr> {
    let allowed = "an id in the form of an IPv4 address, not 0.0.0.0";
    let id: Ipv4Addr = at.parse(allowed)?;
    match id.is_unspecified() {
        true => at.expected(allowed),
        false => Some(id),
    }
}

pub(super) fn address(at: &Cursor<'_>) -> Option<IpAddr> {
    at.parse("an IP address")
}

pub(super) fn unicast(at: &Cursor<'_>) -> Option<IpAddr> {
    let address = address(at)?;
    match words::is_unicast(address) {
        true => Some(address),
        false => at.expected("a unicast address"),
    }
}

/// An address that neighbours may be told to send packets to.
pub(super) fn next_hop(at: &Cursor<'_>) -> Option<IpAddr> {
    let address = address(at)?;
    let mapped = address.to_canonical() != address;
    match NextHop::from(address).is_usable() && !mapped {
        true => Some(address),
        false => at.expected("an address that packets can be sent to: no loopback, link-local, multicast or reserved one"),
    }
}

pub(super) fn prefix(at: &Cursor<'_>) -> Option<IpNet> {
    let allowed = "a prefix such as 10.0.1.0/24 or 2001:db8::/48";
    let prefix: IpNet = at.parse(allowed)?;
    match host_bits(prefix) {
        None => Some(prefix),
        Some(network) => {
            at.problem(
                format!("found `{prefix}`, which has bits set behind its length"),
                Some(format!("did you mean {network}?")),
            );
            None
        }
    }
}

pub(super) fn prefixes(at: &Cursor<'_>) -> Option<Vec<IpNet>> {
    unique_list(at, "a list of prefixes", |at| prefix(&at))
}

pub(super) fn vni_set(at: &Cursor<'_>) -> Option<VniSet> {
    if !at.is_sequence() {
        return match at.scalar() {
            Some("all") => Some(VniSet::all()),
            Some("none") => Some(VniSet::none()),
            _ => at.expected("`all`, `none`, or a list such as [10001-10002, 10005]"),
        };
    }
    let ranges = list(at, "a list", |at| vni_range(&at))?;
    Some(VniSet::from_ranges(ranges))
}

fn vni_range(at: &Cursor<'_>) -> Option<(Vni, Vni)> {
    let allowed = "a VNI or a range such as 10001-10002, within 1 to 16777214";
    let Some(text) = at.scalar() else {
        return at.expected(allowed);
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<Vni>(), last.trim().parse::<Vni>()) {
        (Ok(first), Ok(last)) if first <= last => Some((first, last)),
        (Ok(low), Ok(high)) => {
            at.problem(
                format!("found `{text}`, a range that ends before it starts"),
                Some(format!("did you mean {high}-{low}?")),
            );
            None
        }
        _ => at.expected(allowed),
    }
}

pub(super) fn name(at: &Cursor<'_>) -> Option<String> {
    let text = at.scalar().unwrap_or_default();
    match words::name(text) {
        Ok(()) => Some(text.to_owned()),
        Err(allowed) => at.expected(allowed),
    }
}

/// An interface that may be a tenant's or a service's.
pub(crate) fn interface(at: &Cursor<'_>) -> Option<String> {
    let name = at.scalar().unwrap_or_default();
    match words::interface(name) {
        Ok(()) => Some(name.to_owned()),
        Err(allowed) => at.expected(allowed),
    }
}

/// A text that says something.
pub(crate) fn text(at: &Cursor<'_>, what: &str) -> Option<String> {
    match at.scalar() {
        Some(text) if !text.is_empty() => Some(text.to_owned()),
        _ => at.expected(what),
    }
}

/// A list's items, each read by `read`.
pub(crate) fn list<'a, T>(
    at: &Cursor<'a>,
    allowed: &str,
    read: impl Fn(Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    Some(values(at.list(allowed, read)?))
}

/// The same of a list in which each may stand once only.
pub(super) fn unique_list<'a, T: Eq + Hash + Copy>(
    at: &Cursor<'a>,
    allowed: &str,
    read: impl Fn(Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = at.list(allowed, read)?;
    unique(items.iter().map(|at| (at.value, &at.at)), |_| {
        "this stands in the list for a second time".to_owned()
    });
    Some(values(items))
}

fn values<T>(items: Vec<At<'_, T>>) -> Vec<T> {
    items.into_iter().map(|at| at.value).collect()
}

pub(super) fn unique<'c, 'a: 'c, K: Eq + Hash + Copy>(
    keys: impl Iterator<Item = (K, &'c Cursor<'a>)>,
    message: impl Fn(K) -> String,
) {
    unique_of(keys.map(|(key, at)| (key, at, String::new())), message);
}

/// Reports every key that was there before, with the line and the owner of the first.
pub(super) fn unique_of<'c, 'a: 'c, K: Eq + Hash + Copy>(
    keys: impl Iterator<Item = (K, &'c Cursor<'a>, String)>,
    message: impl Fn(K) -> String,
) {
    let mut first: HashMap<K, (Position, String)> = HashMap::new();
    for (key, at, owner) in keys {
        match first.get(&key) {
            None => {
                first.insert(key, (at.position(), owner));
            }
            Some((position, owner)) => {
                let owner = match owner.as_str() {
                    "" => String::new(),
                    owner => format!(", {owner}"),
                };
                let help = format!("the first is on line {}{owner}", position.line);
                at.problem(message(key), Some(help));
            }
        }
    }
}
