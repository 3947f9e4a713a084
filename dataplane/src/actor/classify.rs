//! Which table a packet belongs to: marks by VNI at the tunnel devices, and rules that lead from a mark to its table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{info, warn};

use super::Actor;
use super::links::{arms, is_host, tenants_at, vrf_name};
use crate::bpf::{Carried, Classifier, OwnAddress, Place};
use crate::condition::{ConditionKind, Severity};
use crate::model::{
    Carrier, Family, RULE_BREAKOUT, RULE_END, RULE_LAST, RULE_NO_TABLE, RULE_TENANT, Rule,
    RuleAction, RuleMatch,
};
use crate::snapshot::Address;
use crate::steps::{Leg, UNDECIDED};
use crate::{CodePoint, Drops, Traffic};

/// Up to so many tenants the kernel walks through their rules one by one, which costs less than it confuses not to see
/// them as they are.
const FLAT: usize = 64;
/// Above, so many buckets of rules, by the lowest bits of the mark.
const BUCKETS: u32 = 256;
/// Where a packet goes that its bucket has nothing for.
const RULE_END_OF_BUCKET: u32 = RULE_BREAKOUT;
/// Which bits of a mark say that it is ours.
const OURS: u32 = 0xff00_0000;

/// So often some devices are looked at, and so many at once: a question costs the kernel about a microsecond.
pub(super) const LOOK: Duration = Duration::from_millis(250);
const LOOK_AT: usize = 256;

impl Actor {
    /// Loads the classifier, with the marks that an earlier process's packets have.
    pub(super) fn start_classifier(&mut self) {
        let devices: Vec<u32> = self.devices.values().map(|device| device.index).collect();
        let endpoint = self.config.endpoint;
        let carried = Carried {
            uniform: self.config.code_point == CodePoint::Uniform,
            dont_fragment: self.config.dont_fragment,
            v6: endpoint.is_some_and(|endpoint| endpoint.is_ipv6()),
        };
        let started = Classifier::new(&mut self.netlink, &devices, carried)
            .and_then(|classifier| Ok((classifier.marks()?, classifier.addresses()?, classifier)));
        #[cfg(test)]
        let started = match self.config.faults.refuses_bpf() {
            true => Err(io::Error::from_raw_os_error(libc::EPERM)),
            false => started,
        };
        let (marks, addresses, classifier) = match started {
            Ok(started) => started,
            Err(error) => {
                info!(%error, "no BPF: there is a rule for every VNI, and nothing is counted");
                return;
            }
        };
        let undecided = self.links.keys().copied();
        self.steps.undecided = undecided
            .filter(|link| classifier.entrance(*link) == Some(UNDECIDED))
            .collect();
        self.marks_held = marks.into_iter().collect();
        self.addresses_held = addresses;
        self.classifier = Some(classifier);
        if self.marks_held.is_empty() {
            // One that knew no classifier had rules: until the intent is whole they say what its packets get.
            let known: Vec<(u32, u32)> = self
                .rules_held
                .iter()
                .filter_map(|rule| match (&rule.matches, rule.action) {
                    (RuleMatch::Tunnel(vni), RuleAction::Table(table)) => Some((*vni, table)),
                    (RuleMatch::Mark(mark), RuleAction::Table(table)) if *mark == table => {
                        let vni = table.checked_sub(self.config.table_base)?;
                        self.vnis_held
                            .iter()
                            .any(|(_, held)| *held == vni)
                            .then_some((vni, table))
                    }
                    _ => None,
                })
                .collect();
            for (vni, mark) in known {
                self.set_mark(vni, mark);
            }
        }
    }

    fn set_mark(&mut self, vni: u32, mark: u32) {
        let Some(classifier) = &self.classifier else {
            return;
        };
        match classifier.set(vni, mark) {
            Ok(()) => {
                self.marks_held.insert(vni, mark);
            }
            Err(error) => warn!(vni, %error, "cannot tell the classifier of a VNI"),
        }
    }

