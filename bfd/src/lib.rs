//! Bidirectional Forwarding Detection (RFC 5880) over one hop (RFC 5881) and several (RFC 5883), without a clock, a socket, a thread or a
//! log: packets and time go in, packets, deadlines and events come out.
//!
//! | module | what it is |
//! |---|---|
//! | `packet` | control packets from and to octets, and why a packet is discarded (RFC 5880 sections 4.1 and 6.8.6) |
//! | `session` | the state machine of one session, with its timers and Poll Sequences (RFC 5880 section 6.8) |
//! | `engine` | all sessions: which packet is whose, what is due next, what is to be sent and told |
//! | `deadlines` | the session that is due first, among thousands |
//!
//! Asynchronous mode only: no Echo function, no authentication. Demand mode is obeyed where the other end asks for it, and never asked for.

mod deadlines;
mod engine;
mod packet;
mod session;

pub use engine::{Change, Engine, Event, Received, SessionId, Transmit};
pub use packet::{Diagnostic, Discard, PACKET_LEN, Packet, State};
pub use session::{Config, Counters, Down, DownReason, Path, Status};

/// UDP port of single-hop sessions (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of multihop sessions (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Source ports that packets may be sent from (RFC 5881 section 4).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
