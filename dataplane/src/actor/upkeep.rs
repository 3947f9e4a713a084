//! Keeps what forwarding depends on beside our objects: asks the kernel for the facts, puts right what is ours to put right, and
//! says what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use tracing::{info, warn};

use super::Actor;
use super::links::{arms, vrf_name};
use crate::condition::{ConditionKind, Severity};
use crate::host::{self, Sysctl};
use crate::model::{Carrier, Family, RouteKey, RouteSpec, mac};
use crate::monitor::ALL_DEVICES;
use crate::netlink::links::{
    put_link_alias, put_link_flags, put_link_mac, put_link_master, put_link_mtu, put_link_rename,
};
use crate::netlink::objects::Question;
use crate::netlink::socket::{Batch, Refusal};
use crate::snapshot;
use crate::steps::UNDECIDED;
use crate::upkeep::{self, Blame, Flaw, ForeignRule, Turn, Unset, sysctl_name};

/// Rules of others that are looked at, and tenants whose packets each is tried with.
const SUSPECTS: usize = 16;
const TRIALS: usize = 64;

impl Actor {
    /// Puts settings of the host right: those of these devices, or all of them.
    pub(super) fn keep_settings(&mut self, changed: Option<&BTreeSet<i32>>) {
        if self.config.endpoint.is_none() {
            return;
        }
        let is_meant = |index: i32| changed.is_none_or(|changed| changed.contains(&index));
        let mut sysctls = Vec::new();
        if is_meant(ALL_DEVICES) {
            let all = host::sysctls().into_iter();
            sysctls.extend(all.filter(|one| self.forwards || !one.forwards()));
        }
        let v6 = self.tenants.values().any(|one| one.has_table(Family::V6));
        for (name, index) in self.kept_devices() {
            if !i32::try_from(index).is_ok_and(is_meant) {
                continue;
            }
            sysctls.extend(host::device_sysctls(&name));
            if v6 && self.is_device(index) {
                sysctls.push(host::ipv6_sysctl(&name));
            }
        }
        for sysctl in sysctls {
            self.keep_setting(&sysctl);
        }
    }

    /// The devices that tenants' packets come in by, as far as they are there.
    fn kept_devices(&self) -> Vec<(String, u32)> {
        let tunnels = self.devices.values().map(|device| device.index);
        let tunnels: BTreeSet<u32> = tunnels.collect();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for tenant in self.tenants.values() {
            names.extend(tenant.intent.attachments.iter().cloned());
            names.extend(arms(&tenant.intent).cloned());
            names.extend(self.vrf.then(|| vrf_name(&tenant.intent)));
        }
        let links = self.links.values();
        links
            .filter(|link| tunnels.contains(&link.index) || names.contains(&link.name))
            .map(|link| (link.name.clone(), link.index))
            .collect()
    }

    /// Sets a device up that has come: what was there under its name is another one.
    pub(super) fn keep_new_device(&mut self, name: &str) {
        let sysctls = host::device_sysctls(name);
        let paths: BTreeSet<&str> = sysctls.iter().map(|one| one.path.as_str()).collect();
        self.seen.forget(|path| paths.contains(path));
        for sysctl in &sysctls {
            self.repairs_made.forget(&sysctl.path);
            self.keep_setting(sysctl);
        }
    }

