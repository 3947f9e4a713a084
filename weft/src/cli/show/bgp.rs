//! Views of the router, its neighbours and its BGP routes.

use weft_api::types::{
    Awaited, BfdScheduling, BfdSession, BfdState, BfdStatus, Family, FamilyCount, Label, LabelKind,
    Neighbor, OriginState, Page, Path, RefusedLabels, Route, SessionState, Status, Stripped,
};

use super::super::human;
use super::super::table::{Cell, Sheet, Table, Tone, View};
use super::{forwarding, rest};

/// Neighbours named in a line.
const NAMED: usize = 3;

/// What a router that has just started waits for.
fn waiting(awaited: &Awaited) -> String {
    let mut whom: Vec<String> = awaited.neighbors.iter().map(ToString::to_string).collect();
    let more = whom.len().saturating_sub(NAMED);
    whom.truncate(NAMED);
    if more > 0 {
        whom.push(format!("{more} more"));
    }
    let what = match whom.is_empty() {
        true => "next hops".to_owned(),
        false => format!("the routes of {}", whom.join(", ")),
    };
    let at_most = human::duration(awaited.at_most);
    format!("not converged yet, waits for {what} ({at_most} at most)")
}

pub(super) fn status(status: &Status, view: View) -> String {
    let mut sheet = Sheet::new();
    sheet.line(
        "router",
        format!(
            "{}, AS {}, id {}",
            status.name, status.asn, status.router_id
        ),
        Tone::Strong,
    );
    sheet.line(
        "process",
        format!(
            "weft {}, up {}, {}",
            status.version,
            human::duration(status.uptime),
            human::size(status.memory)
        ),
        Tone::Plain,
    );
    forwarding::put(&mut sheet, &status.forwarding);
    let (up, all) = (status.neighbors_established, status.neighbors);
    sheet.line(
        "bgp",
        format!(
            "{up} of {all} neighbours established, {}",
            match (status.converged, &status.awaited) {
                (true, _) => "converged".to_owned(),
                (false, None) => "not converged yet".to_owned(),
                (false, Some(awaited)) => waiting(awaited),
            }
        ),
        match (up == all, status.converged) {
            (true, true) => Tone::Good,
            _ => Tone::Warning,
        },
    );
    if let Some(bfd) = &status.bfd {
        bfd_status(&mut sheet, bfd);
    }
    sheet.line(
        "prefixes",
        format!(
            "{}; {} attribute sets",
            counts(&status.prefixes),
            human::count(status.attribute_sets)
        ),
        Tone::Plain,
    );
    match &status.overlay {
        Some(overlay) => {
            sheet.line(
                "overlay",
                format!(
                    "{}, {} at {}",
                    overlay.global_administrator, overlay.encapsulation, overlay.endpoint
                ),
                Tone::Plain,
            );
            sheet.line(
                "tenants",
                format!(
                    "{} with {} routes",
                    human::count(status.tenants),
                    human::count(status.tenant_routes)
                ),
                Tone::Plain,
            );
        }
        None => sheet.line("overlay", "none: a plain BGP speaker", Tone::Dim),
    }
    sheet.line(
        "kernel",
        format!(
            "{} routes, {} refused",
            human::count(status.kernel_routes),
            human::count(status.kernel_refused)
        ),
        match status.kernel_refused {
            0 => Tone::Plain,
            _ => Tone::Bad,
        },
    );
    for alarm in &status.alarms {
        sheet.line(
            "alarm",
            format!("{}: {}", alarm.code, alarm.text),
            Tone::Bad,
        );
    }
    sheet.render(view)
}

/// How BFD does.
fn bfd_status(sheet: &mut Sheet, bfd: &BfdStatus) {
    let scheduling = match bfd.scheduling {
        BfdScheduling::RealTime => "",
        BfdScheduling::Nice | BfdScheduling::Ordinary => ", without real-time scheduling",
    };
    let discarded = bfd.discarded.iter().map(|one| one.packets).sum::<u64>() + bfd.dropped;
    sheet.line(
        "bfd",
        format!(
            "{} of {} sessions up{scheduling}; woken {:.1} ms late at most; {} packets of others discarded",
            bfd.up,
            bfd.sessions,
            bfd.lateness.longest as f64 / 1000.0,
            human::count(discarded),
        ),
        match bfd.up == bfd.sessions {
            true => Tone::Good,
            false => Tone::Warning,
        },
    );
    if let Some(problem) = &bfd.problem {
        sheet.line("bfd problem", problem, Tone::Bad);
    }
}

