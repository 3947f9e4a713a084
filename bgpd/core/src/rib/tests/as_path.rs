//! AS_PATH towards other ASes: as which AS we speak, and what is not to be told.

use super::*;
use crate::rib::{AsPathEdit, LocalAs, PrivateAs};

/// Neighbour 1, which announces, and neighbour 2, for which AS_PATH is edited so.
fn bench(edit: AsPathEdit) -> Bench {
    let mut bench = Bench::new(&[Ebgp], false);
    let config = PeerConfig {
        as_path: edit,
        ..peer_config(2, Ebgp)
    };
    bench.rib.add_peer(PeerId(2), config);
    bench.rib.peer_up(PeerId(2), up(2, false));
    bench.kinds.push(Ebgp);
    bench.add_path.push(false);
    bench.told.push(BTreeMap::new());
    bench.ends.push(0);
    bench
}

#[test]
fn other_ases_are_told_what_the_configuration_says() {
    let neighbor = peer_config(2, Ebgp).asn.0;
    let first = peer_config(1, Ebgp).asn.0;
    let path = [first, 64_512, 3, 4_200_000_000, neighbor];
    let local = |replaces_own| {
        Some(LocalAs {
            asn: Asn(7),
            replaces_own,
        })
    };
    let private = |private| AsPathEdit {
        private,
        ..AsPathEdit::default()
    };
    let overrides = AsPathEdit {
        overrides: true,
        ..AsPathEdit::default()
    };
    let as_local = |replaces_own, private| AsPathEdit {
        local_as: local(replaces_own),
        private,
        ..AsPathEdit::default()
    };
    for (edit, told) in [
        (
            AsPathEdit::default(),
            format!("64500 {first} 64512 3 4200000000 {neighbor}"),
        ),
        // By its own number the neighbour finds loops.
        (private(PrivateAs::Remove), format!("64500 3 {neighbor}")),
        (
            private(PrivateAs::Replace),
            format!("64500 64500 64500 3 64500 {neighbor}"),
        ),
        (overrides, format!("64500 {first} 64512 3 4200000000 64500")),
        (
            as_local(false, PrivateAs::Keep),
            format!("7 64500 {first} 64512 3 4200000000 {neighbor}"),
        ),
        (
            as_local(true, PrivateAs::Keep),
            format!("7 {first} 64512 3 4200000000 {neighbor}"),
        ),
        (
            as_local(true, PrivateAs::Replace),
            format!("7 7 7 3 7 {neighbor}"),
        ),
    ] {
        let mut bench = bench(edit);
        bench.announce(1, 0, P, &path, |_| {});
        bench.read(2);
        assert_eq!(bench.told(2), [format!("{P} {told}")], "{edit:?}");
    }
}

/// What has come through the AS that we are to a neighbour comes from ourselves.
#[test]
fn a_loop_by_the_local_as_is_found() {
    let mut bench = bench(AsPathEdit {
        local_as: Some(LocalAs {
            asn: Asn(7),
            replaces_own: true,
        }),
        ..AsPathEdit::default()
    });
    let neighbor = peer_config(2, Ebgp).asn.0;
    bench.announce(2, 0, P, &[neighbor, 7, 9], |_| {});
    bench.announce(2, 0, "203.0.113.0/24", &[neighbor, 9], |_| {});
    bench.read(1);
    assert_eq!(
        bench.told(1),
        [format!("203.0.113.0/24 64500 {neighbor} 9")]
    );
}
