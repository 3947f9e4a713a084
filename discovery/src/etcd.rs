//! etcd as a datastore and as a source of peers see it: its cluster, its questions, what it watches.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use self::watch_client::WatchClient;
use self::watch_request::RequestUnion;

mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "made from the protocol's file, where the words are"
    )]
    tonic::include_proto!("etcdserverpb");
}

pub(crate) use self::proto::*;

/// A question takes no longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// A member that is silent for so long is asked whether it is there.
const PING: Duration = Duration::from_secs(3);
/// Of an answer, octets.
pub(crate) const LARGEST: usize = 64 << 20;

/// Files for `https://` members, PEM, named as etcdctl names them. They are read when a process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTls {
    /// The authorities that have signed the members' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cacert: Option<PathBuf>,
    /// The certificate that is shown to members which want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl EtcdTls {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What they say; `None` where there are none.
    fn read(&self) -> Result<Option<ClientTlsConfig>, String> {
        if self.is_empty() {
            return Ok(None);
        }
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("etcd: {}: {error}", path.display()))
        };
        let cacert = self.cacert.as_ref().ok_or(
            "etcd: a certificate without whom to trust: name the authority's too (cacert)",
        )?;
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(cacert)?));
        match (&self.cert, &self.key) {
            (None, None) => Ok(Some(config)),
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(read(cert)?, read(key)?);
                Ok(Some(config.identity(identity)))
            }
            _ => Err("etcd: a certificate and its key are given together (cert, key)".into()),
        }
    }
}

/// A channel to the members of a cluster, `http://HOST:2379` or `https://HOST:2379`; that nobody answers is found out by the first
/// question.
///
/// # Errors
/// Where one of them is no such thing, or a file is not what it should be.
pub(crate) fn connect(endpoints: &[String], tls: &EtcdTls) -> Result<Channel, String> {
    let tls = tls.read()?;
    let endpoints = endpoints.iter().map(|text| {
        let wrong = |error: &dyn std::fmt::Display| format!("etcd at `{text}`: {error}");
        let endpoint = Endpoint::from_shared(text.clone()).map_err(|error| wrong(&error))?;
        // No timeout for what a stream takes: each question has its own.
        let endpoint = endpoint
            .connect_timeout(PATIENCE)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PATIENCE)
            .keep_alive_while_idle(true);
        match (endpoint.uri().scheme_str(), &tls) {
            (Some("https"), Some(tls)) => endpoint
                .tls_config(tls.clone())
                .map_err(|error| wrong(&crate::cause(&error))),
            (Some("https"), None) => Err(wrong(
                &"whom to trust? name the authority's certificate (cacert)",
            )),
            (Some("http"), None) => Ok(endpoint),
            (Some("http"), Some(_)) => Err(wrong(&"certificates are for https://")),
            _ => Err(wrong(&"it is http://HOST:2379 or https://HOST:2379")),
        }
    });
    let endpoints: Result<Vec<Endpoint>, String> = endpoints.collect();
    Ok(Channel::balance_list(endpoints?.into_iter()))
}

/// An answer in good time.
///
/// # Errors
/// Why there is none.
pub(crate) async fn asked<T>(
    question: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("etcd: {}", crate::words(&status))),
        Err(_) => Err("etcd does not answer".into()),
    }
}

/// Begins to watch keys from one on, up to another.
///
/// # Errors
/// Why it is not watched.
pub(crate) async fn watch(
    channel: &Channel,
    key: Vec<u8>,
    range_end: Vec<u8>,
) -> Result<Streaming<WatchResponse>, String> {
    let create = WatchCreateRequest { key, range_end };
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // The stream ends with what it is asked by: that never does.
    let requests = tokio_stream::once(request);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(LARGEST);
    asked(client.watch(requests)).await
}
