//! Policies compiled, and run.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;
use weft_bgp_wire::{
    AnyCommunity, AnyCommunityPattern, Asn, AttributesBuilder, AttributesView, Community,
    ExtendedCommunity, Family, LargeCommunity, code,
};

use crate::decisions::Decisions;
use crate::prefix::PrefixSet;
use crate::term::{Condition, Conditions, Edit, NextHopEdit, Policy, Source, Term, Then};

/// Terms of a program, those of called policies counted as often as they are called.
pub const MAX_TERMS: usize = 10_000;

/// What passes between a neighbour and the RIB in one direction.
#[derive(Clone, Debug, Default)]
pub enum RoutePolicy {
    /// Everything.
    #[default]
    Accept,
    /// Nothing.
    Reject,
    /// Nothing, because nobody has said what is to pass (RFC 8212).
    Missing,
    /// What the program accepts.
    Program(Arc<Program>),
}

impl RoutePolicy {
    /// The program, where there is one.
    pub fn program(&self) -> Option<&Arc<Program>> {
        match self {
            Self::Program(program) => Some(program),
            Self::Accept | Self::Reject | Self::Missing => None,
        }
    }
}

impl PartialEq for RoutePolicy {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Program(one), Self::Program(other)) => Arc::ptr_eq(one, other) || one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for RoutePolicy {}

/// Policies, one behind the other, as a neighbour has them in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    names: Vec<Arc<str>>,
    terms: Vec<Compiled>,
    sets: Vec<Arc<PrefixSet>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Compiled {
    policy: Arc<str>,
    term: Arc<Term>,
    /// Its prefix lists, by number.
    sets: [Option<u16>; 2],
    /// Where routes that it is not about go on: behind the terms that it calls.
    miss: u16,
}

/// Where in a program something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermName {
    /// The policy.
    pub policy: Arc<str>,
    /// The term of it.
    pub term: Arc<str>,
}

/// Why policies make no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Nobody has it.
    #[error("there is no policy `{0}`")]
    Unknown(String),
    /// It calls itself, perhaps by others, which stand between.
    #[error("a policy that calls itself never ends: {}", .0.join(" calls "))]
    Loop(Vec<String>),
    /// There are more terms than [`MAX_TERMS`].
    #[error("with the policies that are called there are more than {MAX_TERMS} terms")]
    TooLong,
}

/// A route, for conditions to look at: its attributes, and where it is from.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// Its attributes.
    pub attributes: AttributesView<'a>,
    /// Its next hop.
    pub next_hop: IpAddr,
    /// Its family.
    pub family: Family,
    /// Where it is from.
    pub source: Source,
    /// The neighbour that it is from.
    pub neighbor: Option<IpAddr>,
    /// The AS that is put in front where a term names none: at import the neighbour's, at export ours.
    pub prepends: Asn,
}

/// What conditions are tried on and edits are made in; its memory is used again.
#[derive(Default)]
pub struct Scratch {
    edit: AttributesBuilder,
    edited: bool,
    next_hop: Option<IpAddr>,
    path: String,
    /// `path` is the text of the attributes' AS path.
    has_path: bool,
}

/// What edits come to beside the attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another next hop.
    pub next_hop: Option<NextHopEdit>,
    /// Attributes may be others.
    pub attributes: bool,
}

/// Which of a term's prefix lists is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    Matches,
    Unless,
}

/// Terms that a route was in, in order.
pub(crate) type Matched = SmallVec<[u16; 4]>;

/// How far a program has run.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    at: u16,
    stage: Stage,
    pub(crate) matched: Matched,
}

/// Where it stops.
pub(crate) enum Step {
    /// The prefix list decides which of the two follows.
    Ask(u16, State, State),
    /// It is decided.
    Done(bool, Matched),
}

impl Program {
    /// Compiles policies one behind the other; `find` gives those that they call.
    ///
    /// # Errors
    /// A policy is called that is not there, or calls itself, or there are too many terms.
    pub fn new<'a, 'c>(
        chain: impl IntoIterator<Item = &'c Policy>,
        find: &dyn Fn(&str) -> Option<&'a Policy>,
    ) -> Result<Self, ProgramError> {
        let mut program = Self {
            names: Vec::new(),
            terms: Vec::new(),
            sets: Vec::new(),
        };
        for policy in chain {
            program.names.push(Arc::clone(&policy.name));
            program.append(policy, find, &mut Vec::new())?;
        }
        Ok(program)
    }

