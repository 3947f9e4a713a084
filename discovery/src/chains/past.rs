//! Chains that a tenant has had. Routers may have them which have not heard of a change yet; only how they differ from the next later
//! ones is kept, so that a change of one of many chains costs what that chain costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_overlay::chain as planned;

use super::plan;
use super::records::{Chain, PastChains, PastDifference, Service};
use crate::database::Transaction;
use crate::model::{Record, State, key};
use crate::operations::Done;

/// A tenant's services and chains, as routers plan by them.
pub(super) type Plan = (Vec<planned::Service>, Vec<planned::Chain>);

/// A tenant's chains at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The labels of the services in its chains, by name.
    pub(super) services: BTreeMap<String, u32>,
    /// The chains, by name.
    pub(super) chains: BTreeMap<String, Arc<Chain>>,
}

impl Snapshot {
    /// Of these services, the ones that are in these chains.
    pub(super) fn new<'a>(
        services: impl IntoIterator<Item = &'a Service>,
        chains: impl IntoIterator<Item = &'a Chain>,
    ) -> Self {
        let chains = chains.into_iter();
        let chains: BTreeMap<String, Arc<Chain>> = chains
            .map(|chain| (chain.name.clone(), Arc::new(chain.clone())))
            .collect();
        let services = services.into_iter();
        let mut services: BTreeMap<String, u32> = services
            .map(|service| (service.name.clone(), service.label))
            .collect();
        let used: std::collections::BTreeSet<&String> =
            chains.values().flat_map(|chain| &chain.services).collect();
        services.retain(|name, _| used.contains(name));
        Self { services, chains }
    }

    /// What a tenant has at a revision.
    pub(super) fn at(state: &State, tenant: &str) -> Self {
        let (services, chains) = (key::service(tenant, ""), key::chain(tenant, ""));
        let services = state
            .below(&services)
            .filter_map(|(_, one)| match &one.record {
                Record::Service(service) => Some(service),
                _ => None,
            });
        let chains = state
            .below(&chains)
            .filter_map(|(_, one)| match &one.record {
                Record::Chain(chain) => Some(chain),
                _ => None,
            });
        Self::new(services, chains)
    }

    /// What came before this, by how it differed.
    fn before(&self, difference: &PastDifference) -> Self {
        let mut earlier = self.clone();
        for (name, label) in &difference.services {
            match label {
                Some(label) => drop(earlier.services.insert(name.clone(), *label)),
                None => drop(earlier.services.remove(name)),
            }
        }
        for (name, chain) in &difference.chains {
            match chain {
                Some(chain) => drop(earlier.chains.insert(name.clone(), chain.clone())),
                None => drop(earlier.chains.remove(name)),
            }
        }
        earlier
    }

    /// How this differs from what came next.
    fn difference(&self, later: &Self, tenant: &str, number: u32) -> PastDifference {
        PastDifference {
            tenant: tenant.to_owned(),
            number,
            services: differing(&self.services, &later.services),
            chains: differing(&self.chains, &later.chains),
        }
    }

    /// How routers plan by this.
    pub(super) fn plan(&self) -> Done<Plan> {
        let named = self.services.iter();
        let services: Vec<Service> = named
            .map(|(name, label)| Service::named(name, *label))
            .collect();
        let mut chains: Vec<&Chain> = self.chains.values().map(Arc::as_ref).collect();
        chains.sort_by_key(|chain| chain.priority);
        let chains = plan::planned_chains(&services, chains)?;
        Ok((plan::planned_services(&services, None), chains))
    }
}

/// Items of a map that another one lacks or has otherwise, and `None` for those that it has besides.
fn differing<T: Clone + PartialEq>(
    map: &BTreeMap<String, T>,
    other: &BTreeMap<String, T>,
) -> BTreeMap<String, Option<T>> {
    let changed = map
        .iter()
        .filter(|(name, item)| other.get(*name) != Some(*item));
    let changed = changed.map(|(name, item)| (name.clone(), Some(item.clone())));
    let added = other.keys().filter(|name| !map.contains_key(*name));
    changed
        .chain(added.map(|name| (name.clone(), None)))
        .collect()
}

/// Snapshots, the oldest first, each with its number.
pub(super) type Past = Vec<(u32, Snapshot)>;

/// What a tenant had before `now`, which is what it has at the revision behind the transaction.
pub(super) fn read(transaction: &Transaction<'_>, tenant: &str, now: &Snapshot) -> Past {
    let mut later = now.clone();
    let records = transaction.below(&key::past_differences(tenant));
    let differences = records.into_iter().rev().filter_map(|record| match record {
        Record::PastDifference(one) => Some(one),
        _ => None,
    });
    let mut past: Past = differences
        .map(|difference| {
            later = later.before(&difference);
            (difference.number, later.clone())
        })
        .collect();
    past.reverse();
    past
}

