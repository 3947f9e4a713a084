//! `weft trace`: the way of a tenant's packet, as the overlay decided and as the kernel answers.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use weft_api::types::{
    Chain, StepCode, Trace, TraceAnswer, TraceCode, TraceLive, TraceMatch, TraceTunnel, Verdict,
};

use super::complete;
use super::show::bgp::label;
use super::show::chains::place;
use super::show::forwarding;
use super::show::overlay::at_port;
use super::show::{Screen, Target};
use super::table::{Sheet, Tone, View};

#[derive(Args)]
pub(super) struct Arguments {
    /// The tenant.
    #[arg(add = ArgValueCandidates::new(complete::tenants))]
    tenant: String,
    /// Where the packet goes.
    destination: IpAddr,
    /// Where it comes from, where policy rules look at that.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Its differentiated services code point.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..64), value_name = "0-63")]
    dscp: Option<u8>,
    /// Its protocol, where a service chain looks at it: tcp, udp, icmp, or a number.
    #[arg(long, value_parser = protocol, value_name = "PROTOCOL")]
    protocol: Option<u8>,
    /// Its source port, where a service chain looks at it.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Its destination port, where a service chain looks at it.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Send packets through the overlay, and show who answers: each router on the way, and the destination.
    #[arg(long)]
    live: bool,
    /// Octets that each packet has that is sent, IP header included: whether they fit everywhere, and what does.
    #[arg(long, requires = "live", value_parser = clap::value_parser!(u16).range(96..=65_000), value_name = "OCTETS")]
    size: Option<u16>,
    #[command(flatten)]
    router: Target,
}

