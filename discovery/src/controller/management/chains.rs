//! Services and chains of tenants.

use super::{Actor, Answered, Asking, Form, Listed, found, listed, no_tenant};
use crate::chains::operations::{self, NewChain, NewService};
use crate::chains::view::note;
use crate::controller::Controller;
use crate::database::Rejection;
use crate::model::{Chain, Record, Service, State, key};

fn check_tenant(state: &State, tenant: &str) -> Result<(), Rejection> {
    match state.tenant(&key::tenant(tenant)) {
        Some(_) => Ok(()),
        None => Err(no_tenant(tenant)),
    }
}

/// A chain with what is to be known of it.
fn noted(state: &State, chain: Chain) -> Chain {
    Chain {
        note: note(state, &chain),
        ..chain
    }
}

impl Controller {
    pub(in crate::controller) fn list_services(
        &self,
        actor: &Actor,
        tenant: &str,
    ) -> Answered<Vec<Listed<Service>>> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        check_tenant(&state, tenant)?;
        let service = |record: &Record| match record {
            Record::Service(one) => Some(one.clone()),
            _ => None,
        };
        Ok(listed(&state, &key::service(tenant, ""), service))
    }

    pub(in crate::controller) fn get_service(
        &self,
        actor: &Actor,
        tenant: &str,
        name: &str,
    ) -> Answered<Service> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        let key = key::service(tenant, name);
        found(&state, &key, state.service(&key), || {
            Rejection::NotFound(format!("tenant `{tenant}` has no service `{name}`"))
        })
    }

    pub(in crate::controller) async fn put_service(
        &self,
        asking: &Asking,
        tenant: String,
        name: String,
        form: impl Form<NewService>,
    ) -> Answered<Service> {
        asking.actor.may_change(Some(&tenant))?;
        let new = form.read()?;
        let what = format!("put service {name} of tenant {tenant}");
        let subject = key::service(&tenant, &name);
        let operator = asking.actor.may_change(None).is_ok();
        self.change(asking, what, &new.clone(), subject, move |transaction| {
            operations::put_service(transaction, &tenant, &name, &new, operator)
        })
        .await
    }

    pub(in crate::controller) async fn delete_service(
        &self,
        asking: &Asking,
        tenant: String,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(Some(&tenant))?;
        let what = format!("delete service {name} of tenant {tenant}");
        let subject = key::service(&tenant, &name);
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_service(transaction, &tenant, &name)
        })
        .await
    }

    pub(in crate::controller) fn list_chains(
        &self,
        actor: &Actor,
        tenant: &str,
    ) -> Answered<Vec<Listed<Chain>>> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        check_tenant(&state, tenant)?;
        let chain = |record: &Record| match record {
            Record::Chain(one) => Some(noted(&state, one.clone())),
            _ => None,
        };
        Ok(listed(&state, &key::chain(tenant, ""), chain))
    }

    pub(in crate::controller) fn get_chain(
        &self,
        actor: &Actor,
        tenant: &str,
        name: &str,
    ) -> Answered<Chain> {
        actor.may_see(Some(tenant))?;
        let state = self.database.state();
        let key = key::chain(tenant, name);
        let chain = state.chain(&key).cloned();
        let chain = chain.map(|one| noted(&state, one));
        found(&state, &key, chain.as_ref(), || {
            Rejection::NotFound(format!("tenant `{tenant}` has no chain `{name}`"))
        })
    }

    pub(in crate::controller) async fn put_chain(
        &self,
        asking: &Asking,
        tenant: String,
        name: String,
        form: impl Form<NewChain>,
    ) -> Answered<Chain> {
        asking.actor.may_change(Some(&tenant))?;
        let new = form.read()?;
        let what = format!("put chain {name} of tenant {tenant}");
        let subject = key::chain(&tenant, &name);
        let mut answer = self
            .change(asking, what, &new.clone(), subject, move |transaction| {
                operations::put_chain(transaction, &tenant, &name, &new)
            })
            .await?;
        answer.body = noted(&self.database.state(), answer.body);
        Ok(answer)
    }

    pub(in crate::controller) async fn delete_chain(
        &self,
        asking: &Asking,
        tenant: String,
        name: String,
    ) -> Answered<()> {
        asking.actor.may_change(Some(&tenant))?;
        let what = format!("delete chain {name} of tenant {tenant}");
        let subject = key::chain(&tenant, &name);
        self.change(asking, what, &(), subject, move |transaction| {
            operations::delete_chain(transaction, &tenant, &name)
        })
        .await
    }
}
