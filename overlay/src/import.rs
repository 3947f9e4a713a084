//! What a neighbour may say of the overlay: what it may not is taken from its routes before anything else sees them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weft_bgp_wire::LargeCommunity;

use crate::label::{Endpoint, LabelCommunity, LabelKind, LocalNextHop};
use crate::{EndpointId, VniSet};

/// Kinds of what routes say of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Labels of tenants.
    Tenant,
    /// Labels of services.
    Service,
    /// Local next hops.
    LocalNextHop,
    /// Locators.
    Locator,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Tenant,
        Self::Service,
        Self::LocalNextHop,
        Self::Locator,
    ];

    /// As configurations name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Service => "service",
            Self::LocalNextHop => "local-next-hop",
            Self::Locator => "locator",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What one neighbour may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportPolicy {
    /// Of these VNIs; of none, it may say nothing.
    pub vnis: VniSet,
    /// These kinds.
    pub kinds: Vec<Kind>,
    /// Of endpoints inside these prefixes; `None` for any. An endpoint id is judged by its locator.
    pub endpoints: Option<Vec<IpNet>>,
    /// Of these endpoint ids; `None` for any.
    pub ids: Option<Vec<EndpointId>>,
    /// What is not permitted is carried on, and not used here.
    pub transit: bool,
}

/// Communities that were taken from routes, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stripped {
    /// Of a VNI that is not permitted.
    pub vni: u64,
    /// Of a kind that is not permitted, or that this version does not know.
    pub kind: u64,
    /// Of an endpoint that is not permitted.
    pub endpoint: u64,
}

enum Reason {
    Vni,
    Kind,
    Endpoint,
}

impl ImportPolicy {
    /// Everything.
    pub fn everything() -> Self {
        Self {
            vnis: VniSet::all(),
            kinds: Kind::ALL.to_vec(),
            endpoints: None,
            ids: None,
            transit: false,
        }
    }

    /// Something may have to be taken from routes.
    pub fn strips(&self) -> bool {
        !self.transit && *self != Self::everything()
    }

    /// What is left of a route's large communities, in their order, and what was taken; `None` where all of them stay.
    /// `prefixes` are those that the communities are of.
    pub fn strip(
        &self,
        communities: &[LargeCommunity],
        administrator: u32,
        prefixes: impl Iterator<Item = IpNet>,
    ) -> Option<(Vec<LargeCommunity>, Stripped)> {
        let (mut kept, mut stripped) = (Vec::with_capacity(communities.len()), Stripped::default());
        let mut at = AtLocator {
            prefixes,
            within: None,
            had: false,
        };
        let mut labels = 0;
        for community in communities {
            let Some(decoded) = LabelCommunity::decode(*community, administrator) else {
                kept.push(*community);
                continue;
            };
            let judged = match decoded {
                Ok(decoded) => self.judge(&decoded, &mut at),
                Err(_) => Err(Reason::Kind),
            };
            match judged {
                Ok(()) => {
                    labels += u32::from(matches!(decoded, Ok(LabelCommunity::Label(_))));
                    kept.push(*community);
                }
                Err(reason) => stripped.count(&reason),
            }
        }
        if labels == 0 {
            // A local next hop leads to what a label names.
            kept.retain(|community| {
                let decoded = LabelCommunity::decode(*community, administrator);
                let stays = !matches!(decoded, Some(Ok(LabelCommunity::LocalNextHop(_))));
                stripped.vni += u64::from(!stays);
                stays
            });
        }
        (kept.len() < communities.len()).then_some((kept, stripped))
    }

