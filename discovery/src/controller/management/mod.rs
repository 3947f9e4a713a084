//! What people and their programs may ask of a domain, each operation once: who asks, what they may, on what condition, and what
//! is answered. REST and gRPC are two borders of it.
//!
//! | module | what it is |
//! |---|---|
//! | [`resources`] | tenants, attachments, routers, tokens |
//! | [`history`] | revisions, going back to one, watching them come |
//! | [`chains`] | services and chains of tenants |
//! | [`domains`] | other domains |
//! | [`rates`] | how often a token may ask, and how much of the history is tenants' |
//! | [`requests`] | how long answered requests are remembered |
//! | [`condition`] | how the domain and its routers do |

mod chains;
pub(super) mod condition;
pub(super) mod domains;
mod history;
mod rates;
mod requests;
mod resources;

pub(super) use self::history::RolledBack;
pub(super) use self::rates::{Rates, Shares};
pub(super) use self::resources::CreatedToken;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Controller;
use crate::database::{Rejection, Transaction};
use crate::grants;
use crate::model::{Record, Request, Scope, State, key, now};
use crate::operations::check_token;
use crate::pki::{TokenText, sha256};
use crate::quotas;

/// Who asks, by the token that they show.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    name: String,
    scope: Scope,
}

/// Who asks for a change, and on what condition.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) actor: Actor,
    /// Revision that the record is to have been changed by last.
    pub(super) expected: Option<u64>,
    /// With one key something is done once.
    pub(super) key: Option<String>,
}

