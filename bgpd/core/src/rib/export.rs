//! What a route looks like when it goes out (RFC 4271 section 9.2, RFC 4456 section 8).

use std::net::IpAddr;

use weft_bgp_wire::{
    AttributesBuilder, EncodeContext, Family, NextHop, Role, UpdateWriter, code, encode_attributes,
};

use super::Shared;
use super::index::Tagged;
use super::interner::AttributeId;
use super::table::{Entry, Path};
use super::types::{ExportContext, PeerConfig, PeerId, PeerKind, PeerUp, PrefixFilter, SharedLink};

/// Everything that the octets for a neighbour depend on: neighbours with equal settings share an update group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExportSettings {
    pub(crate) family: Family,
    pub(crate) encode: EncodeContext,
    pub(crate) target: PeerKind,
    pub(crate) next_hop_self: bool,
    /// The next hop that we name: `None` where the session has no address of the family.
    pub(crate) local_address: Option<IpAddr>,
    /// As in [`PeerUp`], for the family whose next hops have link-local addresses.
    pub(crate) shared_link: Option<SharedLink>,
    pub(crate) filter: PrefixFilter,
    pub(crate) export_class: u32,
    /// What we are to them (RFC 9234).
    pub(crate) role: Option<Role>,
}

impl ExportSettings {
    pub(crate) fn new(family: Family, config: &PeerConfig, up: &PeerUp) -> Self {
        let local_address = match (family, up.local_address) {
            (Family::Ipv4Unicast, address @ IpAddr::V4(_))
            | (Family::Ipv6Unicast, address @ IpAddr::V6(_)) => Some(address),
            (Family::Ipv6Unicast, IpAddr::V4(_)) => up.local_address_v6.map(IpAddr::V6),
            (Family::Ipv4Unicast, IpAddr::V6(_)) => None,
        };
        let mut add_path = [false; 2];
        add_path[family.index()] = up.add_path_send[family.index()];
        Self {
            family,
            encode: EncodeContext {
                max_len: up.max_message_len,
                four_octet_as: up.four_octet_as,
                add_path,
            },
            target: config.kind,
            next_hop_self: config.next_hop_self,
            local_address,
            shared_link: up.shared_link.filter(|_| family == Family::Ipv6Unicast),
            filter: config.export_filter.clone(),
            export_class: config.export_class,
            role: config.role,
        }
    }

    /// This router as next hop.
    fn own_next_hop(&self) -> Option<NextHop> {
        Some(NextHop {
            address: self.local_address?,
            link_local: self.shared_link.map(|link| link.link_local),
        })
    }

    /// Somebody else as next hop: a link-local address means something to who is on that link (RFC 2545 section 3).
    fn kept_next_hop(&self, received: NextHop) -> NextHop {
        let on_link = |link: SharedLink| matches!(received.address, IpAddr::V6(address) if link.subnet.contains(&address));
        NextHop {
            address: received.address,
            link_local: received
                .link_local
                .filter(|_| self.shared_link.is_some_and(on_link)),
        }
    }

    /// Whoever is told of a route of such a neighbour sends packets here: we are its next hop, or the local next hop of its labels.
    fn leads_here(&self, source: Option<PeerKind>) -> bool {
        let external = |kind| kind == Some(PeerKind::Ebgp);
        source.is_some()
            && (external(Some(self.target)) || (external(source) && self.next_hop_self))
    }

    pub(crate) fn add_path(&self) -> bool {
        self.encode.add_path[self.family.index()]
    }

    /// Labels of several paths of a prefix are joined into one announcement. With ADD-PATH that is done towards other
    /// domains, since a speaker beyond the neighbour may pass one path on; inside, every path is told by itself.
    pub(crate) fn joins(&self) -> bool {
        !self.add_path() || self.target == PeerKind::Ebgp
    }

    /// Which announcement the labels of a path are joined into: without ADD-PATH there is one, with it as many as it
    /// takes for the labels to fit, at 12 octets a label and some for all other attributes.
    pub(crate) fn announcement(&self, local_id: u32) -> u32 {
        if self.add_path() {
            local_id / (self.encode.max_len as u32 / 16)
        } else {
            0
        }
    }
}

/// A set of attributes ready to be sent: where it ends in the batch's octets, and the next hop.
struct Exported {
    end: usize,
    next_hop: NextHop,
}

/// Attribute sets of one batch that are remembered; a power of two.
const KNOWN: usize = 1024;

#[derive(Clone, Copy, Default)]
struct Known {
    batch: u32,
    key: (AttributeId, PeerId),
    result: Option<u32>,
}

/// What the routes of one batch came to. It lives as long as the batch: an attribute id means the same thing
/// throughout. Its memory is used again for the next batch, and is bounded. A run of routes with one set of attributes costs one decision and one encoding.
#[derive(Default)]
pub(crate) struct ExportBatch {
    exported: Vec<Exported>,
    octets: Vec<u8>,
    /// Direct-mapped by attribute id, of this batch where the number says so.
    known: Vec<Known>,
    batch: u32,
    /// Routes whose attributes leave no room for a prefix.
    pub(crate) too_large: u64,
    edit: AttributesBuilder,
}

