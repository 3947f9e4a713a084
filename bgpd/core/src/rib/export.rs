//! What a route looks like when it goes out (RFC 4271 section 9.2, RFC 4456 section 8).

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use weft_bgp_policy::{
    Decisions, LeafId, NextHopEdit, Program, RootId, Route, RoutePolicy, Scratch,
};
use weft_bgp_wire::{
    Asn, AttributesBuilder, EncodeContext, Family, NextHop, Role, UpdateWriter, code,
    encode_attributes,
};

use super::Shared;
use super::decision::LAST_RESORT;
use super::import::origin;
use super::index::Tagged;
use super::interner::AttributeId;
use super::table::{Entry, Path};
use super::types::{
    AsPathEdit, ExportContext, PeerConfig, PeerId, PeerKind, PeerUp, PrivateAs, SharedLink,
};

/// Everything that the octets for a neighbour depend on: neighbours with equal settings share an update group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExportSettings {
    pub(crate) family: Family,
    pub(crate) encode: EncodeContext,
    pub(crate) target: PeerKind,
    pub(crate) next_hop_self: bool,
    /// The next hop that we name: `None` where the session has no address that the family can have.
    pub(crate) local_address: Option<IpAddr>,
    /// The neighbour takes IPv6 next hops of the family.
    pub(crate) v6_next_hops: bool,
    /// As in [`PeerUp`], for the family whose next hops have link-local addresses.
    pub(crate) shared_link: Option<SharedLink>,
    pub(crate) policy: RoutePolicy,
    pub(crate) export_class: u32,
    /// What we are to them (RFC 9234).
    pub(crate) role: Option<Role>,
    /// What becomes of AS_PATH; where that depends on the neighbour's AS, which one that is.
    pub(crate) as_path: (AsPathEdit, Option<Asn>),
}

impl ExportSettings {
    pub(crate) fn new(family: Family, config: &PeerConfig, up: &PeerUp) -> Self {
        let v6_next_hops = family == Family::Ipv6Unicast || up.extended_next_hop;
        let local_address = match (family, up.local_address) {
            (Family::Ipv4Unicast, address @ IpAddr::V4(_))
            | (Family::Ipv6Unicast, address @ IpAddr::V6(_)) => Some(address),
            (Family::Ipv6Unicast, IpAddr::V4(_)) => up.local_address_v6.map(IpAddr::V6),
            (Family::Ipv4Unicast, address @ IpAddr::V6(_)) => {
                Some(address).filter(|_| v6_next_hops)
            }
        };
        let change = config.as_path;
        let names_neighbor = change.overrides || change.private != PrivateAs::Keep;
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
            v6_next_hops,
            shared_link: up.shared_link.filter(|_| v6_next_hops),
            policy: config.export.clone(),
            export_class: config.export_class,
            role: config.role,
            as_path: (config.as_path, names_neighbor.then_some(config.asn)),
        }
    }

    /// What becomes of AS_PATH on the way to another AS.
    fn edit_as_path(&self, own: Asn, edit: &mut AttributesBuilder) {
        let (change, neighbor) = self.as_path;
        let presented = change.presented(own);
        if neighbor.is_some() {
            edit.map_as_path(|asn| {
                if Some(asn) == neighbor {
                    return Some(if change.overrides { presented } else { asn });
                }
                match change.private {
                    PrivateAs::Remove if asn.is_private() => None,
                    PrivateAs::Replace if asn.is_private() => Some(presented),
                    _ => Some(asn),
                }
            });
        }
        if !change.local_as.is_some_and(|local| local.replaces_own) {
            edit.prepend_as(own);
        }
        if change.local_as.is_some() {
            edit.prepend_as(presented);
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

    /// The next hop of a route from `source`; `named` is what the policy says of it.
    fn next_hop(
        &self,
        source: Option<PeerKind>,
        received: NextHop,
        named: Option<NextHopEdit>,
    ) -> Option<NextHop> {
        let internal = self.target != PeerKind::Ebgp;
        let own = source.is_none() && received.address.is_unspecified();
        let kept = match named {
            Some(NextHopEdit::Address(address)) => return self.taken(address.into()),
            Some(NextHopEdit::Own) => false,
            Some(NextHopEdit::Unchanged) => true,
            None => internal && !(self.next_hop_self && source == Some(PeerKind::Ebgp)),
        };
        match kept && !own {
            true => self.taken(self.kept_next_hop(received)),
            false => self.own_next_hop(),
        }
    }

    /// A next hop that the neighbour takes: without RFC 8950 an IPv4 prefix has one of IPv4.
    fn taken(&self, next_hop: NextHop) -> Option<NextHop> {
        let v6 = matches!(next_hop.address, IpAddr::V6(_));
        (!v6 || self.v6_next_hops).then_some(next_hop)
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

/// Whether a decision of a policy counts as one of its term's: once for each route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hits {
    Counted,
    Ignored,
}

/// Attribute sets of one batch that are remembered; a power of two.
const KNOWN: usize = 1024;

#[derive(Clone, Copy, Default)]
struct Known {
    batch: u32,
    key: (AttributeId, PeerId),
    result: Option<u32>,
    /// With a policy, what that comes to.
    root: RootId,
}

/// A policy, and the terms of it that a route is in.
type Terms<'p> = (&'p Program, SmallVec<[u16; 8]>);

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
    /// What the policy comes to for the sets of attributes of this batch, and what a route of each is exported as.
    decisions: Decisions<Option<u32>>,
    scratch: Scratch,
}

