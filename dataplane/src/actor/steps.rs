//! Service chains as kernel objects: a table with one way for each label that packets are sent to, rules that lead marks
//! there, and who gives which mark.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};
use tracing::info;
use weft_overlay::Vni;
use weft_overlay::chain::{
    Chain, Direction, Fragments, NodeAttachment, OnFailure, Place, Service, Turn, fragments, turns,
};
use weft_overlay::intent::{GroupId, ServiceState, TenantId, TenantIntent};

use super::drain::{Drain, Places};
use super::{Actor, RETRY, Tenant};
use crate::condition::{ConditionKind, Severity};
use crate::model::{Family, RULE_STEP, RouteKey, RouteSpec, RuleAction, RuleMatch, SELF};
use crate::steps::{
    GRACE, LABEL_MASK, Leg, Loaded, STEPS, STEPS_MASK, StepCounter, StepPlace, StepRule, StepRules,
    StepTable, UNDECIDED, Verdict,
};

/// Drops the packets of tenants whose chains nftables does not hold.
pub(super) const RULE_CLOSED: u32 = RULE_STEP + 7;

/// Where packets of a step go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Node { gateway: IpAddr, interface: u32 },
    Group(GroupId),
}

/// What service chains are in the kernel.
#[derive(Default)]
pub(super) struct Steps {
    services: BTreeMap<Vni, ServiceState>,
    ways: BTreeMap<RouteKey, Way>,
    marks: BTreeSet<u32>,
    loaded: Option<StepTable>,
    /// What the kernel has of it, where nobody else touched it; an earlier process's until ours is loaded.
    pub(super) in_kernel: Option<Loaded>,
    /// What it had before is to be taken away then.
    clear_at: Option<Instant>,
    /// Links whose packets have no tenant's mark before nftables gives it, so that nothing gets past a table that somebody takes away.
    pub(super) undecided: BTreeSet<u32>,
    /// An earlier process left its rules, which hold until the intent is whole: what this one does not know yet is not broken.
    pub(super) inherited: bool,
    draining: HashMap<TenantId, Drain>,
    /// Something that they follow from has changed.
    pub(super) changed: bool,
    /// nft refused them: tried again then. Until it takes them no packet of a tenant with chains goes anywhere.
    pub(super) refused: Option<(String, Instant)>,
}

impl Steps {
    /// When something is to be done without a change.
    pub(super) fn next(&self) -> Option<Instant> {
        let drains = self.draining.values().filter_map(Drain::next);
        let retry = self.refused.as_ref().map(|(_, retry_at)| *retry_at);
        drains.chain(retry).chain(self.clear_at).min()
    }

    /// Somebody changed what was loaded: packets of tenants with chains are dropped until it is loaded again, which is tried at once.
    pub(super) fn lose(&mut self, now: Instant) {
        self.in_kernel = None;
        self.clear_at = None;
        if self.loaded.take().is_some_and(|table| !table.is_empty()) {
            let why = "somebody changed our table".to_owned();
            self.refused = Some((why, now));
            self.changed = true;
        }
    }

    /// The kernel has what follows from changes.
    fn begin_draining(&mut self) {
        let now = Instant::now();
        self.draining
            .values_mut()
            .for_each(|drain| drain.loaded(now));
    }

    /// Takes away what no packet is in any more.
    fn clear_past(&mut self, now: Instant) {
        if self.clear_at.is_none_or(|at| now < at) {
            return;
        }
        self.clear_at = None;
        if let Some(loaded) = &mut self.in_kernel
            && let Err(error) = loaded.clear_past()
        {
            // It harms nothing, and is tried again after the next change.
            tracing::debug!(%error, "decisions of the past stay in the table of chains");
        }
    }

    /// The labels that packets may come with.
    pub(super) fn labels(&self) -> impl Iterator<Item = Vni> + '_ {
        self.services.keys().copied()
    }
}

