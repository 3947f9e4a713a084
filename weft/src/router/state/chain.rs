//! Services and service chains.

use weft_api::Unavailable;
use weft_api::types as api;
use weft_dataplane::StepCounts;

use super::super::chains::Known;
use super::tenant::path;
use super::{LiveState, ended};

/// Of one tenant or of all, by label.
pub(super) async fn services(
    state: &LiveState,
    tenant: Option<String>,
) -> Result<Vec<api::Service>, Unavailable> {
    let addresses = state.addresses().await?;
    let known = known(state).await?;
    Ok(known.services(tenant.as_deref(), |judged| path(state, judged, &addresses)))
}

/// Of one tenant or of all, by priority.
pub(super) async fn chains(
    state: &LiveState,
    tenant: Option<String>,
) -> Result<Vec<api::Chain>, Unavailable> {
    Ok(known(state).await?.chains(tenant.as_deref()))
}

/// What is known of services and chains.
pub(super) async fn known(state: &LiveState) -> Result<Known, Unavailable> {
    let found = state
        .overlay
        .ask(|overlay| (overlay.tenants(), overlay.services()))
        .await;
    let (tenants, services) = found.ok_or_else(ended)?;
    let has_chains = tenants.iter().any(|one| !one.config.services.is_empty());
    let counts = match has_chains {
        true => tokio::task::spawn_blocking(StepCounts::read).await,
        false => Ok(StepCounts::default()),
    };
    let refused = match has_chains {
        true => state
            .dataplane
            .status()
            .await
            .and_then(|one| one.chains_refused),
        false => None,
    };
    Ok(Known {
        tenants,
        services,
        counts: counts.unwrap_or_default(),
        reasons: state.overlay.reasons().clone(),
        refused,
        told: state.told.borrow().clone(),
    })
}
