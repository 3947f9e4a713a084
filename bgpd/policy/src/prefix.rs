//! Prefix lists: a look-up costs one search among the places where an answer changes, however many lines a list has.

use std::net::IpAddr;

use ipnet::IpNet;

/// A line of a prefix list: `prefix` and what is inside it, with a length from `ge` to `le`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixRange {
    /// The covering prefix.
    pub prefix: IpNet,
    /// Shortest length that matches.
    pub ge: u8,
    /// Longest length that matches.
    pub le: u8,
}

impl PrefixRange {
    /// True where `net` is inside.
    pub fn contains(&self, net: &IpNet) -> bool {
        (self.ge..=self.le).contains(&net.prefix_len()) && self.prefix.contains(net)
    }
}

/// Prefix ranges, any of which may match.
///
/// Ranges that contain an address but are longer than the prefix at that address do not match it, since they only match what is longer
/// still. So which lengths match depends on the address alone, and is the same from one end of a range to the next: a list is a sorted
/// row of addresses, each with the lengths that match from there on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Row<u32>,
    v6: Row<u128>,
    /// 0.0.0.0/0 and ::/0, which have no bit in a row.
    defaults: [bool; 2],
    ranges: usize,
}

/// From each start on, lengths that match: the lowest bit stands for 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row<T> {
    starts: Vec<T>,
    lengths: Vec<T>,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            lengths: Vec::new(),
        }
    }
}

impl<T: Copy + Ord> Row<T> {
    #[inline]
    fn lengths(&self, address: T) -> Option<T> {
        let behind = self.starts.partition_point(|start| *start <= address);
        self.lengths.get(behind.checked_sub(1)?).copied()
    }
}

/// A range of one family, as numbers.
struct Span {
    first: u128,
    last: u128,
    lengths: u128,
}

