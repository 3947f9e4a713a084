//! What becomes of labels when a route leaves for a neighbour (`docs/label-community.md`, rules 2 to 5 and 10).

use std::net::IpAddr;

use serde::Serialize;
use weft_bgp_wire::LargeCommunity;

use crate::label::{Endpoint, Label, LabelCommunity, LabelKind, LocalNextHop};
use crate::{Encapsulation, EndpointId, Vni, VniSet};

/// What an edge does to local next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalNextHopMode {
    /// Names itself for every label that it forwards.
    Self_,
    /// Changes nothing.
    Keep,
    /// Removes all: endpoints are routed, domains tunnel directly.
    Strip,
}

/// How labels go out to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExportSettings {
    /// Configured, or `None` for the default: `self` on what is announced by eBGP and on what was learned by eBGP,
    /// `keep` for all else.
    pub local_next_hop: Option<LocalNextHopMode>,
    /// Remove everything of the overlay.
    pub strip_overlay: bool,
}

/// This router, to the labels that it sends.
#[derive(Clone, Copy, Debug)]
pub struct OwnLabels {
    /// Global Administrator.
    pub administrator: u32,
    /// Where its tunnels end. Labels name an IPv6 address by `id`.
    pub endpoint: IpAddr,
    /// Its endpoint id.
    pub id: EndpointId,
    /// What it accepts.
    pub encapsulation: Encapsulation,
}

impl OwnLabels {
    /// Its endpoint, as labels name it.
    pub fn named(&self) -> Endpoint {
        match self.endpoint {
            IpAddr::V4(address) => Endpoint::V4(address),
            IpAddr::V6(_) => Endpoint::Id(self.id),
        }
    }

    /// The label of a tenant that it hosts.
    pub fn label(&self, vni: Vni) -> LargeCommunity {
        self.of_kind(LabelKind::Tenant, vni)
    }

    /// The label of a service whose node is attached to it.
    pub fn service(&self, vni: Vni) -> LargeCommunity {
        self.of_kind(LabelKind::Service, vni)
    }

    fn of_kind(&self, kind: LabelKind, vni: Vni) -> LargeCommunity {
        let endpoint = self.named();
        let label = Label {
            kind,
            vni,
            encapsulation: self.encapsulation,
            endpoint,
        };
        LabelCommunity::Label(label).encode(self.administrator)
    }

    fn local_next_hop(&self, vni: Option<Vni>) -> LargeCommunity {
        let endpoint = self.named();
        LabelCommunity::LocalNextHop(LocalNextHop {
            vni,
            encapsulation: self.encapsulation,
            endpoint,
        })
        .encode(self.administrator)
    }
}

/// Which way a route goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Learned by eBGP.
    pub from_ebgp: bool,
    /// Originated by this router.
    pub own: bool,
    /// Announced by eBGP.
    pub to_ebgp: bool,
}

/// What a route's large communities become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// They stay as they are.
    Unchanged,
    /// These, sorted, without duplicates.
    Replaced(Vec<LargeCommunity>),
    /// The route is not announced to this neighbour.
    Reject,
}

/// What is left of a route's labels for a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usable {
    /// All of them.
    All,
    /// These communities, in their order.
    Some(Vec<LargeCommunity>),
    /// It had labels, and none is left: it is not announced.
    Nothing,
}

impl ExportSettings {
    fn mode(&self, direction: Direction) -> LocalNextHopMode {
        let at_the_edge = direction.to_ebgp || direction.from_ebgp;
        self.local_next_hop.unwrap_or(if at_the_edge {
            LocalNextHopMode::Self_
        } else {
            LocalNextHopMode::Keep
        })
    }
}

