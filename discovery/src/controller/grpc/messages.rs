//! The messages of the management protocol, from what they stand for and back.

use std::fmt::Display;

use prost_types::{ListValue, Struct, Value, value::Kind};

use super::{chains, domains};
use crate::controller::management::condition::{Performance, RouterStatus, Status};
use crate::controller::management::{CreatedToken, Form, RolledBack};
use crate::database::Rejection;
use crate::grants::NewGrant;
use crate::management_proto as proto;
use crate::model;
use crate::operations::{NewAttachment, NewTenant, NewToken, RouterChange, TenantChange};
use crate::quotas::{NewQuota, QuotaUse};
use crate::session_keys::KeysStatus;

pub(super) fn parse<T: std::str::FromStr<Err: Display>>(
    what: &str,
    text: &str,
) -> Result<T, Rejection> {
    text.parse()
        .map_err(|error| Rejection::Invalid(format!("{what} `{text}`: {error}")))
}

fn role_of(number: i32) -> Result<model::Role, Rejection> {
    match proto::Role::try_from(number) {
        Ok(proto::Role::Router) => Ok(model::Role::Router),
        Ok(proto::Role::Edge) => Ok(model::Role::Edge),
        Ok(proto::Role::Reflector) => Ok(model::Role::Reflector),
        Ok(proto::Role::Unspecified) | Err(_) => Err(Rejection::Invalid(format!(
            "{number} is no role: ROLE_ROUTER, ROLE_EDGE or ROLE_REFLECTOR"
        ))),
    }
}

fn role(role: model::Role) -> i32 {
    let role = match role {
        model::Role::Router => proto::Role::Router,
        model::Role::Edge => proto::Role::Edge,
        model::Role::Reflector => proto::Role::Reflector,
    };
    role.into()
}

impl Form<NewTenant> for proto::CreateTenantRequest {
    fn read(self) -> Result<NewTenant, Rejection> {
        Ok(NewTenant {
            name: self.name,
            description: self.description,
            vni: self.vni,
            home: self.home,
            home_name: self.home_name,
        })
    }
}

impl Form<TenantChange> for proto::ChangeTenantRequest {
    fn read(self) -> Result<TenantChange, Rejection> {
        Ok(TenantChange {
            description: self.description,
        })
    }
}

impl Form<NewGrant> for proto::PutGrantRequest {
    fn read(self) -> Result<NewGrant, Rejection> {
        Ok(NewGrant {
            interfaces: self.interfaces,
        })
    }
}

impl Form<NewQuota> for proto::PutQuotaRequest {
    fn read(self) -> Result<NewQuota, Rejection> {
        let limits = self.limits.unwrap_or_default();
        Ok(NewQuota {
            attachments: limits.attachments,
            interfaces: limits.interfaces,
            prefixes: limits.prefixes,
            neighbors: limits.neighbors,
            services: limits.services,
            nodes: limits.nodes,
            vnis: limits.vnis,
            chains: limits.chains,
            matches: limits.matches,
        })
    }
}

impl Form<NewAttachment> for proto::PutAttachmentRequest {
    fn read(self) -> Result<NewAttachment, Rejection> {
        let prefixes = self.prefixes.iter().map(|text| parse("prefix", text));
        Ok(NewAttachment {
            prefixes: prefixes.collect::<Result<_, _>>()?,
            interfaces: self.interfaces,
            redistribute: self.redistribute,
            neighbors: self
                .neighbors
                .into_iter()
                .enumerate()
                .map(|(at, one)| site_neighbor(at, one))
                .collect::<Result<_, _>>()?,
            breakout: self.breakout.map(|one| model::Breakout {
                interface: one.interface,
                source_nat: one.source_nat.unwrap_or(true),
            }),
        })
    }
}

