//! UPDATE (RFC 4271 section 4.3): split when received, packed when sent.

use crate::as_path::without_confederation;
use crate::attributes::{AttributesView, NextHop, code, flags, put_attribute};
use crate::message::{HEADER_LEN, MessageType, message};
use crate::notification::{Notification, error_code, update_error};
use crate::{AsPath, Asn, Family, Prefix};

/// The three fields of an UPDATE, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateView<'a> {
    /// Withdrawn Routes: IPv4 prefixes.
    pub withdrawn: &'a [u8],
    /// Path Attributes.
    pub attributes: &'a [u8],
    /// Network Layer Reachability Information: IPv4 prefixes.
    pub nlri: &'a [u8],
}

impl<'a> UpdateView<'a> {
    /// Splits the body.
    ///
    /// # Errors
    /// UPDATE Message Error, Malformed Attribute List, where the two length fields do not fit the message (RFC 4271
    /// section 6.3; RFC 7606 section 3 b keeps it a session reset).
    pub fn split(body: &'a [u8]) -> Result<Self, Notification> {
        fn field(octets: &[u8]) -> Option<(&[u8], &[u8])> {
            let (len, rest) = octets.split_first_chunk::<2>()?;
            rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
        }
        let split = || {
            let (withdrawn, rest) = field(body)?;
            let (attributes, nlri) = field(rest)?;
            Some(Self {
                withdrawn,
                attributes,
                nlri,
            })
        };
        split().ok_or_else(|| {
            Notification::new(
                error_code::UPDATE,
                update_error::MALFORMED_ATTRIBUTE_LIST,
                [],
            )
        })
    }

    /// True for the IPv4 End-of-RIB marker (RFC 4724 section 2).
    pub fn is_ipv4_end_of_rib(&self) -> bool {
        self.withdrawn.is_empty() && self.attributes.is_empty() && self.nlri.is_empty()
    }
}

/// What the encoding depends on; negotiated with the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncodeContext {
    /// Longest message: 4,096, or 65,535 with RFC 8654.
    pub max_len: usize,
    /// AS numbers have 4 octets.
    pub four_octet_as: bool,
    /// Prefixes have a path identifier, by [`Family::index`].
    pub add_path: [bool; 2],
}

/// Attributes that leave no room for a single prefix; nothing is sent, and nothing is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} octets of attributes and one prefix do not fit a message of {max_len}")]
pub struct EncodeError {
    /// Octets that the shortest message would need.
    pub needed: usize,
    /// Octets that a message may have.
    pub max_len: usize,
}

/// Encodes the Path Attributes of one route for the wire, MP_REACH_NLRI apart, and appends them to `out`. An IPv4
/// `next_hop` becomes NEXT_HOP where `family` is IPv4; any other belongs into MP_REACH_NLRI, which [`UpdateWriter`]
/// writes.
pub fn encode_attributes(
    attributes: AttributesView<'_>,
    next_hop: &NextHop,
    family: Family,
    four_octet_as: bool,
    out: &mut Vec<u8>,
) {
    let classic = match (family, next_hop.address) {
        (Family::Ipv4Unicast, std::net::IpAddr::V4(address)) => Some(address.octets()),
        _ => None,
    };
    let mut pending = classic;
    let mut as4_path = None;
    let mut as4_aggregator = None;
    for attribute in attributes.iter() {
        if attribute.code > code::NEXT_HOP
            && let Some(octets) = pending.take()
        {
            put_attribute(out, flags::TRANSITIVE, code::NEXT_HOP, &octets);
        }
        match attribute.code {
            code::AS_PATH if !four_octet_as => {
                let path = AsPath(attribute.value);
                if narrow_as_path(path, attribute.flags, out) {
                    as4_path = Some(attribute.value);
                }
            }
            code::AGGREGATOR if !four_octet_as && attribute.value.len() == 8 => {
                let &[a, b, c, d, ref router @ ..] = attribute.value else {
                    continue;
                };
                let asn = Asn(u32::from_be_bytes([a, b, c, d]));
                let [high, low] = asn.to_two_octets().to_be_bytes();
                let mut value = vec![high, low];
                value.extend_from_slice(router);
                put_attribute(out, attribute.flags, code::AGGREGATOR, &value);
                if asn.0 > 0xffff {
                    as4_aggregator = Some(attribute.value);
                }
            }
            _ => put_attribute(out, attribute.flags, attribute.code, attribute.value),
        }
    }
    if let Some(octets) = pending {
        put_attribute(out, flags::TRANSITIVE, code::NEXT_HOP, &octets);
    }
    if let Some(value) = as4_path {
        let kept = without_confederation(AsPath(value));
        put_attribute(
            out,
            flags::OPTIONAL | flags::TRANSITIVE,
            code::AS4_PATH,
            &kept,
        );
    }
    if let Some(value) = as4_aggregator {
        put_attribute(
            out,
            flags::OPTIONAL | flags::TRANSITIVE,
            code::AS4_AGGREGATOR,
            value,
        );
    }
}

