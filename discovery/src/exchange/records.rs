//! What a domain keeps of others: whom it trusts, what it shares with them, and what they say of themselves.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// That an operator trusts another domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The domain's name.
    pub name: String,
    /// Where its controllers are, `HOST:PORT`.
    pub controllers: Vec<String>,
    /// SHA-256 of its authority's certificate, in hexadecimal: who is trusted is whom that has signed.
    pub fingerprint: String,
    /// Hops between the edges of both, 1 where they are on one link.
    pub ttl: u8,
    /// Which edges speak with which; every one with every one where there are none.
    #[serde(default)]
    pub pairs: Vec<Pair>,
}

impl Trust {
    /// Whether an edge of ours is to speak with one of theirs, as far as we are asked.
    pub fn pairs(&self, edge: &str, peer: &str) -> bool {
        let mut pairs = self.pairs.iter();
        self.pairs.is_empty() || pairs.any(|one| one.edge == edge && one.peer == peer)
    }
}

/// Two edges that speak with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Ours.
    pub edge: String,
    /// The other domain's.
    pub peer: String,
}

/// A tenant of ours that another domain may know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The other domain.
    pub domain: String,
    /// The tenant.
    pub tenant: String,
}

/// What another domain says of itself, and who hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// The domain's name.
    pub name: String,
    /// The AS number of its routers.
    pub asn: u32,
    /// Its revision that is held here.
    pub revision: u64,
    /// When that was heard, or when the last follower was there, ms since 1970.
    pub heard: u64,
    /// Controllers of ours that follow it.
    pub followers: BTreeSet<String>,
    /// It says where labels may lead to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub origins: bool,
}

impl Remote {
    /// Nobody hears it any more. What it said last stays.
    pub fn is_stale(&self) -> bool {
        self.followers.is_empty()
    }
}

/// Another domain's edge, as that domain has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteRouter {
    /// Its domain.
    pub domain: String,
    /// Unique there.
    pub name: String,
    /// Its AS number.
    pub asn: u32,
    /// BGP Identifier.
    #[schema(value_type = String)]
    pub router_id: Ipv4Addr,
    /// Where our edges connect to.
    #[schema(value_type = String)]
    pub bgp_address: IpAddr,
    /// Where its tunnels end.
    #[schema(value_type = String)]
    pub endpoint: IpAddr,
    /// What it accepts there, the preferred one first.
    pub encapsulations: Vec<String>,
    /// Mbit/s; 0 where it is not said.
    pub capacity: u32,
    /// Its lease has run out there: nobody new discovers it.
    pub expired: bool,
    /// Our edges that it speaks with; all where there are none.
    #[serde(default)]
    pub peers: Vec<String>,
}

/// A tenant that another domain shares with ours, as that domain has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteTenant {
    /// Which domain shares it.
    pub domain: String,
    /// Its name there.
    pub name: String,
    /// Its VNI.
    pub vni: u32,
    /// The domain that gave that.
    pub home: String,
    /// Which tenant of its home it is; absent where that domain does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Where the labels of a VNI may lead to in another domain, as a domain that we trust says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteOrigins {
    /// Who says it.
    pub domain: String,
    /// The VNI of a tenant, or the label of a service.
    pub vni: u32,
    /// The domains that it has come by: first the one whose routers these are, last the one that says it.
    pub path: Vec<String>,
    /// IPv4 endpoints, sorted.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Ipv4Addr>,
    /// Ids of endpoints, sorted.
    #[schema(value_type = Vec<String>)]
    pub ids: Vec<Ipv4Addr>,
    /// That domain has neighbours that do not say who they are.
    pub open: bool,
}

impl RemoteOrigins {
    /// The domain whose routers these are.
    pub fn origin(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }
}
