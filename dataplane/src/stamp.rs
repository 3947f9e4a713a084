//! Test packets to a far router and back through the underlay: STAMP (RFC 8762) with the Extra Padding and the session identifier of
//! RFC 8972, in unauthenticated mode.
//!
//! They find how large packets may be where nothing inside a tunnel can tell: a router without an address in any tenant, which only
//! stitches, has nothing there that a packet could come back to. Between tunnel endpoints, by UDP, test packets take the way that tunnels
//! take. What comes back is without the padding, so that a size is that of the way there and not of the way back. Only those are
//! answered that may send into tunnels here, and with no more octets than they have sent.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::proof::Proofs;
use crate::tunnel_echo::keep_whole;

/// The UDP port of reflectors (RFC 8762 section 4.1).
pub const STAMP_PORT: u16 = 862;
/// Octets of a test packet, either way (RFC 8762 figures 2 and 4).
const PACKET: usize = 44;
/// Flags, type and length of a TLV (RFC 8972 section 4).
const TLV_HEADER: usize = 4;
const EXTRA_PADDING: u8 = 1;
/// Error Estimate (RFC 4656 section 4.1.2): the clock is set by nothing that is known, and right within 1 × 2^32 × 2^-32 seconds.
const ERROR_ESTIMATE: [u8; 2] = [32, 1];
/// Seconds from 1900, where NTP's timestamps begin, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// A test packet of a router that came in.
struct Received {
    from: SocketAddr,
    octets: [u8; PACKET],
    /// TTL or hop limit that it came with.
    ttl: u8,
}

/// Sends test packets, hears those that come back, and reflects those of others.
pub struct Stamp {
    own: IpAddr,
    sender: UdpSocket,
    /// Where the port was free.
    reflector: Option<UdpSocket>,
    /// Session-Sender Identifier (RFC 8972 section 3).
    session: [u8; 2],
    /// In place of the fraction of a second in each packet's timestamp, which comes back with it: nobody else knows it.
    proofs: Proofs,
    /// Of the last one sent: sequence numbers have four octets of it.
    last_token: u64,
}

impl Stamp {
    /// Opens what it sends by; `own` is this router's tunnel endpoint, `dont_fragment` what the outer packets of tunnels over IPv4 ask for.
    ///
    /// # Errors
    /// While the endpoint is no address of this host.
    pub fn open(own: IpAddr, dont_fragment: bool) -> io::Result<Self> {
        let sender = bind(SocketAddr::new(own, 0))?;
        keep_whole(&sender, own.is_ipv6(), dont_fragment)?;
        let [high, low, ..] = RandomState::new().hash_one(0).to_be_bytes();
        Ok(Self {
            own,
            sender: UdpSocket::from_std(sender.into())?,
            reflector: None,
            session: [high, low],
            proofs: Proofs::default(),
            last_token: 0,
        })
    }

    /// Begins to reflect, unless it does.
    ///
    /// # Errors
    /// While somebody else has [`STAMP_PORT`], and without CAP_NET_BIND_SERVICE.
    pub fn reflect(&mut self) -> io::Result<()> {
        if self.reflector.is_none() {
            let socket = bind(SocketAddr::new(self.own, STAMP_PORT))?;
            match self.own {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?,
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?,
            }
            self.reflector = Some(UdpSocket::from_std(socket.into())?);
        }
        Ok(())
    }

    /// Sends test packet `token`, of `size` octets with its IP header where that is more than it needs. Tokens grow. Never waits.
    ///
    /// # Errors
    /// Where this host does not let it out, in the kernel's words.
    pub fn send(&mut self, to: IpAddr, token: u64, size: u16) -> io::Result<()> {
        self.last_token = token;
        let mut sent = now();
        sent[4..].copy_from_slice(&self.proof(to, token));
        let octets = test_packet(token as u32, self.session, sent, payload(to, size));
        let to = SocketAddr::new(to, STAMP_PORT);
        SockRef::from(&self.sender)
            .send_to(&octets, &to.into())
            .map(drop)
    }

