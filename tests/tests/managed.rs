//! Routers that know their name, their controller and a token: everything else they learn, and they keep it when the controller goes.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weft_tests::chain::{RECEIVER, SENDER, counted, service, wait_for};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, need, output, wait_until, weft};

const ROUTERS: [(&str, u8); 2] = [("a1", 1), ("a2", 2)];

/// A domain in files, with tokens for both routers.
fn domain(directory: &Path) -> Vec<(String, String)> {
    let folder = directory.join("controller");
    let weft = |words: &str| {
        let mut command = Command::new(weft());
        command.args(words.split(' ')).arg("--folder").arg(&folder);
        output(&mut command)
    };
    weft(
        "controller init --name a --asn 64601 --administrator 64512 --vnis 10000-19999 --address 10.9.0.1 --lease 2s",
    );
    let state = directory.join("state");
    let files = ROUTERS.map(|(name, _)| {
        let token = weft(&format!("token create --role router --name {name}"));
        let config = format!(
            "router: {{ name: {name} }}\ncontroller: {{ address: 10.9.0.1, token: {}, state: {} }}\n\
             overlay: {{ probe_interval: 1 }}\n",
            token.trim(),
            state.display()
        );
        (format!("{name}.yaml"), config)
    });
    files.into()
}

/// The controller between two routers, a host and a service's node behind each.
fn up(files: &[(String, String)]) -> Lab {
    up_with(files, "{}")
}

/// The same with an environment.
fn up_with(files: &[(String, String)], environment: &str) -> Lab {
    let mut nodes = vec![(
        "ctl",
        false,
        forwarding(&["lo 10.9.0.1/32", "a1 10.9.1.1/30", "a2 10.9.2.1/30"]),
    )];
    for (name, number) in ROUTERS {
        let other = 3 - number;
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("mgmt 10.9.{number}.2/30"),
            &format!("core 10.255.0.{number}/24"),
            &format!("red0 10.0.{number}.1/24"),
            &format!("node 169.254.{number}.1/30"),
        ]);
        exec.push("sysctl -qw net.ipv6.conf.all.forwarding=1".to_owned());
        exec.push(format!(
            "ip address add 2001:db8:{number}::1/64 dev red0 nodad"
        ));
        exec.push(format!("ip route add 10.9.0.1/32 via 10.9.{number}.1"));
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 10.255.0.{other}"
        ));
        nodes.push((name, true, exec));
    }
    for (host, number, counters) in [("red-1", 1, SENDER), ("red-2", 2, RECEIVER)] {
        let exec = vec![
            format!("ip address add 10.0.{number}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{number}.1"),
            format!("ip address add 2001:db8:{number}::10/64 dev eth1 nodad"),
            format!("ip route replace default via 2001:db8:{number}::1"),
            counters.to_owned(),
        ];
        nodes.push((host, false, exec));
    }
    for (node, number) in [("service-1", 1), ("service-2", 2)] {
        let address = format!("eth1 169.254.{number}.2/30");
        let exec = service(&address, &format!("169.254.{number}.1"), number);
        nodes.push((node, false, exec));
    }
    let links = [
        ("ctl:a1", "a1:mgmt"),
        ("ctl:a2", "a2:mgmt"),
        ("a1:core", "a2:core"),
        ("a1:red0", "red-1:eth1"),
        ("a2:red0", "red-2:eth1"),
        ("a1:node", "service-1:eth1"),
        ("a2:node", "service-2:eth1"),
    ];
    let defaults = format!("topology:\n  defaults: {{ env: {environment} }}\n");
    let topology = topology(&nodes, &links).replacen("topology:\n", &defaults, 1);
    Lab::up(&topology, files)
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("weft-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn controller(&self, lab: &Lab) -> Daemon {
        self.controller_with(lab, &[])
    }

    /// The same with an environment, `NAME=VALUE`.
    fn controller_with(&self, lab: &Lab, environment: &[String]) -> Daemon {
        let (weft, folder) = (weft(), self.0.join("controller"));
        let mut words: Vec<&str> = environment.iter().map(String::as_str).collect();
        words.extend([weft.to_str().unwrap(), "controller", "run", "--folder"]);
        words.push(folder.to_str().unwrap());
        lab.daemon("ctl", Path::new("/usr/bin/env"), &words)
    }

    /// The controller's API, as an operator with curl asks it.
    fn ask(&self, lab: &Lab, method: &str, path: &str, body: &str) -> Value {
        let folder = self.0.join("controller");
        let token = std::fs::read_to_string(folder.join("operator.token")).unwrap();
        let mut curl = lab.command("ctl", "curl");
        curl.args(["-sS", "--max-time", "10", "-X", method, "--cacert"])
            .arg(folder.join("authority.pem"));
        curl.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
        if !body.is_empty() {
            curl.args(["-d", body]);
        }
        // It may not be there yet.
        let answer = curl
            .arg(format!("https://10.9.0.1:8443/api/v1/{path}"))
            .output()
            .unwrap();
        serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null)
    }

    /// A tenant at both routers.
    fn tenant(&self, lab: &Lab) {
        let tenant = self.ask(lab, "POST", "tenants", r#"{"name": "red"}"#);
        assert_eq!(tenant["vni"], 10_000, "{tenant}");
        for (name, number) in ROUTERS {
            let body = format!(
                r#"{{"interfaces": ["red0"], "prefixes": ["10.0.{number}.0/24", "2001:db8:{number}::/64"]}}"#
            );
            self.ask(
                lab,
                "PUT",
                &format!("tenants/red/attachments/{name}"),
                &body,
            );
        }
    }

    /// Waits until every router is attached and runs what it was sent.
    fn settled(&self, lab: &Lab) {
        wait_until(
            "all routers attached, none behind",
            Duration::from_secs(60),
            || {
                let status = self.ask(lab, "GET", "status", "");
                let routers = status["routers"].as_array()?.clone();
                let all = routers.len() == 2 && routers.iter().all(|one| one["lags"] == false);
                all.then_some(())
            },
        );
    }
}

