//! The messages about other domains, from what they stand for and back.

use crate::controller::management::Form;
use crate::controller::management::domains::{
    DomainStatus, Exchanged, Introduced, OtherDomain, OtherDomains, Stranger,
};
use crate::database::Rejection;
use crate::exchange::operations::{NewTrust, TrustChange};
use crate::management_proto as proto;
use crate::model;

fn ttl_of(number: u32) -> Result<u8, Rejection> {
    let ttl = u8::try_from(number);
    ttl.map_err(|_| Rejection::Invalid("a TTL is 1 to 255".into()))
}

fn pairs_of(pairs: Vec<proto::Pair>) -> Vec<model::Pair> {
    let pair = |of: proto::Pair| model::Pair {
        edge: of.edge,
        peer: of.peer,
    };
    pairs.into_iter().map(pair).collect()
}

fn pairs(pairs: Vec<model::Pair>) -> Vec<proto::Pair> {
    let pair = |of: model::Pair| proto::Pair {
        edge: of.edge,
        peer: of.peer,
    };
    pairs.into_iter().map(pair).collect()
}

impl Form<NewTrust> for proto::TrustDomainRequest {
    fn read(self) -> Result<NewTrust, Rejection> {
        let pairs = pairs_of(self.pairs);
        Ok(NewTrust {
            introduction: self.introduction,
            ttl: self.ttl.map(ttl_of).transpose()?,
            // None is what REST has where they are absent, and with one key the same is asked for.
            pairs: (!pairs.is_empty()).then_some(pairs),
        })
    }
}

impl Form<TrustChange> for proto::ChangeTrustRequest {
    fn read(self) -> Result<TrustChange, Rejection> {
        Ok(TrustChange {
            introduction: self.introduction,
            ttl: self.ttl.map(ttl_of).transpose()?,
            pairs: self.pairs.map(|of| pairs_of(of.pairs)),
        })
    }
}

pub(super) fn introduction(of: Introduced, _: u64) -> proto::Introduction {
    proto::Introduction {
        introduction: of.introduction,
    }
}

fn exchange(of: Exchanged) -> i32 {
    let exchange = match of {
        Exchanged::Waiting => proto::Exchange::Waiting,
        Exchanged::Current => proto::Exchange::Current,
        Exchanged::Stale => proto::Exchange::Stale,
    };
    exchange.into()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn status(of: DomainStatus) -> proto::DomainStatus {
    proto::DomainStatus {
        name: of.name,
        exchange: exchange(of.exchange),
        stale: of.stale,
        asn: of.asn,
        revision: of.revision,
        last_heard: of.last_heard,
        lag: of.lag,
        followers: count(of.followers),
        followed: count(of.followed),
        routers: count(of.routers),
        tenants: count(of.tenants),
        shared: count(of.shared),
        error: of.error,
    }
}

pub(super) fn other(of: OtherDomain) -> proto::OtherDomain {
    proto::OtherDomain {
        status: Some(status(of.status)),
        controllers: of.controllers,
        fingerprint: of.fingerprint,
        ttl: of.ttl.into(),
        pairs: pairs(of.pairs),
        modified: of.modified,
    }
}

pub(super) fn others(of: OtherDomains, _: u64) -> proto::ListDomainsResponse {
    let stranger = |of: Stranger| proto::Stranger {
        name: of.name,
        fingerprint: of.fingerprint,
        at: of.at,
    };
    proto::ListDomainsResponse {
        domains: of.items.into_iter().map(other).collect(),
        asking: of.asking.into_iter().map(stranger).collect(),
    }
}

pub(super) fn trust(of: model::Trust, modified: u64) -> proto::Trust {
    proto::Trust {
        name: of.name,
        controllers: of.controllers,
        fingerprint: of.fingerprint,
        ttl: of.ttl.into(),
        pairs: pairs(of.pairs),
        modified,
    }
}

pub(super) fn share(of: model::Share, modified: u64) -> proto::Share {
    proto::Share {
        domain: of.domain,
        tenant: of.tenant,
        modified,
    }
}

pub(super) fn remote(of: model::Remote) -> proto::Remote {
    proto::Remote {
        name: of.name,
        asn: of.asn,
        revision: of.revision,
        heard: of.heard,
        followers: of.followers.into_iter().collect(),
    }
}

pub(super) fn router(of: model::RemoteRouter, modified: u64) -> proto::RemoteRouter {
    proto::RemoteRouter {
        domain: of.domain,
        name: of.name,
        asn: of.asn,
        router_id: of.router_id.to_string(),
        bgp_address: of.bgp_address.to_string(),
        endpoint: of.endpoint.to_string(),
        encapsulations: of.encapsulations,
        capacity: of.capacity,
        expired: of.expired,
        peers: of.peers,
        modified,
    }
}

pub(super) fn tenant(of: model::RemoteTenant, modified: u64) -> proto::RemoteTenant {
    proto::RemoteTenant {
        domain: of.domain,
        name: of.name,
        vni: of.vni,
        home: of.home,
        id: of.id,
        modified,
    }
}