/// The default route of a step's table.
fn step_key(mark: u32, family: Family) -> RouteKey {
    RouteKey {
        table: mark,
        prefix: match family {
            Family::V4 => Ipv4Net::default().into(),
            Family::V6 => Ipv6Net::default().into(),
        },
        metric: 0,
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Actor {
    pub(super) fn set_service(&mut self, label: Vni, state: Option<ServiceState>) {
        self.steps.changed = true;
        self.policy_changed = true;
        match state {
            Some(state) => self.steps.services.insert(label, state),
            None => self.steps.services.remove(&label),
        };
    }

    /// Chains of a tenant change under its packets.
    pub(super) fn drain(&mut self, id: TenantId, wanted: &TenantIntent) {
        self.steps.changed = true;
        let Some(before) = self.tenants.get(&id).map(|tenant| &tenant.intent) else {
            return;
        };
        if (&before.chains, &before.services) == (&wanted.chains, &wanted.services) {
            return;
        }
        let old = (before.services.as_slice(), before.chains.as_slice());
        let new = (wanted.services.as_slice(), wanted.chains.as_slice());
        let drain = self.steps.draining.entry(id).or_default();
        if drain.change(Instant::now(), old, new) {
            info!(
                tenant = wanted.name,
                "the order of services in its chains changes: packets on their way finish the old one first, new ones are held back"
            );
        }
    }

    /// Brings ways and rules of steps in line with chains, services and links.
    pub(super) fn flush_steps(&mut self) {
        let now = Instant::now();
        let steps = &mut self.steps;
        steps.clear_past(now);
        steps.draining.retain(|_, drain| {
            steps.changed |= drain.advance(now);
            !drain.is_over()
        });
        if matches!(&steps.refused, Some((_, retry_at)) if *retry_at <= now) {
            steps.changed = true;
        }
        if !std::mem::take(&mut steps.changed) {
            return;
        }
        self.plan_ways();
        let rules = self.step_rules();
        let table = rules.table();
        let links = rules.places.values().flat_map(|place| &place.devices);
        let links: BTreeSet<u32> = links.map(|(_, link)| *link).collect();
        let undecided = match self.steps.loaded {
            // Until the new table stands, the old one decides.
            Some(_) => self.steps.undecided.intersection(&links).copied().collect(),
            // An earlier process's table decides, where it is there still.
            None => links.clone(),
        };
        self.leave_undecided(undecided);
        if self.steps.loaded.as_ref() == Some(&table) && self.steps.refused.is_none() {
            self.steps.begin_draining();
            return;
        }
        if !self.settled && (table.is_empty() || self.steps.inherited) {
            return;
        }
        self.send_step_rules();
        let failed = self.steps.refused.is_some();
        self.steps.refused = None;
        let loaded = table.load(self.steps.in_kernel.take());
        self.leave_undecided(links);
        match loaded {
            Ok(loaded) => {
                self.conditions.clear(now, ConditionKind::Chains, "table");
                self.steps.loaded = Some(table);
                self.steps.clear_at = loaded.has_past().then(|| Instant::now() + GRACE);
                self.steps.in_kernel = Some(loaded);
                self.steps.begin_draining();
            }
            Err(error) if table.is_empty() => {
                // Without nft there is nothing of ours in it.
                tracing::debug!(%error, "no table of chains to remove");
                self.steps.loaded = Some(table);
                self.steps.begin_draining();
            }
            Err(error) => {
                self.conditions.set(
                    now,
                    (ConditionKind::Chains, "table"),
                    Severity::Degraded,
                    format!("nftables refuses the service chains: {error}; packets of tenants with chains are dropped until it takes them"),
                    None,
                );
                self.steps.refused = Some((error, now + RETRY));
            }
        }
        self.policy_changed |= failed != self.steps.refused.is_some();
    }

    /// Packets from these links, and from no others, go nowhere unless nftables decides where.
    fn leave_undecided(&mut self, links: BTreeSet<u32>) {
        if self.steps.undecided == links {
            return;
        }
        let first = self.steps.undecided.is_empty();
        self.steps.undecided = links;
        if first {
            // The rule that drops them comes before they do.
            self.send_step_rules();
        }
        self.policy_changed = true;
        self.classify();
    }

    /// The mark of packets that enter by a link of a tenant.
    pub(super) fn entrance_mark(&self, link: u32, tenant: u32) -> u32 {
        match self.steps.undecided.contains(&link) {
            true => UNDECIDED,
            false => tenant,
        }
    }

    fn service(&self, label: Vni) -> Option<&Service> {
        let services = self
            .tenants
            .values()
            .flat_map(|tenant| &tenant.intent.services);
        services.into_iter().find(|service| service.label == label)
    }

    fn link_of(&self, name: &str) -> Option<u32> {
        let mut links = self.links.values();
        let link = links.find(|link| link.name == name && link.up)?;
        Some(link.index)
    }

    /// The node at the arm that a leg goes in by.
    fn node(&self, attachment: &NodeAttachment, leg: Leg, family: Family) -> Option<Way> {
        let arm = match (&attachment.outside, leg.is_reverse()) {
            (Some(outside), true) => outside,
            _ => &attachment.inside,
        };
        let mut addresses = arm.addresses.iter();
        let gateway = addresses.find(|one| one.is_ipv4() == (family == Family::V4))?;
        Some(Way::Node {
            gateway: *gateway,
            interface: self.link_of(&arm.interface)?,
        })
    }

    /// Where packets of a leg go, if anywhere.
    fn way(&self, label: Vni, leg: Leg, family: Family) -> Option<Way> {
        let state = self.steps.services.get(&label)?;
        let remote = state.remote.map(Way::Group);
        let service = self.service(label);
        let Some(attachment) = service.and_then(|one| one.attachment.as_ref()) else {
            return remote;
        };
        if state.local && (leg.is_arrival() || !state.prefer_remote) {
            return self.node(attachment, leg, family);
        }
        if state.local {
            return remote;
        }
        let over = service.is_some_and(|one| one.on_failure == OnFailure::Over);
        remote.filter(|_| over)
    }

    pub(super) fn plan_ways(&mut self) {
        let mut ways = BTreeMap::new();
        let mut marks = BTreeSet::new();
        let labels: Vec<Vni> = self.steps.services.keys().copied().collect();
        for label in labels {
            let attachment = self.service(label).and_then(|one| one.attachment.as_ref());
            let two_arms = attachment.is_some_and(|one| one.outside.is_some());
            for leg in Leg::ALL {
                if leg.is_reverse() && !two_arms {
                    continue;
                }
                marks.insert(leg.mark(label));
                for family in FAMILIES {
                    if let Some(way) = self.way(label, leg, family) {
                        ways.insert(step_key(leg.mark(label), family), way);
                    }
                }
            }
        }
        self.policy_changed |= marks != self.steps.marks;
        self.steps.marks = marks;
        let before = std::mem::replace(&mut self.steps.ways, ways.clone());
        for key in before.keys().filter(|key| !ways.contains_key(key)) {
            self.group_of.remove(key);
            self.unwant(*key);
        }
        for (key, way) in ways {
            if before.get(&key) == Some(&way) && self.wanted.contains_key(&key) {
                continue;
            }
            match way {
                Way::Node { gateway, interface } => {
                    self.group_of.remove(&key);
                    self.want(key, RouteSpec::OnLink { gateway, interface });
                }
                Way::Group(group) => self.want_via_group(key, group),
            }
        }
    }

    /// The mark of packets that this router puts on the way to a service.
    pub(super) fn step_mark(&self, label: Vni, reverse: bool) -> u32 {
        let mark = Leg::SentReverse.mark(label);
        match reverse && self.steps.marks.contains(&mark) {
            true => mark,
            false => Leg::Sent.mark(label),
        }
    }

    /// Rules that lead steps to their tables: one look for packets that are on none. What the router itself says to a packet of a
    /// chain has the packet's mark but is no part of its flow: it goes to the sender, by the tenant's table where that is one of
    /// these.
    pub(super) fn step_policy(
        &self,
        tenants: &[&Tenant],
        add: &mut impl FnMut(u32, RuleMatch, RuleAction),
    ) {
        if self.steps.refused.is_some() {
            for tenant in self.tenants.values() {
                if !tenant.intent.chains.is_empty() {
                    add(RULE_CLOSED, RuleMatch::Mark(tenant.table), RuleAction::Drop);
                }
            }
        }
        if self.steps.marks.is_empty() && self.steps.undecided.is_empty() {
            return;
        }
        let on_chain = |negated| RuleMatch::MarkBits {
            mark: STEPS,
            mask: STEPS_MASK,
            negated,
        };
        let own = RuleMatch::Interface(SELF.to_owned());
        add(RULE_STEP, on_chain(true), RuleAction::Goto(RULE_STEP + 6));
        add(RULE_STEP + 1, own, RuleAction::Goto(RULE_STEP + 4));
        for mark in &self.steps.marks {
            let table = RuleAction::Table(*mark);
            add(RULE_STEP + 2, RuleMatch::Mark(*mark), table);
        }
        add(RULE_STEP + 3, on_chain(false), RuleAction::Drop);
        for tenant in tenants {
            for service in &tenant.intent.services {
                let any_leg = RuleMatch::MarkBits {
                    mark: STEPS + service.label.get(),
                    mask: LABEL_MASK,
                    negated: false,
                };
                add(RULE_STEP + 4, any_leg, RuleAction::Table(tenant.table));
            }
        }
        // Of a label that is only stitched here nobody knows here whose it is: the answer goes on with it.
        for label in self.steps.labels() {
            if self.service(label).is_none() {
                let mark = Leg::Arrived.mark(label);
                add(
                    RULE_STEP + 4,
                    RuleMatch::Mark(mark),
                    RuleAction::Table(mark),
                );
            }
        }
        add(RULE_STEP + 5, on_chain(false), RuleAction::Drop);
        add(RULE_STEP + 6, RuleMatch::Any, RuleAction::Nothing);
    }

    /// Who gives which mark.
    fn step_rules(&self) -> StepRules {
        let mut rules = StepRules::default();
        for (carrier, device) in &self.devices {
            let device = (carrier.name().into_owned(), device.index);
            rules.tunnels.insert(device);
        }
        for (id, tenant) in &self.tenants {
            let intent = &tenant.intent;
            if intent.services.is_empty() && intent.chains.is_empty() {
                continue;
            }
            for chain in &intent.chains {
                let reverse = chain.symmetric.then_some(Direction::Reverse);
                for direction in [Direction::Forward].into_iter().chain(reverse) {
                    let counter = StepCounter {
                        vni: intent.primary_vni,
                        chain: chain.name.clone(),
                        direction,
                        passed: 0,
                        dropped: false,
                    };
                    rules.keep_counters(counter, chain.services.len());
                }
            }
            let drain = self.steps.draining.get(id);
            let held = drain.filter(|drain| drain.holds());
            let Places { mut turns, chains } = match held {
                Some(drain) => drain.held(),
                None => Places::of(&intent.services, &intent.chains),
            };
            if let Some(entering) = held.and_then(|_| turns.remove(&Place::Entrance)) {
                let held = self.held_back(intent, (&entering, &chains));
                self.add_place(&mut rules, intent, "in", &intent.attachments, held);
            } else if let Some(drain) = drain {
                let (kept, late) = (drain.kept(), drain.late());
                for (place, turns) in &kept.turns {
                    let kept = self.rules_of(intent, None, &kept.chains, turns);
                    self.add_behind(&mut rules, intent, *place, kept);
                }
                // Nobody knows which of the old chains a packet is on: dropped where one of them would lead it past a service.
                for (place, turns) in &late.turns {
                    let dropped = dropped(intent, &late.chains, turns);
                    self.add_behind(&mut rules, intent, *place, dropped);
                }
            }
            for (place, turns) in &turns {
                let one = self.rules_of(intent, drain, &chains, turns);
                match place {
                    Place::Entrance => {
                        self.add_place(&mut rules, intent, "in", &intent.attachments, one);
                    }
                    Place::Behind { .. } => self.add_behind(&mut rules, intent, *place, one),
                }
            }
            for service in &intent.services {
                let label = service.label;
                let begun = intent
                    .chains
                    .iter()
                    .any(|chain| chain.services.contains(&label));
                let known =
                    held.is_none() && (begun || drain.is_some_and(|drain| drain.serves(label)));
                self.add_arrivals(&mut rules, intent, drain, &chains, service, known);
            }
        }
        rules
    }

    fn add_behind(
        &self,
        rules: &mut StepRules,
        intent: &TenantIntent,
        place: Place,
        one: [Vec<StepRule>; 2],
    ) {
        let Place::Behind { service, outside } = place else {
            return;
        };
        let known = intent.services.iter().find(|one| one.label == service);
        let Some(attachment) = known.and_then(|one| one.attachment.as_ref()) else {
            return;
        };
        let (arm, side) = match &attachment.outside {
            Some(arm) if outside => (arm, "outside"),
            _ => (&attachment.inside, "inside"),
        };
        let name = format!("{side}-{service}");
        self.add_place(
            rules,
            intent,
            &name,
            std::slice::from_ref(&arm.interface),
            one,
        );
    }

    fn add_place(
        &self,
        rules: &mut StepRules,
        intent: &TenantIntent,
        name: &str,
        interfaces: &[String],
        one: [Vec<StepRule>; 2],
    ) {
        let names = interfaces.iter();
        let devices: BTreeSet<(String, u32)> = names
            .filter_map(|name| {
                let link = self.links.values().find(|link| link.name == *name)?;
                Some((name.clone(), link.index))
            })
            .collect();
        let on_them = |link: u32| devices.iter().any(|(_, index)| *index == link);
        let addresses = self.addresses.iter().filter(|one| on_them(one.link));
        let place = StepPlace {
            own: addresses.map(|one| one.address).collect(),
            devices,
            mark: self.config.table_base + intent.primary_vni.get(),
            rules: one,
        };
        let name = format!("{name}-{}", intent.primary_vni);
        rules.places.insert(name, place);
    }

    /// What becomes of packets that have these services before them.
    fn verdict(
        &self,
        intent: &TenantIntent,
        drain: Option<&Drain>,
        rest: &[Vni],
        direction: Direction,
        family: Family,
    ) -> Verdict {
        for label in rest {
            let service = intent.services.iter().find(|one| one.label == *label);
            let attachment = service.and_then(|one| one.attachment.as_ref());
            let two_arms = attachment.is_some_and(|one| one.outside.is_some());
            let leg = match direction {
                Direction::Reverse if two_arms => Leg::SentReverse,
                _ => Leg::Sent,
            };
            match self.way(*label, leg, family) {
                // Who is there leads it by the new chains.
                Some(Way::Group(_)) if drain.is_some_and(|one| one.holds_back(*label)) => {
                    return Verdict::Drop;
                }
                Some(_) => return Verdict::Mark(leg.mark(*label)),
                None => {}
            }
            if service.is_none_or(|one| one.on_failure != OnFailure::Open) {
                return Verdict::Drop;
            }
        }
        Verdict::Leave
    }

    fn rules_of(
        &self,
        intent: &TenantIntent,
        drain: Option<&Drain>,
        chains: &[Chain],
        turns: &[Turn],
    ) -> [Vec<StepRule>; 2] {
        FAMILIES.map(|family| {
            let rules = turns.iter().enumerate().filter_map(|(at, turn)| {
                let verdict = self.verdict(intent, drain, &turn.rest, turn.direction, family);
                let counter = counter(intent, chains.get(turn.chain)?, turn);
                let fragments = fragments(turns, at);
                Some(StepRule::new(
                    turn.matches.clone(),
                    counter,
                    verdict,
                    fragments,
                ))
            });
            rules.collect()
        })
    }

    /// Nothing begins a chain while packets on the old ones, which `entering` packets were to take, finish them.
    fn held_back(
        &self,
        intent: &TenantIntent,
        entering: (&[Turn], &[Chain]),
    ) -> [Vec<StepRule>; 2] {
        let new = turns(&intent.services, &intent.chains);
        let new = new.get(&Place::Entrance).map_or(&[][..], Vec::as_slice);
        let lists = [entering, (new, &intent.chains)];
        FAMILIES.map(|_| {
            let rules = lists.iter().flat_map(|(turns, chains)| {
                let rules = turns.iter().enumerate();
                rules.filter_map(|(at, turn)| match turn.rest.is_empty() {
                    true => Some(StepRule::new(
                        turn.matches.clone(),
                        counter(intent, chains.get(turn.chain)?, turn),
                        Verdict::Leave,
                        fragments(turns, at),
                    )),
                    false => dropping(intent, chains, turn),
                })
            });
            rules.collect()
        })
    }

    /// What the label alone does not tell: packets of the other direction, and those for a node that does not work.
    fn add_arrivals(
        &self,
        rules: &mut StepRules,
        intent: &TenantIntent,
        drain: Option<&Drain>,
        chains: &[Chain],
        service: &Service,
        known: bool,
    ) {
        let label = service.label;
        let Some(attachment) = &service.attachment else {
            return;
        };
        let all = turns(&intent.services, chains);
        let one = FAMILIES.map(|family| {
            if !known {
                return vec![StepRule::arrival(
                    None,
                    label,
                    Verdict::Drop,
                    Fragments::Others,
                )];
            }
            let has = |one: &IpAddr| one.is_ipv4() == (family == Family::V4);
            if !attachment.inside.addresses.iter().any(has) && service.on_failure != OnFailure::Open
            {
                // The node does not speak it: there is no way, and the last rule drops.
                return Vec::new();
            }
            let works = self.way(label, Leg::Arrived, family).is_some();
            let mut found = Vec::new();
            if works && attachment.outside.is_some() {
                // What is for this direction goes as its label says.
                let entering = all.get(&Place::Entrance).map_or(&[][..], Vec::as_slice);
                for (at, turn) in entering.iter().enumerate() {
                    if !turn.rest.contains(&label) {
                        continue;
                    }
                    let verdict = match turn.direction {
                        Direction::Forward => Verdict::Leave,
                        Direction::Reverse => Verdict::Mark(Leg::ArrivedReverse.mark(label)),
                    };
                    found.push((turn.matches.clone(), verdict, fragments(entering, at)));
                }
                if found
                    .iter()
                    .all(|(_, verdict, _)| *verdict == Verdict::Leave)
                {
                    found.clear();
                }
            } else if !works && service.on_failure == OnFailure::Open {
                let behind = all.iter().filter(|(place, _)| {
                    matches!(place, Place::Behind { service, .. } if *service == label)
                });
                let behind: Vec<Turn> = behind.flat_map(|(_, turns)| turns).cloned().collect();
                let only = behind.len() == 1;
                for (at, turn) in behind.iter().enumerate() {
                    let verdict =
                        match self.verdict(intent, drain, &turn.rest, turn.direction, family) {
                            Verdict::Leave => {
                                Verdict::Mark(self.config.table_base + intent.primary_vni.get())
                            }
                            other => other,
                        };
                    let matches = chains.get(turn.chain).map(|chain| match turn.direction {
                        Direction::Forward => chain.matches.clone(),
                        Direction::Reverse => chain.matches.reversed(),
                    });
                    let fragments = fragments(&behind, at);
                    found.push((matches.filter(|_| !only), verdict, fragments));
                }
            }
            if !works {
                found.push((None, Verdict::Drop, Fragments::Others));
            }
            let found = found.into_iter();
            found
                .map(|(matches, verdict, fragments)| {
                    StepRule::arrival(matches, label, verdict, fragments)
                })
                .collect()
        });
        if one.iter().any(|one| !one.is_empty()) {
            rules.arrivals.insert(Leg::Arrived.mark(label), one);
        }
    }
}

/// Packets of a turn are dropped, and fragments that may be of them.
fn dropping(intent: &TenantIntent, chains: &[Chain], turn: &Turn) -> Option<StepRule> {
    Some(StepRule::new(
        turn.matches.clone(),
        counter(intent, chains.get(turn.chain)?, turn),
        Verdict::Drop,
        Fragments::Follow { unless: Vec::new() },
    ))
}

fn dropped(intent: &TenantIntent, chains: &[Chain], turns: &[Turn]) -> [Vec<StepRule>; 2] {
    FAMILIES.map(|_| {
        turns
            .iter()
            .filter_map(|turn| dropping(intent, chains, turn))
            .collect()
    })
}

fn counter(intent: &TenantIntent, chain: &Chain, turn: &Turn) -> StepCounter {
    StepCounter {
        vni: intent.primary_vni,
        chain: chain.name.clone(),
        direction: turn.direction,
        passed: turn.passed.len(),
        dropped: false,
    }
}
