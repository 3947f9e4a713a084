//! Threads in the namespaces of nodes. A process that such a thread starts is in them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};

use super::root::{self, Built};
use super::topology::Bind;

/// Where network namespaces have names, as `ip netns` knows them.
const NAMES: &str = "/run/netns";

/// The file of a network namespace.
pub(super) fn netns(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Runs `task` on a thread of its own, which it may take to other namespaces.
pub(super) fn apart<T: Send>(task: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| match scope.spawn(task).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// What holds a node's namespaces.
pub(super) struct Held {
    /// A process that does nothing.
    pub(super) holder: i32,
    pub(super) root: Built,
}

/// Makes the namespaces of a node: a network of this name, or that of `other`; a name of its own; a root. `scratch` is an empty folder.
pub(super) fn make(
    node: &str,
    network: &str,
    other: Option<&str>,
    binds: &[Bind],
    scratch: &Path,
) -> anyhow::Result<Held> {
    apart(|| {
        match other {
            None => unshare(CloneFlags::CLONE_NEWNET)?,
            Some(other) => setns(File::open(netns(other))?, CloneFlags::CLONE_NEWNET)?,
        }
        let file = netns(network);
        File::options().write(true).create_new(true).open(&file)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &file,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .context("cannot name a network namespace")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
        std::fs::write("/proc/sys/kernel/hostname", node)?;
        let root = root::build(binds, scratch)?;
        let holder = Command::new("sleep")
            .arg("infinity")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It outlives the terminal that the lab was made in.
            .process_group(0)
            .spawn()
            .context("cannot start `sleep`")?;
        let holder = i32::try_from(holder.id()).context("a process number out of range")?;
        Ok(Held { holder, root })
    })
    .with_context(|| format!("node {node}"))
}

/// Runs `task` in all namespaces of a node, which this process holds.
pub(super) fn within<T: Send>(
    holder: i32,
    task: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    apart(|| {
        let open = |what: &str| File::open(format!("/proc/{holder}/{what}"));
        let spaces = [
            (open("ns/net")?, CloneFlags::CLONE_NEWNET),
            (open("ns/uts")?, CloneFlags::CLONE_NEWUTS),
            (open("ns/ipc")?, CloneFlags::CLONE_NEWIPC),
            (open("ns/mnt")?, CloneFlags::CLONE_NEWNS),
        ];
        let root = open("root")?;
        unshare(CloneFlags::CLONE_FS)?;
        for (file, kind) in spaces {
            setns(file, kind)?;
        }
        // Its root, which need not be that of its mount namespace.
        fchdir(&root)?;
        chroot(".")?;
        task()
    })
}

/// Runs `task` in a network namespace.
pub(super) fn within_network<T: Send>(
    name: &str,
    task: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    apart(|| {
        setns(File::open(netns(name))?, CloneFlags::CLONE_NEWNET)?;
        task()
    })
}

/// Makes [`NAMES`] what `ip netns` makes of it: names that are given here are seen in other mount namespaces.
pub(super) fn prepare_names() -> anyhow::Result<()> {
    let names = Path::new(NAMES);
    std::fs::create_dir_all(names)?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, names, None::<&str>, flags, None::<&str>)
    };
    if share().is_ok() {
        return Ok(());
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(names), names, None::<&str>, flags, None::<&str>)?;
    share().map_err(|error| anyhow!("cannot share the mount at {NAMES}: {}", error.desc()))
}

/// Takes the name from a network namespace; it is gone when its last process is.
pub(super) fn forget(name: &str) -> anyhow::Result<()> {
    let file = netns(name);
    // A build may have broken off before it was mounted.
    let _ = umount2(&file, MntFlags::MNT_DETACH);
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

/// The number by which the kernel knows a namespace.
pub(super) fn number(file: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// All processes that are in one of these network namespaces.
pub(super) fn processes(networks: &[(u64, u64)]) -> anyhow::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if number(&entry.path().join("ns/net")).is_some_and(|at| networks.contains(&at)) {
            found.push(pid);
        }
    }
    Ok(found)
}
