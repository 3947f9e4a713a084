//! The label community, version 1: one large community (RFC 8092) that holds a label, a local next hop or a locator.
//!
//! ```text
//! Global Administrator   the ASN that runs the overlay
//! Local Data 1           kind (4 bits) | encapsulation (4 bits) | VNI (24 bits)
//! Local Data 2           an IPv4 address, or the endpoint id that stands for an IPv6 one
//! ```

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use serde::Serialize;
use weft_bgp_wire::LargeCommunity;

use crate::{Encapsulation, EndpointId, Vni, VniSet};

/// What a label names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// A tenant: packets are routed in its table.
    Tenant,
    /// A service node that packets are sent through.
    Service,
}

/// Where a tunnel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// At this IPv4 address.
    V4(Ipv4Addr),
    /// At the IPv6 address that the locator of this id names.
    Id(EndpointId),
}

impl Endpoint {
    /// A tunnel can end there: not at an unspecified, loopback or multicast address or one of a reserved range, nor at id 0, which no
    /// router has (RFC 6286 section 2.1).
    fn is_valid(self) -> bool {
        match self {
            Self::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
            Self::Id(id) => !id.0.is_unspecified(),
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::V4(address) => address.into(),
            Self::Id(id) => id.0.into(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::Id(id) => write!(f, "id {id}"),
        }
    }
}

/// A label: it stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Label {
    /// Tenant or service.
    pub kind: LabelKind,
    /// The global VNI.
    pub vni: Vni,
    /// What the endpoint accepts.
    pub encapsulation: Encapsulation,
    /// The router that hosts what the label names.
    pub endpoint: Endpoint,
}

/// Which router of this domain leads to the endpoints of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LocalNextHop {
    /// That label only, or `None` for every label of the route.
    pub vni: Option<Vni>,
    /// What that router accepts.
    pub encapsulation: Encapsulation,
    /// That router.
    pub endpoint: Endpoint,
}

/// The route's prefix, a /32 or /128, is the address of this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Locator {
    /// What the endpoint accepts.
    pub encapsulation: Encapsulation,
    /// Its id.
    pub id: EndpointId,
}

/// The UDP port at which the endpoint takes packets of an encapsulation, where it is not the encapsulation's own. It stands beside
/// the locator and goes where that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LocatorPort {
    /// Of these packets: VXLAN or VXLAN-GPE.
    pub encapsulation: Encapsulation,
    /// UDP port.
    pub port: NonZeroU16,
    /// The endpoint's id, as in its locator.
    pub id: EndpointId,
}

/// A large community of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelCommunity {
    /// Kinds 0 to 3.
    Label(Label),
    /// Kinds 4 and 5.
    LocalNextHop(LocalNextHop),
    /// Kind 6.
    Locator(Locator),
    /// Kind 7.
    LocatorPort(LocatorPort),
}

/// Why a large community with our Global Administrator is ignored. It is carried on untouched all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Ignored {
    /// VNI 0 or 0xFFFFFF in a label.
    #[error("VNI {0} is reserved")]
    ReservedVni(u32),
    /// Kinds 8 to 15.
    #[error("kind {0} is reserved")]
    ReservedKind(u8),
    /// Encapsulations 3 to 15: the label is ineligible.
    #[error("encapsulation {0} is reserved")]
    ReservedEncapsulation(u8),
    /// Not a UDP port, or one of an encapsulation without.
    #[error("{1} packets have no UDP port {0}")]
    InvalidPort(u32, Encapsulation),
    /// No tunnel can end at the address of a label or local next hop.
    #[error("no tunnel ends at {0}")]
    InvalidEndpoint(Endpoint),
}

const VNI_MASK: u32 = 0x00ff_ffff;

fn encapsulation(bits: u8) -> Result<Encapsulation, Ignored> {
    match bits {
        0 => Ok(Encapsulation::Vxlan),
        1 => Ok(Encapsulation::VxlanGpe),
        2 => Ok(Encapsulation::Gre),
        other => Err(Ignored::ReservedEncapsulation(other)),
    }
}

