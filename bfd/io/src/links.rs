//! Which interface leads to a neighbour on the link: TTL 255 says that a packet is from a link, not from which (RFC 5881 section 3).
//!
//! The kernel is asked by a packet that comes, at most once a second for each neighbour, and where a packet comes in by another interface than it
//! said last, at most once in 20 ms: an address that moves to another interface is followed, and a flood asks no more often.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use weft_bfd::Config;

/// How long what the kernel said is believed, of the interface that it named and of others.
const BELIEVED: Duration = Duration::from_secs(1);
const DOUBTED: Duration = Duration::from_millis(20);

/// Lengths of rtnetlink(7): a message's header, a route's, an attribute's.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const ATTRIBUTE: usize = 4;

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// The interface with this number.
    By(u32),
    /// Nothing leads there.
    Unreachable,
    /// It does not say.
    Nothing,
}

#[derive(Debug)]
struct Link {
    said: Said,
    asked: Option<Instant>,
}

/// The links of neighbours.
#[derive(Debug)]
pub(crate) struct Links {
    kernel: Option<OwnedFd>,
    sequence: u32,
    neighbors: HashMap<IpAddr, Link>,
}

impl Links {
    pub(crate) fn new() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        Self {
            kernel: socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).ok(),
            sequence: 0,
            neighbors: HashMap::new(),
        }
    }

    /// Those of sessions on the link.
    pub(crate) fn set(&mut self, sessions: &[Config]) {
        let on_link = sessions.iter().filter(|one| !one.path.is_multihop());
        self.neighbors = on_link
            .map(|one| {
                let unasked = Link {
                    said: Said::Nothing,
                    asked: None,
                };
                (one.peer, unasked)
            })
            .collect();
    }

    /// Whether a packet from an address that came in by this interface is from the neighbour's link. Of whom there is no session nothing is
    /// asked.
    pub(crate) fn lead(&mut self, from: IpAddr, interface: u32, now: Instant) -> bool {
        let Self {
            kernel,
            sequence,
            neighbors,
        } = self;
        let Some(link) = neighbors.get_mut(&from) else {
            return true;
        };
        let holds = match link.said == Said::By(interface) {
            true => BELIEVED,
            false => DOUBTED,
        };
        if link.asked.is_none_or(|asked| now >= asked + holds) {
            link.asked = Some(now);
            *sequence = sequence.wrapping_add(1);
            link.said = kernel
                .as_ref()
                .map_or(Said::Nothing, |kernel| ask(kernel, *sequence, from));
        }
        match link.said {
            Said::By(leads) => leads == interface,
            Said::Unreachable => false,
            Said::Nothing => true,
        }
    }
}

/// RTM_GETROUTE.
fn ask(kernel: &OwnedFd, sequence: u32, to: IpAddr) -> Said {
    let (family, octets): (_, [u8; 16]) = match to {
        IpAddr::V4(to) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&to.octets());
            (libc::AF_INET as u8, octets)
        }
        IpAddr::V6(to) => (libc::AF_INET6 as u8, to.octets()),
    };
    let address = if to.is_ipv4() { 4 } else { 16 };
    let len = HEADER + ROUTE + ATTRIBUTE + address;
    let mut request = [0; HEADER + ROUTE + ATTRIBUTE + 16];
    request[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request[HEADER] = family;
    request[HEADER + 1] = 8 * address as u8;
    let at = HEADER + ROUTE;
    request[at..at + 2].copy_from_slice(&((ATTRIBUTE + address) as u16).to_ne_bytes());
    request[at + 2..at + 4].copy_from_slice(&libc::RTA_DST.to_ne_bytes());
    request[at + 4..at + 4 + address].copy_from_slice(&octets[..address]);
    if send(kernel.as_raw_fd(), &request[..len], MsgFlags::empty()).is_err() {
        return Said::Nothing;
    }
    let mut answer = [0; 1024];
    // It is there when the question has been taken.
    while let Ok(len) = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
        if let Some(said) = read(&answer[..len], sequence) {
            return said;
        }
    }
    Said::Nothing
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    let four = octets.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four))
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    let two = octets.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(two))
}

/// `None` where it is no answer to this question.
fn read(answer: &[u8], sequence: u32) -> Option<Said> {
    if word(answer, 8)? != sequence {
        return None;
    }
    match half(answer, 4)? {
        kind if kind == libc::NLMSG_ERROR as u16 => {
            let error = word(answer, HEADER)?.cast_signed();
            let unreachable = [-libc::ENETUNREACH, -libc::EHOSTUNREACH].contains(&error);
            Some(match unreachable {
                true => Said::Unreachable,
                false => Said::Nothing,
            })
        }
        libc::RTM_NEWROUTE => {
            let mut at = HEADER + ROUTE;
            while let (Some(len), Some(kind)) = (half(answer, at), half(answer, at + 2)) {
                if kind == libc::RTA_OIF {
                    return Some(word(answer, at + ATTRIBUTE).map_or(Said::Nothing, Said::By));
                }
                at += usize::from(len).max(ATTRIBUTE).next_multiple_of(4);
            }
            Some(Said::Nothing)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: u32 = 1;

    #[test]
    fn the_kernel_says_which_interface_leads_to_a_neighbour() {
        let Some(kernel) = Links::new().kernel else {
            return;
        };
        let v6 = std::net::Ipv6Addr::LOCALHOST.into();
        for to in [Ipv4Addr::LOCALHOST.into(), v6] {
            assert_eq!(ask(&kernel, 7, to), Said::By(LOOPBACK), "{to}");
        }
    }

    #[test]
    fn what_comes_in_elsewhere_is_not_from_the_link() {
        let mut links = Links::new();
        let peer = Ipv4Addr::LOCALHOST.into();
        let unasked = Link {
            said: Said::Nothing,
            asked: None,
        };
        links.neighbors.insert(peer, unasked);
        let now = Instant::now();
        assert!(links.lead(peer, LOOPBACK, now));
        assert!(!links.lead(peer, 77, now));
        assert!(links.lead(peer, LOOPBACK, now));
        assert!(
            links.lead(Ipv4Addr::BROADCAST.into(), 77, now),
            "a stranger"
        );
        // Another one says so at once when it has changed, and is not asked for each packet.
        let link = links.neighbors.get_mut(&peer).expect("it is there");
        (link.said, link.asked) = (Said::By(77), Some(now));
        assert!(!links.lead(peer, LOOPBACK, now));
        assert!(links.lead(peer, LOOPBACK, now + DOUBTED));
        assert!(!links.lead(peer, 77, now + DOUBTED));
    }
}
