use super::*;
use crate::RANGE;
use crate::netlink::octets::{HEADER, attribute, attribute_u32, message};

const OURS: u8 = 87;
const OWN_PORT: u32 = 7;
const BOOT: u8 = 3;
const TABLE: u32 = RANGE + 10001;

/// What somebody at a port is told to have done.
fn event(kind: u16, flags: libc::c_int, port: u32, body: impl FnOnce(&mut Vec<u8>)) -> Changes {
    let mut out = Vec::new();
    message(&mut out, kind, flags as u16, 0, body);
    out[HEADER - 4..HEADER].copy_from_slice(&port.to_ne_bytes());
    classify(&out, OURS, OWN_PORT)
}

/// A route to 10.0.2.0/24.
fn route(kind: u16, flags: libc::c_int, protocol: u8, table: u32, metric: u32) -> Changes {
    event(kind, flags, 1234, |out| {
        let header = [libc::AF_INET as u8, 24, 0, 0, 0, protocol];
        out.extend(header);
        out.extend([0, libc::RTN_BLACKHOLE, 0, 0, 0, 0]);
        attribute_u32(out, libc::RTA_TABLE, table);
        attribute(out, libc::RTA_DST, &[10, 0, 2, 0]);
        attribute_u32(out, libc::RTA_PRIORITY, metric);
    })
}

fn key(table: u32, metric: u32) -> RouteKey {
    RouteKey {
        table,
        prefix: "10.0.2.0/24".parse().unwrap(),
        metric,
    }
}

#[test]
fn a_route_in_the_place_of_ours_is_told_whoever_signed_it() {
    let main = u32::from(libc::RT_TABLE_MAIN);
    let places = |changes: Changes| changes.places.into_iter().collect::<Vec<_>>();
    let (new, gone) = (libc::RTM_NEWROUTE, libc::RTM_DELROUTE);
    for (table, metric) in [(TABLE, 0), (main, 200)] {
        let replaced = route(new, libc::NLM_F_REPLACE, BOOT, table, metric);
        assert_eq!(places(replaced), [key(table, metric)]);
        let removed = route(gone, 0, BOOT, table, metric);
        assert_eq!(places(removed), [key(table, metric)]);
        assert_eq!(places(route(new, 0, BOOT, table, metric)), []);
        assert!(route(gone, 0, OURS, table, metric).drift);
    }
    // What other routing daemons do all day is nothing to us.
    let other = route(new, libc::NLM_F_REPLACE, 186, main, 20);
    assert!(places(other).is_empty());
}

#[test]
fn next_hops_and_neighbours_are_told_whoever_signed_them() {
    let next_hop = |id: u32| {
        event(RTM_NEWNEXTHOP, libc::NLM_F_REPLACE, 1234, |out| {
            out.extend([libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]);
            attribute_u32(out, 1, id);
        })
    };
    assert_eq!(next_hop(RANGE + 5).next_hops, BTreeSet::from([RANGE + 5]));
    assert_eq!(next_hop(5).next_hops, BTreeSet::new());
    let neighbour = |kind: u16, port: u32| {
        let changes = event(kind, 0, port, |out| {
            out.extend([libc::AF_INET as u8, 0, 0, 0]);
            out.extend(9_u32.to_ne_bytes());
            out.extend([0; 4]);
        });
        changes.neighbours
    };
    assert_eq!(neighbour(libc::RTM_NEWNEIGH, 1234), BTreeSet::from([9]));
    assert_eq!(neighbour(libc::RTM_DELNEIGH, 0), BTreeSet::from([9]));
    // The kernel itself, and we.
    for port in [0, OWN_PORT] {
        assert_eq!(neighbour(libc::RTM_NEWNEIGH, port), BTreeSet::new());
    }
}

#[test]
fn too_many_places_are_everything() {
    let mut changes = Changes::default();
    for metric in 0..=MOST as u32 {
        changes.add(Changes {
            places: BTreeSet::from([key(TABLE, metric)]),
            ..Changes::default()
        });
    }
    assert!(changes.drift && changes.places.is_empty());
}
