//! A packet of a tenant to a far router and back, to know that the tunnel carries and that the far router forwards.
//!
//! The packet goes out with the outer headers of the tunnel, written here, to one far router and in one VNI: no route of the kernel
//! has to be made for it, whichever of several ways a route would take. Inside, its source and destination are one address of ours
//! in the tenant. So the far router does with it what it does with every packet of the tenant: it takes the packet out of the
//! tunnel, looks its destination up in the tenant's table, and sends it on, which is back to us. It gets there with a TTL of 1 and
//! goes nowhere else. Nothing has to answer: a far router of any version does, no ICMP error is asked for that a rate limit might
//! hold back, and the router needs no address in the tenant.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use weft_overlay::{Encapsulation, EndpointId, Vni};

use crate::model::{Carrier, mac};
use crate::proof::Proofs;
use crate::sift::{self, Field};

/// The far router decrements it once.
pub(crate) const TTL: u8 = 2;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// Echo requests (RFC 792, RFC 4443).
const REQUEST: u8 = 8;
const REQUEST6: u8 = 128;
/// What is before the payload of an echo request.
const ECHO_HEADER: usize = 8;
/// Octets of what tells our probes from everything else.
const NONCE: usize = 8;

/// A router that tunnels lead to, and how packets get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FarEnd {
    /// Its tunnel endpoint.
    pub address: IpAddr,
    /// What packets are carried in.
    pub encapsulation: Encapsulation,
    /// What stands for an IPv6 endpoint.
    pub endpoint_id: Option<EndpointId>,
    /// The UDP port that it listens at; none of GRE.
    pub port: Option<u16>,
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A probe that came back: its token.
    Probe(u64),
    /// A router on the way has told the kernel that a packet to this address was too large.
    TooLarge(IpAddr),
}

/// Sends packets through tunnels, and hears those that come back.
pub struct TunnelEcho {
    own: (IpAddr, EndpointId),
    /// Sends VXLAN and VXLAN-GPE.
    udp: Socket,
    /// Sends GRE, which is a protocol of its own.
    gre: Socket,
    /// Raw sockets, for probes that come back and for errors; these types only for their safe receive: nothing of it is about UDP.
    v4: UdpSocket,
    v6: UdpSocket,
    errors_v4: UdpSocket,
    errors_v6: UdpSocket,
    /// In each packet, so that the kernel hands over hardly anything else.
    nonce: [u8; NONCE],
    /// In each packet another one, so that nothing else is taken for it: far routers see many of them.
    proofs: Proofs,
}

