//! A probe through the overlay: echo requests of a tenant (RFC 792, RFC 4443) with a rising TTL, so that each router on the way
//! tells of itself.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::path_search::PathSearch;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Hops that are asked at once, and at most.
const WAVE: u8 = 8;
const HOPS: u8 = 32;
/// The smallest packet whose size is worth to be known: an echo request of ours with an IPv6 header.
const LEAST: u16 = 96;
/// How long answers of a wave are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose packet is sent, and where.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The tenant's mark.
    pub mark: u32,
    /// Its VRF, where tenants are VRFs.
    pub device: Option<String>,
    /// An address of this router in the tenant.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Octets that each packet has, with its IP header, and none of them is to be fragmented; small ones where that is not asked for.
    pub size: Option<u16>,
}

/// Who answered to a TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeHop {
    /// The TTL.
    pub ttl: u8,
    /// Who; `None` where nobody did in time.
    pub address: Option<IpAddr>,
    /// How long the answer took.
    pub round_trip: Option<Duration>,
    /// What the answer says.
    pub answer: ProbeAnswer,
}

/// What an answer to a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// Nothing came.
    None,
    /// The TTL ended there: a router on the way.
    TimeExceeded,
    /// The destination answered.
    Reply,
    /// The packet goes no further.
    Unreachable,
    /// It does not fit into what comes next, which takes so many octets.
    TooLarge(u16),
}

impl ProbeAnswer {
    /// Nobody behind it will answer.
    fn ends(self) -> bool {
        matches!(self, Self::Reply | Self::Unreachable | Self::TooLarge(_))
    }
}

/// The sockets of a probe.
struct Asking {
    socket: UdpSocket,
    answers: UdpSocket,
    /// Of the echo requests.
    id: u16,
}

impl Asking {
    fn open(probe: &Probe) -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let v6 = probe.destination.is_ipv6();
        let (domain, protocol) = match v6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        if probe.size.is_some() {
            crate::tunnel_echo::keep_whole(&socket, v6, true)?;
        }
        socket.set_mark(probe.mark)?;
        if let Some(device) = &probe.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        let class = u32::from(probe.dscp) << 2;
        if v6 {
            socket.set_tclass_v6(class)?;
        } else {
            socket.set_tos_v4(class)?;
        }
        socket.bind(&SocketAddr::new(probe.source, 0).into())?;
        // Answers come out of a tunnel device, which is in no VRF: a socket of the VRF would not be given them.
        let answers = match probe.device {
            Some(_) => Socket::new(domain, Type::RAW, Some(protocol))?,
            None => socket.try_clone()?,
        };
        // Only for their safe receive: nothing of them is about UDP.
        let (socket, answers) = (UdpSocket::from(socket), UdpSocket::from(answers));
        let id = (std::process::id() as u16).rotate_left(5) ^ NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Asking {
            socket,
            answers,
            id,
        })
    }
}

/// Sends echo requests until the destination answers, somebody says that it cannot be reached, or a whole wave of them stays
/// without an answer; says who answered to each TTL. Takes a second for each wave that is not answered whole.
///
/// # Errors
/// Without CAP_NET_RAW, where the source is no address of this router, or where the kernel has no route.
pub fn probe(probe: &Probe) -> io::Result<Vec<ProbeHop>> {
    let v6 = probe.destination.is_ipv6();
    let Asking {
        socket,
        answers,
        id,
    } = Asking::open(probe)?;
    let to = SocketAddr::new(probe.destination, 0);
    let mut hops: Vec<ProbeHop> = Vec::new();
    let mut sent: Vec<Instant> = Vec::new();
    while hops.len() < usize::from(HOPS) {
        let first = hops.len();
        for ttl in (first as u8 + 1)..=(first as u8 + WAVE) {
            let options = SockRef::from(&socket);
            if v6 {
                options.set_unicast_hops_v6(u32::from(ttl))?;
            } else {
                options.set_ttl_v4(u32::from(ttl))?;
            }
            sent.push(Instant::now());
            hops.push(ProbeHop {
                ttl,
                address: None,
                round_trip: None,
                answer: ProbeAnswer::None,
            });
            match socket.send_to(&sized(v6, id, u16::from(ttl), probe.size), to) {
                Ok(_) => {}
                // Of this router itself: what it leaves by is too narrow, which `largest` finds.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    hops.truncate(first);
                    return Ok(hops);
                }
                // Of the packet before it: the answer is on its way.
                Err(error) if ttl > 1 && error.raw_os_error() == Some(libc::EHOSTUNREACH) => {}
                Err(error) => return Err(error),
            }
        }
        receive(&answers, v6, id, probe.destination, &sent, &mut hops)?;
        let end = hops.iter().position(|hop| hop.answer.ends());
        if let Some(end) = end {
            hops.truncate(end + 1);
            return Ok(hops);
        }
        if hops[first..].iter().all(|hop| hop.address.is_none()) {
            hops.truncate(first + 1);
            return Ok(hops);
        }
    }
    Ok(hops)
}

