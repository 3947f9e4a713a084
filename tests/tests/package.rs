//! The Debian package, in a copy of this system that nothing stays of: installed, upgraded, downgraded, removed, purged.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::{Path, PathBuf};
use std::process::Command;

use weft_tests::{need, output, weft};

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("weft-package-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn build(&self, version: &str) -> PathBuf {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/debian/build");
        let mut build = Command::new(script);
        build.arg(weft()).arg(&self.0).arg(version);
        // Soon there rather than small; the time of the last commit is not known where there is no history.
        build.envs([
            ("WEFT_DEB_COMPRESSION", "-Zgzip -z1"),
            ("SOURCE_DATE_EPOCH", "1700000000"),
        ]);
        output(&mut build).trim().into()
    }
}

/// What a package says of itself, and each of its files with owner, size, time and digest: few lines where the package is
/// large.
fn contents(package: &Path) -> String {
    const LINES: &str = r#"
dpkg-deb -f "$0"
dpkg-deb -c "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
dpkg-deb -R "$0" "$folder"
cd "$folder"
find . -type f -exec md5sum {} +
"#;
    output(Command::new("sh").args(["-ec", LINES]).arg(package))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs lines in a copy of this system's files, which nobody else sees, and which is gone when they have run.
fn in_copy(packages: &Path, lines: &str) -> String {
    let enter = r#"
set -e
mount -t tmpfs copy /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work copy /mnt/root
mount -t tmpfs run /mnt/root/run
mount --bind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
mount --bind "$PACKAGES" /mnt/root/mnt
exec chroot /mnt/root /bin/sh -euxc "$LINES"
"#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--propagation", "private"]);
    unshare.args(["sh", "-c", enter]).env("LINES", lines);
    unshare.env("PACKAGES", packages);
    unshare.env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut unshare)
}

const LINES: &str = r#"
unit() { test -L /etc/systemd/system/multi-user.target.wants/$1.service; }
old=/mnt/weft_1.0.0_*.deb new=/mnt/weft_1.1.0_*.deb

dpkg -i $old
getent passwd weft
getent group weft-api
test "$(stat -c %U:%G:%a /etc/weft)" = root:weft:750
unit weft
unit weft-controller
weft version
grep -q '^87.weft$' /etc/iproute2/rt_protos.d/weft.conf
for page in weft weft-router weft-controller-run; do test -e /usr/share/man/man1/$page.1.gz; done
if command -v systemd-analyze; then
    systemd-analyze verify /lib/systemd/system/weft.service /lib/systemd/system/weft-controller.service
fi

# What is the administrator's stays, through everything.
cp /usr/share/doc/weft/examples/one-router/weft.yaml /etc/weft/
weft check /etc/weft/weft.yaml
mkdir -p /var/lib/weft/r1 /var/lib/weft-controller
echo '87 overlay' >/etc/iproute2/rt_protos.d/weft.conf
ours() { test -e /etc/weft/weft.yaml && test -d /var/lib/weft-controller; }
dpkg -i $new
dpkg-query -W -f '${Version}' weft | grep -qx 1.1.0
ours && test -d /var/lib/weft/r1 && grep -q overlay /etc/iproute2/rt_protos.d/weft.conf
unit weft
systemctl disable weft.service
dpkg -i $old
dpkg-query -W -f '${Version}' weft | grep -qx 1.0.0
ours && test -d /var/lib/weft/r1
if unit weft; then exit 1; fi
dpkg -r weft
test ! -e /usr/bin/weft
ours && test -d /var/lib/weft/r1
dpkg -i $new
dpkg -P weft
ours
if test -e /var/lib/weft || unit weft || unit weft-controller; then exit 1; fi
"#;

#[test]
fn a_package_comes_and_goes_and_keeps_what_is_the_administrators() {
    if !need(&["dpkg-deb", "unshare", "objdump", "git", "systemctl"]) {
        return;
    }
    let scratch = Scratch::new();
    let old = scratch.build("1.0.0");
    let kept = old.with_extension("first");
    std::fs::rename(&old, &kept).unwrap();
    assert_eq!(scratch.build("1.0.0"), old);
    if std::fs::read(&kept).unwrap() != std::fs::read(&old).unwrap() {
        assert_eq!(contents(&kept), contents(&old));
        panic!("other octets of the same binary, with the same contents");
    }
    scratch.build("1.1.0");
    in_copy(&scratch.0, LINES);
}
