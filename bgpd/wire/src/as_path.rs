//! AS_PATH in canonical octets: 4-octet AS numbers (RFC 4271 section 4.3, RFC 6793).

use std::fmt;

use crate::Asn;

/// The kind of a path segment (RFC 4271, RFC 5065).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// An unordered set.
    Set,
    /// An ordered sequence.
    Sequence,
    /// An ordered sequence of member ASes of the confederation.
    ConfederationSequence,
    /// An unordered set of member ASes of the confederation.
    ConfederationSet,
}

impl SegmentKind {
    pub(crate) fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Set,
            2 => Self::Sequence,
            3 => Self::ConfederationSequence,
            4 => Self::ConfederationSet,
            _ => return None,
        })
    }

    /// Its octet on the wire.
    pub(crate) fn octet(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfederationSequence => 3,
            Self::ConfederationSet => 4,
        }
    }

    /// It is not of a confederation.
    pub(crate) fn leaves_the_as(self) -> bool {
        matches!(self, Self::Set | Self::Sequence)
    }

    /// What the segment counts for in the length of a path (RFC 4271 section 9.1.2.2, RFC 5065 section 5.3).
    fn length(self, asns: usize) -> usize {
        match self {
            Self::Sequence => asns,
            Self::Set => 1,
            Self::ConfederationSequence | Self::ConfederationSet => 0,
        }
    }
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Set or sequence.
    pub kind: SegmentKind,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The AS numbers as they stand.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + use<'a> {
        self.octets
            .as_chunks::<4>()
            .0
            .iter()
            .map(|asn| Asn(u32::from_be_bytes(*asn)))
    }

    /// What it adds to the length of the path.
    pub fn path_length(&self) -> usize {
        self.kind.length(self.octets.len() / 4)
    }
}

/// A path over the value of a canonical AS_PATH attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsPath<'a>(pub(crate) &'a [u8]);

impl<'a> AsPath<'a> {
    /// The segments in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&[kind, count], tail) = rest.split_first_chunk::<2>()?;
            let (octets, tail) = tail.split_at_checked(usize::from(count) * 4)?;
            rest = tail;
            Some(Segment {
                kind: SegmentKind::from_octet(kind)?,
                octets,
            })
        })
    }

    /// Length for the decision process: a set counts one, confederation segments nothing.
    pub fn path_length(&self) -> usize {
        self.segments().map(|segment| segment.path_length()).sum()
    }

    /// True for the empty path: a route that originates in the own AS.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The AS that the path was learned from: the first of a leading sequence (RFC 4271 section 6.3).
    pub fn neighbor_as(&self) -> Option<Asn> {
        let first = self.segments().next()?;
        (first.kind == SegmentKind::Sequence).then(|| first.asns().next())?
    }

    /// The AS that originated the route, where the path ends with a sequence.
    pub fn origin_as(&self) -> Option<Asn> {
        let last = self.segments().last()?;
        (last.kind == SegmentKind::Sequence).then(|| last.asns().last())?
    }

    /// Every AS number in it, of whatever segment, in order.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + use<'a> {
        self.segments().flat_map(|segment| segment.asns())
    }

    /// How often `asn` stands in it.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|other| *other == asn).count()
    }
}

/// AS4_PATH never carries confederation segments (RFC 6793 section 3).
pub(crate) fn without_confederation(path: AsPath<'_>) -> Vec<u8> {
    let mut value = Vec::new();
    for segment in path.segments() {
        if segment.kind.leaves_the_as() {
            value.extend_from_slice(&[segment.kind.octet(), segment.asns().count() as u8]);
            for asn in segment.asns() {
                value.extend_from_slice(&asn.0.to_be_bytes());
            }
        }
    }
    value
}

impl fmt::Display for AsPath<'_> {
    /// `64601 64999 {1 2} (65001)`: sets in braces, confederation segments in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for segment in self.segments() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfederationSequence => ("(", ")"),
                SegmentKind::ConfederationSet => ("[", "]"),
            };
            write!(f, "{before}{open}")?;
            for (at, asn) in segment.asns().enumerate() {
                let space = if at == 0 { "" } else { " " };
                write!(f, "{space}{asn}")?;
            }
            f.write_str(close)?;
            before = " ";
        }
        Ok(())
    }
}