/// True where one of `communities` is a label or local next hop at an endpoint that `is` says yes to.
pub fn leads_to_any(
    mut communities: impl Iterator<Item = LargeCommunity>,
    administrator: u32,
    is: impl Fn(Endpoint) -> bool,
) -> bool {
    communities.any(
        |community| match LabelCommunity::decode(community, administrator) {
            Some(Ok(LabelCommunity::Label(label))) => is(label.endpoint),
            Some(Ok(LabelCommunity::LocalNextHop(hop))) => is(hop.endpoint),
            _ => false,
        },
    )
}

/// Whether there are labels among these communities, and all of them are of such a VNI.
pub fn names_these_alone(
    communities: impl Iterator<Item = LargeCommunity>,
    administrator: u32,
    is: impl Fn(Vni) -> bool,
) -> bool {
    let mut labels = communities
        .filter_map(
            |community| match LabelCommunity::decode(community, administrator) {
                Some(Ok(LabelCommunity::Label(label))) => Some(label.vni),
                _ => None,
            },
        )
        .peekable();
    labels.peek().is_some() && labels.all(is)
}

/// Whether one of these communities is a label of a VNI in the set.
pub fn names_any(
    mut communities: impl Iterator<Item = LargeCommunity>,
    administrator: u32,
    vnis: &VniSet,
) -> bool {
    communities.any(|community| {
        let decoded = LabelCommunity::decode(community, administrator);
        matches!(decoded, Some(Ok(LabelCommunity::Label(label))) if vnis.contains(label.vni))
    })
}

impl LabelCommunity {
    /// Decodes; `None` where the Global Administrator is another one, so that the community is not ours.
    ///
    /// # Errors
    /// [`Ignored`] for what version 1 does not define.
    pub fn decode(community: LargeCommunity, administrator: u32) -> Option<Result<Self, Ignored>> {
        (community.global_administrator == administrator).then(|| Self::decode_ours(community))
    }

    fn decode_ours(community: LargeCommunity) -> Result<Self, Ignored> {
        let kind = (community.local_data_1 >> 28) as u8;
        let encapsulation_bits = (community.local_data_1 >> 24) as u8 & 0x0f;
        let number = community.local_data_1 & VNI_MASK;
        let address = Ipv4Addr::from(community.local_data_2);
        let endpoint = if kind & 1 == 0 {
            Endpoint::V4(address)
        } else {
            Endpoint::Id(EndpointId(address))
        };
        if kind > 7 {
            return Err(Ignored::ReservedKind(kind));
        }
        let encapsulation = encapsulation(encapsulation_bits)?;
        let vni = |number| Vni::new(number).map_err(|_| Ignored::ReservedVni(number));
        let endpoint = || {
            let valid = endpoint.is_valid().then_some(endpoint);
            valid.ok_or(Ignored::InvalidEndpoint(endpoint))
        };
        Ok(match kind {
            0..=3 => {
                let kind = if kind < 2 {
                    LabelKind::Tenant
                } else {
                    LabelKind::Service
                };
                Self::Label(Label {
                    kind,
                    vni: vni(number)?,
                    encapsulation,
                    endpoint: endpoint()?,
                })
            }
            4 | 5 => {
                let vni = if number == 0 {
                    None
                } else {
                    Some(vni(number)?)
                };
                Self::LocalNextHop(LocalNextHop {
                    vni,
                    encapsulation,
                    endpoint: endpoint()?,
                })
            }
            6 => Self::Locator(Locator {
                encapsulation,
                id: EndpointId(address),
            }),
            _ => {
                let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
                let port = port.filter(|_| encapsulation.default_port().is_some());
                Self::LocatorPort(LocatorPort {
                    encapsulation,
                    port: port.ok_or(Ignored::InvalidPort(number, encapsulation))?,
                    id: EndpointId(address),
                })
            }
        })
    }

