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
use tracing::{debug, info, warn};

use super::{Controller, ControllerError};
use crate::pki::{Identity, SERVER_LIFETIME, identity};
use crate::tls;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A router that is silent is asked, and is gone when it does not answer.
const PING: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection, where a certificate says.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Identity>);

/// Accepts connections for ever.
pub(super) async fn serve(
    listener: TcpListener,
    controller: &Controller,
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
                        connections.spawn(async move {
                            debug!(%from, "connection");
                            connection(stream, acceptor, app).await;
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
    let config = tls::server(&certificate, &key, controller.authority.certificate())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, app: Router) {
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
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let caller = Caller(certificate.and_then(|of| identity(of).ok()));
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
