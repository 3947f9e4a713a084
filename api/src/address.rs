//! Where the API is: a Unix socket, whose file says who may use it, or a TCP port.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Group;
use tokio::net::{TcpListener, UnixListener};

use crate::access::Secure;

/// The router's socket, where nothing else is said.
pub const SOCKET: &str = "/run/weft/api.sock";

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl Default for Address {
    fn default() -> Self {
        Self::Unix(SOCKET.into())
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.starts_with('/') {
            true => Ok(Self::Unix(text.into())),
            false => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Address {
    /// True where packets of other hosts reach it.
    pub fn is_reachable_from_elsewhere(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }

    /// Listens there. The file of a Unix socket is its owner's alone (0600), or `group`'s too (0660). A folder that is not there is
    /// made, and the file of a process that has ended is taken away.
    ///
    /// # Errors
    /// Where somebody else listens there, something else is there, or it is not permitted; where there is no such group; and where other
    /// hosts reach it without `secure`.
    pub async fn listen(
        &self,
        group: Option<&str>,
        secure: Option<Arc<Secure>>,
    ) -> std::io::Result<Listener> {
        match self {
            Self::Tcp(_) if secure.is_none() && self.is_reachable_from_elsewhere() => {
                Err(std::io::Error::new(
                    std::io::ErrorKind::PermissionDenied,
                    "other hosts reach it, which takes TLS and tokens",
                ))
            }
            Self::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?, secure)),
            Self::Unix(path) => {
                let listener = listen_at(path, group)?;
                let file = std::fs::symlink_metadata(path)?;
                Ok(Listener::Unix(
                    listener,
                    SocketFile {
                        path: path.clone(),
                        inode: (file.dev(), file.ino()),
                    },
                ))
            }
        }
    }
}

fn listen_at(path: &Path, group: Option<&str>) -> std::io::Result<UnixListener> {
    let group = match group {
        None => None,
        Some(name) => Some(Group::from_name(name)?.ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!(
                    "there is no group `{name}` on this host (`groupadd --system {name}` makes it)"
                ),
            )
        })?),
    };
    if let Some(folder) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(folder)?;
    }
    remove_stale(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file gets what the socket has: it is never wider, not for a moment.
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &UnixAddr::new(path)?,
    )?;
    if let Some(group) = group {
        chown(path, None, Some(group.gid.as_raw()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
        std::fs::set_permissions(path, mode)?;
    }
    listen(&socket, Backlog::new(128)?)?;
    UnixListener::from_std(socket.into())
}

/// Takes away the socket of a process that is no more.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    let other = |kind, text: &str| Err(std::io::Error::new(kind, text));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return other(
                std::io::ErrorKind::AlreadyExists,
                "a file that is no socket is there, which stays as it is",
            );
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => other(
            std::io::ErrorKind::AddrInUse,
            "another program listens there",
        ),
    }
}

/// The file of a Unix socket, which goes with it, unless another is there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|file| (file.dev(), file.ino()) == self.inode) {
            // The next to listen there takes away what stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket, with its file.
    Unix(UnixListener, SocketFile),
    /// A TCP port, in the clear on the loopback alone.
    Tcp(TcpListener, Option<Arc<Secure>>),
}

impl Listener {
    /// What keeps others out, where other hosts reach it.
    pub fn secure(&self) -> Option<&Arc<Secure>> {
        match self {
            Self::Tcp(_, secure) => secure.as_ref(),
            Self::Unix(..) => None,
        }
    }
}
