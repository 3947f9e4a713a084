//! Keys of the sessions between the routers of the domain: TCP MD5 signatures (RFC 2385), a key for each pair, that the two of them alone
//! are told.
//!
//! TCP takes no segment that another key has signed, or none, so no router signs with a key before both hold it:
//!
//! ```text
//!  no key ──made──► next ──both hold it──► current ──replaced──► current, next ──both hold it──► current …
//! ```
//!
//! A router that has just joined has no session yet: its keys are current from the start, and nothing is ever sent without. One that joins
//! again, with another identity, has none either: until it has the new keys its neighbours hear nobody at its address. A router of an
//! earlier version, or one that is told not to sign, gets no keys, and its sessions are not signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::database::Transaction;
use crate::model::{Record, Role, Router, State, key, now};
use crate::operations::{Done, router_of};
use crate::pki::random;
use crate::proto;
use crate::state::by;

/// How old a key becomes, ms: 30 days.
const AGE: u64 = 30 * 24 * 3600 * 1000;
/// Random octets of a key; it is their hexadecimal digits.
const OCTETS: usize = 32;
/// Keys that are made at once; the next ones a second later. So many sessions go over to another key together.
pub(crate) const AT_ONCE: usize = 64;

/// A key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// One more than the former one's of the pair, from 1.
    pub number: u32,
    /// What segments are signed with.
    pub text: String,
    /// When it was made, ms since 1970.
    pub made: u64,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ..)", self.number)
    }
}

impl Secret {
    fn new(number: u32, made: u64) -> Self {
        Self {
            number,
            text: random(OCTETS),
            made,
        }
    }
}

impl fmt::Debug for proto::SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("name", &self.name)
            .field("key", &!self.key.is_empty())
            .field("next", &!self.next.is_empty())
            .field("unsigned", &self.unsigned)
            .finish()
    }
}

/// The keys of the session between two routers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionKey {
    /// Their names, sorted.
    pub routers: [String; 2],
    /// What both sign with; absent where they do not sign yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Secret>,
    /// What they will sign with when both hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Secret>,
    /// Which of them hold that.
    #[serde(default)]
    pub held: [bool; 2],
}

/// Keys that were made before this are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// When an operator asked for that, ms since 1970.
    pub since: u64,
}

/// A router holds the next key of its session with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) router: String,
    pub(crate) other: String,
    pub(crate) number: u32,
}

/// How the keys of one session do; never the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyStatus {
    /// The two routers.
    #[schema(value_type = Vec<String>)]
    pub routers: [String; 2],
    /// Their session is signed.
    pub signed: bool,
    /// How old the key is that signs it, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Which key of the pair that is: the first one, the second one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Routers that are to hold the next key before it is used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// How the keys of a domain do; never the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeysStatus {
    /// Each pair of routers that have keys.
    pub keys: Vec<KeyStatus>,
    /// Routers whose sessions are not signed, by name, and why.
    pub unsigned: BTreeMap<String, String>,
    /// A key is replaced when it is so old, s.
    pub replaced_after: u64,
}

impl SessionKey {
    fn new(one: &str, other: &str) -> Self {
        Self {
            routers: key::pair(one, other).map(str::to_owned),
            current: None,
            next: None,
            held: [false; 2],
        }
    }

    /// The next key is made; where there is one already it stays.
    fn replace(&mut self, at: u64) {
        if self.next.is_none() {
            let number = self.current.as_ref().map_or(0, |one| one.number);
            self.next = Some(Secret::new(number + 1, at));
            self.held = [false; 2];
        }
    }

    /// What either has held is worth nothing, and there is no session to be kept: another key is in force at once.
    fn renew(&mut self, at: u64) {
        let numbers = self.current.iter().chain(&self.next).map(|one| one.number);
        let last = numbers.max().unwrap_or(0);
        self.current = Some(Secret::new(last + 1, at));
        (self.next, self.held) = (None, [false; 2]);
    }

    /// One of the two holds a key. When both do, they sign with it.
    fn hold(&mut self, router: &str, number: u32) {
        if self.next.as_ref().is_none_or(|next| next.number != number) {
            return;
        }
        for (at, name) in self.routers.iter().enumerate() {
            self.held[at] |= name == router;
        }
        if self.held == [true; 2] {
            self.current = self.next.take();
            self.held = [false; 2];
        }
    }

    /// An operator wants another key, or it is too old.
    fn is_due(&self, replaced: u64) -> bool {
        let made = self.current.as_ref().map(|one| one.made);
        self.next.is_none() && made.is_some_and(|made| made < replaced)
    }

