//! Two routers and their hosts, by Weft or by hand.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{mpsc, oneshot};
use weft_dataplane::{Dataplane, DataplaneConfig, Segmentation};
use weft_overlay::intent::{
    ForwardingNextHop, Group, GroupId, IntentDelta, NextHopSet, TenantId, TenantIntent, TenantRoute,
};
use weft_overlay::{Encapsulation, EndpointId, Vni, VniSet};

use crate::{Mode, VNI, chain};

pub(crate) fn run(words: &str) -> Result<()> {
    let mut words_of = words.split_whitespace();
    let program = words_of.next().context("a program")?;
    let status = Command::new(program).args(words_of).status()?;
    ensure!(status.success(), "{words}: {status}");
    Ok(())
}

/// What the routers have beside one tenant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Further tenants.
    pub(crate) others: u32,
    /// Services on the way from the first host to the second.
    pub(crate) services: usize,
    /// Chains that nothing takes, and where the one that is taken stands among them.
    pub(crate) chains: usize,
    pub(crate) order: chain::Order,
}

/// Two routers with a host of one tenant behind each.
pub(crate) struct Pair {
    tag: String,
    /// The data planes, ended when these go.
    routers: Vec<oneshot::Sender<()>>,
    /// Service nodes.
    services: Vec<String>,
}

const NODES: [&str; 4] = ["h1", "r1", "r2", "h2"];

impl Pair {
    pub(crate) fn new(side: &str, mode: &Mode, weft: bool, load: Load) -> Result<Self> {
        let mut pair = Self {
            tag: format!("weft-bench-{}-{side}", std::process::id()),
            routers: Vec::new(),
            services: Vec::new(),
        };
        for node in NODES {
            run(&format!("ip netns add {}", pair.ns(node)))?;
            pair.ip(node, "link set lo up")?;
        }
        for (left, a, right, b) in [
            ("h1", "eth0", "r1", "red0"),
            ("r1", "wan", "r2", "wan"),
            ("r2", "red0", "h2", "eth0"),
        ] {
            let (left_ns, right_ns) = (pair.ns(left), pair.ns(right));
            run(&format!(
                "ip link add {a} netns {left_ns} type veth peer name {b} netns {right_ns}"
            ))?;
            pair.ip(left, &format!("link set {a} up"))?;
            pair.ip(right, &format!("link set {b} up"))?;
        }
        for site in [1, 2] {
            let (host, router) = (format!("h{site}"), format!("r{site}"));
            pair.ip(&host, &format!("addr add 10.0.{site}.10/24 dev eth0"))?;
            pair.ip(&router, &format!("addr add 10.0.{site}.1/24 dev red0"))?;
            pair.ip(&host, &format!("route add default via 10.0.{site}.1"))?;
            pair.ip(&router, &format!("addr add 198.51.100.{site}/30 dev wan"))?;
            pair.ip(&router, &format!("addr add fd00::{site}/64 dev wan nodad"))?;
            // The same for both: what a sender splits itself is not the data plane's.
            pair.ip(&host, &format!("link set eth0 mtu {}", mode.mtu))?;
        }
        pair.services = chain::make(&pair, load.services)?;
        for site in [1, 2] {
            if weft {
                pair.start(mode, site, load)?;
            } else {
                pair.set_up(mode, site, load.others)?;
                chain::set_up(&pair, mode, site, load.services)?;
            }
        }
        let end = Instant::now() + Duration::from_secs(10);
        let reach = format!(
            "ip netns exec {} ping -c 1 -W 1 -q 10.0.2.10",
            pair.ns("h1")
        );
        loop {
            let mut ping = Command::new("ip");
            ping.args(reach.split_whitespace().skip(1))
                .stdout(Stdio::null());
            if ping.status()?.success() {
                return Ok(pair);
            }
            ensure!(Instant::now() < end, "{}: no answer to pings", pair.tag);
        }
    }

    pub(crate) fn ns(&self, node: &str) -> String {
        format!("{}-{node}", self.tag)
    }

    pub(crate) fn ip(&self, node: &str, words: &str) -> Result<()> {
        run(&format!("ip -n {} {words}", self.ns(node)))
    }

