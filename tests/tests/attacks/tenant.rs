//! A domain of a controller (ctl) and a router that it tells what to be (a1), and an attacker (x) who has come by a token: of a tenant's
//! administrator, or one to join with.

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Controller, Daemon, Lab, need, wait_until, weft};

const PATIENCE: Duration = Duration::from_secs(60);

struct Domain {
    lab: Lab,
    controller: Controller,
    _daemon: Daemon,
}

impl Domain {
    /// a1 is registered, there is a tenant, red, which has been granted `red0` there; and gives the token of red's administrator.
    fn up() -> Option<(Self, String)> {
        if !need(&["ip", "nft", "curl", "ping"]) {
            return None;
        }
        let controller = Controller::init("a", "10.9.0.1");
        let token = controller.weft("token create --role router --name a1");
        let config = format!(
            "router: {{ name: a1 }}\ncontroller: {{ address: 10.9.0.1, token: {token}, state: {} }}\n",
            controller.state().display()
        );
        let ctl = forwarding(&["lo 10.9.0.1/32", "a1 10.9.1.1/30", "x 10.9.2.1/30"]);
        let mut a1 = forwarding(&["lo 192.0.2.1/32", "mgmt 10.9.1.2/30", "red0 10.0.1.1/24"]);
        a1.push("ip route add default via 10.9.1.1".to_owned());
        let x = vec![
            "ip address add 10.9.2.2/30 dev eth1".to_owned(),
            "ip route add default via 10.9.2.1".to_owned(),
        ];
        let red = vec!["ip address add 10.0.1.10/24 dev eth1".to_owned()];
        let nodes = [
            ("ctl", false, ctl),
            ("a1", true, a1),
            ("x", false, x),
            ("red-1", false, red),
        ];
        let links = [
            ("ctl:a1", "a1:mgmt"),
            ("ctl:x", "x:eth1"),
            ("a1:red0", "red-1:eth1"),
        ];
        let files = [("a1.yaml".to_owned(), config)];
        let lab = Lab::up(&topology(&nodes, &links), &files);
        let daemon = controller.run(&lab, "ctl");
        let domain = Self {
            lab,
            controller,
            _daemon: daemon,
        };
        wait_until("a1 is registered", PATIENCE, || {
            domain.is_attached().then_some(())
        });
        domain.operator("POST", "tenants", &json!({ "name": "red" }));
        let granted = json!({ "interfaces": ["red0"] });
        domain.operator("PUT", "tenants/red/grants/a1", &granted);
        let token = domain.token("red");
        Some((domain, token))
    }

    fn token(&self, tenant: &str) -> String {
        let body = json!({ "scope": { "kind": "tenant", "tenant": tenant } });
        let made = self.operator("POST", "tokens", &body);
        made["token"].as_str().unwrap().to_owned()
    }

    fn is_attached(&self) -> bool {
        let token = self.controller.operator();
        let asks = (&self.lab, "ctl");
        let (_, status) = self
            .controller
            .ask(asks, &token, ("GET", "status"), &Value::Null);
        status["routers"][0]["attached"] == true
    }

