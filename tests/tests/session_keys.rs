//! Sessions between routers of a domain are signed, with keys that nobody has configured: the controller makes them, and replaces them
//! under the sessions.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use weft_tests::topology::{forwarding, topology};
use weft_tests::{Daemon, Lab, need, output, wait_until, weft};

const ROUTERS: [(&str, u8); 2] = [("a1", 1), ("a2", 2)];
const PATIENCE: Duration = Duration::from_secs(60);

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two routers of a domain on one link, a host behind each.
struct Domain {
    lab: Lab,
    scratch: Scratch,
    files: Vec<(String, String)>,
}

impl Domain {
    /// `signs` says of each router whether it signs its sessions.
    fn up(name: &str, signs: [bool; 2]) -> Self {
        let name = format!("weft-{name}-{}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        let folder = scratch.0.join("controller");
        let weft = |words: &str| {
            let mut command = Command::new(weft());
            command.args(words.split(' ')).arg("--folder").arg(&folder);
            output(&mut command)
        };
        weft(
            "controller init --name a --asn 64601 --administrator 64512 --vnis 10000-19999 --address 10.9.0.1",
        );
        let files = ROUTERS.iter().zip(signs).map(|((name, _), signs)| {
            let token = weft(&format!("token create --role router --name {name}"));
            let config = format!(
                "router: {{ name: {name} }}\ncontroller: {{ address: 10.9.0.1, token: {}, state: {}, sign_sessions: {signs} }}\n\
                 overlay: {{ probe_interval: 0 }}\n",
                token.trim(),
                scratch.0.join("state").display()
            );
            (format!("{name}.yaml"), config)
        });
        let files: Vec<(String, String)> = files.collect();
        let lab = lab(&files);
        Self {
            lab,
            scratch,
            files,
        }
    }

    fn folder(&self) -> PathBuf {
        self.scratch.0.join("controller")
    }

    fn controller(&self) -> Daemon {
        let folder = self.folder();
        let words = ["controller", "run", "--folder", folder.to_str().unwrap()];
        self.lab.daemon("ctl", &weft(), &words)
    }

    /// A command of the operator's.
    fn operator(&self, words: &str) -> String {
        let mut command = self.lab.command("ctl", weft());
        command.args(words.split(' ')).arg("--folder");
        output(command.arg(self.folder()))
    }

    /// Waits until the controller answers.
    fn operator_ready(&self) {
        wait_until("the controller", PATIENCE, || self.pair().map(drop));
    }

    /// The same, of the domain's tenants and prefixes.
    fn ask(&self, method: &str, path: &str, body: &str) {
        let token = std::fs::read_to_string(self.folder().join("operator.token")).unwrap();
        let mut curl = self.lab.command("ctl", "curl");
        curl.args(["-sSf", "--max-time", "10", "-X", method, "--cacert"])
            .arg(self.folder().join("authority.pem"))
            .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
            .args(["-d", body])
            .arg(format!("https://10.9.0.1:8443/api/v1/{path}"));
        output(&mut curl);
    }

    /// The tenant's prefixes at a router.
    fn attach(&self, router: &str, prefixes: &str) {
        let body = format!(r#"{{"interfaces": ["red0"], "prefixes": [{prefixes}]}}"#);
        self.ask("PUT", &format!("tenants/red/attachments/{router}"), &body);
    }

    /// What the controller says of the one pair.
    fn pair(&self) -> Option<Value> {
        let mut command = self.lab.command("ctl", weft());
        command.args(["controller", "keys", "--json", "--folder"]);
        let told = command.arg(self.folder()).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).ok()?;
        told["keys"].get(0).cloned()
    }

    /// Waits until the session is signed with this key of the pair.
    fn signed_with(&self, number: u64) {
        wait_until(&format!("key {number}"), PATIENCE, || {
            let pair = self.pair()?;
            (pair["signed"] == true && pair["number"] == number && pair["waits_for"].is_null())
                .then_some(())
        });
    }

    /// Waits until a1's session with a2 stands, and is signed or not; gives how it is.
    fn stands(&self, signed: bool) -> Value {
        wait_until("the session", PATIENCE, || {
            let neighbor = self.lab.neighbor("a1", "192.0.2.2")?;
            (neighbor["state"] == "established" && neighbor["signed"] == signed).then_some(neighbor)
        })
    }

    /// What the kernel signs a router's connection with to the other one; nothing where it does not.
    fn key(&self, router: &str) -> Option<String> {
        let shown = self.lab.run(
            router,
            "ss -Htni state established ( sport = :179 or dport = :179 )",
        );
        let mut words = shown.split_whitespace();
        let keys = words.find_map(|word| word.strip_prefix("md5keys:"))?;
        // Earlier versions of ss write keys before everything else that they write.
        let key = match keys.split_once('=')?.1 {
            "" => &shown[..64],
            key => key,
        };
        assert!(key.chars().all(|char| char.is_ascii_hexdigit()), "{shown}");
        Some(key.to_owned())
    }

    /// Waits until both ends of the connection that stands have one key, which is not the former; gives it.
    fn agreed(&self, former: &str) -> String {
        wait_until("one key at both ends", PATIENCE, || {
            let [one, other] = ["a1", "a2"].map(|router| self.key(router));
            one.filter(|key| Some(key) == other.as_ref() && key != former)
        })
    }

    fn flaps(&self) -> Value {
        self.lab.neighbor("a1", "192.0.2.2").unwrap()["flaps"].clone()
    }

    /// Who is on the way, or knows what is on it, ends connections that nobody signs: with the number that a1 awaits of a2 next.
    fn reset(&self, capture: &Path) {
        // What a1 acknowledged last, by the ports.
        let shown = packets(
            capture,
            "src host 192.0.2.1 and tcp[tcpflags] & tcp-ack != 0",
        );
        let awaited = shown.lines().filter_map(|line| {
            let word = |before: &str| {
                let behind = line.split(before).nth(1)?;
                let end = behind.find(|char: char| !char.is_ascii_digit() && char != '.');
                Some(&behind[..end.unwrap_or(behind.len())])
            };
            let port = |text: &str| text.rsplit('.').next()?.parse::<u16>().ok();
            let ports = (port(word(" > ")?)?, port(word("IP ")?)?);
            Some((ports, word(" ack ")?.parse::<u32>().ok()?))
        });
        let awaited: BTreeMap<(u16, u16), u32> = awaited.collect();
        assert!(!awaited.is_empty(), "{shown}");
        let sent = self.lab.in_node("a2", || {
            let protocol = Some(socket2::Protocol::TCP);
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, protocol)?;
            let source: std::net::SocketAddr = "192.0.2.2:0".parse().unwrap();
            socket.bind(&source.into())?;
            let target: std::net::SocketAddr = "192.0.2.1:0".parse().unwrap();
            awaited.into_iter().try_for_each(|((from, to), sequence)| {
                let segment = segment(from, to, sequence);
                socket.send_to(&segment, &target.into()).map(drop)
            })
        });
        sent.unwrap();
    }