    fn judge(
        &self,
        decoded: &LabelCommunity,
        at: &mut AtLocator<impl Iterator<Item = IpNet>>,
    ) -> Result<(), Reason> {
        let (kind, vni) = match decoded {
            LabelCommunity::Label(label) => match label.kind {
                LabelKind::Tenant => (Kind::Tenant, Some(label.vni)),
                LabelKind::Service => (Kind::Service, Some(label.vni)),
            },
            LabelCommunity::LocalNextHop(LocalNextHop { vni, .. }) => (Kind::LocalNextHop, *vni),
            LabelCommunity::Locator(_) | LabelCommunity::LocatorPort(_) => (Kind::Locator, None),
        };
        let permitted = vni.map_or(!self.vnis.is_empty(), |vni| self.vnis.contains(vni));
        if !permitted {
            return Err(Reason::Vni);
        }
        if !self.kinds.contains(&kind) {
            return Err(Reason::Kind);
        }
        if self.endpoints.is_none() && self.ids.is_none() {
            return Ok(());
        }
        let ranges = self.endpoints.as_ref();
        let within = |address: IpAddr| {
            ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(&address)))
        };
        let known = |id: EndpointId| self.ids.as_ref().is_none_or(|ids| ids.contains(&id));
        let endpoint_within = |endpoint: Endpoint| match endpoint {
            Endpoint::V4(address) => within(address.into()),
            Endpoint::Id(id) => known(id),
        };
        let fits = match decoded {
            LabelCommunity::Label(label) => endpoint_within(label.endpoint),
            LabelCommunity::LocalNextHop(hop) => endpoint_within(hop.endpoint),
            // A second one of the same route has no sense.
            LabelCommunity::Locator(locator) => {
                let second = std::mem::replace(&mut at.had, true);
                !second && known(locator.id) && at.all(within)
            }
            LabelCommunity::LocatorPort(port) => known(port.id) && at.all(within),
        };
        fits.then_some(()).ok_or(Reason::Endpoint)
    }
}

/// What the locators of a route are judged by.
struct AtLocator<P> {
    /// Those that the route's communities are of.
    prefixes: P,
    /// They are all of endpoints that are permitted, once that was asked.
    within: Option<bool>,
    /// A locator was judged.
    had: bool,
}

impl<P: Iterator<Item = IpNet>> AtLocator<P> {
    fn all(&mut self, within: impl Fn(IpAddr) -> bool) -> bool {
        let prefixes = &mut self.prefixes;
        let all = || prefixes.all(|prefix| within(prefix.addr()));
        *self.within.get_or_insert_with(all)
    }
}

