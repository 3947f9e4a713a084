//! What a session is configured with, and what it tells.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::packet::{Diagnostic, State};

/// How packets of a session travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// The neighbour is on the link (RFC 5881): packets come with TTL 255, or are discarded.
    SingleHop,
    /// Over routers (RFC 5883): packets come with this TTL or more, or are discarded.
    MultiHop {
        /// 1 takes every packet.
        minimum_ttl: u8,
    },
}

impl Path {
    /// The least TTL or hop limit of packets that are taken.
    pub fn minimum_ttl(self) -> u8 {
        match self {
            Self::SingleHop => u8::MAX,
            Self::MultiHop { minimum_ttl } => minimum_ttl,
        }
    }

    /// Over routers.
    pub fn is_multihop(self) -> bool {
        matches!(self, Self::MultiHop { .. })
    }
}

/// What a session is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The neighbour's address, of which there is one session for each kind of path.
    pub peer: IpAddr,
    /// The address that packets are sent from; the kernel's choice where absent.
    pub local: Option<IpAddr>,
    /// How packets travel.
    pub path: Path,
    /// Desired Min TX Interval and Required Min RX Interval, 1 us to 4,294 s.
    pub interval: Duration,
    /// Detect Mult, not 0: so many intervals without a packet of ours are a failure for the neighbour.
    pub multiplier: u8,
    /// Sends nothing before the neighbour has (RFC 5880 section 6.1).
    pub passive: bool,
}

impl Config {
    pub(super) fn interval_us(&self) -> u32 {
        u32::try_from(self.interval.as_micros())
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

/// Why a session left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// No packet came for the Detection Time.
    Silence {
        /// How long none came.
        silence: Duration,
    },
    /// The neighbour says that it is down, and why.
    Neighbor(Diagnostic),
    /// The neighbour's administrator holds it down: no failure of the path (RFC 5882 section 3.2).
    NeighborAdminDown,
    /// It is held down or removed here.
    AdminDown,
}

impl DownReason {
    /// Packets do not pass, or may not: not what an administrator asked for (RFC 5882 section 3.2).
    pub(crate) fn is_failure(self) -> bool {
        match self {
            Self::Silence { .. } | Self::Neighbor(_) => true,
            Self::NeighborAdminDown | Self::AdminDown => false,
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence { silence } => {
                write!(f, "no packet for {} ms", silence.as_millis())
            }
            Self::Neighbor(diagnostic) => {
                write!(f, "the neighbour signals down ({diagnostic})")
            }
            Self::NeighborAdminDown => f.write_str("the neighbour is administratively down"),
            Self::AdminDown => f.write_str("administratively down"),
        }
    }
}

/// A session has left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// Why.
    pub reason: DownReason,
    /// The C bit of the neighbour's latest packet: its BFD does not share fate with its control plane.
    pub independent: bool,
}

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of the session that were good.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// How often it came Up.
    pub ups: u64,
    /// How often it left Up.
    pub downs: u64,
    /// How often the Detection Time was extended, since this end looked late.
    pub late: u64,
    /// Packets sent later than they were due by half an interval and more.
    pub sent_late: u64,
}

/// A session as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is configured with.
    pub config: Config,
    /// Its state here.
    pub state: State,
    /// Its state at the other end, as heard last.
    pub remote_state: State,
    /// When the state last became, or stopped to be, Up; `None` where it never was.
    pub since: Option<Instant>,
    /// Why this end last left Up.
    pub diagnostic: Diagnostic,
    /// The same of the other end.
    pub remote_diagnostic: Diagnostic,
    /// The last time that it left Up.
    pub down: Option<Down>,
    /// Its number here.
    pub discriminator: u32,
    /// Its number at the other end; 0 where that is not known.
    pub remote_discriminator: u32,
    /// Longest time between packets sent; they are jittered to less.
    pub transmit_interval: Duration,
    /// Silence that is a failure; zero before the neighbour has been heard.
    pub detection_time: Duration,
    /// Desired Min TX Interval of the neighbour.
    pub remote_desired_min_tx: Duration,
    /// Required Min RX Interval of the neighbour.
    pub remote_required_min_rx: Duration,
    /// Detect Mult of the neighbour; 0 before it has been heard.
    pub remote_multiplier: u8,
    /// The neighbour asks for no periodic packets.
    pub remote_demand: bool,
    /// The C bit of the neighbour.
    pub remote_independent: bool,
    /// What was counted.
    pub counters: Counters,
}
