//! Two routers under a flow, and what is done to them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Damage, Flow, Lab, Verdicts, wait_until};

use super::faults::{Cure, Fault};

/// One step of a fault or of its cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A command in a node, or a script behind `sh -c`; `TABLE` in it is the table of the tenant red.
    Run(&'static str, &'static str),
    /// The node's daemon is killed.
    Kill(&'static str),
    /// The node's daemon is started.
    Start(&'static str),
    /// The node's daemon gets SIGSTOP.
    Freeze(&'static str),
    /// The node's daemon goes on.
    Thaw(&'static str),
    /// That many milliseconds pass.
    Rest(u64),
}

/// r and x on two links, with a host of red each.
pub(crate) fn direct() -> Lab {
    let config = |name: &str, own: u8, far: u8, asn: u32, far_asn: u32| {
        let neighbor = |link: u8| {
            let address = 4 * (link - 1) + far;
            format!(
                "  - {{ address: 198.51.100.{address}, asn: {far_asn}, accept_vnis: [10001] }}\n"
            )
        };
        format!(
            "router: {{ name: {name}, router_id: 192.0.2.{own}, asn: {asn}, default_policy: accept }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{own}, install_underlay: true, probe_interval: 1 }}
tenants: [{{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.{own}.0/24] }}]
neighbors:
{}{}",
            neighbor(1),
            neighbor(2)
        )
    };
    let router = |own: u8| {
        forwarding(&[
            &format!("lo 192.0.2.{own}/32"),
            &format!("e1 198.51.100.{own}/30"),
            &format!("e2 198.51.100.{}/30", own + 4),
            &format!("red0 10.0.{own}.1/24"),
        ])
    };
    let text = topology(
        &[
            ("r", true, router(1)),
            ("x", true, router(2)),
            ("red-r", false, host(1)),
            ("red-x", false, host(2)),
        ],
        &[
            ("r:e1", "x:e1"),
            ("r:e2", "x:e2"),
            ("r:red0", "red-r:eth1"),
            ("x:red0", "red-x:eth1"),
        ],
    );
    let files = [
        ("r.yaml".to_owned(), config("r", 1, 2, 64601, 64602)),
        ("x.yaml".to_owned(), config("x", 2, 1, 64602, 64601)),
    ];
    up(&text, &files)
}

/// r and x behind two plain routers m and n, which their default routes lead to; BGP between their endpoints.
pub(crate) fn routed() -> Lab {
    let config = |name: &str, own: u8, far: u8| {
        format!(
            "router: {{ name: {name}, router_id: 192.0.2.{own}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{own}, probe_interval: 1 }}
tenants: [{{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.{own}.0/24] }}]
neighbors: [{{ address: 192.0.2.{far}, asn: 64601, local_address: 192.0.2.{own} }}]
"
        )
    };
    let router = |own: u8, first: u8, second: u8| {
        let mut lines = forwarding(&[
            &format!("lo 192.0.2.{own}/32"),
            &format!("e1 198.51.100.{first}/30"),
            &format!("e2 198.51.100.{second}/30"),
            &format!("red0 10.0.{own}.1/24"),
        ]);
        // The plain routers have the other address of each link.
        let gateway = |address: u8| if own == 1 { address + 1 } else { address - 1 };
        for (metric, address) in [(10, first), (20, second)] {
            lines.push(format!(
                "ip route add default via 198.51.100.{} metric {metric}",
                gateway(address)
            ));
        }
        lines
    };
    let plain = |first: u8, second: u8| {
        let mut lines = forwarding(&[
            &format!("e1 198.51.100.{first}/30"),
            &format!("e2 198.51.100.{second}/30"),
        ]);
        lines.push("ip address add fe80::a/64 dev e1 nodad".to_owned());
        lines.push(format!(
            "ip route add 192.0.2.1 via 198.51.100.{}",
            first - 1
        ));
        lines.push(format!(
            "ip route add 192.0.2.2 via 198.51.100.{}",
            second + 1
        ));
        lines
    };
    let text = topology(
        &[
            ("r", true, router(1, 1, 5)),
            ("x", true, router(2, 10, 14)),
            ("m", false, plain(2, 9)),
            ("n", false, plain(6, 13)),
            ("red-r", false, host(1)),
            ("red-x", false, host(2)),
        ],
        &[
            ("r:e1", "m:e1"),
            ("r:e2", "n:e1"),
            ("m:e2", "x:e1"),
            ("n:e2", "x:e2"),
            ("r:red0", "red-r:eth1"),
            ("x:red0", "red-x:eth1"),
        ],
    );
    let files = [
        ("r.yaml".to_owned(), config("r", 1, 2)),
        ("x.yaml".to_owned(), config("x", 2, 1)),
    ];
    up(&text, &files)
}

/// The same over IPv6 alone.
pub(crate) fn routed_v6() -> Lab {
    let config = |name: &str, own: u8, far: u8| {
        format!(
            "router: {{ name: {name}, router_id: 192.0.2.{own}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: '2001:db8::{own}', probe_interval: 1 }}
tenants: [{{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.{own}.0/24] }}]
neighbors: [{{ address: '2001:db8::{far}', asn: 64601, local_address: '2001:db8::{own}', families: [ipv4-unicast, ipv6-unicast] }}]
"
        )
    };
    let address =
        |device: &str, address: &str| format!("ip address add {address} dev {device} nodad");
    let forward = || "sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned();
    // Links 1 and 2 are those of r, 3 and 4 those of x; the plain routers are the second of each.
    let router = |own: u8, first: u8| {
        let mut lines = forwarding(&[&format!("red0 10.0.{own}.1/24")]);
        lines.extend([
            forward(),
            address("lo", &format!("2001:db8::{own}/128")),
            address("e1", &format!("fd00:{first}::1/64")),
            address("e2", &format!("fd00:{}::1/64", first + 1)),
            format!("ip -6 route add default via fd00:{first}::2 metric 10"),
            format!(
                "ip -6 route add default via fd00:{}::2 metric 20",
                first + 1
            ),
        ]);
        lines
    };
    let plain = |first: u8| {
        vec![
            forward(),
            address("e1", &format!("fd00:{first}::2/64")),
            address("e2", &format!("fd00:{}::2/64", first + 2)),
            address("e1", "fe80::a/64"),
            format!("ip -6 route add 2001:db8::1 via fd00:{first}::1"),
            format!("ip -6 route add 2001:db8::2 via fd00:{}::1", first + 2),
        ]
    };
    let text = topology(
        &[
            ("r", true, router(1, 1)),
            ("x", true, router(2, 3)),
            ("m", false, plain(1)),
            ("n", false, plain(2)),
            ("red-r", false, host(1)),
            ("red-x", false, host(2)),
        ],
        &[
            ("r:e1", "m:e1"),
            ("r:e2", "n:e1"),
            ("m:e2", "x:e1"),
            ("n:e2", "x:e2"),
            ("r:red0", "red-r:eth1"),
            ("x:red0", "red-x:eth1"),
        ],
    );
    let files = [
        ("r.yaml".to_owned(), config("r", 1, 2)),
        ("x.yaml".to_owned(), config("x", 2, 1)),
    ];
    up(&text, &files)
}

