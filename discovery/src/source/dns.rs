//! Peers in DNS: SRV records name them (RFC 2782), and TXT records beside their addresses say their AS number (`asn=64601`). They are asked
//! for again when their time to live is over.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::{Peer, Said, Source, SourceError};

/// However long a record may live, and however short.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);
/// That there is nothing is asked again after this at the latest, whatever the zone says; and after the other where it says nothing.
const NOTHING_LONGEST: Duration = Duration::from_secs(60);
const NOTHING: Duration = Duration::from_secs(5);
/// Peers that were known stay for so long against the word that there are none: a zone that is being loaded says so too.
const DOUBT: Duration = Duration::from_secs(300);
/// Aliases of aliases.
const ALIASES: usize = 8;

/// A name with SRV records, such as `_bgp._tcp.example.com`.
pub struct Dns {
    name: String,
    resolver: TokioResolver,
    due: Option<Instant>,
    /// The names of what was said last, by target.
    said: BTreeMap<String, Vec<String>>,
    /// Since when there is nothing where something was.
    nothing: Option<Instant>,
}

/// What a lookup found, and when it is over.
struct Answers {
    data: Vec<RData>,
    until: Instant,
}

/// When to ask again for what is not there.
fn again(negative_ttl: Option<u32>) -> Duration {
    let said = negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
    said.unwrap_or(NOTHING).clamp(SHORTEST, NOTHING_LONGEST)
}

/// The AS number that the texts beside a target say.
fn asn<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Option<u32>, String> {
    let words = texts.into_iter().flat_map(str::split_whitespace);
    let mut said = words.filter_map(|word| word.trim_matches('"').strip_prefix("asn="));
    let Some(text) = said.next() else {
        return Ok(None);
    };
    let number = match text.get(..2) {
        Some(prefix) if prefix.eq_ignore_ascii_case("as") => &text[2..],
        _ => text,
    };
    let number = number.parse();
    number
        .map(Some)
        .map_err(|_| format!("`asn={text}` is no AS number"))
}

