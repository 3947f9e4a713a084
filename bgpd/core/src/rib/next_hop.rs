//! Which next hops resolve, and how far they are (RFC 4271 section 9.1.2.1).

use std::net::IpAddr;

use rustc_hash::FxHashMap;

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
    /// Somebody has said how it resolves.
    known: bool,
}

/// Reference-counted next hops with what is known of them. A next hop that nobody has resolved yet is unreachable.
#[derive(Default)]
pub(crate) struct NextHops {
    by_address: FxHashMap<IpAddr, u32>,
    /// By number less one.
    tracked: Vec<Tracked>,
    free: Vec<u32>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
    unknown: usize,
}

impl NextHops {
    /// A set of attributes with this next hop came to be. An IPv4-mapped one resolves as the IPv4 address that it names, as in
    /// RFC 4798 section 2.
    pub(crate) fn add(&mut self, address: IpAddr) -> NextHopId {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return NextHopId::OWN;
        }
        if let Some(at) = self.by_address.get(&address) {
            self.tracked[*at as usize].routes += 1;
            return NextHopId(at + 1);
        }
        self.track.push(address);
        self.unknown += 1;
        let tracked = Tracked {
            address,
            routes: 1,
            metric: None,
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
        self.by_address.insert(address, at);
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
            self.by_address.remove(&tracked.address);
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

    /// Sets what is known; true where it is news.
    pub(crate) fn set(&mut self, address: IpAddr, metric: Option<u32>) -> bool {
        let Some(at) = self.by_address.get(&address) else {
            return false;
        };
        let tracked = &mut self.tracked[*at as usize];
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