    fn keep_setting(&mut self, sysctl: &Sysctl) {
        let now = Instant::now();
        let wrong = match sysctl.read() {
            Some(found) => upkeep::unset(sysctl, &found),
            // A kernel without IPv6 has none of its settings, and a device that is gone has none at all.
            None => None,
        };
        let Some(wrong) = wrong else {
            self.seen.note(&sysctl.path);
            if self.conditions.any(ConditionKind::HostSetting)
                && self.repairs_made.is_settled(now, &sysctl.path)
            {
                let name = sysctl_name(&sysctl.path);
                self.conditions
                    .clear(now, ConditionKind::HostSetting, &name);
            }
            return;
        };
        let was_right = self.seen.has(&sysctl.path);
        let turn = match was_right {
            true => self.repairs_made.turn(now, &sysctl.path),
            false => Turn::Repair,
        };
        let fight = "; somebody changes it back each time, and it is set again at a falling rate";
        match turn {
            Turn::Wait(_) => self.note_setting(now, &wrong, fight),
            Turn::Repair | Turn::Contested => match sysctl.write() {
                Ok(()) => {
                    self.seen.note(&sysctl.path);
                    if turn == Turn::Contested {
                        self.note_setting(now, &wrong, fight);
                    } else {
                        if was_right {
                            let found = &wrong.detail;
                            info!(
                                setting = wrong.name,
                                found, "somebody changed a setting of the host: set back"
                            );
                        }
                        self.conditions
                            .clear(now, ConditionKind::HostSetting, &wrong.name);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let error = format!("; this process may not set it: {error}");
                    self.note_setting(now, &wrong, &error);
                }
            },
        }
    }

    fn note_setting(&mut self, now: Instant, wrong: &Unset, more: &str) {
        let detail = format!("{}{more}", wrong.detail);
        match wrong.severity {
            Some(severity) => self.conditions.set(
                now,
                (ConditionKind::HostSetting, &wrong.name),
                severity,
                detail,
                Some(wrong.remedy.clone()),
            ),
            // Packets get through all the same: it is said once.
            None => {
                if self.seen.complain(&wrong.name) {
                    warn!(setting = wrong.name, "{detail}");
                }
            }
        }
    }

    /// Looks whether our tunnel devices are as we made them, and puts right what somebody changed.
    pub(super) fn keep_devices(&mut self) {
        let Some(endpoint) = self.config.endpoint else {
            return;
        };
        let now = Instant::now();
        let devices: Vec<(Carrier, u32)> = self
            .devices
            .iter()
            .map(|(carrier, device)| (*carrier, device.index))
            .collect();
        let mut repaired = false;
        for (carrier, index) in devices {
            let mac = carrier
                .is_ethernet()
                .then(|| mac(endpoint, Some(self.config.endpoint_id)));
            let flaws = self.flaws(carrier, index, mac);
            for word in Flaw::WORDS {
                let subject = subject(carrier, word);
                if !flaws.iter().any(|flaw| flaw.word() == word)
                    && self.repairs_made.is_settled(now, &subject)
                {
                    self.conditions.clear(now, ConditionKind::Device, &subject);
                }
            }
            for flaw in flaws {
                repaired |= self.mend(now, carrier, index, &flaw);
            }
        }
        if repaired {
            self.reread_links();
        }
    }

    fn flaws(&self, carrier: Carrier, index: u32, mac: Option<[u8; 6]>) -> Vec<Flaw> {
        let Some(link) = self.links.get(&index) else {
            return Vec::new();
        };
        let addresses = self.addresses.iter().filter(|one| one.link == index);
        let addresses: Vec<IpNet> = addresses
            .filter_map(|one| IpNet::new(one.address, one.network.prefix_len()).ok())
            .collect();
        upkeep::flaws(link, &carrier.name(), mac, &addresses)
    }

    /// Mends one thing; true where something was changed.
    fn mend(&mut self, now: Instant, carrier: Carrier, index: u32, flaw: &Flaw) -> bool {
        let subject = subject(carrier, flaw.word());
        let turn = match flaw {
            Flaw::Address(_) => Turn::Wait(now),
            _ => self.repairs_made.turn(now, &subject),
        };
        let more = match turn {
            Turn::Wait(_) if matches!(flaw, Flaw::Address(_)) => String::new(),
            Turn::Wait(_) => {
                "; somebody changes it back each time, and it is mended at a falling rate"
                    .to_owned()
            }
            Turn::Repair | Turn::Contested => match self.send_mending(carrier, index, flaw) {
                Ok(()) => {
                    let device = &*carrier.name();
                    if turn == Turn::Repair {
                        info!(device, "{}: mended", flaw.detail());
                        self.conditions.clear(now, ConditionKind::Device, &subject);
                        return true;
                    }
                    "; somebody changes it back each time, and it is mended at a falling rate"
                        .to_owned()
                }
                Err(error) => format!("; the kernel does not let it be mended: {error}"),
            },
        };
        self.conditions.set(
            now,
            (ConditionKind::Device, &subject),
            flaw.severity(),
            format!("{}{more}", flaw.detail()),
            Some(flaw.remedy(&carrier.name())),
        );
        turn == Turn::Contested
    }

    fn send_mending(&mut self, carrier: Carrier, index: u32, flaw: &Flaw) -> Result<(), String> {
        let (name, mtu) = (
            carrier.name(),
            self.devices.get(&carrier).map(|one| one.mtu),
        );
        let rename = |batch: &mut Batch| {
            batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_rename(out, index, &name);
            });
        };
        let mut batch = Batch::default();
        match flaw {
            Flaw::Renamed(_) => rename(&mut batch),
            Flaw::NoAlias => batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_alias(out, &name, super::ALIAS);
            }),
            Flaw::Mac { wanted, .. } => batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_mac(out, index, *wanted);
            }),
            // The kernel forgot what leads through it: it is found by what is read next.
            Flaw::Down => batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_mtu(out, index, mtu.unwrap_or(USUAL_MTU));
            }),
            Flaw::NoArp => batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_flags(out, index, 0, libc::IFF_NOARP);
            }),
            Flaw::Enslaved(_) => batch.push(libc::RTM_NEWLINK, 0, |out| {
                put_link_master(out, index, 0);
            }),
            Flaw::Address(_) => {}
        }
        match self.try_links(batch)? {
            None => Ok(()),
            // Before Linux 6.2 a device keeps its name while it is up.
            Some(refusal) if matches!(flaw, Flaw::Renamed(_)) && refusal.errno == libc::EBUSY => {
                let mut batch = Batch::default();
                batch.push(libc::RTM_NEWLINK, 0, |out| {
                    put_link_flags(out, index, 0, libc::IFF_UP);
                });
                rename(&mut batch);
                batch.push(libc::RTM_NEWLINK, 0, |out| {
                    put_link_flags(out, index, libc::IFF_UP, libc::IFF_UP);
                });
                let refusal = self.try_links(batch)?;
                refusal.map_or(Ok(()), |refusal| Err(refusal.to_string()))
            }
            Some(refusal) => Err(refusal.to_string()),
        }
    }

    /// Sends changes of links; the first that the kernel refuses.
    fn try_links(&mut self, batch: Batch) -> Result<Option<Refusal>, String> {
        let refused = self
            .netlink
            .send(batch)
            .map_err(|error| error.to_string())?;
        Ok(refused.into_iter().next().map(|(_, refusal)| refusal))
    }

    /// Looks whether policy rules of others take tenants' packets, by the kernel's own answers.
    pub(super) fn watch_rules(&mut self) {
        self.watch_rules_at = None;
        if self.config.endpoint.is_none() {
            return;
        }
        let protocol = self.config.protocol;
        let rules = match snapshot::foreign_rules(&mut self.netlink, protocol) {
            Ok(rules) => rules,
            Err(error) => return warn!(%error, "cannot read the rules of others"),
        };
        let suspects = rules.into_iter().filter(ForeignRule::may_come_first);
        let suspects: Vec<ForeignRule> = suspects.take(SUSPECTS).collect();
        self.rules_suspected = !suspects.is_empty();
        let now = Instant::now();
        let mut taken: BTreeMap<String, Taken> = BTreeMap::new();
        for (rule, trials) in self.trials(suspects.clone()) {
            // Of more than are tried any may be concerned.
            let all_tried = trials.len() < TRIALS;
            for trial in trials {
                let Some((table, says)) = self.is_taken(&trial.question) else {
                    continue;
                };
                // Of several the first one is to blame; it has a trial, too.
                let one = |blame| {
                    let mut suspects = suspects.iter();
                    suspects.find(|one| trial.explained_by(one, table) == Some(blame))
                };
                if one(Blame::Sure).or_else(|| one(Blame::Perhaps)) != Some(&rule) {
                    continue;
                }
                let past = match trial.question.mark {
                    Some(UNDECIDED) => " past its service chains",
                    _ => "",
                };
                let detail = format!(
                    "a rule that is not weft's comes before its own, and takes packets of tenant {} to {}{past}: {rule} ({says})",
                    trial.tenant, trial.question.destination
                );
                let one = taken.entry(rule_subject(&rule)).or_insert_with(|| Taken {
                    rule: rule.clone(),
                    detail,
                    tenants: BTreeSet::new(),
                });
                if !all_tried {
                    break;
                }
                one.tenants.insert(trial.tenant);
            }
        }
        self.conditions
            .retain(now, ConditionKind::ForeignRule, |subject| {
                taken.contains_key(subject)
            });
        for (
            subject,
            Taken {
                rule,
                detail,
                tenants,
            },
        ) in taken
        {
            let family = if rule.family == Family::V6 { " -6" } else { "" };
            let remedy = format!(
                "`ip{family} rule del {}`, or give it a preference of 2000 or more, or a selector that no tenant's packet has",
                rule.selector()
            );
            self.conditions.set(
                now,
                (ConditionKind::ForeignRule, &subject),
                Severity::Degraded,
                detail,
                Some(remedy),
            );
            let tenants = tenants.into_iter().collect();
            self.conditions
                .narrow(ConditionKind::ForeignRule, &subject, tenants);
        }
    }

    /// Packets of tenants that each rule may take.
    fn trials(&self, suspects: Vec<ForeignRule>) -> Vec<(ForeignRule, Vec<Trial>)> {
        let mut found: Vec<(ForeignRule, BTreeMap<u32, Trial>)> = suspects
            .into_iter()
            .map(|rule| (rule, BTreeMap::new()))
            .collect();
        if found.is_empty() {
            return Vec::new();
        }
        let entrances: BTreeMap<u32, Vec<Entry<'_>>> = self
            .tenants
            .values()
            .map(|tenant| (tenant.table, self.entries(tenant)))
            .collect();
        // Who sends what comes from the overlay, by table: the kernel answers nothing about a packet without a source.
        let mut senders: BTreeMap<(u32, Family), IpAddr> = BTreeMap::new();
        for (key, spec) in self.held.iter() {
            let one = (key.table, Family::of(key.prefix));
            if let RouteSpec::NextHop { .. } = spec
                && entrances.contains_key(&key.table)
                && !senders.contains_key(&one)
            {
                senders.extend(upkeep::host_in(key.prefix).map(|host| (one, host)));
            }
        }
        for (key, spec) in self.held.iter() {
            // What is attached here is reached from the overlay.
            let from_tunnels = match spec {
                RouteSpec::NextHop { .. } => false,
                RouteSpec::Connected { .. } => true,
                _ => continue,
            };
            let Some(entries) = entrances.get(&key.table) else {
                continue;
            };
            for (rule, trials) in &mut found {
                if rule.family != Family::of(key.prefix)
                    || trials.len() >= TRIALS
                    || trials.contains_key(&key.table)
                {
                    continue;
                }
                let Some(destination) = rule.destination_in(key.prefix) else {
                    continue;
                };
                let entries = entries.iter();
                let mut entries = entries.filter(|one| !from_tunnels || one.networks.is_empty());
                let entry = entries.find_map(|entry| {
                    let comes_in = rule.may_take(key.table, entry.name);
                    let source = self.source(entry, rule, key.table);
                    (comes_in && (source.is_some() || rule.source.is_none()))
                        .then_some((entry, source))
                });
                let Some((entry, source)) = entry else {
                    continue;
                };
                let sender = senders.get(&(key.table, rule.family)).copied();
                let question = Question {
                    destination,
                    source: source.or(sender),
                    interface: Some(entry.index),
                    out: None,
                    mark: Some(key.table),
                    dscp: 0,
                    udp_port: None,
                };
                let trial = Trial {
                    tenant: entry.tenant.to_owned(),
                    interface: entry.name.to_owned(),
                    question,
                };
                trials.insert(key.table, trial);
            }
        }
        let found = found.into_iter();
        found
            .map(|(rule, trials)| {
                let trials: Vec<Trial> = trials.into_values().collect();
                let before_services = trials.iter();
                let before_services =
                    before_services.filter_map(|trial| self.before_services(&rule, trial));
                let before_services: Vec<Trial> = before_services.collect();
                (rule, [trials, before_services].concat())
            })
            .collect()
    }

    /// The same packet where service chains are still to decide on it: no rule but those about chains is to take it, not even one that
    /// looks into the tenant's own table.
    fn before_services(&self, rule: &ForeignRule, trial: &Trial) -> Option<Trial> {
        let link = trial.question.interface?;
        let may = rule.may_take(UNDECIDED, &trial.interface);
        (may && self.steps.undecided.contains(&link)).then(|| Trial {
            question: Question {
                mark: Some(UNDECIDED),
                ..trial.question
            },
            ..trial.clone()
        })
    }

    /// Where packets of a tenant come in: its attachments that are up, and tunnels.
    fn entries<'a>(&'a self, tenant: &'a super::Tenant) -> Vec<Entry<'a>> {
        let names = &tenant.intent.attachments;
        let tunnels: BTreeSet<u32> = self.devices.values().map(|one| one.index).collect();
        let mut entries: Vec<Entry<'a>> = self
            .links
            .values()
            .filter(|link| link.up && names.binary_search(&link.name).is_ok())
            .map(|link| Entry {
                tenant: &tenant.intent.name,
                name: &link.name,
                index: link.index,
                networks: self
                    .addresses
                    .iter()
                    .filter(|one| one.link == link.index)
                    .map(|one| one.network)
                    .collect(),
            })
            .collect();
        let links = self.links.values();
        entries.extend(
            links
                .filter(|link| tunnels.contains(&link.index))
                .map(|link| Entry {
                    tenant: &tenant.intent.name,
                    name: &link.name,
                    index: link.index,
                    networks: Vec::new(),
                }),
        );
        entries
    }

    /// A source that a tenant's packet may have at an interface, and that a rule may take.
    fn source(&self, entry: &Entry<'_>, rule: &ForeignRule, table: u32) -> Option<IpAddr> {
        let networks = entry.networks.iter();
        let mut networks = networks.filter(|net| Family::of(**net) == rule.family);
        let here = networks.find_map(|net| rule.source_in(*net));
        // From the overlay comes what the tenant has elsewhere.
        let there = rule
            .source
            .filter(|_| entry.networks.is_empty() && !rule.inverted);
        here.or_else(|| {
            let source = there?.addr();
            let lengths = (1..=there?.max_prefix_len()).rev();
            let mut nets = lengths.filter_map(|length| IpNet::new(source, length).ok());
            let is_routed = nets.any(|net| {
                let key = RouteKey {
                    table,
                    prefix: net.trunc(),
                    metric: 0,
                };
                self.held.contains_key(&key)
            });
            is_routed.then_some(source)
        })
    }

    /// The kernel looks elsewhere for a packet than in the table that its mark names: where, and what it says.
    fn is_taken(&mut self, question: &Question) -> Option<(Option<u32>, String)> {
        match self.ask(question) {
            Ok(answer) if Some(answer.table) == question.mark => None,
            // Nobody has decided: it goes nowhere.
            Err(_) if question.mark == Some(UNDECIDED) => None,
            Ok(answer) => Some((Some(answer.table), format!("table {}", answer.table))),
            // Without forwarding it answers nothing: that is said elsewhere.
            Err(_) if self.conditions.any(ConditionKind::HostSetting) => None,
            Err(error) => Some((None, error)),
        }
    }
}

