//! Checks the path attributes of an UPDATE (RFC 4271 section 6.3 as revised by RFC 7606) and makes them canonical.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::{
    AttributesView, NextHop, Origin, RawAttribute, code, flags, put_attribute, split_attribute,
};
use crate::as_path::{SegmentKind, without_confederation};
use crate::notification::{Notification, error_code, update_error};
use crate::{AsPath, Asn, Family};

/// Whether the neighbour is in another AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerType {
    /// eBGP.
    External,
    /// iBGP.
    Internal,
}

/// What the meaning of attribute octets depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeContext {
    /// AS numbers have 4 octets in AS_PATH and AGGREGATOR: both ends offered it.
    pub four_octet_as: bool,
    /// Where the message comes from.
    pub peer: PeerType,
    /// The message has prefixes in its NLRI field, so that NEXT_HOP is mandatory.
    pub has_nlri: bool,
    /// The families of the session, by [`Family::index`]: what MP_REACH_NLRI and MP_UNREACH_NLRI say of others is ignored (RFC 4760
    /// section 8).
    pub families: [bool; 2],
    /// Both ends take IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
}

/// What an UPDATE with a problem costs, the least first (RFC 7606 section 2). A session reset is an `Err` instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Treatment {
    /// Nothing.
    #[default]
    Accept,
    /// The attribute is left out, the route stays.
    AttributeDiscard,
    /// Every route in the message is withdrawn.
    TreatAsWithdraw,
}

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The Optional or Transitive bit contradicts the type code.
    Flags,
    /// A length that the attribute cannot have.
    Length,
    /// A value outside its range.
    Value,
    /// The same attribute stood there before.
    Duplicate,
    /// A mandatory attribute is not there.
    Missing,
    /// The attribute runs past the end of the field.
    Overrun,
    /// Not allowed from this neighbour.
    NotAllowed,
}

/// One problem, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Attribute Type Code; 0 where none could be read.
    pub code: u8,
    /// What is wrong.
    pub kind: ProblemKind,
    /// What it costs.
    pub treatment: Treatment,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ProblemKind::Flags => "wrong flags",
            ProblemKind::Length => "bad length",
            ProblemKind::Value => "bad value",
            ProblemKind::Duplicate => "stands twice",
            ProblemKind::Missing => "is missing",
            ProblemKind::Overrun => "runs past the end of the attributes",
            ProblemKind::NotAllowed => "not allowed from this neighbour",
        };
        let treatment = match self.treatment {
            Treatment::Accept => "accepted",
            Treatment::AttributeDiscard => "attribute discarded",
            Treatment::TreatAsWithdraw => "treated as withdraw",
        };
        write!(f, "attribute {}: {what}, {treatment}", self.code)
    }
}

/// MP_REACH_NLRI (RFC 4760 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpReach<'a> {
    /// AFI and SAFI; `None` for a family that is not one of the session.
    pub family: Option<Family>,
    /// The next hop; `None` only where the family is.
    pub next_hop: Option<NextHop>,
    /// The prefixes.
    pub nlri: &'a [u8],
}

/// MP_UNREACH_NLRI (RFC 4760 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpUnreach<'a> {
    /// AFI and SAFI; `None` for a family that is not one of the session.
    pub family: Option<Family>,
    /// The prefixes.
    pub nlri: &'a [u8],
}

/// What an attribute section says.
#[derive(Debug)]
pub struct Decoded<'a, 'b> {
    /// Canonical octets, in the decoder's buffer.
    pub attributes: AttributesView<'b>,
    /// NEXT_HOP.
    pub next_hop: Option<Ipv4Addr>,
    /// MP_REACH_NLRI.
    pub mp_reach: Option<MpReach<'a>>,
    /// MP_UNREACH_NLRI.
    pub mp_unreach: Option<MpUnreach<'a>>,
    /// The dearest treatment of all problems.
    pub treatment: Treatment,
    /// Every problem found.
    pub problems: &'b [Problem],
}

/// Decodes attribute sections; keeps its buffers from message to message.
#[derive(Debug, Default)]
pub struct AttributeDecoder {
    canonical: Vec<u8>,
    scratch: Vec<u8>,
    problems: Vec<Problem>,
}

/// What a section held that canonical octets do not.
#[derive(Default)]
struct Aside<'a> {
    next_hop: Option<Ipv4Addr>,
    mp_reach: Option<MpReach<'a>>,
    mp_unreach: Option<MpUnreach<'a>>,
    as4_path: Option<&'a [u8]>,
    as4_aggregator: Option<&'a [u8]>,
}

