//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9).

use std::cmp::Ordering;

use super::types::{AttributeKey, PeerId, PeerKind, Reason};

/// One path as the decision process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: &'a AttributeKey,
    pub(crate) peer: PeerId,
    /// `None` for a route of our own.
    pub(crate) kind: Option<PeerKind>,
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
}

/// Compares by every step but MULTI_EXIT_DISC, which is no order over paths of several ASes. `before_med` says which
/// half of the ladder.
fn ladder(a: &Candidate<'_>, b: &Candidate<'_>, before_med: bool) -> (Ordering, Reason) {
    let steps: &[(Ordering, Reason)] = if before_med {
        &[
            (a.kind.is_some().cmp(&b.kind.is_some()), Reason::NotLocal),
            (b.key.local_pref.cmp(&a.key.local_pref), Reason::LocalPref),
            (
                a.key.as_path_length.cmp(&b.key.as_path_length),
                Reason::AsPathLength,
            ),
            (a.key.origin.cmp(&b.key.origin), Reason::Origin),
        ]
    } else {
        let internal =
            |c: &Candidate<'_>| matches!(c.kind, Some(PeerKind::Ibgp | PeerKind::IbgpClient));
        &[
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
        ]
    };
    steps
        .iter()
        .find(|(order, _)| order.is_ne())
        .copied()
        .unwrap_or((Ordering::Equal, Reason::PathId))
}

fn med_loses(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
    a.key.neighbor_as == b.key.neighbor_as && a.key.med > b.key.med
}

/// Decides. Returns the index of the best path, where one is eligible. With `reasons`, says for every other path why
/// it lost. The result does not depend on the order of the paths: steps eliminate, as the RFC words it, and
/// MULTI_EXIT_DISC is compared among all paths of one neighbouring AS that reached that step.
pub(crate) fn decide(
    candidates: &[Candidate<'_>],
    mut reasons: Option<&mut Vec<Option<Reason>>>,
) -> Option<usize> {
    if let [only] = candidates
        && reasons.is_none()
    {
        return only.metric.map(|_| 0);
    }
    if let Some(reasons) = reasons.as_deref_mut() {
        reasons.clear();
        reasons.extend(
            candidates
                .iter()
                .map(|c| c.metric.is_none().then_some(Reason::NextHopUnreachable)),
        );
    }
    let mut left: smallvec::SmallVec<[usize; 8]> = (0..candidates.len())
        .filter(|&at| candidates[at].metric.is_some())
        .collect();
    let mut eliminate =
        |left: &mut smallvec::SmallVec<[usize; 8]>,
         lost: &dyn Fn(&Candidate<'_>, &[usize]) -> Option<Reason>| {
            let before = left.clone();
            left.retain(|at| match lost(&candidates[*at], &before) {
                Some(reason) => {
                    if let Some(reasons) = reasons.as_deref_mut() {
                        reasons[*at] = Some(reason);
                    }
                    false
                }
                None => true,
            });
        };
    let by_ladder = |before_med: bool| {
        move |candidate: &Candidate<'_>, left: &[usize]| {
            let best = left
                .iter()
                .map(|&at| &candidates[at])
                .min_by(|a, b| ladder(a, b, before_med).0)?;
            let (order, reason) = ladder(candidate, best, before_med);
            order.is_gt().then_some(reason)
        }
    };
    eliminate(&mut left, &by_ladder(true));
    eliminate(&mut left, &|candidate, left| {
        left.iter()
            .any(|&at| med_loses(candidate, &candidates[at]))
            .then_some(Reason::Med)
    });
    eliminate(&mut left, &by_ladder(false));
    left.first().copied()
}
