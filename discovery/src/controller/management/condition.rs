//! How the domain and its routers do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::domains::{self, DomainStatus};
use super::{Actor, Answer, Answered, no_router, no_tenant};
use crate::controller::Controller;
use crate::controller::hub::Attached;
use crate::database::Rejection;
use crate::duration;
use crate::exchange::peers;
use crate::model::{self, key};
use crate::session_keys;

/// How long routers are waited for that are asked how they do.
const DEADLINE: Duration = Duration::from_secs(2);
/// Routers that a warning names at most.
const NAMED: usize = 10;

/// How the domain does.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::controller) struct Status {
    /// The domain's name.
    pub domain: String,
    /// Its latest revision.
    pub revision: u64,
    /// Its routers, by name.
    pub routers: Vec<RouterStatus>,
    /// Other domains that are trusted, by name.
    pub domains: Vec<DomainStatus>,
    /// What an operator should see to, each with what to do.
    pub warnings: Vec<String>,
}

/// How one router does.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::controller) struct RouterStatus {
    /// Its name.
    pub name: String,
    /// What it is in the mesh.
    pub role: model::Role,
    /// It is attached to this controller.
    pub attached: bool,
    /// Its lease has run out.
    pub expired: bool,
    /// Where its tunnels end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The revision that it runs.
    pub runs: u64,
    /// The latest revision that changed something for it.
    pub sent: u64,
    /// It does not run what it was sent, or not yet.
    pub lags: bool,
    /// It checks where labels lead; absent where it is not attached. One that does not is of an earlier version, and believes its neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks_origins: Option<bool>,
    /// What of it cannot be there: everything else is in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedItem>,
}

/// A part of what a router was sent that cannot be there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::controller) struct RefusedItem {
    /// Which: `tenant/NAME`, `neighbor/NAME`, `peer/NAME`.
    pub item: String,
    /// What is wrong with it, in the router's words.
    pub reason: String,
}

impl RouterStatus {
    fn new(router: &model::Router, attached: Option<&Attached>) -> Self {
        let own = attached.cloned().unwrap_or_default();
        Self {
            name: router.name.clone(),
            role: router.role,
            attached: own.attached,
            expired: router.expired,
            endpoint: router
                .registration
                .as_ref()
                .map(|one| one.endpoint.to_string()),
            runs: own.runs,
            sent: own.sent,
            lags: own.runs < own.sent || !own.attached || !own.refused.is_empty(),
            checks_origins: own.attached.then_some(own.origins),
            refused: own
                .refused
                .into_iter()
                .map(|one| RefusedItem {
                    item: one.item,
                    reason: one.reason,
                })
                .collect(),
        }
    }
}

/// Says which routers believe every label.
fn believers(routers: &[RouterStatus]) -> Option<String> {
    let all = routers
        .iter()
        .filter(|one| one.checks_origins == Some(false));
    let names: Vec<String> = all.map(|one| format!("`{}`", one.name)).collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "{named}{more}: of an earlier version, which does not check where labels lead and believes its neighbours; upgrade to have it check"
        )
    })
}

/// Whose performance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::controller) struct PerformanceQuery {
    pub(in crate::controller) tenant: Option<String>,
    pub(in crate::controller) router: Option<String>,
    pub(in crate::controller) since: Option<String>,
}

/// How long ago a time was: one as RFC 3339 writes it, by the controller's clock, or how long ago itself.
fn ago(text: &str) -> Result<Duration, Rejection> {
    if let Ok(duration) = duration(text) {
        return Ok(duration);
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Rejection::Malformed(format!(
            "since: `{text}` is no time: 2026-11-21T20:00:00Z, or how long ago: 90s, 15m, 1h, 7d"
        ))
    })?;
    let ago = OffsetDateTime::now_utc() - time;
    Duration::try_from(ago).map_err(|_| {
        Rejection::Malformed(format!(
            "since: {text} has not come yet by the controller's clock"
        ))
    })
}

/// How routers did when they were asked.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::controller) struct Performance {
    /// Somebody did not answer.
    pub partial: bool,
    /// Who did not: not attached, or silent until the deadline.
    pub missing: Vec<String>,
    /// What the others said, by name: `status`, `neighbors`, `tenants`, `traffic`, `endpoints` and `drops` as the router's own API has
    /// them, and `seconds` where `since` was asked for: of how long the counters are.
    #[schema(value_type = BTreeMap<String, Object>)]
    pub routers: BTreeMap<String, Value>,
}

