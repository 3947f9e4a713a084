//! Locators: which address an endpoint id stands for. One id has one owner.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::PathInput;
use super::senders::{Name, Senders};
use crate::label::{LabelCommunity, Locator};
use crate::origins::Origins;
use crate::{Encapsulation, EndpointId, VniSet};

/// Two addresses are announced as the locator of one endpoint id: somebody is misconfigured, or lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocatorConflict {
    /// The id.
    pub id: EndpointId,
    /// The address that it stands for.
    pub owner: Option<IpAddr>,
    /// The address that is not used.
    pub other: IpAddr,
    /// The neighbour that announced that one.
    pub source: u16,
}

/// A locator's route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    id: EndpointId,
    /// It begins in our domain, by what the AS_PATH says.
    internal: bool,
    /// The UDP ports that are not an encapsulation's own, by what the better path says.
    ports: SmallVec<[(Encapsulation, NonZeroU16); 1]>,
    /// The neighbours that it comes from; one may send several paths.
    sources: SmallVec<[u16; 2]>,
}

/// What another route of a locator changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that packets are sent by.
    Nothing,
    /// Some id stands for another address than before.
    Address,
    /// The address has another UDP port; ids may have moved too.
    Port,
}

/// All locators.
#[derive(Default)]
pub(super) struct Locators {
    /// This router's own.
    own: Option<(EndpointId, IpAddr)>,
    routes: FxHashMap<IpAddr, Route>,
    /// The addresses of an id, in the order that they came in.
    by_id: FxHashMap<EndpointId, SmallVec<[IpAddr; 1]>>,
    conflicts: BTreeMap<(EndpointId, IpAddr), LocatorConflict>,
    /// Those that the controller's word makes one, by address and id.
    refused: BTreeMap<(IpAddr, EndpointId), LocatorConflict>,
    new_conflicts: Vec<LocatorConflict>,
}

/// The UDP ports among the communities of a path that are this endpoint's; of several for one encapsulation the lowest.
fn ports_in(
    path: &PathInput<'_>,
    administrator: u32,
    id: EndpointId,
) -> SmallVec<[(Encapsulation, NonZeroU16); 1]> {
    let decoded = path
        .communities
        .iter()
        .filter_map(|community| LabelCommunity::decode(*community, administrator));
    let mut ports: SmallVec<[_; 1]> = decoded
        .filter_map(|decoded| match decoded {
            Ok(LabelCommunity::LocatorPort(port)) if port.id == id => {
                Some((port.encapsulation, port.port))
            }
            _ => None,
        })
        .collect();
    ports.sort_unstable();
    ports.dedup_by_key(|(encapsulation, _)| *encapsulation);
    ports.retain(|(encapsulation, port)| encapsulation.default_port() != Some(*port));
    ports
}

/// The locator among the communities of a path, where something is accepted from who sent it.
pub(super) fn locator_in(path: &PathInput<'_>, administrator: u32) -> Option<Locator> {
    if path.local || path.accept.is_empty() {
        return None;
    }
    let mut decoded = path
        .communities
        .iter()
        .filter_map(|community| LabelCommunity::decode(*community, administrator));
    decoded.find_map(|decoded| match decoded {
        Ok(LabelCommunity::Locator(locator)) => Some(locator),
        _ => None,
    })
}

impl Locators {
    /// None yet; `own` is this router's.
    pub(super) fn new(own: Option<(EndpointId, IpAddr)>) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// The address of an endpoint id: of several the one that came in first, one of our own domain before others.
    pub(super) fn resolve(&self, id: EndpointId) -> Option<IpAddr> {
        let addresses = self.by_id.get(&id)?;
        let internal =
            |address: &&IpAddr| self.routes.get(*address).is_some_and(|one| one.internal);
        let of_ours = addresses.iter().find(internal);
        of_ours.or_else(|| addresses.first()).copied()
    }

    /// The UDP port that the endpoint at an address takes packets at, where that is not the encapsulation's own.
    pub(super) fn port_at(
        &self,
        address: IpAddr,
        encapsulation: Encapsulation,
    ) -> Option<NonZeroU16> {
        let mut ports = self.routes.get(&address)?.ports.iter();
        let its = ports.find(|(one, _)| *one == encapsulation);
        its.map(|(_, port)| *port)
    }

    /// The id that is said to be at an address.
    pub(super) fn id_at(&self, address: IpAddr) -> Option<EndpointId> {
        Some(self.routes.get(&address)?.id)
    }