    /// Waits for the next test packet that comes back: from whom, and its token. Meanwhile those of routers in `known` are reflected. It
    /// may be dropped at any time.
    pub async fn receive(&self, known: &BTreeSet<IpAddr>) -> (IpAddr, u64) {
        let mut octets = [0; PACKET];
        loop {
            tokio::select! {
                received = self.sender.recv_from(&mut octets) => {
                    // An error is what somebody on the way said of an earlier packet: that one does not come back.
                    let Ok((PACKET, from)) = received else { continue };
                    let token = self.token(&octets);
                    if from.port() == STAMP_PORT
                        && octets[14..16] == self.session
                        && octets[32..36] == self.proof(from.ip(), token)
                    {
                        return (from.ip(), token);
                    }
                }
                received = next_to_reflect(self.reflector.as_ref()) => {
                    let Ok(received) = received else { continue };
                    let answered = is_answered(received.from, known);
                    if let Some(reflector) = self.reflector.as_ref().filter(|_| answered) {
                        // One that finds no room is lost like another.
                        let answer = reflected(&received, now());
                        let _ = SockRef::from(reflector).send_to(&answer, &received.from.into());
                    }
                }
            }
        }
    }

    fn proof(&self, to: IpAddr, token: u64) -> [u8; 4] {
        (self.proofs.to(to, token) as u32).to_be_bytes()
    }

    /// The token of which a packet that came back has the lower half: of one that was sent not long ago.
    fn token(&self, octets: &[u8; PACKET]) -> u64 {
        let sequence = u32::from_be_bytes([octets[24], octets[25], octets[26], octets[27]]);
        let age = (self.last_token as u32).wrapping_sub(sequence);
        self.last_token.wrapping_sub(age.into())
    }
}

fn bind(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&to.into())?;
    Ok(socket)
}

/// What seems to come from a reflector is not answered: two of them would answer each other for ever.
fn is_answered(from: SocketAddr, known: &BTreeSet<IpAddr>) -> bool {
    from.port() != STAMP_PORT && known.contains(&from.ip())
}

async fn next_to_reflect(reflector: Option<&UdpSocket>) -> io::Result<Received> {
    match reflector {
        Some(socket) => {
            let read = || receive_with_ttl(socket);
            socket.async_io(Interest::READABLE, read).await
        }
        None => std::future::pending().await,
    }
}

fn receive_with_ttl(socket: &UdpSocket) -> io::Result<Received> {
    let mut octets = [0; PACKET];
    let mut space = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut octets)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let whole = message.bytes == PACKET;
    let ttl = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
        _ => None,
    });
    let from = message.address.and_then(|from| {
        let v4 = from.as_sockaddr_in();
        let v4 = v4.map(|from| SocketAddr::new(from.ip().into(), from.port()));
        let v6 = || Some(SocketAddr::from(*from.as_sockaddr_in6()?));
        v4.or_else(v6)
    });
    match from {
        Some(from) if whole => Ok(Received {
            from,
            octets,
            ttl: ttl.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(0),
        }),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Octets behind the UDP header of a packet of `size` octets.
fn payload(to: IpAddr, size: u16) -> usize {
    let headers = if to.is_ipv4() { 20 + 8 } else { 40 + 8 };
    usize::from(size).saturating_sub(headers)
}

fn now() -> [u8; 8] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    ntp(since.unwrap_or_default())
}

/// A timestamp in NTP's format (RFC 5905 section 6) of a time since 1970.
fn ntp(since: Duration) -> [u8; 8] {
    // Its era is what its reader takes it for.
    let seconds = since.as_secs().wrapping_add(NTP_TO_UNIX) as u32;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (u64::from(seconds) << 32 | fraction).to_be_bytes()
}

/// A session-sender's test packet of `length` octets, or as few as it can have.
fn test_packet(sequence: u32, session: [u8; 2], sent: [u8; 8], length: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(length.max(PACKET));
    octets.extend_from_slice(&sequence.to_be_bytes());
    octets.extend_from_slice(&sent);
    octets.extend_from_slice(&ERROR_ESTIMATE);
    octets.extend_from_slice(&session);
    octets.resize(PACKET, 0);
    if let Some(padding) = length.checked_sub(PACKET + TLV_HEADER) {
        octets.extend_from_slice(&[0, EXTRA_PADDING]);
        octets.extend_from_slice(&(padding as u16).to_be_bytes());
    }
    octets.resize(length.max(PACKET), 0);
    octets
}

