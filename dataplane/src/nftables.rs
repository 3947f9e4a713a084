//! Our nftables table: what the kernel's other means do not do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use weft_overlay::{BFD_PORTS, VXLAN_GPE_PORT, VXLAN_PORT};

use crate::ruleset_watch;
use crate::stamp::STAMP_PORT;

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
    /// A service node's, where packets of a chain go out with a step's mark.
    pub(crate) service: bool,
}

/// Where a tenant's packets leave for the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The tenant's mark.
    pub(crate) mark: u32,
    /// The conntrack zone of its connections: another tenant's may have the same addresses and ports.
    pub(crate) zone: u16,
    /// The interface.
    pub(crate) interface: String,
    /// Its address becomes the packets' source.
    pub(crate) source_nat: bool,
    /// Where else the tenant's own table leads: attachments and tunnel devices.
    pub(crate) ways: Vec<String>,
}

/// What our table has to do: what the classifier does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duties {
    /// Interfaces that were tenants', which nothing passes.
    pub(crate) closed: BTreeSet<String>,
    /// Interfaces that nothing comes in by without the mark that the classifier gives it: what is made again has no program for a moment.
    pub(crate) marked: BTreeSet<String>,
    /// Some of those are members of VRFs.
    pub(crate) members: bool,
    /// Keeps tenants from each other.
    pub(crate) part_tenants: bool,
    /// Keeps tenants from addresses of the router that are not theirs.
    pub(crate) guard_router: bool,
    /// Marks what enters from tenants, takes the mark from what goes into a tunnel, and fits TCP segments to it.
    pub(crate) classify: bool,
}

fn set(name: &str, kind: &str, elements: Vec<String>) -> String {
    let elements = match elements[..] {
        [] => String::new(),
        _ => format!(" elements = {{ {} }};", elements.join(", ")),
    };
    format!("  {name} {{ type {kind};{elements} }}\n")
}

/// `hook` is type, hook and priority; empty for a chain that others jump to.
fn chain(name: &str, hook: &str, rules: &[&str]) -> String {
    let hook = match hook {
        "" => String::new(),
        hook => format!("    type {hook}; policy accept;\n"),
    };
    let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
    format!("  chain {name} {{\n{hook}{rules}  }}\n")
}