/// Takes answers in until the way is known, or patience ends.
fn receive(
    socket: &UdpSocket,
    v6: bool,
    id: u16,
    destination: IpAddr,
    sent: &[Instant],
    hops: &mut [ProbeHop],
) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let end = hops.iter().position(|hop| hop.answer.ends());
        let known = end.unwrap_or(hops.len().saturating_sub(1));
        if hops[..=known].iter().all(|hop| hop.address.is_some()) {
            return Ok(());
        }
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            return Ok(());
        };
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(());
            }
            // What an ICMP error says comes as a packet too.
            Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => continue,
            Err(error) => return Err(error),
        };
        let Some((answer, ttl)) = answer(v6, &buffer[..len], id) else {
            continue;
        };
        if answer == ProbeAnswer::Reply && from.ip() != destination {
            continue;
        }
        let at = usize::from(ttl).wrapping_sub(1);
        if let (Some(hop), Some(sent)) = (hops.get_mut(at), sent.get(at))
            && hop.address.is_none()
        {
            hop.address = Some(from.ip());
            hop.round_trip = Some(sent.elapsed());
            hop.answer = answer;
        }
    }
}

/// Octets of the largest packet, at most `probe.size`, that gets to the destination and is answered; `None` where none is. Takes a few
/// seconds where that is less.
///
/// # Errors
/// As of [`probe`].
pub fn largest(probe: &Probe) -> io::Result<Option<u16>> {
    let Some(top) = probe.size else {
        return Ok(None);
    };
    let v6 = probe.destination.is_ipv6();
    let asking = Asking::open(probe)?;
    let to = SocketAddr::new(probe.destination, 0);
    let mut search = PathSearch::within(Instant::now(), LEAST, top);
    let once = Duration::from_secs(3600);
    while (search.next(Instant::now())).is_some_and(|at| at <= Instant::now()) {
        let mut waiting = Vec::new();
        while let Some(size) = search.poll(Instant::now(), once) {
            // The size is the sequence number. One that does not leave is lost like another.
            let request = sized(v6, asking.id, size, Some(size));
            let _ = asking.socket.send_to(&request, to);
            waiting.push(size);
        }
        let until = Instant::now() + PATIENCE / 2;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while !waiting.is_empty()
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            let patience = left.max(Duration::from_millis(1));
            asking.answers.set_read_timeout(Some(patience))?;
            let Ok((len, from)) = asking.answers.recv_from(&mut buffer) else {
                continue;
            };
            if let Some((ProbeAnswer::Reply, size)) = answer(v6, &buffer[..len], asking.id)
                && from.ip() == probe.destination
                && let Some(at) = waiting.iter().position(|waiting| *waiting == size)
            {
                waiting.swap_remove(at);
                search.handle(Instant::now(), size, true);
            }
        }
        for size in waiting {
            search.handle(Instant::now(), size, false);
        }
    }
    Ok(search.found())
}

/// An echo request in a packet of so many octets, where that is more than it needs.
fn sized(v6: bool, id: u16, sequence: u16, size: Option<u16>) -> Vec<u8> {
    let mut octets = request(v6, id, sequence);
    let header = if v6 { 40 } else { 20 };
    let wanted = usize::from(size.unwrap_or_default()).saturating_sub(header);
    // Zeros change no checksum.
    octets.resize(wanted.max(octets.len()), 0);
    octets
}

/// An echo request. Of ICMPv6 the kernel sets the checksum.
pub(crate) fn request(v6: bool, id: u16, sequence: u16) -> Vec<u8> {
    request_with(v6, id, sequence, b"weft echo request\0")
}

