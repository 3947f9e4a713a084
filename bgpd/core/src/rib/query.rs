//! Questions about the routes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weft_bgp_wire::Family;

use super::Rib;
use super::family::FamilyRib;
use super::index::Tagged;
use super::types::{
    AttributeSet, PeerCounters, PeerId, PeerKind, PrefixSelection, Route, RouteFilter, RoutePage,
    RoutePath,
};

impl RouteFilter {
    fn prefix_matches(&self, net: &IpNet) -> bool {
        self.prefix.is_none_or(|wanted| match self.select {
            PrefixSelection::Exact => *net == wanted,
            PrefixSelection::Longer => wanted.contains(net),
            PrefixSelection::Shorter | PrefixSelection::Longest => net.contains(&wanted),
        })
    }

    fn path_matches(&self, source: PeerId, set: &AttributeSet, administrator: Option<u32>) -> bool {
        let labelled = |vni: u32| {
            set.view().large_communities().any(|community| {
                Some(community.global_administrator) == administrator
                    && community.local_data_1 & 0x00ff_ffff == vni
            })
        };
        self.peer.is_none_or(|peer| peer == source)
            && self
                .community
                .is_none_or(|wanted| set.view().communities().any(|one| wanted.matches(one)))
            && self.large_community.is_none_or(|wanted| {
                let mut communities = set.view().large_communities();
                communities.any(|community| wanted.matches(community))
            })
            && self.vni.is_none_or(labelled)
    }
}

/// The prefix and all that cover it, the most specific first.
fn covering(net: IpNet) -> impl Iterator<Item = IpNet> {
    let shorter = std::iter::successors(Some(net), IpNet::supernet);
    shorter.map(|net| net.trunc())
}

impl Rib {
    /// At most `limit` routes that match, sorted. Costs a walk over the table, unless a prefix is asked for or what covers it.
    pub fn routes(&self, filter: &RouteFilter, limit: usize) -> RoutePage {
        let mut page = RoutePage::default();
        self.collect(&self.v4, filter, limit, &mut page);
        self.collect(&self.v6, filter, limit, &mut page);
        page
    }

    fn collect<P: Tagged>(
        &self,
        rib: &FamilyRib<P>,
        filter: &RouteFilter,
        limit: usize,
        page: &mut RoutePage,
    ) {
        if filter.family.is_some_and(|family| family != P::FAMILY) {
            return;
        }
        let administrator = self.shared.config.overlay_administrator;
        let room = limit.saturating_sub(page.routes.len());
        // The first `room` matches behind the cursor, in order.
        let mut first: BTreeMap<P, u32> = BTreeMap::new();
        let find = |net: IpNet| P::from_net(net).and_then(|prefix| rib.table.find(&prefix));
        let entries: Box<dyn Iterator<Item = u32> + '_> = match (filter.prefix, filter.select) {
            (None, _) | (Some(_), PrefixSelection::Longer) => {
                Box::new(rib.table.iter().map(|(at, _)| at))
            }
            (Some(net), PrefixSelection::Exact) => Box::new(find(net).into_iter()),
            (Some(net), PrefixSelection::Shorter | PrefixSelection::Longest) => {
                Box::new(covering(net).filter_map(find))
            }
        };
        for at in entries {
            let Some(entry) = rib.table.get(at) else {
                continue;
            };
            let net = entry.prefix.into();
            let matches = filter.prefix_matches(&net)
                && entry.paths.iter().any(|path| {
                    filter.path_matches(
                        path.peer,
                        self.shared.interner.get(path.attributes),
                        administrator,
                    )
                });
            if !matches {
                continue;
            }
            page.total += 1;
            let longest = filter.prefix.is_some() && filter.select == PrefixSelection::Longest;
            let behind = filter.after.is_none_or(|after| match P::from_net(after) {
                Some(after) => entry.prefix > after,
                None => P::FAMILY == Family::Ipv6Unicast,
            });
            if behind && room > 0 {
                first.insert(entry.prefix, at);
                if first.len() > room {
                    first.pop_last();
                }
            }
            if longest {
                // The most specific one comes first.
                break;
            }
        }
        for at in first.into_values() {
            let Some(entry) = rib.table.get(at) else {
                continue;
            };
            let reasons = rib.reasons(&self.shared, entry);
            let paths = entry
                .paths
                .iter()
                .zip(reasons)
                .filter(|(path, _)| {
                    filter.path_matches(
                        path.peer,
                        self.shared.interner.get(path.attributes),
                        administrator,
                    )
                })
                .map(|(path, lost)| RoutePath {
                    source: path.peer,
                    path_id: path.path_id,
                    lost,
                    stale: path.stale,
                    ebgp: self.shared.kind(path.peer) == Some(PeerKind::Ebgp),
                    attributes: self.shared.interner.get(path.attributes).clone(),
                })
                .collect();
            page.routes.push(Route {
                prefix: entry.prefix.into(),
                paths,
            });
        }
    }

    /// Prefixes with at least one path, by [`Family::index`].
    pub fn prefixes(&self) -> [usize; 2] {
        [self.v4.len(), self.v6.len()]
    }

    /// Distinct sets of attributes.
    pub fn attribute_sets(&self) -> usize {
        self.shared.interner.len()
    }

    /// Counters of a neighbour. `advertised` costs a walk over what is announced.
    pub fn counters(&self, peer: PeerId) -> PeerCounters {
        let mut counters = self
            .shared
            .peer(peer)
            .map(|peer| peer.counters)
            .unwrap_or_default();
        for (group, family) in [
            (self.v4.group(peer), Family::Ipv4Unicast),
            (self.v6.group(peer), Family::Ipv6Unicast),
        ] {
            if let Some(group) = group {
                counters.advertised[family.index()] = group.advertised(peer);
                counters.too_large += group.too_large();
            }
        }
        counters
    }
}