    /// Looks whether somebody took the classifier away or changed its tables: the kernel tells nobody.
    pub(super) fn check_classifier(&mut self) {
        let tampered = self.check_senders();
        let devices = self.classified.iter();
        let devices: Vec<_> = devices.map(|(device, place)| (*device, *place)).collect();
        self.find_lost_programs(&devices);
        let Some(classifier) = &self.classifier else {
            return;
        };
        let (Ok(marks), Ok(addresses)) = (classifier.marks(), classifier.addresses()) else {
            return;
        };
        let marks: BTreeMap<u32, u32> = marks.into_iter().collect();
        if tampered || marks != self.marks_held || addresses != self.addresses_held {
            self.repairs += 1;
            warn!("somebody changed the tables of our BPF programs: putting them right");
            (self.marks_held, self.addresses_held) = (marks, addresses);
            self.policy_changed = true;
        }
    }

    /// Looks at the next few devices, so that programs that somebody takes away are put back soon, however many there are.
    pub(super) fn watch_programs(&mut self) {
        let next = self.programs_seen.saturating_add(1)..;
        let devices = self.classified.range(next).take(LOOK_AT);
        let devices: Vec<_> = devices.map(|(device, place)| (*device, *place)).collect();
        // From the beginning again after the last.
        self.programs_seen = match devices[..] {
            [.., (last, _)] if devices.len() == LOOK_AT => last,
            _ => 0,
        };
        if self.find_lost_programs(&devices) {
            self.repairs += 1;
            self.classify();
        }
    }

    /// Forgets that these devices have the classifier where it is gone; true where it is.
    fn find_lost_programs(&mut self, devices: &[(u32, Option<Place>)]) -> bool {
        let Some(classifier) = &self.classifier else {
            return false;
        };
        let netlink = &mut self.netlink;
        let lost = devices.iter().filter_map(|(device, place)| {
            // Of a device that cannot be asked, the event that it is gone is on its way.
            let gone = matches!(classifier.holds(netlink, *device, (*place)?), Ok(false));
            gone.then_some(*device)
        });
        let lost: Vec<u32> = lost.collect();
        let now = Instant::now();
        for device in &lost {
            self.classified.remove(device);
            let Some(link) = self.links.get(device) else {
                continue;
            };
            self.conditions.set(
                now,
                (ConditionKind::Classifier, &link.name),
                Severity::Degraded,
                "somebody took our BPF programs away there: packets have no tenant until they are back",
                None,
            );
            let whose = tenants_at(&self.tenants, &link.name);
            self.conditions
                .narrow(ConditionKind::Classifier, &link.name, whose);
        }
        !lost.is_empty()
    }

    /// What has the classifier again is well, and so is what is to have it no more.
    fn note_classified(&mut self, places: &BTreeMap<u32, Place>) {
        if !self.conditions.any(ConditionKind::Classifier) {
            return;
        }
        let lacking = places
            .keys()
            .filter(|link| !self.classified.contains_key(link));
        let lacking: BTreeSet<&str> = lacking
            .filter_map(|link| Some(self.links.get(link)?.name.as_str()))
            .collect();
        self.conditions
            .retain(Instant::now(), ConditionKind::Classifier, |name| {
                lacking.contains(name)
            });
    }

    /// Where the classifier is to be.
    fn places(&self) -> BTreeMap<u32, Place> {
        let attached = self.attached_links().into_iter();
        let mut places: BTreeMap<u32, Place> = attached
            .map(|(link, _)| (link, Place::Attachment))
            .collect();
        places.extend(self.devices.iter().map(|(carrier, device)| {
            let place = match carrier {
                Carrier::Vxlan(_) => Place::Vxlan,
                Carrier::VxlanGpe(_) => Place::VxlanGpe,
                Carrier::Gre | Carrier::Gre6 => Place::Gre,
            };
            (device.index, place)
        }));
        let links = self.links.values();
        for link in links.filter(|link| self.former.closed().contains(&link.name)) {
            places.entry(link.index).or_insert(Place::Closed);
        }
        let breakouts = self.tenants.values();
        let breakouts = breakouts.filter_map(|tenant| tenant.intent.breakout.as_ref());
        let outside: BTreeSet<&str> = breakouts.map(|one| one.interface.as_str()).collect();
        if !outside.is_empty() {
            let links = self.links.values();
            for link in links.filter(|link| outside.contains(link.name.as_str())) {
                places.entry(link.index).or_insert(Place::Outside);
            }
        }
        places
    }

