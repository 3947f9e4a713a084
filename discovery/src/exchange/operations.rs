//! The decisions of an operator over other domains, and taking in what those say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::introduction::Introduction;
use super::public::Said;
use super::records::{Pair, Remote, RemoteRouter, Share, Trust};
use crate::database::{Rejection, Transaction};
use crate::model::{Record, RemoteTenant, State, Tenant, key, now};
use crate::operations::{check_name, domain_of, missing, router_of, tenant_of};
use crate::state::{as_edge, as_router, by};

type Done<T> = Result<T, Rejection>;

/// Whom an operator trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrust {
    /// What `weft domain introduction` prints there: `weft://DOMAIN@HOST:PORT/FINGERPRINT`.
    pub introduction: String,
    /// Hops between the edges of both, 1 where they are on one link.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Which edges speak with which; every one with every one where there are none.
    #[serde(default)]
    pub pairs: Option<Vec<Pair>>,
}

/// What may change of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustChange {
    /// Where its controllers are now, by its introduction; as it was where absent.
    #[serde(default)]
    pub introduction: Option<String>,
    /// Hops between the edges of both; as it was where absent.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Which edges speak with which; as it was where absent.
    #[serde(default)]
    pub pairs: Option<Vec<Pair>>,
}

fn trust_of(transaction: &Transaction<'_>, name: &str) -> Done<Trust> {
    match transaction.get(&key::trust(name)) {
        Some(Record::Trust(trust)) => Ok(trust.clone()),
        _ => Err(missing("other domain", name)),
    }
}

fn remote_of(transaction: &Transaction<'_>, name: &str) -> Option<Remote> {
    match transaction.get(&key::remote(name)) {
        Some(Record::Remote(remote)) => Some(remote.clone()),
        _ => None,
    }
}

fn read(introduction: &str) -> Done<Introduction> {
    let read = introduction.parse();
    read.map_err(|error: crate::pki::PkiError| Rejection::Invalid(error.to_string()))
}

fn check(transaction: &Transaction<'_>, trust: &Trust) -> Done<()> {
    if trust.ttl == 0 {
        return Err(Rejection::Invalid("a TTL is 1 to 255".into()));
    }
    for pair in &trust.pairs {
        router_of(transaction, &pair.edge)?;
        check_name(&pair.peer)?;
    }
    Ok(())
}

/// Trusts another domain: with the same decision there, both tell each other what is public.
///
/// # Errors
/// Where it is trusted already, or is this one.
pub fn trust(transaction: &mut Transaction<'_>, new: &NewTrust) -> Done<Trust> {
    let introduction = read(&new.introduction)?;
    let domain = domain_of(transaction)?;
    if introduction.domain == domain.name {
        return Err(Rejection::Invalid(format!(
            "`{}` is this domain: it takes the introduction of another one",
            domain.name
        )));
    }
    for other in transaction.state().trusts() {
        if other.name == introduction.domain || other.fingerprint == introduction.fingerprint {
            return Err(Rejection::Conflict(format!(
                "domain `{}` is trusted already",
                other.name
            )));
        }
    }
    let trust = Trust {
        name: introduction.domain,
        controllers: introduction.controllers,
        fingerprint: introduction.fingerprint,
        ttl: new.ttl.unwrap_or(1),
        pairs: new.pairs.clone().unwrap_or_default(),
    };
    check(transaction, &trust)?;
    transaction.put(Record::Trust(trust.clone()));
    Ok(trust)
}

/// Changes where a trusted domain is, or which edges speak with its.
///
/// # Errors
/// Where there is none, or it would be another one.
pub fn change_trust(
    transaction: &mut Transaction<'_>,
    name: &str,
    change: &TrustChange,
) -> Done<Trust> {
    let mut trust = trust_of(transaction, name)?;
    if let Some(introduction) = &change.introduction {
        let introduction = read(introduction)?;
        if introduction.domain != name || introduction.fingerprint != trust.fingerprint {
            return Err(Rejection::Conflict(format!(
                "this introduces another domain than the `{name}` that is trusted: to trust that one instead, remove `{name}` first"
            )));
        }
        trust.controllers = introduction.controllers;
    }
    trust.ttl = change.ttl.unwrap_or(trust.ttl);
    if let Some(pairs) = &change.pairs {
        trust.pairs.clone_from(pairs);
    }
    check(transaction, &trust)?;
    transaction.put(Record::Trust(trust.clone()));
    Ok(trust)
}

