//! The labels of services: who gives them, and when other ones are given.
//!
//! Routers are told of a change one after the other, and one that is cut off from its controller is told late. Where a packet that
//! some of them lead by older chains and some by the newest ones would miss a service of both, services get other labels together
//! with the change ([`renew`]): a router with older chains does not know those, and drops what comes with them.

use std::collections::{BTreeMap, BTreeSet};

use weft_overlay::Vni;
use weft_overlay::chain::relabel;

use super::operations::NewService;
use super::past::{self, Plan, Snapshot};
use super::plan;
use super::records::Service;
use crate::database::{Rejection, Transaction};
use crate::exchange::peers::mistaken;
use crate::model::{Domain, Record, VniUse, key, now};
use crate::operations::{Done, chosen_vni, domain_of, foreign_vni, free_vni, tenant_of};

/// Changes of a tenant's chains that a router may be late by: who is further behind is not thought of any more.
const KEPT: usize = 32;

/// A label for a service that is not there yet. `operator` says that an operator asks, and not an administrator of the tenant.
pub(super) fn given(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    name: &str,
    new: &NewService,
    operator: bool,
) -> Done<u32> {
    let domain = domain_of(transaction)?;
    let there = new.home_name.as_deref().unwrap_or(name);
    let label = match (new.label, &new.home) {
        (None, None) => {
            return fresh(transaction, &domain, tenant, name);
        }
        (Some(label), None) => {
            if !operator && !(domain.first_vni..=domain.last_vni).contains(&label) {
                return Err(Rejection::Forbidden(format!(
                    "label {label} is not of this domain's VNIs ({}-{}): it takes an operator's token to give it",
                    domain.first_vni, domain.last_vni
                )));
            }
            let label = chosen_vni(transaction, "label", label)?;
            take(transaction, label, tenant, name);
            return Ok(label);
        }
        (Some(label), Some(home)) if *home != domain.name => {
            check_said(transaction, (tenant, home, there), label, operator)?;
            label
        }
        (None, Some(home)) if *home != domain.name => {
            offered(transaction, tenant, home, there)?.ok_or_else(|| not_offered(home, there))?
        }
        _ => {
            return Err(Rejection::Invalid(
                "`home` is another domain that gave the label: a label of this one has none".into(),
            ));
        }
    };
    let home = new.home.as_deref().unwrap_or_default();
    let owner = tenant_of(transaction, tenant)?.vni;
    foreign_vni(transaction, &domain, home, label, Some(owner))
}

fn not_offered(home: &str, there: &str) -> Rejection {
    Rejection::Conflict(format!(
        "domain `{home}` offers no service `{there}` to this tenant: it is to share the tenant with this domain (weft domain share) and to \
         have the service"
    ))
}

/// A label that is entered is the one that `home` says the tenant's service has `there`; where nobody says that, since `home` is not
/// trusted, it may be anybody's, and an operator answers for it.
fn check_said(
    transaction: &Transaction<'_>,
    (tenant, home, there): (&str, &str, &str),
    label: u32,
    operator: bool,
) -> Done<()> {
    if transaction.get(&key::trust(home)).is_none() {
        return match operator {
            true => Ok(()),
            false => Err(Rejection::Forbidden(format!(
                "domain `{home}` is not trusted here, so nobody says that label {label} is this service's: it takes an operator's token to \
                 give it"
            ))),
        };
    }
    match offered(transaction, tenant, home, there)? {
        Some(said) if said == label => Ok(()),
        Some(said) => Err(Rejection::Conflict(format!(
            "domain `{home}` says that its service `{there}` has label {said}, not {label}: leave the label out"
        ))),
        None => Err(not_offered(home, there)),
    }
}

/// The next label of this domain.
fn fresh(
    transaction: &mut Transaction<'_>,
    domain: &Domain,
    tenant: &str,
    name: &str,
) -> Done<u32> {
    let vni = free_vni(transaction, domain)?;
    take(transaction, vni, tenant, name);
    Ok(vni)
}

