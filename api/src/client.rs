//! A small blocking client, for the command line.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::token::TokenText;

mod tls;
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
    /// What is there to reach it with does not do.
    #[error("cannot ask {url}: {reason}")]
    Secrets {
        /// The address of the API.
        url: String,
        /// Why.
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

/// What a client shows to an API with TLS, and whom it takes for the router.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Who asks.
    pub token: Option<TokenText>,
    /// The authorities that may have signed the router's certificate, PEM; where absent, it is the token that says who the router is.
    pub authorities: Option<String>,
}

/// A client of one router's API.
pub struct Client {
    agent: ureq::Agent,
    /// Where the API is, for errors.
    base: String,
    /// What paths are put to.
    url: String,
    /// `Authorization`, which is sent over TLS alone.
    authorization: Option<String>,
}

impl Client {
    /// For the API at `base`: the path of a Unix socket such as `/run/weft/api.sock`, or a URL such as `http://127.0.0.1:8179` or
    /// `https://192.0.2.11:8179`.
    ///
    /// # Errors
    /// [`ClientError::Secrets`], where that is https and `secrets` do not say who is there.
    pub fn new(base: &str, secrets: &Secrets) -> Result<Self, ClientError> {
        Self::with_timeout(base, secrets, TIMEOUT)
    }

    /// The same, with the longest time that an answer may take.
    ///
    /// # Errors
    /// The same.
    pub fn with_timeout(
        base: &str,
        secrets: &Secrets,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
            .build();
        if base.starts_with('/') {
            return Ok(Self {
                agent: unix::agent(config, Path::new(base)),
                base: base.to_owned(),
                url: "http://localhost".to_owned(),
                authorization: None,
            });
        }
        let base = base.trim_end_matches('/');
        if let Some(place) = base.strip_prefix("https://") {
            return Self::secure(config, base, place, secrets);
        }
        let base = match base.contains("://") {
            true => base.to_owned(),
            false => format!("http://{base}"),
        };
        Ok(Self {
            agent: config.into(),
            url: base.clone(),
            base,
            authorization: None,
        })
    }

    fn secure(
        config: ureq::config::Config,
        base: &str,
        place: &str,
        secrets: &Secrets,
    ) -> Result<Self, ClientError> {
        let wrong = |reason: String| ClientError::Secrets {
            url: base.to_owned(),
            reason,
        };
        let trust = match (&secrets.authorities, &secrets.token) {
            (Some(text), _) => tls::Trust::Authorities(text.clone()),
            (None, Some(token)) => tls::Trust::Fingerprint(token.fingerprint.clone()),
            (None, None) => {
                return Err(wrong(
                    "it takes a token, which `weft api token create` makes at the router (--token-file, WEFT_API_TOKEN)".to_owned(),
                ));
            }
        };
        let port = match place.rsplit_once(':') {
            // An IPv6 address has colons of its own.
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => "",
            _ => ":443",
        };
        Ok(Self {
            agent: tls::agent(config, trust).map_err(wrong)?,
            base: base.to_owned(),
            url: format!("http://{place}{port}"),
            authorization: secrets
                .token
                .as_ref()
                .map(|token| format!("Bearer {token}")),
        })
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
        let request = self.with(self.agent.get(self.at(&path)), query);
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
        let request = self.with(self.agent.post(self.at(&path)), query);
        self.read(request.send_empty(), "POST", &path)
    }

    fn with<B>(
        &self,
        request: ureq::RequestBuilder<B>,
        query: &[(&str, String)],
    ) -> ureq::RequestBuilder<B> {
        let request =
            request.query_pairs(query.iter().map(|(name, value)| (*name, value.as_str())));
        match &self.authorization {
            Some(shown) => request.header("authorization", shown),
            None => request,
        }
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
