//! Harness of the tests of whole systems: labs in network namespaces, daemons in their nodes, scripted BGP peers.
//!
//! Nothing here is for production: whatever goes wrong panics, with a message that says what was awaited.

#![allow(clippy::unwrap_used, reason = "test harness: a panic is its verdict")]

pub mod chain;
mod domain;
mod flow;
pub mod frames;
mod lab;
mod peer;
pub mod tcp;
pub mod topology;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub use domain::Controller;
pub use flow::{Damage, Flow, Verdicts};
pub use lab::{Daemon, Lab, frr, frr_daemons, in_netns, output};
pub use peer::{Message, Peer, Speaker, attribute, update};

/// The `weft` binary: `WEFT_BIN`, else the one that cargo built beside these tests.
///
/// # Panics
/// Where there is none.
pub fn weft() -> PathBuf {
    if let Some(path) = std::env::var_os("WEFT_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/test-hash
    let target = test.ancestors().nth(3).unwrap();
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("weft"))
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!(
                "no weft under {}: cargo build --release -p weft",
                target.display()
            )
        })
}

/// Calls `probe` until it answers.
///
/// # Panics
/// Where it has not answered after `deadline`, with `what`.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {} s in vain: {what}",
            deadline.as_secs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether every one of `programs` is installed; says aloud what is missing. Root counts as one of them.
pub fn need(programs: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: root (network namespaces)");
        return false;
    }
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .collect();
    for program in &missing {
        eprintln!("SKIPPED: {program}");
    }
    missing.is_empty()
}

/// Where a program is: in `PATH`, in the system's directories, or in FRR's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/usr/lib/frr"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Where routers of tests have their API: at a port, which is reached by a network namespace alone, without a node's files.
pub const API: &str = "127.0.0.1:8179";

/// A router's configuration that says [`API`], where it says nothing of the API.
pub(crate) fn with_api(config: &str) -> String {
    let router = config.lines().any(|line| line.starts_with("router: {"));
    match router && !config.contains("\napi:") {
        true => format!("{}\napi: {{ listen: {API} }}\n", config.trim_end()),
        false => config.to_owned(),
    }
}

/// `ip netns exec NETNS PROGRAM`, for arguments to be added.
pub fn netns_command(netns: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(program);
    command.env("WEFT_API", API);
    command
}
