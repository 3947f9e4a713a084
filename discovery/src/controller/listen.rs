//! Connections: TLS, and HTTP/1.1 or HTTP/2 inside.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::{debug, info, warn};

use super::{Controller, ControllerError};
use crate::operations::check_name;
use crate::pki::{Identity, SERVER_LIFETIME, domain, identity, sha256, validity_of};
use crate::tls;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A router that is silent is asked, and is gone when it does not answer.
const PING: Duration = Duration::from_secs(10);

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
                        let (acceptor, app) = (acceptor.clone(), app.clone());
                        let controller = controller.clone();
                        connections.spawn(async move {
                            debug!(%from, "connection");
                            connection(stream, acceptor, &controller, app).await;
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
    stream: TcpStream,
    acceptor: TlsAcceptor,
    controller: &Controller,
    app: Router,
) {
    // Small messages both ways.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
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
    let service = app.layer(axum::Extension(caller)).into_service();
    let service = TowerToHyperService::new(service);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder.http1().timer(TokioTimer::new());
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        debug!(%error, "a connection broke");
    }
}
