//! Tenants, attachments, routers, tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Actor, Answer, Answered, Asking, Form, Listed, found, listed, no_router, no_tenant};
use crate::controller::{Controller, create_token};
use crate::database::Rejection;
use crate::grants::{self, NewGrant};
use crate::model::{Attachment, Domain, Grant, Record, Router, Scope, Tenant, Token, key};
use crate::operations::{self, NewAttachment, NewTenant, NewToken, RouterChange, TenantChange};
use crate::quotas::{self, NewQuota, QuotaUse};
use crate::session_keys::{self, KeysStatus};

/// A token that has just been made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::controller) struct CreatedToken {
    /// What is to be carried to who will use it. It is not shown again.
    pub token: String,
    /// What it is good for.
    pub scope: Scope,
}

/// Nobody sees what proves that one has it.
pub(super) fn shown(token: &Token) -> Token {
    Token {
        hash: String::new(),
        ..token.clone()
    }
}

impl Controller {
    pub(in crate::controller) fn get_domain(&self, actor: &Actor) -> Answered<Domain> {
        actor.may_see(None)?;
        let state = self.database.state();
        found(&state, key::DOMAIN, state.domain(), || {
            Rejection::NotFound("this controller has no domain".into())
        })
    }

    /// Has routers take what is here that were told of later revisions by a datastore that was lost.
    pub(in crate::controller) async fn resume(&self, asking: &Asking) -> Answered<Domain> {
        asking.actor.may_change(None)?;
        let told = self.hub.ahead().unwrap_or(0);
        let what = format!("routers that were told of revisions up to {told} take what is here");
        let subject = key::DOMAIN.to_owned();
        let answer = self
            .change(asking, what, &told, subject, move |transaction| {
                operations::resume(transaction, told)
            })
            .await?;
        self.hub.forget_ahead();
        Ok(answer)
    }

    pub(in crate::controller) fn get_session_keys(&self, actor: &Actor) -> Answered<KeysStatus> {
        actor.may_see(None)?;
        let state = self.database.state();
        Ok(Answer {
            body: session_keys::status(&state),
            revision: state.revision,
            modified: None,
        })
    }

    /// Has all keys of sessions replaced that there are now.
    pub(in crate::controller) async fn replace_session_keys(
        &self,
        asking: &Asking,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let (what, subject) = ("replace the keys of sessions", key::REPLACED.to_owned());
        self.change(asking, what.to_owned(), &(), subject, |transaction| {
            session_keys::replace_all(transaction);
            Ok(())
        })
        .await
    }

    pub(in crate::controller) fn list_routers(
        &self,
        actor: &Actor,
    ) -> Answered<Vec<Listed<Router>>> {
        actor.may_see(None)?;
        let router = |record: &Record| match record {
            Record::Router(router) => Some(router.clone()),
            _ => None,
        };
        Ok(listed(&self.database.state(), "router/", router))
    }

    pub(in crate::controller) fn get_router(&self, actor: &Actor, name: &str) -> Answered<Router> {
        actor.may_see(None)?;
        let state = self.database.state();
        let key = key::router(name);
        found(&state, &key, state.router(&key), || no_router(name))
    }

