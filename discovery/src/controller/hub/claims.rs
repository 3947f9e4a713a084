//! Two starts of one router, each at another controller of the domain: the controller that has the first one asks it whether it is
//! there, and says so in the datastore.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::warn;

use super::{ANSWER, Hub};
use crate::database::Rejection;
use crate::model::{Claim, Router, State, key};
use crate::operations;
use crate::view::Affected;

/// A controller that says nothing for so long does not know either.
const PATIENCE: Duration = ANSWER.saturating_mul(2);

impl Hub {
    /// Whether another start of a router's process than this one is attached to another controller of the domain, and answers.
    ///
    /// # Errors
    /// Where the router is not one of the domain, or the datastore does not take the question.
    pub(in crate::controller) async fn is_taken_elsewhere(
        &self,
        name: &str,
        router_key: &str,
        instance: &str,
    ) -> Result<bool, Rejection> {
        let state = self.database.state();
        let Some(router) = state.router(&key::router(name)) else {
            return Ok(false);
        };
        let Some(there) = router.controller.clone() else {
            return Ok(false);
        };
        let known = router.registration.as_ref();
        let same = known.is_none_or(|known| known.instance == instance);
        if there == *self.id || same || router.expired {
            return Ok(false);
        }
        // Where there is one controller at a time, there is nobody to ask.
        let alive = self.database.alive(&self.id).await?;
        if !alive.is_some_and(|alive| alive.contains(&there)) {
            return Ok(false);
        }
        let mut news = self.database.watch();
        let (router, by, claimed) = (name.to_owned(), router_key.to_owned(), instance.to_owned());
        let what = format!("whether router {name} is at another controller");
        self.database
            .change("controller", what, move |transaction| {
                operations::claim(transaction, &router, &by, &claimed)
            })
            .await?;
        let answer = async {
            loop {
                match claim(&self.database.state(), name) {
                    Some(claim) if claim.instance == instance => {
                        if let Some(answers) = claim.answers {
                            return answers;
                        }
                    }
                    // A still later start has asked, or has registered: this one asks anew.
                    _ => return true,
                }
                if let Err(RecvError::Closed) = news.recv().await {
                    return false;
                }
            }
        };
        Ok(timeout(PATIENCE, answer).await.unwrap_or(false))
    }

    /// Answers what other controllers ask of the routers that are attached here.
    pub(super) fn answer_claims(&self, state: &State, affected: &Affected) {
        let asked = |router: &&Router| {
            let here = router.controller.as_deref() == Some(&*self.id);
            let open = router.claim.as_ref();
            here && open.is_some_and(|claim| claim.answers.is_none())
        };
        let named = affected.routers();
        let named = named.filter_map(|name| state.router(&key::router(name)));
        let all = state.routers().filter(|_| affected.is_all());
        for router in named.chain(all).filter(asked) {
            let Some(claim) = router.claim.clone() else {
                continue;
            };
            if !self.inner().asked.insert(claim.instance.clone()) {
                continue;
            }
            let (hub, name) = (self.clone(), router.name.clone());
            tokio::spawn(async move { hub.answer_claim(name, claim.instance).await });
        }
    }

    async fn answer_claim(&self, name: String, instance: String) {
        let answers = self.is_taken(&name, &instance).await;
        if !answers {
            self.let_go(&name, &instance);
        }
        let (router, claimed) = (name.clone(), instance.clone());
        let what = match answers {
            true => format!("router {name} is here, and answers"),
            false => format!("router {name} is not here"),
        };
        let told = self
            .database
            .change("controller", what, move |transaction| {
                operations::answer_claim(transaction, &router, &claimed, answers)
            });
        if let Err(error) = told.await {
            warn!(router = name, %error, "cannot tell another controller whether it is here");
        }
        self.inner().asked.remove(&instance);
    }

    /// Ends the stream of a start that does not answer.
    fn let_go(&self, name: &str, instance: &str) {
        let mut inner = self.inner();
        let connection = inner.connections.get(name);
        if connection.is_some_and(|one| one.instance != instance) {
            inner.connections.remove(name);
        }
    }
}

fn claim<'a>(state: &'a State, name: &str) -> Option<&'a Claim> {
    state.router(&key::router(name))?.claim.as_ref()
}
