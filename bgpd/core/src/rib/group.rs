//! Update groups: neighbours that are sent the same octets share one queue of changes, one encoding, one log.
//!
//! A change of the table marks a route in the queue, once however often it changes. When a member asks for octets and
//! has consumed the log, a batch of the queue is decided, encoded and appended to the log, each chunk with the audience
//! that it is meant for: a route never goes back to the neighbour that it came from, and that neighbour is sent the
//! withdrawal of what stood there before. A member that joins walks the table on its own, then follows the log. One
//! that falls behind further than the log may grow loses chunks; it remembers which routes they were about and is
//! sent their latest state when it reads again, so it holds nobody up.

use std::collections::VecDeque;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use weft_bgp_policy::RoutePolicy;
use weft_bgp_wire::{Family, RouteRefresh, UpdateWriter, encode_end_of_rib};

use super::Shared;
use super::export::{ExportBatch, ExportSettings};
use super::index::Tagged;
use super::table::{BitSet, Entry, Path, Table};
use super::types::PeerId;

/// Routes decided and encoded at once.
const BATCH: usize = 4096;
/// Octets of a chunk, about: one write of a socket.
const CHUNK: usize = 64 * 1024;
/// Room for changes that an empty queue keeps.
const QUEUE_KEPT: usize = 256 * 1024;
/// Octets of the log that a slow member can hold back.
const LOG_LIMIT: usize = 16 * 1024 * 1024;

/// Who a chunk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Audience {
    All,
    Except(PeerId),
    Only(PeerId),
}

impl Audience {
    fn admits(self, peer: PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => other != peer,
            Self::Only(other) => other == peer,
        }
    }

    /// Everybody but the source of a route.
    fn but(source: PeerId) -> Self {
        if source == PeerId::LOCAL {
            Self::All
        } else {
            Self::Except(source)
        }
    }
}

/// Entry of the table, and the path identifier where several paths are sent, else 0.
type Touched = (u32, u32);

struct Chunk {
    octets: Bytes,
    audience: Audience,
    touched: Vec<Touched>,
}

struct Member {
    peer: PeerId,
    /// The next chunk, counted from the birth of the group.
    position: u64,
    /// The next entry of its own walk over the table.
    walk: Option<u32>,
    /// Routes in chunks that it lost.
    missed: FxHashSet<Touched>,
    /// What follows when it has been sent everything.
    end: Option<End>,
    /// A mark goes before what it is sent again.
    begins: bool,
    /// It knows the marks of RFC 7313.
    enhanced: bool,
}

/// What stands behind a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// End-of-RIB (RFC 4724 section 2).
    Rib,
    /// End of Route Refresh (RFC 7313).
    Refresh,
}

/// A neighbour that leaves for another group.
pub(crate) struct Leaver {
    member: Member,
    /// Routes that had changed and were not told to anybody in its group.
    queued: Vec<Touched>,
}

/// What was announced last: the source of the path, by entry.
#[derive(Clone)]
enum Advertised {
    /// One path a prefix: the source's number plus one, 0 for nothing.
    Best(Vec<u32>),
    /// Several: path identifier and source.
    All(Vec<SmallVec<[(u32, PeerId); 1]>>),
}

impl Advertised {
    fn new(settings: &ExportSettings) -> Self {
        if settings.add_path() {
            Self::All(Vec::new())
        } else {
            Self::Best(Vec::new())
        }
    }

    fn get(&self, (at, id): Touched) -> Option<PeerId> {
        match self {
            Self::Best(sources) => {
                let source = sources.get(at as usize)?.checked_sub(1)?;
                Some(PeerId(source as u16))
            }
            Self::All(paths) => paths
                .get(at as usize)?
                .iter()
                .find(|(other, _)| *other == id)
                .map(|(_, source)| *source),
        }
    }

    fn set(&mut self, (at, id): Touched, source: Option<PeerId>) {
        let at = at as usize;
        match self {
            Self::Best(sources) => {
                if at >= sources.len() {
                    sources.resize(at + 1, 0);
                }
                sources[at] = source.map_or(0, |source| u32::from(source.0) + 1);
            }
            Self::All(paths) => {
                if at >= paths.len() {
                    paths.resize_with(at + 1, SmallVec::new);
                }
                paths[at].retain(|(other, _)| *other != id);
                if let Some(source) = source {
                    paths[at].push((id, source));
                }
            }
        }
    }

