//! One router in a network namespace: a second one would adopt and rewrite what the first one holds in the kernel.
//!
//! The lock is a locked file that its owner alone can open, with the namespace's number in its name; the kernel unlocks it with the process, however
//! that ends. Routers with a /run of their own in one namespace (containers) do not see each other's file, so each also has an abstract Unix
//! socket, which the kernel keeps for each namespace. Every user may take such a name: who is neither root nor the router's user does not
//! count.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{geteuid, getuid};
use tracing::warn;

const NAME: &str = "weft-router";
const FOLDER: &str = "/run/weft";

/// Held while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<Flock<File>>,
    _listener: Option<UnixListener>,
}

impl Lock {
    /// Takes the lock of this network namespace.
    ///
    /// # Errors
    /// Where another router has it: which process that is.
    pub(crate) fn take() -> anyhow::Result<Self> {
        Self::take_in(Path::new(FOLDER), NAME)
    }

    fn take_in(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = file(folder)?;
        let file = match open(folder, &path) {
            Ok(file) => Some(lock(file)?),
            // A user who may not write there is in a namespace of its own, or meets the router by the socket.
            Err(error) if is_denied(&error) => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        Ok(Self {
            _listener: take_name(name, owner_of(folder), file.is_some())?,
            _file: file,
        })
    }
}

fn another(who: Option<i32>) -> anyhow::Error {
    let who = who.map_or_else(String::new, |pid| format!(": {}", process(pid)));
    anyhow::anyhow!(
        "another weft router runs in this network namespace{who}; stop it first, or start this one in a namespace of its own"
    )
}

/// The lock file of this network namespace.
fn file(folder: &Path) -> anyhow::Result<PathBuf> {
    let namespace = std::fs::metadata("/proc/thread-self/ns/net")
        .context("cannot tell which network namespace this is")?;
    Ok(folder.join(format!("router-{}.lock", namespace.ino())))
}

fn is_denied(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Opens the file, or makes it and its folder: for the folder's owner, who may be the router's user while this is root.
fn open(folder: &Path, path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    if geteuid().is_root() {
        let owner = std::fs::metadata(folder)?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

fn lock(file: File) -> anyhow::Result<Flock<File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            // Without it nobody is named.
            let _ = file.read_to_string(&mut text);
            Err(another(text.trim().parse().ok()))
        }
        Err((_, error)) => Err(error).context("cannot take the router's lock"),
    }
}

/// The user whose folder this is, where it is there.
fn owner_of(folder: &Path) -> Option<u32> {
    std::fs::metadata(folder).ok().map(|folder| folder.uid())
}

/// Takes the name in this namespace. `None` where somebody has it who is no router, and the file is locked.
fn take_name(name: &str, owner: Option<u32>, locked: bool) -> anyhow::Result<Option<UnixListener>> {
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder(&address);
            match holder {
                Some((_, uid)) if locked && !is_router(uid, owner) => {
                    warn!(
                        user = uid,
                        "somebody has the name of the router's lock who is no router: nothing follows from that"
                    );
                    Ok(None)
                }
                None if locked => Ok(None),
                holder => Err(another(holder.map(|(pid, _)| pid))),
            }
        }
        Err(error) => Err(error).context("cannot take the router's lock"),
    }
}

/// True where a router runs in this network namespace, as far as this user can tell.
pub(crate) fn is_running() -> bool {
    let locked = file(Path::new(FOLDER)).ok().and_then(|path| {
        let file = File::open(path).ok()?;
        Some(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    });
    let address = SocketAddr::from_abstract_name(NAME);
    let holder = || holder(&address.ok()?);
    locked == Some(true)
        || holder().is_some_and(|(_, uid)| is_router(uid, owner_of(Path::new(FOLDER))))
}

/// A router may be this user's: root's, our own, or that of whose the folder is.
fn is_router(uid: u32, owner: Option<u32>) -> bool {
    uid == 0 || uid == getuid().as_raw() || Some(uid) == owner
}

/// The process that has the name, and its user.
fn holder(address: &SocketAddr) -> Option<(i32, u32)> {
    let stream = UnixStream::connect_addr(address).ok()?;
    let who = getsockopt(&stream, PeerCredentials).ok()?;
    Some((who.pid(), who.uid()))
}

/// A process, and how it was started.
fn process(pid: i32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    match words.trim() {
        "" => format!("process {pid}"),
        words => format!("process {pid}, `{words}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("weft-lock-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // It may not have been made.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_second_is_told_who_the_first_is_by_the_file_or_by_the_socket() {
        let name = format!("weft-test-{}", std::process::id());
        let own = format!("process {}, `", std::process::id());
        let (one, other) = (Scratch::new("one"), Scratch::new("other"));
        let first = Lock::take_in(&one.0, &name).unwrap();
        let file = file(&one.0).unwrap();
        assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600);
        // Beside the first, and in a container with another /run.
        for folder in [&one.0, &other.0] {
            let refused = format!("{:#}", Lock::take_in(folder, &name).unwrap_err());
            assert!(refused.contains(&own), "{refused}");
        }
        drop(first);
        Lock::take_in(&one.0, &name).unwrap();
    }

    /// Any user of the host can take an abstract name; this user's own counts as a router's, another one's does not.
    #[test]
    fn a_name_that_somebody_else_has_keeps_no_router_from_starting() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: another user takes root");
            return;
        }
        let (name, folder) = (
            format!("weft-other-{}", std::process::id()),
            Scratch::new("name"),
        );
        let script = "import socket, sys, time, os\n\
                      os.setuid(65534)\n\
                      s = socket.socket(socket.AF_UNIX); s.bind('\\0' + sys.argv[1]); s.listen()\n\
                      print('bound', flush=True); time.sleep(600)";
        let taker = std::process::Command::new("python3")
            .args(["-c", script, &name])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut taker) = taker else {
            eprintln!("SKIPPED: python3 is not there");
            return;
        };
        let mut line = [0; 5];
        taker
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let first = Lock::take_in(&folder.0, &name);
        let second = Lock::take_in(&folder.0, &name);
        taker.kill().unwrap();
        taker.wait().unwrap();
        first.unwrap();
        let second = format!("{:#}", second.unwrap_err());
        assert!(second.contains("another weft router"), "{second}");
    }
}
