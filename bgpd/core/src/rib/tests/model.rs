//! Random steps: what every neighbour knows in the end is what a plain recomputation says.

use super::*;

use proptest::prelude::*;

/// What a neighbour holds of labels: by path, or in one path that stands for all.
#[derive(Clone, Debug)]
enum LabelStep {
    Tell { peer: u16, path_id: u32, vni: u32 },
    Withdraw { peer: u16, path_id: u32 },
    NextHop { peer: u16, resolves: bool },
    Read { peer: u16 },
}

/// Two domains' edges and two inner routers, of each sort one without ADD-PATH.
const LABEL_KINDS: [PeerKind; 4] = [IbgpClient, IbgpClient, Ebgp, Ebgp];
const LABEL_ADD_PATH: [bool; 4] = [true, false, true, false];

fn labels_bench() -> Bench {
    let config = RibConfig {
        overlay_administrator: Some(64512),
        ..config()
    };
    Bench::with(
        config,
        Box::new(Joining),
        &LABEL_KINDS,
        LABEL_ADD_PATH.to_vec(),
    )
}

/// A neighbour tells a label of the prefix by one of its paths.
fn tell_label(bench: &mut Bench, peer: u16, path_id: u32, vni: u32) {
    let path: &[u32] = match LABEL_KINDS[usize::from(peer) - 1] {
        Ebgp => &[65000 + u32::from(peer)],
        _ => &[],
    };
    bench.announce(peer, path_id, P, path, |edit| {
        edit.set_large_communities([LargeCommunity::new(64512, vni, u32::from(peer))]);
    });
}

/// Path identifiers are local to whoever sends them: two histories with one end may differ in them.
fn held(bench: &Bench, peer: u16) -> Vec<String> {
    let mut held = bench.told(peer);
    held.sort();
    held
}

fn label_steps() -> impl Strategy<Value = Vec<LabelStep>> {
    // Few paths, and read often: what is wrong shows where the last but one goes.
    let (peer, path_id) = (1u16..=4, 1u32..3);
    let step = prop_oneof![
        3 => (peer.clone(), path_id.clone(), 10001u32..10004)
            .prop_map(|(peer, path_id, vni)| LabelStep::Tell { peer, path_id, vni }),
        6 => (peer.clone(), path_id).prop_map(|(peer, path_id)| LabelStep::Withdraw { peer, path_id }),
        1 => (peer.clone(), any::<bool>())
            .prop_map(|(peer, resolves)| LabelStep::NextHop { peer, resolves }),
        9 => peer.prop_map(|peer| LabelStep::Read { peer }),
    ];
    prop::collection::vec(step, 0..40)
}

/// What is joined into one announcement is a function of the paths that are there: whatever came before, every neighbour
/// holds what it would hold had it been told of the end alone.
fn check_joined_labels(steps: Vec<LabelStep>) {
    let mut bench = labels_bench();
    let mut paths: BTreeMap<(u16, u32), u32> = BTreeMap::new();
    let mut resolves = [true; 4];
    for step in steps {
        match step {
            LabelStep::Tell { peer, path_id, vni } => {
                let path_id = path_id * u32::from(LABEL_ADD_PATH[usize::from(peer) - 1]);
                paths.insert((peer, path_id), vni);
                tell_label(&mut bench, peer, path_id, vni);
            }
            LabelStep::Withdraw { peer, path_id } => {
                let path_id = path_id * u32::from(LABEL_ADD_PATH[usize::from(peer) - 1]);
                paths.remove(&(peer, path_id));
                bench.withdraw(peer, path_id, P);
            }
            LabelStep::NextHop { peer, resolves: it } => resolves[usize::from(peer) - 1] = it,
            LabelStep::Read { peer } => bench.read(peer),
        }
        set_metrics(&mut bench, &resolves);
    }
    bench.read_all();
    let mut plain = labels_bench();
    for ((peer, path_id), vni) in paths {
        tell_label(&mut plain, peer, path_id, vni);
    }
    set_metrics(&mut plain, &resolves);
    plain.read_all();
    for peer in 1..=4 {
        assert_eq!(held(&bench, peer), held(&plain, peer), "neighbour {peer}");
    }
}