    /// Sets a router up with iproute2, as its documentation would.
    fn set_up(&self, mode: &Mode, site: u8, others: u32) -> Result<()> {
        let (own, other) = (endpoint(mode, site), endpoint(mode, 3 - site));
        let (node, device) = (format!("r{site}"), mode.device);
        let ns = self.ns(&node);
        for setting in [
            "ip_forward=1",
            "conf.all.rp_filter=0",
            "conf.red0.rp_filter=0",
        ] {
            run(&format!("ip netns exec {ns} sysctl -qw net.ipv4.{setting}"))?;
        }
        self.ip(&node, &format!("link add {device} type {}", mode.kind))?;
        let mut via = String::new();
        if mode.encapsulation == Encapsulation::Vxlan {
            self.ip(
                &node,
                &format!("link set {device} address 02:00:00:00:00:0{site}"),
            )?;
            let gateway = if mode.v6 {
                format!("fe80::{}", 3 - site)
            } else {
                other.to_string()
            };
            via = format!("via {gateway} onlink");
        }
        self.ip(&node, &format!("link set {device} up mtu {}", mode.mtu))?;
        run(&format!(
            "ip netns exec {ns} sysctl -qw net.ipv4.conf.{device}.rp_filter=0"
        ))?;
        if mode.encapsulation != Encapsulation::Gre {
            run(&format!("bridge -n {ns} vni add vni {VNI} dev {device}"))?;
        }
        let (encap, ttl) = if mode.v6 {
            ("ip6", "hoplimit")
        } else {
            ("ip", "ttl")
        };
        let key = match (mode.encapsulation, mode.v6) {
            (Encapsulation::Gre, _) => "key",
            // UDP over IPv6 has a checksum.
            (_, true) => "csum",
            (_, false) => "",
        };
        // IPv4 packets by an IPv6 gateway: the object has the gateway's family.
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.ip(
            &node,
            &format!(
                "{family} nexthop add id 1 encap {encap} id {VNI} src {own} dst {other} {ttl} 64 {key} {via} dev {device}"
            ),
        )?;
        if let Some(gateway) = via.split_whitespace().nth(1) {
            self.ip(
                &node,
                &format!(
                    "neigh replace {gateway} lladdr 02:00:00:00:00:0{} dev {device} nud permanent",
                    3 - site
                ),
            )?;
        }
        self.ip(
            &node,
            &format!("route add 10.0.{}.0/24 table 100 nhid 1", 3 - site),
        )?;
        self.ip(
            &node,
            &format!("route add 10.0.{site}.0/24 dev red0 table 100"),
        )?;
        // Its rules stand in the middle of the others'.
        self.rules(&node, 0..others / 2)?;
        self.ip(
            &node,
            &format!("rule add pref 1000 tun_id {VNI} lookup 100"),
        )?;
        self.ip(&node, "rule add pref 1000 iif red0 lookup 100")?;
        self.rules(&node, others / 2..others)
    }

