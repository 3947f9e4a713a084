//! What forwarding depends on beside our routes, rules and next hops: settings of the host, our tunnel devices as somebody may have
//! changed them, policy rules of others. From facts to what is wrong with them, and how often it is put right.
//!
//! What we have set is set again: at once the first times, and then at a falling rate, since whoever changes it back each time
//! means it, and a fight about it helps nobody. Meanwhile it is a condition.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::condition::Severity;
use crate::host::Sysctl;
use crate::model::{Family, RULE_LAST};
use crate::snapshot::Link;

/// So often what somebody changed is put right at once,
const AT_ONCE: u32 = 3;
/// and then after a pause, which doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// What has held for so long after it was put right is no fight any more.
const HELD: Duration = Duration::from_secs(60);

/// How often things were put right of late.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    made: BTreeMap<String, Made>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    times: u32,
    /// Not again before then.
    until: Instant,
}

/// What to do about something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Put it right.
    Repair,
    /// Put it right, and say that somebody changes it back.
    Contested,
    /// It was put right too often of late: not before then.
    Wait(Instant),
}

impl Repairs {
    /// `what` is wrong.
    pub(crate) fn turn(&mut self, now: Instant, what: &str) -> Turn {
        self.made.retain(|_, made| now < made.until + HELD);
        let Some(made) = self.made.get_mut(what) else {
            let first = Made {
                times: 1,
                until: now,
            };
            self.made.insert(what.to_owned(), first);
            return Turn::Repair;
        };
        if now < made.until {
            return Turn::Wait(made.until);
        }
        made.times += 1;
        if made.times <= AT_ONCE {
            made.until = now;
            return Turn::Repair;
        }
        let doubled = PAUSE.saturating_mul(1 << (made.times - AT_ONCE - 1).min(6));
        made.until = now + doubled.min(PAUSE_LONGEST);
        Turn::Contested
    }

    /// `what` is right: whether that may be believed, or somebody is about to change it again.
    pub(crate) fn is_settled(&self, now: Instant, what: &str) -> bool {
        self.made.get(what).is_none_or(|made| made.until <= now)
    }

    /// What begins with these words is made anew, and owes nothing to what was.
    pub(crate) fn forget(&mut self, words: &str) {
        self.made.retain(|what, _| !what.starts_with(words));
    }

    /// When something is to be looked at again.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let pauses = self.made.values().map(|made| made.until);
        pauses.filter(|until| *until > now).min()
    }
}

/// A setting that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unset {
    /// As sysctl(8) names it.
    pub(crate) name: String,
    /// What it costs.
    pub(crate) severity: Option<Severity>,
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

/// What is wrong with a setting; nothing where it is what it must be.
pub(crate) fn unset(sysctl: &Sysctl, found: &str) -> Option<Unset> {
    let Sysctl {
        path,
        value,
        why,
        cost,
    } = sysctl;
    let found = found.trim();
    (found != *value).then(|| {
        let name = sysctl_name(path);
        Unset {
            severity: *cost,
            detail: format!("it is {found} and must be {value}: {why}"),
            remedy: format!("sysctl -w {name}={value}"),
            name,
        }
    })
}