/// Our table, where it has a duty: else none. Tunnels are `devices`, and packets come to them at `ports`. `senders` are those whose tunnel packets are taken, `None` where all are. `underlay` are addresses of the control and data plane, that nobody reaches by a way
/// to the Internet. Each hook costs every packet of the host, so there are no more than need
/// be. Sets and maps make it cost the same for every number of tenants, and a packet that nothing is to be done for passes
/// one rule a hook. A packet in the midst of a table that is replaced still finds what sets have, and nothing in maps (and in intervals,
/// see [`crate::steps`]): after each map stands what becomes of those that should have been in it.
pub(crate) fn ruleset(
    entrances: &[Entrance],
    (devices, ports): (&[&str], &BTreeSet<u16>),
    duties: &Duties,
    exits: &[Exit],
    underlay: &BTreeSet<IpAddr>,
    senders: Option<&BTreeSet<IpAddr>>,
) -> String {
    if *duties == Duties::default() && exits.is_empty() {
        return NO_TABLE.to_owned();
    }
    let all = |each: &dyn Fn(&Entrance) -> Vec<String>| -> Vec<String> {
        entrances.iter().flat_map(each).collect()
    };
    let addresses = |v4: bool, element: &dyn Fn(&Entrance, &IpAddr) -> String| {
        let mut elements = all(&|entrance| {
            let addresses = entrance.addresses.iter();
            addresses
                .filter(|address| address.is_ipv4() == v4)
                .map(|address| element(entrance, address))
                .collect()
        });
        elements.sort_unstable();
        elements.dedup();
        elements
    };
    let at_input =
        |entrance: &Entrance, address: &IpAddr| format!("\"{}\" . {address}", entrance.input);
    let alone = |_: &Entrance, address: &IpAddr| address.to_string();
    let mut inputs = all(&|entrance| vec![format!("\"{}\"", entrance.input)]);
    inputs.sort_unstable();
    inputs.dedup();
    let users = |entrance: &Entrance| !entrance.service;
    let interfaces = all(&|entrance| {
        let name = users(entrance).then(|| format!("\"{}\"", entrance.interface));
        name.into_iter().collect()
    });
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
    let closed = duties.closed.iter().map(|name| format!("\"{name}\""));
    let closed: Vec<String> = closed.collect();
    let devices: Vec<String> = devices.iter().map(|name| format!("\"{name}\"")).collect();
    let devices = format!("{{ {} }}", devices.join(", "));
    let mut parts = vec![NO_TABLE.to_owned(), "table inet weft {\n".to_owned()];
    if !closed.is_empty() {
        parts.extend([
            set("set closed", "ifname", closed),
            chain(
                "former-attachments",
                "filter hook prerouting priority raw - 10",
                &["iifname @closed counter drop"],
            ),
            chain(
                "to-former-attachments",
                "filter hook postrouting priority mangle - 10",
                &["oifname @closed counter drop"],
            ),
        ]);
    }
    if !duties.marked.is_empty() {
        put_marked(&mut parts, duties);
    }
    if duties.guard_router {
        parts.extend([
            set("set inputs", "ifname", inputs),
            // `fib daddr . iif type` would do, were it not for tenants that share an address: it looks at the first
            // interface that has it only.
            set("set own4", "ifname . ipv4_addr", addresses(true, &at_input)),
            set(
                "set own6",
                "ifname . ipv6_addr",
                addresses(false, &at_input),
            ),
            chain(
                "own-addresses",
                "",
                &[
                    "ip daddr 255.255.255.255 return",
                    "iifname . ip daddr != @own4 counter drop",
                    "iifname . ip6 daddr != @own6 counter drop",
                ],
            ),
        ]);
        let mut to_router = vec![
            // A tunnel's own packets have no mark: they are told apart without a look into a set.
            "meta mark & 0xff000000 == 0x57000000 iifname @inputs fib daddr type { local, broadcast, anycast } jump own-addresses",
        ];
        // What comes to another port is none of the tunnels': it may be another's VXLAN.
        let own_ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let tunnelled = (!ports.is_empty())
            .then(|| format!("udp dport {{ {} }} jump senders", own_ports.join(", ")));
        let mut tunnels = vec!["meta l4proto 47".to_owned()];
        if !ports.is_empty() {
            tunnels.push(format!("udp dport {{ {} }}", own_ports.join(", ")));
        }
        // What came by a tunnel has no mark, and is a tenant's too.
        let inside = format!("iifname {devices}");
        let tenants = ["meta mark & 0xff000000 == 0x57000000", ON_CHAIN, &inside];
        let by_tenants = tenants.map(|tenants| {
            let rules = tunnels.iter();
            rules
                .map(|tunnel| format!("{tenants} {tunnel} counter drop"))
                .collect::<Vec<_>>()
        });
        let by_tenants = by_tenants.concat();
        let from_tunnels = format!(
            "iifname {devices} fib daddr type {{ local, broadcast, anycast }} jump tenants-addresses"
        );
        if duties.classify {
            // Whose a tunnel's packet is nothing says here: it reaches addresses of tenants only.
            parts.extend([
                set("set tenants4", "ipv4_addr", addresses(true, &alone)),
                set("set tenants6", "ipv6_addr", addresses(false, &alone)),
                chain(
                    "tenants-addresses",
                    "",
                    &[
                        "ip daddr != @tenants4 counter drop",
                        "ip6 daddr != @tenants6 ip6 daddr != fe80::/10 counter drop",
                    ],
                ),
            ]);
            to_router.push(&from_tunnels);
        }
        if let Some(senders) = senders.filter(|_| duties.classify) {
            put_senders(&mut parts, senders);
            // A tenant's host can send to its router's address there whatever it likes.
            to_router.extend(by_tenants.iter().map(|rule| &**rule));
            to_router.extend(tunnelled.as_deref());
            to_router.push("meta l4proto 47 jump senders");
        }
        parts.push(chain(
            "to-router",
            "filter hook input priority filter",
            &to_router,
        ));
    }
    let mut forward = Vec::new();
    if duties.classify || !exits.is_empty() {
        let entered = all(&|entrance| vec![format!("\"{}\"", entrance.interface)]);
        parts.push(set("set inside", "ifname", entered));
    }
    // What comes by a tunnel has no mark where nothing classifies it; its table leads nowhere else.
    let unmarked = format!(
        "meta mark & 0xff000000 != 0x57000000 {OFF_CHAIN} iifname != {devices} oifname @inside counter drop"
    );
    if duties.classify {
        let fit = ["oifname", "iifname"]
            .map(|side| format!("{side} {devices} tcp option maxseg size set rt mtu"));
        parts.extend([
            set("map marks", "ifname : mark", marks),
            chain("fit-segments", "", &[&fit[0], &fit[1]]),
            chain(
                "from-tenants",
                // Before connections are tracked.
                "filter hook prerouting priority raw - 5",
                // What is on a service chain has a step's mark already.
                &[
                    &format!("{OFF_CHAIN} meta mark set iifname map @marks accept"),
                    &format!("{OFF_CHAIN} iifname @inside counter drop"),
                ],
            ),
            // The mark must not steer the tunnel's own packet.
            chain(
                "into-tunnels",
                "filter hook postrouting priority mangle",
                &[&format!("oifname {devices} meta mark set 0")],
            ),
        ]);
        forward.push("tcp flags & (syn | rst) == syn jump fit-segments");
        // What the router answers to a tenant has its mark; its other answers are for somebody who named a tenant's host as the source.
        parts.extend([
            chain(
                "answers",
                "",
                &[
                    "icmp type != echo-request counter drop",
                    "icmpv6 type { 0-127, echo-reply, nd-redirect } counter drop",
                    "tcp flags & rst == rst counter drop",
                    "tcp flags & (syn | ack) == (syn | ack) counter drop",
                ],
            ),
            chain(
                "router-answers",
                "filter hook output priority filter",
                &[&format!(
                    "meta mark & 0xff000000 != 0x57000000 {OFF_CHAIN} oifname @inside jump answers"
                )],
            ),
        ]);
    }
    // What a bridge passes between its own ports is none of the router's.
    let strays = format!("{UNMARKED} iifname @marked oifname != @marked counter drop");
    if !duties.marked.is_empty() {
        forward.insert(0, &strays);
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
    if duties.classify || !exits.is_empty() {
        forward.push(&unmarked);
    }
    if !exits.is_empty() {
        put_exits(&mut parts, exits);
        put_control_plane(&mut parts, underlay, ports);
        forward.push("meta mark . oifname @outside jump control-plane");
        // The main table leads elsewhere too.
        forward.push("meta mark @breakouts meta mark . oifname != @ways counter drop");
    }
    if !forward.is_empty() {
        parts.push(chain(
            "through-router",
            "filter hook forward priority mangle",
            &forward,
        ));
    }
    parts.push("}\n".to_owned());
    parts.concat()
}

/// What the classifier has not seen comes in by no attachment, for the router itself: a device that is made again has no program for a moment.
/// What goes elsewhere is seen to where packets are forwarded.
fn put_marked(parts: &mut Vec<String>, duties: &Duties) {
    let names = duties.marked.iter().map(|name| format!("\"{name}\""));
    let by_itself = format!("iifname @marked {UNMARKED} counter drop");
    // Of a VRF's member the kernel says that the VRF is where it came in by.
    let by_member = format!("{UNMARKED} meta sdifname @marked counter drop");
    let mut rules = vec![&*by_itself];
    if duties.members {
        rules.push(&by_member);
    }
    parts.extend([
        set("set marked", "ifname", names.collect()),
        chain("unmarked", "filter hook input priority filter - 10", &rules),
    ]);
}

/// Tunnel packets are taken from known routers only, whatever their VNI.
fn put_senders(parts: &mut Vec<String>, senders: &BTreeSet<IpAddr>) {
    let addresses = |v4: bool| -> Vec<String> {
        let all = senders.iter().filter(|address| address.is_ipv4() == v4);
        all.map(IpAddr::to_string).collect()
    };
    parts.extend([
        set("set senders4", "ipv4_addr", addresses(true)),
        set("set senders6", "ipv6_addr", addresses(false)),
        chain(
            "senders",
            "",
            &[
                "ip saddr != @senders4 counter drop",
                "ip6 saddr != @senders6 counter drop",
            ],
        ),
    ]);
}

/// Where a tenant leaves by the uplink it is the router to whoever is there: it may not speak to what the router speaks to, nor as
/// a router does, wherever that leads. Fragments are whole here, since connections are tracked.
fn put_control_plane(parts: &mut Vec<String>, underlay: &BTreeSet<IpAddr>, ports: &BTreeSet<u16>) {
    let addresses = |v4: bool| -> Vec<String> {
        let all = underlay.iter().filter(|address| address.is_ipv4() == v4);
        all.map(IpAddr::to_string).collect()
    };
    let mut ports = ports.clone();
    ports.extend(BFD_PORTS);
    ports.extend([VXLAN_PORT, VXLAN_GPE_PORT, STAMP_PORT]);
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    parts.extend([
        set("set underlay4", "ipv4_addr", addresses(true)),
        set("set underlay6", "ipv6_addr", addresses(false)),
        chain(
            "control-plane",
            "",
            &[
                "ip daddr @underlay4 counter drop",
                "ip6 daddr @underlay6 counter drop",
                // BGP; BFD over one hop, its echoes, and over several; STAMP; VXLAN and VXLAN-GPE, also at our ports and far ones; GRE.
                "tcp dport 179 counter drop",
                &format!("udp dport {{ {} }} counter drop", ports.join(", ")),
                "meta l4proto 47 counter drop",
            ],
        ),
    ]);
}

/// Connections of tenants with a way to the Internet: each in its tenant's zone on the way out, with its tenant's mark on the
/// way back. In the zone of replies the kernel keeps them apart itself, by a random port: kept as it was, two connections that
/// differ in nothing but the tenant and begin at once get the same one, and the kernel drops the first packet of the later.
fn put_exits(parts: &mut Vec<String>, exits: &[Exit]) {
    let all = |each: &dyn Fn(&Exit) -> Option<String>| -> Vec<String> {
        exits.iter().filter_map(each).collect()
    };
    let zones = all(&|exit| Some(format!("0x{:08x} : {}", exit.mark, exit.zone)));
    let untracked = format!("{ON_CHAIN} notrack");
    let zones = format!(
        "ct original zone set meta mark map {{ {} }} accept",
        zones.join(", ")
    );
    let mut interfaces = all(&|exit| Some(format!("\"{}\"", exit.interface)));
    interfaces.sort_unstable();
    interfaces.dedup();
    let replies = format!(
        "iifname {{ {} }} ct direction reply ct mark & 0xff000000 == 0x57000000 meta mark set ct mark",
        interfaces.join(", ")
    );
    let ways = exits.iter().flat_map(|exit| {
        let ways = exit.ways.iter().chain([&exit.interface]);
        ways.map(|way| format!("0x{:08x} . \"{way}\"", exit.mark))
    });
    let outside = all(&|exit| Some(format!("0x{:08x} . \"{}\"", exit.mark, exit.interface)));
    let translated = all(&|exit| {
        let way = format!("0x{:08x} . \"{}\"", exit.mark, exit.interface);
        exit.source_nat.then_some(way)
    });
    parts.extend([
        set(
            "set breakouts",
            "mark",
            all(&|exit| Some(format!("0x{:08x}", exit.mark))),
        ),
        set("set ways", "mark . ifname", ways.collect()),
        set("set outside", "mark . ifname", outside),
        set("set translated", "mark . ifname", translated),
        // Packets on a service chain pass the router several times, and have their tenant's zone the last time only.
        chain(
            "zones",
            "filter hook prerouting priority raw",
            &[&untracked, &zones, "meta mark @breakouts counter drop"],
        ),
        chain(
            "connections",
            "filter hook prerouting priority mangle",
            &[&replies],
        ),
        chain(
            "sources",
            "nat hook postrouting priority srcnat",
            &["meta mark . oifname @translated masquerade fully-random"],
        ),
        // What the router itself sends for a tenant.
        chain(
            "from-router",
            "filter hook output priority mangle",
            &["meta mark . oifname @outside jump control-plane"],
        ),
        // What has a tenant's mark still is dropped at the device, by the classifier: where this table is gone, all of it.
        chain(
            "outside-sources",
            "filter hook postrouting priority srcnat + 10",
            &[
                // What answers there is for connections that went out there, and for no others of the tenant's.
                "meta mark . oifname @outside ct mark set meta mark",
                "meta mark . oifname @translated ct status snat meta mark set 0",
                "meta mark . oifname != @translated meta mark . oifname @outside meta mark set 0",
            ],
        ),
    ]);
}

/// What has a step's mark, see [`crate::steps`]; what has none.
const ON_CHAIN: &str = "meta mark & 0xfc000000 == 0x58000000";
const OFF_CHAIN: &str = "meta mark & 0xfc000000 != 0x58000000";

/// What has neither a tenant's mark nor a step's.
const UNMARKED: &str = "meta mark & 0xff000000 != 0x57000000 meta mark & 0xfc000000 != 0x58000000";

/// Tables of ours: what parts tenants, and service chains.
pub(crate) const TABLES: [&str; 2] = ["weft", crate::steps::TABLE];

/// Made first, so that its removal never fails for want of it; and once more, so that one that is signed is told of (see
/// [`ruleset_watch`]).
const NO_TABLE: &str =
    "table inet weft\ndelete table inet weft\ntable inet weft\ndelete table inet weft\n";

/// Loads a ruleset in one transaction.
///
/// # Errors
/// What nft said, or that it is not there.
pub(crate) fn load(ruleset: &str) -> Result<(), String> {
    let signed = sign(ruleset, ruleset_watch::signature());
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run nft: {error}; apt-get install nftables"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(signed.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(reason(&String::from_utf8_lossy(&output.stderr)))
    }
}

