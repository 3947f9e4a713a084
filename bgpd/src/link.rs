//! Which link a neighbour shares with this router, for the link-local address beside a global next hop (RFC 2545 section 3).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use nix::sys::socket::SockaddrStorage;
use weft_bgp_core::rib::SharedLink;

/// An address of an interface of this host, with the prefix of its link.
#[derive(Clone, Debug)]
struct Assigned {
    interface: String,
    address: IpAddr,
    network: IpNet,
}

/// The link that the connection from `local` to `neighbor` is on, where `next_hop`, which is named of IPv6 routes, is an address of ours
/// on it. Without an answer from the kernel there is none.
pub(crate) fn shared(local: IpAddr, neighbor: IpAddr, next_hop: Ipv6Addr) -> Option<SharedLink> {
    let assigned: Vec<Assigned> = nix::ifaddrs::getifaddrs()
        .ok()?
        .filter_map(|entry| {
            let address = ip(entry.address.as_ref()?)?;
            let mask = ip(entry.netmask.as_ref()?)?;
            Some(Assigned {
                interface: entry.interface_name,
                address,
                network: IpNet::with_netmask(address, mask).ok()?,
            })
        })
        .collect();
    find(&assigned, local, neighbor, next_hop)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn find(
    assigned: &[Assigned],
    local: IpAddr,
    neighbor: IpAddr,
    next_hop: Ipv6Addr,
) -> Option<SharedLink> {
    let links = assigned
        .iter()
        .filter(|one| one.address == local && one.network.contains(&neighbor));
    links.into_iter().find_map(|link| {
        let here = assigned
            .iter()
            .filter(|one| one.interface == link.interface);
        let global = here
            .clone()
            .find(|one| one.address == IpAddr::V6(next_hop))?;
        let link_local = here.into_iter().find_map(|one| match one.address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        })?;
        let IpNet::V6(subnet) = global.network else {
            return None;
        };
        Some(SharedLink {
            subnet: Ipv6Net::trunc(&subnet),
            link_local,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(lines: &[(&str, &str)]) -> Vec<Assigned> {
        let line = |(interface, network): &(&str, &str)| {
            let network: IpNet = network.parse().unwrap();
            Assigned {
                interface: (*interface).to_owned(),
                address: network.addr(),
                network,
            }
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_link_is_that_of_the_neighbour_and_the_next_hop() {
        let host = assigned(&[
            ("lo", "2001:db8::1/128"),
            ("eth0", "10.0.0.1/24"),
            ("eth0", "2001:db8:a::1/64"),
            ("eth0", "fe80::a/64"),
            ("eth1", "2001:db8:b::1/64"),
            ("eth1", "fe80::b/64"),
            ("eth2", "2001:db8:c::1/64"),
        ]);
        let find = |local: &str, neighbor: &str, next_hop: &str| {
            let (local, neighbor) = (local.parse().unwrap(), neighbor.parse().unwrap());
            find(&host, local, neighbor, next_hop.parse().unwrap())
                .map(|link| (link.subnet.to_string(), link.link_local.to_string()))
        };
        let a = Some(("2001:db8:a::/64".to_owned(), "fe80::a".to_owned()));
        let b = Some(("2001:db8:b::/64".to_owned(), "fe80::b".to_owned()));
        assert_eq!(
            find("2001:db8:a::1", "2001:db8:a::2", "2001:db8:a::1"),
            a.clone()
        );
        assert_eq!(find("2001:db8:b::1", "2001:db8:b::2", "2001:db8:b::1"), b);
        // IPv6 routes over IPv4, with a next hop of the same link and of another.
        assert_eq!(find("10.0.0.1", "10.0.0.2", "2001:db8:a::1"), a);
        assert_eq!(find("10.0.0.1", "10.0.0.2", "2001:db8:b::1"), None);
        // Behind a router, from the loopback, and on a link without link-local addresses.
        assert_eq!(
            find("2001:db8:a::1", "2001:db8:f::2", "2001:db8:a::1"),
            None
        );
        assert_eq!(find("2001:db8::1", "2001:db8:a::2", "2001:db8::1"), None);
        assert_eq!(
            find("2001:db8:c::1", "2001:db8:c::2", "2001:db8:c::1"),
            None
        );
    }
}
