//! Groups of neighbours: GoBGP and BIRD join one by connecting, with what the group says; there is a limit, and who goes is forgotten.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::time::Duration;

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, find, need, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn config(limit: u32, policy: &str, more: &str) -> String {
    format!(
        "router: {{ name: hub, router_id: 192.0.2.1, asn: 64601 }}
policies:
  low: [{{ set: {{ local_pref: 50 }}, then: accept }}]
  high: [{{ set: {{ local_pref: 250 }}, then: accept }}]
groups:
  - name: spokes
    asn: 64710
    listen: [10.9.0.0/24]
    limit: {limit}
    password_file: /etc/weft/spokes.key
    import: {policy}
    export: accept
{more}
"
    )
}

/// A spoke that announces `60.NUMBER.0.0/16`.
fn gobgp(lab: &Lab, node: &str, number: u8) -> Daemon {
    let file = lab.path(&format!("{node}.toml"));
    let arguments = ["-f", file.to_str().unwrap(), "--pprof-disable"];
    let daemon = lab.daemon(node, &find("gobgpd").unwrap(), &arguments);
    wait_until("gobgpd takes a route", LIMIT, || {
        let mut gobgp = lab.command(node, find("gobgp").unwrap());
        gobgp.args(["global", "rib", "add", &format!("60.{number}.0.0/16")]);
        gobgp.output().ok()?.status.success().then_some(())
    });
    daemon
}

fn gobgp_file(own: &str, hub: &str, secret: &str) -> String {
    format!(
        "[global.config]
  as = 64710
  router-id = \"{own}\"
[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{hub}\"
    peer-as = 64601
    auth-password = \"{secret}\"
  [neighbors.timers.config]
    connect-retry = 1
    idle-hold-time-after-reset = 1
"
    )
}

fn bird(lab: &Lab) -> Daemon {
    let [config, socket] = ["b.conf", "b.ctl"].map(|name| lab.path(name));
    let arguments = [
        "-f",
        "-c",
        config.to_str().unwrap(),
        "-s",
        socket.to_str().unwrap(),
    ];
    lab.daemon("b", &find("bird").unwrap(), &arguments)
}

fn up() -> Lab {
    let mut hub = forwarding(&["eth1 10.9.0.1/30", "eth2 10.9.0.5/30", "eth3 10.9.0.9/30"]);
    hub.push("sh -c 'mkdir -p /etc/weft; echo swordfish > /etc/weft/spokes.key'".to_owned());
    let bird = "router id 10.9.0.10;
protocol device { }
protocol static { ipv4; route 60.3.0.0/16 blackhole; }
protocol bgp hub {
  local 10.9.0.10 as 64710; neighbor 10.9.0.9 as 64601; password \"swordfish\";
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export all; };
}
";
    let files = [
        ("hub.yaml", config(2, "low", "")),
        ("g.toml", gobgp_file("10.9.0.2", "10.9.0.1", "swordfish")),
        ("w.toml", gobgp_file("10.9.0.6", "10.9.0.5", "sturgeon")),
        ("v.toml", gobgp_file("10.9.0.6", "10.9.0.5", "swordfish")),
        ("b.conf", bird.to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text));
    let nodes = [
        ("hub", true, hub),
        ("g", false, forwarding(&["eth1 10.9.0.2/30"])),
        ("w", false, forwarding(&["eth1 10.9.0.6/30"])),
        ("b", false, forwarding(&["eth1 10.9.0.10/30"])),
    ];
    let links = [
        ("hub:eth1", "g:eth1"),
        ("hub:eth2", "w:eth1"),
        ("hub:eth3", "b:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), &files)
}

/// The neighbours, with whether each has a session.
fn neighbors(lab: &Lab) -> Vec<(String, bool)> {
    let all = lab.get("hub", "neighbors");
    let all = all.as_ref().and_then(Value::as_array);
    let all = all.expect("a list of neighbours").iter();
    all.map(|one| {
        let address = one["address"].as_str().unwrap().to_owned();
        (address, one["state"] == "established")
    })
    .collect()
}

fn established(lab: &Lab, address: &str) -> Value {
    wait_until(&format!("a session with {address}"), LIMIT, || {
        let one = lab.neighbor("hub", address)?;
        (one["state"] == "established").then_some(one)
    })
}

#[test]
fn who_connects_joins_a_group_within_its_limit_and_is_forgotten() {
    if !need(&["ip", "curl", "bird", "gobgpd", "gobgp"]) {
        return;
    }
    let lab = up();
    assert_eq!(neighbors(&lab), []);

    // One with another secret is not even heard.
    let stranger = gobgp(&lab, "w", 2);
    let first = gobgp(&lab, "g", 1);
    let neighbor = established(&lab, "10.9.0.2");
    assert_eq!(neighbor["group"], "spokes", "{neighbor}");
    assert_eq!(neighbor["dynamic"], true, "{neighbor}");
    assert_eq!(neighbor["signed"], true, "{neighbor}");
    let second = bird(&lab);
    established(&lab, "10.9.0.10");
    let there = neighbors(&lab);
    assert_eq!(there.len(), 2, "{there:?}");
    let local_pref = |prefix: &str, wanted: u64| {
        wait_until(&format!("{prefix} with {wanted}"), LIMIT, || {
            (lab.paths("hub", prefix).pop()?["local_pref"] == wanted).then_some(())
        });
    };
    local_pref("60.1.0.0/16", 50);
    local_pref("60.3.0.0/16", 50);
    drop(stranger);

    // The group is full.
    let file = lab.path("v.toml");
    std::fs::copy(&file, lab.path("w.toml")).unwrap();
    let third = gobgp(&lab, "w", 2);
    wait_until("a refusal in the log", LIMIT, || {
        lab.log("hub")
            .contains("its group has as many neighbours as it may have")
            .then_some(())
    });
    assert_eq!(neighbors(&lab).len(), 2);

    // Another policy and limit for all of the group: no session ends.
    let told = lab.reload("hub", &config(3, "high", ""));
    assert!(
        told.ends_with("reloaded: 2 neighbours changed, 1 group changed"),
        "{told}"
    );
    local_pref("60.1.0.0/16", 250);
    local_pref("60.3.0.0/16", 250);
    established(&lab, "10.9.0.6");
    local_pref("60.2.0.0/16", 250);
    for address in ["10.9.0.2", "10.9.0.10"] {
        let neighbor = lab.neighbor("hub", address).unwrap();
        assert_eq!(neighbor["flaps"], 0, "{neighbor}");
    }

    // A neighbour in the file has the group's word where it has none of its own; it takes the place of the dynamic one.
    let own = "neighbors:\n  - { address: 10.9.0.6, group: spokes, import: low, description: written down }";
    lab.reload("hub", &config(3, "high", own));
    let neighbor = established(&lab, "10.9.0.6");
    assert_eq!(neighbor["dynamic"], false, "{neighbor}");
    assert_eq!(neighbor["asn"], 64710, "{neighbor}");
    assert_eq!(neighbor["signed"], true, "{neighbor}");
    local_pref("60.2.0.0/16", 50);

    // Who goes is forgotten, with its routes; who is written down is not.
    drop((first, second, third));
    wait_until("nobody but the one of the file", LIMIT * 4, || {
        let there = neighbors(&lab);
        (there == [("10.9.0.6".to_owned(), false)]).then_some(())
    });
    wait_until("no route of a dynamic neighbour", LIMIT, || {
        lab.paths("hub", "60.1.0.0/16").is_empty().then_some(())
    });
}
