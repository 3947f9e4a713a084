//! Services and chains, for the API: what is configured, what the overlay decided, what the kernel counted.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::types as api;
use weft_dataplane::{StepCounter, StepCounts};
use weft_overlay::Vni;
use weft_overlay::chain::words::protocol_name;
use weft_overlay::chain::{Chain, Direction, Flow, Match, OnFailure, Selection, Verdict};
use weft_overlay::table::{Judged, ServiceStatus, TenantStatus};

use super::health::Reasons;
use super::told::Told;

/// What is looked at for an answer.
pub(super) struct Known {
    pub(super) tenants: Vec<TenantStatus>,
    pub(super) services: Vec<ServiceStatus>,
    pub(super) counts: StepCounts,
    pub(super) reasons: Reasons,
    /// Why nftables does not take the chains.
    pub(super) refused: Option<String>,
    /// What others told.
    pub(super) told: Arc<Told>,
}

/// How conditions look to a human.
fn describe(matches: &Match) -> String {
    let list = |words: Vec<String>| words.join(",");
    let nets = |one: &[ipnet::IpNet]| list(one.iter().map(ToString::to_string).collect());
    let ports = |one: &[std::ops::RangeInclusive<u16>]| {
        let word = |range: &std::ops::RangeInclusive<u16>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        };
        list(one.iter().map(word).collect())
    };
    let protocol = matches.protocol.map(|number| {
        protocol_name(number).map_or_else(|| format!("protocol {number}"), str::to_owned)
    });
    let mut words = Vec::new();
    for (word, text) in [
        ("from ", nets(&matches.sources)),
        ("to ", nets(&matches.destinations)),
        ("", protocol.unwrap_or_default()),
        ("source port ", ports(&matches.source_ports)),
        ("port ", ports(&matches.destination_ports)),
        (
            "dscp ",
            matches
                .dscp
                .map(|dscp| dscp.to_string())
                .unwrap_or_default(),
        ),
    ] {
        if !text.is_empty() {
            words.push(format!("{word}{text}"));
        }
    }
    match words.is_empty() {
        true => "all".to_owned(),
        false => words.join(" "),
    }
}

impl Known {
    fn service(&self, label: Vni) -> Option<&ServiceStatus> {
        self.services.iter().find(|one| one.label == label)
    }

    /// The services of one tenant or of all.
    pub(super) fn services(
        &self,
        tenant: Option<&str>,
        offer: impl Fn(&Judged) -> Option<api::TenantPath>,
    ) -> Vec<api::Service> {
        let services = self.services.iter().map(|one| {
            let config = one.config.as_ref();
            let owner = config.and_then(|(id, _)| {
                let tenant = self.tenants.iter().find(|tenant| tenant.id == *id)?;
                Some(tenant.config.name.clone())
            });
            let service = config.map(|(_, service)| service);
            let attachment = service.and_then(|one| one.attachment.as_ref());
            let arms = attachment.into_iter().flat_map(|one| one.arms());
            api::Service {
                tenant: owner,
                name: service.map(|one| one.name.clone()),
                label: one.label.get(),
                arms: arms
                    .map(|arm| api::ServiceArm {
                        interface: arm.interface.clone(),
                        node: arm.addresses.clone(),
                    })
                    .collect(),
                health: self.health(one),
                on_failure: service
                    .map(|one| one.on_failure)
                    .unwrap_or_default()
                    .to_string(),
                selection: match service.map(|one| one.selection).unwrap_or_default() {
                    Selection::Nearest => "nearest",
                    Selection::Share => "share",
                    Selection::Pinned => "pinned",
                }
                .to_owned(),
                offers: one.offers.iter().filter_map(&offer).collect(),
                dropped: self.counts.dropped_on_arrival(one.label),
            }
        });
        services
            .filter(|one| tenant.is_none() || one.tenant.as_deref() == tenant)
            .collect()
    }

    fn health(&self, one: &ServiceStatus) -> api::Why<api::HealthCode> {
        let attached = one
            .config
            .as_ref()
            .is_some_and(|(_, service)| service.attachment.is_some());
        if one.state.local {
            return api::Why::new(api::HealthCode::Healthy, "its node answers");
        }
        if attached {
            return api::Why::new(api::HealthCode::Unhealthy, self.why_down(one));
        }
        match one.state.remote {
            Some(_) => api::Why::new(api::HealthCode::Elsewhere, "at another router"),
            None => api::Why::new(api::HealthCode::Nowhere, why_nowhere(one)),
        }
    }

    fn why_down(&self, one: &ServiceStatus) -> String {
        match self.reasons.get(one.label) {
            Some(reason) => format!("its node does not work: {reason}"),
            None if one.healthy => "an interface to its node is down".to_owned(),
            None => "its node has not answered yet".to_owned(),
        }
    }

    /// The chains of one tenant or of all, each in its directions.
    pub(super) fn chains(&self, tenant: Option<&str>) -> Vec<api::Chain> {
        let tenants = self
            .tenants
            .iter()
            .filter(|one| tenant.is_none_or(|name| one.config.name == name));
        tenants
            .flat_map(|tenant| {
                let chains = tenant.config.chains.iter();
                chains.flat_map(move |chain| {
                    let reverse = chain.symmetric.then_some(Direction::Reverse);
                    let directions = [Direction::Forward].into_iter().chain(reverse);
                    directions.map(move |direction| self.chain(tenant, chain, direction))
                })
            })
            .collect()
    }

