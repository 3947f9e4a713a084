//! How policies and lists are read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::policy::{AsPathPattern, Edit, NextHopEdit, Program, RoutePolicy, well_known};
use weft_bgp_wire::{AnyCommunity, AnyCommunityPattern, Community, Family, LargeCommunity, Origin};
use weft_overlay::import::Kind;
use weft_overlay::{VniSet, words};

use super::library::accepting;
use super::{
    AsPathItem, Communities, CommunityItem, EditCommunities, Library, Match, Med, NextHopWord,
    NumberRange, Passing, PassingWords, PrefixItem, Prepend, Remove, Set, Sets, Source, Term, Then,
};
use crate::config::reader::{Cursor, Fields, did_you_mean};
use crate::config::session::{PrefixRange, prefix_range};
use crate::config::values::{asn, number_of, vni_set};

/// What a neighbour's `import` and `export` may name.
#[derive(Default)]
pub(crate) struct Policies {
    pub(crate) library: Library,
    /// Neighbours with the same words have the same program.
    programs: RefCell<BTreeMap<Vec<String>, Arc<Program>>>,
}

impl Policies {
    pub(in crate::config) fn new(library: Library) -> Self {
        Self {
            library,
            programs: RefCell::default(),
        }
    }
}

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Import,
    Export,
}

