//! Patterns of communities, for queries: `64512:*:*`, `65000:100-199`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::community::{Community, ExtendedCommunity, LargeCommunity, ParseCommunityError};

/// First and last number that a part of a community may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    first: u32,
    last: u32,
}

impl Part {
    /// `*`, a number, or `FIRST-LAST`, all at most `max`.
    fn parse(text: &str, max: u32) -> Option<Self> {
        // `parse` would take a sign.
        let number = |text: &str| {
            let digits = text.bytes().all(|octet| octet.is_ascii_digit());
            let number = text.parse().ok().filter(|number| *number <= max);
            number.filter(|_| digits)
        };
        let (first, last) = match text.split_once('-') {
            _ if text == "*" => (0, max),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        (first <= last).then_some(Self { first, last })
    }

    fn matches(self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    fn write(self, f: &mut fmt::Formatter<'_>, max: u32) -> fmt::Result {
        match (self.first, self.last) {
            (0, last) if last == max => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

fn parts<const N: usize>(text: &str, max: u32) -> Option<[Part; N]> {
    let mut texts = text.split(':');
    let mut parts = [Part { first: 0, last: 0 }; N];
    for part in &mut parts {
        *part = Part::parse(texts.next()?, max)?;
    }
    texts.next().is_none().then_some(parts)
}

fn write<const N: usize>(parts: &[Part; N], f: &mut fmt::Formatter<'_>, max: u32) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(":")?;
        }
        part.write(f, max)?;
    }
    Ok(())
}

/// Communities (RFC 1997) by their halves: each a number, a range `FIRST-LAST`, or `*`. A well-known community's name means that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityPattern([Part; 2]);

impl CommunityPattern {
    /// Whether it is one of these.
    pub fn matches(&self, community: Community) -> bool {
        let [high, low] = self.0;
        high.matches(community.0 >> 16) && low.matches(community.0 & 0xffff)
    }
}

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        let part = |number| Part {
            first: number,
            last: number,
        };
        Self([part(community.0 >> 16), part(community.0 & 0xffff)])
    }
}

impl FromStr for CommunityPattern {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(community) = text.parse::<Community>() {
            return Ok(community.into());
        }
        let parts = parts(text, 0xffff).ok_or_else(|| {
            ParseCommunityError::new(
                text,
                "community",
                "`A:B`, each 0 to 65535, a range such as 100-199, or `*`",
            )
        })?;
        Ok(Self(parts))
    }
}

impl fmt::Display for CommunityPattern {
    /// A well-known one by its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [high, low] if high.first == high.last && low.first == low.last => {
                Community(high.first << 16 | low.first).fmt(f)
            }
            parts => write(&parts, f, 0xffff),
        }
    }
}

/// Large communities (RFC 8092) by their parts: each a number, a range `FIRST-LAST`, or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeCommunityPattern([Part; 3]);

impl LargeCommunityPattern {
    /// Whether it is one of these.
    pub fn matches(&self, community: LargeCommunity) -> bool {
        let [administrator, data_1, data_2] = self.0;
        administrator.matches(community.global_administrator)
            && data_1.matches(community.local_data_1)
            && data_2.matches(community.local_data_2)
    }
}

impl FromStr for LargeCommunityPattern {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = parts(text, u32::MAX).ok_or_else(|| {
            ParseCommunityError::new(
                text,
                "large community",
                "`A:B:C`, each 0 to 4294967295, a range such as 10001-10099, or `*`",
            )
        })?;
        Ok(Self(parts))
    }
}

impl fmt::Display for LargeCommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f, u32::MAX)
    }
}