impl Controller {
    pub(in crate::controller) fn get_status(&self, actor: &Actor) -> Answered<Status> {
        actor.may_see(None)?;
        let state = self.database.state();
        let attached = self.hub.attached();
        let routers = state.routers();
        let routers: Vec<RouterStatus> = routers
            .map(|one| RouterStatus::new(one, attached.get(&one.name)))
            .collect();
        let mut warnings = self.warnings(&state);
        warnings.extend(believers(&routers));
        let status = Status {
            domain: state
                .domain()
                .map(|one| one.name.clone())
                .unwrap_or_default(),
            revision: state.revision,
            routers,
            domains: domains::statuses(self, &state),
            warnings,
        };
        Ok(Answer {
            body: status,
            revision: state.revision,
            modified: None,
        })
    }

    /// What an operator should see to.
    fn warnings(&self, state: &model::State) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(told) = self.hub.ahead() {
            warnings.push(format!(
                "the datastore is at revision {}, and routers were told of {told}: it was restored from an older copy. They go on as they \
                 are. Enter what is missing, then `weft controller resume` has them take what is here",
                state.revision
            ));
        }
        let unsigned = session_keys::unsigned(state);
        if !unsigned.is_empty() {
            let count = unsigned.len();
            let names: Vec<&str> = unsigned.keys().take(NAMED).map(String::as_str).collect();
            let more = if count > NAMED { ", …" } else { "" };
            warnings.push(format!(
                "the sessions of {count} routers are not signed ({}{more}): `weft controller keys` says why",
                names.join(", ")
            ));
        }
        for tenant in state.tenants() {
            if let Some(other) = peers::mistaken(state, tenant) {
                warnings.push(format!(
                    "tenant `{}` had VNI {} of domain `{}`, which is its tenant `{}`'s now: nothing goes over between the two. Delete it, \
                     and make it anew where it is to be that one",
                    tenant.name, tenant.vni, other.domain, other.name
                ));
            }
        }
        for trust in state.trusts() {
            let link = self.exchange.link(&trust.name);
            if link.untold > 0 {
                warnings.push(format!(
                    "domain `{}` is not told {} times where labels of a VNI lead to, since it is more than one domain takes: share fewer \
                     tenants with it, or see which domain says that much",
                    trust.name, link.untold
                ));
            }
            let left_out = link.left_out;
            let warning = |one| format!("of what domain `{}` says is left out: {one}", trust.name);
            warnings.extend(left_out.into_iter().map(warning));
        }
        warnings
    }

    pub(in crate::controller) async fn get_performance(
        &self,
        actor: &Actor,
        query: PerformanceQuery,
    ) -> Answered<Performance> {
        actor.may_see(query.tenant.as_deref())?;
        let state = self.database.state();
        if let Some(tenant) = &query.tenant
            && state.tenant(&key::tenant(tenant)).is_none()
        {
            return Err(no_tenant(tenant));
        }
        if let Some(router) = &query.router
            && state.router(&key::router(router)).is_none()
        {
            return Err(no_router(router));
        }
        let asked = state.routers().map(|one| one.name.clone()).filter(|name| {
            let attached =
                |tenant: &String| state.attachment(&key::attachment(tenant, name)).is_some();
            query.router.as_ref().is_none_or(|only| only == name)
                && query.tenant.as_ref().is_none_or(attached)
        });
        let asked: Vec<String> = asked.collect();
        let since = query.since.as_deref().map(ago).transpose()?;
        let tenant = query.tenant.unwrap_or_default();
        let routers = self.hub.ask(&asked, &tenant, since, DEADLINE).await;
        let missing = asked.into_iter().filter(|name| !routers.contains_key(name));
        let missing: Vec<String> = missing.collect();
        Ok(Answer {
            body: Performance {
                partial: !missing.is_empty(),
                missing,
                routers,
            },
            revision: state.revision,
            modified: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, attached: Option<&Attached>) -> RouterStatus {
        let router = model::Router {
            name: name.into(),
            role: model::Role::Router,
            key: String::new(),
            registration: None,
            controller: None,
            expired: false,
            peers: Vec::new(),
            external_address: None,
            claim: None,
            reserved: BTreeMap::new(),
        };
        RouterStatus::new(&router, attached)
    }

    #[test]
    fn who_does_not_check_where_labels_lead_is_named() {
        let with = |origins| Attached {
            attached: true,
            origins,
            ..Attached::default()
        };
        let mut routers = vec![
            status("a1", Some(&with(true))),
            status("a2", None),
            status("a3", Some(&Attached::default())),
        ];
        let says: Vec<_> = routers.iter().map(|one| one.checks_origins).collect();
        assert_eq!(says, [Some(true), None, None]);
        assert_eq!(believers(&routers), None);
        for number in 0..22 {
            routers.push(status(&format!("old{number}"), Some(&with(false))));
        }
        let warning = believers(&routers).unwrap_or_default();
        assert!(warning.starts_with("`old0`, `old1`,"), "{warning}");
        assert!(warning.contains("`old9` and 12 more: "), "{warning}");
    }
}