/// Names of a mapping, each with what stands there. `taken` are names that mean something else.
fn named<T>(
    at: &Cursor<'_>,
    what: &str,
    taken: &dyn Fn(&str) -> Option<String>,
    read: impl Fn(&Cursor<'_>) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let entries = at.entries(&format!("a mapping of names to {what}"))?;
    let mut all = BTreeMap::new();
    for (key, value) in entries {
        let name = key.scalar().unwrap_or_default();
        if let Err(allowed) = words::name(name) {
            key.problem(format!("found `{name}`, expected {allowed}"), None);
        } else if let Some(why) = taken(name) {
            key.problem(why, Some("take another name".to_owned()));
        }
        if let Some(value) = read(&value) {
            all.insert(name.to_owned(), value);
        }
    }
    Some(all)
}

fn ready(name: &str, mut all: impl Iterator<Item = &'static str>) -> Option<String> {
    let is_one = all.any(|one| one == name);
    is_one.then(|| format!("`{name}` is one that Weft has ready"))
}

pub(in crate::config) fn prefix_lists(
    at: &Cursor<'_>,
) -> Option<BTreeMap<String, Vec<PrefixRange>>> {
    let taken = |name: &str| ready(name, well_known::PREFIX_LISTS.iter().map(|list| list.name));
    named(at, "lists of prefixes", &taken, |at| {
        one_or_many(at, "a list of prefixes", &|at| prefix_range(at))
    })
}

pub(in crate::config) fn as_paths(at: &Cursor<'_>) -> Option<BTreeMap<String, Vec<AsPathItem>>> {
    let taken = |name: &str| {
        let numbers = name.bytes().all(|octet| !octet.is_ascii_alphabetic());
        let why = format!("`{name}` could be an AS path itself: a name has a letter");
        numbers
            .then_some(why)
            .or_else(|| ready(name, ["bogons"].into_iter()))
    };
    named(at, "lists of AS paths", &taken, |at| {
        one_or_many(at, "a list of AS paths", &|at| match as_path(at)? {
            AsPathItem::Name(name) => {
                at.problem(
                    format!("found the name `{name}`, expected a regular expression or a range of AS numbers"),
                    None,
                );
                None
            }
            item => Some(item),
        })
    })
}

pub(in crate::config) fn communities(
    at: &Cursor<'_>,
) -> Option<BTreeMap<String, Vec<AnyCommunityPattern>>> {
    let taken = |name: &str| {
        let well_known = name == "all" || name.parse::<Community>().is_ok();
        well_known.then(|| format!("`{name}` means something already"))
    };
    named(at, "lists of communities", &taken, |at| {
        one_or_many(at, "a list of communities", &pattern)
    })
}

pub(in crate::config) fn policies(
    at: &Cursor<'_>,
    sets: &Sets,
) -> Option<BTreeMap<String, Vec<Term>>> {
    let taken = |name: &str| {
        let word = matches!(name, "accept" | "reject" | "next" | "prefixes");
        let word = word.then(|| format!("`{name}` means something already"));
        let all = well_known::POLICIES.iter();
        word.or_else(|| ready(name, all.map(|one| &*one.policy.name)))
    };
    let entries = at.entries("a mapping of names to lists of terms")?;
    let names: Vec<String> = entries
        .iter()
        .filter_map(|(key, _)| Some(key.scalar()?.to_owned()))
        .collect();
    let read = named(at, "lists of terms", &taken, |at| {
        let terms = at.list("a list of terms", |at| term(&at, sets, &names))?;
        let mut known: Vec<String> = Vec::new();
        for (number, term) in (1..).zip(&terms) {
            let name = term.value.name.clone();
            let name = name.unwrap_or_else(|| number.to_string());
            if known.contains(&name) {
                let message = format!("the term `{name}` stands in this policy for a second time");
                term.at
                    .problem(message, Some("give it another `name`".to_owned()));
            }
            known.push(name);
        }
        Some(terms.into_iter().map(|at| at.value).collect())
    })?;
    // Each by itself, so that a loop is said where it is.
    let library = Library::new(&read, sets);
    for (key, value) in &entries {
        let name = [key.scalar().unwrap_or_default().to_owned()];
        if let Err(error) = library.program(&name)
            && !matches!(error, weft_bgp::policy::ProgramError::Unknown(_))
        {
            value.problem(error.to_string(), None);
        }
    }
    Some(read)
}

/// A list's items, or the only one.
fn one_or_many<'a, T>(
    at: &Cursor<'a>,
    allowed: &str,
    read: &dyn Fn(&Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    if at.is_sequence() {
        let items = at.list(allowed, |at| read(&at))?;
        return Some(items.into_iter().map(|at| at.value).collect());
    }
    Some(vec![read(at)?])
}

/// The same of a condition: one of these, so that there has to be one. Of a name's list, which may become empty, it is what no route has.
fn any_of<'a, T>(
    at: &Cursor<'a>,
    allowed: &str,
    read: &dyn Fn(&Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    if at.is_empty_list() {
        at.problem(
            "an empty list is no condition",
            Some("leave it out where any will do, or name something".to_owned()),
        );
        return None;
    }
    one_or_many(at, allowed, read)
}

/// Notes a name that nobody has, with one that is near.
fn unknown<'n>(
    at: &Cursor<'_>,
    what: &str,
    name: &str,
    section: &str,
    known: impl Iterator<Item = &'n str>,
) {
    let known: Vec<&str> = known.collect();
    let help = did_you_mean(name, &known).unwrap_or_else(|| {
        format!(
            "define it under `{section}`; there are {}",
            known.join(", ")
        )
    });
    at.problem(format!("there is no {what} `{name}`"), Some(help));
}

fn term(at: &Cursor<'_>, sets: &Sets, names: &[String]) -> Option<Term> {
    let mut fields = at.fields("a mapping with `match`, `set`, and `then` or `call`")?;
    let name = fields.optional("name", |at| crate::config::values::name(&at));
    let matches = fields.optional("match", |at| conditions(&at, sets));
    let unless = fields.optional("unless", |at| {
        let unless = conditions(&at, sets)?;
        if unless.is_all() {
            at.problem(
                "all routes are those without a condition, so that the term would be about none",
                Some("leave `unless` out".to_owned()),
            );
        }
        Some(unless)
    });
    let set = fields.optional("set", |at| set(&at, sets));
    let then = fields.optional("then", |at| {
        at.choice(&[
            ("accept", Then::Accept),
            ("reject", Then::Reject),
            ("next", Then::Next),
        ])
    });
    let call = fields.optional("call", |at| {
        let name = at.scalar().unwrap_or_default();
        if !names.iter().any(|one| one == name) && well_known::policy(name).is_none() {
            let ready = well_known::POLICIES.iter().map(|one| &*one.policy.name);
            let all = ready.chain(names.iter().map(String::as_str));
            unknown(&at, "policy", name, "policies", all);
        }
        Some(name.to_owned())
    });
    if call.is_some() && then.is_some() {
        at.problem(
            "`call` stands in the place of `then`",
            Some("leave one of them out".to_owned()),
        );
    }
    if ["then", "call", "set"]
        .iter()
        .all(|key| fields.get(key).is_none())
    {
        at.problem(
            "the term does nothing",
            Some("add `then: accept`, `then: reject`, or what it is to `set`".to_owned()),
        );
    }
    fields.finish();
    Some(Term {
        name,
        matches: matches.unwrap_or_default(),
        unless,
        set: set.unwrap_or_default(),
        then: then.unwrap_or_default(),
        call,
    })
}

