//! Echo requests to other routers' tunnel endpoints, through the underlay (RFC 792, RFC 4443).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::probe::{ProbeAnswer, answer, request_with};
use crate::proof::Proofs;
use crate::sift::{self, Field};

/// Sends echo requests, and hears answers to them.
pub struct Echo {
    v4: UdpSocket,
    v6: UdpSocket,
    id: u16,
    /// In each request another one, which its answer has too.
    proofs: Proofs,
}

/// Given echo replies with this identifier alone. `own` is an address that requests leave from, of those of its family.
fn open(own: IpAddr, v6: bool, id: u16) -> io::Result<UdpSocket> {
    let (domain, protocol, reply) = match v6 {
        false => (Domain::IPV4, Protocol::ICMPV4, 0),
        true => (Domain::IPV6, Protocol::ICMPV6, 129),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    sift::only(&socket, v6, &[Field::Octet(0, reply), Field::Half(4, id)])?;
    socket.set_nonblocking(true)?;
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
        // Any that `probe`, which counts from 1, is long in coming to.
        let id = (std::process::id() as u16).rotate_left(5) ^ NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            v4: open(own, false, id)?,
            v6: open(own, true, id)?,
            id,
            proofs: Proofs::default(),
        })
    }

    /// Sends a request with this sequence number. Never waits.
    ///
    /// # Errors
    /// Where the kernel has no route, or no room.
    pub fn send(&self, to: IpAddr, sequence: u16) -> io::Result<()> {
        let socket = if to.is_ipv6() { &self.v6 } else { &self.v4 };
        let proof = self.proofs.to(to, sequence.into()).to_be_bytes();
        let octets = request_with(to.is_ipv6(), self.id, sequence, &proof);
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
            let packet = &packet[..len];
            if let Some((ProbeAnswer::Reply, sequence)) = answer(v6, packet, self.id)
                && data(v6, packet) == Some(self.proofs.to(from.ip(), sequence.into()))
            {
                return (from.ip(), sequence);
            }
        }
    }
}

/// The first octets of what an echo reply brings back, as a raw socket hands it over: with its header where it is IPv4.
fn data(v6: bool, packet: &[u8]) -> Option<u64> {
    let header = match v6 {
        true => 0,
        false => usize::from(packet.first()? & 0x0f) * 4,
    };
    let data = packet.get(header + 8..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any socket has room for, of packets that answer nobody here.
    #[test]
    fn a_flood_hides_no_answer() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: root (raw sockets)");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let echo = Echo::open([127, 0, 0, 1].into()).unwrap();
            for v6 in [false, true] {
                let (domain, protocol, to): (_, _, IpAddr) = match v6 {
                    false => (Domain::IPV4, Protocol::ICMPV4, [127, 0, 0, 1].into()),
                    true => (Domain::IPV6, Protocol::ICMPV6, "::1".parse().unwrap()),
                };
                let stranger = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
                let forged = |id| {
                    let mut reply = request_with(v6, id, 8, &[0; 8]);
                    // The checksum of IPv4 sums up without the kind.
                    reply[0] = if v6 { 129 } else { 0 };
                    reply
                };
                let reply = forged(echo.id ^ 1);
                // Who knows the identifier does not know what the answer has to bring back.
                let _ = stranger.send_to(&forged(echo.id), &SocketAddr::new(to, 0).into());
                for _ in 0..20_000 {
                    let to = SocketAddr::new(to, 0).into();
                    // What finds no room is a flood, too.
                    let _ = stranger.send_to(&reply, &to);
                }
                // The runtime has to see first that it may.
                let socket = if v6 { &echo.v6 } else { &echo.v4 };
                socket.writable().await.unwrap();
                echo.send(to, 7).unwrap();
                let patience = std::time::Duration::from_secs(10);
                let answer = tokio::time::timeout(patience, echo.receive()).await;
                assert_eq!(answer.expect("an answer"), (to, 7));
            }
        });
    }
}
