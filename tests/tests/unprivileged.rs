//! A router that may not use BPF, as in a container with CAP_NET_ADMIN alone: it forwards and parts tenants by rules and
//! nftables, and takes back what an earlier process with BPF left.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use weft_tests::topology::two_domains;
use weft_tests::{Lab, need, wait_until, weft};

#[test]
fn without_bpf_tenants_are_forwarded_and_kept_apart() {
    if !need(&["ip", "curl", "ping", "setpriv", "nft"]) {
        return;
    }
    let topology = two_domains(true, &[]);
    let lab = Lab::up(&topology.text, &topology.files);
    for node in ["a1", "ea", "eb", "b1"] {
        lab.converged(node);
    }
    for host in ["red-a", "blue-a"] {
        lab.reaches(host, "10.0.2.10");
    }
    // With BPF nftables only drops what has no mark; without it keeps tenants apart, by their interfaces.
    let keeps_apart = || {
        let rules = lab.run("b1", "nft list ruleset");
        assert!(rules.contains("table inet weft"), "{rules}");
        rules.contains("set inside")
    };
    assert!(!keeps_apart(), "BPF does it all");
    // The same router again, without the capabilities that BPF takes.
    lab.kill("b1");
    let config = lab.path("b1.yaml");
    let program = weft();
    let arguments = [
        "--bounding-set=-sys_admin,-bpf,-perfmon",
        "--inh-caps=-sys_admin,-bpf,-perfmon",
        program.to_str().unwrap(),
        "router",
        "--config",
        config.to_str().unwrap(),
    ];
    let router = lab.daemon("b1", Path::new("/usr/bin/setpriv"), &arguments);
    lab.converged("b1");
    assert!(router.log().contains("no BPF"), "{}", router.log());
    for host in ["red-a", "blue-a"] {
        lab.reaches(host, "10.0.2.10");
    }
    wait_until("the table of nftables", Duration::from_secs(20), || {
        keeps_apart().then_some(())
    });
    let rules = lab.run("b1", "ip rule");
    assert!(rules.contains("tun_id 10001"), "{rules}");
    // Each tenant's host still answers its own only: red's has what blue's has not.
    lab.run("red-b", "ip address add 203.0.113.5/32 dev lo");
    lab.run(
        "b1",
        "ip route add 203.0.113.5/32 via 10.0.2.10 dev red0 table 1459627793",
    );
    lab.run("b1", "ip address add 203.0.113.6/32 dev red0");
    let pings = |host: &str, to: &str| {
        let mut ping = lab.command(host, "ping");
        let output = ping.args(["-c1", "-W1", to]).output().unwrap();
        output.status.success()
    };
    wait_until("red reaches its own", Duration::from_secs(20), || {
        pings("red-b", "203.0.113.6").then_some(())
    });
    assert!(!pings("blue-b", "203.0.113.6"), "an address of red's");
    // And back again: the rules go, nothing is lost.
    router.stop(Signal::SIGKILL);
    lab.start("b1");
    lab.converged("b1");
    wait_until("no rules between tenants", Duration::from_secs(20), || {
        (!keeps_apart()).then_some(())
    });
    let rules = lab.run("b1", "ip rule");
    assert!(!rules.contains("tun_id"), "{rules}");
    for host in ["red-a", "blue-a"] {
        lab.reaches(host, "10.0.2.10");
    }
    assert!(!pings("blue-b", "203.0.113.6"), "an address of red's");
}
