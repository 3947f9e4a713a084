//! TCP over a way that gets narrow under it, and wide again.

use std::time::{Duration, Instant};

use weft_tests::tcp::{carry_both_ways, connect};
use weft_tests::{Lab, wait_until};

use super::faults::HOLE;
use super::sky::{Act, act, routed};
use super::{PROGRAMS, need};

/// Until a way that is wide again is known to be: first it is tried after five seconds, then after twice as long each time.
const RISES: Duration = Duration::from_secs(90);

/// A router on the way says what fits, or drops without a word: a connection that was there before goes on, and a new one is as good. The
/// way gets wide again, and nobody has the kernel forget what it was: both routers find out.
#[test]
fn tcp_goes_on_when_the_way_gets_narrow_with_or_without_a_word() {
    if !need(&PROGRAMS) {
        return;
    }
    let lab = routed();
    // Each packet is one segment, as on a wire: what drops by size would drop several at once.
    for (node, link) in [("r", "e1"), ("r", "e2"), ("x", "e1"), ("x", "e2")] {
        lab.run(node, &format!("ip link set dev {link} gso_max_segs 1"));
    }
    let connect = || connect(&lab, "red-r", ("red-x", "10.0.2.10:0".parse().unwrap()));
    let narrow = [Act::Run("m", "ip link set e2 mtu 1400")];
    let wide = [Act::Run("m", "ip link set e2 mtu 1500")];
    let filled = [Act::Run("m", "nft delete table inet hole")];
    let cases: [(&str, &[Act], &[Act]); 2] = [
        ("a router on the way says what fits", &narrow, &wide),
        ("a router on the way drops without a word", &[HOLE], &filled),
    ];
    wait_until_wide(&lab);
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
        let start = Instant::now();
        wait_until_wide(&lab);
        eprintln!(
            "{name}: the way was wide again within {:?}",
            start.elapsed()
        );
        // Hosts remember what they were told, as they should: not what is shown here.
        for host in ["red-r", "red-x"] {
            lab.run(host, "ip route flush cache");
        }
        let (client, server) = connect();
        carry_both_ways((&client, &server));
    }
}

/// Neither router takes the way for narrow.
fn wait_until_wide(lab: &Lab) {
    for node in ["r", "x"] {
        wait_until(&format!("{node} finds the way wide"), RISES, || {
            let status = lab.get(node, "status")?;
            let narrow = status.to_string().contains("path-mtu");
            (!narrow).then_some(())
        });
    }
}