    fn append<'a>(
        &mut self,
        policy: &Policy,
        find: &dyn Fn(&str) -> Option<&'a Policy>,
        callers: &mut Vec<Arc<str>>,
    ) -> Result<(), ProgramError> {
        let known = callers.iter().position(|name| *name == policy.name);
        callers.push(Arc::clone(&policy.name));
        if let Some(first) = known {
            let names = callers[first..].iter().map(ToString::to_string);
            return Err(ProgramError::Loop(names.collect()));
        }
        for term in &policy.terms {
            if self.terms.len() >= MAX_TERMS {
                return Err(ProgramError::TooLong);
            }
            let at = self.terms.len();
            let mut number = |conditions: Option<&Conditions>| {
                let set = conditions?.prefixes.as_ref()?;
                let known = self.sets.iter().position(|one| Arc::ptr_eq(one, set));
                Some(known.unwrap_or_else(|| {
                    self.sets.push(Arc::clone(set));
                    self.sets.len() - 1
                }) as u16)
            };
            let sets = [number(Some(&term.matches)), number(term.unless.as_ref())];
            self.terms.push(Compiled {
                policy: Arc::clone(&policy.name),
                term: Arc::clone(term),
                sets,
                miss: 0,
            });
            if let Then::Call(name) = &term.then {
                let called = find(name).ok_or_else(|| ProgramError::Unknown(name.to_string()))?;
                self.append(called, find, callers)?;
            }
            self.terms[at].miss = self.terms.len() as u16;
        }
        callers.pop();
        Ok(())
    }

    /// The policies, in order.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How many terms there are, those of called policies counted as often as they are called.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// There is no term: nothing passes.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The name of a term, by its number.
    pub fn term(&self, at: u16) -> TermName {
        let compiled = &self.terms[usize::from(at)];
        TermName {
            policy: Arc::clone(&compiled.policy),
            term: Arc::clone(&compiled.term.name),
        }
    }

    /// Whether a term accepts or rejects.
    pub fn decides(&self, at: u16) -> bool {
        let term = &self.terms[usize::from(at)].term;
        matches!(term.then, Then::Accept | Then::Reject)
    }

    /// All edits, whether they apply or not.
    pub fn edits(&self) -> impl Iterator<Item = (TermName, &Edit)> {
        let terms = (0u16..).zip(&self.terms);
        terms.flat_map(move |(at, compiled)| {
            let edits = compiled.term.edits.iter();
            edits.map(move |edit| (self.term(at), edit))
        })
    }

    #[inline]
    pub(crate) fn set(&self, at: u16) -> &PrefixSet {
        &self.sets[usize::from(at)]
    }

    /// Runs a route alone, as explanations do: whether it passes, and the numbers of the terms that it was in.
    pub fn run(&self, route: &Route<'_>, prefix: &IpNet) -> (bool, Vec<u16>) {
        let mut decisions: Decisions<()> = Decisions::default();
        let root = decisions.add();
        let leaf = decisions.decide(root, self, &mut Scratch::default(), prefix, || *route);
        let leaf = decisions.leaf(leaf);
        (leaf.is_accepted(), leaf.terms().to_vec())
    }

    /// Makes the edits of these terms.
    pub fn apply(
        &self,
        terms: &[u16],
        prepends: Asn,
        family: Family,
        edit: &mut AttributesBuilder,
    ) -> Change {
        let mut change = Change::default();
        for term in terms {
            for one in &self.terms[usize::from(*term)].term.edits {
                match one {
                    Edit::NextHop(NextHopEdit::Address(address)) if !fits(*address, family) => {}
                    Edit::NextHop(next_hop) => change.next_hop = Some(*next_hop),
                    other => {
                        make(other, prepends, edit);
                        change.attributes = true;
                    }
                }
            }
        }
        change
    }

    /// True where any of these terms edits.
    pub fn edits_any(&self, terms: &[u16]) -> bool {
        let mut terms = terms.iter();
        terms.any(|term| !self.terms[usize::from(*term)].term.edits.is_empty())
    }

    /// The edits of these terms, in order.
    pub fn edits_of(&self, terms: &[u16]) -> impl Iterator<Item = &Edit> {
        let terms = terms.iter();
        terms.flat_map(|term| &self.terms[usize::from(*term)].term.edits)
    }

    /// Goes on from a state until a prefix list has to be asked, or all is decided.
    pub(crate) fn advance(
        &self,
        mut state: State,
        route: &Route<'_>,
        scratch: &mut Scratch,
    ) -> Step {
        (scratch.edited, scratch.has_path, scratch.next_hop) = (false, false, None);
        for at in 0..state.matched.len() {
            self.edit(state.matched[at], route, scratch);
        }
        while let Some(compiled) = self.terms.get(usize::from(state.at)) {
            let term = &compiled.term;
            let holds = |conditions: &Conditions, scratch: &mut Scratch| {
                let mut others = conditions.others.iter();
                others.all(|one| holds(one, route, scratch))
            };
            let missed = |state: &State| State {
                at: compiled.miss,
                stage: Stage::Start,
                matched: state.matched.clone(),
            };
            if state.stage == Stage::Start {
                if !holds(&term.matches, scratch) {
                    state.at = compiled.miss;
                    continue;
                }
                if let Some(set) = compiled.sets[0] {
                    let no = missed(&state);
                    state.stage = Stage::Matches;
                    return Step::Ask(set, state, no);
                }
            }
            if state.stage != Stage::Unless
                && let Some(unless) = &term.unless
                && holds(unless, scratch)
            {
                let yes = missed(&state);
                let Some(set) = compiled.sets[1] else {
                    state = yes;
                    continue;
                };
                state.stage = Stage::Unless;
                return Step::Ask(set, yes, state);
            }
            state.matched.push(state.at);
            self.edit(state.at, route, scratch);
            match term.then {
                Then::Accept => return Step::Done(true, state.matched),
                Then::Reject => return Step::Done(false, state.matched),
                // What is called stands behind it.
                Then::Next | Then::Call(_) => state.at += 1,
            }
            state.stage = Stage::Start;
        }
        Step::Done(false, state.matched)
    }

    /// Makes the edits of a term where the next conditions look at them.
    fn edit(&self, at: u16, route: &Route<'_>, scratch: &mut Scratch) {
        let term = &self.terms[usize::from(at)].term;
        for edit in &term.edits {
            if let Edit::NextHop(edit) = edit {
                if let NextHopEdit::Address(address) = edit
                    && fits(*address, route.family)
                {
                    scratch.next_hop = Some(*address);
                }
                continue;
            }
            if !std::mem::replace(&mut scratch.edited, true) {
                scratch.edit.load(route.attributes);
            }
            make(edit, route.prepends, &mut scratch.edit);
            scratch.has_path &= !matches!(edit, Edit::Prepend { .. });
        }
    }
}