/// `net.ipv4.conf.eth0/7.forwarding`: dots of a name are slashes, as sysctl(8) wants them.
pub(crate) fn sysctl_name(path: &str) -> String {
    let swapped = path.chars().map(|one| match one {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    swapped.collect()
}

/// Something about a tunnel device that is not as we made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It has another name: rules and filters name ours.
    Renamed(String),
    /// It does not say that it is ours.
    NoAlias,
    /// Packets of others are for the address that it had.
    Mac {
        found: Option<[u8; 6]>,
        wanted: [u8; 6],
    },
    /// It is administratively down.
    Down,
    /// It asks for addresses no more.
    NoArp,
    /// It belongs to a bridge, bond or VRF.
    Enslaved(u32),
    /// Somebody gave it an address; that is not taken away, since it may be meant.
    Address(IpNet),
}

impl Flaw {
    /// What each of them is called, for [`Repairs`] and conditions.
    pub(crate) const WORDS: [&'static str; 7] = [
        "name",
        "alias",
        "MAC address",
        "state",
        "flags",
        "master",
        "address",
    ];

    /// In a sentence about the device.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Renamed(name) => format!("it has been renamed to {name}"),
            Self::NoAlias => "its alias is gone, by which a restarted router knows it".to_owned(),
            Self::Mac { found, .. } => format!(
                "its MAC address has been changed to {}: packets of other routers are not for it",
                found.map_or_else(|| "none".to_owned(), mac_text)
            ),
            Self::Down => "it is administratively down".to_owned(),
            Self::NoArp => "its flag NOARP has been set".to_owned(),
            Self::Enslaved(master) => format!("link {master} has been made its master"),
            Self::Address(address) => {
                format!("somebody gave it the address {address}, which packets may leave with")
            }
        }
    }

    /// The command that mends the device of this name.
    pub(crate) fn remedy(&self, name: &str) -> String {
        match self {
            Self::Renamed(now) => format!("ip link set dev {now} name {name}"),
            Self::NoAlias => format!("ip link set dev {name} alias \"{}\"", crate::actor::ALIAS),
            Self::Mac { wanted, .. } => {
                format!("ip link set dev {name} address {}", mac_text(*wanted))
            }
            Self::Down => format!("ip link set dev {name} up"),
            Self::NoArp => format!("ip link set dev {name} arp on"),
            Self::Enslaved(_) => format!("ip link set dev {name} nomaster"),
            Self::Address(address) => format!("ip address del {address} dev {name}"),
        }
    }

    /// What it costs.
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::Renamed(_) | Self::Mac { .. } | Self::Down | Self::Enslaved(_) => Severity::Down,
            Self::NoAlias | Self::NoArp | Self::Address(_) => Severity::Degraded,
        }
    }

    /// Which of [`Flaw::WORDS`] it is.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Renamed(_) => "name",
            Self::NoAlias => "alias",
            Self::Mac { .. } => "MAC address",
            Self::Down => "state",
            Self::NoArp => "flags",
            Self::Enslaved(_) => "master",
            Self::Address(_) => "address",
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    let octets = mac.map(|octet| format!("{octet:02x}"));
    octets.join(":")
}

/// What is wrong with a tunnel device that is to have this name and, where it carries Ethernet, this MAC address.
pub(crate) fn flaws(
    link: &Link,
    name: &str,
    mac: Option<[u8; 6]>,
    addresses: &[IpNet],
) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if link.name != name {
        flaws.push(Flaw::Renamed(link.name.clone()));
    }
    if link.alias.as_deref() != Some(crate::actor::ALIAS) {
        flaws.push(Flaw::NoAlias);
    }
    if let Some(wanted) = mac.filter(|wanted| link.mac != Some(*wanted)) {
        let found = link.mac;
        flaws.push(Flaw::Mac { found, wanted });
    }
    if !link.admin {
        flaws.push(Flaw::Down);
    }
    if mac.is_some() && link.no_arp {
        flaws.push(Flaw::NoArp);
    }
    flaws.extend(link.master.map(Flaw::Enslaved));
    let foreign = addresses.iter().filter(|net| match net.addr() {
        IpAddr::V4(address) => !address.is_link_local(),
        // The kernel gives it one of these itself.
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    flaws.extend(foreign.map(|net| Flaw::Address(*net)));
    flaws
}

/// What a rule of somebody else does with the packets that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForeignAction {
    /// Looks into a table; what that has nothing for is asked on.
    Table(u32),
    /// Drops, in the word of `ip rule`.
    Drop(&'static str),
    /// Goes on at another rule.
    Goto,
}

impl std::fmt::Display for ForeignAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(254) => f.write_str("lookup main"),
            Self::Table(253) => f.write_str("lookup default"),
            Self::Table(table) => write!(f, "lookup {table}"),
            Self::Drop(word) => f.write_str(word),
            Self::Goto => f.write_str("goto"),
        }
    }
}

/// Whether it is this rule that did something to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It is, unless an earlier one is.
    Sure,
    /// It may be, where none is for sure.
    Perhaps,
}

