//! Whether a router that says "forwarding" forwards: what others do to it, under packets, with its verdict read all the while.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, output, wait_until};

/// Two routers with a host of red each.
fn up() -> Lab {
    let mut nodes = Vec::new();
    let mut files = Vec::new();
    for (name, number) in [("a", 1), ("b", 2)] {
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("eth1 10.255.0.{number}/24"),
            &format!("red0 10.0.{number}.1/24"),
        ]);
        let other = 3 - number;
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 10.255.0.{other}"
        ));
        nodes.push((name, true, exec));
        files.push((format!("{name}.yaml"), config(number, 10_001)));
    }
    for (host, number) in [("red-a", 1), ("red-b", 2)] {
        let exec = vec![
            format!("ip address add 10.0.{number}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{number}.1"),
        ];
        nodes.push((host, false, exec));
    }
    let links = [
        ("a:eth1", "b:eth1"),
        ("a:red0", "red-a:eth1"),
        ("b:red0", "red-b:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), &files)
}

fn config(number: u8, vni: u32) -> String {
    let other = 3 - number;
    format!(
        "router: {{ name: r{number}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.{number} }}
tenants:
  - {{ name: red, vni: {vni}, interfaces: [red0], prefixes: [10.0.{number}.0/24] }}
neighbors:
  - {{ address: 10.255.0.{other}, asn: 64601 }}
"
    )
}

fn forwarding_of(lab: &Lab, node: &str) -> Option<Value> {
    Some(lab.get(node, "status")?["forwarding"].clone())
}

fn wait_for_verdict(lab: &Lab, node: &str, wanted: &str) -> Value {
    let what = format!("{node} is {wanted}");
    wait_until(&what, Duration::from_secs(60), || {
        forwarding_of(lab, node).filter(|forwarding| forwarding["verdict"] == wanted)
    })
}

/// The codes of what is wrong, in order.
fn codes(forwarding: &Value) -> Vec<String> {
    let conditions = forwarding["conditions"].as_array().unwrap().iter();
    conditions
        .map(|one| one["code"].as_str().unwrap().to_owned())
        .collect()
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// Packets that are sent flow within this many seconds where they flow at all.
const AT_ONCE: f64 = 0.3;

/// When packets of a tenant were answered, and what its router said of itself.
struct Seen {
    answers: Vec<f64>,
    /// From when to when it was asked, and what it said.
    verdicts: Vec<(f64, f64, String)>,
}

impl Seen {
    /// Sends a packet each 20 ms and reads a router's verdict each 100 ms while `work` is done.
    fn during(lab: &Lab, node: &str, work: impl FnOnce()) -> Self {
        let ping = weft_tests::find("ping").unwrap();
        let ping = lab.daemon("red-a", &ping, &["-D", "-i", "0.02", "10.0.2.10"]);
        wait_until("a first answer", Duration::from_secs(30), || {
            ping.log().contains("bytes from").then_some(())
        });
        let over = AtomicBool::new(false);
        let verdicts = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut verdicts = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let at = now();
                    if let Some(said) = forwarding_of(lab, node) {
                        let word = said["verdict"].as_str().unwrap().to_owned();
                        verdicts.push((at, now(), word));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                verdicts
            });
            struct Over<'a>(&'a AtomicBool);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let end = Over(&over);
            work();
            drop(end);
            reader.join().unwrap()
        });
        let log = ping.stop(nix::sys::signal::Signal::SIGTERM);
        let answers = log.lines().filter(|line| line.contains("bytes from"));
        let answers = answers.filter_map(|line| {
            let (time, _) = line.strip_prefix('[')?.split_once(']')?;
            time.parse().ok()
        });
        Self {
            answers: answers.collect(),
            verdicts,
        }
    }

    /// The longest that packets had not been answered when the router said that it forwards, in seconds.
    fn longest_lie(&self) -> f64 {
        let wrong = self
            .verdicts
            .iter()
            .filter(|(.., said)| said == "forwarding");
        let dead = wrong.filter_map(|(from, to, _)| {
            let last = self.answers.iter().rfind(|answer| **answer <= *to)?;
            // It is so again, and the next packet says it.
            let next = self.answers.iter().find(|answer| **answer > *to);
            let again = next.is_some_and(|next| next - to < AT_ONCE);
            (!again).then_some(from - last)
        });
        dead.fold(0.0, f64::max)
    }

    /// The longest that packets were not answered.
    fn longest_gap(&self) -> f64 {
        let gaps = self.answers.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.fold(0.0, f64::max)
    }
}

fn is_answered(lab: &Lab) {
    lab.reaches("red-a", "10.0.2.10");
}

