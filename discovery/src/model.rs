//! What a domain is made of: records by key.
//!
//! | key | record |
//! |---|---|
//! | `domain` | [`Domain`] |
//! | `router/NAME` | [`Router`] |
//! | `tenant/NAME` | [`Tenant`] |
//! | `attachment/TENANT/ROUTER` | [`Attachment`] |
//! | `vni/NUMBER` | [`VniUse`] |
//! | `token/ID` | [`Token`] |
//! | `request/ACTOR/KEY` | [`Request`] |
//! | `trust/DOMAIN` | [`Trust`] |
//! | `share/DOMAIN/TENANT` | [`Share`] |
//! | `remote/DOMAIN` | [`Remote`] |
//! | `remote-router/DOMAIN/NAME` | [`RemoteRouter`] |
//! | `remote-tenant/DOMAIN/NAME` | [`RemoteTenant`] |
//! | `service/TENANT/NAME` | [`Service`] |
//! | `chain/TENANT/NAME` | [`Chain`] |
//! | `remote-service/DOMAIN/VNI/NAME` | [`RemoteService`] |
//! | `remote-origins/DOMAIN/VNI/DOMAIN` | [`RemoteOrigins`] |
//! | `grant/TENANT/ROUTER` | [`Grant`] |
//! | `quota/TENANT` | [`Quota`] |
//! | `past-difference/TENANT/NUMBER` | [`PastDifference`] |
//! | `session-key/ROUTER/ROUTER` | [`SessionKey`] |
//! | `session-keys` | [`Replaced`] |

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::attachments::{Breakout, SiteNeighbor};
pub use crate::chains::records::{Chain, PastChains, PastDifference, RemoteService, Service};
pub use crate::exchange::records::{
    Pair, Remote, RemoteOrigins, RemoteRouter, RemoteTenant, Share, Trust,
};
pub use crate::grants::Grant;
pub use crate::quotas::Quota;
pub use crate::session_keys::{Replaced, SessionKey};
pub use crate::state::State;

/// The domain itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Unique among domains that know each other.
    pub name: String,
    /// The AS number of its routers.
    pub asn: u32,
    /// Global Administrator of the label communities, the same in every domain.
    pub global_administrator: u32,
    /// First of the VNIs that this domain gives to tenants.
    pub first_vni: u32,
    /// Last of them.
    pub last_vni: u32,
    /// How long a router that is not heard of stays in what others discover, s.
    pub lease: u32,
    /// How long a VNI rests before another tenant gets it, s.
    pub quarantine: u32,
    /// Hold time of its BGP sessions, s.
    pub hold_time: u16,
    /// How long a router's certificate is good, s; it is renewed at two thirds.
    pub certificate: u32,
    /// Routers that were told of revisions up to this one by a datastore that was lost since take what is here all the same.
    #[serde(default)]
    pub resumed: u64,
}

/// What a router is in the mesh of its domain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A client of all reflectors; of all others where there are none.
    #[default]
    Router,
    /// The same, and it speaks with other domains.
    Edge,
    /// Reflects routes for all others, and speaks with all reflectors.
    Reflector,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Router => "router",
            Self::Edge => "edge",
            Self::Reflector => "reflector",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "router" => Ok(Self::Router),
            "edge" => Ok(Self::Edge),
            "reflector" => Ok(Self::Reflector),
            _ => Err(format!("`{text}` is no role: router, edge or reflector")),
        }
    }
}

/// Another domain's router that an edge speaks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// For humans.
    pub name: String,
    /// Where it is.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// Hops to it, 1 for one on the link.
    #[serde(default = "one")]
    pub ttl: u8,
    /// Tenants that it may send labels of, by name; those that the domain shares with it.
    #[serde(default)]
    pub tenants: Vec<String>,
}

fn one() -> u8 {
    1
}

/// A router: what joined, what it says of itself, and what the operator adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Unique in the domain.
    pub name: String,
    /// What it is in the mesh.
    pub role: Role,
    /// SHA-256 of the public key that it joined with, in hexadecimal: the one that its certificates are for.
    pub key: String,
    /// What it registered; absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The controller that it is attached to, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Its lease has run out: nobody new discovers it.
    #[serde(default)]
    pub expired: bool,
    /// Other domains' routers that it speaks with by an operator's word, beside those of domains that are trusted.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Where other domains' routers connect to, where that is not its BGP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub external_address: Option<IpAddr>,
    /// Another start of it that has come to another controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Interfaces that it lives by itself, by name, each with the reason: no tenant can have them. As it said last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, String>,
}

/// A start of a router that has come to another controller than the one where the router is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Which start, as [`Registration::instance`].
    pub instance: String,
    /// Whether the one that is attached answers; absent until that controller has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<bool>,
}

impl Router {
    /// Where other domains' routers connect to, and what it connects to them from.
    pub fn external(&self, registration: &Registration) -> IpAddr {
        self.external_address.unwrap_or(registration.bgp_address)
    }
}

