//! What can happen to a router.

use super::sky::Act::{self, Freeze, Kill, Rest, Run, Start, Thaw};

/// Who puts it right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Weft, by itself.
    Weft,
    /// Nobody needs to: there is another way, or nothing of it matters to packets.
    Unneeded,
    /// The host's administrator, with these commands.
    Host(&'static [Act]),
}

/// Something that happens to a router.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) strike: &'static [Act],
    /// Undone after this much more by the host itself, as when a DHCP client renews.
    pub(crate) cure: Cure,
    /// The router that has to say so, where it has to be that one: the one that has the fault.
    pub(crate) says: Option<&'static str>,
    /// What is put back when packets flow again, for the next fault.
    pub(crate) restore: &'static [Act],
}

pub(crate) const fn fault(name: &'static str, strike: &'static [Act], cure: Cure) -> Fault {
    Fault {
        name,
        strike,
        cure,
        says: None,
        restore: &[],
    }
}

/// One that this router itself has to say.
const fn said_by(
    says: &'static str,
    name: &'static str,
    strike: &'static [Act],
    cure: Cure,
) -> Fault {
    Fault {
        says: Some(says),
        ..fault(name, strike, cure)
    }
}

/// Between routers on two links of their own, eBGP on each.
pub(crate) const DIRECT: &[Fault] = &[
    Fault {
        restore: &[Run("x", "ip link set e1 up")],
        ..fault(
            "carrier of one of two links lost",
            &[Run("x", "ip link set e1 down")],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("r", "ip link set e1 up")],
        ..fault(
            "one of two links taken down",
            &[Run("r", "ip link set e1 down")],
            Cure::Unneeded,
        )
    },
    fault(
        "carrier of both links lost",
        &[
            Run("x", "ip link set e1 down"),
            Run("x", "ip link set e2 down"),
        ],
        Cure::Host(&[Run("x", "ip link set e1 up"), Run("x", "ip link set e2 up")]),
    ),
    fault(
        "addresses of both links gone",
        &[
            Run("r", "ip address del 198.51.100.1/30 dev e1"),
            Run("r", "ip address del 198.51.100.5/30 dev e2"),
        ],
        Cure::Host(&[
            Run("r", "ip address add 198.51.100.1/30 dev e1"),
            Run("r", "ip address add 198.51.100.5/30 dev e2"),
        ]),
    ),
    fault(
        "endpoint's address gone",
        &[Run("r", "ip address del 192.0.2.1/32 dev lo")],
        Cure::Host(&[Run("r", "ip address add 192.0.2.1/32 dev lo")]),
    ),
    fault(
        "tunnel device down",
        &[Run("r", "ip link set vx0 down")],
        Cure::Weft,
    ),
    fault(
        "tunnel device deleted",
        &[Run("r", "ip link delete vx0")],
        Cure::Weft,
    ),
    fault(
        "tunnel device renamed",
        &[Run("r", "ip link set vx0 name other0")],
        Cure::Weft,
    ),
    fault(
        "tunnel device's MAC address changed",
        &[Run("r", "ip link set vx0 address 02:aa:bb:cc:dd:ee")],
        Cure::Weft,
    ),
    fault(
        "tunnel device's MTU lowered",
        &[Run("r", "ip link set vx0 mtu 600")],
        Cure::Weft,
    ),
    fault(
        "ip_forward off",
        &[Run("r", "sysctl -qw net.ipv4.ip_forward=0")],
        Cure::Weft,
    ),
    fault(
        "ip_forward off at the far router",
        &[Run("x", "sysctl -qw net.ipv4.ip_forward=0")],
        Cure::Weft,
    ),
    fault(
        "source check for all devices",
        &[Run("r", "sysctl -qw net.ipv4.conf.all.rp_filter=1")],
        Cure::Weft,
    ),
    fault(
        "source check at the tunnel device",
        &[Run("x", "sysctl -qw net.ipv4.conf.vx0.rp_filter=1")],
        Cure::Weft,
    ),
    fault(
        "forwarding off at the attachment",
        &[Run("r", "sysctl -qw net.ipv4.conf.red0.forwarding=0")],
        Cure::Weft,
    ),
    fault(
        "nft flush ruleset",
        &[Run("r", "nft flush ruleset")],
        Cure::Weft,
    ),
    fault(
        "our policy rules deleted",
        &[Run("r", "ip rule flush protocol 87")],
        Cure::Weft,
    ),
    fault(
        "next-hop objects deleted",
        &[Run("r", "ip nexthop flush")],
        Cure::Weft,
    ),
    fault(
        "VNI deleted from the filter",
        &[Run("x", "bridge vni delete vni 10001 dev vx0")],
        Cure::Weft,
    ),
    fault(
        "neighbour entries deleted",
        &[Run("r", "ip neigh flush dev vx0 nud permanent")],
        Cure::Weft,
    ),
    said_by(
        "r",
        "somebody's rule before ours",
        &[Run("r", "ip rule add pref 10 iif red0 blackhole")],
        Cure::Host(&[Run("r", "ip rule del pref 10")]),
    ),
    fault(
        "somebody's nft drops tunnels in",
        &[
            Run("x", "nft add table inet other"),
            Run(
                "x",
                "nft add chain inet other in { type filter hook input priority 0 ; }",
            ),
            Run("x", "nft add rule inet other in udp dport 4789 drop"),
        ],
        Cure::Host(&[Run("x", "nft delete table inet other")]),
    ),
    fault(
        "somebody's nft drops tunnels out",
        &[
            Run("r", "nft add table inet other"),
            Run(
                "r",
                "nft add chain inet other out { type filter hook output priority 0 ; }",
            ),
            Run("r", "nft add rule inet other out udp dport 4789 drop"),
        ],
        Cure::Host(&[Run("r", "nft delete table inet other")]),
    ),
    fault(
        "a route that leads nowhere before ours",
        &[Run("r", "ip route add blackhole 192.0.2.2/32 metric 1")],
        Cure::Host(&[Run("r", "ip route del blackhole 192.0.2.2/32 metric 1")]),
    ),
    said_by(
        "r",
        "attachment down",
        &[Run("r", "ip link set red0 down")],
        Cure::Host(&[Run("r", "ip link set red0 up")]),
    ),
    said_by(
        "r",
        "attachment's address gone",
        &[Run("r", "ip address del 10.0.1.1/24 dev red0")],
        Cure::Host(&[Run("r", "ip address add 10.0.1.1/24 dev red0")]),
    ),
    fault(
        "our routes deleted",
        &[Run("r", "ip route flush table all protocol 87")],
        Cure::Weft,
    ),
    fault(
        "the tenant's table emptied",
        &[Run("r", "ip route flush table TABLE")],
        Cure::Weft,
    ),
    said_by(
        "r",
        "a blackhole in the tenant's table",
        &[Run("r", "ip route add blackhole 10.0.2.0/25 table TABLE")],
        Cure::Host(&[Run("r", "ip route del blackhole 10.0.2.0/25 table TABLE")]),
    ),
    fault(
        "next-hop objects replaced by blackholes",
        &[Run(
            "r",
            "sh -c for id in $(ip nexthop show proto 87 | sed -n 's/^id \\([0-9]*\\) .* dev vx0 .*/\\1/p'); do ip nexthop replace id $id blackhole; done",
        )],
        Cure::Weft,
    ),
    fault(
        "next-hop objects replaced and deleted",
        &[Run(
            "r",
            "sh -c for id in $(ip nexthop show proto 87 | sed -n 's/^id \\([0-9]*\\) .* dev vx0 .*/\\1/p'); do ip nexthop replace id $id blackhole; done; ip nexthop flush",
        )],
        Cure::Weft,
    ),
    fault(
        "neighbour entry replaced",
        &[Run(
            "r",
            "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:99 dev vx0 nud permanent",
        )],
        Cure::Weft,
    ),
    said_by(
        "r",
        "the tenant's route replaced by another way",
        &[Run(
            "r",
            "ip route replace 10.0.2.0/24 via 10.0.1.77 dev red0 table TABLE",
        )],
        Cure::Host(&[Run("r", "ip route del 10.0.2.0/24 table TABLE")]),
    ),
    said_by(
        "r",
        "the tenant's route replaced by a blackhole",
        &[Run(
            "r",
            "ip route replace blackhole 10.0.2.0/24 table TABLE",
        )],
        Cure::Host(&[Run("r", "ip route del blackhole 10.0.2.0/24 table TABLE")]),
    ),
    said_by(
        "r",
        "somebody's nft forwards nothing",
        &[
            Run("r", "nft add table inet other"),
            Run(
                "r",
                "nft add chain inet other on { type filter hook forward priority 0 ; policy drop ; }",
            ),
        ],
        Cure::Host(&[Run("r", "nft delete table inet other")]),
    ),
    said_by(
        "r",
        "somebody's nft changes marks",
        &[
            Run("r", "nft add table inet other"),
            Run(
                "r",
                "nft add chain inet other pre { type filter hook prerouting priority -150 ; }",
            ),
            Run("r", "nft add rule inet other pre meta mark set 7"),
        ],
        Cure::Host(&[Run("r", "nft delete table inet other")]),
    ),
    said_by(
        "r",
        "a route that leads out of the tenant's table",
        &[Run("r", "ip route add throw 10.0.2.0/25 table TABLE")],
        Cure::Host(&[Run("r", "ip route del throw 10.0.2.0/25 table TABLE")]),
    ),
    said_by(
        "r",
        "hosts' questions for the attachment's address unanswered",
        &[
            Run("r", "ip link set red0 arp off"),
            Run("red-r", "ip neigh flush dev eth1"),
        ],
        Cure::Host(&[Run("r", "ip link set red0 arp on")]),
    ),
    fault(
        "attachment's MAC address changed",
        &[Run("r", "ip link set red0 address 02:00:00:00:aa:01")],
        Cure::Unneeded,
    ),
    fault(
        "address of one of two links away for 2 s",
        &[
            Run("r", "ip address del 198.51.100.1/30 dev e1"),
            Rest(2000),
            Run("r", "ip address add 198.51.100.1/30 dev e1"),
        ],
        Cure::Unneeded,
    ),
    Fault {
        restore: &[
            Run("r", "ip link set z1 down"),
            Run("r", "ip link set z1 name e1"),
            Run("r", "ip link set e1 up"),
        ],
        ..fault(
            "one of two links renamed",
            &[
                Run("r", "ip link set e1 down"),
                Run("r", "ip link set e1 name z1"),
                Run("r", "ip link set z1 up"),
            ],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("r", "ip link set e1 mtu 1500")],
        ..fault(
            "MTU of one of two links lowered",
            &[Run("r", "ip link set e1 mtu 1300")],
            Cure::Unneeded,
        )
    },
    fault(
        "far router's links have other MAC addresses",
        &[
            Run("x", "ip link set e1 address 02:00:00:00:00:e1"),
            Run("x", "ip link set e2 address 02:00:00:00:00:e2"),
        ],
        Cure::Host(&[
            Run("r", "ip neigh flush dev e1"),
            Run("r", "ip neigh flush dev e2"),
        ]),
    ),
    Fault {
        restore: &[Start("x")],
        ..fault("far daemon killed", &[Kill("x")], Cure::Unneeded)
    },
    Fault {
        restore: &[Start("r")],
        ..fault("own daemon killed", &[Kill("r")], Cure::Unneeded)
    },
    fault(
        "tunnel device's MTU lowered while the daemon is away",
        &[Kill("r"), Run("r", "ip link set vx0 mtu 600"), Start("r")],
        Cure::Weft,
    ),
    fault(
        "our policy rules deleted while the daemon is away",
        &[Kill("r"), Run("r", "ip rule flush protocol 87"), Start("r")],
        Cure::Weft,
    ),
    fault(
        "own daemon stopped for 3 s",
        &[Freeze("r"), Rest(3000), Thaw("r")],
        Cure::Unneeded,
    ),
    fault(
        "IPv6 forwarding off",
        &[Run("r", "sysctl -qw net.ipv6.conf.all.forwarding=0")],
        Cure::Weft,
    ),
    fault(
        "forwarding off at the far tunnel device",
        &[Run("x", "sysctl -qw net.ipv4.conf.vx0.forwarding=0")],
        Cure::Weft,
    ),
    fault(
        "own addresses refused at the tunnel device",
        &[Run("r", "sysctl -qw net.ipv4.conf.vx0.accept_local=0")],
        Cure::Weft,
    ),
    fault(
        "somebody's rule drops tunnels out",
        &[Run("r", "ip rule add pref 5 to 192.0.2.2 blackhole")],
        Cure::Host(&[Run("r", "ip rule del pref 5")]),
    ),
    said_by(
        "x",
        "somebody's nft forwards nothing at the far router",
        &[
            Run("x", "nft add table inet other"),
            Run(
                "x",
                "nft add chain inet other on { type filter hook forward priority 0 ; policy drop ; }",
            ),
        ],
        Cure::Host(&[Run("x", "nft delete table inet other")]),
    ),
    Fault {
        restore: &[Run("x", "nft delete table inet other")],
        ..fault(
            "somebody's nft drops BGP",
            &[
                Run("x", "nft add table inet other"),
                Run(
                    "x",
                    "nft add chain inet other in { type filter hook input priority 0 ; }",
                ),
                Run("x", "nft add rule inet other in tcp dport 179 drop"),
                Run("x", "nft add rule inet other in tcp sport 179 drop"),
                Rest(2000),
            ],
            Cure::Unneeded,
        )
    },
    fault(
        "conntrack of somebody's drops tunnels in",
        &[
            Run("x", "nft add table inet other"),
            Run(
                "x",
                "nft add chain inet other in { type filter hook input priority 0 ; }",
            ),
            Run(
                "x",
                "nft add rule inet other in udp dport 4789 ct state new,established drop",
            ),
        ],
        Cure::Host(&[Run("x", "nft delete table inet other")]),
    ),
    Fault {
        restore: &[Run("x", "nft delete table inet other")],
        ..fault(
            "somebody's nft tracks tunnels no more",
            &[
                Run("x", "nft add table inet other"),
                Run(
                    "x",
                    "nft add chain inet other raw { type filter hook prerouting priority -300 ; }",
                ),
                Run("x", "nft add rule inet other raw udp dport 4789 notrack"),
            ],
            Cure::Unneeded,
        )
    },
    fault(
        "a queue at both links that drops everything",
        &[
            Run("r", "tc qdisc replace dev e1 root blackhole"),
            Run("r", "tc qdisc replace dev e2 root blackhole"),
        ],
        Cure::Host(&[
            Run("r", "tc qdisc del dev e1 root"),
            Run("r", "tc qdisc del dev e2 root"),
        ]),
    ),
    fault(
        "a queue at the tunnel device that drops everything",
        &[Run("r", "tc qdisc replace dev vx0 root blackhole")],
        Cure::Host(&[Run("r", "tc qdisc del dev vx0 root")]),
    ),
    fault(
        "IPsec policy blocks the far endpoint",
        &[Run(
            "r",
            "ip xfrm policy add dir out src 192.0.2.1/32 dst 192.0.2.2/32 action block",
        )],
        Cure::Host(&[Run("r", "ip xfrm policy flush")]),
    ),
    fault(
        "attachment renamed",
        &[
            Run("r", "ip link set red0 down"),
            Run("r", "ip link set red0 name z0"),
            Run("r", "ip link set z0 up"),
        ],
        Cure::Host(&[
            Run("r", "ip link set z0 down"),
            Run("r", "ip link set z0 name red0"),
            Run("r", "ip link set red0 up"),
        ]),
    ),
    fault(
        "far attachment down",
        &[Run("x", "ip link set red0 down")],
        Cure::Host(&[Run("x", "ip link set red0 up")]),
    ),
    fault(
        "loopback down",
        &[Run("r", "ip link set lo down")],
        Cure::Host(&[Run("r", "ip link set lo up")]),
    ),
];