/// Packets of a socket go as they are, or are fragmented where they have to be. What the kernel knows of the way does not matter: it is
/// what is asked for.
#[allow(unsafe_code, reason = "neither socket2 nor nix has the option")]
pub(crate) fn keep_whole(socket: &Socket, v6: bool, dont_fragment: bool) -> io::Result<()> {
    let how = match dont_fragment || v6 {
        true => libc::IP_PMTUDISC_PROBE,
        false => libc::IP_PMTUDISC_DONT,
    };
    let (level, option) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let (fd, len) = (socket.as_raw_fd(), size_of_val(&how) as libc::socklen_t);
    // SAFETY: the value lives as long as the call, and is as long as is said.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const how).cast(), len) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket that is given packets of ICMP alone that have these fields.
fn sifted(v6: bool, fields: &[Field]) -> io::Result<UdpSocket> {
    let socket = match v6 {
        false => raw(Domain::IPV4, Protocol::ICMPV4),
        true => raw(Domain::IPV6, Protocol::ICMPV6),
    }?;
    sift::only(&socket, v6, fields)?;
    UdpSocket::from_std(socket.into())
}

/// Our probes, as they come back.
fn probes(v6: bool, nonce: [u8; NONCE]) -> [Field; 3] {
    let kind = if v6 { REQUEST6 } else { REQUEST };
    let [first, second] = [0, 4].map(|at| {
        let word = [nonce[at], nonce[at + 1], nonce[at + 2], nonce[at + 3]];
        u32::from_be_bytes(word)
    });
    let at = ECHO_HEADER as u32;
    [
        Field::Octet(0, kind),
        Field::Word(at, first),
        Field::Word(at + 4, second),
    ]
}

/// Errors of packets that were too large; of those from our endpoint, where it is of that family.
fn errors(v6: bool, own: IpAddr) -> Vec<Field> {
    let (kind, source) = match v6 {
        false => (Field::Half(0, 0x0304), 8 + 12),
        true => (Field::Octet(0, 2), 8 + 8),
    };
    let mut fields = vec![kind];
    if own.is_ipv6() == v6 {
        fields.extend(sift::address(source, own));
    }
    fields
}

impl TunnelEcho {
    /// Opens what it needs; `own` is this router's tunnel endpoint and the id that stands for it, `dont_fragment` what the outer packets of
    /// tunnels over IPv4 ask for.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, and while the endpoint is no address of this host.
    pub fn open(own: IpAddr, id: EndpointId, dont_fragment: bool) -> io::Result<Self> {
        let domain = Domain::for_address(SocketAddr::new(own, 0));
        let udp = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        udp.set_nonblocking(true)?;
        udp.bind(&SocketAddr::new(own, 0).into())?;
        let gre = raw(domain, Protocol::from(libc::IPPROTO_GRE))?;
        gre.bind(&SocketAddr::new(own, 0).into())?;
        for socket in [&udp, &gre] {
            keep_whole(socket, own.is_ipv6(), dont_fragment)?;
        }
        // From ourselves comes nothing, so that the kernel copies no packet of others to it.
        gre.connect(&SocketAddr::new(own, 0).into())?;
        let nonce = RandomState::new().hash_one(0).to_be_bytes();
        Ok(Self {
            own: (own, id),
            udp,
            gre,
            v4: sifted(false, &probes(false, nonce))?,
            v6: sifted(true, &probes(true, nonce))?,
            errors_v4: sifted(false, &errors(false, own))?,
            errors_v6: sifted(true, &errors(true, own))?,
            nonce,
            proofs: Proofs::default(),
        })
    }

    /// Sends probe `token` to a far router, from and to an address of ours in the tenant that it knows as `vni`. Never waits. It has
    /// `size` octets with its outer headers, where that is more than it needs: what is behind the tenant's packet is padding, which goes
    /// no further than the far router, so that the size is that of the way there and not of the way back.
    ///
    /// # Errors
    /// Where this host does not let it out, in the kernel's words: no route to the far router, or a filter.
    pub fn send(
        &self,
        to: &FarEnd,
        vni: Vni,
        address: IpAddr,
        token: u64,
        size: Option<u16>,
    ) -> io::Result<()> {
        let inner = inner_packet(address, self.nonce, (token, self.proofs.of_probe(token)));
        let mut octets = encapsulated(self.own, to, vni, &inner);
        let outer = match (to.address, to.port) {
            (IpAddr::V4(_), Some(_)) => 20 + 8,
            (IpAddr::V4(_), None) => 20,
            (IpAddr::V6(_), Some(_)) => 40 + 8,
            (IpAddr::V6(_), None) => 40,
        };
        let padded = usize::from(size.unwrap_or_default()).saturating_sub(outer);
        octets.resize(padded.max(octets.len()), 0);
        let (socket, port) = match to.port {
            Some(port) => (&self.udp, port),
            None => (&self.gre, 0),
        };
        let to = SocketAddr::new(to.address, port);
        socket.send_to(&octets, &to.into()).map(drop)
    }

    /// Waits for the next probe that comes back, or for word that a packet was too large. It may be dropped at any time.
    pub async fn receive(&self) -> Heard {
        let (mut of_v4, mut of_v6) = ([0; 256], [0; 256]);
        let (mut error_v4, mut error_v6) = ([0; 256], [0; 256]);
        loop {
            // Errors come last: anybody may send them.
            let (v6, packet, received) = tokio::select! {
                biased;
                received = self.v4.recv_from(&mut of_v4) => (false, &of_v4, received),
                received = self.v6.recv_from(&mut of_v6) => (true, &of_v6, received),
                received = self.errors_v4.recv_from(&mut error_v4) => (false, &error_v4, received),
                received = self.errors_v6.recv_from(&mut error_v6) => (true, &error_v6, received),
            };
            // An error is what somebody on the way said of an earlier packet: that one does not come back.
            let Ok((len, _)) = received else { continue };
            if let Some(address) = too_large(v6, &packet[..len]) {
                return Heard::TooLarge(address);
            }
            if let Some((token, proof)) = token_of(v6, &packet[..len], self.nonce)
                && proof == self.proofs.of_probe(token)
            {
                return Heard::Probe(token);
            }
        }
    }
}

/// The tenant's packet: an echo request with our words in it.
fn inner_packet(address: IpAddr, nonce: [u8; NONCE], (token, proof): (u64, u64)) -> Vec<u8> {
    let mut echo = vec![0; ECHO_HEADER];
    echo[4..].copy_from_slice(&(token as u32).to_be_bytes());
    echo.extend_from_slice(&nonce);
    echo.extend_from_slice(&token.to_be_bytes());
    echo.extend_from_slice(&proof.to_be_bytes());
    let length = echo.len() as u16;
    match address {
        IpAddr::V4(address) => {
            echo[0] = REQUEST;
            let sum = checksum(&[&echo]);
            echo[2..4].copy_from_slice(&sum);
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&(20 + length).to_be_bytes());
            header.extend_from_slice(&[0, 0, 0, 0, TTL, ICMP, 0, 0]);
            header.extend_from_slice(&address.octets());
            header.extend_from_slice(&address.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            [header, echo].concat()
        }
        IpAddr::V6(address) => {
            echo[0] = REQUEST6;
            let octets = address.octets();
            // The pseudo-header of RFC 8200 section 8.1.
            let rest = [0, 0, (length >> 8) as u8, length as u8, 0, 0, 0, ICMP6];
            let sum = checksum(&[&octets, &octets, &rest, &echo]);
            echo[2..4].copy_from_slice(&sum);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&[ICMP6, TTL]);
            header.extend_from_slice(&octets);
            header.extend_from_slice(&octets);
            [header, echo].concat()
        }
    }
}

