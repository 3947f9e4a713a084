//! Import policies: what they come to, once for each set of attributes of each neighbour.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_bgp_policy::{Decisions, NextHopEdit, Program, RootId, Route, Scratch, Source};
use weft_bgp_wire::{AttributesBuilder, Family, NextHop};

use super::Shared;
use super::interner::{AttributeId, Interner};
use super::types::{PeerId, PeerKind};

/// Sets of attributes that are remembered; a power of two.
const SLOTS: usize = 1024;

/// Nodes of a tree after which it is grown anew: each prefix of a set of attributes may open another way.
const MOST_NODES: usize = 4096;

/// Direct-mapped: routes come in runs of equal attributes, and a few sets come again and again.
#[derive(Default)]
pub(crate) struct ImportDecisions {
    slots: Vec<Slot>,
    scratch: Scratch,
    edit: AttributesBuilder,
}

/// What a neighbour's program comes to for a set of attributes. It holds references to that set and to those that came of it.
#[derive(Default)]
struct Slot {
    key: Option<Key>,
    tree: Decisions<AttributeId>,
    root: RootId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    peer: PeerId,
    family: Family,
    attributes: AttributeId,
}

impl Slot {
    fn clear(&mut self, interner: &mut Interner) {
        for attributes in self.tree.clear() {
            interner.release(attributes);
        }
        if let Some(key) = self.key.take() {
            interner.release(key.attributes);
        }
    }
}

impl ImportDecisions {
    /// Forgets everything.
    pub(crate) fn forget(&mut self, interner: &mut Interner) {
        for mut slot in std::mem::take(&mut self.slots) {
            slot.clear(interner);
        }
    }
}

/// Source and, where it is a neighbour, its address.
pub(crate) fn origin(shared: &Shared, peer: PeerId) -> (Source, Option<IpAddr>) {
    let peer = shared.peer(peer);
    let source = peer.map_or(Source::Local, |peer| learned_by(peer.config.kind));
    (source, peer.map(|peer| peer.config.address))
}

fn learned_by(kind: PeerKind) -> Source {
    match kind {
        PeerKind::Ebgp => Source::Ebgp,
        PeerKind::Ibgp | PeerKind::IbgpClient => Source::Ibgp,
    }
}

impl Shared {
    /// Where it is remembered what the import policy of `peer` comes to for a set of attributes.
    pub(crate) fn decisions(
        &mut self,
        peer: PeerId,
        family: Family,
        attributes: AttributeId,
    ) -> usize {
        let slots = &mut self.imports.slots;
        if slots.is_empty() {
            slots.resize_with(SLOTS, Slot::default);
        }
        let at = (attributes.index() ^ peer.index() << 5) & (SLOTS - 1);
        let key = Key {
            peer,
            family,
            attributes,
        };
        let slot = &mut slots[at];
        if slot.key != Some(key) || slot.tree.len() > MOST_NODES {
            slot.clear(&mut self.interner);
            self.interner.retain(attributes);
            slot.key = Some(key);
            slot.root = slot.tree.add();
        }
        at
    }

    /// The attributes that a prefix is taken with, with a reference for the caller; `None` where it is rejected.
    pub(crate) fn decide(
        &mut self,
        at: usize,
        program: &Program,
        prefix: &IpNet,
    ) -> Option<AttributeId> {
        let ImportDecisions {
            slots,
            scratch,
            edit,
        } = &mut self.imports;
        let slot = &mut slots[at];
        let key = slot.key?;
        let config = &self.peers.get(key.peer.index())?.as_ref()?.config;
        let interner = &mut self.interner;
        let leaf = slot.tree.decide(slot.root, program, scratch, prefix, || {
            let set = interner.get(key.attributes);
            Route {
                attributes: set.view(),
                next_hop: set.next_hop().address,
                family: key.family,
                source: learned_by(config.kind),
                neighbor: Some(config.address),
                prepends: config.asn,
            }
        });
        let leaf = slot.tree.leaf(leaf);
        leaf.hit();
        if !leaf.is_accepted() {
            return None;
        }
        let attributes = match leaf.value {
            Some(attributes) => attributes,
            None => {
                let attributes = if program.edits_any(leaf.terms()) {
                    let set = interner.get(key.attributes);
                    edit.load(set.view());
                    let mut next_hop = set.next_hop();
                    let change = program.apply(leaf.terms(), config.asn, key.family, edit);
                    if let Some(NextHopEdit::Address(address)) = change.next_hop {
                        next_hop = NextHop::from(address);
                    }
                    interner.intern(edit.view(), next_hop)?
                } else {
                    interner.retain(key.attributes);
                    key.attributes
                };
                *leaf.value.insert(attributes)
            }
        };
        interner.retain(attributes);
        Some(attributes)
    }

    /// Adds what has been decided there to the counts of the neighbour's policy.
    pub(crate) fn count_terms(&mut self, at: usize) {
        let slot = &mut self.imports.slots[at];
        if let Some(key) = slot.key
            && let Some(Some(peer)) = self.peers.get_mut(key.peer.index())
        {
            slot.tree.count(&mut peer.import_terms);
        }
    }
}
