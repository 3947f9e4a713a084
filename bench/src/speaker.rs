//! The speakers under test: equal configurations, nothing in the kernel, everything accepted.

use std::fmt::Write as _;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::session::Peer;

/// The address and AS of whoever is under test.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
pub(crate) const ASN: u32 = weft_load::SPEAKER_ASN;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Copies octets from the sender to the receivers and looks at none of them.
    Relay,
    Weft,
    Bird,
    Frr,
    Openbgpd,
    Gobgp,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Weft => "Weft",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Openbgpd => "OpenBGPD",
            Self::Gobgp => "GoBGP",
        }
    }

    fn program(self, weft: &Path) -> Option<PathBuf> {
        match self {
            Self::Relay => std::env::current_exe().ok(),
            Self::Weft => weft.exists().then(|| weft.to_owned()),
            Self::Bird => weft_tests::find("bird"),
            Self::Frr => Some(PathBuf::from("/usr/lib/frr/bgpd")).filter(|path| path.exists()),
            Self::Openbgpd => Some(PathBuf::from("/usr/sbin/bgpd")).filter(|path| path.exists()),
            Self::Gobgp => weft_tests::find("gobgpd"),
        }
    }

    /// Its version, or `None` where it is not installed.
    pub(crate) fn version(self, weft: &Path) -> Option<String> {
        let program = self.program(weft)?;
        let package = match self {
            Self::Relay => return Some(String::new()),
            Self::Weft => {
                let output = Command::new(program).arg("--version").output().ok()?;
                return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            Self::Bird => "bird2",
            Self::Frr => "frr",
            Self::Openbgpd => "openbgpd",
            Self::Gobgp => "gobgpd",
        };
        let output = Command::new("dpkg-query")
            .args(["-W", "-f", "${Version}", package])
            .output()
            .ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// How the neighbours are treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// All neighbours are clients of a route reflector, instead of other ASes.
    pub(crate) reflector: bool,
    pub(crate) hold_time: Option<u16>,
}

/// A speaker that runs; it ends with the value.
pub(crate) struct Process {
    child: Child,
    directory: PathBuf,
    /// Processes whose memory and time count.
    pids: Vec<u32>,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident now, octets.
    pub(crate) resident: u64,
    /// Resident at most, octets.
    pub(crate) peak: u64,
    /// User and system time, seconds.
    pub(crate) cpu: f64,
}

impl Process {
    pub(crate) fn start(kind: Kind, weft: &Path, peers: &[Peer], setup: Setup) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("weft-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let program = kind.program(weft).context("not installed")?;
        let file = |name: &str, text: String| -> Result<String> {
            let path = directory.join(name);
            std::fs::write(&path, text)?;
            // OpenBGPD reads no file that others may write or read.
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            Ok(path.display().to_string())
        };
        if kind == Kind::Openbgpd {
            // Where its processes are confined to; its service makes it.
            std::fs::create_dir_all("/run/openbgpd")?;
        }
        let mut command = Command::new(&program);
        let path = |name: &str| directory.join(name).display().to_string();
        match kind {
            Kind::Relay => {
                command.arg("relay");
            }
            Kind::Weft => {
                let config = file("weft.yaml", weft_config(peers, setup))?;
                command.args(["router", "--config", &config]);
            }
            Kind::Bird => {
                let config = file("bird.conf", bird_config(peers, setup))?;
                command.args(["-f", "-c", &config, "-s", &path("bird.ctl")]);
            }
            Kind::Frr => {
                let config = file("frr.conf", frr_config(peers, setup))?;
                command.args(["-f", &config, "-i", &path("frr.pid"), "--vty_socket"]);
                command.arg(&directory);
                command.args([
                    "-Z",
                    "-S",
                    "-n",
                    "-l",
                    &ADDRESS.to_string(),
                    "-u",
                    "root",
                    "-g",
                    "root",
                ]);
            }
            Kind::Openbgpd => {
                let config = file(
                    "openbgpd.conf",
                    openbgpd_config(peers, setup, &path("openbgpd.sock")),
                )?;
                command.args(["-d", "-f", &config]);
            }
            Kind::Gobgp => {
                let config = file("gobgpd.toml", gobgp_config(peers, setup))?;
                command.args(["-f", &config, "--pprof-disable", "--log-level", "error"]);
                command.args(["--api-hosts", "10.255.0.1:50051"]);
            }
        }
        let log = File::create(directory.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let pids = vec![child.id()];
        Ok(Self {
            child,
            directory,
            pids,
        })
    }

    /// Counts the processes that it has started since, too (OpenBGPD has three).
    pub(crate) fn find_children(&mut self) -> Result<()> {
        let parent = self.child.id();
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path)?;
        self.pids = std::iter::once(parent)
            .chain(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse().ok()),
            )
            .collect();
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for pid in &self.pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib = |key: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                number.unwrap_or(0) * 1024
            };
            usage.resident += kib("VmRSS:");
            usage.peak += kib("VmHWM:");
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
            let ticks: u64 = fields
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum();
            usage.cpu += ticks as f64 / 100.0;
        }
        Ok(usage)
    }

    /// The end of what it has said.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it has ended: {}", self.log());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // SIGKILL would leave OpenBGPD's other processes behind.
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn weft_config(peers: &[Peer], setup: Setup) -> String {
    let mut text = format!(
        "router:\n  name: bench\n  router_id: {ADDRESS}\n  asn: {ASN}\n  default_policy: accept\n  listen: {{ addresses: [{ADDRESS}] }}\nlog: {{ level: warn }}\nneighbors:\n"
    );
    for peer in peers {
        let _ = write!(
            text,
            "  - {{ address: {}, asn: {}, passive: true, families: [ipv4-unicast]",
            peer.address, peer.asn
        );
        if let Some(hold_time) = setup.hold_time {
            let _ = write!(text, ", hold_time: {hold_time}");
        }
        if setup.reflector {
            text.push_str(", route_reflector_client: true");
        }
        text.push_str(" }\n");
    }
    text
}