fn conditions(at: &Cursor<'_>, sets: &Sets) -> Option<Match> {
    let mut fields = at.fields("a mapping of conditions")?;
    let prefixes = fields.optional("prefixes", |at| {
        any_of(
            &at,
            "a list of prefixes and of names of prefix lists",
            &|at| prefix_item(at, sets),
        )
    });
    let as_path = fields.optional("as_path", |at| {
        any_of(&at, "a list of AS paths", &|at| {
            let item = as_path(at)?;
            if let AsPathItem::Name(name) = &item
                && !sets.path_lists().any(|one| one == name)
            {
                unknown(at, "list of AS paths", name, "as_paths", sets.path_lists());
            }
            Some(item)
        })
    });
    let communities = fields.optional("communities", |at| communities_of(&at, sets));
    let [as_path_length, origin_as, neighbor_as, local_pref, med] = [
        "as_path_length",
        "origin_as",
        "neighbor_as",
        "local_pref",
        "med",
    ]
    .map(|key| fields.optional(key, |at| any_of(&at, "numbers and ranges", &number_range)));
    let (vnis, labels) = labels(&mut fields, sets);
    let origin = fields.optional("origin", |at| {
        any_of(&at, "a list of `igp`, `egp`, `incomplete`", &origin)
    });
    let [next_hop, neighbors] = ["next_hop", "neighbors"]
        .map(|key| fields.optional(key, |at| any_of(&at, "addresses and prefixes", &net)));
    let source = fields.optional("source", |at| {
        let words = [
            ("local", Source::Local),
            ("ebgp", Source::Ebgp),
            ("ibgp", Source::Ibgp),
        ];
        any_of(&at, "a list of sources", &|at| at.choice(&words))
    });
    let families = fields.optional("families", |at| {
        let words = Family::ALL.map(|family| (family.to_string(), family));
        let words: Vec<(&str, Family)> = words
            .iter()
            .map(|(word, family)| (word.as_str(), *family))
            .collect();
        any_of(&at, "a list of address families", &|at| at.choice(&words))
    });
    fields.finish();
    Some(Match {
        prefixes: prefixes.unwrap_or_default(),
        as_path: as_path.unwrap_or_default(),
        as_path_length: as_path_length.unwrap_or_default(),
        origin_as: origin_as.unwrap_or_default(),
        neighbor_as: neighbor_as.unwrap_or_default(),
        communities: communities.unwrap_or_default(),
        vnis,
        labels,
        origin: origin.unwrap_or_default(),
        local_pref: local_pref.unwrap_or_default(),
        med: med.unwrap_or_default(),
        next_hop: next_hop.unwrap_or_default(),
        neighbors: neighbors.unwrap_or_default(),
        source: source.unwrap_or_default(),
        families: families.unwrap_or_default(),
    })
}

/// A list of which a route has any, or with `all` each.
fn communities_of(at: &Cursor<'_>, sets: &Sets) -> Option<Communities> {
    if !at.is_mapping() {
        return Some(Communities::Any(items(at, sets)?));
    }
    let mut fields = at.fields("a list, or a mapping with `all`")?;
    let all = fields.required("all", "of each item the route has one", |at| {
        items(&at, sets)
    });
    fields.finish();
    Some(Communities::All(all?))
}

