//! Who manages the router: the domain's controller, the REST API, the log.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::defaults;
use super::reader::Cursor;
use super::values::text;

/// The controller of the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Controller {
    /// Where it is: `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`; port 8443 by default. Of a domain with several, all of them with commas
    /// between: one is taken, and another when it goes.
    pub address: String,
    /// The token to join with, where the router has not joined yet. It may be left out, and go, afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where the router keeps its certificate and what it knows, in a folder of its name.
    #[serde(default = "defaults::state")]
    pub state: PathBuf,
}

/// The REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Address and port. The API has no authentication: keep it on the loopback, or behind a firewall.
    #[serde(default = "defaults::api_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: defaults::api_listen(),
        }
    }
}

/// The log, on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// The least important lines to write; the environment variable `WEFT_LOG` overrides it.
    #[serde(default)]
    pub level: LogLevel,
    /// How lines look.
    #[serde(default)]
    pub format: LogFormat,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// Something that should work does not, and somebody must act.
    Error,
    /// Something is off, and handled.
    Warn,
    /// What an operator wants to see: sessions up and down, convergence.
    #[default]
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything, route by route.
    Trace,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For humans.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn controller(at: &Cursor<'_>) -> Option<Controller> {
    let mut fields = at.fields("a mapping with `address`, and `token` to join with")?;
    let address = fields.required("address", "where the controller is, HOST:PORT", |at| {
        text(&at, "HOST, HOST:PORT or [ADDRESS]:PORT")
    });
    let token = fields.optional("token", |at| {
        let text = at.scalar().unwrap_or_default();
        match text.parse::<weft_discovery::pki::TokenText>() {
            Ok(_) => Some(text.to_owned()),
            Err(_) => at.expected(
                "a join token, weft.ID.SECRET.FINGERPRINT, as `weft token create` prints it",
            ),
        }
    });
    let state = fields.optional("state", |at| match at.scalar() {
        Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
        _ => at.expected("the absolute path of a folder"),
    });
    fields.finish();
    Some(Controller {
        address: address?,
        token,
        state: state.unwrap_or_else(defaults::state),
    })
}

pub(super) fn api(at: &Cursor<'_>) -> Option<Api> {
    let mut fields = at.fields("a mapping with `listen`")?;
    let listen: Option<SocketAddr> = fields.optional("listen", |at| {
        at.parse("an address and a port, such as 127.0.0.1:8179 or [::1]:8179")
    });
    fields.finish();
    Some(Api {
        listen: listen.unwrap_or_else(defaults::api_listen),
    })
}

pub(super) fn log(at: &Cursor<'_>) -> Option<Log> {
    let mut fields = at.fields("a mapping with `level` and `format`")?;
    let level = fields.optional("level", |at| {
        at.choice(&[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ])
    });
    let format = fields.optional("format", |at| {
        at.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
    });
    fields.finish();
    Some(Log {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
    })
}