fn session(lab: &Lab) -> Option<(Value, Value)> {
    let neighbor = lab.neighbor("a1", "192.0.2.2")?;
    Some((neighbor["state"].clone(), neighbor["flaps"].clone()))
}

#[test]
fn a_domain_from_nothing_through_the_loss_of_its_controller() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let scratch = Scratch::new("managed");
    let files = domain(&scratch.0);
    let lab = up(&files);
    let controller = scratch.controller(&lab);
    // The routers were there before: they wait for it, join, and speak with each other.
    scratch.settled(&lab);
    for router in ["a1", "a2"] {
        lab.converged(router);
    }
    let up = Some((Value::from("established"), Value::from(0)));
    assert_eq!(session(&lab), up);
    // A tenant, and where it is: the ping follows.
    scratch.tenant(&lab);
    lab.reaches("red-1", "10.0.2.10");
    // Between IPv4 addresses too.
    lab.reaches("red-1", "2001:db8:2::10");
    scratch.settled(&lab);
    // How do they do? Asked now, the answer has the tenant's packets.
    let told = scratch.ask(&lab, "GET", "performance?tenant=red", "");
    assert_eq!(told["partial"], false, "{told}");
    let traffic = &told["routers"]["a1"]["traffic"][0];
    assert_eq!(traffic["endpoint"], "192.0.2.2", "{told}");
    assert_ne!(traffic["sent_packets"], 0, "{told}");

    // The controller is killed, a router with it, and comes back without it: packets go on, and nobody else notices.
    let mut ping = lab.command("red-1", "ping");
    let line = ["-q", "-i", "0.01", "-W", "2", "-c", "500", "10.0.2.10"];
    let ping = ping.args(line).stdout(Stdio::piped()).spawn().unwrap();
    controller.stop(Signal::SIGKILL);
    lab.kill("a2");
    lab.start("a2");
    lab.converged("a2");
    let neighbor = lab.neighbor("a2", "192.0.2.1").unwrap();
    assert_eq!(neighbor["state"], "established", "{neighbor}");
    let before = session(&lab);
    let told = ping.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("500 received, 0%"), "{told}");

    // It comes back, and so do they; the lease of nobody has run out, and no session has flapped.
    let controller = scratch.controller(&lab);
    scratch.settled(&lab);
    assert_eq!(session(&lab), before);
    let router = scratch.ask(&lab, "GET", "routers/a2", "");
    assert_eq!(router["registration"]["generation"], 2, "{router}");
    assert_eq!(router["expired"], false, "{router}");
    // What changed while nobody listened is heard: a detached tenant is gone, and the other router's route with it.
    scratch.ask(&lab, "DELETE", "tenants/red/attachments/a2", "");
    wait_until(
        "the tenant is gone from a2",
        Duration::from_secs(20),
        || {
            let tenants = lab.get("a2", "tenants")?;
            tenants.as_array()?.is_empty().then_some(())
        },
    );
    wait_until("its route is gone from a1", Duration::from_secs(20), || {
        (lab.get("a1", "tenants/red/routes")?["total"] == 2).then_some(())
    });

    // A router that is removed is spoken with no more: Cease, Peer De-configured.
    scratch.ask(&lab, "DELETE", "routers/a2", "");
    wait_until("the end of the session", Duration::from_secs(20), || {
        lab.neighbor("a1", "192.0.2.2").is_none().then_some(())
    });
    let far = wait_until("a2 is told", Duration::from_secs(20), || {
        lab.neighbor("a2", "192.0.2.1")
            .filter(|one| one["state"] != "established")
    });
    assert!(far.to_string().contains("Peer De-configured"), "{far}");
    // Keys are nobody else's to read.
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for file in ["controller/authority.key", "controller/operator.token"] {
        assert_eq!(mode(&scratch.0.join(file)), 0o600, "{file}");
    }
    let key = scratch.0.join("state/a1/router.key");
    let mode = lab.shell("a1", &format!("stat -c %a {}", key.display()));
    assert_eq!(mode, "600\n");
    drop(controller);
}

