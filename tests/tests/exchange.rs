//! Two domains whose operators trust each other: their edges find each other, a tenant goes over, and nothing is cut before somebody
//! says so.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, need, output, wait_until, weft};

/// Names of domain, controller and edge, and what their numbers are.
const SIDES: [(&str, u8); 2] = [("a", 1), ("b", 2)];
const PATIENCE: Duration = Duration::from_secs(40);

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn folder(&self, domain: &str) -> PathBuf {
        self.0.join(domain)
    }

    /// A domain in files, and its edge's configuration.
    fn domain(&self, (domain, number): (&str, u8)) -> (String, String) {
        let weft = |words: &str| {
            let mut command = Command::new(weft());
            command.args(words.split(' '));
            output(command.arg("--folder").arg(self.folder(domain)))
        };
        weft(&format!(
            "controller init --name {domain} --asn 6460{number} --administrator 64512 --vnis {number}0000-{number}9999 \
             --address 10.9.0.{number} --lease 1s"
        ));
        let token = weft(&format!("token create --role edge --name e{domain}"));
        let config = format!(
            "router: {{ name: e{domain} }}\ncontroller: {{ address: 10.9.0.{number}, token: {}, state: {} }}\n",
            token.trim(),
            self.0.join("state").display()
        );
        (format!("e{domain}.yaml"), config)
    }

    fn controller(&self, lab: &Lab, domain: &str) -> Daemon {
        let folder = self.folder(domain);
        let arguments = ["controller", "run", "--folder", folder.to_str().unwrap()];
        lab.daemon(&format!("ctl-{domain}"), &weft(), &arguments)
    }

    /// The command line at a domain's controller.
    fn weft(&self, lab: &Lab, domain: &str, words: &[&str]) -> String {
        let mut command = lab.command(&format!("ctl-{domain}"), weft());
        output(command.args(words).arg("--folder").arg(self.folder(domain)))
    }

    /// The API of a domain's controller; null where it is not there, or has nothing to say.
    fn ask(&self, lab: &Lab, domain: &str, method: &str, path: &str, body: &Value) -> Value {
        let folder = self.folder(domain);
        let (_, number) = SIDES.into_iter().find(|(name, _)| *name == domain).unwrap();
        let mut curl = lab.command(&format!("ctl-{domain}"), "curl");
        curl.args(["-sS", "--max-time", "10", "-X", method, "--cacert"])
            .arg(folder.join("authority.pem"))
            .args(["-H", &format!("Authorization: Bearer {}", token(&folder))]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let answer = curl
            .arg(format!("https://10.9.0.{number}:8443/api/v1/{path}"))
            .output()
            .unwrap();
        serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null)
    }
}

fn token(folder: &Path) -> String {
    let token = std::fs::read_to_string(folder.join("operator.token")).unwrap();
    token.trim().to_owned()
}

