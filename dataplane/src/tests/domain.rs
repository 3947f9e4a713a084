//! Two routers with tenants red and blue, which have the same prefixes, and one between them that only stitches.

use std::fmt;
use std::time::{Duration, Instant};

use weft_overlay::intent::{
    ForwardingNextHop, Group, GroupId, NextHopSet, TenantIntent, TenantRoute,
};
use weft_overlay::{Encapsulation, EndpointId, Vni};

use super::super::*;
use super::lab::{Lab, Router};
use crate::doctor::{self, Health};
use crate::model::Carrier;

/// How packets are carried, over what, and how tenants are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) encapsulation: Encapsulation,
    pub(super) v6: bool,
    pub(super) vrf: bool,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let underlay = if self.v6 { "IPv6" } else { "IPv4" };
        let segmentation = if self.vrf { "VRF" } else { "tables" };
        write!(f, "{} over {underlay}, {segmentation}", self.encapsulation)
    }
}

impl Mode {
    pub(super) const PLAIN: Self = Self {
        encapsulation: Encapsulation::Vxlan,
        v6: false,
        vrf: false,
    };

    /// Every one, and whether this kernel can do it.
    pub(super) fn all() -> Vec<(Self, bool)> {
        let findings = doctor::doctor();
        let works = |what: &str| {
            let one = |finding: &&doctor::Finding| finding.what.starts_with(what);
            let finding = findings.iter().find(one).unwrap();
            finding.health == Health::Good
        };
        let mut modes = Vec::new();
        for encapsulation in [
            Encapsulation::Vxlan,
            Encapsulation::VxlanGpe,
            Encapsulation::Gre,
        ] {
            for v6 in [false, true] {
                for vrf in [false, true] {
                    let device = match (encapsulation, v6) {
                        (Encapsulation::Vxlan, _) => "VXLAN with",
                        (Encapsulation::VxlanGpe, _) => "VXLAN-GPE",
                        (Encapsulation::Gre, false) => "GRE with",
                        (Encapsulation::Gre, true) => "GRE over IPv6",
                    };
                    let mode = Self {
                        encapsulation,
                        v6,
                        vrf,
                    };
                    modes.push((mode, works(device) && (!vrf || works("VRF devices"))));
                }
            }
        }
        modes
    }

    /// Those that this kernel can do; the others are said.
    pub(super) fn possible() -> Vec<Self> {
        let all = Self::all();
        for (mode, _) in all.iter().filter(|(_, possible)| !possible) {
            eprintln!("not on this kernel: {mode}");
        }
        let possible = all.into_iter().filter(|(_, possible)| *possible);
        possible.map(|(mode, _)| mode).collect()
    }

    pub(super) fn endpoint(self, node: u8) -> IpAddr {
        if self.v6 {
            format!("2001:db8::{node}").parse().unwrap()
        } else {
            [192, 0, 2, node].into()
        }
    }

    /// Octets around a tenant's packet.
    pub(super) fn overhead(self) -> u32 {
        let endpoint = self.endpoint(1);
        Carrier::of(self.encapsulation, endpoint, None).overhead(endpoint)
    }

    pub(super) fn config(self, node: u8) -> DataplaneConfig {
        DataplaneConfig {
            endpoint: Some(self.endpoint(node)),
            endpoint_id: EndpointId([192, 0, 2, node].into()),
            encapsulation: self.encapsulation,
            segmentation: if self.vrf {
                Segmentation::Vrf
            } else {
                Segmentation::Table
            },
            ..DataplaneConfig::default()
        }
    }

    fn hop(self, number: u32, node: u8) -> ForwardingNextHop {
        ForwardingNextHop {
            vni: vni(number),
            encapsulation: self.encapsulation,
            port: None,
            address: self.endpoint(node),
            endpoint_id: self.v6.then(|| EndpointId([192, 0, 2, node].into())),
        }
    }

    /// What packets of a VNI to one of these nodes share.
    pub(super) fn group(self, id: u32, number: u32, nodes: &[u8]) -> (GroupId, Option<Group>) {
        let hops = nodes.iter().map(|node| self.hop(number, *node)).collect();
        let group = Group {
            hops: NextHopSet(hops),
            weights: Vec::new(),
            has_others: true,
            may_share: true,
            sticky: false,
        };
        (GroupId(id), Some(group))
    }

