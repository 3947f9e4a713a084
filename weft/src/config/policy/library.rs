//! All policies of a file, compiled, with those that Weft has ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_bgp::policy::{
    AsPathTest, CommunityTest, Condition, Conditions, Edit, LargeTest, NextHopEdit, NumberSet,
    Policy, PrefixRange, PrefixSet, Program, ProgramError, Source, Term, Then, well_known,
};
use weft_bgp_wire::{AnyCommunityPattern, LargeCommunity};
use weft_overlay::import::Kind;
use weft_overlay::label::{LabelCommunity, LabelKind};
use weft_overlay::{Vni, VniSet};

use super::{
    AsPathItem, Communities, CommunityItem, Match, Med, NextHopWord, NumberRange, PrefixItem,
};
use crate::config::session;

/// Lists by name, as they stand in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) prefixes: BTreeMap<String, Vec<session::PrefixRange>>,
    pub(crate) as_paths: BTreeMap<String, Vec<AsPathItem>>,
    pub(crate) communities: BTreeMap<String, Vec<AnyCommunityPattern>>,
    /// Global Administrator of the overlay.
    pub(crate) administrator: Option<u32>,
}

impl Sets {
    /// Names of prefix lists.
    pub(super) fn prefix_lists(&self) -> impl Iterator<Item = &str> {
        let ready = well_known::PREFIX_LISTS.iter().map(|list| list.name);
        ready.chain(self.prefixes.keys().map(String::as_str))
    }

    /// Names of AS path lists.
    pub(super) fn path_lists(&self) -> impl Iterator<Item = &str> {
        ["bogons"]
            .into_iter()
            .chain(self.as_paths.keys().map(String::as_str))
    }
}

/// Policies by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Library {
    policies: BTreeMap<String, Policy>,
}

impl Eq for Library {}

impl Library {
    /// Of these policies; names that nobody has stand for nothing, which reading has noted.
    pub(in crate::config) fn new(
        written: &BTreeMap<String, Vec<super::Term>>,
        sets: &Sets,
    ) -> Self {
        let mut compiler = Compiler {
            sets,
            prefixes: BTreeMap::new(),
        };
        let policies = written.iter().map(|(name, terms)| {
            let terms = terms.iter().enumerate();
            let terms = terms.map(|(at, term)| Arc::new(compiler.term(at, term)));
            let policy = Policy {
                name: name.as_str().into(),
                terms: terms.collect(),
            };
            (name.clone(), policy)
        });
        Self {
            policies: policies.collect(),
        }
    }

    /// The policy of a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name).or_else(|| well_known::policy(name))
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let ready = well_known::POLICIES.iter().map(|one| &*one.policy.name);
        ready.chain(self.policies.keys().map(String::as_str))
    }

    /// These policies one behind the other. The last may be `accept` or `reject`, for what they do not decide.
    ///
    /// # Errors
    /// They do not fit together.
    pub(crate) fn program(&self, names: &[String]) -> Result<Program, ProgramError> {
        let last = |then: Then, name: &str| Policy {
            name: name.into(),
            terms: vec![term(name, Conditions::default(), then)],
        };
        let (accept, reject) = (last(Then::Accept, "accept"), last(Then::Reject, "reject"));
        let chain = names.iter().map(|name| match name.as_str() {
            "accept" => Ok(&accept),
            "reject" => Ok(&reject),
            name => {
                let policy = self.find(name);
                policy.ok_or_else(|| ProgramError::Unknown(name.to_owned()))
            }
        });
        let chain: Vec<&Policy> = chain.collect::<Result<_, _>>()?;
        Program::new(chain, &|name| self.find(name))
    }
}

fn term(name: &str, matches: Conditions, then: Then) -> Arc<Term> {
    Arc::new(Term {
        name: name.into(),
        matches,
        unless: None,
        edits: Vec::new(),
        then,
    })
}

/// Lines of a prefix list.
fn lines(ranges: &[session::PrefixRange]) -> impl Iterator<Item = PrefixRange> {
    ranges.iter().map(|range| PrefixRange {
        prefix: range.prefix,
        ge: range.ge,
        le: range.le,
    })
}

/// What accepts these prefixes and nothing else.
pub(super) fn accepting(ranges: &[session::PrefixRange]) -> Result<Program, ProgramError> {
    let lines: Vec<PrefixRange> = lines(ranges).collect();
    let matches = Conditions {
        prefixes: Some(Arc::new(PrefixSet::new(&lines))),
        others: Vec::new(),
    };
    let policy = Policy {
        name: "prefixes".into(),
        terms: vec![term("1", matches, Then::Accept)],
    };
    Program::new([&policy], &|_| None)
}

