//! The data plane on the real kernel, in network namespaces of its own.

use std::process::Command as Process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as channel;
use std::time::Duration;

use weft_overlay::intent::{
    ForwardingNextHop, IntentDelta, NextHopSet, TenantIntent, TenantRoute, UnderlayRoute,
};
use weft_overlay::{Encapsulation, Vni};

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: data plane tests need root (CAP_NET_ADMIN, CAP_SYS_ADMIN)");
    }
    root
}

fn ip(words: &str) {
    let output = Process::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Namespaces of one test, gone when it ends however it ends.
struct Lab {
    tag: String,
    names: Vec<String>,
}

impl Lab {
    fn new(names: &[&str]) -> Self {
        let tag = format!(
            "weft-dp-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut lab = Self {
            tag,
            names: Vec::new(),
        };
        for name in names {
            ip(&format!("netns add {}", lab.ns(name)));
            lab.names.push((*name).to_owned());
            lab.run(name, "ip link set lo up");
        }
        lab
    }

    fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    fn try_run(&self, name: &str, command: &str) -> std::process::Output {
        Process::new("ip")
            .args(["netns", "exec", &self.ns(name), "sh", "-c", command])
            .output()
            .unwrap()
    }

    fn run(&self, name: &str, command: &str) -> String {
        let output = self.try_run(name, command);
        assert!(
            output.status.success(),
            "{name}: {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A link between two namespaces: `a:eth0 b:eth0`, with addresses.
    fn link(&self, (a, a_if, a_addr): (&str, &str, &str), (b, b_if, b_addr): (&str, &str, &str)) {
        ip(&format!(
            "link add {a_if} netns {} type veth peer name {b_if} netns {}",
            self.ns(a),
            self.ns(b)
        ));
        for (node, interface, address) in [(a, a_if, a_addr), (b, b_if, b_addr)] {
            self.run(
                node,
                &format!("ip addr add {address} dev {interface} && ip link set {interface} up"),
            );
        }
    }

    /// Starts a data plane in a namespace, on a thread of its own.
    fn start(&self, name: &str, endpoint: Option<[u8; 4]>) -> Router {
        let (calls, inbox) = channel::channel::<Call>();
        let namespace = self.ns(name);
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let config = DataplaneConfig {
                endpoint: endpoint.map(Ipv4Addr::from),
                ..DataplaneConfig::default()
            };
            let (dataplane, mut events) = runtime.block_on(Dataplane::start(config)).unwrap();
            while let Ok(call) = inbox.recv() {
                runtime.block_on(call(&dataplane, &mut events));
            }
            runtime.block_on(dataplane.stop());
        });
        Router {
            calls: Some(calls),
            thread: Some(thread),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Process::new("ip")
                .args(["netns", "del", &self.ns(name)])
                .output();
        }
    }
}

type Call = Box<
    dyn for<'a> FnOnce(
            &'a Dataplane,
            &'a mut mpsc::Receiver<DataplaneEvent>,
        ) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>
        + Send,
>;

struct Router {
    calls: Option<channel::Sender<Call>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Router {
    fn call(&self, call: Call) {
        self.calls.as_ref().unwrap().send(call).unwrap();
    }

    fn apply(&self, delta: IntentDelta) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.apply(delta).await })
        }));
    }

    fn settle(&self) {
        self.call(Box::new(|dataplane, _| Box::pin(dataplane.settle())));
    }

    fn status(&self) -> DataplaneStatus {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                reply.send(dataplane.status().await.unwrap()).unwrap();
            })
        }));
        answer.recv().unwrap()
    }

    /// Takes events until one satisfies.
    fn wait_for(&self, wanted: impl Fn(&DataplaneEvent) -> bool + Send + 'static) {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |_, events| {
            Box::pin(async move {
                let found = async {
                    while let Some(event) = events.recv().await {
                        if wanted(&event) {
                            return true;
                        }
                    }
                    false
                };
                let found = tokio::time::timeout(Duration::from_secs(10), found).await;
                reply.send(found.unwrap_or(false)).unwrap();
            })
        }));
        assert!(answer.recv().unwrap(), "the event did not come");
    }

    fn track(&self, addresses: Vec<IpAddr>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.track(addresses).await })
        }));
    }
}