fn host(own: u8) -> Vec<String> {
    vec![
        format!("ip address add 10.0.{own}.10/24 dev eth1"),
        format!("ip route replace default via 10.0.{own}.1"),
    ]
}

fn up(text: &str, files: &[(String, String)]) -> Lab {
    let lab = Lab::up(text, files);
    lab.converged("r");
    lab.converged("x");
    lab.reaches("red-r", "10.0.2.10");
    lab
}

/// A lab under a flow, watched.
pub(crate) struct Weather {
    // The flow and the questions end before the lab does.
    flow: Flow,
    verdicts: Verdicts,
    pub(crate) lab: Lab,
    /// The number of red's table at r.
    table: String,
}

/// What a fault did.
pub(crate) struct Outcome {
    pub(crate) damage: Damage,
    /// From the fault, or from what undid it, until packets flowed.
    pub(crate) until_flowing: Duration,
    /// From the fault until the router said so, where it had to.
    pub(crate) until_said: Option<Duration>,
    pub(crate) said: String,
}

/// When a router that says nothing of a flow that is dead is taken to say nothing at all: ten times what it takes on a quiet machine.
const HONEST: Duration = Duration::from_secs(10);

impl Weather {
    pub(crate) fn start(lab: Lab) -> Self {
        let flow = Flow::start(&lab, "red-r", "red-x", "10.0.2.10:7001".parse().unwrap());
        let verdicts = Verdicts::start(&lab, &["r", "x"]);
        let weather = Self {
            flow,
            verdicts,
            table: table(&lab),
            lab,
        };
        weather.calm("the beginning");
        weather
    }

