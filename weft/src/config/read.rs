//! From the tree of values to [`Config`]: the keys, what each may hold, and what must fit together.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use weft_bgp_wire::{Asn, Family, RouterId};
use weft_overlay::{Encapsulation, Vni};

use super::node::{self, Position};
use super::reader::{At, Cursor, Fields, Problems};
use super::report::Problem;
use super::values::{
    address, asn, hold_time, id, interface, name, number, number_of, prefix_range, prefixes,
    unicast, unique, unique_items, unique_of, vni, vni_set,
};
use super::*;

/// Reads a text; everything that is wrong with it otherwise.
pub(super) fn config(text: &str) -> Result<Config, Vec<Problem>> {
    let alone = |position, message| {
        vec![Problem {
            position,
            length: 1,
            path: String::new(),
            message,
            help: None,
        }]
    };
    let root = node::parse(text)
        .map_err(|error| {
            alone(
                error.position,
                format!("this is not YAML: {}", error.message),
            )
        })?
        .ok_or_else(|| {
            let start = Position { line: 1, column: 1 };
            alone(
                start,
                "the file is empty, expected a configuration".to_owned(),
            )
        })?;
    let problems = Problems::default();
    let config = document(&Cursor::root(&root, &problems));
    match (config, problems.into_inner()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

fn document(root: &Cursor<'_>) -> Option<Config> {
    let mut fields = root.fields("a mapping with `router` and what else is configured")?;
    let managed = fields.get("controller").is_some();
    let controller = fields.optional("controller", |at| controller(&at));
    let router = fields.required(
        "router",
        "add `router: { name: NAME, router_id: ADDRESS, asn: NUMBER }`",
        |at| router(&at, managed),
    );
    let has_overlay = fields.get("overlay").is_some();
    let overlay = fields.optional("overlay", |at| overlay(&at, managed));
    let discovery = fields
        .optional("discovery", |at| {
            at.list("a list of sources of neighbours", |at| discovery(&at))
        })
        .unwrap_or_default();
    for key in ["tenants", "neighbors", "networks", "discovery"] {
        if managed && let Some(at) = fields.get(key).filter(|at| !at.is_empty_list()) {
            at.problem(
                format!("with a controller, {key} are what it says"),
                Some("leave this out, and tell the controller".to_owned()),
            );
        }
    }
    let tenants = fields
        .optional("tenants", |at| {
            at.list("a list of tenants", |at| tenant(&at, router.as_ref()))
        })
        .unwrap_or_default();
    let neighbors = fields
        .optional("neighbors", |at| {
            at.list("a list of neighbours", |at| {
                neighbor(&at, router.as_ref(), has_overlay)
            })
        })
        .unwrap_or_default();
    let networks = fields.optional("networks", |at| prefixes(&at));
    let install = fields.optional("install", |at| prefixes(&at));
    let api = fields.optional("api", |at| api(&at));
    let log = fields.optional("log", |at| log(&at));
    if !has_overlay && let Some(tenants) = fields.get("tenants").filter(|_| !tenants.is_empty()) {
        tenants.problem(
            "tenants need an overlay, and there is none",
            Some("add `overlay: { global_administrator: ASN, endpoint: ADDRESS }`".to_owned()),
        );
    }
    let v6_endpoint = overlay.as_ref().is_some_and(|of| of.endpoint.is_ipv6());
    let v6_session =
        |at: &At<'_, (Neighbor, Cursor<'_>)>| at.value.0.families.contains(&Family::Ipv6Unicast);
    if v6_endpoint
        && !neighbors.is_empty()
        && !neighbors.iter().any(v6_session)
        && let Some(at) = fields.get("neighbors")
    {
        at.problem(
            "the IPv6 endpoint is announced in ipv6-unicast, and no neighbour exchanges that",
            Some("add `families: [ipv4-unicast, ipv6-unicast]` to the neighbours".to_owned()),
        );
    }
    let attached = |at: &At<'_, ReadTenant<'_>>| {
        let mut services = at.value.tenant.services.iter();
        services.any(|of| of.interface.is_some())
    };
    if overlay.as_ref().is_some_and(|of| !of.announce_locator)
        && tenants.iter().any(attached)
        && let Some(at) = fields.get("overlay")
    {
        at.problem(
            "services that are attached here are announced with the locator, which is not announced",
            Some("leave `announce_locator` out, or set it to true".to_owned()),
        );
    }
    fields.finish();
    check_tenants(&tenants);
    unique(
        neighbors.iter().map(|at| (at.value.0.address, &at.value.1)),
        |address| format!("the neighbour {address} stands here for a second time"),
    );
    Some(Config {
        controller,
        router: router?,
        overlay,
        tenants: tenants.into_iter().map(|at| at.value.tenant).collect(),
        neighbors: neighbors.into_iter().map(|at| at.value.0).collect(),
        discovery: discovery.into_iter().map(|at| at.value).collect(),
        networks: networks.unwrap_or_default(),
        install: install.unwrap_or_default(),
        api: api.unwrap_or_default(),
        log: log.unwrap_or_default(),
    })
}

fn discovery(at: &Cursor<'_>) -> Option<Discovery> {
    let allowed = "`file: PATH`, `dns: { name: NAME }`, `etcd: { endpoints: [URL] }` or `mdns: { interface: NAME }`";
    let mut fields = at.fields(allowed)?;
    let text = |at: &Cursor<'_>, what: &str| match at.scalar() {
        Some(text) if !text.is_empty() => Some(text.to_owned()),
        _ => at.expected(what),
    };
    let file = fields.optional("file", |at| {
        text(&at, "the path of a file").map(PathBuf::from)
    });
    let dns = fields.optional("dns", |at| {
        let mut fields = at.fields("a mapping with `name`")?;
        let name = fields.required(
            "name",
            "the name with SRV records, such as `_bgp._tcp.example.com`",
            |at| text(&at, "a name"),
        );
        let servers = fields.optional("servers", |at| {
            let servers = at.list("a list of name servers, ADDRESS:PORT", |at| {
                let server = at.scalar().and_then(|text| text.parse::<SocketAddr>().ok());
                server.or_else(|| at.expected("a name server, such as 127.0.0.1:53"))
            })?;
            Some(servers.into_iter().map(|at| at.value).collect())
        });
        fields.finish();
        Some(Discovery::Dns {
            name: name?,
            servers: servers.unwrap_or_default(),
        })
    });
    let etcd = fields.optional("etcd", |at| {
        let mut fields = at.fields("a mapping with `endpoints`")?;
        let endpoints = fields.required(
            "endpoints",
            "members of the cluster, such as [http://127.0.0.1:2379]",
            |at| {
                let member = |text: &str| {
                    ["http://", "https://"]
                        .iter()
                        .any(|scheme| text.starts_with(scheme))
                };
                let what = "http://HOST:PORT or https://HOST:PORT";
                let endpoints = at.list(&format!("a list of {what}"), |at| match at.scalar() {
                    Some(text) if member(text) => Some(text.to_owned()),
                    _ => at.expected(what),
                })?;
                Some(endpoints.into_iter().map(|at| at.value).collect::<Vec<_>>())
            },
        );
        let prefix = fields.optional("prefix", |at| text(&at, "what the keys begin with"));
        let [cacert, cert, key] = ["cacert", "cert", "key"].map(|name| {
            let path = fields.optional(name, |at| text(&at, "the path of a PEM file"));
            path.map(PathBuf::from)
        });
        fields.finish();
        Some(Discovery::Etcd {
            endpoints: endpoints.filter(|of| !of.is_empty())?,
            prefix: prefix.unwrap_or_else(defaults::peers),
            cacert,
            cert,
            key,
        })
    });
    let mdns = fields.optional("mdns", |at| {
        let mut fields = at.fields("a mapping with `interface`")?;
        let interface = fields.required("interface", "the link to look on, such as `eth0`", |at| {
            interface(&at)
        });
        fields.finish();
        Some(Discovery::Mdns {
            interface: interface?,
        })
    });
    fields.finish();
    let found = file
        .map(Discovery::File)
        .into_iter()
        .chain(dns)
        .chain(etcd)
        .chain(mdns);
    let mut found: Vec<Discovery> = found.collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Some(one),
        _ => at.expected(format!("one of {allowed}")),
    }
}

