//! Views of services and service chains.

use weft_api::types::{Chain, ChainCode, ChainStep, HealthCode, Service, StepCode};

use super::super::human;
use super::super::table::{Cell, Table, Tone, View};

pub(super) fn services(services: &[Service], view: View) -> String {
    if services.is_empty() {
        return "no services\n".to_owned();
    }
    let mut table = Table::new(&[
        "TENANT",
        "SERVICE",
        "#LABEL",
        "NODE",
        "HEALTH",
        "FAILS",
        "TAKEN",
        "OFFERED BY",
        "#DROPPED",
        "WHY",
    ]);
    for service in services {
        let arms = service.arms.iter().map(|arm| {
            let node = arm.node.first().map(ToString::to_string);
            format!("{} {}", arm.interface, node.unwrap_or_default())
        });
        let offers = service.offers.iter().map(|offer| {
            let used = if offer.chosen { "" } else { "(unused)" };
            let endpoint = offer.endpoint.map(|each| each.to_string());
            let id = offer.label.endpoint_id.map(|each| each.to_string());
            format!("{}{used}", endpoint.or(id).unwrap_or_default())
        });
        let (health, tone) = match service.health.code {
            HealthCode::Healthy => ("healthy", Tone::Good),
            HealthCode::Unhealthy => ("unhealthy", Tone::Bad),
            HealthCode::Elsewhere => ("elsewhere", Tone::Plain),
            HealthCode::Nowhere => ("nowhere", Tone::Bad),
        };
        let why = match service.health.code {
            HealthCode::Unhealthy | HealthCode::Nowhere => service.health.text.as_str(),
            HealthCode::Healthy | HealthCode::Elsewhere => "",
        };
        table.row([
            service.tenant.as_deref().unwrap_or("(stitched)").into(),
            Cell::new(service.name.as_deref().unwrap_or_default(), Tone::Strong),
            service.label.to_string().into(),
            arms.collect::<Vec<_>>().join(", ").into(),
            Cell::new(health, tone),
            service.on_failure.as_str().into(),
            service.selection.as_str().into(),
            offers.collect::<Vec<_>>().join(" ").into(),
            human::count(service.dropped).into(),
            Cell::new(why, Tone::Warning),
        ]);
    }
    table.render(view)
}

pub(super) fn chains(chains: &[Chain], view: View) -> String {
    if chains.is_empty() {
        return "no service chains\n".to_owned();
    }
    let tables = chains.iter().map(|chain| one(chain, view));
    tables.collect::<Vec<_>>().join("\n")
}

fn one(chain: &Chain, view: View) -> String {
    let tone = match chain.state.code {
        ChainCode::Whole => Tone::Good,
        ChainCode::Skips => Tone::Warning,
        ChainCode::Broken => Tone::Bad,
    };
    let title = format!("{} {}", chain.tenant, chain.name);
    let mut text = format!(
        "{} {}: {}; {}\n",
        Tone::Strong.paint(&title, view.colours),
        chain.direction,
        chain.matches,
        tone.paint(&chain.state.text, view.colours)
    );
    if let Some(note) = &chain.note {
        text.push_str(&format!("{}\n", Tone::Warning.paint(note, view.colours)));
    }
    let mut table = Table::new(&[
        "#STEP", "SERVICE", "#LABEL", "WAY", "TO", "#PACKETS", "#DROPPED",
    ]);
    for (at, step) in chain.steps.iter().enumerate() {
        let (word, tone) = match step.way.code {
            StepCode::Local => ("node", Tone::Good),
            StepCode::Remote => ("tunnel", Tone::Good),
            StepCode::Skipped => ("skipped", Tone::Warning),
            StepCode::Dropped => ("dropped", Tone::Bad),
        };
        table.row([
            (at + 1).to_string().into(),
            Cell::new(step.service.as_str(), Tone::Strong),
            step.label.to_string().into(),
            Cell::new(word, tone),
            place(step).into(),
            human::count(step.packets).into(),
            human::count(step.dropped).into(),
        ]);
    }
    table.row([
        (chain.steps.len() + 1).to_string().into(),
        Cell::new("destination", Tone::Dim),
        Cell::default(),
        Cell::new("route", Tone::Dim),
        Cell::default(),
        human::count(chain.left).into(),
        Cell::default(),
    ]);
    text.push_str(&table.render(view));
    text
}

/// Where a step leads: `fw0 169.254.1.2`, routers, or why nowhere.
pub(crate) fn place(step: &ChainStep) -> String {
    match step.way.code {
        StepCode::Local => {
            let node = step.node.map(|node| node.to_string());
            let words = [step.interface.clone(), node];
            words.into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
        StepCode::Remote => {
            let routers = step.routers.iter().map(ToString::to_string);
            routers.collect::<Vec<_>>().join(" ")
        }
        StepCode::Skipped | StepCode::Dropped => step.way.text.clone(),
    }
}
