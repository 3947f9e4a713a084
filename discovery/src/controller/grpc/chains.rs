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

fn on_failure(of: OnFailure) -> i32 {
    let on_failure = match of {
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

fn selection(of: Selection) -> i32 {
    let selection = match of {
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

fn kind(of: ProbeKind) -> i32 {
    let kind = match of {
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

fn texts<T: ToString>(of: &[T]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

fn probe_of(of: proto::Probe) -> Result<Probe, Rejection> {
    let port = of.port.map(u16::try_from).transpose();
    Ok(Probe {
        kind: kind_of(of.kind)?,
        port: port.map_err(|_| invalid("a port is 65535 at most"))?,
        path: of.path,
        interval: of.interval,
    })
}

fn attachment_of(of: proto::ServiceAttachment) -> Result<ServiceAttachment, Rejection> {
    let outside = |of: proto::Outside| {
        Ok::<_, Rejection>(Outside {
            node: all::<IpAddr>("node", &of.node)?,
            interface: of.interface,
        })
    };
    Ok(ServiceAttachment {
        router: of.router,
        interface: of.interface,
        node: all("node", &of.node)?,
        outside: of.outside.map(outside).transpose()?,
        probe: of.probe.map(probe_of).transpose()?,
    })
}

fn attachment(of: ServiceAttachment) -> proto::ServiceAttachment {
    let outside = |of: Outside| proto::Outside {
        interface: of.interface,
        node: texts(&of.node),
    };
    let probe = |of: Probe| proto::Probe {
        kind: kind(of.kind),
        port: of.port.map(Into::into),
        path: of.path,
        interval: of.interval,
    };
    proto::ServiceAttachment {
        router: of.router,
        interface: of.interface,
        node: texts(&of.node),
        outside: of.outside.map(outside),
        probe: of.probe.map(probe),
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

fn match_of(of: proto::Match) -> Result<Match, Rejection> {
    let dscp = of.dscp.map(u8::try_from).transpose();
    Ok(Match {
        source: all("source", &of.source)?,
        destination: all("destination", &of.destination)?,
        protocol: of.protocol.map(word_of),
        source_ports: words_of(of.source_ports),
        destination_ports: words_of(of.destination_ports),
        dscp: dscp.map_err(|_| invalid("a code point is 0 to 63"))?,
    })
}

fn matches(of: &Match) -> proto::Match {
    proto::Match {
        source: texts(&of.source),
        destination: texts(&of.destination),
        protocol: of.protocol.as_ref().map(ToString::to_string),
        source_ports: texts(&of.source_ports),
        destination_ports: texts(&of.destination_ports),
        dscp: of.dscp.map(Into::into),
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

pub(super) fn service(of: model::Service, modified: u64) -> proto::Service {
    proto::Service {
        tenant: of.tenant,
        name: of.name,
        label: of.label,
        home: of.home,
        home_name: of.home_name,
        on_failure: on_failure(of.on_failure),
        rewrites: of.rewrites,
        selection: of.selection.map(selection),
        attachments: of.attachments.into_iter().map(attachment).collect(),
        modified,
    }
}

pub(super) fn chain(of: model::Chain, modified: u64) -> proto::Chain {
    proto::Chain {
        tenant: of.tenant,
        name: of.name,
        priority: of.priority,
        r#match: Some(matches(&of.matches)),
        services: of.services,
        symmetric: of.symmetric,
        note: of.note,
        modified,
    }
}

pub(super) fn remote(of: model::RemoteService) -> proto::RemoteService {
    proto::RemoteService {
        domain: of.domain,
        vni: of.vni,
        name: of.name,
        label: of.label,
    }
}