impl Dns {
    /// Asks these servers, or those of the system where there are none.
    ///
    /// # Errors
    /// Where the system has none.
    pub fn new(name: &str, servers: &[SocketAddr]) -> Result<Self, SourceError> {
        let failed = |error: &dyn std::fmt::Display| SourceError(format!("{name}: {error}"));
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| failed(&error))?
        } else {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut one| {
                    one.port = server.port();
                    one
                });
                NameServerConfig::new(server.ip(), true, connections.to_vec())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        // What is asked for again is wanted anew.
        builder.options_mut().cache_size = 0;
        let resolver = builder.build().map_err(|error| failed(&error))?;
        Ok(Self {
            name: name.to_owned(),
            resolver,
            due: None,
            said: BTreeMap::new(),
            nothing: None,
        })
    }

    async fn ask(&mut self) -> Result<Said, SourceError> {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due.into()).await;
        }
        let asked = Instant::now();
        let services = self.lookup(&self.name, RecordType::SRV).await;
        let services = services.map_err(SourceError)?;
        let mut until = services.until.min(asked + LONGEST);
        let services = services.data.into_iter();
        let services: Vec<SRV> = services
            .filter_map(|one| match one {
                RData::SRV(one) => Some(one),
                _ => None,
            })
            .collect();
        if services.is_empty() && !self.said.is_empty() {
            let since = *self.nothing.get_or_insert(asked);
            if asked.duration_since(since) < DOUBT {
                self.due = Some(until.max(asked + SHORTEST));
                return Err(SourceError(format!(
                    "{} has no SRV records any more; that is believed when it has been so for {} s",
                    self.name,
                    DOUBT.as_secs()
                )));
            }
        }
        self.nothing = None;
        let mut said = Said::new();
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for service in services {
            let target = service.target.to_utf8();
            let name = target.trim_end_matches('.').to_owned();
            if names.contains_key(&name) {
                let reason = "its target stands in a second SRV record: a neighbour has one port";
                said.insert(format!("{name}:{}", service.port), Err(reason.into()));
                continue;
            }
            let peers = self.peers(&target, service.port, &mut until).await;
            let records: Vec<(String, Result<Peer, String>)> = match peers {
                Ok(peers) => {
                    let numbered = peers.into_iter().enumerate();
                    numbered
                        .map(|(at, peer)| match at {
                            0 => (name.clone(), Ok(peer)),
                            at => (format!("{name}-{at}"), Ok(peer)),
                        })
                        .collect()
                }
                // Each of its peers that is known.
                Err(reason) => {
                    until = until.min(asked + NOTHING_LONGEST);
                    let known = self.said.get(&name).cloned();
                    let known = known.filter(|one| !one.is_empty());
                    let known = known.unwrap_or_else(|| vec![name.clone()]);
                    known
                        .into_iter()
                        .map(|name| (name, Err(reason.clone())))
                        .collect()
                }
            };
            names.insert(name, records.iter().map(|(name, _)| name.clone()).collect());
            said.extend(records);
        }
        self.said = names;
        self.due = Some(until.max(Instant::now() + SHORTEST));
        Ok(said)
    }

    /// The peers at a target: one for each of its addresses.
    async fn peers(
        &self,
        target: &str,
        port: u16,
        until: &mut Instant,
    ) -> Result<Vec<Peer>, String> {
        let texts = self.lookup(target, RecordType::TXT).await?;
        // Most targets have none, and none is no reason to ask sooner.
        if !texts.data.is_empty() {
            *until = (*until).min(texts.until);
        }
        let texts: Vec<String> = texts.data.iter().map(ToString::to_string).collect();
        let asn = asn(texts.iter().map(String::as_str))?;
        let mut peers = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let found = self.lookup(target, kind).await?;
            if !found.data.is_empty() {
                *until = (*until).min(found.until);
            }
            for data in found.data {
                let address: IpAddr = match data {
                    RData::A(address) => address.0.into(),
                    RData::AAAA(address) => address.0.into(),
                    _ => continue,
                };
                peers.push(Peer {
                    address,
                    asn,
                    port,
                    route_reflector_client: false,
                });
            }
        }
        match peers.is_empty() {
            true => Err(format!("{target} has no address")),
            false => Ok(peers),
        }
    }

    /// The data of records; none where there are none.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Answers, String> {
        let mut name = name.to_owned();
        let mut until = Instant::now() + LONGEST;
        for _ in 0..ALIASES {
            let (alias, nothing) = match self.resolver.lookup(&name, kind).await {
                Ok(found) => {
                    until = until.min(found.valid_until());
                    let answers = found.answers().iter().map(|one| &one.data);
                    let wanted = answers.clone().filter(|one| one.record_type() == kind);
                    let data: Vec<RData> = wanted.cloned().collect();
                    if !data.is_empty() {
                        return Ok(Answers { data, until });
                    }
                    // The last of a chain of aliases.
                    let alias = answers.filter_map(target).next_back();
                    (alias, NOTHING)
                }
                Err(error) => match nothing(&error) {
                    Some(ttl) => (self.alias(&name, kind).await?, ttl),
                    None => return Err(format!("{name} {kind}: {error}")),
                },
            };
            match alias {
                Some(alias) => name = alias,
                None => {
                    return Ok(Answers {
                        data: Vec::new(),
                        until: until.min(Instant::now() + nothing),
                    });
                }
            }
        }
        Err(format!(
            "{name} {kind}: more than {ALIASES} aliases in a row"
        ))
    }

    /// What a name stands for. Servers follow an alias of addresses by themselves, and not all of them one of SRV records.
    async fn alias(&self, name: &str, kind: RecordType) -> Result<Option<String>, String> {
        if kind != RecordType::SRV {
            return Ok(None);
        }
        match self.resolver.lookup(name, RecordType::CNAME).await {
            Ok(found) => Ok(found.answers().iter().find_map(|one| target(&one.data))),
            Err(error) if nothing(&error).is_some() => Ok(None),
            Err(error) => Err(format!("{name} CNAME: {error}")),
        }
    }
}

/// What an alias stands for.
fn target(data: &RData) -> Option<String> {
    match data {
        RData::CNAME(one) => Some(one.0.to_utf8()),
        _ => None,
    }
}

/// When to ask again, where an answer says that there is nothing.
fn nothing(error: &NetError) -> Option<Duration> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(one)) => Some(again(one.negative_ttl)),
        _ => None,
    }
}

impl Source for Dns {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Said, SourceError>> + Send + '_>> {
        Box::pin(self.ask())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn that_there_is_nothing_is_asked_again_within_a_minute() {
        let seconds = |ttl| again(ttl).as_secs();
        assert_eq!(seconds(None), 5);
        assert_eq!(seconds(Some(0)), 1);
        assert_eq!(seconds(Some(30)), 30);
        assert_eq!(seconds(Some(3600)), 60);
    }

    #[test]
    fn as_numbers_as_people_write_them() {
        assert_eq!(asn(["v=1", "asn=64601"]), Ok(Some(64601)));
        assert_eq!(asn(["\"asn=AS64603\" x"]), Ok(Some(64603)));
        assert_eq!(asn(["asns=1"]), Ok(None));
        assert_eq!(asn([]), Ok(None));
        for wrong in ["asn=", "asn=ASx", "asn=4294967296", "asn=64.5", "asn=é1"] {
            assert!(asn([wrong]).is_err(), "{wrong}");
        }
    }
}
