//! Routing policies between BIRD and BIRD: nothing passes before somebody says what (RFC 8212), then what policies make of it; and another policy
//! changes no session.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::process::Command;
use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, find, need, output, wait_until, weft};

const LIMIT: Duration = Duration::from_secs(30);

/// b announces, c is told.
const NEIGHBORS: [(&str, &str); 2] = [("b", "10.0.1.2"), ("c", "10.0.2.2")];

fn config(policies: &str, [b, c]: [&str; 2]) -> String {
    format!(
        "router: {{ name: a, router_id: 192.0.2.1, asn: 64601 }}
{policies}
neighbors:
  - {{ address: 10.0.1.2, asn: 2001{b} }}
  - {{ address: 10.0.2.2, asn: 2002{c} }}
"
    )
}

const POLICIES: &str = "
prefix_lists: { ours: [60.1.0.0/16, 60.4.0.0/16] }
as_paths: { detour: '_2003_' }
policies:
  in:
    - { name: detour, match: { as_path: detour }, then: reject }
    - { name: ours, match: { prefixes: ours }, set: { local_pref: 200, communities: { add: ['64601:1', '64601:2:3'] } }, then: accept }
    - { then: accept }
  out:
    - match: { communities: '64601:1' }
      unless: { prefixes: 60.4.0.0/16 }
      set: { prepend: 2, med: 50, communities: { remove: '64601:*', add: '64601:99' } }
      then: accept
    - { match: { prefixes: 60.2.0.0/16 }, then: accept }
";

fn bird(lab: &Lab, node: &str) -> Daemon {
    let (config, socket) = (
        lab.path(&format!("{node}.conf")),
        lab.path(&format!("{node}.ctl")),
    );
    let arguments = [
        "-f",
        "-c",
        config.to_str().unwrap(),
        "-s",
        socket.to_str().unwrap(),
    ];
    lab.daemon(node, &find("bird").unwrap(), &arguments)
}

/// What c holds of a prefix; nothing, where it has no route.
fn held(lab: &Lab, prefix: &str) -> String {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(lab.path("c.ctl"));
    // It fails where there is no route.
    let told = birdc
        .args(["show", "route", "all", prefix])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    if told.contains("BGP.as_path") {
        told
    } else {
        String::new()
    }
}

fn up() -> (Lab, [Daemon; 2]) {
    let a = forwarding(&["lo 192.0.2.1/32", "eth1 10.0.1.1/24", "eth2 10.0.2.1/24"]);
    let (b, c) = (
        forwarding(&["eth1 10.0.1.2/24"]),
        forwarding(&["eth1 10.0.2.2/24"]),
    );
    let speaker = |id: u8, asn: u16, own: &str, other: &str, routes: &str, export: &str| {
        format!(
            "router id 192.0.2.{id};
protocol device {{ }}
protocol static {{ ipv4; {routes} }}
protocol bgp a {{
  local {own} as {asn}; neighbor {other} as 64601; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export {export}; }};
}}
"
        )
    };
    let routes: String = [
        "60.1.0.0/16",
        "60.2.0.0/16",
        "60.3.0.0/25",
        "60.4.0.0/16",
        "60.5.0.0/16",
        "10.0.0.0/8",
    ]
    .iter()
    .map(|prefix| format!("route {prefix} blackhole; "))
    .collect();
    let detour = "filter { if net = 60.5.0.0/16 then bgp_path.prepend(2003); accept; }";
    let files = [
        ("a.yaml", config("", ["", ""])),
        (
            "b.conf",
            speaker(2, 2001, "10.0.1.2", "10.0.1.1", &routes, detour),
        ),
        (
            "c.conf",
            speaker(3, 2002, "10.0.2.2", "10.0.2.1", "", "all"),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text));
    let nodes = [("a", true, a), ("b", false, b), ("c", false, c)];
    let links = [("a:eth1", "b:eth1"), ("a:eth2", "c:eth1")];
    let lab = Lab::up(&topology(&nodes, &links), &files);
    let birds = ["b", "c"].map(|node| bird(&lab, node));
    (lab, birds)
}

fn no_session_ended(lab: &Lab) {
    for (_, address) in NEIGHBORS {
        let neighbor = lab.neighbor("a", address).unwrap();
        assert_eq!(
            (&neighbor["state"], &neighbor["flaps"]),
            (&"established".into(), &0.into()),
            "{neighbor}"
        );
    }
}