/// Attributes that stand in canonical octets, as found; types seen, to find duplicates.
struct Found<'a> {
    list: [RawAttribute<'a>; 64],
    len: usize,
    seen: [u64; 4],
}

impl<'a> Found<'a> {
    fn new() -> Self {
        Self {
            list: [RawAttribute {
                flags: 0,
                code: 0,
                value: &[],
            }; 64],
            len: 0,
            seen: [0; 4],
        }
    }

    /// Notes the type code; true where it was there before.
    fn seen_before(&mut self, code: u8) -> bool {
        let (word, bit) = (usize::from(code >> 6), 1u64 << (code & 63));
        let before = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        before
    }

    fn has(&self, code: u8) -> bool {
        self.list[..self.len]
            .iter()
            .any(|attribute| attribute.code == code)
    }

    /// Keeps an attribute in order of type code; false where there are more than any sane route has.
    fn insert(&mut self, attribute: RawAttribute<'a>) -> bool {
        if self.len == self.list.len() {
            return false;
        }
        let at = self.list[..self.len].partition_point(|other| other.code < attribute.code);
        self.list.copy_within(at..self.len, at + 1);
        self.list[at] = attribute;
        self.len += 1;
        true
    }
}

impl AttributeDecoder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks `section` (the Path Attributes field) and makes it canonical. Where the treatment is
    /// [`Treatment::TreatAsWithdraw`] the canonical octets mean nothing.
    ///
    /// # Errors
    /// The NOTIFICATION for what RFC 7606 leaves to a session reset: two MP_REACH_NLRI or MP_UNREACH_NLRI (section
    /// 3 g), one of them whose prefixes can't be found (section 5.3, 7.11), an unknown well-known attribute (RFC 4271
    /// section 6.3).
    pub fn decode<'a>(
        &mut self,
        section: &'a [u8],
        context: &AttributeContext,
    ) -> Result<Decoded<'a, '_>, Notification> {
        self.problems.clear();
        let mut found = Found::new();
        let mut aside = Aside::default();
        let mut rest = section;
        while !rest.is_empty() {
            let Some((attribute, tail)) = split_attribute(rest) else {
                // Section 4: the rest of the attributes is lost, the prefixes are not.
                let code = rest.get(1).copied().unwrap_or(0);
                if matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                    return Err(optional_attribute_error(rest));
                }
                self.problem(code, ProblemKind::Overrun, Treatment::TreatAsWithdraw);
                break;
            };
            let octets = &rest[..rest.len() - tail.len()];
            rest = tail;
            if found.seen_before(attribute.code) {
                if matches!(attribute.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                    return Err(Notification::new(
                        error_code::UPDATE,
                        update_error::MALFORMED_ATTRIBUTE_LIST,
                        [],
                    ));
                }
                self.problem(
                    attribute.code,
                    ProblemKind::Duplicate,
                    Treatment::AttributeDiscard,
                );
                continue;
            }
            self.attribute(attribute, octets, context, &mut found, &mut aside)?;
        }
        self.mandatory(context, &found, &aside);
        self.canonicalise(context, &found, &aside);
        Ok(Decoded {
            attributes: AttributesView::new(&self.canonical),
            next_hop: aside.next_hop,
            mp_reach: aside.mp_reach,
            mp_unreach: aside.mp_unreach,
            treatment: self
                .problems
                .iter()
                .map(|problem| problem.treatment)
                .max()
                .unwrap_or_default(),
            problems: &self.problems,
        })
    }

    fn problem(&mut self, code: u8, kind: ProblemKind, treatment: Treatment) {
        let problem = Problem {
            code,
            kind,
            treatment,
        };
        // A message may hold thousands of one sort: it is said once.
        if self.problems.last() != Some(&problem) && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn attribute<'a>(
        &mut self,
        attribute: RawAttribute<'a>,
        octets: &[u8],
        context: &AttributeContext,
        found: &mut Found<'a>,
        aside: &mut Aside<'a>,
    ) -> Result<(), Notification> {
        use ProblemKind::{Flags, Length, NotAllowed, Value};
        use Treatment::{AttributeDiscard, TreatAsWithdraw};

        let RawAttribute { flags, code, value } = attribute;
        let internal = context.peer == PeerType::Internal;
        if let Some(expected) = expected_flags(code)
            && (flags ^ expected) & (flags::OPTIONAL | flags::TRANSITIVE) != 0
        {
            // Its prefixes are withdrawn too, so they must be found all the same.
            match code {
                code::MP_REACH_NLRI => {
                    aside.mp_reach = Some(
                        mp_reach(value, context).ok_or_else(|| optional_attribute_error(octets))?,
                    )
                }
                code::MP_UNREACH_NLRI => {
                    aside.mp_unreach = Some(
                        mp_unreach(value, context)
                            .ok_or_else(|| optional_attribute_error(octets))?,
                    )
                }
                _ => {}
            }
            self.problem(code, Flags, TreatAsWithdraw);
            return Ok(());
        }
        let problem = match code {
            code::ORIGIN if value.len() != 1 => Some((Length, TreatAsWithdraw)),
            code::ORIGIN => Origin::from_octet(value[0])
                .is_none()
                .then_some((Value, TreatAsWithdraw)),
            code::AS_PATH => (!as_path_is_well_formed(value, context.four_octet_as, internal))
                .then_some((Value, TreatAsWithdraw)),
            code::NEXT_HOP => match <[u8; 4]>::try_from(value) {
                Err(_) => Some((Length, TreatAsWithdraw)),
                Ok(octets) => {
                    let address = Ipv4Addr::from(octets);
                    // RFC 4760 section 3: beside MP_REACH_NLRI alone it says nothing.
                    if !context.has_nlri {
                        return Ok(());
                    }
                    if NextHop::from(IpAddr::from(address)).is_usable() {
                        aside.next_hop = Some(address);
                        return Ok(());
                    }
                    Some((Value, TreatAsWithdraw))
                }
            },
            code::MULTI_EXIT_DISC => (value.len() != 4).then_some((Length, TreatAsWithdraw)),
            // RFC 7606 section 7.5: from an external neighbour it is not even looked at.
            code::LOCAL_PREF if !internal => Some((NotAllowed, AttributeDiscard)),
            code::LOCAL_PREF => (value.len() != 4).then_some((Length, TreatAsWithdraw)),
            code::ATOMIC_AGGREGATE => (!value.is_empty()).then_some((Length, AttributeDiscard)),
            code::AGGREGATOR => {
                let (expected, asn_len) = if context.four_octet_as {
                    (8, 4)
                } else {
                    (6, 2)
                };
                if value.len() != expected {
                    Some((Length, AttributeDiscard))
                } else {
                    // RFC 7607 section 2.
                    is_zero(&value[..asn_len]).then_some((Value, AttributeDiscard))
                }
            }
            // RFC 9234 section 5.
            code::ONLY_TO_CUSTOMER => (value.len() != 4).then_some((Length, TreatAsWithdraw)),
            code::COMMUNITIES => bad_multiple(value, 4),
            code::EXTENDED_COMMUNITIES => bad_multiple(value, 8),
            code::IPV6_EXTENDED_COMMUNITIES => bad_multiple(value, 20),
            code::LARGE_COMMUNITY => bad_multiple(value, 12),
            // RFC 7606 sections 7.9 and 7.10.
            code::ORIGINATOR_ID | code::CLUSTER_LIST if !internal => {
                Some((NotAllowed, AttributeDiscard))
            }
            code::ORIGINATOR_ID => (value.len() != 4).then_some((Length, TreatAsWithdraw)),
            code::CLUSTER_LIST => bad_multiple(value, 4),
            code::MP_REACH_NLRI => {
                let reach =
                    mp_reach(value, context).ok_or_else(|| optional_attribute_error(octets))?;
                aside.mp_reach = Some(reach);
                match reach.next_hop {
                    Some(next_hop) if !next_hop.is_usable() => Some((Value, TreatAsWithdraw)),
                    _ => return Ok(()),
                }
            }
            code::MP_UNREACH_NLRI => {
                aside.mp_unreach = Some(
                    mp_unreach(value, context).ok_or_else(|| optional_attribute_error(octets))?,
                );
                return Ok(());
            }
            // RFC 6793 section 4.1: from a NEW speaker both are discarded; section 6: malformed ones too.
            code::AS4_PATH | code::AS4_AGGREGATOR if context.four_octet_as => {
                Some((NotAllowed, AttributeDiscard))
            }
            code::AS4_PATH => {
                // Confederation segments, which do not belong there, are left out when it is merged.
                if as_path_is_well_formed(value, true, true) {
                    aside.as4_path = Some(value);
                    return Ok(());
                }
                Some((Value, AttributeDiscard))
            }
            code::AS4_AGGREGATOR => {
                if value.len() != 8 {
                    Some((Length, AttributeDiscard))
                } else if is_zero(&value[..4]) {
                    Some((Value, AttributeDiscard))
                } else {
                    aside.as4_aggregator = Some(value);
                    return Ok(());
                }
            }
            _ if flags & flags::OPTIONAL == 0 => {
                return Err(Notification::new(
                    error_code::UPDATE,
                    update_error::UNRECOGNIZED_WELL_KNOWN,
                    octets,
                ));
            }
            // RFC 4271 section 5: unknown optional non-transitive attributes are quietly ignored.
            _ if flags & flags::TRANSITIVE == 0 => return Ok(()),
            _ => None,
        };
        if let Some((kind, treatment)) = problem {
            self.problem(code, kind, treatment);
        } else if !found.insert(attribute) {
            self.problem(code, Value, TreatAsWithdraw);
        }
        Ok(())
    }

    /// RFC 7606 section 3 d: a missing well-known mandatory attribute is treat-as-withdraw.
    fn mandatory(&mut self, context: &AttributeContext, found: &Found<'_>, aside: &Aside<'_>) {
        if !context.has_nlri && aside.mp_reach.is_none() {
            return;
        }
        let missing = |code| (!found.has(code)).then_some(code);
        let next_hop = (context.has_nlri && aside.next_hop.is_none()).then_some(code::NEXT_HOP);
        for code in [missing(code::ORIGIN), missing(code::AS_PATH), next_hop]
            .into_iter()
            .flatten()
        {
            // One that was there and malformed has its problem already.
            if !self.problems.iter().any(|problem| problem.code == code) {
                self.problem(code, ProblemKind::Missing, Treatment::TreatAsWithdraw);
            }
        }
    }

    fn canonicalise(&mut self, context: &AttributeContext, found: &Found<'_>, aside: &Aside<'_>) {
        self.canonical.clear();
        // RFC 6793 section 4.2.3: an AGGREGATOR that is not AS_TRANS says that the AS4 attributes are stale.
        let aggregator = found.list[..found.len]
            .iter()
            .find(|attribute| attribute.code == code::AGGREGATOR)
            .map(|attribute| attribute.value);
        let stale = !context.four_octet_as
            && aggregator.is_some_and(|value| value.get(..2) != Some(&23456u16.to_be_bytes()[..]));
        for attribute in &found.list[..found.len] {
            let RawAttribute {
                mut flags,
                code,
                mut value,
            } = *attribute;
            self.scratch.clear();
            match code {
                code::AS_PATH if !context.four_octet_as => {
                    merge_as4_path(value, aside.as4_path.filter(|_| !stale), &mut self.scratch);
                    value = &self.scratch;
                }
                code::AGGREGATOR if !context.four_octet_as => {
                    match aside.as4_aggregator.filter(|_| !stale) {
                        Some(aggregator) => value = aggregator,
                        None => {
                            self.scratch.extend_from_slice(&[0, 0]);
                            self.scratch.extend_from_slice(value);
                            value = &self.scratch;
                        }
                    }
                }
                code::LARGE_COMMUNITY => {
                    put_once(value.as_chunks::<12>().0, &mut self.scratch);
                    value = &self.scratch;
                }
                _ => {}
            }
            // RFC 4271 section 4.3: Partial says something of optional transitive attributes alone.
            match expected_flags(code) {
                None => flags |= flags::PARTIAL,
                Some(expected) if expected & OPTIONAL_TRANSITIVE != OPTIONAL_TRANSITIVE => {
                    flags = expected;
                }
                Some(_) => {}
            }
            put_attribute(&mut self.canonical, flags & 0xf0, code, value);
        }
    }
}