/// A policy rule of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRule {
    pub(crate) family: Family,
    pub(crate) priority: u32,
    pub(crate) source: Option<IpNet>,
    pub(crate) destination: Option<IpNet>,
    pub(crate) interface: Option<String>,
    /// Mark and mask.
    pub(crate) mark: Option<(u32, u32)>,
    /// Everything but what it says.
    pub(crate) inverted: bool,
    /// It is about something that no packet in transit has: who sends it, or the interface that a socket is bound to.
    pub(crate) of_sockets: bool,
    /// What it does; nothing where it takes no packet.
    pub(crate) action: Option<ForeignAction>,
}

impl ForeignRule {
    /// It is asked before the last of ours, and may take packets that are in transit.
    pub(crate) fn may_come_first(&self) -> bool {
        self.priority < RULE_LAST && self.action.is_some() && !self.of_sockets && !self.is_local()
    }

    /// It finds the host's own addresses, before everything else: the kernel's own first rule, or one like it.
    fn is_local(&self) -> bool {
        let local = u32::from(libc::RT_TABLE_LOCAL);
        let plain = self.source.is_none() && self.destination.is_none() && self.interface.is_none();
        let takes_all = plain && self.mark.is_none() && !self.inverted;
        self.priority == 0 && takes_all && self.action == Some(ForeignAction::Table(local))
    }

    /// What `ip rule del` takes to delete it, and none beside it that has its preference.
    pub(crate) fn selector(&self) -> String {
        match self.action {
            Some(ForeignAction::Goto) | None => format!("pref {}", self.priority),
            _ => format!("pref {}{}", self.priority, self.words()),
        }
    }

    /// As `ip rule` shows it, behind its preference.
    fn words(&self) -> String {
        let shown = self.to_string();
        let words = shown.split_once(':').map(|(_, words)| words.to_owned());
        words.unwrap_or_default()
    }

    /// It may take a packet of a tenant, by its mark and where it comes in.
    pub(crate) fn may_take(&self, mark: u32, interface: &str) -> bool {
        self.inverted || self.may_take_plainly(mark, interface)
    }

    fn may_take_plainly(&self, mark: u32, interface: &str) -> bool {
        let marked = self
            .mark
            .is_none_or(|(wanted, mask)| mark & mask == wanted & mask);
        let comes_in = self.interface.as_deref();
        marked && comes_in.is_none_or(|wanted| wanted == interface)
    }

    /// A destination that it may take and that is in a tenant's prefix; the prefix says it where the rule does not.
    pub(crate) fn destination_in(&self, prefix: IpNet) -> Option<IpAddr> {
        common(self.destination.filter(|_| !self.inverted), prefix)
    }

    /// The same of sources, in the network of an attachment.
    pub(crate) fn source_in(&self, network: IpNet) -> Option<IpAddr> {
        common(self.source.filter(|_| !self.inverted), network)
    }
}

impl ForeignRule {
    /// It takes a packet like this one, and what it does then is what the kernel said of it: the table, or that it is dropped.
    pub(crate) fn explains(
        &self,
        (source, destination): (Option<IpAddr>, IpAddr),
        (mark, interface): (u32, &str),
        table: Option<u32>,
    ) -> Option<Blame> {
        let to = self
            .destination
            .is_none_or(|net| net.contains(&destination));
        let from = self
            .source
            .is_none_or(|net| source.is_some_and(|source| net.contains(&source)));
        let taken = to && from && self.may_take_plainly(mark, interface);
        if taken == self.inverted {
            return None;
        }
        match (self.action?, table) {
            (ForeignAction::Table(own), Some(table)) => (own == table).then_some(Blame::Sure),
            (ForeignAction::Drop(_), None) => Some(Blame::Sure),
            // A table may hold routes that drop.
            (ForeignAction::Table(_), None) | (ForeignAction::Goto, _) => Some(Blame::Perhaps),
            (ForeignAction::Drop(_), Some(_)) => None,
        }
    }
}

/// An address that a host may have in a network.
pub(crate) fn host_in(network: IpNet) -> Option<IpAddr> {
    common(None, network)
}

