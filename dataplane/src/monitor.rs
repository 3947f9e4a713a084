//! What changes in the kernel: a thread that reads netlink's multicast groups and says what kind of thing happened.

use std::collections::BTreeSet;
use std::io;
use std::thread;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::sync::mpsc;

use crate::netlink::objects::{RTM_DELNEXTHOP, RTM_DELTUNNEL, RTM_NEWNEXTHOP};

/// Something changed. What, exactly, is read from the kernel when it is needed: events may be lost, state is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Links or addresses, or what else the router takes as its own.
    pub(crate) links: bool,
    /// Routes that are not ours, of the underlay or of a tenant.
    pub(crate) underlay: bool,
    /// Objects of ours, changed by somebody else; or events were lost.
    pub(crate) drift: bool,
    /// Links where a neighbour entry is gone.
    pub(crate) neighbours: BTreeSet<u32>,
    /// How often events were lost.
    pub(crate) lost: u64,
}

impl Changes {
    pub(crate) fn add(&mut self, more: Self) {
        self.links |= more.links;
        self.underlay |= more.underlay;
        self.drift |= more.drift;
        self.neighbours.extend(more.neighbours);
        self.lost += more.lost;
    }
}

/// What happened to a device's VNI filter.
const RTNLGRP_TUNNEL: u32 = 35;

const GROUPS: [u32; 10] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
    libc::RTNLGRP_NEIGH,
    RTNLGRP_TUNNEL,
];

/// Starts the thread; it ends when the receiver is gone and something happens.
pub(crate) fn start(
    protocol: u8,
    own_port: u32,
    buffer: usize,
) -> io::Result<mpsc::Receiver<Changes>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_rx_buf_sz(i32::try_from(buffer).unwrap_or(i32::MAX))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    let (sender, receiver) = mpsc::channel(64);
    thread::Builder::new()
        .name("weft-monitor".into())
        .spawn(move || run(&socket, protocol, own_port, &sender))?;
    Ok(receiver)
}

fn run(socket: &Socket, protocol: u8, own_port: u32, sender: &mpsc::Sender<Changes>) {
    let mut buffer = Vec::with_capacity(1 << 18);
    loop {
        buffer.clear();
        let changes = match socket.recv(&mut buffer, 0) {
            Ok(_) => classify(&buffer, protocol, own_port),
            // Events were lost: everything may have changed.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Changes {
                links: true,
                underlay: true,
                drift: true,
                neighbours: BTreeSet::new(),
                lost: 1,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!(%error, "the kernel's events can no longer be read");
                return;
            }
        };
        if changes != Changes::default() && sender.blocking_send(changes).is_err() {
            return;
        }
    }
}

fn classify(datagram: &[u8], protocol: u8, own_port: u32) -> Changes {
    let mut changes = Changes::default();
    let mut rest = datagram;
    while let Some(header) = rest.get(..16) {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let port = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        let payload = rest.get(16..len).unwrap_or_default();
        let own = port == own_port;
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                changes.links = true
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                let ours = payload.get(5) == Some(&protocol);
                let table = payload.get(4).copied().unwrap_or_default();
                changes.underlay |=
                    table == libc::RT_TABLE_MAIN || (!ours && table != libc::RT_TABLE_LOCAL);
                changes.drift |= ours && !own;
                // Addresses tell of themselves.
                changes.links |=
                    table == libc::RT_TABLE_LOCAL && payload.get(5) != Some(&libc::RTPROT_KERNEL);
            }
            // A rule or a VNI that somebody else deleted may have been ours.
            libc::RTM_DELRULE | RTM_DELTUNNEL => changes.drift |= !own,
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                changes.drift |= !own && payload.get(2) == Some(&protocol);
            }
            libc::RTM_DELNEIGH if !own => {
                let link = payload.get(4..8).and_then(|link| link.try_into().ok());
                changes.neighbours.extend(link.map(u32::from_ne_bytes));
            }
            _ => {}
        }
        rest = rest
            .get(len.max(16).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    changes
}
