//! What keeps packets from where they should go, and the one verdict that follows from it.
//!
//! Whoever notices a fault sets a condition, and clears it when the fault is gone; both are logged here, so that a fault
//! that lasts is one line and not one for each attempt. A condition is named by its kind and what it is about.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::{info, warn};

/// Conditions that are kept; further ones are counted.
const MOST: usize = 1000;
/// A condition that is set again and again is logged again after this, and then after twice as long each time.
const REPEAT: Duration = Duration::from_secs(60);
const REPEAT_LONGEST: Duration = Duration::from_secs(3600);

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionKind {
    /// The routes of the neighbours are not all there yet: leftovers of an earlier process may stand in the kernel.
    Starting,
    /// A tunnel device cannot be made, or is gone.
    Device,
    /// The kernel refuses routes.
    RouteRefused,
    /// The kernel refuses what routes rest on: a next hop, a rule, a VNI, a neighbour entry.
    ObjectRefused,
    /// nftables refuses our table.
    Ruleset,
    /// nftables refuses the service chains.
    Chains,
    /// Netlink fails: what the kernel holds is not known.
    Netlink,
    /// A setting of the host is not what forwarding needs.
    HostSetting,
    /// A policy rule of somebody else takes packets of tenants before ours see them.
    ForeignRule,
    /// Nothing comes back from a far router through its tunnel.
    FarEnd,
    /// Packets of one tenant do not come back from a far router, others do.
    FarTenant,
    /// Nothing comes back from any far router.
    FarEnds,
    /// A next hop of routes for the underlay leads nowhere, or to itself.
    NextHop,
    /// The far end of tunnels has no route.
    Unreachable,
    /// Labels name a far end whose address nobody announces.
    NoLocator,
    /// The way to far routers is narrower than the devices that lead there.
    PathMtu,
    /// This end of the tunnels is an address that no interface has.
    EndpointAddress,
    /// Packets of a tenant come in by tunnels, and this router does not send them on.
    NotForwarding,
    /// An interface of a tenant is down, is not there, or has lost what it had.
    Attachment,
    /// An interface is not given to a tenant, since the router itself lives by it.
    AttachmentRefused,
    /// An interface was a tenant's: nothing passes it until one has it again.
    FormerAttachment,
    /// An interface is granted to a tenant that has not attached it: nothing passes it until then.
    GrantedInterface,
    /// A router advertisement at a tenant's interface gave the host itself a route there, before this router began.
    AdvertisedRoute,
    /// BPF programs of ours were taken from a device.
    Classifier,
    /// The kernel's table of who may send is full.
    Senders,
    /// Tunnels are not probed, or test packets of other routers are not reflected.
    Probes,
    /// A part of what the controller says cannot be, and is left out.
    ItemRefused,
}

impl ConditionKind {
    /// As the API and metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Device => "device",
            Self::RouteRefused => "route-refused",
            Self::ObjectRefused => "object-refused",
            Self::Ruleset => "ruleset",
            Self::Chains => "chains",
            Self::Netlink => "netlink",
            Self::HostSetting => "host-setting",
            Self::ForeignRule => "foreign-rule",
            Self::FarEnd => "far-end",
            Self::FarTenant => "far-tenant",
            Self::FarEnds => "far-ends",
            Self::NextHop => "next-hop",
            Self::Unreachable => "unreachable",
            Self::NoLocator => "no-locator",
            Self::PathMtu => "path-mtu",
            Self::EndpointAddress => "endpoint-address",
            Self::NotForwarding => "not-forwarding",
            Self::Attachment => "attachment",
            Self::AttachmentRefused => "attachment-refused",
            Self::FormerAttachment => "former-attachment",
            Self::GrantedInterface => "granted-interface",
            Self::AdvertisedRoute => "advertised-route",
            Self::Classifier => "classifier",
            Self::Senders => "senders",
            Self::Probes => "probes",
            Self::ItemRefused => "item-refused",
        }
    }
}

/// How much it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is lost by it; it is worth knowing where something else is looked into.
    Notice,
    /// Some packets are lost, or may be.
    Degraded,
    /// No tenant's packet gets through this router.
    Down,
}

/// What follows for the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is known to keep packets from where they should go.
    Forwarding,
    /// Some packets are lost, or may be.
    Degraded,
    /// No tenant's packet gets through this router.
    Down,
}

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What kind.
    pub kind: ConditionKind,
    /// What it is about: a device, a tenant, an endpoint. Unique within the kind.
    pub subject: String,
    /// Whose packets it costs, by name; everybody's where nobody is named.
    pub tenants: Vec<String>,
    /// What it costs.
    pub severity: Severity,
    /// What is wrong, in a sentence without a full stop.
    pub detail: String,
    /// What an operator can do, where that is known.
    pub remedy: Option<String>,
    /// How long it has been so.
    pub lasts: Duration,
    /// How often it was found.
    pub count: u64,
}

