//! The data plane on the kernel: how fast routes come in, what the loss of a next hop costs, what a restart finds, and what
//! tenants cost. Each measurement is a process with a network namespace of its own; `ip -batch` does the same beside.

mod others;

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use ipnet::{IpNet, Ipv4Net};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::mpsc;
use weft_bgp_wire::LargeCommunity;
use weft_dataplane::{Dataplane, DataplaneConfig, DataplaneEvent, Segmentation};
use weft_overlay::export::OwnLabels;
use weft_overlay::intent::{
    ForwardingNextHop, Group, GroupId, IntentDelta, NextHopSet, TenantId, TenantIntent,
    TenantRoute, UnderlayRoute,
};
use weft_overlay::table::{
    Membership, Overlay, OverlayConfig, PathInput, Preference, TenantConfig,
};
use weft_overlay::{Encapsulation, EndpointId, Vni, VniSet};

#[derive(Parser)]
#[command(about = "Measures the data plane on this kernel")]
struct Arguments {
    #[command(subcommand)]
    row: Option<Row>,
    /// How often.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Routes of the large table.
    #[arg(long, global = true, default_value_t = 1_000_000)]
    routes: u32,
}

#[derive(Clone, Copy, Subcommand)]
enum Row {
    /// Routes into the kernel, and a restart that finds them.
    #[command(hide = true)]
    Routes,
    /// The same routes by `ip -batch`.
    #[command(hide = true)]
    Batch,
    /// As many by BIRD.
    #[command(hide = true)]
    Bird,
    /// As many by FRR.
    #[command(hide = true)]
    Frr,
    /// Routes of the underlay into the main table, whose next hop is on a link.
    #[command(hide = true)]
    OnLink,
    /// The same, whose next hop lies behind another route.
    #[command(hide = true)]
    Recursive,
    /// The loss of a next hop below 100,000 routes of 1,000 tenants.
    #[command(hide = true)]
    Failover,
    /// 4,000 tenants from nothing.
    #[command(hide = true)]
    Tenants,
}

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const ADMINISTRATOR: u32 = 64_512;
const TABLES: u32 = 100;
const FIRST_VNI: u32 = 10_000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(row) = arguments.row else {
        return table(&arguments);
    };
    own_network()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = match row {
        Row::Routes => runtime.block_on(routes(arguments.routes))?,
        Row::Batch => others::batch(arguments.routes)?,
        Row::Bird => others::bird(arguments.routes)?,
        Row::Frr => others::frr(arguments.routes)?,
        Row::OnLink => runtime.block_on(underlay(arguments.routes, GATEWAY))?,
        Row::Recursive => runtime.block_on(underlay(arguments.routes, NEAR))?,
        Row::Failover => runtime.block_on(failover())?,
        Row::Tenants => runtime.block_on(tenants())?,
    };
    let mut out = std::io::stdout().lock();
    for (name, value) in figures {
        writeln!(out, "{name} {value}")?;
    }
    Ok(())
}

