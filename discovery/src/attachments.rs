//! What a tenant has at a router, and what of it can be: as the router itself takes it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weft_overlay::words;

use crate::database::Rejection;
use crate::operations::Done;

/// A tenant's own router at a site, which tells what the site has and is told what the overlay knows for the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteNeighbor {
    /// Where it is, on the link of one of the tenant's interfaces.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its AS number, which is not the domain's.
    pub asn: u32,
    /// Put the domain's AS in the place of its AS in what it is told, so that several sites may have one AS number.
    #[serde(default)]
    pub as_override: bool,
    /// For humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Hops to it, 1 for one on the link; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Prefixes of one family that it may announce; 100,000 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
}

/// A tenant's way to the Internet past the overlay, at a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Breakout {
    /// The interface that packets leave by.
    pub interface: String,
    /// Put the interface's address in the place of their source.
    #[serde(default = "yes")]
    pub source_nat: bool,
}

fn yes() -> bool {
    true
}

/// What a tenant has at a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    /// Interfaces where the tenant's packets enter.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Prefixes that the tenant announces there.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
    /// Kernel routes that it announces there: `connected`, `static`, or a protocol by name or number.
    #[serde(default)]
    pub redistribute: Vec<String>,
    /// Its own routers there.
    #[serde(default)]
    pub neighbors: Vec<SiteNeighbor>,
    /// Its way to the Internet past the overlay: an operator's to give.
    #[serde(default)]
    pub breakout: Option<Breakout>,
}

/// What is found in a field, and what is allowed there.
pub(crate) fn unfit(
    field: impl Into<String>,
    found: impl std::fmt::Display,
    allowed: impl std::fmt::Display,
) -> Rejection {
    Rejection::Field {
        field: field.into(),
        detail: format!("found `{found}`, expected {allowed}"),
    }
}

pub(crate) fn twice(field: String, found: impl std::fmt::Display) -> Rejection {
    Rejection::Field {
        field,
        detail: format!("`{found}` stands in the list for a second time"),
    }
}

/// An interface that a tenant or a service may have.
pub(crate) fn check_interface(field: impl Into<String>, interface: &str) -> Done<()> {
    words::interface(interface).map_err(|allowed| unfit(field, interface, allowed))
}

/// Prefixes without bits behind their length, each once.
pub(crate) fn check_prefixes(field: &str, prefixes: &[IpNet]) -> Done<()> {
    let mut seen = BTreeSet::new();
    for (at, prefix) in prefixes.iter().enumerate() {
        let network = prefix.trunc();
        if network != *prefix {
            return Err(Rejection::Field {
                field: format!("{field}[{at}]"),
                detail: format!("{prefix} has bits behind its length: {network}"),
            });
        }
        if !seen.insert(*prefix) {
            return Err(twice(format!("{field}[{at}]"), prefix));
        }
    }
    Ok(())
}

/// An address that one host has.
pub(crate) fn check_unicast(field: impl Into<String>, address: IpAddr) -> Done<()> {
    match words::is_unicast(address) {
        true => Ok(()),
        false => Err(unfit(field, address, "a unicast address")),
    }
}

/// An AS number that somebody can have: 0 is reserved (RFC 7607), 2^32-1 too (RFC 7300), 23456 stands for others (RFC 6793).
pub(crate) fn check_asn(field: impl Into<String>, asn: u32) -> Done<()> {
    match asn {
        0 | 23_456 | u32::MAX => Err(unfit(
            field,
            asn,
            "an AS number, 1 to 4294967294, but not AS_TRANS",
        )),
        _ => Ok(()),
    }
}

impl NewAttachment {
    /// Whether a router of a domain with this AS number can have it.
    ///
    /// # Errors
    /// [`Rejection::Field`]: which field is wrong, and how.
    pub fn check(&self, asn: u32) -> Done<()> {
        let mut seen = BTreeSet::new();
        for (at, interface) in self.interfaces.iter().enumerate() {
            let field = format!("interfaces[{at}]");
            check_interface(&field, interface)?;
            if !seen.insert(interface) {
                return Err(twice(field, interface));
            }
        }
        check_prefixes("prefixes", &self.prefixes)?;
        let mut seen = BTreeSet::new();
        for (at, word) in self.redistribute.iter().enumerate() {
            let field = format!("redistribute[{at}]");
            // By any name it stands there once.
            let kind = match word.as_str() {
                "connected" => -2,
                "static" => -1,
                word => match words::route_protocol(word) {
                    Some(number) => i32::from(number),
                    None => return Err(unfit(field, word, words::redistributable())),
                },
            };
            if !seen.insert(kind) {
                return Err(twice(field, word));
            }
        }
        let mut seen = BTreeSet::new();
        for (at, neighbor) in self.neighbors.iter().enumerate() {
            let field = |key: &str| format!("neighbors[{at}].{key}");
            neighbor.check(&field, asn)?;
            if !seen.insert(neighbor.address) {
                return Err(twice(field("address"), neighbor.address));
            }
        }
        match &self.breakout {
            Some(breakout) => check_interface("breakout.interface", &breakout.interface),
            None => Ok(()),
        }
    }
}

