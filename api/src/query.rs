//! Query parameters: typed, or a problem that names every one that is wrong.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use weft_bgp_wire::{CommunityPattern, LargeCommunityPattern};

use crate::problem::{InvalidParameter, Problem};
use crate::types::{Family, PrefixMatch};

/// Items on a page where the query does not say.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// Most items on a page.
pub(crate) const MAX_LIMIT: usize = 1000;

impl PrefixMatch {
    /// Whether `net` is selected; of the covering ones each is for [`PrefixMatch::Longest`].
    pub fn selects(self, net: &IpNet, wanted: &IpNet) -> bool {
        match self {
            Self::Exact => net == wanted,
            Self::Longer => wanted.contains(net),
            Self::Shorter | Self::Longest => net.contains(wanted),
        }
    }
}

/// Which BGP routes are wanted; every condition must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Only this family.
    pub family: Option<Family>,
    /// Only this prefix, by `prefix_match`.
    pub prefix: Option<IpNet>,
    /// How `prefix` selects.
    pub prefix_match: PrefixMatch,
    /// Only paths from this neighbour.
    pub neighbor: Option<IpAddr>,
    /// Only paths with a community of this pattern.
    pub community: Option<CommunityPattern>,
    /// Only paths with a large community of this pattern.
    pub large_community: Option<LargeCommunityPattern>,
    /// Only paths with a label of this VNI.
    pub vni: Option<u32>,
    /// Only prefixes behind this one, in the order of the answer.
    pub after: Option<IpNet>,
    /// Most routes in the answer, 1..=1000.
    pub limit: usize,
}

/// Which routes of a tenant are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRouteQuery {
    /// Only this prefix, by `prefix_match`.
    pub prefix: Option<IpNet>,
    /// How `prefix` selects.
    pub prefix_match: PrefixMatch,
    /// Only prefixes behind this one.
    pub after: Option<IpNet>,
    /// Most routes in the answer, 1..=1000.
    pub limit: usize,
}

/// Which refused routes of the kernel are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelQuery {
    /// Skip this many: the cursor.
    pub offset: usize,
    /// Most routes in the answer, 1..=1000.
    pub limit: usize,
}

/// The pairs of a query, taken one by one; what is left or does not fit becomes the problem.
struct Parameters {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
    invalid: Vec<InvalidParameter>,
}

impl Parameters {
    fn new(pairs: Vec<(String, String)>) -> Self {
        Self {
            pairs,
            asked: Vec::new(),
            invalid: Vec::new(),
        }
    }

    fn refuse(&mut self, name: &str, found: &str, reason: &str, allowed: impl Into<String>) {
        self.invalid.push(InvalidParameter {
            name: name.to_owned(),
            found: found.to_owned(),
            reason: reason.to_owned(),
            allowed: allowed.into(),
        });
    }

    fn take<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(name);
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, text) = self.pairs.remove(at);
        if let Some(at) = self.pairs.iter().position(|(key, _)| key == name) {
            let (_, again) = self.pairs.remove(at);
            self.refuse(name, &again, "given twice", "one value");
        }
        let value = parse(&text);
        if value.is_none() {
            self.refuse(name, &text, "not a value of this parameter", allowed);
        }
        value
    }

    fn word<T: Copy>(
        &mut self,
        name: &'static str,
        values: &[T],
        word: fn(T) -> &'static str,
    ) -> Option<T> {
        let words: Vec<&str> = values.iter().map(|value| word(*value)).collect();
        self.take(name, &words.join(", "), |text| {
            values.iter().copied().find(|value| word(*value) == text)
        })
    }

    fn parse<T: FromStr>(&mut self, name: &'static str, allowed: &str) -> Option<T> {
        self.take(name, allowed, |text| text.parse().ok())
    }

    /// One that has to be there.
    fn required<T: FromStr>(&mut self, name: &'static str, allowed: &str) -> Option<T> {
        if !self.pairs.iter().any(|(key, _)| key == name) {
            self.asked.push(name);
            self.refuse(name, "", "missing", allowed);
            return None;
        }
        self.parse(name, allowed)
    }

    /// A prefix, or an address, which is the prefix of it alone; and how it selects.
    fn prefix(&mut self) -> (Option<IpNet>, PrefixMatch) {
        let mut address = false;
        let allowed = "a prefix such as 10.0.1.0/24, or an address";
        let prefix = self.take("prefix", allowed, |text| {
            text.parse().ok().or_else(|| {
                address = true;
                text.parse().ok().map(|one: IpAddr| IpNet::from(one))
            })
        });
        if let Some(prefix) = prefix.filter(|prefix| prefix.trunc() != *prefix) {
            let suggestion = prefix.trunc().to_string();
            self.refuse(
                "prefix",
                &prefix.to_string(),
                "bits are set behind the prefix length",
                suggestion,
            );
        }
        let how = self.word("match", PrefixMatch::ALL, PrefixMatch::as_str);
        if let Some(how) = how.filter(|_| prefix.is_none() && self.invalid.is_empty()) {
            let reason = "selects by a prefix, and there is none";
            self.refuse("match", how.as_str(), reason, "it beside `prefix`");
        }
        let default = match address {
            true => PrefixMatch::Longest,
            false => PrefixMatch::Exact,
        };
        (prefix, how.unwrap_or(default))
    }

    fn number(&mut self, name: &'static str, from: usize, to: usize) -> Option<usize> {
        self.take(name, &format!("{from} to {to}"), |text| {
            text.parse()
                .ok()
                .filter(|value| (from..=to).contains(value))
        })
    }

    fn limit(&mut self) -> usize {
        self.number("limit", 1, MAX_LIMIT).unwrap_or(DEFAULT_LIMIT)
    }

    fn cursor<T: FromStr>(&mut self) -> Option<T> {
        self.parse("cursor", "the next_cursor of the page before")
    }

    fn finish<T>(mut self, query: T) -> Result<T, Problem> {
        let allowed = match self.asked.is_empty() {
            true => "no parameter".to_owned(),
            false => self.asked.join(", "),
        };
        for (name, value) in std::mem::take(&mut self.pairs) {
            self.refuse(&name, &value, "unknown parameter", allowed.clone());
        }
        match self.invalid.is_empty() {
            true => Ok(query),
            false => Err(Problem::bad_query(self.invalid)),
        }
    }
}