/// Name and value of what was measured.
type Figures = Vec<(&'static str, f64)>;

/// Does each row in turn, some rounds, and prints medians.
fn table(arguments: &Arguments) -> Result<()> {
    let program = std::env::current_exe()?;
    let mut samples: Vec<(&'static str, String, Vec<f64>)> = Vec::new();
    for _ in 0..arguments.rounds {
        for row in [
            "routes",
            "batch",
            "bird",
            "frr",
            "on-link",
            "recursive",
            "failover",
            "tenants",
        ] {
            let output = Command::new(&program)
                .args([row, "--routes", &arguments.routes.to_string()])
                .stderr(Stdio::inherit())
                .output()?;
            ensure!(output.status.success(), "{row}: {}", output.status);
            for line in String::from_utf8(output.stdout)?.lines() {
                let (name, value) = line.split_once(' ').context("a figure")?;
                let value: f64 = value.parse()?;
                match samples
                    .iter_mut()
                    .find(|(one, known, _)| *one == row && known == name)
                {
                    Some((.., values)) => values.push(value),
                    None => samples.push((row, name.to_owned(), vec![value])),
                }
            }
        }
    }
    let mut median = |row: &str, name: &str| -> f64 {
        let found = samples
            .iter_mut()
            .find(|(one, known, _)| *one == row && known == name);
        found.map_or(f64::NAN, |(.., values)| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    };
    let (weft, batch) = (median("routes", "install"), median("batch", "install"));
    let (bird, frr) = (median("bird", "install"), median("frr", "install"));
    let mut out = String::from("| what | measured | goal |\n|---|---|---|\n");
    let count = arguments.routes;
    let _ = writeln!(
        out,
        "| {count} tenant routes into the kernel, from intent to the last ACK | {weft:.2} s, peak {:.0} MB; `ip -batch` {batch:.2} s: {:.2}; BIRD {bird:.2} s: {:.2}; FRR {frr:.2} s: {:.2} | faster than `ip -batch` |",
        median("routes", "peak"),
        weft / batch,
        weft / bird,
        weft / frr
    );
    let _ = writeln!(
        out,
        "| restart with them present: read, compare | {:.2} s, {} route messages, peak {:.0} MB | 0 messages |",
        median("routes", "restart"),
        median("routes", "sent"),
        median("routes", "restart-peak"),
    );
    let (on_link, recursive) = (median("on-link", "install"), median("recursive", "install"));
    let _ = writeln!(
        out,
        "| {count} routes of the underlay behind another route, and with their next hop on a link | {recursive:.2} s, {on_link:.2} s: {:.2} of the speed | 0.90 |",
        on_link / recursive
    );
    let _ = writeln!(
        out,
        "| loss of the local next hop below 100,000 routes of 1,000 tenants, from the event to the last ACK | {:.1} ms, {} routes touched | < 10 ms, 0 routes |",
        median("failover", "seconds") * 1000.0,
        median("failover", "touched")
    );
    let _ = writeln!(
        out,
        "| 4,000 tenants from intent | {:.2} s, {:.2} s of it the kernel's, peak {:.0} MB | < 1 s of the kernel |",
        median("tenants", "seconds"),
        median("tenants", "kernel"),
        median("tenants", "peak")
    );
    #[allow(clippy::print_stdout, reason = "what the program is for")]
    {
        print!("{out}");
    }
    Ok(())
}

fn ip(words: &str) -> Result<()> {
    let status = Command::new("ip").args(words.split_whitespace()).status()?;
    ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

fn own_network() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("a network namespace of its own needs CAP_SYS_ADMIN: run it as root")?;
    ip("link set lo up")?;
    ip("link add wan type veth peer name far")?;
    for words in [
        "address add 198.51.100.1/24 dev wan",
        "link set wan up",
        "link set far up",
        "address add 192.0.2.1/32 dev lo",
        "route add 192.0.2.2/32 via 198.51.100.2",
        "route add 192.0.2.3/32 via 198.51.100.3",
    ] {
        ip(words)?;
    }
    Ok(())
}

async fn start() -> Result<(Dataplane, mpsc::Receiver<DataplaneEvent>)> {
    let config = DataplaneConfig {
        endpoint: Some(OWN.into()),
        endpoint_id: EndpointId(OWN),
        segmentation: Segmentation::Table,
        ..DataplaneConfig::default()
    };
    Ok(Dataplane::start(config).await?)
}

/// Waits until everything that was ordered is done; nothing may have been refused.
async fn done(dataplane: &Dataplane) -> Result<weft_dataplane::DataplaneStatus> {
    let status = dataplane.status().await.context("the data plane ended")?;
    if let Some(refused) = status.refused.first() {
        bail!("{} was refused: {}", refused.prefix, refused.error);
    }
    Ok(status)
}

/// Most memory since the last call of [`forget_peak`], MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn forget_peak() {
    // Where it may not be forgotten the figure is larger than it need be.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn vni(number: u32) -> Result<Vni> {
    Ok(Vni::new(number)?)
}

fn tenant(at: u32) -> Result<(TenantId, Option<TenantIntent>)> {
    let vni = vni(FIRST_VNI + at)?;
    let intent = TenantIntent {
        name: format!("t{at}"),
        primary_vni: vni,
        vnis: vec![vni],
        attachments: Vec::new(),
        breakout: None,
        services: Vec::new(),
        chains: Vec::new(),
    };
    Ok((TenantId(at), Some(intent)))
}

/// The prefix of a table's route: /32s, which no two tables share the order of.
fn prefix(at: u32) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + at), 32).into()
}