fn fits(address: IpAddr, family: Family) -> bool {
    address.is_ipv4() == (family == Family::Ipv4Unicast)
}

/// Whether a condition holds.
fn holds(condition: &Condition, route: &Route<'_>, scratch: &mut Scratch) -> bool {
    let attributes = match scratch.edited {
        true => scratch.edit.view(),
        false => route.attributes,
    };
    let inside = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
    let path = attributes.as_path();
    match condition {
        Condition::AsPath(test) => test.matches(path, || {
            if !std::mem::replace(&mut scratch.has_path, true) {
                scratch.path.clear();
                // Writing to a String cannot fail.
                let _ = write!(scratch.path, "{path}");
            }
            let mut patterns = test.patterns.iter();
            patterns.any(|pattern| pattern.is_match(&scratch.path))
        }),
        Condition::AsPathLength(lengths) => {
            lengths.contains(u32::try_from(path.path_length()).unwrap_or(u32::MAX))
        }
        Condition::OriginAs(numbers) => path.origin_as().is_some_and(|asn| numbers.contains(asn.0)),
        Condition::NeighborAs(numbers) => path
            .neighbor_as()
            .is_some_and(|asn| numbers.contains(asn.0)),
        Condition::Communities(test) => test.matches(attributes),
        Condition::Large(test) => attributes.large_communities().any(|one| test.matches(one)),
        Condition::Origin(origins) => origins.contains(&attributes.origin()),
        Condition::LocalPref(numbers) => numbers.contains(attributes.local_pref().unwrap_or(100)),
        Condition::Med(numbers) => numbers.contains(attributes.med().unwrap_or(0)),
        Condition::NextHop(nets) => inside(nets, scratch.next_hop.unwrap_or(route.next_hop)),
        Condition::Neighbor(nets) => route.neighbor.is_some_and(|one| inside(nets, one)),
        Condition::Source(sources) => sources.contains(&route.source),
        Condition::Family(families) => families.contains(&route.family),
    }
}