#[derive(Debug)]
struct Held {
    severity: Severity,
    detail: String,
    remedy: Option<String>,
    tenants: Vec<String>,
    since: Instant,
    count: u64,
    log_at: Instant,
    pause: Duration,
    /// Found since it was logged last.
    unlogged: u64,
    /// The log knows of it.
    told: bool,
}

/// Lines of one kind that are written at once; then one each [`LINE_EVERY`]. A neighbour that names thousands of far ends fills no disk.
const LINES: u32 = 40;
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Room for lines of one kind.
#[derive(Clone, Copy, Debug)]
struct Room {
    lines: u32,
    filled: Instant,
    /// Since the last one.
    left_out: u64,
}

impl Room {
    fn new(now: Instant) -> Self {
        Self {
            lines: LINES,
            filled: now,
            left_out: 0,
        }
    }

    /// Whether a line has room, and how many before it had none.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.filled);
        let fresh = (passed.as_nanos() / LINE_EVERY.as_nanos()) as u32;
        if fresh > 0 {
            self.lines = self.lines.saturating_add(fresh).min(LINES);
            self.filled = now;
        }
        match self.lines.checked_sub(1) {
            Some(lines) => {
                self.lines = lines;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out += 1;
                None
            }
        }
    }
}

/// The conditions of one part of the router, and those that were too many.
#[derive(Debug, Default)]
pub struct Conditions {
    held: BTreeMap<(ConditionKind, String), Held>,
    left_out: u64,
    /// For lines of the log, by kind.
    rooms: BTreeMap<ConditionKind, Room>,
}

impl Conditions {
    /// Notes that something is wrong, or still wrong. Logged when it is new, when it got worse, and from then on at a falling
    /// rate, with the number of times it was found in between.
    pub fn set(
        &mut self,
        now: Instant,
        (kind, subject): (ConditionKind, &str),
        severity: Severity,
        detail: impl Into<String>,
        remedy: Option<String>,
    ) {
        let detail = detail.into();
        let key = (kind, subject.to_owned());
        let Some(held) = self.held.get_mut(&key) else {
            if self.held.len() >= MOST {
                self.left_out += 1;
                return;
            }
            let code = kind.code();
            let room = self.rooms.entry(kind).or_insert_with(|| Room::new(now));
            let room = match kind {
                ConditionKind::Starting => None,
                _ => room.take(now),
            };
            match (room, &remedy) {
                (None, _) => {}
                (Some(0), Some(remedy)) => warn!(condition = code, subject, remedy, "{detail}"),
                (Some(0), None) => warn!(condition = code, subject, "{detail}"),
                (Some(left_out), _) => warn!(condition = code, subject, left_out, "{detail}"),
            }
            let held = Held {
                severity,
                detail,
                remedy,
                tenants: Vec::new(),
                since: now,
                count: 1,
                log_at: now + REPEAT,
                pause: REPEAT,
                unlogged: 0,
                told: room.is_some(),
            };
            self.held.insert(key, held);
            return;
        };
        held.count += 1;
        held.unlogged += 1;
        if now >= held.log_at || severity > held.severity {
            let (times, code) = (held.unlogged, kind.code());
            let room = self.rooms.entry(kind).or_insert_with(|| Room::new(now));
            if let Some(left_out) = room.take(now) {
                warn!(
                    condition = code,
                    subject, times, left_out, "still: {detail}"
                );
                held.told = true;
            }
            held.pause = held.pause.saturating_mul(2).min(REPEAT_LONGEST);
            held.log_at = now + held.pause;
            held.unlogged = 0;
        }
        (held.severity, held.detail, held.remedy) = (severity, detail, remedy);
    }

    /// What is wrong costs packets of these tenants alone.
    pub fn narrow(&mut self, kind: ConditionKind, subject: &str, tenants: Vec<String>) {
        if let Some(held) = self.held.get_mut(&(kind, subject.to_owned())) {
            held.tenants = tenants;
        }
    }

    /// It is no longer so; true where it was.
    pub fn clear(&mut self, now: Instant, kind: ConditionKind, subject: &str) -> bool {
        let Some(held) = self.held.remove(&(kind, subject.to_owned())) else {
            return false;
        };
        log_end(now, kind, subject, &held);
        true
    }

    /// Of one kind, only the subjects that are still wrong stay.
    pub fn retain(
        &mut self,
        now: Instant,
        kind: ConditionKind,
        mut still: impl FnMut(&str) -> bool,
    ) {
        self.held.retain(|(held_kind, subject), held| {
            let keep = *held_kind != kind || still(subject);
            if !keep {
                log_end(now, kind, subject, held);
            }
            keep
        });
    }

    /// True where something of this kind is wrong.
    pub fn any(&self, kind: ConditionKind) -> bool {
        let first = (kind, String::new());
        let mut from = self.held.range(first..);
        from.next().is_some_and(|((found, _), _)| *found == kind)
    }

    /// True where it is so.
    pub fn has(&self, kind: ConditionKind, subject: &str) -> bool {
        self.held.contains_key(&(kind, subject.to_owned()))
    }

