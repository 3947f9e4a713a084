//! The messages about services and chains, from what they stand for and back.

use std::net::IpAddr;

use super::messages::parse;
use crate::chains::operations::{NewChain, NewService};
use crate::chains::records::{
    Match, OnFailure, Outside, Probe, ProbeKind, Selection, ServiceAttachment, Word, priority,
};
use crate::controller::management::Form;
use crate::database::Rejection;
use crate::management_proto as proto;
use crate::model;

fn invalid(text: impl Into<String>) -> Rejection {
    Rejection::Invalid(text.into())
}

fn on_failure_of(number: i32) -> Result<OnFailure, Rejection> {
    match proto::OnFailure::try_from(number) {
        Ok(proto::OnFailure::Unspecified) => Ok(OnFailure::default()),
        Ok(proto::OnFailure::Closed) => Ok(OnFailure::Closed),
        Ok(proto::OnFailure::Open) => Ok(OnFailure::Open),
        Ok(proto::OnFailure::Over) => Ok(OnFailure::Over),
        Err(_) => Err(invalid(format!(
            "{number} is none of ON_FAILURE_CLOSED, ON_FAILURE_OPEN and ON_FAILURE_OVER"
        ))),
    }
}

fn on_failure(one: OnFailure) -> i32 {
    let on_failure = match one {
        OnFailure::Closed => proto::OnFailure::Closed,
        OnFailure::Open => proto::OnFailure::Open,
        OnFailure::Over => proto::OnFailure::Over,
    };
    on_failure.into()
}

fn selection_of(number: i32) -> Result<Selection, Rejection> {
    match proto::Selection::try_from(number) {
        Ok(proto::Selection::Nearest) => Ok(Selection::Nearest),
        Ok(proto::Selection::Share) => Ok(Selection::Share),
        Ok(proto::Selection::Pinned) => Ok(Selection::Pinned),
        Ok(proto::Selection::Unspecified) | Err(_) => Err(invalid(format!(
            "{number} is none of SELECTION_NEAREST, SELECTION_SHARE and SELECTION_PINNED"
        ))),
    }
}

fn selection(one: Selection) -> i32 {
    let selection = match one {
        Selection::Nearest => proto::Selection::Nearest,
        Selection::Share => proto::Selection::Share,
        Selection::Pinned => proto::Selection::Pinned,
    };
    selection.into()
}

fn kind_of(number: i32) -> Result<ProbeKind, Rejection> {
    match proto::ProbeKind::try_from(number) {
        Ok(proto::ProbeKind::Unspecified) => Ok(ProbeKind::default()),
        Ok(proto::ProbeKind::Icmp) => Ok(ProbeKind::Icmp),
        Ok(proto::ProbeKind::Tcp) => Ok(ProbeKind::Tcp),
        Ok(proto::ProbeKind::Http) => Ok(ProbeKind::Http),
        Ok(proto::ProbeKind::None) => Ok(ProbeKind::None),
        Err(_) => Err(invalid(format!(
            "{number} is none of PROBE_KIND_ICMP, PROBE_KIND_TCP, PROBE_KIND_HTTP and PROBE_KIND_NONE"
        ))),
    }
}

fn kind(one: ProbeKind) -> i32 {
    let kind = match one {
        ProbeKind::Icmp => proto::ProbeKind::Icmp,
        ProbeKind::Tcp => proto::ProbeKind::Tcp,
        ProbeKind::Http => proto::ProbeKind::Http,
        ProbeKind::None => proto::ProbeKind::None,
    };
    kind.into()
}

/// Each of several texts, read.
fn all<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    texts: &[String],
) -> Result<Vec<T>, Rejection> {
    texts.iter().map(|text| parse(what, text)).collect()
}

fn texts<T: ToString>(one: &[T]) -> Vec<String> {
    one.iter().map(ToString::to_string).collect()
}

fn probe_of(one: proto::Probe) -> Result<Probe, Rejection> {
    let port = one.port.map(u16::try_from).transpose();
    Ok(Probe {
        kind: kind_of(one.kind)?,
        port: port.map_err(|_| invalid("a port is 65535 at most"))?,
        path: one.path,
        interval: one.interval,
    })
}