/// Numbers, and the condition that they belong to.
type Counted<'a> = (&'a [NumberRange], fn(NumberSet) -> Condition);

/// Compiles terms; lists that several terms name are compiled once.
struct Compiler<'s> {
    sets: &'s Sets,
    prefixes: BTreeMap<Vec<String>, Arc<PrefixSet>>,
}

impl Compiler<'_> {
    fn term(&mut self, at: usize, written: &super::Term) -> Term {
        let name = written.name.clone();
        Term {
            name: name.unwrap_or_else(|| (at + 1).to_string()).into(),
            matches: self.conditions(&written.matches),
            unless: written.unless.as_ref().map(|one| self.conditions(one)),
            edits: self.edits(&written.set),
            then: match (&written.call, written.then) {
                (Some(name), _) => Then::Call(name.as_str().into()),
                (None, super::Then::Accept) => Then::Accept,
                (None, super::Then::Reject) => Then::Reject,
                (None, super::Then::Next) => Then::Next,
            },
        }
    }

    fn conditions(&mut self, written: &Match) -> Conditions {
        let mut others = Vec::new();
        let numbers = |ranges: &[NumberRange]| {
            NumberSet::new(ranges.iter().map(|range| (range.first, range.last)))
        };
        // What costs least is asked first.
        if !written.families.is_empty() {
            others.push(Condition::Family(written.families.clone()));
        }
        if !written.source.is_empty() {
            let sources = written.source.iter().map(|source| match source {
                super::Source::Local => Source::Local,
                super::Source::Ebgp => Source::Ebgp,
                super::Source::Ibgp => Source::Ibgp,
            });
            others.push(Condition::Source(sources.collect()));
        }
        if !written.neighbors.is_empty() {
            others.push(Condition::Neighbor(written.neighbors.clone()));
        }
        if !written.next_hop.is_empty() {
            others.push(Condition::NextHop(written.next_hop.clone()));
        }
        if !written.origin.is_empty() {
            others.push(Condition::Origin(written.origin.clone()));
        }
        let counted: [Counted<'_>; 5] = [
            (&written.local_pref, Condition::LocalPref),
            (&written.med, Condition::Med),
            (&written.neighbor_as, Condition::NeighborAs),
            (&written.origin_as, Condition::OriginAs),
            (&written.as_path_length, Condition::AsPathLength),
        ];
        let counted = counted.into_iter().filter(|(ranges, _)| !ranges.is_empty());
        others.extend(counted.map(|(ranges, make)| make(numbers(ranges))));
        match &written.communities {
            Communities::Any(items) if items.is_empty() => {}
            Communities::Any(items) => {
                let patterns = items.iter().flat_map(|item| self.patterns(item));
                others.push(Condition::Communities(CommunityTest::Any(
                    patterns.collect(),
                )));
            }
            Communities::All(items) => {
                let lists = items.iter().map(|item| self.patterns(item));
                others.push(Condition::Communities(CommunityTest::All(lists.collect())));
            }
        }
        if written.vnis.is_some() || !written.labels.is_empty() {
            others.push(Condition::Large(self.label(written)));
        }
        if !written.as_path.is_empty() {
            others.push(Condition::AsPath(self.path(&written.as_path)));
        }
        Conditions {
            prefixes: self.prefixes(&written.prefixes),
            others,
        }
    }

    fn prefixes(&mut self, items: &[PrefixItem]) -> Option<Arc<PrefixSet>> {
        let names = items.iter().map(|item| match item {
            PrefixItem::Name(name) => name.clone(),
            PrefixItem::Range(range) => format!("{} {} {}", range.prefix, range.ge, range.le),
        });
        let names: Vec<String> = names.collect();
        if let [name] = &names[..] {
            let mut ready = well_known::PREFIX_LISTS.iter();
            if let Some(list) = ready.find(|list| list.name == name) {
                return Some(Arc::clone(&list.set));
            }
        }
        if names.is_empty() {
            return None;
        }
        let set = self.prefixes.entry(names).or_insert_with(|| {
            let mut all: Vec<PrefixRange> = Vec::new();
            for item in items {
                match item {
                    PrefixItem::Range(range) => all.extend(lines(std::slice::from_ref(range))),
                    PrefixItem::Name(name) => match self.sets.prefixes.get(name) {
                        Some(ranges) => all.extend(lines(ranges)),
                        None => all.extend(well_known::prefix_ranges(name)),
                    },
                }
            }
            Arc::new(PrefixSet::new(&all))
        });
        Some(Arc::clone(set))
    }

    fn path(&self, items: &[AsPathItem]) -> AsPathTest {
        let mut patterns = Vec::new();
        let mut contains = Vec::new();
        let mut left: Vec<&AsPathItem> = items.iter().rev().collect();
        while let Some(item) = left.pop() {
            match item {
                AsPathItem::Pattern(pattern) => patterns.push(pattern.clone()),
                AsPathItem::Contains(first, last) => contains.push((*first, *last)),
                AsPathItem::Name(name) => match self.sets.as_paths.get(name) {
                    Some(items) => left.extend(items.iter().rev()),
                    None if name == "bogons" => contains.extend(well_known::BOGON_ASNS),
                    None => {}
                },
            }
        }
        AsPathTest {
            patterns,
            contains: NumberSet::new(contains),
        }
    }

    fn patterns(&self, item: &CommunityItem) -> Vec<AnyCommunityPattern> {
        match item {
            CommunityItem::Pattern(pattern) => vec![*pattern],
            CommunityItem::Name(name) => {
                let list = self.sets.communities.get(name);
                list.cloned().unwrap_or_default()
            }
            CommunityItem::All => ["*:*", "*:*:*", "0x*"]
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        }
    }

    /// A label community of the overlay of these VNIs and kinds.
    fn label(&self, written: &Match) -> LargeTest {
        let administrator = self.sets.administrator.unwrap_or_default();
        let (vnis, kinds) = (written.vnis.clone(), written.labels.clone());
        let name = format!(
            "label {administrator} {kinds:?} {}",
            vnis.as_ref().map_or("any".to_owned(), VniSet::to_string)
        );
        LargeTest::new(name, move |community| {
            is_label(community, administrator, vnis.as_ref(), &kinds)
        })
    }

    fn edits(&self, written: &super::Set) -> Vec<Edit> {
        let own = self.sets.administrator.map(|administrator| {
            let name = format!("overlay {administrator}");
            LargeTest::new(name, move |one| one.global_administrator == administrator)
        });
        let communities = &written.communities;
        let remove = communities.remove.iter();
        let patterns: Vec<AnyCommunityPattern> =
            remove.flat_map(|item| self.patterns(item)).collect();
        let edits = [
            written.local_pref.map(Edit::LocalPref),
            written.med.map(|med| match med {
                Med::Set(number) => Edit::Med(Some(number)),
                Med::Remove => Edit::Med(None),
            }),
            written.origin.map(Edit::Origin),
            written.prepend.map(|prepend| Edit::Prepend {
                asn: prepend.asn,
                times: prepend.times,
            }),
            written.next_hop.map(|next_hop| {
                Edit::NextHop(match next_hop {
                    NextHopWord::Own => NextHopEdit::Own,
                    NextHopWord::Unchanged => NextHopEdit::Unchanged,
                    NextHopWord::Address(address) => NextHopEdit::Address(address),
                })
            }),
            (!patterns.is_empty()).then(|| Edit::RemoveCommunities {
                patterns,
                spare: own.clone(),
            }),
            (!communities.add.is_empty()).then(|| Edit::AddCommunities(communities.add.clone())),
            written.labels.and(own).map(Edit::RemoveLarge),
        ];
        edits.into_iter().flatten().collect()
    }
}

/// A community is a label of these VNIs and kinds; without kinds one that names a tenant or service.
fn is_label(
    community: LargeCommunity,
    administrator: u32,
    vnis: Option<&VniSet>,
    kinds: &[Kind],
) -> bool {
    let Some(Ok(decoded)) = LabelCommunity::decode(community, administrator) else {
        return false;
    };
    let (kind, vni): (Kind, Option<Vni>) = match decoded {
        LabelCommunity::Label(label) => match label.kind {
            LabelKind::Tenant => (Kind::Tenant, Some(label.vni)),
            LabelKind::Service => (Kind::Service, Some(label.vni)),
        },
        LabelCommunity::LocalNextHop(hop) => (Kind::LocalNextHop, hop.vni),
        LabelCommunity::Locator(_) | LabelCommunity::LocatorPort(_) => (Kind::Locator, None),
    };
    let kind = match kinds {
        [] => matches!(kind, Kind::Tenant | Kind::Service),
        kinds => kinds.contains(&kind),
    };
    kind && vnis.is_none_or(|vnis| vni.is_some_and(|vni| vnis.contains(vni)))
}
