//! A small blocking client, for the command line.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::problem::Problem;

mod unix;

/// Longer than any answer takes; a router under load may be slow.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 routes with many labels stays far below.
const MAX_ANSWER: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no router answers at {url}: {reason}")]
    Unreachable {
        /// The address of the API.
        url: String,
        /// In the words of the system.
        reason: String,
    },
    /// The router answers with a problem.
    #[error("{} ({})", .0.detail, .0.title)]
    Problem(Problem),
    /// What answers is no Weft router, or not of this version.
    #[error("what answers at {url} is no Weft router of this version: {reason}")]
    Unexpected {
        /// The address of the API.
        url: String,
        /// What does not fit.
        reason: String,
    },
}

/// A client of one router's API.
pub struct Client {
    agent: ureq::Agent,
    /// Where the API is, for errors.
    base: String,
    /// What paths are put to.
    url: String,
}

impl Client {
    /// For the API at `base`: the path of a Unix socket such as `/run/weft/api.sock`, or a URL such as `http://127.0.0.1:8179`.
    pub fn new(base: &str) -> Self {
        Self::with_timeout(base, TIMEOUT)
    }

    /// The same, with the longest time that an answer may take.
    pub fn with_timeout(base: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
            .build();
        if base.starts_with('/') {
            return Self {
                agent: unix::agent(config, Path::new(base)),
                base: base.to_owned(),
                url: "http://localhost".to_owned(),
            };
        }
        let base = base.trim_end_matches('/');
        let base = match base.contains("://") {
            true => base.to_owned(),
            false => format!("http://{base}"),
        };
        Self {
            agent: config.into(),
            url: base.clone(),
            base,
        }
    }

    /// Asks for `path` below `/api/v1`, each of its segments as it is, with query parameters.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let path = written(path);
        let request = with(self.agent.get(self.at(&path)), query);
        self.read(request.call(), "GET", &path)
    }

    /// The same by POST, for what does something; without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let path = written(path);
        let request = with(self.agent.post(self.at(&path)), query);
        self.read(request.send_empty(), "POST", &path)
    }

    fn at(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.url)
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        method: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        let unexpected = |reason: String| ClientError::Unexpected {
            url: self.base.clone(),
            reason,
        };
        let mut response = response.map_err(|error| self.error(&error))?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(|error| self.error(&error))?;
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|error| {
                unexpected(format!("its answer to {method} {path} {}", misfit(&error)))
            });
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ClientError::Problem(problem)),
            Err(_) => Err(unexpected(format!(
                "HTTP status {status} to {method} {path}"
            ))),
        }
    }

    fn error(&self, error: &ureq::Error) -> ClientError {
        let url = self.base.clone();
        match error {
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => ClientError::Unreachable {
                url,
                reason: match error {
                    ureq::Error::Io(error) => error.to_string(),
                    error => error.to_string(),
                },
            },
            error => ClientError::Unexpected {
                url,
                reason: error.to_string(),
            },
        }
    }
}

/// How an answer is not what this version reads.
fn misfit(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Data => format!("does not fit: {error}"),
        Category::Syntax => "is no JSON".to_owned(),
        Category::Eof | Category::Io => "breaks off".to_owned(),
    }
}

fn with<B>(request: ureq::RequestBuilder<B>, query: &[(&str, String)]) -> ureq::RequestBuilder<B> {
    request.query_pairs(query.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Segments as a path.
fn written(path: &[&str]) -> String {
    path.iter()
        .map(|part| format!("/{}", escape(part)))
        .collect()
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn escape(part: &str) -> String {
    part.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(octet).to_string()
            }
            octet => format!("%{octet:02X}"),
        })
        .collect()
}