/// A label of this domain is this service's.
fn take(transaction: &mut Transaction<'_>, vni: u32, tenant: &str, name: &str) {
    transaction.put(Record::Vni(VniUse {
        vni,
        tenant: Some(tenant.to_owned()),
        service: Some(name.to_owned()),
        free_at: 0,
        last: None,
    }));
}

/// A label of this domain rests before it is given again; a service of that tenant had it.
pub(super) fn rest(
    transaction: &mut Transaction<'_>,
    domain: &Domain,
    label: u32,
    tenant: Option<&str>,
) {
    transaction.put(Record::Vni(VniUse {
        vni: label,
        tenant: None,
        service: None,
        free_at: now() + u64::from(domain.quarantine) * 1000,
        last: tenant.map(str::to_owned),
    }));
}

/// The label that another domain says a service of its own has.
fn offered(
    transaction: &Transaction<'_>,
    tenant: &str,
    home: &str,
    there: &str,
) -> Done<Option<u32>> {
    let (state, tenant) = (transaction.state(), tenant_of(transaction, tenant)?);
    // Those of another tenant that has the VNI there now are not this one's.
    if mistaken(state, &tenant).is_some() {
        return Ok(None);
    }
    let key = key::remote_service(home, tenant.vni, there);
    let offered = state.remote_service(&key);
    Ok(offered.map(|service| service.label))
}

/// The label that a service is to have which is there: another domain's has the one that is asked for.
pub(super) fn kept(
    transaction: &Transaction<'_>,
    service: &Service,
    new: &NewService,
    operator: bool,
) -> Done<u32> {
    let Some(label) = new.label.filter(|one| *one != service.label) else {
        return Ok(service.label);
    };
    match &service.home {
        Some(home) => {
            let there = new.home_name.as_ref().or(service.home_name.as_ref());
            let there = there.unwrap_or(&service.name);
            check_said(transaction, (&service.tenant, home, there), label, operator)?;
            let owner = tenant_of(transaction, &service.tenant)?.vni;
            foreign_vni(
                transaction,
                &domain_of(transaction)?,
                home,
                label,
                Some(owner),
            )
        }
        None => Err(Rejection::Invalid(format!(
            "the label of `{}` is {}, and stays so: another one is another service",
            service.name, service.label
        ))),
    }
}

/// Takes the labels over that other domains say their services have now. That is for when a chain is put: what has changed there
/// may be the order of their services, and with it their labels.
pub(super) fn take_over(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    names: &[String],
) -> Done<()> {
    for name in names {
        let Some(Record::Service(service)) = transaction.get(&key::service(tenant, name)) else {
            continue;
        };
        let mut service = service.clone();
        let Some(home) = service.home.clone() else {
            continue;
        };
        let there = service.home_name.as_deref().unwrap_or(name);
        let now = offered(transaction, tenant, &home, there)?;
        if let Some(label) = now.filter(|label| *label != service.label) {
            let (domain, owner) = (domain_of(transaction)?, tenant_of(transaction, tenant)?.vni);
            service.label = foreign_vni(transaction, &domain, &home, label, Some(owner))?;
            transaction.put(Record::Service(service));
        }
    }
    Ok(())
}