fn set_metrics(bench: &mut Bench, resolves: &[bool; 4]) {
    let metrics = (1..).zip(resolves);
    let metrics: Vec<_> = metrics
        .map(|(peer, resolves)| (address(peer), resolves.then_some(0)))
        .collect();
    bench.rib.set_next_hops(&metrics);
}

#[test]
fn a_withdrawn_label_is_withdrawn_from_a_neighbour_without_add_path() {
    let mut bench = labels_bench();
    tell_label(&mut bench, 1, 1, 10001);
    tell_label(&mut bench, 1, 2, 10002);
    bench.read_all();
    let both = format!("{P} 64500 64512:10001:1 64512:10002:1");
    assert_eq!(bench.told(4), [both]);
    // Neither is the best path any the less for it: the labels of the announcement are what changes.
    bench.withdraw(1, 2, P);
    bench.read_all();
    assert_eq!(bench.told(4), [format!("{P} 64500 64512:10001:1")]);
}

#[derive(Clone, Debug)]
enum Step {
    Announce {
        peer: u16,
        path_id: u32,
        prefix: u8,
        path: Vec<u8>,
    },
    Withdraw {
        peer: u16,
        path_id: u32,
        prefix: u8,
    },
    Down {
        peer: u16,
        stale: bool,
    },
    Up {
        peer: u16,
    },
    Sweep {
        peer: u16,
    },
    Read {
        peer: u16,
    },
    /// As much as is given at once.
    ReadPiece {
        peer: u16,
    },
    Refresh {
        peer: u16,
    },
    NextHop {
        peer: u16,
        metric: Option<u32>,
    },
    /// Other export policies, at once.
    Policies(Vec<(u16, usize)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = 1u16..=5;
    let path = prop::collection::vec(1u8..4, 0..3);
    let step = prop_oneof![
        8 => (peer.clone(), 1u32..3, 0u8..4, path).prop_map(|(peer, path_id, prefix, path)| Step::Announce { peer, path_id, prefix, path }),
        4 => (peer.clone(), 1u32..3, 0u8..4).prop_map(|(peer, path_id, prefix)| Step::Withdraw { peer, path_id, prefix }),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, stale)| Step::Down { peer, stale }),
        2 => peer.clone().prop_map(|peer| Step::Up { peer }),
        1 => peer.clone().prop_map(|peer| Step::Sweep { peer }),
        4 => peer.clone().prop_map(|peer| Step::Read { peer }),
        8 => peer.clone().prop_map(|peer| Step::ReadPiece { peer }),
        1 => peer.clone().prop_map(|peer| Step::Refresh { peer }),
        1 => (peer.clone(), prop::option::of(0u32..3)).prop_map(|(peer, metric)| Step::NextHop { peer, metric }),
        3 => prop::collection::vec((peer, 0usize..5), 1..4).prop_map(Step::Policies),
    ];
    prop::collection::vec(step, 0..60)
}

