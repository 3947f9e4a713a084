//! Who may send to this router: permits in the classifier's table, and in nftables where there is no classifier.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use tracing::warn;
use weft_overlay::VniSet;
use weft_overlay::intent::IntentDelta;

use super::Actor;
use crate::bpf::Permit;
use crate::condition::{ConditionKind, Severity};
use crate::model::Carrier;

/// Every VNI, in a permit.
const EVERY: u32 = 0;
/// What a condition about permits is about.
const SUBJECT: &str = "permits";

/// Permits as they are wanted, and as they stand.
#[derive(Debug, Default)]
pub(super) struct Senders {
    /// The VNIs that each router may send.
    wanted: BTreeMap<IpAddr, VniSet>,
    /// Permits in force; those that are not wanted any more go then.
    held: BTreeMap<Permit, Option<Instant>>,
    /// They are to be compared.
    pub(super) changed: bool,
    /// When the next one goes.
    pub(super) next: Option<Instant>,
    /// Counters are to be gone through again, for one that a packet made while its permit went.
    sweep: bool,
}

impl Senders {
    /// Takes the intent over.
    pub(super) fn apply(&mut self, delta: &mut IntentDelta) {
        for (address, vnis) in delta.senders.drain(..) {
            self.changed = true;
            match vnis {
                Some(vnis) => self.wanted.insert(address, vnis),
                None => self.wanted.remove(&address),
            };
        }
    }

    /// One permit for a router that may send everything, else one for each VNI that is somebody's here.
    /// `everywhere` is the address that stands for those of whom no address is known.
    fn permits(&self, vnis: &BTreeSet<u32>, everywhere: Option<IpAddr>) -> BTreeSet<Permit> {
        let all = VniSet::all();
        let mut permits = BTreeSet::new();
        let any = self.wanted.values().fold(VniSet::none(), |any, may| {
            if any == *may { any } else { any.union(may) }
        });
        let any = everywhere.map(|everywhere| (everywhere, any));
        let any = any.iter().map(|(everywhere, any)| (everywhere, any));
        for (address, may) in self.wanted.iter().chain(any) {
            if *may == all {
                permits.insert((EVERY, *address));
                continue;
            }
            for (first, last) in may.ranges() {
                let ours = vnis.range(first.get()..=last.get());
                permits.extend(ours.map(|vni| (*vni, *address)));
            }
        }
        permits
    }

    fn may_send(&self, (vni, address): Permit) -> bool {
        self.held.contains_key(&(EVERY, address)) || self.held.contains_key(&(vni, address))
    }

    /// Routers that may send something.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.held.keys().map(|(_, address)| *address).collect()
    }
}

impl Actor {
    /// Takes the permits of an earlier process over. One that knew none let everybody send: who did so may go on until the intent
    /// is whole.
    pub(super) fn adopt_senders(&mut self) {
        self.senders.changed = true;
        let Some(classifier) = &self.classifier else {
            return;
        };
        let mut permits = classifier.permits().unwrap_or_default();
        if permits.is_empty() {
            let traffic = classifier.traffic().unwrap_or_default().into_iter();
            let heard = traffic.filter(|traffic| traffic.received_packets > 0);
            permits.extend(heard.map(|traffic| (traffic.vni, traffic.endpoint)));
            for permit in &permits {
                if let Err(error) = classifier.permit(*permit) {
                    warn!(%error, "cannot permit a router to send");
                }
            }
        }
        let permits = permits.into_iter();
        self.senders.held = permits.map(|permit| (permit, None)).collect();
    }

    /// Brings the permits in line with the intent. What is not wanted any more stays for a while, and all of it until the intent
    /// is whole.
    pub(super) fn flush_senders(&mut self) {
        let now = Instant::now();
        let due = self.senders.next.is_some_and(|next| next <= now);
        if !self.senders.changed && !due {
            return;
        }
        self.senders.changed = false;
        let vnis = self.tenants.values().flat_map(|one| &one.intent.vnis);
        let vnis = vnis.copied().chain(self.steps.labels());
        let vnis = vnis.map(|vni| vni.get()).collect();
        // GRE over IPv6: the kernel does not send from the address that it is told to.
        let own = self.config.endpoint;
        let own = own.map(|endpoint| self.config.carrier(endpoint));
        let everywhere = (own == Some(Carrier::Gre6)).then(|| IpAddr::from([0; 16]));
        let wanted = self.senders.permits(&vnis, everywhere);
        let before = self.senders.addresses();
        let (mut left_out, mut refusal) = (0, None);
        for permit in &wanted {
            if let Some(goes) = self.senders.held.get_mut(permit) {
                *goes = None;
                continue;
            }
            let classifier = self.classifier.as_ref();
            match classifier.map_or(Ok(()), |classifier| classifier.permit(*permit)) {
                Ok(()) => drop(self.senders.held.insert(*permit, None)),
                Err(error) => {
                    left_out += 1;
                    refusal = Some(error);
                }
            }
        }
        self.note_left_out(now, left_out, refusal);
        let goes = now + self.config.sender_grace;
        let mut gone = Vec::new();
        for (permit, at) in &mut self.senders.held {
            if !self.settled || wanted.contains(permit) {
                continue;
            }
            if *at.get_or_insert(goes) <= now {
                gone.push(*permit);
            }
        }
        for permit in &gone {
            self.senders.held.remove(permit);
            if let Some(classifier) = &self.classifier {
                classifier.revoke(*permit);
            }
        }
        if !gone.is_empty() {
            self.forget_strangers();
            self.senders.sweep = true;
        }
        self.senders.next = self.senders.held.values().flatten().min().copied();
        if before != self.senders.addresses() {
            self.policy_changed |= self.classifier.is_none();
            self.note_targets();
        }
    }

    /// A full table keeps those out that come last: nobody sends without a permit.
    fn note_left_out(&mut self, now: Instant, count: usize, refusal: Option<std::io::Error>) {
        match refusal {
            None => {
                self.conditions.clear(now, ConditionKind::Senders, SUBJECT);
            }
            Some(error) => self.conditions.set(
                now,
                (ConditionKind::Senders, SUBJECT),
                Severity::Degraded,
                format!("the kernel takes no permit for {count} more pairs of VNI and router, whose packets are dropped: {error}"),
                Some("give neighbours shorter lists in `accept_vnis`, or `all`".into()),
            ),
        }
    }

    fn forget_strangers(&mut self) {
        let (senders, classifier) = (&self.senders, self.classifier.as_ref());
        let forgotten = classifier
            .map(|classifier| classifier.forget_strangers(|counter| senders.may_send(counter)));
        if let Some(Err(error)) = forgotten {
            warn!(%error, "cannot forget the counters of routers that are gone");
        }
    }

    /// Compares the permits with what the kernel has: true where somebody changed them.
    pub(super) fn check_senders(&mut self) -> bool {
        if std::mem::take(&mut self.senders.sweep) {
            self.forget_strangers();
        }
        let classifier = self.classifier.as_ref();
        let Some(Ok(found)) = classifier.map(|classifier| classifier.permits()) else {
            return false;
        };
        let held: BTreeSet<Permit> = self.senders.held.keys().copied().collect();
        if found == held {
            return false;
        }
        self.senders.held.retain(|permit, _| found.contains(permit));
        for permit in found.difference(&held) {
            if let Some(classifier) = &self.classifier {
                classifier.revoke(*permit);
            }
        }
        self.forget_strangers();
        self.senders.changed = true;
        true
    }
}
