//! The messages of the management protocol, from what they stand for and back.

use std::fmt::Display;

use prost_types::{ListValue, Struct, Value, value::Kind};

use super::{chains, domains};
use crate::controller::management::condition::{Performance, RouterStatus, Status};
use crate::controller::management::{CreatedToken, Form, RolledBack};
use crate::database::Rejection;
use crate::management_proto as proto;
use crate::model;
use crate::operations::{NewAttachment, NewTenant, NewToken, RouterChange, TenantChange};

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
                .map(|(at, of)| site_neighbor(at, of))
                .collect::<Result<_, _>>()?,
            breakout: self.breakout.map(|of| model::Breakout {
                interface: of.interface,
                source_nat: of.source_nat.unwrap_or(true),
            }),
        })
    }
}

fn site_neighbor(at: usize, of: proto::SiteNeighbor) -> Result<model::SiteNeighbor, Rejection> {
    let ttl = of.ttl.map(u8::try_from).transpose();
    Ok(model::SiteNeighbor {
        address: parse(&format!("neighbors[{at}].address"), &of.address)?,
        asn: of.asn,
        as_override: of.as_override,
        description: of.description,
        ttl: ttl.map_err(|_| Rejection::Field {
            field: format!("neighbors[{at}].ttl"),
            detail: "a TTL is 1 to 255".into(),
        })?,
        max_prefixes: of.max_prefixes,
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
                Scope::Tenant(of) => model::Scope::Tenant { tenant: of.tenant },
                Scope::Reader(_) => model::Scope::Reader,
            },
            ttl: self.ttl,
            uses: self.uses,
        })
    }
}

pub(super) fn domain(of: model::Domain, modified: u64) -> proto::Domain {
    proto::Domain {
        name: of.name,
        asn: of.asn,
        global_administrator: of.global_administrator,
        first_vni: of.first_vni,
        last_vni: of.last_vni,
        lease: of.lease,
        quarantine: of.quarantine,
        hold_time: of.hold_time.into(),
        certificate: of.certificate,
        resumed: of.resumed,
        modified,
    }
}

pub(super) fn router(of: model::Router, modified: u64) -> proto::Router {
    let registration = of.registration.map(|of| proto::Registration {
        router_id: of.router_id.to_string(),
        bgp_address: of.bgp_address.to_string(),
        endpoint: of.endpoint.to_string(),
        encapsulations: of.encapsulations,
        capacity: of.capacity,
        generation: of.generation,
        version: of.version,
    });
    let peers = of.peers.into_iter().map(|of| proto::Peer {
        name: of.name,
        address: of.address.to_string(),
        asn: of.asn,
        ttl: Some(of.ttl.into()),
        tenants: of.tenants,
    });
    proto::Router {
        name: of.name,
        role: role(of.role),
        external_address: of.external_address.map(|of| of.to_string()),
        key: of.key,
        registration,
        controller: of.controller,
        expired: of.expired,
        peers: peers.collect(),
        modified,
    }
}

pub(super) fn tenant(of: model::Tenant, modified: u64) -> proto::Tenant {
    proto::Tenant {
        name: of.name,
        vni: of.vni,
        home: of.home,
        description: of.description,
        id: of.id,
        modified,
    }
}

pub(super) fn attachment(of: model::Attachment, modified: u64) -> proto::Attachment {
    proto::Attachment {
        tenant: of.tenant,
        router: of.router,
        interfaces: of.interfaces,
        prefixes: of.prefixes.iter().map(ToString::to_string).collect(),
        redistribute: of.redistribute,
        neighbors: of
            .neighbors
            .into_iter()
            .map(|of| proto::SiteNeighbor {
                address: of.address.to_string(),
                asn: of.asn,
                as_override: of.as_override,
                description: of.description,
                ttl: of.ttl.map(u32::from),
                max_prefixes: of.max_prefixes,
            })
            .collect(),
        breakout: of.breakout.map(|of| proto::Breakout {
            interface: of.interface,
            source_nat: Some(of.source_nat),
        }),
        modified,
    }
}

fn scope(of: model::Scope) -> Option<proto::Scope> {
    use proto::scope::Scope;
    let scope = match of {
        model::Scope::Join { role: of, name } => Scope::Join(proto::Join {
            role: role(of),
            name,
        }),
        model::Scope::Operator => Scope::Operator(proto::Operator {}),
        model::Scope::Tenant { tenant } => Scope::Tenant(proto::TenantAdministrator { tenant }),
        model::Scope::Reader => Scope::Reader(proto::Reader {}),
    };
    Some(proto::Scope { scope: Some(scope) })
}

