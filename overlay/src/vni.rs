//! VNIs, sets of them, endpoint ids.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A global VNI label, 1..=0xFFFFFE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Vni(u32);

/// A number that is no VNI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no VNI: 1 to 16777214")]
pub struct InvalidVni(String);

impl Vni {
    /// The lowest.
    pub const MIN: Self = Self(1);
    /// The highest.
    pub const MAX: Self = Self(0x00ff_fffe);

    /// Checks the range.
    ///
    /// # Errors
    /// [`InvalidVni`] for 0 and for what is above 16,777,214.
    pub fn new(number: u32) -> Result<Self, InvalidVni> {
        if (Self::MIN.0..=Self::MAX.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidVni(number.to_string()))
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vni {
    type Err = InvalidVni;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .and_then(|number| Self::new(number).ok())
            .ok_or_else(|| InvalidVni(text.to_owned()))
    }
}

/// An endpoint id: the router id of the router that owns the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointId(pub Ipv4Addr);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of VNIs, held as ranges: sorted, disjoint, not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VniSet(Vec<(Vni, Vni)>);

impl VniSet {
    /// No VNI.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every VNI.
    pub fn all() -> Self {
        Self(vec![(Vni::MIN, Vni::MAX)])
    }

    /// The union of ranges, both ends included; a range that runs backwards is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (Vni, Vni)>) -> Self {
        let mut sorted: Vec<(Vni, Vni)> = ranges
            .into_iter()
            .filter(|(first, last)| first <= last)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<(Vni, Vni)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if first.0 <= end.0.saturating_add(1) => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// True where it is one of them.
    pub fn contains(&self, vni: Vni) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= vni);
        at.checked_sub(1).is_some_and(|at| vni <= self.0[at].1)
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its ranges, sorted.
    pub fn ranges(&self) -> &[(Vni, Vni)] {
        &self.0
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.0.iter().chain(&other.0).copied())
    }

    /// What is in one of both only.
    #[must_use]
    pub fn symmetric_difference(&self, other: &Self) -> Self {
        // At each end of a range, of either, it begins or ends; two at one place make none.
        let ranges = self.0.iter().chain(&other.0);
        let mut ends: Vec<u32> = ranges
            .flat_map(|(first, last)| [first.0, last.0 + 1])
            .collect();
        ends.sort_unstable();
        let pairs = ends.as_chunks::<2>().0.iter();
        Self::from_ranges(
            pairs
                .filter(|[start, end]| start < end)
                .map(|[start, end]| (Vni(*start), Vni(end - 1))),
        )
    }
}

impl fmt::Display for VniSet {
    /// `10001-10002,10007`, `all` or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        if *self == Self::all() {
            return f.write_str("all");
        }
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn what_one_of_two_sets_has_alone() {
        let set = |ranges: &[(u32, u32)]| {
            VniSet::from_ranges(ranges.iter().map(|(first, last)| (vni(*first), vni(*last))))
        };
        let one = set(&[(1, 10), (20, 30), (50, 50)]);
        let other = set(&[(5, 25), (50, 50), (60, 61)]);
        let both = one.symmetric_difference(&other);
        assert_eq!(both, set(&[(1, 4), (11, 19), (26, 30), (60, 61)]));
        assert_eq!(both, other.symmetric_difference(&one));
        assert!(one.symmetric_difference(&one).is_empty());
        let rest = VniSet::all().symmetric_difference(&set(&[(7, 7)]));
        assert!(!rest.contains(vni(7)) && rest.contains(vni(8)) && rest.contains(Vni::MAX));
    }

    #[test]
    fn the_ends_of_the_range_are_no_vni() {
        assert!(Vni::new(0).is_err() && Vni::new(0x00ff_ffff).is_err());
        assert_eq!("16777214".parse::<Vni>(), Ok(Vni::MAX));
        assert_eq!(
            "x".parse::<Vni>().unwrap_err().to_string(),
            "`x` is no VNI: 1 to 16777214"
        );
    }

    #[test]
    fn ranges_merge_and_answer() {
        let set = VniSet::from_ranges([
            (vni(5), vni(9)),
            (vni(1), vni(2)),
            (vni(3), vni(3)),
            (vni(8), vni(12)),
            (vni(4), vni(1)),
        ]);
        assert_eq!(set.to_string(), "1-3,5-12");
        assert!(
            set.contains(vni(3))
                && !set.contains(vni(4))
                && set.contains(vni(12))
                && !set.contains(vni(13))
        );
        assert_eq!(
            (VniSet::all().to_string(), VniSet::none().to_string()),
            ("all".into(), "none".into())
        );
    }
}