fn nft(lab: &Lab, node: &str, commands: &str) {
    output(lab.command(node, "nft").arg(commands));
}

/// What is done, on which router, what undoes it, and what the first router says of it.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

#[test]
fn a_router_that_says_forwarding_forwards() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = up();
    for router in ["a", "b"] {
        lab.converged(router);
    }
    is_answered(&lab);
    for router in ["a", "b"] {
        wait_for_verdict(&lab, router, "forwarding");
    }

    // What is ours is put right, however it was damaged.
    for damage in [
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "sysctl -qw net.ipv4.conf.vx0.rp_filter=1",
        "sysctl -qw net.ipv4.conf.red0.forwarding=0",
        "ip link set vx0 address 02:aa:bb:cc:dd:ee",
        "ip link set vx0 mtu 600",
        "ip link set vx0 name other0",
        "ip link set vx0 down",
        "ip link del vx0",
        "bridge vni delete dev vx0 vni 10001",
        "ip rule del pref 1000 iif red0",
    ] {
        for node in ["a", "b"] {
            let seen = Seen::during(&lab, "a", || {
                lab.run(node, damage);
                is_answered(&lab);
                wait_for_verdict(&lab, "a", "forwarding");
            });
            let (lie, gap) = (seen.longest_lie(), seen.longest_gap());
            println!("{node}: {damage}: {gap:.2} s without answers, {lie:.2} s before it was said");
            assert!(lie < 1.5, "{node}: {damage}: {:?}", seen.verdicts);
        }
    }

    // What is not ours is said until it is gone.
    let filter = |hook: &str| {
        format!(
            "add table inet foreign; add chain inet foreign c {{ type filter hook {hook} priority 0; }}; add rule inet foreign c udp dport 4789 drop"
        )
    };
    let (out, within) = (filter("output"), filter("input"));
    let away = "delete table inet foreign";
    let cases: [Case<'_>; 6] = [
        ("a", &out, away, "far-ends"),
        ("a", &within, away, "far-ends"),
        ("b", &out, away, "far-ends"),
        ("b", &within, away, "far-ends"),
        (
            "a",
            "ip rule add pref 7 from 10.0.1.0/24 blackhole",
            "ip rule del pref 7",
            "foreign-rule",
        ),
        (
            "a",
            "ip rule add pref 7 iif vx0 to 10.0.1.0/24 prohibit",
            "ip rule del pref 7",
            "foreign-rule",
        ),
    ];
    for (node, damage, remedy, code) in cases {
        let run = |commands: &str| match commands.starts_with("ip ") {
            true => drop(lab.run(node, commands)),
            false => nft(&lab, node, commands),
        };
        let seen = Seen::during(&lab, "a", || {
            run(damage);
            let what = format!("{node}: {damage} is said");
            let said = wait_until(&what, Duration::from_secs(30), || {
                forwarding_of(&lab, "a").filter(|said| codes(said).iter().any(|each| each == code))
            });
            assert_ne!(said["verdict"], "forwarding");
            // And it goes on being said.
            std::thread::sleep(Duration::from_secs(3));
            run(remedy);
            is_answered(&lab);
            wait_for_verdict(&lab, "a", "forwarding");
        });
        let (lie, gap) = (seen.longest_lie(), seen.longest_gap());
        println!("{node}: {damage}: {gap:.2} s without answers, {lie:.2} s before it was said");
        assert!(gap > 2.0, "{node}: {damage}: packets had to be lost");
        assert!(lie < 1.5, "{node}: {damage}: {:?}", seen.verdicts);
    }
}

#[test]
fn a_far_router_that_forwards_no_more_is_told_from_one_that_is_gone() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = up();
    for router in ["a", "b"] {
        lab.converged(router);
    }
    is_answered(&lab);
    // Long enough to have answered.
    std::thread::sleep(Duration::from_secs(3));
    let words = |part: &'static str| {
        wait_until(part, Duration::from_secs(60), || {
            let said = forwarding_of(&lab, "a")?;
            let conditions = said["conditions"].as_array()?.clone();
            conditions.into_iter().find(|one| {
                one["code"] == "far-end"
                    && one["text"].as_str().is_some_and(|text| text.contains(part))
            })
        })
    };
    // Its process is gone, and somebody switched forwarding off: nobody is there to switch it on.
    lab.kill("b");
    lab.run("b", "sysctl -qw net.ipv4.ip_forward=0");
    let said = words("the underlay answers");
    assert_eq!(said["subject"], "192.0.2.2");
    assert!(said["remedy"].as_str().unwrap().contains("UDP port 4789"));
    let status = forwarding_of(&lab, "a").unwrap();
    assert_eq!(status["verdict"], "down");
    // All views say the same.
    let kernel = lab.get("a", "kernel").unwrap();
    assert_eq!(kernel["forwarding"]["verdict"], "down");
    // Neither does its address answer.
    lab.run("b", "ip address del 192.0.2.2/32 dev lo");
    words("nor through the underlay");
    lab.run("b", "ip address add 192.0.2.2/32 dev lo");
    lab.run("b", "sysctl -qw net.ipv4.ip_forward=1");
    wait_for_verdict(&lab, "a", "forwarding");
}

