//! The settings of the host that forwarding needs.

use std::io;

use crate::condition::Severity;

/// A sysctl, what it must be, and why.
#[derive(Clone, Debug)]
pub(crate) struct Sysctl {
    /// Below `/proc/sys`.
    pub(crate) path: String,
    pub(crate) value: &'static str,
    pub(crate) why: &'static str,
    /// What it costs where it is something else; nothing where packets get through all the same.
    pub(crate) cost: Option<Severity>,
}

impl Sysctl {
    /// With it packets of whoever is there go on.
    pub(crate) fn forwards(&self) -> bool {
        self.path.ends_with("/ip_forward") || self.path.ends_with("/all/forwarding")
    }

    fn file(&self) -> String {
        format!("/proc/sys/{}", self.path)
    }

    /// What it is; nothing where the kernel has no such setting, or the device is gone.
    pub(crate) fn read(&self) -> Option<String> {
        std::fs::read_to_string(self.file()).ok()
    }

    /// Makes it what it must be.
    ///
    /// # Errors
    /// Where this process may not, or the setting is gone.
    pub(crate) fn write(&self) -> io::Result<()> {
        std::fs::write(self.file(), self.value)
    }
}

/// Forwards nothing over IPv4 any more that comes in by a device that was a tenant's; over IPv6 the kernel has no such setting.
pub(crate) fn close(device: &str) {
    for name in ["forwarding", "accept_local"] {
        // A device that is gone forwards nothing.
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/{name}"), "0");
    }
}

/// What forwarding needs of the namespace.
pub(crate) fn sysctls() -> Vec<Sysctl> {
    let one = |path: &str, value, why, cost| Sysctl {
        path: path.to_owned(),
        value,
        why,
        cost,
    };
    let (down, degraded) = (Some(Severity::Down), Some(Severity::Degraded));
    vec![
        one(
            "net/ipv4/ip_forward",
            "1",
            "tenants' packets are forwarded",
            down,
        ),
        one(
            "net/ipv6/conf/all/forwarding",
            "1",
            "tenants' packets are forwarded",
            degraded,
        ),
        one(
            "net/ipv4/ip_early_demux",
            "0",
            "a router forwards more than it receives: no look for a socket before the look for a route",
            None,
        ),
        one(
            "net/ipv4/fib_multipath_hash_policy",
            "1",
            "equal ways are shared by flows, ports included",
            None,
        ),
        one(
            "net/ipv6/fib_multipath_hash_policy",
            "1",
            "equal ways are shared by flows, ports included",
            None,
        ),
        one(
            "net/ipv4/nexthop_compat_mode",
            "0",
            "replacing a next-hop object must not touch its routes",
            None,
        ),
        one(
            "net/ipv4/fwmark_reflect",
            "1",
            "the router's answers to a tenant find the tenant's table",
            degraded,
        ),
        one(
            "net/ipv6/fwmark_reflect",
            "1",
            "the router's answers to a tenant find the tenant's table",
            degraded,
        ),
        one(
            "net/ipv4/tcp_fwmark_accept",
            "1",
            "a tenant's router that connects is answered by the tenant's table",
            None,
        ),
        one(
            "net/ipv4/tcp_l3mdev_accept",
            "1",
            "a tenant's router connects in its VRF",
            None,
        ),
        one(
            "net/ipv4/conf/all/send_redirects",
            "0",
            "an edge sends packets back out of the device that they came in",
            None,
        ),
        one(
            "net/ipv4/conf/all/rp_filter",
            "0",
            "source checks look into the main table, not the tenant's",
            degraded,
        ),
    ]
}

/// What tells the hosts at an attachment that it has another MAC address: gratuitous ARP (RFC 5227) and unsolicited neighbour
/// advertisements (RFC 4861 section 7.2.6).
pub(crate) fn attachment_sysctls(device: &str) -> [Sysctl; 2] {
    [
        format!("net/ipv4/conf/{device}/arp_notify"),
        format!("net/ipv6/conf/{device}/ndisc_notify"),
    ]
    .map(|path| Sysctl {
        path,
        value: "1",
        why: "hosts are told of another MAC address",
        cost: None,
    })
}

/// What IPv6 needs of a tunnel device: at an attachment it is the host's choice.
pub(crate) fn ipv6_sysctl(device: &str) -> Sysctl {
    Sysctl {
        path: format!("net/ipv6/conf/{device}/disable_ipv6"),
        value: "0",
        why: "tenants' IPv6 packets go through it",
        cost: Some(Severity::Degraded),
    }
}

/// What forwarding needs of a device that tenants' packets come in by.
pub(crate) fn device_sysctls(device: &str) -> Vec<Sysctl> {
    let one = |name: &str, value, why, cost| Sysctl {
        path: format!("net/ipv4/conf/{device}/{name}"),
        value,
        why,
        cost,
    };
    let v6 = |name: &str, value, why, cost| Sysctl {
        path: format!("net/ipv6/conf/{device}/{name}"),
        value,
        why,
        cost,
    };
    let degraded = Some(Severity::Degraded);
    vec![
        one(
            "forwarding",
            "1",
            "tenants' packets that come in by it are forwarded",
            degraded,
        ),
        one(
            "rp_filter",
            "0",
            "source checks look into the main table, not the tenant's",
            degraded,
        ),
        one(
            "accept_local",
            "1",
            "a tenant's host may have an address that the router has in another tenant, and nothing is looked up for its source",
            degraded,
        ),
        one(
            "send_redirects",
            "0",
            "packets go back out of the device that they came in",
            None,
        ),
        v6(
            "accept_ra",
            "0",
            "a tenant's host would draw the router's own packets to itself by a router advertisement",
            degraded,
        ),
        v6(
            "autoconf",
            "0",
            "a tenant's host would give the router addresses by a router advertisement",
            degraded,
        ),
    ]
}
