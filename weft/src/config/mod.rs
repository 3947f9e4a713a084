//! The configuration of one router: one YAML file, read into types that hold nothing invalid.
//!
//! [`Config::read`] reports everything that is wrong with a file at once ([`ConfigErrors`]), each with file, line,
//! column, key, what was found and what is allowed. Serialized, a [`Config`] is YAML that reads back to itself, with
//! all defaults spelled out.
//!
//! | module | what it is |
//! |---|---|
//! | [`document`] | the file as a whole: its sections, and what must fit together among them |
//! | [`router`] | what this router is to BGP |
//! | [`overlay`] | the overlay as this router takes part in it |
//! | [`tenant`] | tenants |
//! | [`chains`] | services and service chains of a tenant |
//! | [`neighbor`] | BGP neighbours, the router's and those of its tenants |
//! | [`group`] | what several neighbours have in common |
//! | [`policy`] | routing policies, and the lists that they name |
//! | [`session`] | what BGP sessions with both have in common |
//! | [`discovery`] | where further neighbours are learned from |
//! | [`management`] | the controller, the REST API, the log |
//! | [`places`] | where something stands in a file |
//! | [`parts`] | a configuration of which others wrote parts |
//! | [`defaults`] | what holds where the file says nothing |
//! | [`values`] | what sections are made of: numbers, addresses, names, lists |
//! | [`reader`] | typed reading of a tree of nodes, with the place of what does not fit |
//! | [`node`] | YAML as such a tree |
//! | [`report`] | everything that is wrong with a file, for its author |
//! | [`serial`] | types of other crates in YAML and in the JSON Schema |
//!
//! A section's module has its keys, with the documentation that the JSON Schema shows, and how they are read.

mod bfd;
mod chains;
pub(crate) mod defaults;
mod discovery;
mod document;
mod encoding;
mod group;
mod management;
mod neighbor;
pub(crate) mod node;
mod overlay;
pub(crate) mod parts;
pub(crate) mod places;
pub(crate) mod policy;
pub(crate) mod reader;
pub(crate) mod report;
mod router;
mod serial;
mod session;
mod tenant;
#[cfg(test)]
mod tests;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use weft_bgp_wire::{AnyCommunityPattern, Asn, Family};

pub(crate) use bfd::Bfd;
pub(crate) use chains::{ProbeKind, Service, chains, services};
pub(crate) use discovery::{Discovery, Source};
pub(crate) use group::Group;
pub(crate) use management::{Api, ApiTls, Controller, Log, LogFormat, LogLevel};
pub(crate) use neighbor::{LocalNextHop, Neighbor, NextHop, PrivateAs, SiteNeighbor};
pub(crate) use overlay::{CodePoint, Overlay, Segmentation, UnknownOrigins};
pub(crate) use policy::{AsPathItem, Library, Passing, Term};
pub(crate) use report::ConfigErrors;
pub(crate) use router::{DefaultPolicy, Router};
pub(crate) use session::{Martians, PrefixRange, Session};
pub(crate) use tenant::{Redistribute, Tenant};
pub(crate) use values::other_notation;