    /// Waits until packets flow and both routers say so.
    pub(crate) fn calm(&self, after: &str) {
        let what = format!("packets flow and both routers say so after: {after}");
        let calm = || {
            self.flow.whole_for(Duration::from_millis(500))
                && ["r", "x"].iter().all(|node| self.verdicts.forwards(node))
        };
        let start = Instant::now();
        while !calm() {
            if start.elapsed() > Duration::from_secs(60) {
                for node in ["r", "x"] {
                    eprintln!("{node} says {:?}", self.verdicts.last(node));
                }
                panic!("waited in vain: {what}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does all of it.
    ///
    /// # Panics
    /// Where one cannot be done.
    fn all(&self, acts: &[Act]) {
        for act in acts {
            assert!(self.act(*act), "{act:?}");
        }
    }

    /// Does what of it can be done: a router may have mended it already, or something else may have come before.
    pub(crate) fn as_possible(&self, acts: &[Act]) {
        for act in acts {
            self.act(*act);
        }
    }

    fn act(&self, act: Act) -> bool {
        match act {
            Act::Run(node, line) => {
                return run(&self.lab, node, &line.replace("TABLE", &self.table));
            }
            Act::Kill(node) => self.lab.kill(node),
            Act::Start(node) => self.lab.start(node),
            Act::Freeze(node) => self.lab.signal(node, Signal::SIGSTOP),
            Act::Thaw(node) => self.lab.signal(node, Signal::SIGCONT),
            Act::Rest(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
        }
        true
    }

    /// While nothing arrives, one of the two routers says so; the one that has the fault, where it can know.
    fn honest(&self, fault: &Fault, from: Instant) {
        let (name, routers) = (fault.name, speakers(fault));
        let dead = self.flow.silent_for();
        let asked = Instant::now();
        if dead < HONEST + Duration::from_millis(300) || asked.duration_since(from) < dead {
            return;
        }
        let forwarding = routers.iter().all(|node| self.verdicts.forwards(node));
        assert!(
            !forwarding || self.flow.silent_for() < dead,
            "{name}: nothing has arrived for {dead:?}, and {routers:?} say that they forward"
        );
    }

    pub(crate) fn strike(&self, fault: &Fault) -> Outcome {
        let mark = self.flow.mark();
        let struck = Instant::now();
        self.all(fault.strike);
        let mut from = struck;
        if let Cure::Host(commands) = fault.cure {
            // Long enough for the router to notice, whatever it is.
            let said = || {
                let not = |said: Option<&str>| said.is_some_and(|word| word != "forwarding");
                speakers(fault)
                    .iter()
                    .any(|node| self.verdicts.first(node, struck, not).is_some())
            };
            while struck.elapsed() < Duration::from_secs(20)
                && !(said() && struck.elapsed() > Duration::from_secs(2))
            {
                self.honest(fault, struck);
                std::thread::sleep(Duration::from_millis(50));
            }
            if fault.says.is_some() {
                assert!(said(), "{}: {:?} say nothing", fault.name, speakers(fault));
            }
            from = Instant::now();
            self.as_possible(commands);
        }
        let flows = || self.flow.whole_for(Duration::from_millis(200));
        let start = Instant::now();
        // A packet that was lost between the fault and now is not flowing.
        wait_until(
            &format!("packets flow after: {}", fault.name),
            Duration::from_secs(60),
            || {
                if fault.cure == Cure::Weft {
                    self.honest(fault, struck);
                }
                (flows() && start.elapsed() > Duration::from_millis(300)).then_some(())
            },
        );
        self.all(fault.restore);
        self.calm(fault.name);
        let damage = self.flow.damage(mark);
        let not = |said: Option<&str>| said.is_some_and(|word| word != "forwarding");
        let first = speakers(fault)
            .iter()
            .filter_map(|node| self.verdicts.first(node, struck, not))
            .min_by_key(|(at, _)| *at);
        let (until_said, said) = match first {
            Some((at, answer)) => {
                let answer = answer.unwrap_or_default();
                let word = |key: &str| answer["conditions"][0][key].as_str().unwrap_or("");
                let said = format!("{} {}", word("code"), word("subject"));
                (Some(at.duration_since(struck)), said)
            }
            None => (None, String::new()),
        };
        Outcome {
            damage,
            until_flowing: (struck + damage.until_whole).saturating_duration_since(from),
            until_said,
            said,
        }
    }
}

/// The routers of which one has to say what is wrong.
fn speakers(fault: &Fault) -> Vec<&'static str> {
    match fault.says {
        Some(node) => vec![node],
        None => vec!["r", "x"],
    }
}

/// One step that names no table of a tenant's; true where it succeeded.
pub(crate) fn act(lab: &Lab, act: &Act) -> bool {
    match act {
        Act::Run(node, line) => run(lab, node, line),
        _ => false,
    }
}

fn run(lab: &Lab, node: &str, line: &str) -> bool {
    let output = match line.strip_prefix("sh -c ") {
        Some(script) => lab.command(node, "sh").args(["-c", script]).output(),
        None => {
            let mut words = line.split(' ');
            let mut command = lab.command(node, words.next().unwrap());
            command.args(words).output()
        }
    };
    let output = output.unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("{node}: {line}: {}", said.trim());
    }
    output.status.success()
}

/// The table of the tenant red at r.
fn table(lab: &Lab) -> String {
    let kernel = lab.get("r", "kernel").unwrap();
    let mut tables = kernel["tables"].as_array().unwrap().iter();
    let red = tables.find(|table| table["tenant"] == "red").unwrap();
    red["table"].to_string()
}