/// What nft says is wrong first, without the ruleset that it quotes.
fn reason(said: &str) -> String {
    let mut lines = said.lines().map(str::trim);
    let error = lines.clone().find(|line| line.contains("Error"));
    let line = error.or_else(|| lines.find(|line| !line.is_empty()));
    line.unwrap_or("nft failed").chars().take(300).collect()
}

/// Each table has a comment that says who made it, those too that are made to be removed.
fn sign(ruleset: &str, signature: &str) -> String {
    let mut out = String::with_capacity(ruleset.len() + 64);
    for line in ruleset.lines() {
        let _ = match (line.starts_with("table "), line.ends_with('{')) {
            (true, true) => writeln!(out, "{line}\n  comment \"{signature}\""),
            (true, false) => writeln!(out, "{line} {{ comment \"{signature}\"; }}"),
            (false, _) => writeln!(out, "{line}"),
        };
    }
    out
}

/// Interfaces in a set of an earlier process's table; none where it has no such set.
pub(crate) fn interfaces(set: &str) -> BTreeSet<String> {
    let listing = Command::new("nft")
        .args(["-j", "list", "set", "inet", "weft", set])
        .output();
    let listing = listing.ok().map(|output| output.stdout);
    let listing: Option<serde_json::Value> =
        listing.and_then(|octets| serde_json::from_slice(&octets).ok());
    let objects = listing.as_ref().and_then(|all| all["nftables"].as_array());
    let names = objects
        .into_iter()
        .flatten()
        .filter_map(|object| object["set"]["elem"].as_array())
        .flatten();
    names
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect()
}

/// An earlier process's table is there.
pub(crate) fn is_there() -> bool {
    let listing = Command::new("nft")
        .args(["list", "table", "inet", "weft"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    listing.is_ok_and(|status| status.success())
}

/// Removes our table.
pub(crate) fn unload() -> Result<(), String> {
    load(NO_TABLE)
}
