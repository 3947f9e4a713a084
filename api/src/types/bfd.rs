//! Bidirectional Forwarding Detection (RFC 5880).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Why, words};

words! {
    /// State of one end of a BFD session (RFC 5880 section 6.2).
    BfdState {
        /// An administrator holds it down.
        AdminDown = "admin-down",
        /// It hears nothing from the other end, or has only begun to.
        Down = "down",
        /// It hears the other end, and does not know whether it is heard.
        Init = "init",
        /// Packets pass in both directions.
        Up = "up",
    }
}

words! {
    /// Why a BFD session last left `up`.
    BfdDownCode {
        /// No packet came for the detection time.
        Silence = "silence",
        /// The neighbour says that it is down.
        Neighbor = "neighbor",
        /// The neighbour's administrator holds it down.
        NeighborAdminDown = "neighbor-admin-down",
        /// It was held down or removed here.
        AdminDown = "admin-down",
    }
}

words! {
    /// How the kernel schedules the thread of BFD.
    BfdScheduling {
        /// Before everything that is not real time (SCHED_FIFO).
        RealTime = "real-time",
        /// With more of the processor than others.
        Nice = "nice",
        /// As anything else.
        Ordinary = "ordinary",
    }
}

/// The BFD session with a neighbour. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BfdSession {
    /// Its state here.
    pub state: BfdState,
    /// Its state at the neighbour, as heard last.
    pub remote_state: BfdState,
    /// The neighbour is behind routers (RFC 5883), or on the link (RFC 5881).
    pub multihop: bool,
    /// The least TTL of packets that are taken.
    pub minimum_ttl: u8,
    /// Seconds since it came up, or went down; absent where it never was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Why it is down, or was last; absent where it never was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Why<BfdDownCode>>,
    /// Why packets cannot be sent, where they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The session's number here.
    pub discriminator: u32,
    /// Its number at the neighbour, 0 where it is not known.
    pub remote_discriminator: u32,
    /// Longest time between packets sent.
    pub transmit_interval: u64,
    /// Silence that is a failure; 0 before the neighbour has been heard.
    pub detection_time: u64,
    /// The neighbour wants to send no more often.
    pub remote_transmit_interval: u64,
    /// The neighbour can receive no more often.
    pub remote_receive_interval: u64,
    /// So many intervals without a packet of its are a failure, as the neighbour says; 0 before it has been heard.
    pub remote_multiplier: u8,
    /// The neighbour asks for no periodic packets.
    pub remote_demand: bool,
    /// The neighbour's BFD goes on when its control plane does not (C bit).
    pub remote_independent: bool,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that could not be sent.
    pub unsent: u64,
    /// How often it came up.
    pub ups: u64,
    /// How often it left `up`.
    pub downs: u64,
    /// How often the neighbour was given more time, since this router looked late itself.
    pub late: u64,
    /// Packets sent late by half an interval and more.
    pub sent_late: u64,
}

/// How BFD does on this router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BfdStatus {
    /// How its thread is scheduled.
    pub scheduling: BfdScheduling,
    /// Its sessions.
    pub sessions: u64,
    /// Those that are up.
    pub up: u64,
    /// What keeps packets from coming in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Packets discarded, by reason.
    pub discarded: Vec<BfdDiscarded>,
    /// Packets that the kernel dropped before they were read: those for a neighbour on the link that had come over a router, and those that
    /// found no room.
    pub dropped: u64,
    /// How late the thread was woken for what was due.
    pub lateness: BfdLateness,
}

/// Packets discarded for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BfdDiscarded {
    /// `length`, `version`, `multiplier`, `multipoint`, `authentication`, `my-discriminator`, `your-discriminator`, `state`: malformed, or of
    /// no session; `ttl`: from too far away; `stranger`: from an address without a session.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// How late a thread was woken. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BfdLateness {
    /// Classes of lateness, the shortest first.
    pub classes: Vec<BfdLatenessClass>,
    /// All together.
    pub sum: u64,
    /// The longest.
    pub longest: u64,
}

/// How often a thread was woken late by so much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BfdLatenessClass {
    /// At most this; absent in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// How often.
    pub times: u64,
}