impl Drop for Router {
    /// The process dies: nothing is cleaned up.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn tenant(
    id: u32,
    name: &str,
    number: u32,
    attachment: Option<&str>,
) -> (TenantId, Option<TenantIntent>) {
    let attachments = attachment.map(str::to_owned).into_iter().collect();
    (
        TenantId(id),
        Some(TenantIntent {
            name: name.into(),
            primary_vni: vni(number),
            vnis: vec![vni(number)],
            attachments,
        }),
    )
}

fn route(id: u32, prefix: &str, number: u32, addresses: &[[u8; 4]]) -> TenantRoute {
    let hops = addresses
        .iter()
        .map(|address| ForwardingNextHop {
            vni: vni(number),
            encapsulation: Encapsulation::Vxlan,
            address: IpAddr::from(*address),
            endpoint_id: None,
        })
        .collect();
    TenantRoute {
        tenant: TenantId(id),
        prefix: prefix.parse().unwrap(),
        next_hops: Some(std::sync::Arc::new(NextHopSet(hops))),
    }
}

/// Two routers with tenants red and blue, which have the same prefixes, and one between that only stitches.
struct Domain {
    lab: Lab,
    a: Router,
    b: Router,
    middle: Router,
}

const A: [u8; 4] = [192, 0, 2, 1];
const M: [u8; 4] = [192, 0, 2, 2];
const B: [u8; 4] = [192, 0, 2, 3];

fn intent_at(prefix: &str, local: bool, to: [u8; 4]) -> IntentDelta {
    IntentDelta {
        tenants: vec![
            tenant(0, "red", 10001, local.then_some("red0")),
            tenant(1, "blue", 10002, local.then_some("blue0")),
        ],
        routes: vec![
            route(0, prefix, 10001, &[to]),
            route(1, prefix, 10002, &[to]),
        ],
        underlay: Vec::new(),
    }
}

fn middle_intent() -> IntentDelta {
    let mut intent = intent_at("10.0.1.0/24", false, A);
    intent
        .routes
        .extend(intent_at("10.0.2.0/24", false, B).routes);
    intent
}

impl Domain {
    fn new() -> Self {
        let lab = Lab::new(&["a", "m", "b", "red-a", "blue-a", "red-b", "blue-b"]);
        lab.link(
            ("a", "wan", "198.51.100.1/30"),
            ("m", "left", "198.51.100.2/30"),
        );
        lab.link(
            ("m", "right", "198.51.100.5/30"),
            ("b", "wan", "198.51.100.6/30"),
        );
        lab.run(
            "a",
            "ip addr add 192.0.2.1/32 dev lo; ip route add 192.0.2.2/32 via 198.51.100.2",
        );
        lab.run("m", "ip addr add 192.0.2.2/32 dev lo; ip route add 192.0.2.1/32 via 198.51.100.1; ip route add 192.0.2.3/32 via 198.51.100.6");
        lab.run(
            "b",
            "ip addr add 192.0.2.3/32 dev lo; ip route add 192.0.2.2/32 via 198.51.100.5",
        );
        for (router, site) in [("a", 1), ("b", 2)] {
            for colour in ["red", "blue"] {
                let host = format!("{colour}-{router}");
                lab.link(
                    (router, &format!("{colour}0"), &format!("10.0.{site}.1/24")),
                    (&host, "eth0", &format!("10.0.{site}.10/24")),
                );
                lab.run(&host, &format!("ip route add default via 10.0.{site}.1"));
            }
        }
        let a = lab.start("a", Some(A));
        let middle = lab.start("m", Some(M));
        let b = lab.start("b", Some(B));
        a.apply(intent_at("10.0.2.0/24", true, M));
        middle.apply(middle_intent());
        b.apply(intent_at("10.0.1.0/24", true, M));
        Self { lab, a, b, middle }
    }

    fn wait(&self) {
        for router in [&self.a, &self.middle, &self.b] {
            // Commands are taken in order, so the answer comes after the change.
            let status = router.status();
            assert_eq!(status.refused, [], "nothing is refused");
        }
    }
}