    /// Finds the classifier where an earlier process put it, so that it goes where it is not wanted any more.
    pub(super) fn find_classified(&mut self) {
        let links: Vec<u32> = self.links.keys().copied().collect();
        for link in links {
            if !self.classified.contains_key(&link)
                && Classifier::is_attached(&mut self.netlink, link)
            {
                self.classified.insert(link, None);
            }
        }
        if self.classifier.is_none() {
            self.withdraw_classifier();
        }
    }

    /// Does without: what stayed at a device would drop every VNI that nobody tells it of.
    fn withdraw_classifier(&mut self) {
        self.classifier = None;
        self.marks_held.clear();
        self.addresses_held.clear();
        self.senders.changed = true;
        self.policy_changed = true;
        self.note_classified(&BTreeMap::new());
        for link in std::mem::take(&mut self.classified).into_keys() {
            if self.links.contains_key(&link)
                && let Err(error) = Classifier::detach(&mut self.netlink, link)
            {
                warn!(link, %error, "cannot take the classifier away");
            }
        }
    }

    /// Puts the classifier at devices that have it not yet.
    pub(super) fn classify(&mut self) {
        self.flush_addresses();
        let Some(classifier) = &self.classifier else {
            return;
        };
        let places = self.places();
        for (link, mark) in self.attached_links() {
            if let Err(error) = classifier.set_link(link, mark, self.entrance_mark(link, mark)) {
                warn!(link, %error, "cannot tell the classifier of an attachment");
            }
        }
        for device in self.devices.values() {
            if let Err(error) = classifier.set_mtu(device.index, device.mtu) {
                warn!(device = device.index, %error, "cannot tell the classifier of an MTU");
            }
        }
        for (link, place) in &places {
            if self.classified.get(link) == Some(&Some(*place)) {
                continue;
            }
            if let Err(error) = classifier.attach(&mut self.netlink, *link, *place) {
                if error.raw_os_error() == Some(libc::ENODEV) {
                    // Gone since the links were read: the event about it is on its way.
                    continue;
                }
                warn!(link, %error, "cannot attach the classifier: rules for VNIs and attachments instead");
                self.withdraw_classifier();
                return;
            }
            self.classified.insert(*link, Some(*place));
        }
        let gone: Vec<u32> = self.classified.keys().copied().collect();
        for link in gone.into_iter().filter(|link| !places.contains_key(link)) {
            if self.links.contains_key(&link) && !self.settled {
                continue;
            }
            if self.links.contains_key(&link)
                && let Err(error) = Classifier::detach(&mut self.netlink, link)
            {
                warn!(link, %error, "cannot take the classifier away");
            }
            self.classified.remove(&link);
        }
        self.note_classified(&places);
    }

    /// The links of attachments and of services, with their tenants' marks.
    fn attached_links(&self) -> Vec<(u32, u32)> {
        let by_name: HashMap<&str, u32> = self
            .links
            .values()
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        let tenants = self.tenants.values();
        tenants
            .flat_map(|tenant| {
                let names = tenant.intent.attachments.iter();
                let names = names.chain(arms(&tenant.intent));
                names.map(|name| (name.as_str(), tenant.table))
            })
            .filter_map(|(name, mark)| Some((*by_name.get(name)?, mark)))
            .collect()
    }

    /// Tells the classifier which addresses are the router's, and whose.
    fn flush_addresses(&mut self) {
        let Some(classifier) = &self.classifier else {
            return;
        };
        // What an earlier process knew holds until the intent is whole.
        if self.tenants.is_empty() && !self.settled && !self.addresses_held.is_empty() {
            return;
        }
        let mut mark_of: HashMap<u32, u32> = self.attached_links().into_iter().collect();
        mark_of.extend(self.vrfs.iter().map(|(table, link)| (*link, *table)));
        let hosts = self.local_routes.iter().filter(|net| is_host(net));
        let mut wanted: BTreeSet<_> = hosts.map(|net| (0, net.addr())).collect();
        for each in &self.addresses {
            for address in [each.address].into_iter().chain(each.others()) {
                if is_everywhere(address) {
                    wanted.insert((0, address));
                    wanted.extend(mark_of.get(&each.link).map(|mark| (*mark, address)));
                }
            }
        }
        wanted.extend(self.addresses_on_chains());
        if wanted == self.addresses_held {
            return;
        }
        match classifier.set_addresses(&self.addresses_held, &wanted) {
            Ok(()) => self.addresses_held = wanted,
            Err(error) => warn!(%error, "cannot tell the classifier of the router's addresses"),
        }
    }

