//! Faults of an underlay of IPv6.

use super::faults::{Cure, Fault, HOLE, fault};
use super::sky::Act::Run;

const FIRST: &str = "ip -6 route replace default via fd00:1::2 metric 10";

/// Between routers that reach each other's endpoints by default routes over one of two plain routers; BGP between endpoints.
pub(crate) const ROUTED_V6: &[Fault] = &[
    Fault {
        restore: &[Run("r", FIRST)],
        ..fault(
            "one of two default routes gone",
            &[Run("r", "ip -6 route del default metric 10")],
            Cure::Unneeded,
        )
    },
    fault(
        "both default routes gone",
        &[
            Run("r", "ip -6 route del default metric 20"),
            Run("r", "ip -6 route del default metric 10"),
        ],
        Cure::Host(&[
            Run("r", FIRST),
            Run("r", "ip -6 route add default via fd00:2::2 metric 20"),
        ]),
    ),
    Fault {
        restore: &[Run("r", FIRST)],
        ..fault(
            "default route leads to another gateway",
            &[Run(
                "r",
                "ip -6 route replace default via fd00:2::2 metric 10",
            )],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("r", "ip -6 route del default metric 5")],
        ..fault(
            "a default route of a lower metric",
            &[Run("r", "ip -6 route add default via fd00:2::2 metric 5")],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[Run("r", FIRST)],
        ..fault(
            "default route by a link-local gateway",
            &[Run(
                "r",
                "ip -6 route replace default via fe80::a dev e1 metric 10",
            )],
            Cure::Unneeded,
        )
    },
    Fault {
        restore: &[
            Run("r", "ip -6 rule del pref 6"),
            Run("r", "ip -6 route flush table 77"),
        ],
        ..fault(
            "policy routing takes tunnels another way",
            &[
                Run("r", "ip -6 route add default via fd00:2::2 table 77"),
                Run("r", "ip -6 rule add pref 6 from 2001:db8::1 lookup 77"),
            ],
            Cure::Unneeded,
        )
    },
    fault(
        "router in the middle forwards no more",
        &[Run("m", "sysctl -qw net.ipv6.conf.all.forwarding=0")],
        Cure::Host(&[Run("m", "sysctl -qw net.ipv6.conf.all.forwarding=1")]),
    ),
    fault(
        "route in the middle gone",
        &[Run("m", "ip -6 route del 2001:db8::2")],
        Cure::Host(&[Run("m", "ip -6 route add 2001:db8::2 via fd00:3::1")]),
    ),
    fault(
        "way back in the middle gone",
        &[Run("m", "ip -6 route del 2001:db8::1")],
        Cure::Host(&[Run("m", "ip -6 route add 2001:db8::1 via fd00:1::1")]),
    ),
    fault(
        "carrier to the router in the middle lost",
        &[Run("m", "ip link set e1 down")],
        Cure::Host(&[
            Run("m", "ip link set e1 up"),
            // The kernel takes addresses of IPv6 from a link that goes down.
            Run("m", "ip address add fd00:1::2/64 dev e1 nodad"),
            Run("m", "ip address add fe80::a/64 dev e1 nodad"),
            Run("m", "ip -6 route add 2001:db8::1 via fd00:1::1"),
        ]),
    ),
    fault(
        "gateway has a wrong MAC address",
        &[Run(
            "r",
            "ip neigh replace fd00:1::2 lladdr 02:00:00:00:00:99 dev e1 nud permanent",
        )],
        Cure::Host(&[Run("r", "ip neigh del fd00:1::2 dev e1")]),
    ),
    fault(
        "the endpoint's address is gone",
        &[Run("r", "ip address del 2001:db8::1/128 dev lo")],
        Cure::Host(&[Run("r", "ip address add 2001:db8::1/128 dev lo nodad")]),
    ),
    Fault {
        restore: &[Run("m", "ip link set e2 mtu 1500")],
        ..fault(
            "MTU in the middle lowered",
            &[Run("m", "ip link set e2 mtu 1400")],
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
