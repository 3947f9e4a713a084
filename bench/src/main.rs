//! Weft beside the BGP speakers that people use: the same neighbours, the same octets, in turn, in one run.
//!
//! One sender or several, one receiver or several, all in this process; the speaker under test stands between them. What
//! counts is the time from the first octet sent to the last UPDATE received, with every prefix accounted for.

mod monitor;
mod relay;
mod report;
mod run;
mod session;
mod speaker;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use run::{Loads, Prepared, Run};
use speaker::Kind;

#[derive(Parser)]
#[command(version, about = "Measures BGP speakers side by side")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Verb>,
    /// The weft binary.
    #[arg(long, env = "WEFT_BIN", default_value = "target/release/weft")]
    weft: PathBuf,
    /// Where real routing tables are; without them, tables of the same shape are generated.
    #[arg(long, default_value = "../shared/data")]
    data: PathBuf,
    /// What is run; everything by default.
    #[arg(long, value_delimiter = ',')]
    runs: Vec<Run>,
    /// Who is measured; everybody who is installed by default.
    #[arg(long, value_delimiter = ',')]
    speakers: Vec<Kind>,
    /// How often.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often FRR, OpenBGPD and GoBGP do the long runs.
    #[arg(long, default_value_t = 1)]
    long_rounds: usize,
    /// Every sample, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Copies octets from senders to receivers: the measure of the machine.
    #[command(hide = true)]
    Relay,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Verb::Relay)) {
        return relay::run();
    }
    own_network()?;
    let speakers = speakers(&arguments);
    ensure!(!speakers.is_empty(), "none of the speakers is installed");
    let runs = if arguments.runs.is_empty() {
        <Run as clap::ValueEnum>::value_variants()
    } else {
        &arguments.runs
    };
    let loads = Loads::new(&arguments.data);
    let mut report = report::Report::new(&speakers);
    for run in runs {
        let prepared = Prepared::new(*run, &loads)?;
        for round in 0..arguments.rounds {
            let stolen = report::stolen();
            for (kind, _) in &speakers {
                let slow = matches!(kind, Kind::Frr | Kind::Openbgpd | Kind::Gobgp);
                if slow && run.is_long() && round >= arguments.long_rounds {
                    continue;
                }
                if run.is_check() && !matches!(kind, Kind::Weft | Kind::Bird) {
                    continue;
                }
                if *kind == Kind::Relay && matches!(run, Run::Idle1000 | Run::Memory) {
                    continue;
                }
                match prepared.measure(*kind, &arguments.weft, round == 0) {
                    Ok(samples) => {
                        let unfinished = samples.iter().any(|sample| sample.unfinished);
                        report.add(*kind, round, samples);
                        if unfinished && *kind == Kind::Weft {
                            report.failed(*kind, *run, &anyhow::anyhow!("not over in time"));
                        }
                    }
                    Err(error) => report.failed(*kind, *run, &error),
                }
            }
            report.round_over(*run, round, stolen);
        }
    }
    report.print();
    if let Some(path) = &arguments.json {
        std::fs::write(path, report.json()?).with_context(|| path.display().to_string())?;
    }
    ensure!(!report.has_failures(), "some runs failed");
    Ok(())
}

fn speakers(arguments: &Arguments) -> Vec<(Kind, String)> {
    let wanted = if arguments.speakers.is_empty() {
        <Kind as clap::ValueEnum>::value_variants()
    } else {
        &arguments.speakers
    };
    let mut found = Vec::new();
    for kind in wanted {
        match kind.version(&arguments.weft) {
            Some(version) => found.push((*kind, version)),
            None => eprintln!("SKIPPED: {} is not installed", kind.name()),
        }
    }
    found
}

/// A network namespace of this process and its children: every speaker may have port 179, and none is reached.
fn own_network() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("a network namespace of its own needs CAP_SYS_ADMIN: run it as root")?;
    for arguments in [
        &["link", "set", "lo", "up"][..],
        // On the loopback interface every address of the prefix is local.
        &["address", "add", "10.255.0.1/16", "dev", "lo"],
    ] {
        let status = Command::new("ip").args(arguments).status().context("ip")?;
        ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
    }
    Ok(())
}