/// Trusts a domain no more: what it said and what is shared with it go, and so do the sessions with its edges.
///
/// # Errors
/// Where it is not trusted.
pub fn distrust(transaction: &mut Transaction<'_>, name: &str) -> Done<()> {
    trust_of(transaction, name)?;
    let state = transaction.state();
    for prefix in [
        key::share(name, ""),
        key::remote_router(name, ""),
        key::remote_tenant(name, ""),
        key::remote_services(name),
        key::remote_origins(name),
    ] {
        for (key, _) in state.below(&prefix) {
            transaction.delete(key);
        }
    }
    transaction.delete(&key::remote(name));
    transaction.delete(&key::trust(name));
    Ok(())
}

/// Lets another domain know of a tenant.
///
/// # Errors
/// Where there is no such tenant, or the domain is not trusted.
pub fn share(transaction: &mut Transaction<'_>, domain: &str, tenant: &str) -> Done<Share> {
    trust_of(transaction, domain)?;
    tenant_of(transaction, tenant)?;
    let share = Share {
        domain: domain.to_owned(),
        tenant: tenant.to_owned(),
    };
    transaction.put(Record::Share(share.clone()));
    Ok(share)
}

/// Lets it know of that no more.
///
/// # Errors
/// Where it does not.
pub fn unshare(transaction: &mut Transaction<'_>, domain: &str, tenant: &str) -> Done<()> {
    let key = key::share(domain, tenant);
    if transaction.get(&key).is_none() {
        return Err(Rejection::NotFound(format!(
            "tenant `{tenant}` is not shared with domain `{domain}`"
        )));
    }
    transaction.delete(&key);
    Ok(())
}

/// The first domain that a tenant is shared with.
pub fn shared_with<'a>(state: &'a State, tenant: &str) -> Option<&'a str> {
    state
        .by(&by::shared(tenant))
        .find_map(|one| match &one.record {
            Record::Share(share) => Some(share.domain.as_str()),
            _ => None,
        })
}

/// A tenant that `home` shares with this domain, by its name there.
///
/// # Errors
/// Where it does not share it.
pub fn offered(transaction: &Transaction<'_>, home: &str, tenant: &str) -> Done<RemoteTenant> {
    match transaction.get(&key::remote_tenant(home, tenant)) {
        Some(Record::RemoteTenant(offered)) => Ok(offered.clone()),
        _ if trust_of(transaction, home).is_err() => Err(Rejection::Invalid(format!(
            "domain `{home}` is not trusted here, so nothing is known of its tenants: trust it (weft domain add), or give the `vni` too"
        ))),
        _ => Err(not_shared(home, &format!("tenant `{tenant}`"))),
    }
}

fn not_shared(home: &str, what: &str) -> Rejection {
    Rejection::Conflict(format!(
        "domain `{home}` does not share {what} with this domain: its operator does that with `weft domain share`"
    ))
}

/// A VNI that an operator has entered: where `home` is trusted, it is one that `home` shares, and this is that tenant.
///
/// # Errors
/// Where it does not share it.
pub fn check_vni(
    transaction: &Transaction<'_>,
    home: &str,
    vni: u32,
) -> Done<Option<RemoteTenant>> {
    match offer(transaction.state(), home, vni) {
        Some(shared) => Ok(Some(shared.clone())),
        None if trust_of(transaction, home).is_err() => Ok(None),
        None => Err(not_shared(home, &format!("VNI {vni}"))),
    }
}

/// The tenant that a domain shares with this one by a VNI.
pub fn offer<'a>(state: &'a State, domain: &str, vni: u32) -> Option<&'a RemoteTenant> {
    state
        .by(&by::number(vni))
        .find_map(|one| match &one.record {
            Record::RemoteTenant(tenant) if tenant.domain == domain => Some(tenant),
            _ => None,
        })
}

/// What a follower has heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Who said it.
    pub domain: String,
    /// The authority that it came with.
    pub fingerprint: String,
    /// At which of its revisions.
    pub revision: u64,
    /// All that is public of it then.
    pub said: Said,
    /// The controller of ours that heard it.
    pub follower: String,
}

