//! What changes in the kernel: a thread that reads netlink's multicast groups and says what kind of thing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::sync::mpsc;

use crate::model::{RouteKey, underlay_metric};
use crate::netlink::objects::{
    RTM_DELNEXTHOP, RTM_DELTUNNEL, RTM_NEWNEXTHOP, get_next_hop_id, get_route_key,
};
use crate::netlink::octets::{Message, attributes, messages};
use crate::ruleset_watch;
use crate::{HOST_MARKS, TENANT_MARKS};

/// Something changed. What, exactly, is read from the kernel when it is needed: events may be lost, state is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Links or addresses, or what else the router takes as its own.
    pub(crate) links: bool,
    /// Routes that are not ours, of the underlay or of a tenant.
    pub(crate) underlay: bool,
    /// Objects of ours, changed by somebody else; or events were lost.
    pub(crate) drift: bool,
    /// Our nftables tables, by somebody else.
    pub(crate) walls: bool,
    /// Devices whose settings changed, by index; -1 is all of them, and -2 what new ones get.
    pub(crate) settings: BTreeSet<i32>,
    /// Policy rules of others.
    pub(crate) rules: bool,
    /// Links where a neighbour entry is gone, or somebody set one.
    pub(crate) neighbours: BTreeSet<u32>,
    /// Places that routes of ours may have, where somebody else put a route in another's place, or took his away.
    pub(crate) places: BTreeSet<RouteKey>,
    /// Next-hop objects that are not signed as ours and that somebody else made, changed or deleted.
    pub(crate) next_hops: BTreeSet<u32>,
    /// Links that were taken down or away, or lost an address: the kernel drops routes over them without a word.
    pub(crate) shaken: BTreeSet<u32>,
    /// Links that were told of, and whether they are up and have a carrier, as was told last.
    pub(crate) carriers: BTreeMap<u32, bool>,
    /// How often events were lost.
    pub(crate) lost: u64,
}

impl Changes {
    pub(crate) fn add(&mut self, more: Self) {
        self.links |= more.links;
        self.underlay |= more.underlay;
        self.drift |= more.drift;
        self.walls |= more.walls;
        self.settings.extend(more.settings);
        self.rules |= more.rules;
        self.neighbours.extend(more.neighbours);
        self.places.extend(more.places);
        self.next_hops.extend(more.next_hops);
        if self.places.len() > MOST || self.next_hops.len() > MOST {
            // Everything is read instead.
            self.places.clear();
            self.next_hops.clear();
            self.drift = true;
        }
        self.shaken.extend(more.shaken);
        self.carriers.extend(more.carriers);
        self.lost += more.lost;
    }
}

/// Places and objects that are told one by one.
const MOST: usize = 4096;

/// What happened to a device's VNI filter.
const RTNLGRP_TUNNEL: u32 = 35;

/// Settings of devices: forwarding, source checks.
const RTM_NEWNETCONF: u16 = 80;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;
const NETCONFA_IFINDEX: u16 = 1;
/// The settings of all devices, as an index.
pub(crate) const ALL_DEVICES: i32 = -1;

/// How soon a thread that waits for events sees that nobody wants them any more: until then it holds its network namespace.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

const GROUPS: [u32; 12] = [
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
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
];

/// Octets of events that may wait for a socket's reader: as many as are asked for, whatever the host's `net.core.rmem_max` is, which needs
/// CAP_NET_ADMIN in the host's own user namespace; else as many as that lets.
pub(crate) fn set_buffer(socket: &Socket, octets: usize) -> io::Result<()> {
    match setsockopt(socket, sockopt::RcvBufForce, &octets) {
        Ok(()) => Ok(()),
        Err(_) => Ok(setsockopt(socket, sockopt::RcvBuf, &octets)?),
    }
}

/// Starts the thread; it ends when the receiver is gone and something happens.
pub(crate) fn start(
    protocol: u8,
    own_port: u32,
    buffer: usize,
) -> io::Result<mpsc::Receiver<Changes>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    set_buffer(&socket, buffer)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    SockRef::from(&socket).set_read_timeout(Some(LOOK))?;
    let (sender, receiver) = mpsc::channel(64);
    if let Err(error) = ruleset_watch::start(sender.clone()) {
        // Without nf_tables there are no tables of ours that somebody could change.
        tracing::debug!(%error, "no events of nftables");
    }
    thread::Builder::new()
        .name("weft-monitor".into())
        .spawn(move || run(&socket, protocol, own_port, &sender))?;
    Ok(receiver)
}

