//! A RIB between a sender and some receivers, without sockets.

use std::net::{IpAddr, Ipv4Addr};

use weft_bgp_core::policy::RoutePolicy;
use weft_bgp_core::rib::{PeerConfig, PeerId, PeerKind, PeerUp, PlainBgp, Rib, RibConfig};
use weft_bgp_wire::{Asn, Family, HEADER_LEN, RouterId, next_frame};

use crate::{SPEAKER_ASN, Sender};

/// Neighbours 1 and up send, the last one receives; all are other ASes.
pub struct Bench {
    rib: Rib,
    receiver: PeerId,
}

/// Neighbour number `at`, from 1.
pub fn sender(at: u16) -> Sender {
    Sender {
        address: address(at),
        asn: Some(64_800 + u32::from(at)),
    }
}

fn address(at: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 1, at as u8)
}

impl Bench {
    /// A RIB with this many senders and one receiver.
    pub fn new(senders: u16) -> Self {
        Self::with_import(senders, &RoutePolicy::Accept)
    }

    /// The same with an import policy for all of them.
    pub fn with_import(senders: u16, import: &RoutePolicy) -> Self {
        let router_id = RouterId(Ipv4Addr::new(10, 255, 0, 1));
        let config = RibConfig {
            asn: Asn(SPEAKER_ASN),
            router_id,
            cluster_id: router_id.0,
            overlay_administrator: None,
            report: Vec::new(),
            seed: 1,
        };
        let mut rib = Rib::new(config, Box::new(PlainBgp));
        for at in 1..=senders + 1 {
            let peer = PeerId(at);
            let config = PeerConfig {
                kind: PeerKind::Ebgp,
                asn: Asn(64_800 + u32::from(at)),
                address: address(at).into(),
                next_hop_self: true,
                import: import.clone(),
                export: RoutePolicy::Accept,
                max_prefixes: None,
                max_paths: u32::MAX,
                allow_own_as: 0,
                as_path: Default::default(),
                enforce_first_as: false,
                accept_martians: false,
                import_class: 0,
                export_class: 0,
                role: None,
            };
            rib.add_peer(peer, config);
            let up = PeerUp {
                families: vec![Family::Ipv4Unicast],
                four_octet_as: true,
                max_message_len: 4096,
                add_path_send: [false; 2],
                add_path_receive: [false; 2],
                router_id: RouterId(address(at)),
                enhanced_refresh: false,
                extended_next_hop: false,
                local_address: IpAddr::from(router_id.0),
                local_address_v6: None,
                shared_link: None,
            };
            rib.peer_up(peer, up);
        }
        Self {
            rib,
            receiver: PeerId(senders + 1),
        }
    }

    /// Takes a stream of UPDATEs in from a sender.
    ///
    /// # Panics
    /// Where it is no such stream.
    pub fn take(&mut self, from: u16, mut stream: &[u8]) {
        while let Ok(Some(frame)) = next_frame(stream, 4096) {
            let body = &stream[HEADER_LEN..frame.len];
            self.rib
                .handle_update(PeerId(from), body)
                .expect("a load is well-formed");
            stream = &stream[frame.len..];
        }
        let (track, _) = self.rib.poll_next_hops();
        let resolved: Vec<_> = track.into_iter().map(|hop| (hop, Some(0))).collect();
        if !resolved.is_empty() {
            self.rib.set_next_hops(&resolved);
        }
    }

    /// Encodes what is to be sent; returns the receiver's octets.
    pub fn send(&mut self) -> usize {
        let mut octets = 0;
        for at in 1..=self.receiver.0 {
            while let Some(piece) = self.rib.poll_transmit(PeerId(at)) {
                if at == self.receiver.0 {
                    octets += piece.len();
                }
            }
        }
        octets
    }

    /// Prefixes held.
    pub fn prefixes(&self) -> usize {
        self.rib.prefixes()[0]
    }
}