    pub(in crate::controller) async fn change_router(
        &self,
        asking: &Asking,
        name: String,
        form: impl Form<RouterChange>,
    ) -> Answered<Router> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let (what, subject) = (format!("change router {name}"), key::router(&name));
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::change_router(transaction, &name, &new)
        })
        .await
    }

    pub(in crate::controller) async fn delete_router(
        &self,
        asking: &Asking,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let (what, subject) = (format!("delete router {name}"), key::router(&name));
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_router(transaction, &name)
        })
        .await
    }

    pub(in crate::controller) fn list_tenants(
        &self,
        actor: &Actor,
    ) -> Answered<Vec<Listed<Tenant>>> {
        let seen = |record: &Record| match record {
            Record::Tenant(one) if actor.may_see(Some(&one.name)).is_ok() => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&self.database.state(), "tenant/", seen))
    }

    pub(in crate::controller) async fn create_tenant(
        &self,
        asking: &Asking,
        form: impl Form<NewTenant>,
    ) -> Answered<Tenant> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let (what, subject) = (
            format!("create tenant {}", new.name),
            key::tenant(&new.name),
        );
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::create_tenant(transaction, &new)
        })
        .await
    }

    pub(in crate::controller) fn get_tenant(&self, actor: &Actor, name: &str) -> Answered<Tenant> {
        actor.may_see(Some(name))?;
        let state = self.database.state();
        let key = key::tenant(name);
        found(&state, &key, state.tenant(&key), || no_tenant(name))
    }

    pub(in crate::controller) async fn change_tenant(
        &self,
        asking: &Asking,
        name: String,
        form: impl Form<TenantChange>,
    ) -> Answered<Tenant> {
        asking.actor.may_change(Some(&name))?;
        let new = form.read()?;
        let (what, subject) = (format!("change tenant {name}"), key::tenant(&name));
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::change_tenant(transaction, &name, &new)
        })
        .await
    }

    pub(in crate::controller) async fn delete_tenant(
        &self,
        asking: &Asking,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let (what, subject) = (format!("delete tenant {name}"), key::tenant(&name));
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_tenant(transaction, &name)
        })
        .await
    }

    pub(in crate::controller) fn get_quota(&self, actor: &Actor, name: &str) -> Answered<QuotaUse> {
        actor.may_see(Some(name))?;
        let state = self.database.state();
        let tenant = state.tenant(&key::tenant(name));
        tenant.ok_or_else(|| no_tenant(name))?;
        Ok(Answer {
            body: quotas::quota(&state, name),
            revision: state.revision,
            modified: state.get(&key::quota(name)).map(|one| one.modified),
        })
    }

    pub(in crate::controller) async fn put_quota(
        &self,
        asking: &Asking,
        name: String,
        form: impl Form<NewQuota>,
    ) -> Answered<QuotaUse> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let what = format!("say what tenant {name} may have");
        let subject = key::quota(&name);
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            quotas::put_quota(transaction, &name, &new)
        })
        .await
    }

    pub(in crate::controller) async fn delete_quota(
        &self,
        asking: &Asking,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let what = format!("tenant {name} may have what everybody may");
        let subject = key::quota(&name);
        self.change(asking, what, &(), subject, move |transaction| {
            quotas::delete_quota(transaction, &name)
        })
        .await
    }

    pub(in crate::controller) fn list_grants(
        &self,
        actor: &Actor,
        tenant: &str,
    ) -> Answered<Vec<Listed<Grant>>> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        if state.tenant(&key::tenant(tenant)).is_none() {
            return Err(no_tenant(tenant));
        }
        let grant = |record: &Record| match record {
            Record::Grant(grant) => Some(grant.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::grant(tenant, ""), grant))
    }

    pub(in crate::controller) async fn put_grant(
        &self,
        asking: &Asking,
        tenant: String,
        router: String,
        form: impl Form<NewGrant>,
    ) -> Answered<Grant> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        let what = format!("grant interfaces of router {router} to tenant {tenant}");
        let subject = key::grant(&tenant, &router);
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            grants::put_grant(transaction, &tenant, &router, &new)
        })
        .await
    }

    pub(in crate::controller) async fn delete_grant(
        &self,
        asking: &Asking,
        tenant: String,
        router: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let what = format!("grant nothing of router {router} to tenant {tenant}");
        let subject = key::grant(&tenant, &router);
        self.change(asking, what, &(), subject, move |transaction| {
            grants::delete_grant(transaction, &tenant, &router)
        })
        .await
    }

    pub(in crate::controller) fn list_attachments(
        &self,
        actor: &Actor,
        tenant: &str,
    ) -> Answered<Vec<Listed<Attachment>>> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        if state.tenant(&key::tenant(tenant)).is_none() {
            return Err(no_tenant(tenant));
        }
        let attachment = |record: &Record| match record {
            Record::Attachment(one) => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::attachment(tenant, ""), attachment))
    }

    pub(in crate::controller) fn get_attachment(
        &self,
        actor: &Actor,
        tenant: &str,
        router: &str,
    ) -> Answered<Attachment> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        let key = key::attachment(tenant, router);
        found(&state, &key, state.attachment(&key), || {
            Rejection::NotFound(format!(
                "tenant `{tenant}` is not attached to router `{router}`"
            ))
        })
    }

    pub(in crate::controller) async fn put_attachment(
        &self,
        asking: &Asking,
        tenant: String,
        router: String,
        form: impl Form<NewAttachment>,
    ) -> Answered<Attachment> {
        asking.actor.may_change(Some(&tenant))?;
        let new = form.read()?;
        let what = format!("attach tenant {tenant} to router {router}");
        let subject = key::attachment(&tenant, &router);
        let operator = asking.actor.may_change(None).is_ok();
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::put_attachment(transaction, &tenant, &router, &new, operator)
        })
        .await
    }

    pub(in crate::controller) async fn delete_attachment(
        &self,
        asking: &Asking,
        tenant: String,
        router: String,
    ) -> Answered<()> {
        asking.actor.may_change(Some(&tenant))?;
        let what = format!("detach tenant {tenant} from router {router}");
        let subject = key::attachment(&tenant, &router);
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_attachment(transaction, &tenant, &router)
        })
        .await
    }

    pub(in crate::controller) fn list_tokens(&self, actor: &Actor) -> Answered<Vec<Listed<Token>>> {
        actor.may_change(None)?;
        let token = |record: &Record| match record {
            Record::Token(token) => Some(shown(token)),
            _ => None,
        };
        Ok(listed(&self.database.state(), "token/", token))
    }

    pub(in crate::controller) async fn create_token(
        &self,
        asking: &Asking,
        form: impl Form<NewToken>,
    ) -> Answered<CreatedToken> {
        asking.actor.may_change(None)?;
        let new = form.read()?;
        if asking.key.is_some() {
            // Its answer would have to be kept, and the secret with it.
            return Err(Rejection::Malformed(
                "a token is not made with an Idempotency-Key: one too many is taken back by its id"
                    .into(),
            ));
        }
        let scope = new.scope.clone();
        let created =
            create_token(&self.database, &self.authority, &asking.actor.name, new).await?;
        Ok(Answer {
            body: CreatedToken {
                token: created.to_string(),
                scope,
            },
            revision: self.database.state().revision,
            modified: None,
        })
    }

    pub(in crate::controller) async fn delete_token(
        &self,
        asking: &Asking,
        id: String,
    ) -> Answered<()> {
        asking.actor.may_change(None)?;
        let (what, subject) = (format!("delete token {id}"), key::token(&id));
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_token(transaction, &id)
        })
        .await
    }
}
