//! The Routing Information Base: Adj-RIBs-In and Loc-RIB in one table a family, the decision process, update groups.
//!
//! [`Rib`] knows no session and no time. Octets of UPDATEs enter with [`Rib::handle_update`], octets to send leave with
//! [`Rib::poll_transmit`], which is only asked where the neighbour has room: a queue of changes waits, not of messages.
//! Paths are 16 octets beside interned attributes; the Adj-RIB-Out is the source of what was announced, 4 octets a
//! prefix an update group.

mod decision;
mod export;
mod family;
mod group;
mod hash;
mod import;
mod index;
mod interner;
mod next_hop;
mod query;
mod slab;
mod table;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use smallvec::SmallVec;
use weft_bgp_policy::RoutePolicy;
use weft_bgp_wire::{
    AttributeContext, AttributeDecoder, AttributesBuilder, AttributesView, Family, MpReach,
    NextHop, Nlri, NlriError, NlriIter, Notification, PeerType, Role, RouterId, Treatment,
    UpdateView, cease, error_code, update_error,
};

use decision::Candidate;
use export::ExportSettings;
use family::FamilyRib;
use hash::HashKey;
use import::ImportDecisions;
use index::Tagged;
use interner::{AttributeId, Interner};
use table::{Path, WARM};
pub use types::*;

/// Prefixes reported at once.
const REPORT_BATCH: usize = 8192;

struct Peer {
    config: PeerConfig,
    up: Option<PeerUp>,
    /// Kept over a restart, for the routes that are.
    router_id: Option<RouterId>,
    /// Packets may not reach it.
    last_resort: bool,
    counters: PeerCounters,
    /// It was said that it is near its limit, by [`Family::index`].
    warned: [bool; 2],
    /// Routes from it that were in each term of its import policy.
    import_terms: Vec<u64>,
}

/// A count for each term of a policy.
fn terms(policy: &RoutePolicy) -> Vec<u64> {
    vec![0; policy.program().map_or(0, |program| program.len())]
}

/// What the families have in common.
struct Shared {
    config: RibConfig,
    interner: Interner,
    peers: Vec<Option<Peer>>,
    hook: Box<dyn ExportHook>,
    imports: ImportDecisions,
    /// Prefixes that packets cannot be forwarded to here.
    unforwardable: BTreeMap<IpNet, Unforwardable>,
}

