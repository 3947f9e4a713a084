//! How much a tenant may have: so much where nothing is said, or what an operator says. It holds for what the tenant's own administrators
//! ask for; an operator may go beyond it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chains::records::Match;
use crate::database::{Rejection, Transaction};
use crate::model::{Record, State, key, now};
use crate::operations::{Done, tenant_of};
use crate::state::by;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident $default:literal)*) => {
        /// What an operator says; what is absent is as for everybody.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct NewQuota {
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<u32>,)*
        }

        /// What a tenant may have.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Limits {
            /// What has to be said of a tenant for it to have these: what differs from what everybody may have.
            pub fn said(&self) -> NewQuota {
                NewQuota {
                    $($name: (self.$name != $default).then_some(self.$name),)*
                }
            }
        }

        impl From<&NewQuota> for Limits {
            fn from(new: &NewQuota) -> Self {
                Self { $($name: new.$name.unwrap_or($default),)* }
            }
        }
    };
}

limits! {
    /// Routers that it is attached to; 1000 where nothing is said.
    attachments 1000
    /// Interfaces at one of them; 64 where nothing is said.
    interfaces 64
    /// Prefixes that it announces at one of them; 1000 where nothing is said.
    prefixes 1000
    /// Its own routers at one of them; 32 where nothing is said.
    neighbors 32
    /// Services; 32 where nothing is said.
    services 32
    /// Routers with a node of one of them; 64 where nothing is said.
    nodes 64
    /// VNIs that its services have, and those that rest since they had them; 64 where nothing is said.
    vnis 64
    /// Chains; 500 where nothing is said.
    chains 500
    /// Networks and ports that one of them asks for; 64 where nothing is said.
    matches 64
}

/// What an operator says of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// The tenant's name.
    pub tenant: String,
    /// What it may have.
    pub limits: NewQuota,
}

/// What a tenant may have, and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// The tenant's name.
    pub tenant: String,
    /// What it may have.
    pub limits: Limits,
    /// What it has, of what is counted for the whole of it: `attachments`, `services`, `chains`, `vnis`.
    pub used: BTreeMap<String, u32>,
}

/// Says what a tenant may have.
///
/// # Errors
/// Where there is none.
pub fn put_quota(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    new: &NewQuota,
) -> Done<QuotaUse> {
    tenant_of(transaction, tenant)?;
    transaction.put(Record::Quota(Quota {
        tenant: tenant.to_owned(),
        limits: new.clone(),
    }));
    Ok(QuotaUse {
        limits: new.into(),
        ..quota(transaction.state(), tenant)
    })
}

/// It may have what everybody may.
///
/// # Errors
/// Where there is none, or nothing else was said of it.
pub fn delete_quota(transaction: &mut Transaction<'_>, tenant: &str) -> Done<()> {
    tenant_of(transaction, tenant)?;
    let key = key::quota(tenant);
    if transaction.get(&key).is_none() {
        return Err(Rejection::NotFound(format!(
            "nothing is said of what tenant `{tenant}` may have: it is what everybody may"
        )));
    }
    transaction.delete(&key);
    Ok(())
}

/// What a tenant may have, and has.
pub fn quota(state: &State, tenant: &str) -> QuotaUse {
    let said = state.quota(&key::quota(tenant));
    let counted = counted(tenant).map(|(name, family)| (name, state.tally(&family).count));
    let vnis = vnis(&Transaction::new(state), tenant);
    let used = counted.into_iter().chain([("vnis", vnis)]);
    QuotaUse {
        tenant: tenant.to_owned(),
        limits: Limits::from(&said.map(|one| one.limits.clone()).unwrap_or_default()),
        used: used
            .map(|(name, count)| (name.to_owned(), u32::try_from(count).unwrap_or(u32::MAX)))
            .collect(),
    }
}