fn counts(counts: &[FamilyCount]) -> String {
    let counts: Vec<String> = counts
        .iter()
        .map(|count| format!("{} {}", human::count(count.count), count.family))
        .collect();
    counts.join(", ")
}

fn state(neighbor: &Neighbor) -> Cell {
    let tone = match (neighbor.state, neighbor.stale) {
        (SessionState::Established, false) => Tone::Good,
        (SessionState::Established, true) => Tone::Warning,
        (SessionState::Idle, _) => Tone::Bad,
        _ => Tone::Warning,
    };
    let stale = if neighbor.stale { " (stale)" } else { "" };
    Cell::new(format!("{}{stale}", neighbor.state), tone)
}

fn received(neighbor: &Neighbor) -> u64 {
    neighbor
        .prefixes
        .iter()
        .map(|prefixes| prefixes.received)
        .sum()
}

fn advertised(neighbor: &Neighbor) -> u64 {
    neighbor
        .prefixes
        .iter()
        .map(|prefixes| prefixes.advertised)
        .sum()
}

/// Why it is down, while it is; else why what is known of it is stale.
fn why(neighbor: &Neighbor) -> Cell {
    match (&neighbor.down, neighbor.state, &neighbor.source_stale) {
        (Some(down), one, _) if one != SessionState::Established => Cell::from(down.text.as_str()),
        (_, _, Some(stale)) => Cell::from(format!("source: {stale}")),
        _ => Cell::default(),
    }
}

/// How BFD with it is.
fn bfd_state(session: Option<&BfdSession>) -> Cell {
    match session {
        Some(session) => Cell::new(session.state.to_string(), bfd_tone(session)),
        None => Cell::default(),
    }
}

fn bfd_tone(session: &BfdSession) -> Tone {
    match session.state {
        BfdState::Up => Tone::Good,
        BfdState::AdminDown => Tone::Dim,
        BfdState::Down | BfdState::Init => Tone::Warning,
    }
}

/// The BFD session with a neighbour.
fn bfd_lines(sheet: &mut Sheet, session: &BfdSession) {
    let ms = |micros: u64| match micros % 1000 {
        0 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} ms", micros as f64 / 1000.0),
    };
    let since = session.since.map(human::duration);
    let since = since.map_or_else(String::new, |since| format!(" for {since}"));
    let path = match session.multihop {
        true => format!("over hops, TTL {} at least", session.minimum_ttl),
        false => "on the link".to_owned(),
    };
    let state = format!(
        "{}{since}, {path}; the neighbour says {}",
        session.state, session.remote_state
    );
    sheet.line("bfd", state, bfd_tone(session));
    if session.detection_time > 0 {
        let text = format!(
            "sends every {}, silence of {} is a failure; the neighbour sends every {}, takes every {}, times {}{}",
            ms(session.transmit_interval),
            ms(session.detection_time),
            ms(session.remote_transmit_interval),
            ms(session.remote_receive_interval),
            session.remote_multiplier,
            if session.remote_demand {
                ", and asks for none"
            } else {
                ""
            },
        );
        sheet.line("", text, Tone::Plain);
    }
    let counts = format!(
        "{} sent, {} received, {} times up, {} down; late ourselves: {} packets, {} detections put off",
        human::count(session.sent),
        human::count(session.received),
        human::count(session.ups),
        human::count(session.downs),
        human::count(session.sent_late),
        human::count(session.late),
    );
    sheet.line("", counts, Tone::Dim);
    if let Some(down) = &session.down {
        let name = match session.state {
            BfdState::Up => "bfd was down",
            _ => "bfd down",
        };
        sheet.line(name, &down.text, Tone::Plain);
    }
    if let Some(problem) = &session.problem {
        let unsent = human::count(session.unsent);
        sheet.line(
            "bfd problem",
            format!("{problem} ({unsent} packets)"),
            Tone::Bad,
        );
    }
}

/// Who tells of it.
fn source(neighbor: &Neighbor) -> Cell {
    let source = neighbor.source.as_deref().unwrap_or("file");
    match neighbor.source_stale {
        Some(_) => Cell::new(format!("{source} (stale)"), Tone::Warning),
        None => Cell::from(source),
    }
}

/// Its group, and whether it joined that by connecting.
fn group(neighbor: &Neighbor) -> String {
    let dynamic = if neighbor.dynamic { " (dynamic)" } else { "" };
    let group = neighbor.group.as_deref();
    group.map_or_else(String::new, |group| format!("{group}{dynamic}"))
}