    /// What is wrong, by kind and subject.
    pub fn list(&self, now: Instant) -> Vec<Condition> {
        let held = self.held.iter();
        held.map(|((kind, subject), held)| Condition {
            kind: *kind,
            subject: subject.clone(),
            tenants: held.tenants.clone(),
            severity: held.severity,
            detail: held.detail.clone(),
            remedy: held.remedy.clone(),
            lasts: now.saturating_duration_since(held.since),
            count: held.count,
        })
        .collect()
    }

    /// Conditions that were set while there were too many to be kept.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

fn log_end(now: Instant, kind: ConditionKind, subject: &str, held: &Held) {
    if !held.told {
        return;
    }
    let seconds = now.saturating_duration_since(held.since).as_secs_f32();
    info!(
        condition = kind.code(),
        subject, seconds, "no longer: {}", held.detail
    );
}

/// What follows for the router from all that is wrong.
pub fn verdict<'c>(conditions: impl IntoIterator<Item = &'c Condition>) -> Verdict {
    let worst = conditions.into_iter().map(|one| one.severity).max();
    match worst {
        None | Some(Severity::Notice) => Verdict::Forwarding,
        Some(Severity::Degraded) => Verdict::Degraded,
        Some(Severity::Down) => Verdict::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: (ConditionKind, &str) = (ConditionKind::Device, "vx0");

    #[test]
    fn thousands_of_one_kind_are_a_few_lines_of_the_log_and_all_are_held() {
        let (mut conditions, start) = (Conditions::default(), Instant::now());
        for at in 0..900 {
            let subject = format!("203.0.113.{at}");
            let what = (ConditionKind::Unreachable, subject.as_str());
            conditions.set(start, what, Severity::Degraded, "no route to it", None);
        }
        conditions.set(start, DEVICE, Severity::Degraded, "it is down", None);
        let told =
            |conditions: &Conditions| conditions.held.values().filter(|one| one.told).count();
        assert_eq!(told(&conditions), LINES as usize + 1);
        assert_eq!(
            conditions.list(start).len() as u64 + conditions.left_out(),
            901
        );
        let room = conditions.rooms[&ConditionKind::Unreachable];
        assert_eq!(room.left_out, 900 - u64::from(LINES));
        let later = start + LINE_EVERY;
        conditions.set(
            later,
            (ConditionKind::Unreachable, "one more"),
            Severity::Degraded,
            "no route to it",
            None,
        );
        assert_eq!(told(&conditions), LINES as usize + 2);
    }

    #[test]
    fn a_condition_lasts_until_it_is_cleared_and_the_verdict_follows() {
        let (mut conditions, start) = (Conditions::default(), Instant::now());
        assert_eq!(verdict(&conditions.list(start)), Verdict::Forwarding);
        conditions.set(start, DEVICE, Severity::Degraded, "it is down", None);
        let later = start + Duration::from_secs(5);
        conditions.set(later, DEVICE, Severity::Down, "it is gone", None);
        let list = conditions.list(later);
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].count, list[0].lasts.as_secs()), (2, 5));
        assert_eq!(list[0].detail, "it is gone");
        assert_eq!(verdict(&list), Verdict::Down);
        assert!(conditions.clear(later, ConditionKind::Device, "vx0"));
        assert!(!conditions.clear(later, ConditionKind::Device, "vx0"));
        assert_eq!(verdict(&conditions.list(later)), Verdict::Forwarding);
    }

    #[test]
    fn only_the_subjects_of_that_kind_go_that_are_well_again() {
        let (mut conditions, now) = (Conditions::default(), Instant::now());
        for subject in ["a", "b"] {
            let kind = ConditionKind::ObjectRefused;
            conditions.set(now, (kind, subject), Severity::Degraded, "refused", None);
        }
        conditions.set(now, DEVICE, Severity::Degraded, "it is down", None);
        conditions.retain(now, ConditionKind::ObjectRefused, |subject| subject == "b");
        let left: Vec<String> = conditions
            .list(now)
            .into_iter()
            .map(|one| one.subject)
            .collect();
        assert_eq!(left, ["vx0", "b"]);
    }

    #[test]
    fn what_is_found_again_and_again_is_logged_at_a_falling_rate() {
        let (mut conditions, start) = (Conditions::default(), Instant::now());
        let mut logged = 0;
        for second in 0..4 * 3600 {
            let now = start + Duration::from_secs(second);
            conditions.set(now, DEVICE, Severity::Degraded, "it is down", None);
            let key = (DEVICE.0, DEVICE.1.to_owned());
            logged += u32::from(conditions.held[&key].unlogged == 0);
        }
        assert!(logged <= 9, "{logged} lines in four hours");
    }

    #[test]
    fn too_many_are_counted() {
        let (mut conditions, now) = (Conditions::default(), Instant::now());
        for number in 0..MOST + 3 {
            let subject = number.to_string();
            let what = (ConditionKind::ObjectRefused, subject.as_str());
            conditions.set(now, what, Severity::Degraded, "refused", None);
        }
        assert_eq!(conditions.list(now).len(), MOST);
        assert_eq!(conditions.left_out(), 3);
    }
}
