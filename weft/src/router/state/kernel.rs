//! What the kernel holds of ours, and what it refused.

use weft_api::types as api;
use weft_api::{KernelQuery, Unavailable};

use super::forwarding::forwarding;
use super::{LiveState, encapsulation, ended};

/// All of it, with a page of what was refused.
pub(super) async fn kernel(
    state: &LiveState,
    query: KernelQuery,
) -> Result<api::Kernel, Unavailable> {
    let status = state.dataplane.status().await.ok_or_else(ended)?;
    let count = |object: &str, intended: usize, count: usize| api::ObjectCount {
        object: object.into(),
        intended: intended as u64,
        count: count as u64,
    };
    let intended = &status.intended;
    let name_of = |table: u32| {
        status
            .tenants
            .iter()
            .find(|one| one.table == table)
            .map(|one| one.name.clone())
    };
    let total = status.refused.len();
    let items: Vec<api::RefusedRoute> = status
        .refused
        .iter()
        .skip(query.offset)
        .take(query.limit)
        .map(|refused| api::RefusedRoute {
            tenant: name_of(refused.table),
            table: refused.table,
            prefix: refused.prefix,
            error: refused.error.clone(),
            tries: refused.tries,
        })
        .collect();
    let next = query.offset + items.len();
    let next_cursor = (next < total).then(|| next.to_string());
    Ok(api::Kernel {
        release: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        devices: status
            .devices
            .iter()
            .map(|device| api::Device {
                name: device.name.clone(),
                encapsulation: encapsulation(device.encapsulation),
                port: device.port,
                mtu: device.mtu,
                up: device.up,
            })
            .collect(),
        segmentation: if status.vrf {
            api::Segmentation::Vrf
        } else {
            api::Segmentation::Table
        },
        settled: status.settled,
        forwarding: forwarding(state.conditions(&status)),
        objects: vec![
            count("routes", intended.routes, status.routes),
            count(
                "underlay routes",
                intended.underlay_routes,
                status.underlay_routes,
            ),
            count("next hops", intended.next_hops, status.next_hops),
            count("VNIs", intended.vnis, status.vnis),
            count("rules", intended.rules, status.rules),
        ],
        requests: status.requests,
        repairs: status.repairs,
        events_lost: status.events_lost,
        drops: status.drops.map(|drops| api::Drops {
            unknown_vni: drops.unknown_vni,
            foreign_address: drops.foreign_address,
            foreign_attachment: drops.foreign_attachment,
            other_protocol: drops.other_protocol,
            untranslated: drops.untranslated,
            unknown_sender: drops.unknown_sender,
        }),
        tables: status
            .tenants
            .iter()
            .map(|one| api::KernelTable {
                table: one.table,
                tenant: one.name.clone(),
                vrf: one.vrf.clone(),
                intended: one.intended as u64,
                routes: one.routes as u64,
            })
            .collect(),
        tracked: status
            .tracked
            .iter()
            .map(|(address, metric)| api::Tracked {
                address: *address,
                metric: *metric,
            })
            .collect(),
        refused: api::Page {
            items,
            total: total as u64,
            next_cursor,
        },
    })
}