/// What a route says of the overlay.
fn labels(fields: &mut Fields<'_>, sets: &Sets) -> (Option<VniSet>, Vec<Kind>) {
    let vnis = fields.optional("vnis", |at| vni_set(&at));
    let labels = fields.optional("labels", |at| {
        let words = Kind::ALL.map(|kind| (kind.word(), kind));
        any_of(&at, "a list of kinds", &|at| at.choice(&words))
    });
    for key in ["vnis", "labels"] {
        if let Some(at) = fields.get(key).filter(|_| sets.administrator.is_none()) {
            at.problem("labels are of an overlay, and there is none", None);
        }
    }
    (vnis, labels.unwrap_or_default())
}

fn set(at: &Cursor<'_>, sets: &Sets) -> Option<Set> {
    let mut fields = at.fields("a mapping of what is changed")?;
    let number = |at: &Cursor<'_>| number_of(at, "a number", 0, u64::from(u32::MAX));
    let local_pref = fields.optional("local_pref", |at| number(&at));
    let med = fields.optional("med", |at| match at.scalar() {
        Some("remove") => Some(Med::Remove),
        _ => number_of(&at, "`remove`, or a number", 0, u64::from(u32::MAX)).map(Med::Set),
    });
    let origin = fields.optional("origin", |at| origin(&at));
    let prepend = fields.optional("prepend", |at| prepend(&at));
    let next_hop = fields.optional("next_hop", |at| next_hop(&at));
    let communities = fields.optional("communities", |at| edit_communities(&at, sets));
    let labels = fields.optional("labels", |at| {
        if sets.administrator.is_none() {
            at.problem("labels are of an overlay, and there is none", None);
        }
        at.choice(&[("remove", Remove::Remove)])
    });
    fields.finish();
    Some(Set {
        local_pref,
        med,
        origin,
        prepend,
        next_hop,
        communities: communities.unwrap_or_default(),
        labels,
    })
}

fn prepend(at: &Cursor<'_>) -> Option<Prepend> {
    let times = |at: &Cursor<'_>| number_of(at, "a number of times", 1, 32);
    if !at.is_mapping() {
        return Some(Prepend {
            asn: None,
            times: times(at)?,
        });
    }
    let mut fields = at.fields("a number of times, or a mapping with `asn` and `times`")?;
    let number = fields.required("asn", "the AS number that is put in front", |at| asn(&at));
    let times = fields.optional("times", |at| times(&at));
    fields.finish();
    Some(Prepend {
        asn: Some(number?),
        times: times.unwrap_or(1),
    })
}

fn next_hop(at: &Cursor<'_>) -> Option<NextHopWord> {
    match at.scalar() {
        Some("self") => Some(NextHopWord::Own),
        Some("unchanged") => Some(NextHopWord::Unchanged),
        Some(text) if text.parse::<IpAddr>().is_ok() => {
            crate::config::values::next_hop(at).map(NextHopWord::Address)
        }
        _ => at.expected("`self`, `unchanged`, or an IP address"),
    }
}

fn edit_communities(at: &Cursor<'_>, sets: &Sets) -> Option<EditCommunities> {
    let mut fields = at.fields("a mapping with `add` and `remove`")?;
    let remove = fields.optional("remove", |at| {
        one_or_many(&at, "a list of communities", &|at| match at.scalar() {
            Some("all") => Some(CommunityItem::All),
            _ => community_item(at, sets),
        })
    });
    let add = fields.optional("add", |at| {
        one_or_many(&at, "a list of communities", &|at| {
            let text = at.scalar().unwrap_or_default();
            match text.parse::<AnyCommunity>() {
                Ok(AnyCommunity::Large(LargeCommunity {
                    global_administrator,
                    ..
                })) if sets.administrator == Some(global_administrator) => {
                    at.problem(
                        format!("`{text}` is a label community of the overlay, which the router makes by itself"),
                        Some("a policy removes labels with `labels: remove`".to_owned()),
                    );
                    None
                }
                Ok(community) => Some(community),
                Err(error) => {
                    at.problem(error.to_string(), None);
                    None
                }
            }
        })
    });
    fields.finish();
    Some(EditCommunities {
        remove: remove.unwrap_or_default(),
        add: add.unwrap_or_default(),
    })
}

