//! Who asks a router for more than it answers: without a token, slowly, never, or by the thousand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use weft_tests::topology::{forwarding, topology};
use weft_tests::{Lab, need, wait_until, weft};

const PATIENCE: Duration = Duration::from_secs(60);
const API: &str = "https://192.0.2.1:8179";

/// A router in node `r`, with its API at a socket, and with TLS at an address that `x` reaches. It ends with this.
struct Router {
    lab: Lab,
    process: Option<Child>,
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Router {
    /// It does not run yet, and has no certificate and no token.
    fn new() -> Option<Self> {
        if !need(&["ip", "nft", "curl"]) {
            return None;
        }
        let r = forwarding(&["lo 192.0.2.1/32", "eth1 198.51.100.1/30"]);
        let x = vec![
            "ip address add 198.51.100.2/30 dev eth1".to_owned(),
            "ip route add default via 198.51.100.1".to_owned(),
        ];
        let nodes = [("r", false, r), ("x", false, x)];
        let lab = Lab::up(&topology(&nodes, &[("r:eth1", "x:eth1")]), &[]);
        let file = |name: &str| lab.path(name).display().to_string();
        let config = format!(
            "router: {{ name: r, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1, probe_interval: 0 }}
tenants: [{{ name: red, vni: 10001, prefixes: [10.0.1.0/24] }}]
api:
  listen: [{}, 192.0.2.1:8179]
  tls: {{ certificate: {}, key: {}, tokens: {} }}
",
            file("api.sock"),
            file("api.pem"),
            file("api.key"),
            file("api.tokens")
        );
        std::fs::write(lab.path("r.yaml"), config).unwrap();
        Some(Self { lab, process: None })
    }

    /// `weft WORDS` at a node; `FILE` stands for the configuration.
    fn weft(&self, node: &str, words: &str, token: &str) -> Output {
        let file = self.lab.path("r.yaml").display().to_string();
        let words = words.replace("FILE", &file);
        let mut command = self.lab.command(node, weft());
        command.args(words.split_whitespace());
        command.env("WEFT_API", API).env("WEFT_API_TOKEN", token);
        command.output().unwrap()
    }

    fn does(&self, words: &str) -> String {
        let output = self.weft("r", words, "");
        assert!(output.status.success(), "{words}: {}", said(&output));
        said(&output).trim().to_owned()
    }

    fn start(&mut self) {
        let log = std::fs::File::create(self.lab.path("log")).unwrap();
        let mut command = self.lab.command("r", weft());
        command
            .args(["router", "--config"])
            .arg(self.lab.path("r.yaml"));
        self.process = Some(command.stderr(log).spawn().unwrap());
        wait_until("the router", PATIENCE, || self.socket().map(drop));
    }

    fn socket(&self) -> Option<UnixStream> {
        UnixStream::connect(self.lab.path("api.sock")).ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.lab.path("log")).unwrap()
    }