#[test]
fn nothing_passes_unless_a_policy_says_so_and_another_one_resets_no_session() {
    if !need(&["ip", "curl", "bird", "birdc"]) {
        return;
    }
    let (lab, _birds) = up();

    // RFC 8212: b has sent everything, and nothing of it is taken or told.
    let b = wait_until("b has announced", LIMIT, || {
        let b = lab.neighbor("a", "10.0.1.2")?;
        (b["policy_rejected"].as_u64()? >= 6).then_some(b)
    });
    assert_eq!(b["import"]["missing"], true, "{b}");
    assert_eq!(b["prefixes"][0]["received"], 0, "{b}");
    wait_until("c has a session", LIMIT, || {
        let c = lab.neighbor("a", "10.0.2.2")?;
        (c["state"] == "established").then_some(())
    });
    assert!(lab.paths("a", "60.1.0.0/16").is_empty());
    assert_eq!(held(&lab, "60.1.0.0/16"), "");
    let warned = lab.log("a");
    assert_eq!(
        warned.matches("RFC 8212").count(),
        2,
        "one line for each neighbour: {warned}"
    );

    // Policies: the sessions stay.
    let words = [
        ", import: [hygiene, in], export: reject",
        ", import: accept, export: out",
    ];
    let told = lab.reload("a", &config(POLICIES, words));
    assert!(told.ends_with("reloaded: 2 neighbours changed"), "{told}");
    let path = wait_until("what is taken", LIMIT, || {
        lab.paths("a", "60.1.0.0/16").pop()
    });
    assert_eq!(path["local_pref"], 200, "{path}");
    assert_eq!(path["communities"][0], "64601:1", "{path}");
    assert_eq!(path["large_communities"][0], "64601:2:3", "{path}");
    let first = wait_until("what c is told", LIMIT, || {
        Some(held(&lab, "60.1.0.0/16")).filter(|held| !held.is_empty())
    });
    for line in [
        "BGP.as_path: 64601 64601 64601 2001",
        "BGP.med: 50",
        "BGP.community: (64601,99)",
        "BGP.large_community: (64601, 2, 3)",
    ] {
        assert!(first.contains(line), "{line}: {first}");
    }
    wait_until("the plain route", LIMIT, || {
        held(&lab, "60.2.0.0/16")
            .contains("BGP.as_path: 64601 2001\n")
            .then_some(())
    });
    // Too long, private, by a detour; and not announced.
    for prefix in ["60.3.0.0/25", "10.0.0.0/8", "60.5.0.0/16"] {
        assert!(lab.paths("a", prefix).is_empty(), "{prefix}");
    }
    assert!(!lab.paths("a", "60.4.0.0/16").is_empty());
    assert_eq!(held(&lab, "60.4.0.0/16"), "");
    no_session_ended(&lab);
    let terms = lab.neighbor("a", "10.0.1.2").unwrap()["import"]["terms"].clone();
    let routes = |policy: &str, term: &str| {
        let mut terms = terms.as_array().unwrap().iter();
        terms
            .find(|one| one["policy"] == policy && one["term"] == term)
            .unwrap()["routes"]
            .clone()
    };
    assert_eq!(routes("bogons", "prefixes"), 1, "{terms}");
    assert_eq!(routes("hygiene", "too-long"), 1, "{terms}");
    assert_eq!(routes("in", "detour"), 1, "{terms}");
    assert_eq!(routes("in", "ours"), 2, "{terms}");

    // The command line comes to the same, from what the router has.
    let mut policy = lab.command("a", weft());
    policy.args(["policy", "test"]).arg(lab.path("a.yaml"));
    let tried = output(policy.args([
        "out",
        "--at",
        "export",
        "--live",
        "--api",
        "http://127.0.0.1:8179",
    ]));
    let line = |prefix: &str| tried.lines().find(|line| line.starts_with(prefix)).unwrap();
    assert!(
        line("60.1.0.0/16").contains("as_path 2001 -> 64601 64601 2001"),
        "{tried}"
    );
    assert!(line("60.4.0.0/16").contains("reject"), "{tried}");

    // Another export policy: what differs is told, in the same session.
    let other = POLICIES.replace("prepend: 2", "prepend: 1").replace(
        "{ match: { prefixes: 60.2.0.0/16 }, then: accept }",
        "{ match: { prefixes: ours }, then: accept }",
    );
    let told = lab.reload("a", &config(&other, words));
    assert!(told.ends_with("reloaded: 1 neighbour changed"), "{told}");
    wait_until("the shorter path", LIMIT, || {
        held(&lab, "60.1.0.0/16")
            .contains("BGP.as_path: 64601 64601 2001\n")
            .then_some(())
    });
    wait_until("the route that goes", LIMIT, || {
        held(&lab, "60.2.0.0/16").is_empty().then_some(())
    });
    wait_until("the route that comes", LIMIT, || {
        (!held(&lab, "60.4.0.0/16").is_empty()).then_some(())
    });

    // A word for all neighbours without a policy, and nobody is heard of any more where it goes.
    let open = config("", ["", ""]).replace("asn: 64601 }", "asn: 64601, default_policy: accept }");
    lab.reload("a", &open);
    wait_until("everything", LIMIT, || {
        (!held(&lab, "60.5.0.0/16").is_empty()).then_some(())
    });
    lab.reload("a", &config("", ["", ""]));
    wait_until("nothing", LIMIT, || {
        held(&lab, "60.1.0.0/16").is_empty().then_some(())
    });
    wait_until("nothing here", LIMIT, || {
        lab.paths("a", "60.1.0.0/16").is_empty().then_some(())
    });
    no_session_ended(&lab);
}
