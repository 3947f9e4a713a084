//! Views of tenants, labels and the kernel.

use std::net::{IpAddr, SocketAddr};

use weft_api::types::{
    Endpoint, Kernel, KernelCode, KernelState, LabelUse, Page, Segmentation, Tenant, TenantPath,
    TenantRoute, Traffic,
};
use weft_overlay::label::Explanation;

use super::super::human;
use super::super::table::{Cell, Sheet, Table, Tone, View};
use super::bgp::label;
use super::{forwarding, rest};

/// Most words of a list in a cell that is not wide.
const FEW: usize = 4;

/// `a b c d +3`.
fn few(words: impl ExactSizeIterator<Item = String>, view: View) -> String {
    let count = words.len();
    let shown = if view.wide { count } else { count.min(FEW) };
    let mut text: Vec<String> = words.take(shown).collect();
    if shown < count {
        text.push(format!("+{}", count - shown));
    }
    text.join(" ")
}

pub(super) fn tenants(tenants: &Vec<Tenant>, view: View) -> String {
    if tenants.is_empty() {
        return "no tenants\n".to_owned();
    }
    let mut table = Table::new(&[
        "TENANT",
        "#VNI",
        "MORE VNIS",
        "#TABLE",
        "ATTACHMENTS",
        "PREFIXES",
        "#ROUTES",
        "STATE",
        "ROLE",
    ]);
    for tenant in tenants {
        let more: Vec<String> = tenant
            .vnis
            .iter()
            .filter(|vni| **vni != tenant.vni)
            .map(ToString::to_string)
            .collect();
        let down = tenant.attachments.iter().any(|attachment| !attachment.up);
        let attachments = tenant.attachments.iter().map(|attachment| {
            let state = match (attachment.up, attachment.missing) {
                (true, _) => "",
                (false, true) => "(missing)",
                (false, false) => "(down)",
            };
            format!("{}{state}", attachment.interface)
        });
        table.row([
            Cell::new(tenant.name.as_str(), Tone::Strong),
            tenant.vni.to_string().into(),
            few(more.into_iter(), view).into(),
            tenant
                .table
                .map(|table| table.to_string())
                .unwrap_or_default()
                .into(),
            Cell::new(
                few(attachments.collect::<Vec<_>>().into_iter(), view),
                if down { Tone::Warning } else { Tone::Plain },
            ),
            few(tenant.prefixes.iter().map(ToString::to_string), view).into(),
            human::count(tenant.routes).into(),
            Cell::new(tenant.verdict.as_str(), forwarding::tone(tenant.verdict)),
            match tenant.stitched {
                true => Cell::new("stitched", Tone::Dim),
                false => Cell::default(),
            },
        ]);
    }
    table.render(view)
}

fn kernel_cell(state: &KernelState) -> Cell {
    let tone = match state.code {
        KernelCode::Installed => Tone::Good,
        KernelCode::Pending => Tone::Warning,
        KernelCode::Refused => Tone::Bad,
        KernelCode::None => Tone::Dim,
    };
    Cell::new(state.code.as_str(), tone)
}

