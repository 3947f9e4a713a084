//! OPEN (RFC 4271 section 4.2) and its capabilities (RFC 5492, extended length RFC 9072).

use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, rest};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};

use crate::message::{MessageType, message};
use crate::notification::{Notification, error_code, open_error};
use crate::{Asn, Family, RouterId};

type Parsed<'a, T> = nom::IResult<&'a [u8], T>;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number in two octets; AS_TRANS where it does not fit.
    pub my_as: u16,
    /// Proposed hold time in seconds: 0 or at least 3.
    pub hold_time: u16,
    /// BGP Identifier, not zero.
    pub router_id: RouterId,
    /// Capabilities in the order received.
    pub capabilities: Vec<Capability>,
}

/// Which way ADD-PATH is offered (RFC 7911 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathMode {
    /// The sender can receive several paths.
    pub receive: bool,
    /// The sender can send several paths.
    pub send: bool,
}

/// One family in the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartFamily {
    /// AFI and SAFI as on the wire.
    pub afi_safi: (u16, u8),
    /// The Forwarding State bit: forwarding was preserved over the restart.
    pub forwarding_preserved: bool,
}

/// The graceful restart capability (RFC 4724 section 3, RFC 8538 section 2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The Restart State bit: the sender has restarted, do not wait for its End-of-RIB.
    pub restarting: bool,
    /// The N bit: graceful restart applies to NOTIFICATIONs and hold timer expiry too.
    pub notification: bool,
    /// Seconds until the session should be back, 0..=4095.
    pub restart_time: u16,
    /// Families that are kept over a restart.
    pub families: Vec<GracefulRestartFamily>,
}

/// A capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Multiprotocol, code 1 (RFC 4760): AFI, SAFI.
    MultiProtocol(u16, u8),
    /// Route refresh, code 2 (RFC 2918).
    RouteRefresh,
    /// Extended next hop encoding, code 5 (RFC 8950): AFI, SAFI, AFI of the next hop.
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// Extended message, code 6 (RFC 8654).
    ExtendedMessage,
    /// BGP Role, code 9 (RFC 9234): what the sender is to the other end; [`crate::Role::from_octet`] knows those that are assigned.
    Role(u8),
    /// Graceful restart, code 64.
    GracefulRestart(GracefulRestart),
    /// 4-octet AS number, code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// ADD-PATH, code 69 (RFC 7911): AFI, SAFI, direction.
    AddPath(Vec<(u16, u8, AddPathMode)>),
    /// Enhanced route refresh, code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Any other: code and value.
    Unknown(u8, Vec<u8>),
}

impl Capability {
    fn decode(code: u8, value: &[u8]) -> Parsed<'_, Self> {
        let whole: Parsed<'_, Self> = match code {
            1 => all_consuming((be_u16, be_u8, be_u8))
                .map(|(afi, _, safi)| Self::MultiProtocol(afi, safi))
                .parse(value),
            2 => all_consuming(take(0usize))
                .map(|_| Self::RouteRefresh)
                .parse(value),
            5 => all_consuming(many0((be_u16, be_u16, be_u16)))
                .map(Self::ExtendedNextHop)
                .parse(value),
            6 => all_consuming(take(0usize))
                .map(|_| Self::ExtendedMessage)
                .parse(value),
            9 => all_consuming(be_u8).map(Self::Role).parse(value),
            64 => all_consuming((be_u16, many0((be_u16, be_u8, be_u8))))
                .map(|(head, families)| {
                    Self::GracefulRestart(GracefulRestart {
                        restarting: head & 0x8000 != 0,
                        notification: head & 0x4000 != 0,
                        restart_time: head & 0x0fff,
                        families: families
                            .into_iter()
                            .map(|(afi, safi, flags)| GracefulRestartFamily {
                                afi_safi: (afi, safi),
                                forwarding_preserved: flags & 0x80 != 0,
                            })
                            .collect(),
                    })
                })
                .parse(value),
            65 => all_consuming(be_u32)
                .map(|asn| Self::FourOctetAs(Asn(asn)))
                .parse(value),
            69 => all_consuming(many0((be_u16, be_u8, be_u8)))
                .map(|families| {
                    // RFC 7911 section 4: a mode that is none of 1, 2, 3 is ignored.
                    let known = families
                        .into_iter()
                        .filter(|(_, _, mode)| (1..=3).contains(mode));
                    Self::AddPath(
                        known
                            .map(|(afi, safi, mode)| {
                                let mode = AddPathMode {
                                    receive: mode & 1 != 0,
                                    send: mode & 2 != 0,
                                };
                                (afi, safi, mode)
                            })
                            .collect(),
                    )
                })
                .parse(value),
            70 => all_consuming(take(0usize))
                .map(|_| Self::EnhancedRouteRefresh)
                .parse(value),
            _ => return Ok((&[], Self::Unknown(code, value.to_vec()))),
        };
        // A capability that we know with a length that it cannot have is one that we do not understand.
        whole.or_else(|_| Ok((&[][..], Self::Unknown(code, value.to_vec()))))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        match self {
            Self::MultiProtocol(afi, safi) => {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[0, *safi]);
            }
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => {}
            Self::Role(role) => out.push(*role),
            Self::ExtendedNextHop(families) => {
                for (afi, safi, next_hop) in families {
                    for field in [afi, safi, next_hop] {
                        out.extend_from_slice(&field.to_be_bytes());
                    }
                }
            }
            Self::GracefulRestart(gr) => {
                let head = (u16::from(gr.restarting) << 15)
                    | (u16::from(gr.notification) << 14)
                    | (gr.restart_time & 0x0fff);
                out.extend_from_slice(&head.to_be_bytes());
                for family in &gr.families {
                    let (afi, safi) = family.afi_safi;
                    out.extend_from_slice(&afi.to_be_bytes());
                    out.extend_from_slice(&[safi, u8::from(family.forwarding_preserved) << 7]);
                }
            }
            Self::FourOctetAs(asn) => out.extend_from_slice(&asn.0.to_be_bytes()),
            Self::AddPath(families) => {
                for (afi, safi, mode) in families {
                    out.extend_from_slice(&afi.to_be_bytes());
                    out.extend_from_slice(&[
                        *safi,
                        u8::from(mode.receive) | u8::from(mode.send) << 1,
                    ]);
                }
            }
            Self::Unknown(_, value) => out.extend_from_slice(value),
        }
        out[start + 1] = (out.len() - start - 2) as u8;
    }

    /// The capability code.
    pub fn code(&self) -> u8 {
        match self {
            Self::MultiProtocol(..) => 1,
            Self::RouteRefresh => 2,
            Self::ExtendedNextHop(_) => 5,
            Self::ExtendedMessage => 6,
            Self::Role(_) => 9,
            Self::GracefulRestart(_) => 64,
            Self::FourOctetAs(_) => 65,
            Self::AddPath(_) => 69,
            Self::EnhancedRouteRefresh => 70,
            Self::Unknown(code, _) => *code,
        }
    }
}