/// MTU of a device that is set up before anything is known of the underlay.
const USUAL_MTU: u32 = 1400;

/// An interface that a tenant's packets come in by.
struct Entry<'a> {
    tenant: &'a str,
    name: &'a str,
    index: u32,
    networks: Vec<IpNet>,
}

/// A rule of somebody else that takes packets of tenants.
struct Taken {
    rule: ForeignRule,
    detail: String,
    /// Whose, as far as each was tried.
    tenants: BTreeSet<String>,
}

/// A packet of a tenant.
#[derive(Clone)]
struct Trial {
    tenant: String,
    /// Where it comes in.
    interface: String,
    question: Question,
}

impl Trial {
    fn explained_by(&self, rule: &ForeignRule, table: Option<u32>) -> Option<Blame> {
        let Question {
            source,
            destination,
            mark,
            ..
        } = self.question;
        let comes = (mark.unwrap_or(0), self.interface.as_str());
        if rule.family != Family::of(destination.into()) {
            return None;
        }
        rule.explains((source, destination), comes, table)
    }
}

fn subject(carrier: Carrier, word: &str) -> String {
    format!("{} {word}", carrier.name())
}

fn rule_subject(rule: &ForeignRule) -> String {
    let family = match rule.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    format!("{family} rule {}", rule.priority)
}