    fn status(&self) -> KeyStatus {
        let current = self.current.as_ref();
        let waits = self.routers.iter().zip(self.held);
        let waits = waits.filter(|(_, held)| self.next.is_some() && !held);
        KeyStatus {
            routers: self.routers.clone(),
            signed: current.is_some(),
            age: current.map(|one| now().saturating_sub(one.made) / 1000),
            number: current.map(|one| one.number),
            waits_for: waits.map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// Names of the routers that a router has sessions with, of those that sign: of all where it or nobody reflects, else of reflectors.
fn others(state: &State, router: &Router) -> Vec<String> {
    let reflected =
        router.role != Role::Reflector && state.routers_as(Role::Reflector).next().is_some();
    let named = |one: &Router| (one.name != router.name && signs(one)).then(|| one.name.clone());
    match reflected {
        true => state
            .routers_as(Role::Reflector)
            .filter_map(named)
            .collect(),
        false => state.routers().filter_map(named).collect(),
    }
}

fn signs(router: &Router) -> bool {
    let own = router.registration.as_ref();
    own.is_some_and(|own| own.session_keys)
}

/// Why a router does not sign.
fn why_unsigned(router: &Router) -> Option<String> {
    let own = router.registration.as_ref()?;
    (!own.session_keys).then(|| {
        let version = match own.version.as_str() {
            "" => "an earlier version".to_owned(),
            version => format!("weft {version}"),
        };
        format!(
            "router `{}` ({version}) takes no keys: its version knows none, its kernel has no TCP MD5 signatures, or its file says \
             `sign_sessions: false`",
            router.name
        )
    })
}

fn key_of(transaction: &Transaction<'_>, one: &str, other: &str) -> Option<SessionKey> {
    match transaction.get(&key::session_key(one, other)) {
        Some(Record::SessionKey(known)) => Some(known.clone()),
        _ => None,
    }
}

/// A router has registered. `fresh`: for the first time since it joined, so that nobody has a session with it.
pub(crate) fn registered(transaction: &mut Transaction<'_>, router: &Router, fresh: bool) {
    if !signs(router) {
        return forget(transaction, &router.name);
    }
    let state = transaction.state();
    for other in others(state, router) {
        if key_of(transaction, &router.name, &other).is_some() {
            continue;
        }
        let mut made = SessionKey::new(&router.name, &other);
        made.replace(moment(state));
        if fresh {
            made.current = made.next.take();
        }
        transaction.put(Record::SessionKey(made));
    }
}

/// A router is no more, or is another one: nobody signs with what it knows.
pub(crate) fn forget(transaction: &mut Transaction<'_>, router: &str) {
    for one in transaction.state().by(&by::session_keys(router)) {
        transaction.delete(&one.record.key());
    }
}

/// A router has another identity, and whoever had the former one is nobody: its sessions are signed with other keys from now on, which the
/// new one is told when it registers. Until then its neighbours hear nobody at its address.
pub(crate) fn renew(transaction: &mut Transaction<'_>, router: &str) {
    let state = transaction.state();
    let at = moment(state);
    for one in state.by(&by::session_keys(router)) {
        if let Record::SessionKey(known) = &one.record {
            let mut known = known.clone();
            known.renew(at);
            transaction.put(Record::SessionKey(known));
        }
    }
}

/// Routers hold next keys.
pub(crate) fn held(transaction: &mut Transaction<'_>, holds: &[Hold]) {
    for hold in holds {
        if let Some(mut known) = key_of(transaction, &hold.router, &hold.other) {
            known.hold(&hold.router, hold.number);
            transaction.put(Record::SessionKey(known));
        }
    }
}

/// Has all keys of the domain replaced by others, some of them at a time.
pub(crate) fn replace_all(transaction: &mut Transaction<'_>) {
    // Those too that were made while the clock was ahead.
    let keys = transaction.state().session_keys();
    let made = keys.flat_map(|one| one.current.iter().chain(&one.next));
    let latest = made.map(|one| one.made + 1).max();
    let since = latest.unwrap_or(0).max(now());
    transaction.put(Record::Replaced(Replaced { since }));
}

/// Keys made before this are not wanted by an operator.
fn unwanted(state: &State) -> u64 {
    match state.get(key::REPLACED).map(|one| &one.record) {
        Some(Record::Replaced(one)) => one.since,
        _ => 0,
    }
}

/// Keys made before this are to be replaced.
fn replaced(state: &State) -> u64 {
    unwanted(state).max(now().saturating_sub(AGE))
}

/// When a key is made that is made now: not before those that are replaced by it, wherever the clock is.
fn moment(state: &State) -> u64 {
    unwanted(state).max(now())
}

/// Where keys may be wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Sessions of these routers may have none.
    pub(crate) routers: BTreeSet<String>,
    /// Sessions of any router may have none: with the first reflector, or without the last one, all routers have other ones.
    pub(crate) anywhere: bool,
    /// Some may be too old, or an operator wants others.
    pub(crate) old: bool,
}

impl Wanted {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.routers.extend(other.routers);
        self.anywhere |= other.anywhere;
        self.old |= other.old;
    }
}

/// Pairs of routers that are to have a key, or another one, looked for where that may be so: at most [`AT_ONCE`]. It costs a look-up for
/// each session of such a router, and a look at each key where they may be old.
pub(crate) fn wanting(state: &State, wanted: &Wanted) -> Vec<[String; 2]> {
    let before = replaced(state);
    let keys = wanted.old.then(|| state.session_keys());
    let due = keys.into_iter().flatten().filter(|one| one.is_due(before));
    let due = due.map(|one| one.routers.clone());
    let named = wanted.routers.iter().filter(|_| !wanted.anywhere);
    let named = named.filter_map(|name| state.router(&key::router(name)));
    let all = wanted.anywhere.then(|| state.routers());
    let routers = named.chain(all.into_iter().flatten());
    let missing = routers.filter(|one| signs(one)).flat_map(|one| {
        let others = others(state, one).into_iter();
        others.filter_map(|other| {
            let missing = state.get(&key::session_key(&one.name, &other)).is_none();
            missing.then(|| key::pair(&one.name, &other).map(str::to_owned))
        })
    });
    // Each pair has two ends that may both be looked at.
    let mut found = BTreeSet::new();
    for pair in due.chain(missing) {
        found.insert(pair);
        if found.len() == AT_ONCE {
            break;
        }
    }
    found.into_iter().collect()
}

/// Makes the next key of each of these pairs.
pub(crate) fn make(transaction: &mut Transaction<'_>, pairs: &[[String; 2]]) -> Done<()> {
    for [one, other] in pairs {
        let both = [router_of(transaction, one)?, router_of(transaction, other)?];
        if !both.iter().all(signs) {
            continue;
        }
        let known = key_of(transaction, one, other);
        let mut known = known.unwrap_or_else(|| SessionKey::new(one, other));
        if known.current.is_none() || known.is_due(replaced(transaction.state())) {
            known.replace(moment(transaction.state()));
            transaction.put(Record::SessionKey(known));
        }
    }
    Ok(())
}

/// What a router is told of the keys of its session with another one; `None` where there is nothing to tell yet.
pub(crate) fn told(state: &State, router: &str, other: &Router) -> Option<proto::SessionKey> {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|one| one.text.clone());
    if let Some(why) = why_unsigned(other) {
        return Some(proto::SessionKey {
            name: other.name.clone(),
            unsigned: why,
            ..proto::SessionKey::default()
        });
    }
    let known = state.session_key(&key::session_key(router, &other.name))?;
    Some(proto::SessionKey {
        name: other.name.clone(),
        key: text(&known.current).unwrap_or_default().into_bytes(),
        next: text(&known.next).unwrap_or_default().into_bytes(),
        unsigned: String::new(),
    })
}

