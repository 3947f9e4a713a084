//! What the speaker is configured with and what it tells.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_bgp_wire::{Asn, Family, Problem, Role, RouterId};

use crate::policy::RoutePolicy;
use crate::rib::{AsPathEdit, NearLimit, PeerCounters, PeerId, SharedLink};
use crate::session::{ConnectionId, DownReason, Negotiated, State};

/// What this router is, to its neighbours.
#[derive(Clone, Debug)]
pub struct SpeakerConfig {
    /// Its AS.
    pub asn: Asn,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Cluster id as a route reflector.
    pub cluster_id: Ipv4Addr,
    /// Global Administrator of the overlay's large communities.
    pub overlay_administrator: Option<u32>,
    /// Prefixes whose unlabelled routes are reported too.
    pub report: Vec<IpNet>,
    /// The process came up with the forwarding state of an earlier one: its OPENs say so, and nothing is announced
    /// before the neighbours have sent their routes (RFC 4724 section 4.1).
    pub restarting: bool,
    /// Routes of our own follow from what others tell: End-of-RIB waits for [`crate::speaker::Speaker::routes_complete`] too.
    pub awaits_routes: bool,
    /// Longest wait for the routes of all neighbours after the start (Selection_Deferral_Timer).
    pub deferral: Duration,
    /// Neighbours that had a session with graceful restart before this start, and may keep our routes: nobody else is waited for
    /// (RFC 4724 section 4.1). `None`: nobody knows, so each neighbour is.
    pub helpers: Option<BTreeSet<IpAddr>>,
    /// Seeds the jitter of timers and the hash of what neighbours choose: nobody outside may foresee it.
    pub seed: u64,
}

/// The secret of TCP MD5 signatures (RFC 2385).
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// 1 to 80 octets.
    Key(Arc<[u8]>),
    /// It cannot be had, and why: there is no connection without it.
    Unreadable(Arc<str>),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key(..)"),
            Self::Unreadable(why) => f.debug_tuple("Unreadable").field(why).finish(),
        }
    }
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Where it is; also who may connect to us.
    pub address: IpAddr,
    /// Its port, normally 179.
    pub port: u16,
    /// Its AS.
    pub asn: Asn,
    /// For humans.
    pub description: Option<String>,
    /// The group that it has what is not its own from.
    pub group: Option<Arc<str>>,
    /// The address that we connect from.
    pub local_address: Option<IpAddr>,
    /// Next hop of IPv6 routes on a session over IPv4.
    pub local_address_v6: Option<Ipv6Addr>,
    /// Never connect, only accept.
    pub passive: bool,
    /// TTL of what we send; 1 for a neighbour on the link.
    pub ttl: u8,
    /// Least TTL of what it sends, where that is checked (RFC 5082).
    pub least_ttl: Option<u8>,
    /// Connections to and from it are signed.
    pub password: Option<Password>,
    /// The key that follows, which the neighbour may use already: it is tried where the neighbour is not heard with `password`.
    pub next_password: Option<Password>,
    /// Hold time that we propose.
    pub hold_time: Duration,
    /// Longest pause between attempts to connect.
    pub connect_retry: Duration,
    /// Families that we offer.
    pub families: Vec<Family>,
    /// Offer to send several paths a prefix.
    pub add_path_send: bool,
    /// Offer to receive several paths a prefix.
    pub add_path_receive: bool,
    /// Restart time in seconds, or `None` without graceful restart.
    pub graceful_restart: Option<u16>,
    /// Reflect for it (iBGP).
    pub route_reflector_client: bool,
    /// Towards iBGP: our address as next hop of routes learned by eBGP.
    pub next_hop_self: bool,
    /// Routes taken from it, and as what.
    pub import: RoutePolicy,
    /// Routes announced to it, and as what.
    pub export: RoutePolicy,
    /// Most prefixes a family; more end the session for five minutes.
    pub max_prefixes: Option<u32>,
    /// Most paths of one prefix.
    pub max_paths: u32,
    /// How often our own AS may stand in its paths.
    pub allow_own_as: usize,
    /// eBGP: its AS has to be the first of AS_PATH.
    pub enforce_first_as: bool,
    /// Take prefixes too that no packet may be sent to.
    pub accept_martians: bool,
    /// For the export hook: what routes from it are.
    pub import_class: u32,
    /// For the export hook: how routes to it are edited.
    pub export_class: u32,
    /// What we are to it (RFC 9234); of an eBGP neighbour alone.
    pub role: Option<Role>,
    /// What becomes of AS_PATH on the way to it, and which AS we are to it; of an eBGP neighbour alone.
    pub as_path: AsPathEdit,
    /// There is no session unless it says its role too.
    pub role_strict: bool,
    /// There is to be no session, and what the neighbour is told of that (RFC 9003); empty for nothing.
    pub shutdown: Option<String>,
}

/// What a session goes through when its neighbour is configured otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// It ends, and begins anew.
    pub restarts: bool,
    /// The neighbour is asked for its routes again (RFC 2918); where it knows nothing of that the session restarts.
    pub refreshes: bool,
    /// What it was told is gone through, and what differs is told.
    pub announces: bool,
}