fn controller(at: &Cursor<'_>) -> Option<Controller> {
    let mut fields = at.fields("a mapping with `address`, and `token` to join with")?;
    let address = fields.required(
        "address",
        "where the controller is, HOST:PORT",
        |at| match at.scalar() {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => at.expected("HOST, HOST:PORT or [ADDRESS]:PORT"),
        },
    );
    let token = fields.optional("token", |at| {
        let text = at.scalar().unwrap_or_default();
        match text.parse::<weft_discovery::pki::TokenText>() {
            Ok(_) => Some(text.to_owned()),
            Err(_) => at.expected(
                "a join token, weft.ID.SECRET.FINGERPRINT, as `weft token create` prints it",
            ),
        }
    });
    let state = fields.optional("state", |at| match at.scalar() {
        Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
        _ => at.expected("the absolute path of a folder"),
    });
    fields.finish();
    Some(Controller {
        address: address?,
        token,
        state: state.unwrap_or_else(defaults::state),
    })
}

/// `managed` says that a controller tells what is missing.
fn router(at: &Cursor<'_>, managed: bool) -> Option<Router> {
    let mut fields = at.fields("a mapping with `name`, `router_id` and `asn`")?;
    let router_name = fields.required("name", "a name for humans, such as `a1`", |at| name(&at));
    let router_id = match managed && fields.get("router_id").is_none() {
        true => Some(defaults::no_id().0),
        false => fields.required(
            "router_id",
            "an IPv4 address that no other router of this AS uses as its id",
            |at| id(&at),
        ),
    };
    let number = match managed && fields.get("asn").is_none() {
        true => Some(defaults::no_asn()),
        false => fields.required("asn", "the AS number of this router", |at| asn(&at)),
    };
    let cluster_id = fields.optional("cluster_id", |at| id(&at));
    let hold = fields.optional("hold_time", |at| hold_time(&at));
    let graceful_restart = match fields.get("graceful_restart") {
        Some(at) => graceful_restart(&at),
        None => defaults::graceful_restart(),
    };
    let listen = fields.optional("listen", |at| listen(&at));
    fields.finish();
    Some(Router {
        name: router_name?,
        router_id: RouterId(router_id?),
        asn: number?,
        cluster_id,
        hold_time: hold.unwrap_or_else(defaults::hold_time),
        graceful_restart,
        listen: listen.unwrap_or_default(),
    })
}

