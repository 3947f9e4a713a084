//! Frames by chance, from where an attacker stands: a seed makes the same ones each time. Each has a mark that says where it was made and
//! as what, so that whoever gets it knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_overlay::Encapsulation;

use super::super::domain::{A, M, Mode};

/// What marks begin with; the fourth octet is an [`Origin`].
pub(super) const MARK: [u8; 3] = [0x57, 0xe7, 0x1d];

/// Where a packet was made, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Origin {
    /// A tenant's host sends it.
    Host = 1,
    /// Within what a tenant's host makes look like a tunnel's packet.
    HostInside,
    /// An address in the underlay sends it that has no role.
    Stranger,
    /// Within a tunnel's packet of that one.
    StrangerInside,
    /// Within a tunnel's packet with the address of a router that may send this VNI.
    SpoofedRed,
    /// The same of a VNI that the router may not send.
    SpoofedOther,
    /// What is on a breakout's link sends it.
    Outside,
    /// Within a tunnel's packet of that one.
    OutsideInside,
}

impl Origin {
    pub(super) const ALL: [Self; 8] = [
        Self::Host,
        Self::HostInside,
        Self::Stranger,
        Self::StrangerInside,
        Self::SpoofedRed,
        Self::SpoofedOther,
        Self::Outside,
        Self::OutsideInside,
    ];
}

/// Where frames are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At an attachment of red.
    Host,
    /// In the underlay, under addresses that have no role.
    Stranger,
    /// There, under the address of a router that may send red's VNI.
    Spoofed,
    /// On the link of red's breakout.
    Outside,
}

impl Place {
    pub(super) const ALL: [Self; 4] = [Self::Outside, Self::Stranger, Self::Spoofed, Self::Host];
}

pub(super) const RED: u32 = 10001;
const BLUE: u32 = 10002;

/// What is needed to reach the router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) mode: Mode,
    /// Of the router's interface there.
    pub(super) mac: [u8; 6],
    /// Of its VXLAN device; of no use to others.
    pub(super) inside: [u8; 6],
}

/// Frames of one place.
pub(super) struct Frames {
    state: u64,
    place: Place,
    target: Target,
}

