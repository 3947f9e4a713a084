//! Protocols and ports as people write them.

use std::ops::RangeInclusive;

/// IP protocols with names; the first of them have ports.
pub const PROTOCOLS: [(&str, u8); 5] = [
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("icmp", 1),
    ("icmpv6", 58),
];
const WITH_PORTS: usize = 3;

/// The number of a protocol, by its name or as a number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(name, _)| *name == text);
    known
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok())
}

/// Its name, where it has one.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    let known = PROTOCOLS.iter().find(|(_, one)| *one == number);
    known.map(|(name, _)| *name)
}

/// Its packets have ports.
pub fn has_ports(protocol: u8) -> bool {
    let with_ports = &PROTOCOLS[..WITH_PORTS];
    with_ports.iter().any(|(_, number)| *number == protocol)
}

/// A port, or a range such as `8000-8100`.
pub fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}
