//! Peers in etcd: a key each, with a JSON object as in a file of peers.

use std::pin::Pin;
use std::time::Duration;

use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::{Peer, Peers, Source, SourceError};
use crate::etcd::kv_client::KvClient;
use crate::etcd::watch_client::WatchClient;
use crate::etcd::{
    RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};

/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keys below a prefix: `PREFIX/NAME`.
pub struct EtcdPeers {
    channel: Channel,
    prefix: String,
    watch: Option<Streaming<WatchResponse>>,
}

impl EtcdPeers {
    /// At these members of a cluster, `http://HOST:2379`.
    ///
    /// # Errors
    /// Where one of them is no such thing.
    pub fn new(endpoints: &[String], prefix: &str) -> Result<Self, SourceError> {
        let endpoints = endpoints.iter().map(|endpoint| {
            let wrong = |error| SourceError(format!("etcd at `{endpoint}`: {error}"));
            let endpoint = Endpoint::from_shared(endpoint.clone()).map_err(wrong)?;
            Ok(endpoint
                .connect_timeout(PATIENCE)
                .http2_keep_alive_interval(PATIENCE)
                .keep_alive_timeout(PATIENCE)
                .keep_alive_while_idle(true))
        });
        let endpoints: Result<Vec<Endpoint>, SourceError> = endpoints.collect();
        Ok(Self {
            channel: Channel::balance_list(endpoints?.into_iter()),
            prefix: format!("{}/", prefix.trim_end_matches('/')),
            watch: None,
        })
    }

    /// Behind every key that begins with the prefix: `/` becomes what comes behind it.
    fn end(&self) -> Vec<u8> {
        let mut end = self.prefix.clone().into_bytes();
        end.pop();
        end.push(b'/' + 1);
        end
    }

    async fn read(&mut self) -> Result<Peers, SourceError> {
        if let Some(mut watch) = self.watch.take() {
            // What it says first is that it has begun.
            loop {
                match watch.message().await {
                    Ok(Some(answer)) if !answer.canceled && answer.events.is_empty() => {}
                    Ok(Some(answer)) if !answer.canceled => break,
                    // Everything is read below.
                    _ => break,
                }
            }
        }
        // Before what is there is read: nothing is missed between.
        let create = WatchCreateRequest {
            key: self.prefix.clone().into(),
            range_end: self.end(),
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let requests = tokio_stream::once(request);
        let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
        let watch = asked(WatchClient::new(self.channel.clone()).watch(requests)).await?;
        let range = RangeRequest {
            key: self.prefix.clone().into(),
            range_end: self.end(),
            ..RangeRequest::default()
        };
        let found = asked(KvClient::new(self.channel.clone()).range(range)).await?;
        self.watch = Some(watch);
        let peers = found.kvs.into_iter().map(|of| {
            let name = String::from_utf8_lossy(&of.key);
            let name = name.trim_start_matches(&self.prefix).to_owned();
            let peer: Peer = serde_json::from_slice(&of.value)
                .map_err(|error| SourceError(format!("{}{name}: {error}", self.prefix)))?;
            Ok((name, peer))
        });
        peers.collect()
    }
}

/// An answer in good time.
async fn asked<T>(
    question: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, SourceError> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(SourceError(format!("etcd: {}", status.message()))),
        Err(_) => Err(SourceError("etcd does not answer".into())),
    }
}

impl Source for EtcdPeers {
    fn name(&self) -> String {
        format!("etcd {}", self.prefix)
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Peers, SourceError>> + Send + '_>> {
        Box::pin(self.read())
    }
}
