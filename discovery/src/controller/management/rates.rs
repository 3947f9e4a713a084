//! How often a token may ask that is not an operator's, and how much of the history tenants may fill: it forgets the oldest revision for each
//! new one, whoever made them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_api::bounds::Rate;

use crate::database::Rejection;

/// Requests of one token at once; then one each [`EVERY`].
const BURST: u32 = 500;
const EVERY: Duration = Duration::from_millis(10);
/// Tokens whose requests are counted. When there are more, counting begins anew.
const TOKENS: usize = 10_000;

/// Octets of a change that count for one; those of a history that is as large as it may be are as many a revision.
const OCTETS: usize = 8 << 10;
/// Changes of one tenant's administrators at once, and of all tenants' together: half of the history is left to operators.
const AT_ONCE: [u32; 2] = [500, 5000];
/// Then there is one more after each time like this.
const ONE_MORE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(8)];

/// Changes lately.
#[derive(Clone, Copy, Debug)]
struct Share {
    changes: u32,
    at: Instant,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self {
            changes: 0,
            at: now,
        }
    }

    /// What was long ago counts no more.
    fn forget(&mut self, now: Instant, one_more: Duration) {
        let passed = now.saturating_duration_since(self.at).as_nanos() / one_more.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.at = match passed >= self.changes {
            true => now,
            false => self.at + one_more * passed,
        };
        self.changes = self.changes.saturating_sub(passed);
    }
}

/// Changes that tenants' administrators have made lately: all of them, and each tenant's.
#[derive(Debug)]
pub(in crate::controller) struct Shares(Mutex<(Share, HashMap<String, Share>)>);

impl Default for Shares {
    fn default() -> Self {
        Self(Mutex::new((Share::new(Instant::now()), HashMap::new())))
    }
}

impl Shares {
    /// A tenant's administrators may change something.
    ///
    /// # Errors
    /// [`Rejection::TooMany`]: how much that was, and what to do.
    pub(super) fn check(&self, tenant: &str) -> Result<(), Rejection> {
        self.check_at(tenant, Instant::now())
    }

    /// They have, by so many octets.
    pub(super) fn add(&self, tenant: &str, octets: usize) {
        self.add_at(tenant, octets, Instant::now());
    }

    fn check_at(&self, tenant: &str, now: Instant) -> Result<(), Rejection> {
        // Nobody panics with it.
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, tenants) = &mut *shares;
        all.forget(now, ONE_MORE[1]);
        tenants.retain(|_, share| {
            share.forget(now, ONE_MORE[0]);
            share.changes > 0
        });
        let own = tenants.get(tenant).map_or(0, |share| share.changes);
        let [most, most_of_all] = AT_ONCE;
        let (whose, every) = match (own >= most, all.changes >= most_of_all) {
            (true, _) => (format!("tenant `{tenant}`"), ONE_MORE[0]),
            (false, true) => ("all tenants together".to_owned(), ONE_MORE[1]),
            (false, false) => return Ok(()),
        };
        Err(Rejection::TooMany(format!(
            "the administrators of {whose} have changed as much as they may lately: one change more every {} s. Wait, or have an operator \
             do it",
            every.as_secs()
        )))
    }

    fn add_at(&self, tenant: &str, octets: usize, now: Instant) {
        let changes = u32::try_from(octets.div_ceil(OCTETS).max(1)).unwrap_or(u32::MAX);
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, tenants) = &mut *shares;
        let own = tenants.entry(tenant.to_owned());
        for share in [all, own.or_insert_with(|| Share::new(now))] {
            share.changes = share.changes.saturating_add(changes);
        }
    }
}

/// Requests of each token lately.
#[derive(Debug, Default)]
pub(in crate::controller) struct Rates(Mutex<HashMap<String, Rate>>);

impl Rates {
    /// One more request of a token that is known.
    ///
    /// # Errors
    /// [`Rejection::TooMany`].
    pub(super) fn pass(&self, token: &str) -> Result<(), Rejection> {
        // Nobody panics with it.
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= TOKENS && !rates.contains_key(token) {
            rates.clear();
        }
        let rate = rates.entry(token.to_owned());
        match rate.or_insert_with(|| Rate::new(BURST, EVERY)).pass() {
            Some(_) => Ok(()),
            None => Err(Rejection::TooMany(format!(
                "token {token} asks too often: {BURST} requests at once, then {} a second; ask again in a second",
                1000 / EVERY.as_millis()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_asks_too_often_is_told_so_and_others_are_not() {
        let rates = Rates::default();
        let refused = (0..BURST * 10).find_map(|_| rates.pass("a").err());
        let refused = refused.expect("an end").to_string();
        assert!(refused.contains("token a asks too often"), "{refused}");
        assert_eq!(rates.pass("b"), Ok(()));
    }

    /// With an administrator's token: as many changes as can be, small ones and large ones, for a day.
    #[test]
    fn tenants_do_not_push_what_operators_did_out_of_the_history() {
        let start = Instant::now();
        let day = Duration::from_secs(24 * 3600);
        for (octets, counts) in [(100, 1), (100 << 10, 13)] {
            let shares = Shares::default();
            let spend = |tenant: &str, now: Instant| {
                let mut made = 0;
                while shares.check_at(tenant, now).is_ok() {
                    shares.add_at(tenant, octets, now);
                    made += counts;
                }
                made
            };
            let at_once = spend("red", start);
            assert!((500..500 + counts).contains(&at_once), "{at_once}");
            // Another one may still; many tenants that are one attacker's may not for long.
            assert!(spend("blue", start) >= 500);
            let all: u32 = (0..100).map(|at| spend(&format!("t{at}"), start)).sum();
            assert!(all + 1000 <= 5000 + 2 * counts, "{all}");
            let refused = shares.check_at("green", start).unwrap_err().to_string();
            assert!(refused.contains("all tenants together"), "{refused}");
            let mut made = 0;
            for minute in 1..=24 * 60 {
                made += spend("red", start + Duration::from_secs(60) * minute);
            }
            assert!(made <= 24 * 60 + 500 + counts, "{made}");
            assert!(shares.check_at("green", start + day).is_ok());
        }
    }
}