fn site_neighbor(at: usize, one: proto::SiteNeighbor) -> Result<model::SiteNeighbor, Rejection> {
    let ttl = one.ttl.map(u8::try_from).transpose();
    Ok(model::SiteNeighbor {
        address: parse(&format!("neighbors[{at}].address"), &one.address)?,
        asn: one.asn,
        as_override: one.as_override,
        description: one.description,
        ttl: ttl.map_err(|_| Rejection::Field {
            field: format!("neighbors[{at}].ttl"),
            detail: "a TTL is 1 to 255".into(),
        })?,
        max_prefixes: one.max_prefixes,
    })
}

impl Form<RouterChange> for proto::ChangeRouterRequest {
    fn read(self) -> Result<RouterChange, Rejection> {
        let peers = self.peers.map(|all| {
            let peers = all.peers.into_iter().map(|peer| {
                let ttl = u8::try_from(peer.ttl.unwrap_or(1));
                Ok(model::Peer {
                    address: parse("address", &peer.address)?,
                    ttl: ttl.map_err(|_| {
                        Rejection::Invalid(format!("peer `{}`: its TTL is 255 at most", peer.name))
                    })?,
                    name: peer.name,
                    asn: peer.asn,
                    tenants: peer.tenants,
                })
            });
            peers.collect::<Result<_, Rejection>>()
        });
        Ok(RouterChange {
            role: self.role.map(role_of).transpose()?,
            peers: peers.transpose()?,
            external_address: self
                .external_address
                .map(|text| parse("external_address", &text))
                .transpose()?,
        })
    }
}

impl Form<NewToken> for proto::CreateTokenRequest {
    fn read(self) -> Result<NewToken, Rejection> {
        use proto::scope::Scope;
        let scope = self.scope.and_then(|scope| scope.scope);
        let scope = scope.ok_or_else(|| {
            Rejection::Invalid("scope: join, operator, tenant or reader is missing".into())
        })?;
        Ok(NewToken {
            scope: match scope {
                Scope::Join(join) => model::Scope::Join {
                    role: role_of(join.role)?,
                    name: join.name,
                },
                Scope::Operator(_) => model::Scope::Operator,
                Scope::Tenant(one) => model::Scope::Tenant { tenant: one.tenant },
                Scope::Reader(_) => model::Scope::Reader,
            },
            ttl: self.ttl,
            uses: self.uses,
        })
    }
}

pub(super) fn domain(one: model::Domain, modified: u64) -> proto::Domain {
    proto::Domain {
        name: one.name,
        asn: one.asn,
        global_administrator: one.global_administrator,
        first_vni: one.first_vni,
        last_vni: one.last_vni,
        lease: one.lease,
        quarantine: one.quarantine,
        hold_time: one.hold_time.into(),
        certificate: one.certificate,
        resumed: one.resumed,
        modified,
    }
}

pub(super) fn router(one: model::Router, modified: u64) -> proto::Router {
    let registration = one.registration.map(|one| proto::Registration {
        router_id: one.router_id.to_string(),
        bgp_address: one.bgp_address.to_string(),
        endpoint: one.endpoint.to_string(),
        encapsulations: one.encapsulations,
        capacity: one.capacity,
        generation: one.generation,
        version: one.version,
    });
    let peers = one.peers.into_iter().map(|one| proto::Peer {
        name: one.name,
        address: one.address.to_string(),
        asn: one.asn,
        ttl: Some(one.ttl.into()),
        tenants: one.tenants,
    });
    proto::Router {
        name: one.name,
        role: role(one.role),
        external_address: one.external_address.map(|one| one.to_string()),
        key: one.key,
        registration,
        controller: one.controller,
        expired: one.expired,
        peers: peers.collect(),
        reserved: one.reserved.into_iter().collect(),
        modified,
    }
}

pub(super) fn tenant(one: model::Tenant, modified: u64) -> proto::Tenant {
    proto::Tenant {
        name: one.name,
        vni: one.vni,
        home: one.home,
        description: one.description,
        id: one.id,
        modified,
    }
}

