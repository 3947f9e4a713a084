//! `weft trace`: the way of a tenant's packet, as the overlay decided and as the kernel answers.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use weft_api::types::{Trace, TraceCode, TraceMatch};

use super::show::bgp::label;
use super::show::{Screen, Target, View};
use super::table::{Sheet, Tone};

#[derive(Args)]
pub(super) struct Arguments {
    /// The tenant.
    tenant: String,
    /// Where the packet goes.
    destination: IpAddr,
    /// Where it comes from, where policy rules look at that.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Its differentiated services code point.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..64), value_name = "0-63")]
    dscp: Option<u8>,
    #[command(flatten)]
    router: Target,
}

/// Prints the way, and fails where the packet does not get on.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(&arguments.router);
    let mut query = vec![("destination", arguments.destination.to_string())];
    query.extend(arguments.from.map(|from| ("from", from.to_string())));
    query.extend(arguments.dscp.map(|dscp| ("dscp", dscp.to_string())));
    let trace: Trace = screen.get(&["tenants", &arguments.tenant, "trace"], &query)?;
    screen.print(&trace, view)?;
    Ok(match trace.verdict.code {
        TraceCode::Forwarded | TraceCode::Delivered => ExitCode::SUCCESS,
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
            tunnel.router,
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
    sheet.render(view.colours)
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