    /// Routes announced to `peer`: all but its own.
    fn count(&self, peer: PeerId) -> usize {
        let own = u32::from(peer.0) + 1;
        match self {
            Self::Best(sources) => sources
                .iter()
                .filter(|source| **source != 0 && **source != own)
                .count(),
            Self::All(paths) => paths
                .iter()
                .flatten()
                .filter(|(_, source)| *source != peer)
                .count(),
        }
    }
}

/// One route of a batch: announced with what it was exported as, or withdrawn.
struct Action<P> {
    audience: Audience,
    exported: Option<u32>,
    touched: Touched,
    prefix: P,
}

fn refresh_mark(family: Family, subtype: u8) -> Bytes {
    let mut out = Vec::new();
    RouteRefresh::mark(family, subtype).encode(&mut out);
    out.into()
}

pub(crate) struct Group {
    pub(crate) settings: ExportSettings,
    /// Sorted by neighbour.
    members: Vec<Member>,
    advertised: Advertised,
    queue: VecDeque<Touched>,
    queued: BitSet,
    queued_paths: FxHashSet<Touched>,
    log: VecDeque<Chunk>,
    log_start: u64,
    log_octets: usize,
    too_large: u64,
    batch: ExportBatch,
    /// Routes that were in each term of the policy.
    pub(crate) terms: Vec<u64>,
}

impl Group {
    pub(crate) fn new(settings: ExportSettings) -> Self {
        Self {
            advertised: Advertised::new(&settings),
            terms: super::terms(&settings.policy),
            settings,
            members: Vec::new(),
            queue: VecDeque::new(),
            queued: BitSet::default(),
            queued_paths: FxHashSet::default(),
            log: VecDeque::new(),
            log_start: 0,
            log_octets: 0,
            too_large: 0,
            batch: ExportBatch::default(),
        }
    }

    /// Adds a member. The first one is sent the table through the queue, later ones walk it.
    pub(crate) fn join<P: Tagged>(&mut self, peer: PeerId, enhanced: bool, table: &Table<P>) {
        let first = self.members.is_empty();
        if first {
            for (at, entry) in table.iter() {
                for path in &entry.paths {
                    self.mark(at, path.local_id);
                }
            }
        }
        let at = self.members.partition_point(|member| member.peer < peer);
        let member = Member {
            peer,
            position: self.log_start + self.log.len() as u64,
            walk: (!first).then_some(0),
            missed: FxHashSet::default(),
            end: Some(End::Rib),
            begins: false,
            enhanced,
        };
        self.members.insert(at, member);
    }

    /// Removes a member; true where it was the last.
    pub(crate) fn leave(&mut self, peer: PeerId) -> bool {
        self.members.retain(|member| member.peer != peer);
        self.trim();
        self.members.is_empty()
    }

    /// Another policy for all members: these routes come to something else by it.
    pub(crate) fn set_policy(&mut self, policy: RoutePolicy, differing: &[(u32, u32)]) {
        self.terms = super::terms(&policy);
        self.settings.policy = policy;
        for (at, local_id) in differing {
            self.mark(*at, *local_id);
        }
    }

    /// All members are among these.
    pub(crate) fn consists_of(&self, peers: &[PeerId]) -> bool {
        self.members
            .iter()
            .all(|member| peers.contains(&member.peer))
    }

    /// A group of other settings for those who were told what this one tells.
    pub(crate) fn with_settings(&self, settings: ExportSettings) -> Self {
        Self {
            advertised: self.advertised.clone(),
            ..Self::new(settings)
        }
    }

    /// Takes a member out, for another group.
    pub(crate) fn take(&mut self, peer: PeerId) -> Option<Leaver> {
        let at = self.position(peer)?;
        let mut member = self.members.remove(at);
        let unread = (member.position - self.log_start) as usize;
        let chunks = self.log.range(unread.min(self.log.len())..);
        member
            .missed
            .extend(chunks.flat_map(|chunk| &chunk.touched));
        self.trim();
        Some(Leaver {
            member,
            queued: self.queue.iter().copied().collect(),
        })
    }

    /// Takes a member in that was told by another policy; these routes come to something else by this one.
    pub(crate) fn adopt(&mut self, leaver: Leaver, differing: &[(u32, u32)]) {
        let Leaver { mut member, queued } = leaver;
        if self.members.is_empty() {
            // What was announced is what it was told: the queue brings it up to date.
            for (at, local_id) in queued.iter().chain(differing) {
                self.mark(*at, *local_id);
            }
        } else {
            member.missed.extend(queued);
            let id = |local_id| {
                if self.settings.add_path() {
                    local_id
                } else {
                    0
                }
            };
            let differing = differing.iter().map(|(at, local_id)| (*at, id(*local_id)));
            member.missed.extend(differing);
        }
        member.position = self.log_start + self.log.len() as u64;
        let at = self.members.partition_point(|one| one.peer < member.peer);
        self.members.insert(at, member);
    }