    /// Addresses of the router that packets may be for which go to a service node first: those in their tenant's VRF. Others are
    /// in the kernel's own table, which is asked before that of any step, and would let packets past the node.
    fn addresses_on_chains(&self) -> Vec<OwnAddress> {
        // Nearly always there are none.
        let mut tenants = self.tenants.values();
        if self.vrfs.is_empty() || !tenants.any(|one| arms(&one.intent).next().is_some()) {
            return Vec::new();
        }
        let vrfs: BTreeSet<u32> = self.vrfs.values().copied().collect();
        let vrf_of = |link: u32| match vrfs.contains(&link) {
            true => Some(link),
            false => self
                .links
                .get(&link)?
                .master
                .filter(|one| vrfs.contains(one)),
        };
        let of_host: BTreeSet<IpAddr> = self
            .addresses
            .iter()
            .filter(|one| vrf_of(one.link).is_none())
            .map(|one| one.address)
            .chain(self.local_routes.iter().map(IpNet::addr))
            .collect();
        let mut found = Vec::new();
        for tenant in self.tenants.values() {
            let attached = tenant.intent.services.iter();
            let attached = attached.filter(|one| one.attachment.is_some());
            let marks: Vec<u32> = attached.map(|one| Leg::Arrived.mark(one.label)).collect();
            let vrf = self.vrfs.get(&tenant.table).filter(|_| !marks.is_empty());
            let Some(vrf) = vrf else {
                continue;
            };
            let addresses = self.addresses.iter().filter(|one| {
                vrf_of(one.link) == Some(*vrf)
                    && is_everywhere(one.address)
                    && !of_host.contains(&one.address)
            });
            for Address { address, .. } in addresses {
                found.extend(marks.iter().map(|mark| (*mark, *address)));
            }
        }
        found
    }

    /// Brings the marks in line with the tenants.
    pub(super) fn flush_marks(&mut self) {
        if self.classifier.is_none() {
            return;
        }
        let wanted: BTreeMap<u32, u32> = self
            .tenants
            .values()
            .flat_map(|tenant| {
                let vnis = tenant.intent.vnis.iter();
                vnis.map(|vni| (vni.get(), tenant.table))
            })
            .chain(
                self.steps
                    .labels()
                    .map(|label| (label.get(), Leg::Arrived.mark(label))),
            )
            .collect();
        for (vni, mark) in &wanted {
            if self.marks_held.get(vni) != Some(mark) {
                self.set_mark(*vni, *mark);
            }
        }
        if self.settled {
            let classifier = self.classifier.as_ref();
            self.marks_held.retain(|vni, _| {
                let keep = wanted.contains_key(vni);
                if let Some(classifier) = classifier.filter(|_| !keep) {
                    classifier.remove(*vni);
                }
                keep
            });
        }
    }

    pub(super) fn drops(&self) -> Option<Drops> {
        self.classifier.as_ref()?.drops().ok()
    }