pub(super) fn grant(one: model::Grant, modified: u64) -> proto::Grant {
    proto::Grant {
        tenant: one.tenant,
        router: one.router,
        interfaces: one.interfaces,
        modified,
    }
}

pub(super) fn session_keys(one: KeysStatus, _: u64) -> proto::SessionKeys {
    let keys = one.keys.into_iter().map(|one| proto::SessionKey {
        routers: one.routers.to_vec(),
        signed: one.signed,
        age: one.age,
        number: one.number,
        waits_for: one.waits_for,
    });
    proto::SessionKeys {
        keys: keys.collect(),
        unsigned: one.unsigned,
        replaced_after: one.replaced_after,
    }
}

pub(super) fn quota(one: QuotaUse, modified: u64) -> proto::QuotaUse {
    proto::QuotaUse {
        tenant: one.tenant,
        limits: Some(proto::Limits {
            attachments: one.limits.attachments,
            interfaces: one.limits.interfaces,
            prefixes: one.limits.prefixes,
            neighbors: one.limits.neighbors,
            services: one.limits.services,
            nodes: one.limits.nodes,
            vnis: one.limits.vnis,
            chains: one.limits.chains,
            matches: one.limits.matches,
        }),
        used: one.used,
        modified,
    }
}

fn said(one: model::Quota) -> proto::Quota {
    proto::Quota {
        tenant: one.tenant,
        limits: Some(proto::NewQuota {
            attachments: one.limits.attachments,
            interfaces: one.limits.interfaces,
            prefixes: one.limits.prefixes,
            neighbors: one.limits.neighbors,
            services: one.limits.services,
            nodes: one.limits.nodes,
            vnis: one.limits.vnis,
            chains: one.limits.chains,
            matches: one.limits.matches,
        }),
    }
}

pub(super) fn attachment(one: model::Attachment, modified: u64) -> proto::Attachment {
    proto::Attachment {
        tenant: one.tenant,
        router: one.router,
        interfaces: one.interfaces,
        prefixes: one.prefixes.iter().map(ToString::to_string).collect(),
        redistribute: one.redistribute,
        neighbors: one
            .neighbors
            .into_iter()
            .map(|one| proto::SiteNeighbor {
                address: one.address.to_string(),
                asn: one.asn,
                as_override: one.as_override,
                description: one.description,
                ttl: one.ttl.map(u32::from),
                max_prefixes: one.max_prefixes,
            })
            .collect(),
        breakout: one.breakout.map(|one| proto::Breakout {
            interface: one.interface,
            source_nat: Some(one.source_nat),
        }),
        modified,
    }
}

fn scope(one: model::Scope) -> Option<proto::Scope> {
    use proto::scope::Scope;
    let scope = match one {
        model::Scope::Join { role: one, name } => Scope::Join(proto::Join {
            role: role(one),
            name,
        }),
        model::Scope::Operator => Scope::Operator(proto::Operator {}),
        model::Scope::Tenant { tenant } => Scope::Tenant(proto::TenantAdministrator { tenant }),
        model::Scope::Reader => Scope::Reader(proto::Reader {}),
    };
    Some(proto::Scope { scope: Some(scope) })
}

pub(super) fn token(one: model::Token, modified: u64) -> proto::Token {
    proto::Token {
        id: one.id,
        scope: scope(one.scope),
        expires_at: one.expires_at,
        uses_left: one.uses_left,
        created_by: one.created_by,
        modified,
    }
}

pub(super) fn created_token(one: CreatedToken, _: u64) -> proto::CreatedToken {
    proto::CreatedToken {
        token: one.token,
        scope: scope(one.scope),
    }
}

pub(super) fn deleted((): (), _: u64) -> proto::Deleted {
    proto::Deleted {}
}

pub(super) fn rolled_back(one: RolledBack, _: u64) -> proto::RolledBack {
    proto::RolledBack {
        rolled_back_to: one.rolled_back_to,
    }
}

