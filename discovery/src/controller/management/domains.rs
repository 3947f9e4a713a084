//! Other domains: whom an operator trusts, what is shared, what they say. Theirs is read-only.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Actor, Answer, Answered, Asking, Form, Listed, listed};
use crate::controller::Controller;
use crate::database::Rejection;
use crate::exchange::Introduction;
use crate::exchange::operations::{self, NewTrust, TrustChange};
use crate::model::{Pair, Record, RemoteRouter, RemoteTenant, Share, State, Trust, key, now};

/// What the exchange with another domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::controller) enum Exchanged {
    /// It has never been heard: it may not be there, or not trust this domain.
    Waiting,
    /// It is heard.
    Current,
    /// It is heard no more: what it said last stays.
    Stale,
}

/// How the exchange with another domain does.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::controller) struct DomainStatus {
    /// The domain's name.
    pub name: String,
    /// Whether it is heard.
    pub exchange: Exchanged,
    /// It was heard, and is no more.
    pub stale: bool,
    /// The AS number of its routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Its revision that is held here: all that is public of it is as it was then.
    pub revision: u64,
    /// When it was last heard, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<u64>,
    /// How long ago that is, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Controllers of ours that hear it.
    pub followers: usize,
    /// Controllers of it that this one tells what is public here.
    pub followed: usize,
    /// Its edges.
    pub routers: usize,
    /// Tenants that it shares with this domain.
    pub tenants: usize,
    /// Tenants that this domain shares with it.
    pub shared: usize,
    /// Why this controller does not hear it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

fn status_of(controller: &Controller, state: &State, name: &str) -> DomainStatus {
    let link = controller.exchange.link(name);
    let remote = state.remote(&key::remote(name));
    let exchange = match remote {
        None => Exchanged::Waiting,
        Some(remote) if remote.is_stale() => Exchanged::Stale,
        Some(_) => Exchanged::Current,
    };
    let last_heard = link.heard.max(remote.map(|one| one.heard));
    // What it says when nothing of it has changed is not written down.
    let revision = match link.follows {
        true => link.revision,
        false => 0,
    };
    DomainStatus {
        name: name.to_owned(),
        exchange,
        stale: exchange == Exchanged::Stale,
        asn: remote.map(|one| one.asn),
        revision: remote.map_or(0, |one| one.revision).max(revision),
        last_heard,
        lag: last_heard.map(|at| now().saturating_sub(at) / 1000),
        followers: remote.map_or(0, |one| one.followers.len()),
        followed: link.followed,
        routers: of_domain(state.remote_routers(), name, |one| &one.domain).count(),
        tenants: of_domain(state.remote_tenants(), name, |one| &one.domain).count(),
        shared: of_domain(state.shares(), name, |one| &one.domain).count(),
        error: link.error,
    }
}

fn of_domain<'a, T: 'a>(
    all: impl Iterator<Item = &'a T>,
    name: &str,
    domain: impl Fn(&T) -> &String,
) -> impl Iterator<Item = &'a T> {
    all.filter(move |one| domain(one) == name)
}

/// How the exchange with all of them does, by name.
pub(in crate::controller) fn statuses(controller: &Controller, state: &State) -> Vec<DomainStatus> {
    let trusts = state.trusts();
    trusts
        .map(|one| status_of(controller, state, &one.name))
        .collect()
}

/// Another domain: what was decided of it, and what it says of itself, which is its own to change.
#[derive(Serialize, ToSchema)]
pub(in crate::controller) struct OtherDomain {
    /// How the exchange does.
    #[serde(flatten)]
    pub status: DomainStatus,
    /// Where its controllers are.
    pub controllers: Vec<String>,
    /// SHA-256 of its authority's certificate.
    pub fingerprint: String,
    /// Hops between the edges of both.
    pub ttl: u8,
    /// Which edges speak with which; every one with every one where there are none.
    pub pairs: Vec<Pair>,
    /// The revision that last changed what was decided; by REST it is the ETag.
    #[serde(skip)]
    pub modified: u64,
}

/// A domain that asked, and is not trusted.
#[derive(Serialize, ToSchema)]
pub(in crate::controller) struct Stranger {
    /// The name that it gave.
    pub name: String,
    /// SHA-256 of its authority's certificate.
    pub fingerprint: String,
    /// When it last asked, ms since 1970.
    pub at: u64,
}

/// All other domains.
#[derive(Serialize, ToSchema)]
pub(in crate::controller) struct OtherDomains {
    /// Those that are trusted, by name.
    pub items: Vec<OtherDomain>,
    /// Those that asked this controller and are not, the latest first. Anybody may claim a name: compare the fingerprint.
    pub asking: Vec<Stranger>,
}

