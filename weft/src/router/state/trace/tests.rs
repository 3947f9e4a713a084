use std::net::Ipv4Addr;

use weft_dataplane::TunnelTrace;
use weft_overlay::intent::ForwardingNextHop;
use weft_overlay::label::{Endpoint, Label, LabelKind};
use weft_overlay::origins::Origin;
use weft_overlay::table::{Candidate, Judged, Preference, TenantRouteStatus};
use weft_overlay::{Encapsulation, Vni};

use super::*;

const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 21);

fn intended(local: bool) -> TenantRouteStatus {
    let vni = Vni::new(10001).unwrap();
    let candidate = Candidate {
        label: Label {
            kind: LabelKind::Tenant,
            vni,
            encapsulation: Encapsulation::Vxlan,
            endpoint: Endpoint::V4(FAR),
        },
        forwarding: Some(ForwardingNextHop {
            vni,
            encapsulation: Encapsulation::Vxlan,
            port: None,
            address: FAR.into(),
            endpoint_id: None,
        }),
        via: Endpoint::V4(FAR),
        encapsulation: Encapsulation::Vxlan,
        stitched: false,
        origin: Origin::Unchecked,
        source: 1,
        path_id: 1,
        preference: Preference {
            local_pref: 100,
            med: 0,
            neighbor_as: 0,
            as_path_length: 0,
            origin: 0,
            ebgp: false,
        },
        bandwidth: 0,
    };
    TenantRouteStatus {
        prefix: "10.0.2.0/24".parse().unwrap(),
        local,
        candidates: if local {
            Vec::new()
        } else {
            vec![Judged {
                candidate,
                lost: None,
            }]
        },
    }
}

fn found(table: u32) -> KernelMatch {
    KernelMatch {
        table,
        prefix: None,
        local: false,
        gateway: None,
        interface: Some("red0".into()),
        next_hop: None,
    }
}

fn kernel(route: Result<KernelMatch, String>, vnis: &[u32]) -> KernelTrace {
    let tunnels = vnis.iter().map(|vni| TunnelTrace {
        next_hop: 1,
        vni: *vni,
        encapsulation: Encapsulation::Vxlan,
        port: None,
        device: "vx0".to_owned(),
        destination: FAR.into(),
        underlay: Ok(found(254)),
        mtu: 1450,
    });
    KernelTrace {
        vrf: None,
        own: None,
        table: 7001,
        route,
        tunnels: tunnels.collect(),
    }
}

#[test]
fn every_way_to_fare_has_its_word() {
    let drop = || Err("Network is unreachable".to_owned());
    let mut unreached = kernel(Ok(found(7001)), &[10001]);
    unreached.tunnels[0].underlay = drop();
    for (route, kernel, code) in [
        (
            Some(intended(false)),
            kernel(Ok(found(7001)), &[10001]),
            api::TraceCode::Forwarded,
        ),
        (
            Some(intended(true)),
            kernel(Ok(found(7001)), &[]),
            api::TraceCode::Delivered,
        ),
        (
            Some(intended(false)),
            unreached,
            api::TraceCode::UnderlayUnreachable,
        ),
        (None, kernel(drop(), &[]), api::TraceCode::NoRoute),
        (
            Some(intended(false)),
            kernel(drop(), &[]),
            api::TraceCode::Differs,
        ),
        (
            Some(intended(false)),
            kernel(Ok(found(7001)), &[10002]),
            api::TraceCode::Differs,
        ),
        (
            Some(intended(false)),
            kernel(Ok(found(7001)), &[]),
            api::TraceCode::Differs,
        ),
        // Through the main table: out of the tenant.
        (None, kernel(Ok(found(254)), &[]), api::TraceCode::Differs),
    ] {
        let verdict = verdict(route.as_ref(), &kernel);
        assert_eq!(verdict.code, code, "{}", verdict.text);
    }
}