const OPTIONAL_TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;

fn is_zero(octets: &[u8]) -> bool {
    octets.iter().all(|octet| *octet == 0)
}

fn bad_multiple(value: &[u8], one: usize) -> Option<(ProblemKind, Treatment)> {
    (value.is_empty() || !value.len().is_multiple_of(one))
        .then_some((ProblemKind::Length, Treatment::TreatAsWithdraw))
}

fn optional_attribute_error(octets: &[u8]) -> Notification {
    let octets = &octets[..octets.len().min(4000)];
    Notification::new(error_code::UPDATE, update_error::OPTIONAL_ATTRIBUTE, octets)
}

/// The Optional and Transitive bits of a type code that we know.
fn expected_flags(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => flags::TRANSITIVE,
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI => flags::OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::IPV6_EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITY
        | code::ONLY_TO_CUSTOMER => OPTIONAL_TRANSITIVE,
        _ => return None,
    })
}

/// RFC 7606 section 7.2: known segment types, no empty segment, no overrun; RFC 5065: no confederation segment from
/// outside; RFC 7607 section 2: no AS 0.
fn as_path_is_well_formed(value: &[u8], four_octet_as: bool, internal: bool) -> bool {
    let asn_len = if four_octet_as { 4 } else { 2 };
    let mut rest = value;
    while let Some((&[kind, count], tail)) = rest.split_first_chunk::<2>() {
        let known = match SegmentKind::from_octet(kind) {
            Some(SegmentKind::Set | SegmentKind::Sequence) => true,
            Some(_) => internal,
            None => false,
        };
        let Some((asns, tail)) = tail.split_at_checked(usize::from(count) * asn_len) else {
            return false;
        };
        if !known || count == 0 || asns.chunks_exact(asn_len).any(is_zero) {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

/// A family of the session.
fn family(context: &AttributeContext, afi: [u8; 2], safi: u8) -> Option<Family> {
    let family = Family::from_afi_safi(u16::from_be_bytes(afi), safi)?;
    context.families[family.index()].then_some(family)
}

fn mp_reach<'a>(value: &'a [u8], context: &AttributeContext) -> Option<MpReach<'a>> {
    let (&[afi_high, afi_low, safi, next_hop_len], rest) = value.split_first_chunk::<4>()?;
    let (next_hop, rest) = rest.split_at_checked(usize::from(next_hop_len))?;
    let (_reserved, nlri) = rest.split_first()?;
    let family = family(context, [afi_high, afi_low], safi);
    let next_hop = match family {
        None => None,
        // RFC 7606 section 7.11: a length that the family cannot have leaves the prefixes in doubt.
        Some(family) => Some(NextHop::from_octets(
            family,
            next_hop,
            context.extended_next_hop,
        )?),
    };
    Some(MpReach {
        family,
        next_hop,
        nlri,
    })
}

fn mp_unreach<'a>(value: &'a [u8], context: &AttributeContext) -> Option<MpUnreach<'a>> {
    let (&[afi_high, afi_low, safi], nlri) = value.split_first_chunk::<3>()?;
    let family = family(context, [afi_high, afi_low], safi);
    Some(MpUnreach { family, nlri })
}