    /// Has no member.
    pub(crate) fn is_deserted(&self) -> bool {
        self.members.is_empty()
    }

    /// Sends the whole table again (RFC 2918), between marks where the member knows them, else with an End-of-RIB behind it. Before the first
    /// End-of-RIB there are none (RFC 7313 section 4).
    pub(crate) fn readvertise(&mut self, peer: PeerId) {
        if let Some(at) = self.position(peer) {
            let member = &mut self.members[at];
            member.walk = Some(0);
            if member.enhanced && member.end != Some(End::Rib) {
                member.begins = true;
                member.end = Some(End::Refresh);
            } else {
                member.end = Some(End::Rib);
            }
        }
    }

    /// Queues a path of an entry that changed.
    #[inline]
    pub(crate) fn mark(&mut self, at: u32, local_id: u32) {
        if self.settings.add_path() {
            if self.queued_paths.insert((at, local_id)) {
                self.queue.push_back((at, local_id));
            }
        } else if self.queued.insert(at) {
            self.queue.push_back((at, 0));
        }
    }

    /// True while nothing in it refers to an entry that has no path any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty()
            && self.log.is_empty()
            && self
                .members
                .iter()
                .all(|member| member.walk.is_none() && member.missed.is_empty())
    }

    /// Gives back what a table that is empty now has needed. Nothing may be queued or announced.
    pub(crate) fn shrink(&mut self) {
        self.advertised = Advertised::new(&self.settings);
        self.queue = VecDeque::new();
        self.queued = BitSet::default();
        self.queued_paths = FxHashSet::default();
        self.log = VecDeque::new();
        self.batch = ExportBatch::default();
    }

    pub(crate) fn advertised(&self, peer: PeerId) -> u32 {
        self.advertised.count(peer) as u32
    }

    pub(crate) fn too_large(&self) -> u64 {
        self.too_large
    }

    /// True where [`Group::poll`] may have octets for the member.
    pub(crate) fn has_pending(&self, peer: PeerId) -> bool {
        !self.queue.is_empty()
            || self
                .position(peer)
                .is_some_and(|at| self.is_behind(&self.members[at]))
    }

    /// True where [`Group::poll`] may have octets for some member.
    pub(crate) fn has_any_pending(&self) -> bool {
        !self.queue.is_empty() || self.members.iter().any(|member| self.is_behind(member))
    }

    fn is_behind(&self, member: &Member) -> bool {
        member.end.is_some()
            || member.walk.is_some()
            || !member.missed.is_empty()
            || member.position < self.log_start + self.log.len() as u64
    }

    /// Where a member is.
    fn position(&self, peer: PeerId) -> Option<usize> {
        self.members
            .binary_search_by_key(&peer, |member| member.peer)
            .ok()
    }

    /// The next octets for a member, whole messages.
    pub(crate) fn poll<P: Tagged>(
        &mut self,
        peer: PeerId,
        table: &Table<P>,
        shared: &Shared,
    ) -> Option<Bytes> {
        let at = self.position(peer)?;
        if std::mem::take(&mut self.members[at].begins) {
            return Some(refresh_mark(P::FAMILY, RouteRefresh::BEGIN));
        }
        loop {
            if let Some(octets) = self.poll_own(at, table, shared) {
                return Some(octets);
            }
            let member = &mut self.members[at];
            let next = (member.position - self.log_start) as usize;
            if let Some(chunk) = self.log.get(next) {
                member.position += 1;
                let octets = chunk.audience.admits(peer).then(|| chunk.octets.clone());
                if next == 0 {
                    self.trim();
                }
                if octets.is_some() {
                    return octets;
                }
            } else if !self.queue.is_empty() {
                self.flush(table, shared);
            } else {
                return match member.end.take()? {
                    End::Rib => {
                        let mut out = Vec::new();
                        encode_end_of_rib(P::FAMILY, &mut out);
                        Some(out.into())
                    }
                    End::Refresh => Some(refresh_mark(P::FAMILY, RouteRefresh::END)),
                };
            }
        }
    }

    /// Octets that only this member is sent: its walk, and what it missed.
    fn poll_own<P: Tagged>(
        &mut self,
        at: usize,
        table: &Table<P>,
        shared: &Shared,
    ) -> Option<Bytes> {
        if self.members[at].walk.is_none() && self.members[at].missed.is_empty() {
            return None;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let octets = self.encode_walk_or_missed(at, table, shared, &mut batch);
        batch.clear(&mut self.terms);
        self.batch = batch;
        octets
    }

    fn encode_walk_or_missed<P: Tagged>(
        &mut self,
        at: usize,
        table: &Table<P>,
        shared: &Shared,
        batch: &mut ExportBatch,
    ) -> Option<Bytes> {
        let mut actions = Vec::new();
        let peer = self.members[at].peer;
        while let Some(from) = self.members[at].walk {
            let mut next = from;
            while next < table.bound() && actions.len() < BATCH {
                if let Some(entry) = table.get(next) {
                    self.walk_entry(next, entry, peer, shared, batch, &mut actions);
                }
                next += 1;
            }
            self.members[at].walk = (next < table.bound()).then_some(next);
            if !actions.is_empty() {
                return self.encode_own(batch, &mut actions);
            }
        }
        let missed = self.members[at].missed.iter().copied();
        let missed = missed.filter(|touched| !self.is_queued(*touched));
        let missed: Vec<Touched> = missed.take(BATCH).collect();
        for touched in &missed {
            self.members[at].missed.remove(touched);
            let Some(entry) = table.get(touched.0) else {
                continue;
            };
            let exported = self
                .wanted(entry, touched.1)
                .filter(|path| path.peer != peer && shared.eligible(path))
                .and_then(|path| batch.export(shared, &self.settings, entry, path));
            actions.push(Action {
                audience: Audience::All,
                exported,
                touched: *touched,
                prefix: entry.prefix,
            });
        }
        match missed.is_empty() {
            true => None,
            false => self.encode_own(batch, &mut actions),
        }
    }

    /// It is in the queue: what members hold of it is what was announced last, until its turn comes. To tell one of them alone what the
    /// table has would leave it with that where the table goes back before.
    fn is_queued(&self, (at, id): Touched) -> bool {
        match self.settings.add_path() {
            true => self.queued_paths.contains(&(at, id)),
            false => self.queued.contains(at),
        }
    }

    fn walk_entry<P: Tagged>(
        &self,
        at: u32,
        entry: &Entry<P>,
        peer: PeerId,
        shared: &Shared,
        batch: &mut ExportBatch,
        actions: &mut Vec<Action<P>>,
    ) {
        let ids: SmallVec<[u32; 4]> = if self.settings.add_path() {
            entry.paths.iter().map(|path| path.local_id).collect()
        } else {
            SmallVec::from_slice(&[0])
        };
        for id in ids.into_iter().filter(|id| !self.is_queued((at, *id))) {
            if let Some(path) = self
                .wanted(entry, id)
                .filter(|path| path.peer != peer && shared.eligible(path))
                && let Some(exported) = batch.export(shared, &self.settings, entry, path)
            {
                actions.push(Action {
                    audience: Audience::All,
                    exported: Some(exported),
                    touched: (at, id),
                    prefix: entry.prefix,
                });
            }
        }
    }

    fn encode_own<P: Tagged>(
        &self,
        batch: &ExportBatch,
        actions: &mut [Action<P>],
    ) -> Option<Bytes> {
        let mut out = Vec::new();
        self.encode(batch, actions, |octets, _, _| {
            out.extend_from_slice(&octets)
        });
        Some(out.into())
    }

    /// The path that an entry would be announced with under a path identifier.
    fn wanted<'e, P>(&self, entry: &'e Entry<P>, id: u32) -> Option<&'e Path> {
        if self.settings.add_path() {
            entry.paths.iter().find(|path| path.local_id == id)
        } else {
            entry.best()
        }
    }

    /// Decides and encodes a batch of the queue and appends it to the log.
    fn flush<P: Tagged>(&mut self, table: &Table<P>, shared: &Shared) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut actions: Vec<Action<P>> = Vec::with_capacity(BATCH.min(self.queue.len()) + 1);
        while actions.len() < BATCH {
            let Some(touched) = self.queue.pop_front() else {
                break;
            };
            if self.settings.add_path() {
                self.queued_paths.remove(&touched);
            } else {
                self.queued.remove(touched.0);
            }
            let Some(entry) = table.get(touched.0) else {
                continue;
            };
            let path = self
                .wanted(entry, touched.1)
                .filter(|path| shared.eligible(path));
            let announced = path.and_then(|path| {
                Some((
                    path.peer,
                    batch.export(shared, &self.settings, entry, path)?,
                ))
            });
            let before = self.advertised.get(touched);
            let prefix = entry.prefix;
            let mut act = |audience, exported| {
                actions.push(Action {
                    audience,
                    exported,
                    touched,
                    prefix,
                })
            };
            match (before, announced) {
                (None, None) => {}
                (Some(old), None) => act(Audience::but(old), None),
                (old, Some((source, exported))) => {
                    act(Audience::but(source), Some(exported));
                    // The new source was told of the old path; ours is no news to it, but that one is gone.
                    if old.is_some_and(|old| old != source) && self.is_member(source) {
                        act(Audience::Only(source), None);
                    }
                }
            }
            self.advertised
                .set(touched, announced.map(|(source, _)| source));
        }
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_KEPT {
            self.queue = VecDeque::new();
        }
        self.too_large += batch.too_large;
        let mut chunks = Vec::new();
        self.encode(&batch, &mut actions, |octets, audience, touched| {
            chunks.push(Chunk {
                octets: octets.into(),
                audience,
                touched,
            });
        });
        batch.clear(&mut self.terms);
        self.batch = batch;
        for chunk in chunks {
            self.log_octets += chunk.octets.len();
            self.log.push_back(chunk);
        }
        self.drop_excess();
    }

    fn is_member(&self, peer: PeerId) -> bool {
        self.position(peer).is_some()
    }

    /// Encodes actions, grouped by audience and attributes, into chunks.
    fn encode<P: Tagged>(
        &self,
        batch: &ExportBatch,
        actions: &mut [Action<P>],
        mut chunk: impl FnMut(Vec<u8>, Audience, Vec<Touched>),
    ) {
        let key = |action: &Action<P>| (action.audience, action.exported);
        if !actions.is_sorted_by_key(key) {
            actions.sort_by_key(key);
        }
        let settings = &self.settings;
        let mut out = Vec::with_capacity(CHUNK + 4096);
        let mut actions_left = actions.len();
        let mut touched = Vec::with_capacity(actions_left);
        let mut runs = actions.chunk_by(|a, b| key(a) == key(b)).peekable();
        while let Some(run) = runs.next() {
            let (audience, exported) = key(&run[0]);
            let exported = exported.map(|exported| batch.get(exported));
            let mut writer = match exported {
                None => UpdateWriter::withdraw(&mut out, &settings.encode, settings.family),
                Some((section, next_hop)) => {
                    match UpdateWriter::announce(
                        &mut out,
                        &settings.encode,
                        settings.family,
                        section,
                        next_hop,
                    ) {
                        Ok(writer) => writer,
                        // Whether the attributes fit was asked when they were exported.
                        Err(_) => continue,
                    }
                }
            };
            actions_left -= run.len();
            for action in run {
                writer.push(action.touched.1, action.prefix);
                touched.push(action.touched);
            }
            writer.finish();
            let ends = runs.peek().is_none_or(|next| next[0].audience != audience);
            if ends || out.len() >= CHUNK {
                // What is full is handed on as it is, what is small in as much memory as it needs.
                let octets = if out.len() >= CHUNK {
                    std::mem::replace(&mut out, Vec::with_capacity(CHUNK + 4096))
                } else {
                    let small = out.to_vec();
                    out.clear();
                    small
                };
                let touched = std::mem::replace(&mut touched, Vec::with_capacity(actions_left));
                chunk(octets, audience, touched);
            }
        }
    }

    /// Drops chunks that every member has consumed.
    fn trim(&mut self) {
        let end = self.log_start + self.log.len() as u64;
        let oldest = self
            .members
            .iter()
            .map(|member| member.position)
            .min()
            .unwrap_or(end);
        while self.log_start < oldest
            && let Some(chunk) = self.log.pop_front()
        {
            self.log_octets -= chunk.octets.len();
            self.log_start += 1;
        }
    }

    /// Keeps the log within its limit: members that are too slow lose chunks, and note what they were about.
    fn drop_excess(&mut self) {
        while self.log_octets > LOG_LIMIT
            && let Some(chunk) = self.log.pop_front()
        {
            self.log_octets -= chunk.octets.len();
            for member in &mut self.members {
                if member.position == self.log_start {
                    member.position += 1;
                    if chunk.audience.admits(member.peer) {
                        member.missed.extend(&chunk.touched);
                    }
                }
            }
            self.log_start += 1;
        }
    }
}
