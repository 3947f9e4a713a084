//! What this host can do for an overlay, and what stands in the way, each with the command that mends it.
//!
//! Kernel objects are tried in a network namespace that is made for it and goes away with the thread: nothing of the
//! host's own is touched.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};

use serde::Serialize;
use weft_overlay::intent::ForwardingNextHop;
use weft_overlay::{Encapsulation, VXLAN_PORT, Vni};

use crate::actor::ALIAS;
use crate::bpf::{Carried, Classifier, Place};
use crate::model::{Carrier, Family, NextHop, Rule, RuleAction, RuleMatch, Tunnel};
use crate::netlink::links::{put_link, put_link_mtu, put_tunnel_device, put_vrf};
use crate::netlink::objects::{
    NEW, RTM_NEWNEXTHOP, RTM_NEWTUNNEL, SET, put_next_hop, put_rule, put_vni,
};
use crate::netlink::socket::{Batch, Netlink};
use crate::upkeep::sysctl_name;
use crate::{PROTOCOL, host, nftables, snapshot};

/// What VXLAN over IPv4 puts around a tenant's packet, octets.
const OVERHEAD: u32 = 50;
/// What hosts expect of a network.
const USUAL_MTU: u32 = 1500;
/// Index of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// How it stands with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Good,
    /// Works, but not as well as it could; or nothing needs it yet.
    Warning,
    /// The overlay does not work like this.
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `router`, `privilege`, `kernel`, `sysctl`, `mtu`, `port`, `tool`.
    pub area: &'static str,
    /// What was looked at.
    pub what: String,
    /// How it stands.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// The command that mends it, or what else to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn good(area: &'static str, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            area,
            what: what.into(),
            health: Health::Good,
            found: found.into(),
            remedy: None,
        }
    }

    fn but(self, health: Health, remedy: impl Into<String>) -> Self {
        Self {
            health,
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Looks at this network namespace and its kernel.
pub fn doctor() -> Vec<Finding> {
    let mut findings = privileges();
    findings.extend(kernel());
    findings.extend(sysctls());
    findings.extend(links());
    findings.extend(tools());
    findings
}

/// Capabilities of this process (capabilities(7)): name, bit, what for.
const CAPABILITIES: [(&str, u32, &str); 2] = [
    ("CAP_NET_ADMIN", 12, "routes, next hops, devices"),
    ("CAP_NET_BIND_SERVICE", 10, "BGP at port 179"),
];

fn privileges() -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .map(|(name, bit, purpose)| {
            let what = format!("{name} ({purpose})");
            if mask & 1 << bit != 0 {
                Finding::good("privilege", what, "there")
            } else {
                let binary = std::env::current_exe().map(|path| path.display().to_string());
                let binary = binary.unwrap_or_else(|_| "weft".into());
                Finding::good("privilege", what, "missing").but(
                    Health::Bad,
                    format!("setcap cap_net_admin,cap_net_raw,cap_net_bind_service+ep {binary}"),
                )
            }
        })
        .collect()
}

/// Tries what the overlay is made of, in a namespace of its own.
fn kernel() -> Vec<Finding> {
    let attempt = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| error.to_string())?;
        try_objects().map_err(|error| error.to_string())
    });
    match attempt.join() {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![
            Finding::good("kernel", "kernel objects", format!("not tried: {error}")).but(
                Health::Warning,
                "a namespace to try them in needs CAP_SYS_ADMIN: run `weft doctor` as root",
            ),
        ],
        Err(_) => Vec::new(),
    }
}

/// What a kind of object is for, and where a kernel has it.
struct Object {
    what: &'static str,
    health: Health,
    remedy: &'static str,
}