/// What the keys of all that is counted for the whole of a tenant begin with.
fn counted(tenant: &str) -> [(&'static str, String); 3] {
    [
        ("attachments", key::attachment(tenant, "")),
        ("services", key::service(tenant, "")),
        ("chains", key::chain(tenant, "")),
    ]
}

/// VNIs that a tenant's services have, or had and nobody has since, with a transaction's own changes.
fn vnis(transaction: &Transaction<'_>, tenant: &str) -> usize {
    let (state, now) = (transaction.state(), now());
    let held = |record: Option<&Record>| match record {
        Some(Record::Vni(one)) if one.service.is_some() => one.tenant.as_deref() == Some(tenant),
        Some(Record::Vni(one)) => one.last.as_deref() == Some(tenant) && one.free_at > now,
        _ => false,
    };
    let services = state.tally(&key::service(tenant, "")).count;
    let foreign = state.all_below(key::service(tenant, ""));
    let foreign =
        foreign.filter(|one| matches!(&one.record, Record::Service(one) if one.home.is_some()));
    let resting = state.by_from(&by::rested(tenant), &format!("{now:020}"));
    let before = services - foreign.count() + resting.count();
    let changed = transaction.changed_below("vni/").map(|key| {
        let was = held(state.get(key).map(|one| &one.record));
        isize::from(held(transaction.get(key))) - isize::from(was)
    });
    before.saturating_add_signed(changed.sum())
}

/// A limit, what is there, and what was there before.
struct Count {
    field: &'static str,
    what: String,
    most: u32,
    before: usize,
    now: usize,
}

impl Count {
    /// What is no more than it was may stay: somebody may have lowered the limit.
    fn check(&self, tenant: &str) -> Done<()> {
        if self.now <= self.before || self.now <= self.most as usize {
            return Ok(());
        }
        Err(Rejection::Field {
            field: self.field.to_owned(),
            detail: format!(
                "{} has {} of {} that it may have: remove some, or ask an operator for more (PUT /api/v1/tenants/{tenant}/quota)",
                self.what, self.now, self.most
            ),
        })
    }
}

/// What a tenant has with a transaction is no more than it may have.
///
/// # Errors
/// [`Rejection::Field`]: of what it has too much, and what to do.
pub fn check(transaction: &Transaction<'_>, tenant: &str) -> Done<()> {
    let state = transaction.state();
    let limits = quota(state, tenant).limits;
    let most = [limits.attachments, limits.services, limits.chains];
    let mut counts = Vec::new();
    for ((field, family), most) in counted(tenant).into_iter().zip(most) {
        let before = state.tally(&family).count;
        let changed = transaction.changed_below(&family).map(|key| {
            let is = isize::from(transaction.get(key).is_some());
            is - isize::from(state.get(key).is_some())
        });
        counts.push(Count {
            field,
            what: format!("tenant `{tenant}`"),
            most,
            before,
            now: before.saturating_add_signed(changed.sum()),
        });
        for key in transaction.changed_below(&family) {
            let sizes = |record| sizes(record, &limits);
            let now = transaction.get(key).map(sizes).unwrap_or_default();
            let before = state.get(key).map(|one| sizes(&one.record));
            let before = before.unwrap_or_default();
            for (at, (field, most, now)) in now.into_iter().enumerate() {
                counts.push(Count {
                    field,
                    what: format!("`{key}`"),
                    most,
                    before: before.get(at).map_or(0, |(_, _, size)| *size),
                    now,
                });
            }
        }
    }
    counts.push(Count {
        field: "vnis",
        what: format!("tenant `{tenant}`, with what its services had before and rests,"),
        most: limits.vnis,
        before: vnis(&Transaction::new(state), tenant),
        now: vnis(transaction, tenant),
    });
    counts.iter().try_for_each(|count| count.check(tenant))
}

/// How much there is in one record, of what has a limit.
fn sizes(record: &Record, limits: &Limits) -> Vec<(&'static str, u32, usize)> {
    match record {
        Record::Attachment(one) => vec![
            ("interfaces", limits.interfaces, one.interfaces.len()),
            ("prefixes", limits.prefixes, one.prefixes.len()),
            ("neighbors", limits.neighbors, one.neighbors.len()),
        ],
        Record::Service(one) => vec![("attachments", limits.nodes, one.attachments.len())],
        Record::Chain(one) => vec![("match", limits.matches, conditions(&one.matches))],
        _ => Vec::new(),
    }
}

fn conditions(matches: &Match) -> usize {
    matches.source.len()
        + matches.destination.len()
        + matches.source_ports.len()
        + matches.destination_ports.len()
}