    /// The ids that are known, with their addresses.
    pub(super) fn resolved(&self) -> impl Iterator<Item = (EndpointId, IpAddr)> + '_ {
        let ids = self.by_id.keys();
        ids.filter_map(|id| Some((*id, self.resolve(*id)?)))
    }

    /// A prefix is a locator.
    pub(super) fn is_at(&self, prefix: IpNet) -> bool {
        is_host(prefix) && self.routes.contains_key(&prefix.addr())
    }

    /// Ids with two owners, sorted.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = LocatorConflict> + '_ {
        self.conflicts
            .values()
            .chain(self.refused.values())
            .copied()
    }

    /// Those that came up since the last call.
    pub(super) fn take_new_conflicts(&mut self) -> Vec<LocatorConflict> {
        std::mem::take(&mut self.new_conflicts)
    }

    /// All valid paths of a prefix.
    pub(super) fn handle_route(
        &mut self,
        prefix: IpNet,
        paths: &[PathInput<'_>],
        administrator: Option<u32>,
        origins: Option<&Origins>,
        senders: &mut Senders,
    ) -> Change {
        let Some(administrator) = administrator.filter(|_| is_host(prefix)) else {
            return Change::Nothing;
        };
        let address = prefix.addr();
        self.refuse(address, paths, administrator, origins);
        let (found, accepted) = route_in(address, paths, administrator, origins);
        // Nearly all routes are no locators.
        if self.routes.get(&address) == found.as_ref() {
            return Change::Nothing;
        }
        for (source, accept) in accepted {
            senders.know(source, accept);
            senders.add(Name::Address(address), source);
        }
        let new_ports = found.as_ref().map(|route| route.ports.clone());
        let new_id = found.as_ref().map(|route| route.id);
        let old_id = self.id_at(address);
        let mut ids: SmallVec<[EndpointId; 2]> = old_id.into_iter().chain(new_id).collect();
        ids.dedup();
        let stood_for: SmallVec<[_; 2]> = ids.iter().map(|id| self.resolve(*id)).collect();
        let old = match found {
            Some(route) => self.routes.insert(address, route),
            None => self.routes.remove(&address),
        };
        let old_ports = old.as_ref().map(|route| &route.ports);
        let other_port =
            old_ports.map_or(&[][..], |one| one) != new_ports.as_deref().unwrap_or(&[]);
        for source in old.iter().flat_map(|route| &route.sources) {
            senders.remove(Name::Address(address), *source);
        }
        if old_id != new_id {
            if let Some(id) = old_id
                && let Some(addresses) = self.by_id.get_mut(&id)
            {
                addresses.retain(|one| *one != address);
                if addresses.is_empty() {
                    self.by_id.remove(&id);
                }
            }
            if let Some(id) = new_id {
                self.by_id.entry(id).or_default().push(address);
            }
        }
        let mut moved = false;
        for (id, before) in ids.iter().zip(stood_for) {
            self.find_conflicts(*id);
            let after = self.resolve(*id);
            if before == after {
                continue;
            }
            moved = true;
            for address in before.into_iter().chain(after) {
                senders.located_anew(address);
            }
        }
        match (other_port, moved) {
            (true, _) => Change::Port,
            (false, true) => Change::Address,
            (false, false) => Change::Nothing,
        }
    }

    /// Notes the paths to an address that say of it what the controller says otherwise.
    fn refuse(
        &mut self,
        address: IpAddr,
        paths: &[PathInput<'_>],
        administrator: u32,
        origins: Option<&Origins>,
    ) {
        let none = EndpointId([0; 4].into());
        let known = self.refused.range((address, none)..);
        let known = known.take_while(|((at, _), _)| *at == address);
        let before: SmallVec<[EndpointId; 1]> = known.map(|((_, id), _)| *id).collect();
        if origins.is_none() && before.is_empty() {
            return;
        }
        let mut now: SmallVec<[EndpointId; 1]> = SmallVec::new();
        for path in paths {
            let locator = locator_in(path, administrator).zip(origins);
            let Some((locator, origins)) = locator else {
                continue;
            };
            let id = locator.id;
            if origins.permits_locator(id, address) || now.contains(&id) {
                continue;
            }
            now.push(id);
            let conflict = LocatorConflict {
                id,
                owner: origins.address(id),
                other: address,
                source: path.source,
            };
            if self.refused.insert((address, id), conflict).is_none() {
                self.new_conflicts.push(conflict);
            }
        }
        for id in before {
            if !now.contains(&id) {
                self.refused.remove(&(address, id));
            }
        }
    }

    fn find_conflicts(&mut self, id: EndpointId) {
        let mut before = self.conflicts.clone();
        self.conflicts.retain(|(one, _), _| *one != id);
        let owner = self.resolve(id);
        let own = self.own.filter(|(own, _)| *own == id);
        for other in self.by_id.get(&id).into_iter().flatten() {
            let is_owner = match own {
                Some((_, address)) => *other == address,
                None => Some(*other) == owner,
            };
            let source = self
                .routes
                .get(other)
                .and_then(|route| route.sources.first().copied());
            let Some(source) = source.filter(|_| !is_owner) else {
                continue;
            };
            let conflict = LocatorConflict {
                id,
                owner: own.map(|(_, address)| address).or(owner),
                other: *other,
                source,
            };
            if before.remove(&(id, *other)).is_none() {
                self.new_conflicts.push(conflict);
            }
            self.conflicts.insert((id, *other), conflict);
        }
    }
}

fn is_host(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

type Accepted<'a> = SmallVec<[(u16, &'a VniSet); 2]>;

/// The locator of a route, and which neighbours say so.
fn route_in<'a>(
    address: IpAddr,
    paths: &[PathInput<'a>],
    administrator: u32,
    origins: Option<&Origins>,
) -> (Option<Route>, Accepted<'a>) {
    let mut found: Option<Route> = None;
    let mut accepted = Accepted::new();
    for path in paths {
        let Some(locator) = locator_in(path, administrator) else {
            continue;
        };
        if origins.is_some_and(|origins| !origins.permits_locator(locator.id, address)) {
            continue;
        }
        let route = found.get_or_insert_with(|| Route {
            id: locator.id,
            internal: false,
            ports: ports_in(path, administrator, locator.id),
            sources: SmallVec::new(),
        });
        // One address is one router's: the better path says whose.
        if route.id == locator.id {
            let preference = &path.preference;
            route.internal |= !preference.ebgp && preference.as_path_length == 0;
            route.sources.push(path.source);
            accepted.push((path.source, path.accept));
        }
    }
    (found, accepted)
}