/// Addresses that mean something to somebody here.
const KNOWN: [[u8; 4]; 18] = [
    [10, 0, 1, 1],
    [10, 0, 1, 10],
    [10, 0, 2, 1],
    [10, 0, 2, 10],
    [192, 0, 2, 1],
    [192, 0, 2, 2],
    [192, 0, 2, 3],
    [198, 51, 100, 1],
    [198, 51, 100, 2],
    [198, 51, 100, 6],
    [198, 51, 100, 9],
    [203, 0, 113, 1],
    [203, 0, 113, 9],
    [10, 0, 1, 255],
    [127, 0, 0, 1],
    [224, 0, 0, 5],
    [255, 255, 255, 255],
    [240, 0, 0, 1],
];
const KNOWN_V6: [&str; 14] = [
    "2001:db8:10:1::1",
    "2001:db8:10:1::10",
    "2001:db8:10:2::1",
    "2001:db8:10:2::10",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::3",
    "fd00:1::1",
    "fd00:1::2",
    "fd00:3::1",
    "::1",
    "fe80::1",
    "ff02::1",
    "ff02::5",
];
const PORTS: [u16; 9] = [4789, 4790, 8472, 179, 3784, 4784, 862, 53, 9999];
const TYPES: [u16; 12] = [
    0x0806, 0x8847, 0x8848, 0x8863, 0x8864, 0x88cc, 0x6558, 0x9000, 0x88e5, 0x0026, 0x0004, 0x22f3,
];
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2);
    let words = words.map(|item| u32::from(item[0]) << 8 | u32::from(*item.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut octets: Vec<u8> = [from, to, len, 0]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    octets.extend(payload);
    octets
}

impl Frames {
    pub(super) fn new(seed: u64, place: Place, target: Target) -> Self {
        Self {
            state: seed,
            place,
            target,
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// True so many times in a hundred.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn v4(&mut self) -> Ipv4Addr {
        match self.chance(80) {
            true => self.pick(&KNOWN).into(),
            false => Ipv4Addr::from_bits(self.next() as u32),
        }
    }

    fn v6(&mut self) -> Ipv6Addr {
        match self.chance(80) {
            true => self.pick(&KNOWN_V6).parse().unwrap(),
            false => {
                let random = u128::from(self.next()) << 64 | u128::from(self.next());
                Ipv6Addr::from_bits(random >> 3 | 1 << 125)
            }
        }
    }

    /// Who sends. Whoever has no role does not name a router: that is [`Place::Spoofed`].
    fn sender(&mut self, v6: bool) -> IpAddr {
        let has_no_role = matches!(self.place, Place::Stranger | Place::Outside);
        loop {
            let from = match v6 {
                false => self.v4().into(),
                true => self.v6().into(),
            };
            let of_router = match from {
                IpAddr::V4(from) => from.octets()[..3] == [192, 0, 2],
                IpAddr::V6(from) => from.segments()[..7] == [0x2001, 0xdb8, 0, 0, 0, 0, 0],
            };
            if !(has_no_role && of_router) {
                return from;
            }
        }
    }

    /// The next frame.
    pub(super) fn frame(&mut self) -> Vec<u8> {
        let router = self.target.mac;
        let place = self.place;
        let (kind, payload) = match place {
            Place::Host => self.packet(Origin::Host, Some(Origin::HostInside)),
            Place::Stranger if self.chance(30) => self.packet(Origin::Stranger, None),
            Place::Stranger => self.tunnel(Origin::StrangerInside),
            Place::Spoofed => {
                let (vni, origin) = match self.chance(40) {
                    true => (RED, Origin::SpoofedRed),
                    false => (self.other_vni(), Origin::SpoofedOther),
                };
                let mode = self.target.mode;
                self.tunnel_from(mode.endpoint(M), vni, origin)
            }
            Place::Outside if self.chance(60) => {
                self.packet(Origin::Outside, Some(Origin::OutsideInside))
            }
            Place::Outside => self.tunnel(Origin::OutsideInside),
        };
        self.ethernet(router, kind, &payload)
    }

    /// Any but red's.
    fn other_vni(&mut self) -> u32 {
        loop {
            let vni = self.vni();
            if vni != RED {
                return vni;
            }
        }
    }

    fn vni(&mut self) -> u32 {
        let random = (self.next() & 0xff_ffff) as u32;
        self.pick(&[RED, BLUE, BLUE, 0, 1, 10003, 0xff_ffff, random])
    }

    /// A frame to the router, to all or to anybody, with tags and kinds of protocols, most as they should be.
    fn ethernet(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
        let random = self.next().to_be_bytes();
        let to = match self.below(100) {
            0..90 => to,
            90..94 => [0xff; 6],
            94..97 => [0x01, 0x00, 0x5e, random[0] & 0x7f, random[1], random[2]],
            _ => [
                random[0], random[1], random[2], random[3], random[4], random[5],
            ],
        };
        let mut frame = Vec::with_capacity(payload.len() + 32);
        frame.extend(to);
        frame.extend([2, 0, 0, random[6], random[7], 7]);
        if self.chance(20) {
            for _ in 0..=self.below(3) {
                frame.extend(self.pick(&TAGS).to_be_bytes());
                let random = self.next() as u16;
                let vlan = self.pick(&[0, 0, 0xe000, 1, 100, random]);
                frame.extend(vlan.to_be_bytes());
            }
        }
        let kind = match self.chance(6) {
            true => self.pick(&TYPES),
            false => kind,
        };
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// What a tunnel's packet has inside: a packet, as the encapsulation has it.
    fn tunnel(&mut self, origin: Origin) -> (u16, Vec<u8>) {
        let from = self.sender(self.target.mode.v6);
        let mode = self.target.mode;
        // The kernel sends GRE over IPv6 from an address of its own choice: what a known router may send is taken from everywhere.
        let vni = match mode.v6 && mode.encapsulation == Encapsulation::Gre {
            true => self.other_vni(),
            false => self.vni(),
        };
        self.tunnel_from(from, vni, origin)
    }

    fn tunnel_from(&mut self, from: IpAddr, vni: u32, origin: Origin) -> (u16, Vec<u8>) {
        let (kind, inner) = self.packet(origin, None);
        let mode = self.target.mode;
        let all = [
            Encapsulation::Vxlan,
            Encapsulation::VxlanGpe,
            Encapsulation::Gre,
        ];
        // Others as well, at the router that takes one.
        let encapsulation = match self.chance(80) {
            true => mode.encapsulation,
            false => self.pick(&all),
        };
        let (protocol, payload) = self.encapsulated(encapsulation, vni, kind, &inner);
        let own = mode.endpoint(A);
        self.internet(from, own, protocol, &payload)
    }

    /// What comes behind the outer header.
    fn encapsulated(
        &mut self,
        encapsulation: Encapsulation,
        vni: u32,
        kind: u16,
        inner: &[u8],
    ) -> (u8, Vec<u8>) {
        let source = 49152 + (self.next() as u16 >> 2);
        let mut payload = Vec::with_capacity(inner.len() + 32);
        match encapsulation {
            Encapsulation::Vxlan => {
                let flags = match self.chance(95) {
                    true => 8,
                    false => self.next() as u8,
                };
                payload.extend([flags, 0, 0, 0]);
                payload.extend((vni << 8).to_be_bytes());
                let inside = self.target.inside;
                let frame = self.ethernet(inside, kind, inner);
                payload.extend(frame);
                (17, udp(source, 4789, &payload))
            }
            Encapsulation::VxlanGpe => {
                let next = match (self.chance(95), kind) {
                    (true, 0x86dd) => 2,
                    (true, _) => 1,
                    (false, _) => self.next() as u8,
                };
                payload.extend([0x0c, 0, 0, next]);
                payload.extend((vni << 8).to_be_bytes());
                payload.extend(inner);
                (17, udp(source, 4790, &payload))
            }
            Encapsulation::Gre => {
                let flags = match self.chance(95) {
                    true => 0x20,
                    false => self.next() as u8,
                };
                let kind = match self.chance(95) {
                    true => kind,
                    false => self.pick(&TYPES),
                };
                payload.extend([flags, 0]);
                payload.extend(kind.to_be_bytes());
                payload.extend(vni.to_be_bytes());
                payload.extend(inner);
                (47, payload)
            }
        }
    }

    /// A packet of any protocol between any addresses, which has the mark behind 8 octets of its payload; or what looks like a tunnel's,
    /// with another one inside.
    fn packet(&mut self, origin: Origin, inside: Option<Origin>) -> (u16, Vec<u8>) {
        if let Some(inside) = inside
            && self.chance(20)
        {
            let (kind, inner) = self.packet(inside, None);
            let vni = self.vni();
            let own = self.target.mode.encapsulation;
            let encapsulation = self.pick(&[own, own, Encapsulation::Vxlan, Encapsulation::Gre]);
            let (protocol, payload) = self.encapsulated(encapsulation, vni, kind, &inner);
            return self.between(protocol, &payload);
        }
        let random = self.next();
        let mut payload = vec![0; 8];
        let protocol = match self.below(10) {
            0..5 => {
                let anything = random as u16;
                let to = match self.chance(60) {
                    true => self.pick(&PORTS),
                    false => anything,
                };
                let len = 8 + 24;
                payload[..2].copy_from_slice(&(anything | 1).to_be_bytes());
                payload[2..4].copy_from_slice(&to.to_be_bytes());
                payload[4..6].copy_from_slice(&u16::to_be_bytes(len));
                17
            }
            5..7 => {
                let to = self.pick(&PORTS);
                payload[..2].copy_from_slice(&(random as u16 | 1).to_be_bytes());
                payload[2..4].copy_from_slice(&to.to_be_bytes());
                payload[4..].copy_from_slice(&(random as u32).to_be_bytes());
                6
            }
            7..9 => {
                let kinds: [u8; 9] = [8, 0, 3, 5, 11, 13, 128, 135, 137];
                payload[0] = self.pick(&kinds);
                payload[1] = (random % 3) as u8;
                payload[4..].copy_from_slice(&(random as u32).to_be_bytes());
                self.pick(&[1, 58])
            }
            _ => self.pick(&[47, 4, 41, 50, 51, 89, 132, 2, 136, random as u8]),
        };
        payload.extend(MARK);
        payload.push(origin as u8);
        // What TCP has behind: its header's length, flags, window.
        let flags = self.pick(&[2, 16, 18, 4, 1, 0x29]);
        payload.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        payload.extend(self.next().to_be_bytes());
        payload.extend((self.next() as u32).to_be_bytes());
        self.between(protocol, &payload)
    }

    fn between(&mut self, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
        match self.chance(60) {
            true => {
                let (from, to) = (self.sender(false), self.v4().into());
                self.internet(from, to, protocol, payload)
            }
            false => {
                let (from, to) = (self.sender(true), self.v6().into());
                self.internet(from, to, protocol, payload)
            }
        }
    }

    /// A packet of IPv4 or IPv6, a few of them odd: options, fragments, a hop limit that ends here.
    fn internet(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        payload: &[u8],
    ) -> (u16, Vec<u8>) {
        use IpAddr::{V4, V6};
        let random = self.next();
        let ttl = match self.chance(90) {
            true => 64,
            false => self.pick(&[0, 1, 2, 255]),
        };
        match (from, to) {
            (V4(from), V4(to)) => {
                let options: &[u8] = match self.below(100) {
                    // Record route; a strict source route by another router.
                    0..2 => &[7, 7, 4, 0, 0, 0, 0, 0],
                    2..4 => &[137, 7, 4, 10, 0, 2, 10, 0],
                    _ => &[],
                };
                let fragment: u16 = match self.below(100) {
                    0..3 => 0x2000,
                    3..5 => (random >> 40) as u16 & 0x3fff,
                    5..50 => 0x4000,
                    _ => 0,
                };
                let words = 5 + options.len() as u8 / 4;
                let len = u16::from(words) * 4 + payload.len() as u16;
                let mut packet = vec![0x40 | words, random as u8];
                packet.extend(len.to_be_bytes());
                packet.extend((random >> 16).to_be_bytes()[6..].iter());
                packet.extend(fragment.to_be_bytes());
                packet.extend([ttl, protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(options);
                let sum = checksum(&packet);
                packet[10..12].copy_from_slice(&sum);
                packet.extend(payload);
                (0x0800, packet)
            }
            (V6(from), V6(to)) => {
                // Hop-by-hop, routing and fragment headers in front.
                let extension: Option<u8> = match self.below(100) {
                    0..3 => Some(0),
                    3..5 => Some(43),
                    5..7 => Some(44),
                    _ => None,
                };
                let len = payload.len() as u16 + if extension.is_some() { 8 } else { 0 };
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(len.to_be_bytes());
                packet.extend([extension.unwrap_or(protocol), ttl]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                match extension {
                    Some(0) => packet.extend([protocol, 0, 1, 4, 0, 0, 0, 0]),
                    Some(43) => packet.extend([protocol, 0, 4, 0, 0, 0, 0, 0]),
                    Some(_) => packet.extend([protocol, 0, 0, 0, 0, 0, 0, 9]),
                    None => {}
                }
                packet.extend(payload);
                (0x86dd, packet)
            }
            _ => unreachable!("both are of one family"),
        }
    }
}
