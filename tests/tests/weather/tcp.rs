//! TCP over a way that gets narrow under it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::faults::HOLE;
use super::sky::{Act, act, routed};
use super::{PROGRAMS, need};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A router on the way says what fits, or drops without a word: a connection that was there before goes on, and a new one is as good.
#[test]
fn tcp_goes_on_when_the_way_gets_narrow_with_or_without_a_word() {
    if !need(&PROGRAMS) {
        return;
    }
    let lab = routed();
    let connect = || {
        let listener = lab.in_node("red-x", || TcpListener::bind("10.0.2.10:0").unwrap());
        let to = listener.local_addr().unwrap();
        let client = lab.in_node("red-r", || TcpStream::connect(to).unwrap());
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    };
    let both_ways = |(one, other): (&TcpStream, &TcpStream)| {
        carry(one, other);
        carry(other, one);
    };
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
        both_ways((&client, &server));
        strike
            .iter()
            .for_each(|one| assert!(act(&lab, one), "{name}"));
        let start = Instant::now();
        both_ways((&client, &server));
        eprintln!("{name}: TCP went on within {:?}", start.elapsed());
        let (client, server) = connect();
        both_ways((&client, &server));
        restore
            .iter()
            .for_each(|one| assert!(act(&lab, one), "{name}"));
        let (client, server) = connect();
        both_ways((&client, &server));
    }
}

/// What goes in comes out.
fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    const OCTETS: usize = 100_000;
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&[7; OCTETS]).unwrap());
        to.read_exact(&mut vec![0; OCTETS]).unwrap();
    });
}