#[test]
fn tenants_with_one_prefix_talk_to_their_own_only() {
    if !privileged() {
        return;
    }
    let domain = Domain::new();
    domain.wait();
    let lab = &domain.lab;
    for host in ["red-b", "blue-b"] {
        let rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i icmp type echo-request counter";
        lab.run(host, &format!("nft '{rules}'"));
    }
    lab.run("red-a", "ping -c 20 -i 0.02 -W 2 -q 10.0.2.10");
    let count = |host| {
        let text = lab.run(host, "nft list chain inet t i");
        text.split("packets ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!((count("red-b"), count("blue-b")), (20, 0));
    lab.run("blue-a", "ping -c 20 -i 0.02 -W 2 -q 10.0.2.10");
    assert_eq!((count("red-b"), count("blue-b")), (20, 20));
    // The router's own address answers in each tenant, and reports what it cannot carry.
    lab.run("red-a", "ping -c 1 -W 2 -q 10.0.1.1");
    lab.run("blue-a", "ping -c 1 -W 2 -q 10.0.1.1");
    let output = lab.try_run("red-a", "ping -c 1 -W 2 -M do -s 1460 10.0.2.10");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("mtu = 1450"),
        "{output:?}"
    );
    // No route in the tenant's table: no way out by the main one.
    let output = lab.try_run("red-a", "ping -c 1 -W 1 198.51.100.2");
    assert!(!output.status.success());
}

#[test]
fn a_restart_changes_nothing_and_loses_nothing() {
    if !privileged() {
        return;
    }
    let mut domain = Domain::new();
    domain.wait();
    let namespace = domain.lab.ns("red-a");
    let ping = Process::new("ip")
        .args([
            "netns",
            "exec",
            &namespace,
            "ping",
            "-c",
            "600",
            "-i",
            "0.002",
            "-q",
            "-W",
            "2",
            "10.0.2.10",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..2 {
        drop(std::mem::replace(
            &mut domain.middle,
            Router {
                calls: None,
                thread: None,
            },
        ));
        domain.middle = domain.lab.start("m", Some(M));
        domain.middle.apply(middle_intent());
        domain.middle.settle();
        let status = domain.middle.status();
        // The neighbour entries of two peers in two families; nothing else is sent.
        assert_eq!(
            (status.requests, status.refused.len()),
            (4, 0),
            "{status:?}"
        );
        assert_eq!(
            (status.vnis, status.routes),
            (2, 8),
            "4 tenant routes, 4 that end the tables"
        );
    }
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("600 received, 0% packet loss") || text.contains("600 received, 0%"),
        "{text}"
    );
}

#[test]
fn leftovers_go_when_the_intent_is_whole_and_foreign_routes_never() {
    if !privileged() {
        return;
    }
    let mut domain = Domain::new();
    domain.wait();
    domain.lab.run("m", "ip route add 203.0.113.0/24 via 198.51.100.1 table 999 && ip route add 203.0.113.0/24 via 198.51.100.1 && ip rule add pref 77 from 203.0.113.1 lookup 999");
    drop(std::mem::replace(
        &mut domain.middle,
        Router {
            calls: None,
            thread: None,
        },
    ));
    domain.middle = domain.lab.start("m", Some(M));
    let mut less = middle_intent();
    less.tenants.pop();
    less.routes.retain(|route| route.tenant == TenantId(0));
    domain.middle.apply(less);
    assert_eq!(domain.middle.status().vnis, 2, "not before it is said");
    domain.middle.settle();
    let status = domain.middle.status();
    assert_eq!(
        (
            status.vnis,
            status.routes,
            status.next_hops,
            status.refused.len()
        ),
        (1, 4, 2, 0),
        "{status:?}"
    );
    domain
        .lab
        .run("red-a", "ping -c 2 -i 0.1 -W 2 -q 10.0.2.10");
    let routes = domain.lab.run("m", "ip route show table all; ip rule");
    assert_eq!(routes.matches("203.0.113.0/24 via").count(), 2, "{routes}");
    assert!(routes.contains("from 203.0.113.1 lookup 999"));
    // And nothing of ours is left behind in the end.
    drop(std::mem::replace(
        &mut domain.middle,
        Router {
            calls: None,
            thread: None,
        },
    ));
    let namespace = domain.lab.ns("m");
    std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let report = teardown(PROTOCOL).unwrap();
        assert!(report.device && report.routes == 4, "{report:?}");
        assert_eq!(teardown(PROTOCOL).unwrap(), TeardownReport::default());
    })
    .join()
    .unwrap();
    let left = domain.lab.run(
        "m",
        "ip route show table all; ip rule; ip nexthop; ip link; nft list tables",
    );
    assert!(
        !left.contains("proto 87") && !left.contains("vx0") && !left.contains("table inet weft"),
        "{left}"
    );
    assert_eq!(left.matches("203.0.113.0/24 via").count(), 2);
}