    /// A rule for each of further tenants.
    fn rules(&self, node: &str, others: std::ops::Range<u32>) -> Result<()> {
        use std::io::Write as _;
        let mut batch = Command::new("ip")
            .args(["-n", &self.ns(node), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        let lines = others.map(|at| {
            let (vni, table) = (VNI + 1 + at, 1000 + at);
            format!("rule add pref 1000 tun_id {vni} lookup {table}\n")
        });
        let lines: String = lines.collect();
        let mut input = batch.stdin.take().context("a pipe")?;
        input.write_all(lines.as_bytes())?;
        drop(input);
        let status = batch.wait()?;
        ensure!(status.success(), "ip -batch: {status}");
        Ok(())
    }

    /// Starts the data plane of a router, on a thread of its own, and waits until everything is in the kernel.
    fn start(&mut self, mode: &Mode, site: u8, load: Load) -> Result<()> {
        let config = DataplaneConfig {
            endpoint: Some(endpoint(mode, site)),
            endpoint_id: id(site),
            encapsulation: mode.encapsulation,
            segmentation: Segmentation::Table,
            ..DataplaneConfig::default()
        };
        let vni = Vni::new(VNI)?;
        let hop = ForwardingNextHop {
            vni,
            encapsulation: mode.encapsulation,
            port: None,
            address: endpoint(mode, 3 - site),
            endpoint_id: mode.v6.then(|| id(3 - site)),
        };
        let tenant = TenantIntent {
            name: "red".into(),
            primary_vni: vni,
            vnis: vec![vni],
            attachments: vec!["red0".into()],
            breakout: None,
            services: chain::services(site, load.services)?,
            chains: chain::chains(load.services, load.chains, load.order)?,
        };
        let group = Group {
            hops: NextHopSet(vec![hop]),
            weights: Vec::new(),
            has_others: false,
            may_share: true,
            sticky: false,
        };
        let others = (0..load.others).map(|at| {
            let vni = Vni::new(VNI + 1 + at)?;
            let tenant = TenantIntent {
                name: format!("t{at}"),
                primary_vni: vni,
                vnis: vec![vni],
                attachments: Vec::new(),
                breakout: None,
                services: Vec::new(),
                chains: Vec::new(),
            };
            Ok((TenantId(1 + at), Some(tenant)))
        });
        let mut tenants = others.collect::<Result<Vec<_>>>()?;
        tenants.push((TenantId(0), Some(tenant)));
        let mut intent = IntentDelta {
            tenants,
            groups: vec![(GroupId(0), Some(group))],
            routes: vec![TenantRoute {
                tenant: TenantId(0),
                prefix: format!("10.0.{}.0/24", 3 - site).parse()?,
                group: Some(GroupId(0)),
            }],
            ..IntentDelta::default()
        };
        chain::intend(&mut intent, site, load.services, hop)?;
        let groups = intent.groups.iter().filter_map(|(_, group)| group.as_ref());
        let far = groups
            .flat_map(|group| &group.hops.0)
            .map(|hop| hop.address);
        intent.senders = far.map(|address| (address, Some(VniSet::all()))).collect();
        let namespace = format!("/run/netns/{}", self.ns(&format!("r{site}")));
        let (end, ended) = oneshot::channel::<()>();
        let (ready, mut started) = mpsc::channel(1);
        std::thread::spawn(move || {
            let work = || -> Result<()> {
                let file = std::fs::File::open(namespace)?;
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let (dataplane, _events) = Dataplane::start(config).await?;
                    dataplane.apply(intent).await;
                    dataplane.settle().await;
                    let status = dataplane.status().await.context("the data plane ended")?;
                    if let Some(refused) = status.refused.first() {
                        bail!("{} was refused: {}", refused.prefix, refused.error);
                    }
                    let _ = ready.send(Ok(())).await;
                    let _ = ended.await;
                    dataplane.stop().await;
                    Ok(())
                })
            };
            if let Err(error) = work() {
                let _ = ready.blocking_send(Err(error));
            }
        });
        self.routers.push(end);
        started.blocking_recv().context("the data plane ended")?
    }

    /// Packets or bits that arrive in a second.
    pub(crate) fn measure(&self, words: &str, packets: bool, seconds: u32) -> Result<f64> {
        let mut server = Server::start(&self.ns("h2"))?;
        // Sender and receiver on a processor each: otherwise what is measured is the scheduler's choice.
        let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        let processors = if alone { "0,0" } else { "0,1" };
        let output = Command::new("ip")
            .args(["netns", "exec", &self.ns("h1"), "iperf3", "-J", "-A"])
            .arg(processors)
            .args(["-c", "10.0.2.10", "-t", &seconds.to_string()])
            .args(words.split_whitespace())
            .output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3: {error}");
        }
        server.0.wait()?;
        let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64);
        if packets {
            let sum = |field| number(&format!("/end/sum/{field}"));
            let (all, lost) = (sum("packets"), sum("lost_packets"));
            let arrived = all.zip(lost).map(|(all, lost)| all - lost);
            let time = sum("seconds").context("iperf3 tells no time")?;
            Ok(arrived.context("iperf3 tells no packets")? / time)
        } else {
            number("/end/sum_received/bits_per_second").context("iperf3 tells no throughput")
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.routers.clear();
        let nodes = NODES
            .into_iter()
            .chain(self.services.iter().map(String::as_str));
        for node in nodes {
            let _ = run(&format!("ip netns del {}", self.ns(node)));
        }
    }
}

/// iperf3, waiting for one client.
struct Server(Child);

impl Server {
    fn start(namespace: &str) -> Result<Self> {
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                namespace,
                "iperf3",
                "-s",
                "-1",
                "--forceflush",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run iperf3: apt-get install iperf3")?;
        let output = child.stdout.take().context("no output")?;
        let mut lines = BufReader::new(output).lines();
        for line in lines.by_ref() {
            if line?.contains("listening") {
                // What it says later nobody reads, but it has to be able to say it.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self(child));
            }
        }
        bail!("iperf3 does not listen");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn endpoint(mode: &Mode, site: u8) -> IpAddr {
    if mode.v6 {
        [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(site)].into()
    } else {
        [198, 51, 100, site].into()
    }
}

fn id(site: u8) -> EndpointId {
    EndpointId([192, 0, 2, site].into())
}
