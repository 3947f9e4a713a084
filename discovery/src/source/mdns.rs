//! Peers on the link, by multicast DNS (RFC 6762, RFC 6763): every router there says that it is there. For labs: anybody on the link is
//! believed.

use std::pin::Pin;

use mdns_sd::{IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};

use super::{Peer, Said, Source, SourceError};

/// What is looked for, and announced.
const SERVICE: &str = "_weft-bgp._tcp.local.";

/// The routers on a link.
pub struct Mdns {
    interface: String,
    /// What this router is called there.
    own: String,
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    found: Said,
}

fn failed(error: impl std::fmt::Display) -> SourceError {
    SourceError(format!("mDNS: {error}"))
}

impl Mdns {
    /// Announces this router on an interface, and listens there.
    ///
    /// # Errors
    /// Where the interface is not there, or multicast cannot be had.
    pub fn new(interface: &str, name: &str, asn: u32, port: u16) -> Result<Self, SourceError> {
        let daemon = ServiceDaemon::new().map_err(failed)?;
        daemon.disable_interface(IfKind::All).map_err(failed)?;
        daemon
            .enable_interface(IfKind::Name(interface.to_owned()))
            .map_err(failed)?;
        let host = format!("{name}.local.");
        let properties = [("asn", asn.to_string())];
        let service = ServiceInfo::new(SERVICE, name, &host, "", port, &properties[..]);
        let service = service.map_err(failed)?.enable_addr_auto();
        daemon.register(service).map_err(failed)?;
        let events = daemon.browse(SERVICE).map_err(failed)?;
        Ok(Self {
            interface: interface.to_owned(),
            own: format!("{name}.{SERVICE}"),
            daemon,
            events,
            found: Said::new(),
        })
    }

    async fn listen(&mut self) -> Result<Said, SourceError> {
        loop {
            match self.events.recv_async().await.map_err(failed)? {
                ServiceEvent::ServiceResolved(found) if found.fullname != self.own => {
                    let name = found.fullname.trim_end_matches(SERVICE);
                    let name = name.trim_end_matches('.').to_owned();
                    let mut addresses: Vec<std::net::IpAddr> =
                        found.addresses.iter().map(|one| one.to_ip_addr()).collect();
                    // IPv4 first; a link-local address says nothing without its link.
                    addresses.retain(|one| match one {
                        std::net::IpAddr::V4(_) => true,
                        std::net::IpAddr::V6(one) => !one.is_unicast_link_local(),
                    });
                    addresses.sort_unstable();
                    let record = record(
                        addresses.first().copied(),
                        found.get_property_val_str("asn"),
                        found.port,
                    );
                    self.found.insert(name, record);
                }
                ServiceEvent::ServiceRemoved(_, fullname) => {
                    let name = fullname.trim_end_matches(SERVICE);
                    self.found.remove(name.trim_end_matches('.'));
                }
                ServiceEvent::SearchStarted(_) => {}
                _ => continue,
            }
            return Ok(self.found.clone());
        }
    }
}

/// What a router on the link says of itself.
fn record(address: Option<std::net::IpAddr>, asn: Option<&str>, port: u16) -> Result<Peer, String> {
    let asn = asn.map(|text| {
        let number = text.parse();
        number.map_err(|_| format!("`asn={text}` is no AS number"))
    });
    Ok(Peer {
        address: address.ok_or("it has no address that is good without its link")?,
        asn: asn.transpose()?,
        port,
        route_reflector_client: false,
    })
}

impl Drop for Mdns {
    fn drop(&mut self) {
        // It says goodbye, where it can.
        let _ = self.daemon.shutdown();
    }
}

impl Source for Mdns {
    fn name(&self) -> String {
        format!("mDNS on {}", self.interface)
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Said, SourceError>> + Send + '_>> {
        Box::pin(self.listen())
    }
}