/// Extended communities (RFC 4360): route targets and route origins by their parts, `rt:65000:*`, `rt:192.0.2.1:1-9`, `soo:*:*`; any other by
/// the first hexadecimal digits of its octets, `0x0004*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCommunityPattern(Extended);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extended {
    Parts {
        subtype: u8,
        administrator: Administrator,
        number: Part,
    },
    Octets {
        value: u64,
        /// How many hexadecimal digits of it count.
        digits: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Administrator {
    Any,
    Asn(Part),
    Address(Ipv4Addr),
}

impl ExtendedCommunityPattern {
    /// Whether it is one of these.
    pub fn matches(&self, community: ExtendedCommunity) -> bool {
        match self.0 {
            Extended::Octets { value, digits } => {
                let mask = u64::MAX.checked_shl(64 - 4 * u32::from(digits));
                (u64::from_be_bytes(community.0) ^ value) & mask.unwrap_or(0) == 0
            }
            Extended::Parts {
                subtype,
                administrator,
                number,
            } => {
                let [kind, sub, a, b, c, d, e, f] = community.0;
                let (asn, found) = match kind & 0xbf {
                    0 => (u32::from_be_bytes([0, 0, a, b]), [c, d, e, f]),
                    1 | 2 => (u32::from_be_bytes([a, b, c, d]), [0, 0, e, f]),
                    _ => return false,
                };
                let is_address = kind & 0xbf == 1;
                let administered = match administrator {
                    Administrator::Any => true,
                    Administrator::Asn(part) => !is_address && part.matches(asn),
                    Administrator::Address(address) => is_address && address.to_bits() == asn,
                };
                sub == subtype && administered && number.matches(u32::from_be_bytes(found))
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(digits) = text.strip_prefix("0x") {
            let (digits, whole) = match digits.strip_suffix('*') {
                Some(first) => (first, first.len() < 16),
                None => (digits, digits.len() == 16),
            };
            let hex = whole && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
            let padded = format!("{digits:0<16}");
            let value = u64::from_str_radix(&padded, 16).ok().filter(|_| hex)?;
            let digits = digits.len() as u8;
            return Some(Self(Extended::Octets { value, digits }));
        }
        let (name, rest) = text.split_once(':')?;
        let subtype = match name {
            "rt" => 2,
            "soo" => 3,
            _ => return None,
        };
        let (administrator, number) = rest.split_once(':')?;
        let administrator = match administrator.parse() {
            _ if administrator == "*" => Administrator::Any,
            Ok(address) => Administrator::Address(address),
            Err(_) => Administrator::Asn(Part::parse(administrator, u32::MAX)?),
        };
        Some(Self(Extended::Parts {
            subtype,
            administrator,
            number: Part::parse(number, u32::MAX)?,
        }))
    }
}

impl FromStr for ExtendedCommunityPattern {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| {
            ParseCommunityError::new(
                text,
                "extended community",
                "`rt:A:B` or `soo:A:B`, each part a number, a range or `*`, A also an IPv4 address; or `0x` with 16 hexadecimal digits, or \
                 fewer and `*`",
            )
        })
    }
}

impl fmt::Display for ExtendedCommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Extended::Octets { value, digits: 16 } => write!(f, "0x{value:016x}"),
            Extended::Octets { value, digits } => {
                write!(f, "0x{}*", &format!("{value:016x}")[..usize::from(digits)])
            }
            Extended::Parts {
                subtype,
                administrator,
                number,
            } => {
                f.write_str(if subtype == 2 { "rt:" } else { "soo:" })?;
                match administrator {
                    Administrator::Any => f.write_str("*")?,
                    Administrator::Asn(part) => part.write(f, u32::MAX)?,
                    Administrator::Address(address) => address.fmt(f)?,
                }
                f.write_str(":")?;
                number.write(f, u32::MAX)
            }
        }
    }
}

/// A pattern of any of the three sorts, which its form tells: `A:B` is a community, `A:B:C` a large one, `rt:A:B`, `soo:A:B` and `0x...` extended
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyCommunityPattern {
    /// RFC 1997.
    Standard(CommunityPattern),
    /// RFC 4360.
    Extended(ExtendedCommunityPattern),
    /// RFC 8092.
    Large(LargeCommunityPattern),
}

/// Which sort of community a text is to be.
enum Sort {
    Standard,
    Extended,
    Large,
}

impl Sort {
    fn of(text: &str) -> Self {
        if ["rt:", "soo:", "0x"]
            .iter()
            .any(|one| text.starts_with(one))
        {
            Self::Extended
        } else if text.matches(':').count() == 2 {
            Self::Large
        } else {
            Self::Standard
        }
    }
}

impl FromStr for AnyCommunityPattern {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match Sort::of(text) {
            Sort::Standard => Self::Standard(text.parse()?),
            Sort::Extended => Self::Extended(text.parse()?),
            Sort::Large => Self::Large(text.parse()?),
        })
    }
}

impl fmt::Display for AnyCommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(pattern) => pattern.fmt(f),
            Self::Extended(pattern) => pattern.fmt(f),
            Self::Large(pattern) => pattern.fmt(f),
        }
    }
}

