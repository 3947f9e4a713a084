//! What a service manager is told (sd_notify(3)), by a router that runs and by one that waits for its controller.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_tests::topology::topology;
use weft_tests::{Lab, need, weft};

const LIMIT: Duration = Duration::from_secs(30);

const ALONE: &str = "router: { name: r, router_id: 192.0.2.1, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.1 }
";

/// Nobody is at this address.
const MANAGED: &str = "router: { name: r }
controller: { address: 127.0.0.9, token: weft.0123456789.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef }
";

/// A router with the manager's end of what it says. Ended with the value.
struct Service {
    said: UnixDatagram,
    router: Child,
}

impl Service {
    fn start(lab: &Lab, config: &str) -> Self {
        let socket = lab.path("notify");
        let said = UnixDatagram::bind(&socket).unwrap();
        said.set_read_timeout(Some(LIMIT)).unwrap();
        let mut router = lab.command("r", weft());
        router
            .arg("router")
            .arg("--config")
            .arg(lab.path(config))
            .arg("--state")
            .arg(lab.path("state"))
            .env("NOTIFY_SOCKET", &socket)
            // `ip netns exec` becomes what it starts: the number stays.
            .env("WATCHDOG_USEC", "900000")
            .stdout(Stdio::null());
        let router = router.spawn().unwrap();
        Self { said, router }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.router.id() as i32), signal).unwrap();
    }

    /// Waits until something is said that has this in it.
    fn hear(&self, wanted: &str) -> String {
        let mut octets = [0; 4096];
        loop {
            let len = self.said.recv(&mut octets);
            let len = len.unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let said = String::from_utf8_lossy(&octets[..len]).into_owned();
            if said.contains(wanted) {
                return said;
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

fn up() -> Lab {
    let lines = vec!["ip address add 192.0.2.1/32 dev lo".to_owned()];
    let files = [("alone.yaml", ALONE), ("managed.yaml", MANAGED)];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    Lab::up(&topology(&[("r", false, lines)], &[]), &files)
}

#[test]
fn a_router_says_that_it_is_ready_alive_reloading_and_stopping() {
    if !need(&["ip"]) {
        return;
    }
    let lab = up();
    let service = Service::start(&lab, "alone.yaml");
    service.hear("READY=1");
    for _ in 0..2 {
        let said = service.hear("WATCHDOG=1");
        assert!(
            said.contains("STATUS=forwarding; 0 of 0 neighbours established")
                || said.contains("STATUS=degraded; 0 of 0"),
            "{said}"
        );
    }
    service.signal(Signal::SIGHUP);
    let said = service.hear("RELOADING=1");
    assert!(said.contains("MONOTONIC_USEC="), "{said}");
    service.hear("READY=1");
    service.signal(Signal::SIGTERM);
    service.hear("STOPPING=1");
}

/// What waits for others has started, and hangs no more than what runs.
#[test]
fn a_router_that_waits_for_its_controller_is_ready_and_alive() {
    if !need(&["ip"]) {
        return;
    }
    let lab = up();
    let service = Service::start(&lab, "managed.yaml");
    let said = service.hear("READY=1");
    assert!(said.contains("STATUS=waits for its controller"), "{said}");
    for _ in 0..4 {
        service.hear("WATCHDOG=1");
    }
}