async fn intend(dataplane: &Dataplane, count: u32) -> Result<()> {
    let mut delta = IntentDelta::default();
    for at in 0..TABLES {
        delta.tenants.push(tenant(at)?);
        let hop = ForwardingNextHop {
            vni: vni(FIRST_VNI + at)?,
            encapsulation: Encapsulation::Vxlan,
            port: None,
            address: NEAR.into(),
            endpoint_id: None,
        };
        let group = Group {
            hops: NextHopSet(vec![hop]),
            weights: Vec::new(),
            has_others: false,
            may_share: false,
            sticky: false,
        };
        delta.groups.push((GroupId(at), Some(group)));
    }
    dataplane.apply(delta).await;
    for first in (0..count).step_by(10_000) {
        let routes = (first..count.min(first + 10_000)).map(|at| TenantRoute {
            tenant: TenantId(at % TABLES),
            prefix: prefix(at / TABLES),
            group: Some(GroupId(at % TABLES)),
        });
        let delta = IntentDelta {
            routes: routes.collect(),
            ..IntentDelta::default()
        };
        dataplane.apply(delta).await;
    }
    Ok(())
}

async fn routes(count: u32) -> Result<Figures> {
    let (dataplane, _events) = start().await?;
    let begin = Instant::now();
    intend(&dataplane, count).await?;
    done(&dataplane).await?;
    let install = begin.elapsed().as_secs_f64();
    let install_peak = peak();
    dataplane.settle().await;
    let before = done(&dataplane).await?;
    dataplane.stop().await;
    drop(dataplane);
    forget_peak();
    let begin = Instant::now();
    let (dataplane, _events) = start().await?;
    intend(&dataplane, count).await?;
    dataplane.settle().await;
    let after = done(&dataplane).await?;
    let restart = begin.elapsed().as_secs_f64();
    ensure!(
        after.routes == before.routes,
        "{} routes were found of {}",
        after.routes,
        before.routes
    );
    Ok(vec![
        ("install", install),
        ("peak", install_peak),
        ("restart", restart),
        ("sent", after.route_requests as f64),
        ("restart-peak", peak()),
    ])
}

/// As many routes of BGP with one next hop.
async fn underlay(count: u32, via: Ipv4Addr) -> Result<Figures> {
    let (dataplane, _events) = start().await?;
    let begin = Instant::now();
    for first in (0..count).step_by(10_000) {
        let routes = (first..count.min(first + 10_000)).map(|at| UnderlayRoute {
            prefix: prefix(at),
            via: vec![via.into()],
        });
        let delta = IntentDelta {
            underlay: routes.collect(),
            ..IntentDelta::default()
        };
        dataplane.apply(delta).await;
    }
    let status = done(&dataplane).await?;
    let install = begin.elapsed().as_secs_f64();
    ensure!(
        status.underlay_routes == count as usize,
        "{} routes are there of {count}",
        status.underlay_routes
    );
    Ok(vec![("install", install)])
}

fn own_labels(endpoint: Ipv4Addr) -> OwnLabels {
    OwnLabels {
        administrator: ADMINISTRATOR,
        endpoint: endpoint.into(),
        id: EndpointId(endpoint),
        encapsulation: Encapsulation::Vxlan,
    }
}