/// Keeps these in the place of those that were kept; `now` is what the tenant has with the transaction.
pub(super) fn write(transaction: &mut Transaction<'_>, tenant: &str, past: &Past, now: &Snapshot) {
    forget(transaction, tenant);
    let mut later = now;
    for (number, snapshot) in past.iter().rev() {
        let difference = snapshot.difference(later, tenant, *number);
        transaction.put(Record::PastDifference(difference));
        later = snapshot;
    }
}

/// Keeps none.
pub(super) fn forget(transaction: &mut Transaction<'_>, tenant: &str) {
    for record in transaction.below(&key::past_differences(tenant)) {
        transaction.delete(&record.key());
    }
}

/// Tenants whose past is kept as earlier versions did.
pub(crate) fn outdated(state: &State) -> Vec<String> {
    let records = state.below("past-chains/");
    let tenants = records.filter_map(|(key, _)| key.strip_prefix("past-chains/"));
    tenants.map(str::to_owned).collect()
}

/// Keeps the past of a tenant as this version does.
pub(crate) fn convert(transaction: &mut Transaction<'_>, tenant: &str) -> Done<()> {
    let former = key::past_chains(tenant);
    if let Some(Record::PastChains(PastChains { past, .. })) = transaction.get(&former).cloned() {
        let snapshots = past.into_iter().map(|one| Snapshot {
            services: one.services,
            chains: one
                .chains
                .into_iter()
                .map(|chain| (chain.name.clone(), chain))
                .collect(),
        });
        let past: Past = (1..).zip(snapshots).collect();
        let now = Snapshot::at(transaction.state(), tenant);
        write(transaction, tenant, &past, &now);
        transaction.delete(&former);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

    use super::*;
    use crate::tests::growth::Domain;

    fn domain(chains: u16) -> Domain {
        let mut domain = Domain::new();
        domain.tenant("red").unwrap();
        for service in ["fw", "ids"] {
            domain.service("red", service, None).unwrap();
        }
        for chain in 0..chains {
            domain
                .chain("red", &format!("c{chain}"), 1 + chain, &["fw"])
                .unwrap();
        }
        domain
    }

    fn past(domain: &Domain) -> Vec<Snapshot> {
        let transaction = Transaction::new(&domain.state);
        let now = Snapshot::at(&domain.state, "red");
        let past = read(&transaction, "red", &now);
        past.into_iter().map(|(_, snapshot)| snapshot).collect()
    }

    /// However chains change, those of the latest changes are known whole.
    #[test]
    fn the_past_is_what_it_was() {
        let mut domain = domain(3);
        let mut was: Vec<Snapshot> = past(&domain);
        for change in 0..100u16 {
            let now = Snapshot::at(&domain.state, "red");
            // Made, changed, led through others, taken back; and what was before comes again.
            match change % 7 {
                3 => domain.chain("red", "new", 9, &["fw", "ids"]),
                5 => domain.change(|transaction| {
                    super::super::operations::delete_chain(transaction, "red", "new")
                }),
                6 => domain.chain("red", "c0", 1, &["fw"]),
                _ => domain.chain("red", &format!("c{}", change % 3), 100 + change, &["fw"]),
            }
            .unwrap();
            if !was.contains(&now) {
                was.push(now);
            }
            let excess = was.len().saturating_sub(32);
            was.drain(..excess);
            assert_eq!(past(&domain), was, "after {change}");
        }
    }

    /// A change of one of many chains keeps as much as a change of one of few.
    #[test]
    fn a_change_keeps_what_changed() {
        let kept = |chains: u16| {
            let mut domain = domain(chains);
            let mut most = 0;
            for change in 0..50 {
                let revision = domain.chain("red", "c1", 1000 + change, &["fw"]).unwrap();
                most = most.max(serde_json::to_vec(&revision).unwrap().len());
            }
            most
        };
        let (few, many) = (kept(5), kept(100));
        assert!(many <= few + few / 10, "{few} octets, then {many}");
    }

    /// What an earlier version kept in one record is the same past.
    #[test]
    fn the_past_of_an_earlier_version_is_kept() {
        let mut domain = domain(3);
        for change in 0..5 {
            domain.chain("red", "c1", 1000 + change, &["fw"]).unwrap();
        }
        let before = past(&domain);
        let former = before.iter().map(|one| super::super::records::Past {
            services: one.services.clone(),
            chains: one.chains.values().cloned().collect(),
        });
        let former = PastChains {
            tenant: "red".into(),
            past: former.collect(),
        };
        domain
            .change(|transaction| {
                forget(transaction, "red");
                transaction.put(Record::PastChains(former));
                Ok(())
            })
            .unwrap();
        assert!(past(&domain).is_empty());
        assert_eq!(outdated(&domain.state), ["red"]);
        domain
            .change(|transaction| convert(transaction, "red"))
            .unwrap();
        assert_eq!(past(&domain), before);
        assert!(outdated(&domain.state).is_empty());
    }
}
