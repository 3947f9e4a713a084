//! etcd as a datastore and as a source of peers see it: its cluster, its questions, what it watches.

use std::time::Duration;

use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

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

/// A channel to the members of a cluster, `http://HOST:2379`; that nobody answers is found out by the first question.
///
/// # Errors
/// Where one of them is no such thing.
pub(crate) fn connect(endpoints: &[String]) -> Result<Channel, String> {
    let endpoints = endpoints.iter().map(|endpoint| {
        let wrong = |error| format!("etcd at `{endpoint}`: {error}");
        let endpoint = Endpoint::from_shared(endpoint.clone()).map_err(wrong)?;
        // No timeout for what a stream takes: each question has its own.
        Ok(endpoint
            .connect_timeout(PATIENCE)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PATIENCE)
            .keep_alive_while_idle(true))
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
        Ok(Err(status)) => Err(format!("etcd: {}", status.message())),
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