/// Every second echo request to the endpoint is dropped on its way in, by its sequence number, for others may ask too: that is the loss that the controller is told, and for as long as it was.
#[test]
fn round_trips_and_loss_are_what_the_underlay_does() {
    if !need(&["ip", "curl", "nft", "date"]) {
        return;
    }
    let scratch = Scratch::new("loss");
    let files = domain(&scratch.0);
    let lab = up(&files);
    let _controller = scratch.controller(&lab);
    scratch.settled(&lab);
    scratch.tenant(&lab);
    let patience = Duration::from_secs(60);
    // How many were answered and lost, as the router itself says; when so many have been.
    let probes = |least: u64| {
        wait_until("probes", patience, || {
            let endpoints = lab.get("a1", "endpoints?tenant=red")?;
            assert_eq!(endpoints.as_array()?.len(), 1, "{endpoints}");
            assert_eq!(endpoints[0]["address"], "192.0.2.2", "{endpoints}");
            let probes = &endpoints[0]["probes"];
            let (answered, lost) = (probes["answered"].as_u64()?, probes["lost"].as_u64()?);
            (answered + lost >= least && answered > 0).then_some((answered, lost))
        })
    };
    wait_until("an endpoint", patience, || {
        let endpoints = lab.get("a1", "endpoints")?;
        (!endpoints.as_array()?.is_empty()).then_some(())
    });
    probes(1);
    let table = "table ip loss {\n chain input {\n  type filter hook input priority -300;\n  \
                 ip daddr 192.0.2.2 icmp type echo-request icmp sequence & 1 == 1 drop\n }\n}\n";
    let rules = lab.path("loss.nft");
    std::fs::write(&rules, table).unwrap();
    lab.run("a2", &format!("nft -f {}", rules.display()));
    // One may be on its way.
    let (answered, lost) = probes(2);
    let (then_answered, then_lost) = probes(answered + lost + 12);
    let (answered, lost) = (then_answered - answered, then_lost - lost);
    assert!(
        answered.abs_diff(lost) <= 3,
        "{answered} answered, {lost} lost"
    );
    // The same from the controller, for all and for the tenant.
    for asked in ["router=a1", "tenant=red"] {
        let told = scratch.ask(&lab, "GET", &format!("performance?{asked}"), "");
        let endpoint = &told["routers"]["a1"]["endpoints"][0];
        assert_eq!(endpoint["address"], "192.0.2.2", "{told}");
        assert_eq!(endpoint["reachable"], true, "{told}");
        let probes = &endpoint["probes"];
        assert!(probes["lost"].as_u64().unwrap() >= lost, "{told}");
        assert!(probes["recent_lost"].as_u64().unwrap() >= 4, "{told}");
        assert!(
            probes["round_trip"]["least"].as_u64().unwrap() > 0,
            "{told}"
        );
    }
    let shown = lab
        .command("a1", weft())
        .args(["show", "endpoints"])
        .output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(
        shown.contains("192.0.2.2") && shown.contains(" ms"),
        "{shown}"
    );

    // No more loss: what is counted since an answer has none.
    lab.run("a2", "nft delete table ip loss");
    let (answered, lost) = probes(0);
    wait_until("the last loss", patience, || {
        let (now, _) = probes(0);
        (now >= answered + 2).then_some(())
    });
    scratch.ask(&lab, "GET", "performance", "");
    let time = lab.run("ctl", "date -u +%FT%T.%NZ");
    let (answered, _) = probes(answered + lost + 2);
    wait_until("answers", patience, || {
        let (now, _) = probes(0);
        (now >= answered + 3).then_some(())
    });
    let path = format!("performance?router=a1&since={}", time.trim());
    let told = scratch.ask(&lab, "GET", &path, "");
    let a1 = &told["routers"]["a1"];
    assert!(a1["seconds"].as_f64().unwrap() > 1.0, "{told}");
    let probes = &a1["endpoints"][0]["probes"];
    assert!(probes["answered"].as_u64().unwrap() >= 3, "{told}");
    assert!(probes["lost"].as_u64().unwrap() <= 1, "{told}");
    // A time that is none, or has not come yet, is refused.
    for (since, word) in [
        ("tomorrow", "is no time"),
        ("2999-01-01T00:00:00Z", "not come"),
    ] {
        let told = scratch.ask(&lab, "GET", &format!("performance?since={since}"), "");
        assert_eq!(told["status"], 400, "{told}");
        assert!(told["detail"].to_string().contains(word), "{told}");
    }
}