impl Shared {
    fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(peer.index())?.as_ref()
    }

    fn kind(&self, peer: PeerId) -> Option<PeerKind> {
        Some(self.peer(peer)?.config.kind)
    }

    /// It may send several paths of a prefix. While its session is down that is not known, and taken to be so.
    fn receives_add_path(&self, peer: PeerId, family: Family) -> bool {
        self.peer(peer)
            .and_then(|peer| peer.up.as_ref())
            .is_none_or(|up| up.add_path_receive[family.index()])
    }

    fn router_id(&self, peer: PeerId) -> Option<RouterId> {
        self.peer(peer)?.router_id
    }

    /// Paths of one prefix that it may have.
    fn max_paths(&self, peer: PeerId) -> usize {
        self.peer(peer)
            .map_or(usize::MAX, |peer| peer.config.max_paths as usize)
    }

    fn import_class(&self, peer: PeerId) -> u32 {
        self.peer(peer).map_or(0, |peer| peer.config.import_class)
    }

    /// Forgets what was remembered of sets of attributes that no route may have any more.
    fn forget(&mut self) {
        self.interner.forget();
        self.imports.forget(&mut self.interner);
    }

    fn count(&mut self, peer: PeerId, family: Family, by: i32) {
        if let Some(Some(peer)) = self.peers.get_mut(peer.index()) {
            let count = &mut peer.counters.accepted[family.index()];
            *count = count.saturating_add_signed(by);
        }
    }

    /// The router is part of an overlay.
    fn labels(&self) -> bool {
        self.config.overlay_administrator.is_some()
    }

    fn reports(&self, net: IpNet) -> bool {
        self.config
            .report
            .iter()
            .any(|covering| covering.contains(&net))
    }

    /// As [`Path::within`] has it: what is not reported leads no packets here.
    fn within(&self, prefix: IpNet, attributes: AttributeId) -> u8 {
        let next_hop = self.interner.get(attributes).next_hop.address;
        if prefix.contains(&next_hop) && self.reports(prefix) {
            prefix.prefix_len() + 1
        } else {
            0
        }
    }

    /// Whether packets by this path would not go on from here; `leads_here` says that a neighbour that is told of it sends them here.
    pub(crate) fn is_unforwardable(&self, prefix: IpNet, path: &Path, leads_here: bool) -> bool {
        let Some(tables) = self.unforwardable.get(&prefix) else {
            return false;
        };
        let set = self.interner.get(path.attributes);
        match set.key().labelled {
            // The labels of our own tenants lead here whoever tells of them.
            true if leads_here || path.peer == PeerId::LOCAL => self
                .hook
                .has_labels_of_these_alone(set.view(), &tables.vnis),
            labelled => leads_here && !labelled && tables.underlay,
        }
    }

    /// Metric to the next hop; `None` where the path is not eligible.
    #[inline]
    fn metric(&self, path: &Path) -> Option<u32> {
        self.interner.metric(path.attributes, path.within)
    }

    #[inline]
    fn eligible(&self, path: &Path) -> bool {
        self.metric(path).is_some()
    }

    /// Labels of this path may be joined with those of others: it originates in our domain. What a route server sends without an AS does
    /// not.
    pub(crate) fn joinable(&self, path: &Path) -> bool {
        let key = self.interner.get(path.attributes).key();
        let inside = || {
            let peer = self.peer(path.peer);
            peer.is_none_or(|peer| peer.config.kind != PeerKind::Ebgp)
        };
        key.labelled
            && key.as_path_length == 0
            && key.neighbor_as == 0
            && inside()
            && self.eligible(path)
    }

    fn is_last_resort(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|peer| peer.last_resort)
    }

    fn candidate(&self, path: &Path) -> Candidate<'_> {
        let peer = self.peer(path.peer);
        Candidate {
            key: self.interner.get(path.attributes).key(),
            peer: path.peer,
            kind: peer.map(|peer| peer.config.kind),
            last_resort: peer.is_some_and(|peer| peer.last_resort),
            metric: self.metric(path),
            router_id: peer
                .and_then(|peer| peer.router_id)
                .map_or(0, |id| u32::from(id.0)),
            address: peer.map(|peer| peer.config.address),
            path_id: path.path_id,
        }
    }
}

/// The RIB.
pub struct Rib {
    shared: Shared,
    v4: FamilyRib<Ipv4Net>,
    v6: FamilyRib<Ipv6Net>,
    decoder: AttributeDecoder,
    held: bool,
}

/// Runs the same method of both families.
macro_rules! families {
    ($rib:ident, $family:ident => $run:expr) => {{
        {
            let $family = &mut $rib.v4;
            $run
        }
        {
            let $family = &mut $rib.v6;
            $run
        }
    }};
    ($rib:ident [$which:expr], $family:ident => $run:expr) => {
        match $which {
            Family::Ipv4Unicast => {
                let $family = &mut $rib.v4;
                $run
            }
            Family::Ipv6Unicast => {
                let $family = &mut $rib.v6;
                $run
            }
        }
    };
}

fn network_error(error: NlriError) -> Notification {
    Notification::new(
        error_code::UPDATE,
        update_error::INVALID_NETWORK_FIELD,
        error.to_string().into_bytes(),
    )
}

impl Rib {
    /// An empty one.
    pub fn new(config: RibConfig, hook: Box<dyn ExportHook>) -> Self {
        let key = HashKey::new(config.seed);
        Self {
            shared: Shared {
                interner: Interner::new(config.clone()),
                config,
                peers: Vec::new(),
                hook,
                imports: ImportDecisions::default(),
                unforwardable: BTreeMap::new(),
            },
            v4: FamilyRib::new(key),
            v6: FamilyRib::new(key),
            decoder: AttributeDecoder::new(),
            held: false,
        }
    }