fn other(controller: &Controller, state: &State, trust: &Trust) -> OtherDomain {
    let modified = state.get(&key::trust(&trust.name));
    OtherDomain {
        status: status_of(controller, state, &trust.name),
        controllers: trust.controllers.clone(),
        fingerprint: trust.fingerprint.clone(),
        ttl: trust.ttl,
        pairs: trust.pairs.clone(),
        modified: modified.map_or(0, |one| one.modified),
    }
}

fn trusted<'a>(state: &'a State, name: &str) -> Result<&'a Trust, Rejection> {
    let missing = || Rejection::NotFound(format!("there is no other domain `{name}`"));
    state.trust(&key::trust(name)).ok_or_else(missing)
}

/// What another domain's operator trusts this one by.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::controller) struct Introduced {
    /// `weft://DOMAIN@HOST:PORT/FINGERPRINT`; nothing of it is secret.
    pub introduction: String,
}

fn answer<T>(state: &State, body: T) -> Answer<T> {
    Answer {
        body,
        revision: state.revision,
        modified: None,
    }
}

impl Controller {
    pub(in crate::controller) fn get_introduction(&self, actor: &Actor) -> Answered<Introduced> {
        actor.may_see(None)?;
        let introduction = self.introduction.to_string();
        Ok(answer(&self.database.state(), Introduced { introduction }))
    }

    pub(in crate::controller) fn list_domains(&self, actor: &Actor) -> Answered<OtherDomains> {
        actor.may_see(None)?;
        let state = self.database.state();
        let trusts = state.trusts();
        let strangers = self.exchange.strangers().into_iter();
        let body = OtherDomains {
            items: trusts.map(|one| other(self, &state, one)).collect(),
            asking: strangers
                .map(|one| Stranger {
                    name: one.domain,
                    fingerprint: one.fingerprint,
                    at: one.at,
                })
                .collect(),
        };
        Ok(answer(&state, body))
    }

    pub(in crate::controller) fn get_other_domain(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Answered<OtherDomain> {
        actor.may_see(None)?;
        let state = self.database.state();
        let trust = trusted(&state, name)?;
        let body = other(self, &state, trust);
        Ok(Answer {
            revision: state.revision,
            modified: Some(body.modified),
            body,
        })
    }

    pub(in crate::controller) async fn trust(
        &self,
        asking: &Asking,
        form: impl Form<NewTrust>,
    ) -> Answered<Trust> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let introduction: Result<Introduction, _> = new.introduction.parse();
        let name = introduction.map(|one| one.domain);
        let name = name.map_err(|error| Rejection::Invalid(error.to_string()))?;
        let (what, subject) = (format!("trust domain {name}"), key::trust(&name));
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::trust(transaction, &new)
        })
        .await
    }

    pub(in crate::controller) async fn change_trust(
        &self,
        asking: &Asking,
        name: String,
        form: impl Form<TrustChange>,
    ) -> Answered<Trust> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let what = format!("change what is decided of domain {name}");
        let subject = key::trust(&name);
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::change_trust(transaction, &name, &new)
        })
        .await
    }

    pub(in crate::controller) async fn distrust(
        &self,
        asking: &Asking,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let (what, subject) = (format!("trust domain {name} no more"), key::trust(&name));
        self.change(asking, what, &(), subject, move |transaction| {
            operations::distrust(transaction, &name)
        })
        .await
    }

    pub(in crate::controller) fn list_remote_routers(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Answered<Vec<Listed<RemoteRouter>>> {
        actor.may_see(None)?;
        let state = self.database.state();
        trusted(&state, name)?;
        let router = |record: &Record| match record {
            Record::RemoteRouter(one) => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::remote_router(name, ""), router))
    }

    pub(in crate::controller) fn list_remote_tenants(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Answered<Vec<Listed<RemoteTenant>>> {
        actor.may_see(None)?;
        let state = self.database.state();
        trusted(&state, name)?;
        let tenant = |record: &Record| match record {
            Record::RemoteTenant(one) => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::remote_tenant(name, ""), tenant))
    }

    pub(in crate::controller) fn list_shared(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Answered<Vec<Listed<Share>>> {
        actor.may_see(None)?;
        let state = self.database.state();
        trusted(&state, name)?;
        let share = |record: &Record| match record {
            Record::Share(one) => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::share(name, ""), share))
    }

    pub(in crate::controller) async fn share(
        &self,
        asking: &Asking,
        name: String,
        tenant: String,
    ) -> Answered<Share> {
        asking.actor.may_change(None)?;
        let what = format!("share tenant {tenant} with domain {name}");
        let subject = key::share(&name, &tenant);
        self.change(asking, what, &(), subject, move |transaction| {
            operations::share(transaction, &name, &tenant)
        })
        .await
    }

    pub(in crate::controller) async fn unshare(
        &self,
        asking: &Asking,
        name: String,
        tenant: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let what = format!("share tenant {tenant} with domain {name} no more");
        let subject = key::share(&name, &tenant);
        self.change(asking, what, &(), subject, move |transaction| {
            operations::unshare(transaction, &name, &tenant)
        })
        .await
    }
}