pub(super) fn neighbors(neighbors: &Vec<Neighbor>, view: View) -> String {
    if neighbors.is_empty() {
        return "no neighbours are configured\n".to_owned();
    }
    let tenants = neighbors.iter().any(|neighbor| neighbor.tenant.is_some());
    let mut columns = vec!["NEIGHBOR"];
    columns.extend(tenants.then_some("TENANT"));
    let sources = neighbors.iter().any(|neighbor| neighbor.source.is_some());
    columns.extend(sources.then_some("SOURCE"));
    let groups = neighbors.iter().any(|neighbor| neighbor.group.is_some());
    columns.extend(groups.then_some("GROUP"));
    columns.extend(["#AS", "KIND", "STATE", "#SINCE"]);
    let bfd = neighbors.iter().any(|neighbor| neighbor.bfd.is_some());
    columns.extend(bfd.then_some("BFD"));
    columns.extend(["#RECEIVED", "#ADVERTISED"]);
    if view.wide {
        columns.extend([
            "ROUTER ID",
            "FAMILIES",
            "#HOLD",
            "#FLAPS",
            "#UPDATES",
            "DESCRIPTION",
        ]);
    }
    columns.push("WHY");
    let mut table = Table::new(&columns);
    for neighbor in neighbors {
        let mut row = vec![Cell::new(neighbor.address.to_string(), Tone::Strong)];
        row.extend(tenants.then(|| Cell::from(neighbor.tenant.clone().unwrap_or_default())));
        row.extend(sources.then(|| source(neighbor)));
        row.extend(groups.then(|| group(neighbor).into()));
        row.extend::<[Cell; 4]>([
            neighbor.asn.to_string().into(),
            neighbor.kind.as_str().into(),
            state(neighbor),
            neighbor
                .since
                .map(human::duration)
                .unwrap_or_default()
                .into(),
        ]);
        row.extend(bfd.then(|| bfd_state(neighbor.bfd.as_ref())));
        row.extend::<[Cell; 2]>([
            human::count(received(neighbor)).into(),
            human::count(advertised(neighbor)).into(),
        ]);
        if view.wide {
            let negotiated = neighbor.negotiated.as_ref();
            row.extend::<[Cell; 6]>([
                negotiated
                    .map(|it| it.router_id.to_string())
                    .unwrap_or_default()
                    .into(),
                negotiated
                    .map(|it| families(&it.families))
                    .unwrap_or_default()
                    .into(),
                negotiated
                    .map(|it| human::duration(it.hold_time))
                    .unwrap_or_default()
                    .into(),
                human::count(neighbor.flaps).into(),
                human::count(neighbor.updates).into(),
                neighbor.description.clone().unwrap_or_default().into(),
            ]);
        }
        row.push(why(neighbor));
        table.row(row);
    }
    table.render(view)
}

fn families(families: &[Family]) -> String {
    let names: Vec<&str> = families.iter().map(|family| family.as_str()).collect();
    names.join(",")
}