fn try_objects() -> std::io::Result<Vec<Finding>> {
    let mut netlink = Netlink::open()?;
    let mut findings = Vec::new();
    let mut note = |object: Object, refusal: Option<String>| {
        findings.push(match refusal {
            None => Finding::good("kernel", object.what, "works"),
            Some(refusal) => {
                Finding::good("kernel", object.what, refusal).but(object.health, object.remedy)
            }
        });
    };
    let local = Ipv4Addr::new(192, 0, 2, 1);
    let one = |netlink: &mut Netlink, kind, flags, body: &dyn Fn(&mut Vec<u8>)| {
        let mut batch = Batch::default();
        batch.push(kind, flags, |out| body(out));
        let refused = netlink.send(batch)?;
        Ok::<_, std::io::Error>(refused.into_iter().next().map(|(_, why)| why.to_string()))
    };
    // With the loopback interface up there is a table of local addresses, which gateways are checked against.
    one(&mut netlink, libc::RTM_NEWLINK, 0, &|out| {
        put_link_mtu(out, LOOPBACK, 65_536);
    })?;
    for (carrier, what, health, remedy) in [
        (
            Carrier::VXLAN,
            "VXLAN with metadata and VNI filter",
            Health::Bad,
            "modprobe vxlan; Linux 5.18 or later",
        ),
        (
            Carrier::VXLAN_GPE,
            "VXLAN-GPE with metadata and VNI filter",
            Health::Warning,
            "modprobe vxlan; needed for routers that accept vxlan-gpe",
        ),
        (
            Carrier::Gre,
            "GRE with metadata",
            Health::Warning,
            "modprobe ip_gre; needed for routers that accept gre",
        ),
        (
            Carrier::Gre6,
            "GRE over IPv6 with metadata",
            Health::Warning,
            "modprobe ip6_gre; needed for routers that accept gre over IPv6",
        ),
    ] {
        let made = one(&mut netlink, libc::RTM_NEWLINK, NEW, &|out| {
            put_tunnel_device(out, carrier, local.into(), [2, 0, 0, 0, 0, 1], 1400);
        })?;
        note(
            Object {
                what,
                health,
                remedy,
            },
            made,
        );
    }
    let vrf = one(&mut netlink, libc::RTM_NEWLINK, NEW, &|out| {
        put_vrf(out, "vrf-1", 10_001);
    })?;
    note(
        Object {
            what: "VRF devices",
            health: Health::Warning,
            remedy: "modprobe vrf; without them tables and rules keep tenants apart",
        },
        vrf,
    );
    let interface = snapshot::links(&mut netlink)?
        .iter()
        .find(|link| link.name == Carrier::VXLAN.name())
        .map_or(0, |link| link.index);
    let vni = one(&mut netlink, RTM_NEWTUNNEL, NEW, &|out| {
        put_vni(out, interface, 10_001);
    })?;
    note(
        Object {
            what: "entries of the VNI filter",
            health: Health::Bad,
            remedy: "Linux 5.18 or later",
        },
        vni,
    );
    let hop = ForwardingNextHop {
        vni: Vni::MIN,
        encapsulation: Encapsulation::Vxlan,
        port: None,
        address: Ipv4Addr::new(192, 0, 2, 2).into(),
        endpoint_id: None,
    };
    let tunnel = Tunnel::to(&hop, Family::V4, Some(local.into()), interface, true);
    for (id, next_hop, what) in [
        (
            1,
            NextHop::Tunnel(tunnel),
            "next-hop objects that encapsulate",
        ),
        (
            2,
            NextHop::Group {
                members: vec![(1, 1)],
                buckets: 0,
            },
            "groups of next-hop objects (ECMP)",
        ),
    ] {
        let refusal = one(&mut netlink, RTM_NEWNEXTHOP, SET, &|out| {
            put_next_hop(out, id, &next_hop, PROTOCOL);
        })?;
        note(
            Object {
                what,
                health: Health::Bad,
                remedy: "Linux 5.3 or later",
            },
            refusal,
        );
    }
    let rule = Rule {
        family: Family::V4,
        priority: crate::model::RULE_TENANT,
        matches: RuleMatch::Tunnel(10_001),
        action: RuleAction::Table(10_001),
    };
    let refusal = one(&mut netlink, libc::RTM_NEWRULE, NEW, &|out| {
        put_rule(out, &rule, PROTOCOL);
    })?;
    note(
        Object {
            what: "rules by the VNI of a packet",
            health: Health::Bad,
            remedy: "a kernel with CONFIG_IP_MULTIPLE_TABLES",
        },
        refusal,
    );
    let carried = Carried {
        uniform: false,
        dont_fragment: true,
        v6: false,
    };
    let classifier = Classifier::new(&mut netlink, &[], carried)
        .and_then(|classifier| classifier.attach(&mut netlink, interface, Place::Vxlan));
    note(
        Object {
            what: "BPF at tunnel devices: one look for all VNIs, counters",
            health: Health::Warning,
            remedy: "modprobe cls_bpf; CAP_BPF, and CAP_SYS_ADMIN to find after a restart what is at the devices (as packaging/systemd has it); without it there is a rule a VNI, and no counters",
        },
        classifier.err().map(|error| error.to_string()),
    );
    let refusal = {
        let duties = nftables::Duties {
            closed: BTreeSet::new(),
            marked: BTreeSet::from(["tenant0".to_owned()]),
            members: false,
            part_tenants: true,
            guard_router: true,
            classify: true,
        };
        nftables::load(&nftables::ruleset(
            &[],
            (&[&Carrier::VXLAN.name()], &BTreeSet::from([VXLAN_PORT])),
            &duties,
            &[],
            &BTreeSet::new(),
            Some(&BTreeSet::new()),
        ))
        .err()
    };
    note(
        Object {
            what: "nftables: marks, fib, maximum segment size",
            health: Health::Bad,
            remedy: "apt-get install nftables; modprobe nf_tables nft_fib_inet",
        },
        refusal,
    );
    Ok(findings)
}