    fn chain(&self, tenant: &TenantStatus, chain: &Chain, direction: Direction) -> api::Chain {
        let (matches, labels): (Match, Vec<Vni>) = match direction {
            Direction::Forward => (chain.matches.clone(), chain.services.clone()),
            Direction::Reverse => (
                chain.matches.reversed(),
                chain.services.iter().rev().copied().collect(),
            ),
        };
        let counter = |passed, dropped| {
            self.counts.packets(&StepCounter {
                vni: tenant.config.primary_vni,
                chain: chain.name.clone(),
                direction,
                passed,
                dropped,
            })
        };
        let steps: Vec<api::ChainStep> = labels
            .iter()
            .enumerate()
            .map(|(at, label)| {
                let mut step = self.step(tenant, *label, direction);
                step.packets = counter(at, false);
                step.dropped = counter(at, true);
                step
            })
            .collect();
        let first = |code| steps.iter().find(|step| step.way.code == code);
        let state = if let Some(error) = &self.refused {
            let text = format!(
                "nftables does not take the chains, and the tenant's packets are dropped: {error}"
            );
            api::Why::new(api::ChainCode::Broken, text)
        } else if let Some(step) = first(api::StepCode::Dropped) {
            let text = format!("`{}` stops it: {}", step.service, step.way.text);
            api::Why::new(api::ChainCode::Broken, text)
        } else if let Some(step) = first(api::StepCode::Skipped) {
            let text = format!("past `{}`: {}", step.service, step.way.text);
            api::Why::new(api::ChainCode::Skips, text)
        } else if steps.is_empty() {
            api::Why::new(api::ChainCode::Whole, "past all other chains")
        } else {
            api::Why::new(api::ChainCode::Whole, "through every service")
        };
        let note = (tenant.config.name.clone(), chain.name.clone());
        api::Chain {
            note: self.told.notes.get(&note).cloned(),
            tenant: tenant.config.name.clone(),
            name: chain.name.clone(),
            direction: match direction {
                Direction::Forward => "forward",
                Direction::Reverse => "reverse",
            }
            .to_owned(),
            matches: describe(&matches),
            left: counter(labels.len(), false),
            steps,
            state,
        }
    }

    /// What this router does with packets that a service is next for.
    fn step(&self, tenant: &TenantStatus, label: Vni, direction: Direction) -> api::ChainStep {
        let services = tenant.config.services.iter();
        let service = services.into_iter().find(|one| one.label == label);
        let status = self.service(label);
        let state = status.map(|one| one.state).unwrap_or_default();
        let attachment = service.and_then(|one| one.attachment.as_ref());
        let on_failure = service.map(|one| one.on_failure).unwrap_or_default();
        let remote = state.remote.is_some()
            && (attachment.is_none()
                || state.prefer_remote
                || (!state.local && on_failure == OnFailure::Over));
        let mut step = api::ChainStep {
            service: service.map(|one| one.name.clone()).unwrap_or_default(),
            label: label.get(),
            way: api::Why::new(api::StepCode::Local, "its node is attached here"),
            node: None,
            interface: None,
            routers: Vec::new(),
            packets: 0,
            dropped: 0,
        };
        if let Some(attachment) = attachment.filter(|_| state.local && !remote) {
            let arm = match (&attachment.outside, direction) {
                (Some(outside), Direction::Reverse) => outside,
                _ => &attachment.inside,
            };
            step.node = arm.addresses.first().copied();
            step.interface = Some(arm.interface.clone());
            return step;
        }
        let offers = status.map(|one| one.offers.as_slice()).unwrap_or_default();
        if remote {
            let used = offers.iter().filter(|one| one.lost.is_none());
            let hops = used.filter_map(|one| one.candidate.forwarding);
            let mut routers: Vec<IpAddr> = hops.map(|hop| hop.address).collect();
            routers.sort_unstable();
            routers.dedup();
            step.routers = routers;
            step.way = api::Why::new(api::StepCode::Remote, "at another router");
            return step;
        }
        let reason = match (attachment, status) {
            (Some(_), Some(status)) => self.why_down(status),
            (_, Some(status)) => why_nowhere(status),
            (_, None) => format!("label {label} is not known"),
        };
        step.way = match on_failure {
            OnFailure::Open => api::Why::new(api::StepCode::Skipped, reason),
            _ => api::Why::new(api::StepCode::Dropped, reason),
        };
        step
    }

    /// The chain that a packet takes when it comes in by an attachment of its tenant; what would have to be known to say.
    pub(super) fn taken(&self, tenant: &str, flow: &Flow) -> Result<Option<api::Chain>, String> {
        let Some(tenant) = self.tenants.iter().find(|one| one.config.name == tenant) else {
            return Ok(None);
        };
        for chain in &tenant.config.chains {
            let reverse = chain.symmetric.then_some(Direction::Reverse);
            for direction in [Direction::Forward].into_iter().chain(reverse) {
                let verdict = match direction {
                    Direction::Forward => chain.matches.judge(flow),
                    Direction::Reverse => chain.matches.reversed().judge(flow),
                };
                match verdict {
                    Verdict::Yes => return Ok(Some(self.chain(tenant, chain, direction))),
                    Verdict::No => {}
                    Verdict::Needs(what) => {
                        return Err(format!("the chain `{}` looks at the {what}", chain.name));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn why_nowhere(one: &ServiceStatus) -> String {
    let Some(first) = one.offers.first() else {
        return format!("no router announces label {}", one.label);
    };
    let lost = first.lost.map(|lost| lost.to_string()).unwrap_or_default();
    format!(
        "{} announces label {}, and {lost}",
        first.candidate.label.endpoint, one.label
    )
}