/// A query without parameters.
pub(crate) fn nothing(pairs: Vec<(String, String)>) -> Result<(), Problem> {
    Parameters::new(pairs).finish(())
}

/// A packet whose way is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from, where that matters.
    pub from: Option<IpAddr>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Of TCP, UDP or SCTP.
    pub source_port: Option<u16>,
    /// Of the same.
    pub destination_port: Option<u16>,
    /// Packets are sent.
    pub live: bool,
    /// Of so many octets, with their IP header.
    pub size: Option<u16>,
}

impl TraceQuery {
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut parameters = Parameters::new(pairs);
        let destination = parameters.required("destination", "an IP address");
        let from = parameters.parse("from", "an IP address");
        let dscp = parameters.number("dscp", 0, 63).unwrap_or_default();
        let live = parameters.parse("live", "true or false");
        let size = parameters.number("size", 96, 65_000);
        let protocol = parameters.number("protocol", 0, 255);
        let protocol = protocol.and_then(|number| u8::try_from(number).ok());
        let mut port = |name: &'static str| {
            let number = parameters.number(name, 0, 65535)?;
            u16::try_from(number).ok()
        };
        let query = Self {
            // Where there is none the parameters are refused.
            destination: destination.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            from,
            dscp: u8::try_from(dscp).unwrap_or_default(),
            protocol,
            source_port: port("source_port"),
            destination_port: port("destination_port"),
            live: live.unwrap_or_default(),
            size: size.and_then(|size| u16::try_from(size).ok()),
        };
        parameters.finish(query)
    }
}

/// A tenant's name alone, or nothing.
pub(crate) fn tenant(pairs: Vec<(String, String)>) -> Result<Option<String>, Problem> {
    let mut parameters = Parameters::new(pairs);
    let tenant = parameters.parse("tenant", "the name of a tenant");
    parameters.finish(tenant)
}

impl RouteQuery {
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut parameters = Parameters::new(pairs);
        let family = parameters.word("family", Family::ALL, Family::as_str);
        let (prefix, prefix_match) = parameters.prefix();
        // Three parts are those of a large community, whatever it is asked for by.
        for (key, value) in &mut parameters.pairs {
            if key == "community" && value.split(':').count() == 3 {
                "large_community".clone_into(key);
            }
        }
        let query = Self {
            family,
            prefix,
            prefix_match,
            neighbor: parameters.parse("neighbor", "the IP address of a neighbour"),
            community: parameters.parse(
                "community",
                "A:B, each 0 to 65535, a range such as 100-199, or *",
            ),
            large_community: parameters.parse(
                "large_community",
                "A:B:C, each 0 to 4294967295, a range such as 10001-10099, or *",
            ),
            vni: parameters
                .number("vni", 1, 0xff_fffe)
                .and_then(|vni| u32::try_from(vni).ok()),
            after: parameters.cursor(),
            limit: parameters.limit(),
        };
        parameters.finish(query)
    }
}

impl TenantRouteQuery {
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut parameters = Parameters::new(pairs);
        let (prefix, prefix_match) = parameters.prefix();
        let query = Self {
            prefix,
            prefix_match,
            after: parameters.cursor(),
            limit: parameters.limit(),
        };
        parameters.finish(query)
    }
}

impl KernelQuery {
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut parameters = Parameters::new(pairs);
        let query = Self {
            offset: parameters.cursor().unwrap_or_default(),
            limit: parameters.limit(),
        };
        parameters.finish(query)
    }
}
