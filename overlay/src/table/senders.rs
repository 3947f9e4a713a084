//! Which routers may send packets of which VNIs to this one.
//!
//! A router is named by labels, local next hops and locators, those on paths that are not chosen too. Whoever names it
//! may name it for every VNI that is accepted from there, whether or not it did: so it may send all of these. What a
//! router is not named for, nobody could have had accepted here either; and one whose own routes do not come by the
//! way that its packets take (asymmetric paths, a tenant without prefixes, the way back from a service) is still
//! known, by its locator.
//!
//! A router whose endpoint is of the other address family than this one's sends here from an address that its routes
//! choose, and that nobody announces: the unspecified address stands for all of these.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::locators::Locators;
use crate::label::Endpoint;
use crate::{EndpointId, VniSet};

/// What a router is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Address(IpAddr),
    Id(EndpointId),
}

impl From<Endpoint> for Name {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::V4(address) => Self::Address(address.into()),
            Endpoint::Id(id) => Self::Id(id),
        }
    }
}

/// How often each neighbour names a router.
type Naming = SmallVec<[(u16, u32); 1]>;

/// The routers that are named, and what follows for their packets.
#[derive(Default)]
pub(super) struct Senders {
    named: FxHashMap<Name, Naming>,
    /// What is accepted from each neighbour.
    accept: FxHashMap<u16, VniSet>,
    /// Those that are named by others than when they were told of last.
    changed: FxHashSet<Name>,
    told: FxHashMap<IpAddr, VniSet>,
    /// The unspecified address of this router's own family, and what may come from everywhere.
    everywhere: Option<(IpAddr, VniSet)>,
}

impl Senders {
    /// None yet; `own` is this router's endpoint.
    pub(super) fn new(own: Option<IpAddr>) -> Self {
        let unspecified = |own: IpAddr| match own {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        Self {
            everywhere: own.map(|own| (unspecified(own), VniSet::none())),
            ..Self::default()
        }
    }

    /// What is accepted from a neighbour, where that is not known yet.
    pub(super) fn know(&mut self, source: u16, accept: &VniSet) {
        self.accept.entry(source).or_insert_with(|| accept.clone());
    }

    /// A path of a neighbour names a router.
    pub(super) fn add(&mut self, name: Name, source: u16) {
        let naming = self.named.entry(name).or_default();
        if let Some((_, count)) = naming.iter_mut().find(|(by, _)| *by == source) {
            *count += 1;
            return;
        }
        naming.push((source, 1));
        self.changed.insert(name);
    }

    /// One does no longer.
    pub(super) fn remove(&mut self, name: Name, source: u16) {
        let Some(naming) = self.named.get_mut(&name) else {
            return;
        };
        let Some(at) = naming.iter().position(|(by, _)| *by == source) else {
            return;
        };
        naming[at].1 -= 1;
        if naming[at].1 == 0 {
            naming.remove(at);
            self.changed.insert(name);
            if naming.is_empty() {
                self.named.remove(&name);
            }
        }
    }

    /// Something else is accepted from a neighbour.
    pub(super) fn set_accept(&mut self, source: u16, accept: &VniSet) {
        if self.accept.get(&source) == Some(accept) {
            return;
        }
        self.accept.insert(source, accept.clone());
        let its = self.named.iter().filter(|(_, naming)| {
            let mut by = naming.iter();
            by.any(|(by, _)| *by == source)
        });
        self.changed.extend(its.map(|(name, _)| *name));
    }

    /// An endpoint id stands, or no longer stands, for an address.
    pub(super) fn located_anew(&mut self, address: IpAddr) {
        self.changed.insert(Name::Address(address));
    }

    /// What changed since the last call, sorted by address: the VNIs that each address may send, `None` where it may send none.
    pub(super) fn poll(&mut self, locators: &Locators) -> Vec<(IpAddr, Option<VniSet>)> {
        if self.changed.is_empty() {
            return Vec::new();
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for name in std::mem::take(&mut self.changed) {
            match name {
                Name::Address(address) => addresses.push(address),
                Name::Id(id) => addresses.extend(locators.resolve(id)),
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        let mut changes = Vec::new();
        for address in addresses {
            let may = self.may_send(address, locators);
            let before = match &may {
                Some(vnis) => self.told.insert(address, vnis.clone()),
                None => self.told.remove(&address),
            };
            if before != may {
                changes.push((address, may));
            }
        }
        changes.extend(self.sent_from_everywhere(&changes));
        changes
    }

    /// What may come from everywhere now, where one of these changes changes that.
    fn sent_from_everywhere(
        &mut self,
        changes: &[(IpAddr, Option<VniSet>)],
    ) -> Option<(IpAddr, Option<VniSet>)> {
        let (everywhere, before) = self.everywhere.as_mut()?;
        let is_other = |address: &IpAddr| address.is_ipv4() != everywhere.is_ipv4();
        if !changes.iter().any(|(address, _)| is_other(address)) {
            return None;
        }
        let others = self.told.iter().filter(|(address, _)| is_other(address));
        let vnis = others.fold(VniSet::none(), |all, (_, vnis)| match all == *vnis {
            true => all,
            false => all.union(vnis),
        });
        if *before == vnis {
            return None;
        }
        before.clone_from(&vnis);
        Some((*everywhere, (!vnis.is_empty()).then_some(vnis)))
    }

    fn may_send(&self, address: IpAddr, locators: &Locators) -> Option<VniSet> {
        let by_id = locators
            .id_at(address)
            .filter(|id| locators.resolve(*id) == Some(address));
        let names = [Some(Name::Address(address)), by_id.map(Name::Id)];
        let namings = names.iter().flatten();
        let sources = namings.filter_map(|name| self.named.get(name)).flatten();
        let accepted = sources.filter_map(|(source, _)| self.accept.get(source));
        let vnis = accepted.fold(VniSet::none(), |all, accepted| match all == *accepted {
            true => all,
            false => all.union(accepted),
        });
        (!vnis.is_empty()).then_some(vnis)
    }
}