fn prefix_item(at: &Cursor<'_>, sets: &Sets) -> Option<PrefixItem> {
    match at.scalar() {
        Some(name) if words::name(name).is_ok() && name.parse::<IpAddr>().is_err() => {
            if !sets.prefix_lists().any(|one| one == name) {
                unknown(at, "prefix list", name, "prefix_lists", sets.prefix_lists());
            }
            Some(PrefixItem::Name(name.to_owned()))
        }
        _ => prefix_range(at).map(PrefixItem::Range),
    }
}

/// A name, a range of AS numbers, or a regular expression.
fn as_path(at: &Cursor<'_>) -> Option<AsPathItem> {
    let text = at.scalar().unwrap_or_default();
    let number = |text: &str| text.parse::<u32>().ok();
    if words::name(text).is_ok() && text.bytes().any(|octet| octet.is_ascii_alphabetic()) {
        return Some(AsPathItem::Name(text.to_owned()));
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Some(first), Some(last)) = (number(first), number(last))
    {
        if first > last {
            return at.expected(format!(
                "a range that ends behind its start: {last}-{first}"
            ));
        }
        return Some(AsPathItem::Contains(first, last));
    }
    match text.parse::<AsPathPattern>() {
        Ok(pattern) => Some(AsPathItem::Pattern(pattern)),
        Err(error) => {
            at.problem(
                format!("found `{text}`, no regular expression of AS paths: {error}"),
                None,
            );
            None
        }
    }
}

fn items(at: &Cursor<'_>, sets: &Sets) -> Option<Vec<CommunityItem>> {
    any_of(at, "a list of communities", &|at| community_item(at, sets))
}

fn community_item(at: &Cursor<'_>, sets: &Sets) -> Option<CommunityItem> {
    let text = at.scalar().unwrap_or_default();
    if words::name(text).is_ok() && text.parse::<AnyCommunityPattern>().is_err() {
        if !sets.communities.contains_key(text) {
            let known = sets.communities.keys().map(String::as_str);
            unknown(at, "list of communities", text, "communities", known);
        }
        return Some(CommunityItem::Name(text.to_owned()));
    }
    pattern(at).map(CommunityItem::Pattern)
}

fn pattern(at: &Cursor<'_>) -> Option<AnyCommunityPattern> {
    match at.scalar().unwrap_or_default().parse() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            at.problem(error.to_string(), None);
            None
        }
    }
}

fn number_range(at: &Cursor<'_>) -> Option<NumberRange> {
    let allowed = "a number or a range such as 100-199 or 200-, within 0 to 4294967295";
    let Some(text) = at.scalar() else {
        return at.expected(allowed);
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text), number(text)),
        Some((first, "")) => (number(first), Some(u32::MAX)),
        Some((first, last)) => (number(first), number(last)),
    };
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Some(NumberRange { first, last }),
        (Some(first), Some(last)) => {
            at.problem(
                format!("found `{text}`, a range that ends before it starts"),
                Some(format!("did you mean {last}-{first}?")),
            );
            None
        }
        _ => at.expected(allowed),
    }
}

fn origin(at: &Cursor<'_>) -> Option<Origin> {
    at.choice(&[
        ("igp", Origin::Igp),
        ("egp", Origin::Egp),
        ("incomplete", Origin::Incomplete),
    ])
}

/// A prefix, or an address as one.
fn net(at: &Cursor<'_>) -> Option<IpNet> {
    match at.scalar().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(address) => Some(address.into()),
        None => crate::config::values::prefix(at),
    }
}

