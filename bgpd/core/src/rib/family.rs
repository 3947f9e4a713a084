//! The routes of one address family: paths in, best paths chosen, changes marked for groups and for the report.

use bytes::Bytes;
use smallvec::SmallVec;
use weft_bgp_policy::RoutePolicy;
use weft_bgp_wire::{AttributesView, Nlri};

use super::Shared;
use super::decision::{Candidate, MedDecides, decide, decide_without_med};
use super::export::{ExportSettings, PolicyChange};
use super::group::Group;
use super::hash::HashKey;
use super::index::Tagged;
use super::interner::AttributeId;
use super::table::{BitSet, Entry, Path, Table, WARM};
use super::types::{PeerId, PeerKind, Reason, ReportedPath, RouteBatch};

pub(crate) struct FamilyRib<P> {
    pub(crate) table: Table<P>,
    groups: Vec<Option<Group>>,
    /// The group of each neighbour, by its number.
    group_of: Vec<Option<usize>>,
    report: Vec<u32>,
    report_queued: BitSet,
    /// Entries that lost their last path; freed when nothing refers to them any more.
    empty: Vec<u32>,
    /// Entries with a path.
    live: usize,
}

/// The neighbour has as many paths of the prefix as it may have. Those of an earlier session make room for those of this one.
fn has_most<P>(shared: &Shared, entry: &Entry<P>, peer: PeerId) -> bool {
    let most = shared.max_paths(peer);
    let its = |path: &&Path| path.peer == peer && !path.stale;
    entry.paths.len() >= most && entry.paths.iter().filter(its).count() >= most
}

/// Entries that are freed one by one.
const FEW: usize = 1024;