/// What is asked for, as it came. It is read when it is known that who asks may.
pub(super) trait Form<T> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Rejection::Invalid`].
    fn read(self) -> Result<T, Rejection>;
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer<T> {
    pub(super) body: T,
    /// The domain's revision where that holds.
    pub(super) revision: u64,
    /// Of one record: the revision that last changed it.
    pub(super) modified: Option<u64>,
}

/// A record in a list, and the revision that last changed it.
pub(super) type Listed<T> = (T, u64);

type Answered<T> = Result<Answer<T>, Rejection>;

impl Actor {
    /// May look at a tenant; `None` asks for everything.
    pub(super) fn may_see(&self, tenant: Option<&str>) -> Result<(), Rejection> {
        match (&self.scope, tenant) {
            (Scope::Tenant { tenant: own }, Some(tenant)) if own == tenant => Ok(()),
            (Scope::Operator | Scope::Reader, _) => Ok(()),
            // What exists is not said either.
            (Scope::Tenant { .. }, Some(tenant)) => Err(no_tenant(tenant)),
            _ => Err(self.refused("an operator's")),
        }
    }

    /// May change a tenant's own; `None` asks for everything.
    fn may_change(&self, tenant: Option<&str>) -> Result<(), Rejection> {
        self.may_see(tenant)?;
        match self.scope {
            Scope::Reader => Err(self.refused("an operator's, or the tenant's,")),
            _ => Ok(()),
        }
    }

    fn refused(&self, whose: &str) -> Rejection {
        Rejection::Forbidden(format!(
            "token {} may not do that: it takes {whose} token",
            self.name
        ))
    }
}

fn no_tenant(name: &str) -> Rejection {
    Rejection::NotFound(format!("there is no tenant `{name}`"))
}

fn no_router(name: &str) -> Rejection {
    Rejection::NotFound(format!("there is no router `{name}`"))
}

/// A record, or that it is missing.
fn found<T: Clone>(
    state: &State,
    key: &str,
    record: Option<&T>,
    missing: impl FnOnce() -> Rejection,
) -> Answered<T> {
    Ok(Answer {
        body: record.ok_or_else(missing)?.clone(),
        revision: state.revision,
        modified: state.get(key).map(|one| one.modified),
    })
}

/// The records below a prefix that `pick` takes.
fn listed<T>(
    state: &State,
    prefix: &str,
    pick: impl Fn(&Record) -> Option<T>,
) -> Answer<Vec<Listed<T>>> {
    let all = state.below(prefix);
    let picked = all.filter_map(|(_, one)| Some((pick(&one.record)?, one.modified)));
    Answer {
        body: picked.collect(),
        revision: state.revision,
        modified: None,
    }
}

impl Asking {
    /// The record is what it was when the client looked at it.
    fn check(&self, state: &State, key: &str) -> Result<(), Rejection> {
        let Some(expected) = self.expected else {
            return Ok(());
        };
        match state.get(key) {
            Some(one) if one.modified == expected => Ok(()),
            Some(one) => Err(Rejection::Precondition(format!(
                "it has been changed since: its ETag is \"{}\", not \"{expected}\"",
                one.modified
            ))),
            None => Err(Rejection::Precondition("it is no more".into())),
        }
    }

    /// Its key, where it is one.
    fn key(&self) -> Result<Option<String>, Rejection> {
        let good = |key: &String| {
            let good = |char: char| char.is_ascii_graphic() && char != '/';
            !key.is_empty() && key.len() <= 128 && key.chars().all(good)
        };
        match &self.key {
            Some(key) if !good(key) => Err(Rejection::Malformed(
                "Idempotency-Key: 1 to 128 printable characters, no `/`".into(),
            )),
            key => Ok(key.clone()),
        }
    }
}

impl Controller {
    /// Who shows this: `Bearer TOKEN`.
    ///
    /// # Errors
    /// [`Rejection::Unauthenticated`].
    pub(super) fn actor(&self, shown: Option<&str>) -> Result<Actor, Rejection> {
        let unknown = |detail: String| Rejection::Unauthenticated(detail);
        let shown = shown.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
        });
        let shown = shown.ok_or_else(|| {
            unknown("this needs a token: Authorization: Bearer weft.ID.SECRET.FINGERPRINT".into())
        })?;
        let token: TokenText = shown.parse().map_err(|error| unknown(format!("{error}")))?;
        let state = self.database.state();
        let known = state.token(&key::token(&token.id));
        let known = check_token(known, &sha256(token.secret.as_bytes()));
        let known = known.map_err(|rejection| unknown(rejection.to_string()))?;
        if matches!(known.scope, Scope::Join { .. }) {
            return Err(unknown(
                "this is a join token: it is for `weft join` alone".into(),
            ));
        }
        if let Scope::Tenant { .. } | Scope::Reader = known.scope {
            self.rates.pass(&known.id)?;
        }
        Ok(Actor {
            name: known.id,
            scope: known.scope,
        })
    }

    /// Does a change once, however often it is asked for with one key, and answers what it answers. `what` and `form` say what is
    /// asked for, `subject` is the key of the record that it is about.
    async fn change<T>(
        &self,
        asking: &Asking,
        what: String,
        form: &impl Serialize,
        subject: String,
        operation: impl Fn(&mut Transaction<'_>) -> Result<T, Rejection> + Send + 'static,
    ) -> Answered<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let broken = |error: serde_json::Error| Rejection::Unavailable(error.to_string());
        let form = serde_json::to_string(form).map_err(broken)?;
        let hash = sha256(format!("{what}\n{form}").as_bytes());
        let key = asking.key()?;
        let tenant = match &asking.actor.scope {
            Scope::Tenant { tenant } => Some(tenant.clone()),
            _ => None,
        };
        if let Some(tenant) = &tenant {
            self.shares.check(tenant)?;
        }
        let (asking, own) = (asking.clone(), subject.clone());
        let actor = asking.actor.name.clone();
        let run = move |transaction: &mut Transaction<'_>| {
            let state = transaction.state();
            let actor = &asking.actor.name;
            if let Some(key) = &key
                && let Some(before) = state.request(&key::request(actor, key))
            {
                if before.hash != hash {
                    return Err(Rejection::Invalid(
                        "something else was asked for with this Idempotency-Key".into(),
                    ));
                }
                let body = serde_json::from_value(before.body.clone()).map_err(broken)?;
                return Ok((body, false, 0));
            }
            asking.check(state, &own)?;
            let answer = operation(transaction)?;
            let octets = transaction.octets();
            if let Scope::Tenant { tenant } = &asking.actor.scope {
                grants::check(transaction, tenant)?;
                quotas::check(transaction, tenant)?;
            }
            if let Some(key) = &key {
                let request = Request {
                    actor: actor.clone(),
                    key: key.clone(),
                    hash: hash.clone(),
                    body: serde_json::to_value(&answer).map_err(broken)?,
                    at: now(),
                };
                requests::forget(transaction, &request);
                transaction.put(Record::Request(request));
            }
            Ok((answer, true, octets))
        };
        let ((body, fresh, octets), revision) = self.database.change(&actor, what, run).await?;
        if let Some(tenant) = tenant.filter(|_| fresh) {
            self.shares.add(&tenant, octets);
        }
        let state = self.database.state();
        let modified = state.get(&subject).map(|one| one.modified);
        Ok(Answer {
            body,
            revision,
            // Of what somebody else has changed since, this is not the answer's.
            modified: modified.filter(|modified| fresh && *modified <= revision),
        })
    }
}
