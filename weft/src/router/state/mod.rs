//! Answers of the REST API, from BGP, the overlay and the data plane. What they are made of stands in `weft_api::types`, in modules of
//! the same names.
//!
//! | module | what it answers |
//! |---|---|
//! | [`status`] | the router as a whole |
//! | [`neighbor`] | neighbours, the router's own and those of its tenants |
//! | [`bfd`] | BFD sessions with neighbours |
//! | [`rib`] | routes of BGP |
//! | [`signatures`] | what TCP refuses for its signatures |
//! | [`label`] | label communities in use |
//! | [`tenant`] | tenants and their tables |
//! | [`chain`] | services and service chains |
//! | [`trace`] | how a traced packet fares |
//! | [`tunnel`] | what tunnels carried, and how far their ends are |
//! | [`kernel`] | what the kernel holds |

mod bfd;
mod chain;
mod forwarding;
mod kernel;
mod label;
mod neighbor;
mod rib;
mod signatures;
mod status;
mod tenant;
mod trace;
mod tunnel;

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;
use weft_api::types as api;
use weft_api::{
    KernelQuery, RouteQuery, RouterState, Secure, TenantRouteQuery, TraceQuery, Unavailable,
};
use weft_bfd_io::Bfd;
use weft_bgp::Bgp;
use weft_bgp_wire::Family;
use weft_dataplane::Dataplane;
use weft_overlay::intent::TenantId;
use weft_overlay::table::{Overlay, TenantConfig};
use weft_overlay::{Encapsulation, Vni};

use super::core::Queries;
use super::endpoints::Endpoints;
use super::sites::SiteSpeakers;
use super::told;
use super::tunnels::Tunnels;
use crate::config::Config;

/// The running router.
pub(super) struct LiveState {
    config: Config,
    started: Instant,
    bgp: Bgp,
    bfd: Bfd,
    sites: SiteSpeakers,
    dataplane: Dataplane,
    overlay: Queries,
    endpoints: Endpoints,
    tunnels: Tunnels,
    told: told::Reader,
    /// What the file said when it was read last and taken.
    filed: watch::Receiver<Arc<Config>>,
    /// What keeps strangers out of the API's port.
    secure: Option<Arc<Secure>>,
    /// What TCP had refused for its signatures before the start.
    signatures: Option<api::Signatures>,
}

impl LiveState {
    #[expect(clippy::too_many_arguments, reason = "each is a part of the router")]
    pub(super) fn new(
        config: Config,
        (bgp, bfd): (Bgp, Bfd),
        sites: SiteSpeakers,
        dataplane: Dataplane,
        overlay: Queries,
        endpoints: Endpoints,
        tunnels: Tunnels,
        told: told::Reader,
        filed: watch::Receiver<Arc<Config>>,
        secure: Option<Arc<Secure>>,
    ) -> Self {
        Self {
            config,
            started: Instant::now(),
            bgp,
            bfd,
            sites,
            dataplane,
            overlay,
            endpoints,
            tunnels,
            told,
            filed,
            secure,
            signatures: signatures::counted(),
        }
    }

    /// Global Administrator of the overlay, where there is one.
    fn administrator(&self) -> Option<u32> {
        self.config
            .overlay
            .as_ref()
            .map(|overlay| overlay.global_administrator)
    }

    /// Addresses of the router's neighbours by their numbers.
    async fn addresses(&self) -> Result<HashMap<u16, IpAddr>, Unavailable> {
        self.bgp
            .with(|speaker, _| {
                let peers = speaker.addresses();
                peers
                    .into_iter()
                    .map(|(peer, address)| (peer.0, address))
                    .collect()
            })
            .await
            .ok_or_else(ended)
    }
}

fn ended() -> Unavailable {
    Unavailable("the router is shutting down".into())
}

fn family(family: Family) -> api::Family {
    match family {
        Family::Ipv4Unicast => api::Family::Ipv4Unicast,
        Family::Ipv6Unicast => api::Family::Ipv6Unicast,
    }
}

fn encapsulation(encapsulation: Encapsulation) -> api::Encapsulation {
    match encapsulation {
        Encapsulation::Vxlan => api::Encapsulation::Vxlan,
        Encapsulation::VxlanGpe => api::Encapsulation::VxlanGpe,
        Encapsulation::Gre => api::Encapsulation::Gre,
    }
}

/// The tenant of this name.
fn tenant_id(overlay: &Overlay, name: &str) -> Option<TenantId> {
    let mut tenants = overlay.tenants().into_iter();
    Some(tenants.find(|one| one.config.name == name)?.id)
}

/// All VNIs that are routed in a tenant's table.
fn vnis_of(tenant: &TenantConfig) -> impl Iterator<Item = Vni> {
    tenant.vnis.iter().chain([&tenant.primary_vni]).copied()
}

/// A page of at most `limit` items. One more than that tells that there is a next page, which begins behind `key` of the last here.
fn page<T, K: Display>(
    mut items: Vec<T>,
    limit: usize,
    total: usize,
    key: impl Fn(&T) -> K,
) -> api::Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    api::Page {
        next_cursor: last.map(|one| key(one).to_string()),
        items,
        total: total as u64,
    }
}

impl RouterState for LiveState {
    async fn status(&self) -> Result<api::Status, Unavailable> {
        status::status(self).await
    }

    async fn config(&self) -> Result<Value, Unavailable> {
        let filed = self.filed.borrow().clone();
        let shown = serde_json::to_value(&*filed);
        let mut shown = shown.map_err(|error| Unavailable(error.to_string()))?;
        if let Some(controller) = shown.get_mut("controller").and_then(Value::as_object_mut) {
            controller.remove("token");
        }
        Ok(shown)
    }

    async fn neighbors(&self) -> Result<Vec<api::Neighbor>, Unavailable> {
        neighbor::all(self).await
    }

    async fn routes(&self, query: RouteQuery) -> Result<api::Page<api::Route>, Unavailable> {
        rib::routes(self, query).await
    }

    async fn tenants(&self) -> Result<Vec<api::Tenant>, Unavailable> {
        tenant::all(self).await
    }

    async fn tenant_routes(
        &self,
        name: String,
        query: TenantRouteQuery,
    ) -> Result<Option<api::Page<api::TenantRoute>>, Unavailable> {
        tenant::routes(self, name, query).await
    }

    async fn trace(
        &self,
        name: String,
        query: TraceQuery,
    ) -> Result<Option<api::Trace>, Unavailable> {
        trace::trace(self, name, query).await
    }

    async fn labels(&self) -> Result<Vec<api::LabelUse>, Unavailable> {
        label::in_use(self).await
    }

    async fn services(&self, tenant: Option<String>) -> Result<Vec<api::Service>, Unavailable> {
        chain::services(self, tenant).await
    }

    async fn chains(&self, tenant: Option<String>) -> Result<Vec<api::Chain>, Unavailable> {
        chain::chains(self, tenant).await
    }

    async fn traffic(&self) -> Result<Vec<api::Traffic>, Unavailable> {
        tunnel::traffic(self).await
    }

    async fn endpoints(&self, tenant: Option<String>) -> Result<Vec<api::Endpoint>, Unavailable> {
        tunnel::endpoints(self, tenant).await
    }

    async fn kernel(&self, query: KernelQuery) -> Result<api::Kernel, Unavailable> {
        kernel::kernel(self, query).await
    }
}
