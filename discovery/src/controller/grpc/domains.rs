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
    let pair = |one: proto::Pair| model::Pair {
        edge: one.edge,
        peer: one.peer,
    };
    pairs.into_iter().map(pair).collect()
}

fn pairs(pairs: Vec<model::Pair>) -> Vec<proto::Pair> {
    let pair = |one: model::Pair| proto::Pair {
        edge: one.edge,
        peer: one.peer,
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
            pairs: self.pairs.map(|one| pairs_of(one.pairs)),
        })
    }
}

pub(super) fn introduction(one: Introduced, _: u64) -> proto::Introduction {
    proto::Introduction {
        introduction: one.introduction,
    }
}

fn exchange(one: Exchanged) -> i32 {
    let exchange = match one {
        Exchanged::Waiting => proto::Exchange::Waiting,
        Exchanged::Current => proto::Exchange::Current,
        Exchanged::Stale => proto::Exchange::Stale,
    };
    exchange.into()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn status(one: DomainStatus) -> proto::DomainStatus {
    proto::DomainStatus {
        name: one.name,
        exchange: exchange(one.exchange),
        stale: one.stale,
        asn: one.asn,
        revision: one.revision,
        last_heard: one.last_heard,
        lag: one.lag,
        followers: count(one.followers),
        followed: count(one.followed),
        routers: count(one.routers),
        tenants: count(one.tenants),
        shared: count(one.shared),
        error: one.error,
    }
}

pub(super) fn other(one: OtherDomain) -> proto::OtherDomain {
    proto::OtherDomain {
        status: Some(status(one.status)),
        controllers: one.controllers,
        fingerprint: one.fingerprint,
        ttl: one.ttl.into(),
        pairs: pairs(one.pairs),
        modified: one.modified,
    }
}

pub(super) fn others(one: OtherDomains, _: u64) -> proto::ListDomainsResponse {
    let stranger = |one: Stranger| proto::Stranger {
        name: one.name,
        fingerprint: one.fingerprint,
        at: one.at,
    };
    proto::ListDomainsResponse {
        domains: one.items.into_iter().map(other).collect(),
        asking: one.asking.into_iter().map(stranger).collect(),
    }
}

pub(super) fn trust(one: model::Trust, modified: u64) -> proto::Trust {
    proto::Trust {
        name: one.name,
        controllers: one.controllers,
        fingerprint: one.fingerprint,
        ttl: one.ttl.into(),
        pairs: pairs(one.pairs),
        modified,
    }
}

pub(super) fn share(one: model::Share, modified: u64) -> proto::Share {
    proto::Share {
        domain: one.domain,
        tenant: one.tenant,
        modified,
    }
}

pub(super) fn remote(one: model::Remote) -> proto::Remote {
    proto::Remote {
        name: one.name,
        asn: one.asn,
        revision: one.revision,
        heard: one.heard,
        followers: one.followers.into_iter().collect(),
    }
}

pub(super) fn router(one: model::RemoteRouter, modified: u64) -> proto::RemoteRouter {
    proto::RemoteRouter {
        domain: one.domain,
        name: one.name,
        asn: one.asn,
        router_id: one.router_id.to_string(),
        bgp_address: one.bgp_address.to_string(),
        endpoint: one.endpoint.to_string(),
        encapsulations: one.encapsulations,
        capacity: one.capacity,
        expired: one.expired,
        peers: one.peers,
        modified,
    }
}

pub(super) fn tenant(one: model::RemoteTenant, modified: u64) -> proto::RemoteTenant {
    proto::RemoteTenant {
        domain: one.domain,
        name: one.name,
        vni: one.vni,
        home: one.home,
        id: one.id,
        modified,
    }
}