/// An address in both.
fn common(wanted: Option<IpNet>, prefix: IpNet) -> Option<IpAddr> {
    let net = match wanted {
        None => prefix,
        Some(wanted) if wanted.contains(&prefix) => prefix,
        Some(wanted) if prefix.contains(&wanted) => wanted,
        Some(_) => return None,
    };
    // The first is the network's own, where there are more.
    net.hosts().nth(1).or_else(|| net.hosts().next())
}

impl std::fmt::Display for ForeignRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.inverted {
            f.write_str(" not")?;
        }
        match &self.source {
            Some(source) => write!(f, " from {source}")?,
            None => f.write_str(" from all")?,
        }
        if let Some(destination) = &self.destination {
            write!(f, " to {destination}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
            if mask != u32::MAX {
                write!(f, "/{mask:#x}")?;
            }
        }
        if let Some(interface) = &self.interface {
            write!(f, " iif {interface}")?;
        }
        match &self.action {
            Some(action) => write!(f, " {action}"),
            None => Ok(()),
        }
    }
}

/// Settings that were right once: what is wrong with them later, somebody changed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    right: BTreeSet<String>,
    /// What has been complained of.
    said: BTreeSet<String>,
}

impl Seen {
    /// Notes that a setting is right.
    pub(crate) fn note(&mut self, path: &str) {
        if !self.right.contains(path) {
            self.right.insert(path.to_owned());
        }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.right.contains(path)
    }

    /// True the first time.
    pub(crate) fn complain(&mut self, name: &str) -> bool {
        self.said.insert(name.to_owned())
    }