fn bird_config(peers: &[Peer], setup: Setup) -> String {
    let mut text =
        format!("router id {ADDRESS};\nprotocol device {{}}\nprotocol direct {{ ipv4; }}\n");
    for (at, peer) in peers.iter().enumerate() {
        let hold = setup
            .hold_time
            .map_or_else(String::new, |time| format!("hold time {time}; "));
        let kind = if setup.reflector {
            "rr client; multihop;"
        } else {
            "multihop;"
        };
        let _ = writeln!(
            text,
            "protocol bgp p{at} {{ local {ADDRESS} as {ASN}; neighbor {} as {}; {kind} passive; {hold}ipv4 {{ import all; export where source = RTS_BGP; gateway recursive; next hop {}; }}; }}",
            peer.address,
            peer.asn,
            if setup.reflector { "keep" } else { "self" }
        );
    }
    text
}

fn frr_config(peers: &[Peer], setup: Setup) -> String {
    let mut text = format!(
        "router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n no bgp network import-check\n coalesce-time 1\n neighbor all peer-group\n neighbor all passive\n neighbor all advertisement-interval 0\n neighbor all disable-connected-check\n"
    );
    if let Some(hold) = setup.hold_time {
        let _ = writeln!(text, " neighbor all timers {} {hold}", hold / 3);
    }
    for peer in peers {
        let _ = writeln!(
            text,
            " neighbor {0} remote-as {1}\n neighbor {0} peer-group all",
            peer.address, peer.asn
        );
    }
    if setup.reflector {
        text.push_str(" address-family ipv4 unicast\n  neighbor all route-reflector-client\n");
    }
    text
}

fn openbgpd_config(peers: &[Peer], setup: Setup, socket: &str) -> String {
    let mut text = format!(
        "AS {ASN}\nrouter-id {ADDRESS}\nlisten on {ADDRESS}\nsocket \"{socket}\"\nfib-update no\nnexthop qualify via default\n"
    );
    if let Some(hold) = setup.hold_time {
        let _ = writeln!(text, "holdtime {hold}");
    }
    for peer in peers {
        let _ = writeln!(
            text,
            "neighbor {} {{\n  remote-as {}\n  passive\n  multihop 2\n  local-address {ADDRESS}\n  {}\n}}",
            peer.address,
            peer.asn,
            if setup.reflector {
                "route-reflector"
            } else {
                ""
            }
        );
    }
    text.push_str("allow from any\nallow to any\n");
    text
}

fn gobgp_config(peers: &[Peer], setup: Setup) -> String {
    let mut text = format!(
        "[global.config]\n  as = {ASN}\n  router-id = \"{ADDRESS}\"\n  local-address-list = [\"{ADDRESS}\"]\n"
    );
    for peer in peers {
        let _ = write!(
            text,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {}\n  [neighbors.transport.config]\n    passive-mode = true\n",
            peer.address, peer.asn
        );
        if let Some(hold) = setup.hold_time {
            let _ = write!(
                text,
                "  [neighbors.timers.config]\n    hold-time = {hold}\n    keepalive-interval = {}\n",
                hold / 3
            );
        }
        if setup.reflector {
            let _ = write!(
                text,
                "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = \"{ADDRESS}\"\n"
            );
        } else {
            text.push_str(
                "  [neighbors.ebgp-multihop.config]\n    enabled = true\n    multihop-ttl = 2\n",
            );
        }
    }
    text
}