fn attachment_of(one: proto::ServiceAttachment) -> Result<ServiceAttachment, Rejection> {
    let outside = |one: proto::Outside| {
        Ok::<_, Rejection>(Outside {
            node: all::<IpAddr>("node", &one.node)?,
            interface: one.interface,
        })
    };
    Ok(ServiceAttachment {
        router: one.router,
        interface: one.interface,
        node: all("node", &one.node)?,
        outside: one.outside.map(outside).transpose()?,
        probe: one.probe.map(probe_of).transpose()?,
    })
}

fn attachment(one: ServiceAttachment) -> proto::ServiceAttachment {
    let outside = |one: Outside| proto::Outside {
        interface: one.interface,
        node: texts(&one.node),
    };
    let probe = |one: Probe| proto::Probe {
        kind: kind(one.kind),
        port: one.port.map(Into::into),
        path: one.path,
        interval: one.interval,
    };
    proto::ServiceAttachment {
        router: one.router,
        interface: one.interface,
        node: texts(&one.node),
        outside: one.outside.map(outside),
        probe: one.probe.map(probe),
    }
}

/// What is a number in JSON is one here too: with one key the same is asked for.
fn word_of(text: String) -> Word {
    match text.parse::<u16>() {
        Ok(number) if number.to_string() == text => Word::Number(number),
        _ => Word::Text(text),
    }
}

fn words_of(texts: Vec<String>) -> Vec<Word> {
    texts.into_iter().map(word_of).collect()
}

fn match_of(one: proto::Match) -> Result<Match, Rejection> {
    let dscp = one.dscp.map(u8::try_from).transpose();
    Ok(Match {
        source: all("source", &one.source)?,
        destination: all("destination", &one.destination)?,
        protocol: one.protocol.map(word_of),
        source_ports: words_of(one.source_ports),
        destination_ports: words_of(one.destination_ports),
        dscp: dscp.map_err(|_| invalid("a code point is 0 to 63"))?,
    })
}

fn matches(one: &Match) -> proto::Match {
    proto::Match {
        source: texts(&one.source),
        destination: texts(&one.destination),
        protocol: one.protocol.as_ref().map(ToString::to_string),
        source_ports: texts(&one.source_ports),
        destination_ports: texts(&one.destination_ports),
        dscp: one.dscp.map(Into::into),
    }
}

impl Form<NewService> for proto::PutServiceRequest {
    fn read(self) -> Result<NewService, Rejection> {
        let attachments = self.attachments.into_iter().map(attachment_of);
        Ok(NewService {
            label: self.label,
            home: self.home,
            home_name: self.home_name,
            on_failure: on_failure_of(self.on_failure)?,
            rewrites: self.rewrites,
            selection: self.selection.map(selection_of).transpose()?,
            attachments: attachments.collect::<Result<_, _>>()?,
        })
    }
}

impl Form<NewChain> for proto::PutChainRequest {
    fn read(self) -> Result<NewChain, Rejection> {
        Ok(NewChain {
            priority: self.priority.unwrap_or_else(priority),
            matches: match_of(self.r#match.unwrap_or_default())?,
            services: self.services,
            symmetric: self.symmetric,
        })
    }
}

pub(super) fn service(one: model::Service, modified: u64) -> proto::Service {
    proto::Service {
        tenant: one.tenant,
        name: one.name,
        label: one.label,
        home: one.home,
        home_name: one.home_name,
        on_failure: on_failure(one.on_failure),
        rewrites: one.rewrites,
        selection: one.selection.map(selection),
        attachments: one.attachments.into_iter().map(attachment).collect(),
        modified,
    }
}

pub(super) fn chain(one: model::Chain, modified: u64) -> proto::Chain {
    proto::Chain {
        tenant: one.tenant,
        name: one.name,
        priority: one.priority,
        r#match: Some(matches(&one.matches)),
        services: one.services,
        symmetric: one.symmetric,
        note: one.note,
        modified,
    }
}

pub(super) fn remote(one: model::RemoteService) -> proto::RemoteService {
    proto::RemoteService {
        domain: one.domain,
        vni: one.vni,
        name: one.name,
        label: one.label,
    }
}
