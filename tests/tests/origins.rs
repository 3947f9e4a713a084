//! Domains with controllers, attacked from inside and by a partner: whoever holds a router that other routers trust announces what it does
//! not host, and draws nothing to itself.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, Peer, Speaker, attribute, need, output, update, wait_until, weft};

const PATIENCE: Duration = Duration::from_secs(60);
/// Names of domains, and what their numbers are.
const SIDES: [(&str, u8); 2] = [("a", 1), ("b", 2)];
/// Routers by name, with their domains, roles and addresses.
const ROUTERS: [(&str, &str, &str, [u8; 4]); 4] = [
    ("ea", "a", "edge", [192, 0, 2, 1]),
    ("a2", "a", "router", [192, 0, 2, 2]),
    ("a3", "a", "router", [192, 0, 2, 5]),
    ("eb", "b", "edge", [192, 0, 2, 9]),
];
const EA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RED: u32 = 10_000;
const BLUE: u32 = 10_001;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two domains: ea, a2 and a3 of one, eb of the other. All links are ea's.
struct Domains {
    lab: Lab,
    controllers: Vec<Daemon>,
    scratch: Scratch,
}

fn address(router: &str) -> Ipv4Addr {
    let (.., octets) = ROUTERS
        .into_iter()
        .find(|(name, ..)| *name == router)
        .unwrap();
    octets.into()
}

fn files(scratch: &Scratch) -> Vec<(String, String)> {
    for (domain, number) in SIDES {
        let mut command = Command::new(weft());
        let words = format!(
            "controller init --name {domain} --asn 6460{number} --administrator 64512 --vnis {number}0000-{number}9999 \
             --address 10.9.0.{number}"
        );
        command.args(words.split(' ')).arg("--folder");
        output(command.arg(scratch.0.join(domain)));
    }
    let files = ROUTERS.map(|(name, domain, role, _)| {
        let mut command = Command::new(weft());
        let words = format!("token create --role {role} --name {name}");
        command.args(words.split(' ')).arg("--folder");
        let token = output(command.arg(scratch.0.join(domain)));
        let (_, number) = SIDES.into_iter().find(|(one, _)| *one == domain).unwrap();
        let config = format!(
            "router: {{ name: {name} }}\ncontroller: {{ address: 10.9.0.{number}, token: {}, state: {}, sign_sessions: false }}\n\
             overlay: {{ probe_interval: 0 }}\n",
            token.trim(),
            scratch.0.join("state").display()
        );
        (format!("{name}.yaml"), config)
    });
    files.into()
}

fn lab(files: &[(String, String)]) -> Lab {
    let with = |addresses: &[&str], routes: &[&str]| {
        let mut exec = forwarding(addresses);
        exec.extend(routes.iter().map(|route| format!("ip route add {route}")));
        exec
    };
    let ctl_a = with(
        &["lo 10.9.0.1/32", "ea 10.9.1.1/30", "far 10.9.9.1/30"],
        &["10.9.0.2/32 via 10.9.9.2", "192.0.2.0/24 via 10.9.1.2"],
    );
    let ctl_b = with(
        &["lo 10.9.0.2/32", "eb 10.9.2.1/30", "far 10.9.9.2/30"],
        &["10.9.0.1/32 via 10.9.9.1", "192.0.2.9/32 via 10.9.2.2"],
    );
    let ea = with(
        &[
            "lo 192.0.2.1/32",
            "mgmt 10.9.1.2/30",
            "a2 10.1.2.1/30",
            "a3 10.1.3.1/30",
            "eb 198.51.100.1/30",
        ],
        &[
            "10.9.0.1/32 via 10.9.1.1",
            "192.0.2.2/32 via 10.1.2.2",
            // Something more specific would be taken before it.
            "192.0.2.4/30 via 10.1.3.2",
            "192.0.2.9/32 via 198.51.100.2",
        ],
    );
    let inner = |name: &str, number: u8| {
        let own = address(name);
        with(
            &[&format!("lo {own}/32"), &format!("ea 10.1.{number}.2/30")],
            &[&format!("default via 10.1.{number}.1 src {own}")],
        )
    };
    let eb = with(
        &["lo 192.0.2.9/32", "mgmt 10.9.2.2/30", "ea 198.51.100.2/30"],
        &[
            "10.9.0.2/32 via 10.9.2.1",
            "192.0.2.1/32 via 198.51.100.1 src 192.0.2.9",
        ],
    );
    let nodes = [
        ("ctl-a", false, ctl_a),
        ("ctl-b", false, ctl_b),
        ("ea", true, ea),
        ("a2", true, inner("a2", 2)),
        ("a3", true, inner("a3", 3)),
        ("eb", true, eb),
    ];
    let links = [
        ("ctl-a:far", "ctl-b:far"),
        ("ctl-a:ea", "ea:mgmt"),
        ("ctl-b:eb", "eb:mgmt"),
        ("ea:a2", "a2:ea"),
        ("ea:a3", "a3:ea"),
        ("ea:eb", "eb:ea"),
    ];
    Lab::up(&topology(&nodes, &links), files)
}