/// Writes AS_PATH with 2-octet numbers; true where one of them did not fit (RFC 6793 section 4.2.2).
fn narrow_as_path(path: AsPath<'_>, flags: u8, out: &mut Vec<u8>) -> bool {
    let mut value = Vec::new();
    let mut lossy = false;
    for segment in path.segments() {
        let count = segment.asns().count();
        value.extend_from_slice(&[segment.kind.octet(), count as u8]);
        for asn in segment.asns() {
            lossy |= asn.0 > 0xffff;
            value.extend_from_slice(&asn.to_two_octets().to_be_bytes());
        }
    }
    put_attribute(out, flags, code::AS_PATH, &value);
    lossy
}

/// Packs prefixes into as few UPDATEs as they need. One writer stands for one set of attributes (or for withdrawals);
/// prefixes stream in, messages are whole after [`UpdateWriter::finish`].
#[derive(Debug)]
pub struct UpdateWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Encoded attributes, MP_REACH_NLRI apart; `None` for withdrawals.
    attributes: Option<(&'a [u8], NextHop)>,
    family: Family,
    classic: bool,
    add_path: bool,
    max_len: usize,
    /// Where the open message starts, and where its prefixes do; `None` before the first prefix.
    open: Option<(usize, usize)>,
}

/// Header, two length fields, MP_REACH_NLRI with a long next hop, the longest prefix with its path id.
fn needed(attributes: &[u8], classic: bool) -> usize {
    HEADER_LEN + 4 + attributes.len() + if classic { 9 } else { 9 + 32 + 21 }
}

impl<'a> UpdateWriter<'a> {
    /// Announces prefixes of `family` with attributes that [`encode_attributes`] made, appending to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] where a message cannot hold the attributes and one prefix.
    pub fn announce(
        out: &'a mut Vec<u8>,
        context: &EncodeContext,
        family: Family,
        attributes: &'a [u8],
        next_hop: NextHop,
    ) -> Result<Self, EncodeError> {
        let writer = Self {
            out,
            attributes: Some((attributes, next_hop)),
            family,
            classic: family == Family::Ipv4Unicast && next_hop.address.is_ipv4(),
            add_path: context.add_path[family.index()],
            max_len: context.max_len,
            open: None,
        };
        let needed = needed(attributes, writer.classic);
        if needed > context.max_len {
            return Err(EncodeError {
                needed,
                max_len: context.max_len,
            });
        }
        Ok(writer)
    }

    /// Whether [`UpdateWriter::announce`] takes the attributes.
    pub fn fits(
        context: &EncodeContext,
        family: Family,
        attributes: &[u8],
        next_hop: NextHop,
    ) -> bool {
        let classic = family == Family::Ipv4Unicast && next_hop.address.is_ipv4();
        needed(attributes, classic) <= context.max_len
    }