/// What has a process see another wall clock: one that a file says, at once.
struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// `None` where the machine cannot do that.
    fn new(scratch: &Scratch, name: &str) -> Option<Self> {
        let architectures = std::fs::read_dir("/usr/lib").ok()?.flatten();
        let mut libraries =
            architectures.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|library| library.exists())?;
        let clock = Self {
            file: scratch.0.join(name),
            library,
        };
        clock.set("+0d");
        Some(clock)
    }

    fn set(&self, offset: &str) {
        // Whole or not at all: somebody is reading.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, offset).unwrap();
        std::fs::rename(&fresh, &self.file).unwrap();
    }

    fn environment(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
        ]
    }
}

/// Clocks jump by days, forward and back, the controller's and the routers': sessions stay, who comes back is let in, however old its
/// certificate is by the other's clock, and what changes is heard.
#[test]
fn clocks_that_jump_by_days_cost_no_session() {
    if !need(&["ip", "curl"]) {
        return;
    }
    let scratch = Scratch::new("clocks");
    let files = domain(&scratch.0);
    let (Some(theirs), Some(ours)) = (
        Clock::new(&scratch, "controller.clock"),
        Clock::new(&scratch, "routers.clock"),
    ) else {
        eprintln!("SKIPPED: libfaketime");
        return;
    };
    let environment = ours.environment();
    let environment = environment
        .iter()
        .map(|one| one.replacen('=', ": \"", 1) + "\"");
    let environment = environment.collect::<Vec<_>>().join(", ");
    let lab = up_with(&files, &format!("{{ {environment} }}"));
    let mut controller = scratch.controller_with(&lab, &theirs.environment());
    scratch.settled(&lab);
    for router in ["a1", "a2"] {
        lab.converged(router);
    }
    let tenant = scratch.ask(&lab, "POST", "tenants", r#"{"name": "red"}"#);
    assert_eq!(tenant["vni"], 10_000, "{tenant}");
    let before = session(&lab);
    assert_eq!(before, Some(("established".into(), 0.into())));
    let mut renewed = 0;
    for (clock, offset) in [
        (&theirs, "+9d"),
        (&theirs, "-9d"),
        (&theirs, "+0d"),
        (&ours, "+9d"),
        (&ours, "-9d"),
        (&theirs, "+9d"),
    ] {
        clock.set(offset);
        // Under streams that stand, and then for those that come back.
        for restart in [false, true] {
            if restart {
                let log = controller.stop(Signal::SIGKILL);
                renewed += log.matches("certificate renewed").count();
                controller = scratch.controller_with(&lab, &theirs.environment());
            }
            scratch.settled(&lab);
            let body = r#"{"interfaces": ["red0"]}"#;
            let path = "tenants/red/attachments/a1";
            let (method, body, present) = match restart {
                false => ("PUT", body, 1),
                true => ("DELETE", "", 0),
            };
            scratch.ask(&lab, method, path, body);
            wait_until(
                &format!("{method} at {offset}"),
                Duration::from_secs(60),
                || {
                    let tenants = lab.get("a1", "tenants")?;
                    (tenants.as_array()?.len() == present).then_some(())
                },
            );
        }
        assert_eq!(session(&lab), before, "{offset}");
    }
    renewed += controller.log().matches("certificate renewed").count();
    // Each router where its certificate was not taken, and not over and over.
    assert!((2..=12).contains(&renewed), "{renewed}");
    for router in ["a1", "a2"] {
        let router = scratch.ask(&lab, "GET", &format!("routers/{router}"), "");
        assert_eq!(router["registration"]["generation"], 1, "{router}");
    }
}

#[test]
fn services_change_places_at_the_controllers_word() {
    if !need(&["ip", "curl", "ping", "nft"]) {
        return;
    }
    let scratch = Scratch::new("order");
    let files = domain(&scratch.0);
    let lab = up(&files);
    let _controller = scratch.controller(&lab);
    scratch.settled(&lab);
    scratch.tenant(&lab);
    for number in [1, 2] {
        let body = format!(
            r#"{{"attachments": [{{"router": "a{number}", "interface": "node", "node": ["169.254.{number}.2"], "probe": {{"interval": 100}}}}]}}"#
        );
        let path = format!("tenants/red/services/service-{number}");
        let told = scratch.ask(&lab, "PUT", &path, &body);
        assert!(told["label"].is_u64(), "{told}");
    }
    let order = |services: [&str; 2]| {
        let body =
            format!(r#"{{"match": {{"source": ["10.0.1.0/24"]}}, "services": {services:?}}}"#);
        let told = scratch.ask(&lab, "PUT", "tenants/red/chains/web", &body);
        assert_eq!(told["services"], Value::from(services.to_vec()), "{told}");
    };
    let (there, turned) = (["service-1", "service-2"], ["service-2", "service-1"]);
    order(there);
    for router in ["a1", "a2"] {
        wait_until("the chain is whole", Duration::from_secs(60), || {
            let chains = lab.get(router, "chains")?;
            (chains[0]["state"]["code"] == "whole").then_some(())
        });
    }
    let mut pings = lab.command("red-1", "ping");
    let pings = pings.args(["-i", "0.002", "-w", "300", "-q", "10.0.2.10"]);
    let mut pings = pings.stdout(Stdio::null()).spawn().unwrap();
    for services in [turned, there, turned] {
        order(services);
        scratch.settled(&lab);
        wait_for(&lab, "red-2", "both", 200);
    }
    // One of them does not hear of it: its packets are dropped rather than led past one, until it does.
    lab.run("a2", "ip link set mgmt down");
    order(there);
    wait_until("one router runs it", Duration::from_secs(30), || {
        let chains = lab.get("a1", "chains")?;
        (chains[0]["steps"][0]["service"] == "service-1").then_some(())
    });
    wait_for(&lab, "red-1", "sent", 500);
    lab.run("a2", "ip link set mgmt up");
    lab.run("a2", "ip route replace 10.9.0.1/32 via 10.9.2.1");
    wait_for(&lab, "red-2", "both", 200);
    pings.kill().unwrap();
    pings.wait().unwrap();
    assert_eq!(counted(&lab, "red-2", "other"), 0);
}