/// Leaves out labels that this router would name itself for and could not forward (rule 5), or that may not lead where they do: `leads`
/// says of a label and of where it leads, its local next hop or its own endpoint, whether it stays.
pub fn usable(
    communities: &[LargeCommunity],
    own: &OwnLabels,
    settings: &ExportSettings,
    direction: Direction,
    leads: &dyn Fn(&Label, Endpoint) -> bool,
) -> Usable {
    if settings.strip_overlay || settings.mode(direction) != LocalNextHopMode::Self_ {
        return Usable::All;
    }
    let decoded = |community: &LargeCommunity| {
        LabelCommunity::decode(*community, own.administrator).and_then(Result::ok)
    };
    // Once for all labels: who announces thousands is not to cost a walk for each. Of several for one VNI the first counts.
    let hops = communities
        .iter()
        .filter_map(|community| match decoded(community) {
            Some(LabelCommunity::LocalNextHop(hop)) => Some((hop.vni, hop.endpoint)),
            _ => None,
        });
    let mut hops: Vec<(Option<Vni>, Endpoint)> = hops.collect();
    hops.sort_by_key(|(vni, _)| *vni);
    hops.dedup_by_key(|(vni, _)| *vni);
    let hop = |vni: Option<Vni>| {
        let at = hops.binary_search_by_key(&vni, |(vni, _)| *vni).ok()?;
        Some(hops[at].1)
    };
    // One for this label alone goes before one for all.
    let hop_of = |vni: Vni| hop(Some(vni)).or_else(|| hop(None));
    let (mut labels, mut left) = (0, 0);
    let kept: Vec<LargeCommunity> = communities
        .iter()
        .filter(|community| {
            let Some(LabelCommunity::Label(label)) = decoded(community) else {
                return true;
            };
            labels += 1;
            let endpoint = hop_of(label.vni).unwrap_or(label.endpoint);
            let keep = leads(&label, endpoint);
            left += usize::from(keep);
            keep
        })
        .copied()
        .collect();
    match (labels, left) {
        (labels, left) if labels == left => Usable::All,
        (_, 0) => Usable::Nothing,
        _ => Usable::Some(kept),
    }
}

/// Rewrites the large communities of one route. `forwards` says whether this router accepted a label from where the
/// route came from and keeps a table for it: it names itself for no other (rule 5).
pub fn rewrite(
    communities: &[LargeCommunity],
    own: &OwnLabels,
    settings: &ExportSettings,
    direction: Direction,
    forwards: &dyn Fn(Vni) -> bool,
) -> Rewrite {
    let decoded =
        |community: &LargeCommunity| LabelCommunity::decode(*community, own.administrator);
    if !communities
        .iter()
        .any(|community| decoded(community).is_some())
    {
        return Rewrite::Unchanged;
    }
    if settings.strip_overlay {
        return replaced(
            communities,
            communities
                .iter()
                .copied()
                .filter(|community| decoded(community).is_none()),
        );
    }
    let mode = settings.mode(direction);
    let hop = |community: &LargeCommunity| match decoded(community) {
        Some(Ok(LabelCommunity::LocalNextHop(hop))) => Some(hop),
        _ => None,
    };
    match mode {
        LocalNextHopMode::Keep => Rewrite::Unchanged,
        LocalNextHopMode::Strip => replaced(
            communities,
            communities
                .iter()
                .copied()
                .filter(|community| hop(community).is_none()),
        ),
        LocalNextHopMode::Self_ => {
            let mut vnis: Vec<Vni> = Vec::new();
            let mut services = false;
            let mut foreign_locator = false;
            for community in communities {
                match decoded(community) {
                    Some(Ok(LabelCommunity::Label(label))) => {
                        services |= label.kind == LabelKind::Service && forwards(label.vni);
                        vnis.push(label.vni);
                    }
                    Some(Ok(LabelCommunity::Locator(locator))) => {
                        foreign_locator |= locator.id != own.id
                    }
                    _ => {}
                }
            }
            // The neighbour's domain enters here: the endpoints behind us are none of its business, the services at them are.
            let inner =
                foreign_locator && direction.to_ebgp && !direction.from_ebgp && !direction.own;
            if inner && !services {
                return Rewrite::Reject;
            }
            vnis.sort_unstable();
            vnis.dedup();
            let (ours, others): (Vec<Vni>, Vec<Vni>) =
                vnis.into_iter().partition(|vni| forwards(*vni));
            if ours.is_empty() {
                return Rewrite::Unchanged;
            }
            let kept = communities
                .iter()
                .copied()
                .filter(|community| match hop(community) {
                    None => {
                        !inner
                            || !matches!(
                                decoded(community),
                                Some(Ok(
                                    LabelCommunity::Locator(_) | LabelCommunity::LocatorPort(_)
                                ))
                            )
                    }
                    // One that stands for every label stays for those that we do not forward.
                    Some(LocalNextHop { vni: None, .. }) => !others.is_empty(),
                    Some(LocalNextHop { vni: Some(vni), .. }) => others.contains(&vni),
                });
            let named: Vec<LargeCommunity> = if others.is_empty() {
                vec![own.local_next_hop(None)]
            } else {
                ours.into_iter()
                    .map(|vni| own.local_next_hop(Some(vni)))
                    .collect()
            };
            replaced(communities, kept.chain(named))
        }
    }
}

