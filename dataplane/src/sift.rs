//! What a raw socket of ICMP is given: the kernel hands every packet of the host to each, and a flood would hide what it waits for.

use std::io;

use socket2::{SockFilter, Socket};

/// Instructions of classic BPF.
const LOAD_IP_LENGTH: u16 = 0xb1;
const LOAD_NOTHING: u16 = 0x01;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Octets, behind the beginning of the ICMP header, that have to be these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Octet(u32, u8),
    Half(u32, u16),
    Word(u32, u32),
}

impl Field {
    /// From the place in X on.
    fn test(self, refuse: u8) -> [SockFilter; 2] {
        let (load, at, value) = match self {
            Self::Octet(at, value) => (0x50, at, value.into()),
            Self::Half(at, value) => (0x48, at, value.into()),
            Self::Word(at, value) => (0x40, at, value),
        };
        [
            SockFilter::new(load, 0, 0, at),
            SockFilter::new(JUMP_IF_EQUAL, 0, refuse, value),
        ]
    }
}

/// An address as fields, from this place on.
pub(crate) fn address(at: u32, address: std::net::IpAddr) -> Vec<Field> {
    let words = match address {
        std::net::IpAddr::V4(address) => vec![address.to_bits()],
        std::net::IpAddr::V6(address) => (0..4)
            .map(|word| (address.to_bits() >> (96 - 32 * word)) as u32)
            .collect(),
    };
    let places = (at..).step_by(4);
    places
        .zip(words)
        .map(|(at, word)| Field::Word(at, word))
        .collect()
}

/// The socket is given packets alone that have all of these.
///
/// # Errors
/// In the kernel's words.
pub(crate) fn only(socket: &Socket, v6: bool, fields: &[Field]) -> io::Result<()> {
    // Of IPv4 a raw socket has the IP header too.
    let mut filter = vec![match v6 {
        false => SockFilter::new(LOAD_IP_LENGTH, 0, 0, 0),
        true => SockFilter::new(LOAD_NOTHING, 0, 0, 0),
    }];
    for (at, field) in fields.iter().enumerate() {
        // Over the tests that are left, and over what takes the packet.
        let left = 2 * (fields.len() - at - 1) as u8 + 1;
        filter.extend(field.test(left));
    }
    filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    filter.push(SockFilter::new(RETURN, 0, 0, 0));
    socket.attach_filter(&filter)
}