/// Runs the steps, and holds what every neighbour was told against what the table says it should know.
fn check_against_model(steps: Vec<Step>, add_path: bool) {
    let kinds = [Ebgp, Ebgp, Ibgp, IbgpClient, IbgpClient];
    let mut bench = Bench::new(&kinds, add_path);
    let mut is_up = [true; 5];
    let policies = super::policy::samples();
    let mut exports = [0; 5];
    let prefix = |n: u8| format!("10.0.{n}.0/24");
    for step in steps {
        match step {
            Step::Announce {
                peer,
                path_id,
                prefix: n,
                path,
            } if is_up[usize::from(peer) - 1] => {
                let mut path: Vec<u32> = path.into_iter().map(u32::from).collect();
                if kinds[usize::from(peer) - 1] == Ebgp {
                    path.insert(0, 65000 + u32::from(peer));
                }
                bench.announce(
                    peer,
                    path_id * u32::from(add_path),
                    &prefix(n),
                    &path,
                    |_| {},
                );
            }
            Step::Withdraw {
                peer,
                path_id,
                prefix: n,
            } if is_up[usize::from(peer) - 1] => {
                bench.withdraw(peer, path_id * u32::from(add_path), &prefix(n));
            }
            Step::Down { peer, stale } if is_up[usize::from(peer) - 1] => {
                is_up[usize::from(peer) - 1] = false;
                bench.told[usize::from(peer) - 1].clear();
                let families = if stale {
                    vec![Family::Ipv4Unicast]
                } else {
                    Vec::new()
                };
                bench.rib.peer_down(
                    PeerId(peer),
                    PeerDown::KeepStale {
                        families,
                        older: false,
                    },
                );
            }
            Step::Up { peer } if !is_up[usize::from(peer) - 1] => {
                is_up[usize::from(peer) - 1] = true;
                bench.rib.peer_up(PeerId(peer), up(peer, add_path));
            }
            Step::Sweep { peer } => bench.rib.sweep_stale(PeerId(peer), Family::Ipv4Unicast),
            Step::Read { peer } => bench.read(peer),
            Step::ReadPiece { peer } => drop(bench.read_piece(peer)),
            Step::Refresh { peer } => bench.rib.readvertise(PeerId(peer), Family::Ipv4Unicast),
            Step::NextHop { peer, metric } => bench.rib.set_next_hops(&[(address(peer), metric)]),
            Step::Policies(changes) => {
                // The last word on a neighbour counts.
                for (peer, policy) in changes {
                    exports[usize::from(peer) - 1] = policy;
                }
                let changes = (1..).zip(exports);
                let changes: Vec<_> = changes
                    .map(|(peer, policy)| (PeerId(peer), policies[policy].clone()))
                    .collect();
                bench.rib.set_exports(&changes);
            }
            _ => {}
        }
    }
    bench.read_all();
    let routes = bench.rib.routes(&RouteFilter::default(), 100).routes;
    for (peer, kind) in (1u16..).zip(kinds) {
        let mut expected: Vec<(IpNet, String)> = Vec::new();
        if is_up[usize::from(peer) - 1] {
            for route in &routes {
                for path in &route.paths {
                    let source = kinds[usize::from(path.source.0) - 1];
                    let wanted = if add_path {
                        path.lost != Some(Reason::NextHopUnreachable)
                    } else {
                        path.lost.is_none()
                    };
                    let reflected = !(source == Ibgp && kind == Ibgp);
                    if wanted && path.source.0 != peer && reflected {
                        let policy = &policies[exports[usize::from(peer) - 1]];
                        let inner = super::policy::exported(policy, route.prefix, path, &kinds);
                        let Some(inner) = inner else {
                            continue;
                        };
                        let path = if kind == Ebgp {
                            format!("{OWN} {inner}").trim().to_owned()
                        } else {
                            inner
                        };
                        expected.push((route.prefix, path));
                    }
                }
            }
        }
        expected.sort();
        let mut told: Vec<(IpNet, String)> = bench.told[usize::from(peer) - 1]
            .iter()
            .map(|((prefix, _), (path, _))| ((*prefix).into(), path.clone()))
            .collect();
        told.sort();
        assert_eq!(told, expected, "neighbour {peer}");
    }
    // Everything goes when everybody goes.
    for peer in 1..=5 {
        bench.rib.peer_down(PeerId(peer), PeerDown::Flush);
    }
    assert_eq!(bench.rib.prefixes(), [0, 0]);
    assert_eq!(
        bench.rib.attribute_sets(),
        0,
        "no set of attributes outlives its routes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_neighbour_knows_what_it_should(steps in steps()) {
        check_against_model(steps, false);
    }

    #[test]
    fn joined_labels_follow_from_the_paths_alone(steps in label_steps()) {
        check_joined_labels(steps);
    }

    #[test]
    fn every_neighbour_knows_what_it_should_with_add_path(steps in steps()) {
        check_against_model(steps, true);
    }
}