    /// Segments that a1 has refused for want of a signature.
    fn refused(&self) -> u64 {
        self.lab.get("a1", "status").unwrap()["signatures"]["missing"]
            .as_u64()
            .unwrap()
    }
}

/// A TCP segment from 192.0.2.2 to 192.0.2.1 that resets a connection.
fn segment(from: u16, to: u16, sequence: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(from.to_be_bytes());
    octets.extend(to.to_be_bytes());
    octets.extend(sequence.to_be_bytes());
    octets.extend([0, 0, 0, 0, 0x50, 0x04, 0, 0, 0, 0, 0, 0]);
    // The pseudo header: addresses, protocol, length.
    let pseudo = [192, 0, 2, 2, 192, 0, 2, 1, 0, 6, 0, 20];
    let words = octets.chunks(2).chain(pseudo.chunks(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    octets[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    octets
}

fn lab(files: &[(String, String)]) -> Lab {
    let ctl = forwarding(&["lo 10.9.0.1/32", "a1 10.9.1.1/30", "a2 10.9.2.1/30"]);
    let mut nodes = vec![("ctl", false, ctl)];
    for (name, number) in ROUTERS {
        let other = 3 - number;
        let mut exec = forwarding(&[
            &format!("lo 192.0.2.{number}/32"),
            &format!("mgmt 10.9.{number}.2/30"),
            &format!("core 10.255.0.{number}/24"),
            &format!("red0 10.0.{number}.1/24"),
        ]);
        exec.push(format!("ip route add 10.9.0.1/32 via 10.9.{number}.1"));
        exec.push(format!(
            "ip route add 192.0.2.{other}/32 via 10.255.0.{other}"
        ));
        nodes.push((name, true, exec));
    }
    for (host, number) in [("red-1", 1), ("red-2", 2)] {
        let exec = vec![
            format!("ip address add 10.0.{number}.10/24 dev eth1"),
            format!("ip route replace default via 10.0.{number}.1"),
        ];
        nodes.push((host, false, exec));
    }
    let links = [
        ("ctl:a1", "a1:mgmt"),
        ("ctl:a2", "a2:mgmt"),
        ("a1:core", "a2:core"),
        ("a1:red0", "red-1:eth1"),
        ("a2:red0", "red-2:eth1"),
    ];
    Lab::up(&topology(&nodes, &links), files)
}

/// What goes over the routers' link to or from port 179, from now on.
fn capture(lab: &Lab) -> (Daemon, PathBuf) {
    let file = lab.path("bgp.pcap");
    let words = [
        "-i",
        "core",
        "-U",
        "-w",
        file.to_str().unwrap(),
        "tcp port 179",
    ];
    let tcpdump = lab.daemon("a1", &weft_tests::find("tcpdump").unwrap(), &words);
    wait_until("tcpdump", PATIENCE, || {
        tcpdump.log().contains("listening on").then_some(())
    });
    (tcpdump, file)
}

fn packets(capture: &Path, filter: &str) -> String {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-S", "-r"]).arg(capture).arg(filter);
    output(command.stderr(Stdio::null()))
}

#[test]
fn sessions_are_signed_by_themselves_and_keys_change_under_them() {
    if !need(&["ip", "curl", "ping", "tcpdump"]) {
        return;
    }
    let domain = Domain::up("session-keys", [true; 2]);
    let lab = &domain.lab;
    let (tcpdump, file) = capture(lab);
    let controller = domain.controller();
    domain.stands(true);
    domain.signed_with(1);
    let mut key = domain.agreed("");
    domain.ask("POST", "tenants", r#"{"name": "red"}"#);
    domain.attach("a1", r#""10.0.1.0/24""#);
    domain.attach("a2", r#""10.0.2.0/24""#);
    lab.reaches("red-1", "10.0.2.10");

    // An attacker with a2's address, who knows what the segments on the way are, opens nothing and ends nothing.
    let before = domain.refused();
    let opened = lab.in_node("a2", || {
        let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(kind.0, kind.1, None).unwrap();
        let from: std::net::SocketAddr = "192.0.2.2:0".parse().unwrap();
        let to: std::net::SocketAddr = "192.0.2.1:179".parse().unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_secs(2))
    });
    assert!(opened.is_err());
    let tried = domain.refused();
    assert!(tried > before);
    wait_until("the resets are refused", PATIENCE, || {
        domain.reset(&file);
        (domain.refused() >= tried + 5).then_some(())
    });

    // Keys are replaced while routes come and go, and packets go on.
    let mut ping = lab.command("red-1", "ping");
    let line = ["-q", "-i", "0.01", "-W", "2", "-w", "3600", "10.0.2.10"];
    let mut ping = ping.args(line).stdout(Stdio::piped()).spawn().unwrap();
    for number in 2..=6_u64 {
        let start = Instant::now();
        domain.operator("controller replace-keys");
        let more: Vec<String> = (0..200)
            .map(|at| format!(r#""10.{number}.{at}.0/24""#))
            .collect();
        domain.attach("a2", &format!(r#""10.0.2.0/24", {}"#, more.join(", ")));
        domain.signed_with(number);
        let changed = start.elapsed();
        key = domain.agreed(&key);
        wait_until("the routes", PATIENCE, || {
            (lab.get("a1", "tenants/red/routes")?["total"] == 202).then_some(())
        });
        println!(
            "key {number}: in use after {changed:?}, routes there after {:?}",
            start.elapsed()
        );
    }
    assert_eq!(domain.flaps(), 0);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(ping.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let told = ping.wait().map(|_| {
        let mut text = String::new();
        std::io::Read::read_to_string(ping.stdout.as_mut().unwrap(), &mut text).unwrap();
        text
    });
    let told = told.unwrap();
    assert!(told.contains(" 0% packet loss"), "{told}");

    // A router that is away keeps a key from being used; when it is back both go over to it. Without the controller they go on.
    lab.kill("a2");
    domain.operator("controller replace-keys");
    wait_until("a2 is waited for", PATIENCE, || {
        let pair = domain.pair()?;
        (pair["waits_for"] == serde_json::json!(["a2"]) && pair["number"] == 6).then_some(())
    });
    lab.start("a2");
    domain.signed_with(7);
    domain.stands(true);
    key = domain.agreed(&key);
    let view = domain.scratch.0.join("state/a2/view");
    let mode = lab.shell("a2", &format!("stat -c %a {}", view.display()));
    assert_eq!(mode, "600\n");
    controller.stop(Signal::SIGKILL);
    lab.kill("a2");
    lab.start("a2");
    lab.converged("a2");
    domain.stands(true);
    let _controller = domain.controller();
    domain.operator_ready();
    domain.operator("controller replace-keys");
    domain.signed_with(8);
    domain.agreed(&key);
    let flaps = domain.flaps();
    lab.reaches("red-1", "10.0.2.10");
    assert_eq!(domain.flaps(), flaps);

    // All that went over the link from the first segment on: signed, but for what the kernel answers where nobody listens yet, and the
    // attacker's.
    tcpdump.stop(Signal::SIGTERM);
    let all = packets(&file, "tcp[tcpflags] & tcp-rst = 0");
    let (signed, plain): (Vec<&str>, Vec<&str>) =
        all.lines().partition(|line| line.contains("md5"));
    assert!(signed.len() > 50, "{}", signed.len());
    assert!(
        plain
            .iter()
            .all(|line| line.contains("Flags [S]") && line.contains("IP 192.0.2.2")),
        "{plain:?}"
    );
    let secrets = std::fs::metadata(domain.folder().join("domain.redb")).unwrap();
    assert_eq!(secrets.permissions().mode() & 0o777, 0o600);
}

/// A router of an earlier version has a session all the same, and is named for it; when it is upgraded the session is signed while it
/// stands. Without signatures, one forged segment ends a session.
#[test]
fn who_does_not_sign_has_a_session_and_is_named_until_it_does() {
    if !need(&["ip", "curl", "tcpdump"]) {
        return;
    }
    let domain = Domain::up("session-keys-old", [true, false]);
    let lab = &domain.lab;
    let (_tcpdump, file) = capture(lab);
    let _controller = domain.controller();
    let neighbor = domain.stands(false);
    assert_eq!(domain.key("a1"), None);
    let named = wait_until("why it is not signed", PATIENCE, || {
        let status = lab.get("a1", "status")?;
        let alarms = status["alarms"].as_array()?.clone();
        alarms
            .into_iter()
            .find(|one| one["code"] == "unsigned-session")
    });
    assert!(named["text"].as_str().unwrap().contains("`a2`"), "{named}");
    assert_eq!(neighbor["flaps"], 0);
    let shown = domain.operator("controller keys");
    assert!(shown.contains("not signed: router `a2`"), "{shown}");
    let shown = domain.operator("controller status");
    assert!(shown.contains("weft controller keys"), "{shown}");
    lab.converged("a1");
    wait_until("a forged segment ends it", PATIENCE, || {
        domain.reset(&file);
        (domain.flaps() != 0).then_some(())
    });
    domain.stands(false);

    let (_, config) = &domain.files[1];
    let before = domain.flaps().as_u64().unwrap();
    lab.restart(
        "a2",
        &config.replace("sign_sessions: false", "sign_sessions: true"),
    );
    domain.signed_with(1);
    domain.agreed("");
    // The restart of a2 has ended it, and nothing since: it stood before it was signed.
    assert_eq!(domain.stands(true)["flaps"], before + 1);
    wait_until("nobody is named any more", PATIENCE, || {
        let status = lab.get("a1", "status")?;
        status["alarms"].as_array()?.is_empty().then_some(())
    });
}