    /// Those of a device that is made anew.
    pub(crate) fn forget(&mut self, holds: impl Fn(&str) -> bool) {
        self.right.retain(|path| !holds(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::ALIAS;

    #[test]
    fn what_somebody_changes_back_is_put_right_at_a_falling_rate() {
        let mut repairs = Repairs::default();
        let start = Instant::now();
        let (mut made, mut contested) = (Vec::new(), 0);
        // It is wrong again each time, for an hour.
        for tenth in 0..36_000 {
            let now = start + Duration::from_millis(tenth * 100);
            match repairs.turn(now, "x") {
                Turn::Repair => made.push(now),
                Turn::Contested => {
                    made.push(now);
                    contested += 1;
                }
                Turn::Wait(until) => assert!(until > now && !repairs.is_settled(now, "x")),
            }
        }
        assert!(made.len() < 75, "{}", made.len());
        assert_eq!(contested, made.len() - 3);
        assert!(made[3] - made[0] < Duration::from_secs(1), "at once");
        let pauses: Vec<Duration> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().max().unwrap() < &Duration::from_secs(61));
        // It has held: the next one is as the first.
        let later = *made.last().unwrap() + Duration::from_secs(200);
        assert!(repairs.is_settled(later, "x"));
        assert_eq!(repairs.turn(later, "x"), Turn::Repair);
        assert_eq!(repairs.turn(later, "another"), Turn::Repair);
    }

    #[test]
    fn a_setting_is_named_as_sysctl_names_it() {
        let sysctl = Sysctl {
            path: "net/ipv4/conf/eth0.7/rp_filter".into(),
            value: "0",
            why: "of the tenant's table",
            cost: Some(Severity::Degraded),
        };
        assert_eq!(unset(&sysctl, "0\n"), None);
        let wrong = unset(&sysctl, "1\n").unwrap();
        assert_eq!(wrong.name, "net.ipv4.conf.eth0/7.rp_filter");
        assert_eq!(wrong.detail, "it is 1 and must be 0: of the tenant's table");
        assert_eq!(wrong.remedy, "sysctl -w net.ipv4.conf.eth0/7.rp_filter=0");
    }

    fn device() -> Link {
        Link {
            index: 7,
            name: "vx0".into(),
            alias: Some(ALIAS.into()),
            up: true,
            admin: true,
            no_arp: false,
            mtu: 1450,
            master: None,
            vrf: false,
            mac: Some([2, 0, 192, 0, 2, 1]),
            tunnel: None,
        }
    }

    #[test]
    fn everything_that_may_be_changed_at_a_tunnel_device_is_seen() {
        let mac = [2, 0, 192, 0, 2, 1];
        let own: IpNet = "fe80::1/64".parse().unwrap();
        assert_eq!(flaws(&device(), "vx0", Some(mac), &[own]), []);
        let foreign: IpNet = "10.9.9.1/24".parse().unwrap();
        let changed = Link {
            name: "eth9".into(),
            alias: None,
            admin: false,
            no_arp: true,
            master: Some(3),
            mac: Some([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]),
            ..device()
        };
        let found = flaws(&changed, "vx0", Some(mac), &[own, foreign]);
        let words: Vec<&str> = found.iter().map(Flaw::word).collect();
        assert_eq!(
            words,
            [
                "name",
                "alias",
                "MAC address",
                "state",
                "flags",
                "master",
                "address"
            ]
        );
        let remedies: Vec<String> = found.iter().map(|flaw| flaw.remedy("vx0")).collect();
        assert_eq!(remedies[0], "ip link set dev eth9 name vx0");
        assert_eq!(remedies[2], "ip link set dev vx0 address 02:00:c0:00:02:01");
        // What carries no Ethernet has no address of its own to be kept.
        assert_eq!(
            flaws(
                &Link {
                    mac: None,
                    ..device()
                },
                "vx0",
                None,
                &[]
            ),
            []
        );
    }

    #[test]
    fn a_rule_of_others_is_suspected_by_what_it_says() {
        let rule = ForeignRule {
            family: Family::V4,
            priority: 10,
            source: None,
            destination: None,
            interface: None,
            mark: None,
            inverted: false,
            of_sockets: false,
            action: Some(ForeignAction::Table(999)),
        };
        let (net, prefix): (IpNet, IpNet) = (
            "10.0.1.0/24".parse().unwrap(),
            "10.0.2.0/24".parse().unwrap(),
        );
        assert!(rule.may_come_first() && rule.may_take(7, "red0"));
        assert_eq!(rule.to_string(), "10: from all lookup 999");
        assert_eq!(rule.destination_in(prefix), Some([10, 0, 2, 2].into()));
        let of_another = ForeignRule {
            source: Some("203.0.113.0/24".parse().unwrap()),
            interface: Some("eth7".into()),
            mark: Some((0x100, 0xff00)),
            ..rule.clone()
        };
        assert!(!of_another.may_take(7, "eth7") && !of_another.may_take(0x107, "red0"));
        assert!(of_another.may_take(0x107, "eth7"));
        assert_eq!(of_another.source_in(net), None);
        assert_eq!(
            of_another.to_string(),
            "10: from 203.0.113.0/24 fwmark 0x100/0xff00 iif eth7 lookup 999"
        );
        let narrow = ForeignRule {
            destination: Some("10.0.2.64/30".parse().unwrap()),
            ..rule.clone()
        };
        assert_eq!(narrow.destination_in(prefix), Some([10, 0, 2, 66].into()));
        let packet = (Some([10, 0, 1, 2].into()), [10, 0, 2, 66].into());
        assert_eq!(
            narrow.explains(packet, (7, "red0"), Some(999)),
            Some(Blame::Sure)
        );
        assert_eq!(
            narrow.explains(packet, (7, "red0"), None),
            Some(Blame::Perhaps)
        );
        assert_eq!(narrow.explains(packet, (7, "red0"), Some(254)), None);
        assert_eq!(
            of_another.explains(packet, (0x107, "eth7"), Some(999)),
            None
        );
        let inverted = ForeignRule {
            inverted: true,
            ..of_another
        };
        assert!(inverted.explains(packet, (7, "red0"), Some(999)).is_some());
        assert!(inverted.may_take(7, "red0") && inverted.source_in(net).is_some());
        for harmless in [
            // The kernel's own first one.
            ForeignRule {
                family: Family::V4,
                priority: 0,
                source: None,
                destination: None,
                interface: None,
                mark: None,
                inverted: false,
                of_sockets: false,
                action: Some(ForeignAction::Table(255)),
            },
            ForeignRule {
                priority: 32_766,
                ..rule.clone()
            },
            ForeignRule {
                action: None,
                ..rule.clone()
            },
            ForeignRule {
                of_sockets: true,
                ..rule
            },
        ] {
            assert!(!harmless.may_come_first());
        }
    }
}
