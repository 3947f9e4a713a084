//! The settings of the host that forwarding needs: sysctls, and our own nftables table.

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
            "net/ipv4/ip_early_demux",
            "0",
            "a router forwards more than it receives: no look for a socket before the look for a route",
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

/// Where a tenant's packets enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// The attachment.
    pub(crate) interface: String,
    /// What a packet for the router itself seems to have come in by: the attachment, or the tenant's VRF.
    pub(crate) input: String,
    /// The tenant's mark.
    pub(crate) mark: u32,
    /// The router's addresses there.
    pub(crate) addresses: Vec<IpAddr>,
}

/// What our table has to do: what the classifier does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duties {
    /// Keeps tenants from each other.
    pub(crate) part_tenants: bool,
    /// Keeps tenants from addresses of the router that are not theirs.
    pub(crate) guard_router: bool,
    /// Marks what enters from tenants, takes the mark from what goes into a tunnel, and fits TCP segments to it.
    pub(crate) classify: bool,
}

/// Our table, where it has a duty: else none. Each hook costs every packet of the host, so there are no more than need
/// be. Sets and maps make it cost the same for every number of tenants, and a packet that nothing is to be done for passes
/// one rule a hook.
pub(crate) fn ruleset(entrances: &[Entrance], devices: &[&str], duties: Duties) -> String {
    if duties == Duties::default() {
        return NO_TABLE.to_owned();
    }
    let set = |name: &str, kind: &str, elements: Vec<String>| {
        let elements = match elements[..] {
            [] => String::new(),
            _ => format!(" elements = {{ {} }};", elements.join(", ")),
        };
        format!("  {name} {{ type {kind};{elements} }}\n")
    };
    let chain = |name: &str, hook: &str, rules: &[&str]| {
        let hook = match hook {
            "" => String::new(),
            hook => format!("    type filter hook {hook}; policy accept;\n"),
        };
        let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
        format!("  chain {name} {{\n{hook}{rules}  }}\n")
    };
    let all = |each: &dyn Fn(&Entrance) -> Vec<String>| -> Vec<String> {
        entrances.iter().flat_map(each).collect()
    };
    let addresses = |v4: bool| {
        let mut elements = all(&|entrance| {
            let addresses = entrance.addresses.iter();
            addresses
                .filter(|address| address.is_ipv4() == v4)
                .map(|address| format!("\"{}\" . {address}", entrance.input))
                .collect()
        });
        elements.sort_unstable();
        elements.dedup();
        elements
    };
    let mut inputs = all(&|entrance| vec![format!("\"{}\"", entrance.input)]);
    inputs.sort_unstable();
    inputs.dedup();
    let interfaces = all(&|entrance| vec![format!("\"{}\"", entrance.interface)]);
    let marks = all(&|entrance| {
        vec![format!(
            "\"{}\" : 0x{:08x}",
            entrance.interface, entrance.mark
        )]
    });
    let own = all(&|entrance| {
        vec![format!(
            "0x{:08x} . \"{}\"",
            entrance.mark, entrance.interface
        )]
    });
    let devices: Vec<String> = devices.iter().map(|name| format!("\"{name}\"")).collect();
    let devices = format!("{{ {} }}", devices.join(", "));
    let mut parts = vec![NO_TABLE.to_owned(), "table inet weft {\n".to_owned()];
    if duties.guard_router {
        parts.extend([
            set("set inputs", "ifname", inputs),
            // `fib daddr . iif type` would do, were it not for tenants that share an address: it looks at the first
            // interface that has it only.
            set("set own4", "ifname . ipv4_addr", addresses(true)),
            set("set own6", "ifname . ipv6_addr", addresses(false)),
            chain(
                "own-addresses",
                "",
                &[
                    "iifname . ip daddr != @own4 counter drop",
                    "iifname . ip6 daddr != @own6 counter drop",
                ],
            ),
            chain(
                "to-router",
                "input priority filter",
                // A tunnel's own packets have no mark: they are told apart without a look into a set.
                &[
                    "meta mark & 0xff000000 == 0x57000000 iifname @inputs fib daddr type local jump own-addresses",
                ],
            ),
        ]);
    }
    let mut forward = Vec::new();
    if duties.classify {
        let fit = ["oifname", "iifname"]
            .map(|side| format!("{side} {devices} tcp option maxseg size set rt mtu"));
        parts.extend([
            set("map marks", "ifname : mark", marks),
            chain("fit-segments", "", &[&fit[0], &fit[1]]),
            chain(
                "from-tenants",
                "prerouting priority mangle",
                &["meta mark set iifname map @marks"],
            ),
            // The mark must not steer the tunnel's own packet.
            chain(
                "into-tunnels",
                "postrouting priority mangle",
                &[&format!("oifname {devices} meta mark set 0")],
            ),
        ]);
        forward.push("tcp flags & (syn | rst) == syn jump fit-segments");
    }
    if duties.part_tenants {
        parts.extend([
            set("set attachments", "ifname", interfaces),
            set("set own-attachments", "mark . ifname", own),
        ]);
        forward.push(
            "iifname @attachments oifname @attachments meta mark . oifname != @own-attachments counter drop",
        );
    }
    if !forward.is_empty() {
        parts.push(chain("through-router", "forward priority mangle", &forward));
    }
    parts.push("}\n".to_owned());
    parts.concat()
}

/// Made first, so that its removal never fails for want of it.
const NO_TABLE: &str = "table inet weft\ndelete table inet weft\n";

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
    load(NO_TABLE)
}