    /// Octets of memory that the process has.
    fn memory(&self) -> u64 {
        let process = self.process.as_ref().unwrap();
        let file = format!("/proc/{}/status", process.id());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() << 10
    }
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

#[test]
fn from_elsewhere_nobody_asks_without_a_token_and_the_certificate_is_the_one_that_it_names() {
    let Some(mut router) = Router::new() else {
        return;
    };
    // What is missing keeps no router from its work: it is told, and the port closed until it is there.
    router.start();
    let alarm = |router: &Router, word: &str| {
        let file = router.lab.path("api.sock").display().to_string();
        let status = said(&router.weft("r", &format!("show status --api {file}"), ""));
        status.contains(word)
    };
    wait_until("the alarm", PATIENCE, || {
        alarm(&router, "weft api certificate").then_some(())
    });
    let missing = said(&router.weft("r", "api token create FILE", ""));
    assert!(missing.contains("weft api certificate"), "{missing}");
    router.does("api certificate FILE");
    let reads = router.does("api token create FILE --name prometheus");
    let operates = router.does("api token create FILE --role operate");

    let show = |token: &str| router.weft("x", "show status", token);
    let refused = |output: &Output, words: &str| {
        let said = said(output);
        assert!(
            !output.status.success() && said.contains(words),
            "{words}: {said}"
        );
    };
    assert!(show(&reads).status.success(), "{}", said(&show(&reads)));
    wait_until("no alarm", PATIENCE, || {
        (!alarm(&router, "weft api")).then_some(())
    });
    refused(&show(""), "it takes a token");
    // A secret of one token is no other's.
    let part = |token: &str, index: usize| token.split('.').nth(index).unwrap().to_owned();
    let mixed = reads.replace(&part(&reads, 2), &part(&operates, 2));
    refused(&show(&mixed), "this token is not known here");
    let live = |token: &str| router.weft("x", "trace red 10.0.1.10 --live", token);
    refused(&live(&reads), "may look, and this does something");
    let done = live(&operates);
    assert!(!said(&done).contains("takes a token"), "{}", said(&done));
    // In the clear nothing is answered; and what has not the certificate that the token names gets no token.
    let clear = "curl -sS --max-time 5 http://192.0.2.1:8179/api/v1/status";
    let clear = router.lab.command("x", "sh").args(["-c", clear]).output();
    assert!(!said(&clear.unwrap()).contains("\"name\""));
    let file = router.lab.path("api.pem").display().to_string();
    let known = |path: &str, token: &str| {
        let command = format!(
            "curl -sS --cacert {file} -o /dev/null -w %{{http_code}} -H 'Authorization: Bearer {token}' https://192.0.2.1:8179{path}"
        );
        said(
            &router
                .lab
                .command("x", "sh")
                .args(["-c", &command])
                .output()
                .unwrap(),
        )
    };
    assert_eq!(known("/metrics", &reads), "200");
    assert_eq!(known("/metrics", "wrong"), "401");
    let cacert = format!("show status --cacert {file}");
    assert!(router.weft("x", &cacert, &reads).status.success());

    // Taken back: at once.
    router.does(&format!("api token revoke FILE {}", part(&reads, 1)));
    refused(&show(&reads), "this token is not known here");
    // Another certificate: the token that was made before does not go to whoever has it.
    router.does("api certificate FILE --force");
    refused(&show(&operates), "is not the one that the token names");
    let fresh = router.does("api token create FILE");
    assert!(show(&fresh).status.success());
    // Half a file changes nothing; no file of tokens is nobody's.
    std::fs::write(&file, "-----BEGIN CERT").unwrap();
    assert!(show(&fresh).status.success());
    std::fs::remove_file(router.lab.path("api.tokens")).unwrap();
    refused(&show(&fresh), "this token is not known here");

    // A pipe has no end: it holds up nobody, at the socket not at all.
    let tokens = router.lab.path("api.tokens");
    nix::unistd::mkfifo(&tokens, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&show(&fresh), "this token is not known here");
    assert!(alarm(&router, "no regular file"));

    for _ in 0..40 {
        let guess = fresh.replace(&part(&fresh, 2), "guess");
        refused(&show(&guess), "not known here");
    }
    let log = router.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let told = lines("audit: refused");
    assert!((1..40).contains(&told), "{told} lines");
    assert!(log.contains("(operate)") && log.contains("POST /api/v1/tenants/red/trace"));
    assert!(!log.contains(&part(&operates, 2)), "a secret is in the log");
}

/// Whether the other end has closed.
fn is_closed(stream: &mut UnixStream) -> bool {
    // More of what it does not read: what comes of it is an error where it has gone.
    stream.set_nonblocking(true).unwrap();
    let wrote = stream.write_all(b" ");
    wrote.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

#[test]
fn who_reads_nothing_holds_little_and_not_for_long_and_who_says_nothing_keeps_nobody_out() {
    let Some(mut router) = Router::new() else {
        return;
    };
    router.does("api certificate FILE");
    let token = router.does("api token create FILE");
    router.start();
    let before = router.memory();

    // As many as there is place for ask for the longest answer again and again, and take nothing of it.
    let ask = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let mut slow: Vec<UnixStream> = (0..256)
        .map(|_| {
            let mut stream = router.socket().unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(&ask);
            stream
        })
        .collect();
    // Others are answered meanwhile, at the socket too: those give way.
    let place = router.lab.path("api.sock").display().to_string();
    let show = format!("show status --api {place}");
    let mut longest = Duration::ZERO;
    let mut most = 0;
    let start = Instant::now();
    while slow.iter_mut().any(|stream| !is_closed(stream)) {
        let asked = Instant::now();
        let output = router.weft("r", &show, "");
        assert!(output.status.success(), "{}", said(&output));
        longest = longest.max(asked.elapsed());
        most = most.max(router.memory());
        assert!(start.elapsed() < PATIENCE, "they are still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    let held = most.saturating_sub(before);
    eprintln!(
        "256 slow readers: gone after {:.1} s, {} MiB more, `weft show` took {} ms at most",
        start.elapsed().as_secs_f64(),
        held >> 20,
        longest.as_millis()
    );
    assert!(held < 128 << 20, "{held} octets");

    // A thousand that say nothing, at the port that others reach.
    let silent: Vec<TcpStream> = router.lab.in_node("x", || {
        let connect = |_| TcpStream::connect("192.0.2.1:8179").unwrap();
        (0..1000).map(connect).collect()
    });
    let asked = Instant::now();
    let output = router.weft("x", "show status", &token);
    eprintln!(
        "1,000 silent connections: `weft show` over TLS took {} ms",
        asked.elapsed().as_millis()
    );
    assert!(output.status.success(), "{}", said(&output));
    // None of them stays.
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
}
