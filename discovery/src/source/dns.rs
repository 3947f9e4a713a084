//! Peers in DNS: SRV records name them (RFC 2782), and TXT records beside their addresses say their AS number (`asn=64601`). They are asked
//! for again when their time to live is over.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::{Peer, Peers, Source, SourceError};

/// However long a record may live, and however short.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// A name with SRV records, such as `_bgp._tcp.example.com`.
pub struct Dns {
    name: String,
    resolver: TokioResolver,
    due: Option<Instant>,
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
                let connections = connections.map(|mut of| {
                    of.port = server.port();
                    of
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
        })
    }

    async fn ask(&mut self) -> Result<Peers, SourceError> {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due.into()).await;
        }
        let mut until = Instant::now() + LONGEST;
        let mut peers = Peers::new();
        let services = self
            .lookup(&self.name.clone(), RecordType::SRV, &mut until)
            .await?;
        for service in services {
            let RData::SRV(service) = service else {
                continue;
            };
            let target = service.target.to_utf8();
            let mut asn = None;
            for text in self.lookup(&target, RecordType::TXT, &mut until).await? {
                let RData::TXT(text) = text else { continue };
                let text = text.to_string();
                let words = text.split_whitespace();
                asn = asn.or_else(|| {
                    let mut numbers =
                        words.filter_map(|word| word.trim_matches('"').strip_prefix("asn="));
                    numbers.next()?.parse().ok()
                });
            }
            let mut addresses = self.lookup(&target, RecordType::A, &mut until).await?;
            addresses.extend(self.lookup(&target, RecordType::AAAA, &mut until).await?);
            let name = target.trim_end_matches('.');
            for (at, address) in addresses.into_iter().enumerate() {
                let address = match address {
                    RData::A(address) => address.0.into(),
                    RData::AAAA(address) => address.0.into(),
                    _ => continue,
                };
                let name = match at {
                    0 => name.to_owned(),
                    at => format!("{name}-{at}"),
                };
                peers.insert(
                    name,
                    Peer {
                        address,
                        asn,
                        port: service.port,
                        route_reflector_client: false,
                    },
                );
            }
        }
        self.due = Some(until.max(Instant::now() + SHORTEST));
        Ok(peers)
    }

    /// The data of records; none where there are none. `until` becomes earlier where they live shorter.
    async fn lookup(
        &self,
        name: &str,
        kind: RecordType,
        until: &mut Instant,
    ) -> Result<Vec<RData>, SourceError> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                *until = (*until).min(found.valid_until());
                let answers = found.answers().iter();
                let answers = answers.filter(|of| of.record_type() == kind);
                Ok(answers.map(|of| of.data.clone()).collect())
            }
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(SourceError(format!("{name} {kind}: {error}"))),
        }
    }
}

impl Source for Dns {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Peers, SourceError>> + Send + '_>> {
        Box::pin(self.ask())
    }
}
