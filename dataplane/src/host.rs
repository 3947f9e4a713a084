//! The settings of the host that forwarding needs.

use tracing::warn;

/// A sysctl, what it must be, and why.
pub(crate) struct Sysctl {
    pub(crate) path: String,
    pub(crate) value: &'static str,
    pub(crate) why: &'static str,
}

/// What forwarding needs of the namespace.
pub(crate) fn sysctls() -> Vec<Sysctl> {
    let of = |path: &str, value, why| Sysctl {
        path: path.to_owned(),
        value,
        why,
    };
    vec![
        of("net/ipv4/ip_forward", "1", "tenants' packets are forwarded"),
        of(
            "net/ipv6/conf/all/forwarding",
            "1",
            "tenants' packets are forwarded",
        ),
        of(
            "net/ipv4/ip_early_demux",
            "0",
            "a router forwards more than it receives: no look for a socket before the look for a route",
        ),
        of(
            "net/ipv4/fib_multipath_hash_policy",
            "1",
            "equal ways are shared by flows, ports included",
        ),
        of(
            "net/ipv6/fib_multipath_hash_policy",
            "1",
            "equal ways are shared by flows, ports included",
        ),
        of(
            "net/ipv4/nexthop_compat_mode",
            "0",
            "replacing a next-hop object must not touch its routes",
        ),
        of(
            "net/ipv4/fwmark_reflect",
            "1",
            "the router's answers to a tenant find the tenant's table",
        ),
        of(
            "net/ipv6/fwmark_reflect",
            "1",
            "the router's answers to a tenant find the tenant's table",
        ),
        of(
            "net/ipv4/tcp_fwmark_accept",
            "1",
            "a tenant's router that connects is answered by the tenant's table",
        ),
        of(
            "net/ipv4/tcp_l3mdev_accept",
            "1",
            "a tenant's router connects in its VRF",
        ),
        of(
            "net/ipv4/conf/all/send_redirects",
            "0",
            "an edge sends packets back out of the device that they came in",
        ),
        of(
            "net/ipv4/conf/all/rp_filter",
            "0",
            "source checks look into the main table, not the tenant's",
        ),
    ]
}

/// What forwarding needs of a device.
pub(crate) fn device_sysctls(device: &str) -> Vec<Sysctl> {
    vec![
        Sysctl {
            path: format!("net/ipv4/conf/{device}/rp_filter"),
            value: "0",
            why: "source checks look into the main table, not the tenant's",
        },
        Sysctl {
            path: format!("net/ipv4/conf/{device}/accept_local"),
            value: "1",
            why: "a tenant's host may have an address that the router has in another tenant, and nothing is looked up for its source",
        },
        Sysctl {
            path: format!("net/ipv4/conf/{device}/send_redirects"),
            value: "0",
            why: "packets go back out of the device that they came in",
        },
    ]
}

/// Sets what is not set yet.
pub(crate) fn set(sysctls: &[Sysctl]) {
    for Sysctl { path, value, why } in sysctls {
        let file = format!("/proc/sys/{path}");
        let now = std::fs::read_to_string(&file).unwrap_or_default();
        if now.trim() != *value
            && let Err(error) = std::fs::write(&file, value)
            // A kernel without IPv6 has none of its settings.
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(sysctl = path.replace('/', "."), value, why, %error, "cannot set");
        }
    }
}