impl Domains {
    /// Red is at ea and a3, and shared with b, where it is at eb; blue is at ea alone.
    fn up(name: &str) -> Self {
        let name = format!("weft-origins-{name}-{}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        let files = files(&scratch);
        let lab = lab(&files);
        let controllers = SIDES.map(|(domain, _)| {
            let folder = scratch.0.join(domain);
            let arguments = ["controller", "run", "--folder", folder.to_str().unwrap()];
            lab.daemon(&format!("ctl-{domain}"), &weft(), &arguments)
        });
        let domains = Self {
            lab,
            controllers: controllers.into(),
            scratch,
        };
        for (domain, _) in SIDES {
            wait_until("the controller", PATIENCE, || {
                let said = domains.ask(domain, "GET", "introduction", &Value::Null);
                (said != Value::Null).then_some(())
            });
        }
        for (here, there) in [("a", "b"), ("b", "a")] {
            let introduction = domains.weft(there, &["domain", "introduction"]);
            domains.weft(here, &["domain", "add", introduction.trim()]);
        }
        domains.ask("a", "POST", "tenants", &json!({ "name": "red" }));
        domains.ask("a", "POST", "tenants", &json!({ "name": "blue" }));
        domains.weft("a", &["domain", "share", "b", "red"]);
        wait_until("the tenant is offered", PATIENCE, || {
            let body = json!({ "name": "red", "home": "a" });
            let made = domains.ask("b", "POST", "tenants", &body);
            (made["name"] == "red").then_some(())
        });
        for (domain, tenant, router, prefix) in [
            ("a", "red", "ea", "10.0.1.0/24"),
            ("a", "blue", "ea", "10.0.1.0/24"),
            ("a", "red", "a3", "10.0.3.0/24"),
            ("b", "red", "eb", "10.0.9.0/24"),
        ] {
            domains.attach(domain, tenant, router, prefix);
        }
        // It has to have joined before somebody else can be it.
        wait_until("a2", PATIENCE, || {
            let neighbor = domains.lab.neighbor("ea", &address("a2").to_string())?;
            (neighbor["state"] == "established").then_some(())
        });
        domains.leads("10.0.3.10", "a3");
        domains.leads("10.0.9.10", "eb");
        domains
    }

    fn attach(&self, domain: &str, tenant: &str, router: &str, prefix: &str) {
        let path = format!("tenants/{tenant}/attachments/{router}");
        let body = json!({ "prefixes": [prefix] });
        // Before the router has joined there is none.
        wait_until("the attachment", PATIENCE, || {
            let made = self.ask(domain, "PUT", &path, &body);
            (made["tenant"] == tenant).then_some(())
        });
    }

    fn weft(&self, domain: &str, words: &[&str]) -> String {
        let mut command = self.lab.command(&format!("ctl-{domain}"), weft());
        let folder = self.scratch.0.join(domain);
        output(command.args(words).arg("--folder").arg(folder))
    }

    /// The API of a domain's controller; null where it is not there, or has nothing to say.
    fn ask(&self, domain: &str, method: &str, path: &str, body: &Value) -> Value {
        let folder = self.scratch.0.join(domain);
        let (_, number) = SIDES.into_iter().find(|(name, _)| *name == domain).unwrap();
        let token = std::fs::read_to_string(folder.join("operator.token")).unwrap();
        let mut curl = self.lab.command(&format!("ctl-{domain}"), "curl");
        curl.args(["-sS", "--max-time", "10", "-X", method, "--cacert"])
            .arg(folder.join("authority.pem"))
            .args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let answer = curl
            .arg(format!("https://10.9.0.{number}:8443/api/v1/{path}"))
            .output()
            .unwrap();
        serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null)
    }

