//! Where packets come in, and what they go out by.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use weft_bfd::{Config, MULTIHOP_PORT, SINGLE_HOP_PORT, SOURCE_PORTS};

use crate::sys;

/// RFC 5881 section 5.
const TTL: u32 = 255;
/// CS6, network control (RFC 4594 section 3.1), in the octet of DSCP and ECN.
const CODE_POINT: u32 = 48 << 2;
/// SO_PRIORITY: the class for control packets in the queues of devices.
const PRIORITY: u32 = 6;
/// Room for packets while the thread does something else, in octets of the kernel's.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Source ports tried before a session has none.
const TRIES: u64 = 64;

/// Instructions of classic BPF.
const LOAD_WORD: u16 = 0x20;
const LOAD_OCTET: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets from here on are those in the network header.
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// What is no octet of the packet: its mark (SKF_AD_OFF + SKF_AD_MARK).
const MARK: u32 = 0xffff_f000 + 20;

/// Where packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    v6: bool,
    pub(crate) multihop: bool,
}

impl Place {
    const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(true, true),
    ];

    const fn new(v6: bool, multihop: bool) -> Self {
        Self { v6, multihop }
    }

    fn port(self) -> u16 {
        match self.multihop {
            true => MULTIHOP_PORT,
            false => SINGLE_HOP_PORT,
        }
    }

    fn is_for(self, config: &Config) -> bool {
        (config.peer.is_ipv6(), config.path.is_multihop()) == (self.v6, self.multihop)
    }

    /// What wakes somebody: nothing with such a mark, and on the link nothing that has come over a router.
    fn filter(self, refused_marks: &Range<u32>) -> Vec<SockFilter> {
        let ttl = NETWORK_HEADER + if self.v6 { 7 } else { 8 };
        let mut ttl = vec![
            SockFilter::new(LOAD_OCTET, 0, 0, ttl),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, TTL),
        ];
        if self.multihop {
            ttl.clear();
        }
        // Over what is behind it and over the instruction that takes the packet.
        let refuse = ttl.len() as u8 + 1;
        let mut filter = vec![
            SockFilter::new(LOAD_WORD, 0, 0, MARK),
            SockFilter::new(JUMP_IF_AT_LEAST, 0, 1, refused_marks.start),
            SockFilter::new(JUMP_IF_AT_LEAST, 0, refuse, refused_marks.end),
        ];
        filter.append(&mut ttl);
        filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
        filter.push(SockFilter::new(RETURN, 0, 0, 0));
        filter
    }

    fn open(self, refused_marks: &Range<u32>) -> io::Result<OwnedFd> {
        let domain = if self.v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let any: IpAddr = if self.v6 {
            socket.set_only_v6(true)?;
            socket.set_recv_hoplimit_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        };
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        // Without CAP_NET_ADMIN the kernel gives what net.core.rmem_max says.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.attach_filter(&self.filter(refused_marks))?;
        socket.bind(&SocketAddr::new(any, self.port()).into())?;
        Ok(socket.into())
    }
}

/// The sockets that packets come in by: those that there are sessions for.
#[derive(Debug)]
pub(crate) struct Receivers {
    refused_marks: Range<u32>,
    open: Vec<(Place, OwnedFd)>,
    /// Of those that are open no more.
    dropped: u64,
}

impl Receivers {
    /// None yet; none will take a packet with one of these marks.
    pub(crate) fn new(refused_marks: Range<u32>) -> Self {
        Self {
            refused_marks,
            open: Vec::new(),
            dropped: 0,
        }
    }

    /// Opens what sessions need, and closes what they do not need.
    ///
    /// # Errors
    /// What is not open then, and why; a text for people.
    pub(crate) fn set(&mut self, sessions: &[Config]) -> Result<(), String> {
        let is_wanted = |place: &Place| sessions.iter().any(|config| place.is_for(config));
        let Self {
            refused_marks,
            open,
            dropped,
        } = self;
        open.retain(|(place, socket)| {
            let stays = is_wanted(place);
            if !stays {
                *dropped += sys::dropped(socket);
            }
            stays
        });
        let mut problem = None;
        for place in Place::ALL.iter().filter(|place| is_wanted(place)) {
            if open.iter().any(|(one, _)| one == place) {
                continue;
            }
            match place.open(refused_marks) {
                Ok(socket) => open.push((*place, socket)),
                Err(error) => {
                    let family = if place.v6 { "IPv6" } else { "IPv4" };
                    let port = place.port();
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => {
                            format!(
                                "; another BFD daemon runs here: `ss -lunp sport = {port}` names it"
                            )
                        }
                        _ => String::new(),
                    };
                    problem = Some(format!(
                        "cannot receive BFD packets at UDP port {port} over {family}: {error}{hint}"
                    ));
                }
            }
        }
        problem.map_or(Ok(()), Err)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &OwnedFd)> {
        self.open.iter().map(|(place, socket)| (*place, socket))
    }

    /// Their descriptors, to be waited for.
    pub(crate) fn raw(&self) -> impl Iterator<Item = i32> + '_ {
        self.open.iter().map(|(_, socket)| socket.as_raw_fd())
    }

    /// Packets that the kernel dropped before anybody read them.
    pub(crate) fn dropped(&self) -> u64 {
        let open = self.open.iter().map(|(_, socket)| sys::dropped(socket));
        self.dropped + open.sum::<u64>()
    }
}

