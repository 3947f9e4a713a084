//! The file system that a node sees: the host's, copied on write.
//!
//! Each file system of the host has an overlay over it whose changes are kept in memory, as long as the lab is up. What a node's commands
//! write, remove or install is theirs alone. Not copied are the kernel's own trees (`/proc`, of which only `/proc/sys/net` can be written, and
//! `/sys`, which is that of the node's network namespace), and what the topology binds. `/dev` has the usual devices and nothing else. Weft's own folders begin
//! empty in each node, so that a node has neither the host's certificates nor those of an earlier lab.
//!
//! Where a file system takes no overlay, the node sees it read-only.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

use super::topology::Bind;

/// Where nodes have this program, under the name `weft`, whatever the host calls it.
pub(super) const PROGRAMS: &str = "/run/weft/bin";
/// The host's folder that it lies in: a program that is built anew is found when a node is started again.
const FOLDER: &str = "/run/weft/host-bin";
/// Where a node's router keeps what it has to know after a restart.
pub(super) const STATE: &str = "/var/lib/weft";
/// Folders that begin empty in each node.
const OWN: [&str; 5] = [
    "/run/weft",
    "/run/netns",
    "/etc/weft",
    STATE,
    "/var/lib/weft-controller",
];
/// Where the host's tree is while a node's is made.
const OLD: &str = "/tmp/.weft-host";
/// Folders in memory where nothing can be copied on write.
const SCRATCH: [&str; 3] = ["/tmp", "/run", "/var/tmp"];
/// File systems that the kernel makes up, and layers of containers: not part of what a node sees.
const LEFT_OUT: [&str; 9] = [
    "nsfs",
    "autofs",
    "cgroup",
    "cgroup2",
    "devpts",
    "mqueue",
    "hugetlbfs",
    "binfmt_misc",
    "fusectl",
];
const DEVICES: [&str; 13] = [
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "console",
    "ptmx",
    "net/tun",
    "kvm",
    "fuse",
    "ppp",
    "vhost-net",
];

/// A file of the host in a node. What replaces it on the host, as editors do, is bound again by [`follow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BoundFile {
    /// Where it is in the node.
    destination: PathBuf,
    /// Its name in the host's folder, which the node has too.
    behind: PathBuf,
    read_only: bool,
}

/// What was made of the host's file systems.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) files: Vec<BoundFile>,
    /// What the node sees read-only, with the reason.
    pub(super) read_only: Vec<String>,
}

/// Makes the root of the calling thread, which has a mount namespace of its own, that of a node. `scratch` is an empty folder of the host.
///
/// # Errors
/// What the kernel refused, with its words.
pub(super) fn build(binds: &[Bind], scratch: &Path) -> anyhow::Result<Built> {
    let mut built = Built::default();
    attach(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
    )?;
    fresh(scratch)?;
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mounts = shown(&table, scratch);
    let root = scratch.join("root");
    std::fs::create_dir(&root)?;
    let copied = cover(Path::new("/"), &root, scratch, 0);
    if let Err(reason) = copied {
        let flags = MsFlags::MS_BIND;
        attach(Some(Path::new("/")), &root, None, flags)?;
        only_read(&root)?;
        built.read_only.push(format!("/ ({reason})"));
        for folder in SCRATCH {
            if Path::new(folder).is_dir() {
                fresh(&inside(&root, folder))?;
            }
        }
    }
    let whole = built.read_only.is_empty();
    for (number, point) in mounts.iter().enumerate() {
        let there = inside(&root, point);
        if !whole && SCRATCH.iter().any(|folder| point.starts_with(folder)) {
            continue;
        }
        if point.is_file() {
            bind(point, &there, true)?;
        } else if let Err(reason) = cover(point, &there, scratch, number + 1) {
            bind(point, &there, true)?;
            built
                .read_only
                .push(format!("{} ({reason})", point.display()));
        }
    }
    kernel_trees(&root)?;
    enter(&root)?;
    for folder in OWN {
        if std::fs::create_dir_all(folder).is_ok() {
            fresh(Path::new(folder))?;
        }
    }
    let own = present(&std::env::current_exe()?);
    if let (Some(folder), Some(name)) = (own.parent(), own.file_name()) {
        std::fs::create_dir_all(PROGRAMS)?;
        std::fs::create_dir_all(FOLDER)?;
        bind(&old(folder), Path::new(FOLDER), true)?;
        let program = Path::new(FOLDER).join(name);
        std::os::unix::fs::symlink(program, Path::new(PROGRAMS).join("weft"))?;
        // The shell of small images, by the name that they call it; Debian's is of the same family.
        if !["/bin/ash", "/usr/bin/ash"]
            .iter()
            .any(|ash| Path::new(ash).exists())
        {
            std::os::unix::fs::symlink("/bin/sh", Path::new(PROGRAMS).join("ash"))?;
        }
    }
    for (number, bind) in binds.iter().enumerate() {
        let what = || format!("cannot bind {}", bind.destination.display());
        built.files.extend(put(bind, number).with_context(what)?);
    }
    umount2(OLD, MntFlags::MNT_DETACH)?;
    std::fs::remove_dir(OLD)?;
    Ok(built)
}

