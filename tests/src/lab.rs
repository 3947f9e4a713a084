//! Labs: routers and hosts in network namespaces, built and taken down by `weft lab`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{API, netns_command, wait_until, weft, with_api};

/// A lab that is up; it goes down with the value.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
}

impl Lab {
    /// Brings up `topology`, without its `name:` line, with `files` beside it. The name is unique.
    ///
    /// # Panics
    /// Where `weft lab up` fails.
    pub fn up(topology: &str, files: &[(String, String)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "w{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(format!("weft-test-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in files {
            std::fs::write(directory.join(file), with_api(text)).unwrap();
        }
        let file = directory.join("lab.clab.yaml");
        std::fs::write(&file, format!("name: {name}\n{topology}")).unwrap();
        let lab = Self { name, directory };
        output(Command::new(weft()).args(["lab", "up"]).arg(&file));
        lab
    }

    /// A file or directory for this lab, gone with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of [`Lab::path`].
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The network namespace of a node.
    pub fn netns(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// Runs `task` in a node's network namespace. Sockets that it opens stay there.
    ///
    /// # Panics
    /// Where `task` panics.
    pub fn in_node<T: Send>(&self, node: &str, task: impl FnOnce() -> T + Send) -> T {
        in_netns(&self.netns(node), task)
    }

    /// A command in a node's network namespace, for arguments to be added.
    pub fn command(&self, node: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        netns_command(&self.netns(node), program)
    }

    /// What a command in a node writes to standard output.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self, node: &str, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        output(self.command(node, program).args(words))
    }

    /// SIGKILLs the node's weft process.
    ///
    /// # Panics
    /// Where `weft lab kill` fails.
    pub fn kill(&self, node: &str) {
        self.lab("kill", node);
    }

    /// Sends a signal to the node's weft process.
    ///
    /// # Panics
    /// Where none runs.
    pub fn signal(&self, node: &str, signal: Signal) {
        let file = format!("/run/weft/labs/{}/{node}.pid", self.name);
        let pid = std::fs::read_to_string(file).unwrap().trim().parse();
        kill(Pid::from_raw(pid.unwrap()), signal).unwrap();
    }

    /// Starts the node's weft process as soon as the one before, which has been told to end, has ended.
    ///
    /// # Panics
    /// Where that does not come.
    pub fn start_again(&self, node: &str) {
        let what = format!("{node} starts again");
        wait_until(&what, Duration::from_secs(30), || {
            let mut start = Command::new(weft());
            start.args(["lab", "start", "--lab", &self.name, node]);
            start.output().unwrap().status.success().then_some(())
        });
    }

    /// Starts the node's weft process.
    ///
    /// # Panics
    /// Where `weft lab start` fails.
    pub fn start(&self, node: &str) {
        self.lab("start", node);
    }

    /// Kills the node's router and starts it with another configuration.
    ///
    /// # Panics
    /// Where `weft lab kill` or `weft lab start` fails.
    pub fn restart(&self, node: &str, config: &str) {
        self.kill(node);
        self.start_with(node, config);
    }

    /// Starts the node's router with another configuration.
    ///
    /// # Panics
    /// Where `weft lab start` fails.
    pub fn start_with(&self, node: &str, config: &str) {
        self.configure(node, config);
        self.start(node);
    }

    /// Writes a configuration in place: the node has this file bound.
    fn configure(&self, node: &str, config: &str) {
        let file = self.path(&format!("{node}.yaml"));
        std::fs::write(file, with_api(config)).unwrap();
    }

    /// Gives the node's router another configuration, and waits until it says what changed, or that it is wrong: the line of its
    /// log.
    ///
    /// # Panics
    /// Where it says neither.
    pub fn reload(&self, node: &str, config: &str) -> String {
        let before = self.log(node).len();
        self.configure(node, config);
        self.lab("reload", node);
        wait_until("the reload", Duration::from_secs(30), || {
            let log = self.log(node);
            let mut lines = log[before..].lines();
            let told =
                lines.find(|line| line.contains("reloaded: ") || line.contains("stays as it was"));
            told.map(str::to_owned)
        })
    }

    /// What the node's weft process wrote.
    ///
    /// # Panics
    /// Where `weft lab logs` fails.
    pub fn log(&self, node: &str) -> String {
        self.lab("logs", node)
    }

    /// What a command of a shell writes in a node, whose files are its own.
    ///
    /// # Panics
    /// Where it fails.
    pub fn shell(&self, node: &str, line: &str) -> String {
        let words = [
            "lab", "exec", "--lab", &self.name, node, "--", "sh", "-c", line,
        ];
        output(Command::new(weft()).env("WEFT_API", API).args(words))
    }

    fn lab(&self, verb: &str, node: &str) -> String {
        output(Command::new(weft()).args(["lab", verb, "--lab", &self.name, node]))
    }

    /// The node's answer to a GET of `/api/v1/PATH`; `None` where there is no router, or a problem is the answer.
    pub fn get(&self, node: &str, path: &str) -> Option<Value> {
        self.ask(node, "GET", path)
    }

    /// The same of a POST without a body.
    pub fn post(&self, node: &str, path: &str) -> Option<Value> {
        self.ask(node, "POST", path)
    }

    fn ask(&self, node: &str, method: &str, path: &str) -> Option<Value> {
        let url = format!("http://{API}/api/v1/{path}");
        let answer = self
            .command(node, "curl")
            .args(["-sf", "-X", method, "--max-time", "10", &url])
            .output()
            .unwrap();
        answer
            .status
            .success()
            .then(|| serde_json::from_slice(&answer.stdout).unwrap())
    }

    /// One neighbour of a node.
    pub fn neighbor(&self, node: &str, address: &str) -> Option<Value> {
        self.get(node, &format!("neighbors/{address}"))
    }

    /// The paths that a node holds to a prefix; none where there is no route.
    pub fn paths(&self, node: &str, prefix: &str) -> Vec<Value> {
        let page = self.get(node, &format!("routes?prefix={prefix}"));
        let paths = page.and_then(|page| page["items"].get(0)?.get("paths")?.as_array().cloned());
        paths.unwrap_or_default()
    }

    /// Waits until every neighbour of the node is established, its table complete, and the kernel as it should be.
    ///
    /// # Panics
    /// Where that does not come.
    pub fn converged(&self, node: &str) {
        let what = format!("{node} converged");
        wait_until(&what, Duration::from_secs(120), || {
            let status = self.get(node, "status")?;
            let sessions = status["neighbors"] == status["neighbors_established"];
            let settled = || Some(self.get(node, "kernel")?["settled"] == true);
            (status["converged"] == true && sessions && settled()?).then_some(())
        });
    }

    /// Waits until a ping from the node arrives.
    ///
    /// # Panics
    /// Where none does.
    pub fn reaches(&self, node: &str, address: &str) {
        let what = format!("a ping from {node} to {address}");
        wait_until(&what, Duration::from_secs(90), || {
            let ping = self
                .command(node, "ping")
                .args(["-c1", "-W1", address])
                .stdout(Stdio::null())
                .status();
            ping.unwrap().success().then_some(())
        });
    }

    /// Starts a daemon in a node; it ends with the value. Its output goes to `NAME.log` in the lab's directory.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn daemon(&self, node: &str, program: &Path, arguments: &[&str]) -> Daemon {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let log = self.path(&format!("{node}-{name}.log"));
        let file = File::create(&log).unwrap();
        let child = self
            .command(node, program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Daemon { child, log }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "lab {} had been built in {}",
                self.name,
                self.directory.display()
            );
        }
        let down = Command::new(weft())
            .args(["lab", "down", &self.name])
            .output();
        match down {
            Ok(down) if down.status.success() => {}
            other => eprintln!("lab {} does not go down: {other:?}", self.name),
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// A process in a node; it ends with the value.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Ends it with a signal and returns all that it wrote.
    ///
    /// # Panics
    /// Where it cannot be signalled.
    pub fn stop(mut self, signal: Signal) -> String {
        self.end(signal);
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for its end and returns all that it wrote.
    ///
    /// # Panics
    /// Where it cannot be waited for.
    pub fn wait(mut self) -> String {
        self.child.wait().unwrap();
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Sends it a signal, without waiting for what comes of it.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        self.end(Signal::SIGKILL);
    }
}

/// FRR's zebra and bgpd in a node, configured by `zebra.conf` and `bgpd.conf` beside the topology.
///
/// # Panics
/// Where FRR is not installed, or zebra does not start.
pub fn frr(lab: &Lab, node: &str) -> [Daemon; 2] {
    let [zebra, bgpd] = frr_daemons(lab, node, &["bgpd"]).try_into().unwrap();
    [zebra, bgpd]
}

/// FRR's zebra and others of its daemons in a node, each configured by a file of its name beside the topology.
///
/// # Panics
/// Where FRR is not installed, or zebra does not start.
pub fn frr_daemons(lab: &Lab, node: &str, names: &[&str]) -> Vec<Daemon> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let zserv = lab.path("zserv.api");
    let directory = text(lab.directory());
    // FRR's daemons run as its own user, and leave their sockets there.
    let user = nix::unistd::User::from_name("frr").unwrap().unwrap();
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    std::os::unix::fs::chown(lab.directory(), Some(uid), Some(gid)).unwrap();
    let control = text(&lab.path("bfdd.sock"));
    let start = |name: &str| {
        let config = lab.path(&format!("{name}.conf"));
        let pid = lab.path(&format!("{name}.pid"));
        let mut arguments = [
            "-f",
            &text(&config),
            "-z",
            &text(&zserv),
            "-i",
            &text(&pid),
            "--vty_socket",
            &directory,
            "--log",
            "stdout",
        ]
        .map(str::to_owned)
        .to_vec();
        if name == "bfdd" {
            arguments.extend(["--bfdctl".to_owned(), control.clone()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lab.daemon(node, &Path::new("/usr/lib/frr").join(name), &arguments)
    };
    let zebra = start("zebra");
    wait_until("zebra's socket", Duration::from_secs(20), || {
        zserv.exists().then_some(())
    });
    let others = names.iter().map(|name| start(name));
    std::iter::once(zebra).chain(others).collect()
}

/// What a command writes to standard output.
///
/// # Panics
/// Where it fails, with what it said.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `task` in a network namespace, on a thread of its own. Sockets that it opens stay there wherever they go.
///
/// # Panics
/// Where the namespace does not exist, or `task` panics.
pub fn in_netns<T: Send>(netns: &str, task: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(Path::new("/run/netns").join(netns)).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            task()
        });
        thread.join().unwrap()
    })
}
