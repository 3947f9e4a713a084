//! Requests that were answered are remembered by their Idempotency-Key, so that one that is repeated is done once. How many are, and for how
//! long, has a bound for each token and for all: at it the oldest are forgotten.

use crate::database::Transaction;
use crate::model::{Record, Request, Versioned, key};
use crate::state::{Tally, by};

/// How long an answered request is remembered, ms: a day.
const AGE: u64 = 24 * 3600 * 1000;
/// Requests of one token that are remembered.
const OF_ONE: Tally = Tally {
    count: 10_000,
    octets: 4 << 20,
};
/// Octets of the requests of all tokens.
const OF_ALL: usize = 64 << 20;
/// Requests that have become too old are forgotten by the next ones, some at a time.
const AT_ONCE: usize = 4;

/// Forgets requests in favour of a new one.
pub(super) fn forget(transaction: &mut Transaction<'_>, new: &Request) {
    let state = transaction.state();
    let old = state.by(by::ASKED).take(AT_ONCE);
    let old = old.filter(|one| as_request(one).is_some_and(|one| one.at + AGE < new.at));
    let old: Vec<String> = old.map(|one| one.record.key()).collect();
    let family = key::request(&new.actor, "");
    let own = state.by(&by::asked_by(&new.actor));
    let own = excess(own, state.tally(&family), new, OF_ONE);
    let most = Tally {
        count: usize::MAX,
        octets: OF_ALL,
    };
    let all = excess(state.by(by::ASKED), state.tally("request/"), new, most);
    for key in old.into_iter().chain(own).chain(all) {
        transaction.delete(&key);
    }
}

/// The keys of the first of these requests, as many as have to go so that there is room for a new one.
fn excess<'a>(
    requests: impl Iterator<Item = &'a Versioned>,
    held: Tally,
    new: &Request,
    most: Tally,
) -> Vec<String> {
    let (mut count, mut octets) = (held.count + 1, held.octets + new.octets());
    let mut requests = requests.filter_map(as_request);
    let mut excess = Vec::new();
    while (count > most.count || octets > most.octets)
        && let Some(oldest) = requests.next()
    {
        count -= 1;
        octets = octets.saturating_sub(oldest.octets());
        excess.push(key::request(&oldest.actor, &oldest.key));
    }
    excess
}

fn as_request(one: &Versioned) -> Option<&Request> {
    match &one.record {
        Record::Request(request) => Some(request),
        _ => None,
    }
}
