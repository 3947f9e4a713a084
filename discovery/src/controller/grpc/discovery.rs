//! What routers ask for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};
use weft_api::bounds::Rate;

use crate::controller::Controller;
use crate::controller::audit::{self, Entry, Outcome};
use crate::controller::listen::Caller;
use crate::model::{Registration, key};
use crate::operations;
use crate::pki::{self, sha256};
use crate::proto::discovery_server::Discovery;
use crate::proto::{
    FromRouter, Identity, JoinRequest, Register, RenewRequest, ToRouter, from_router,
};

pub(super) struct Server {
    pub(super) controller: Arc<Controller>,
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

impl Server {
    /// The router at the other end, by its certificate.
    fn caller<T>(&self, request: &Request<T>) -> Result<pki::Identity, Status> {
        let Some(Caller::Router(identity)) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::unauthenticated(
                "this needs the certificate that joining gives: weft join",
            ));
        };
        let state = self.controller.database.state();
        if state
            .domain()
            .is_none_or(|domain| domain.name != identity.domain)
        {
            return Err(Status::permission_denied(
                "this certificate is of another domain",
            ));
        }
        operations::check_router(&state, &identity.router, &identity.key)?;
        Ok(identity)
    }

    /// Nothing is signed for who has no token.
    fn check_join(&self, request: &JoinRequest, hash: &str) -> Result<(), Status> {
        let state = self.controller.database.state();
        let token = state.token(&key::token(&request.token_id));
        let before = state.router(&key::router(&request.name));
        let asked = pki::requested_key(&request.certificate_request).map_err(invalid)?;
        operations::may_join(token, hash, &request.name, before, &asked)?;
        Ok(())
    }

    fn identity(&self, name: &str, request: &[u8]) -> Result<Identity, Status> {
        let authority = &self.controller.authority;
        let domain = self.controller.domain();
        let lifetime = domain.as_ref().map_or(0, |domain| domain.certificate);
        let lifetime = Duration::from_secs(lifetime.into());
        let certificate = authority.sign(name, request, lifetime).map_err(invalid)?;
        let domain = domain.map(|domain| domain.name);
        Ok(Identity {
            domain: domain.unwrap_or_default(),
            certificate,
            authority: authority.certificate().to_vec(),
        })
    }

    /// A router joins with a token.
    async fn let_in(&self, request: JoinRequest) -> Result<Identity, Status> {
        let hash = sha256(request.secret.as_bytes());
        self.check_join(&request, &hash)?;
        let identity = self.identity(&request.name, &request.certificate_request)?;
        let who = pki::identity(&identity.certificate).map_err(invalid)?;
        let (token, name) = (request.token_id.clone(), request.name.clone());
        let what = format!("router {name} joins");
        let change = move |transaction: &mut crate::database::Transaction<'_>| {
            operations::join(transaction, &token, &hash, &name, &who.key)
        };
        let actor = format!("token {}", request.token_id);
        self.controller
            .database
            .change(&actor, what, change)
            .await?;
        info!(router = request.name, "router joined");
        Ok(identity)
    }

    /// The datastore knows all that the router was told of.
    fn check_revision(&self, who: &pki::Identity, register: &Register) -> Result<(), Status> {
        let state = self.controller.database.state();
        let resumed = state.domain().map_or(0, |domain| domain.resumed);
        if register.revision <= state.revision.max(resumed) {
            return Ok(());
        }
        self.controller
            .hub
            .note_ahead(&who.router, register.revision);
        Err(Status::failed_precondition(format!(
            "the domain's datastore is at revision {}, and `{}` was told of {}: it was restored from an older copy. Routers go on as they \
             are. Enter what is missing, then `weft controller resume` has them take what is here",
            state.revision, who.router, register.revision
        )))
    }

    async fn register(&self, who: &pki::Identity, register: &Register) -> Result<(), Status> {
        self.check_revision(who, register)?;
        let hub = &self.controller.hub;
        let instance = &register.instance;
        if hub.is_taken(&who.router, instance).await
            || hub
                .is_taken_elsewhere(&who.router, &who.key, instance)
                .await?
        {
            return Err(Status::failed_precondition(format!(
                "`{}` is attached, and answers: this is a second one with a copy of its state folder, or one that was started twice. If it \
                 is to be a router of its own, remove its state folder, give it a name of its own, and join with a token",
                who.router
            )));
        }
        // Nobody else is attached with its key: whatever its folder says, this is the router.
        let alone = !hub.has(&who.router);
        let parse = |what: &str, text: &str| {
            let wrong = || Status::invalid_argument(format!("{what} `{text}` is no address"));
            text.parse().map_err(|_| wrong())
        };
        let endpoint: std::net::IpAddr = parse("endpoint", &register.endpoint)?;
        let router_id = match (register.router_id.as_str(), endpoint) {
            ("", std::net::IpAddr::V4(endpoint)) => endpoint,
            // One that stays: from what the router joined with.
            ("", std::net::IpAddr::V6(_)) => {
                let hash = sha256(who.router.as_bytes());
                let number = u32::from_str_radix(&hash[..8], 16).unwrap_or(1);
                std::net::Ipv4Addr::from(number | 1)
            }
            (text, _) => text
                .parse()
                .map_err(|_| Status::invalid_argument(format!("router id `{text}` is none")))?,
        };
        let registration = Registration {
            router_id,
            bgp_address: parse("BGP address", &register.bgp_address)?,
            endpoint,
            encapsulations: register.encapsulations.clone(),
            capacity: register.capacity,
            generation: register.generation,
            version: register.version.clone(),
            instance: register.instance.clone(),
            session_keys: register.session_keys,
        };
        let (name, key) = (who.router.clone(), who.key.clone());
        let controller = self.controller.hub.id().to_owned();
        let what = format!("router {name} registers");
        let actor = format!("router {name}");
        let change = move |transaction: &mut crate::database::Transaction<'_>| {
            operations::register(transaction, &name, &key, &registration, &controller, alone)
        };
        self.controller
            .database
            .change(&actor, what, change)
            .await?;
        Ok(())
    }
}

