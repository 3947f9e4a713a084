//! Whether this router sends on what comes in by tunnels: probes of other routers are packets of tenants that it is to send back, and
//! the programs at tunnel devices count them on both ways. Whatever is between, a filter of somebody or a route, the router that has it
//! says so itself, and not only those that do not hear from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_overlay::intent::TenantId;

use super::Actor;
use crate::condition::{ConditionKind, Severity};

/// So many probes in a row, over so long, that were not sent back are no chance.
const LOST: u64 = 4;
const LASTS: Duration = Duration::from_millis(750);
/// So many tenants are looked at at once.
const LOOK_AT: usize = 256;

/// What is known of probes, by tenant.
#[derive(Debug, Default)]
pub(super) struct Reflections {
    seen: BTreeMap<TenantId, Seen>,
    /// Who was looked at last.
    last: Option<TenantId>,
}

/// Probes of one tenant's.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    came: u64,
    went: u64,
    /// Those that came since one was sent back last, and since when.
    owed: u64,
    since: Option<Instant>,
}

impl Seen {
    /// The counters are here now.
    fn look(&mut self, now: Instant, (came, went): (u64, u64)) {
        let before = (self.came, self.went);
        (self.came, self.went) = (came, went);
        // They begin again with another table.
        if went != before.1 || came < before.0 {
            (self.owed, self.since) = (0, None);
        } else if came > before.0 {
            self.owed += came - before.0;
            self.since.get_or_insert(now);
        }
    }

    /// Probes have been sent back before, and none is now. Who has never sent one back may not be meant to.
    fn is_silent(&self, now: Instant) -> bool {
        let since = self.since;
        let long = since.is_some_and(|since| now.saturating_duration_since(since) >= LASTS);
        self.went > 0 && self.owed >= LOST && long
    }
}

impl Actor {
    /// Looks at the next few tenants.
    pub(super) fn watch_reflections(&mut self, now: Instant) {
        let Some(classifier) = self.classifier.as_ref().filter(|_| self.settled) else {
            return;
        };
        let tenants = &self.tenants;
        let reflections = &mut self.reflections;
        reflections.seen.retain(|id, _| tenants.contains_key(id));
        let behind = |id: &TenantId| reflections.last.is_none_or(|last| *id > last);
        let next = tenants.iter().filter(|(id, _)| behind(id)).take(LOOK_AT);
        let next: Vec<_> = next.collect();
        // From the beginning again after the last.
        reflections.last = match next[..] {
            [.., (last, _)] if next.len() == LOOK_AT => Some(*last),
            _ => None,
        };
        let vnis = next.iter().flat_map(|(_, tenant)| &tenant.intent.vnis);
        let vnis: Vec<u32> = vnis.map(|vni| vni.get()).collect();
        let mut counts = classifier.probes(&vnis).into_iter();
        for (id, tenant) in next {
            let its = counts.by_ref().take(tenant.intent.vnis.len());
            let its = its.fold((0, 0), |(a, b), (came, went)| (a + came, b + went));
            match reflections.seen.get_mut(id) {
                Some(seen) => seen.look(now, its),
                None => {
                    let (came, went) = its;
                    let seen = Seen {
                        came,
                        went,
                        ..Seen::default()
                    };
                    reflections.seen.insert(*id, seen);
                }
            }
        }
        self.note_reflections(now);
    }

    fn note_reflections(&mut self, now: Instant) {
        let kind = ConditionKind::NotForwarding;
        let silent = self.reflections.seen.iter();
        let silent: Vec<TenantId> = silent
            .filter(|(_, seen)| seen.is_silent(now))
            .map(|(id, _)| *id)
            .collect();
        if silent.is_empty() && !self.conditions.any(kind) {
            return;
        }
        // Where no route of the tenant leads to a far router any more, nothing is to be sent there.
        let leads = |vnis: &[weft_overlay::Vni]| {
            let mut hops = self.groups.values().flat_map(|one| &one.group.hops.0);
            hops.any(|hop| vnis.contains(&hop.vni))
        };
        let silent: BTreeMap<String, u32> = silent
            .iter()
            .filter_map(|id| self.tenants.get(id))
            .filter(|tenant| leads(&tenant.intent.vnis))
            .map(|tenant| (tenant.intent.name.clone(), tenant.table))
            .collect();
        self.conditions
            .retain(now, kind, |name| silent.contains_key(name));
        for (name, table) in silent {
            self.conditions.set(
                now,
                (kind, &name),
                Severity::Degraded,
                "packets of the tenant come in by tunnels, and this router does not send them on: other routers' probes do not leave again",
                Some(format!(
                    "`nft list ruleset`: a filter in the forward hook, or a rule that changes marks? `ip route show table {table}`: a route that is not of `proto 87`? `ip rule`"
                )),
            );
            self.conditions.narrow(kind, &name, vec![name.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_that_are_not_sent_back_are_missed_after_a_while() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let mut seen = Seen::default();
        // Some may have been on their way.
        for tenth in 0..20 {
            seen.look(at(tenth), (tenth + 1, tenth));
            assert!(!seen.is_silent(at(tenth)));
        }
        for tenth in 20..40 {
            seen.look(at(tenth), (tenth + 1, 19));
            let long = tenth >= 28;
            assert_eq!(seen.is_silent(at(tenth)), long, "{tenth}");
        }
        // Nobody asks any more: it is not known to be otherwise.
        seen.look(at(100), (40, 19));
        assert!(seen.is_silent(at(100)));
        seen.look(at(101), (41, 20));
        assert!(!seen.is_silent(at(101)));
        // Few in a long time are a chance.
        for second in 2..5 {
            seen.look(at(100 * second), (40 + second, 20));
            assert!(!seen.is_silent(at(100 * second)));
        }
    }

    #[test]
    fn who_has_never_sent_one_back_is_not_missed_and_a_new_table_is_no_loss() {
        let start = Instant::now();
        let mut seen = Seen::default();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            seen.look(now, (4 * second, 0));
            assert!(!seen.is_silent(now));
        }
        seen.look(start, (500, 500));
        seen.look(start, (3, 3));
        assert_eq!((seen.came, seen.owed), (3, 0));
    }
}