/// Binds those of the node's files again that have been replaced on the host. The calling thread is in the node.
///
/// # Errors
/// One is not there any more.
pub(super) fn follow(files: &[BoundFile]) -> anyhow::Result<()> {
    for file in files {
        let wanted = std::fs::metadata(&file.behind).with_context(|| {
            format!(
                "the file that {} was bound to is not there any more",
                file.destination.display()
            )
        })?;
        let has = std::fs::metadata(&file.destination);
        if has.is_ok_and(|has| (has.dev(), has.ino()) == (wanted.dev(), wanted.ino())) {
            continue;
        }
        // It may be gone already.
        let _ = umount2(&file.destination, MntFlags::MNT_DETACH);
        bind(&file.behind, &file.destination, file.read_only)?;
    }
    Ok(())
}

/// Where a program is that runs: the kernel says so of one that was replaced meanwhile, as by a build.
fn present(running: &Path) -> PathBuf {
    let text = running.to_string_lossy();
    text.strip_suffix(" (deleted)")
        .map_or_else(|| running.to_owned(), PathBuf::from)
}

/// Puts one of the topology's binds in its place.
fn put(bound: &Bind, number: usize) -> anyhow::Result<Option<BoundFile>> {
    let Some(source) = &bound.source else {
        // A file that is there is the node's own already.
        if !bound.destination.is_file() {
            make(&bound.destination, true)?;
            fresh(&bound.destination)?;
        }
        return Ok(None);
    };
    let source = std::fs::canonicalize(old(source))?;
    let folder = source.is_dir();
    make(&bound.destination, folder)?;
    if folder {
        bind(&source, &bound.destination, bound.read_only)?;
        return Ok(None);
    }
    let (Some(parent), Some(name)) = (source.parent(), source.file_name()) else {
        bail!("{} has no folder", source.display());
    };
    let behind = Path::new("/run/weft/binds").join(number.to_string());
    std::fs::create_dir_all(&behind)?;
    bind(parent, &behind, true)?;
    let file = BoundFile {
        destination: bound.destination.clone(),
        behind: behind.join(name),
        read_only: bound.read_only,
    };
    bind(&file.behind, &file.destination, file.read_only)?;
    Ok(Some(file))
}

/// A place for a mount.
fn make(at: &Path, folder: bool) -> anyhow::Result<()> {
    if at.exists() {
        return Ok(());
    }
    let made = match folder {
        true => std::fs::create_dir_all(at),
        false => std::fs::create_dir_all(at.parent().unwrap_or(at))
            .and_then(|()| File::create(at).map(drop)),
    };
    made.with_context(|| format!("{} is not there and cannot be made", at.display()))
}

/// An overlay over a folder of the host; the reason where that cannot be.
fn cover(lower: &Path, at: &Path, scratch: &Path, number: usize) -> Result<(), String> {
    let layer = |what: &str| {
        let folder = scratch.join(format!("{what}{number}"));
        std::fs::create_dir(&folder).map(|()| folder)
    };
    let words = |error: std::io::Error| error.to_string();
    let (upper, work) = (
        layer("upper").map_err(words)?,
        layer("work").map_err(words)?,
    );
    // The upper folder is what the root of the overlay looks like: whose it is and what may be done there.
    let like = std::fs::metadata(lower).map_err(words)?;
    std::fs::set_permissions(&upper, like.permissions()).map_err(words)?;
    std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid())).map_err(words)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        escaped(lower),
        escaped(&upper),
        escaped(&work)
    );
    mount(
        Some("overlay"),
        at,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|error| format!("no overlay: {}", error.desc()))
}

/// A path as an option of an overlay.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for c in path.display().to_string().chars() {
        if matches!(c, '\\' | ':' | ',') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// `/proc`, `/sys` and `/dev` below the root that is being made.