const PARAMETER_CAPABILITIES: u8 = 2;
const PARAMETER_EXTENDED_LENGTH: u8 = 255;

impl Open {
    /// The sender's AS number: the 4-octet one where it is offered.
    pub fn asn(&self) -> Asn {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
            .unwrap_or(Asn(u32::from(self.my_as)))
    }

    /// The families that the sender routes; IPv4 unicast where it names none (RFC 4760 section 8).
    pub fn families(&self) -> Vec<Family> {
        let mut named = false;
        let mut families: Vec<Family> = Vec::new();
        for capability in &self.capabilities {
            if let Capability::MultiProtocol(afi, safi) = capability {
                named = true;
                families.extend(Family::from_afi_safi(*afi, *safi));
            }
        }
        if !named {
            families.push(Family::Ipv4Unicast);
        }
        families.sort_unstable();
        families.dedup();
        families
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// The NOTIFICATION of RFC 4271 section 6.2. A bad peer AS is the session's to find.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let error = |subcode, data: &[u8]| Notification::new(error_code::OPEN, subcode, data);
        let fixed: Parsed<'_, _> = (be_u8, be_u16, be_u16, be_u32, be_u8).parse(body);
        let (parameters, (version, my_as, hold_time, router_id, parameters_len)) =
            fixed.map_err(|_| error(0, &[]))?;
        if version != 4 {
            return Err(error(open_error::UNSUPPORTED_VERSION, &[0, 4]));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(error(
                open_error::UNACCEPTABLE_HOLD_TIME,
                &hold_time.to_be_bytes(),
            ));
        }
        if router_id == 0 {
            return Err(error(open_error::BAD_BGP_IDENTIFIER, &[]));
        }
        // RFC 9072 section 2: a first type of 255 announces a 2-octet length, here and in each parameter; the length before it says
        // nothing, but it is not 0.
        let extended =
            parameters_len != 0 && parameters.first() == Some(&PARAMETER_EXTENDED_LENGTH);
        let list: Parsed<'_, &[u8]> = if extended {
            all_consuming((be_u8, length_data(be_u16)))
                .map(|(_, list)| list)
                .parse(parameters)
        } else if usize::from(parameters_len) == parameters.len() {
            rest(parameters)
        } else {
            return Err(error(0, &[]));
        };
        let (_, list) = list.map_err(|_| error(0, &[]))?;
        let parsed: Parsed<'_, Vec<(u8, &[u8])>> = if extended {
            all_consuming(many0((be_u8, length_data(be_u16)))).parse(list)
        } else {
            all_consuming(many0((be_u8, length_data(be_u8)))).parse(list)
        };
        let (_, parsed) = parsed.map_err(|_| error(0, &[]))?;
        let mut capabilities = Vec::new();
        for (kind, value) in parsed {
            if kind != PARAMETER_CAPABILITIES {
                return Err(error(open_error::UNSUPPORTED_OPTIONAL_PARAMETER, &[]));
            }
            let list: Parsed<'_, Vec<(u8, &[u8])>> =
                all_consuming(many0((be_u8, length_data(be_u8)))).parse(value);
            let (_, list) = list.map_err(|_| error(0, &[]))?;
            for (code, value) in list {
                if let Ok((_, capability)) = Capability::decode(code, value) {
                    capabilities.push(capability);
                }
            }
        }
        Ok(Self {
            my_as,
            hold_time,
            router_id: RouterId(router_id.into()),
            capabilities,
        })
    }

    /// Appends the whole message; RFC 9072 lengths where the capabilities need more than 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        message(out, MessageType::Open, |out| {
            out.push(4);
            out.extend_from_slice(&self.my_as.to_be_bytes());
            out.extend_from_slice(&self.hold_time.to_be_bytes());
            out.extend_from_slice(&self.router_id.0.octets());
            match capabilities.len() {
                0 => out.push(0),
                len @ 1..=253 => {
                    out.extend_from_slice(&[len as u8 + 2, PARAMETER_CAPABILITIES, len as u8]);
                }
                len => {
                    out.extend_from_slice(&[255, PARAMETER_EXTENDED_LENGTH]);
                    out.extend_from_slice(&(len as u16 + 3).to_be_bytes());
                    out.push(PARAMETER_CAPABILITIES);
                    out.extend_from_slice(&(len as u16).to_be_bytes());
                }
            }
            out.extend_from_slice(&capabilities);
        });
    }
}