impl ExportBatch {
    /// Octets and next hop of something exported in this batch.
    pub(crate) fn get(&self, at: u32) -> (&[u8], NextHop) {
        let at = at as usize;
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.exported[before].end);
        let exported = &self.exported[at];
        (&self.octets[start..exported.end], exported.next_hop)
    }

    /// Begins the next batch.
    pub(crate) fn clear(&mut self) {
        self.exported.clear();
        self.octets.clear();
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.known.clear();
        }
        self.too_large = 0;
    }

    /// What `path` of `entry` looks like, or `None` where it is kept back.
    #[inline]
    pub(crate) fn export<P: Tagged>(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        entry: &Entry<P>,
        path: &Path,
    ) -> Option<u32> {
        if !super::types::passes(&settings.filter, || entry.prefix.into()) {
            return None;
        }
        let kept_back = |path: &Path| {
            !shared.unforwardable.is_empty()
                && shared.is_unforwardable(
                    entry.prefix.into(),
                    path,
                    settings.leads_here(shared.kind(path.peer)),
                )
        };
        if entry.paths.len() > 1 && settings.joins() && shared.joinable(path) {
            let announcement = settings.announcement(path.local_id);
            let mates = || {
                entry.paths.iter().filter(move |other| {
                    settings.announcement(other.local_id) == announcement
                        && other.local_id != path.local_id
                        && shared.joinable(other)
                        && !kept_back(other)
                })
            };
            // Of the paths of an announcement the one with the lowest identifier stands for all.
            if settings.add_path()
                && (kept_back(path) || mates().any(|other| other.local_id < path.local_id))
            {
                return None;
            }
            let mut others = mates();
            if kept_back(path) {
                let path = others.next()?;
                return self.make(shared, settings, path, &mut others);
            }
            if mates().next().is_some() {
                return self.make(shared, settings, path, &mut others);
            }
        }
        if kept_back(path) {
            return None;
        }
        let key = (path.attributes, path.peer);
        if self.known.is_empty() {
            // Nothing in it is of a batch yet: they count from 1.
            self.known.resize(KNOWN, Known::default());
            self.batch = self.batch.max(1);
        }
        let at = path.attributes.index() & (KNOWN - 1);
        let known = self.known[at];
        if known.batch == self.batch && known.key == key {
            return known.result;
        }
        let result = self.make(shared, settings, path, &mut std::iter::empty());
        self.known[at] = Known {
            batch: self.batch,
            key,
            result,
        };
        result
    }

    /// Decides, edits and encodes. `mates` are the other paths of the prefix whose labels are to be joined.
    fn make(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        path: &Path,
        mates: &mut dyn Iterator<Item = &Path>,
    ) -> Option<u32> {
        let set = shared.interner.get(path.attributes);
        let key = set.key();
        let source = shared.kind(path.peer);
        let internal = settings.target != PeerKind::Ebgp;
        if key.no_advertise || (key.no_export && !internal) {
            return None;
        }
        if key.only_to_customer.is_some() && settings.role.is_some_and(Role::holds_back) {
            return None;
        }
        // RFC 4456 section 6: from a non-client to clients only.
        if source == Some(PeerKind::Ibgp) && settings.target == PeerKind::Ibgp {
            return None;
        }
        let context = |path: &Path| ExportContext {
            export_class: settings.export_class,
            target: settings.target,
            import_class: shared.import_class(path.peer),
            source: shared.kind(path.peer),
        };
        let edit = &mut self.edit;
        if internal {
            edit.load(set.view());
        } else {
            edit.load_some(set.view(), |kind| {
                // RFC 4271 section 5.1.4: a MED from one neighbouring AS is not passed on to another.
                let kept = kind == code::MULTI_EXIT_DISC && source.is_none();
                kept || !matches!(
                    kind,
                    code::MULTI_EXIT_DISC
                        | code::LOCAL_PREF
                        | code::ORIGINATOR_ID
                        | code::CLUSTER_LIST
                )
            });
        }
        if !internal && source.is_some() {
            edit.keep_transitive_extended_communities();
        }
        if !shared.hook.export(&context(path), set.view(), edit) {
            return None;
        }
        let mut others = mates
            .map(|other| (context(other), shared.interner.get(other.attributes).view()))
            .peekable();
        if others.peek().is_some() {
            shared.hook.join(&mut others, edit);
        }
        if !shared.hook.restrict(&context(path), edit) {
            return None;
        }
        let received = set.next_hop();
        let own = source.is_none() && received.address.is_unspecified();
        let next_hop = if internal {
            if edit.view().local_pref().is_none() {
                edit.set_local_pref(100);
            }
            if matches!(source, Some(PeerKind::Ibgp | PeerKind::IbgpClient)) {
                // RFC 4456 section 8.
                if key.originator_id.is_none() {
                    edit.set_originator_id(shared.router_id(path.peer)?);
                }
                edit.prepend_cluster_id(shared.config.cluster_id);
            }
            let named_self = own || (settings.next_hop_self && source == Some(PeerKind::Ebgp));
            if named_self {
                settings.own_next_hop()?
            } else {
                settings.kept_next_hop(received)
            }
        } else {
            edit.prepend_as(shared.config.asn);
            if key.only_to_customer.is_none() && settings.role.is_some_and(Role::marks_export) {
                edit.set_only_to_customer(shared.config.asn);
            }
            settings.own_next_hop()?
        };
        let start = self.octets.len();
        encode_attributes(
            edit.view(),
            &next_hop,
            settings.family,
            settings.encode.four_octet_as,
            &mut self.octets,
        );
        let section = &self.octets[start..];
        if !UpdateWriter::fits(&settings.encode, settings.family, section, next_hop) {
            self.octets.truncate(start);
            self.too_large += 1;
            return None;
        }
        self.exported.push(Exported {
            end: self.octets.len(),
            next_hop,
        });
        Some((self.exported.len() - 1) as u32)
    }
}