    /// The same where one way at a time is in use.
    pub(super) fn slot(self, id: u32, number: u32, node: u8) -> (GroupId, Option<Group>) {
        let (id, group) = self.group(id, number, &[node]);
        let group = group.map(|group| Group {
            may_share: false,
            ..group
        });
        (id, group)
    }
}

pub(super) fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub(super) fn tenant(
    id: u32,
    name: &str,
    number: u32,
    attachment: Option<&str>,
) -> (TenantId, Option<TenantIntent>) {
    let attachments = attachment.map(str::to_owned).into_iter().collect();
    (
        TenantId(id),
        Some(TenantIntent {
            name: name.into(),
            primary_vni: vni(number),
            vnis: vec![vni(number)],
            attachments,
            breakout: None,
            services: Vec::new(),
            chains: Vec::new(),
        }),
    )
}

pub(super) fn route(id: u32, prefix: &str, group: u32) -> TenantRoute {
    TenantRoute {
        tenant: TenantId(id),
        prefix: prefix.parse().unwrap(),
        group: Some(GroupId(group)),
    }
}

pub(super) const A: u8 = 1;
pub(super) const M: u8 = 2;
pub(super) const B: u8 = 3;

/// Where a tenant's host is attached.
struct Site {
    router: &'static str,
    interface: String,
    host: String,
    number: u8,
    ours: String,
    theirs: String,
}

pub(super) struct Domain {
    pub(super) mode: Mode,
    pub(super) lab: Lab,
    pub(super) a: Router,
    pub(super) b: Router,
    pub(super) middle: Router,
}

impl Domain {
    /// Both tenants, with a site's prefixes behind a node.
    pub(super) fn towards(mode: Mode, site: u8, node: u8, local: bool) -> IntentDelta {
        let (red, blue) = (u32::from(site), 100 + u32::from(site));
        let mut routes = Vec::new();
        for prefix in [
            format!("10.0.{site}.0/24"),
            format!("2001:db8:10:{site}::/64"),
        ] {
            routes.extend([route(0, &prefix, red), route(1, &prefix, blue)]);
        }
        IntentDelta {
            tenants: vec![
                tenant(0, "red", 10001, local.then_some("red0")),
                tenant(1, "blue", 10002, local.then_some("blue0")),
            ],
            groups: vec![
                mode.group(red, 10001, &[node]),
                mode.group(blue, 10002, &[node]),
            ],
            routes,
            ..IntentDelta::default()
        }
    }

    pub(super) fn middle_intent(mode: Mode) -> IntentDelta {
        let mut intent = Self::towards(mode, 1, A, false);
        let other = Self::towards(mode, 2, B, false);
        intent.groups.extend(other.groups);
        intent.routes.extend(other.routes);
        intent
    }

    pub(super) fn new(mode: Mode) -> Self {
        Self::configured(mode, &|_| {})
    }

    pub(super) fn without_bpf(mode: Mode) -> Self {
        Self::configured(mode, &|config| config.faults.refuse_bpf())
    }

