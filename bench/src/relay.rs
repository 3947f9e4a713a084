//! What the machine can do at most: octets copied from the sender to every receiver, and never looked at.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use weft_bgp_wire::{Asn, Capability, Open, RouterId, encode_keepalive};

use crate::speaker::{ADDRESS, ASN};

/// Serves until it is ended. Senders have an address in 10.255.1.0/24, everybody else receives.
pub(crate) fn run() -> Result<()> {
    let listener = TcpListener::bind((ADDRESS, 179))?;
    let receivers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let open = Open {
            my_as: Asn(ASN).to_two_octets(),
            hold_time: 240,
            router_id: RouterId(ADDRESS),
            capabilities: vec![
                Capability::MultiProtocol(1, 1),
                Capability::FourOctetAs(Asn(ASN)),
            ],
        };
        let mut octets = Vec::new();
        open.encode(&mut octets);
        encode_keepalive(&mut octets);
        stream.write_all(&octets)?;
        let sends = matches!(stream.peer_addr()?.ip(), IpAddr::V4(ip) if ip.octets()[2] == 1);
        if !sends && let Ok(mut receivers) = receivers.lock() {
            receivers.push(stream.try_clone()?);
        }
        let receivers = receivers.clone();
        std::thread::spawn(move || copy(stream, sends, &receivers));
    }
    Ok(())
}

fn copy(mut stream: TcpStream, sends: bool, receivers: &Mutex<Vec<TcpStream>>) {
    let mut buffer = vec![0; 256 * 1024];
    // OPEN and KEEPALIVE of the handshake are the relay's own.
    let mut handshake = Handshake::default();
    // Whole messages only, or those of several senders would be mixed up.
    let mut rest: Vec<u8> = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        rest.extend_from_slice(handshake.skip(&buffer[..count]));
        let end = whole(&rest);
        if sends && let Ok(mut receivers) = receivers.lock() {
            for receiver in receivers.iter_mut() {
                if receiver.write_all(&rest[..end]).is_err() {
                    return;
                }
            }
        }
        rest.drain(..end);
    }
}

/// Where the last whole message ends.
fn whole(octets: &[u8]) -> usize {
    let mut end = 0;
    while let Some(header) = octets.get(end..end + 19) {
        let next = end + usize::from(u16::from_be_bytes([header[16], header[17]]));
        if next > octets.len() || next == end {
            break;
        }
        end = next;
    }
    end
}

/// Finds the end of the first two messages.
#[derive(Default)]
struct Handshake {
    octets: Vec<u8>,
    over: bool,
}

impl Handshake {
    fn skip<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        if self.over {
            return octets;
        }
        let before = self.octets.len();
        self.octets.extend_from_slice(octets);
        let mut at = 0;
        for _ in 0..2 {
            let Some(header) = self.octets.get(at..at + 19) else {
                return &[];
            };
            at += usize::from(u16::from_be_bytes([header[16], header[17]]));
            if at > self.octets.len() {
                return &[];
            }
        }
        self.over = true;
        &octets[at - before..]
    }
}