/// The overlay's part and the data plane's together, as the router runs them.
async fn failover() -> Result<Figures> {
    const TENANTS: u32 = 1000;
    const PREFIXES: u32 = 100;
    let mut overlay = Overlay::new(OverlayConfig {
        membership: Some(Membership {
            administrator: ADMINISTRATOR,
            endpoint: OWN.into(),
            id: EndpointId(OWN),
            encapsulation: Encapsulation::Vxlan,
            port: None,
            announce_locator: false,
            install_underlay: false,
            stitched: VniSet::none(),
        }),
        install: Vec::new(),
    });
    let mut labels: [Vec<LargeCommunity>; 2] = [Vec::new(), Vec::new()];
    for at in 0..TENANTS {
        let vni = vni(FIRST_VNI + at)?;
        overlay.add_tenant(TenantConfig {
            name: format!("t{at}"),
            primary_vni: vni,
            vnis: Vec::new(),
            attachments: Vec::new(),
            prefixes: Vec::new(),
            breakout: None,
            services: Vec::new(),
            chains: Vec::new(),
        });
        for (labels, endpoint) in labels.iter_mut().zip([NEAR, FAR]) {
            labels.push(own_labels(endpoint).label(vni));
        }
    }
    let accept = VniSet::all();
    for at in 0..PREFIXES {
        let path = |source: u16, local_pref| PathInput {
            source,
            path_id: 1,
            local: false,
            best: true,
            add_path: false,
            accept: &accept,
            preference: Preference {
                local_pref,
                med: 0,
                neighbor_as: 0,
                as_path_length: 0,
                origin: 0,
                ebgp: false,
            },
            next_hop: NEAR.into(),
            resolves: true,
            bandwidth: 0,
            communities: &labels[usize::from(source)],
        };
        overlay.handle_route(prefix(at), &[path(0, 200), path(1, 100)]);
    }
    let (dataplane, mut events) = start().await?;
    // The loop of the router, as far as the overlay goes.
    let touched = Cell::new(0);
    let turn = async |overlay: &mut Overlay, events: &mut mpsc::Receiver<DataplaneEvent>| {
        let (track, _) = overlay.poll_tracking();
        if !track.is_empty() {
            dataplane.track_endpoints(track).await;
        }
        if let Some(intent) = overlay.poll_intent() {
            touched.set(touched.get() + intent.routes.len());
            dataplane.apply(intent).await;
        }
        match tokio::time::timeout(Duration::from_millis(500), events.recv()).await {
            Ok(Some(DataplaneEvent::EndpointReachability(changes))) => {
                overlay.handle_reachability(&changes);
                Some(changes)
            }
            _ => None,
        }
    };
    while turn(&mut overlay, &mut events).await.is_some() {}
    let before = done(&dataplane).await?;
    ensure!(
        before.routes == (TENANTS * (PREFIXES + 1)) as usize,
        "{} routes",
        before.routes
    );
    touched.set(0);
    // Started already: what it takes to start a process is no part of the event.
    let mut meddler = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut orders = meddler.stdin.take().context("no way to tell ip")?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    orders.write_all(b"route replace unreachable 192.0.2.2/32\n")?;
    drop(orders);
    let changes = turn(&mut overlay, &mut events).await;
    ensure!(
        changes == Some(vec![(IpAddr::from(NEAR), None)]),
        "the kernel told {changes:?}"
    );
    let groups = overlay.poll_intent().context("nothing changes")?;
    let touched = touched.get() + groups.routes.len();
    dataplane.apply(groups).await;
    done(&dataplane).await?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(meddler.wait()?.success(), "ip failed");
    Ok(vec![("seconds", seconds), ("touched", touched as f64)])
}

async fn tenants() -> Result<Figures> {
    const TENANTS: u32 = 4000;
    let (dataplane, _events) = start().await?;
    let kernel = || {
        getrusage(UsageWho::RUSAGE_SELF).map(|usage| {
            let time = usage.system_time();
            time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
        })
    };
    let before = kernel()?;
    let begin = Instant::now();
    let mut delta = IntentDelta::default();
    for at in 0..TENANTS {
        delta.tenants.push(tenant(at)?);
    }
    dataplane.apply(delta).await;
    done(&dataplane).await?;
    Ok(vec![
        ("seconds", begin.elapsed().as_secs_f64()),
        ("kernel", kernel()? - before),
        ("peak", peak()),
    ])
}
