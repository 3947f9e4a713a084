//! The overlay as this router takes part in it.

use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Serialize;
use weft_overlay::{BFD_PORTS, Encapsulation};

use super::reader::Cursor;
use super::values::{asn, interface, list, number_of, unicast};
use super::{defaults, serial};

/// The overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Overlay {
    /// Global Administrator of the label communities: one AS number, the same in every domain. Required without a controller.
    #[serde(default, skip_serializing_if = "defaults::is_zero")]
    #[schemars(with = "Option<serial::AsNumber>")]
    pub global_administrator: u32,
    /// The address at this router that ends tunnels; required without a controller, which is told of an address of the loopback
    /// interface that others reach, or else of the one that leads to it. An IPv6 address is named in labels by the router id, and announced
    /// as a locator in the family `ipv6-unicast`, which sessions have to exchange.
    #[serde(
        default = "defaults::no_endpoint",
        skip_serializing_if = "IpAddr::is_unspecified"
    )]
    #[schemars(with = "Option<IpAddr>")]
    pub endpoint: IpAddr,
    /// How packets are carried to this router; what others accept goes to them that way.
    #[serde(default = "defaults::encapsulation")]
    #[schemars(with = "serial::EncapsulationSchema")]
    pub encapsulation: Encapsulation,
    /// The UDP port at which this router takes packets of its encapsulation: by default 4789 for VXLAN and 4790 for VXLAN-GPE; GRE has
    /// none. Others learn it from the locator, and send to it by a device of their own at that port, so it has to be free there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<NonZeroU16>,
    /// How tenants are kept apart in the kernel.
    #[serde(default)]
    pub segmentation: Segmentation,
    /// Whose differentiated services code point a packet has when it leaves the overlay (RFC 2983). On its way in its own is
    /// copied to the outer header either way.
    #[serde(default)]
    pub code_point: CodePoint,
    /// How wide this router's way into the underlay is, in Mbit/s. It is announced with the tenants' prefixes (Link Bandwidth), and
    /// who has several equal ways shares packets in proportion, where all of them say how wide they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub bandwidth: Option<u32>,
    /// Flows keep their way among equal ones when others come or go, unless it goes itself.
    #[serde(default)]
    pub resilient: bool,
    /// Outer packets over IPv4 are not fragmented on their way: what does not fit is lost once, its way is known as narrow from then on,
    /// and tenants are told what fits. `no` lets routers fragment them, and far routers put them together again, which costs both and
    /// loses whole packets with each part. Over IPv6 no router fragments.
    #[serde(default = "defaults::yes")]
    pub dont_fragment: bool,
    /// Install the endpoints that are learned as locators in the main table.
    #[serde(default)]
    pub install_underlay: bool,
    /// Interfaces that are never tenants': the operator's own. Those that neighbours, controllers and the tunnel endpoint are reached by
    /// need not be named.
    pub uplinks: Vec<String>,
    /// Announce the endpoint's own address as a locator.
    #[serde(default = "defaults::yes")]
    pub announce_locator: bool,
    /// Each other router that tunnels lead to is sent an echo request so often, in seconds, for round-trip times and loss; 0 for never, and for no probes inside the tunnels.
    #[serde(default = "defaults::endpoint_probe_interval")]
    #[schemars(range(max = 3600))]
    pub probe_interval: u16,
    /// Under a controller: what becomes of labels of which it does not say who hosts what they name.
    #[serde(default, skip_serializing_if = "UnknownOrigins::is_default")]
    pub unknown_origins: UnknownOrigins,
}

impl Overlay {
    /// The UDP port, where it is not the encapsulation's own.
    pub(crate) fn other_port(&self) -> Option<NonZeroU16> {
        let usual = self.encapsulation.default_port();
        self.port.filter(|port| usual != Some(*port))
    }
}

/// What becomes of labels whose origin is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnknownOrigins {
    /// They are used.
    Accept,
    /// They are not.
    #[default]
    Reject,
}

