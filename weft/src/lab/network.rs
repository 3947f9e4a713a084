//! Links and bridges, over netlink: one message makes a link with both its ends in their namespaces, named and addressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::Context;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkMessage, MacVlanMode};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{
    Handle, LinkBridge, LinkDummy, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth,
    LinkVxlan, RouteMessageBuilder,
};

use super::place;
use super::topology::{End, Ends, Link, Management, Mode};

const DEFAULT_MTU: u32 = 1500;

/// Runs a task with a connection to the kernel, in the network namespace of the calling thread.
fn connected<T>(task: impl AsyncFnOnce(&Handle) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        let connection = tokio::spawn(connection);
        let result = task(&handle).await;
        connection.abort();
        result
    })
}

/// What the kernel says of a refused request, without the crate's words around it.
fn words(error: rtnetlink::Error) -> anyhow::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().into(),
        other => other.into(),
    }
}

fn errno(error: &anyhow::Error) -> Option<Errno> {
    let error = error.downcast_ref::<std::io::Error>()?;
    error.raw_os_error().map(Errno::from_raw)
}

/// The loopback interface of the calling thread's network namespace comes up.
pub(super) fn loopback() -> anyhow::Result<()> {
    connected(async |handle| {
        let message = LinkUnspec::new_with_index(1).up().build();
        handle.link().set(message).execute().await.map_err(words)
    })
}

/// Interfaces of the calling thread's network namespace come up. A veth cannot before its other end is there.
pub(super) fn raise(names: &[&str]) -> anyhow::Result<()> {
    connected(async |handle| {
        for name in names {
            let message = LinkUnspec::new_with_name(name).up().build();
            let set = handle.link().set(message).execute().await.map_err(words);
            set.with_context(|| format!("interface {name}"))?;
        }
        Ok(())
    })
}

/// Makes links, whose ends in nodes are down. Called on the host; `network` says which network namespace a node has. Those that the kernel refused are returned
/// by their place in `links`, with its words.
pub(super) fn link<'a>(
    links: &[Link],
    network: impl Fn(&str) -> &'a str,
) -> anyhow::Result<Vec<(usize, String)>> {
    let mut spaces: BTreeMap<&str, File> = BTreeMap::new();
    for end in links.iter().flat_map(Link::nodes) {
        let name = network(&end.node);
        if !spaces.contains_key(name) {
            let file = File::open(place::netns(name))
                .with_context(|| format!("cannot open the network of node {}", end.node))?;
            spaces.insert(name, file);
        }
    }
    let fd = |end: &End| spaces[network(&end.node)].as_raw_fd();
    connected(async |handle| {
        let mut refused = Vec::new();
        for (at, link) in links.iter().enumerate() {
            let mtu = link.mtu.unwrap_or(DEFAULT_MTU);
            let (message, shown) = match &link.ends {
                Ends::Nodes(one, other) => {
                    let peer = placed(
                        LinkUnspec::new_with_name(&other.interface),
                        other,
                        fd(other),
                    );
                    let message = veth(
                        placed(veth_end(&one.interface), one, fd(one)),
                        mtu,
                        peer.mtu(mtu).build(),
                    );
                    (
                        message,
                        format!(
                            "{}:{} to {}:{}",
                            one.node, one.interface, other.node, other.interface
                        ),
                    )
                }
                Ends::Host(end, host) => {
                    let peer = placed(LinkUnspec::new_with_name(&end.interface), end, fd(end));
                    let message = veth(veth_end(host).up(), mtu, peer.mtu(mtu).build());
                    (
                        message,
                        format!("{}:{} to host:{host}", end.node, end.interface),
                    )
                }
                Ends::Macvlan(end, parent, mode) => {
                    let Ok(index) = if_nametoindex(parent.as_str()) else {
                        let what = format!(
                            "link {}:{}: the host has no interface {parent}",
                            end.node, end.interface
                        );
                        refused.push((at, what));
                        continue;
                    };
                    let mode = match mode {
                        Mode::Bridge => MacVlanMode::Bridge,
                        Mode::Private => MacVlanMode::Private,
                        Mode::Vepa => MacVlanMode::Vepa,
                        Mode::Passthru => MacVlanMode::Passthrough,
                    };
                    let builder = LinkMacVlan::new(&end.interface, index, mode);
                    let mut builder = placed(builder, end, fd(end));
                    if let Some(mtu) = link.mtu {
                        builder = builder.mtu(mtu);
                    }
                    (
                        builder.build(),
                        format!("{}:{} in the network of {parent}", end.node, end.interface),
                    )
                }
                Ends::Dummy(end) => {
                    let builder = placed(LinkDummy::new(&end.interface), end, fd(end));
                    (
                        builder.mtu(mtu).build(),
                        format!("{}:{} (dummy)", end.node, end.interface),
                    )
                }
                Ends::Vxlan(end, tunnel) => {
                    let builder = LinkVxlan::new(&end.interface, tunnel.vni).port(tunnel.port);
                    let builder = match tunnel.remote {
                        IpAddr::V4(remote) => builder.remote(remote),
                        IpAddr::V6(remote) => builder.remote6(remote),
                    };
                    let mut builder = placed(builder, end, fd(end));
                    if let Some(mtu) = link.mtu {
                        builder = builder.mtu(mtu);
                    }
                    let shown = format!(
                        "{}:{} to {} (VXLAN {})",
                        end.node, end.interface, tunnel.remote, tunnel.vni
                    );
                    (builder.build(), shown)
                }
            };
            let made = handle.link().add(message).execute().await.map_err(words);
            if let Err(error) = made {
                refused.push((at, format!("link {shown}: {error:#}")));
            }
        }
        Ok(refused)
    })
}