/// What a router says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// BGP Identifier.
    #[schema(value_type = String)]
    pub router_id: Ipv4Addr,
    /// Where its neighbours connect to.
    #[schema(value_type = String)]
    pub bgp_address: IpAddr,
    /// Where its tunnels end.
    #[schema(value_type = String)]
    pub endpoint: IpAddr,
    /// What it accepts there, the preferred one first.
    pub encapsulations: Vec<String>,
    /// Mbit/s; 0 where it does not say.
    pub capacity: u32,
    /// Grows with every start of its process.
    pub generation: u64,
    /// Weft's version.
    pub version: String,
    /// Which start of its process it is: no two are alike, on any machine. Empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// It signs its sessions with keys that the controller makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session_keys: bool,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique in the domain.
    pub name: String,
    /// Its VNI, the same in every domain.
    pub vni: u32,
    /// Whose VNI that is, where another domain gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Which tenant of that domain it is, as its home knows it: a VNI may be given to another one when this one is no more. Absent
    /// where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A tenant on a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The tenant's name.
    pub tenant: String,
    /// The router's name.
    pub router: String,
    /// Interfaces where the tenant's packets enter.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Prefixes that the tenant announces there.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
    /// Kernel routes that it announces there: `connected`, `static`, or a protocol.
    #[serde(default)]
    pub redistribute: Vec<String>,
    /// Its own routers there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<SiteNeighbor>,
    /// Its way to the Internet past the overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakout: Option<Breakout>,
}

/// A VNI of the domain's range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VniUse {
    /// The number.
    pub vni: u32,
    /// Who has it.
    pub tenant: Option<String>,
    /// The service of that tenant whose label it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where nobody has: when it may be given again, ms since 1970.
    pub free_at: u64,
    /// Where nobody has: whose service had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Scope {
    /// A router joins with it.
    Join {
        /// What the router will be.
        role: Role,
        /// Only a router of this name, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Everything.
    Operator,
    /// One tenant: its attachments and prefixes, and what is known of it.
    Tenant {
        /// The tenant's name.
        tenant: String,
    },
    /// Looks at everything, changes nothing.
    Reader,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its public part.
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub hash: String,
    /// What it is good for.
    pub scope: Scope,
    /// Until when, ms since 1970; absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// How often it may still be used; absent for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Who made it.
    pub created_by: String,
}

/// A request that was answered, by its Idempotency-Key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asked.
    pub actor: String,
    /// The key.
    pub key: String,
    /// SHA-256 of what was asked for.
    pub hash: String,
    /// What was answered.
    pub body: serde_json::Value,
    /// When, ms since 1970.
    pub at: u64,
}

impl Request {
    /// Octets that are held to answer it again.
    pub fn octets(&self) -> usize {
        self.actor.len() + self.key.len() + self.hash.len() + octets(&self.body)
    }
}

/// Octets of what a value says, without what JSON puts between.
fn octets(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(octets).sum(),
        Value::Object(items) => items.iter().map(|(key, one)| key.len() + octets(one)).sum(),
    }
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the types say it")]
pub enum Record {
    Domain(Domain),
    Router(Router),
    Tenant(Tenant),
    Attachment(Attachment),
    Vni(VniUse),
    Token(Token),
    Request(Request),
    Trust(Trust),
    Share(Share),
    Remote(Remote),
    RemoteRouter(RemoteRouter),
    RemoteTenant(RemoteTenant),
    Service(Service),
    Chain(Chain),
    RemoteService(RemoteService),
    RemoteOrigins(RemoteOrigins),
    PastChains(PastChains),
    PastDifference(PastDifference),
    Quota(Quota),
    Grant(Grant),
    SessionKey(SessionKey),
    Replaced(Replaced),
}

impl Record {
    /// Where it is.
    pub fn key(&self) -> String {
        match self {
            Self::Domain(_) => "domain".into(),
            Self::Router(router) => key::router(&router.name),
            Self::Tenant(tenant) => key::tenant(&tenant.name),
            Self::Attachment(each) => key::attachment(&each.tenant, &each.router),
            Self::Vni(each) => key::vni(each.vni),
            Self::Token(token) => key::token(&token.id),
            Self::Request(request) => key::request(&request.actor, &request.key),
            Self::Trust(trust) => key::trust(&trust.name),
            Self::Share(share) => key::share(&share.domain, &share.tenant),
            Self::Remote(remote) => key::remote(&remote.name),
            Self::RemoteRouter(each) => key::remote_router(&each.domain, &each.name),
            Self::RemoteTenant(each) => key::remote_tenant(&each.domain, &each.name),
            Self::Service(each) => key::service(&each.tenant, &each.name),
            Self::Chain(each) => key::chain(&each.tenant, &each.name),
            Self::RemoteService(each) => key::remote_service(&each.domain, each.vni, &each.name),
            Self::RemoteOrigins(each) => key::remote_origin(&each.domain, each.vni, &each.path),
            Self::PastChains(each) => key::past_chains(&each.tenant),
            Self::Grant(each) => key::grant(&each.tenant, &each.router),
            Self::Quota(each) => key::quota(&each.tenant),
            Self::SessionKey(one) => key::session_key(&one.routers[0], &one.routers[1]),
            Self::Replaced(_) => key::REPLACED.into(),
            Self::PastDifference(each) => key::past_difference(&each.tenant, each.number),
        }
    }
}