impl UnknownOrigins {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How tenants are kept apart in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Segmentation {
    /// VRFs where the kernel has them, tables where it has not.
    #[default]
    Auto,
    /// A VRF device a tenant, with its interfaces as members.
    Vrf,
    /// A routing table a tenant, with policy rules that lead into it.
    Table,
}

/// Whose code point a packet has when it leaves the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CodePoint {
    /// Its own, as it entered: what networks between do to the outer one stays outside.
    #[default]
    Pipe,
    /// The outer header's: where the underlay is one's own, and marks anew.
    Uniform,
}

/// `managed` says that a controller tells what is missing.
pub(super) fn read(at: &Cursor<'_>, managed: bool) -> Option<Overlay> {
    let mut fields = at.fields("a mapping with `global_administrator` and `endpoint`")?;
    let administrator = fields.required_or(
        managed.then(defaults::no_asn),
        "global_administrator",
        "the AS number that runs the overlay, the same in every domain",
        |at| asn(&at),
    );
    let endpoint = fields.required_or(
        managed.then(defaults::no_endpoint),
        "endpoint",
        "the address of this router that ends tunnels",
        |at| endpoint(&at),
    );
    let encapsulation = fields.optional("encapsulation", |at| {
        at.choice(&[
            ("vxlan", Encapsulation::Vxlan),
            ("vxlan-gpe", Encapsulation::VxlanGpe),
            ("gre", Encapsulation::Gre),
        ])
    });
    let port = fields.optional("port", |at| port(&at, encapsulation));
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
    let dont_fragment = fields.optional("dont_fragment", |at| at.bool());
    let install_underlay = fields.optional("install_underlay", |at| at.bool());
    let uplinks = fields.optional("uplinks", |at| {
        list(&at, "a list of interfaces", |at| interface(&at))
    });
    let announce_locator = fields.optional("announce_locator", |at| at.bool());
    let probe_interval = fields.optional("probe_interval", |at| {
        number_of(&at, "seconds between probes, 0 for none", 0, 3600)
    });
    let unknown_origins = fields.optional("unknown_origins", |at| {
        at.choice(&[
            ("accept", UnknownOrigins::Accept),
            ("reject", UnknownOrigins::Reject),
        ])
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
    if announce_locator == Some(false)
        && let (Some(at), Some(port)) = (fields.get("announce_locator"), port)
    {
        at.problem(
            format!("others learn of UDP port {port} by the locator only"),
            Some("leave this out, or `port`".to_owned()),
        );
    }
    fields.finish();
    Some(Overlay {
        global_administrator: administrator?.0,
        endpoint: endpoint?,
        encapsulation: encapsulation.unwrap_or_else(defaults::encapsulation),
        port,
        segmentation: segmentation.unwrap_or_default(),
        code_point: code_point.unwrap_or_default(),
        bandwidth,
        resilient: resilient.unwrap_or_default(),
        dont_fragment: dont_fragment.unwrap_or_else(defaults::yes),
        install_underlay: install_underlay.unwrap_or_default(),
        uplinks: uplinks.unwrap_or_default(),
        announce_locator: announce_locator.unwrap_or_else(defaults::yes),
        probe_interval: probe_interval.unwrap_or_else(defaults::endpoint_probe_interval),
        unknown_origins: unknown_origins.unwrap_or_default(),
    })
}

fn port(at: &Cursor<'_>, encapsulation: Option<Encapsulation>) -> Option<NonZeroU16> {
    if encapsulation.unwrap_or_else(defaults::encapsulation) == Encapsulation::Gre {
        at.problem(
            "GRE has no ports: it is an IP protocol of its own (47)",
            Some("leave this out, or set `encapsulation` to vxlan or vxlan-gpe".to_owned()),
        );
        return None;
    }
    let port: u16 = number_of(at, "a UDP port", 1, 65_535)?;
    if BFD_PORTS.contains(&port) {
        at.problem(format!("UDP port {port} is BFD's"), None);
        return None;
    }
    NonZeroU16::new(port)
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
