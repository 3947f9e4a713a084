//! Echo requests to other routers' tunnel endpoints, through the underlay (RFC 792, RFC 4443).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::probe::{ProbeAnswer, answer, request};

/// Sends echo requests, and hears answers to them.
pub struct Echo {
    v4: UdpSocket,
    v6: UdpSocket,
    id: u16,
}

fn open(own: IpAddr, domain: Domain, protocol: Protocol) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let v6 = domain == Domain::IPV6;
    if own.is_ipv6() == v6 {
        // Also while no interface has it: requests cannot leave then.
        match v6 {
            true => socket.set_freebind_v6(true)?,
            false => socket.set_freebind_v4(true)?,
        }
        socket.bind(&SocketAddr::new(own, 0).into())?;
    }
    // Only for its safe receive: nothing of it is about UDP.
    UdpSocket::from_std(socket.into())
}

impl Echo {
    /// Opens what it needs. Requests leave from `own`, this router's tunnel endpoint, as tunnels do: who is on the way may know no other
    /// address of it. Those of the other address family leave from where the kernel's route says.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open(own: IpAddr) -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0x8000);
        Ok(Self {
            v4: open(own, Domain::IPV4, Protocol::ICMPV4)?,
            v6: open(own, Domain::IPV6, Protocol::ICMPV6)?,
            // Any that `probe`, which counts from 1, is long in coming to.
            id: (std::process::id() as u16).rotate_left(5) ^ NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Sends a request with this sequence number. Never waits.
    ///
    /// # Errors
    /// Where the kernel has no route, or no room.
    pub fn send(&self, to: IpAddr, sequence: u16) -> io::Result<()> {
        let socket = if to.is_ipv6() { &self.v6 } else { &self.v4 };
        let octets = request(to.is_ipv6(), self.id, sequence);
        socket
            .try_send_to(&octets, SocketAddr::new(to, 0))
            .map(drop)
    }

    /// Waits for the next answer: who gave it, and to which sequence number. It may be dropped at any time.
    pub async fn receive(&self) -> (IpAddr, u16) {
        let (mut of_v4, mut of_v6) = ([0; 256], [0; 256]);
        loop {
            let (v6, packet, received) = tokio::select! {
                received = self.v4.recv_from(&mut of_v4) => (false, &of_v4, received),
                received = self.v6.recv_from(&mut of_v6) => (true, &of_v6, received),
            };
            // An error is what somebody on the way said of an earlier packet: that one has no answer.
            let Ok((len, from)) = received else { continue };
            if let Some((ProbeAnswer::Reply, sequence)) = answer(v6, &packet[..len], self.id) {
                return (from.ip(), sequence);
            }
        }
    }
}
