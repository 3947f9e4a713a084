//! A domain's controller with thousands of routers: how fast they join, what it needs, and how long a change takes to reach the last
//! of them. The controller is a process of its own; the routers are simulated here: keys, certificates, streams and what they hold
//! are real, and nothing is forwarded.

mod controller;
mod growth;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use controller::{Controller, Kept, memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use weft_discovery::client::{Client, Event, Facts, Membership, Rest};
use weft_discovery::pki::TokenText;

#[derive(Parser)]
#[command(about = "Measures a domain's controller with simulated routers")]
struct Arguments {
    /// How many routers.
    #[arg(long, default_value_t = 2000)]
    routers: u32,
    /// How many of them join at the same time.
    #[arg(long, default_value_t = 64)]
    together: usize,
    /// Measure how what a controller costs grows with what it holds, instead.
    #[arg(long)]
    growth: bool,
}

/// What the routers have heard.
#[derive(Default)]
struct Heard {
    /// Views taken in, of all routers.
    views: AtomicU64,
}

/// What the routers keep: gone with the value.
struct Routers(std::path::PathBuf);

impl Drop for Routers {
    fn drop(&mut self) {
        // They may have kept nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.growth {
        return growth::run().await;
    }
    // Each router keeps what it runs: not all of them on one disk.
    let routers = format!("weft-discovery-bench-{}", std::process::id());
    let routers = Routers(Path::new("/dev/shm").join(routers));
    let controller = Controller::create("weft-discovery-bench", Kept::File).await?;
    let mut controller = controller.context("a file")?;
    let rest = controller.start().await?;
    let (address, pid) = (controller.address.clone(), controller.pid()?);
    let empty = memory(pid, "VmRSS")?;
    let token = async |role: &str| -> Result<TokenText> {
        let body = json!({ "scope": { "kind": "join", "role": role } });
        let created = rest.ask("POST".parse()?, "tokens", Some(&body)).await?;
        Ok(created["token"].as_str().context("a token")?.parse()?)
    };
    let (reflector, router) = (token("reflector").await?, token("router").await?);

    let heard = Arc::new(Heard::default());
    let start = async |name: String, number: u32, token: &TokenText| {
        let folder = routers.0.join(&name);
        join(&address, token, &name, &folder, number, heard.clone()).await
    };
    for number in 0..2 {
        start(format!("r{number}"), 1_000_000 + number, &reflector).await?;
    }
    // All others at once, as after a failure of power.
    let began = Instant::now();
    let together = Arc::new(Semaphore::new(arguments.together));
    let joins = (0..arguments.routers).map(|number| {
        let (address, token, together) = (address.clone(), router.clone(), together.clone());
        let (folder, heard) = (routers.0.join(format!("a{number}")), heard.clone());
        tokio::spawn(async move {
            let _turn = together.acquire().await?;
            let name = format!("a{number}");
            join(&address, &token, &name, &folder, number, heard).await
        })
    });
    for join in joins.collect::<Vec<_>>() {
        join.await??;
    }
    settled(&rest, arguments.routers as usize + 2).await?;
    let joined = began.elapsed();
    let busy = memory(pid, "VmRSS")?;

    // Nothing happens.
    let (before, quiet) = (cpu(pid)?, Duration::from_secs(10));
    tokio::time::sleep(quiet).await;
    let idle = (cpu(pid)? - before) / quiet.as_secs_f64();

    // One router's tenant, and what concerns all: another reflector.
    let mut alone = Vec::new();
    rest.ask("POST".parse()?, "tenants", Some(&json!({ "name": "red" })))
        .await?;
    for number in 0..20 {
        let before = heard.views.load(Ordering::Relaxed);
        let began = Instant::now();
        let path = format!("tenants/red/attachments/a{number}");
        rest.ask(
            "PUT".parse()?,
            &path,
            Some(&json!({ "interfaces": ["red0"] })),
        )
        .await?;
        until(&heard, before + 1).await?;
        alone.push(began.elapsed().as_secs_f64());
    }
    let mut all = Vec::new();
    for round in 0..5 {
        let role = if round % 2 == 0 {
            "router"
        } else {
            "reflector"
        };
        let before = heard.views.load(Ordering::Relaxed);
        let began = Instant::now();
        rest.ask(
            "PATCH".parse()?,
            "routers/r1",
            Some(&json!({ "role": role })),
        )
        .await?;
        until(&heard, before + u64::from(arguments.routers)).await?;
        all.push(began.elapsed().as_secs_f64());
        settled(&rest, arguments.routers as usize + 2).await?;
    }
    let mebibytes = |octets: u64| octets as f64 / 1_048_576.0;
    #[allow(clippy::print_stdout, reason = "what the program is for")]
    {
        println!("| what | measured |\n|---|---|");
        println!(
            "| {} routers join with a token each time, register and run what they are told | {:.1} s, {:.0} a second |",
            arguments.routers,
            joined.as_secs_f64(),
            f64::from(arguments.routers) / joined.as_secs_f64()
        );
        println!(
            "| resident, without routers and with all attached | {:.0} MiB, {:.0} MiB: {:.0} KiB a router |",
            mebibytes(empty),
            mebibytes(busy),
            (busy - empty) as f64 / 1024.0 / f64::from(arguments.routers)
        );
        println!(
            "| processor while nothing happens | {:.1} % of one |",
            idle * 100.0
        );
        println!(
            "| a tenant attached to one router, from the request to its taking it in | {:.1} ms |",
            median(&mut alone) * 1000.0
        );
        println!(
            "| a change that concerns all, from the request to the last one's taking it in | {:.2} s |",
            median(&mut all)
        );
    }
    Ok(())
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A router joins, and runs whatever it is told from then on.
async fn join(
    address: &str,
    token: &TokenText,
    name: &str,
    folder: &Path,
    number: u32,
    heard: Arc<Heard>,
) -> Result<()> {
    let membership = Membership::join(address, token, name, folder).await?;
    let own = std::net::Ipv4Addr::from(0x0a00_0000 + number + 1);
    let facts = Facts {
        router_id: None,
        bgp_address: own.into(),
        endpoint: own.into(),
        encapsulations: vec!["vxlan".into()],
        capacity: 0,
        session_keys: true,
    };
    let (client, mut events) = Client::start(membership, facts, None, None);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::View(revision, view) = event {
                client.applied(revision, view, Vec::new()).await;
                heard.views.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}

async fn until(heard: &Heard, views: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while heard.views.load(Ordering::Relaxed) < views {
        ensure!(Instant::now() < end, "not everybody heard");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Waits until all are attached and run what they were sent.
async fn settled(rest: &Rest, routers: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let status = rest.ask("GET".parse()?, "status", None).await?;
        let all = status["routers"].as_array().map_or(&[][..], Vec::as_slice);
        if all.len() == routers && all.iter().all(|one: &Value| one["lags"] == false) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not everybody is attached");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Processor time of a process, s.
fn cpu(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit(") ").next().context("stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