    /// Encodes.
    pub fn encode(self, administrator: u32) -> LargeCommunity {
        let (kind, vni, encapsulation, address) = match self {
            Self::Label(label) => {
                let kind = match label.kind {
                    LabelKind::Tenant => 0,
                    LabelKind::Service => 2,
                };
                (
                    kind + id_bit(label.endpoint),
                    label.vni.get(),
                    label.encapsulation,
                    label.endpoint.bits(),
                )
            }
            Self::LocalNextHop(hop) => (
                4 + id_bit(hop.endpoint),
                hop.vni.map_or(0, Vni::get),
                hop.encapsulation,
                hop.endpoint.bits(),
            ),
            Self::Locator(locator) => (6, 0, locator.encapsulation, u32::from(locator.id.0)),
            Self::LocatorPort(port) => (
                7,
                port.port.get().into(),
                port.encapsulation,
                port.id.0.into(),
            ),
        };
        let kind_and_encapsulation = kind << 4 | encapsulation as u32;
        LargeCommunity::new(administrator, kind_and_encapsulation << 24 | vni, address)
    }
}

fn id_bit(endpoint: Endpoint) -> u32 {
    u32::from(matches!(endpoint, Endpoint::Id(_)))
}

/// One field of an explained community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedField {
    /// Its name in the format.
    pub field: &'static str,
    /// Its bits in hex.
    pub hex: String,
    /// What it says.
    pub meaning: String,
}

/// A large community taken apart for a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// As text, `A:B:C`.
    pub text: String,
    /// Its 12 octets in hex.
    pub hex: String,
    /// One sentence.
    pub summary: String,
    /// Field by field.
    pub fields: Vec<ExplainedField>,
}

