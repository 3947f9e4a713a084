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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, State};
    use crate::state::visited;

    fn request(actor: &str, number: u64, octets: usize) -> Request {
        Request {
            actor: actor.into(),
            key: format!("k{number}"),
            hash: String::new(),
            body: "x".repeat(octets).into(),
            at: AGE + number,
        }
    }

    /// One more request is answered; gives the records that were looked at for it.
    fn answer(state: &mut State, request: Request) -> u64 {
        let before = state.clone();
        let (revision, looked) = visited::during(|| {
            let mut transaction = Transaction::new(&before);
            forget(&mut transaction, &request);
            transaction.put(Record::Request(request));
            Revision {
                number: before.revision + 1,
                at: 0,
                actor: String::new(),
                operation: String::new(),
                changes: transaction.changes(),
            }
        });
        state.apply(&revision);
        looked
    }

    fn held(state: &State, actor: &str, number: u64) -> bool {
        let key = key::request(actor, &format!("k{number}"));
        state.request(&key).is_some()
    }

    #[test]
    fn so_many_requests_of_a_token_are_remembered_and_a_new_one_looks_at_few() {
        let mut state = State::default();
        let most = OF_ONE.count as u64;
        let mut looked = Vec::new();
        for number in 0..most + 10 {
            looked.push(answer(&mut state, request("a", number, 1)));
        }
        assert_eq!(state.tally(&key::request("a", "")).count, OF_ONE.count);
        assert!(
            !held(&state, "a", 9) && held(&state, "a", 10),
            "the oldest go"
        );
        assert!(
            looked.iter().all(|one| *one <= 10),
            "{:?}",
            looked.iter().max()
        );
        // Another token's are not touched by them.
        answer(&mut state, request("b", 0, 1));
        for number in 0..100 {
            answer(&mut state, request("a", most + 10 + number, 1));
        }
        assert!(held(&state, "b", 0));
    }

    #[test]
    fn what_is_remembered_has_a_size_and_an_age() {
        let mut state = State::default();
        for number in 0..100 {
            answer(&mut state, request("a", number, 64 << 10));
            assert!(state.tally("request/").octets <= OF_ONE.octets);
        }
        assert!(held(&state, "a", 99) && !held(&state, "a", 0));
        for actor in 0..18 {
            for number in 0..60 {
                answer(
                    &mut state,
                    request(&format!("t{actor}"), 100 + number, 64 << 10),
                );
                assert!(state.tally("request/").octets <= OF_ALL);
            }
        }
        assert!(!held(&state, "a", 99) && held(&state, "t17", 159));
        // The next ones of anybody forget those that are a day old.
        let later = Request {
            at: 3 * AGE,
            ..request("z", 0, 1)
        };
        let before = state.tally("request/").count;
        answer(&mut state, later);
        assert_eq!(state.tally("request/").count, before + 1 - AT_ONCE);
    }
}