/// Where records are.
pub mod key {
    /// The domain.
    pub const DOMAIN: &str = "domain";

    /// Which keys of sessions are to be replaced.
    pub const REPLACED: &str = "session-keys";

    /// Two routers, sorted.
    pub fn pair<'a>(one: &'a str, other: &'a str) -> [&'a str; 2] {
        match one <= other {
            true => [one, other],
            false => [other, one],
        }
    }

    /// The keys of the session between two routers, whichever is named first.
    pub fn session_key(one: &str, other: &str) -> String {
        let [first, second] = pair(one, other);
        format!("session-key/{first}/{second}")
    }

    /// A router.
    pub fn router(name: &str) -> String {
        format!("router/{name}")
    }

    /// A tenant.
    pub fn tenant(name: &str) -> String {
        format!("tenant/{name}")
    }

    /// A tenant on a router.
    pub fn attachment(tenant: &str, router: &str) -> String {
        format!("attachment/{tenant}/{router}")
    }

    /// A VNI; sorted as numbers are.
    pub fn vni(number: u32) -> String {
        format!("vni/{number:08}")
    }

    /// Interfaces of a router that are granted to a tenant.
    pub fn grant(tenant: &str, router: &str) -> String {
        format!("grant/{tenant}/{router}")
    }

    /// How much a tenant may have.
    pub fn quota(tenant: &str) -> String {
        format!("quota/{tenant}")
    }

    /// A token.
    pub fn token(id: &str) -> String {
        format!("token/{id}")
    }

    /// An answered request.
    pub fn request(actor: &str, key: &str) -> String {
        format!("request/{actor}/{key}")
    }

    /// A domain that is trusted.
    pub fn trust(domain: &str) -> String {
        format!("trust/{domain}")
    }

    /// A tenant that is shared with a domain.
    pub fn share(domain: &str, tenant: &str) -> String {
        format!("share/{domain}/{tenant}")
    }

    /// What a domain says of itself.
    pub fn remote(domain: &str) -> String {
        format!("remote/{domain}")
    }

    /// A domain's edge.
    pub fn remote_router(domain: &str, name: &str) -> String {
        format!("remote-router/{domain}/{name}")
    }

    /// A tenant that a domain shares with this one.
    pub fn remote_tenant(domain: &str, name: &str) -> String {
        format!("remote-tenant/{domain}/{name}")
    }

    /// A service of a tenant.
    pub fn service(tenant: &str, name: &str) -> String {
        format!("service/{tenant}/{name}")
    }

    /// A chain of a tenant.
    pub fn chain(tenant: &str, name: &str) -> String {
        format!("chain/{tenant}/{name}")
    }

    /// Chains that a tenant has had, as earlier versions kept them.
    pub fn past_chains(tenant: &str) -> String {
        format!("past-chains/{tenant}")
    }

    /// How the chains of a tenant differed at one time; sorted as numbers are.
    pub fn past_difference(tenant: &str, number: u32) -> String {
        format!("{}{number:010}", past_differences(tenant))
    }

    /// What the keys of all of them begin with.
    pub fn past_differences(tenant: &str) -> String {
        format!("past-difference/{tenant}/")
    }

    /// What the keys of all services begin with that a domain offers.
    pub fn remote_services(domain: &str) -> String {
        format!("remote-service/{domain}/")
    }

    /// What the keys of all of them begin with that a domain says of where labels may lead to.
    pub fn remote_origins(domain: &str) -> String {
        format!("remote-origins/{domain}/")
    }

    /// The same of one VNI.
    pub fn remote_origins_of(domain: &str, vni: u32) -> String {
        format!("remote-origins/{domain}/{vni:08}/")
    }

    /// The same of one domain's routers, by the way that it has come by.
    pub fn remote_origin(domain: &str, vni: u32, path: &[String]) -> String {
        format!("{}{}", remote_origins_of(domain, vni), path.join("/"))
    }

    /// A service that another domain offers.
    pub fn remote_service(domain: &str, vni: u32, name: &str) -> String {
        format!("remote-service/{domain}/{vni:08}/{name}")
    }
}

/// A record, and the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The record.
    pub record: Record,
    /// The revision.
    pub modified: u64,
}

/// A record before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where.
    pub key: String,
    /// What was there.
    pub old: Option<Record>,
    /// What is there.
    pub new: Option<Record>,
}

/// One change of the domain, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// One more than the one before.
    pub number: u64,
    /// When, ms since 1970 by the controller's clock.
    pub at: u64,
    /// Who.
    pub actor: String,
    /// What was asked for.
    pub operation: String,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// Whether a record is kept for the controller alone: answers to requests, chains of the past, and which routers of other domains host
/// what, keys of sessions. No history tells of it.
pub fn is_internal(key: &str) -> bool {
    let internal = [
        "request/",
        "past-chains/",
        "past-difference/",
        "remote-origins/",
        "session-key/",
        key::REPLACED,
    ];
    internal.iter().any(|prefix| key.starts_with(prefix))
}

/// Now, ms since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