    /// Where ea sends red's packets to an address.
    fn tunnel(&self, tenant: &str, destination: &str) -> String {
        let path = format!("tenants/{tenant}/trace?destination={destination}");
        let trace = self.lab.get("ea", &path).unwrap_or_default();
        let router = trace["tunnels"][0]["router"].as_str();
        router.unwrap_or_default().to_owned()
    }

    /// Waits until ea sends red's packets to an address to this router.
    fn leads(&self, destination: &str, router: &str) {
        let wanted = address(router).to_string();
        wait_until(&format!("the way to {destination}"), PATIENCE, || {
            (self.tunnel("red", destination) == wanted).then_some(())
        });
    }

    /// How ea judges the label of a prefix that a neighbour announces, once it has come.
    fn origin(&self, prefix: &str, from: &str) -> String {
        let from = address(from).to_string();
        wait_until(&format!("{prefix} from {from}"), PATIENCE, || {
            let paths = self.lab.paths("ea", prefix);
            let its = paths.iter().find(|path| path["neighbor"] == from)?;
            let label = its["labels"][0]["origin"].as_str();
            Some(label.unwrap_or("none").to_owned())
        })
    }

    /// Labels from a neighbour that ea does not use for their invalid origin.
    fn invalid(&self, from: &str) -> u64 {
        let neighbor = self.lab.neighbor("ea", &address(from).to_string()).unwrap();
        neighbor["refused_labels"]["invalid"].as_u64().unwrap_or(0)
    }

