//! Who else puts routes into the kernel: iproute2, BIRD and FRR.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use weft_tests::{Speaker, attribute, update};

use super::{FIRST_VNI, Figures, NEAR, OWN, TABLES, ip, prefix};

/// The same objects by iproute2.
pub(crate) fn batch(count: u32) -> Result<Figures> {
    ip("link add vx0 type vxlan external vnifilter dstport 4789 nolearning")?;
    ip("link set vx0 up")?;
    std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0")?;
    let mut text = String::new();
    for at in 0..TABLES {
        let vni = FIRST_VNI + at;
        let _ = writeln!(
            text,
            "nexthop add id {} encap ip id {vni} src {OWN} dst {NEAR} via {NEAR} dev vx0 onlink proto 87",
            at + 1
        );
    }
    for at in 0..count {
        let (table, id) = (0x5700_0000 + FIRST_VNI + at % TABLES, at % TABLES + 1);
        let _ = writeln!(
            text,
            "route add {} table {table} nhid {id} proto 87",
            prefix(at / TABLES)
        );
    }
    let file = std::env::temp_dir().join(format!("weft-bench-{}", std::process::id()));
    std::fs::write(&file, text)?;
    let begin = Instant::now();
    let status = Command::new("ip").arg("-batch").arg(&file).status();
    let install = begin.elapsed().as_secs_f64();
    std::fs::remove_file(&file)?;
    ensure!(status?.success(), "ip -batch failed");
    Ok(vec![("install", install)])
}

/// Prefixes in the kernel's main table.
fn main_table() -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/net/fib_triestat").unwrap_or_default();
    let main = text.lines().skip_while(|line| !line.starts_with("Main"));
    let prefixes = main.filter_map(|line| line.trim().strip_prefix("Prefixes:"));
    prefixes
        .filter_map(|count| count.trim().parse().ok())
        .next()
        .unwrap_or(0)
}

/// Waits until `done`, and asks no oftener than leaves a processor nine tenths of its time: a look at a large table is long.
fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let asked = Instant::now();
        if done() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2).max(asked.elapsed() * 9));
    }
}

/// As many static routes by BIRD, from the order to the last one in the kernel: its configuration has been read before.
pub(crate) fn bird(count: u32) -> Result<Figures> {
    let directory = std::env::temp_dir().join(format!("weft-bench-bird-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let (config, control) = (directory.join("bird.conf"), directory.join("ctl"));
    let mut text = String::from(
        "router id 198.51.100.1;\nprotocol device {}\nprotocol kernel { ipv4 { export all; import none; }; }\n\
         protocol static many { disabled; ipv4;\n",
    );
    for at in 0..count {
        let _ = writeln!(text, "route {} via 198.51.100.2;", prefix(at));
    }
    text.push_str("}\n");
    std::fs::write(&config, text)?;
    let mut daemon = Command::new("bird")
        .arg("-f")
        .arg("-c")
        .arg(&config)
        .arg("-s")
        .arg(&control)
        .spawn()
        .context("cannot run bird: apt-get install bird2")?;
    let birdc = |words: &[&str]| {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(&control).args(words);
        let status = birdc.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let measure = || -> Result<f64> {
        wait("BIRD's control socket", || birdc(&["show", "status"]))?;
        let before = main_table();
        let begin = Instant::now();
        ensure!(birdc(&["enable", "many"]), "birdc failed");
        let all = before + count as usize;
        wait("BIRD's routes", || main_table() >= all)?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let install = measure();
    daemon.kill()?;
    daemon.wait()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(vec![("install", install?)])
}

/// As many routes of one BGP session by FRR, from its first KEEPALIVE to the last one in the kernel. Who sends them has them
/// ready.
pub(crate) fn frr(count: u32) -> Result<Figures> {
    let name = format!("weft-bench-frr-{}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&directory)?;
    let status = Command::new("ip").args(["netns", "add", &name]).status()?;
    ensure!(status.success(), "ip netns add {name}: {status}");
    let mut daemons = Vec::new();
    let install = installed_by_frr(count, &name, &directory, &mut daemons);
    for mut daemon in daemons {
        daemon.kill()?;
        daemon.wait()?;
    }
    Command::new("ip").args(["netns", "del", &name]).status()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(vec![("install", install?)])
}

fn installed_by_frr(
    count: u32,
    netns: &str,
    directory: &Path,
    daemons: &mut Vec<Child>,
) -> Result<f64> {
    const FEEDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const FEEDER_ASN: u32 = 65_002;
    ip(&format!("link set far netns {netns}"))?;
    ip(&format!("-n {netns} address add {FEEDER}/24 dev far"))?;
    ip(&format!("-n {netns} link set far up"))?;
    // It would send everything back to where it came from.
    let config = format!(
        "ip prefix-list none seq 5 deny any
router bgp 65001
 bgp router-id 198.51.100.1
 no bgp ebgp-requires-policy
 neighbor {FEEDER} remote-as {FEEDER_ASN}
 neighbor {FEEDER} passive
 neighbor {FEEDER} prefix-list none out
"
    );
    let file = |name: &str| directory.join(name).display().to_string();
    std::fs::write(file("bgpd.conf"), config)?;
    std::fs::write(file("zebra.conf"), "hostname zebra\n")?;
    let status = Command::new("chown")
        .args(["-R", "frr:frr"])
        .arg(directory)
        .status()?;
    ensure!(status.success(), "chown frr: {status}");
    for daemon in ["zebra", "bgpd"] {
        let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
        command.args(["-f", &file(&format!("{daemon}.conf"))]);
        command.args(["-i", &file(&format!("{daemon}.pid"))]);
        command.args([
            "-z",
            &file("zserv.api"),
            "--vty_socket",
            &file(""),
            "-P",
            "0",
        ]);
        command.args(["-u", "frr", "-g", "frr"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        daemons.push(
            command
                .spawn()
                .context("cannot run FRR: apt-get install frr")?,
        );
        if daemon == "zebra" {
            wait("zebra's socket", || directory.join("zserv.api").exists())?;
        }
    }
    let attributes = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[&[2, 1][..], &FEEDER_ASN.to_be_bytes()].concat()),
        attribute(0x40, 3, &FEEDER.octets()),
    ]
    .concat();
    let host = |at: u32| match prefix(at) {
        IpNet::V4(net) => [&[32][..], &net.addr().octets()].concat(),
        IpNet::V6(_) => Vec::new(),
    };
    let numbers: Vec<u32> = (0..count).collect();
    let updates = numbers.chunks(700).flat_map(|run| {
        let nlri: Vec<u8> = run.iter().flat_map(|at| host(*at)).collect();
        update(&[], &attributes, &nlri)
    });
    let updates: Vec<u8> = updates.chain(update(&[], &[], &[])).collect();
    let feeder = Speaker {
        netns: netns.to_owned(),
        router: Ipv4Addr::new(198, 51, 100, 1),
        asn: FEEDER_ASN,
        router_id: FEEDER,
    };
    let mut session = feeder.establish();
    let all = main_table() + count as usize;
    let begin = Instant::now();
    session.send(&updates);
    wait("FRR's routes", || main_table() >= all)?;
    Ok(begin.elapsed().as_secs_f64())
}