/// What a session sends by: a port of its own (RFC 5881 section 4).
#[derive(Debug)]
pub(crate) struct Sender {
    peer: IpAddr,
    local: Option<IpAddr>,
    multihop: bool,
    socket: io::Result<Socket>,
    to: SockAddr,
    pub(crate) unsent: u64,
    /// Of the latest packet.
    failed: Option<io::Error>,
}

impl Sender {
    pub(crate) fn open(config: &Config) -> Self {
        let multihop = config.path.is_multihop();
        let port = if multihop {
            MULTIHOP_PORT
        } else {
            SINGLE_HOP_PORT
        };
        Self {
            peer: config.peer,
            local: config.local,
            multihop,
            socket: socket(config.peer, config.local),
            to: SocketAddr::new(config.peer, port).into(),
            unsent: 0,
            failed: None,
        }
    }

    /// A session of this configuration sends by it.
    pub(crate) fn fits(&self, config: &Config) -> bool {
        let wanted = (config.peer, config.local, config.path.is_multihop());
        (self.peer, self.local, self.multihop) == wanted
    }

    pub(crate) fn send(&mut self, octets: &[u8]) {
        if self.socket.is_err() {
            self.socket = socket(self.peer, self.local);
        }
        let sent = match &self.socket {
            Ok(socket) => socket.send_to(octets, &self.to),
            Err(error) => Err(copy(error)),
        };
        self.unsent += u64::from(sent.is_err());
        self.failed = sent.err();
    }

    /// Why the latest packet could not be sent.
    pub(crate) fn problem(&self) -> Option<String> {
        let error = self.failed.as_ref()?;
        Some(format!("cannot send: {error}"))
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

fn socket(peer: IpAddr, local: Option<IpAddr>) -> io::Result<Socket> {
    let domain = if peer.is_ipv6() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_priority(PRIORITY)?;
    // Nobody reads what comes there.
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    let any: IpAddr = if peer.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(TTL)?;
        socket.set_tclass_v6(CODE_POINT)?;
        // An address that goes and comes back is the same one to the session.
        socket.set_freebind_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        socket.set_ttl_v4(TTL)?;
        socket.set_tos_v4(CODE_POINT)?;
        socket.set_freebind_v4(true)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    let random = RandomState::new();
    let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
    let ports = u64::from(last - first) + 1;
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..TRIES {
        let port = first + (random.hash_one(attempt) % ports) as u16;
        match socket.bind(&SocketAddr::new(local.unwrap_or(any), port).into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one packet after the other, and says which were taken.
    fn taken(place: Place, sent: &[(u32, u32)]) -> Vec<bool> {
        let (domain, any): (_, IpAddr) = match place.v6 {
            false => (Domain::IPV4, Ipv4Addr::LOCALHOST.into()),
            true => (Domain::IPV6, Ipv6Addr::LOCALHOST.into()),
        };
        let socket = || {
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            socket.bind(&SocketAddr::new(any, 0).into()).unwrap();
            socket
        };
        let (receiver, sender) = (socket(), socket());
        receiver.set_nonblocking(true).unwrap();
        let filter = place.filter(&(0x5700_0000..0x5c00_0000));
        receiver.attach_filter(&filter).unwrap();
        let to = receiver.local_addr().unwrap();
        let sent = sent.iter().map(|(ttl, mark)| {
            match place.v6 {
                false => sender.set_ttl_v4(*ttl).unwrap(),
                true => sender.set_unicast_hops_v6(*ttl).unwrap(),
            }
            if *mark != 0 {
                sender.set_mark(*mark).unwrap();
            }
            sender.send_to(&[0; 24], &to).unwrap();
            receiver
                .recv(&mut [std::mem::MaybeUninit::uninit(); 24])
                .is_ok()
        });
        sent.collect()
    }

    #[test]
    fn what_has_come_over_a_router_or_from_a_host_of_a_tenant_wakes_nobody() {
        for v6 in [false, true] {
            let near = Place::new(v6, false);
            assert_eq!(taken(near, &[(255, 0), (254, 0)]), [true, false]);
            let far = Place::new(v6, true);
            assert_eq!(taken(far, &[(255, 0), (1, 0)]), [true, true]);
            let probe = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            if probe.set_mark(1).is_err() {
                eprintln!("skipped: marks need CAP_NET_ADMIN");
                return;
            }
            let marks = [
                (1, true),
                (0x56ff_ffff, true),
                (0x5700_0000, false),
                (0x57ff_ffff, false),
                (0x5800_0000, false),
                (0x5bff_ffff, false),
                (0x5c00_0000, true),
                (u32::MAX, true),
            ];
            for place in [near, far] {
                let sent = marks.map(|(mark, _)| (255, mark));
                let expected = marks.map(|(_, is_taken)| is_taken);
                assert_eq!(taken(place, &sent), expected, "{place:?}");
            }
        }
    }
}
