//! One router in a network namespace: a second one would adopt and rewrite what the first one holds in the kernel.
//!
//! The lock is an abstract Unix socket. The kernel keeps its name for each network namespace, and lets go of it with the process,
//! however that ends: nothing stale is left behind, and it says who has it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use anyhow::Context as _;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

const NAME: &str = "weft-router";

/// Held while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _listener: UnixListener,
}

impl Lock {
    /// Takes the lock of this network namespace.
    ///
    /// # Errors
    /// Where another router has it: which process that is.
    pub(crate) fn take() -> anyhow::Result<Self> {
        Self::take_named(NAME)
    }

    fn take_named(name: &str) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self {
                _listener: listener,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let who = owner(&address).map_or_else(String::new, |who| format!(": {who}"));
                anyhow::bail!(
                    "another weft router runs in this network namespace{who}; stop it first, or start this one in a namespace of its own"
                )
            }
            Err(error) => Err(error).context("cannot take the router's lock"),
        }
    }
}

/// True where a router runs in this network namespace.
pub(crate) fn is_running() -> bool {
    SocketAddr::from_abstract_name(NAME)
        .and_then(|address| UnixStream::connect_addr(&address))
        .is_ok()
}

/// The process that has the lock, and how it was started.
fn owner(address: &SocketAddr) -> Option<String> {
    let stream = UnixStream::connect_addr(address).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(match words.trim() {
        "" => format!("process {pid}"),
        words => format!("process {pid}, `{words}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let name = format!("weft-test-{}", std::process::id());
        let first = Lock::take_named(&name).unwrap();
        let refused = format!("{:#}", Lock::take_named(&name).unwrap_err());
        let own = format!("process {}, `", std::process::id());
        assert!(refused.contains(&own), "{refused}");
        drop(first);
        Lock::take_named(&name).unwrap();
    }
}
