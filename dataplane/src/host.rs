//! The settings of the host that forwarding needs: sysctls, and our own nftables table.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

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

/// A tenant's part of the nftables table.
pub(crate) struct Marked {
    pub(crate) mark: u32,
    /// Its interfaces, each with the router's addresses on it.
    pub(crate) attachments: Vec<(String, Vec<IpAddr>)>,
}

/// Our table: marks what enters from tenants, so that the router's own answers find the way back; keeps tenants from
/// addresses of the router that are not theirs; fits TCP segments to the tunnel.
pub(crate) fn ruleset(tenants: &[Marked], device: &str) -> String {
    let chain = |name: &str, hook: &str, rules: String| {
        format!("  chain {name} {{\n    type filter hook {hook}; policy accept;\n{rules}  }}\n")
    };
    let mut mark = String::new();
    let mut own = String::new();
    for tenant in tenants {
        for (name, addresses) in &tenant.attachments {
            let _ = writeln!(
                mark,
                "    iifname \"{name}\" meta mark set 0x{:08x}",
                tenant.mark
            );
            // `fib daddr . iif type` would do, were it not for tenants that share an address: it looks at the first
            // interface that has it only.
            let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
                addresses.iter().partition(|address| address.is_ipv4());
            for (family, protocol, addresses) in [("ip", "ipv4", v4), ("ip6", "ipv6", v6)] {
                let foreign = if addresses.is_empty() {
                    format!("meta nfproto {protocol}")
                } else {
                    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    format!("{family} daddr != {{ {} }}", list.join(", "))
                };
                let _ = writeln!(
                    own,
                    "    iifname \"{name}\" fib daddr type local {foreign} counter drop"
                );
            }
        }
    }
    let fit = ["oifname", "iifname"].map(|side| {
        format!("    {side} \"{device}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n")
    });
    // The mark must not steer the tunnel's own packet.
    let unmark = format!("    oifname \"{device}\" meta mark set 0\n");
    [
        "table inet weft\ndelete table inet weft\ntable inet weft {\n".to_owned(),
        chain("mark-tenant", "prerouting priority mangle", mark),
        chain("own-addresses", "input priority filter", own),
        chain("fit-segments", "forward priority mangle", fit.concat()),
        chain("unmark-outer", "postrouting priority mangle", unmark),
        "}\n".to_owned(),
    ]
    .concat()
}

/// Loads a ruleset in one transaction.
///
/// # Errors
/// What nft said, or that it is not there.
pub(crate) fn load(ruleset: &str) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run nft: {error}; apt-get install nftables"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(ruleset.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Removes our table.
pub(crate) fn unload() -> Result<(), String> {
    // Made first, so that its removal never fails for want of it.
    load("table inet weft\ndelete table inet weft\n")
}
