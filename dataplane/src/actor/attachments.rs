//! What keeps a tenant's packets from coming in, and from finding the router: an attachment that is down or missing, and one that has lost
//! what it had before.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::Actor;
use super::links::arms;
use crate::condition::{ConditionKind, Severity};
use crate::host;
use crate::model::Family;
use crate::snapshot::Link;

/// What an attachment has had since this process knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Had {
    /// An address by family: where hosts expect the router.
    addresses: BTreeMap<Family, IpNet>,
    /// It has answered who asked for its address (ARP).
    arp: bool,
}

/// What is wrong with an attachment, and the remedy where there is a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flaw {
    detail: String,
    remedy: Option<String>,
}

impl Had {
    /// Learns what a link that is up has, and says what it had.
    fn look(&mut self, name: &str, link: &Link, addresses: &[IpNet]) -> Option<Flaw> {
        let mut lost: Vec<IpNet> = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut all = addresses.iter();
            match all.find(|net| Family::of(**net) == family) {
                // What it has now is what hosts are told.
                Some(now) => drop(self.addresses.insert(family, *now)),
                None => lost.extend(self.addresses.get(&family).copied()),
            }
        }
        if let Some(address) = lost.first() {
            return Some(Flaw {
                detail: format!(
                    "its address {address} is gone, and it has no other: hosts there do not find the router"
                ),
                remedy: Some(format!("`ip address add {address} dev {name}`")),
            });
        }
        self.arp |= !link.no_arp;
        (self.arp && link.no_arp).then(|| Flaw {
            detail: "its flag NOARP has been set: hosts there do not find the router".to_owned(),
            remedy: Some(format!("`ip link set {name} arp on`")),
        })
    }
}

impl Actor {
    /// What a tenant's packets cannot come in by is said: to them the router is down there.
    pub(super) fn note_attachments(&mut self) {
        let now = Instant::now();
        let mut had = std::mem::take(&mut self.had);
        had.retain(|name, _| self.attachments.contains_key(name));
        // There may be thousands: each is looked up.
        let links = self.links.values();
        let links: HashMap<&str, &Link> = links.map(|link| (link.name.as_str(), link)).collect();
        let addresses = self.addresses_by_link();
        let mut flaws: BTreeMap<&str, Flaw> = BTreeMap::new();
        for (name, up) in &self.attachments {
            let flaw = match links.get(name.as_str()) {
                None => Some(Flaw {
                    detail: "there is no such interface: its tenant's packets do not come in by it"
                        .to_owned(),
                    remedy: None,
                }),
                Some(_) if !up => Some(Flaw {
                    detail: "the interface is down: its tenant's packets do not come in by it"
                        .to_owned(),
                    remedy: Some(format!(
                        "`ip link set {name} up`, and look at what it is plugged into"
                    )),
                }),
                Some(link) => {
                    let had = had.entry(name.clone()).or_default();
                    let addresses = addresses.get(&link.index);
                    let lost = had.look(name, link, addresses.map_or(&[], Vec::as_slice));
                    self.port_of(link).or(lost)
                }
            };
            flaws.extend(flaw.map(|flaw| (name.as_str(), flaw)));
        }
        let kind = ConditionKind::Attachment;
        let whose = match flaws.is_empty() {
            true => HashMap::new(),
            false => self.tenants_by_attachment(),
        };
        for (name, Flaw { detail, remedy }) in &flaws {
            self.conditions.set(
                now,
                (kind, name),
                Severity::Degraded,
                detail.as_str(),
                remedy.clone(),
            );
            let whose = whose.get(*name).cloned().unwrap_or_default();
            self.conditions.narrow(kind, name, whose);
        }
        self.conditions
            .retain(now, kind, |name| flaws.contains_key(name));
        self.had = had;
    }

    /// It has been made a port of something that takes all that comes in by it: a bridge, a bond. A VRF leaves it what it is.
    fn port_of(&self, link: &Link) -> Option<Flaw> {
        let master = self.links.get(&link.master?)?;
        (!master.vrf).then(|| Flaw {
            detail: format!(
                "it has been made a port of {}, which has what comes in by it: the tenant's packets do not",
                master.name
            ),
            remedy: Some(format!(
                "`ip link set {} nomaster`, or make {} the tenant's interface",
                link.name, master.name
            )),
        })
    }

    /// The addresses of links that others than those on it may have heard of.
    fn addresses_by_link(&self) -> HashMap<u32, Vec<IpNet>> {
        let mut by_link: HashMap<u32, Vec<IpNet>> = HashMap::new();
        for one in &self.addresses {
            let link_local = match one.address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            let net = IpNet::new(one.address, one.network.prefix_len());
            if let Ok(net) = net
                && !link_local
            {
                by_link.entry(one.link).or_default().push(net);
            }
        }
        by_link
    }

    /// The names of the tenants that an interface is an attachment of, or leads to a service node of.
    fn tenants_by_attachment(&self) -> HashMap<String, Vec<String>> {
        let mut whose: HashMap<String, Vec<String>> = HashMap::new();
        for tenant in self.tenants.values() {
            let intent = &tenant.intent;
            for name in intent.attachments.iter().chain(arms(intent)) {
                let names = whose.entry(name.clone()).or_default();
                names.push(intent.name.clone());
            }
        }
        whose
    }

    /// Has the kernel tell hosts when a device that has come gets another MAC address, as far as it can.
    pub(super) fn announce_changes(&self, name: &str) {
        for sysctl in host::attachment_sysctls(name) {
            if sysctl.read().is_some_and(|found| found.trim() == "0") {
                // Hosts ask again in a while, all the same.
                let _ = sysctl.write();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(no_arp: bool) -> Link {
        Link {
            index: 7,
            name: "red0".to_owned(),
            alias: None,
            up: true,
            admin: true,
            no_arp,
            mac: Some([2, 0, 0, 0, 0, 7]),
            tunnel: None,
            mtu: 1500,
            master: None,
            vrf: false,
        }
    }

    #[test]
    fn what_an_attachment_had_is_missed_and_what_it_never_had_is_not() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let (four, six) = (net("10.0.1.1/24"), net("2001:db8::1/64"));
        let mut had = Had::default();
        let mut look = |no_arp, addresses: &[IpNet]| {
            let flaw = had.look("red0", &link(no_arp), addresses);
            flaw.map(|flaw| flaw.remedy.unwrap())
        };
        // A device without any of it.
        assert_eq!(look(true, &[]), None);
        assert_eq!(look(true, &[four]), None);
        let lost = look(true, &[]);
        assert_eq!(
            lost.as_deref(),
            Some("`ip address add 10.0.1.1/24 dev red0`")
        );
        // Another one is as good, and the former is missed no more.
        let other = net("10.0.9.1/24");
        assert_eq!(look(true, &[other, six]), None);
        let lost = look(true, &[other]);
        assert_eq!(
            lost.as_deref(),
            Some("`ip address add 2001:db8::1/64 dev red0`")
        );
        let lost = look(true, &[six]);
        assert_eq!(
            lost.as_deref(),
            Some("`ip address add 10.0.9.1/24 dev red0`")
        );
        assert_eq!(look(false, &[other, six]), None);
        let lost = look(true, &[other, six]);
        assert_eq!(lost.as_deref(), Some("`ip link set red0 arp on`"));
        assert_eq!(look(false, &[other, six]), None);
    }
}