/// The same with these octets, of an even number, for the answer to bring back.
pub(crate) fn request_with(v6: bool, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut octets = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    octets.extend_from_slice(&id.to_be_bytes());
    octets.extend_from_slice(&sequence.to_be_bytes());
    octets.extend_from_slice(data);
    if !v6 {
        let words = octets.as_chunks::<2>().0.iter();
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

/// What a received packet answers to a request of ours, and to which sequence number.
pub(crate) fn answer(v6: bool, packet: &[u8], id: u16) -> Option<(ProbeAnswer, u16)> {
    let of_ours = |echo: &[u8], kind: u8| -> Option<u16> {
        let ours = *echo.first()? == kind && echo.get(4..6)? == id.to_be_bytes();
        let sequence = echo.get(6..)?.first_chunk::<2>()?;
        ours.then(|| u16::from_be_bytes(*sequence))
    };
    if v6 {
        // Behind the header of an error is the packet, with an IPv6 header of 40 octets.
        return match packet.first()? {
            129 => Some((ProbeAnswer::Reply, of_ours(packet, 129)?)),
            3 => Some((ProbeAnswer::TimeExceeded, of_ours(packet.get(48..)?, 128)?)),
            1 => Some((ProbeAnswer::Unreachable, of_ours(packet.get(48..)?, 128)?)),
            2 => {
                let mtu = packet.get(6..)?.first_chunk::<2>()?;
                let answer = ProbeAnswer::TooLarge(u16::from_be_bytes(*mtu));
                Some((answer, of_ours(packet.get(48..)?, 128)?))
            }
            _ => None,
        };
    }
    let behind = |packet: &[u8]| usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    let icmp = packet.get(behind(packet)..)?;
    match icmp.first()? {
        0 => Some((ProbeAnswer::Reply, of_ours(icmp, 0)?)),
        kind @ (3 | 11) => {
            let inner = icmp.get(8..)?;
            let sequence = of_ours(inner.get(behind(inner)..)?, 8)?;
            let answer = match kind {
                11 => ProbeAnswer::TimeExceeded,
                // Fragmentation needed, with the next link's MTU (RFC 1191 section 4).
                _ if icmp[1] == 4 => ProbeAnswer::TooLarge(u16::from_be_bytes([icmp[6], icmp[7]])),
                _ => ProbeAnswer::Unreachable,
            };
            Some((answer, sequence))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_of_what_fits_is_understood() {
        let request4 = sized(false, 0x1234, 7, Some(1450));
        assert_eq!(request4.len(), 1430);
        let header = [&[0x45][..], &[0; 19]].concat();
        let told = [&header[..], &[3, 4, 0, 0, 0, 0, 5, 70], &header, &request4].concat();
        let fits = ProbeAnswer::TooLarge(1350);
        assert_eq!(answer(false, &told, 0x1234), Some((fits, 7)));
        let request6 = sized(true, 0x1234, 9, Some(1450));
        let told = [&[2, 0, 0, 0, 0, 0, 5, 70][..], &[0; 40], &request6].concat();
        assert_eq!(answer(true, &told, 0x1234), Some((fits, 9)));
    }

    #[test]
    fn only_answers_to_our_own_requests_count() {
        let request4 = request(false, 0x1234, 7);
        assert_eq!(request4.len() % 2, 0);
        let header = [&[0x45][..], &[0; 19]].concat();
        let mut reply = [&header[..], &request4].concat();
        reply[20] = 0;
        assert_eq!(answer(false, &reply, 0x1234), Some((ProbeAnswer::Reply, 7)));
        assert_eq!(answer(false, &reply, 0x1235), None);
        let exceeded = [&header[..], &[11, 0, 0, 0, 0, 0, 0, 0], &header, &request4].concat();
        assert_eq!(
            answer(false, &exceeded, 0x1234),
            Some((ProbeAnswer::TimeExceeded, 7))
        );
        for len in 0..exceeded.len() - 20 {
            assert_eq!(answer(false, &exceeded[..len], 0x1234), None, "{len}");
        }
        let request6 = request(true, 0x1234, 9);
        let unreachable = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 40], &request6].concat();
        assert_eq!(
            answer(true, &unreachable, 0x1234),
            Some((ProbeAnswer::Unreachable, 9))
        );
    }
}