    pub(super) fn configured(mode: Mode, adjust: &dyn Fn(&mut DataplaneConfig)) -> Self {
        let lab = Lab::new(&["a", "m", "b", "red-a", "blue-a", "red-b", "blue-b"]);
        let mut links = vec![
            (
                ("a", "wan", "198.51.100.1/30"),
                ("m", "left", "198.51.100.2/30"),
            ),
            (
                ("m", "right", "198.51.100.5/30"),
                ("b", "wan", "198.51.100.6/30"),
            ),
        ];
        let sites: Vec<_> = [("a", 1), ("b", 2)]
            .into_iter()
            .flat_map(|(router, site)| ["red", "blue"].map(|colour| (router, site, colour)))
            .map(|(router, site, colour)| Site {
                router,
                interface: format!("{colour}0"),
                host: format!("{colour}-{router}"),
                number: site,
                ours: format!("10.0.{site}.1/24"),
                theirs: format!("10.0.{site}.10/24"),
            })
            .collect();
        links.extend(sites.iter().map(|site| {
            let ours = (site.router, &*site.interface, &*site.ours);
            (ours, (&*site.host, "eth0", &*site.theirs))
        }));
        let mut more = Vec::new();
        for (node, interface, address) in [
            ("a", "wan", "fd00:1::1"),
            ("m", "left", "fd00:1::2"),
            ("m", "right", "fd00:2::1"),
            ("b", "wan", "fd00:2::2"),
        ] {
            more.push((
                node,
                format!("addr add {address}/64 dev {interface} nodad\n"),
            ));
        }
        for (node, number) in [("a", A), ("m", M), ("b", B)] {
            let lines = format!(
                "addr add 192.0.2.{number}/32 dev lo\naddr add 2001:db8::{number}/128 dev lo\n"
            );
            more.push((node, lines));
        }
        for (node, to, via, via6) in [
            ("a", M, "198.51.100.2", "fd00:1::2"),
            ("m", A, "198.51.100.1", "fd00:1::1"),
            ("m", B, "198.51.100.6", "fd00:2::2"),
            ("b", M, "198.51.100.5", "fd00:2::1"),
        ] {
            let lines = format!(
                "route add 192.0.2.{to}/32 via {via}\nroute add 2001:db8::{to}/128 via {via6}\n"
            );
            more.push((node, lines));
        }
        for site in &sites {
            let (number, interface) = (site.number, &site.interface);
            let ours = format!("addr add 2001:db8:10:{number}::1/64 dev {interface} nodad\n");
            let theirs = format!(
                "addr add 2001:db8:10:{number}::10/64 dev eth0 nodad
route add default via 10.0.{number}.1
route add default via 2001:db8:10:{number}::1\n"
            );
            more.extend([(site.router, ours), (&*site.host, theirs)]);
        }
        lab.links(&links, &more);
        for site in &sites {
            let setting = format!(
                "/proc/sys/net/ipv6/conf/{}/keep_addr_on_down",
                site.interface
            );
            lab.inside(site.router, || std::fs::write(setting, "1").unwrap());
        }
        let start = |name, node| {
            let mut config = mode.config(node);
            adjust(&mut config);
            lab.start(name, config)
        };
        let (a, middle, b) = (start("a", A), start("m", M), start("b", B));
        a.apply(Self::towards(mode, 2, M, true));
        middle.apply(Self::middle_intent(mode));
        b.apply(Self::towards(mode, 1, M, true));
        let domain = Self {
            mode,
            lab,
            a,
            b,
            middle,
        };
        for router in [&domain.a, &domain.middle, &domain.b] {
            // Commands are taken in order, so the answer comes after the change.
            let status = router.status();
            assert_eq!(status.refused, [], "{mode}: nothing is refused");
            assert_eq!(status.vrf, mode.vrf);
        }
        // The underlay has to find its neighbours first.
        for host in ["red-a", "blue-a"] {
            for to in ["10.0.2.10", "2001:db8:10:2::10"] {
                domain.wait_for_ping(host, to);
            }
        }
        domain
    }

    /// What the router at the second site is told.
    pub(super) fn intent_of_b(&self) -> IntentDelta {
        Self::towards(self.mode, 1, M, true)
    }

    /// Pings until it is answered.
    pub(super) fn wait_for_ping(&self, from: &str, to: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.ping(from, to, 2) {
            assert!(Instant::now() < end, "{}: {from} to {to}", self.mode);
        }
    }

    /// Starts the router in the middle again, after it was killed.
    pub(super) fn start_middle(&mut self) {
        self.middle = self.lab.start("m", self.mode.config(M));
    }

    /// Pings many times; true where all answers came, however slow the machine is.
    pub(super) fn ping_fast(&self, from: &str, to: &str, count: u64) -> bool {
        let command = format!("ping -c {count} -i 0.002 -W 20 -q {to}");
        let output = self.lab.try_run(from, &command);
        output.status.success()
            && String::from_utf8_lossy(&output.stdout).contains(" 0% packet loss")
    }

    /// Pings a site from one tenant's host; true where all answers came.
    pub(super) fn ping(&self, from: &str, to: &str, count: u32) -> bool {
        let command = format!("ping -c {count} -i 0.02 -W 2 -q {to}");
        self.lab.try_run(from, &command).status.success()
    }
}