/// An address, with the UDP port where one is said.
pub(in crate::cli) fn at_port(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

fn next_hops(state: &KernelState, view: View) -> String {
    let ways = state.next_hops.iter().map(|way| match view.wide {
        true => {
            let address = at_port(way.address, way.port);
            format!("{}@{address}/{}", way.vni, way.encapsulation)
        }
        false => format!("{}@{}", way.vni, way.address),
    });
    ways.collect::<Vec<_>>().join(" ")
}

pub(super) fn tenant_routes(page: &Page<TenantRoute>, view: View) -> String {
    if page.items.is_empty() {
        return "no routes\n".to_owned();
    }
    let mut columns = vec![
        "",
        "PREFIX",
        "LABEL",
        "ENDPOINT",
        "LOCAL NEXT HOP",
        "NEIGHBOR",
        "#PREF",
        "#HOPS",
        "KERNEL",
    ];
    if view.wide {
        columns.extend(["COMMUNITY", "KERNEL SENDS TO"]);
    }
    columns.push("WHY NOT");
    let mut table = Table::new(&columns);
    for route in &page.items {
        let kernel_error = route.kernel.error.clone().unwrap_or_default();
        if route.paths.is_empty() {
            let mut row = vec![
                Cell::new(if route.local { ">" } else { "" }, Tone::Good),
                Cell::new(route.prefix.to_string(), Tone::Strong),
                Cell::new(if route.local { "attached here" } else { "" }, Tone::Dim),
            ];
            row.extend(std::iter::repeat_n(Cell::default(), 5));
            row.push(kernel_cell(&route.kernel));
            table.row(row);
        }
        for (at, path) in route.paths.iter().enumerate() {
            let first = at == 0;
            let mut row = path_cells(route, path, first);
            if view.wide {
                row.push(path.label.community.as_str().into());
                row.push(match first {
                    true => next_hops(&route.kernel, view).into(),
                    false => Cell::default(),
                });
            }
            row.push(match (&path.not_chosen, first) {
                (_, true) if !kernel_error.is_empty() => {
                    Cell::new(format!("kernel: {kernel_error}"), Tone::Bad)
                }
                (Some(why), _) => Cell::new(why.text.as_str(), Tone::Dim),
                (None, _) => Cell::default(),
            });
            table.row(row);
        }
    }
    table.render(view) + &rest(page, "prefixes")
}

fn path_cells(route: &TenantRoute, path: &TenantPath, first: bool) -> Vec<Cell> {
    let address = |address: Option<std::net::IpAddr>| {
        Cell::from(
            address
                .map(|address| address.to_string())
                .unwrap_or_default(),
        )
    };
    let tone = if path.chosen {
        Tone::Strong
    } else {
        Tone::Plain
    };
    vec![
        Cell::new(if path.chosen { ">" } else { "" }, Tone::Good),
        match first {
            true => Cell::new(route.prefix.to_string(), tone),
            false => Cell::default(),
        },
        label(&path.label).into(),
        address(path.endpoint),
        address(path.local_next_hop),
        match path.neighbor {
            None => Cell::new("local", Tone::Dim),
            neighbor => address(neighbor),
        },
        path.local_pref.to_string().into(),
        path.as_path_length.to_string().into(),
        match first {
            true => kernel_cell(&route.kernel),
            false => Cell::default(),
        },
    ]
}

pub(super) fn labels(labels: &Vec<LabelUse>, view: View) -> String {
    if labels.is_empty() {
        return "no labels\n".to_owned();
    }
    let mut table = Table::new(&[
        "COMMUNITY",
        "KIND",
        "#VNI",
        "ENCAPSULATION",
        "ENDPOINT",
        "ENDPOINT ID",
        "TENANT",
        "#PREFIXES",
    ]);
    for entry in labels {
        let label = &entry.label;
        table.row([
            Cell::new(label.community.as_str(), Tone::Strong),
            label.kind.as_str().into(),
            label
                .vni
                .map_or_else(|| "-".to_owned(), |vni| vni.to_string())
                .into(),
            label.encapsulation.as_str().into(),
            label
                .endpoint
                .map(|address| address.to_string())
                .unwrap_or_default()
                .into(),
            label
                .endpoint_id
                .map(|id| id.to_string())
                .unwrap_or_default()
                .into(),
            entry.tenant.clone().unwrap_or_default().into(),
            human::count(entry.prefixes).into(),
        ]);
    }
    table.render(view)
}

pub(super) fn explanations(explanations: &[Explanation], view: View) -> String {
    let parts = explanations.iter().map(|explanation| {
        let mut table = Table::new(&["FIELD", "BITS", "MEANING"]);
        for field in &explanation.fields {
            table.row([
                Cell::new(field.field, Tone::Strong),
                Cell::new(field.hex.as_str(), Tone::Dim),
                field.meaning.as_str().into(),
            ]);
        }
        let text = Tone::Strong.paint(&explanation.text, view.colours);
        let hex = Tone::Dim.paint(&explanation.hex, view.colours);
        format!(
            "{text}  {hex}\n{}\n{}",
            explanation.summary,
            table.render(view)
        )
    });
    parts.collect::<Vec<_>>().join("\n")
}

pub(super) fn traffic(traffic: &[Traffic], view: View) -> String {
    if traffic.is_empty() {
        return "nothing carried yet, or this kernel does not count: `weft doctor` says\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        "TENANT",
        "#VNI",
        "ROUTER",
        "#RECEIVED",
        "#OCTETS",
        "#SENT",
        "#OCTETS",
    ]);
    for one in traffic {
        table.row([
            Cell::new(one.tenant.clone().unwrap_or_default(), Tone::Strong),
            one.vni.to_string().into(),
            one.endpoint.to_string().into(),
            human::count(one.received_packets).into(),
            human::count(one.received_octets).into(),
            human::count(one.sent_packets).into(),
            human::count(one.sent_octets).into(),
        ]);
    }
    table.render(view)
}