/// Between routers that reach each other's endpoints by default routes over one of two plain routers; BGP between endpoints.
pub(crate) const ROUTED: &[Fault] = &[
    Fault {
        restore: &[Run("r", FIRST)],
        ..fault(
            "one of two default routes gone",
            &[Run("r", "ip route del default metric 10")],
            Cure::Unneeded,
        )
    },
    fault(
        "both default routes gone",
        &[
            Run("r", "ip route del default metric 20"),
            Run("r", "ip route del default metric 10"),
        ],
        Cure::Host(&[
            Run("r", FIRST),
            Run("r", "ip route add default via 198.51.100.6 metric 20"),
        ]),
    ),
    Fault {
        restore: &[Run(
            "r",
            "ip route replace default via 198.51.100.2 metric 10",
        )],
        ..fault(
            "default route leads to another gateway",
            &[Run(
                "r",
                "ip route replace default via 198.51.100.6 metric 10",
            )],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("r", "ip route del default metric 5")],
        ..fault(
            "a default route of a lower metric",
            &[Run("r", "ip route add default via 198.51.100.6 metric 5")],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run(
            "r",
            "ip route replace default via 198.51.100.2 metric 10",
        )],
        ..fault(
            "default route by a link-local gateway",
            &[Run(
                "r",
                "ip route replace default via inet6 fe80::a dev e1 metric 10",
            )],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[
            Run("r", "ip rule del pref 6"),
            Run("r", "ip route flush table 77"),
        ],
        ..fault(
            "policy routing takes tunnels another way",
            &[
                Run("r", "ip route add default via 198.51.100.6 table 77"),
                Run("r", "ip rule add pref 6 from 192.0.2.1 lookup 77"),
            ],
            Cure::Unneeded,
        )
    },
    fault(
        "router in the middle forwards no more",
        &[Run("m", "sysctl -qw net.ipv4.ip_forward=0")],
        Cure::Host(&[Run("m", "sysctl -qw net.ipv4.ip_forward=1")]),
    ),
    fault(
        "route in the middle gone",
        &[Run("m", "ip route del 192.0.2.2")],
        Cure::Host(&[Run("m", "ip route add 192.0.2.2 via 198.51.100.10")]),
    ),
    fault(
        "way back in the middle gone",
        &[Run("m", "ip route del 192.0.2.1")],
        Cure::Host(&[Run("m", "ip route add 192.0.2.1 via 198.51.100.1")]),
    ),
    fault(
        "carrier to the router in the middle lost",
        &[Run("m", "ip link set e1 down")],
        Cure::Host(&[
            Run("m", "ip link set e1 up"),
            Run("m", "ip route add 192.0.2.1 via 198.51.100.1"),
        ]),
    ),
    fault(
        "gateway has a wrong MAC address",
        &[Run(
            "r",
            "ip neigh replace 198.51.100.2 lladdr 02:00:00:00:00:99 dev e1 nud permanent",
        )],
        Cure::Host(&[Run("r", "ip neigh del 198.51.100.2 dev e1")]),
    ),
    Fault {
        restore: &[
            Run("m", "ip link set e2 mtu 1500"),
            Run("x", "ip link set e1 mtu 1500"),
        ],
        ..fault(
            "MTU in the middle lowered",
            &[
                Run("m", "ip link set e2 mtu 1400"),
                Run("x", "ip link set e1 mtu 1400"),
            ],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("m", "nft delete table inet hole")],
        ..fault(
            "large packets swallowed in the middle",
            &[HOLE],
            Cure::Unneeded,
        )
    },
];

/// Packets of more than 1400 octets are dropped without a word.
pub(crate) const HOLE: Act = Run(
    "m",
    "nft add table inet hole; add chain inet hole f { type filter hook forward priority 0; }; add rule inet hole f meta length > 1400 drop",
);

const FIRST: &str = "ip route add default via 198.51.100.2 metric 10";