/// Says that a router has gone when its stream ends, however it does.
struct Presence {
    controller: Arc<Controller>,
    name: String,
    number: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.controller.hub.detach(&self.name, self.number);
    }
}

#[tonic::async_trait]
impl Discovery for Server {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToRouter, Status>> + Send>>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Identity>, Status> {
        let from = audit::from(request.extensions().get());
        let request = request.into_inner();
        let state = self.controller.database.state();
        let token = state.token(&key::token(&request.token_id));
        let who = audit::named(&request.token_id, token);
        let what = format!("join as {}", request.name.escape_debug());
        let joined = self.let_in(request).await;
        let (result, outcome) = match &joined {
            Ok(_) => ("Ok".to_owned(), Outcome::Changed),
            Err(status) => (format!("{:?}", status.code()), Outcome::Refused),
        };
        self.controller.audit.note(&Entry {
            who,
            from,
            what,
            result,
            outcome,
        });
        Ok(Response::new(joined?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Identity>, Status> {
        let request = request.into_inner();
        let state = self.controller.database.state();
        let key = pki::requested_key(&request.certificate_request).map_err(invalid)?;
        operations::check_router(&state, &request.name, &key)?;
        let identity = self.identity(&request.name, &request.certificate_request)?;
        let who = pki::identity(&identity.certificate).map_err(invalid)?;
        self.controller
            .hub
            .note_certificate(&who.router, who.not_after);
        info!(router = who.router, "certificate renewed");
        Ok(Response::new(identity))
    }

    async fn attach(
        &self,
        request: Request<Streaming<FromRouter>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let who = self.caller(&request)?;
        let mut messages = request.into_inner();
        let first = messages
            .message()
            .await?
            .and_then(|message| message.message);
        let Some(from_router::Message::Register(register)) = first else {
            return Err(Status::invalid_argument(
                "the first message is a registration",
            ));
        };
        self.register(&who, &register).await?;
        let controller = self.controller.clone();
        controller.hub.note_certificate(&who.router, who.not_after);
        let (name, own_key, runs) = (who.router, who.key.clone(), register.revision);
        let (number, inbox) = controller.hub.attach(&name, &who.key, register);
        info!(router = name, runs, "router attached");
        let presence = Presence {
            controller: controller.clone(),
            name: name.clone(),
            number,
        };
        let reserved = Rate::new(RESERVED_BURST, RESERVED_EVERY);
        let listener = tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                match message.message {
                    Some(from_router::Message::Acknowledge(one)) => {
                        controller.hub.acknowledge(&name, number, one);
                    }
                    Some(from_router::Message::Performance(one)) => {
                        match serde_json::from_slice(&one.body) {
                            Ok(answer) => controller.hub.answered(&name, one.id, answer),
                            Err(error) => warn!(router = name, %error, "no answer"),
                        }
                    }
                    Some(from_router::Message::Reserved(one)) if reserved.pass().is_some() => {
                        reserve(&controller, &name, &own_key, one.interfaces).await;
                    }
                    Some(from_router::Message::Register(_) | from_router::Message::Reserved(_))
                    | None => {}
                }
            }
            drop(presence);
        });
        let listener = AbortOnDrop(listener);
        let stream = ReceiverStream::new(inbox).map(move |message| {
            let _held = &listener;
            Ok(message)
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Notes which interfaces a router lives by, where that is another word than its last.
async fn reserve(
    controller: &Controller,
    name: &str,
    key: &str,
    interfaces: BTreeMap<String, String>,
) {
    let (router, key) = (name.to_owned(), key.to_owned());
    let change = move |transaction: &mut crate::database::Transaction<'_>| {
        operations::reserve(transaction, &router, &key, &interfaces)
    };
    let what = format!("router {name} says which interfaces it lives by");
    let actor = format!("router {name}");
    if let Err(error) = controller.database.change(&actor, what, change).await {
        warn!(router = name, %error, "cannot note which interfaces it lives by");
    }
}

/// How often a router may say which interfaces it lives by: so often at once, then once in so long. It does so every 5 s at most.
const RESERVED_BURST: u32 = 10;
const RESERVED_EVERY: Duration = Duration::from_secs(5);

/// Ends a task with the value that it belongs to.
pub(in crate::controller) struct AbortOnDrop(pub(in crate::controller) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