/// Prints the way, and fails where the packet does not get on.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(&arguments.router)?;
    let mut query = vec![("destination", arguments.destination.to_string())];
    query.extend(arguments.from.map(|from| ("from", from.to_string())));
    query.extend(arguments.dscp.map(|dscp| ("dscp", dscp.to_string())));
    for (name, number) in [
        ("protocol", arguments.protocol.map(u16::from)),
        ("source_port", arguments.source_port),
        ("destination_port", arguments.port),
    ] {
        query.extend(number.map(|number| (name, number.to_string())));
    }
    query.extend(arguments.size.map(|size| ("size", size.to_string())));
    let path = ["tenants", &arguments.tenant, "trace"];
    let trace: Trace = match arguments.live {
        true => screen.post(&path, &query)?,
        false => screen.get(&path, &query)?,
    };
    screen.print(&trace, view)?;
    let answered = trace.live.as_ref().is_none_or(|live| live.reached);
    Ok(match trace.verdict.code {
        TraceCode::Forwarded | TraceCode::Delivered if answered => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn view(trace: &Trace, view: View) -> String {
    let mut sheet = Sheet::new();
    sheet.line(
        "packet",
        format!("of tenant {} to {}", trace.tenant, trace.destination),
        Tone::Strong,
    );
    if let Some(chain) = &trace.chain {
        put_chain(&mut sheet, chain);
    }
    if let Some(needs) = &trace.chain_needs {
        let text = format!("{needs}: say it with --from, --protocol, --port or --source-port");
        sheet.line("chain", text, Tone::Warning);
    }
    match &trace.route {
        None => sheet.line(
            "overlay",
            "no prefix of the tenant covers it",
            Tone::Warning,
        ),
        Some(route) if route.local => sheet.line(
            "overlay",
            format!("{}, the tenant's own here", route.prefix),
            Tone::Plain,
        ),
        Some(route) => {
            sheet.line("overlay", route.prefix.to_string(), Tone::Plain);
            for path in &route.paths {
                let mut text = label(&path.label);
                if let Some(hop) = path.local_next_hop {
                    text.push_str(&format!(", by local next hop {hop}"));
                }
                if let Some(neighbor) = path.neighbor {
                    text.push_str(&format!(", from neighbour {neighbor}"));
                }
                match &path.not_chosen {
                    None => sheet.line("  label", text, Tone::Plain),
                    Some(why) => sheet.line(
                        "  label",
                        format!("{text}: not chosen, {}", why.text),
                        Tone::Dim,
                    ),
                }
            }
        }
    }
    match (&trace.kernel, &trace.error) {
        (Some(found), _) => {
            let object = found
                .next_hop
                .map(|id| format!(", next-hop object {id}"))
                .unwrap_or_default();
            let text = format!("table {}: {}{object}", found.table, route(found));
            sheet.line("kernel", text, Tone::Plain);
        }
        (None, error) => {
            let error = error.as_deref().unwrap_or("no answer");
            let text = format!("table {}: {error}", trace.table);
            sheet.line("kernel", text, Tone::Bad);
        }
    }
    for tunnel in &trace.tunnels {
        let text = format!(
            "VNI {} to {}, {} by {}, packets up to {} octets, object {}",
            tunnel.vni,
            at_port(tunnel.router, tunnel.port),
            tunnel.encapsulation,
            tunnel.device,
            tunnel.mtu,
            tunnel.next_hop
        );
        sheet.line("tunnel", text, Tone::Plain);
        match (&tunnel.underlay, &tunnel.error) {
            (Some(found), _) => sheet.line("  underlay", route(found), Tone::Plain),
            (None, error) => {
                let error = error.as_deref().unwrap_or("no answer");
                sheet.line("  underlay", error, Tone::Bad);
            }
        }
    }
    let tone = match trace.verdict.code {
        TraceCode::Forwarded | TraceCode::Delivered => Tone::Good,
        _ => Tone::Bad,
    };
    sheet.line("verdict", trace.verdict.text.clone(), tone);
    if trace.forwarding.verdict != Verdict::Forwarding {
        forwarding::put(&mut sheet, &trace.forwarding);
    }
    if let Some(live) = &trace.live {
        put_live(&mut sheet, live, &trace.tunnels);
    }
    sheet.render(view)
}

/// The steps that this router takes the packet through, before its tenant's table is looked at.
fn put_chain(sheet: &mut Sheet, chain: &Chain) {
    let text = format!("{}, {}: {}", chain.name, chain.direction, chain.matches);
    sheet.line("chain", text, Tone::Plain);
    if let Some(note) = &chain.note {
        sheet.line("", note, Tone::Warning);
    }
    for (at, step) in chain.steps.iter().enumerate() {
        let (word, tone) = match step.way.code {
            StepCode::Local => ("to its node,", Tone::Plain),
            StepCode::Remote => ("by tunnel to", Tone::Plain),
            StepCode::Skipped => ("skipped:", Tone::Warning),
            StepCode::Dropped => ("dropped:", Tone::Bad),
        };
        let text = format!(
            "{}  {} (label {}) {word} {}",
            at + 1,
            step.service,
            step.label,
            place(step)
        );
        sheet.line("  step", text, tone);
    }
}

/// A protocol by its name or its number.
fn protocol(text: &str) -> Result<u8, String> {
    weft_overlay::chain::words::protocol_number(text)
        .ok_or_else(|| "tcp, udp, sctp, icmp, icmpv6, or a number up to 255".to_owned())
}

fn put_live(sheet: &mut Sheet, live: &TraceLive, tunnels: &[TraceTunnel]) {
    let from = live.source.map(|source| format!(" from {source}"));
    let from = from.unwrap_or_default();
    let (text, tone) = match (&live.error, live.reached) {
        (Some(error), _) => (error.clone(), Tone::Bad),
        (None, true) => (
            format!("sent{from}, and the destination answers"),
            Tone::Good,
        ),
        (None, false) => (
            format!("sent{from}, and the destination does not answer"),
            Tone::Bad,
        ),
    };
    sheet.line("live", text, tone);
    if let Some(size) = live.size {
        let (text, tone) = match live.largest {
            Some(largest) if largest == size => (format!("{size} octets fit"), Tone::Good),
            Some(largest) => {
                let narrow = tunnels.iter().filter(|one| one.mtu <= u32::from(largest));
                let narrow: Vec<String> = narrow.map(|one| one.router.to_string()).collect();
                let place = match narrow.is_empty() {
                    false => format!("the tunnel to {} carries no more", narrow.join(", ")),
                    true => "as far as this router knows its tunnels carry more".to_owned(),
                };
                let text = format!("{size} octets do not fit, {largest} do: {place}");
                (text, Tone::Bad)
            }
            None => ("packets of no size are answered".to_owned(), Tone::Bad),
        };
        sheet.line("size", text, tone);
    }
    for hop in &live.hops {
        let who = hop
            .address
            .map_or("*".to_owned(), |address| address.to_string());
        let time = hop
            .round_trip
            .map(|time| format!("  {}.{:03} ms", time / 1000, time % 1000))
            .unwrap_or_default();
        let (word, tone) = match hop.answer {
            TraceAnswer::None => ("nobody answers", Tone::Warning),
            TraceAnswer::TimeExceeded => ("a router on the way", Tone::Plain),
            TraceAnswer::Reply => ("the destination", Tone::Good),
            TraceAnswer::Unreachable => ("says that it is unreachable", Tone::Bad),
            TraceAnswer::TooLarge => ("says that it is too large", Tone::Bad),
        };
        let fits = hop.mtu.map(|mtu| format!(": {mtu} octets fit"));
        let fits = fits.unwrap_or_default();
        sheet.line(
            "  hop",
            format!("{}  {who}{time}  {word}{fits}", hop.ttl),
            tone,
        );
    }
}

/// `10.0.2.0/24 via 198.51.100.2 dev wan`.
fn route(found: &TraceMatch) -> String {
    let mut words = Vec::new();
    words.extend(found.prefix.map(|prefix| prefix.to_string()));
    if found.local {
        words.push("local".to_owned());
    }
    words.extend(found.gateway.map(|gateway| format!("via {gateway}")));
    words.extend(found.interface.as_ref().map(|name| format!("dev {name}")));
    words.join(" ")
}