impl Stripped {
    fn count(&mut self, reason: &Reason) {
        *match reason {
            Reason::Vni => &mut self.vni,
            Reason::Kind => &mut self.kind,
            Reason::Endpoint => &mut self.endpoint,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::label::{Label, Locator, LocatorPort};
    use crate::{Encapsulation, Vni};

    const ADMINISTRATOR: u32 = 64512;
    const FOREIGN: LargeCommunity = LargeCommunity {
        global_administrator: 1,
        local_data_1: 2,
        local_data_2: 3,
    };

    fn endpoint(last: u8) -> Endpoint {
        Endpoint::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    fn label(kind: LabelKind, vni: u32, last: u8) -> LargeCommunity {
        LabelCommunity::Label(Label {
            kind,
            vni: Vni::new(vni).unwrap(),
            encapsulation: Encapsulation::Vxlan,
            endpoint: endpoint(last),
        })
        .encode(ADMINISTRATOR)
    }

    fn hop(last: u8) -> LargeCommunity {
        LabelCommunity::LocalNextHop(LocalNextHop {
            vni: None,
            encapsulation: Encapsulation::Vxlan,
            endpoint: endpoint(last),
        })
        .encode(ADMINISTRATOR)
    }

    fn port() -> LargeCommunity {
        LabelCommunity::LocatorPort(LocatorPort {
            encapsulation: Encapsulation::Vxlan,
            port: 8472.try_into().unwrap(),
            id: EndpointId([192, 0, 2, 1].into()),
        })
        .encode(ADMINISTRATOR)
    }

    fn locator() -> LargeCommunity {
        LabelCommunity::Locator(Locator {
            encapsulation: Encapsulation::Vxlan,
            id: EndpointId(Ipv4Addr::new(192, 0, 2, 1)),
        })
        .encode(ADMINISTRATOR)
    }

    fn of_vni(vni: u32) -> ImportPolicy {
        let vni = Vni::new(vni).unwrap();
        ImportPolicy {
            vnis: VniSet::from_ranges([(vni, vni)]),
            ..ImportPolicy::everything()
        }
    }

    fn run(
        policy: &ImportPolicy,
        communities: &[LargeCommunity],
    ) -> (Vec<LargeCommunity>, [u64; 3]) {
        let prefix: IpNet = "192.0.2.1/32".parse().unwrap();
        match policy.strip(communities, ADMINISTRATOR, [prefix].into_iter()) {
            Some((kept, one)) => (kept, [one.vni, one.kind, one.endpoint]),
            None => (communities.to_vec(), [0; 3]),
        }
    }

    #[test]
    fn a_neighbour_of_which_nothing_is_accepted_says_nothing() {
        let nothing = ImportPolicy {
            vnis: VniSet::none(),
            ..ImportPolicy::everything()
        };
        let route = [FOREIGN, label(LabelKind::Tenant, 7, 1), hop(1), locator()];
        assert_eq!(run(&nothing, &route), (vec![FOREIGN], [3, 0, 0]));
        let reserved = LargeCommunity::new(ADMINISTRATOR, 0xf000_0000, 1);
        assert_eq!(run(&nothing, &[reserved]), (vec![], [0, 1, 0]));
    }

    #[test]
    fn labels_of_other_vnis_go_and_the_rest_stays() {
        let (seven, eight) = (
            label(LabelKind::Tenant, 7, 1),
            label(LabelKind::Service, 8, 1),
        );
        let policy = of_vni(7);
        assert_eq!(
            run(&policy, &[FOREIGN, seven, eight, hop(2)]),
            (vec![FOREIGN, seven, hop(2)], [1, 0, 0])
        );
        // Without a label a local next hop leads nowhere.
        assert_eq!(run(&policy, &[eight, hop(2)]), (vec![], [2, 0, 0]));
        assert_eq!(run(&policy, &[locator()]), (vec![locator()], [0; 3]));
        assert_eq!(run(&policy, &[locator(), port()]).1, [0; 3]);
    }

    #[test]
    fn kinds_and_endpoints_are_judged_too() {
        let policy = ImportPolicy {
            kinds: vec![Kind::Tenant, Kind::Locator],
            endpoints: Some(vec!["192.0.2.0/30".parse().unwrap()]),
            ..ImportPolicy::everything()
        };
        let (inside, outside) = (
            label(LabelKind::Tenant, 7, 1),
            label(LabelKind::Tenant, 7, 9),
        );
        let service = label(LabelKind::Service, 8, 1);
        let route = [inside, outside, service, hop(1), locator()];
        assert_eq!(run(&policy, &route), (vec![inside, locator()], [0, 2, 1]));
        // A port is judged as its locator, in whatever order they come; a second locator has no sense.
        for route in [[locator(), port()], [port(), locator()]] {
            assert_eq!(run(&policy, &route).1, [0; 3]);
        }
        assert_eq!(run(&policy, &[locator(), locator()]).1, [0, 0, 1]);
        let elsewhere: IpNet = "198.51.100.1/32".parse().unwrap();
        let (kept, _) = policy
            .strip(&[port(), locator()], ADMINISTRATOR, [elsewhere].into_iter())
            .unwrap();
        assert_eq!(kept, []);
    }

    /// A router of which others know who it is names itself, by address or by id, and nobody else.
    #[test]
    fn who_is_one_router_says_nothing_of_others() {
        let id = |last| EndpointId(Ipv4Addr::new(192, 0, 2, last));
        let policy = |last| ImportPolicy {
            endpoints: Some(vec!["192.0.2.1/32".parse().unwrap()]),
            ids: Some(vec![id(last)]),
            ..ImportPolicy::everything()
        };
        let by_id = |last| {
            LabelCommunity::Label(Label {
                kind: LabelKind::Tenant,
                vni: Vni::new(7).unwrap(),
                encapsulation: Encapsulation::Vxlan,
                endpoint: Endpoint::Id(id(last)),
            })
            .encode(ADMINISTRATOR)
        };
        let own = [label(LabelKind::Tenant, 7, 1), by_id(1), locator(), port()];
        assert_eq!(run(&policy(1), &own).1, [0; 3]);
        for other in [label(LabelKind::Tenant, 7, 2), by_id(2), hop(2)] {
            let (kept, [_, _, endpoints]) = run(&policy(1), &[other, own[0]]);
            assert_eq!((kept, endpoints), (vec![own[0]], 1));
        }
        for route in [locator(), port(), by_id(1)] {
            assert_eq!(run(&policy(2), &[route]).1, [0, 0, 1]);
        }
    }

    #[test]
    fn a_transit_and_a_neighbour_of_ones_own_strip_nothing() {
        assert!(!ImportPolicy::everything().strips());
        assert!(of_vni(7).strips());
        assert!(
            !ImportPolicy {
                transit: true,
                ..of_vni(7)
            }
            .strips()
        );
    }
}