/// Nothing has ever come back where nothing could: the routers began, or began again, under the fault.
#[test]
fn a_way_that_was_dead_when_the_routers_began_is_said() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let lab = up();
    let both = ["a", "b"];
    let drop_tunnels = "add table inet foreign; add chain inet foreign c { type filter hook input priority 0; }; add rule inet foreign c udp dport 4789 drop";
    let far_end = |node: &str| {
        let said = forwarding_of(&lab, node)?;
        let conditions = said["conditions"].as_array()?.clone();
        let far_end = conditions.into_iter().find(|one| one["code"] == "far-end");
        far_end.map(|one| (said["verdict"].clone(), one))
    };
    for router in both {
        lab.converged(router);
    }
    is_answered(&lab);
    // What they knew, and nothing: then they say that nobody has ever answered.
    for knows in [true, false] {
        for router in both {
            wait_for_verdict(&lab, router, "forwarding");
        }
        if knows {
            for router in [1, 2] {
                let node = both[router - 1];
                let file = format!("/var/lib/weft/r{router}/answered.json");
                wait_until("who answers is written", Duration::from_secs(60), || {
                    let text = lab.shell(node, &format!("cat {file} || true"));
                    text.contains("192.0.2.").then_some(())
                });
            }
        }
        nft(&lab, "b", drop_tunnels);
        for router in both {
            lab.kill(router);
            if !knows {
                lab.shell(router, "rm /var/lib/weft/*/answered.json");
            }
        }
        for router in both {
            lab.start(router);
        }
        for router in both {
            lab.converged(router);
            let what = format!("{router} says that nothing comes back");
            let (verdict, said) = wait_until(&what, Duration::from_secs(60), || far_end(router));
            let text = said["text"].as_str().unwrap();
            assert_eq!(text.contains("has never answered"), !knows, "{said}");
            let worst = if knows { "down" } else { "degraded" };
            assert_eq!(verdict, worst, "{router}, known before: {knows}: {said}");
            assert!(said["remedy"].as_str().unwrap().contains("UDP port 4789"));
        }
        nft(&lab, "b", "delete table inet foreign");
        is_answered(&lab);
    }
    for router in both {
        wait_for_verdict(&lab, router, "forwarding");
    }
}

/// Labels come, and nobody announces where their far ends are: a session over IPv4 has no next hop for the locators.
#[test]
fn labels_without_a_locator_are_said_with_what_keeps_it_back() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let config = |number: u8, more: &str| {
        let other = 3 - number;
        format!(
            "router: {{ name: r{number}, router_id: 192.0.2.{number}, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: \"2001:db8::{number}\" }}
tenants:
  - {{ name: red, vni: 10001, interfaces: [red0], prefixes: [10.0.{number}.0/24] }}
neighbors:
  - {{ address: 10.255.0.{other}, asn: 64601, families: [ipv4-unicast, ipv6-unicast]{more} }}
"
        )
    };
    let (mut nodes, mut files) = (Vec::new(), Vec::new());
    for (name, number) in [("a", 1), ("b", 2)] {
        let mut exec = forwarding(&[
            &format!("eth1 10.255.0.{number}/24"),
            &format!("red0 10.0.{number}.1/24"),
        ]);
        let other = 3 - number;
        exec.push(format!(
            "ip address add 2001:db8::{number}/128 dev lo nodad"
        ));
        exec.push(format!(
            "ip address add 2001:db8:f::{number}/64 dev eth1 nodad"
        ));
        exec.push(format!(
            "ip -6 route add 2001:db8::{other}/128 via 2001:db8:f::{other}"
        ));
        nodes.push((name, true, exec));
        files.push((format!("{name}.yaml"), config(number, "")));
    }
    for (host, number) in [("red-a", 1), ("red-b", 2)] {
        let exec = vec![
            format!("ip address add 10.0.{number}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{number}.1"),
        ];
        nodes.push((host, false, exec));
    }
    let links = [
        ("a:eth1", "b:eth1"),
        ("a:red0", "red-a:eth1"),
        ("b:red0", "red-b:eth1"),
    ];
    let lab = Lab::up(&topology(&nodes, &links), &files);
    for (node, other) in [("a", 2), ("b", 1)] {
        let said = wait_until("no locator is said", Duration::from_secs(60), || {
            let forwarding = forwarding_of(&lab, node)?;
            let said = forwarding["conditions"].as_array()?.clone();
            said.into_iter().find(|one| one["code"] == "no-locator")
        });
        assert_eq!(said["subject"], format!("192.0.2.{other}"));
        assert_eq!(
            said["text"],
            format!("1 routes of tenants have no far end: no locator for #192.0.2.{other}")
        );
        assert_ne!(forwarding_of(&lab, node).unwrap()["verdict"], "forwarding");
        let neighbors = lab.get(node, "neighbors").unwrap();
        assert_eq!(neighbors[0]["mute"][0], "ipv6-unicast", "{neighbors}");
    }
    for (node, number) in [("a", 1), ("b", 2)] {
        let more = format!(", local_address_v6: \"2001:db8:f::{number}\"");
        lab.reload(node, &config(number, &more));
    }
    is_answered(&lab);
    for node in ["a", "b"] {
        wait_for_verdict(&lab, node, "forwarding");
    }
}

