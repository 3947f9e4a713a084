//! The BGP-4 speaker without a clock, a socket or a thread: session state machine, RIBs, decision process, update
//! groups. All octets and all time enter as arguments, so a test runs an hour in a millisecond and a recorded run
//! replays.

pub use weft_bgp_policy as policy;

pub mod rib;
pub mod session;
pub mod speaker;
