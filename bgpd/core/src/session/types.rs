//! What a session is configured with, what it negotiates, what it says.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use weft_bgp_wire::{Asn, Family, GracefulRestart, Notification, Role, RouteRefresh, RouterId};

/// A transport connection; unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The states of RFC 4271 section 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Refuses connections; waits out its back-off or an administrator.
    Idle,
    /// Waits for the connection that it opens.
    Connect,
    /// Waits for a connection, or for the time to open one.
    Active,
    /// Has sent its OPEN.
    OpenSent,
    /// Has accepted the neighbour's OPEN.
    OpenConfirm,
    /// Exchanges routes.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        })
    }
}

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our AS.
    pub local_asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
    /// The neighbour's AS; another one is refused.
    pub peer_asn: Asn,
    /// Hold time that we propose: 0, or 3 s and more.
    pub hold_time: Duration,
    /// Longest pause between two attempts to connect; the first ones follow faster.
    pub connect_retry: Duration,
    /// Never opens a connection.
    pub passive: bool,
    /// Families that we offer.
    pub families: Vec<Family>,
    /// Offer to send several paths a prefix (RFC 7911).
    pub add_path_send: bool,
    /// Offer to receive several paths a prefix.
    pub add_path_receive: bool,
    /// Offer to take IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Offer graceful restart (RFC 4724, RFC 8538) with this restart time, 1..=4095 s.
    pub graceful_restart: Option<u16>,
    /// What we are to the neighbour (RFC 9234); on eBGP sessions alone.
    pub role: Option<Role>,
    /// There is no session with a neighbour that does not say its role.
    pub role_strict: bool,
}

/// What both ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The neighbour's BGP Identifier.
    pub router_id: RouterId,
    /// Families of both ends.
    pub families: Vec<Family>,
    /// 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Longest message that we may send (RFC 8654).
    pub max_message_len: usize,
    /// ADD-PATH towards the neighbour, by [`Family::index`].
    pub add_path_send: [bool; 2],
    /// ADD-PATH from the neighbour.
    pub add_path_receive: [bool; 2],
    /// The lower of both hold times; zero for none.
    pub hold_time: Duration,
    /// The neighbour understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// It marks the beginning and the end of what it sends again (RFC 7313), and wants us to.
    pub enhanced_refresh: bool,
    /// Both ends take IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// The neighbour's graceful restart capability, where both ends offer it.
    pub graceful_restart: Option<GracefulRestart>,
    /// What the neighbour says that it is to us (RFC 9234).
    pub role: Option<Role>,
}

/// Why a session went down, or does not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// It was never up.
    NeverUp,
    /// An administrator stopped it.
    AdminDown,
    /// The neighbour ended it.
    NotificationReceived(Notification),
    /// We ended it.
    NotificationSent(Notification),
    /// The transport connection broke.
    ConnectionLost(String),
    /// The transport connection could not be opened.
    ConnectFailed(String),
    /// The link to the neighbour lost its carrier.
    LinkLost(String),
    /// BFD says that no packets pass to the neighbour, and why (RFC 5882 section 4.3).
    BfdDown {
        /// What BFD says.
        text: String,
        /// It may be the neighbour's control plane alone, which BFD shares its fate with.
        shared_fate: bool,
    },
    /// The neighbour restarted: a new connection took the place of the old one (RFC 4724 section 4.2).
    Restarted,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverUp => f.write_str("not connected yet"),
            Self::AdminDown => f.write_str("administratively down"),
            Self::NotificationReceived(notification) => {
                write!(f, "the neighbour ended it: {notification}")
            }
            Self::NotificationSent(notification) => write!(f, "we ended it: {notification}"),
            Self::ConnectionLost(text) => write!(f, "connection lost: {text}"),
            Self::ConnectFailed(text) => write!(f, "no connection: {text}"),
            Self::LinkLost(interface) => write!(f, "{interface} lost its carrier"),
            Self::BfdDown { text, .. } => write!(f, "BFD went down: {text}"),
            Self::Restarted => f.write_str("the neighbour restarted"),
        }
    }
}

/// What stays of the routes of a session that is down (RFC 4724 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Families that are kept as stale.
    pub families: Vec<Family>,
    /// How long the neighbour may be away.
    pub time: Duration,
    /// Graceful restart applies to NOTIFICATIONs too (RFC 8538).
    pub notification: bool,
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to the neighbour.
    Connect,
    /// Send a message.
    Send(ConnectionId, Bytes),
    /// Close the connection, after what was sent on it.
    Close(ConnectionId),
    /// The session is established.
    Up(ConnectionId, Box<Negotiated>),
    /// The session, which was established, is down. `retain` names the families whose routes stay (RFC 4724) and for
    /// how long the neighbour may be away.
    Down {
        /// Why.
        reason: DownReason,
        /// Families to keep as stale, and the neighbour's restart time; `None` where everything goes.
        retain: Option<Retained>,
    },
    /// A connection ended with a NOTIFICATION before it was a session.
    Refused(DownReason),
    /// The neighbour asks for our routes again.
    Refresh(RouteRefresh),
}