/// The controllers, the edges and a host behind each.
fn up(files: &[(String, String)]) -> Lab {
    let mut nodes = Vec::new();
    for (domain, number) in SIDES {
        let other = 3 - number;
        let edge = format!("e{domain}");
        let mut exec = forwarding(&[
            &format!("lo 10.9.0.{number}/32"),
            &format!("{edge} 10.9.{number}.1/30"),
            &format!("far 10.9.9.{number}/30"),
        ]);
        exec.push(format!("ip route add 10.9.0.{other}/32 via 10.9.9.{other}"));
        nodes.push((format!("ctl-{domain}"), false, exec));
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("mgmt 10.9.{number}.2/30"),
            &format!("wan 198.51.100.{number}/30"),
            &format!("red0 10.0.{number}.1/24"),
        ]);
        exec.push(format!(
            "ip route add 10.9.0.{number}/32 via 10.9.{number}.1"
        ));
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 198.51.100.{other}"
        ));
        nodes.push((edge, true, exec));
        let host = vec![
            format!("ip address add 10.0.{number}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{number}.1"),
        ];
        nodes.push((format!("red-{domain}"), false, host));
    }
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(name, router, exec)| (name.as_str(), *router, exec.clone()))
        .collect();
    let links = [
        ("ctl-a:far", "ctl-b:far"),
        ("ctl-a:ea", "ea:mgmt"),
        ("ctl-b:eb", "eb:mgmt"),
        ("ea:wan", "eb:wan"),
        ("ea:red0", "red-a:eth1"),
        ("eb:red0", "red-b:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), files)
}

#[test]
fn domains_that_trust_each_other_through_the_loss_of_a_controller() {
    if !need(&["ip", "curl", "ping"]) {
        return;
    }
    let path = std::env::temp_dir().join(format!("weft-exchange-{}", std::process::id()));
    let scratch = Scratch(path);
    let files = SIDES.map(|side| scratch.domain(side));
    let lab = up(&files);
    let _a = scratch.controller(&lab, "a");
    let b = scratch.controller(&lab, "b");
    let exchange = |wanted: &str| {
        wait_until(&format!("the exchange is {wanted}"), PATIENCE, || {
            let other = scratch.ask(&lab, "a", "GET", "domains/b", &Value::Null);
            (other["exchange"] == wanted).then_some(())
        });
    };
    // Two decisions, and nothing else is entered: the edges speak with each other.
    for domain in ["a", "b"] {
        wait_until("the controller", PATIENCE, || {
            let said = scratch.ask(&lab, domain, "GET", "introduction", &Value::Null);
            (said != Value::Null).then_some(())
        });
    }
    for (here, there) in [("a", "b"), ("b", "a")] {
        let introduction = scratch.weft(&lab, there, &["domain", "introduction"]);
        scratch.weft(&lab, here, &["domain", "add", introduction.trim()]);
    }
    exchange("current");
    let session = || {
        let neighbor = lab.neighbor("ea", "192.0.2.2")?;
        Some((neighbor["state"].clone(), neighbor["flaps"].clone()))
    };
    let established = (Value::from("established"), Value::from(0));
    wait_until("the session of the edges", PATIENCE, || {
        (session()? == established).then_some(())
    });
    // A tenant of a's own, before all others.
    scratch.ask(&lab, "a", "POST", "tenants", &json!({ "name": "blue" }));
    let body = json!({ "prefixes": ["10.77.0.0/24", "10.0.1.0/24"] });
    scratch.ask(&lab, "a", "PUT", "tenants/blue/attachments/ea", &body);
    // A tenant that a shares is made at b by its name.
    scratch.ask(&lab, "a", "POST", "tenants", &json!({ "name": "red" }));
    scratch.weft(&lab, "a", &["domain", "share", "b", "red"]);
    let made = wait_until("the tenant is offered", PATIENCE, || {
        let body = json!({ "name": "red", "home": "a" });
        let made = scratch.ask(&lab, "b", "POST", "tenants", &body);
        (made["name"] == "red").then_some(made)
    });
    assert_eq!(made["vni"], 10_001, "{made}");
    for (domain, number) in SIDES {
        let path = format!("tenants/red/attachments/e{domain}");
        let prefix = format!("10.0.{number}.0/24");
        let body = json!({ "interfaces": ["red0"], "prefixes": [prefix] });
        scratch.ask(&lab, domain, "PUT", &path, &body);
    }
    lab.reaches("red-a", "10.0.2.10");
    // What is not shared is not known there, although it was there first and has a prefix of red's; shared it is, and the session stays.
    assert_eq!(lab.paths("eb", "10.77.0.0/24"), Vec::<Value>::new());
    let labels = lab.paths("eb", "10.0.1.0/24");
    let labels = serde_json::to_string(&labels).unwrap();
    assert!(
        labels.contains("10001") && !labels.contains("10000"),
        "{labels}"
    );
    scratch.weft(&lab, "a", &["domain", "share", "b", "blue"]);
    wait_until("blue's route", PATIENCE, || {
        (lab.paths("eb", "10.77.0.0/24").len() == 1).then_some(())
    });
    scratch.weft(&lab, "a", &["domain", "unshare", "b", "blue"]);
    wait_until("it is withdrawn", PATIENCE, || {
        lab.paths("eb", "10.77.0.0/24").is_empty().then_some(())
    });
    assert_eq!(session(), Some(established.clone()));
    // The other domain's controller goes: it is stale, and nobody is cut off.
    b.stop(Signal::SIGKILL);
    exchange("stale");
    let shown = scratch.weft(&lab, "a", &["controller", "status"]);
    assert!(shown.contains("stale"), "{shown}");
    assert_eq!(session(), Some(established.clone()));
    lab.reaches("red-a", "10.0.2.10");
    let _b = scratch.controller(&lab, "b");
    exchange("current");
    assert_eq!(session(), Some(established));
    // Trusted no more: the session ends as an operator ends it.
    scratch.weft(&lab, "a", &["domain", "remove", "b"]);
    wait_until("the end of the session", PATIENCE, || {
        lab.neighbor("ea", "192.0.2.2").is_none().then_some(())
    });
    // It connects again at once and is refused, which is the last that the neighbour shows: what it was told is in the log.
    wait_until("eb is told", PATIENCE, || {
        lab.log("eb").contains("Peer De-configured").then_some(())
    });
}