/// The checksum of RFC 1071 over parts of an even number of octets each.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.as_chunks::<2>().0);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// A tenant's packet with the headers of the tunnel behind the outer IP and UDP ones: RFC 7348 with its Ethernet header, VXLAN-GPE
/// (draft-ietf-nvo3-vxlan-gpe) or GRE with a key (RFC 2890).
fn encapsulated(own: (IpAddr, EndpointId), to: &FarEnd, vni: Vni, inner: &[u8]) -> Vec<u8> {
    const VNI_IS_VALID: u8 = 0x08;
    const NEXT_PROTOCOL_IS_VALID: u8 = 0x04;
    const KEY_IS_THERE: u8 = 0x20;
    let v6 = inner.first().is_some_and(|first| first >> 4 == 6);
    let ether_type: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    let [_, vni @ ..] = vni.get().to_be_bytes();
    let header = match Carrier::of(to.encapsulation, to.address, to.port) {
        Carrier::Vxlan(_) => {
            let vxlan = [VNI_IS_VALID, 0, 0, 0, vni[0], vni[1], vni[2], 0];
            let (there, here) = (mac(to.address, to.endpoint_id), mac(own.0, Some(own.1)));
            [&vxlan[..], &there, &here, &ether_type].concat()
        }
        Carrier::VxlanGpe(_) => {
            let flags = VNI_IS_VALID | NEXT_PROTOCOL_IS_VALID;
            let protocol = if v6 { 2 } else { 1 };
            vec![flags, 0, 0, protocol, vni[0], vni[1], vni[2], 0]
        }
        Carrier::Gre | Carrier::Gre6 => [
            &[KEY_IS_THERE, 0][..],
            &ether_type,
            &[0, vni[0], vni[1], vni[2]],
        ]
        .concat(),
    };
    [&header, inner].concat()
}