/// The kernel has VRF devices: tried in a namespace of its own, or, where that may not be made, here.
pub(crate) fn has_vrf() -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut netlink = Netlink::open()?;
        let name = "weft-try";
        let mut batch = Batch::default();
        batch.push(libc::RTM_NEWLINK, NEW, |out| put_vrf(out, name, 10_001));
        let made = netlink.send(batch)?.is_empty();
        let links = snapshot::links(&mut netlink)?;
        if let Some(link) = links.iter().find(|link| made && link.name == name) {
            let mut batch = Batch::default();
            batch.push(libc::RTM_DELLINK, 0, |out| put_link(out, link.index));
            netlink.send(batch)?;
        }
        Ok(made)
    };
    let apart = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        attempt().ok()
    });
    match apart.join() {
        Ok(Some(found)) => found,
        _ => attempt().unwrap_or(false),
    }
}

/// `weft router` sets what differs; only what it may not set stands in the way.
fn sysctls() -> Vec<Finding> {
    host::sysctls()
        .into_iter()
        .filter_map(
            |host::Sysctl {
                 path, value, why, ..
             }| {
                let name = sysctl_name(&path);
                let file = format!("/proc/sys/{path}");
                let now = std::fs::read_to_string(&file).ok()?;
                let now = now.trim();
                Some(if now == value {
                    Finding::good("sysctl", name, format!("{now}: {why}"))
                } else if std::fs::OpenOptions::new().write(true).open(file).is_ok() {
                    let found = format!("{now}; weft router sets it to {value}: {why}");
                    Finding::good("sysctl", name, found)
                } else {
                    let found = format!("{now}, and weft may not set it to {value}: {why}");
                    let remedy = format!("as root: sysctl -w {name}={value}");
                    Finding::good("sysctl", name, found).but(Health::Bad, remedy)
                })
            },
        )
        .collect()
}

fn links() -> Vec<Finding> {
    let mut findings = Vec::new();
    let links = Netlink::open().and_then(|mut netlink| snapshot::links(&mut netlink));
    let links = match links {
        Ok(links) => links,
        Err(error) => {
            let finding = Finding::good("mtu", "interfaces", error.to_string());
            return vec![finding.but(Health::Bad, "ip link")];
        }
    };
    let is_ours = |link: &snapshot::Link| link.alias.as_deref() == Some(ALIAS);
    let ours = links.iter().filter(|link| is_ours(link));
    let mut carriers: BTreeSet<Carrier> = ours.filter_map(|link| link.tunnel).collect();
    carriers.extend(Carrier::ALL);
    for carrier in carriers {
        let name = carrier.name();
        let what = match carrier.port() {
            Some(port) => format!("UDP port {port} ({})", carrier.encapsulation()),
            None => format!("device {name} ({})", carrier.encapsulation()),
        };
        findings.push(match links.iter().find(|link| link.name == name) {
            Some(link) if is_ours(link) => {
                Finding::good("port", what, format!("{name} is weft's"))
            }
            Some(_) => Finding::good("port", format!("device {name}"), "somebody else's").but(
                Health::Bad,
                format!("ip link del {name}, or ip link set {name} name another"),
            ),
            None => {
                let Some(port) = carrier.port() else { continue };
                // At another one it needs this one for far routers alone.
                let mut ours = links.iter().filter(|link| is_ours(link));
                let elsewhere = ours.any(|link| {
                    let each = link.tunnel.map(Carrier::encapsulation);
                    each == Some(carrier.encapsulation())
                });
                let taken = match elsewhere {
                    true => Health::Warning,
                    false => Health::Bad,
                };
                match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
                    Ok(_) => Finding::good("port", what, "free"),
                    Err(error) => Finding::good("port", what, error.to_string()).but(
                        taken,
                        format!(
                            "`ip -d link show type vxlan` and `ss -lunp sport = {port}` name who has it; `overlay.port` makes it another"
                        ),
                    ),
                }
            }
        });
    }
    for link in links.iter().filter(|link| link.up && !is_ours(link)) {
        if link.name == "lo" {
            continue;
        }
        let finding = Finding::good(
            "mtu",
            link.name.clone(),
            format!(
                "{}: tenants get {} over it",
                link.mtu,
                link.mtu.saturating_sub(OVERHEAD)
            ),
        );
        findings.push(if link.mtu >= USUAL_MTU + OVERHEAD {
            finding
        } else {
            finding.but(
                Health::Warning,
                format!(
                    "where the network carries it: ip link set {} mtu {}",
                    link.name,
                    USUAL_MTU + OVERHEAD
                ),
            )
        });
    }
    findings
}

fn tools() -> Vec<Finding> {
    [("nft", "nftables"), ("ip", "iproute2")]
        .into_iter()
        .map(|(program, package)| {
            let version = Command::new(program)
                .arg("-V")
                .stdin(Stdio::null())
                .output()
                .ok()
                .filter(|output| output.status.success());
            match version {
                Some(output) => {
                    let text = String::from_utf8_lossy(&output.stdout);
                    Finding::good("tool", program, text.lines().next().unwrap_or("there"))
                }
                None => Finding::good("tool", program, "not there")
                    .but(Health::Bad, format!("apt-get install {package}")),
            }
        })
        .collect()
}