fn replaced(before: &[LargeCommunity], after: impl Iterator<Item = LargeCommunity>) -> Rewrite {
    let mut after: Vec<LargeCommunity> = after.collect();
    after.sort_unstable();
    after.dedup();
    if after == before {
        Rewrite::Unchanged
    } else {
        Rewrite::Replaced(after)
    }
}

/// What a neighbour may know of a route's large communities that is told of these VNIs alone: the labels and local next hops of other
/// tenants and services go. `None` where no label and no locator is left of what had labels: the route is another tenant's.
pub fn restrict(
    communities: &[LargeCommunity],
    announced: &VniSet,
    administrator: u32,
) -> Option<Vec<LargeCommunity>> {
    let (mut labels, mut left) = (0, 0);
    let kept = communities.iter().copied().filter(|community| {
        match LabelCommunity::decode(*community, administrator) {
            Some(Ok(LabelCommunity::Label(label))) => {
                labels += 1;
                let keep = announced.contains(label.vni);
                left += usize::from(keep);
                keep
            }
            Some(Ok(LabelCommunity::Locator(_))) => {
                left += 1;
                true
            }
            Some(Ok(LabelCommunity::LocalNextHop(LocalNextHop { vni: Some(vni), .. }))) => {
                announced.contains(vni)
            }
            _ => true,
        }
    });
    let kept = kept.collect();
    (labels == 0 || left > 0).then_some(kept)
}

