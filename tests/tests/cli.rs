//! What the command line says to bad input.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::PathBuf;
use std::process::{Command, Output};

use weft_tests::{need, output, weft};

/// A file that is gone with the value.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weft-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

const GOOD: &str = "router: { name: r, router_id: 192.0.2.1, asn: 64601 }\n";

#[test]
fn a_wrong_key_is_shown_with_its_place() {
    let config = Config::new("key", &format!("{GOOD}neigbors: []\n"));
    let place = format!("{}:2:1", config.0.display());
    for arguments in [&["check"][..], &["router", "--config"]] {
        let output = Command::new(weft()).args(arguments).arg(&config.0).output();
        let output = output.unwrap();
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        for word in [&place, "neigbors", "neighbors"] {
            assert!(text.contains(word), "no `{word}` in: {text}");
        }
    }
}

#[test]
fn every_error_of_a_file_is_shown() {
    let text = "router: { name: r, router_id: 192.0.2.1, asn: x }
neighbors:
  - { address: 192.0.2.300, asn: 64602 }
";
    let config = Config::new("many", text);
    let output = Command::new(weft()).arg("check").arg(&config.0).output();
    let text = errors(&output.unwrap());
    for place in ["1:47", "3:16"] {
        let place = format!("{}:{place}", config.0.display());
        assert!(text.contains(&place), "no `{place}` in: {text}");
    }
}

#[test]
fn a_good_file_is_called_good() {
    let config = Config::new("good", GOOD);
    let text = output(Command::new(weft()).arg("check").arg(&config.0));
    assert!(text.contains("good: router r in AS 64601"), "{text}");
}

#[test]
fn the_schema_is_json() {
    let text = output(Command::new(weft()).arg("schema"));
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(schema["properties"]["tenants"].is_object());
}

#[test]
fn a_missing_privilege_is_one_line() {
    if !need(&["unshare", "setpriv"]) {
        return;
    }
    let text = format!(
        "{GOOD}overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1 }}
tenants:
  - {{ name: red, vni: 10001, prefixes: [10.0.1.0/24] }}
"
    );
    let config = Config::new("privilege", &text);
    // A network of its own: whatever runs on this machine is left alone. Root without capabilities.
    let output = Command::new("unshare")
        .args(["-n", "setpriv", "--bounding-set=-all", "--inh-caps=-all"])
        .arg(weft())
        .args(["router", "--config"])
        .arg(&config.0)
        .output();
    let text = errors(&output.unwrap());
    let lines: Vec<_> = text.lines().filter(|line| line.contains("CAP_")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("CAP_NET_BIND_SERVICE"), "{text}");
    assert!(lines[0].contains("setcap"), "{text}");
    assert!(lines[0].contains("cap_net_admin"), "all at once: {text}");
}

#[test]
fn the_doctor_tries_the_kernel_and_names_what_is_in_the_way() {
    if !need(&["ip", "nft"]) {
        return;
    }
    let doctor = |before: &str| {
        let script = format!("ip link set lo up; {before} \"$0\" doctor --json");
        let output = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .arg(weft())
            .output()
            .unwrap();
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let bad: Vec<String> = findings
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["health"] == "bad")
            .map(|finding| format!("{} {}", finding["what"], finding["remedy"]))
            .collect();
        (output.status.success(), bad)
    };
    assert_eq!(
        doctor(""),
        (true, Vec::new()),
        "this kernel has what weft needs"
    );
    let (success, bad) = doctor("ip link add vx0 type veth peer name other;");
    assert!(!success);
    assert_eq!(
        bad,
        ["\"device vx0\" \"ip link del vx0, or ip link set vx0 name another\""]
    );
}