impl<P: Tagged> FamilyRib<P> {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            table: Table::new(key),
            groups: Vec::new(),
            group_of: Vec::new(),
            report: Vec::new(),
            report_queued: BitSet::default(),
            empty: Vec::new(),
            live: 0,
        }
    }

    /// Sets (`Some`, whose reference it takes over) or removes the path of `peer` with this path identifier. False where the
    /// neighbour has as many paths of the prefix as it may have.
    pub(crate) fn set_path(
        &mut self,
        shared: &mut Shared,
        prefix: P,
        peer: PeerId,
        path_id: u32,
        attributes: Option<AttributeId>,
    ) -> bool {
        let at = match attributes {
            Some(_) => self.table.find_or_insert(prefix),
            None => self.table.find(&prefix),
        };
        match (at, attributes) {
            (Some(at), _) => return self.set_path_at(shared, at, peer, path_id, attributes),
            (None, Some(attributes)) => shared.interner.release(attributes),
            (None, None) => {}
        }
        true
    }

    /// Brings what [`FamilyRib::set_path`] will look at for these prefixes into the cache.
    pub(crate) fn warm(&self, shared: &Shared, run: &[Nlri<P>]) {
        let prefixes: SmallVec<[P; WARM]> = run.iter().map(|nlri| nlri.prefix).collect();
        let entries = self.table.warm(&prefixes);
        let paths = entries.iter().filter_map(|entry| entry.paths.first());
        shared.interner.warm(paths.map(|path| path.attributes));
    }

    fn set_path_at(
        &mut self,
        shared: &mut Shared,
        at: u32,
        peer: PeerId,
        path_id: u32,
        attributes: Option<AttributeId>,
    ) -> bool {
        let Some(entry) = self.table.get_mut(at) else {
            return true;
        };
        let position = entry
            .paths
            .iter()
            .position(|path| path.peer == peer && path.path_id == path_id);
        let best_before = entry.best().copied();
        let several_before = entry.paths.len() > 1;
        let local_id = match (position, attributes) {
            (None, None) => return true,
            (Some(position), Some(attributes)) => {
                let within = shared.within(entry.prefix.into(), attributes);
                let path = &mut entry.paths[position];
                path.within = within;
                let old = std::mem::replace(&mut path.attributes, attributes);
                path.stale = false;
                shared.interner.release(old);
                // The same again: nobody need hear of it, not even where it was stale.
                if old == attributes {
                    return true;
                }
                entry.paths[position].local_id
            }
            (Some(position), None) => {
                let path = entry.paths.remove(position);
                shared.interner.release(path.attributes);
                shared.count(peer, P::FAMILY, -1);
                self.live -= usize::from(entry.paths.is_empty());
                path.local_id
            }
            (None, Some(attributes)) => {
                // Nearly every prefix has one path.
                if !entry.paths.is_empty() && has_most(shared, entry, peer) {
                    shared.interner.release(attributes);
                    return false;
                }
                let local_id = entry.free_local_id();
                self.live += usize::from(entry.paths.is_empty());
                entry.paths.push(Path {
                    attributes,
                    path_id,
                    local_id,
                    peer,
                    stale: false,
                    within: shared.within(entry.prefix.into(), attributes),
                });
                shared.count(peer, P::FAMILY, 1);
                local_id
            }
        };
        self.changed(shared, at, local_id, best_before, several_before);
        true
    }

    /// Chooses again and marks what follows from it.
    fn changed(
        &mut self,
        shared: &Shared,
        at: u32,
        local_id: u32,
        best_before: Option<Path>,
        several_before: bool,
    ) {
        let Some(entry) = self.table.get_mut(at) else {
            return;
        };
        select(shared, entry);
        if entry.paths.is_empty() {
            self.empty.push(at);
        }
        // Labels of several paths may be joined into one announcement, so that any path matters, the one that has just gone too.
        let several = several_before || entry.paths.len() > 1;
        let best_changed = entry.best().copied() != best_before || (several && shared.labels());
        for group in self.groups.iter_mut().flatten() {
            if best_changed || group.settings.add_path() {
                group.mark(at, local_id);
                if shared.labels() && group.settings.add_path() && group.settings.joins() {
                    mark_mates(group, shared, entry, at, local_id);
                }
            }
        }
        let wanted = entry.reported
            || shared.reports(entry.prefix.into())
            || (shared.labels()
                && entry
                    .paths
                    .iter()
                    .any(|path| shared.interner.labelled(path.attributes)));
        if wanted && self.report_queued.insert(at) {
            self.report.push(at);
        }
    }

    /// A session with `peer` came up.
    pub(crate) fn join(&mut self, peer: PeerId, enhanced: bool, settings: ExportSettings) {
        let at = self.place(settings.clone(), || Group::new(settings));
        if peer.index() >= self.group_of.len() {
            self.group_of.resize(peer.index() + 1, None);
        }
        self.group_of[peer.index()] = Some(at);
        if let Some(group) = &mut self.groups[at] {
            group.join(peer, enhanced, &self.table);
        }
    }

    /// The number of the group of these settings, made where there is none.
    fn place(&mut self, settings: ExportSettings, make: impl FnOnce() -> Group) -> usize {
        let same = |group: &Option<Group>| {
            let group = group.as_ref();
            group.is_some_and(|group| group.settings == settings)
        };
        if let Some(at) = self.groups.iter().position(same) {
            return at;
        }
        let free = self.groups.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[at] = Some(make());
        at
    }

    /// Other export policies for members of groups. A group whose members all change alike stays one.
    pub(crate) fn set_policies(&mut self, shared: &Shared, changes: &[(PeerId, RoutePolicy)]) {
        for at in 0..self.groups.len() {
            let Some(group) = &self.groups[at] else {
                continue;
            };
            let here = changes.iter().filter(|(peer, policy)| {
                self.group_of.get(peer.index()) == Some(&Some(at))
                    && group.settings.policy != *policy
            });
            let here: Vec<&(PeerId, RoutePolicy)> = here.collect();
            let Some(((_, first), others)) = here.split_first() else {
                continue;
            };
            let peers: Vec<PeerId> = here.iter().map(|(peer, _)| *peer).collect();
            if group.consists_of(&peers) && others.iter().all(|(_, policy)| policy == first) {
                let differing = self.differing(shared, &group.settings, first);
                if let Some(group) = &mut self.groups[at] {
                    group.set_policy(first.clone(), &differing);
                }
                continue;
            }
            for (peer, policy) in here {
                self.regroup(shared, *peer, at, policy);
            }
        }
    }

    /// A member of a group goes to one with another policy.
    fn regroup(&mut self, shared: &Shared, peer: PeerId, from: usize, policy: &RoutePolicy) {
        let Some(group) = &mut self.groups[from] else {
            return;
        };
        let Some(leaver) = group.take(peer) else {
            return;
        };
        let before = group.settings.clone();
        let settings = ExportSettings {
            policy: policy.clone(),
            ..before.clone()
        };
        let fresh = group.with_settings(settings.clone());
        let to = self.place(settings, || fresh);
        let differing = self.differing(shared, &before, policy);
        if let Some(group) = &mut self.groups[to] {
            group.adopt(leaver, &differing);
        }
        if self.groups[from].as_ref().is_some_and(Group::is_deserted) {
            self.groups[from] = None;
        }
        self.group_of[peer.index()] = Some(to);
    }

    /// Paths of entries that come to something else by another policy, by their numbers and path identifiers.
    fn differing(
        &self,
        shared: &Shared,
        before: &ExportSettings,
        policy: &RoutePolicy,
    ) -> Vec<(u32, u32)> {
        let mut comparison = PolicyChange::new(before, policy);
        let mut differing = Vec::new();
        for (at, entry) in self.table.iter() {
            // Where labels are joined, any path matters to the others.
            if comparison.differs(shared, entry) {
                differing.extend(entry.paths.iter().map(|path| (at, path.local_id)));
            }
        }
        differing
    }

    /// The session with `peer` is down: nothing more is sent to it.
    pub(crate) fn leave(&mut self, peer: PeerId) {
        if let Some(at) = self.group_of.get_mut(peer.index()).and_then(Option::take)
            && self.groups[at]
                .as_mut()
                .is_some_and(|group| group.leave(peer))
        {
            self.groups[at] = None;
        }
        self.bury();
    }

    pub(crate) fn group(&self, peer: PeerId) -> Option<&Group> {
        self.groups[self.group_of.get(peer.index()).copied().flatten()?].as_ref()
    }

    pub(crate) fn has_any_pending(&self) -> bool {
        self.groups.iter().flatten().any(Group::has_any_pending)
    }

    pub(crate) fn readvertise(&mut self, peer: PeerId) {
        if let Some(at) = self.group_of.get(peer.index()).copied().flatten()
            && let Some(group) = &mut self.groups[at]
        {
            group.readvertise(peer);
        }
    }

    pub(crate) fn poll(&mut self, peer: PeerId, shared: &Shared) -> Option<Bytes> {
        let at = self.group_of.get(peer.index()).copied().flatten()?;
        let octets = self.groups[at].as_mut()?.poll(peer, &self.table, shared);
        // The last reference to entries without paths may have been in these octets.
        self.bury();
        octets
    }

    fn paths_of(&self, mut wanted: impl FnMut(&Path) -> bool) -> Vec<(u32, u32, PeerId)> {
        let mut found = Vec::new();
        for (at, entry) in self.table.iter() {
            found.extend(
                entry
                    .paths
                    .iter()
                    .filter(|path| wanted(path))
                    .map(|path| (at, path.path_id, path.peer)),
            );
        }
        found
    }

    /// Removes every path of `peer`, or only the stale ones.
    pub(crate) fn flush(&mut self, shared: &mut Shared, peer: PeerId, only_stale: bool) {
        for (at, path_id, _) in
            self.paths_of(|path| path.peer == peer && (path.stale || !only_stale))
        {
            self.set_path_at(shared, at, peer, path_id, None);
        }
        self.bury();
    }

    /// Marks every path of `peer` stale. What is stale from an earlier restart already goes (RFC 4724 section 4.2), unless `older` says
    /// that it stays too (RFC 8538 section 4.1).
    pub(crate) fn mark_stale(&mut self, shared: &mut Shared, peer: PeerId, older: bool) {
        if !older {
            self.flush(shared, peer, true);
        }
        for (at, path_id, _) in self.paths_of(|path| path.peer == peer) {
            if let Some(entry) = self.table.get_mut(at)
                && let Some(path) = entry
                    .paths
                    .iter_mut()
                    .find(|path| path.peer == peer && path.path_id == path_id)
            {
                path.stale = true;
            }
        }
    }

    /// Next hops changed: chooses again wherever one of them is used.
    pub(crate) fn next_hops_changed(&mut self, shared: &Shared, changed: &[std::net::IpAddr]) {
        let uses = |path: &Path| {
            let next_hop = shared.interner.get(path.attributes).next_hop.address;
            changed.contains(&next_hop.to_canonical())
        };
        self.choose_again(shared, &uses, false);
    }

    /// Chooses again wherever there is such a path; `announce` says that what neighbours are told of these paths changes, too.
    pub(crate) fn choose_again(
        &mut self,
        shared: &Shared,
        uses: &dyn Fn(&Path) -> bool,
        announce: bool,
    ) {
        let mut entries = Vec::new();
        for (at, entry) in self.table.iter() {
            if entry.paths.iter().any(uses) {
                entries.push(at);
            }
        }
        for at in entries {
            let Some(entry) = self.table.get(at) else {
                continue;
            };
            // What was told of a best path that stays the best one is told anew.
            let stays = |best: &Path| !(announce && uses(best));
            let best_before = entry.best().copied().filter(stays);
            let ids: SmallVec<[u32; 4]> = entry
                .paths
                .iter()
                .filter(|path| uses(path))
                .map(|path| path.local_id)
                .collect();
            let several = entry.paths.len() > 1;
            for id in ids {
                self.changed(shared, at, id, best_before, several);
            }
        }
    }

    /// The prefixes that have a path with such attributes. These are asked about once a set, not once a prefix.
    fn entries_where(
        &self,
        shared: &Shared,
        wanted: &dyn Fn(AttributesView<'_>) -> bool,
    ) -> Vec<u32> {
        let mut known: Vec<Option<bool>> = Vec::new();
        let mut wanted = |path: &Path| {
            let at = path.attributes.index();
            if at >= known.len() {
                known.resize(at + 1, None);
            }
            *known[at].get_or_insert_with(|| wanted(shared.interner.get(path.attributes).view()))
        };
        let entries = self.table.iter();
        entries
            .filter(|(_, entry)| entry.paths.iter().any(&mut wanted))
            .map(|(at, _)| at)
            .collect()
    }

    /// Exports a prefix anew.
    pub(crate) fn export_again(&mut self, prefix: P) {
        let Some((at, entry)) = self
            .table
            .find(&prefix)
            .and_then(|at| Some((at, self.table.get(at)?)))
        else {
            return;
        };
        for group in self.groups.iter_mut().flatten() {
            for path in &entry.paths {
                group.mark(at, path.local_id);
            }
        }
    }

    /// Reports them anew, and exports them anew.
    pub(crate) fn again_where(
        &mut self,
        shared: &Shared,
        wanted: &dyn Fn(AttributesView<'_>) -> bool,
    ) {
        for at in self.entries_where(shared, wanted) {
            if self.report_queued.insert(at) {
                self.report.push(at);
            }
            let Some(entry) = self.table.get(at) else {
                continue;
            };
            for group in self.groups.iter_mut().flatten() {
                for path in &entry.paths {
                    group.mark(at, path.local_id);
                }
            }
        }
    }

    pub(crate) fn has_report(&self) -> bool {
        !self.report.is_empty()
    }

    /// Moves changed prefixes into `batch`, at most `limit`.
    pub(crate) fn drain_report(&mut self, shared: &Shared, batch: &mut RouteBatch, limit: usize) {
        let count = self.report.len().min(limit);
        let labels = shared.labels();
        for at in self.report.drain(..count) {
            self.report_queued.remove(at);
            let Some(entry) = self.table.get_mut(at) else {
                continue;
            };
            let start = batch.paths.len() as u32;
            let all = shared.reports(entry.prefix.into());
            for (rank, path) in entry.paths.iter().enumerate() {
                let set = shared.interner.get(path.attributes);
                if all || (labels && set.key.labelled) {
                    let metric = shared.metric(path);
                    batch.paths.push(ReportedPath {
                        source: path.peer,
                        path_id: path.local_id,
                        best: rank == 0 && entry.has_best,
                        ebgp: shared.kind(path.peer) == Some(PeerKind::Ebgp),
                        add_path: shared.receives_add_path(path.peer, P::FAMILY),
                        eligible: metric.is_some(),
                        last_resort: shared.is_last_resort(path.peer),
                        igp_metric: metric.unwrap_or(u32::MAX),
                        attributes: set.clone(),
                    });
                }
            }
            let end = batch.paths.len() as u32;
            if end > start || entry.reported {
                batch.prefixes.push((entry.prefix.into(), start..end));
            }
            entry.reported = end > start;
        }
        self.bury();
    }

    /// Prefixes with a path.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Frees entries without paths, once nothing that was queued refers to them: a few at once, many when they are
    /// half of the table, since that is cheaper by far than one by one.
    pub(crate) fn bury(&mut self) {
        if self.empty.len() < FEW || self.live * 2 <= self.table.len() {
            self.bury_all();
        }
    }

    /// Frees entries without paths however many they are.
    pub(crate) fn bury_all(&mut self) {
        if self.empty.is_empty()
            || !self.report.is_empty()
            || !self.groups.iter().flatten().all(Group::is_quiet)
        {
            return;
        }
        if self.table.len() - self.live < FEW {
            for at in std::mem::take(&mut self.empty) {
                if self.table.get(at).is_some_and(Entry::is_empty) {
                    self.table.remove(at);
                }
            }
        } else {
            self.empty = Vec::new();
            self.table.retain(|entry| !entry.is_empty());
        }
        if self.live == 0 {
            self.report = Vec::new();
            self.report_queued = BitSet::default();
            for group in self.groups.iter_mut().flatten() {
                group.shrink();
            }
        }
    }

    /// Why each path of an entry lost; `None` for the best one.
    pub(crate) fn reasons(&self, shared: &Shared, entry: &Entry<P>) -> Vec<Option<Reason>> {
        let candidates = candidates(shared, entry);
        let mut reasons = Vec::new();
        decide(&candidates, Some(&mut reasons));
        reasons
    }
}

fn candidates<'s, P>(shared: &'s Shared, entry: &Entry<P>) -> SmallVec<[Candidate<'s>; 4]> {
    entry
        .paths
        .iter()
        .map(|path| shared.candidate(path))
        .collect()
}