pub(super) fn neighbor(neighbor: &Neighbor, view: View) -> String {
    let mut sheet = Sheet::new();
    sheet.line(
        "neighbor",
        format!(
            "{}, AS {}, {}",
            neighbor.address, neighbor.asn, neighbor.kind
        ),
        Tone::Strong,
    );
    if let Some(tenant) = &neighbor.tenant {
        sheet.line("tenant", tenant, Tone::Plain);
    }
    if let Some(asn) = neighbor.local_as {
        sheet.line("local AS", asn.to_string(), Tone::Plain);
    }
    if neighbor.group.is_some() {
        sheet.line("group", group(neighbor), Tone::Plain);
    }
    if let Some(description) = &neighbor.description {
        sheet.line("description", description, Tone::Plain);
    }
    let signed = neighbor.signed.then(|| "TCP MD5 signatures".to_owned());
    let hops = neighbor.ttl_security.map(|hops| {
        let hops = human::several(hops.into(), "hop");
        format!("TTL security over {hops}")
    });
    let guards: Vec<String> = signed.into_iter().chain(hops).collect();
    if !guards.is_empty() {
        sheet.line("guarded by", guards.join(", "), Tone::Plain);
    }
    if let Some(why) = &neighbor.unsigned {
        sheet.line("not signed", why, Tone::Warning);
    }
    let since = neighbor.since.map(human::duration);
    sheet.line(
        "state",
        match since {
            Some(since) => format!("{} for {since}, {} flaps", neighbor.state, neighbor.flaps),
            None => neighbor.state.to_string(),
        },
        match neighbor.state {
            SessionState::Established => Tone::Good,
            _ => Tone::Warning,
        },
    );
    if let Some(down) = &neighbor.down {
        let name = match neighbor.state {
            SessionState::Established => "was down",
            _ => "down",
        };
        sheet.line(name, &down.text, Tone::Plain);
    }
    if let Some(session) = &neighbor.bfd {
        bfd_lines(&mut sheet, session);
    }
    if let Some(words) = &neighbor.shutdown {
        let text = match words.is_empty() {
            true => "by the configuration".to_owned(),
            false => format!("by the configuration: {words}"),
        };
        sheet.line("shut down", text, Tone::Warning);
    }
    if neighbor.stale {
        let text = "routes of the earlier session are kept until it is back";
        sheet.line("restart", text, Tone::Warning);
    }
    if let Some(agreed) = &neighbor.negotiated {
        sheet.line("router id", agreed.router_id.to_string(), Tone::Plain);
        sheet.line("families", families(&agreed.families), Tone::Plain);
        let none_or = |text: String| {
            if text.is_empty() {
                "none".to_owned()
            } else {
                text
            }
        };
        sheet.line(
            "add-path",
            format!(
                "send {}, receive {}",
                none_or(families(&agreed.add_path_send)),
                none_or(families(&agreed.add_path_receive))
            ),
            Tone::Plain,
        );
        sheet.line(
            "session",
            format!(
                "hold time {}, messages of up to {} octets, route refresh {}, {}-octet AS numbers{}",
                human::duration(agreed.hold_time),
                human::count(agreed.max_message),
                if agreed.route_refresh { "yes" } else { "no" },
                if agreed.four_octet_as { 4 } else { 2 },
                match agreed.extended_next_hop {
                    true => ", IPv6 next hops of IPv4 prefixes",
                    false => "",
                },
            ),
            Tone::Plain,
        );
        sheet.line(
            "graceful restart",
            match agreed.graceful_restart {
                Some(seconds) => format!("yes, it may be away for {}", human::duration(seconds)),
                None => "no".to_owned(),
            },
            Tone::Plain,
        );
    }
    if let Some(role) = neighbor.role {
        let said = neighbor.negotiated.as_ref().map(|agreed| agreed.role);
        let text = match said {
            None => role.to_string(),
            Some(Some(said)) => format!("{role}, and the neighbour says that it is {said}"),
            Some(None) => format!("{role}, and the neighbour says nothing of its own"),
        };
        sheet.line("role", text, Tone::Plain);
    }
    if neighbor.route_leaks > 0 {
        let text = format!(
            "{} prefixes rejected, which the neighbour was not to pass on to this router",
            human::count(neighbor.route_leaks)
        );
        sheet.line("route leaks", text, Tone::Warning);
    }
    for family in &neighbor.mute {
        let remedy = match family {
            Family::Ipv6Unicast => "set `local_address_v6`",
            Family::Ipv4Unicast => {
                "the neighbour takes no IPv6 next hops of it (RFC 8950); a session over IPv4 needs none"
            }
        };
        let family = family.as_str();
        let text = format!("announces no {family} of this router's: {remedy}");
        sheet.line("next hop", text, Tone::Warning);
    }
    for prefixes in &neighbor.prefixes {
        sheet.line(
            prefixes.family.as_str(),
            format!(
                "{} received{}, {} advertised",
                human::count(prefixes.received),
                neighbor.max_prefixes.map_or_else(String::new, |most| {
                    format!(" of at most {}", human::count(most.into()))
                }),
                human::count(prefixes.advertised)
            ),
            match neighbor.max_prefixes {
                Some(most) if prefixes.received * 5 > u64::from(most) * 4 => Tone::Warning,
                _ => Tone::Plain,
            },
        );
    }
    for (name, way, policy) in [
        ("import", "taken from", &neighbor.import),
        ("export", "announced to", &neighbor.export),
    ] {
        match policy.missing {
            true => sheet.line(
                name,
                format!(
                    "no policy, so nothing is {way} it (RFC 8212); `{name}: accept` lets everything pass"
                ),
                Tone::Warning,
            ),
            false => sheet.line(name, policy.policies.join(", "), Tone::Plain),
        }
        for term in &policy.terms {
            let text = format!(
                "{} term {}: {} routes",
                term.policy,
                term.term,
                human::count(term.routes)
            );
            sheet.line("", text, Tone::Dim);
        }
    }
    let trouble = neighbor.treat_as_withdraw + neighbor.attribute_discard + neighbor.too_large;
    sheet.line(
        "updates",
        format!(
            "{} received, {} prefixes rejected ({} by policy), {} treated as withdraw, {} attributes discarded, {} routes too large",
            human::count(neighbor.updates),
            human::count(neighbor.rejected),
            human::count(neighbor.policy_rejected),
            human::count(neighbor.treat_as_withdraw),
            human::count(neighbor.attribute_discard),
            human::count(neighbor.too_large),
        ),
        match trouble {
            0 => Tone::Plain,
            _ => Tone::Warning,
        },
    );
    let Stripped {
        vni,
        kind,
        endpoint,
    } = neighbor.stripped;
    if vni + kind + endpoint > 0 {
        let text = format!(
            "{} communities of the overlay taken away for their VNI, {} for their kind, {} for their endpoint",
            human::count(vni),
            human::count(kind),
            human::count(endpoint)
        );
        sheet.line("not permitted", text, Tone::Warning);
    }
    let RefusedLabels { invalid, unknown } = neighbor.refused_labels;
    if invalid + unknown > 0 {
        let text = format!(
            "{} of invalid origin and {} of unknown origin are not used: the domain's controller does not say that they may lead where \
             they do",
            human::several(invalid, "label"),
            human::several(unknown, "label")
        );
        sheet.line("labels", text, Tone::Warning);
    }
    sheet.render(view)
}