    /// Withdraws prefixes of `family`, appending to `out`.
    pub fn withdraw(out: &'a mut Vec<u8>, context: &EncodeContext, family: Family) -> Self {
        Self {
            out,
            attributes: None,
            family,
            classic: family == Family::Ipv4Unicast,
            add_path: context.add_path[family.index()],
            max_len: context.max_len,
            open: None,
        }
    }

    /// Adds one prefix; `path_id` goes out where ADD-PATH was negotiated.
    #[inline]
    pub fn push<P: Prefix>(&mut self, path_id: u32, prefix: P) {
        debug_assert_eq!(P::FAMILY, self.family);
        let trailer = match self.attributes {
            Some((attributes, _)) if !self.classic => attributes.len(),
            // Withdrawn Routes are followed by the length of no attributes.
            None if self.classic => 2,
            _ => 0,
        };
        if let Some((start, _)) = self.open
            && self.out.len() - start + trailer + 21 > self.max_len
        {
            self.close();
        }
        if self.open.is_none() {
            self.begin();
        }
        if self.add_path {
            self.out.extend_from_slice(&path_id.to_be_bytes());
        }
        prefix.encode(self.out);
    }

    /// Closes the last message.
    pub fn finish(mut self) {
        self.close();
    }

    fn begin(&mut self) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0xff; 16]);
        self.out
            .extend_from_slice(&[0, 0, MessageType::Update as u8]);
        match self.attributes {
            Some((attributes, _)) if self.classic => {
                self.out.extend_from_slice(&[0, 0]);
                self.out
                    .extend_from_slice(&(attributes.len() as u16).to_be_bytes());
                self.out.extend_from_slice(attributes);
            }
            None if self.classic => self.out.extend_from_slice(&[0, 0]),
            reach => {
                // Withdrawn Routes Length, Total Path Attribute Length, then MP_* first (RFC 7606 section 5.1).
                let kind = if reach.is_some() {
                    code::MP_REACH_NLRI
                } else {
                    code::MP_UNREACH_NLRI
                };
                self.out.extend_from_slice(&[0, 0, 0, 0]);
                self.out
                    .extend_from_slice(&[flags::OPTIONAL | flags::EXTENDED_LENGTH, kind, 0, 0]);
                self.out.extend_from_slice(&self.family.afi().to_be_bytes());
                self.out.push(self.family.safi());
                if let Some((_, next_hop)) = reach {
                    let at = self.out.len();
                    self.out.push(0);
                    next_hop.encode(self.out);
                    self.out[at] = (self.out.len() - at - 1) as u8;
                    self.out.push(0);
                }
            }
        }
        self.open = Some((start, self.out.len()));
    }

    fn close(&mut self) {
        let Some((start, prefixes)) = self.open.take() else {
            return;
        };
        let put = |out: &mut Vec<u8>, at: usize, value: usize| {
            out[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
        };
        match self.attributes {
            None if self.classic => {
                let len = self.out.len() - prefixes;
                put(self.out, start + HEADER_LEN, len);
                self.out.extend_from_slice(&[0, 0]);
            }
            Some(_) if self.classic => {}
            reach => {
                let value = start + HEADER_LEN + 8;
                let len = self.out.len() - value;
                put(self.out, value - 2, len);
                if let Some((attributes, _)) = reach {
                    self.out.extend_from_slice(attributes);
                }
                let len = self.out.len() - (start + HEADER_LEN + 4);
                put(self.out, start + HEADER_LEN + 2, len);
            }
        }
        let len = self.out.len() - start;
        put(self.out, start + 16, len);
    }
}

impl Drop for UpdateWriter<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Appends the End-of-RIB marker of `family` (RFC 4724 section 2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    message(out, MessageType::Update, |out| match family {
        Family::Ipv4Unicast => out.extend_from_slice(&[0; 4]),
        family => {
            let [high, low] = family.afi().to_be_bytes();
            out.extend_from_slice(&[
                0,
                0,
                0,
                6,
                flags::OPTIONAL,
                code::MP_UNREACH_NLRI,
                3,
                high,
                low,
                family.safi(),
            ]);
        }
    });
}
