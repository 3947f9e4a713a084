//! An underlay that is far, reorders, doubles and loses packets, as netem makes it.

use std::process::Command as Process;

use super::super::*;
use super::domain::{Domain, Mode};
use super::lab::privileged;

const WHAT: &str = "a far and lossy underlay";

/// The middle router restarts twice under traffic: of what the underlay carries nothing is lost, and nothing more arrives than
/// it doubles; another tenant sees none of it. TCP gets everything across an underlay that loses packets.
#[test]
fn a_far_and_lossy_underlay_in_every_mode_that_matters() {
    if !privileged() {
        return;
    }
    let possible = Mode::possible();
    // The plainest, and the one with the most layers.
    let mut others = possible.iter().filter(|mode| mode.v6 && mode.vrf);
    let modes = [Some(Mode::PLAIN), others.next_back().copied()];
    for mode in modes.into_iter().flatten() {
        let mut domain = Domain::new(mode);
        let netem = |domain: &Domain, verb: &str, words: &str| {
            let places = [("a", "wan"), ("b", "wan")];
            places.into_iter().all(|(node, interface)| {
                let command = format!("tc qdisc {verb} dev {interface} root netem {words}");
                domain.lab.try_run(node, &command).status.success()
            })
        };
        if !netem(
            &domain,
            "add",
            "delay 20ms 8ms reorder 25% 50% duplicate 5%",
        ) {
            println!("not on this kernel: {WHAT}");
            return;
        }
        domain.middle.settle();
        domain.lab.run("blue-b", "nft 'add table inet q; add chain inet q i { type filter hook input priority 0; }; add rule inet q i meta l4proto icmp counter'");
        let ping = Process::new("ip")
            .args(["netns", "exec", &domain.lab.ns("red-a")])
            .args(["ping", "-c", "300", "-i", "0.005", "-q", "-W", "2"])
            .arg("10.0.2.10")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        for _ in 0..2 {
            domain.middle.kill();
            domain.start_middle();
            domain.middle.apply(Domain::middle_intent(mode));
            domain.middle.settle();
            assert_eq!(domain.middle.status().refused, [], "{mode}");
        }
        let output = ping.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            told.contains("300 received") && told.contains(" 0% packet loss"),
            "{mode}: {told}"
        );
        assert!(told.contains("duplicates"), "{mode}: {told}");
        let seen = domain.lab.run("blue-b", "nft list chain inet q i");
        assert!(seen.contains("packets 0 bytes 0"), "{mode}: {seen}");

        assert!(netem(
            &domain,
            "change",
            "delay 5ms 2ms loss 2% reorder 25% 50%"
        ));
        for to in ["10.0.2.10:0", "[2001:db8:10:2::10]:0"] {
            carry(&domain, to);
        }
    }
    println!("pings: {WHAT}");
}

/// A mebibyte of TCP, octet by octet.
fn carry(domain: &Domain, to: &'static str) {
    let (mode, lab) = (domain.mode, &domain.lab);
    let listener = lab.inside("red-b", move || std::net::TcpListener::bind(to).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.inside("red-a", move || {
        std::net::TcpStream::connect(address).unwrap()
    });
    let (mut server, _) = listener.accept().unwrap();
    let patience = Some(Duration::from_secs(60));
    server.set_read_timeout(patience).unwrap();
    client.set_write_timeout(patience).unwrap();
    let octets: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_be_bytes).collect();
    let sent = octets.clone();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut client, &sent).unwrap());
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut server, &mut received).unwrap();
    sender.join().unwrap();
    assert!(
        received == octets,
        "{mode}: {to}: {} octets",
        received.len()
    );
}
