//! Which interfaces no tenant can have: those that the router itself lives by. As a tenant's they would lead everything that comes
//! in by them into its table, and cut the router off from its neighbours, its far ends and its controller.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use weft_overlay::words;

use super::{Actor, Purpose};
use crate::condition::{ConditionKind, Severity};

/// Interfaces by name, and what the router has there.
pub(super) type Unfit = BTreeMap<String, String>;

/// Why an interface is no tenant's; `None` where it may be.
pub(super) fn refusal(name: &str, unfit: &Unfit) -> Option<String> {
    match words::interface(name) {
        Err(expected) => Some(format!("it is not {expected}")),
        Ok(()) => unfit.get(name).cloned(),
    }
}

impl Actor {
    /// Where the router's own endpoint is, and neighbours whose sessions live by the link.
    fn unfit_links(&self) -> Unfit {
        let mut unfit = Unfit::new();
        let mut add = |index: u32, reason: String| {
            if let Some(link) = self.links.get(&index) {
                unfit.entry(link.name.clone()).or_insert(reason);
            }
        };
        let endpoint = self.config.endpoint;
        for held in &self.addresses {
            if Some(held.address) == endpoint {
                add(
                    held.link,
                    format!("the tunnel endpoint {} is there", held.address),
                );
            }
        }
        let first = (Purpose::Neighbor, IpAddr::from([0; 4]));
        let neighbours = self.tracked.range(first..);
        let neighbours = neighbours.take_while(|((purpose, _), _)| *purpose == Purpose::Neighbor);
        for ((_, address), tracked) in neighbours {
            for link in &tracked.links {
                add(*link, format!("the neighbour {address} is there"));
            }
        }
        // What leads to others it lives by is no tenant's either, unless it was one's before: its host may have drawn the way there.
        let first = (Purpose::Lifeline, IpAddr::from([0; 4]));
        let lifelines = self.tracked.range(first..);
        let lifelines = lifelines.take_while(|((purpose, _), _)| *purpose == Purpose::Lifeline);
        for ((_, address), tracked) in lifelines {
            for link in &tracked.links {
                let name = self.links.get(link).map(|link| link.name.as_str());
                if !name.is_some_and(|name| self.former.was_a_tenants(name)) {
                    add(
                        *link,
                        format!("{address}, which the router lives by, is reached there"),
                    );
                }
            }
        }
        for name in &self.config.uplinks {
            unfit
                .entry(name.clone())
                .or_insert_with(|| "`overlay.uplinks` names it".into());
        }
        unfit
    }

    /// A neighbour's link is no tenant's from now on, or may be one's again.
    pub(super) fn attach_anew(&mut self, tracked: Purpose) {
        if matches!(tracked, Purpose::Neighbor | Purpose::Lifeline)
            && self.unfit_links() != self.unfit
        {
            self.attach();
        }
    }

    /// Takes from tenants what no tenant can have, and gives back what one can have again.
    pub(super) fn screen_attachments(&mut self) {
        let unfit = self.unfit_links();
        let mut refused: BTreeMap<String, (String, String)> = BTreeMap::new();
        for tenant in self.tenants.values_mut() {
            let mut fit = Vec::with_capacity(tenant.told.len());
            for name in &tenant.told {
                match refusal(name, &unfit) {
                    None => fit.push(name.clone()),
                    Some(reason) => {
                        let detail = format!(
                            "the interface is not given to the tenant {}: {reason}",
                            tenant.intent.name
                        );
                        refused.insert(name.clone(), (tenant.intent.name.clone(), detail));
                    }
                }
            }
            if fit != tenant.intent.attachments {
                tenant.intent.attachments = fit;
                self.policy_changed = true;
            }
        }
        let now = Instant::now();
        for (name, (whose, detail)) in &refused {
            self.conditions.set(
                now,
                (ConditionKind::AttachmentRefused, name),
                Severity::Degraded,
                detail.as_str(),
                Some("name another interface for the tenant".into()),
            );
            let whose = vec![whose.clone()];
            self.conditions
                .narrow(ConditionKind::AttachmentRefused, name, whose);
        }
        self.conditions
            .retain(now, ConditionKind::AttachmentRefused, |name| {
                refused.contains_key(name)
            });
        self.said.reserved.send_if_modified(|held| {
            let differs = *held != unfit;
            if differs {
                held.clone_from(&unfit);
            }
            differs
        });
        self.unfit = unfit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_router_lives_by_is_no_tenants() {
        let wan = (
            "wan".to_owned(),
            "the neighbour 198.51.100.2 is there".to_owned(),
        );
        let unfit: Unfit = [wan].into();
        for name in ["wan", "lo", "vx0", "a\"b"] {
            assert!(refusal(name, &unfit).is_some(), "{name}");
        }
        assert_eq!(refusal("red0", &unfit), None);
        assert!(refusal("wan", &unfit).is_some_and(|why| why.contains("198.51.100.2")));
    }
}