/// The token of a packet that looks like one of ours, and what is to prove it, as a raw socket hands it over: with its header where it is IPv4.
fn token_of(v6: bool, packet: &[u8], nonce: [u8; NONCE]) -> Option<(u64, u64)> {
    let header = match v6 {
        true => 0,
        false => usize::from(packet.first()? & 0x0f) * 4,
    };
    let echo = packet.get(header..)?;
    // What came back, and not the kernel's answer to it.
    let kind = if v6 { REQUEST6 } else { REQUEST };
    let (ours, token) = echo.get(ECHO_HEADER..)?.split_first_chunk::<NONCE>()?;
    let (token, proof) = token.split_first_chunk::<8>()?;
    let said = [*token, *proof.first_chunk::<8>()?].map(u64::from_be_bytes);
    (*echo.first()? == kind && *ours == nonce).then_some((said[0], said[1]))
}

/// Where a packet was to go that somebody on the way said was too large: Fragmentation needed (RFC 792, RFC 1191), Packet too big
/// (RFC 4443). It is not believed: the kernel is asked.
fn too_large(v6: bool, packet: &[u8]) -> Option<IpAddr> {
    if v6 {
        // Behind 8 octets is the packet, with its destination after 24.
        let to = packet.get(8 + 24..)?.first_chunk::<16>()?;
        return (packet[0] == 2).then(|| IpAddr::from(*to));
    }
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let icmp = packet.get(header..)?;
    let to = icmp.get(8 + 16..)?.first_chunk::<4>()?;
    (icmp[..2] == [3, 4]).then(|| IpAddr::from(*to))
}

