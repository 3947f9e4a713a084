//! Peers in etcd: a key each, with a JSON object as in a file of peers.

use std::pin::Pin;

use tonic::Streaming;
use tonic::transport::Channel;

use super::{Said, Source, SourceError};
use crate::etcd::kv_client::KvClient;
use crate::etcd::{self, EtcdTls, RangeRequest, WatchResponse};

/// The keys below a prefix: `PREFIX/NAME`.
pub struct EtcdPeers {
    channel: Channel,
    prefix: String,
    watch: Option<Streaming<WatchResponse>>,
}

impl EtcdPeers {
    /// At these members of a cluster, `http://HOST:2379` or `https://HOST:2379`.
    ///
    /// # Errors
    /// Where one of them is no such thing, or a file of `tls` is not what it should be.
    pub fn new(endpoints: &[String], tls: &EtcdTls, prefix: &str) -> Result<Self, SourceError> {
        Ok(Self {
            channel: etcd::connect(endpoints, tls).map_err(SourceError)?,
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

    async fn read(&mut self) -> Result<Said, SourceError> {
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
        let watch = etcd::watch(&self.channel, self.prefix.clone().into(), self.end());
        let watch = watch.await.map_err(SourceError)?;
        let range = RangeRequest {
            key: self.prefix.clone().into(),
            range_end: self.end(),
            ..RangeRequest::default()
        };
        let mut client = KvClient::new(self.channel.clone());
        let found = etcd::asked(client.range(range))
            .await
            .map_err(SourceError)?;
        self.watch = Some(watch);
        let records = found.kvs.into_iter().map(|one| {
            let key = String::from_utf8_lossy(&one.key);
            let name = key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned();
            let peer = serde_json::from_slice(&one.value);
            (name, peer.map_err(|error| error.to_string()))
        });
        Ok(records.collect())
    }
}

impl Source for EtcdPeers {
    fn name(&self) -> String {
        format!("etcd {}", self.prefix)
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Said, SourceError>> + Send + '_>> {
        Box::pin(self.read())
    }
}
