//! AS numbers that a hub is and tells, as BIRD and FRR hear them: another AS of its own (RFC 7705), private ones left out, and a
//! neighbour's own in whose place it puts its own.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, find, frr, need, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn config(bird: &str, frr: &str) -> String {
    format!(
        "router: {{ name: hub, router_id: 192.0.2.1, asn: 64601, default_policy: accept }}
neighbors:
  - {{ address: 10.9.0.2, asn: 65001, passive: true }}
  - {{ address: 10.9.0.6, asn: 64710, passive: true, {bird} }}
  - {{ address: 10.9.0.10, asn: 64720, passive: true, {frr} }}
"
    )
}

fn bird(lab: &Lab, node: &str) -> Daemon {
    let [config, socket] = ["conf", "ctl"].map(|end| lab.path(&format!("{node}.{end}")));
    let arguments = [
        "-f",
        "-c",
        config.to_str().unwrap(),
        "-s",
        socket.to_str().unwrap(),
    ];
    lab.daemon(node, &find("bird").unwrap(), &arguments)
}

fn bird_file(own: &str, asn: u32, hub: (&str, u32), route: &str) -> String {
    let (hub, hub_asn) = hub;
    format!(
        "router id {own};
protocol device {{ }}
protocol static {{ ipv4; route {route} blackhole; }}
protocol bgp hub {{
  local {own} as {asn}; neighbor {hub} as {hub_asn};
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export all; }};
}}
"
    )
}

/// AS_PATH of 60.1.0.0/16 as BIRD has it.
fn at_bird(lab: &Lab) -> Option<String> {
    let socket = lab.path("b.ctl");
    let mut birdc = lab.command("b", find("birdc")?);
    birdc.arg("-s").arg(socket);
    birdc.args(["show", "route", "60.1.0.0/16", "all"]);
    let text = String::from_utf8(birdc.output().ok()?.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("BGP.as_path:"))?;
    Some(line.split_once(": ")?.1.trim().to_owned())
}

/// The same as FRR has it.
fn at_frr(lab: &Lab) -> Option<String> {
    let mut vtysh = lab.command("f", "vtysh");
    vtysh.arg("--vty_socket").arg(lab.directory());
    vtysh.args(["-c", "show bgp ipv4 unicast 60.1.0.0/16 json"]);
    let shown: Value = serde_json::from_slice(&vtysh.output().ok()?.stdout).ok()?;
    Some(shown["paths"][0]["aspath"]["string"].as_str()?.to_owned())
}

fn hears(what: &str, heard: impl Fn() -> Option<String>, wanted: &str) {
    wait_until(&format!("{what} hears {wanted}"), LIMIT, || {
        (heard()? == wanted).then_some(())
    });
}

#[test]
fn a_hub_is_another_as_and_tells_no_private_ones() {
    if !need(&[
        "ip",
        "curl",
        "bird",
        "birdc",
        "vtysh",
        "/usr/lib/frr/zebra",
        "/usr/lib/frr/bgpd",
    ]) {
        return;
    }
    let frr_file = "hostname f
router bgp 64720
 bgp router-id 10.9.0.10
 no bgp ebgp-requires-policy
 neighbor 10.9.0.9 remote-as 64601
 neighbor 10.9.0.9 timers connect 1
 address-family ipv4 unicast
  neighbor 10.9.0.9 activate
 exit-address-family
";
    let src = bird_file("10.9.0.2", 65001, ("10.9.0.1", 64601), "60.1.0.0/16");
    let b = bird_file("10.9.0.6", 64710, ("10.9.0.5", 7), "60.2.0.0/16");
    let files = [
        ("hub.yaml", config("local_as: 7", "private_as: remove")),
        ("src.conf", src),
        ("b.conf", b),
        ("bgpd.conf", frr_file.to_owned()),
        ("zebra.conf", "hostname f\n".to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text));
    let hub = forwarding(&["eth1 10.9.0.1/30", "eth2 10.9.0.5/30", "eth3 10.9.0.9/30"]);
    let nodes = [
        ("hub", true, hub),
        ("src", false, forwarding(&["eth1 10.9.0.2/30"])),
        ("b", false, forwarding(&["eth1 10.9.0.6/30"])),
        ("f", false, forwarding(&["eth1 10.9.0.10/30"])),
    ];
    let links = [
        ("hub:eth1", "src:eth1"),
        ("hub:eth2", "b:eth1"),
        ("hub:eth3", "f:eth1"),
    ];
    let lab = Lab::up(&topology(&nodes, &links), &files);
    let _speakers = (bird(&lab, "src"), bird(&lab, "b"), frr(&lab, "f"));
    hears("BIRD", || at_bird(&lab), "7 64601 65001");
    hears("FRR", || at_frr(&lab), "64601");
    // BIRD's own routes come in by the session with the other AS, as ever.
    wait_until("BIRD's route", LIMIT, || {
        let path = lab.paths("hub", "60.2.0.0/16").pop()?;
        (path["as_path"] == "64710").then_some(())
    });
    let other = config(
        "local_as: { asn: 7, hide_own: true }",
        "private_as: replace",
    );
    lab.reload("hub", &other);
    hears("BIRD", || at_bird(&lab), "7 65001");
    hears("FRR", || at_frr(&lab), "64601 64601");
}
