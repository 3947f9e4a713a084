//! Communities (RFC 1997), extended communities (RFC 4360) and large communities (RFC 8092).

use std::fmt;
use std::str::FromStr;

/// A text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {expected}")]
pub struct ParseCommunityError {
    text: String,
    what: &'static str,
    expected: &'static str,
}

impl ParseCommunityError {
    pub(crate) fn new(text: &str, what: &'static str, expected: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            what,
            expected,
        }
    }
}

fn numbers<const N: usize>(text: &str, max: u32) -> Option<[u32; N]> {
    let mut parts = text.split(':');
    let mut numbers = [0; N];
    for number in &mut numbers {
        let part = parts.next()?;
        // `parse` would take a sign.
        if !part.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok().filter(|number| *number <= max)?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A community: two 16-bit halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

impl Community {
    /// Not advertised to eBGP neighbours (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Not advertised to anybody (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not advertised to eBGP neighbours, confederation members included (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// The path is about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self(0xffff_0006), "llgr-stale"),
        (Self(0xffff_0007), "no-llgr"),
        (Self(0xffff_029a), "blackhole"),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((community, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*community);
        }
        let [high, low] = numbers(text, 0xffff).ok_or(ParseCommunityError {
            text: text.to_owned(),
            what: "community",
            expected: "`A:B`, each 0 to 65535, or a well-known name",
        })?;
        Ok(Self(high << 16 | low))
    }
}

/// An extended community, 8 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Link Bandwidth (draft-ietf-idr-link-bandwidth), octets a second, as a route of an AS carries it through other ASes.
    pub fn link_bandwidth(asn: u16, bandwidth: f32) -> Self {
        let [a, b] = asn.to_be_bytes();
        let [c, d, e, f] = bandwidth.to_be_bytes();
        Self([0x00, 0x04, a, b, c, d, e, f])
    }

    /// The bandwidth, octets a second, of a Link Bandwidth community, transitive or not. None for others, and where it is no
    /// positive number.
    pub fn as_link_bandwidth(self) -> Option<f32> {
        let [kind, subtype, _, _, a, b, c, d] = self.0;
        let bandwidth = f32::from_be_bytes([a, b, c, d]);
        let is_one = kind & 0xbf == 0 && subtype == 4;
        (is_one && bandwidth.is_finite() && bandwidth > 0.0).then_some(bandwidth)
    }
}

impl fmt::Display for ExtendedCommunity {
    /// `rt:64512:1`, `soo:192.0.2.1:5`, or the octets in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = match subtype {
            2 => "rt",
            3 => "soo",
            _ => "",
        };
        if !name.is_empty() {
            let high = u32::from_be_bytes([a, b, c, d]);
            let low = u16::from_be_bytes([e, g]);
            match kind & 0xbf {
                0 => {
                    let asn = u16::from_be_bytes([a, b]);
                    return write!(f, "{name}:{asn}:{}", u32::from_be_bytes([c, d, e, g]));
                }
                1 => return write!(f, "{name}:{a}.{b}.{c}.{d}:{low}"),
                2 => return write!(f, "{name}:{high}:{low}"),
                _ => {}
            }
        }
        write!(f, "0x{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseCommunityError;

    /// As it is shown: `rt:64512:1`, `rt:4200000001:1`, `soo:192.0.2.1:5`, or 16 hexadecimal digits behind `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => octets(digits),
            None => by_parts(text),
        };
        parsed.ok_or_else(|| {
            let expected = "`rt:A:B` or `soo:A:B`, where A is an AS number or an IPv4 address, or `0x` with 16 hexadecimal digits";
            ParseCommunityError::new(text, "extended community", expected)
        })
    }
}

/// All 16 hexadecimal digits.
fn octets(digits: &str) -> Option<ExtendedCommunity> {
    // `from_str_radix` would take a sign.
    let whole = digits.len() == 16 && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| whole)?;
    Some(ExtendedCommunity(number.to_be_bytes()))
}

/// `rt:A:B` and `soo:A:B` (RFC 4360 sections 4 and 5, RFC 5668).
fn by_parts(text: &str) -> Option<ExtendedCommunity> {
    let (name, rest) = text.split_once(':')?;
    let subtype = match name {
        "rt" => 2,
        "soo" => 3,
        _ => return None,
    };
    let (administrator, number) = rest.split_once(':')?;
    let [number] = numbers(number, u32::MAX)?;
    let [a, b, c, d] = number.to_be_bytes();
    let short = number <= 0xffff;
    if let Ok(address) = administrator.parse::<std::net::Ipv4Addr>() {
        let [e, f, g, h] = address.octets();
        return short.then_some(ExtendedCommunity([1, subtype, e, f, g, h, c, d]));
    }
    let [asn] = numbers(administrator, u32::MAX)?;
    let [e, f, g, h] = asn.to_be_bytes();
    Some(ExtendedCommunity(match asn {
        0..=0xffff => [0, subtype, g, h, a, b, c, d],
        _ if short => [2, subtype, e, f, g, h, c, d],
        _ => return None,
    }))
}

/// A large community, 12 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity {
    /// The AS that defines the meaning of the rest.
    pub global_administrator: u32,
    /// Local Data Part 1.
    pub local_data_1: u32,
    /// Local Data Part 2.
    pub local_data_2: u32,
}

impl LargeCommunity {
    /// From its three parts.
    pub const fn new(global_administrator: u32, local_data_1: u32, local_data_2: u32) -> Self {
        Self {
            global_administrator,
            local_data_1,
            local_data_2,
        }
    }

    /// From its octets, network byte order.
    pub fn from_octets(octets: &[u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *octets;
        Self::new(
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
            u32::from_be_bytes([i, j, k, l]),
        )
    }

    /// Its octets, network byte order.
    pub fn to_octets(self) -> [u8; 12] {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&self.global_administrator.to_be_bytes());
        octets[4..8].copy_from_slice(&self.local_data_1.to_be_bytes());
        octets[8..].copy_from_slice(&self.local_data_2.to_be_bytes());
        octets
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.global_administrator, self.local_data_1, self.local_data_2
        )
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [a, b, c] = numbers(text, u32::MAX).ok_or(ParseCommunityError {
            text: text.to_owned(),
            what: "large community",
            expected: "`A:B:C`, each 0 to 4294967295",
        })?;
        Ok(Self::new(a, b, c))
    }
}
