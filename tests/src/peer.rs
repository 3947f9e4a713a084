//! A BGP speaker that says what a test tells it to, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weft_bgp_wire::{
    Asn, Capability, HEADER_LEN, MAX_MESSAGE_LEN_EXTENDED, MessageType, Notification, Open,
    RouterId, encode_keepalive, next_frame,
};

use crate::{in_netns, wait_until};

/// Who a scripted peer is, and whom it talks to.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Network namespace that it connects from.
    pub netns: String,
    /// The router's address.
    pub router: Ipv4Addr,
    /// Its own AS.
    pub asn: u32,
    /// Its own BGP Identifier.
    pub router_id: Ipv4Addr,
}

/// An established session of a scripted peer, without hold time where nothing else is said.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A message from the router.
#[derive(Debug)]
pub enum Message {
    /// OPEN, UPDATE, KEEPALIVE or ROUTE-REFRESH, with its body.
    Other(MessageType, Vec<u8>),
    /// NOTIFICATION.
    Notification(Notification),
    /// The router closed the connection.
    Closed,
}

impl Speaker {
    /// Connects until the session is established; a router in its back-off is asked again.
    ///
    /// # Panics
    /// Where that does not succeed in two minutes.
    pub fn establish(&self) -> Peer {
        self.establish_with(0, &[])
    }

    /// The same with a hold time, seconds, which it is the caller's to keep, and more capabilities.
    ///
    /// # Panics
    /// The same.
    pub fn establish_with(&self, hold_time: u16, more: &[Capability]) -> Peer {
        let what = format!("a session of AS {} with {}", self.asn, self.router);
        wait_until(&what, Duration::from_secs(120), || {
            self.try_establish(hold_time, more)
        })
    }

    fn try_establish(&self, hold_time: u16, more: &[Capability]) -> Option<Peer> {
        let address = SocketAddr::from((self.router, 179));
        let stream = in_netns(&self.netns, || {
            TcpStream::connect_timeout(&address, Duration::from_secs(2))
        });
        let mut peer = Peer {
            stream: stream.ok()?,
            buffer: Vec::new(),
        };
        let open = Open {
            my_as: Asn(self.asn).to_two_octets(),
            hold_time,
            router_id: RouterId(self.router_id),
            capabilities: [
                Capability::MultiProtocol(1, 1),
                Capability::MultiProtocol(2, 1),
                Capability::RouteRefresh,
                Capability::FourOctetAs(Asn(self.asn)),
            ]
            .into_iter()
            .chain(more.iter().cloned())
            .collect(),
        };
        let mut octets = Vec::new();
        open.encode(&mut octets);
        peer.stream.write_all(&octets).ok()?;
        match peer.receive(Duration::from_secs(10))? {
            Message::Other(MessageType::Open, _) => {}
            _ => return None,
        }
        octets.clear();
        encode_keepalive(&mut octets);
        peer.stream.write_all(&octets).ok()?;
        match peer.receive(Duration::from_secs(10))? {
            Message::Other(MessageType::Keepalive, _) => Some(peer),
            _ => None,
        }
    }
}

impl Peer {
    /// Sends octets as they are.
    ///
    /// # Panics
    /// Where the router does not take them in two minutes.
    pub fn send(&mut self, octets: &[u8]) {
        self.stream
            .set_write_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        self.stream.write_all(octets).unwrap();
    }

    /// The same as far as the router takes them; false where it has closed the connection, or takes nothing for a second.
    pub fn try_send(&mut self, octets: &[u8]) -> bool {
        let limit = self.stream.set_write_timeout(Some(Duration::from_secs(1)));
        limit.is_ok() && self.stream.write_all(octets).is_ok()
    }

    /// The next message; `None` where none comes in time.
    ///
    /// # Panics
    /// Where the octets are no BGP.
    pub fn receive(&mut self, patience: Duration) -> Option<Message> {
        let end = Instant::now() + patience;
        let mut chunk = [0; 65536];
        loop {
            if let Some(frame) = next_frame(&self.buffer, MAX_MESSAGE_LEN_EXTENDED).unwrap() {
                let message: Vec<u8> = self.buffer.drain(..frame.len).collect();
                let body = &message[HEADER_LEN..];
                return Some(match frame.kind {
                    MessageType::Notification => Message::Notification(Notification::decode(body)),
                    kind => Message::Other(kind, body.to_vec()),
                });
            }
            let left = end.checked_duration_since(Instant::now())?;
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            match self.stream.read(&mut chunk) {
                Ok(0) => return Some(Message::Closed),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    ErrorKind::Interrupted => {}
                    _ => return Some(Message::Closed),
                },
            }
        }
    }

    /// Waits for the NOTIFICATION that ends the session.
    ///
    /// # Panics
    /// Where none comes.
    pub fn notification(&mut self) -> Notification {
        loop {
            match self.receive(Duration::from_secs(30)) {
                Some(Message::Notification(notification)) => return notification,
                Some(Message::Other(..)) => {}
                other => panic!("no NOTIFICATION, but {other:?}"),
            }
        }
    }
}

/// A path attribute, its length as it is.
///
/// # Panics
/// Where the value needs the extended length.
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags, code, u8::try_from(value.len()).unwrap()];
    octets.extend_from_slice(value);
    octets
}

/// An UPDATE of three fields as they are.
///
/// # Panics
/// Where they do not fit their length fields.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [
        &length(withdrawn),
        withdrawn,
        &length(attributes),
        attributes,
        nlri,
    ]
    .concat();
    let total = u16::try_from(HEADER_LEN + body.len()).unwrap();
    let kind = [MessageType::Update as u8];
    [&[0xff; 16], &total.to_be_bytes()[..], &kind, &body].concat()
}