fn veth_end(name: &str) -> LinkMessageBuilder<LinkVeth> {
    // The peer's message is put in when it is whole.
    LinkVeth::new(name, "")
}

fn veth(one: LinkMessageBuilder<LinkVeth>, mtu: u32, peer: LinkMessage) -> LinkMessage {
    one.mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

/// An end that appears in its node.
fn placed<T>(builder: LinkMessageBuilder<T>, end: &End, fd: i32) -> LinkMessageBuilder<T> {
    let builder = builder.setns_by_fd(fd);
    match end.mac {
        Some(mac) => builder.address(mac.to_vec()),
        None => builder,
    }
}

/// Makes a bridge in the calling thread's network namespace, and interfaces of it.
pub(super) fn bridge(name: &str, ports: &[&str]) -> anyhow::Result<()> {
    connected(async |handle| {
        let message = LinkBridge::new(name).up().build();
        let made = handle.link().add(message).execute().await.map_err(words);
        made.with_context(|| format!("bridge {name}"))?;
        let index = if_nametoindex(name).with_context(|| format!("bridge {name}"))?;
        for port in ports {
            let message = LinkUnspec::new_with_name(port).controller(index).build();
            let set = handle.link().set(message).execute().await.map_err(words);
            set.with_context(|| format!("bridge {name}: interface {port}"))?;
        }
        Ok(())
    })
}

/// Gives an interface of the calling thread's network namespace its addresses, and the namespace its default routes. Where it is the gateway itself, they say that
/// nothing behind it may be reached: of all answers the one that ends a wait for UDP too.
pub(super) fn address(name: &str, management: &Management) -> anyhow::Result<()> {
    connected(async |handle| {
        let index = if_nametoindex(name).with_context(|| format!("interface {name}"))?;
        for network in &management.addresses {
            let add = handle
                .address()
                .add(index, network.addr(), network.prefix_len());
            let added = add.execute().await.map_err(words);
            // Where the host has IPv6 turned off, there is none.
            match added {
                Err(_) if network.addr().is_ipv6() => {}
                other => other.with_context(|| format!("{network} at {name}"))?,
            }
        }
        if management.is_gateway {
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().kind(RouteType::Prohibit);
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().kind(RouteType::Prohibit);
            let added = handle.route().add(v4.build()).execute().await;
            added.map_err(words).context("default route")?;
            // See above on IPv6.
            let _ = handle.route().add(v6.build()).execute().await;
        }
        for gateway in &management.gateways {
            let route = match gateway {
                IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(*gateway)
                    .output_interface(index)
                    .build(),
                IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .gateway(*gateway)
                    .output_interface(index)
                    .build(),
            };
            let added = handle.route().add(route).execute().await.map_err(words);
            match added {
                Err(_) if gateway.is_ipv6() => {}
                other => other.with_context(|| format!("default route by {gateway}"))?,
            }
        }
        Ok(())
    })
}

/// Removes interfaces of the calling thread's network namespace, where they are there.
pub(super) fn remove(names: &[String]) -> anyhow::Result<()> {
    let there: Vec<u32> = names
        .iter()
        .filter_map(|name| if_nametoindex(name.as_str()).ok())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    connected(async |handle| {
        for index in there {
            match handle.link().del(index).execute().await.map_err(words) {
                // The kernel takes it away by itself when the namespace of its other end goes.
                Err(error) if errno(&error) == Some(Errno::ENODEV) => {}
                other => other?,
            }
        }
        Ok(())
    })
}

/// By which addresses others best reach this node, one of each family: those of the loopback interface before others.
pub(super) fn addresses() -> anyhow::Result<Vec<IpAddr>> {
    let mut found: Vec<(bool, IpAddr)> = Vec::new();
    for interface in getifaddrs()? {
        let address = interface.address.and_then(|address| {
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or(address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip())))
        });
        let link_local = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if let Some(address) =
            address.filter(|address| !address.is_loopback() && !link_local(address))
        {
            found.push((interface.interface_name != "lo", address));
        }
    }
    // Stable: what was configured first stays first.
    found.sort_by_key(|(elsewhere, _)| *elsewhere);
    let first = |v4| {
        found
            .iter()
            .map(|(_, address)| *address)
            .find(|address| address.is_ipv4() == v4)
    };
    Ok([first(true), first(false)].into_iter().flatten().collect())
}
