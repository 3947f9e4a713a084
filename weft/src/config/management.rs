//! Who manages the router: the domain's controller, the REST API, the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use weft_api::Address;

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
    /// Sessions with other routers of the domain are signed, with keys that the controller makes and replaces by itself. Where the other
    /// router, or this one's kernel, cannot, they are not.
    #[serde(default = "defaults::yes")]
    pub sign_sessions: bool,
    /// Files with the secrets of TCP MD5 signatures on sessions with routers of other domains, by their addresses, as `password_file` of a
    /// neighbour has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub password_files: BTreeMap<IpAddr, PathBuf>,
}

/// The REST API. It has no authentication of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// The absolute path of a Unix socket, whose file says who may use it; or an address and a port. At a port, requests with another
    /// `Host` than an address or `localhost` are refused, and those of other sites' pages; every user of this host may ask.
    #[serde(default)]
    #[schemars(with = "String")]
    pub listen: Address,
    /// Group that may use the Unix socket, too; its owner alone by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Listen at an address that other hosts reach: whoever reaches it may read everything and send packets into tenants.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unprotected: bool,
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

fn password_files(at: &Cursor<'_>) -> Option<BTreeMap<IpAddr, PathBuf>> {
    let entries = at.entries("addresses of neighbours, each with the path of a file")?;
    let files = entries.into_iter().filter_map(|(neighbor, file)| {
        let file = match file.scalar() {
            Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
            _ => file.expected("the absolute path of a file with the secret"),
        };
        Some((neighbor.parse("the address of a neighbour")?, file?))
    });
    Some(files.collect())
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
    let sign_sessions = fields.optional("sign_sessions", |at| at.bool());
    let password_files = fields.optional("password_files", |at| password_files(&at));
    fields.finish();
    Some(Controller {
        address: address?,
        token,
        state: state.unwrap_or_else(defaults::state),
        sign_sessions: sign_sessions.unwrap_or_else(defaults::yes),
        password_files: password_files.unwrap_or_default(),
    })
}

pub(super) fn api(at: &Cursor<'_>) -> Option<Api> {
    let mut fields = at.fields("a mapping with `listen`, and `group`")?;
    let listen = fields.optional("listen", |at| {
        let listen: Address = at.parse(
            "the absolute path of a Unix socket, or an address and a port, such as 127.0.0.1:8179 or [::1]:8179",
        )?;
        match &listen {
            // What `sockaddr_un` holds, unix(7).
            Address::Unix(path) if path.as_os_str().len() > 107 => {
                at.expected("a path of at most 107 octets")
            }
            _ => Some((listen, at)),
        }
    });
    let group = fields.optional("group", |at| {
        Some((text(&at, "the name of a group of this host")?, at))
    });
    let unprotected = fields.optional("unprotected", |at| at.bool());
    fields.finish();
    let unprotected = unprotected.unwrap_or_default();
    let (listen, listen_at) = listen.unzip();
    let listen = listen.unwrap_or_default();
    if let Some(at) = listen_at
        && listen.is_reachable_from_elsewhere()
        && !unprotected
    {
        at.problem(
            format!("other hosts reach {listen}, and the API asks nobody who he is"),
            Some("listen at a Unix socket or the loopback; `unprotected: true` opens it to whoever reaches it, behind a firewall".into()),
        );
    }
    let (group, group_at) = group.unzip();
    if let Some(at) = group_at
        && matches!(listen, Address::Tcp(_))
    {
        at.problem(
            "a TCP port has no group: every user of this host may use it",
            None,
        );
    }
    Some(Api {
        listen,
        group,
        unprotected,
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
