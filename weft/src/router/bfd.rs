//! BFD towards neighbours: which sessions there are, and what follows from what they say.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};
use weft_bfd_io::{Bfd, Change, DownReason, Event, Path, Report, Scheduling};
use weft_bgp::Bgp;
use weft_dataplane::HOST_MARKS;

use crate::config::{self, Config};

/// The sessions that the configuration asks for, with those of dynamic neighbours.
pub(super) fn sessions(config: &Config, dynamic: &[config::Neighbor]) -> Vec<weft_bfd_io::Config> {
    let neighbors = config.neighbors.iter().chain(dynamic);
    let wanted = neighbors.filter(|one| one.session.shutdown.is_none());
    let sessions = wanted.filter_map(|one| {
        let bfd = one.bfd?;
        Some(weft_bfd_io::Config {
            peer: one.address,
            local: one.session.local_address,
            path: path(config, one, bfd),
            interval: Duration::from_millis(bfd.interval.into()),
            multiplier: bfd.multiplier,
            passive: bfd.passive,
        })
    });
    sessions.collect()
}

/// How packets of a neighbour travel, as those of its BGP session do.
fn path(config: &Config, neighbor: &config::Neighbor, bfd: config::Bfd) -> Path {
    let security = neighbor.session.ttl_security;
    let hops = security.unwrap_or(neighbor.ttl);
    let on_link = neighbor.asn != config.router.asn && hops == 1;
    match bfd
        .multihop
        .unwrap_or(!on_link || bfd.minimum_ttl.is_some())
    {
        false => Path::SingleHop,
        true => Path::MultiHop {
            minimum_ttl: bfd
                .minimum_ttl
                .or(security.map(|hops| u8::MAX - (hops - 1)))
                .unwrap_or(1),
        },
    }
}

/// Has BGP follow what BFD says.
pub(super) fn start(bgp: Bgp) -> Bfd {
    let (bfd, reports) = Bfd::new(HOST_MARKS);
    tokio::spawn(follow(reports, bgp));
    bfd
}

async fn follow(mut reports: mpsc::Receiver<Report>, bgp: Bgp) {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Started(Scheduling::RealTime) => {
                info!(scheduling = %Scheduling::RealTime, "BFD runs");
            }
            Report::Started(scheduling) => {
                warn!(%scheduling, "BFD runs, and may take this host's load for a failure: CAP_SYS_NICE or RLIMIT_RTPRIO (LimitRTPRIO=10) permits real-time scheduling");
            }
            Report::Problem(problem) => warn!("{problem}"),
            Report::Session(event) => handle(event, &bgp).await,
        }
    }
}

async fn handle(Event { peer, change }: Event, bgp: &Bgp) {
    let down = match change {
        Change::Up => {
            info!(neighbor = %peer, "BFD is up");
            let told = bgp.with(move |speaker, now| speaker.handle_bfd_up(peer, now));
            told.await;
            return;
        }
        Change::Down(down) => down,
    };
    let reason = down.reason;
    match reason {
        DownReason::Silence { .. } | DownReason::Neighbor(_) => {
            // First of all, since packets are lost.
            let text = reason.to_string();
            let told = bgp.with(move |speaker, now| {
                // Of three packets that are a failure the second is missed by then, whatever the number: one alone proves no restart.
                let missed = match reason {
                    DownReason::Silence { silence } => now.checked_sub(silence / 2),
                    _ => None,
                };
                speaker.handle_bfd_down(peer, &text, !down.independent, missed, now);
            });
            told.await;
            warn!(neighbor = %peer, %reason, "BFD is down");
        }
        // No failure of the path (RFC 5882 section 3.2).
        DownReason::NeighborAdminDown | DownReason::AdminDown => {
            info!(neighbor = %peer, %reason, "BFD is down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_travels_as_the_one_of_bgp_does() {
        let sessions = |neighbors: &str| {
            let text = format!(
                "router: {{ name: r, router_id: 192.0.2.1, asn: 64601 }}\nneighbors:\n{neighbors}"
            );
            let config = Config::parse("test", &text).unwrap();
            sessions(&config, &[])
        };
        let multi = |minimum_ttl| Path::MultiHop { minimum_ttl };
        for (fields, path) in [
            ("asn: 1, bfd: true", Path::SingleHop),
            ("asn: 1, ttl_security: true, bfd: true", Path::SingleHop),
            ("asn: 1, ttl: 3, bfd: true", multi(1)),
            ("asn: 1, ttl_security: 4, bfd: true", multi(252)),
            ("asn: 64601, bfd: true", multi(1)),
            ("asn: 64601, bfd: { multihop: false }", Path::SingleHop),
            ("asn: 1, bfd: { multihop: true }", multi(1)),
            ("asn: 1, bfd: { minimum_ttl: 250 }", multi(250)),
        ] {
            let found = sessions(&format!("  - {{ address: 192.0.2.2, {fields} }}\n"));
            assert_eq!(found.len(), 1, "{fields}");
            assert_eq!(found[0].path, path, "{fields}");
            assert_eq!(found[0].interval, Duration::from_millis(300));
            assert_eq!(found[0].multiplier, 3);
        }
        for fields in [
            "asn: 1",
            "asn: 1, bfd: false",
            "asn: 1, bfd: true, shutdown: true",
        ] {
            let found = sessions(&format!("  - {{ address: 192.0.2.2, {fields} }}\n"));
            assert!(found.is_empty(), "{fields}");
        }
    }
}
