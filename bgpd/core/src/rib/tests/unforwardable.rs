//! Routes that the kernel refuses.

use super::*;

const VNIS: [u32; 2] = [10001, 10002];

fn refused(underlay: bool, vnis: &[u32]) -> Option<Unforwardable> {
    let vnis = vnis.iter().copied().collect();
    Some(Unforwardable { underlay, vnis })
}

fn set(bench: &mut Bench, tables: Option<Unforwardable>) {
    let prefix = P.parse::<IpNet>().unwrap();
    bench.rib.set_unforwardable(vec![(prefix, tables)]);
}

/// Which of the neighbours knows the prefix.
fn knows(bench: &mut Bench) -> Vec<bool> {
    bench.read_all();
    let peers = 1..=bench.kinds.len() as u16;
    peers.map(|peer| !bench.told(peer).is_empty()).collect()
}

#[test]
fn who_would_send_packets_here_is_not_told_of_what_the_kernel_refuses() {
    // Three inside: by a route of the first neighbour they send packets here, by one of the fourth they do not.
    let kinds = [Ebgp, Ebgp, Ibgp, IbgpClient];
    let mut bench = Bench::new(&kinds, false);
    bench.announce(1, 0, P, &[65001], |_| {});
    assert_eq!(knows(&mut bench), [false, true, true, true]);
    set(&mut bench, refused(true, &[]));
    assert_eq!(knows(&mut bench), [false; 4]);
    // What comes meanwhile is held back, too.
    bench.announce(1, 0, P, &[65001, 1], |_| {});
    assert_eq!(knows(&mut bench), [false; 4]);
    set(&mut bench, None);
    assert_eq!(knows(&mut bench), [false, true, true, true]);
    bench.withdraw(1, 0, P);
    bench.announce(4, 0, P, &[65009], |_| {});
    assert_eq!(knows(&mut bench), [true, true, true, false]);
    set(&mut bench, refused(true, &[]));
    assert_eq!(knows(&mut bench), [false, false, true, false]);
    // Of a tenant's table, and of another prefix, it is nothing to routes without labels.
    set(&mut bench, refused(false, &VNIS));
    assert_eq!(knows(&mut bench), [true, true, true, false]);
    let other = "203.0.113.0/24".parse().unwrap();
    bench
        .rib
        .set_unforwardable(vec![(other, refused(true, &[]))]);
    assert_eq!(knows(&mut bench), [true, true, true, false]);
}

/// The VNIs that neighbour 3 was told of.
fn labels(bench: &mut Bench) -> Vec<u32> {
    bench.read_all();
    let told = bench.told(3);
    let words = told.iter().flat_map(|path| path.split(' '));
    let labels = words.filter_map(|word| word.strip_prefix("64512:"));
    let vnis = labels.filter_map(|label| label.split(':').next()?.parse().ok());
    let mut vnis: Vec<u32> = vnis.collect();
    vnis.sort_unstable();
    vnis
}

#[test]
fn a_tenants_label_is_kept_back_and_those_of_others_are_not() {
    for add_path in [false, true] {
        let config = RibConfig {
            overlay_administrator: Some(64512),
            ..config()
        };
        let kinds = [Ibgp, Ibgp, Ebgp];
        let mut bench = Bench::with(config, Box::new(Joining), &kinds, vec![add_path; 3]);
        for (peer, vni) in (1..).zip(VNIS) {
            bench.announce(peer, u32::from(peer), P, &[], |edit| {
                edit.set_large_communities([LargeCommunity::new(64512, vni, 1)]);
            });
        }
        assert_eq!(labels(&mut bench), VNIS, "{add_path}");
        for (kept_back, left) in [(VNIS[0], VNIS[1]), (VNIS[1], VNIS[0])] {
            set(&mut bench, refused(false, &[kept_back]));
            assert_eq!(labels(&mut bench), [left], "{add_path}");
        }
        set(&mut bench, refused(false, &VNIS));
        assert_eq!(labels(&mut bench), [0_u32; 0], "{add_path}");
        // A route in the main table is not what packets of tenants take.
        set(&mut bench, refused(true, &[]));
        assert_eq!(labels(&mut bench), VNIS, "{add_path}");
        set(&mut bench, None);
        assert_eq!(labels(&mut bench), VNIS, "{add_path}");
    }
}