fn record(one: model::Record) -> Option<proto::Record> {
    use proto::record::Record;
    let record = match one {
        model::Record::Domain(one) => Record::Domain(domain(one, 0)),
        model::Record::Router(one) => Record::Router(router(one, 0)),
        model::Record::Tenant(one) => Record::Tenant(tenant(one, 0)),
        model::Record::Attachment(one) => Record::Attachment(attachment(one, 0)),
        model::Record::Vni(one) => Record::Vni(proto::VniUse {
            vni: one.vni,
            tenant: one.tenant,
            free_at: one.free_at,
            service: one.service,
            last: one.last,
        }),
        model::Record::Grant(one) => Record::Grant(grant(one, 0)),
        model::Record::Quota(one) => Record::Quota(said(one)),
        model::Record::Token(one) => Record::Token(token(one, 0)),
        // What is kept for the controller alone is nobody's business.
        model::Record::Request(_)
        | model::Record::RemoteOrigins(_)
        | model::Record::SessionKey(_)
        | model::Record::Replaced(_)
        | model::Record::PastChains(_)
        | model::Record::PastDifference(_) => return None,
        model::Record::Trust(one) => Record::Trust(domains::trust(one, 0)),
        model::Record::Share(one) => Record::Share(domains::share(one, 0)),
        model::Record::Remote(one) => Record::Remote(domains::remote(one)),
        model::Record::RemoteRouter(one) => Record::RemoteRouter(domains::router(one, 0)),
        model::Record::RemoteTenant(one) => Record::RemoteTenant(domains::tenant(one, 0)),
        model::Record::Service(one) => Record::Service(chains::service(one, 0)),
        model::Record::Chain(one) => Record::Chain(chains::chain(one, 0)),
        model::Record::RemoteService(one) => Record::RemoteService(chains::remote(one)),
    };
    Some(proto::Record {
        record: Some(record),
    })
}

pub(super) fn revision(one: model::Revision) -> proto::Revision {
    let changes = one.changes.into_iter().map(|one| proto::Change {
        key: one.key,
        old: one.old.and_then(record),
        new: one.new.and_then(record),
    });
    proto::Revision {
        number: one.number,
        at: one.at,
        actor: one.actor,
        operation: one.operation,
        changes: changes.collect(),
    }
}

pub(super) fn status(one: Status, _: u64) -> proto::Status {
    let router = |one: RouterStatus| proto::RouterStatus {
        name: one.name,
        role: role(one.role),
        attached: one.attached,
        expired: one.expired,
        endpoint: one.endpoint,
        runs: one.runs,
        sent: one.sent,
        lags: one.lags,
        checks_origins: one.checks_origins,
        refused: one
            .refused
            .into_iter()
            .map(|one| proto::RefusedItem {
                item: one.item,
                reason: one.reason,
            })
            .collect(),
    };
    proto::Status {
        domain: one.domain,
        revision: one.revision,
        routers: one.routers.into_iter().map(router).collect(),
        domains: one.domains.into_iter().map(domains::status).collect(),
        warnings: one.warnings,
    }
}

pub(super) fn performance(one: Performance, _: u64) -> proto::Performance {
    let routers = one.routers.into_iter();
    proto::Performance {
        partial: one.partial,
        missing: one.missing,
        routers: routers.map(|(name, one)| (name, object(one))).collect(),
    }
}

fn object(json: serde_json::Value) -> Struct {
    match value(json).kind {
        Some(Kind::StructValue(object)) => object,
        _ => Struct::default(),
    }
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(one) => Kind::BoolValue(one),
        Json::Number(one) => Kind::NumberValue(one.as_f64().unwrap_or(f64::NAN)),
        Json::String(one) => Kind::StringValue(one),
        Json::Array(one) => Kind::ListValue(ListValue {
            values: one.into_iter().map(value).collect(),
        }),
        Json::Object(one) => Kind::StructValue(Struct {
            fields: one
                .into_iter()
                .map(|(key, one)| (key, value(one)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}