pub(super) fn token(of: model::Token, modified: u64) -> proto::Token {
    proto::Token {
        id: of.id,
        scope: scope(of.scope),
        expires_at: of.expires_at,
        uses_left: of.uses_left,
        created_by: of.created_by,
        modified,
    }
}

pub(super) fn created_token(of: CreatedToken, _: u64) -> proto::CreatedToken {
    proto::CreatedToken {
        token: of.token,
        scope: scope(of.scope),
    }
}

pub(super) fn deleted((): (), _: u64) -> proto::Deleted {
    proto::Deleted {}
}

pub(super) fn rolled_back(of: RolledBack, _: u64) -> proto::RolledBack {
    proto::RolledBack {
        rolled_back_to: of.rolled_back_to,
    }
}

fn record(of: model::Record) -> Option<proto::Record> {
    use proto::record::Record;
    let record = match of {
        model::Record::Domain(of) => Record::Domain(domain(of, 0)),
        model::Record::Router(of) => Record::Router(router(of, 0)),
        model::Record::Tenant(of) => Record::Tenant(tenant(of, 0)),
        model::Record::Attachment(of) => Record::Attachment(attachment(of, 0)),
        model::Record::Vni(of) => Record::Vni(proto::VniUse {
            vni: of.vni,
            tenant: of.tenant,
            free_at: of.free_at,
            service: of.service,
        }),
        model::Record::Token(of) => Record::Token(token(of, 0)),
        // Answers and chains of the past that were kept are nobody's business.
        model::Record::Request(_) | model::Record::PastChains(_) => return None,
        model::Record::Trust(of) => Record::Trust(domains::trust(of, 0)),
        model::Record::Share(of) => Record::Share(domains::share(of, 0)),
        model::Record::Remote(of) => Record::Remote(domains::remote(of)),
        model::Record::RemoteRouter(of) => Record::RemoteRouter(domains::router(of, 0)),
        model::Record::RemoteTenant(of) => Record::RemoteTenant(domains::tenant(of, 0)),
        model::Record::Service(of) => Record::Service(chains::service(of, 0)),
        model::Record::Chain(of) => Record::Chain(chains::chain(of, 0)),
        model::Record::RemoteService(of) => Record::RemoteService(chains::remote(of)),
    };
    Some(proto::Record {
        record: Some(record),
    })
}

pub(super) fn revision(of: model::Revision) -> proto::Revision {
    let changes = of.changes.into_iter().map(|of| proto::Change {
        key: of.key,
        old: of.old.and_then(record),
        new: of.new.and_then(record),
    });
    proto::Revision {
        number: of.number,
        at: of.at,
        actor: of.actor,
        operation: of.operation,
        changes: changes.collect(),
    }
}

pub(super) fn status(of: Status, _: u64) -> proto::Status {
    let router = |of: RouterStatus| proto::RouterStatus {
        name: of.name,
        role: role(of.role),
        attached: of.attached,
        expired: of.expired,
        endpoint: of.endpoint,
        runs: of.runs,
        sent: of.sent,
        lags: of.lags,
        refused: of
            .refused
            .into_iter()
            .map(|of| proto::RefusedItem {
                item: of.item,
                reason: of.reason,
            })
            .collect(),
    };
    proto::Status {
        domain: of.domain,
        revision: of.revision,
        routers: of.routers.into_iter().map(router).collect(),
        domains: of.domains.into_iter().map(domains::status).collect(),
        warnings: of.warnings,
    }
}

pub(super) fn performance(of: Performance, _: u64) -> proto::Performance {
    let routers = of.routers.into_iter();
    proto::Performance {
        partial: of.partial,
        missing: of.missing,
        routers: routers.map(|(name, of)| (name, object(of))).collect(),
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
        Json::Bool(of) => Kind::BoolValue(of),
        Json::Number(of) => Kind::NumberValue(of.as_f64().unwrap_or(f64::NAN)),
        Json::String(of) => Kind::StringValue(of),
        Json::Array(of) => Kind::ListValue(ListValue {
            values: of.into_iter().map(value).collect(),
        }),
        Json::Object(of) => Kind::StructValue(Struct {
            fields: of.into_iter().map(|(key, of)| (key, value(of))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