/// The configuration of one Weft router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The domain's controller. With it, everything that is not said here is the controller's to say: `router_id`, `asn`, tenants,
    /// neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<Controller>,
    /// What this router is to BGP.
    pub router: Router,
    /// The overlay; without it the router is a plain BGP speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// The tenants that this router hosts.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
    /// BGP neighbours.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// What several neighbours have in common, and prefixes that further ones may connect from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Routing policies by name: lists of terms, of which each is about some routes, may change them, and may accept or reject them. Neighbours
    /// name them at `import` and `export`. What no term decides is rejected. Weft has some ready: `bogons`, `hygiene`, `blackhole`,
    /// `graceful-shutdown`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, Vec<Term>>,
    /// Prefix lists by name, for `prefixes` of policies. Weft has some ready: `bogons`, `too-long`, `default-routes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, serial::OneOrMany<serial::PrefixRangeSchema>>")]
    pub prefix_lists: BTreeMap<String, Vec<PrefixRange>>,
    /// AS paths by name, for `as_path` of policies: regular expressions as in FRR, and ranges of AS numbers. Weft has one ready: `bogons`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, serial::OneOrMany<String>>")]
    pub as_paths: BTreeMap<String, Vec<AsPathItem>>,
    /// Communities by name, for `communities` of policies: patterns of all three sorts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "serial::display_lists"
    )]
    #[schemars(with = "BTreeMap<String, serial::OneOrMany<String>>")]
    pub communities: BTreeMap<String, Vec<AnyCommunityPattern>>,
    /// The policies, compiled.
    #[serde(skip)]
    pub library: Arc<Library>,
    /// Where further neighbours are learned from, live.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serial::mappings"
    )]
    pub discovery: Vec<Discovery>,
    /// Prefixes to originate without a label.
    #[serde(default)]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub networks: Vec<IpNet>,
    /// Unlabelled BGP routes to these prefixes, and to more specific ones, go into the main table.
    #[serde(default)]
    #[schemars(with = "Vec<serial::Prefix>")]
    pub install: Vec<IpNet>,
    /// The REST API.
    #[serde(default)]
    pub api: Api,
    /// The log, on standard error.
    #[serde(default)]
    pub log: Log,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or a [`ConfigErrors`] with everything that is wrong with it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let octets =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::decode(&path.display().to_string(), octets)?)
    }

    /// Reads the octets of a file; `file` is its name in errors.
    ///
    /// # Errors
    /// They are no UTF-8, or everything that is wrong with the text.
    fn decode(file: &str, octets: Vec<u8>) -> Result<Self, ConfigErrors> {
        match encoding::decode(octets) {
            Ok(text) => Self::parse(file, &text),
            Err((text, problem)) => Err(ConfigErrors::new(file, &text, vec![problem])),
        }
    }

    /// Reads a text; `file` is its name in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        document::read(text).map_err(|problems| {
            let problems = encoding::explain(text, problems);
            ConfigErrors::new(file, text, problems)
        })
    }

    /// eBGP neighbours between which and this router nothing passes in some direction, because nobody says what (RFC 8212): addresses and AS
    /// numbers, with the keys that are missing.
    fn without_policy(&self) -> impl Iterator<Item = (String, Asn, Vec<&'static str>)> {
        let named = self.neighbors.iter();
        let named = named.map(|one| (format!("neighbour {}", one.address), one));
        let listening = self.listening();
        let listening =
            listening.map(|(group, one)| (format!("a neighbour of group {}", group.name), one));
        let external = named.chain(listening).filter(|(_, neighbor)| {
            self.router.default_policy == DefaultPolicy::Reject && neighbor.asn != self.router.asn
        });
        external.filter_map(|(whom, neighbor)| {
            let session = &neighbor.session;
            let keys = [("import", &session.import), ("export", &session.export)];
            let missing = keys.iter().filter(|(_, said)| said.is_none());
            let missing: Vec<&str> = missing.map(|(key, _)| *key).collect();
            (!missing.is_empty()).then_some((whom, neighbor.asn, missing))
        })
    }

    /// Groups that neighbours join by connecting, each with what such a neighbour is.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (&Group, &Neighbor)> {
        let groups = self.groups.iter();
        groups.filter_map(|group| Some((group, group.template.as_deref()?)))
    }

    /// What may not be meant, for people.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let silent = self.without_policy().map(|(whom, asn, missing)| {
            let (keys, remedy) = match &missing[..] {
                [key] => (format!("`{key}`"), format!("`{key}: accept`")),
                _ => (
                    "`import` and `export`".to_owned(),
                    "`import: accept, export: accept`".to_owned(),
                ),
            };
            format!(
                "{whom} (AS {asn}) has no {keys}, and without a policy no routes pass (RFC 8212): name a policy, or {remedy} to let \
                 everything pass; `default_policy: accept` in `router` does so for all such neighbours"
            )
        });
        let (by_neighbor, by_nobody) = self.unannounced();
        let by_neighbor = by_neighbor.into_iter().map(|address| {
            format!(
                "neighbour {address}: nothing of this router's is announced in {}, since the session has no next hop for it: set its `local_address_v6`",
                Family::Ipv6Unicast
            )
        });
        let by_nobody = by_nobody.into_iter().map(|family| {
            format!(
                "what this router has in {family} is announced to nobody: no neighbour has {family} in its `families`"
            )
        });
        let anybodys = self.discovery.iter().any(Discovery::is_anybodys);
        let anybodys = (anybodys && self.overlay.is_some()).then(|| {
            "neighbours of `dns` and `mdns` say nothing of tenants here: anybody may answer there; `group` beside it names a group (`groups`) that \
             says what they may (`accept_vnis`) and how they prove who they are (`password_file`)"
                .to_owned()
        });
        silent
            .chain(by_neighbor)
            .chain(by_nobody)
            .chain(anybodys)
            .collect()
    }

    /// Neighbours with a family that this router has something to announce in, and no address to name as its next hop there; and families
    /// that no neighbour has.
    fn unannounced(&self) -> (Vec<IpAddr>, Vec<Family>) {
        let Some(overlay) = &self.overlay else {
            return (Vec::new(), Vec::new());
        };
        let is_of = |family: Family, v4: bool| v4 == (family == Family::Ipv4Unicast);
        let has = |family: &Family| {
            let mut tenants = self.tenants.iter();
            is_of(*family, overlay.endpoint.is_ipv4())
                || tenants.any(|tenant| {
                    let mut prefixes = tenant.prefixes.iter();
                    prefixes.any(|prefix| is_of(*family, prefix.addr().is_ipv4()))
                })
        };
        let (mut by_neighbor, mut by_nobody) = (Vec::new(), Vec::new());
        for family in Family::ALL.into_iter().filter(has) {
            let having = self.neighbors.iter();
            let having: Vec<_> = having
                .filter(|one| one.session.families.contains(&family))
                .collect();
            if having.is_empty() && !self.neighbors.is_empty() {
                by_nobody.push(family);
            }
            // Over IPv6 both families have next hops, if the neighbour agrees (RFC 8950).
            let mute = having.into_iter().filter(|one| {
                let named = one.session.local_address_v6.is_some();
                family == Family::Ipv6Unicast && one.address.is_ipv4() && !named
            });
            by_neighbor.extend(mute.map(|one| one.address));
        }
        (by_neighbor, by_nobody)
    }

    /// As YAML that reads back to the same configuration.
    ///
    /// # Errors
    /// None that a configuration can cause; the serializer's own.
    pub(crate) fn to_yaml(&self) -> anyhow::Result<String> {
        Ok(serde_yaml::to_string(self)?)
    }

    /// The JSON Schema of a configuration file.
    pub(crate) fn json_schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        serial::strip_null(&mut schema);
        // A group has what a neighbour has, but for who it is.
        let definitions = &mut schema["$defs"];
        let inherited = definitions["Neighbor"]["properties"].clone();
        if let (Some(inherited), Some(group)) = (
            inherited.as_object(),
            definitions["Group"]["properties"].as_object_mut(),
        ) {
            for (key, value) in inherited {
                if !["address", "group"].contains(&key.as_str()) {
                    group.insert(key.clone(), value.clone());
                }
            }
        }
        definitions["Group"]["additionalProperties"] = false.into();
        schema["title"] = "Weft router configuration".into();
        schema
    }
}
