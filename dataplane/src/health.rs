//! Whether a service node answers: over the interface that it is attached by, whatever the routing tables say.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::probe::{ProbeAnswer, answer, request};

/// What a service node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeQuestion {
    /// An echo request (RFC 792, RFC 4443).
    Echo,
    /// A TCP connection to this port.
    Connect(u16),
    /// `GET` of this path at this port; a status of 2xx or 3xx is health.
    Get(u16, String),
}

/// Asks a service node.
///
/// # Errors
/// What went wrong, for a human; a node that does not answer within the time is [`io::ErrorKind::TimedOut`].
pub fn ask_node(
    interface: &str,
    node: IpAddr,
    question: &NodeQuestion,
    time: Duration,
) -> io::Result<()> {
    let port = match question {
        NodeQuestion::Echo => 0,
        NodeQuestion::Connect(port) | NodeQuestion::Get(port, _) => *port,
    };
    let to = match node {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            let link = nix::net::if_::if_nametoindex(interface)?;
            SocketAddrV6::new(address, port, 0, link).into()
        }
        address => SocketAddr::new(address, port),
    };
    let until = Instant::now() + time;
    match question {
        NodeQuestion::Echo => echo(interface, to, until),
        NodeQuestion::Connect(_) => connect(interface, to, time).map(drop),
        NodeQuestion::Get(_, path) => get(connect(interface, to, time)?, to, path, until),
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.checked_duration_since(Instant::now());
    left.filter(|left| !left.is_zero()).ok_or_else(timed_out)
}

fn domain(to: SocketAddr) -> Domain {
    Domain::for_address(to)
}

fn echo(interface: &str, to: SocketAddr, until: Instant) -> io::Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let v6 = to.is_ipv6();
    let protocol = if v6 {
        Protocol::ICMPV6
    } else {
        Protocol::ICMPV4
    };
    let socket = Socket::new(domain(to), Type::RAW, Some(protocol))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Only for its safe receive: nothing of it is about UDP.
    let socket = UdpSocket::from(socket);
    let id = (std::process::id() as u16).rotate_left(9) ^ NEXT.fetch_add(1, Ordering::Relaxed);
    socket.send_to(&request(v6, id, 1), to)?;
    let mut buffer = [0; 2048];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        };
        if from.ip() == to.ip()
            && matches!(
                answer(v6, &buffer[..len], id),
                Some((ProbeAnswer::Reply, _))
            )
        {
            return Ok(());
        }
    }
}

fn connect(interface: &str, to: SocketAddr, time: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(domain(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.connect_timeout(&to.into(), time)?;
    Ok(socket.into())
}

fn get(mut stream: TcpStream, to: SocketAddr, path: &str, until: Instant) -> io::Result<()> {
    let host = to.ip();
    let host = if to.is_ipv6() {
        format!("[{host}]")
    } else {
        host.to_string()
    };
    stream.set_write_timeout(Some(left(until)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weft\r\nConnection: close\r\n\r\n"
    );
    // At once: a node need not be patient.
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    // The status line is all that is looked at, and no longer than this.
    while line.len() < 256 && !line.contains(&b'\n') {
        stream.set_read_timeout(Some(left(until)?))?;
        let mut buffer = [0; 256];
        let len = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        };
        line.extend_from_slice(&buffer[..len]);
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/")
        .and_then(|one| one.split(' ').nth(1));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..400) => Ok(()),
        _ => Err(io::Error::other(format!("answered `{line}`"))),
    }
}