    /// Adds a neighbour, or changes the configuration of one whose session is down.
    pub fn add_peer(&mut self, peer: PeerId, config: PeerConfig) {
        if peer.index() >= self.shared.peers.len() {
            self.shared.peers.resize_with(peer.index() + 1, || None);
        }
        self.shared.forget();
        self.shared.peers[peer.index()] = Some(Peer {
            import_terms: terms(&config.import),
            config,
            up: None,
            router_id: None,
            last_resort: false,
            counters: PeerCounters::default(),
            warned: [false; 2],
        });
    }

    /// Changes what becomes of routes from a neighbour whose session may be up: its class, policy and limits. What has been
    /// taken from it is judged anew as it comes again.
    pub fn set_import(&mut self, peer: PeerId, config: &PeerConfig) {
        self.shared.forget();
        if let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) {
            if state.config.import != config.import {
                state.import_terms = terms(&config.import);
            }
            state.config.import.clone_from(&config.import);
            state.config.max_prefixes = config.max_prefixes;
            state.config.max_paths = config.max_paths;
            state.config.allow_own_as = config.allow_own_as;
            state.config.enforce_first_as = config.enforce_first_as;
            state.config.accept_martians = config.accept_martians;
            state.config.import_class = config.import_class;
        }
    }

    /// Changes what is announced to neighbours whose sessions may be up: they are told what differs. Those that change alike and were told
    /// alike stay together.
    pub fn set_exports(&mut self, exports: &[(PeerId, RoutePolicy)]) {
        for (peer, policy) in exports {
            if let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) {
                state.config.export.clone_from(policy);
            }
        }
        families!(self, rib => rib.set_policies(&self.shared, exports));
    }

    /// How many routes were in each term of the import policy of a neighbour, and of its export policy. The latter are counted as they are
    /// encoded, once for all neighbours that are sent the same.
    pub fn terms(&self, peer: PeerId) -> [Vec<u64>; 2] {
        let state = self.shared.peer(peer);
        let import = state.map_or_else(Vec::new, |state| state.import_terms.clone());
        let mut export = state.map_or_else(Vec::new, |state| terms(&state.config.export));
        for group in [self.v4.group(peer), self.v6.group(peer)]
            .into_iter()
            .flatten()
        {
            for (sum, count) in export.iter_mut().zip(&group.terms) {
                *sum += count;
            }
        }
        [import, export]
    }

    /// Removes a neighbour and all that came from it.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peer_down(peer, PeerDown::Flush);
        if let Some(slot) = self.shared.peers.get_mut(peer.index()) {
            *slot = None;
        }
    }

    /// Says whether packets may not reach `peer`, whose routes are kept all the same: they have LOCAL_PREF 0 then, here and as they are
    /// announced within the AS. Ends with [`Rib::peer_up`].
    pub fn set_last_resort(&mut self, peer: PeerId, last_resort: bool) {
        let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) else {
            return;
        };
        if std::mem::replace(&mut state.last_resort, last_resort) != last_resort {
            let of_peer = |path: &Path| path.peer == peer;
            families!(self, rib => rib.choose_again(&self.shared, &of_peer, true));
        }
    }

    /// Its session is established: the table will be sent, with End-of-RIB behind it.
    pub fn peer_up(&mut self, peer: PeerId, up: PeerUp) {
        self.set_last_resort(peer, false);
        let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) else {
            return;
        };
        state.router_id = Some(up.router_id);
        let settings = |family| ExportSettings::new(family, &state.config, &up);
        for family in up.families.clone() {
            let settings = settings(family);
            families!(self[family], rib => rib.join(peer, up.enhanced_refresh, settings));
        }
        state.up = Some(up);
    }

    /// Its session is down.
    pub fn peer_down(&mut self, peer: PeerId, down: PeerDown) {
        if let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) {
            state.up = None;
            state.warned = [false; 2];
        }
        families!(self, rib => rib.leave(peer));
        for family in Family::ALL {
            let keep =
                matches!(&down, PeerDown::KeepStale { families, .. } if families.contains(&family));
            let older = matches!(&down, PeerDown::KeepStale { older: true, .. });
            families!(self[family], rib => if keep {
                rib.mark_stale(&mut self.shared, peer, older);
            } else {
                rib.flush(&mut self.shared, peer, false);
            });
        }
        self.shared.forget();
    }

    /// `peer` begins to send its routes anew (RFC 7313 section 4): what it does not send again goes with [`Rib::sweep_stale`].
    pub fn mark_stale(&mut self, peer: PeerId, family: Family) {
        families!(self[family], rib => rib.mark_stale(&mut self.shared, peer, true));
    }

    /// Removes what `peer` has not announced again: after its End-of-RIB, or when its restart took too long.
    pub fn sweep_stale(&mut self, peer: PeerId, family: Family) {
        families!(self[family], rib => rib.flush(&mut self.shared, peer, true));
    }

    /// Takes the body of an UPDATE in.
    ///
    /// # Errors
    /// The NOTIFICATION that the session must end with. What RFC 7606 treats more mildly is in the outcome.
    pub fn handle_update(&mut self, peer: PeerId, body: &[u8]) -> Result<UpdateOutcome, Reset> {
        let mut update = UpdateView::split(body)?;
        let mut outcome = UpdateOutcome::default();
        let Some((add_path, negotiated, context, import_class, marks)) =
            self.shared.peer(peer).and_then(|state| {
                let up = state.up.as_ref()?;
                let peer = if state.config.kind == PeerKind::Ebgp {
                    PeerType::External
                } else {
                    PeerType::Internal
                };
                // RFC 4760 section 8: what is not of a family of both ends is ignored.
                if !up.families.contains(&Family::Ipv4Unicast) {
                    (update.withdrawn, update.nlri) = (&[], &[]);
                }
                let negotiated = Family::ALL.map(|family| up.families.contains(&family));
                let context = AttributeContext {
                    four_octet_as: up.four_octet_as,
                    peer,
                    has_nlri: !update.nlri.is_empty(),
                    families: negotiated,
                    extended_next_hop: up.extended_next_hop,
                };
                let import_class = state.config.import_class;
                let marks = state.config.role.is_some_and(Role::marks_import);
                let marks = marks.then_some(state.config.asn);
                Some((
                    up.add_path_receive,
                    negotiated,
                    context,
                    import_class,
                    marks,
                ))
            })
        else {
            return Ok(outcome);
        };
        if update.is_ipv4_end_of_rib() {
            outcome.end_of_rib = negotiated[0].then_some(Family::Ipv4Unicast);
            return Ok(outcome);
        }
        withdraw(
            &mut self.v4,
            &mut self.shared,
            peer,
            update.withdrawn,
            add_path[0],
        )?;
        if update.attributes.is_empty() && update.nlri.is_empty() {
            return Ok(outcome);
        }
        let cached = u64::from(context.four_octet_as)
            | u64::from(context.peer == PeerType::External) << 1
            | u64::from(context.has_nlri) << 2
            | u64::from(negotiated[0]) << 3
            | u64::from(negotiated[1]) << 4
            | marks.map_or(0, |asn| u64::from(asn.0) << 5);
        let strips = self.shared.labels() && self.shared.hook.strips(import_class);
        // What another neighbour may say this one may not, perhaps.
        let known = self.shared.interner.raw(update.attributes, cached);
        let known = known.filter(|id| !(strips && self.shared.interner.labelled(*id)));
        if let Some(id) = known {
            self.shared.interner.retain(id);
            let announced = announce(
                &mut self.v4,
                &mut self.shared,
                peer,
                id,
                update.nlri,
                add_path[0],
            );
            self.shared.interner.release(id);
            announced?;
            return self.check_limit(peer, outcome);
        }
        let decoded = self.decoder.decode(update.attributes, &context)?;
        outcome.problems.extend_from_slice(decoded.problems);
        let discards = decoded
            .problems
            .iter()
            .filter(|problem| problem.treatment == Treatment::AttributeDiscard);
        let discards = discards.count() as u64;
        let mut edit = AttributesBuilder::new();
        let stripped = if strips && self.shared.interner.is_labelled(decoded.attributes) {
            edit.load(decoded.attributes);
            let mut prefixes = prefixes(update.nlri, decoded.mp_reach.as_ref(), add_path);
            let hook = &self.shared.hook;
            hook.import(import_class, &mut prefixes, &mut edit)
        } else {
            Stripped::default()
        };
        let is_stripped = stripped != Stripped::default();
        // RFC 9234 section 5: what a provider, a peer or a route server announces is for our customers only.
        let marks = marks.filter(|_| decoded.attributes.only_to_customer().is_none());
        if let Some(asn) = marks {
            if !is_stripped {
                edit.load(decoded.attributes);
            }
            edit.set_only_to_customer(asn);
        }
        let attributes = match is_stripped || marks.is_some() {
            true => edit.view(),
            false => decoded.attributes,
        };
        let mut v4_set = None;
        let mut other_set = None;
        if decoded.treatment < Treatment::TreatAsWithdraw {
            if let Some(next_hop) = decoded.next_hop.filter(|_| context.has_nlri) {
                let id = self
                    .shared
                    .interner
                    .intern(attributes, IpAddr::from(next_hop).into());
                if let Some(id) = id
                    && !is_stripped
                    && decoded.problems.is_empty()
                    && decoded.mp_reach.is_none()
                    && decoded.mp_unreach.is_none()
                {
                    self.shared.interner.remember(update.attributes, cached, id);
                }
                v4_set = id;
            }
            if let Some(next_hop) = decoded.mp_reach.and_then(|reach| reach.next_hop) {
                other_set = self.shared.interner.intern(attributes, next_hop);
            }
        }
        let (mp_reach, mp_unreach, withdrawn) = (
            decoded.mp_reach,
            decoded.mp_unreach,
            decoded.treatment == Treatment::TreatAsWithdraw,
        );
        if let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) {
            state.counters.attribute_discard += discards;
            state.counters.stripped += stripped;
            state.counters.treat_as_withdraw += u64::from(withdrawn);
        }
        let mut result = Ok(());
        let spoken = |family: &Family| negotiated[family.index()];
        if let Some(unreach) = mp_unreach
            && let Some(family) = unreach.family.filter(spoken)
        {
            if unreach.nlri.is_empty() && update.nlri.is_empty() && mp_reach.is_none() {
                outcome.end_of_rib = Some(family);
            }
            let add_path = add_path[family.index()];
            result = families!(self[family], rib => withdraw(rib, &mut self.shared, peer, unreach.nlri, add_path));
        }
        // Without attributes that may be used, what was announced is withdrawn (RFC 7606 section 2).
        result = result.and_then(|()| match v4_set {
            Some(id) => announce(
                &mut self.v4,
                &mut self.shared,
                peer,
                id,
                update.nlri,
                add_path[0],
            ),
            None => withdraw(
                &mut self.v4,
                &mut self.shared,
                peer,
                update.nlri,
                add_path[0],
            ),
        });
        if let Some(reach) = mp_reach
            && let Some(family) = reach.family.filter(spoken)
        {
            let add_path = add_path[family.index()];
            result = result.and_then(|()| {
                families!(self[family], rib => match other_set {
                    Some(id) => announce(rib, &mut self.shared, peer, id, reach.nlri, add_path),
                    None => withdraw(rib, &mut self.shared, peer, reach.nlri, add_path),
                })
            });
        }
        for id in v4_set.into_iter().chain(other_set) {
            self.shared.interner.release(id);
        }
        result?;
        self.check_limit(peer, outcome)
    }

    /// RFC 4486: more prefixes than allowed end the session.
    fn check_limit(
        &mut self,
        peer: PeerId,
        mut outcome: UpdateOutcome,
    ) -> Result<UpdateOutcome, Reset> {
        let Some(Some(state)) = self.shared.peers.get_mut(peer.index()) else {
            return Ok(outcome);
        };
        let Some(limit) = state.config.max_prefixes else {
            return Ok(outcome);
        };
        for family in Family::ALL {
            let accepted = state.counters.accepted[family.index()];
            let warned = &mut state.warned[family.index()];
            if *warned {
                *warned = accepted > limit / 2;
            } else if accepted > limit - limit / 5 {
                *warned = true;
                outcome.near_limit = Some(NearLimit {
                    family,
                    accepted,
                    limit,
                });
            }
            if accepted > limit {
                let mut data = family.afi().to_be_bytes().to_vec();
                data.push(family.safi());
                data.extend_from_slice(&limit.to_be_bytes());
                return Err(Notification::new(
                    error_code::CEASE,
                    cease::MAX_PREFIXES,
                    data,
                ));
            }
        }
        Ok(outcome)
    }

    /// Gives back what routes that are gone have left; to be called now and then.
    pub fn tidy(&mut self) {
        families!(self, rib => rib.bury_all());
    }

    /// Announces or withdraws routes of our own.
    pub fn originate(&mut self, routes: &[Origination]) {
        for route in routes {
            let unspecified: NextHop = match route.prefix {
                IpNet::V4(_) => IpAddr::from([0; 4]).into(),
                IpNet::V6(_) => IpAddr::from([0; 16]).into(),
            };
            let id = route.attributes.as_ref().and_then(|octets| {
                self.shared
                    .interner
                    .intern(AttributesView::new(octets), unspecified)
            });
            // Of our own there may be any number.
            let _ = match route.prefix {
                IpNet::V4(net) => self.v4.set_path(
                    &mut self.shared,
                    net.trunc(),
                    PeerId::LOCAL,
                    route.path_id,
                    id,
                ),
                IpNet::V6(net) => self.v6.set_path(
                    &mut self.shared,
                    net.trunc(),
                    PeerId::LOCAL,
                    route.path_id,
                    id,
                ),
            };
        }
        families!(self, rib => rib.bury());
    }

    /// Says how next hops resolve: metric, or `None` where they do not.
    pub fn set_next_hops(&mut self, next_hops: &[(IpAddr, Option<u32>)]) {
        let mut changed = Vec::new();
        for (address, metric) in next_hops {
            if self.shared.interner.next_hops.set(*address, *metric) {
                changed.push(*address);
            }
        }
        if !changed.is_empty() {
            families!(self, rib => rib.next_hops_changed(&self.shared, &changed));
        }
    }

    /// Says which routes would be the best match for their own next hops, and so lead to themselves (RFC 4271 section 9.1.2.1): those
    /// that contain one, with a prefix as long as this or longer. To be told before [`Rib::set_next_hops`].
    pub fn set_floors(&mut self, floors: &[(IpAddr, u8)]) {
        let next_hops = &mut self.shared.interner.next_hops;
        let changed = floors
            .iter()
            .filter(|(one, floor)| next_hops.set_floor(*one, *floor));
        let changed: Vec<IpAddr> = changed.map(|(one, _)| *one).collect();
        if !changed.is_empty() {
            families!(self, rib => rib.next_hops_changed(&self.shared, &changed));
        }
    }

    /// True while it is not known how some next hop resolves, so that its routes may yet come to be used.
    pub fn awaits_next_hops(&self) -> bool {
        self.shared.interner.next_hops.has_unknown()
    }

    /// Next hops to resolve from now on, and those that no route has any more.
    pub fn poll_next_hops(&mut self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        self.shared.interner.next_hops.take_changes()
    }

    /// Sends the whole table again (RFC 2918).
    pub fn readvertise(&mut self, peer: PeerId, family: Family) {
        families!(self[family], rib => rib.readvertise(peer));
    }

    /// Another hook from now on. Prefixes that have a path with attributes that it treats otherwise are exported again, and
    /// reported again.
    pub fn set_hook(
        &mut self,
        hook: Box<dyn ExportHook>,
        otherwise: &dyn Fn(AttributesView<'_>) -> bool,
    ) {
        self.shared.hook = hook;
        families!(self, rib => rib.again_where(&self.shared, otherwise));
    }

    /// Says where packets to some prefixes cannot be forwarded here, or can be again (`None`). Meanwhile no neighbour is told a route that
    /// would lead them here.
    pub fn set_unforwardable(&mut self, changes: Vec<(IpNet, Option<Unforwardable>)>) {
        for (prefix, tables) in changes {
            match tables {
                Some(tables) => self.shared.unforwardable.insert(prefix, tables),
                None => self.shared.unforwardable.remove(&prefix),
            };
            match prefix {
                IpNet::V4(prefix) => self.v4.export_again(prefix),
                IpNet::V6(prefix) => self.v6.export_again(prefix),
            }
        }
    }

    /// Nothing is sent until [`Rib::release`]: after a restart, until the neighbours have sent their routes (RFC 4724
    /// section 4.1).
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Ends [`Rib::hold`].
    pub fn release(&mut self) {
        self.held = false;
    }

    /// True while routes are held back.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// True where [`Rib::poll_transmit`] may have octets.
    pub fn has_pending(&self, peer: PeerId) -> bool {
        !self.held
            && (self
                .v4
                .group(peer)
                .is_some_and(|group| group.has_pending(peer))
                || self
                    .v6
                    .group(peer)
                    .is_some_and(|group| group.has_pending(peer)))
    }

    /// True where [`Rib::has_pending`] is, for some neighbour.
    pub fn has_any_pending(&self) -> bool {
        !self.held && (self.v4.has_any_pending() || self.v6.has_any_pending())
    }

    /// The next octets for a neighbour: whole messages, about 64 KiB at most.
    pub fn poll_transmit(&mut self, peer: PeerId) -> Option<Bytes> {
        if self.held {
            return None;
        }
        let octets = self
            .v4
            .poll(peer, &self.shared)
            .or_else(|| self.v6.poll(peer, &self.shared));
        if octets.is_none() && self.v4.len() + self.v6.len() == 0 {
            self.shared.forget();
        }
        octets
    }

    /// True where [`Rib::poll_report`] has something.
    pub fn has_report(&self) -> bool {
        self.v4.has_report() || self.v6.has_report()
    }

    /// Prefixes whose reported paths changed, each once with its latest state; some thousand at a time.
    pub fn poll_report(&mut self) -> Option<RouteBatch> {
        if !self.has_report() {
            return None;
        }
        let mut batch = RouteBatch::default();
        families!(self, rib => rib.drain_report(&self.shared, &mut batch, REPORT_BATCH));
        Some(batch)
    }
}