/// Nothing has come, so far.
pub(crate) fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
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
                walls: false,
                rules: true,
                settings: BTreeSet::from([ALL_DEVICES]),
                lost: 1,
                ..Changes::default()
            },
            Err(_) if sender.is_closed() => return,
            Err(error) if is_nothing(&error) => continue,
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
    for message in messages(datagram) {
        let own = message.port == own_port;
        match message.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                link_changed(&mut changes, message);
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                route_changed(&mut changes, message, protocol, own);
            }
            // A rule or a VNI that somebody else deleted may have been ours.
            libc::RTM_DELRULE => {
                changes.drift |= !own;
                changes.rules |= !own;
                changes.underlay |= !own;
            }
            libc::RTM_NEWRULE => {
                changes.rules |= !own;
                changes.underlay |= !own;
            }
            RTM_DELTUNNEL => changes.drift |= !own,
            RTM_NEWNETCONF => {
                // `struct netconfmsg` is one octet, and its attributes are aligned.
                let mut attributes = attributes(message.payload.get(4..).unwrap_or_default());
                let index = attributes.find(|(kind, _)| *kind == NETCONFA_IFINDEX);
                let index = index.and_then(|(_, value)| value.try_into().ok());
                changes.settings.extend(index.map(i32::from_ne_bytes));
            }
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP if !own => {
                let ours = message.payload.get(2) == Some(&protocol);
                changes.drift |= ours;
                changes.underlay |= !ours;
                let id = get_next_hop_id(message.payload).filter(|_| !ours);
                changes
                    .next_hops
                    .extend(id.filter(|id| TENANT_MARKS.contains(id)));
            }
            // The kernel itself, which has no port, makes and changes entries all the time.
            libc::RTM_DELNEIGH if !own => changes.neighbours.extend(message.word(4)),
            libc::RTM_NEWNEIGH if !own && message.port != 0 => {
                changes.neighbours.extend(message.word(4));
            }
            _ => {}
        }
    }
    changes
}

fn link_changed(changes: &mut Changes, message: Message<'_>) {
    changes.links = true;
    let has = |all: libc::c_int| {
        let flags = message.word(8);
        flags.is_some_and(|flags| flags & all as u32 == all as u32)
    };
    if message.kind == libc::RTM_NEWLINK {
        let carries = has(libc::IFF_UP | libc::IFF_LOWER_UP | libc::IFF_RUNNING);
        let link = message.word(4);
        changes.carriers.extend(link.map(|link| (link, carries)));
    }
    if message.kind == libc::RTM_DELADDR
        || message.kind == libc::RTM_DELLINK
        || (message.kind == libc::RTM_NEWLINK && !has(libc::IFF_UP))
    {
        changes.shaken.extend(message.word(4));
    }
}

fn route_changed(changes: &mut Changes, message: Message<'_>, protocol: u8, own: bool) {
    let whose = message.payload.get(5);
    let ours = whose == Some(&protocol);
    let table = message.payload.get(4).copied().unwrap_or_default();
    // What we did ourselves we know.
    changes.underlay |= !own && table != libc::RT_TABLE_LOCAL;
    changes.drift |= ours && !own;
    // Addresses tell whose themselves.
    changes.links |= table == libc::RT_TABLE_LOCAL && whose != Some(&libc::RTPROT_KERNEL);
    let replaces = message.flags & libc::NLM_F_REPLACE as u16 != 0;
    if !own && !ours && (replaces || message.kind == libc::RTM_DELROUTE) {
        let key = get_route_key(message.payload);
        changes.places.extend(key.filter(may_be_ours));
    }
}

/// A route of ours may have this place: in a tenant's table or a step's, or with the metric of those for the underlay.
fn may_be_ours(key: &RouteKey) -> bool {
    HOST_MARKS.contains(&key.table) || key.metric == underlay_metric(&key.prefix)
}

#[cfg(test)]
mod tests;
