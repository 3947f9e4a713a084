//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9).

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::types::{AttributeKey, PeerId, PeerKind, Reason};

/// LOCAL_PREF of a path by which packets may not arrive, here and as it is announced within the AS.
pub(crate) const LAST_RESORT: u32 = 0;

/// One path as the decision process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: &'a AttributeKey,
    pub(crate) peer: PeerId,
    /// `None` for a route of our own.
    pub(crate) kind: Option<PeerKind>,
    /// Packets may not reach the neighbour.
    pub(crate) last_resort: bool,
    /// Metric to the next hop; `None` where the path is not eligible.
    pub(crate) metric: Option<u32>,
    /// BGP Identifier of the neighbour.
    pub(crate) router_id: u32,
    /// Address of the neighbour, to be compared as octets.
    pub(crate) address: Option<std::net::IpAddr>,
    pub(crate) path_id: u32,
}

impl Candidate<'_> {
    fn identifier(&self) -> u32 {
        self.key
            .originator_id
            .map_or(self.router_id, |id| u32::from(id.0))
    }

    /// Least where packets may not arrive. That is what other routers of this AS are told, too: a step of its own, known here alone, would
    /// have two routers with such a path each send to the other.
    fn local_pref(&self) -> u32 {
        match self.last_resort {
            true => LAST_RESORT,
            false => self.key.local_pref,
        }
    }

    /// Why a path with a lower LOCAL_PREF than another has it.
    fn less_preferred(&self) -> Reason {
        match self.last_resort {
            true => Reason::LastResort,
            false => Reason::LocalPref,
        }
    }
}

type Ladder = fn(&Candidate<'_>, &Candidate<'_>) -> (Ordering, Reason);

/// Returns the first step at which two differ; the steps behind it are not looked at.
macro_rules! first_difference {
    ($(($order:expr, $reason:expr $(,)?)),+ $(,)?) => {{
        $(
            let order: Ordering = $order;
            if order.is_ne() {
                return (order, $reason);
            }
        )+
        (Ordering::Equal, Reason::PathId)
    }};
}

/// The steps before MULTI_EXIT_DISC.
fn before_med(a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Reason) {
    let (x, y) = (a.key, b.key);
    first_difference!(
        (a.kind.is_some().cmp(&b.kind.is_some()), Reason::NotLocal),
        (b.local_pref().cmp(&a.local_pref()), a.less_preferred()),
        (
            x.as_path_length.cmp(&y.as_path_length),
            Reason::AsPathLength,
        ),
        (x.origin.cmp(&y.origin), Reason::Origin),
    )
}

/// The steps after MULTI_EXIT_DISC. No two paths of a prefix are equal in all of them.
fn after_med(a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Reason) {
    let internal =
        |c: &Candidate<'_>| matches!(c.kind, Some(PeerKind::Ibgp | PeerKind::IbgpClient));
    first_difference!(
        (internal(a).cmp(&internal(b)), Reason::Ibgp),
        (a.metric.cmp(&b.metric), Reason::IgpMetric),
        (a.identifier().cmp(&b.identifier()), Reason::RouterId),
        (
            a.key.cluster_list_length.cmp(&b.key.cluster_list_length),
            Reason::ClusterListLength,
        ),
        (a.address.cmp(&b.address), Reason::PeerAddress),
        (a.peer.cmp(&b.peer), Reason::PeerAddress),
        (a.path_id.cmp(&b.path_id), Reason::PathId),
    )
}

/// The best of paths among which MULTI_EXIT_DISC decides nothing, since all have the same; `Err` where it may decide.
pub(crate) fn decide_without_med<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
) -> Result<Option<usize>, MedDecides> {
    let mut best: Option<(usize, Candidate<'a>)> = None;
    for (at, candidate) in candidates.enumerate() {
        if candidate.metric.is_none() {
            continue;
        }
        let Some((_, other)) = &best else {
            best = Some((at, candidate));
            continue;
        };
        if candidate.key.med != other.key.med {
            return Err(MedDecides);
        }
        let order = before_med(&candidate, other).0;
        if order.then_with(|| after_med(&candidate, other).0).is_lt() {
            best = Some((at, candidate));
        }
    }
    Ok(best.map(|(at, _)| at))
}

/// [`decide`] has to be asked.
pub(crate) struct MedDecides;

/// Decides. Returns the index of the best path, where one is eligible. With `reasons`, says for every other path why
/// it lost. The result does not depend on the order of the paths: steps eliminate, as the RFC words it, and
/// MULTI_EXIT_DISC, which is no order over paths of several ASes, is compared among all paths of one neighbouring AS
/// that reached that step. The cost grows with the number of paths: thousands of tenants may share a prefix.
pub(crate) fn decide(
    candidates: &[Candidate<'_>],
    mut reasons: Option<&mut Vec<Option<Reason>>>,
) -> Option<usize> {
    if let Some(reasons) = reasons.as_deref_mut() {
        reasons.clear();
        reasons.extend(
            candidates
                .iter()
                .map(|c| c.metric.is_none().then_some(Reason::NextHopUnreachable)),
        );
    }
    let mut left: SmallVec<[usize; 8]> = (0..candidates.len())
        .filter(|&at| candidates[at].metric.is_some())
        .collect();
    let mut eliminate = |left: &mut SmallVec<[usize; 8]>,
                         lost: &dyn Fn(&Candidate<'_>) -> Option<Reason>| {
        left.retain(|at| {
            let reason = lost(&candidates[*at]);
            if let Some(reasons) = reasons.as_deref_mut()
                && reason.is_some()
            {
                reasons[*at] = reason;
            }
            reason.is_none()
        });
    };
    let least = |left: &[usize], ladder: Ladder| {
        let left = left.iter().map(|&at| &candidates[at]);
        left.min_by(|a, b| ladder(a, b).0)
    };
    let behind = |best: &Candidate<'_>, ladder: Ladder, candidate: &Candidate<'_>| {
        let (order, reason) = ladder(candidate, best);
        order.is_gt().then_some(reason)
    };

    let best = least(&left, before_med)?;
    eliminate(&mut left, &|candidate| behind(best, before_med, candidate));
    let mut lowest: SmallVec<[(u32, u32); 8]> = SmallVec::new();
    for &at in &left {
        let key = candidates[at].key;
        match lowest.iter_mut().find(|(asn, _)| *asn == key.neighbor_as) {
            Some((_, med)) => *med = key.med.min(*med),
            None => lowest.push((key.neighbor_as, key.med)),
        }
    }
    eliminate(&mut left, &|candidate| {
        let key = candidate.key;
        let mut same_as = lowest.iter().filter(|(asn, _)| *asn == key.neighbor_as);
        same_as
            .any(|(_, med)| key.med > *med)
            .then_some(Reason::Med)
    });
    let best = least(&left, after_med)?;
    eliminate(&mut left, &|candidate| behind(best, after_med, candidate));
    left.first().copied()
}
