//! Control packets (RFC 5880 section 4.1).
//!
//! ```text
//!  0                   1                   2                   3
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! |                       My Discriminator                        |
//! |                      Your Discriminator                       |
//! |                    Desired Min TX Interval                    |
//! |                   Required Min RX Interval                    |
//! |                 Required Min Echo RX Interval                 |
//! ```

use std::fmt;

/// Octets of a control packet without an authentication section.
pub const PACKET_LEN: usize = 24;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of one end of a session, as it stands in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// An administrator holds it down.
    AdminDown = 0,
    /// It hears nothing from the other end, or has only begun to.
    Down = 1,
    /// It hears the other end, and does not know whether it is heard.
    Init = 2,
    /// Packets pass in both directions.
    Up = 3,
}

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// Why an end of a session last left Up, or does not get there (RFC 5880 section 4.1); 0 to 31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// No packet came for the Detection Time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The other end said that it is down.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// An administrator holds the session down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// The number in packets.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no diagnostic"),
            1 => f.write_str("control detection time expired"),
            2 => f.write_str("echo function failed"),
            3 => f.write_str("neighbor signaled session down"),
            4 => f.write_str("forwarding plane reset"),
            5 => f.write_str("path down"),
            6 => f.write_str("concatenated path down"),
            7 => f.write_str("administratively down"),
            8 => f.write_str("reverse concatenated path down"),
            other => write!(f, "diagnostic {other}"),
        }
    }
}

/// A control packet. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the receiver is to answer at once.
    pub poll: bool,
    /// F: the answer to P.
    pub last: bool,
    /// C: the sender's BFD goes on when its control plane does not.
    pub independent: bool,
    /// D: the receiver is to send no periodic packets.
    pub demand: bool,
    /// Intervals without a packet until the sender's silence is a failure; not 0.
    pub multiplier: u8,
    /// The sender's number of the session; not 0.
    pub my_discriminator: u32,
    /// The receiver's number of the session; 0 where the sender does not know it.
    pub your_discriminator: u32,
    /// The sender wants to send no more often.
    pub desired_min_tx: u32,
    /// The sender can receive no more often; 0: send nothing periodically.
    pub required_min_rx: u32,
    /// The same of Echo packets; 0: none.
    pub required_min_echo_rx: u32,
}

/// Why a received packet is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// It is no control packet: shorter than one, or its Length does not fit.
    Length,
    /// Another version than 1.
    Version,
    /// Detect Mult is 0.
    Multiplier,
    /// The Multipoint bit is set.
    Multipoint,
    /// It is authenticated, and no session is here.
    Authentication,
    /// My Discriminator is 0.
    MyDiscriminator,
    /// Your Discriminator names no session, or one with another neighbour or over another number of hops.
    YourDiscriminator,
    /// Your Discriminator is 0 in a state where the sender knows it.
    State,
    /// It has come over more hops than it may (RFC 5881 section 5, RFC 5082).
    Ttl,
    /// From an address that there is no session with.
    Stranger,
    /// On the link, by another interface than leads to the neighbour (RFC 5881 section 3).
    Interface,
}

impl Discard {
    /// All of them; each is at the place of its [`Discard::index`].
    pub const ALL: [Self; 11] = [
        Self::Length,
        Self::Version,
        Self::Multiplier,
        Self::Multipoint,
        Self::Authentication,
        Self::MyDiscriminator,
        Self::YourDiscriminator,
        Self::State,
        Self::Ttl,
        Self::Stranger,
        Self::Interface,
    ];

    /// Its place in [`Discard::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Version => "version",
            Self::Multiplier => "multiplier",
            Self::Multipoint => "multipoint",
            Self::Authentication => "authentication",
            Self::MyDiscriminator => "my-discriminator",
            Self::YourDiscriminator => "your-discriminator",
            Self::State => "state",
            Self::Ttl => "ttl",
            Self::Stranger => "stranger",
            Self::Interface => "interface",
        }
    }
}