fn graceful_restart(at: &Cursor<'_>) -> Option<GracefulRestart> {
    if !at.is_mapping() {
        return match at.scalar() {
            Some("true") => Some(GracefulRestart::default()),
            Some("false") => None,
            _ => at.expected("true, false, or a mapping with `restart_time` and `deferral_time`"),
        };
    }
    let mut fields = at.fields("a mapping")?;
    let seconds = |at: Cursor<'_>| number(&at, "seconds", 1, 4095);
    let restart_time = fields.optional("restart_time", seconds);
    let deferral_time = fields.optional("deferral_time", seconds);
    fields.finish();
    Some(GracefulRestart {
        restart_time: restart_time.unwrap_or_else(defaults::restart_time),
        deferral_time: deferral_time.unwrap_or_else(defaults::deferral_time),
    })
}

fn listen(at: &Cursor<'_>) -> Option<Listen> {
    let mut fields = at.fields("a mapping with `addresses` and `port`")?;
    let addresses = fields.optional("addresses", |at| {
        let addresses = at.list("a list of IP addresses", |at| address(&at))?;
        unique_items(&addresses);
        Some(addresses.into_iter().map(|at| at.value).collect())
    });
    let port = fields.optional("port", |at| number(&at, "a TCP port", 1, 65535));
    fields.finish();
    Some(Listen {
        addresses: addresses.unwrap_or_else(defaults::listen_addresses),
        port: port.unwrap_or_else(defaults::bgp_port),
    })
}