#[test]
fn somebody_deletes_what_is_ours_and_it_comes_back() {
    if !privileged() {
        return;
    }
    let domain = Domain::new();
    domain.wait();
    domain.lab.run(
        "m",
        "ip route flush table 1459627793; ip rule del pref 1000; ip nexthop flush",
    );
    let repaired = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let status = domain.middle.status();
        status.repairs > 0 && status.routes == 8 && status.next_hops == 4
    });
    assert!(repaired, "{:?}", domain.middle.status());
    domain
        .lab
        .run("red-a", "ping -c 2 -i 0.1 -W 2 -q 10.0.2.10");
}

#[test]
fn a_refused_route_says_what_the_kernel_says() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r"]);
    let router = lab.start("r", None);
    let underlay = |prefix: &str, via: [u8; 4]| UnderlayRoute {
        prefix: prefix.parse().unwrap(),
        via: vec![via.into()],
    };
    router.apply(IntentDelta {
        underlay: vec![underlay("203.0.113.0/24", [198, 51, 100, 9])],
        ..IntentDelta::default()
    });
    let status = router.status();
    assert_eq!(status.refused.len(), 1);
    assert!(
        status.refused[0].error.contains("unreachable"),
        "{:?}",
        status.refused
    );
    // It is taken as soon as it can be.
    lab.run("r", "ip link add wan type veth peer name far && ip addr add 198.51.100.1/24 dev wan && ip link set wan up && ip link set far up");
    let taken = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        router.status().refused.is_empty()
    });
    assert!(taken, "{:?}", router.status());
    assert!(
        lab.run("r", "ip route")
            .contains("203.0.113.0/24 via 198.51.100.9 dev wan proto 87")
    );
}

/// More than the kernel's send buffer holds goes in pieces.
#[test]
fn a_table_of_thousands_arrives_whole_and_goes_whole() {
    if !privileged() {
        return;
    }
    const COUNT: u32 = 20_000;
    let lab = Lab::new(&["r", "far"]);
    lab.link(
        ("r", "wan", "198.51.100.1/30"),
        ("far", "wan", "198.51.100.2/30"),
    );
    lab.run(
        "r",
        "ip addr add 192.0.2.1/32 dev lo; ip route add 192.0.2.2/32 via 198.51.100.2",
    );
    let router = lab.start("r", Some(A));
    let prefix = |at: u32| format!("10.{}.{}.0/24", at >> 8, at & 0xff);
    let routes = || (0..COUNT).map(|at| route(0, &prefix(at), 10001, &[M]));
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, None)],
        routes: routes().collect(),
        underlay: Vec::new(),
    });
    assert_eq!(router.status().refused, []);
    let held = || {
        let table = 0x5700_0000u32 + 10001;
        let list = format!("ip route show table {table} proto 87 | grep -c ^10 || true");
        lab.run("r", &list).trim().parse::<u32>().unwrap()
    };
    assert_eq!(held(), COUNT);
    let gone = |mut route: TenantRoute| {
        route.next_hops = None;
        route
    };
    router.apply(IntentDelta {
        routes: routes().map(gone).collect(),
        ..IntentDelta::default()
    });
    assert_eq!(router.status().refused, []);
    assert_eq!(held(), 0);
}

#[test]
fn links_and_reachability_are_reported() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["r", "h"]);
    lab.link(("r", "red0", "10.0.1.1/24"), ("h", "eth0", "10.0.1.10/24"));
    let router = lab.start("r", Some(A));
    router.apply(IntentDelta {
        tenants: vec![tenant(0, "red", 10001, Some("red0"))],
        ..IntentDelta::default()
    });
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: true,
            }
    });
    router.track(vec![[198, 51, 100, 9].into()]);
    router.wait_for(|event| {
        *event == DataplaneEvent::Reachability(vec![([198, 51, 100, 9].into(), None)])
    });
    lab.run("r", "ip route add 198.51.100.0/24 via 10.0.1.10 metric 7");
    router.wait_for(|event| {
        *event == DataplaneEvent::Reachability(vec![([198, 51, 100, 9].into(), Some(7))])
    });
    lab.run("h", "ip link set eth0 down");
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: false,
            }
    });
    lab.run("h", "ip link set eth0 up");
    router.wait_for(|event| {
        *event
            == DataplaneEvent::Attachment {
                name: "red0".into(),
                up: true,
            }
    });
}
