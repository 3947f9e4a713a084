//! Which next hops resolve, and how far they are (RFC 4271 section 9.1.2.1).

use std::net::IpAddr;

use rustc_hash::FxHashMap;

struct Tracked {
    routes: u32,
    metric: Option<u32>,
    /// Somebody has said how it resolves.
    known: bool,
}

/// Reference-counted next hops with what is known of them. A next hop that nobody has resolved yet is unreachable.
#[derive(Default)]
pub(crate) struct NextHops {
    by_address: FxHashMap<IpAddr, Tracked>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
    unknown: usize,
}

impl NextHops {
    /// A set of attributes with this next hop came to be.
    pub(crate) fn add(&mut self, address: IpAddr) {
        if address.is_unspecified() {
            return;
        }
        let tracked = self.by_address.entry(address).or_insert_with(|| {
            self.track.push(address);
            self.unknown += 1;
            Tracked {
                routes: 0,
                metric: None,
                known: false,
            }
        });
        tracked.routes += 1;
    }

    /// A set of attributes with this next hop is gone.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        if let Some(tracked) = self.by_address.get_mut(&address) {
            tracked.routes -= 1;
            if tracked.routes == 0 {
                self.unknown -= usize::from(!tracked.known);
                self.by_address.remove(&address);
                self.untrack.push(address);
            }
        }
    }

    /// Metric to it, `None` where it does not resolve; our own routes are at 0.
    #[inline]
    pub(crate) fn metric(&self, address: IpAddr) -> Option<u32> {
        if address.is_unspecified() {
            return Some(0);
        }
        self.by_address.get(&address)?.metric
    }

    /// Sets what is known; true where it is news.
    pub(crate) fn set(&mut self, address: IpAddr, metric: Option<u32>) -> bool {
        let Some(tracked) = self.by_address.get_mut(&address) else {
            return false;
        };
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