/// A neighbour's `import` or `export`: a word, prefixes, or policies.
pub(in crate::config) fn policy_of(
    at: &Cursor<'_>,
    policies: &Policies,
    way: Way,
) -> Option<Passing> {
    let allowed = "`accept`, `reject`, a policy, a list of policies, or a list of prefixes";
    let word = |word, policy| {
        Some(Passing {
            words: PassingWords::Word(word),
            policy,
        })
    };
    if !at.is_sequence() {
        return match at.scalar() {
            Some("accept") => word("accept", RoutePolicy::Accept),
            Some("reject") => word("reject", RoutePolicy::Reject),
            Some(name) if words::name(name).is_ok() && name.parse::<IpAddr>().is_err() => {
                chain(at, vec![policy_name(at, policies, true)?], policies, way)
            }
            _ => at.expected(allowed),
        };
    }
    if at.is_empty_list() {
        return Some(Passing {
            words: PassingWords::Prefixes(Vec::new()),
            policy: RoutePolicy::Reject,
        });
    }
    let is_name = |at: &Cursor<'_>| {
        let name = at.scalar().filter(|text| words::name(text).is_ok());
        name.is_some_and(|text| text.parse::<IpAddr>().is_err())
    };
    let kinds = at.list(allowed, |at| Some(is_name(&at)))?;
    if kinds.iter().all(|kind| !kind.value) {
        let ranges = at.list(allowed, |at| prefix_range(&at))?;
        let ranges: Vec<PrefixRange> = ranges.into_iter().map(|at| at.value).collect();
        let program = accepting(&ranges).ok()?;
        return Some(Passing {
            words: PassingWords::Prefixes(ranges),
            policy: RoutePolicy::Program(Arc::new(program)),
        });
    }
    if let Some(prefix) = kinds.iter().find(|kind| !kind.value) {
        prefix.at.problem(
            "a list has either prefixes or policies",
            Some(
                "put the prefixes into a policy: `match: { prefixes: [...] }`, `then: accept`"
                    .to_owned(),
            ),
        );
        return None;
    }
    let last = kinds.len();
    let names = (1..).zip(&kinds);
    let names: Vec<Option<String>> = names
        .map(|(number, kind)| policy_name(&kind.at, policies, number == last))
        .collect();
    chain(at, names.into_iter().collect::<Option<_>>()?, policies, way)
}

/// The name of a policy, or, where it is the last, a word.
fn policy_name(at: &Cursor<'_>, policies: &Policies, is_last: bool) -> Option<String> {
    let name = at.scalar()?;
    if matches!(name, "accept" | "reject") {
        if !is_last {
            at.problem(
                format!("behind `{name}` nothing is left for the policies that follow"),
                Some(format!("put `{name}` last")),
            );
        }
    } else if policies.library.find(name).is_none() {
        unknown(at, "policy", name, "policies", policies.library.names());
        return None;
    }
    Some(name.to_owned())
}

fn chain(at: &Cursor<'_>, names: Vec<String>, policies: &Policies, way: Way) -> Option<Passing> {
    let known = policies.programs.borrow().get(&names).cloned();
    let program = match known.map_or_else(|| policies.library.program(&names).map(Arc::new), Ok) {
        Ok(program) => program,
        Err(error) => {
            // Of one alone it has been said where it stands.
            let alone = |name: &String| policies.library.program(std::slice::from_ref(name));
            if names.iter().all(|name| alone(name).is_ok()) {
                at.problem(error.to_string(), None);
            }
            return None;
        }
    };
    if way == Way::Import {
        for (term, edit) in program.edits() {
            let word = match edit {
                Edit::NextHop(NextHopEdit::Own) => "self",
                Edit::NextHop(NextHopEdit::Unchanged) => "unchanged",
                _ => continue,
            };
            at.problem(
                format!("{term} sets the next hop `{word}`, which only has a meaning at export"),
                Some("name an address, or leave it out".to_owned()),
            );
        }
    }
    policies
        .programs
        .borrow_mut()
        .insert(names.clone(), Arc::clone(&program));
    Some(Passing {
        words: PassingWords::Chain(names),
        policy: RoutePolicy::Program(program),
    })
}