/// `10001@192.0.2.11`, `via 198.51.100.1` or `locator 192.0.2.11`.
pub(in crate::cli) fn label(label: &Label) -> String {
    let endpoint = match (label.endpoint, label.endpoint_id) {
        (Some(address), _) => address.to_string(),
        (None, Some(id)) => format!("#{id}"),
        (None, None) => "?".to_owned(),
    };
    let vni = label.vni.map(|vni| vni.to_string());
    let text = match (label.kind, vni) {
        (LabelKind::Locator, _) => format!("locator {endpoint}"),
        (LabelKind::LocatorPort, _) => {
            let port = label.port.unwrap_or_default();
            format!("port {port} of {endpoint}")
        }
        (LabelKind::LocalNextHop, None) => format!("via {endpoint}"),
        (LabelKind::LocalNextHop, Some(vni)) => format!("{vni} via {endpoint}"),
        (LabelKind::Tenant, vni) => format!("{}@{endpoint}", vni.unwrap_or_default()),
        (LabelKind::Service, vni) => format!("service {}@{endpoint}", vni.unwrap_or_default()),
    };
    // What is as it should be needs no word.
    match label.origin {
        None | Some(OriginState::Valid) => text,
        Some(origin) => format!("{text} ({})", origin.as_str()),
    }
}

fn labels(path: &Path) -> String {
    let labels: Vec<String> = path.labels.iter().map(label).collect();
    labels.join(", ")
}

pub(super) fn routes(page: &Page<Route>, view: View) -> String {
    if page.items.is_empty() {
        return "no routes match\n".to_owned();
    }
    let mut columns = vec![
        "", "PREFIX", "NEIGHBOR", "NEXT HOP", "#PREF", "#MED", "AS PATH", "LABELS",
    ];
    if view.wide {
        columns.extend(["ORIGIN", "#PATH ID", "COMMUNITIES"]);
    }
    columns.push("WHY NOT");
    let mut table = Table::new(&columns);
    for route in &page.items {
        for (at, path) in route.paths.iter().enumerate() {
            let tone = if path.best { Tone::Strong } else { Tone::Plain };
            let mark = match (path.best, path.stale) {
                (true, true) => ">s",
                (true, false) => ">",
                (false, true) => " s",
                (false, false) => "",
            };
            let text = |value: Option<String>| value.unwrap_or_default();
            let mut row = vec![
                Cell::new(mark, Tone::Good),
                match at {
                    0 => Cell::new(route.prefix.to_string(), tone),
                    _ => Cell::default(),
                },
                match path.neighbor {
                    Some(address) => address.to_string().into(),
                    None => Cell::new("local", Tone::Dim),
                },
                text(path.next_hop.map(|address| address.to_string())).into(),
                text(path.local_pref.map(|value| value.to_string())).into(),
                text(path.med.map(|value| value.to_string())).into(),
                path.as_path.as_str().into(),
                labels(path).into(),
            ];
            if view.wide {
                let lists = [
                    &path.communities,
                    &path.extended_communities,
                    &path.large_communities,
                ];
                let communities: Vec<&str> =
                    lists.into_iter().flatten().map(String::as_str).collect();
                row.extend::<[Cell; 3]>([
                    path.origin.as_str().into(),
                    path.path_id.to_string().into(),
                    communities.join(" ").into(),
                ]);
            }
            let lost = path.lost.as_ref().map(|why| why.text.clone());
            row.push(Cell::new(text(lost), Tone::Dim));
            table.row(row);
        }
    }
    table.render(view) + &rest(page, "prefixes")
}
