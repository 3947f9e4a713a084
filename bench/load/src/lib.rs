//! What the senders send: UPDATEs encoded in advance.

pub mod mrt;
mod random;
pub mod rib;

use std::collections::HashSet;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use weft_bgp_wire::{
    Asn, AttributeContext, AttributeDecoder, AttributesBuilder, AttributesView, EncodeContext,
    Family, LargeCommunity, NextHop, Origin, PeerType, UpdateWriter, encode_attributes,
};

pub use random::Random;

/// AS of the speaker under test: no load names it.
pub const SPEAKER_ASN: u32 = 65_000;

/// Attribute sets, each with the prefixes that carry it, in the order of sending.
#[derive(Clone, Debug)]
pub struct Routes(pub Vec<(Vec<u8>, Vec<Ipv4Net>)>);

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// NEXT_HOP.
    pub address: Ipv4Addr,
    /// Prepended; `None` inside the speaker's own AS.
    pub asn: Option<u32>,
}

const CONTEXT: EncodeContext = EncodeContext {
    max_len: 4096,
    four_octet_as: true,
    add_path: [false; 2],
};

impl Routes {
    /// All prefixes, in the order of sending.
    pub fn prefixes(&self) -> impl Iterator<Item = Ipv4Net> {
        self.0.iter().flat_map(|(_, prefixes)| prefixes).copied()
    }

    /// The UPDATEs that announce them, by a session with 4-octet AS numbers and messages of 4,096 octets.
    ///
    /// # Panics
    /// Where attributes leave no room for a prefix: no load has such.
    pub fn announce(&self, sender: Sender) -> Vec<u8> {
        let mut out = Vec::new();
        let next_hop = NextHop::from(std::net::IpAddr::from(sender.address));
        let mut edit = AttributesBuilder::new();
        let mut section = Vec::new();
        for (attributes, prefixes) in &self.0 {
            edit.load(AttributesView::new(attributes));
            match sender.asn {
                Some(asn) => edit.prepend_as(Asn(asn)),
                None => edit.set_local_pref(100),
            }
            section.clear();
            encode_attributes(
                edit.view(),
                &next_hop,
                Family::Ipv4Unicast,
                true,
                &mut section,
            );
            let mut writer =
                UpdateWriter::announce(&mut out, &CONTEXT, Family::Ipv4Unicast, &section, next_hop)
                    .expect("a load's attributes leave room for prefixes");
            for prefix in prefixes {
                writer.push(0, *prefix);
            }
            writer.finish();
        }
        out
    }

    /// The UPDATEs that withdraw them.
    pub fn withdraw(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = UpdateWriter::withdraw(&mut out, &CONTEXT, Family::Ipv4Unicast);
        for prefix in self.prefixes() {
            writer.push(0, prefix);
        }
        writer.finish();
        out
    }

    /// About `count` of the prefixes, spread over all, with longer paths.
    pub fn churn(&self, count: usize) -> Self {
        let total = self.prefixes().count();
        let step = (total / count).max(1);
        let changed = self.0.iter().step_by(step).map(|(attributes, prefixes)| {
            let mut edit = AttributesBuilder::new();
            edit.load(AttributesView::new(attributes));
            edit.prepend_as(Asn(64_496));
            (edit.octets().to_vec(), prefixes.clone())
        });
        let mut left = count;
        let mut routes = Vec::new();
        for (attributes, mut prefixes) in changed {
            prefixes.truncate(left);
            left -= prefixes.len();
            routes.push((attributes, prefixes));
            if left == 0 {
                break;
            }
        }
        Self(routes)
    }
}

/// Distinct prefixes without an end, lengths drawn by `length`.
fn generate(
    random: &mut Random,
    known: &mut HashSet<Ipv4Net>,
    mut length: impl FnMut(&mut Random) -> u8,
) -> Ipv4Net {
    loop {
        let length = length(random);
        // 1.0.0.0 to 9.255.255.255 and 11.0.0.0 to 126.255.255.255, and what follows 128.0.0.0: no special addresses.
        let first = 1 + random.below(222) as u32;
        if matches!(first, 10 | 127 | 169 | 172 | 192 | 198 | 203) {
            continue;
        }
        let address = first << 24 | random.below(1 << 24) as u32;
        let prefix = Ipv4Net::new_assert(address.into(), length).trunc();
        if known.insert(prefix) {
            return prefix;
        }
    }
}