/// What a session-reflector without state makes of a test packet (RFC 8762 section 4.3), its TLVs left out.
fn reflected(received: &Received, now: [u8; 8]) -> [u8; PACKET] {
    let mut octets = [0; PACKET];
    // Sequence number, error estimate and session of the sender are those of the answer, too.
    octets[..4].copy_from_slice(&received.octets[..4]);
    octets[4..12].copy_from_slice(&now);
    octets[12..14].copy_from_slice(&ERROR_ESTIMATE);
    octets[14..16].copy_from_slice(&received.octets[14..16]);
    octets[16..24].copy_from_slice(&now);
    octets[24..38].copy_from_slice(&received.octets[..14]);
    octets[40] = received.ttl;
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_rfcs_draw_them() {
        let sent = ntp(Duration::new(
            (1 << 32) + 0x0123_4567 - NTP_TO_UNIX,
            500_000_000,
        ));
        let packet = test_packet(7, [0xab, 0xcd], sent, payload([192, 0, 2, 1].into(), 1400));
        assert_eq!(packet.len(), 1400 - 28);
        assert_eq!(packet[..4], [0, 0, 0, 7]);
        assert_eq!(packet[4..12], [0x01, 0x23, 0x45, 0x67, 0x80, 0, 0, 0]);
        assert_eq!(packet[12..16], [32, 1, 0xab, 0xcd]);
        assert!(packet[16..PACKET].iter().all(|octet| *octet == 0));
        // Extra Padding, as long as what is left.
        let length = (1400 - 28 - PACKET - TLV_HEADER) as u16;
        assert_eq!(packet[PACKET..PACKET + 2], [0, EXTRA_PADDING]);
        assert_eq!(packet[PACKET + 2..][..2], length.to_be_bytes());
        for size in 0..=(28 + PACKET + TLV_HEADER) as u16 {
            let packet = test_packet(7, [0, 0], sent, payload([192, 0, 2, 1].into(), size));
            assert_eq!(
                packet.len(),
                usize::from(size).saturating_sub(28).max(PACKET)
            );
        }
        let received = Received {
            from: "192.0.2.1:5000".parse().unwrap(),
            octets: *packet.first_chunk().unwrap(),
            ttl: 62,
        };
        let answer = reflected(&received, [9; 8]);
        assert_eq!(answer[..4], [0, 0, 0, 7]);
        assert_eq!(answer[4..12], [9; 8]);
        assert_eq!(answer[12..16], [32, 1, 0xab, 0xcd]);
        assert_eq!(answer[16..24], [9; 8]);
        assert_eq!(answer[24..38], packet[..14]);
        assert_eq!(answer[38..], [0, 0, 62, 0, 0, 0]);
    }

    #[tokio::test]
    async fn known_routers_are_answered_and_others_are_not() {
        // Addresses that no other process of these tests has.
        let [.., high, low] = std::process::id().to_be_bytes();
        let [far_at, near_at, stranger_at] = [1, 2, 3].map(|last| [127, high, low, last].into());
        let mut far = Stamp::open(far_at, true).unwrap();
        match far.reflect() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            done => done.unwrap(),
        }
        let mut near = Stamp::open(near_at, true).unwrap();
        let mut stranger = Stamp::open(stranger_at, true).unwrap();
        let known = BTreeSet::from([near_at]);
        let nobody = BTreeSet::new();
        let token = 0x1_0000_0003;
        stranger.send(far_at, 1, 0).unwrap();
        near.send(far_at, token, 9000).unwrap();
        let answered = tokio::select! {
            answered = near.receive(&nobody) => answered,
            _ = far.receive(&known) => panic!("nobody answers it"),
            _ = stranger.receive(&nobody) => panic!("a stranger is answered"),
        };
        assert_eq!(answered, (far_at, token));
        assert!(is_answered(SocketAddr::new(near_at, 5000), &known));
        assert!(!is_answered(SocketAddr::new(near_at, STAMP_PORT), &known));
        // What is sent after a sequence number has come round is told apart from what was sent before.
        near.last_token = 0x2_0000_0001;
        let mut octets = [0; PACKET];
        octets[24..28].copy_from_slice(&[0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(near.token(&octets), 0x1_ffff_fffe);
    }
}