/// Takes a community apart by the format, as if its Global Administrator ran the overlay.
pub fn explain(community: LargeCommunity) -> Explanation {
    let [a, b] = [community.local_data_1, community.local_data_2];
    let kind = a >> 28;
    let address = Ipv4Addr::from(b);
    let kind_meaning = match kind {
        0 => "tenant label, IPv4 endpoint",
        1 => "tenant label, IPv6 endpoint by id",
        2 => "service label, IPv4 endpoint",
        3 => "service label, IPv6 endpoint by id",
        4 => "local next hop, IPv4",
        5 => "local next hop, IPv6 by id",
        6 => "locator",
        7 => "UDP port of a locator's endpoint",
        _ => "reserved: ignored, carried on untouched",
    };
    let encapsulation_bits = a >> 24 & 0x0f;
    let encapsulation_meaning = match encapsulation_bits {
        0 => "VXLAN (RFC 7348), UDP 4789 unless its locator says another",
        1 => "VXLAN-GPE, UDP 4790 unless its locator says another",
        2 => "GRE, key = VNI",
        _ => "reserved: the label is not used",
    };
    let number = a & VNI_MASK;
    let vni_meaning = match (kind, number) {
        (4 | 5, 0) => "every label of the route".to_owned(),
        (6, _) => "not used".to_owned(),
        (7, 1..=0xffff) => format!("UDP port {number}"),
        (7, _) => format!("{number}: no UDP port, ignored"),
        (_, 0 | VNI_MASK) => format!("{number}: reserved, ignored"),
        (4 | 5, _) => format!("VNI {number} only"),
        _ => format!("VNI {number}"),
    };
    let address_meaning = match kind {
        0 | 2 => format!("tunnel endpoint {address}"),
        4 => format!("tunnel to the router at {address}"),
        1 | 3 | 5 => format!("endpoint id {address}, resolved by its locator"),
        6 => format!("the prefix of this route is the address of endpoint id {address}"),
        7 => format!("of endpoint id {address}, whose locator this route is"),
        _ => address.to_string(),
    };
    let summary = match LabelCommunity::decode_ours(community) {
        Ok(LabelCommunity::Label(label)) => {
            let what = match label.kind {
                LabelKind::Tenant => "tenant",
                LabelKind::Service => "service",
            };
            format!(
                "{what} VNI {} at {}, {}",
                label.vni, label.endpoint, label.encapsulation
            )
        }
        Ok(LabelCommunity::LocalNextHop(hop)) => {
            let which = hop
                .vni
                .map_or("all labels".to_owned(), |vni| format!("VNI {vni} only"));
            format!(
                "local next hop {}, {which}, {}",
                hop.endpoint, hop.encapsulation
            )
        }
        Ok(LabelCommunity::Locator(locator)) => format!(
            "locator of endpoint id {}, {}",
            locator.id, locator.encapsulation
        ),
        Ok(LabelCommunity::LocatorPort(port)) => format!(
            "endpoint id {} takes {} at UDP port {}",
            port.id, port.encapsulation, port.port
        ),
        Err(ignored) => format!("ignored: {ignored}"),
    };
    let field = |field, hex, meaning: &str| ExplainedField {
        field,
        hex,
        meaning: meaning.to_owned(),
    };
    let administrator = community.global_administrator;
    Explanation {
        text: community.to_string(),
        hex: format!("{administrator:08x} {a:08x} {b:08x}"),
        summary,
        fields: vec![
            field(
                "global administrator",
                format!("{administrator:08x}"),
                &format!("overlay {administrator}"),
            ),
            field("kind", format!("{kind:x}"), kind_meaning),
            field(
                "encapsulation",
                format!("{encapsulation_bits:x}"),
                encapsulation_meaning,
            ),
            field("vni", format!("{number:06x}"), &vni_meaning),
            field("address", format!("{b:08x}"), &address_meaning),
        ],
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.text, self.summary)?;
        for field in &self.fields {
            writeln!(
                f,
                "  {:<22}{:>10}  {}",
                field.field, field.hex, field.meaning
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(
        kind: LabelKind,
        vni: u32,
        encapsulation: Encapsulation,
        endpoint: Endpoint,
    ) -> LabelCommunity {
        LabelCommunity::Label(Label {
            kind,
            vni: Vni::new(vni).unwrap(),
            encapsulation,
            endpoint,
        })
    }

    #[test]
    fn the_vectors_of_the_format() {
        use Encapsulation::{Gre, Vxlan, VxlanGpe};
        let v4 = |a, b, c, d| Endpoint::V4(Ipv4Addr::new(a, b, c, d));
        let id = EndpointId(Ipv4Addr::new(192, 0, 2, 11));
        let hop = |vni: Option<u32>, encapsulation| {
            LabelCommunity::LocalNextHop(LocalNextHop {
                vni: vni.map(|vni| Vni::new(vni).unwrap()),
                encapsulation,
                endpoint: v4(198, 51, 100, 1),
            })
        };
        let vectors = [
            (
                label(LabelKind::Tenant, 10001, Vxlan, v4(192, 0, 2, 11)),
                "0000fc00 00002711 c000020b",
                "64512:10001:3221225995",
            ),
            (
                label(LabelKind::Tenant, 10001, VxlanGpe, v4(192, 0, 2, 11)),
                "0000fc00 01002711 c000020b",
                "64512:16787217:3221225995",
            ),
            (
                label(LabelKind::Tenant, 10001, Gre, v4(192, 0, 2, 11)),
                "0000fc00 02002711 c000020b",
                "64512:33564433:3221225995",
            ),
            (
                label(LabelKind::Tenant, 10001, Vxlan, Endpoint::Id(id)),
                "0000fc00 10002711 c000020b",
                "64512:268445457:3221225995",
            ),
            (
                label(LabelKind::Service, 20001, Vxlan, v4(192, 0, 2, 12)),
                "0000fc00 20004e21 c000020c",
                "64512:536890913:3221225996",
            ),
            (
                hop(None, Vxlan),
                "0000fc00 40000000 c6336401",
                "64512:1073741824:3325256705",
            ),
            (
                hop(Some(10001), Gre),
                "0000fc00 42002711 c6336401",
                "64512:1107306257:3325256705",
            ),
            (
                LabelCommunity::Locator(Locator {
                    encapsulation: Vxlan,
                    id,
                }),
                "0000fc00 60000000 c000020b",
                "64512:1610612736:3221225995",
            ),
            (
                LabelCommunity::LocatorPort(LocatorPort {
                    encapsulation: Vxlan,
                    port: NonZeroU16::new(8472).unwrap(),
                    id,
                }),
                "0000fc00 70002118 c000020b",
                "64512:1879056664:3221225995",
            ),
            (
                LabelCommunity::LocatorPort(LocatorPort {
                    encapsulation: VxlanGpe,
                    port: NonZeroU16::MAX,
                    id,
                }),
                "0000fc00 7100ffff c000020b",
                "64512:1895890943:3221225995",
            ),
        ];
        for (value, hex, text) in vectors {
            let community = value.encode(64512);
            assert_eq!(community.to_string(), text);
            assert_eq!(explain(community).hex, hex);
            assert_eq!(LabelCommunity::decode(community, 64512), Some(Ok(value)));
            assert_eq!(LabelCommunity::decode(community, 64513), None, "another's");
        }
    }

    #[test]
    fn what_version_1_does_not_define_is_ignored_with_a_reason() {
        let decode = |local_data_1| {
            LabelCommunity::decode(LargeCommunity::new(1, local_data_1, 7), 1).unwrap()
        };
        assert_eq!(decode(0), Err(Ignored::ReservedVni(0)));
        assert_eq!(decode(0x00ff_ffff), Err(Ignored::ReservedVni(0x00ff_ffff)));
        assert_eq!(decode(0x8000_0001), Err(Ignored::ReservedKind(8)));
        for (encapsulation, bits, number) in [
            (Encapsulation::Vxlan, 0x7000_0000, 0),
            (Encapsulation::Vxlan, 0x7001_0000, 0x1_0000),
            (Encapsulation::Gre, 0x7200_2118, 8472),
        ] {
            let expected = Ignored::InvalidPort(number, encapsulation);
            assert_eq!(decode(bits), Err(expected), "{bits:x}");
        }
        assert_eq!(decode(0x0300_0001), Err(Ignored::ReservedEncapsulation(3)));
        for (kind, address, valid) in [
            (0, [0, 0, 0, 0], false),
            (0, [127, 0, 0, 1], false),
            (2, [224, 0, 0, 1], false),
            (4, [255, 255, 255, 255], false),
            (0, [192, 0, 2, 1], true),
            (1, [0, 0, 0, 0], false),
            (5, [0, 0, 0, 0], false),
            (1, [127, 0, 0, 1], true),
        ] {
            let community = LargeCommunity::new(1, kind << 28 | 1, u32::from_be_bytes(address));
            let decoded = LabelCommunity::decode(community, 1).unwrap();
            let ignored = matches!(decoded, Err(Ignored::InvalidEndpoint(_)));
            assert_eq!(ignored, !valid, "kind {kind} {address:?}");
        }
        assert_eq!(
            explain(LargeCommunity::new(1, 0x0300_0001, 7)).summary,
            "ignored: encapsulation 3 is reserved"
        );
    }

    #[test]
    fn an_explanation_names_every_field() {
        let text = explain("64512:10001:3221225995".parse().unwrap()).to_string();
        for part in [
            "tenant VNI 10001 at 192.0.2.11, vxlan",
            "002711  VNI 10001",
            "c000020b  tunnel endpoint 192.0.2.11",
            "overlay 64512",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_itself(a in any::<u32>(), b in any::<u32>()) {
            let community = LargeCommunity::new(64512, a, b);
            if let Some(Ok(value)) = LabelCommunity::decode(community, 64512) {
                // The VNI field of a locator says nothing.
                let expected = if a >> 28 == 6 { LargeCommunity::new(64512, a & 0xff00_0000, b) } else { community };
                prop_assert_eq!(value.encode(64512), expected);
            }
            let _ = explain(community).to_string();
        }
    }
}