impl SiteNeighbor {
    fn check(&self, field: &dyn Fn(&str) -> String, asn: u32) -> Done<()> {
        check_unicast(field("address"), self.address)?;
        check_asn(field("asn"), self.asn)?;
        if self.asn == asn {
            let allowed = "an AS number of its own: this is the domain's";
            return Err(unfit(field("asn"), self.asn, allowed));
        }
        if self.ttl == Some(0) {
            return Err(unfit(field("ttl"), 0, "a TTL, 1 to 255"));
        }
        if self.max_prefixes == Some(0) {
            return Err(unfit(
                field("max_prefixes"),
                0,
                "a number of prefixes, 1 to 4294967295",
            ));
        }
        let one_line =
            |one: &String| one.chars().count() <= 128 && !one.chars().any(char::is_control);
        match &self.description {
            Some(text) if !one_line(text) => Err(unfit(
                field("description"),
                text.escape_default(),
                "a text of one line, at most 128 characters",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(new: Value) -> String {
        let new: NewAttachment = serde_json::from_value(new).expect("a body");
        new.check(64601)
            .map_or_else(|one| one.to_string(), |()| "taken".into())
    }

    #[test]
    fn what_a_router_refuses_is_refused_with_its_field() {
        for (new, said) in [
            (
                json!({ "interfaces": ["red0", "a:b"] }),
                "interfaces[1]: found `a:b`",
            ),
            (json!({ "interfaces": ["lo"] }), "interfaces[0]: found `lo`"),
            (
                json!({ "interfaces": ["vx0"] }),
                "interfaces[0]: found `vx0`",
            ),
            (json!({ "interfaces": ["a\"b"] }), "interfaces[0]: found"),
            (json!({ "interfaces": ["eth*"] }), "interfaces[0]: found"),
            (json!({ "interfaces": ["a\nb"] }), "interfaces[0]: found"),
            (
                json!({ "interfaces": ["all"] }),
                "interfaces[0]: found `all`",
            ),
            (
                json!({ "interfaces": ["sixteen-octets-1"] }),
                "interfaces[0]: found",
            ),
            (
                json!({ "interfaces": ["red0", "red0"] }),
                "interfaces[1]: `red0` stands",
            ),
            (
                json!({ "prefixes": ["10.0.0.0/8", "10.0.0.0/8"] }),
                "prefixes[1]: `10.0.0.0/8` stands",
            ),
            (
                json!({ "prefixes": ["10.0.0.1/8"] }),
                "prefixes[0]: 10.0.0.1/8 has bits",
            ),
            (
                json!({ "redistribute": ["connected", "all"] }),
                "redistribute[1]: found `all`",
            ),
            (
                json!({ "redistribute": ["87"] }),
                "redistribute[0]: found `87`",
            ),
            (
                json!({ "redistribute": ["bird", "12"] }),
                "redistribute[1]: `12` stands",
            ),
            (
                json!({ "neighbors": [{ "address": "0.0.0.0", "asn": 65001 }] }),
                "neighbors[0].address: found",
            ),
            (
                json!({ "neighbors": [{ "address": "10.0.1.2", "asn": 64601 }] }),
                "neighbors[0].asn: found",
            ),
            (
                json!({ "neighbors": [{ "address": "10.0.1.2", "asn": 23456 }] }),
                "neighbors[0].asn: found",
            ),
            (
                json!({ "breakout": { "interface": "lo" } }),
                "breakout.interface: found",
            ),
        ] {
            let refused = refusal(new);
            assert!(refused.starts_with(said), "{refused} / {said}");
        }
        let good = json!({
            "interfaces": ["red0", "red1"], "prefixes": ["10.0.1.0/24", "2001:db8::/48"],
            "redistribute": ["connected", "static", "bird", "42"],
            "neighbors": [{ "address": "10.0.1.2", "asn": 65001, "as_override": true, "ttl": 2 }],
            "breakout": { "interface": "eth0" },
        });
        assert_eq!(refusal(good), "taken");
    }
}