/// Takes in what another domain says of itself. It may be said twice, to two controllers: then nothing changes. Gives which addresses it
/// says to have that are others'.
///
/// # Errors
/// Where it is not trusted any more, or said something later already.
pub fn take_in(transaction: &mut Transaction<'_>, heard: &Heard) -> Done<Vec<String>> {
    let name = &heard.domain;
    let trusted = trust_of(transaction, name).is_ok_and(|one| one.fingerprint == heard.fingerprint);
    if !trusted {
        return Err(Rejection::Forbidden(format!(
            "domain `{name}` is trusted no more"
        )));
    }
    let before = remote_of(transaction, name);
    let mut remote = before
        .clone()
        .unwrap_or_else(|| heard.said.remote(name, heard.revision));
    if heard.revision < remote.revision {
        return Err(Rejection::Precondition(format!(
            "domain `{name}` answers at revision {}, and {} was heard already: that controller is behind the others, or the domain \
             was restored from a copy (then remove it here, and trust it again)",
            heard.revision, remote.revision
        )));
    }
    let (routers, clashes) = edges(transaction.state(), name, &heard.said.routers);
    let records = routers.into_iter().map(Record::RemoteRouter);
    let tenants = heard.said.tenants.iter().cloned().map(Record::RemoteTenant);
    let services = heard.said.services.iter().cloned();
    let services = services.map(Record::RemoteService);
    let origins = heard.said.origins.iter().cloned();
    let origins = origins.map(Record::RemoteOrigins);
    let records: Vec<Record> = records
        .chain(tenants)
        .chain(services)
        .chain(origins)
        .collect();
    let keys: BTreeSet<String> = records.iter().map(Record::key).collect();
    let mut changed = before
        .is_none_or(|one| one.asn != heard.said.asn || one.origins != heard.said.says_origins);
    for record in records {
        changed |= transaction.get(&record.key()) != Some(&record);
        transaction.put(record);
    }
    for prefix in [
        key::remote_router(name, ""),
        key::remote_tenant(name, ""),
        key::remote_services(name),
        key::remote_origins(name),
    ] {
        for (key, _) in transaction.state().below(&prefix) {
            if !keys.contains(key) {
                changed = true;
                transaction.delete(key);
            }
        }
    }
    pin(transaction, name, &heard.said);
    if remote.followers.insert(heard.follower.clone()) || changed {
        remote.asn = heard.said.asn;
        remote.origins = heard.said.says_origins;
        remote.revision = heard.revision;
        remote.heard = now();
    }
    transaction.put(Record::Remote(remote));
    Ok(clashes)
}

/// Edges as a domain says them, without those with an address that another domain's edge had before; and which addresses are not theirs.
fn edges(state: &State, domain: &str, said: &[RemoteRouter]) -> (Vec<RemoteRouter>, Vec<String>) {
    let (mut taken, mut clashes) = (Vec::new(), Vec::new());
    for edge in said {
        let address = edge.bgp_address;
        let entry = by::bgp_address(address);
        let has = || state.by(&entry);
        let router = has().find_map(as_router);
        let other = has().filter_map(as_edge).find(|one| one.domain != domain);
        let had = has().filter_map(as_edge).any(|one| one.domain == domain);
        let whose = match (router, other) {
            (Some(router), _) => format!("router `{}` of this domain has", router.name),
            (_, Some(other)) if had => {
                format!(
                    "edge `{}` of domain `{}` says to have too",
                    other.name, other.domain
                )
            }
            (_, Some(other)) => format!(
                "edge `{}` of domain `{}` had before",
                other.name, other.domain
            ),
            _ => String::new(),
        };
        if !whose.is_empty() {
            clashes.push(format!(
                "edge `{}` says to have the BGP address {address}, which {whose}: it is spoken with at one of the two",
                edge.name
            ));
        }
        if other.is_none() || had {
            taken.push(edge.clone());
        }
    }
    (taken, clashes)
}

/// A tenant of ours whose home has not said yet which of its tenants that is, since it was not trusted when the VNI was entered: it is
/// the one that has the VNI now, and no other one from now on.
fn pin(transaction: &mut Transaction<'_>, home: &str, said: &Said) {
    let state = transaction.state();
    let unknown = state.tenants().filter(|one| one.id.is_none());
    for tenant in unknown.filter(|one| one.home.as_deref() == Some(home)) {
        let told = said.tenants.iter().find(|one| one.vni == tenant.vni);
        if let Some(id) = told.and_then(|one| one.id.clone()) {
            transaction.put(Record::Tenant(Tenant {
                id: Some(id),
                ..tenant.clone()
            }));
        }
    }
}

/// Controllers of ours hear a domain no more, the last one at `heard`, ms since 1970. What it said stays.
///
/// # Errors
/// None.
pub fn lose(
    transaction: &mut Transaction<'_>,
    domain: &str,
    followers: &BTreeSet<String>,
    heard: u64,
) -> Done<()> {
    if let Some(mut remote) = remote_of(transaction, domain) {
        remote.followers.retain(|one| !followers.contains(one));
        remote.heard = remote.heard.max(heard);
        transaction.put(Record::Remote(remote));
    }
    Ok(())
}