fn kernel_trees(root: &Path) -> anyhow::Result<()> {
    let proc = inside(root, "/proc");
    attach(Some(Path::new("/proc")), &proc, None, MsFlags::MS_BIND)?;
    // Kernel parameters are the host's but for the network's.
    let parameters = proc.join("sys");
    bind(&parameters, &parameters, true)?;
    bind(Path::new("/proc/sys/net"), &parameters.join("net"), false)?;
    let trigger = proc.join("sysrq-trigger");
    if trigger.exists() {
        bind(&trigger, &trigger, true)?;
    }
    // That of the network namespace that the thread is in.
    attach(
        Some(Path::new("sysfs")),
        &inside(root, "/sys"),
        Some("sysfs"),
        MsFlags::empty(),
    )?;
    let dev = inside(root, "/dev");
    fresh(&dev)?;
    for device in DEVICES {
        let source = Path::new("/dev").join(device);
        if source.exists() {
            let there = dev.join(device);
            make(&there, false)?;
            bind(&source, &there, false)?;
        }
    }
    std::fs::create_dir(dev.join("shm"))?;
    fresh(&dev.join("shm"))?;
    std::fs::set_permissions(
        dev.join("shm"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )?;
    if Path::new("/dev/pts").is_dir() {
        std::fs::create_dir(dev.join("pts"))?;
        attach(
            Some(Path::new("/dev/pts")),
            &dev.join("pts"),
            None,
            MsFlags::MS_BIND,
        )?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, dev.join(link))?;
    }
    Ok(())
}

/// Makes `root` the root of the thread; the host's is at [`OLD`] then.
fn enter(root: &Path) -> anyhow::Result<()> {
    let old = inside(root, OLD);
    std::fs::create_dir_all(&old)?;
    pivot_root(root, &old).context("cannot change the root")?;
    Ok(chdir("/")?)
}

/// A path of the host while a node's tree is made.
fn old(path: &Path) -> PathBuf {
    inside(Path::new(OLD), path)
}

fn inside(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// An empty folder in memory.
fn fresh(at: &Path) -> anyhow::Result<()> {
    mount(
        Some("weft-lab"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .with_context(|| format!("cannot mount a tmpfs at {}", at.display()))
}

fn bind(source: &Path, at: &Path, read_only: bool) -> anyhow::Result<()> {
    attach(Some(source), at, None, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    match read_only {
        true => only_read(at),
        // What was bound from a read-only place is read-only too; a device on a read-only file system of its own stays so.
        false => {
            let _ = attach(None, at, None, MsFlags::MS_BIND | MsFlags::MS_REMOUNT);
            Ok(())
        }
    }
}

fn only_read(at: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    attach(None, at, None, flags)
}

fn attach(
    source: Option<&Path>,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
) -> anyhow::Result<()> {
    mount(source, at, kind, flags, None::<&str>).with_context(|| match source {
        Some(source) => format!("cannot mount {} at {}", source.display(), at.display()),
        None => format!("cannot change the mount at {}", at.display()),
    })
}

/// The mount points of the host that a node sees beside `/`, outer ones first, from a table in the format of `mountinfo` (proc(5)).
fn shown(table: &str, scratch: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = Vec::new();
    for line in table.lines() {
        let mut words = line.split(' ');
        let (point, kind) = (words.nth(4), words.skip_while(|word| *word != "-").nth(1));
        let (Some(point), Some(kind)) = (point.map(unescaped), kind) else {
            continue;
        };
        let apart = ["/proc", "/sys", "/dev", "/run/netns"]
            .iter()
            .any(|tree| point.starts_with(tree));
        let layers = [
            "/var/lib/docker",
            "/var/lib/containers",
            "/run/docker",
            "/snap",
        ]
        .iter()
        .any(|tree| point.starts_with(tree));
        let hidden = apart || layers || LEFT_OUT.contains(&kind) || point == Path::new("/");
        if !hidden && !point.starts_with(scratch) && !points.contains(&point) {
            points.push(point);
        }
    }
    // A mount hides what was mounted below its point before it.
    points.sort();
    points.retain(|point| point.exists());
    points
}

/// Undoes the escapes of `mountinfo`: `\040` is a blank.
fn unescaped(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4);
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(octet) => {
                out.push(char::from(octet));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sees_file_systems_and_not_what_the_kernel_makes_up() {
        let table = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /proc rw shared:1 - proc proc rw
24 22 0:6 / /usr/share rw - tmpfs t rw
25 22 0:7 / /run/netns/x rw shared:4 - nsfs nsfs rw
26 22 0:8 / /tmp rw - tmpfs t rw
27 22 0:9 / /usr rw - ext4 /dev/vdb rw
28 22 0:10 / /tmp rw - tmpfs hides-it rw
29 22 0:11 / /not\\040there rw - ext4 /dev/vdc rw
30 22 0:12 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw
31 22 0:13 / /tmp/scratch/root rw - tmpfs t rw
";
        let points = shown(table, Path::new("/tmp/scratch"));
        assert_eq!(points, ["/tmp", "/usr", "/usr/share"].map(PathBuf::from));
    }

    #[test]
    fn a_program_that_was_replaced_is_where_it_was() {
        for running in ["/x/weft", "/x/weft (deleted)"] {
            assert_eq!(present(Path::new(running)), Path::new("/x/weft"));
        }
    }

    #[test]
    fn paths_are_written_as_the_kernel_reads_them() {
        assert_eq!(unescaped("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(escaped(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }
}