fn overlay(at: &Cursor<'_>, managed: bool) -> Option<Overlay> {
    let mut fields = at.fields("a mapping with `global_administrator` and `endpoint`")?;
    let administrator = match managed && fields.get("global_administrator").is_none() {
        true => Some(defaults::no_asn()),
        false => fields.required(
            "global_administrator",
            "the AS number that runs the overlay, the same in every domain",
            |at| asn(&at),
        ),
    };
    let endpoint = match managed && fields.get("endpoint").is_none() {
        true => Some(defaults::no_endpoint()),
        false => fields.required(
            "endpoint",
            "the address of this router that ends tunnels",
            |at| endpoint(&at),
        ),
    };
    let encapsulation = fields.optional("encapsulation", |at| {
        at.choice(&[
            ("vxlan", Encapsulation::Vxlan),
            ("vxlan-gpe", Encapsulation::VxlanGpe),
            ("gre", Encapsulation::Gre),
        ])
    });
    let segmentation = fields.optional("segmentation", |at| {
        at.choice(&[
            ("auto", Segmentation::Auto),
            ("vrf", Segmentation::Vrf),
            ("table", Segmentation::Table),
        ])
    });
    let code_point = fields.optional("code_point", |at| {
        at.choice(&[("pipe", CodePoint::Pipe), ("uniform", CodePoint::Uniform)])
    });
    let bandwidth = fields.optional("bandwidth", |at| {
        number_of(&at, "a bandwidth in Mbit/s", 1, 10_000_000)
    });
    let resilient = fields.optional("resilient", |at| at.bool());
    let install_underlay = fields.optional("install_underlay", |at| at.bool());
    let announce_locator = fields.optional("announce_locator", |at| at.bool());
    let probe_interval = fields.optional("probe_interval", |at| {
        number_of(&at, "seconds between probes, 0 for none", 0, 3600)
    });
    if announce_locator == Some(false)
        && endpoint.is_some_and(|endpoint| endpoint.is_ipv6())
        && let Some(at) = fields.get("announce_locator")
    {
        at.problem(
            "an IPv6 endpoint is known to others by its locator only",
            Some("leave this out, or set it to true".to_owned()),
        );
    }
    fields.finish();
    Some(Overlay {
        global_administrator: administrator?.0,
        endpoint: endpoint?,
        encapsulation: encapsulation.unwrap_or_else(defaults::encapsulation),
        segmentation: segmentation.unwrap_or_default(),
        code_point: code_point.unwrap_or_default(),
        bandwidth,
        resilient: resilient.unwrap_or_default(),
        install_underlay: install_underlay.unwrap_or_default(),
        announce_locator: announce_locator.unwrap_or_else(defaults::yes),
        probe_interval: probe_interval.unwrap_or_else(defaults::endpoint_probe_interval),
    })
}

fn endpoint(at: &Cursor<'_>) -> Option<IpAddr> {
    let address = unicast(at)?;
    let fits = match address {
        IpAddr::V4(address) => !(address.is_loopback() || address.is_broadcast()),
        IpAddr::V6(address) => !(address.is_loopback() || address.is_unicast_link_local()),
    };
    match fits {
        true => Some(address),
        false => at.expected("a unicast address of this router that others reach"),
    }
}

