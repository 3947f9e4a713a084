//! Edits canonical octets in place.

use std::borrow::Cow;

use super::{AttributesView, code, flags, put_attribute, split_attribute};
use crate::as_path::without_confederation;
use crate::{Asn, Community, ExtendedCommunity, LargeCommunity, Origin};

const WELL_KNOWN: u8 = flags::TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;
const OPTIONAL_NON_TRANSITIVE: u8 = flags::OPTIONAL;

/// Builds canonical octets: attributes stay sorted, each at most once. Made to be reused: [`AttributesBuilder::load`]
/// keeps the allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributesBuilder {
    octets: Vec<u8>,
    scratch: Vec<u8>,
}

impl AttributesBuilder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts over from other attributes.
    pub fn load(&mut self, from: AttributesView<'_>) {
        self.octets.clear();
        self.octets.extend_from_slice(from.octets());
    }

    /// Starts over from those of other attributes whose type codes `keep` confirms.
    pub fn load_some(&mut self, from: AttributesView<'_>, keep: impl Fn(u8) -> bool) {
        self.octets.clear();
        let mut rest = from.octets();
        while let Some((attribute, tail)) = split_attribute(rest) {
            if keep(attribute.code) {
                self.octets
                    .extend_from_slice(&rest[..rest.len() - tail.len()]);
            }
            rest = tail;
        }
    }

    /// What it holds now.
    pub fn view(&self) -> AttributesView<'_> {
        AttributesView::new(&self.octets)
    }

    /// The canonical octets.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Where the attribute stands, or, empty, where it would.
    fn range(&self, code: u8) -> std::ops::Range<usize> {
        let mut rest = &self.octets[..];
        while let Some((attribute, tail)) = split_attribute(rest) {
            if attribute.code >= code {
                let start = self.octets.len() - rest.len();
                let end = if attribute.code == code {
                    self.octets.len() - tail.len()
                } else {
                    start
                };
                return start..end;
            }
            rest = tail;
        }
        let end = self.octets.len() - rest.len();
        end..end
    }

    /// Sets an attribute, replacing the one of the same type code. `value` holds at most 65,535 octets.
    pub fn set(&mut self, flags: u8, code: u8, value: &[u8]) {
        let range = self.range(code);
        self.scratch.clear();
        put_attribute(&mut self.scratch, flags, code, value);
        self.octets.splice(range, self.scratch.drain(..));
    }

    /// Removes an attribute, where it is there.
    pub fn remove(&mut self, code: u8) {
        let range = self.range(code);
        self.octets.drain(range);
    }

    /// Sets ORIGIN.
    pub fn set_origin(&mut self, origin: Origin) {
        self.set(WELL_KNOWN, code::ORIGIN, &[origin as u8]);
    }

    /// Sets an empty AS_PATH, as on a route that originates here.
    pub fn set_empty_as_path(&mut self) {
        self.set(WELL_KNOWN, code::AS_PATH, &[]);
    }

    /// Sets AS_PATH to one sequence of at most 255 AS numbers.
    pub fn set_as_sequence(&mut self, asns: &[Asn]) {
        let mut value = vec![2, asns.len().min(255) as u8];
        for asn in asns.iter().take(255) {
            value.extend_from_slice(&asn.0.to_be_bytes());
        }
        self.set(
            WELL_KNOWN,
            code::AS_PATH,
            if asns.is_empty() { &[] } else { &value },
        );
    }

    /// Puts `asn` in front of AS_PATH, as when a route leaves the AS (RFC 4271 section 5.1.2). Confederation segments go: they must
    /// not leave it (RFC 5065 section 4).
    pub fn prepend_as(&mut self, asn: Asn) {
        let old = self.view().as_path();
        let rest = match old.segments().all(|segment| segment.kind.leaves_the_as()) {
            true => Cow::Borrowed(old.0),
            false => Cow::Owned(without_confederation(old)),
        };
        let mut value = Vec::with_capacity(rest.len() + 6);
        match &*rest {
            [2, count, tail @ ..] if *count < 255 => {
                value.extend_from_slice(&[2, count + 1]);
                value.extend_from_slice(&asn.0.to_be_bytes());
                value.extend_from_slice(tail);
            }
            _ => {
                value.extend_from_slice(&[2, 1]);
                value.extend_from_slice(&asn.0.to_be_bytes());
                value.extend_from_slice(&rest);
            }
        }
        self.set(WELL_KNOWN, code::AS_PATH, &value);
    }

    /// Puts other AS numbers in the place of those in AS_PATH, or takes some away; a segment of which nothing is left goes too.
    pub fn map_as_path(&mut self, mut map: impl FnMut(Asn) -> Option<Asn>) {
        let old = self.view().as_path();
        let mut value = Vec::with_capacity(old.0.len());
        for segment in old.segments() {
            let start = value.len();
            value.extend_from_slice(&[segment.kind.octet(), 0]);
            for asn in segment.asns().filter_map(&mut map) {
                value[start + 1] += 1;
                value.extend_from_slice(&asn.0.to_be_bytes());
            }
            if value[start + 1] == 0 {
                value.truncate(start);
            }
        }
        self.set(WELL_KNOWN, code::AS_PATH, &value);
    }

    /// Sets MULTI_EXIT_DISC.
    pub fn set_med(&mut self, med: u32) {
        self.set(
            OPTIONAL_NON_TRANSITIVE,
            code::MULTI_EXIT_DISC,
            &med.to_be_bytes(),
        );
    }

    /// Sets LOCAL_PREF.
    pub fn set_local_pref(&mut self, local_pref: u32) {
        self.set(WELL_KNOWN, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }

    /// Sets ORIGINATOR_ID.
    pub fn set_originator_id(&mut self, id: crate::RouterId) {
        self.set(OPTIONAL_NON_TRANSITIVE, code::ORIGINATOR_ID, &id.0.octets());
    }

    /// Puts a cluster id in front of CLUSTER_LIST.
    pub fn prepend_cluster_id(&mut self, id: std::net::Ipv4Addr) {
        let mut value = id.octets().to_vec();
        value.extend_from_slice(self.view().value(code::CLUSTER_LIST).unwrap_or_default());
        self.set(OPTIONAL_NON_TRANSITIVE, code::CLUSTER_LIST, &value);
    }

    /// Sets ONLY_TO_CUSTOMER.
    pub fn set_only_to_customer(&mut self, asn: Asn) {
        let value = asn.0.to_be_bytes();
        self.set(OPTIONAL_TRANSITIVE, code::ONLY_TO_CUSTOMER, &value);
    }

    /// Removes extended communities that do not cross the border of an AS (RFC 4360 section 6, RFC 5701 section 2).
    pub fn keep_transitive_extended_communities(&mut self) {
        self.keep_transitive::<8>(code::EXTENDED_COMMUNITIES);
        self.keep_transitive::<20>(code::IPV6_EXTENDED_COMMUNITIES);
    }

    /// The same of an attribute with communities of `N` octets.
    fn keep_transitive<const N: usize>(&mut self, code: u8) {
        const NON_TRANSITIVE: u8 = 0x40;
        let value = self.view().value(code);
        let communities = value.unwrap_or_default().as_chunks::<N>().0;
        let stays = |community: &&[u8; N]| community[0] & NON_TRANSITIVE == 0;
        let kept: Vec<[u8; N]> = communities.iter().filter(stays).copied().collect();
        if kept.len() == communities.len() {
            return;
        }
        if kept.is_empty() {
            self.remove(code);
        } else {
            let flags = self
                .view()
                .iter()
                .find(|attribute| attribute.code == code)
                .map_or(OPTIONAL_TRANSITIVE, |attribute| attribute.flags);
            self.set(flags, code, kept.as_flattened());
        }
    }

    /// Sets COMMUNITIES; removes it where there are none. At most 16,383 fit.
    pub fn set_communities(&mut self, communities: impl IntoIterator<Item = Community>) {
        let octets = communities.into_iter().map(|one| one.0.to_be_bytes());
        self.set_list(code::COMMUNITIES, octets);
    }

    /// Sets EXTENDED COMMUNITIES; removes it where there are none. At most 8,191 fit.
    pub fn set_extended_communities(
        &mut self,
        communities: impl IntoIterator<Item = ExtendedCommunity>,
    ) {
        let octets = communities.into_iter().map(|one| one.0);
        self.set_list(code::EXTENDED_COMMUNITIES, octets);
    }

    /// Sets LARGE_COMMUNITY; removes it where there are none. The caller gives them sorted and without duplicates; at
    /// most 5,461 fit.
    pub fn set_large_communities(&mut self, communities: impl IntoIterator<Item = LargeCommunity>) {
        let octets = communities.into_iter().map(LargeCommunity::to_octets);
        self.set_list(code::LARGE_COMMUNITY, octets);
    }

    fn set_list<const N: usize>(&mut self, code: u8, items: impl Iterator<Item = [u8; N]>) {
        let value: Vec<[u8; N]> = items.collect();
        if value.is_empty() {
            self.remove(code);
        } else {
            self.set(OPTIONAL_TRANSITIVE, code, value.as_flattened());
        }
    }
}