impl NeighborConfig {
    /// What it takes to go over to another configuration of the same neighbour.
    pub fn transition(&self, to: &Self) -> Transition {
        let restarts = !self.is_same_session(to);
        let refreshes = self.import != to.import
            || self.import_class != to.import_class
            || self.max_paths < to.max_paths
            || self.allow_own_as != to.allow_own_as
            || self.enforce_first_as != to.enforce_first_as
            || self.accept_martians != to.accept_martians;
        Transition {
            restarts,
            refreshes: refreshes && !restarts,
            announces: self.export != to.export && !restarts,
        }
    }

    /// Whether a session of this one may become one of the other without an end in between.
    pub(crate) fn is_same_session(&self, other: &Self) -> bool {
        let taken = Self {
            description: other.description.clone(),
            group: other.group.clone(),
            import: other.import.clone(),
            export: other.export.clone(),
            max_prefixes: other.max_prefixes,
            max_paths: other.max_paths,
            allow_own_as: other.allow_own_as,
            enforce_first_as: other.enforce_first_as,
            accept_martians: other.accept_martians,
            import_class: other.import_class,
            shutdown: other.shutdown.clone(),
            ..self.clone()
        };
        // Keys change under a connection (RFC 2385 section 4.5 leaves it to us); without a secret there is to be none.
        let readable = |one: &Self| !matches!(one.password, Some(Password::Unreadable(_)));
        let taken = match readable(self) && readable(other) {
            true => Self {
                password: other.password.clone(),
                next_password: other.next_password.clone(),
                ..taken
            },
            false => taken,
        };
        taken == *other
    }
}

/// A group that neighbours join by connecting from one of its prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicGroup {
    /// Its name.
    pub name: Arc<str>,
    /// Where they connect from; of several groups that of the longest prefix.
    pub prefixes: Vec<IpNet>,
    /// Most neighbours at a time.
    pub limit: u32,
    /// What they are configured with, but for their addresses.
    pub template: NeighborConfig,
}

/// Why somebody who connects does not become a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DynamicRefusal {
    /// No group listens for the address.
    NoGroup,
    /// The group has as many neighbours as it may have.
    Full {
        /// Its name.
        group: Arc<str>,
        /// [`DynamicGroup::limit`].
        limit: u32,
    },
}

/// Our end of a transport connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEnd {
    /// Our address.
    pub address: IpAddr,
    /// The link, where the neighbour and the next hop that we name of IPv6 routes are on one.
    pub shared_link: Option<SharedLink>,
}

impl From<IpAddr> for LocalEnd {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            shared_link: None,
        }
    }
}

/// What [`crate::speaker::Speaker::set_neighbors`] did, in neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborChanges {
    /// New ones.
    pub added: usize,
    /// Removed ones.
    pub removed: usize,
    /// Those whose session starts anew.
    pub restarted: usize,
    /// Those whose session stays.
    pub changed: usize,
}

/// Whose routes are still to come after our own start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The neighbours, by address.
    pub neighbors: Vec<IpAddr>,
    /// The wait ends in this long at the latest.
    pub at_most: Duration,
}

/// What the driver must do, or may want to know.
#[derive(Debug)]
pub enum Action {
    /// Open a connection to this neighbour.
    Connect(PeerId),
    /// Send what [`crate::speaker::Speaker::take_closing`] returns, then close.
    Close(ConnectionId),
    /// A session went up or down.
    Neighbor {
        /// Whose.
        peer: PeerId,
        /// Its state now.
        state: State,
        /// Why it is down.
        reason: Option<DownReason>,
    },
    /// A connection of this neighbour ended with a NOTIFICATION before it was a session.
    Refused(PeerId, DownReason),
    /// An UPDATE had problems that RFC 7606 treats without ending the session.
    Problems(PeerId, Vec<Problem>),
    /// It announces nearly as many prefixes as it may.
    NearLimit(PeerId, NearLimit),
    /// The routes of all neighbours are there; where [`SpeakerConfig::awaits_routes`], ours are still to come. Comes once at most.
    Heard,
    /// The routes of all neighbours are there (`complete`), or have been waited for long enough. Comes once.
    Converged {
        /// Every neighbour has sent all of its routes.
        complete: bool,
    },
}

/// A neighbour as it is now.
#[derive(Clone, Debug)]
pub struct NeighborStatus {
    /// Its number.
    pub peer: PeerId,
    /// Its configuration.
    pub config: NeighborConfig,
    /// It joined its group by connecting.
    pub dynamic: bool,
    /// Its connections are signed now.
    pub signed: bool,
    /// State of its session.
    pub state: State,
    /// When it went up, or down; `None` where it never was up.
    pub since: Option<Instant>,
    /// How often it went down.
    pub flaps: u64,
    /// Why it was last down.
    pub last_reason: DownReason,
    /// What was negotiated.
    pub negotiated: Option<Negotiated>,
    /// Routes of an earlier session are kept.
    pub stale: bool,
    /// UPDATE messages received.
    pub updates: u64,
    /// Prefix counters.
    pub counters: PeerCounters,
    /// Routes that were in each term of its import policy, and of its export policy.
    pub terms: [Vec<u64>; 2],
}