impl Span {
    fn new(range: &PrefixRange) -> Self {
        let first = number(range.prefix.network());
        let hosts = range.prefix.max_prefix_len() - range.prefix.prefix_len();
        let up_to = |len: u8| u128::MAX.checked_shr(128 - u32::from(len)).unwrap_or(0);
        let (ge, le) = (range.ge.max(range.prefix.prefix_len()), range.le);
        Self {
            first,
            last: first | up_to(hosts),
            lengths: up_to(le) & !up_to(ge.saturating_sub(1)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Where the lengths that match change, and to what. Prefixes contain each other or have nothing in common, so that what contains a place is
/// a stack.
fn row(mut spans: Vec<Span>, last_address: u128) -> Vec<(u128, u128)> {
    spans.sort_unstable_by_key(|span| (span.first, std::cmp::Reverse(span.last)));
    let mut row: Vec<(u128, u128)> = Vec::new();
    let mut put = |start: u128, lengths: u128| match row.last_mut() {
        Some(last) if last.0 == start => last.1 = lengths,
        _ => row.push((start, lengths)),
    };
    let mut open: Vec<(u128, u128)> = Vec::new();
    // Behind the last one everything ends.
    let ends = spans.iter().map(Some).chain([None]);
    for span in ends {
        let is_over = |last: u128| span.is_none_or(|span| last < span.first);
        while let Some((last, _)) = open.pop_if(|(last, _)| is_over(*last)) {
            let around = open.last().map_or(0, |(_, lengths)| *lengths);
            if last < last_address {
                put(last + 1, around);
            }
        }
        if let Some(span) = span {
            let lengths = open.last().map_or(0, |(_, lengths)| *lengths) | span.lengths;
            open.push((span.last, lengths));
            put(span.first, lengths);
        }
    }
    row.dedup_by_key(|(_, lengths)| *lengths);
    row
}

impl PrefixSet {
    /// A list of these lines.
    pub fn new<'a>(ranges: impl IntoIterator<Item = &'a PrefixRange>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut set = Self::default();
        for range in ranges {
            set.ranges += 1;
            let which = usize::from(range.prefix.addr().is_ipv6());
            set.defaults[which] |= range.prefix.prefix_len() == 0 && range.ge == 0;
            [&mut v4, &mut v6][which].push(Span::new(range));
        }
        for (start, lengths) in row(v4, u32::MAX.into()) {
            set.v4.starts.push(start as u32);
            set.v4.lengths.push(lengths as u32);
        }
        (set.v6.starts, set.v6.lengths) = row(v6, u128::MAX).into_iter().unzip();
        set
    }

    /// Lines.
    pub fn len(&self) -> usize {
        self.ranges
    }

    /// True without lines: nothing matches.
    pub fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// True where a line matches.
    #[inline]
    pub fn contains(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(net) => match net.prefix_len().checked_sub(1) {
                None => self.defaults[0],
                Some(bit) => self
                    .v4
                    .lengths(net.network().to_bits())
                    .is_some_and(|lengths| lengths >> bit & 1 == 1),
            },
            IpNet::V6(net) => match net.prefix_len().checked_sub(1) {
                None => self.defaults[1],
                Some(bit) => self
                    .v6
                    .lengths(net.network().to_bits())
                    .is_some_and(|lengths| lengths >> bit & 1 == 1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str, ge: u8, le: u8) -> PrefixRange {
        let prefix = text.parse().unwrap();
        PrefixRange { prefix, ge, le }
    }

    fn set(ranges: &[PrefixRange]) -> PrefixSet {
        PrefixSet::new(ranges)
    }

    fn contains(set: &PrefixSet, text: &str) -> bool {
        set.contains(&text.parse().unwrap())
    }

    #[test]
    fn lengths_count_where_the_address_is_inside() {
        let list = set(&[
            range("10.0.0.0/8", 16, 24),
            range("10.1.0.0/16", 32, 32),
            range("2001:db8::/32", 48, 64),
        ]);
        for (text, found) in [
            ("10.0.0.0/8", false),
            ("10.0.0.0/16", true),
            ("10.255.255.0/24", true),
            ("10.1.2.0/24", true),
            ("10.1.2.0/25", false),
            ("10.1.2.3/32", true),
            ("10.2.2.3/32", false),
            ("11.0.0.0/16", false),
            ("0.0.0.0/0", false),
            ("2001:db8:1::/48", true),
            ("2001:db8:1:2:3::/80", false),
            ("2001:db9::/48", false),
        ] {
            assert_eq!(contains(&list, text), found, "{text}");
        }
    }

    #[test]
    fn a_default_route_is_a_prefix_as_any() {
        let exact = set(&[range("0.0.0.0/0", 0, 0), range("::/0", 0, 0)]);
        assert!(contains(&exact, "0.0.0.0/0") && contains(&exact, "::/0"));
        assert!(!contains(&exact, "0.0.0.0/1") && !contains(&exact, "10.0.0.0/8"));
        let longer = set(&[range("0.0.0.0/0", 25, 32), range("::/0", 49, 128)]);
        assert!(!contains(&longer, "0.0.0.0/0") && !contains(&longer, "192.0.2.0/24"));
        assert!(contains(&longer, "255.255.255.255/32") && contains(&longer, "ffff::/128"));
        assert!(set(&[]).is_empty() && !contains(&set(&[]), "::/0"));
    }

    #[test]
    fn a_list_of_the_size_of_a_routing_registry() {
        let ranges: Vec<PrefixRange> = (0..100_000u32)
            .map(|at| {
                let net = Ipv4Net::new_assert(Ipv4Addr::from((at * 2) << 8 | 1 << 30), 24);
                PrefixRange {
                    prefix: net.into(),
                    ge: 24,
                    le: 24,
                }
            })
            .collect();
        let list = set(&ranges);
        assert_eq!(list.len(), 100_000);
        for range in ranges.iter().step_by(997) {
            assert!(list.contains(&range.prefix));
            let IpNet::V4(net) = range.prefix else {
                unreachable!()
            };
            let next = Ipv4Addr::from(net.addr().to_bits() + 256);
            assert!(!list.contains(&Ipv4Net::new_assert(next, 24).into()));
        }
    }

    /// Prefixes with few bits, so that they contain each other often.
    fn any_net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (0..16u32, 0..=32u8).prop_map(|(bits, len)| {
                let address = Ipv4Addr::from(bits << 28 | bits);
                Ipv4Net::new_assert(address, len).trunc().into()
            }),
            (0..16u128, 0..=128u8).prop_map(|(bits, len)| {
                let address = Ipv6Addr::from(bits << 124 | bits << 60 | bits);
                Ipv6Net::new_assert(address, len).trunc().into()
            }),
        ]
    }

    fn any_range() -> impl Strategy<Value = PrefixRange> {
        (any_net(), any::<[u8; 2]>()).prop_map(|(prefix, [a, b])| {
            let (len, max) = (prefix.prefix_len(), prefix.max_prefix_len());
            let within = |octet: u8| len + octet % (max - len + 1);
            let (a, b) = (within(a), within(b));
            PrefixRange {
                prefix,
                ge: a.min(b),
                le: a.max(b),
            }
        })
    }

    proptest! {
        #[test]
        fn a_set_contains_what_one_of_its_lines_does(
            ranges in prop::collection::vec(any_range(), 0..12),
            nets in prop::collection::vec(any_net(), 1..40),
        ) {
            let list = set(&ranges);
            for net in nets.iter().chain(ranges.iter().map(|range| &range.prefix)) {
                let plain = ranges.iter().any(|range| range.contains(net));
                prop_assert_eq!(list.contains(net), plain, "{}", net);
            }
        }
    }
}
