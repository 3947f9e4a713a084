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

/// The REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Where it is, one place or several: the absolute path of a Unix socket, whose file says who may use it; or an address and a port. At
    /// a port of the loopback, requests with another `Host` than its addresses or `localhost` are refused, and those of other sites'
    /// pages; every user of this host may ask, unless there is `tls`. Other addresses take `tls`.
    #[serde(default = "defaults::listen")]
    #[schemars(schema_with = "places")]
    pub listen: Vec<Address>,
    /// Group that may use the Unix socket, too; its owner alone by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// With it all ports take TLS and a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ApiTls>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: defaults::listen(),
            group: None,
            tls: None,
        }
    }
}

/// How the ports of the API are protected. The files are looked at again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiTls {
    /// Absolute path of the certificate, PEM, with those that have signed it behind it. `weft api certificate` makes one.
    pub certificate: PathBuf,
    /// Absolute path of its private key, PEM.
    pub key: PathBuf,
    /// Absolute path of the file of tokens, a line each; `weft api token` changes it.
    pub tokens: PathBuf,
}

/// One place, or a list of them.
fn places(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ],
    })
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
    let mut fields = at.fields("a mapping with `listen`, `group` and `tls`")?;
    let listen = fields.optional("listen", |at| {
        let places = match at.is_sequence() {
            true => {
                let places = at.list("a list of places", |at| place(&at))?;
                places.into_iter().map(|place| place.value).collect()
            }
            false => vec![place(&at)?],
        };
        match at.is_empty_list() {
            true => at.expected("at least one place"),
            false => Some((places, at)),
        }
    });
    let group = fields.optional("group", |at| {
        Some((text(&at, "the name of a group of this host")?, at))
    });
    // One that is wrong has been told.
    let said = fields.optional("tls", |at| Some(tls(&at)));
    fields.finish();
    let (listen, listen_at) = listen.unzip();
    let listen = listen.unwrap_or_else(defaults::listen);
    let open = listen.iter().find(|one| one.is_reachable_from_elsewhere());
    if let (Some(at), Some(open), None) = (listen_at, open, &said) {
        at.problem(
            format!("other hosts reach {open}, which takes TLS and tokens"),
            Some(
                "listen at a Unix socket or the loopback, or say `tls: { certificate: FILE, key: FILE, tokens: FILE }`: `weft api certificate` \
                 and `weft api token create` make what is in them"
                    .into(),
            ),
        );
    }
    let (group, group_at) = group.unzip();
    if let Some(at) = group_at
        && !listen.iter().any(|one| matches!(one, Address::Unix(_)))
    {
        at.problem("a TCP port has no group", None);
    }
    Some(Api {
        listen,
        group,
        tls: said.flatten(),
    })
}

fn place(at: &Cursor<'_>) -> Option<Address> {
    let listen: Address = at.parse(
        "the absolute path of a Unix socket, or an address and a port, such as 127.0.0.1:8179 or [::1]:8179",
    )?;
    match &listen {
        // What `sockaddr_un` holds, unix(7).
        Address::Unix(path) if path.as_os_str().len() > 107 => {
            at.expected("a path of at most 107 octets")
        }
        _ => Some(listen),
    }
}

fn tls(at: &Cursor<'_>) -> Option<ApiTls> {
    let mut fields = at.fields("a mapping with `certificate`, `key` and `tokens`")?;
    let mut file = |name, what| {
        fields.required(name, what, |at| match at.scalar() {
            Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
            _ => at.expected("the absolute path of a file"),
        })
    };
    let certificate = file("certificate", "the file of the certificate, PEM");
    let key = file("key", "the file of its private key, PEM");
    let tokens = file("tokens", "the file of tokens");
    fields.finish();
    Some(ApiTls {
        certificate: certificate?,
        key: key?,
        tokens: tokens?,
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
