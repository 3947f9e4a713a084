//! BGP neighbours and the sessions with them (RFC 4271 section 8).

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BfdSession, Family, Why, words};

words! {
    /// What a neighbour is to this router.
    NeighborKind {
        /// In another AS.
        Ebgp = "ebgp",
        /// In our AS.
        Ibgp = "ibgp",
        /// In our AS, and we reflect for it.
        IbgpClient = "ibgp-client",
    }
}

words! {
    /// The states of RFC 4271 section 8.2.2.
    SessionState {
        /// Refuses connections; waits out its back-off or an administrator.
        Idle = "idle",
        /// Waits for the connection that it opens.
        Connect = "connect",
        /// Waits for a connection, or for the time to open one.
        Active = "active",
        /// Has sent its OPEN.
        OpenSent = "open-sent",
        /// Has accepted the neighbour's OPEN.
        OpenConfirm = "open-confirm",
        /// Exchanges routes.
        Established = "established",
    }
}

words! {
    /// Why a session is down, or was last.
    DownCode {
        /// It was never up.
        NeverUp = "never-up",
        /// An administrator stopped it.
        AdminDown = "admin-down",
        /// The neighbour ended it with a NOTIFICATION.
        NotificationReceived = "notification-received",
        /// We ended it with a NOTIFICATION.
        NotificationSent = "notification-sent",
        /// The transport connection broke.
        ConnectionLost = "connection-lost",
        /// The transport connection could not be opened.
        ConnectFailed = "connect-failed",
        /// The link to it lost its carrier.
        LinkLost = "link-lost",
        /// BFD says that no packets pass to it.
        BfdDown = "bfd-down",
        /// The neighbour restarted.
        Restarted = "restarted",
    }
}

words! {
    /// What one end of an eBGP session is to the other (RFC 9234).
    Role {
        /// It carries the other's packets to everywhere.
        Provider = "provider",
        /// The other carries its packets to everywhere.
        Customer = "customer",
        /// Both carry packets to their own customers.
        Peer = "peer",
        /// A route server.
        Rs = "rs",
        /// A client of a route server.
        RsClient = "rs-client",
    }
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Neighbor {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The tenant whose own router it is; the session runs in that tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its AS number.
    pub asn: u32,
    /// What it is to us.
    pub kind: NeighborKind,
    /// The AS that this router is to it, where that is not the router's own (RFC 7705).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<u32>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// It joined its group by connecting, and is forgotten when it goes.
    #[serde(default)]
    pub dynamic: bool,
    /// The description of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who tells of it, where that is not the configuration: a source of neighbours, or the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why it is as it was known last, where its source does not say it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_stale: Option<String>,
    /// Its connections are signed (TCP MD5, RFC 2385).
    #[serde(default)]
    pub signed: bool,
    /// Why they are not, where the controller would have them signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<String>,
    /// Its packets may have come over so many hops (RFC 5082); absent where that is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// The BFD session with it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdSession>,
    /// State of its session.
    pub state: SessionState,
    /// Seconds since the session went up, or down; absent where it never was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// How often the session went down.
    pub flaps: u64,
    /// Why it is down, or was last; absent where it never was down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Why<DownCode>>,
    /// The configuration keeps the session down, with these words for the neighbour (RFC 9003); empty where it is told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<String>,
    /// Paths of one family that it may announce; more end the session. Absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
    /// What this router is to it (RFC 9234).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Its routes of an earlier session are kept (RFC 4724).
    pub stale: bool,
    /// What was negotiated, while the session is established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<Negotiated>,
    /// Families of the session in which nothing of this router's own is announced, since the session has no next hop for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mute: Vec<Family>,
    /// Prefixes by family.
    pub prefixes: Vec<NeighborPrefixes>,
    /// UPDATE messages received.
    pub updates: u64,
    /// Prefixes announced by it that the import rules refused.
    pub rejected: u64,
    /// Of these, those that it leaks: its role and ONLY_TO_CUSTOMER forbid it to announce them (RFC 9234).
    #[serde(default)]
    pub route_leaks: u64,
    /// Of these, those that the import policy rejected.
    #[serde(default)]
    pub policy_rejected: u64,
    /// What is taken from it.
    #[serde(default)]
    pub import: PolicyUse,
    /// What is announced to it.
    #[serde(default)]
    pub export: PolicyUse,
    /// UPDATEs treated as withdraw (RFC 7606).
    pub treat_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attribute_discard: u64,
    /// Communities of the overlay that the neighbour may not announce, and that were taken from its routes.
    #[serde(default)]
    pub stripped: Stripped,
    /// Labels on its routes that are not used, since the domain's controller does not say that they may lead where they do.
    #[serde(default)]
    pub refused_labels: RefusedLabels,
    /// Routes kept back because their attributes leave no room for a prefix in a message.
    pub too_large: u64,
}

/// What passes between a neighbour and this router in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyUse {
    /// Policies, one behind the other: `accept` for everything, `reject` for nothing, `prefixes` for a list of prefixes that stands in the
    /// neighbour.
    pub policies: Vec<String>,
    /// Nothing passes, since there is no policy for this eBGP neighbour (RFC 8212).
    pub missing: bool,
    /// How many routes were in each term, those of called policies where they are called. At export they are counted as they are
    /// encoded, once for all neighbours that are sent the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<PolicyTerm>,
}

/// A term of a policy, and how many routes it was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyTerm {
    /// The policy.
    pub policy: String,
    /// The term of it: its name or number.
    pub term: String,
    /// Routes.
    pub routes: u64,
}

/// Communities of the overlay that were taken from a neighbour's routes, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stripped {
    /// Of a VNI that is not accepted from it.
    pub vni: u64,
    /// Of a kind that is not accepted from it, or that this version does not know.
    pub kind: u64,
    /// Of an endpoint that is not accepted from it.
    pub endpoint: u64,
}

/// Labels on a neighbour's routes that are not used, as many as there are now, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedLabels {
    /// By the domain's controller no router where they lead to hosts their VNI.
    pub invalid: u64,
    /// It does not say who hosts their VNI there.
    pub unknown: u64,
}

/// What both ends of a session agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Negotiated {
    /// The neighbour's BGP Identifier.
    #[schema(value_type = String)]
    pub router_id: Ipv4Addr,
    /// Hold time in seconds, 0 for none.
    pub hold_time: u64,
    /// Families of both ends.
    pub families: Vec<Family>,
    /// Families with several paths a prefix towards the neighbour (RFC 7911).
    pub add_path_send: Vec<Family>,
    /// Families with several paths a prefix from the neighbour.
    pub add_path_receive: Vec<Family>,
    /// 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Longest message that we may send, in octets.
    pub max_message: u64,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Both ends take IPv6 next hops of IPv4 prefixes (RFC 8950).
    #[serde(default)]
    pub extended_next_hop: bool,
    /// The neighbour's restart time in seconds, where both ends restart gracefully (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<u64>,
    /// What the neighbour says that it is to this router (RFC 9234).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// Prefixes exchanged with a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeighborPrefixes {
    /// The family.
    pub family: Family,
    /// Paths held from it.
    pub received: u64,
    /// Prefixes announced to it.
    pub advertised: u64,
}
