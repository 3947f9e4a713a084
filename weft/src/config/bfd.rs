//! BFD towards a neighbour (docs/bfd.md).

use schemars::JsonSchema;
use serde::Serialize;

use super::reader::Cursor;
use super::values::number_of;
use super::{defaults, serial};

/// Shortest and longest interval, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<u32> = 50..=60_000;

/// BFD towards a neighbour (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bfd {
    /// Time between packets in both directions, as `300ms` or in milliseconds: 50 ms to 60 s. The slower one of both ends decides.
    #[serde(default = "defaults::bfd_interval")]
    #[schemars(with = "serial::Interval")]
    pub interval: u32,
    /// So many intervals without a packet are a failure. Of ours it is the neighbour that counts them, and of its packets this router counts
    /// as many as the neighbour says.
    #[serde(default = "defaults::bfd_multiplier")]
    #[schemars(range(min = 1))]
    pub multiplier: u8,
    /// The neighbour is behind routers (RFC 5883, UDP port 4784), or on the link (RFC 5881, port 3784). By default on the link where it is an
    /// eBGP neighbour of TTL 1, as in FRR and BIRD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<bool>,
    /// Multihop: the least TTL of packets from the neighbour, which has to send them with 255 (FRR does, BIRD does not). By default what
    /// `ttl_security` says, and without that 1. From a neighbour on the link it is always 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub minimum_ttl: Option<u8>,
    /// Send nothing before the neighbour does.
    #[serde(default)]
    pub passive: bool,
}

impl Default for Bfd {
    fn default() -> Self {
        Self {
            interval: defaults::bfd_interval(),
            multiplier: defaults::bfd_multiplier(),
            multihop: None,
            minimum_ttl: None,
            passive: false,
        }
    }
}

/// `true`, `false`, or the details.
pub(super) fn read(at: &Cursor<'_>) -> Option<Option<Bfd>> {
    if !at.is_mapping() {
        return match at.scalar() {
            Some("true") => Some(Some(Bfd::default())),
            Some("false") => Some(None),
            _ => at
                .expected("true, false, or a mapping such as `{ interval: 300ms, multiplier: 3 }`"),
        };
    }
    let mut fields = at.fields("a mapping")?;
    let interval = fields.optional("interval", |at| interval(&at));
    let multiplier = fields.optional("multiplier", |at| {
        number_of(&at, "a number of intervals", 1, 255)
    });
    let multihop = fields.optional("multihop", |at| at.bool());
    let minimum_ttl = fields.optional("minimum_ttl", |at| number_of(&at, "a TTL", 1, 255));
    if minimum_ttl.is_some()
        && multihop == Some(false)
        && let Some(at) = fields.get("minimum_ttl")
    {
        at.problem(
            "packets from a neighbour on the link come with TTL 255, or are discarded (RFC 5881)",
            Some("remove it, or `multihop: false`".to_owned()),
        );
    }
    let passive = fields.optional("passive", |at| at.bool());
    fields.finish();
    Some(Some(Bfd {
        interval: interval.unwrap_or_else(defaults::bfd_interval),
        multiplier: multiplier.unwrap_or_else(defaults::bfd_multiplier),
        multihop,
        minimum_ttl,
        passive: passive.unwrap_or_default(),
    }))
}

/// Milliseconds.
fn interval(at: &Cursor<'_>) -> Option<u32> {
    let text = at.scalar().unwrap_or_default();
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => match text.strip_suffix('s') {
            Some(number) => (number, 1000),
            None => (text, 1),
        },
    };
    let digits = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
    let number: Option<u32> = number.parse().ok().filter(|_| digits);
    let interval = number.and_then(|number| number.checked_mul(unit));
    match interval.filter(|interval| INTERVALS.contains(interval)) {
        Some(interval) => Some(interval),
        None => at.expected("a time such as `300ms`, from 50ms to 60s"),
    }
}