/// Joins the labels of several paths of one prefix that originate in our domain into `first` (rule 2).
pub fn join(
    first: impl IntoIterator<Item = LargeCommunity>,
    others: impl IntoIterator<Item = LargeCommunity>,
    administrator: u32,
) -> Vec<LargeCommunity> {
    let labels = others.into_iter().filter(|community| {
        matches!(
            LabelCommunity::decode(*community, administrator),
            Some(Ok(LabelCommunity::Label(_)))
        )
    });
    let mut joined: Vec<LargeCommunity> = first.into_iter().chain(labels).collect();
    joined.sort_unstable();
    joined.dedup();
    joined
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADMINISTRATOR: u32 = 64512;

    fn own() -> OwnLabels {
        let endpoint = Ipv4Addr::new(192, 0, 2, 12);
        OwnLabels {
            administrator: ADMINISTRATOR,
            endpoint: endpoint.into(),
            id: EndpointId(endpoint),
            encapsulation: Encapsulation::Vxlan,
        }
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    fn label(number: u32) -> LargeCommunity {
        OwnLabels {
            endpoint: [192, 0, 2, 11].into(),
            ..own()
        }
        .label(vni(number))
    }

    fn hop(number: Option<u32>, last: u8) -> LargeCommunity {
        OwnLabels {
            endpoint: [192, 0, 2, last].into(),
            ..own()
        }
        .local_next_hop(number.map(vni))
    }

    const OUT: Direction = Direction {
        from_ebgp: false,
        own: false,
        to_ebgp: true,
    };
    const IN: Direction = Direction {
        from_ebgp: true,
        own: false,
        to_ebgp: false,
    };
    const INSIDE: Direction = Direction {
        from_ebgp: false,
        own: false,
        to_ebgp: false,
    };
    const DEFAULT: ExportSettings = ExportSettings {
        local_next_hop: None,
        strip_overlay: false,
    };

    fn run(
        communities: &[LargeCommunity],
        settings: ExportSettings,
        direction: Direction,
    ) -> Rewrite {
        rewrite(communities, &own(), &settings, direction, &|number| {
            number < vni(20000)
        })
    }

    #[test]
    fn an_edge_names_itself_both_ways_and_a_reflector_changes_nothing() {
        let route = [label(10001), hop(None, 99)];
        let expected = Rewrite::Replaced(vec![label(10001), hop(None, 12)]);
        assert_eq!(run(&route, DEFAULT, OUT), expected);
        assert_eq!(run(&route, DEFAULT, IN), expected);
        assert_eq!(run(&route, DEFAULT, INSIDE), Rewrite::Unchanged);
    }

    #[test]
    fn a_label_that_cannot_be_forwarded_is_not_announced() {
        let leads = |dead: u8| {
            move |_: &Label, endpoint: Endpoint| {
                endpoint != Endpoint::V4(Ipv4Addr::new(192, 0, 2, dead))
            }
        };
        let run = |route: &[LargeCommunity], direction, dead| {
            usable(route, &own(), &DEFAULT, direction, &leads(dead))
        };
        let foreign = LargeCommunity::new(1, 2, 3);
        assert_eq!(run(&[foreign, label(10001)], OUT, 11), Usable::Nothing);
        assert_eq!(run(&[foreign, label(10001)], OUT, 99), Usable::All);
        assert_eq!(run(&[foreign], OUT, 11), Usable::All, "a plain route");
        assert_eq!(run(&[label(10001)], INSIDE, 11), Usable::All, "a reflector");
        // The local next hop is what has to be reached.
        let route = [label(10001), label(10002), hop(Some(10001), 99)];
        assert_eq!(run(&route, IN, 99), Usable::Some(vec![route[1], route[2]]));
        assert_eq!(run(&route, IN, 11), Usable::Some(vec![route[0], route[2]]));
    }

    #[test]
    fn it_names_itself_only_for_labels_that_it_forwards() {
        assert_eq!(
            run(&[label(30000), hop(None, 99)], DEFAULT, OUT),
            Rewrite::Unchanged
        );
        let mixed = [label(10001), label(30000), hop(None, 99)];
        let mut expected = vec![
            label(10001),
            label(30000),
            hop(None, 99),
            hop(Some(10001), 12),
        ];
        expected.sort_unstable();
        assert_eq!(run(&mixed, DEFAULT, OUT), Rewrite::Replaced(expected));
    }

    #[test]
    fn strip_removes_local_next_hops_and_strip_overlay_everything() {
        let foreign = LargeCommunity::new(1, 2, 3);
        let route = [foreign, label(10001), hop(None, 99)];
        let strip = ExportSettings {
            local_next_hop: Some(LocalNextHopMode::Strip),
            ..DEFAULT
        };
        assert_eq!(
            run(&route, strip, OUT),
            Rewrite::Replaced(vec![foreign, label(10001)])
        );
        let nothing = ExportSettings {
            strip_overlay: true,
            ..DEFAULT
        };
        assert_eq!(run(&route, nothing, OUT), Rewrite::Replaced(vec![foreign]));
        assert_eq!(run(&[foreign], nothing, OUT), Rewrite::Unchanged);
    }

    #[test]
    fn locators_of_others_stay_inside_and_ours_goes_out() {
        let port = LabelCommunity::LocatorPort(crate::label::LocatorPort {
            encapsulation: Encapsulation::Vxlan,
            port: 8472.try_into().unwrap(),
            id: EndpointId(Ipv4Addr::new(192, 0, 2, 11)),
        });
        let port = port.encode(ADMINISTRATOR);
        let locator = |last| {
            let id = EndpointId(Ipv4Addr::new(192, 0, 2, last));
            let locator = crate::label::Locator {
                encapsulation: Encapsulation::Vxlan,
                id,
            };
            LabelCommunity::Locator(locator).encode(ADMINISTRATOR)
        };
        assert_eq!(run(&[locator(11)], DEFAULT, OUT), Rewrite::Reject);
        assert_eq!(run(&[locator(11), port], DEFAULT, OUT), Rewrite::Reject);
        // The address behind a service that goes out resolves to nobody, and has no port.
        let service = OwnLabels {
            endpoint: [192, 0, 2, 11].into(),
            ..own()
        }
        .service(vni(10001));
        let route = [service, locator(11), port];
        let mut expected = vec![service, hop(None, 12)];
        expected.sort_unstable();
        assert_eq!(run(&route, DEFAULT, OUT), Rewrite::Replaced(expected));
        assert_eq!(
            run(&[locator(12)], DEFAULT, Direction { own: true, ..OUT }),
            Rewrite::Unchanged
        );
        assert_eq!(run(&[locator(11)], DEFAULT, INSIDE), Rewrite::Unchanged);
        assert_eq!(
            run(&[locator(11)], DEFAULT, IN),
            Rewrite::Unchanged,
            "the edge of the other domain"
        );
        let keep = ExportSettings {
            local_next_hop: Some(LocalNextHopMode::Keep),
            ..DEFAULT
        };
        assert_eq!(run(&[locator(11)], keep, OUT), Rewrite::Unchanged);
    }

    #[test]
    fn what_is_not_announced_to_a_neighbour_is_not_known_there() {
        let announced = VniSet::from_ranges([(vni(10001), vni(10001))]);
        let foreign = LargeCommunity::new(1, 2, 3);
        let only = |route: &[LargeCommunity]| restrict(route, &announced, ADMINISTRATOR);
        // Several tenants have the prefix: one of them is known there.
        let hops = [hop(None, 12), hop(Some(10001), 12), hop(Some(10002), 12)];
        let route = [&[foreign, label(10001), label(10002)], &hops[..]].concat();
        let known = [&[foreign, label(10001)], &hops[..2]].concat();
        assert_eq!(only(&route), Some(known));
        assert_eq!(only(&[label(10002), foreign]), None);
        // A locator is the endpoint's, whatever services are there.
        let locator = LabelCommunity::Locator(crate::label::Locator {
            encapsulation: Encapsulation::Vxlan,
            id: own().id,
        });
        let locator = locator.encode(ADMINISTRATOR);
        let services = [
            own().service(vni(10001)),
            own().service(vni(20001)),
            locator,
        ];
        assert_eq!(only(&services), Some(vec![services[0], locator]));
        assert_eq!(only(&services[1..]), Some(vec![locator]));
        // What has no label is no tenant's.
        assert_eq!(only(&[foreign]), Some(vec![foreign]));
        assert_eq!(
            restrict(&[label(10001)], &VniSet::none(), ADMINISTRATOR),
            None
        );
    }

    #[test]
    fn joining_adds_labels_and_nothing_else() {
        let joined = join(
            [label(10001), hop(None, 12)],
            [label(10002), label(10001), hop(None, 7)],
            ADMINISTRATOR,
        );
        assert_eq!(joined, [label(10001), label(10002), hop(None, 12)]);
    }
}