/// Gives services other labels where routers that have not heard of the change yet would lead packets past one.
///
/// # Errors
/// Where that is a service of another domain, or there is no label.
pub(super) fn renew(transaction: &mut Transaction<'_>, tenant: &str) -> Done<()> {
    let before = Snapshot::at(transaction.state(), tenant);
    let mut past = past::read(transaction, tenant, &before);
    let next = past.last().map_or(1, |(number, _)| number + 1);
    let mut planned = past
        .iter()
        .map(|(_, one)| one.plan())
        .collect::<Done<Vec<Plan>>>()?;
    let plan = before.plan()?;
    if !before.chains.is_empty() && !planned.contains(&plan) {
        past.push((next, before));
        planned.push(plan);
    }
    let excess = past.len().saturating_sub(KEPT);
    past.drain(..excess);
    planned.drain(..excess);
    let services = loop {
        let services = plan::services(transaction, tenant);
        let chains = plan::planned_chains(&services, &plan::chains(transaction, tenant))?;
        let planned_services = plan::planned_services(&services, None);
        let new = (planned_services.as_slice(), chains.as_slice());
        let others = planned
            .iter()
            .map(|(services, chains)| relabel((services, chains), new));
        let labels: BTreeSet<Vni> = others.flatten().collect();
        if labels.is_empty() {
            break services;
        }
        let domain = domain_of(transaction)?;
        for mut service in services.into_iter().filter(|one| has(&labels, one.label)) {
            if let Some(home) = &service.home {
                return Err(Rejection::Conflict(format!(
                    "routers that hear of the change one after the other would lead packets past services: `{}` would need another label, \
                     and that is for its domain `{home}` to give: make the change there first, or delete the service there and put it again",
                    service.name
                )));
            }
            rest(transaction, &domain, service.label, Some(tenant));
            service.label = fresh(transaction, &domain, tenant, &service.name)?;
            transaction.put(Record::Service(service));
        }
    };
    // What has no label any more that is used now concerns nobody.
    let now: BTreeSet<u32> = services.iter().map(|one| one.label).collect();
    past.retain(|(_, one)| one.services.values().any(|label| now.contains(label)));
    let now = Snapshot::new(&services, &plan::chains(transaction, tenant));
    past::write(transaction, tenant, &past, &now);
    Ok(())
}

/// Chains of the past are there again. Labels that have been given up stay so, as far as their services have others: routers may have
/// them in an order that is known no more.
pub(crate) fn rolled_back(transaction: &mut Transaction<'_>) -> Done<()> {
    let changed = |transaction: &Transaction<'_>, prefix: &str| -> Vec<String> {
        let keys = transaction.changed_below(prefix);
        keys.map(str::to_owned).collect()
    };
    let state = transaction.state();
    let mut numbers: BTreeMap<u32, Record> = BTreeMap::new();
    for key in changed(transaction, "service/") {
        let Some(service) = state.service(&key).filter(|one| one.home.is_none()) else {
            continue;
        };
        let Some(Record::Service(restored)) = transaction.get(&key) else {
            continue;
        };
        if restored.label == service.label {
            continue;
        }
        let label = restored.label;
        let restored = Service {
            label: service.label,
            ..restored.clone()
        };
        transaction.put(Record::Service(restored));
        for label in [label, service.label] {
            if let Some(one) = state.get(&key::vni(label)) {
                numbers.insert(label, one.record.clone());
            }
        }
    }
    for record in numbers.into_values() {
        transaction.put(record);
    }
    // Numbers that were given since rest.
    let domain = domain_of(transaction)?;
    for key in changed(transaction, "vni/") {
        let Some(one) = state.get(&key) else { continue };
        let free = match transaction.get(&key) {
            Some(Record::Vni(one)) => one.tenant.is_none(),
            _ => true,
        };
        match &one.record {
            Record::Vni(one) if free && one.tenant.is_some() => {
                let last = one.tenant.as_deref().filter(|_| one.service.is_some());
                rest(transaction, &domain, one.vni, last);
            }
            resting if free => transaction.put(resting.clone()),
            _ => {}
        }
    }
    let chains = [
        changed(transaction, "chain/"),
        changed(transaction, "service/"),
    ];
    let tenants = chains
        .iter()
        .flatten()
        .filter_map(|key| key.split('/').nth(1));
    for tenant in tenants.collect::<BTreeSet<&str>>() {
        match transaction.get(&key::tenant(tenant)) {
            Some(_) => renew(transaction, tenant)?,
            None => past::forget(transaction, tenant),
        }
    }
    Ok(())
}

fn has(labels: &BTreeSet<Vni>, label: u32) -> bool {
    Vni::new(label).is_ok_and(|label| labels.contains(&label))
}
