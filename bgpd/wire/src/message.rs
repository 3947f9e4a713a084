//! The message header (RFC 4271 section 4.1), KEEPALIVE and ROUTE-REFRESH.

use nom::Parser;
use nom::combinator::all_consuming;
use nom::number::complete::{be_u8, be_u16};

use crate::notification::{Notification, error_code, header_error};

/// Octets of a message header: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// Longest message, header included (RFC 4271).
pub const MAX_MESSAGE_LEN: usize = 4096;
/// Longest UPDATE, NOTIFICATION or ROUTE-REFRESH where both ends offer extended messages (RFC 8654).
pub const MAX_MESSAGE_LEN_EXTENDED: usize = 65535;

/// The Type field of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

/// One whole message at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: MessageType,
    /// Its length in octets, header included; the body is `buf[HEADER_LEN..len]`.
    pub len: usize,
}

/// Finds the message at the start of `buf`: `None` where it is not whole yet.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 section 6.1 for a bad marker, length (also one that the type cannot have, or above
/// `max_len`) or type.
pub fn next_frame(buf: &[u8], max_len: usize) -> Result<Option<Frame>, Notification> {
    let Some(header) = buf.get(..HEADER_LEN) else {
        return Ok(None);
    };
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(
            error_code::MESSAGE_HEADER,
            header_error::NOT_SYNCHRONIZED,
            [],
        ));
    }
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let (kind, shortest, longest) = match header[18] {
        1 => (MessageType::Open, 29, MAX_MESSAGE_LEN),
        2 => (MessageType::Update, 23, max_len),
        3 => (MessageType::Notification, 21, max_len),
        4 => (MessageType::Keepalive, HEADER_LEN, HEADER_LEN),
        5 => (MessageType::RouteRefresh, 23, max_len),
        other => {
            return Err(Notification::new(
                error_code::MESSAGE_HEADER,
                header_error::BAD_TYPE,
                [other],
            ));
        }
    };
    if len < shortest || len > longest {
        return Err(Notification::new(
            error_code::MESSAGE_HEADER,
            header_error::BAD_LENGTH,
            &header[16..18],
        ));
    }
    Ok((buf.len() >= len).then_some(Frame { kind, len }))
}

/// Appends a message whose body `body` writes. The body must fit 65,516 octets.
pub(crate) fn message(out: &mut Vec<u8>, kind: MessageType, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    body(out);
    let len = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    message(out, MessageType::Keepalive, |_| {});
}

/// A ROUTE-REFRESH (RFC 2918) with the message subtype of RFC 7313.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address Family Identifier as received.
    pub afi: u16,
    /// 0 request, 1 beginning of route refresh, 2 end of route refresh.
    pub subtype: u8,
    /// Subsequent Address Family Identifier as received.
    pub safi: u8,
}

impl RouteRefresh {
    /// Subtype of a request.
    pub const REQUEST: u8 = 0;
    /// Subtype of the beginning of what is sent again.
    pub const BEGIN: u8 = 1;
    /// Subtype of its end.
    pub const END: u8 = 2;

    /// The mark before or behind what is sent again of `family`.
    pub fn mark(family: crate::Family, subtype: u8) -> Self {
        Self {
            afi: family.afi(),
            subtype,
            safi: family.safi(),
        }
    }

    /// A plain request for `family`.
    pub fn request(family: crate::Family) -> Self {
        Self {
            afi: family.afi(),
            subtype: Self::REQUEST,
            safi: family.safi(),
        }
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// ROUTE-REFRESH Message Error, Invalid Message Length, with the whole message (RFC 7313 section 5), for a body of another length
    /// than 4.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let fields: nom::IResult<&[u8], _> = all_consuming((be_u16, be_u8, be_u8)).parse(body);
        let (_, (afi, subtype, safi)) = fields.map_err(|_| {
            let mut whole = Vec::with_capacity(HEADER_LEN + body.len());
            message(&mut whole, MessageType::RouteRefresh, |out| {
                out.extend_from_slice(body);
            });
            Notification::new(error_code::ROUTE_REFRESH, 1, whole)
        })?;
        Ok(Self { afi, subtype, safi })
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, MessageType::RouteRefresh, |out| {
            out.extend_from_slice(&self.afi.to_be_bytes());
            out.extend_from_slice(&[self.subtype, self.safi]);
        });
    }
}
