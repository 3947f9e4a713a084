//! Connections: TLS, and HTTP/1.1 or HTTP/2 inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::{debug, info, warn};
use weft_api::bounds::{self, Paced, Place, Places, Rate};

use super::audit::Origin;
use super::{Controller, ControllerError};
use crate::operations::check_name;
use crate::pki::{Identity, SERVER_LIFETIME, domain, identity, sha256, validity_of};
use crate::tls;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A router that is silent is asked, and is gone when it does not answer.
const PING: Duration = Duration::from_secs(10);

/// Connections at once of who has shown no certificate of ours: handshakes, people and their programs, other domains' controllers.
const STRANGERS: usize = 4096;
/// Of those, from one address (one IPv6 /64).
const STRANGERS_EACH: usize = 512;
/// Connections at once of routers.
const KNOWN: usize = 65_536;

/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 64;

/// Places for connections.
struct Room {
    strangers: Arc<Places>,
    known: Arc<Places>,
    /// Of lines about connections that found none.
    full: Rate,
}

impl Room {
    fn new() -> Self {
        Self {
            strangers: Places::new(STRANGERS, STRANGERS_EACH),
            // A domain's routers may all come from one address.
            known: Places::new(KNOWN, KNOWN),
            full: Rate::new(1, Duration::from_secs(60)),
        }
    }

    fn take(&self, places: &Arc<Places>, from: SocketAddr) -> Option<Place> {
        let place = places.take(Some(from.ip()));
        if place.is_none()
            && let Some(left_out) = self.full.pass()
        {
            warn!(%from, before = left_out, "too many connections: one is closed");
        }
        place
    }
}

/// Whether the body of a request is a stream, which lasts: of routers, and of programs that ask what there is to ask for.
pub(super) fn streams(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let router = matches!(
        request.extensions().get::<Caller>(),
        Some(Caller::Router(_))
    );
    grpc && (router || request.uri().path().starts_with("/grpc.reflection."))
}

/// Whether the answer to a request is a stream, which lasts.
pub(super) fn lasts(request: &Request) -> bool {
    let call = request.uri().path().rsplit('/').next().unwrap_or_default();
    streams(request) || matches!(call, "Watch" | "Follow")
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Who shows no certificate.
    Nobody,
    /// A router that has joined.
    Router(Identity),
    /// Who proves to have a certificate of this authority for the controller of this domain: whether that is trusted is another question.
    Controller {
        /// The domain's name.
        domain: String,
        /// SHA-256 of the authority's certificate, in hexadecimal.
        fingerprint: String,
    },
}

impl Caller {
    /// By what the handshake has found good.
    fn new(chain: &[CertificateDer<'_>], own: &[u8]) -> Self {
        let Some(first) = chain.first() else {
            return Self::Nobody;
        };
        let signer = tls::signer(chain, own);
        if let Ok(identity) = identity(first)
            && signer == own
        {
            return Self::Router(identity);
        }
        match domain(first) {
            Ok(domain) if check_name(&domain).is_ok() => Self::Controller {
                domain,
                fingerprint: sha256(signer),
            },
            _ => Self::Nobody,
        }
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(
    listener: TcpListener,
    controller: &Arc<Controller>,
    names: &[String],
    app: Router,
) -> ControllerError {
    // They end with this.
    let mut connections = JoinSet::new();
    let room = Arc::new(Room::new());
    loop {
        let acceptor = match acceptor(controller, names) {
            Ok(acceptor) => acceptor,
            Err(error) => return error,
        };
        // Its certificate is renewed long before it ends; connections that stand keep theirs.
        let renew = tokio::time::sleep(SERVER_LIFETIME * 2 / 3);
        tokio::pin!(renew);
        loop {
            tokio::select! {
                () = &mut renew => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let Some(place) = room.take(&room.strangers, from) else {
                            continue;
                        };
                        let (acceptor, app) = (acceptor.clone(), app.clone());
                        let (controller, room) = (controller.clone(), room.clone());
                        connections.spawn(async move {
                            debug!(%from, "connection");
                            connection((stream, from), (place, &room), acceptor, &controller, app).await;
                        });
                    }
                    Err(error) => {
                        // No file descriptor is left, most likely: others will end.
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        info!("the controller's certificate is renewed");
    }
}

fn acceptor(controller: &Controller, names: &[String]) -> Result<TlsAcceptor, ControllerError> {
    let (certificate, key) = controller.authority.server(names)?;
    let (_, until) = validity_of(&certificate)?;
    controller
        .until
        .store(until, std::sync::atomic::Ordering::Relaxed);
    let config = tls::server(&certificate, &key, controller.authority.certificate())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(
    (stream, from): (TcpStream, SocketAddr),
    (place, room): (Place, &Room),
    acceptor: TlsAcceptor,
    controller: &Controller,
    app: Router,
) {
    // Small messages both ways.
    let _ = stream.set_nodelay(true);
    let accept = acceptor.accept(Paced::new(stream));
    let stream = match tokio::time::timeout(HANDSHAKE, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%error, "no TLS");
            return;
        }
        Err(_) => return,
    };
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    let caller = Caller::new(chain, controller.authority.certificate());
    // A controller's certificate may be of any authority: whether that is trusted is asked later.
    let place = match caller {
        Caller::Router(_) => match room.take(&room.known, from) {
            Some(known) => {
                // A router's stream gives way to nobody.
                known.busy();
                known
            }
            None => return,
        },
        Caller::Nobody | Caller::Controller { .. } => place,
    };
    let place = Arc::new(place);
    let http2 = session.alpn_protocol() == Some(tls::HTTP2);
    let asked = Arc::new(AtomicBool::new(false));
    let note = asked.clone();
    let app = place
        .kept(app)
        .layer(axum::Extension(caller))
        .layer(axum::Extension(Origin(from)))
        .layer(from_fn(move |request: Request, next: Next| {
            note.store(true, Ordering::Relaxed);
            next.run(request)
        }));
    let service = TowerToHyperService::new(app.into_service());
    let builder = Builder::new(TokioExecutor::new());
    // What was agreed on in the handshake: nothing is waited for to find it out.
    let mut builder = match http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds::HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = tokio::time::sleep(bounds::HEADERS) => {}
        }
        match asked.load(Ordering::Relaxed) {
            true => connection.await,
            // Who asks for nothing has no place here.
            false => Ok(()),
        }
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            debug!(%error, "a connection broke");
        },
        () = place.gone() => debug!(%from, "a connection gave way to another"),
    }
}