/// Addresses of the router in a tenant that a probe can come from and go to.
pub(crate) fn can_be_probed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_loopback() && !address.is_link_local() && address != Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(address) => {
            !address.is_loopback()
                && !address.is_unicast_link_local()
                && address != Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE_OF_TEST: [u8; NONCE] = *b"weft-now";

    #[test]
    fn only_what_we_sent_is_taken_for_one_of_ours() {
        for address in ["10.0.1.1", "2001:db8:1::1"] {
            let address: IpAddr = address.parse().unwrap();
            let v6 = address.is_ipv6();
            let whole = inner_packet(address, NONCE_OF_TEST, (0x0102_0304_0506_0708, 9));
            // Of IPv6 the kernel keeps the header.
            let handed = if v6 { &whole[40..] } else { &whole[..] };
            let token = token_of(v6, handed, NONCE_OF_TEST);
            assert_eq!(token, Some((0x0102_0304_0506_0708, 9)));
            assert_eq!(token_of(v6, handed, *b"somebody"), None);
            // The kernel answers an echo request that is for us.
            let mut answer = handed.to_vec();
            answer[if v6 { 0 } else { 20 }] = if v6 { 129 } else { 0 };
            assert_eq!(token_of(v6, &answer, NONCE_OF_TEST), None);
            for len in 0..handed.len() {
                assert_eq!(token_of(v6, &handed[..len], NONCE_OF_TEST), None, "{len}");
            }
        }
    }

    /// Forged errors and other tenants' echo requests, more than any socket has room for, hide neither a probe nor word of a packet that was
    /// too large.
    #[test]
    fn a_flood_hides_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: root (raw sockets)");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let own = Ipv4Addr::LOCALHOST;
        runtime.block_on(async {
            let id = EndpointId(own);
            let echo = TunnelEcho::open(own.into(), id, true).unwrap();
            let to = SocketAddr::new(own.into(), 0).into();
            let stranger = raw(Domain::IPV4, Protocol::ICMPV4).unwrap();
            let packet = |nonce, probe| inner_packet(own.into(), nonce, probe)[20..].to_vec();
            let proof = echo.proofs.of_probe(7);
            let mut error = [&[3, 4, 0, 0, 0, 0, 5, 120, 0x45][..], &[0; 11]].concat();
            error.extend([own.octets(), [192, 0, 2, 9]].concat());
            let mut foreign = error.clone();
            foreign[8 + 12] ^= 1;
            // A far router knows what all probes have in common.
            let forged = packet(echo.nonce, (8, proof));
            stranger.send_to(&forged, &to).unwrap();
            let flood = [packet(*b"somebody", (7, proof)), foreign, error.clone()];
            for octets in flood.iter().cycle().take(60_000) {
                // What finds no room is a flood, too.
                let _ = stranger.send_to(octets, &to);
            }
            stranger
                .send_to(&packet(echo.nonce, (7, proof)), &to)
                .unwrap();
            let patience = std::time::Duration::from_secs(10);
            let heard = tokio::time::timeout(patience, echo.receive()).await;
            assert_eq!(heard.expect("the probe"), Heard::Probe(7));
            let heard = tokio::time::timeout(patience, echo.receive()).await;
            assert_eq!(
                heard.expect("an error"),
                Heard::TooLarge([192, 0, 2, 9].into())
            );
        });
    }

    #[test]
    fn word_of_a_packet_that_was_too_large_is_heard() {
        let header = [&[0x45][..], &[0; 15], &[192, 0, 2, 2]].concat();
        let told = [&[0x45][..], &[0; 19], &[3, 4, 0, 0, 0, 0, 5, 120], &header].concat();
        assert_eq!(too_large(false, &told), Some([192, 0, 2, 2].into()));
        let v6: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
        let told6 = [&[2, 0, 0, 0, 0, 0, 5, 120][..], &[0x60; 24], &v6.octets()].concat();
        assert_eq!(too_large(true, &told6), Some(v6.into()));
        for len in 0..told6.len() {
            assert_eq!(too_large(true, &told6[..len]), None, "{len}");
            assert_eq!(too_large(false, &told[..len.min(told.len() - 1)]), None);
        }
        // Unreachable is another word.
        let told = [&[0x45][..], &[0; 19], &[3, 1, 0, 0, 0, 0, 0, 0], &header].concat();
        assert_eq!(too_large(false, &told), None);
    }

    #[test]
    fn the_packet_inside_is_whole() {
        let v4 = inner_packet([10, 0, 1, 1].into(), NONCE_OF_TEST, (7, 9));
        assert_eq!((v4[0], v4[8], v4[9]), (0x45, 2, 1));
        assert_eq!(usize::from(u16::from_be_bytes([v4[2], v4[3]])), v4.len());
        // A sum that is right sums up to zero with itself.
        assert_eq!(checksum(&[&v4[..20]]), [0, 0]);
        assert_eq!(checksum(&[&v4[20..]]), [0, 0]);
        let v6 = inner_packet("2001:db8::1".parse().unwrap(), NONCE_OF_TEST, (7, 9));
        assert_eq!((v6[0], v6[6], v6[7]), (0x60, 58, 2));
        assert_eq!(
            usize::from(u16::from_be_bytes([v6[4], v6[5]])),
            v6.len() - 40
        );
        let pseudo = [0, 0, 0, v6[5], 0, 0, 0, 58];
        assert_eq!(checksum(&[&v6[8..40], &pseudo, &v6[40..]]), [0, 0]);
    }

    #[test]
    fn each_encapsulation_is_written_as_its_document_says() {
        let own = ([192, 0, 2, 1].into(), EndpointId([192, 0, 2, 1].into()));
        let vni = Vni::new(0x01_02_03).unwrap();
        let inner = inner_packet([10, 0, 1, 1].into(), NONCE_OF_TEST, (7, 9));
        let to = |encapsulation, port| FarEnd {
            address: [192, 0, 2, 2].into(),
            encapsulation,
            endpoint_id: None,
            port,
        };
        let header = |to: &FarEnd| {
            let mut octets = encapsulated(own, to, vni, &inner);
            assert!(octets.ends_with(&inner));
            octets.truncate(octets.len() - inner.len());
            octets
        };
        assert_eq!(
            header(&to(Encapsulation::Vxlan, Some(4789))),
            [
                8, 0, 0, 0, 1, 2, 3, 0, // VXLAN
                2, 0, 192, 0, 2, 2, 2, 0, 192, 0, 2, 1, 8, 0, // Ethernet
            ]
        );
        assert_eq!(
            header(&to(Encapsulation::VxlanGpe, Some(4790))),
            [0x0c, 0, 0, 1, 1, 2, 3, 0]
        );
        assert_eq!(
            header(&to(Encapsulation::Gre, None)),
            [0x20, 0, 8, 0, 0, 1, 2, 3]
        );
    }
}
