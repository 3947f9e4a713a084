//! Words of configurations, as routers and controllers take them alike: names of interfaces, route protocols, addresses, paths.

use std::net::IpAddr;

/// The protocol number of routes of ours in the kernel, and nobody else's to announce.
pub const OWN_PROTOCOL: u8 = 87;

/// The tunnel devices that routers make for the usual ports; for another one its number stands in the place of `0`.
pub const DEVICES: [&str; 4] = ["vx0", "vxg0", "wgre0", "wgre6"];

/// Route protocols by name, as in iproute2's `rt_protos`.
pub const PROTOCOLS: [(&str, u8); 12] = [
    ("ra", 9),
    ("zebra", 11),
    ("bird", 12),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];

/// The first number of a route protocol that a tenant may announce: those before are the kernel's and the administrator's.
const FIRST_PROTOCOL: u8 = 5;

/// A name that people give: of a domain, router, tenant, service, chain or peer. It reaches tools, files and labels of certificates as it is.
///
/// # Errors
/// What is allowed.
pub fn name(text: &str) -> Result<(), &'static str> {
    let inside = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    match text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(inside)
    {
        true => Ok(()),
        false => Err(
            "a name of letters, digits, `-`, `_` and `.`, at most 63, the first a letter or digit",
        ),
    }
}

/// Whether an interface may be a tenant's or a service's: no tool, ruleset or path reads more in its name than a name, the kernel takes it
/// (`dev_valid_name`, and no `all` and `default`, which are settings of every interface), and it is not one that the router itself lives by.
///
/// # Errors
/// What is allowed.
pub fn interface(name: &str) -> Result<(), &'static str> {
    let inside = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.+@".contains(&octet);
    if name.len() > 15
        || !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        || !name.bytes().all(inside)
    {
        return Err(
            "a name of an interface: letters, digits, `-`, `_`, `.`, `+` and `@`, at most 15, the first a letter, a digit or `_` (`ip link \
             set dev OLD name NEW` gives it one)",
        );
    }
    if matches!(name, "all" | "default") {
        return Err("an interface: the kernel knows every interface's settings by this name");
    }
    if name == "lo" {
        return Err("an interface of the tenant: `lo` is the router's own");
    }
    let vrf = name.strip_prefix("vrf-");
    let vrf = vrf.is_some_and(|rest| rest.bytes().all(|octet| octet.is_ascii_digit()));
    let port = name.strip_prefix("vxg").or_else(|| name.strip_prefix("vx"));
    let far = port.is_some_and(|port| port.parse::<u16>().is_ok());
    if vrf || far || DEVICES.contains(&name) {
        return Err("an interface of the tenant: this is a device that the router makes");
    }
    Ok(())
}

/// Whether one host may have an address: it is not unspecified, of `0.0.0.0/8` or `240.0.0.0/4`, nor a multicast or broadcast one
/// (RFC 6890). One of IPv4 written as one of IPv6 is the IPv4 address.
pub fn is_unicast(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 224..),
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    }
}

/// Octets that the path of a request has at most.
const LONGEST_PATH: usize = 1024;

/// A path that a service node is asked for by HTTP: it is put into the request as it is.
///
/// # Errors
/// What is allowed.
pub fn http_path(text: &str) -> Result<(), &'static str> {
    let fits = text.starts_with('/') && text.len() <= LONGEST_PATH;
    match fits && text.bytes().all(|octet| octet.is_ascii_graphic()) {
        true => Ok(()),
        false => {
            Err("a path such as /health: printable ASCII without spaces, at most 1024 characters")
        }
    }
}

/// The number of a route protocol that a tenant may announce, by its name or number; `connected` and `static` are none.
pub fn route_protocol(word: &str) -> Option<u8> {
    if let Some((_, number)) = PROTOCOLS.iter().find(|(known, _)| *known == word) {
        return Some(*number);
    }
    let number: u8 = word.parse().ok()?;
    (number >= FIRST_PROTOCOL && number != OWN_PROTOCOL).then_some(number)
}

/// What a tenant may announce of the kernel's routes, in words.
pub fn redistributable() -> String {
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    format!(
        "`connected`, `static`, {}, or the number of a route protocol, 5 to 255",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_host_may_have() {
        for good in ["192.0.2.1", "127.0.0.1", "fe80::1", "2001:db8::1"] {
            assert!(is_unicast(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:224.0.0.1",
        ] {
            assert!(!is_unicast(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn paths_that_a_node_is_asked_for() {
        for good in ["/", "/health?full=yes&x=%20", "/~a/b-c_d.e"] {
            assert_eq!(http_path(good), Ok(()), "{good}");
        }
        let long = format!("/{}", "a".repeat(LONGEST_PATH));
        for bad in [
            "",
            "health",
            "/a b",
            "/a\r\nX: y",
            "/\u{1b}[2J",
            "/a\u{7f}",
            "/\u{fc}",
            &long,
        ] {
            assert!(http_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interfaces_that_a_tenant_may_have() {
        for good in [
            "red0",
            "eth0.100",
            "veth-a_b",
            "vx70000",
            "vxlan1",
            "vrf-red",
            "a+b",
            "_x",
            "0a",
            "a@b",
            "fifteen-octets1",
        ] {
            assert_eq!(interface(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\"b",
            "a'b",
            "a\\b",
            "a%d",
            "lo",
            "vx0",
            "vx8472",
            "vxg4790",
            "wgre6",
            "vrf-10001",
            "sixteen-octets-1",
            "\u{7f}",
            "all",
            "default",
            // nftables reads it as every interface that begins so.
            "eth*",
            "*",
            "a$b",
            "a`b`",
            "a;b",
            "a#b",
            "a{b}",
            "a\nb",
            "-a",
            ".a",
            "lö0",
            "\u{200b}a",
        ] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_people_may_give() {
        let longest = "a".repeat(63);
        for good in ["a1", "R-1.example", "0_x", "a..b", &longest] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        let longer = "a".repeat(64);
        for bad in [
            "", ".", "..", "../a", "a/b", "a b", "a\nb", "a\"b", "a'b", "-a", "_a", "a\0", "a%2f",
            "ä", &longer,
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn protocols_that_a_tenant_may_announce() {
        assert_eq!(route_protocol("bird"), Some(12));
        assert_eq!(route_protocol("42"), Some(42));
        for bad in ["", "4", "87", "256", "everything", "-1", "connected"] {
            assert_eq!(route_protocol(bad), None, "{bad}");
        }
    }
}
