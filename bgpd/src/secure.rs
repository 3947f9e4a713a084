//! What the kernel checks of a connection before anybody reads it: TCP MD5 signatures (RFC 2385), and how many hops a packet has
//! come (the Generalized TTL Security Mechanism, RFC 5082).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use weft_bgp_core::speaker::Password;

/// Octets of the kernel's `struct tcp_md5sig`: an address, flags, prefix length, key length, interface, and the key.
const SIGNATURE: usize = 216;
/// Octets of its address, a `struct sockaddr_storage`.
const ADDRESS: usize = 128;

fn set(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets as there are, and keeps no pointer to them.
    #[allow(unsafe_code, reason = "nobody wraps these socket options")]
    let failed = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Segments to and from these addresses are signed with the key; without one they no longer are. Of several keys that of the longest
/// prefix is used.
fn sign(socket: &impl AsFd, from: IpNet, key: Option<&[u8]>) -> io::Result<()> {
    /// Of linux/tcp.h: `tcpm_prefixlen` counts.
    const FLAG_PREFIX: u8 = 1;
    let key = key.unwrap_or_default();
    let mut value = [0; SIGNATURE];
    let to = socket2::SockAddr::from(SocketAddr::new(from.addr(), 0));
    // SAFETY: an address has as many octets as it says.
    #[allow(unsafe_code, reason = "socket2 gives no octets of an address")]
    let octets = unsafe { std::slice::from_raw_parts(to.as_ptr().cast::<u8>(), to.len() as usize) };
    value[..octets.len()].copy_from_slice(octets);
    let room = &mut value[ADDRESS + 8..];
    let Some(room) = room.get_mut(..key.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    room.copy_from_slice(key);
    value[ADDRESS + 2..ADDRESS + 4].copy_from_slice(&(key.len() as u16).to_ne_bytes());
    if from.prefix_len() == from.max_prefix_len() {
        return set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &value);
    }
    (value[ADDRESS], value[ADDRESS + 1]) = (FLAG_PREFIX, from.prefix_len());
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &value)
}

/// Has the kernel let a listener have so many keys, where it does not: it counts them with the other options of a socket.
///
/// # Errors
/// That it cannot, and what to do.
pub(crate) fn make_room(keys: usize) -> io::Result<()> {
    const SETTING: &str = "/proc/sys/net/core/optmem_max";
    let Some(wanted) = std::fs::read_to_string(SETTING)
        .ok()
        .and_then(|text| room(keys, text.trim().parse().ok()?))
    else {
        return Ok(());
    };
    std::fs::write(SETTING, wanted.to_string()).map_err(|error| {
        let text = format!("{SETTING}: {error} (sysctl -w net.core.optmem_max={wanted})");
        io::Error::new(error.kind(), text)
    })
}

/// Octets of options that a socket with so many keys is to be allowed; `None` where `found` is enough.
fn room(keys: usize, found: usize) -> Option<usize> {
    /// Of one key, with some to spare: the kernel takes 136.
    const KEY: usize = 192;
    /// Of everything else.
    const OTHER: usize = 8 << 10;
    let wanted = keys * KEY + OTHER;
    (found < wanted).then(|| wanted.next_power_of_two())
}

/// Whether the kernel can sign connections.
///
/// # Errors
/// Why it cannot.
pub fn can_sign() -> io::Result<()> {
    let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(domain, kind, None)?;
    let trial = IpAddr::from([192, 0, 2, 1]).into();
    sign(&socket, trial, Some(b"trial")).map_err(explain)
}

/// Signs what goes over a connection to a neighbour.
///
/// # Errors
/// Where there is no key, or the kernel has no TCP MD5 signatures: there is to be no connection then.
pub(crate) fn sign_connection(
    socket: &impl AsFd,
    address: IpAddr,
    password: &Password,
) -> io::Result<()> {
    sign_prefix(socket, address.into(), password)
}

fn sign_prefix(socket: &impl AsFd, from: IpNet, password: &Password) -> io::Result<()> {
    match password {
        Password::Key(key) => sign(socket, from, Some(key)).map_err(explain),
        Password::Unreadable(why) => Err(io::Error::other(why.to_string())),
    }
}

/// Signs what goes over a connection that is there with another key, or no longer: both ends change it, and TCP sends again what the
/// other end did not take meanwhile.
///
/// # Errors
/// As [`sign_connection`]. Linux before 5.8 lets nobody change the key of a connection.
pub(crate) fn sign_again(
    socket: &impl AsFd,
    address: IpAddr,
    password: Option<&Password>,
) -> io::Result<()> {
    sign_listener(socket, address.into(), password)
}

/// Whether the other end of a connection takes what it is sent: nothing had to be sent a third time.
pub(crate) fn is_heard(socket: &impl AsFd) -> bool {
    /// Attempts to send the oldest segment again, as `struct tcp_info` has them.
    const RETRANSMITS: usize = 2;
    let mut info = [0_u8; 8];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes as many octets as there is room for, and keeps no pointer to them.
    #[allow(unsafe_code, reason = "nobody wraps this socket option")]
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    failed == 0 && info[RETRANSMITS] < 2
}

/// Asks a listener for signatures of connections from there, or for none any more.
///
/// # Errors
/// As [`sign_connection`]. What is not there need not go.
pub(crate) fn sign_listener(
    socket: &impl AsFd,
    from: IpNet,
    password: Option<&Password>,
) -> io::Result<()> {
    match password {
        Some(password) => sign_prefix(socket, from, password),
        None => match sign(socket, from, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map_err(explain),
        },
    }
}

fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(
            error.kind(),
            "this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG)",
        ),
        _ => error,
    }
}

/// Packets that have come over more hops than leave this TTL are dropped.
///
/// # Errors
/// The kernel's.
pub(crate) fn expect_ttl(socket: &impl AsFd, address: IpAddr, least: u8) -> io::Result<()> {
    /// Of linux/in6.h.
    const IPV6_MINHOPCOUNT: i32 = 73;
    let (level, option) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    set(socket, level, option, &i32::from(least).to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_for_as_many_keys_as_there_are_neighbours() {
        // As Debian 12 has it, and later kernels.
        assert_eq!(room(60, 20_480), None);
        assert_eq!(room(100, 20_480), Some(32 << 10));
        assert_eq!(room(600, 131_072), None);
        assert_eq!(room(2000, 131_072), Some(512 << 10));
    }
}
