//! Tunnels: what they carried, and the routers at their far ends.

use std::collections::HashMap;
use std::net::IpAddr;

use weft_api::Unavailable;
use weft_api::types as api;
use weft_overlay::table::Overlay;

use super::{LiveState, ended, tenant_id, vnis_of};

/// By VNI and far end.
pub(super) async fn traffic(state: &LiveState) -> Result<Vec<api::Traffic>, Unavailable> {
    let tenants = state
        .overlay
        .ask(Overlay::tenants)
        .await
        .ok_or_else(ended)?;
    let mut names: HashMap<u32, &str> = HashMap::new();
    for tenant in &tenants {
        for vni in vnis_of(&tenant.config) {
            names.insert(vni.get(), &tenant.config.name);
        }
    }
    let traffic = state.dataplane.traffic().await.into_iter();
    Ok(traffic
        .map(|one| api::Traffic {
            tenant: names.get(&one.vni).map(|name| (*name).to_owned()),
            vni: one.vni,
            endpoint: one.endpoint,
            received_packets: one.received_packets,
            received_octets: one.received_octets,
            sent_packets: one.sent_packets,
            sent_octets: one.sent_octets,
        })
        .collect())
}

/// The far ends, by address; with a tenant's name, those that the tenant's packets go to.
pub(super) async fn endpoints(
    state: &LiveState,
    tenant: Option<String>,
) -> Result<Vec<api::Endpoint>, Unavailable> {
    let endpoints = state.overlay.ask(move |overlay| {
        let mut endpoints = overlay.endpoints();
        if let Some(name) = tenant {
            let used = tenant_id(overlay, &name).map(|id| overlay.endpoints_of(id));
            let used = used.unwrap_or_default();
            endpoints.retain(|address, _| used.contains(address));
        }
        endpoints
    });
    let endpoints = endpoints.await.ok_or_else(ended)?.into_iter();
    let status = state.dataplane.status().await.unwrap_or_default();
    let narrow = status.narrow_paths.into_iter().map(|path| {
        let found = api::PathMtu {
            mtu: path.mtu.into(),
            outer: path.outer.into(),
            probed: path.probed,
        };
        (path.endpoint, found)
    });
    let narrow: HashMap<IpAddr, api::PathMtu> = narrow.collect();
    Ok(endpoints
        .map(|(address, metric)| api::Endpoint {
            address,
            port: status.ports.get(&address).copied(),
            reachable: metric.is_some(),
            path: narrow.get(&address).copied(),
            probes: state.endpoints.probes(address),
        })
        .collect())
}
