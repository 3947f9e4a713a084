//! TCP over a way that gets narrow under it.

use std::time::Instant;

use weft_tests::tcp::{carry_both_ways, connect};

use super::faults::HOLE;
use super::sky::{Act, act, routed};
use super::{PROGRAMS, need};

/// A router on the way says what fits, or drops without a word: a connection that was there before goes on, and a new one is as good.
#[test]
fn tcp_goes_on_when_the_way_gets_narrow_with_or_without_a_word() {
    if !need(&PROGRAMS) {
        return;
    }
    let lab = routed();
    let connect = || connect(&lab, "red-r", ("red-x", "10.0.2.10:0".parse().unwrap()));
    let narrow = [
        Act::Run("m", "ip link set e2 mtu 1400"),
        Act::Run("x", "ip link set e1 mtu 1400"),
    ];
    let wide = [
        Act::Run("m", "ip link set e2 mtu 1500"),
        Act::Run("x", "ip link set e1 mtu 1500"),
        Act::Run("r", "ip route flush cache"),
    ];
    let filled = [Act::Run("m", "nft delete table inet hole")];
    let cases: [(&str, &[Act], &[Act]); 2] = [
        ("a router on the way says what fits", &narrow, &wide),
        ("a router on the way drops without a word", &[HOLE], &filled),
    ];
    for (name, strike, restore) in cases {
        let (client, server) = connect();
        carry_both_ways((&client, &server));
        strike
            .iter()
            .for_each(|one| assert!(act(&lab, one), "{name}"));
        let start = Instant::now();
        carry_both_ways((&client, &server));
        eprintln!("{name}: TCP went on within {:?}", start.elapsed());
        let (client, server) = connect();
        carry_both_ways((&client, &server));
        restore
            .iter()
            .for_each(|one| assert!(act(&lab, one), "{name}"));
        let (client, server) = connect();
        carry_both_ways((&client, &server));
    }
}
