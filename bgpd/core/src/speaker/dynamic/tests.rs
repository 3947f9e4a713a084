#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
use std::collections::BTreeSet;

use weft_bgp_policy::RoutePolicy;
use weft_bgp_wire::{Asn, Family, RouterId};

use super::*;
use crate::rib::PlainBgp;
use crate::session::ConnectionId;
use crate::speaker::{Action, SpeakerConfig};

fn template() -> NeighborConfig {
    NeighborConfig {
        address: [0, 0, 0, 0].into(),
        port: 179,
        asn: Asn(64710),
        description: None,
        group: None,
        local_address: None,
        local_address_v6: None,
        passive: false,
        ttl: 1,
        least_ttl: None,
        password: None,
        next_password: None,
        hold_time: Duration::from_secs(90),
        connect_retry: Duration::from_secs(30),
        families: vec![Family::Ipv4Unicast],
        add_path_send: false,
        add_path_receive: false,
        graceful_restart: Some(120),
        route_reflector_client: false,
        next_hop_self: true,
        import: RoutePolicy::Accept,
        export: RoutePolicy::Accept,
        max_prefixes: None,
        max_paths: 1,
        allow_own_as: 0,
        as_path: Default::default(),
        enforce_first_as: true,
        accept_martians: false,
        import_class: 0,
        export_class: 0,
        role: None,
        role_strict: false,
        shutdown: None,
    }
}

fn group(name: &str, prefixes: &[&str], limit: u32) -> DynamicGroup {
    DynamicGroup {
        name: name.into(),
        prefixes: prefixes.iter().map(|one| one.parse().unwrap()).collect(),
        limit,
        template: template(),
    }
}

fn speaker(helpers: Option<&[&str]>, now: Instant) -> Speaker {
    let helpers = helpers.map(|all| all.iter().map(|one| one.parse().unwrap()).collect());
    let config = SpeakerConfig {
        asn: Asn(64601),
        router_id: RouterId([192, 0, 2, 1].into()),
        cluster_id: [192, 0, 2, 1].into(),
        overlay_administrator: None,
        report: Vec::new(),
        restarting: helpers.is_some(),
        awaits_routes: false,
        deferral: Duration::from_secs(120),
        helpers,
        seed: 1,
    };
    Speaker::new(config, Box::new(PlainBgp), now)
}

fn address(last: u8) -> IpAddr {
    [10, 9, 0, last].into()
}

fn present(speaker: &Speaker) -> BTreeSet<IpAddr> {
    speaker.dynamic().into_iter().map(|(one, _)| one).collect()
}

#[test]
fn who_connects_is_a_neighbour_within_the_limit_and_is_forgotten_when_it_goes() {
    let start = Instant::now();
    let mut speaker = speaker(None, start);
    speaker.set_dynamic(vec![
        group("all", &["10.9.0.0/24"], 2),
        group("some", &["10.9.0.128/25"], 1),
    ]);
    let other: IpAddr = [10, 8, 0, 1].into();
    assert_eq!(
        speaker.accept_dynamic(other, start),
        Err(DynamicRefusal::NoGroup)
    );
    let connect = |speaker: &mut Speaker, last: u8, now| {
        let peer = speaker.accept_dynamic(address(last), now)?;
        let id = ConnectionId(last.into());
        speaker.handle_accepted(peer, id, other.into(), now);
        Ok::<_, DynamicRefusal>(peer)
    };
    connect(&mut speaker, 1, start).unwrap();
    let second = connect(&mut speaker, 2, start).unwrap();
    assert_eq!(
        connect(&mut speaker, 3, start),
        Err(DynamicRefusal::Full {
            group: "all".into(),
            limit: 2
        })
    );
    // The longest prefix's group has room of its own.
    let long = connect(&mut speaker, 200, start).unwrap();
    assert_eq!(
        speaker.config_of(long).unwrap().group.as_deref(),
        Some("some")
    );
    assert!(speaker.config_of(long).unwrap().passive);

    // A connection that goes makes room for another one, for the same group under the same number.
    speaker.handle_closed(ConnectionId(2), "gone".into(), start);
    assert_eq!(connect(&mut speaker, 3, start), Ok(second));
    assert_eq!(
        present(&speaker),
        [1, 3, 200].map(address).into_iter().collect()
    );

    // Who says nothing is not waited for.
    let later = start + LINGER;
    assert!(speaker.poll_timeout().unwrap() <= later);
    speaker.handle_timeout(later);
    assert_eq!(present(&speaker), BTreeSet::new());
    let closed = std::iter::from_fn(|| speaker.poll_action())
        .filter(|action| matches!(action, Action::Close(_)))
        .count();
    assert_eq!(closed, 3);
}

#[test]
fn a_reload_keeps_those_that_still_belong() {
    let now = Instant::now();
    let mut speaker = speaker(None, now);
    speaker.set_dynamic(vec![group("all", &["10.9.0.0/24"], 10)]);
    for last in [1, 2, 200] {
        speaker.accept_dynamic(address(last), now).unwrap();
    }
    // One is written down now, one does not belong any more, one has another description.
    let mut changed = group("all", &["10.9.0.0/25"], 10);
    changed.template.description = Some("a customer".into());
    speaker.set_dynamic(vec![changed]);
    let written = NeighborConfig {
        address: address(1),
        ..template()
    };
    let changes = speaker.set_neighbors(vec![written], now);
    assert_eq!(
        (changes.added, changes.removed, changes.restarted),
        (0, 1, 1)
    );
    assert_eq!(changes.changed, 1);
    assert_eq!(present(&speaker), [address(2)].into_iter().collect());
    let status = speaker.neighbors().into_iter();
    let status: Vec<_> = status
        .map(|one| (one.config.address, one.dynamic, one.config.description))
        .collect();
    assert!(status.contains(&(address(1), false, None)), "{status:?}");
    assert!(
        status.contains(&(address(2), true, Some("a customer".into()))),
        "{status:?}"
    );
    speaker.set_dynamic(Vec::new());
    let changes = speaker.set_neighbors(Vec::new(), now);
    assert_eq!(changes.removed, 2);
    assert!(speaker.neighbors().is_empty());
}

/// A restart waits for the routes of a dynamic neighbour that had a session before, as for any other's.
#[test]
fn a_restart_waits_for_dynamic_neighbours_that_were_there() {
    let now = Instant::now();
    let mut speaker = speaker(Some(&["10.9.0.7", "10.8.0.1"]), now);
    speaker.set_dynamic(vec![group("all", &["10.9.0.0/24"], 10)]);
    speaker.expect_dynamic(now);
    assert_eq!(speaker.awaited(now).unwrap().neighbors, [address(7)]);
    // One that does not come is given up as those that cannot be reached are, and forgotten at last.
    let late = now + Duration::from_secs(16);
    speaker.handle_timeout(late);
    assert!(speaker.has_converged());
    speaker.handle_timeout(now + Duration::from_secs(121));
    assert!(speaker.dynamic().is_empty());
}