fn breakout(at: &Cursor<'_>) -> Option<Breakout> {
    let mut fields = at.fields("a mapping with `interface`")?;
    let interface = fields.required(
        "interface",
        "the interface towards the Internet, such as `eth0`",
        |at| interface(&at),
    );
    let source_nat = fields.optional("source_nat", |at| at.bool());
    fields.finish();
    Some(Breakout {
        interface: interface?,
        source_nat: source_nat.unwrap_or_else(defaults::yes),
    })
}

/// What a tenant announces of the kernel's routes.
fn redistribute(at: &Cursor<'_>) -> Option<Redistribute> {
    match at.scalar()? {
        "connected" => return Some(Redistribute::Connected),
        "static" => return Some(Redistribute::Static),
        name => {
            if let Some((_, number)) = PROTOCOLS.iter().find(|(known, _)| *known == name) {
                return Some(Redistribute::Protocol(*number));
            }
        }
    }
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let allowed = format!(
        "`connected`, `static`, {}, or the number of a route protocol, 5 to 255",
        names.join(", ")
    );
    match at.scalar()?.parse::<u8>() {
        // 87 is what this router's own routes carry; the first ones are the kernel's and the administrator's.
        Ok(number) if number > 4 && number != weft_dataplane::PROTOCOL => {
            Some(Redistribute::Protocol(number))
        }
        _ => at.expected(&allowed),
    }
}

/// A tenant, with the places of what must be unique among all.
struct ReadTenant<'a> {
    tenant: Tenant,
    name: Cursor<'a>,
    vnis: Vec<At<'a, Vni>>,
    interfaces: Vec<At<'a, String>>,
    labels: Vec<At<'a, (String, Vni)>>,
}

fn tenant<'a>(at: &Cursor<'a>, router: Option<&Router>) -> Option<ReadTenant<'a>> {
    let mut fields = at.fields("a mapping with `name` and `vni`")?;
    let placed = |at: Cursor<'a>| name(&at).map(|value| At { value, at });
    let tenant_name = fields.required("name", "a name for humans, such as `red`", placed);
    let primary = fields.required(
        "vni",
        "the tenant's global VNI, 1 to 16777214, the same on every router",
        |at| vni(&at).map(|value| At { value, at }),
    );
    let extra = fields
        .optional("vnis", |at| at.list("a list of VNIs", |at| vni(&at)))
        .unwrap_or_default();
    let interfaces = fields
        .optional("interfaces", |at| {
            at.list("a list of interface names", |at| interface(&at))
        })
        .unwrap_or_default();
    let prefixes = fields.optional("prefixes", |at| prefixes(&at));
    let breakout = fields.optional("breakout", |at| breakout(&at));
    let redistribute = fields.optional("redistribute", |at| {
        let sources = at.list("a list of `connected`, `static` and protocols", |at| {
            redistribute(&at)
        })?;
        unique_items(&sources);
        Some(sources.into_iter().map(|at| at.value).collect::<Vec<_>>())
    });
    let neighbors = fields
        .optional("neighbors", |at| {
            at.list("a list of the tenant's routers", |at| {
                site_neighbor(&at, router)
            })
        })
        .unwrap_or_default();
    unique(
        neighbors.iter().map(|at| (at.value.0.address, &at.value.1)),
        |address| format!("the tenant's neighbour {address} stands here for a second time"),
    );
    let read = chains::read(&mut fields);
    fields.finish();
    let (tenant_name, primary) = (tenant_name?, primary?);
    let tenant = Tenant {
        name: tenant_name.value,
        vni: primary.value,
        vnis: extra.iter().map(|at| at.value).collect(),
        interfaces: interfaces.iter().map(|at| at.value.clone()).collect(),
        prefixes: prefixes.unwrap_or_default(),
        breakout,
        redistribute: redistribute.unwrap_or_default(),
        neighbors: neighbors.into_iter().map(|at| at.value.0).collect(),
        services: read.services,
        chains: read.chains,
    };
    Some(ReadTenant {
        tenant,
        name: tenant_name.at,
        vnis: std::iter::once(primary).chain(extra).collect(),
        interfaces: interfaces.into_iter().chain(read.interfaces).collect(),
        labels: read.labels,
    })
}