    pub(super) fn traffic(&self) -> Vec<Traffic> {
        let traffic = match &self.classifier {
            Some(classifier) => classifier.traffic(),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        traffic.unwrap_or_default()
    }

    /// Rules are a tree: there are many tenants, and marks to tell them by.
    pub(super) fn has_tree(&self) -> bool {
        self.classifier.is_some() && self.tenants.len() > FLAT
    }

    pub(super) fn wanted_rules(&self) -> BTreeSet<Rule> {
        let mut rules = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            let tenants: Vec<&super::Tenant> = self
                .tenants
                .values()
                .filter(|tenant| tenant.has_table(family))
                .collect();
            let tree = self.classifier.is_some() && tenants.len() > FLAT;
            let mut add = |priority, one, action| {
                rules.insert(Rule {
                    family,
                    priority,
                    matches: one,
                    action,
                });
            };
            self.step_policy(&tenants, &mut add);
            if self.classifier.is_none() {
                for label in self.steps.labels() {
                    let table = match self.walls_stand() {
                        true => RuleAction::Table(Leg::Arrived.mark(label)),
                        false => RuleAction::Unreachable,
                    };
                    add(RULE_TENANT, RuleMatch::Tunnel(label.get()), table);
                }
            }
            let places = if tree {
                put_tree(&mut add)
            } else {
                vec![RULE_TENANT]
            };
            for tenant in &tenants {
                let stands = self.walls_stand_around(tenant);
                let table = match stands {
                    true => RuleAction::Table(tenant.table),
                    false => RuleAction::Unreachable,
                };
                if tenant.intent.breakout.is_some() {
                    let main = RuleAction::Table(u32::from(libc::RT_TABLE_MAIN));
                    add(RULE_BREAKOUT, RuleMatch::Mark(tenant.table), main);
                }
                let bucket = tenant.table as usize % places.len();
                add(places[bucket], RuleMatch::Mark(tenant.table), table);
                if tree {
                    continue;
                }
                // Of a VRF the kernel knows where its members' packets belong, and asks our rules first.
                for name in entrances(tenant, self.vrf) {
                    if !self.vrf || !stands {
                        add(RULE_TENANT, RuleMatch::Interface(name), table);
                    }
                }
                if self.classifier.is_none() {
                    for vni in &tenant.intent.vnis {
                        add(RULE_TENANT, RuleMatch::Tunnel(vni.get()), table);
                    }
                }
            }
            if tenants.len() < self.tenants.len() {
                add(RULE_NO_TABLE, marked(false), RuleAction::Unreachable);
            }
            // Whoever takes the classifier from an attachment takes the mark from its packets: they leave by no other table. Each rule costs
            // packets of nobody's a look, so that of more than a few there is none.
            let all = self.tenants.values();
            let leaving = all.filter(|one| one.intent.breakout.is_some());
            if leaving.clone().count() <= FLAT {
                let at = if tree { RULE_LAST } else { RULE_NO_TABLE };
                for name in leaving.flat_map(|one| entrances(one, self.vrf)) {
                    add(at, RuleMatch::Interface(name), RuleAction::Unreachable);
                }
            }
            for carrier in self.devices.keys() {
                let one = RuleMatch::Interface(carrier.name().into_owned());
                add(RULE_LAST, one, RuleAction::Drop);
            }
        }
        rules
    }
}

/// Where rules say that packets come in by a tenant's attachments.
fn entrances(tenant: &super::Tenant, vrf: bool) -> Vec<String> {
    match vrf {
        true => vec![vrf_name(&tenant.intent)],
        false => tenant.intent.attachments.clone(),
    }
}

/// Of a link-local address the link is a part, and nothing is said of it.
fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// Packets with a mark of ours, or those without.
fn marked(negated: bool) -> RuleMatch {
    RuleMatch::MarkBits {
        mark: crate::RANGE,
        mask: OURS,
        negated,
    }
}

/// Adds the rules that lead a marked packet to its bucket in as many steps as the bucket's number has bits; says the
/// priority of each bucket's rules. Packets without a mark of ours take one step.
fn put_tree(add: &mut impl FnMut(u32, RuleMatch, RuleAction)) -> Vec<u32> {
    add(RULE_TENANT, marked(true), RuleAction::Goto(RULE_END));
    add(RULE_END_OF_BUCKET, RuleMatch::Any, RuleAction::Nothing);
    add(RULE_END, RuleMatch::Any, RuleAction::Nothing);
    let mut places = vec![0; BUCKETS as usize];
    let mut next = RULE_TENANT + 1;
    put_branch(add, &mut places, &mut next, 0, BUCKETS);
    places
}

fn put_branch(
    add: &mut impl FnMut(u32, RuleMatch, RuleAction),
    places: &mut [u32],
    next: &mut u32,
    first: u32,
    width: u32,
) {
    if width == 1 {
        places[first as usize] = *next;
        // Marked, but nobody's, or of a tenant without a table here.
        add(
            *next + 1,
            RuleMatch::Any,
            RuleAction::Goto(RULE_END_OF_BUCKET),
        );
        *next += 2;
        return;
    }
    let (here, half) = (*next, width / 2);
    *next += 1;
    put_branch(add, places, next, first, half);
    let bit = RuleMatch::MarkBits {
        mark: half,
        mask: half,
        negated: false,
    };
    add(here, bit, RuleAction::Goto(*next));
    put_branch(add, places, next, first + half, half);
}
