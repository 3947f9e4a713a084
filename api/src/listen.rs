//! Connections to the API: from a Unix socket, from a port of the loopback, or with TLS and a token.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::access::Secure;
use crate::access::{self, Audit, Peer};
use crate::address::Listener;
use crate::bounds::{self, Answers, Paced, Place, Places, Rate};
use crate::guard;
use crate::server::{RouterState, router};

/// Connections at once, to one router.
const CONNECTIONS: usize = 256;
/// Of those, from one address, at a TCP port.
pub(crate) const CONNECTIONS_EACH: usize = 192;
/// Octets of answers that wait to be taken.
const ANSWERS: u32 = 64 << 20;

/// Serves the API on `listeners` until `stop` resolves; answers under way are finished. At a TCP port without TLS, requests are refused
/// that a browser sends for somebody else's page; at one with TLS, those without a token.
pub async fn serve<S: RouterState>(
    listeners: Vec<Listener>,
    state: Arc<S>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let room = Answers::new(ANSWERS);
    let app = bounds::bodies(router(state), |_| false);
    let app = bounds::answers(app, room, |_| false);
    let audit = Audit::default();
    let (stopping, stopped) = watch::channel(());
    let mut serving = JoinSet::new();
    for listener in listeners {
        let door = Door {
            app: app.clone(),
            places: Places::new(CONNECTIONS, CONNECTIONS_EACH),
            audit: audit.clone(),
            full: Rate::new(1, Duration::from_secs(60)),
            stopped: stopped.clone(),
        };
        serving.spawn(door.serve(listener));
    }
    drop(stopped);
    stop.await;
    drop(stopping);
    while serving.join_next().await.is_some() {}
}

/// One listener's.
struct Door {
    app: Router,
    places: Arc<Places>,
    audit: Audit,
    /// Of lines about connections that found no place.
    full: Rate,
    stopped: watch::Receiver<()>,
}

impl Door {
    async fn serve(self, listener: Listener) {
        let mut stopped = self.stopped.clone();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                // Nothing is sent: it is dropped.
                _ = stopped.changed() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener) => accepted,
            };
            let stream = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptor is left, most likely: others will end.
                    warn!(%error, "cannot accept a connection to the API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let from = match &stream {
                Stream::Unix(_) => None,
                Stream::Tcp(_, from, _) => Some(from.ip()),
            };
            let Some(place) = self.places.take(from) else {
                if let Some(left_out) = self.full.pass() {
                    warn!(
                        ?from,
                        before = left_out,
                        "too many connections to the API: one is closed"
                    );
                }
                continue;
            };
            connections.spawn(self.connection(stream, Arc::new(place)));
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// One connection, until it ends, its place is another's, or this stops and what was asked is answered.
    fn connection(
        &self,
        stream: Stream,
        place: Arc<Place>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let app = place.kept(self.app.clone());
        let (audit, stopped) = (self.audit.clone(), self.stopped.clone());
        async move {
            let served = async {
                match stream {
                    Stream::Unix(stream) => {
                        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                        let app = access::guarded(app, None, Peer::User(uid), audit);
                        speak(stream, app, stopped).await;
                    }
                    Stream::Tcp(stream, from, None) => {
                        let app =
                            access::guarded(guard::tcp(app), None, Peer::Address(from), audit);
                        speak(stream, app, stopped).await;
                    }
                    Stream::Tcp(stream, from, Some(secure)) => {
                        let Some(acceptor) = secure.acceptor().await else {
                            return;
                        };
                        let app = access::guarded(app, Some(secure), Peer::Address(from), audit);
                        let accept = acceptor.accept(Paced::new(stream));
                        match tokio::time::timeout(bounds::HEADERS, accept).await {
                            Ok(Ok(stream)) => speak(stream, app, stopped).await,
                            Ok(Err(error)) => debug!(%error, "no TLS"),
                            Err(_) => {}
                        }
                    }
                }
            };
            tokio::select! {
                () = served => {}
                () = place.gone() => debug!("a connection to the API gave way to another"),
            }
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr, Option<Arc<Secure>>),
}

async fn accept(listener: &Listener) -> std::io::Result<Stream> {
    Ok(match listener {
        Listener::Unix(listener, _) => Stream::Unix(listener.accept().await?.0),
        Listener::Tcp(listener, secure) => {
            let (stream, from) = listener.accept().await?;
            Stream::Tcp(stream, from, secure.clone())
        }
    })
}

/// HTTP over a stream.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    mut stopping: watch::Receiver<()>,
) {
    let service = TowerToHyperService::new(app.into_service());
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds::HEADERS);
    let connection = builder.serve_connection(TokioIo::new(Paced::new(stream)), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        // Nothing is sent: it is dropped.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection to the API broke");
    }
}