fn check_tenants(tenants: &[At<'_, ReadTenant<'_>>]) {
    let tenants = || tenants.iter().map(|at| &at.value);
    unique(
        tenants().map(|read| (&read.tenant.name, &read.name)),
        |name| format!("the tenant `{name}` stands here for a second time"),
    );
    let owned = |read: &ReadTenant<'_>| format!("tenant `{}`", read.tenant.name);
    unique_of(
        tenants().flat_map(|read| {
            read.vnis
                .iter()
                .map(move |at| (at.value, &at.at, owned(read)))
        }),
        |vni| format!("the VNI {vni} belongs to one tenant only"),
    );
    unique_of(
        tenants().flat_map(|read| {
            let interfaces = read.interfaces.iter();
            interfaces.map(move |at| (at.value.as_str(), &at.at, owned(read)))
        }),
        |name| format!("the interface `{name}` belongs to one tenant only"),
    );
    chains::check_labels(tenants().map(|read| {
        (
            read.tenant.name.as_str(),
            read.vnis.as_slice(),
            read.labels.as_slice(),
        )
    }));
}

/// What the neighbours of the router and of its tenants have in common.
struct Session<'a> {
    address: Option<At<'a, IpAddr>>,
    asn: Option<Asn>,
    description: Option<String>,
    port: u16,
    local_address: Option<IpAddr>,
    local_address_v6: Option<Ipv6Addr>,
    passive: bool,
    families: Vec<Family>,
    hold_time: u16,
    connect_retry: u16,
    ttl: Option<u8>,
    max_prefixes: Option<u32>,
    allow_own_as: u8,
    import: Option<Vec<PrefixRange>>,
    export: Option<Vec<PrefixRange>>,
    graceful_restart: bool,
}

fn session<'a>(fields: &mut Fields<'a>, router: Option<&Router>) -> Session<'a> {
    let placed = fields.required("address", "the neighbour's IP address", |at| {
        unicast(&at).map(|value| At { value, at })
    });
    let number = fields.required("asn", "the neighbour's AS number", |at| asn(&at));
    let description = fields.optional("description", |at| match at.scalar() {
        Some(text) if text.chars().count() <= 128 && !text.chars().any(char::is_control) => {
            Some(text.to_owned())
        }
        _ => at.expected("a text of one line, at most 128 characters"),
    });
    let port = fields.optional("port", |at| number_of(&at, "a TCP port", 1, 65535));
    let local_address = fields.optional("local_address", |at| {
        let local = unicast(&at)?;
        match placed.as_ref().map(|placed| placed.value) {
            Some(remote) if remote == local => {
                at.expected("an address of this router, not the neighbour's own")
            }
            Some(remote) if remote.is_ipv4() != local.is_ipv4() => {
                let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
                at.expected(format!("an {family} address, as the neighbour's is"))
            }
            _ => Some(local),
        }
    });
    let local_address_v6 = fields.optional("local_address_v6", |at| {
        at.parse("an IPv6 address of this router")
    });
    let passive = fields.optional("passive", |at| at.bool());
    let families = fields.optional("families", |at| families(&at));
    let hold = fields.optional("hold_time", |at| hold_time(&at));
    let connect_retry = fields.optional("connect_retry", |at| number_of(&at, "seconds", 1, 65535));
    let ttl = fields.optional("ttl", |at| number_of(&at, "a TTL", 1, 255));
    let max_prefixes = fields.optional("max_prefixes", |at| {
        number_of(&at, "a number of prefixes", 1, u64::from(u32::MAX))
    });
    let allow_own_as = fields.optional("allow_own_as", |at| number_of(&at, "a count", 0, 10));
    let import = fields.optional("import", |at| filter(&at));
    let export = fields.optional("export", |at| filter(&at));
    let graceful_restart = fields.optional("graceful_restart", |at| at.bool());
    Session {
        address: placed,
        asn: number,
        description,
        port: port.unwrap_or_else(defaults::bgp_port),
        local_address,
        local_address_v6,
        passive: passive.unwrap_or_default(),
        families: families.unwrap_or_else(defaults::families),
        hold_time: hold
            .unwrap_or_else(|| router.map_or_else(defaults::hold_time, |router| router.hold_time)),
        connect_retry: connect_retry.unwrap_or_else(defaults::connect_retry),
        ttl,
        max_prefixes,
        allow_own_as: allow_own_as.unwrap_or_default(),
        import,
        export,
        graceful_restart: graceful_restart.unwrap_or_else(defaults::yes),
    }
}