/// The number of the next key of two routers.
pub(crate) fn next(state: &State, router: &str, other: &str) -> Option<u32> {
    let known = state.session_key(&key::session_key(router, other))?;
    known.next.as_ref().map(|next| next.number)
}

/// Routers whose sessions are not signed, by name, and why.
pub(crate) fn unsigned(state: &State) -> BTreeMap<String, String> {
    let unsigned = state.routers().filter_map(|router| {
        let why = why_unsigned(router)?;
        Some((router.name.clone(), why))
    });
    unsigned.collect()
}

/// How the keys do.
pub(crate) fn status(state: &State) -> KeysStatus {
    KeysStatus {
        keys: state.session_keys().map(SessionKey::status).collect(),
        unsigned: unsigned(state),
        replaced_after: AGE / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> SessionKey {
        SessionKey::new("b", "a")
    }

    #[test]
    fn a_key_is_used_when_both_hold_it_and_not_before() {
        let mut keys = pair();
        assert_eq!(keys.routers, ["a", "b"]);
        keys.replace(5);
        let first = keys.next.clone().unwrap();
        assert_eq!((first.number, first.text.len()), (1, 2 * OCTETS));
        // Another one is not made while this one is handed out; what nobody was given is nobody's to hold.
        keys.replace(6);
        assert_eq!(keys.next.as_ref(), Some(&first));
        keys.hold("a", 2);
        keys.hold("c", 1);
        assert_eq!(keys.held, [false; 2]);
        for _ in 0..2 {
            keys.hold("b", 1);
            assert_eq!((keys.held, &keys.current), ([false, true], &None));
        }
        assert_eq!(keys.status().waits_for, ["a"]);
        keys.hold("a", 1);
        assert_eq!((keys.current.as_ref(), &keys.next), (Some(&first), &None));
        // What comes late changes nothing.
        keys.hold("b", 1);
        assert!(keys.status().signed && keys.held == [false; 2]);
        keys.replace(7);
        keys.hold("a", 1);
        assert_eq!(keys.held, [false; 2]);
        assert_eq!(keys.next.as_ref().map(|one| one.number), Some(2));
    }

    #[test]
    fn a_key_is_due_when_it_is_old_and_no_other_is_on_its_way() {
        let mut keys = pair();
        assert!(!keys.is_due(u64::MAX));
        keys.replace(100);
        keys.hold("a", 1);
        keys.hold("b", 1);
        assert!(keys.is_due(101) && !keys.is_due(100));
        keys.replace(101);
        assert!(!keys.is_due(102));
    }

    #[test]
    fn a_secret_is_in_no_log() {
        let mut keys = pair();
        keys.replace(1);
        let text = keys.next.clone().unwrap().text;
        assert!(!format!("{keys:?}").contains(&text));
        let told = proto::SessionKey {
            key: text.clone().into_bytes(),
            ..proto::SessionKey::default()
        };
        let shown = format!("{told:?}");
        assert!(!shown.contains(&text) && shown.len() < 100, "{shown}");
    }
}