/// Test packets of others come to a port that somebody else may have: it is said, and costs no packet.
#[test]
fn a_reflector_whose_port_is_taken_is_said() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    lab.converged("a");
    is_answered(&lab);
    lab.kill("a");
    let taken = lab.in_node("a", || UdpSocket::bind("192.0.2.1:862").unwrap());
    lab.start("a");
    let said = wait_until("the port is said", Duration::from_secs(60), || {
        let forwarding = forwarding_of(&lab, "a")?;
        let said = forwarding["conditions"].as_array()?.clone();
        said.into_iter().find(|one| one["code"] == "probes")
    });
    assert_eq!(said["subject"], "udp port 862");
    assert!(said["remedy"].as_str().unwrap().contains("ss -ulnp"));
    is_answered(&lab);
    wait_for_verdict(&lab, "a", "forwarding");
    drop(taken);
    wait_until("it is said no more", Duration::from_secs(60), || {
        codes(&forwarding_of(&lab, "a")?).is_empty().then_some(())
    });
}

/// A VNI changes at both ends, one after the other: what cannot be is said of nobody who is not there any more, and what is attached is
/// announced at once.
#[test]
fn a_tenant_whose_vni_changes_keeps_its_attachment() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    for router in ["a", "b"] {
        lab.converged(router);
    }
    is_answered(&lab);
    for (node, number) in [("a", 1), ("b", 2)] {
        lab.reload(node, &config(number, 10_007));
        let tenants = lab.get(node, "tenants").unwrap();
        assert_eq!(tenants[0]["vni"], 10_007);
        assert_eq!(tenants[0]["attachments"][0]["up"], true, "{tenants}");
        assert_eq!(tenants[0]["prefixes"][0], format!("10.0.{number}.0/24"));
    }
    is_answered(&lab);
    wait_for_verdict(&lab, "a", "forwarding");
    // An interface that is not there is missing, not down.
    lab.run("a", "ip link del red0");
    wait_until("red0 is missing", Duration::from_secs(30), || {
        let tenants = lab.get("a", "tenants")?;
        let attachment = &tenants[0]["attachments"][0];
        (attachment["missing"] == true && attachment["up"] == false).then_some(())
    });
}

/// An attachment that blinks while the daemon does not look is as it was before when it does: what the kernel dropped meanwhile is put back at
/// once, and not when everything is compared again.
#[test]
fn what_blinks_in_one_burst_is_put_back() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let lab = up();
    for node in ["a", "b"] {
        lab.converged(node);
    }
    lab.reaches("red-a", "10.0.2.10");
    for blink in [
        "ip address del 10.0.2.1/24 dev red0; ip address add 10.0.2.1/24 dev red0",
        "ip link set red0 down; ip link set red0 up",
        "ip link set vx0 down; ip link set vx0 up",
    ] {
        let told = |lab: &Lab| {
            let log = lab.log("b");
            let lines = log.lines();
            let put_back = ["the kernel dropped routes", ": repairing"];
            lines
                .filter(|line| put_back.iter().any(|word| line.contains(word)))
                .count()
        };
        let before = told(&lab);
        lab.signal("b", nix::sys::signal::Signal::SIGSTOP);
        lab.shell("b", blink);
        lab.signal("b", nix::sys::signal::Signal::SIGCONT);
        wait_until("what was dropped is seen", Duration::from_secs(20), || {
            (told(&lab) > before).then_some(())
        });
        lab.reaches("red-a", "10.0.2.10");
    }
}