/// A tenant's own router.
fn site_neighbor<'a>(
    at: &Cursor<'a>,
    router: Option<&Router>,
) -> Option<(SiteNeighbor, Cursor<'a>)> {
    let mut fields = at.fields("a mapping with `address` and `asn`")?;
    let session = session(&mut fields, router);
    let as_override = fields.optional("as_override", |at| at.bool());
    if session.asn.is_some()
        && session.asn == router.map(|router| router.asn)
        && let Some(at) = fields.get("asn")
    {
        at.problem(
            "a tenant's router has an AS number of its own, and this is this router's",
            Some("private AS numbers are 64512 to 65534 and 4200000000 to 4294967294".to_owned()),
        );
    }
    fields.finish();
    let (placed, asn) = (session.address?, session.asn?);
    let neighbor = SiteNeighbor {
        address: placed.value,
        asn,
        description: session.description,
        port: session.port,
        local_address: session.local_address,
        local_address_v6: session.local_address_v6,
        passive: session.passive,
        families: session.families,
        as_override: as_override.unwrap_or_default(),
        hold_time: session.hold_time,
        connect_retry: session.connect_retry,
        ttl: session.ttl.unwrap_or_else(defaults::ttl),
        max_prefixes: session.max_prefixes,
        allow_own_as: session.allow_own_as,
        import: session.import,
        export: session.export,
        graceful_restart: session.graceful_restart,
    };
    Some((neighbor, placed.at))
}