    /// What an operator is answered, who gets what he asks for.
    fn operator(&self, method: &str, path: &str, body: &Value) -> Value {
        let token = self.controller.operator();
        let (status, answer) =
            self.controller
                .ask((&self.lab, "ctl"), &token, (method, path), body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// What the attacker is answered.
    fn attacker(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self
            .controller
            .ask((&self.lab, "x"), token, (method, path), body);
        (status, answer.to_string())
    }
}

/// Case 6: an interface that was not granted, or the addresses of routers as those of a service's node.
#[test]
fn a_tenants_administrator_has_routers_do_what_was_granted_alone() {
    let Some((domain, red)) = Domain::up() else {
        return;
    };
    let node = |interface: &str, address: &str| {
        json!({ "attachments": [{
            "router": "a1", "interface": interface, "node": [address],
            "probe": { "kind": "http", "port": 80, "path": "/secret" },
        }] })
    };
    for (path, body) in [
        (
            "tenants/red/attachments/a1",
            json!({ "interfaces": ["mgmt"] }),
        ),
        (
            "tenants/red/attachments/a1",
            json!({ "interfaces": ["red0", "lo"] }),
        ),
        ("tenants/red/services/fw", node("mgmt", "169.254.1.2")),
        ("tenants/red/services/fw", node("red0", "192.0.2.1")),
        ("tenants/red/services/fw", node("red0", "127.0.0.1")),
        ("tenants/red/grants/a1", json!({ "interfaces": ["mgmt"] })),
        ("tenants/red/quota", json!({ "vnis": 1000 })),
    ] {
        let (status, answer) = domain.attacker(&red, "PUT", path, &body);
        assert!(
            (400..500).contains(&status),
            "{path} {body}: {status} {answer}"
        );
    }
    // An operator's mistake is none either: the router has said what it lives by.
    wait_until("what a1 lives by", PATIENCE, || {
        let router = domain.operator("GET", "routers/a1", &Value::Null);
        router["reserved"]["mgmt"].is_string().then_some(())
    });
    let token = domain.controller.operator();
    let put = ("PUT", "tenants/red/attachments/a1");
    let mistake = json!({ "interfaces": ["mgmt"] });
    let asks = (&domain.lab, "ctl");
    let (status, answer) = domain.controller.ask(asks, &token, put, &mistake);
    assert!((400..500).contains(&status), "{status} {answer}");
    assert!(answer.to_string().contains("is no tenant's"), "{answer}");
    let own = json!({ "interfaces": ["red0"] });
    let (status, answer) = domain.attacker(&red, "PUT", "tenants/red/attachments/a1", &own);
    assert!((200..300).contains(&status), "{status} {answer}");
    domain.lab.reaches("red-1", "10.0.1.1");
    assert!(domain.is_attached());
}

/// Case 9: a token to join with that names nobody makes nobody an existing router.
#[test]
fn who_finds_a_token_to_join_with_is_no_router_that_there_is() {
    let Some((domain, _)) = Domain::up() else {
        return;
    };
    let scope = json!({ "scope": { "kind": "join", "role": "router" } });
    let token = domain.operator("POST", "tokens", &scope)["token"].clone();
    let key = domain.operator("GET", "routers/a1", &Value::Null)["key"].clone();
    let state = domain.controller.state().join("thief");
    let mut join = domain.lab.command("x", weft());
    join.args(["join", "--name", "a1", "10.9.0.1"])
        .arg(token.as_str().unwrap());
    let joined = join.arg("--state").arg(state).output().unwrap();
    let said = String::from_utf8(joined.stderr).unwrap();
    assert!(!joined.status.success(), "{said}");
    assert!(
        said.contains("weft token create --role router --name a1"),
        "{said}"
    );
    let now = domain.operator("GET", "routers/a1", &Value::Null);
    assert_eq!(now["key"], key);
    assert!(domain.is_attached());
}

/// Case 11: a tenant takes what it may, and leaves others theirs.
#[test]
fn a_tenant_takes_nothing_that_others_need() {
    let Some((domain, red)) = Domain::up() else {
        return;
    };
    let refused = (0..200).find_map(|number| {
        let path = format!("tenants/red/services/s{number}");
        let (status, answer) = domain.attacker(&red, "PUT", &path, &json!({}));
        // Deleted ones rest, and count until then.
        domain.attacker(&red, "DELETE", &path, &Value::Null);
        (status == 422 || status == 429).then_some((number, answer))
    });
    let (number, answer) = refused.unwrap();
    assert!(number <= 64, "{number}: {answer}");
    domain.operator("POST", "tenants", &json!({ "name": "blue" }));
}

/// Case 12: a token ends with its tenant, also where that goes by a way back in history.
#[test]
fn the_token_of_a_tenant_that_is_gone_is_good_for_no_later_one() {
    let Some((domain, red)) = Domain::up() else {
        return;
    };
    let before = domain.operator("GET", "status", &Value::Null)["revision"].clone();
    domain.operator("POST", "tenants", &json!({ "name": "blue" }));
    let blue = domain.token("blue");
    domain.operator(
        "POST",
        &format!("revisions/{before}/rollback"),
        &Value::Null,
    );
    domain.operator("DELETE", "tenants/red", &Value::Null);
    for (name, former) in [("blue", blue), ("red", red)] {
        domain.operator("POST", "tenants", &json!({ "name": name }));
        let path = format!("tenants/{name}");
        let (status, answer) = domain.attacker(&former, "GET", &path, &Value::Null);
        assert_eq!(status, 401, "{answer}");
    }
}