/// Widens a 2-octet AS_PATH and puts AS4_PATH in the place of its tail (RFC 6793 section 4.2.3).
fn merge_as4_path(as_path: &[u8], as4_path: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut wide = Vec::with_capacity(as_path.len() * 2);
    let mut rest = as_path;
    while let Some((&[kind, count], tail)) = rest.split_first_chunk::<2>() {
        let (asns, tail) = tail
            .split_at_checked(usize::from(count) * 2)
            .unwrap_or((tail, &[]));
        wide.extend_from_slice(&[kind, count]);
        for asn in asns.as_chunks::<2>().0 {
            wide.extend_from_slice(&u32::from(u16::from_be_bytes(*asn)).to_be_bytes());
        }
        rest = tail;
    }
    let Some(as4_path) = as4_path else {
        out.extend_from_slice(&wide);
        return;
    };
    // RFC 6793 section 6: confederation segments in it are left out, the others stand.
    let as4_path = without_confederation(AsPath(as4_path));
    let (len, len4) = (AsPath(&wide).path_length(), AsPath(&as4_path).path_length());
    let Some(mut lead) = len.checked_sub(len4) else {
        out.extend_from_slice(&wide);
        return;
    };
    for segment in AsPath(&wide).segments() {
        if lead == 0 && segment.path_length() > 0 {
            break;
        }
        let asns: Vec<Asn> = segment.asns().collect();
        let (kind, take) = match segment.kind {
            SegmentKind::Sequence => (2, asns.len().min(lead)),
            SegmentKind::Set => (1, asns.len()),
            SegmentKind::ConfederationSequence => (3, asns.len()),
            SegmentKind::ConfederationSet => (4, asns.len()),
        };
        lead -= segment.path_length().min(lead);
        out.extend_from_slice(&[kind, take as u8]);
        for asn in &asns[..take] {
            out.extend_from_slice(&asn.0.to_be_bytes());
        }
    }
    out.extend_from_slice(&as4_path);
}

/// Communities that are compared with each other without further ado.
const FEW: usize = 16;

/// Each large community where it stands first (RFC 8092 section 5). However many there are, it takes as long as to sort them.
fn put_once(communities: &[[u8; 12]], out: &mut Vec<u8>) {
    if communities.len() <= FEW {
        for (at, community) in communities.iter().enumerate() {
            if !communities[..at].contains(community) {
                out.extend_from_slice(community);
            }
        }
        return;
    }
    let mut order: Vec<usize> = (0..communities.len()).collect();
    order.sort_unstable_by_key(|at| (communities[*at], *at));
    order.dedup_by_key(|at| communities[*at]);
    order.sort_unstable();
    out.extend(order.into_iter().flat_map(|at| communities[at]));
}
