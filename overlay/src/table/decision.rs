//! The decision inside one (VNI, prefix): which candidates are used, and why the others are not.

use smallvec::SmallVec;

use super::types::{Candidate, Preference, Reason};
use crate::intent::ForwardingNextHop;

/// Most ways that share one prefix.
pub(super) const GROUP: usize = 16;

/// What takes part in the decision.
pub(super) trait Contender {
    fn preference(&self) -> &Preference;
    fn forwarding(&self) -> Option<ForwardingNextHop>;
}

impl Contender for Candidate {
    fn preference(&self) -> &Preference {
        &self.preference
    }

    fn forwarding(&self) -> Option<ForwardingNextHop> {
        self.forwarding
    }
}

fn order(x: &Preference, y: &Preference) -> (std::cmp::Ordering, Reason) {
    let steps = [
        (y.local_pref.cmp(&x.local_pref), Reason::LocalPref),
        (
            x.as_path_length.cmp(&y.as_path_length),
            Reason::AsPathLength,
        ),
        (x.origin.cmp(&y.origin), Reason::Origin),
    ];
    steps
        .into_iter()
        .find(|(order, _)| order.is_ne())
        .unwrap_or((std::cmp::Ordering::Equal, Reason::LocalPref))
}

/// Judges every candidate: `None` for those that are used, which are all equal down to the metric in the underlay.
/// `metric` says what a candidate's forwarding next hop is worth.
pub(super) fn judge<C: Contender>(
    candidates: &[C],
    metric: &dyn Fn(&C) -> Result<u32, Reason>,
) -> SmallVec<[Option<Reason>; 4]> {
    let metrics: SmallVec<[Result<u32, Reason>; 4]> = candidates.iter().map(metric).collect();
    let mut lost: SmallVec<[Option<Reason>; 4]> =
        metrics.iter().map(|metric| metric.err()).collect();
    let left = |lost: &[Option<Reason>]| -> SmallVec<[usize; 8]> {
        (0..candidates.len())
            .filter(|at| lost[*at].is_none())
            .collect()
    };
    let standing = left(&lost);
    let Some(best) = standing
        .iter()
        .map(|at| candidates[*at].preference())
        .min_by(|a, b| order(a, b).0)
    else {
        return lost;
    };
    for &at in &standing {
        let (order, reason) = order(candidates[at].preference(), best);
        if order.is_gt() {
            lost[at] = Some(reason);
        }
    }
    let standing = left(&lost);
    for &at in &standing {
        let mine = candidates[at].preference();
        let beaten = standing.iter().any(|other| {
            let other = candidates[*other].preference();
            other.neighbor_as == mine.neighbor_as && other.med < mine.med
        });
        if beaten {
            lost[at] = Some(Reason::Med);
        }
    }
    let standing = left(&lost);
    if standing.iter().any(|at| candidates[*at].preference().ebgp) {
        for &at in standing
            .iter()
            .filter(|at| !candidates[**at].preference().ebgp)
        {
            lost[at] = Some(Reason::Ibgp);
        }
    }
    let standing = left(&lost);
    let nearest = standing.iter().filter_map(|at| metrics[*at].ok()).min();
    for &at in standing.iter().filter(|at| metrics[**at].ok() != nearest) {
        lost[at] = Some(Reason::UnderlayMetric);
    }
    // Several paths to one forwarding next hop are one way.
    let mut ways: Vec<_> = left(&lost)
        .iter()
        .filter_map(|at| candidates[*at].forwarding())
        .collect();
    ways.sort_unstable();
    ways.dedup();
    if let Some(first_out) = ways.get(GROUP) {
        for at in left(&lost) {
            if candidates[at].forwarding().as_ref() >= Some(first_out) {
                lost[at] = Some(Reason::GroupFull);
            }
        }
    }
    lost
}