    fn alarms(&self, code: &str) -> Vec<String> {
        let status = self.lab.get("ea", "status").unwrap();
        let alarms = status["alarms"].as_array().unwrap().iter();
        let alarms = alarms.filter(|alarm| alarm["code"] == code);
        alarms
            .map(|alarm| alarm["text"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whoever holds a router now, in place of its Weft.
    fn seize(&self, router: &'static str) -> Attacker {
        self.lab.kill(router);
        self.attacker(router)
    }

    fn attacker(&self, router: &'static str) -> Attacker {
        let (_, domain, ..) = ROUTERS
            .into_iter()
            .find(|(name, ..)| *name == router)
            .unwrap();
        let external = domain == "b";
        let speaker = Speaker {
            netns: self.lab.netns(router),
            router: EA,
            asn: if external { 64602 } else { 64601 },
            router_id: address(router),
        };
        let mut peer = speaker.establish();
        // End-of-RIB of both families, so that nobody waits for more.
        peer.send(&update(&[], &[], &[]));
        peer.send(&update(&[], &attribute(0x80, 15, &[0, 2, 1]), &[]));
        Attacker {
            peer,
            external,
            next_hop: match router {
                "eb" => [198, 51, 100, 2],
                _ => [10, 1, 2, 2],
            },
        }
    }
}

struct Attacker {
    peer: Peer,
    external: bool,
    next_hop: [u8; 4],
}

impl Attacker {
    /// Announces an IPv4 prefix with large communities, the second and third parts of them.
    fn announce(&mut self, prefix: &str, communities: &[(u32, Ipv4Addr)]) {
        let prefix: IpNet = prefix.parse().unwrap();
        let octets = communities.iter().flat_map(|(data, at)| {
            let numbers = [64512, *data, u32::from(*at)];
            numbers.into_iter().flat_map(u32::to_be_bytes)
        });
        let octets: Vec<u8> = octets.collect();
        let as_path = match self.external {
            true => [&[2, 1][..], &64602u32.to_be_bytes()].concat(),
            false => Vec::new(),
        };
        let mut attributes = [
            attribute(0x40, 1, &[0]),
            attribute(0x40, 2, &as_path),
            attribute(0x40, 3, &self.next_hop),
        ]
        .concat();
        if !self.external {
            // Before all others.
            attributes.extend(attribute(0x40, 5, &200u32.to_be_bytes()));
        }
        if !octets.is_empty() {
            attributes.extend(attribute(0xc0, 32, &octets));
        }
        let IpAddr::V4(network) = prefix.addr() else {
            unreachable!("an IPv4 prefix");
        };
        let len = usize::from(prefix.prefix_len()).div_ceil(8);
        let nlri = [&[prefix.prefix_len()], &network.octets()[..len]].concat();
        self.peer.send(&update(&[], &attributes, &nlri));
    }
}

/// The locator of an endpoint id.
fn locator(id: Ipv4Addr) -> (u32, Ipv4Addr) {
    (6 << 28, id)
}

fn possible() -> bool {
    need(&["ip", "curl"])
}

#[test]
fn a_router_inside_draws_no_tenants_packets_that_it_does_not_host() {
    if !possible() {
        return;
    }
    let mut domains = Domains::up("inside");
    let lab = &domains.lab;
    let mut a2 = domains.seize("a2");
    let (own, victim) = (address("a2"), address("a3"));
    // Its own endpoint as red's, for a host that is a3's; and a3's label with itself as the way there.
    a2.announce("10.0.3.10/32", &[(RED, own)]);
    a2.announce("10.0.3.11/32", &[(RED, victim), (4 << 28, own)]);
    // And red's other router, for a host of a3's: of that one a2 says nothing that counts.
    a2.announce("10.0.3.12/32", &[(RED, address("ea"))]);
    a2.announce("10.0.1.12/32", &[(RED, victim)]);
    assert_eq!(domains.origin("10.0.3.10/32", "a2"), "invalid");
    for prefix in ["10.0.3.11/32", "10.0.3.12/32", "10.0.1.12/32"] {
        assert_eq!(domains.origin(prefix, "a2"), "none");
    }
    for destination in ["10.0.3.10", "10.0.3.11", "10.0.3.12"] {
        assert_eq!(domains.tunnel("red", destination), victim.to_string());
    }
    assert_eq!(domains.tunnel("red", "10.0.1.12"), "");
    assert_eq!(domains.invalid("a2"), 1);
    let alarms = domains.alarms("foreign-endpoint");
    assert!(alarms[0].contains(&own.to_string()), "{alarms:?}");
    let alarms = domains.alarms("invalid-origin");
    assert!(alarms[0].contains(&own.to_string()), "{alarms:?}");
    let words = "curl -sf http://127.0.0.1:8179/metrics";
    let metrics = lab.run("ea", words);
    let metric = format!("weft_overlay_refused_labels{{neighbor=\"{own}\",origin=\"invalid\"}} 1");
    assert!(metrics.contains(&metric), "{metrics}");
    let shown = lab.shell("ea", "weft show tenants red");
    assert!(shown.contains("invalid origin"), "{shown}");
    let shown = lab.shell("ea", &format!("weft show neighbors {own}"));
    assert!(shown.contains("1 label of invalid origin"), "{shown}");
    // Nor is it passed on to the other domain, where ea would be the way: what came after it has come there.
    a2.announce("203.0.113.0/24", &[]);
    wait_until("an ordinary route", PATIENCE, || {
        (!lab.paths("eb", "203.0.113.0/24").is_empty()).then_some(())
    });
    assert_eq!(lab.paths("eb", "10.0.3.10/32"), [Value::Null; 0]);

    // The address of a3 is a3's, and its id is at no other address, whatever is preferred.
    a2.announce("192.0.2.5/32", &[locator(own)]);
    a2.announce("192.0.2.66/32", &[locator(victim)]);
    // With the three labels.
    wait_until("they are taken from its routes", PATIENCE, || {
        let neighbor = lab.neighbor("ea", &own.to_string())?;
        (neighbor["stripped"]["endpoint"] == 5).then_some(())
    });
    assert_eq!(domains.alarms("locator-conflict"), [""; 0]);
    let way = lab.run("ea", &format!("ip route get {victim}"));
    assert!(way.contains("via 10.1.3.2"), "{way}");
    assert_eq!(lab.run("ea", "ip route show 192.0.2.66/32"), "");

    // It comes to host red, by the controller's word: what it has announced is used, without a word of its own.
    domains.attach("a", "red", "a2", "10.0.2.0/24");
    domains.leads("10.0.3.10", "a2");
    assert_eq!(domains.origin("10.0.3.10/32", "a2"), "valid");
    assert_eq!(
        (
            domains.invalid("a2"),
            domains.alarms("invalid-origin").len()
        ),
        (0, 0)
    );
    wait_until("it is told to the other domain", PATIENCE, || {
        (!lab.paths("eb", "10.0.3.10/32").is_empty()).then_some(())
    });

    // Without the controller its last word holds, over a restart too.
    domains.controllers.remove(0).stop(Signal::SIGKILL);
    let lab = &domains.lab;
    a2.announce("10.0.1.77/32", &[(BLUE, own)]);
    assert_eq!(domains.origin("10.0.1.77/32", "a2"), "invalid");
    drop(a2);
    lab.kill("ea");
    lab.start("ea");
    let mut a2 = domains.attacker("a2");
    a2.announce("10.0.1.77/32", &[(BLUE, own)]);
    a2.announce("10.0.3.10/32", &[(RED, own)]);
    domains.leads("10.0.3.10", "a2");
    domains.leads("10.0.3.20", "a3");
    assert_eq!(domains.origin("10.0.1.77/32", "a2"), "invalid");
    assert_eq!(domains.tunnel("blue", "10.0.1.77"), "");
}

#[test]
fn a_partner_says_nothing_of_what_it_does_not_host() {
    if !possible() {
        return;
    }
    let domains = Domains::up("partner");
    assert_eq!(domains.origin("10.0.9.0/24", "eb"), "valid");
    let mut eb = domains.seize("eb");
    let own = address("eb");
    // Another address of the same router.
    let unknown = Ipv4Addr::new(198, 51, 100, 2);
    eb.announce("10.0.3.88/32", &[(RED, unknown)]);
    eb.announce("10.0.3.89/32", &[(RED, address("a3"))]);
    eb.announce("10.0.3.90/32", &[(BLUE, own)]);
    eb.announce("198.51.100.77/32", &[locator(address("a3"))]);
    // What it does host.
    eb.announce("10.0.9.77/32", &[(RED, own)]);
    domains.leads("10.0.9.77", "eb");
    for (prefix, origin) in [
        ("10.0.3.88/32", "invalid"),
        ("10.0.3.89/32", "invalid"),
        ("10.0.3.90/32", "none"),
        ("10.0.9.77/32", "valid"),
    ] {
        assert_eq!(domains.origin(prefix, "eb"), origin, "{prefix}");
    }
    let victim = address("a3").to_string();
    for destination in ["10.0.3.88", "10.0.3.89", "10.0.3.90"] {
        assert_eq!(domains.tunnel("red", destination), victim);
    }
    assert_eq!(domains.invalid("eb"), 2);
    // Inside nobody hears of it: what came after it has come there.
    wait_until("its own tenant's route", PATIENCE, || {
        (!domains.lab.paths("a3", "10.0.9.77/32").is_empty()).then_some(())
    });
    for prefix in ["10.0.3.88/32", "10.0.3.89/32"] {
        assert_eq!(domains.lab.paths("a3", prefix), [Value::Null; 0]);
    }
    let alarms = domains.alarms("locator-conflict");
    assert!(
        alarms.iter().any(|one| one.starts_with("198.51.100.77")),
        "{alarms:?}"
    );
}
