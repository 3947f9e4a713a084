//! Which next hops resolve, and how far they are (RFC 4271 section 9.1.2.1).

use std::net::IpAddr;

use super::hash::HashKey;
use super::index::{Index, Tag};

/// An address as a number; of one of each family that are the same, the tags are too.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A next hop while a set of attributes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHopId(u32);

impl NextHopId {
    /// That of our own routes.
    const OWN: Self = Self(0);
}

struct Tracked {
    address: IpAddr,
    routes: u32,
    metric: Option<u32>,
    /// As in [`NextHops::floor`].
    floor: u8,
    /// Somebody has said how it resolves.
    known: bool,
}

/// Reference-counted next hops with what is known of them. A next hop that nobody has resolved yet is unreachable.
pub(crate) struct NextHops {
    by_address: Index,
    /// By number less one.
    tracked: Vec<Tracked>,
    free: Vec<u32>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
    unknown: usize,
}

impl NextHops {
    /// None yet.
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            by_address: Index::new(key),
            tracked: Vec::new(),
            free: Vec::new(),
            track: Vec::new(),
            untrack: Vec::new(),
            unknown: 0,
        }
    }

    fn tag(&self, address: IpAddr) -> Tag {
        Tag::from_hash(self.by_address.key().address(bits(address), 0))
    }

    fn find(&self, address: IpAddr) -> Option<u32> {
        let is_it = |at: u32| self.tracked[at as usize].address == address;
        self.by_address.find(self.tag(address), is_it)
    }

    /// A set of attributes with this next hop came to be. An IPv4-mapped one resolves as the IPv4 address that it names, as in
    /// RFC 4798 section 2.
    pub(crate) fn add(&mut self, address: IpAddr) -> NextHopId {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return NextHopId::OWN;
        }
        if let Some(at) = self.find(address) {
            self.tracked[at as usize].routes += 1;
            return NextHopId(at + 1);
        }
        self.track.push(address);
        self.unknown += 1;
        let tracked = Tracked {
            address,
            routes: 1,
            metric: None,
            floor: u8::MAX,
            known: false,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.tracked[at as usize] = tracked;
                at
            }
            None => {
                self.tracked.push(tracked);
                (self.tracked.len() - 1) as u32
            }
        };
        self.by_address.insert(self.tag(address), at);
        NextHopId(at + 1)
    }

    /// A set of attributes with this next hop is gone.
    pub(crate) fn remove(&mut self, id: NextHopId) {
        let Some(at) = id.0.checked_sub(1) else {
            return;
        };
        let tracked = &mut self.tracked[at as usize];
        tracked.routes -= 1;
        if tracked.routes == 0 {
            self.unknown -= usize::from(!tracked.known);
            self.untrack.push(tracked.address);
            let address = tracked.address;
            self.by_address.remove(self.tag(address), at);
            self.free.push(at);
        }
    }

    /// Metric to it, `None` where it does not resolve; our own routes are at 0.
    #[inline]
    pub(crate) fn metric(&self, id: NextHopId) -> Option<u32> {
        match id.0.checked_sub(1) {
            Some(at) => self.tracked[at as usize].metric,
            None => Some(0),
        }
    }

    /// A route that contains the next hop is the best match for it itself where its prefix is as long as this or longer.
    #[inline]
    pub(crate) fn floor(&self, id: NextHopId) -> u8 {
        match id.0.checked_sub(1) {
            Some(at) => self.tracked[at as usize].floor,
            None => u8::MAX,
        }
    }

    /// Sets the floor; true where it is news.
    pub(crate) fn set_floor(&mut self, address: IpAddr, floor: u8) -> bool {
        let Some(at) = self.find(address) else {
            return false;
        };
        let tracked = &mut self.tracked[at as usize];
        std::mem::replace(&mut tracked.floor, floor) != floor
    }

    /// Sets what is known; true where it is news.
    pub(crate) fn set(&mut self, address: IpAddr, metric: Option<u32>) -> bool {
        let Some(at) = self.find(address) else {
            return false;
        };
        let tracked = &mut self.tracked[at as usize];
        self.unknown -= usize::from(!std::mem::replace(&mut tracked.known, true));
        std::mem::replace(&mut tracked.metric, metric) != metric
    }

    /// Nobody has said yet how some of them resolve.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown > 0
    }

    /// Addresses to resolve from now on, and those that nobody asks for any more.
    pub(crate) fn take_changes(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        (
            std::mem::take(&mut self.track),
            std::mem::take(&mut self.untrack),
        )
    }
}