/// Makes an edit of attributes.
fn make(edit: &Edit, prepends: Asn, to: &mut AttributesBuilder) {
    match edit {
        Edit::LocalPref(number) => to.set_local_pref(*number),
        Edit::Med(Some(number)) => to.set_med(*number),
        Edit::Med(None) => to.remove(code::MULTI_EXIT_DISC),
        Edit::Origin(origin) => to.set_origin(*origin),
        Edit::Prepend { asn, times } => {
            for _ in 0..*times {
                to.prepend_as(asn.unwrap_or(prepends));
            }
        }
        Edit::NextHop(_) => {}
        Edit::AddCommunities(communities) => add(communities, to),
        Edit::RemoveCommunities { patterns, spare } => {
            let spared = |one: LargeCommunity| spare.as_ref().is_some_and(|test| test.matches(one));
            remove(patterns, &spared, to);
        }
        Edit::RemoveLarge(test) => {
            let before = to.view().large_communities();
            let kept: Vec<LargeCommunity> = before.filter(|one| !test.matches(*one)).collect();
            if kept.len() < to.view().large_communities().len() {
                to.set_large_communities(kept);
            }
        }
    }
}

/// Adds communities that are not there.
fn add(communities: &[AnyCommunity], to: &mut AttributesBuilder) {
    for community in communities {
        let view = to.view();
        match community {
            AnyCommunity::Standard(one) => {
                let mut all: Vec<Community> = view.communities().collect();
                if !all.contains(one) {
                    all.push(*one);
                    to.set_communities(all);
                }
            }
            AnyCommunity::Extended(one) => {
                let mut all: Vec<ExtendedCommunity> = view.extended_communities().collect();
                if !all.contains(one) {
                    all.push(*one);
                    to.set_extended_communities(all);
                }
            }
            AnyCommunity::Large(one) => {
                let mut all: Vec<LargeCommunity> = view.large_communities().collect();
                if !all.contains(one) {
                    all.push(*one);
                    all.sort_unstable();
                    to.set_large_communities(all);
                }
            }
        }
    }
}

/// Removes communities.
fn remove(
    patterns: &[AnyCommunityPattern],
    spared: &dyn Fn(LargeCommunity) -> bool,
    to: &mut AttributesBuilder,
) {
    let view = to.view();
    let standard: Vec<Community> = view
        .communities()
        .filter(|one| !patterns.iter().any(|pattern| matches!(pattern, AnyCommunityPattern::Standard(pattern) if pattern.matches(*one))))
        .collect();
    let extended: Vec<ExtendedCommunity> = view
        .extended_communities()
        .filter(|one| !patterns.iter().any(|pattern| matches!(pattern, AnyCommunityPattern::Extended(pattern) if pattern.matches(*one))))
        .collect();
    let large: Vec<LargeCommunity> = view
        .large_communities()
        .filter(|one| spared(*one) || !patterns.iter().any(|pattern| matches!(pattern, AnyCommunityPattern::Large(pattern) if pattern.matches(*one))))
        .collect();
    let before = (
        view.communities().len(),
        view.extended_communities().len(),
        view.large_communities().len(),
    );
    if standard.len() < before.0 {
        to.set_communities(standard);
    }
    if extended.len() < before.1 {
        to.set_extended_communities(extended);
    }
    if large.len() < before.2 {
        to.set_large_communities(large);
    }
}

impl fmt::Display for TermName {
    /// `from-customer term 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} term {}", self.policy, self.term)
    }
}
