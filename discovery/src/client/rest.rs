//! The controller's API, for the command line.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::ClientError;
use super::connect::{dial, failed, split};
use crate::pki::TokenText;
use crate::tls::{self, Trust};

/// A controller, and the token that is shown to it. The token says whom it is for: no certificate has to be at hand.
#[derive(Clone, Debug)]
pub struct Rest {
    address: String,
    token: TokenText,
}

impl Rest {
    /// The API of a controller.
    pub fn new(address: &str, token: TokenText) -> Self {
        Self {
            address: address.to_owned(),
            token,
        }
    }

    /// Asks; `path` is what comes behind `/api/v1/`.
    ///
    /// # Errors
    /// Where the controller is not there, or its answer is a problem.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        self.connect().await?.ask(method, path, body, None).await
    }

    /// A connection that is kept, for who asks more than once.
    ///
    /// # Errors
    /// Where the controller is not there.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let (host, port) = split(&self.address);
        let trust = Trust::Fingerprint(self.token.fingerprint.clone());
        let mut config = tls::client(&trust, None)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = dial(&host, port, Arc::new(config)).await;
        let stream = stream.map_err(|error| failed(&self.address, &error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.unreachable(error))?;
        tokio::spawn(connection);
        Ok(Connection {
            rest: self.clone(),
            sender,
        })
    }

    fn unreachable(&self, error: impl ToString) -> ClientError {
        ClientError::Unreachable {
            address: self.address.clone(),
            error: error.to_string(),
        }
    }
}

/// A connection to a controller's API; one question at a time.
#[derive(Debug)]
pub struct Connection {
    rest: Rest,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Asks, as [`Rest::ask`]; with one `key` something is done once.
    ///
    /// # Errors
    /// Where the controller is not there any more, or its answer is a problem.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Value, ClientError> {
        let octets = body.map(Value::to_string).unwrap_or_default();
        let (host, _) = split(&self.rest.address);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.rest.token))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request
            .body(Full::new(Bytes::from(octets.into_bytes())))
            .map_err(|error| ClientError::Refused(error.to_string()))?;
        let unreachable = |error: hyper::Error| self.rest.unreachable(error);
        self.sender.ready().await.map_err(unreachable)?;
        let answer = self
            .sender
            .send_request(request)
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.map_err(unreachable)?.to_bytes();
        let value = match (status, body.is_empty()) {
            (StatusCode::NO_CONTENT, _) | (_, true) => Value::Null,
            _ => serde_json::from_slice(&body).map_err(|_| {
                self.rest.unreachable(format!(
                    "what answers there is no controller: HTTP {status} to /api/v1/{path}, and no JSON"
                ))
            })?,
        };
        match status.is_success() {
            true => Ok(value),
            false => {
                let detail = value["detail"].as_str();
                Err(ClientError::Refused(
                    detail.unwrap_or("no reason is given").to_owned(),
                ))
            }
        }
    }
}
