//! What the underlay and the host can do to a router: each fault under 1,000 packets per second, and what it cost.
//!
//! Asserted are states, never times: packets flow again and the router says so; and while nothing arrives, the router
//! does not say that it forwards. The times and losses are printed, and stand in docs/testing.md.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

mod faults;
mod faults_v6;
mod kernel;
mod sky;
mod tcp;

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{Duration, Instant};

use faults::{Cure, DIRECT, Fault, ROUTED};
use faults_v6::ROUTED_V6;
use kernel::Snapshot;
use sky::{Outcome, Weather, direct, routed, routed_v6};
use weft_load::Random;
use weft_tests::{Lab, need};

const PROGRAMS: [&str; 7] = ["ip", "nft", "bridge", "sysctl", "tc", "curl", "ping"];

fn row(table: &mut String, name: &str, outcome: &Outcome) {
    let said = outcome.until_said.map_or("–".to_owned(), |time| {
        format!("{} ms: {}", time.as_millis(), outcome.said)
    });
    let flowing = outcome.until_flowing.as_millis();
    let line = format!(
        "| {name} | {} | {flowing} ms | {said} |",
        outcome.damage.lost
    );
    eprintln!("{line}");
    let _ = writeln!(table, "{line}");
}

/// A number from the environment, else the usual one.
fn asked<T: FromStr>(name: &str, usual: T) -> T {
    let said = std::env::var(name).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// `WEATHER_ONLY` takes the faults with that text in their names, `WEATHER_TIMES` strikes each so often.
fn each(faults: &[Fault], lab: Lab) {
    let weather = Weather::start(lab);
    let mut table =
        "| fault | packets lost | until packets flow | until status says so |\n|---|---|---|---|\n"
            .to_owned();
    let only = std::env::var("WEATHER_ONLY").unwrap_or_default();
    for fault in faults.iter().filter(|one| one.name.contains(&only)) {
        for _ in 0..asked("WEATHER_TIMES", 1) {
            let outcome = weather.strike(fault);
            row(&mut table, fault.name, &outcome);
        }
    }
}

#[test]
fn packets_flow_again_after_each_fault_and_status_is_honest_meanwhile() {
    if need(&PROGRAMS) {
        each(DIRECT, direct());
    }
}

#[test]
fn packets_flow_again_after_each_fault_of_a_routed_underlay() {
    if need(&PROGRAMS) {
        each(ROUTED, routed());
    }
}

#[test]
fn packets_flow_again_after_each_fault_of_an_underlay_of_ipv6() {
    if need(&PROGRAMS) {
        each(ROUTED_V6, routed_v6());
    }
}

/// Any weather in any order ends well, with the kernel as it was. `WEATHER_SEED` repeats one, `WEATHER_MINUTES` says how long.
#[test]
fn random_weather_ends_in_forwarding() {
    if !need(&PROGRAMS) {
        return;
    }
    let seed = asked("WEATHER_SEED", u64::from(std::process::id()));
    let time = Duration::from_secs_f64(60.0 * asked("WEATHER_MINUTES", 0.3));
    eprintln!("WEATHER_SEED={seed} repeats this weather");
    let weather = Weather::start(direct());
    let before = ["r", "x"].map(|node| Snapshot::settled(&weather.lab, node));
    let mut random = Random(seed.max(1));
    let start = Instant::now();
    let mut struck = 0;
    while start.elapsed() < time {
        let fault = &DIRECT[random.below(DIRECT.len() as u64) as usize];
        eprintln!("{:6} ms  {}", start.elapsed().as_millis(), fault.name);
        weather.as_possible(fault.strike);
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        if let Cure::Host(acts) = fault.cure {
            weather.as_possible(acts);
        }
        weather.as_possible(fault.restore);
        struck += 1;
        // Some come upon the one before, and some into quiet air.
        if random.below(3) == 0 {
            weather.calm(fault.name);
        }
    }
    weather.calm("all of it");
    for (node, before) in ["r", "x"].into_iter().zip(before) {
        before.is_again(&weather.lab, node);
    }
    eprintln!("{struck} faults, and packets flow");
}