/// The shape of the Internet's table: 8 prefixes an attribute set, in runs of equal attributes, 60 % of them /24.
pub fn internet(count: usize) -> Routes {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut known = HashSet::new();
    let mut prefixes: Vec<Ipv4Net> = (0..count)
        .map(|_| {
            generate(&mut random, &mut known, |random| match random.below(10) {
                0..6 => 24,
                6 => 23,
                7 => 22,
                _ => 16 + random.below(6) as u8,
            })
        })
        .collect();
    // Neighbours in the address space share their origin, as in a real table.
    prefixes.sort_unstable();
    let mut routes = Vec::new();
    let mut left = &prefixes[..];
    while !left.is_empty() {
        let run = (1 + random.below(15) as usize).min(left.len());
        let (run, rest) = left.split_at(run);
        left = rest;
        let mut edit = AttributesBuilder::new();
        edit.set_origin(if random.below(10) == 0 {
            Origin::Incomplete
        } else {
            Origin::Igp
        });
        let hops = 2 + random.below(5);
        let path: Vec<Asn> = (0..hops)
            .map(|_| Asn(1000 + random.below(60_000) as u32))
            .collect();
        edit.set_as_sequence(&path);
        let communities: Vec<u8> = (0..random.below(6))
            .flat_map(|_| (path[0].0 << 16 | random.below(5000) as u32).to_be_bytes())
            .collect();
        if !communities.is_empty() {
            edit.set(0xc0, 8, &communities);
        }
        routes.push((edit.octets().to_vec(), run.to_vec()));
    }
    Routes(routes)
}

/// Attribute sets of a real table on the prefixes of a later one; what is missing is generated. `None` where `data` does
/// not hold them.
///
/// # Errors
/// Where the files cannot be read.
pub fn internet_from(data: &Path, count: usize) -> Result<Option<Routes>> {
    let (table, list) = (
        data.join("routeviews-jinx-20140530.rib.bz2"),
        data.join("prefixes-2020s.txt.gz"),
    );
    if !table.exists() || !list.exists() {
        return Ok(None);
    }
    let mut text = String::new();
    let file = std::fs::File::open(&list).with_context(|| list.display().to_string())?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;
    let mut known: HashSet<Ipv4Net> = HashSet::new();
    let mut prefixes: Vec<Ipv4Net> = text
        .lines()
        .filter_map(|line| line.parse::<Ipv4Net>().ok())
        .filter(|prefix| known.insert(prefix.trunc()))
        .collect();
    if prefixes.len() > count {
        let step = prefixes.len() / count;
        prefixes = prefixes.into_iter().step_by(step).take(count).collect();
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    while prefixes.len() < count {
        prefixes.push(generate(&mut random, &mut known, |_| 24));
    }
    let context = AttributeContext {
        four_octet_as: true,
        peer: PeerType::External,
        has_nlri: false,
        families: [true; 2],
        extended_next_hop: false,
    };
    let mut decoder = AttributeDecoder::new();
    let mut sets: Vec<Vec<u8>> = Vec::new();
    for section in mrt::read(&table)?.into_keys() {
        let Ok(decoded) = decoder.decode(&section, &context) else {
            continue;
        };
        // What the speaker would keep back is not part of the load.
        let attributes = decoded.attributes;
        let (path, well_known) = (attributes.as_path(), 0xffff_0000);
        if path.path_length() > 0
            && path.count(Asn(SPEAKER_ASN)) == 0
            && attributes
                .communities()
                .all(|community| community.0 < well_known)
        {
            sets.push(attributes.octets().to_vec());
        }
    }
    // More prefixes than these sets carry at 8 each: the sets again, by another way.
    let mut routes = Vec::new();
    for (run, chunk) in prefixes.chunks(8).enumerate() {
        let mut edit = AttributesBuilder::new();
        edit.load(AttributesView::new(&sets[run % sets.len()]));
        for _ in 0..run / sets.len() {
            edit.prepend_as(Asn(64_500));
        }
        routes.push((edit.octets().to_vec(), chunk.to_vec()));
    }
    Ok(Some(Routes(routes)))
}

/// Tenants' prefixes of /24 to /32 with a label and a local next hop each: 5,000 VNIs at 500 endpoints.
pub fn tenant(count: usize) -> Routes {
    let mut random = Random(0xfeed_5678_9abc_def1);
    let mut known = HashSet::new();
    let mut sets: std::collections::BTreeMap<(u32, u32), Vec<Ipv4Net>> = Default::default();
    for _ in 0..count {
        let (vni, endpoint) = (random.below(5000) as u32, random.below(500) as u32);
        let prefix = generate(&mut random, &mut known, |random| 24 + random.below(9) as u8);
        sets.entry((vni, endpoint)).or_default().push(prefix);
    }
    let mut routes: Vec<_> = sets
        .into_iter()
        .map(|((vni, endpoint), prefixes)| {
            let mut edit = AttributesBuilder::new();
            edit.set_origin(Origin::Igp);
            edit.set_as_sequence(&[Asn(64_601 + endpoint % 50)]);
            let router = 0xc612_0000 + endpoint;
            edit.set_large_communities([
                LargeCommunity::new(64512, 10_000 + vni, router),
                LargeCommunity::new(64512, 0x4000_0000, 0xc613_0000 + endpoint % 50),
            ]);
            (edit.octets().to_vec(), prefixes)
        })
        .collect();
    // Sets come in no order that a neighbour could profit from.
    for at in (1..routes.len()).rev() {
        routes.swap(at, random.below(at as u64 + 1) as usize);
    }
    Routes(routes)
}