fn neighbor<'a>(
    at: &Cursor<'a>,
    router: Option<&Router>,
    has_overlay: bool,
) -> Option<(Neighbor, Cursor<'a>)> {
    let mut fields = at.fields("a mapping with `address` and `asn`")?;
    let session = session(&mut fields, router);
    let number = session.asn;
    let ibgp = number.is_some() && number == router.map(|router| router.asn);
    // What only makes sense on one side of the AS border, when the side is known.
    let known = number.is_some() && router.is_some();
    let add_path = fields.optional("add_path", |at| add_path(&at));
    let client = fields.optional("route_reflector_client", |at| {
        let client = at.bool()?;
        if client && known && !ibgp {
            at.problem(
                "a route reflector's client is in the same AS",
                Some("remove it, or correct the neighbour's `asn`".to_owned()),
            );
        }
        Some(client)
    });
    let next_hop = fields.optional("next_hop", |at| {
        let next_hop = at.choice(&[("self", NextHop::Own), ("unchanged", NextHop::Unchanged)])?;
        if next_hop == NextHop::Unchanged && known && !ibgp {
            at.problem(
                "towards an eBGP neighbour the next hop is always `self`",
                None,
            );
        }
        Some(next_hop)
    });
    let local_next_hop = fields.optional("local_next_hop", |at| {
        at.choice(&[
            ("self", LocalNextHop::Own),
            ("keep", LocalNextHop::Keep),
            ("strip", LocalNextHop::Strip),
        ])
    });
    let strip_overlay = fields.optional("strip_overlay", |at| at.bool());
    let accept_vnis = fields.optional("accept_vnis", |at| {
        let accept = vni_set(&at)?;
        if !accept.is_empty() && !has_overlay {
            at.problem(
                "labels are accepted into an overlay, and there is none",
                None,
            );
        }
        Some(accept)
    });
    let announce_vnis = fields.optional("announce_vnis", |at| vni_set(&at));
    fields.finish();
    let (placed, asn) = (session.address?, number?);
    let neighbor = Neighbor {
        address: placed.value,
        asn,
        description: session.description,
        port: session.port,
        local_address: session.local_address,
        local_address_v6: session.local_address_v6,
        passive: session.passive,
        families: session.families,
        add_path: add_path.unwrap_or_default(),
        route_reflector_client: client.unwrap_or_default(),
        next_hop: next_hop.unwrap_or_default(),
        local_next_hop,
        strip_overlay: strip_overlay.unwrap_or_default(),
        accept_vnis: accept_vnis.unwrap_or(match ibgp && has_overlay {
            true => VniSet::all(),
            false => VniSet::none(),
        }),
        announce_vnis: announce_vnis.unwrap_or_else(VniSet::all),
        hold_time: session.hold_time,
        connect_retry: session.connect_retry,
        ttl: session
            .ttl
            .unwrap_or(if ibgp { 64 } else { defaults::ttl() }),
        max_prefixes: session.max_prefixes,
        allow_own_as: session.allow_own_as,
        import: session.import,
        export: session.export,
        graceful_restart: session.graceful_restart,
    };
    Some((neighbor, placed.at))
}

fn families(at: &Cursor<'_>) -> Option<Vec<Family>> {
    if at.is_empty_list() {
        return at.expected("at least one of `ipv4-unicast` and `ipv6-unicast`");
    }
    let families = at.list("a list of address families", |at| {
        at.choice(&[
            ("ipv4-unicast", Family::Ipv4Unicast),
            ("ipv6-unicast", Family::Ipv6Unicast),
        ])
    })?;
    unique_items(&families);
    Some(families.into_iter().map(|at| at.value).collect())
}

fn add_path(at: &Cursor<'_>) -> Option<AddPath> {
    if !at.is_mapping() {
        return match at.scalar() {
            Some("true") => Some(AddPath::default()),
            Some("false") => Some(AddPath {
                send: false,
                receive: false,
            }),
            _ => at.expected("true, false, or a mapping with `send` and `receive`"),
        };
    }
    let mut fields = at.fields("a mapping")?;
    let send = fields.optional("send", |at| at.bool());
    let receive = fields.optional("receive", |at| at.bool());
    fields.finish();
    Some(AddPath {
        send: send.unwrap_or_else(defaults::yes),
        receive: receive.unwrap_or_else(defaults::yes),
    })
}

fn filter(at: &Cursor<'_>) -> Option<Vec<PrefixRange>> {
    let ranges = at.list("a list of prefixes", |at| prefix_range(&at))?;
    Some(ranges.into_iter().map(|at| at.value).collect())
}

fn api(at: &Cursor<'_>) -> Option<Api> {
    let mut fields = at.fields("a mapping with `listen`")?;
    let listen: Option<SocketAddr> = fields.optional("listen", |at| {
        at.parse("an address and a port, such as 127.0.0.1:8179 or [::1]:8179")
    });
    fields.finish();
    Some(Api {
        listen: listen.unwrap_or_else(defaults::api_listen),
    })
}

fn log(at: &Cursor<'_>) -> Option<Log> {
    let mut fields = at.fields("a mapping with `level` and `format`")?;
    let level = fields.optional("level", |at| {
        at.choice(&[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ])
    });
    let format = fields.optional("format", |at| {
        at.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
    });
    fields.finish();
    Some(Log {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
    })
}