/// Marks the paths that the labels of this one may be, or may have been, announced with: the lowest two.
fn mark_mates<P>(group: &mut Group, shared: &Shared, entry: &Entry<P>, at: u32, local_id: u32) {
    let announcement = group.settings.announcement(local_id);
    if matches!(group.settings.policy, RoutePolicy::Program(_)) {
        // The policy may pass over the lowest ones.
        for path in &entry.paths {
            if group.settings.announcement(path.local_id) == announcement && shared.joinable(path) {
                group.mark(at, path.local_id);
            }
        }
        return;
    }
    let mut lowest = [u32::MAX; 2];
    for path in &entry.paths {
        if group.settings.announcement(path.local_id) == announcement && shared.joinable(path) {
            if path.local_id < lowest[0] {
                lowest = [path.local_id, lowest[0]];
            } else if path.local_id < lowest[1] {
                lowest[1] = path.local_id;
            }
        }
    }
    for id in lowest.into_iter().filter(|id| *id != u32::MAX) {
        group.mark(at, id);
    }
}

/// Puts the best path first.
fn select<P>(shared: &Shared, entry: &mut Entry<P>) {
    let best = if let [only] = &entry.paths[..] {
        shared.eligible(only).then_some(0)
    } else {
        let paths = entry.paths.iter().map(|path| shared.candidate(path));
        decide_without_med(paths)
            .unwrap_or_else(|MedDecides| decide(&candidates(shared, entry), None))
    };
    entry.has_best = best.is_some();
    if let Some(best) = best {
        entry.paths.swap(0, best);
    }
}