/// A path as a policy sees it.
fn route<'a>(shared: &'a Shared, settings: &ExportSettings, path: &Path) -> Route<'a> {
    let set = shared.interner.get(path.attributes);
    let (source, neighbor) = origin(shared, path.peer);
    Route {
        attributes: set.view(),
        next_hop: set.next_hop().address,
        family: settings.family,
        source,
        neighbor,
        prepends: shared.config.asn,
    }
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

    /// Begins the next batch, and adds to `terms` what was counted of a policy in this one.
    pub(crate) fn clear(&mut self, terms: &mut [u64]) {
        self.exported.clear();
        self.octets.clear();
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.known.clear();
        }
        self.too_large = 0;
        if !self.decisions.is_empty() {
            self.decisions.count(terms);
            drop(self.decisions.clear());
        }
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
        // Nearly every route of a neighbour without a policy.
        if entry.paths.len() == 1
            && matches!(settings.policy, RoutePolicy::Accept)
            && shared.unforwardable.is_empty()
        {
            return self.make_alone(shared, settings, path, None);
        }
        let admitted = self.admit(shared, settings, entry, path, Hits::Counted);
        if entry.paths.len() > 1 && settings.joins() && shared.joinable(path) {
            let mates = self.mates(shared, settings, entry, path);
            // Of the paths of an announcement the one with the lowest identifier stands for all.
            let is_lower = |other: &Path| other.local_id < path.local_id;
            if settings.add_path() && (admitted.is_none() || mates.iter().any(is_lower)) {
                return None;
            }
            let (path, mates, admitted) = match admitted {
                Some(_) => (path, &mates[..], admitted),
                // Another one stands for the others.
                None => {
                    let (first, others) = mates.split_first()?;
                    (
                        first,
                        others,
                        self.admit(shared, settings, entry, first, Hits::Ignored),
                    )
                }
            };
            if !mates.is_empty() || admitted.is_none() {
                let terms = admitted?.map(|(program, leaf)| self.terms(program, leaf));
                return self.make(shared, settings, path, mates, terms);
            }
            return self.make_alone(shared, settings, path, admitted?);
        }
        self.make_alone(shared, settings, path, admitted?)
    }

    /// Whether a path may go out at all, and what the policy says of it.
    #[inline]
    fn admit<'p, P: Tagged>(
        &mut self,
        shared: &Shared,
        settings: &'p ExportSettings,
        entry: &Entry<P>,
        path: &Path,
        hits: Hits,
    ) -> Option<Option<(&'p Program, LeafId)>> {
        let leads_here = || settings.leads_here(shared.kind(path.peer));
        if !shared.unforwardable.is_empty()
            && shared.is_unforwardable(entry.prefix.into(), path, leads_here())
        {
            return None;
        }
        match &settings.policy {
            RoutePolicy::Accept => Some(None),
            RoutePolicy::Reject | RoutePolicy::Missing => None,
            RoutePolicy::Program(program) => {
                let leaf = self.decide(shared, settings, program, entry, path);
                let decided = self.decisions.leaf(leaf);
                if hits == Hits::Counted {
                    decided.hit();
                }
                decided.is_accepted().then_some(Some((&**program, leaf)))
            }
        }
    }

    /// Of a path whose labels are joined with none.
    #[inline]
    fn make_alone(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        path: &Path,
        leaf: Option<(&Program, LeafId)>,
    ) -> Option<u32> {
        if let Some((program, leaf)) = leaf {
            if let Some(known) = self.decisions.leaf(leaf).value {
                return known;
            }
            let terms = self.terms(program, leaf);
            let result = self.make(shared, settings, path, &[], Some(terms));
            self.decisions.leaf(leaf).value = Some(result);
            return result;
        }
        let at = self.slot((path.attributes, path.peer));
        match at {
            Ok(known) => known.result,
            Err(at) => {
                let result = self.make(shared, settings, path, &[], None);
                self.known[at] = Known {
                    batch: self.batch,
                    key: (path.attributes, path.peer),
                    result,
                    root: RootId::default(),
                };
                result
            }
        }
    }

    /// What is known of a set of attributes from somebody, or where to put it.
    #[inline]
    fn slot(&mut self, key: (AttributeId, PeerId)) -> Result<Known, usize> {
        if self.known.is_empty() {
            // Nothing in it is of a batch yet: they count from 1.
            self.known.resize(KNOWN, Known::default());
            self.batch = self.batch.max(1);
        }
        let at = key.0.index() & (KNOWN - 1);
        let known = self.known[at];
        match known.batch == self.batch && known.key == key {
            true => Ok(known),
            false => Err(at),
        }
    }

    /// What the policy says of a path.
    fn decide<P: Tagged>(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        program: &Program,
        entry: &Entry<P>,
        path: &Path,
    ) -> LeafId {
        let key = (path.attributes, path.peer);
        let root = match self.slot(key) {
            Ok(known) => known.root,
            Err(at) => {
                let root = self.decisions.add();
                self.known[at] = Known {
                    batch: self.batch,
                    key,
                    result: None,
                    root,
                };
                root
            }
        };
        let route = || route(shared, settings, path);
        let prefix = entry.prefix.into();
        self.decisions
            .decide(root, program, &mut self.scratch, &prefix, route)
    }

    fn terms<'p>(&mut self, program: &'p Program, leaf: LeafId) -> Terms<'p> {
        (program, self.decisions.leaf(leaf).terms().into())
    }

    /// The other paths of the prefix whose labels are joined with those of this one, and that may go out too.
    fn mates<P: Tagged>(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        entry: &Entry<P>,
        path: &Path,
    ) -> SmallVec<[Path; 4]> {
        let announcement = settings.announcement(path.local_id);
        let others = entry.paths.iter().filter(|other| {
            settings.announcement(other.local_id) == announcement
                && other.local_id != path.local_id
                && shared.joinable(other)
        });
        let mut mates: SmallVec<[Path; 4]> = others.copied().collect();
        mates.retain(|other| {
            self.admit(shared, settings, entry, other, Hits::Ignored)
                .is_some()
        });
        mates
    }

    /// Decides, edits and encodes. `mates` are the other paths of the prefix whose labels are to be joined.
    fn make(
        &mut self,
        shared: &Shared,
        settings: &ExportSettings,
        path: &Path,
        mates: &[Path],
        terms: Option<Terms<'_>>,
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
        let doubtful = || {
            let mut joined = std::iter::once(path).chain(mates);
            joined.all(|path| shared.is_last_resort(path.peer))
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
            .iter()
            .map(|other| (context(other), shared.interner.get(other.attributes).view()))
            .peekable();
        if others.peek().is_some() {
            shared.hook.join(&mut others, edit);
        }
        if !shared.hook.restrict(&context(path), edit) {
            return None;
        }
        let mut named = None;
        if let Some((program, terms)) = terms {
            named = program
                .apply(&terms, shared.config.asn, settings.family, edit)
                .next_hop;
            if !internal {
                // RFC 4271 section 5.1.5: not told to another AS.
                edit.remove(code::LOCAL_PREF);
            }
        }
        if internal {
            if doubtful() {
                edit.set_local_pref(LAST_RESORT);
            } else if edit.view().local_pref().is_none() {
                edit.set_local_pref(100);
            }
            if matches!(source, Some(PeerKind::Ibgp | PeerKind::IbgpClient)) {
                // RFC 4456 section 8.
                if key.originator_id.is_none() {
                    edit.set_originator_id(shared.router_id(path.peer)?);
                }
                edit.prepend_cluster_id(shared.config.cluster_id);
            }
        } else {
            let own = shared.config.asn;
            settings.edit_as_path(own, edit);
            if key.only_to_customer.is_none() && settings.role.is_some_and(Role::marks_export) {
                edit.set_only_to_customer(settings.as_path.0.presented(own));
            }
        }
        let next_hop = settings.next_hop(source, set.next_hop(), named)?;
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

/// Two policies, and what they come to for the same routes.
pub(crate) struct PolicyChange<'p> {
    settings: &'p ExportSettings,
    policies: [&'p RoutePolicy; 2],
    sides: [Decisions<()>; 2],
    roots: FxHashMap<(AttributeId, PeerId), [RootId; 2]>,
    scratch: Scratch,
}

impl<'p> PolicyChange<'p> {
    /// From the policy of these settings to another one.
    pub(crate) fn new(settings: &'p ExportSettings, policy: &'p RoutePolicy) -> Self {
        Self {
            settings,
            policies: [&settings.policy, policy],
            sides: [Decisions::default(), Decisions::default()],
            roots: FxHashMap::default(),
            scratch: Scratch::default(),
        }
    }

    /// A path of this prefix passes by one and not by the other, or otherwise.
    pub(crate) fn differs<P: Tagged>(&mut self, shared: &Shared, entry: &Entry<P>) -> bool {
        if self.roots.len() > KNOWN {
            self.roots.clear();
            for side in &mut self.sides {
                drop(side.clear());
            }
        }
        let prefix = entry.prefix.into();
        entry
            .paths
            .iter()
            .any(|path| self.differs_at(shared, &prefix, path))
    }

    fn differs_at(&mut self, shared: &Shared, prefix: &IpNet, path: &Path) -> bool {
        let Self {
            settings,
            policies,
            sides,
            roots,
            scratch,
        } = self;
        let roots = roots
            .entry((path.attributes, path.peer))
            .or_insert_with(|| sides.each_mut().map(Decisions::add));
        let mut found = [None, None];
        for (side, edits) in found.iter_mut().enumerate() {
            *edits = match policies[side] {
                RoutePolicy::Accept => Some(Vec::new()),
                RoutePolicy::Reject | RoutePolicy::Missing => None,
                RoutePolicy::Program(program) => {
                    let route = || route(shared, settings, path);
                    let tree = &mut sides[side];
                    let leaf = tree.decide(roots[side], program, scratch, prefix, route);
                    let leaf = tree.leaf(leaf);
                    let edits = || program.edits_of(leaf.terms()).collect();
                    leaf.is_accepted().then(edits)
                }
            };
        }
        found[0] != found[1]
    }
}
