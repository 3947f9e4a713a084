//! Where further neighbours are learned from.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::defaults;
use super::group;
use super::reader::Cursor;
use super::values::{interface, list, text};

/// A source of neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Discovery {
    /// What is asked.
    #[serde(flatten)]
    pub source: Source,
    /// The group that the neighbours are of: what it says they have. Without one they are neighbours of this AS as usual; but what those say
    /// of tenants that are learned from `dns` or `mdns`, where anybody may have answered, is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl Discovery {
    /// Nobody proves who answers there, and no group says what such neighbours may.
    pub(crate) fn is_anybodys(&self) -> bool {
        self.group.is_none() && matches!(self.source, Source::Dns { .. } | Source::Mdns { .. })
    }
}

/// What tells of neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Source {
    /// A YAML file, looked at again when it changes: names, each with `address`, and `asn`, `port`, `route_reflector_client` where they are
    /// not the usual.
    File(PathBuf),
    /// SRV records, asked for again when their time to live is over; a TXT record at the target, `asn=64601`, says its AS number.
    Dns {
        /// The name that has them, such as `_bgp._tcp.example.com`.
        name: String,
        /// Name servers, ADDRESS:PORT; the system's by default.
        #[serde(default)]
        #[schemars(with = "Vec<String>")]
        servers: Vec<SocketAddr>,
    },
    /// Keys in etcd, live: `PREFIX/NAME`, each a JSON object as in a file.
    Etcd {
        /// Members of the cluster, `http://HOST:2379` or `https://HOST:2379`.
        endpoints: Vec<String>,
        /// What the keys begin with.
        #[serde(default = "defaults::peers")]
        prefix: String,
        /// The authority that has signed the certificates of members at https, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cacert: Option<PathBuf>,
        /// The certificate that is shown to them, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cert: Option<PathBuf>,
        /// Its key, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<PathBuf>,
    },
    /// Routers on a link that look for each other, by multicast DNS. Anybody there may answer.
    Mdns {
        /// The interface.
        interface: String,
    },
}

pub(super) fn read(at: &Cursor<'_>, groups: &group::Written<'_>) -> Option<Discovery> {
    let allowed = "`file: PATH`, `dns: { name: NAME }`, `etcd: { endpoints: [URL] }` or `mdns: { interface: NAME }`";
    let mut fields = at.fields(allowed)?;
    let file = fields.optional("file", |at| {
        text(&at, "the path of a file").map(PathBuf::from)
    });
    let dns = fields.optional("dns", |at| {
        let mut fields = at.fields("a mapping with `name`")?;
        let name = fields.required(
            "name",
            "the name with SRV records, such as `_bgp._tcp.example.com`",
            |at| text(&at, "a name"),
        );
        let servers = fields.optional("servers", |at| {
            list(&at, "a list of name servers, ADDRESS:PORT", |at| {
                at.parse("a name server, such as 127.0.0.1:53")
            })
        });
        fields.finish();
        Some(Source::Dns {
            name: name?,
            servers: servers.unwrap_or_default(),
        })
    });
    let etcd = fields.optional("etcd", |at| {
        let mut fields = at.fields("a mapping with `endpoints`")?;
        let endpoints = fields.required(
            "endpoints",
            "members of the cluster, such as [http://127.0.0.1:2379]",
            |at| {
                let member = |text: &str| {
                    ["http://", "https://"]
                        .iter()
                        .any(|scheme| text.starts_with(scheme))
                };
                let what = "http://HOST:PORT or https://HOST:PORT";
                list(&at, &format!("a list of {what}"), |at| match at.scalar() {
                    Some(text) if member(text) => Some(text.to_owned()),
                    _ => at.expected(what),
                })
            },
        );
        let prefix = fields.optional("prefix", |at| text(&at, "what the keys begin with"));
        let [cacert, cert, key] = ["cacert", "cert", "key"].map(|name| {
            let path = fields.optional(name, |at| text(&at, "the path of a PEM file"));
            path.map(PathBuf::from)
        });
        fields.finish();
        Some(Source::Etcd {
            endpoints: endpoints.filter(|each| !each.is_empty())?,
            prefix: prefix.unwrap_or_else(defaults::peers),
            cacert,
            cert,
            key,
        })
    });
    let mdns = fields.optional("mdns", |at| {
        let mut fields = at.fields("a mapping with `interface`")?;
        let interface = fields.required("interface", "the link to look on, such as `eth0`", |at| {
            interface(&at)
        });
        fields.finish();
        Some(Source::Mdns {
            interface: interface?,
        })
    });
    let group = fields.optional("group", |at| group::named(&at, groups));
    fields.finish();
    let found = file
        .map(Source::File)
        .into_iter()
        .chain(dns)
        .chain(etcd)
        .chain(mdns);
    let mut found: Vec<Source> = found.collect();
    match (found.pop(), found.is_empty()) {
        (Some(source), true) => Some(Discovery {
            source,
            group: group.map(|(name, _)| name.to_string()),
        }),
        _ => at.expected(format!("one of {allowed}")),
    }
}
