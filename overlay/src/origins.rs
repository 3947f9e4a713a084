//! Label origin validation: whether a label may lead where it does, by what the domain's controller knows, as RPKI says it of prefixes and
//! their origins (RFC 6811).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use serde::Serialize;
use weft_bgp_wire::LargeCommunity;

use crate::label::{Endpoint, Label, LabelCommunity, LocalNextHop};
use crate::{EndpointId, Vni, VniSet};

/// How a label stands to what the controller says; the states of RFC 6811 section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginState {
    /// A router there hosts what the VNI names, or passes its packets on.
    Valid,
    /// The controller says who does, and it is none of those.
    Invalid,
    /// The controller does not say who does.
    Unknown,
}

/// A label that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// There is no controller that says anything: every label is used.
    #[default]
    Unchecked,
    /// It is used.
    Valid,
    /// It is not used.
    Invalid,
    /// It is used where that is permitted.
    Unknown {
        /// By policy, or since the VNI is one that others host too of whom nobody says who they are.
        permitted: bool,
    },
}

impl Origin {
    /// The label may be used.
    pub fn permitted(self) -> bool {
        match self {
            Self::Unchecked | Self::Valid => true,
            Self::Invalid => false,
            Self::Unknown { permitted } => permitted,
        }
    }

    /// The state, where it was checked.
    pub fn state(self) -> Option<OriginState> {
        match self {
            Self::Unchecked => None,
            Self::Valid => Some(OriginState::Valid),
            Self::Invalid => Some(OriginState::Invalid),
            Self::Unknown { .. } => Some(OriginState::Unknown),
        }
    }
}

/// Where the labels of a VNI may lead to in other domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Far {
    /// Sorted.
    endpoints: Box<[Endpoint]>,
    open: bool,
}

/// What the controller says. Who it does not name of a VNI that it speaks of does not host it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Endpoints of routers of the domain, sorted.
    near: FxHashMap<Vni, Box<[Endpoint]>>,
    far: FxHashMap<Vni, Far>,
    /// Routers of the domain, by id and by where their tunnels end.
    addresses: FxHashMap<EndpointId, IpAddr>,
    ids: FxHashMap<IpAddr, EndpointId>,
    /// Labels whose origin is unknown are used.
    accept_unknown: bool,
}

/// What another word of the controller changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Labels of these VNIs may be judged otherwise.
    pub vnis: VniSet,
    /// So may locators of these ids.
    pub ids: BTreeSet<EndpointId>,
    /// So may locators at these addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Changed {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.vnis.is_empty() && self.ids.is_empty() && self.addresses.is_empty()
    }

    /// One of these communities of a route may be judged otherwise.
    pub fn concerns(&self, communities: &[LargeCommunity], administrator: u32) -> bool {
        let mut communities = communities.iter();
        communities.any(
            |community| match LabelCommunity::decode(*community, administrator) {
                Some(Ok(LabelCommunity::Label(label))) => self.vnis.contains(label.vni),
                Some(Ok(LabelCommunity::Locator(locator))) => {
                    !self.addresses.is_empty() || self.ids.contains(&locator.id)
                }
                _ => false,
            },
        )
    }
}

fn sorted(endpoints: impl IntoIterator<Item = Endpoint>) -> Box<[Endpoint]> {
    let mut endpoints: Vec<Endpoint> = endpoints.into_iter().collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.into()
}

impl Origins {
    /// Of no VNI yet.
    pub fn new(accept_unknown: bool) -> Self {
        Self {
            accept_unknown,
            ..Self::default()
        }
    }

    /// All routers of the domain that host what a VNI names, or pass its packets on, by id and where their tunnels end.
    pub fn add_near(&mut self, vni: Vni, routers: impl IntoIterator<Item = (EndpointId, IpAddr)>) {
        let endpoints = routers.into_iter().map(|(id, address)| {
            self.addresses.insert(id, address);
            self.ids.insert(address, id);
            match address {
                IpAddr::V4(address) => Endpoint::V4(address),
                IpAddr::V6(_) => Endpoint::Id(id),
            }
        });
        let endpoints = sorted(endpoints);
        self.near.insert(vni, endpoints);
    }

    /// All those of other domains, and whether there are others of whom nobody says who they are.
    pub fn add_far(&mut self, vni: Vni, endpoints: impl IntoIterator<Item = Endpoint>, open: bool) {
        let endpoints = sorted(endpoints);
        self.far.insert(vni, Far { endpoints, open });
    }