pub(super) fn endpoints(endpoints: &[Endpoint], view: View) -> String {
    if endpoints.is_empty() {
        return "no tunnel leads anywhere\n".to_owned();
    }
    let mut table = Table::new(&[
        "ROUTER", "UNDERLAY", "#MTU", "#LOSS", "#OF", "#LAST", "#LEAST", "#MEAN", "#MOST",
    ]);
    let millis = |micros: u64| Cell::from(format!("{:.3} ms", micros as f64 / 1000.0));
    for one in endpoints {
        let reached = match one.reachable {
            true => Cell::new("reached", Tone::Good),
            false => Cell::new("unreachable", Tone::Bad),
        };
        let router = at_port(one.address, one.port);
        let router = Cell::new(router, Tone::Strong);
        let mtu = one.path.map_or(Cell::from(""), |path| {
            Cell::new(path.mtu.to_string(), Tone::Warning)
        });
        let mut row = vec![router, reached, mtu];
        if let Some(probes) = &one.probes {
            let loss = f64::from(probes.recent_lost) * 100.0 / f64::from(probes.recent.max(1));
            let tone = match probes.recent_lost {
                0 => Tone::Good,
                lost if lost == probes.recent => Tone::Bad,
                _ => Tone::Warning,
            };
            row.push(Cell::new(format!("{loss:.0} %"), tone));
            row.push(probes.recent.to_string().into());
            if let Some(each) = probes.round_trip {
                row.extend([each.last, each.least, each.mean, each.most].map(millis));
            }
        }
        table.row(row);
    }
    table.render(view)
}

/// What the kernel holds, beside what it should.
fn side(intended: u64, held: u64) -> Cell {
    let tone = if intended == held {
        Tone::Good
    } else {
        Tone::Warning
    };
    Cell::new(human::count(held), tone)
}

pub(super) fn kernel(kernel: &Kernel, view: View) -> String {
    let mut sheet = Sheet::new();
    sheet.line("kernel", format!("Linux {}", kernel.release), Tone::Strong);
    for device in &kernel.devices {
        let state = if device.up { "" } else { ", down" };
        let port = device.port.map(|port| format!(", UDP port {port}"));
        let text = format!(
            "{}, {}{}, MTU {}{state}",
            device.name,
            device.encapsulation,
            port.unwrap_or_default(),
            device.mtu
        );
        let tone = if device.up { Tone::Plain } else { Tone::Bad };
        sheet.line("device", text, tone);
    }
    let tenants = match kernel.segmentation {
        Segmentation::Vrf => "a VRF each",
        Segmentation::Table => "a table each, with rules that lead into it",
    };
    sheet.line("tenants", tenants, Tone::Plain);
    forwarding::put(&mut sheet, &kernel.forwarding);
    sheet.line(
        "changes",
        format!(
            "{} requests, {} repairs of what others changed",
            human::count(kernel.requests),
            human::count(kernel.repairs)
        ),
        Tone::Plain,
    );
    if let Some(drops) = kernel.drops {
        let text = format!(
            "{} of an unknown VNI, {} from who may not send them, {} for an address of another's, {} to an attachment of another's, {} of other protocols, {} to a breakout with a private source",
            human::count(drops.unknown_vni),
            human::count(drops.unknown_sender),
            human::count(drops.foreign_address),
            human::count(drops.foreign_attachment),
            human::count(drops.other_protocol),
            human::count(drops.untranslated)
        );
        sheet.line("dropped", text, Tone::Plain);
    }
    let mut parts = vec![sheet.render(view)];
    if !kernel.objects.is_empty() {
        let mut table = Table::new(&["OBJECTS", "#INTENDED", "#KERNEL"]);
        for object in &kernel.objects {
            table.row([
                object.object.as_str().into(),
                human::count(object.intended).into(),
                side(object.intended, object.count),
            ]);
        }
        parts.push(table.render(view));
    }
    if !kernel.tables.is_empty() {
        let mut table = Table::new(&["#TABLE", "TENANT", "VRF", "#INTENDED", "#KERNEL"]);
        for entry in &kernel.tables {
            table.row([
                entry.table.to_string().into(),
                Cell::new(entry.tenant.as_str(), Tone::Strong),
                entry.vrf.clone().unwrap_or_default().into(),
                human::count(entry.intended).into(),
                side(entry.intended, entry.routes),
            ]);
        }
        parts.push(table.render(view));
    }
    if !kernel.tracked.is_empty() {
        let mut table = Table::new(&["ADDRESS", "UNDERLAY"]);
        for tracked in &kernel.tracked {
            table.row([
                tracked.address.to_string().into(),
                match tracked.metric {
                    Some(metric) => Cell::new(format!("metric {metric}"), Tone::Good),
                    None => Cell::new("no route", Tone::Bad),
                },
            ]);
        }
        parts.push(table.render(view));
    }
    if kernel.refused.items.is_empty() {
        parts.push("the kernel refuses nothing\n".to_owned());
    } else {
        let mut table = Table::new(&["REFUSED", "TENANT", "#TABLE", "#TRIES", "KERNEL SAYS"]);
        for route in &kernel.refused.items {
            table.row([
                Cell::new(route.prefix.to_string(), Tone::Strong),
                match &route.tenant {
                    Some(tenant) => tenant.as_str().into(),
                    None => Cell::new("main table", Tone::Dim),
                },
                route.table.to_string().into(),
                human::count(route.tries.into()).into(),
                Cell::new(route.error.as_str(), Tone::Bad),
            ]);
        }
        parts.push(table.render(view) + &rest(&kernel.refused, "refused routes"));
    }
    parts.join("\n")
}
