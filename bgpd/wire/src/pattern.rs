//! Patterns of communities, for queries: `64512:*:*`, `65000:100-199`.

use std::fmt;
use std::str::FromStr;

use crate::community::{Community, LargeCommunity, ParseCommunityError};

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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f, 0xffff)
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
}