    /// A label of a route that leads to `via`: its local next hop, or its own endpoint where it has none. `ebgp` says that the route was
    /// learned by eBGP.
    ///
    /// A route of the own AS leads to a router of the domain, the one that hosts the VNI or an edge, which has checked what is behind it. One
    /// of another AS leads to a router there, and what it names behind is of another domain too.
    pub fn judge(&self, label: &Label, via: Endpoint, ebgp: bool) -> Origin {
        let named = |all: &[Endpoint], one: Endpoint| all.binary_search(&one).is_ok();
        let unknown = |open: bool| Origin::Unknown {
            permitted: open || self.accept_unknown,
        };
        if !ebgp {
            return match self.near.get(&label.vni) {
                Some(near) if named(near, via) => Origin::Valid,
                Some(_) => Origin::Invalid,
                None => unknown(false),
            };
        }
        match self.far.get(&label.vni) {
            Some(far) if named(&far.endpoints, via) && named(&far.endpoints, label.endpoint) => {
                Origin::Valid
            }
            Some(far) if far.open => unknown(true),
            Some(_) => Origin::Invalid,
            None => unknown(false),
        }
    }

    /// A locator that says that an id is at an address: false where either is another router's. Of routers that it does not know the
    /// controller says nothing.
    pub fn permits_locator(&self, id: EndpointId, address: IpAddr) -> bool {
        let at = self.addresses.get(&id);
        let known = self.ids.get(&address);
        at.is_none_or(|at| *at == address) && known.is_none_or(|known| *known == id)
    }

    /// Where the router with an id has its tunnels end.
    pub fn address(&self, id: EndpointId) -> Option<IpAddr> {
        self.addresses.get(&id).copied()
    }

    /// What differs from another word; without one, labels are not judged at all.
    pub fn changed(before: Option<&Self>, after: Option<&Self>) -> Changed {
        let (Some(one), Some(other)) = (before, after) else {
            let mut changed = Changed::default();
            for all in before.into_iter().chain(after) {
                changed.vnis = VniSet::all();
                changed.ids.extend(all.addresses.keys());
                changed.addresses.extend(all.ids.keys());
            }
            return changed;
        };
        let vnis = match one.accept_unknown == other.accept_unknown {
            true => {
                let near = differing(&one.near, &other.near);
                let far = differing(&one.far, &other.far);
                VniSet::from_ranges(near.into_iter().chain(far).map(|vni| (vni, vni)))
            }
            false => VniSet::all(),
        };
        Changed {
            vnis,
            ids: differing(&one.addresses, &other.addresses),
            addresses: differing(&one.ids, &other.ids),
        }
    }
}

/// Keys of which two maps say something else.
fn differing<K, V>(one: &FxHashMap<K, V>, other: &FxHashMap<K, V>) -> BTreeSet<K>
where
    K: Copy + Ord + std::hash::Hash,
    V: PartialEq,
{
    let gone = one
        .iter()
        .filter(|(key, value)| other.get(key) != Some(*value));
    let new = other.keys().filter(|key| !one.contains_key(key));
    gone.map(|(key, _)| *key).chain(new.copied()).collect()
}

/// The local next hop of a label among those of its route: one for this label alone goes before one for all.
pub(crate) fn hop_of(hops: &[LocalNextHop], vni: Vni) -> Option<&LocalNextHop> {
    let own = hops.iter().find(|hop| hop.vni == Some(vni));
    own.or_else(|| hops.iter().find(|hop| hop.vni.is_none()))
}

/// Whether labels or locators among these communities are judged otherwise by another word, which changes this.
pub fn judged_otherwise(
    (before, after): (Option<&Origins>, Option<&Origins>),
    changed: &Changed,
    communities: &[LargeCommunity],
    administrator: u32,
) -> bool {
    if !changed.concerns(communities, administrator) {
        return false;
    }
    let has_locator = communities.iter().any(|community| {
        let decoded = LabelCommunity::decode(*community, administrator);
        matches!(decoded, Some(Ok(LabelCommunity::Locator(_))))
    });
    let (Some(before), Some(after)) = (before, after) else {
        return true;
    };
    has_locator
        || [false, true].iter().any(|ebgp| {
            let judged = |one| states(one, communities, administrator, *ebgp);
            judged(before) != judged(after)
        })
}

/// Each label of a route with how it is judged, in their order.
pub fn states(
    origins: &Origins,
    communities: &[LargeCommunity],
    administrator: u32,
    ebgp: bool,
) -> Vec<(LargeCommunity, Origin)> {
    let decoded = || {
        communities.iter().filter_map(|community| {
            let decoded = LabelCommunity::decode(*community, administrator)?.ok()?;
            Some((*community, decoded))
        })
    };
    let hops = decoded().filter_map(|(_, decoded)| match decoded {
        LabelCommunity::LocalNextHop(hop) => Some(hop),
        _ => None,
    });
    let hops: Vec<LocalNextHop> = hops.collect();
    let labels = decoded().filter_map(|(community, decoded)| match decoded {
        LabelCommunity::Label(label) => {
            let via = hop_of(&hops, label.vni).map_or(label.endpoint, |hop| hop.endpoint);
            Some((community, origins.judge(&label, via, ebgp)))
        }
        _ => None,
    });
    labels.collect()
}