/// A community of any of the three sorts, which its form tells as in [`AnyCommunityPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyCommunity {
    /// RFC 1997.
    Standard(Community),
    /// RFC 4360.
    Extended(ExtendedCommunity),
    /// RFC 8092.
    Large(LargeCommunity),
}

impl FromStr for AnyCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match Sort::of(text) {
            Sort::Standard => Self::Standard(text.parse()?),
            Sort::Extended => Self::Extended(text.parse()?),
            Sort::Large => Self::Large(text.parse()?),
        })
    }
}

impl fmt::Display for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(community) => community.fmt(f),
            Self::Extended(community) => community.fmt(f),
            Self::Large(community) => community.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_number_a_range_or_anything() {
        let community = LargeCommunity::new(64512, 10001, 3_221_225_995);
        for (text, matches) in [
            ("64512:10001:3221225995", true),
            ("64512:*:*", true),
            ("*:*:*", true),
            ("64512:10000-10001:*", true),
            ("64512:10002-10003:*", false),
            ("64513:*:*", false),
            ("64512:10001:0", false),
        ] {
            let pattern: LargeCommunityPattern = text.parse().unwrap();
            assert_eq!(pattern.matches(community), matches, "{text}");
            assert_eq!(pattern.to_string(), text);
        }
        for text in [
            "64512:*",
            "64512:*:*:*",
            "64512:**:*",
            "64512:2-1:0",
            "64512:-:0",
            "+1:*:*",
            "::",
            "1:2:4294967296",
            "64512:1*:*",
        ] {
            let error = text.parse::<LargeCommunityPattern>().unwrap_err();
            assert!(error.to_string().contains("10001-10099"), "{error}");
        }
    }

    #[test]
    fn a_community_is_matched_by_halves_or_by_name() {
        let community: Community = "65000:150".parse().unwrap();
        for (text, matches) in [
            ("65000:150", true),
            ("65000:*", true),
            ("65000:100-199", true),
            ("*:151", false),
            ("no-export", false),
        ] {
            let pattern: CommunityPattern = text.parse().unwrap();
            assert_eq!(pattern.matches(community), matches, "{text}");
        }
        let named: CommunityPattern = "no-export".parse().unwrap();
        assert!(named.matches(Community::NO_EXPORT));
        assert!("65000:65536".parse::<CommunityPattern>().is_err());
    }

    #[test]
    fn an_extended_community_is_matched_by_parts_or_by_its_first_digits() {
        let target: ExtendedCommunity = "rt:65000:150".parse().unwrap();
        let wide: ExtendedCommunity = "rt:4200000001:150".parse().unwrap();
        let address: ExtendedCommunity = "rt:192.0.2.1:150".parse().unwrap();
        for (text, matches) in [
            ("rt:65000:150", [true, false, false]),
            ("rt:65000:*", [true, false, false]),
            ("rt:*:100-199", [true, true, true]),
            ("rt:64512-65535:*", [true, false, false]),
            ("rt:4200000000-4294967295:*", [false, true, false]),
            ("rt:192.0.2.1:*", [false, false, true]),
            ("soo:*:*", [false, false, false]),
            ("0x0002*", [true, false, false]),
            ("0x0002fde800000096", [true, false, false]),
            ("0x*", [true, true, true]),
        ] {
            let pattern: ExtendedCommunityPattern = text.parse().unwrap();
            let found = [target, wide, address].map(|one| pattern.matches(one));
            assert_eq!(found, matches, "{text}");
            assert_eq!(pattern.to_string(), text);
        }
        for text in ["rt:65000", "rt::1", "xy:1:2", "0x12", "0x+2*", "rt:a:1"] {
            assert!(text.parse::<ExtendedCommunityPattern>().is_err(), "{text}");
        }
        for text in ["rt:65536:65536", "rt:1.2.3.4:65536", "rt:+1:2", "0x12"] {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_form_tells_the_sort() {
        for text in [
            "65000:1",
            "no-export",
            "rt:65000:1",
            "64512:1:2",
            "0x0004000000000001",
        ] {
            assert_eq!(text.parse::<AnyCommunity>().unwrap().to_string(), text);
            assert_eq!(
                text.parse::<AnyCommunityPattern>().unwrap().to_string(),
                text
            );
        }
        for text in ["65000:*", "soo:*:1-2", "64512:*:*"] {
            assert!(text.parse::<AnyCommunity>().is_err(), "{text}");
            assert_eq!(
                text.parse::<AnyCommunityPattern>().unwrap().to_string(),
                text
            );
        }
    }
}