/// All prefixes that an UPDATE announces; those behind a mistake are found later.
fn prefixes<'a>(
    nlri: &'a [u8],
    reach: Option<&MpReach<'a>>,
    add_path: [bool; 2],
) -> impl Iterator<Item = IpNet> + 'a {
    let [v4, v6] = add_path;
    let field = |family: Family| match reach {
        Some(reach) if reach.family == Some(family) => reach.nlri,
        _ => &[][..],
    };
    let v4 = [nlri, field(Family::Ipv4Unicast)]
        .map(|field| NlriIter::<Ipv4Net>::new(field, v4).map_while(Result::ok));
    let v6 = NlriIter::<Ipv6Net>::new(field(Family::Ipv6Unicast), v6).map_while(Result::ok);
    let v4 = v4
        .into_iter()
        .flatten()
        .map(|nlri| IpNet::from(nlri.prefix));
    v4.chain(v6.map(|nlri| IpNet::from(nlri.prefix)))
}

fn announce<P: Tagged>(
    rib: &mut FamilyRib<P>,
    shared: &mut Shared,
    peer: PeerId,
    id: AttributeId,
    field: &[u8],
    add_path: bool,
) -> Result<(), Reset> {
    let set = shared.interner.get(id);
    let (key, next_hop) = (*set.key(), set.next_hop());
    let Some(state) = shared.peer(peer) else {
        return Ok(());
    };
    let config = &state.config;
    // RFC 4271 section 9.1.2: own AS in AS_PATH; section 6.3: the AS that sends stands first; RFC 4456 section 8: reflection loops.
    let local = config
        .as_path
        .local_as
        .map_or(0, |local| set.view().as_path().count(local.asn));
    let own = usize::from(key.own_as) + local <= config.allow_own_as;
    let first = !(config.enforce_first_as && config.kind == PeerKind::Ebgp)
        || key.neighbor_as == config.asn.0;
    // An IPv4-mapped address is no router's; the labels of a path lead on all the same.
    let mapped =
        matches!(next_hop.address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let leak = config.role.zip(key.only_to_customer);
    let leak = leak.is_some_and(|(role, otc)| role.is_leak(otc, config.asn));
    let allowed = own && first && !leak && !key.reflection_loop && (key.labelled || !mapped);
    let (policy, martians) = (config.import.clone(), config.accept_martians);
    let tree = policy
        .program()
        .filter(|_| allowed)
        .map(|_| shared.decisions(peer, P::FAMILY, id));
    let (mut rejected, mut by_policy) = (0, 0);
    runs(rib, shared, field, add_path, |rib, shared, nlri| {
        let allowed = allowed && (martians || !nlri.prefix.is_martian());
        let taken = match &policy {
            _ if !allowed => None,
            RoutePolicy::Accept => {
                shared.interner.retain(id);
                Some(id)
            }
            RoutePolicy::Reject | RoutePolicy::Missing => None,
            RoutePolicy::Program(program) => {
                tree.and_then(|tree| shared.decide(tree, program, &nlri.prefix.into()))
            }
        };
        by_policy += u64::from(allowed && taken.is_none());
        let held = rib.set_path(shared, nlri.prefix, peer, nlri.path_id, taken);
        rejected += u64::from(taken.is_none() || !held);
    })?;
    if let Some(tree) = tree {
        shared.count_terms(tree);
    }
    if rejected > 0
        && let Some(Some(state)) = shared.peers.get_mut(peer.index())
    {
        state.counters.rejected += rejected;
        state.counters.policy_rejected += by_policy;
        state.counters.route_leaks += if leak { rejected } else { 0 };
    }
    Ok(())
}

fn withdraw<P: Tagged>(
    rib: &mut FamilyRib<P>,
    shared: &mut Shared,
    peer: PeerId,
    field: &[u8],
    add_path: bool,
) -> Result<(), Reset> {
    runs(rib, shared, field, add_path, |rib, shared, nlri| {
        rib.set_path(shared, nlri.prefix, peer, nlri.path_id, None);
    })?;
    rib.bury();
    Ok(())
}

/// Takes the prefixes of a field some at a time: what they need from memory is asked for together. What stands before
/// a mistake in the field has been done.
fn runs<P: Tagged>(
    rib: &mut FamilyRib<P>,
    shared: &mut Shared,
    field: &[u8],
    add_path: bool,
    mut take: impl FnMut(&mut FamilyRib<P>, &mut Shared, Nlri<P>),
) -> Result<(), Reset> {
    let mut field = NlriIter::<P>::new(field, add_path);
    let mut run: SmallVec<[Nlri<P>; WARM]> = SmallVec::new();
    loop {
        run.clear();
        let mut end = Ok(false);
        while run.len() < WARM {
            match field.next() {
                Some(Ok(nlri)) => run.push(nlri),
                Some(Err(error)) => {
                    end = Err(network_error(error));
                    break;
                }
                None => {
                    end = Ok(true);
                    break;
                }
            }
        }
        if run.len() > 1 {
            rib.warm(shared, &run);
        }
        for nlri in run.drain(..) {
            take(rib, shared, nlri);
        }
        if end? {
            return Ok(());
        }
    }
}
