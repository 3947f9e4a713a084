//! What a tenant's packets get: two routers of Weft's data plane beside the same devices, routes and rules set up by hand
//! with iproute2. Both stand at the same time, and take turns; what is told is the ratio.

mod chain;
mod pair;

use std::fmt::Write as _;

use anyhow::Result;
use clap::Parser;
use weft_dataplane::doctor::{Health, doctor};
use weft_overlay::Encapsulation;

use pair::{Load, Pair};

#[derive(Parser)]
#[command(about = "Measures packets and octets a second through the data plane, beside iproute2")]
struct Arguments {
    /// How often each is measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long one measurement takes, s.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Only this encapsulation, such as `vxlan` or `gre6`; or `tenants`, many of them; `chain`, services on the way; or `chains`, many of them.
    #[arg(long)]
    only: Option<String>,
}

const VNI: u32 = 10_001;
/// What is measured: name, iperf3's words, and whether packets count.
const LOADS: [(&str, &str, bool); 4] = [
    ("UDP, 64 octets, 1 flow", "-u -b 0 -l 64", true),
    ("UDP, 64 octets, 64 flows", "-u -b 0 -l 64 -P 64", true),
    ("TCP, 1 flow", "", false),
    ("TCP, 64 flows", "-P 64", false),
];

/// How many tenants the routers have, where that is what is measured; by hand with a rule a tenant, as iproute2 has it.
const TENANTS: [u32; 3] = [16, 256, 4000];

/// How many chains, where that is what is measured: beside Weft with one.
const CHAINS: [usize; 2] = [100, 500];

/// How packets are carried, as both sides set it up.
struct Mode {
    name: &'static str,
    encapsulation: Encapsulation,
    v6: bool,
    /// How `weft doctor` calls what it needs.
    needs: &'static str,
    /// Name and kind of the device made by hand.
    device: &'static str,
    kind: &'static str,
    mtu: u32,
}

const MODES: [Mode; 6] = [
    Mode {
        name: "vxlan",
        encapsulation: Encapsulation::Vxlan,
        v6: false,
        needs: "VXLAN with",
        device: "vx0",
        kind: "vxlan external vnifilter dstport 4789 nolearning",
        mtu: 1450,
    },
    Mode {
        name: "vxlan6",
        encapsulation: Encapsulation::Vxlan,
        v6: true,
        needs: "VXLAN with",
        device: "vx0",
        kind: "vxlan external vnifilter dstport 4789 nolearning",
        mtu: 1430,
    },
    Mode {
        name: "gpe",
        encapsulation: Encapsulation::VxlanGpe,
        v6: false,
        needs: "VXLAN-GPE",
        device: "vxg0",
        kind: "vxlan external gpe vnifilter dstport 4790",
        mtu: 1464,
    },
    Mode {
        name: "gpe6",
        encapsulation: Encapsulation::VxlanGpe,
        v6: true,
        needs: "VXLAN-GPE",
        device: "vxg0",
        kind: "vxlan external gpe vnifilter dstport 4790",
        mtu: 1444,
    },
    Mode {
        name: "gre",
        encapsulation: Encapsulation::Gre,
        v6: false,
        needs: "GRE with",
        device: "wgre0",
        kind: "gre external",
        mtu: 1472,
    },
    Mode {
        name: "gre6",
        encapsulation: Encapsulation::Gre,
        v6: true,
        needs: "GRE over IPv6",
        device: "wgre6",
        kind: "ip6gre external",
        mtu: 1452,
    },
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let findings = doctor();
    let can = |mode: &Mode| {
        let mut findings = findings.iter();
        findings.any(|one| one.what.starts_with(mode.needs) && one.health == Health::Good)
    };
    let mut out =
        String::from("| by | load | Weft | by hand | Weft : by hand |\n|---|---|---|---|---|\n");
    for mode in &MODES {
        if arguments
            .only
            .as_ref()
            .is_some_and(|only| only != mode.name)
        {
            continue;
        }
        if !can(mode) {
            let _ = writeln!(out, "| {} | | not on this kernel | | |", mode.name);
            continue;
        }
        let weft = Pair::new("w", mode, true, Load::default())?;
        let hand = Pair::new("h", mode, false, Load::default())?;
        for load in LOADS {
            side_by_side(&mut out, &arguments, mode.name, load, &weft, &hand)?;
        }
    }
    let only = arguments.only.as_deref();
    if only.is_none_or(|only| only == "tenants") {
        for tenants in TENANTS {
            let name = format!("vxlan, {tenants} tenants");
            let load = Load {
                others: tenants - 1,
                ..Load::default()
            };
            let weft = Pair::new("w", &MODES[0], true, load)?;
            let hand = Pair::new("h", &MODES[0], false, load)?;
            side_by_side(&mut out, &arguments, &name, LOADS[0], &weft, &hand)?;
        }
    }
    if only.is_none_or(|only| only == "chain") {
        for services in 0..=chain::MOST {
            let name = format!("vxlan, {services} services");
            let load = Load {
                services,
                ..Load::default()
            };
            let weft = Pair::new("w", &MODES[0], true, load)?;
            let hand = Pair::new("h", &MODES[0], false, load)?;
            for load in [LOADS[0], LOADS[2]] {
                side_by_side(&mut out, &arguments, &name, load, &weft, &hand)?;
            }
        }
    }
    if only.is_none_or(|only| only == "chains") {
        for (order, words) in [
            (chain::Order::First, "the first is taken"),
            (chain::Order::Last, "the last is taken"),
            (chain::Order::Nowhere, "none is taken"),
        ] {
            let one = Load {
                services: 1,
                chains: 1,
                order,
                ..Load::default()
            };
            let few = Pair::new("h", &MODES[0], true, one)?;
            for chains in CHAINS {
                let name = format!("vxlan, {chains} chains beside 1 of Weft, {words}");
                let many = Pair::new("w", &MODES[0], true, Load { chains, ..one })?;
                side_by_side(&mut out, &arguments, &name, LOADS[0], &many, &few)?;
            }
        }
    }
    #[allow(clippy::print_stdout, reason = "what the program is for")]
    {
        print!("{out}");
    }
    Ok(())
}

/// Both in turn, so often; adds the medians as a row.
fn side_by_side(
    out: &mut String,
    arguments: &Arguments,
    name: &str,
    (load, words, packets): (&str, &str, bool),
    weft: &Pair,
    hand: &Pair,
) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..arguments.rounds {
        let one = weft.measure(words, packets, arguments.seconds)?;
        let other = hand.measure(words, packets, arguments.seconds)?;
        samples.push((one, other, one / other));
    }
    let median = |each: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(each).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (scale, unit) = if packets {
        (1e3, "k/s")
    } else {
        (1e9, "Gbit/s")
    };
    let _ = writeln!(
        out,
        "| {name} | {load} | {:.1} {unit} | {:.1} {unit} | {:.2} |",
        median(|sample| sample.0) / scale,
        median(|sample| sample.1) / scale,
        median(|sample| sample.2),
    );
    Ok(())
}