impl Packet {
    /// Reads a packet, and looks at what needs no session to be looked at (RFC 5880 section 6.8.6).
    ///
    /// # Errors
    /// Why it is discarded.
    pub fn decode(octets: &[u8]) -> Result<Self, Discard> {
        let Some((packet, rest)) = octets.split_first_chunk::<PACKET_LEN>() else {
            return Err(Discard::Length);
        };
        let [first, flags, multiplier, length, ..] = *packet;
        if first >> 5 != VERSION {
            return Err(Discard::Version);
        }
        let authenticated = flags & AUTHENTICATED != 0;
        let least = if authenticated {
            PACKET_LEN + 2
        } else {
            PACKET_LEN
        };
        let most = PACKET_LEN + rest.len();
        if !(least..=most).contains(&usize::from(length)) {
            return Err(Discard::Length);
        }
        if multiplier == 0 {
            return Err(Discard::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        let word = |at: usize| {
            let octets = [at, at + 1, at + 2, at + 3].map(|at| packet[at]);
            u32::from_be_bytes(octets)
        };
        let decoded = Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_bits(flags >> 6),
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        if decoded.my_discriminator == 0 {
            return Err(Discard::MyDiscriminator);
        }
        let greets = matches!(decoded.state, State::Down | State::AdminDown);
        if decoded.your_discriminator == 0 && !greets {
            return Err(Discard::State);
        }
        if authenticated {
            return Err(Discard::Authentication);
        }
        Ok(decoded)
    }

    /// Its octets.
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let mut octets = [0; PACKET_LEN];
        octets[0] = VERSION << 5 | self.diagnostic.0;
        octets[1] = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.last, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.demand, DEMAND);
        octets[2] = self.multiplier;
        octets[3] = PACKET_LEN as u8;
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (place, word) in octets[4..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Up, multiplier 3, 300 ms both ways, as FRR sends it.
    const SAMPLE: [u8; PACKET_LEN] = [
        0x20, 0xc0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0xc3,
        0x50,
    ];

    #[test]
    fn a_packet_of_another_implementation_is_read() {
        let packet = Packet::decode(&SAMPLE).unwrap();
        assert_eq!(packet.state, State::Up);
        assert_eq!((packet.my_discriminator, packet.your_discriminator), (7, 9));
        assert_eq!(packet.desired_min_tx, 300_000);
        assert_eq!(packet.required_min_rx, 300_000);
        assert_eq!(packet.required_min_echo_rx, 50_000);
        assert_eq!(packet.encode(), SAMPLE);
    }

    #[test]
    fn each_bad_packet_has_its_reason() {
        let changed = |at: usize, value: u8| {
            let mut octets = SAMPLE.to_vec();
            octets[at] = value;
            octets
        };
        let cases = [
            (SAMPLE[..23].to_vec(), Discard::Length),
            (Vec::new(), Discard::Length),
            (changed(3, 23), Discard::Length),
            (changed(3, 25), Discard::Length),
            (changed(0, 0x00), Discard::Version),
            (changed(0, 0x40), Discard::Version),
            (changed(2, 0), Discard::Multiplier),
            (changed(1, 0xc1), Discard::Multipoint),
            (changed(7, 0), Discard::MyDiscriminator),
            (changed(11, 0), Discard::State),
            // Too short for the authentication section that it says it has.
            (changed(1, 0xc4), Discard::Length),
        ];
        for (octets, reason) in cases {
            assert_eq!(Packet::decode(&octets), Err(reason), "{octets:?}");
        }
        let mut authenticated = changed(1, 0xc4);
        authenticated[3] = 26;
        authenticated.extend([1, 2]);
        assert_eq!(Packet::decode(&authenticated), Err(Discard::Authentication));
        // What follows the packet is no part of it.
        let mut longer = SAMPLE.to_vec();
        longer.extend([0; 8]);
        assert!(Packet::decode(&longer).is_ok());
        // Who does not know us yet says 0, and may.
        let mut greeting = changed(1, 0x40);
        greeting[11] = 0;
        assert!(Packet::decode(&greeting).is_ok());
    }

    #[test]
    fn reasons_are_where_they_say() {
        for (place, reason) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(packet) = Packet::decode(&octets) {
                let again = Packet::decode(&packet.encode());
                prop_assert_eq!(again, Ok(packet));
            }
        }
    }
}
