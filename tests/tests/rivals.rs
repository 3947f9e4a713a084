//! The same faults of the underlay with Weft, BIRD and FRR as the router, side by side: docs/testing.md has the figures.
//!
//! Asserted is that packets flow again. How many were lost is printed, and decides nothing.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Damage, Flow, Lab, find, frr, need, output, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Where packets go, and how r knows the way.
const DESTINATIONS: [(&str, &str); 3] = [
    ("a route of eBGP", "203.0.113.1:7001"),
    (
        "a default route, which contains its next hop",
        "192.0.2.9:7002",
    ),
    ("a route behind another one of BGP", "198.18.0.1:7003"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    Weft,
    Bird,
    Frr,
}

const WEFT: &str = "router: { name: r, router_id: 192.0.2.1, asn: 64601, default_policy: accept }
install: [203.0.113.0/24, 198.18.0.0/24, 0.0.0.0/0]
neighbors:
  - { address: 198.51.100.2, asn: 65001 }
  - { address: 198.51.100.6, asn: 65002 }
  - { address: 203.0.113.1, asn: 64601, local_address: 192.0.2.1 }
";

const BIRD: &str = "router id 192.0.2.1;
protocol device { }
protocol kernel { ipv4 { import none; export all; }; }
protocol bgp p { local as 64601; neighbor 198.51.100.2 as 65001; connect retry time 1; ipv4 { import all; export none; }; }
protocol bgp q { local as 64601; neighbor 198.51.100.6 as 65002; connect retry time 1; ipv4 { import all; export none; }; }
protocol bgp inside { local 192.0.2.1 as 64601; neighbor 203.0.113.1 as 64601; multihop; connect retry time 1; ipv4 { import all; export none; }; }
";

const FRR: &str = "hostname r
router bgp 64601
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor 198.51.100.2 remote-as 65001
 neighbor 198.51.100.2 timers connect 1
 neighbor 198.51.100.6 remote-as 65002
 neighbor 198.51.100.6 timers connect 1
 neighbor 203.0.113.1 remote-as 64601
 neighbor 203.0.113.1 update-source 192.0.2.1
 neighbor 203.0.113.1 timers connect 1
";

/// What p, q and s announce, each to its neighbour r: always by BIRD, so that only r differs.
fn announcing(asn: u32, neighbor: &str, routes: &[&str], more: &str) -> String {
    let routes: String = routes
        .iter()
        .map(|route| format!("route {route} unreachable; "))
        .collect();
    format!(
        "router id {};
protocol device {{ }}
protocol static {{ ipv4; {routes} }}
protocol bgp r {{ {} as {asn}; neighbor {neighbor} as 64601; connect retry time 1; {more} }}
",
        // Whatever, so that they differ.
        format_args!("192.0.2.{}", asn % 100 + 100),
        if asn == 64601 {
            "local 203.0.113.1"
        } else {
            "local"
        },
    )
}

/// h behind r; p and q between r and s, which has all destinations. The way by p is the better one.
fn up(rival: Rival) -> Lab {
    let between = |near: u8, far: u8| {
        let mut lines = forwarding(&[
            &format!("e1 198.51.100.{near}/30"),
            &format!("e2 198.51.100.{far}/30"),
        ]);
        for address in ["203.0.113.1", "192.0.2.9", "198.18.0.1"] {
            lines.push(format!("ip route add {address} via 198.51.100.{}", far + 1));
        }
        lines.push(format!(
            "ip route add 192.0.2.1 via 198.51.100.{}",
            near - 1
        ));
        lines
    };
    let mut s = forwarding(&[
        "lo 203.0.113.1/32",
        "lo 192.0.2.9/32",
        "lo 198.18.0.1/32",
        "e1 198.51.100.10/30",
        "e2 198.51.100.14/30",
    ]);
    s.push("ip route add 192.0.2.1 via 198.51.100.9".to_owned());
    let r = forwarding(&[
        "lo 192.0.2.1/32",
        "e1 198.51.100.1/30",
        "e2 198.51.100.5/30",
        "h0 10.9.0.1/24",
    ]);
    let h = vec![
        "ip address add 10.9.0.10/24 dev eth1".to_owned(),
        "ip route replace default via 10.9.0.1".to_owned(),
    ];
    let nodes = [
        ("r", rival == Rival::Weft, r),
        ("p", false, between(2, 9)),
        ("q", false, between(6, 13)),
        ("s", false, s),
        ("h", false, h),
    ];
    let links = [
        // Linux may take a second to tell of the carrier of a device that has the same index as the other end's: this one makes them differ.
        ("p:e0", "s:e0"),
        ("r:e1", "p:e1"),
        ("r:e2", "q:e1"),
        ("p:e2", "s:e1"),
        ("q:e2", "s:e2"),
        ("r:h0", "h:eth1"),
    ];
    let both = ["203.0.113.0/24", "0.0.0.0/0"];
    let longer = "ipv4 { import none; export filter { bgp_path.prepend(65002); accept; }; };";
    let all = "ipv4 { import none; export all; };";
    let files = [
        ("r.yaml", WEFT.to_owned()),
        ("bird.conf", BIRD.to_owned()),
        ("bgpd.conf", FRR.to_owned()),
        ("zebra.conf", "hostname r\n".to_owned()),
        ("p.conf", announcing(65001, "198.51.100.1", &both, all)),
        ("q.conf", announcing(65002, "198.51.100.5", &both, longer)),
        (
            "s.conf",
            announcing(
                64601,
                "192.0.2.1",
                &["198.18.0.0/24"],
                &format!("multihop; {all}"),
            ),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text));
    Lab::up(&topology(&nodes, &links), &files)
}

fn bird(lab: &Lab, node: &str, config: &str) -> Daemon {
    let (config, socket) = (lab.path(config), lab.path(&format!("{node}.ctl")));
    let arguments = ["-f", "-c", text(&config), "-s", text(&socket)];
    lab.daemon(node, &find("bird").unwrap(), &arguments)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until a neighbour of r has told it all of its routes.
fn told(lab: &Lab, node: &str, routes: usize) {
    let what = format!("{node} has told r its routes");
    let wanted = format!("{routes} exported");
    wait_until(&what, LIMIT, || {
        let socket = lab.path(&format!("{node}.ctl"));
        let mut birdc = Command::new("birdc");
        birdc.args(["-s", text(&socket), "show", "protocols", "all", "r"]);
        let said = output(&mut birdc);
        (said.contains("Established") && said.contains(&wanted)).then_some(())
    });
}

/// What became of each flow: by p with an address that goes for 2 s, from when it is back; and where p's carrier goes while there is q.
struct Figures {
    blink: Vec<Damage>,
    carrier: Vec<Damage>,
}

fn measure(rival: Rival) -> Figures {
    let lab = up(rival);
    // There is one way first.
    lab.run("q", "ip link set e1 down");
    let _neighbors = ["p", "q", "s"].map(|node| bird(&lab, node, &format!("{node}.conf")));
    let _router = match rival {
        Rival::Weft => Vec::new(),
        Rival::Bird => vec![bird(&lab, "r", "bird.conf")],
        Rival::Frr => frr(&lab, "r").into(),
    };
    let flows = DESTINATIONS.map(|(_, to)| Flow::start(&lab, "h", "s", to.parse().unwrap()));
    // Of what happened at the marks a thousand packets have seen what they are to see.
    let whole = |when: &str, marks: [u64; 3]| {
        wait_until(&format!("{rival:?}: packets flow {when}"), LIMIT, || {
            let mut flows = flows.iter().zip(marks);
            let whole = flows.all(|(flow, mark)| {
                flow.mark() > mark + 1000 && flow.whole_for(Duration::from_millis(500))
            });
            whole.then_some(())
        });
    };
    let now = || flows.each_ref().map(Flow::mark);
    let leads = |gateway: &str| {
        for (_, to) in DESTINATIONS {
            let (address, _) = to.split_once(':').unwrap();
            wait_until(&format!("{rival:?}: {address} by {gateway}"), LIMIT, || {
                let way = lab.run("r", &format!("ip route get {address}"));
                way.contains(&format!("via {gateway} ")).then_some(())
            });
        }
    };
    let damage = |marks: [u64; 3]| {
        let flows = flows.iter().zip(marks);
        flows.map(|(flow, mark)| flow.damage(mark)).collect()
    };
    whole("at the beginning", now());
    lab.run("r", "ip address del 198.51.100.1/30 dev e1");
    std::thread::sleep(Duration::from_secs(2));
    lab.run("r", "ip address add 198.51.100.1/30 dev e1");
    let marks = now();
    whole("after the address is back", marks);
    let blink = damage(marks);
    lab.run("q", "ip link set e1 up");
    told(&lab, "p", 2);
    told(&lab, "q", 2);
    told(&lab, "s", 1);
    // They have been sent; nobody but r knows whether it has read them.
    std::thread::sleep(Duration::from_secs(1));
    leads("198.51.100.2");
    whole("before the carrier is lost", now());
    let marks = now();
    lab.run("p", "ip link set e1 down");
    whole("without p", marks);
    let carrier = damage(marks);
    leads("198.51.100.6");
    Figures { blink, carrier }
}

#[test]
fn packets_flow_again_as_soon_as_with_other_routers() {
    let programs = [
        "ip",
        "bird",
        "birdc",
        "/usr/lib/frr/zebra",
        "/usr/lib/frr/bgpd",
    ];
    if !need(&programs) {
        return;
    }
    let rivals = [Rival::Weft, Rival::Bird, Rival::Frr];
    let figures = rivals.map(measure);
    eprintln!("| fault, packets take | Weft | BIRD | FRR |\n|---|---|---|---|");
    let row = |fault: &str, each: &dyn Fn(&Figures) -> Damage| {
        let cells = figures.each_ref().map(|figures| {
            let damage = each(figures);
            let until = damage.until_whole.as_millis();
            format!("{} lost, {until} ms", damage.lost)
        });
        eprintln!("| {fault} | {} |", cells.join(" | "));
    };
    for (number, (way, _)) in DESTINATIONS.iter().enumerate() {
        row(&format!("carrier lost, {way}"), &|one| one.carrier[number]);
    }
    for (number, (way, _)) in DESTINATIONS.iter().enumerate() {
        row(&format!("address back after 2 s, {way}"), &|one| {
            one.blink[number]
        });
    }
}
